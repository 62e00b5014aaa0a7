"""Conv and ConvTranspose of floats, on what `convolve` launches."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, Declined, OperatorError
from .conv_bytes import conv_of_codes
from .conv_resampled import conv_of_resampled
from .convolve import channels_last, convolve, image_of, label, windows
from .kernels import convtranspose as transposed
from .kernels.blocking import panel_width
from .primitives import LaunchContext, Tensor
from .registry import op


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
    of_codes = conv_of_codes(t, X, W, B, how)
    if of_codes is not None:
        return of_codes
    wide = [x if x is None or x.dtype.itemsize > 2 else t.cast(x, np.float32) for x in (X, W, B)]
    window = windows(X, W, **how)
    y = conv_of_resampled(t, *wide, *window)
    return t.cast(convolve(t, *wide, *window) if y is None else y, X.dtype)


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
    y = convolve(t, X, filters, bias, ones, ones, (0,) * spatial, 1, X.shape[2:])
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
            evaluate.memory_name(X.dtype), image_of(x.inputs[0]), weights, image_of(x.outputs[0]), begin,
            bias=x.inputs[2].address if x.inputs[2] else 0, alloc=x.alloc, threads=x.threads,
            label=f"transposed {label(X, W, steps, group, W.shape[1] * group)}",
        )  # fmt: skip

    return t.kernel(
        "conv_transpose", (X, None, B), [(X.dtype, shape)], launch, orders=(None, None, (0,)),
        output_orders=(channels_last(len(shape)),), flops=2 * X.size * prod(W.shape[1:]),
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
