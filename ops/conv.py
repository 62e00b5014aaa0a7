"""Convolution: Conv, ConvInteger, ConvTranspose. Channels-last in memory; `_possible` says which kernels compute a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, Declined, OperatorError
from .convchoice import ConvLayer, is_winograd, winograd_by_cost, winograd_forms
from .integers import centred, kernel_type, paired, single, sum_type
from .kernels import conv as dense
from .kernels import convtranspose as transposed
from .kernels import convweights
from .kernels import depthwise as light
from .kernels import winograd as fast
from .kernels.blocking import panel_width
from .kernels.image import Alloc, Image, Opaque
from .kernels.packing import Packing
from .kernels.sizes import cached, most
from .kernels.templates import launches
from .kernels.winogradforms import Form
from .primitives import LaunchContext, Operand, Parts, Tail, Tensor
from .registry import op

_EXACT = (1 << 24) // 255**2  # products of differences of bytes whose sum float32 holds
_PAIRED = 2  # channels a group from which on they are multiplied as pairs of int16


@op("Conv", since=1)
def conv(
    t: Builder, X: Tensor, W: Tensor, B: Tensor | None = None, *,
    auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None, strides=None,
) -> Tensor:  # fmt: skip
    """Y[n, o] = B[o] + sum over c, k of X[n, c, s p + d k - pad] W[o, c, k]; 1 to 3 spatial dimensions natively."""
    if X.dtype.name not in ("float32", "float64", "float16", "bfloat16"):
        raise Declined("convolution of integers")
    how = {"auto_pad": auto_pad, "dilations": dilations, "group": group, "kernel_shape": kernel_shape, "pads": pads,
           "strides": strides}  # fmt: skip
    of_codes = _conv_of_codes(t, X, W, B, how)
    if of_codes is not None:
        return of_codes
    if X.dtype.itemsize > 2:
        return _convolution(t, X, W, B, **how)
    wide = [None if x is None else t.cast(x, np.float32) for x in (X, W, B)]
    return t.cast(_convolution(t, *wide, **how), X.dtype)


def _conv_of_codes(t: Builder, X: Tensor, W: Tensor, B: Tensor | None, how: dict[str, object]) -> Tensor | None:
    """The convolution of dequantised tensors as the scaled one of their 8-bit integers, if the filters are constant."""
    image, filters = X.codes, W.codes
    if image is None or filters is None or X.dtype != np.float32 or image.scale.size != 1 or not filters.values.is_constant:
        return None
    if filters.scale.size != 1 and filters.axis != 0:
        return None
    total = conv_of_bytes(t, image.values, filters.values, image.zero, filters.zero, exact=False, **how)
    factor = t.map("a * b", single(t, image.scale), per_filter(t, filters.scale, W.rank - 1))
    y = t.map("to_f32(a) * b", total, factor, dtype=np.float32)
    return y if B is None else t.map("a + b", y, per_filter(t, B, W.rank - 1))


def per_filter(t: Builder, x: Tensor, rank: int) -> Tensor:
    """Numbers, one in all or one a filter, as they broadcast over filters of a rank; for images it is one less."""
    return t.reshape(x, (x.size, *(1,) * (rank - 1)) if x.size > 1 else ())


def _convolution(t: Builder, X: Tensor, W: Tensor, B: Tensor | None, **how) -> Tensor:
    """`conv` of a type that kernels have; of int16 (with constant filters and an even number of channels a group) in int32."""
    return _conv(t, X, W, B, *_windows(X, W, **how))


def _windows(
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
    X: Tensor, W: Tensor, layer: ConvLayer, order: tuple[int, ...], size: tuple[int, ...], threads: int
) -> list[str]:  # fmt: skip
    """Names of the algorithms that compute a layer; first the one that is expected to be the fastest for that output size.

    Depthwise for groups of one channel; Winograd where it is expected to win; else direct.
    """
    if X.dtype != np.int16 and _is_depthwise(W, layer.groups):
        return ["depthwise"]
    filters = (W.shape[0], convweights.counted(W.shape[1], W.dtype), *(W.shape[2 + i] for i in order))
    names = ["direct, rows folded"] if convweights.foldable(filters, layer.groups) and W.is_constant else []
    names.append("direct")
    if X.dtype == np.float32 and W.is_constant and _may_be_winograd(X, W, layer, order):
        names += winograd_forms(layer)
        if best := winograd_by_cost(layer, size, threads):
            names.sort(key=lambda name: name != best)
    return names


def _may_be_winograd(X: Tensor, W: Tensor, layer: ConvLayer, order: tuple[int, ...]) -> bool:
    """Whether the forms of Winograd compute a layer, if it is one of float32 with constant filters."""
    plane = all(W.shape[2 + i] == 1 and X.shape[2 + i] == 1 for i in order[:-2])
    return plane and set(layer.strides) == {1} and not _is_depthwise(W, layer.groups) and fast.fits(X.shape[1], W.shape[0])


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
        form = Form((1, *filters[2:])[-2:], winograd_forms(layer)[name].points)
        pads, apart = (0, *begin)[-2:], (1, *dils)[-2:]
        return _Algorithm(
            name, fast.winograd_packing(shape[:2], form, group), lambda at: fast.WinogradWeights(shape[:2], form, group, at),
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


def _conv(
    t: Builder, X: Tensor, W: Tensor, B: Tensor | None, steps: Sequence[int], dils: Sequence[int], begin: Sequence[int],
    group: int, size: tuple[int, ...], whole: tuple[int, ...] | None = None,
) -> Tensor:  # fmt: skip
    """`size`: of the output; `whole`: of that which it is a part of, whose algorithm is the part's too."""
    shape, whole = (X.shape[0], W.shape[0], *size), whole or size
    packed = None if W.is_constant else _packed_at_run_time(t, W, group)

    def part(other: Builder, inputs: Sequence[Tensor | None], first: int, rows: int) -> Tensor:
        return _conv(other, inputs[0], W, inputs[2], steps, dils, (first, *begin[1:]), group, (rows, *size[1:]), whole)

    def launch(x: LaunchContext) -> list:
        order, layer = _kernel_order(X, W, begin, size), _layer(X, W, (steps, dils, begin), group, size)
        names = _possible(X, W, layer, order, whole, x.threads)
        way = _algorithm(x.choose(layer, names) if len(names) > 1 else names[0], layer, W.dtype, order)
        filters = x.inputs[1].address if packed is not None else x.packed(W, (way.name, group), way.packing)
        images = [_image(one, order) for one in (x.inputs[0], x.outputs[0], x.residual) if one is not None]
        bias, epilogue = x.inputs[2] or x.bias, x.epilogue or ()

        def make(at: Sequence[Opaque], alloc: Alloc) -> list:
            rest = list(at[1:])
            source, result, *residual = (replace(image, address=rest.pop(0)) for image in images)
            return way.launch(
                kernel_type(X.dtype), source, way.weights(at[0]), result, residual=residual[0] if residual else None,
                bias=rest.pop(0) if bias else 0, epilogue=tuple(rest) if rest else None, low=x.low, high=x.high,
                alloc=alloc, threads=x.threads, label=f"{way.name} {_label(X, W, steps, group)}",
            )  # fmt: skip

        key = (way.name, layer, order, bool(bias), len(epilogue), x.low, x.high, x.threads)
        addresses = [filters, *(image.address for image in images), *([bias.address] if bias else []), *epilogue]
        return launches(make, (*key, *((image.shape, image.strides) for image in images)), addresses, x.alloc)

    return t.kernel(
        "conv", (X, packed, B), [(sum_type(X.dtype), shape)], launch,
        orders=(_channels_last(X.rank) if X.dtype == np.int16 else None, packed and tuple(range(packed.rank)), (0,)),
        output_orders=(_channels_last(len(shape)),), tail=Tail.EPILOGUE, bias=B is None,
        in_place=not _is_depthwise(W, group),
        matrix=((0,), (), tuple(range(2, len(shape))), (1,)), flops=2 * prod(shape) * prod(W.shape[1:]),
        parts=Parts(part, ((W.shape[2] - 1) * dils[0] + 1, steps[0], begin[0])) if packed is None else None,
    )[0]  # fmt: skip


