"""Which kernels compute a convolution, and its launch, for all operators that are one. Channels-last in memory.

`_possible` says which algorithms a layer has; the planner's rule chooses (`convchoice`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from .builder import Builder, Declined, OperatorError
from .convchoice import ConvLayer, is_winograd, winograd_by_cost, winograd_forms
from .integers import kernel_type, paired, sum_type
from .kernels import conv as dense
from .kernels import convweights
from .kernels import depthwise as light
from .kernels import winograd as fast
from .kernels.blocking import crosses_rows, panel_width
from .kernels.image import Alloc, Image, Opaque
from .kernels.packing import Packing
from .kernels.sizes import cached, most
from .kernels.templates import launches
from .primitives import LaunchContext, Operand, Parts, Tail, Tensor


def windows(
    X: Tensor, W: Tensor, *, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, tuple[int, ...]]:
    """Strides, dilations, borders before the image, groups, and the size of the output."""
    if X.rank < 3 or W.rank != X.rank:
        raise OperatorError(f"Conv of an input of rank {X.rank} with weights of rank {W.rank}")
    spatial, kernel = X.rank - 2, W.shape[2:]
    if spatial > 3:
        raise Declined("convolution over more than 3 dimensions")
    if kernel_shape is not None and tuple(kernel_shape) != kernel:
        raise OperatorError(f"kernel_shape {list(kernel_shape)} differs from the weights' {list(kernel)}")
    if X.shape[1] != W.shape[1] * group or W.shape[0] % group:
        raise OperatorError(f"{X.shape[1]} input channels in {group} groups do not fit weights {list(W.shape)}")
    steps, dils = tuple(strides or (1,) * spatial), tuple(dilations or (1,) * spatial)
    begin, end = padding(auto_pad, pads, X.shape[2:], kernel, steps, dils)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dils)]
    size = tuple((n + b + e - x) // s + 1 for n, b, e, x, s in zip(X.shape[2:], begin, end, extent, steps))
    if any(n + b + e < x for n, b, e, x in zip(X.shape[2:], begin, end, extent)):
        raise OperatorError(f"kernel {extent} is larger than the padded image of {list(X.shape[2:])}")
    return steps, dils, begin, group, size


def padding(
    auto_pad: str,
    pads: Sequence[int] | None,
    image: Sequence[int],
    kernel: Sequence[int],
    steps: Sequence[int],
    dils: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Borders before and after each spatial dimension, from `pads` or `auto_pad`."""
    count = len(image)
    if auto_pad in ("NOTSET", "", "VALID"):
        given = tuple(pads) if pads and auto_pad != "VALID" else (0,) * (2 * count)
        if len(given) != 2 * count:
            raise OperatorError(f"pads {list(given)} do not fit {count} spatial dimensions")
        return given[:count], given[count:]
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise OperatorError(f"unknown auto_pad {auto_pad!r}")
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, s, k, d in zip(image, steps, kernel, dils)]
    small, large = tuple(x // 2 for x in total), tuple(x - x // 2 for x in total)
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


@dataclass(frozen=True)
class _Algorithm:
    """One way to compute a convolution.

    Attributes:
        name: for people, and part of the key under which packed filters are shared.
        packing: the filters in the kernel's order; weights: their description for an address.
        launch: ``launch(dtype, image, weights, output, **rest)``; rest is what all algorithms take.
    """

    name: str
    packing: Packing | Callable[[np.ndarray], np.ndarray]
    weights: Callable[[object], object]
    launch: Callable[..., list]


def _is_depthwise(W: Tensor, group: int) -> bool:
    return W.shape[1] == 1 and group > 1


def _kernel_order(X: Tensor, W: Tensor, begin: Sequence[int], size: tuple[int, ...]) -> tuple[int, ...]:
    """Spatial dimensions as kernels see them: those of size one before the others.

    Kernels walk along the last dimension, and a sequence is often given as a picture of width one. Nothing moves in memory.
    """
    units = [i for i, n in enumerate(size) if W.shape[2 + i] == 1 and begin[i] == 0 and n == X.shape[2 + i] == 1]
    return (*units, *(i for i in range(len(size)) if i not in units))


def _possible(
    X: Tensor, W: Tensor, layer: ConvLayer, order: tuple[int, ...], size: tuple[int, ...], threads: int, sum_bits: Callable[[], int]
) -> list[str]:  # fmt: skip
    """Names of the algorithms that compute a layer; first the one that is expected to be the fastest for that output size.

    Depthwise for groups of one channel; Winograd where it is expected to win; else direct.
    """
    if X.dtype != np.int16 and _is_depthwise(W, layer.groups):
        return ["depthwise"]
    filters = (W.shape[0], convweights.counted(W.shape[1], W.dtype), *(W.shape[2 + i] for i in order))
    names = ["direct"]
    if convweights.foldable(filters, layer.groups) and W.is_constant:
        # saves tiles what they spend on each row of the window, of which high ones have many pixels to each
        names.insert(0 if crosses_rows() else 1, "direct, rows folded")
    if X.dtype in (np.float32, np.int16) and W.is_constant and _may_be_winograd(X, W, layer, order):
        forms = winograd_forms(layer)
        bits = sum_bits() if forms else 0
        names += [name for name, form in forms.items() if form.sum_bits >= bits]
        if best := winograd_by_cost(layer, size, threads, bits):
            names.sort(key=lambda name: name != best)
    return names


def _may_be_winograd(X: Tensor, W: Tensor, layer: ConvLayer, order: tuple[int, ...]) -> bool:
    """Whether forms of Winograd compute a layer, if it is one of float32 or int16 with constant filters."""
    plane = all(W.shape[2 + i] == 1 and X.shape[2 + i] == 1 for i in order[:-2])
    return plane and set(layer.strides) == {1} and fast.fits(X.shape[1], W.shape[0], layer.groups, X.dtype)


@cached(maxsize=4096)
def _algorithm(name: str, layer: ConvLayer, dtype: np.dtype, order: tuple[int, ...]) -> _Algorithm:
    """One of the `_possible` algorithms; `dtype`: of the filters."""
    steps, dils, begin = ([of[i] for i in order] for of in (layer.strides, layer.dilations, layer.pads))
    shape, group = layer.filters, layer.groups
    filters = (shape[0], convweights.counted(shape[1], dtype), *(shape[2 + i] for i in order))
    if name == "depthwise":
        return _Algorithm(
            name, lambda w: light.pack_depthwise(w, group), lambda at: light.DepthwiseWeights.of(filters, group, at),
            lambda d, x, w, y, **rest: light.depthwise(d, x, w, y, steps, dils, begin, **rest),
        )  # fmt: skip
    if is_winograd(name):
        form = replace(winograd_forms(layer)[name], taps=(1, *filters[2:])[-2:])
        pads, apart = (0, *begin)[-2:], (1, *dils)[-2:]
        return _Algorithm(
            name, fast.winograd_packing(shape, form, group), lambda at: fast.WinogradWeights(shape[:2], form, group, at),
            lambda d, x, w, y, **rest: fast.winograd(x, w, y, pads, apart, **rest),
        )  # fmt: skip
    if name == "direct, rows folded":
        return _Algorithm(
            name, convweights.folded_packing((*shape[:2], *filters[2:]), dtype),
            lambda at: convweights.PackedWeights((*filters[:2], 1, *filters[2:]), 1, at, folded=True),
            lambda d, x, w, y, **rest: dense.conv(d, x, w, y, steps, dils, begin, **rest),
        )  # fmt: skip
    return _Algorithm(
        name, convweights.weights_packing(shape, dtype, group), lambda at: convweights.PackedWeights.of(filters, group, at),
        lambda d, x, w, y, **rest: dense.conv(d, x, w, y, steps, dils, begin, **rest),
    )  # fmt: skip


def _layer(X: Tensor, W: Tensor, geometry: tuple[Sequence[int], ...], group: int, size: tuple[int, ...]) -> ConvLayer:
    """The layer, for the rule that chooses; borders behind the image are as wide as its last filter place needs."""
    steps, dils, begin = geometry
    needed = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(size, steps, W.shape[2:], dils)]
    end = (most(0, n - have - b) for n, have, b in zip(needed, X.shape[2:], begin))
    return ConvLayer(X.dtype.name, X.shape[1:], W.shape, tuple(steps), tuple(dils), (*begin, *end), group)


