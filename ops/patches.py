"""Images from patches and patches from images: Col2Im, MaxUnpool, DeformConv."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np

from .builder import Builder, OperatorError
from .cast import widened
from .detection import sampled
from .primitives import Tensor
from .registry import FLOATS, check_types, op


@op("Col2Im", since=18)
def col2im(
    t: Builder, x: Tensor, image_shape: Tensor, block_shape: Tensor, *, dilations=None, pads=None, strides=None
) -> Tensor:  # fmt: skip
    """[N, C * taps, positions] -> [N, C, *image]: the patches laid where they were cut out, overlaps added up."""
    image, block = t.ints(image_shape), t.ints(block_shape)
    rank, taps = len(image), prod(block)
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    padded = [n + pads[i] + pads[i + rank] for i, n in enumerate(image)]
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(padded, dilations, block, strides)]
    if x.rank != 3 or x.shape[1] % taps or x.shape[2] != prod(counts):
        raise OperatorError(f"{list(x.shape)} are no patches of {list(block)} at {counts} places")
    n, channels = x.shape[0], x.shape[1] // taps
    patches = t.reshape(widened(t, x), [n, channels, *block, *counts])
    total: Tensor | None = None
    for tap in product(*map(range, block)):
        part = t.slice(patches, [0, 0, *tap, *[0] * rank], [1] * patches.rank, [n, channels, *[1] * rank, *counts])
        part = _spread(t, t.reshape(part, [n, channels, *counts]), strides)
        starts = [i * d for i, d in zip(tap, dilations)]
        ends = [size - start - m for size, start, m in zip(padded, starts, part.shape[2:])]
        layer = t.pad(part, [0, 0, *starts], [0, 0, *ends])
        total = layer if total is None else t.map("a + b", total, layer)
    if total is None:
        raise OperatorError(f"blocks of {list(block)} hold nothing")
    return t.cast(t.slice(total, [0, 0, *pads[:rank]], [1] * (rank + 2), [n, channels, *image]), x.dtype)


def _spread(t: Builder, x: Tensor, strides: Sequence[int]) -> Tensor:
    """An image whose neighbouring pixels are moved apart, with zeros between them."""
    for d, stride in enumerate(strides, 2):
        if stride > 1 and x.shape[d] > 1:
            wide = t.pad(t.unsqueeze(x, [d + 1]), [0] * (x.rank + 1), [stride - 1 if e == d + 1 else 0 for e in range(x.rank + 1)])
            sizes = [n * stride if e == d else n for e, n in enumerate(x.shape)]
            x = t.take(t.reshape(wide, sizes), d, 0, sizes[d] - stride + 1)
    return x


@op("MaxUnpool", since=9)
def max_unpool(
    t: Builder, x: Tensor, indices: Tensor, output_shape: Tensor | None = None, *, kernel_shape, pads=None, strides=None
) -> Tensor:  # fmt: skip
    """Each element at its index in an image of zeros: what MaxPool left, where it came from."""
    rank = len(kernel_shape)
    strides, pads = strides or [1] * rank, pads or [0] * 2 * rank
    if x.shape != indices.shape or x.rank != rank + 2:
        raise OperatorError(f"elements {list(x.shape)} and indices {list(indices.shape)} do not fit {rank} dimensions")
    sizes = [(n - 1) * s - pads[i] - pads[i + rank] + kernel_shape[i] for i, (n, s) in enumerate(zip(x.shape[2:], strides))]
    shape = (*x.shape[:2], *sizes)
    zeros = t.constant(np.zeros(prod(shape), x.dtype))
    flat = t.op("ScatterElements", zeros, t.reshape(indices, (x.size,)), t.reshape(x, (x.size,)), since=18)
    y = t.reshape(flat, shape)
    if output_shape is None:
        return y
    return t.pad(y, [0] * y.rank, [n - m for n, m in zip(t.ints(output_shape), shape)])


@op("DeformConv", since=19)
def deformable(
    t: Builder, X: Tensor, W: Tensor, offset: Tensor, B: Tensor | None = None, mask: Tensor | None = None, *, dilations=None,
    group=1, kernel_shape=None, offset_group=1, pads=None, strides=None,
) -> Tensor:  # fmt: skip
    """Conv whose taps are moved by offsets [N, groups * taps * 2, *out] and weighted by a mask; between pixels linear."""
    check_types((X, W, offset), FLOATS)
    rank = X.rank - 2
    kernel = W.shape[2:]
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
    n, channels, *size = X.shape
    out = [(s + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i, s in enumerate(size)]
    taps, filters = prod(kernel), W.shape[0]
    if offset.shape != (n, offset_group * taps * rank, *out) or channels != W.shape[1] * group:
        raise OperatorError(f"offsets {list(offset.shape)} and filters {list(W.shape)} do not fit an image {list(X.shape)}")
    wide = widened(t, X)
    moved = t.cast(t.reshape(offset, [n, offset_group, *kernel, rank, *out]), wide.dtype)
    grid = _tap_grid(t, moved, kernel, out, strides, dilations, pads)
    images = t.reshape(wide, [n * offset_group, channels // offset_group, *size])
    points = t.reshape(grid, [n * offset_group, taps * out[0], *out[1:], rank])
    columns = sampled(t, images, points, "linear", "zeros", "pixels")
    columns = t.reshape(columns, [n, offset_group, channels // offset_group, taps, prod(out)])
    if mask is not None:
        factors = t.cast(t.reshape(mask, [n, offset_group, 1, taps, prod(out)]), wide.dtype)
        columns = t.map("a * b", columns, factors)
    columns = t.reshape(columns, [n, group, channels // group * taps, prod(out)])
    weights = t.cast(t.reshape(W, [1, group, filters // group, W.shape[1] * taps]), wide.dtype)
    y = t.reshape(t.op("MatMul", weights, columns, since=13), [n, filters, *out])
    if B is not None:
        y = t.map("a + b", y, t.reshape(t.cast(B, wide.dtype), [filters, *[1] * rank]))
    return t.cast(y, X.dtype)


def _tap_grid(
    t: Builder, moved: Tensor, kernel: Sequence[int], out: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
    pads: Sequence[int],
) -> Tensor:  # fmt: skip
    """The pixels [N, groups, *taps, *out, rank] of every tap, from offsets [N, groups, *taps, rank, *out]."""
    rank, axes = len(kernel), []
    for d in range(rank):
        regular = np.zeros((*kernel, *out))
        for axis, steps in ((d, np.arange(kernel[d]) * dilations[d]), (rank + d, np.arange(out[d]) * strides[d] - pads[d])):
            regular = regular + steps.reshape([-1 if e == axis else 1 for e in range(2 * rank)])
        along = t.squeeze(t.take(moved, 2 + rank, d, d + 1), [2 + rank])
        axes.append(t.map("a + b", along, t.constant(regular, moved.dtype)))
    return t.concat([t.unsqueeze(x, [x.rank]) for x in reversed(axes)], 2 + 2 * rank)
