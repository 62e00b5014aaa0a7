"""Copying an image into another layout, with a border of constant value and conversion of the element type.

Convolution reads zero-padded channels-last images; this makes them. One kernel per pair of element types. A row of
the image is a 2-D copy [W, C], done by whichever of these its strides allow: contiguous runs, transposition of
register blocks (planar to channels-last and back), interleaving of 3 planes, single elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import target
from .image import SIZES, Image, merge_rows, triple
from .launch import Launch
from .sizes import alike, certainly, deferred
from .spec import KernelSpec, handwritten

# elements that one task should copy at least: a task costs the executor about a microsecond
_TASK_ELEMENTS = 16384
_NUMPY = {"f16": np.float16, "f32": np.float32, "f64": np.float64, "b1": np.uint8, "bf16": np.float32, "i16x2": np.uint32} | {
    f"{sign}{8 * size}": np.dtype(f"{sign}{size}").type for sign in "iu" for size in (1, 2, 4, 8)
}


def pad_copy(
    source: str,
    x: Image,
    destination: str,
    y: Image,
    begin: Sequence[int] | None = None,
    value: float | int = 0,
    repeat: int = 1,
    threads: int = 1,
    label: str = "copy",
) -> list[Launch]:
    """y[n, c, p] = x[n, c // repeat, p - begin], or `value` where p - begin lies outside x.

    Args:
        source, destination: memory element types of x and y.
        begin: border before the first element of each spatial dimension; negative crops. Default: no border.
        value: of the border.
        repeat: how often each channel of x stands in y.

    Raises:
        ValueError: ranks, batch or channels of x and y do not fit.
    """
    if len(x.shape) != len(y.shape) or x.shape[0] != y.shape[0] or x.shape[1] * repeat != y.shape[1]:
        raise ValueError(f"pad_copy: {x.shape} repeated {repeat} times does not fit {y.shape}")
    offsets = triple(begin or [0] * (len(x.shape) - 2), 0)
    x, y = x.volume(), y.volume()
    if alike(x.shape, y.shape) and not any(offsets):
        x, y = merge_rows(x, y)
    elements = y.shape[0] * y.shape[1] * y.pixels
    if certainly(elements, 0):
        return []
    bits = _bits(destination, value)
    if source == destination:
        source = destination = f"u{8 * SIZES[source]}"
    n, _, d, h, w = y.shape
    rows, row_blocks, cols, col_blocks = _blocks(elements, n * d, h, w, threads)
    args = (x.address, y.address, *y.shape[1:], *x.shape[2:], *offsets, *x.strides, *y.strides, bits, repeat,
            rows, row_blocks, cols, col_blocks)  # fmt: skip
    kernel = kernel_of(source, destination)
    moved = elements * (SIZES[source] + SIZES[destination])
    return [Launch(kernel, args, n * d * row_blocks * col_blocks, 0, label, 0, moved)]


def kernel_of(source: str, destination: str) -> KernelSpec:
    """The kernel of `pad_copy`."""
    return handwritten("pad_copy", "padcopy:factory", source=source, destination=destination)


@deferred()
def _blocks(elements: int, planes: int, height: int, width: int, threads: int) -> tuple[int, int, int, int]:
    """(rows of a task, blocks of rows, columns of a task, blocks of columns) of each plane."""
    if elements == 0:
        return 1, 0, 1, 0
    pieces = max(1, min(-(-elements // _TASK_ELEMENTS), 4 * threads))
    row_blocks = max(1, min(height, -(-pieces // planes)))
    col_blocks = max(1, min(-(-width // 16), -(-pieces // (planes * row_blocks))))
    rows, cols = -(-height // row_blocks), -(-width // col_blocks)
    cols = -(-cols // 16) * 16 if cols < width else cols
    return rows, -(-height // rows), cols, -(-width // cols)


def _bits(dtype: str, value: float | int) -> int:
    """The bits of `value` as an element of `dtype`, as a non-negative integer below 2**63 or its two's complement."""
    one = np.array([value]).astype(_NUMPY[dtype])
    bits = int(one.view(f"u{one.itemsize}")[0])
    if dtype == "bf16":
        bits >>= 16
    return bits - (1 << 64) if bits >= 1 << 63 else bits


def factory(source: str, destination: str) -> Callable:
    """The kernel that copies elements of type `source` to `destination`.

    Task = (image and depth, block of rows, block of columns) of the destination.
    """
    copy, fill = _copy_rows(source, destination), _fill(destination)

    def kernel(args, task, scratch):
        x, y, c, d, h, w = args[0], args[1], args[2], args[3], args[4], args[5]
        xd, xh, xw, bd, bh, bw = args[6], args[7], args[8], args[9], args[10], args[11]
        rows, row_blocks, cols, col_blocks = args[24], args[25], args[26], args[27]
        bits, repeat = args[22], args[23]
        w0 = task % col_blocks * cols
        w1 = min(w, w0 + cols)
        outer = task // col_blocks
        h0 = outer % row_blocks * rows
        h1 = min(h, h0 + rows)
        n, depth = outer // row_blocks // d, outer // row_blocks % d
        # columns [inside, after) of this block come from x
        inside = min(max(bw, w0), w1)
        after = max(min(bw + xw, w1), inside)
        for row in range(h0, h1):
            to = y + n * args[17] + depth * args[19] + row * args[20]
            left, right = inside, after
            if depth < bd or depth >= bd + xd or row < bh or row >= bh + xh:
                left = right = w1
            first, last = w0, left
            for _ in range(2):
                if last > first:
                    fill(to + first * args[21], last - first, c, args[21], args[18], bits)
                first, last = right, w1
            if right > left:
                at = x + n * args[12] + (depth - bd) * args[14] + (row - bh) * args[15] + (left - bw) * args[16]
                for r in range(repeat):
                    copy(at, right - left, c // repeat, args[16], args[13],
                         to + left * args[21] + r * args[18], args[21], args[18] * repeat)  # fmt: skip

    return kernel


def _lanes(*dtypes: str) -> int:
    """Lanes of a vector whose widest element fills a register, at most 16 (the side of a transposed block)."""
    return min(16, target.current().lanes * 4 // max(SIZES[t] for t in dtypes))


def _fill(dtype: str) -> Callable:
    """``fill(y, pixels, channels, pixel stride, channel stride, bits)``: one value everywhere."""
    from . import simd
    from .subroutine import subroutine

    raw = f"u{8 * SIZES[dtype]}"
    size, lanes = SIZES[dtype], _lanes(dtype)
    splat, one = simd.splat(raw, lanes), simd.to(raw)
    store, store_first = simd.store(raw), simd.store_first(raw)

    @subroutine
    def run(y, count, bits):
        vector = splat(bits)
        full = count - count % lanes
        for i in range(0, full, lanes):
            store(y + i * size, vector)
        if full < count:
            store_first(y + full * size, vector, count - full)

    @subroutine
    def fill(y, pixels, channels, pixel, channel, bits):
        if pixel == size:
            pixels, channels, pixel, channel = channels, pixels, channel, pixel
        if channel == size and pixel == channels * size:
            pixels, channels = 1, pixels * channels
        for i in range(pixels):
            if channel == size:
                run(y + i * pixel, channels, bits)
            else:
                for c in range(channels):
                    store(y + i * pixel + c * channel, one(bits))

    return fill


def _copy_rows(source: str, destination: str) -> Callable:
    """``copy(x, n0, n1, xs0, xs1, y, ys0, ys1)``: y[i, j] = x[i, j], strides in bytes."""
    from . import simd
    from .subroutine import subroutine

    xsize, ysize, lanes = SIZES[source], SIZES[destination], _lanes(source, destination)
    load, load_one, store = simd.load(source, lanes), simd.load(source, 0), simd.store(destination)
    across = _copy_across(source, destination, lanes)

    @subroutine
    def run(x, y, count):
        # a vector that would overhang starts earlier: what is copied twice is the same
        if count < lanes:
            for i in range(count):
                store(y + i * ysize, load_one(x + i * xsize))
            return
        for i in range(0, count, lanes):
            first = min(i, count - lanes)
            store(y + first * ysize, load(x + first * xsize))

    @subroutine
    def copy(x, n0, n1, xs0, xs1, y, ys0, ys1):
        if (n1 == 1 or (xs0 == xsize and ys0 == ysize)) and n0 > 1:
            n0, n1, xs0, xs1, ys0, ys1 = n1, n0, xs1, xs0, ys1, ys0
        # now j is the better dimension for runs
        if xs1 == xsize and ys1 == ysize:
            if xs0 == n1 * xsize and ys0 == n1 * ysize:
                n0, n1 = 1, n0 * n1
            for i in range(n0):
                run(x + i * xs0, y + i * ys0, n1)
            return
        if xs0 == xsize and ys1 == ysize:
            n0, n1, xs0, xs1, ys0, ys1 = n1, n0, xs1, xs0, ys1, ys0
        if xs1 == xsize and ys0 == ysize and (n0 >= lanes or (n0 == 3 and ys1 == 3 * ysize)) and n1 >= lanes:
            across(x, n0, n1, xs0, y, ys1)
        else:
            for i in range(n0):
                for j in range(n1):
                    store(y + i * ys0 + j * ys1, load_one(x + i * xs0 + j * xs1))

    return copy


def _copy_across(source: str, destination: str, lanes: int) -> Callable:
    """``across(x, n, m, xs, y, ys)``: y[j, i] = x[i, j] of n rows of m neighbouring elements."""
    from . import shuffle
    from .subroutine import subroutine

    xsize, ysize = SIZES[source], SIZES[destination]
    block, colours = shuffle.transpose(source, destination, lanes), shuffle.interleave(source, destination, lanes, 3)

    @subroutine
    def across(x, n, m, xs, y, ys):
        # a block that would overhang starts earlier: what is copied twice is the same
        if n == 3 and ys == n * ysize and m >= lanes:
            for j in range(0, m, lanes):
                first = min(j, m - lanes)
                colours(x + first * xsize, xs, y + first * ys)
            return
        for j in range(0, m, lanes):
            for i in range(0, n, lanes):
                row, col = min(i, n - lanes), min(j, m - lanes)
                block(x + row * xs + col * xsize, xs, y + col * ys + row * ysize, ys)

    return across