def convolve(
    t: Builder, X: Tensor, W: Tensor, B: Tensor | None, steps: Sequence[int], dils: Sequence[int], begin: Sequence[int],
    group: int, size: tuple[int, ...], whole: tuple[int, ...] | None = None, sum_bits: Callable[[], int] = lambda: 0,
) -> Tensor:  # fmt: skip
    """The convolution of X, of a type that kernels have, or of int16 in int32.

    int16 are differences of bytes with constant filters, an even number of channels a group.

    Args:
        steps, dils, begin, group, size: what `windows` gives.
        whole: size of the output that this is a part of, whose algorithm is the part's too.
        sum_bits: how many bits hold every sum of int16's products.
    """
    shape, whole = (X.shape[0], W.shape[0], *size), whole or size
    packed = None if W.is_constant else _packed_at_run_time(t, W, group)

    def part(other: Builder, inputs: Sequence[Tensor | None], first: int, rows: int) -> Tensor:
        return convolve(other, inputs[0], W, inputs[2], steps, dils, (first, *begin[1:]), group, (rows, *size[1:]), whole, sum_bits)

    def launch(x: LaunchContext) -> list:
        order, layer = _kernel_order(X, W, begin, size), _layer(X, W, (steps, dils, begin), group, size)
        names = _possible(X, W, layer, order, whole, x.threads, sum_bits)
        way = _algorithm(x.choose(layer, names) if len(names) > 1 else names[0], layer, W.dtype, order)
        filters = x.inputs[1].address if packed is not None else x.packed(W, (way.name, group), way.packing)
        images = [image_of(one, order) for one in (x.inputs[0], x.outputs[0], x.residual) if one is not None]
        bias, epilogue = x.inputs[2] or x.bias, x.epilogue or ()

        def make(at: Sequence[Opaque], alloc: Alloc) -> list:
            rest = list(at[1:])
            source, result, *residual = (replace(image, address=rest.pop(0)) for image in images)
            return way.launch(
                kernel_type(X.dtype), source, way.weights(at[0]), result, residual=residual[0] if residual else None,
                bias=rest.pop(0) if bias else 0, epilogue=tuple(rest) if rest else None, low=x.low, high=x.high,
                alloc=alloc, threads=x.threads, label=f"{way.name} {label(X, W, steps, group)}",
            )  # fmt: skip

        key = (way.name, layer, order, bool(bias), len(epilogue), x.low, x.high, x.threads)
        addresses = [filters, *(image.address for image in images), *([bias.address] if bias else []), *epilogue]
        return launches(make, (*key, *((image.shape, image.strides) for image in images)), addresses, x.alloc)

    return t.kernel(
        "conv", (X, packed, B), [(sum_type(X.dtype), shape)], launch,
        orders=(channels_last(X.rank) if X.dtype == np.int16 else None, packed and tuple(range(packed.rank)), (0,)),
        output_orders=(channels_last(len(shape)),), tail=Tail.EPILOGUE, bias=B is None,
        in_place=not _is_depthwise(W, group),
        matrix=((0,), (), tuple(range(2, len(shape))), (1,)), flops=2 * prod(shape) * prod(W.shape[1:]),
        parts=Parts(part, ((W.shape[2] - 1) * dils[0] + 1, steps[0], begin[0])) if packed is None else None,
    )[0]  # fmt: skip


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of an image's dimensions in memory."""
    return (0, *range(2, rank), 1)