def _channels_last(rank: int) -> tuple[int, ...]:
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
    width, each = panel_width(W.dtype.itemsize), W.shape[0] // group
    panels = -(-each // width)
    x = t.reshape(W, (group, each, W.shape[1], *kernel))
    x = t.pad(x, (0,) * 6, (0, panels * width - each, 0, 0, 0, 0))
    x = t.reshape(x, (group * panels, width, W.shape[1], *kernel))
    return t.transpose(x, (0, 3, 4, 5, 2, 1))


@op("ConvInteger", since=10)
def conv_integer(
    t: Builder, x: Tensor, w: Tensor, x_zero_point: Tensor | None = None, w_zero_point: Tensor | None = None, **attributes
) -> Tensor:
    """Conv of (x - x_zero_point) and (w - w_zero_point) in int32, which wraps."""
    return t.cast(conv_of_bytes(t, x, w, x_zero_point, w_zero_point, **attributes), np.int32)


def conv_of_bytes(
    t: Builder, x: Tensor, w: Tensor, x_zero_point: Tensor | None, w_zero_point: Tensor | None, exact: bool = True, **how
) -> Tensor:
    """Conv of (x - x_zero_point) and (w - w_zero_point) in int32, or in float32 if that holds every sum.

    If it need not be exact, in float32 by Winograd's algorithm, too. The weights' zero point is one in all, or one a filter.
    """
    own = None if w_zero_point is None else per_filter(t, w_zero_point, w.rank)
    filters, windows = centred(t, w, own), _windows(x, w, **how)

    def image(dtype: type) -> Tensor:
        return centred(t, x, single(t, x_zero_point), dtype)

    paired = filters.is_constant and w.shape[1] >= _PAIRED
    if (prod(w.shape[1:]) <= _EXACT and not paired) or (not exact and filters.is_constant and _suits_winograd(x, w, windows)):
        return _conv(t, image(np.float32), t.cast(filters, np.float32), None, *windows)
    if not paired:
        total = _conv(t, image(np.float64), t.cast(filters, np.float64), None, *windows)
        return t.cast(t.cast(total, np.int64), np.int32)
    whole = image(np.int16)
    if w.shape[1] % 2:
        whole, filters = _completed(t, whole, windows[3]), t.pad(filters, (0,) * w.rank, (0, 1, *(0,) * (w.rank - 2)))
    return _conv(t, whole, filters, None, *windows)


def _suits_winograd(x: Tensor, w: Tensor, windows: tuple) -> bool:
    """Whether a convolution of bytes is expected to take less time in float32 by a form of Winograd than as one of pairs."""
    steps, dils, begin, group, size = windows
    layer = replace(_layer(x, w, (steps, dils, begin), group, size), dtype="float32")
    order = _kernel_order(x, w, begin, size)
    return _may_be_winograd(x, w, layer, order) and bool(winograd_by_cost(layer, size, 1, pairs=True))


def _completed(t: Builder, image: Tensor, group: int) -> Tensor:
    """An image with another channel of zeros for each group."""
    n, c, *size = image.shape
    apart = t.reshape(image, (n, group, c // group, *size))
    apart = t.pad(apart, (0,) * apart.rank, (0, 0, 1, *(0,) * len(size)))
    return t.reshape(apart, (n, c + group, *size))


@op("ConvTranspose", since=1)
def conv_transpose(
    t: Builder, X: Tensor, W: Tensor, B: Tensor | None = None, *,
    auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, output_padding=None, output_shape=None, pads=None, strides=None,
) -> Tensor:  # fmt: skip
    """The gradient of Conv: a convolution of the image spread by the strides with the reversed filters."""
    spatial = X.rank - 2
    if spatial < 1 or spatial > 3 or X.dtype.name not in ("float32", "float64", "float16", "bfloat16"):
        raise Declined("transposed convolution over more than 3 dimensions, or of integers")
    if X.shape[1] != W.shape[0]:
        raise OperatorError(f"{X.shape[1]} input channels do not fit weights {list(W.shape)}")
    steps, dils = tuple(strides or (1,) * spatial), tuple(dilations or (1,) * spatial)
    extra = tuple(output_padding or (0,) * spatial)
    kernel, inner = W.shape[2:], X.shape[2:]
    full = [(n - 1) * s + (k - 1) * d + 1 + e for n, s, k, d, e in zip(inner, steps, kernel, dils, extra)]
    begin, end = _transposed_padding(auto_pad, pads, output_shape, full, inner, steps)
    size = tuple(f - b - e for f, b, e in zip(full, begin, end))
    if min(size) < 0:
        raise OperatorError(f"pads {[*begin, *end]} take more than there is of an image of {full}")
    wide = np.float64 if X.dtype == np.float64 else np.float32
    image, weights, bias = (None if x is None else t.cast(x, wide) for x in (X, W, B))
    whole = not any(begin) and size == tuple(n * s for n, s in zip(inner, steps))
    apart = group == 1 and kernel == steps and set(dils) == {1}
    if apart and whole and W.is_constant and prod(W.shape[1:]) <= panel_width(image.dtype.itemsize):
        return t.cast(_by_pixels(t, image, weights, bias, size), X.dtype)
    if W.is_constant and all(begin[i] >= 0 and end[i] >= 0 for i in range(spatial)):
        return t.cast(_by_phases(t, image, weights, bias, steps, dils, begin, group, size), X.dtype)
    return t.cast(_by_spreading(t, image, weights, bias, steps, dils, begin, group, size), X.dtype)


def _by_pixels(t: Builder, X: Tensor, W: Tensor, B: Tensor | None, size: tuple[int, ...]) -> Tensor:
    """Windows as large as the strides do not meet: a product for each pixel, whose channels are then put side by side.

    For so few output channels that one panel holds all of a window.
    """
    channels, outputs, *kernel = W.shape
    ones, spatial, window = (1,) * len(kernel), len(kernel), prod(kernel)
    filters = t.reshape(t.transpose(W, (*range(2, W.rank), 1, 0)), (window * outputs, channels, *ones))
    bias = None if B is None else t.concat([B] * window, 0)
    y = _conv(t, X, filters, bias, ones, ones, (0,) * spatial, 1, X.shape[2:])
    y = t.reshape(y, (X.shape[0], *kernel, outputs, *X.shape[2:]))
    inward = [axis for i in range(spatial) for axis in (2 + spatial + i, 1 + i)]
    return t.reshape(t.transpose(y, (0, 1 + spatial, *inward)), (X.shape[0], outputs, *size))


def _by_phases(
    t: Builder, X: Tensor, W: Tensor, B: Tensor | None, steps: Sequence[int], dils: Sequence[int], begin: Sequence[int],
    group: int, size: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """`kernels/convtranspose`; the filters are constant."""
    shape = (X.shape[0], W.shape[1] * group, *size)

    def launch(x: LaunchContext) -> list:
        key = ("transposed", group, tuple(steps), tuple(dils))
        address = x.packed(W, key, lambda w: transposed.pack_transposed(w, group, steps, dils))
        weights = transposed.TransposedWeights.of(W.shape, W.dtype.itemsize, group, steps, dils, address)
        return transposed.conv_transpose(
            evaluate.memory_name(X.dtype), _image(x.inputs[0]), weights, _image(x.outputs[0]), begin,
            bias=x.inputs[2].address if x.inputs[2] else 0, alloc=x.alloc, threads=x.threads,
            label=f"transposed {_label(X, W, steps, group, W.shape[1] * group)}",
        )  # fmt: skip

    return t.kernel(
        "conv_transpose", (X, None, B), [(X.dtype, shape)], launch, orders=(None, None, (0,)),
        output_orders=(_channels_last(len(shape)),), flops=2 * X.size * prod(W.shape[1:]),
    )[0]  # fmt: skip


def _by_spreading(
    t: Builder, X: Tensor, W: Tensor, B: Tensor | None, steps: Sequence[int], dils: Sequence[int], begin: Sequence[int],
    group: int, size: tuple[int, ...],
) -> Tensor:  # fmt: skip
    """A convolution of the image spread by the strides with the reversed filters, which only the run knows."""
    kernel, spatial = W.shape[2:], W.rank - 2
    # filters [C, O/g, k] as those of the equivalent convolution [O, C/g, k reversed]
    c, each = W.shape[0] // group, W.shape[1]
    w = t.reshape(W, (group, c, each, *kernel))
    w = t.transpose(w, (0, 2, 1, *range(3, 3 + spatial)))
    w = t.slice(w, (0, 0, 0, *(k - 1 for k in kernel)), (1, 1, 1, *(-1,) * spatial), w.shape)
    w = t.reshape(w, (group * each, c, *kernel))
    image = _spread(t, X, steps)
    # output pixel p reads spread pixels p + begin - (k - 1) d + ... ; negative borders crop
    before = [(k - 1) * d - b for k, d, b in zip(kernel, dils, begin)]
    after = [s + (k - 1) * d - have - bf for s, k, d, have, bf in zip(size, kernel, dils, image.shape[2:], before)]
    return conv(t, _border(t, image, before, after), w, B, group=group, dilations=list(dils))


def _spread(t: Builder, x: Tensor, steps: Sequence[int]) -> Tensor:
    """x with s - 1 zeros between neighbours."""
    for d, s in enumerate(steps, 2):
        if s > 1 and x.shape[d] > 1:
            n = x.shape[d]
            x = t.unsqueeze(x, [d + 1])
            after = [0] * x.rank
            after[d + 1] = s - 1
            x = t.pad(x, [0] * x.rank, after)
            x = t.reshape(x, (*x.shape[:d], n * s, *x.shape[d + 2 :]))
            x = t.take(x, d, 0, (n - 1) * s + 1)
    return x


def _border(t: Builder, x: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Zeros around the spatial dimensions; a negative count crops."""
    for d, (b, a) in enumerate(zip(before, after), 2):
        x = t.take(x, d, max(-b, 0), x.shape[d] - max(-a, 0))
    zeros = [0, 0]
    return t.pad(x, zeros + [max(b, 0) for b in before], zeros + [max(a, 0) for a in after])


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


def _transposed_padding(
    auto_pad: str, pads: Sequence[int] | None, output_shape: Sequence[int] | None, full: Sequence[int], inner: Sequence[int],
    steps: Sequence[int],
) -> tuple[list[int], list[int]]:  # fmt: skip
    """What is cut from each side of the full result."""
    if output_shape is None and auto_pad in ("NOTSET", "", "VALID"):
        given = list(pads) if pads and auto_pad != "VALID" else [0] * (2 * len(full))
        return given[: len(full)], given[len(full) :]
    wanted = list(output_shape)[-len(full) :] if output_shape else [n * s for n, s in zip(inner, steps)]
    total = [f - w for f, w in zip(full, wanted)]
    if auto_pad == "SAME_UPPER":
        return [x // 2 for x in total], [x - x // 2 for x in total]
    return [x - x // 2 for x in total], [x // 2 for x in total]


def _image(x: Operand, order: tuple[int, ...] | None = None) -> Image:
    """The operand, its spatial dimensions in another order if one is given."""
    axes = range(len(x.shape)) if order is None else (0, 1, *(2 + i for i in order))
    return Image(x.address, *paired(x.dtype, tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes), 1))


def _label(X: Tensor, W: Tensor, steps: Sequence[int], group: int, outputs: int = 0) -> str:
    kernel = "x".join(map(str, W.shape[2:]))
    stride = f"/{steps[0]}" if max(steps) > 1 else ""
    groups = "" if group == 1 or _is_depthwise(W, group) else f" g{group}"
    return f"{X.shape[1]}->{outputs or W.shape[0]} {kernel}{stride}{groups} on {'x'.join(map(str, X.shape[2:]))}"