def _packed_at_run_time(t: Builder, W: Tensor, group: int) -> Tensor:
    """The order of `pack_weights` or `pack_depthwise`, made of moves, for weights that only the run knows."""
    kernel = (1,) * (5 - W.rank) + W.shape[2:]
    if _is_depthwise(W, group):
        flat = t.reshape(W, (W.shape[0], prod(kernel)))
        channels = light.padded_channels(W.shape[0], W.dtype.itemsize)
        padded = t.pad(flat, (0, 0), (channels - W.shape[0], 0))
        lanes = light.padded_channels(1, W.dtype.itemsize)
        vectors = t.reshape(padded, (channels // lanes, lanes, prod(kernel)))
        return t.reshape(t.transpose(vectors, (0, 2, 1)), (channels // lanes, *kernel, lanes))
    each = W.shape[0] // group
    width = panel_width(W.dtype.itemsize, group, each)
    panels = -(-each // width)
    x = t.reshape(W, (group, each, W.shape[1], *kernel))
    x = t.pad(x, (0,) * 6, (0, panels * width - each, 0, 0, 0, 0))
    x = t.reshape(x, (group * panels, width, W.shape[1], *kernel))
    return t.transpose(x, (0, 3, 4, 5, 2, 1))


def image_of(x: Operand, order: tuple[int, ...] | None = None) -> Image:
    """The operand, its spatial dimensions in another order if one is given."""
    axes = range(len(x.shape)) if order is None else (0, 1, *(2 + i for i in order))
    return Image(x.address, *paired(x.dtype, tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes), 1))


def label(X: Tensor, W: Tensor, steps: Sequence[int], group: int, outputs: int = 0) -> str:
    """What a plan says of a layer."""
    kernel = "x".join(map(str, W.shape[2:]))
    stride = f"/{steps[0]}" if max(steps) > 1 else ""
    groups = "" if group == 1 or _is_depthwise(W, group) else f" g{group}"
    return f"{X.shape[1]}->{outputs or W.shape[0]} {kernel}{stride}{groups} on {'x'.join(map(str, X.shape[2:]))}"
