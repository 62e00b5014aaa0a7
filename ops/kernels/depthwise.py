"""Depthwise convolution: one filter per channel, vectorised over channels of a channels-last image.

Inside the image a register tile is 2 rows of 4 output pixels, or 8 of a row, of one vector of channels, with its taps
unrolled: a small kernel for each window and stride (`depthwisetile`). At the borders and for other windows, 4 pixels of a
row, 2 of a column or one pixel with their taps in loops; taps outside the image are skipped, not multiplied by zero: no
padded copy is made.
Order of loops: task = (image, output depth and rows, chunk of channels); strips of columns; rows, by twos; tiles; vectors
of the chunk; taps. Chunk and strip are such that the window's input rows stay in L1 from one pair of rows to the next, or
in L2 if they are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from . import depthwisetile, target
from . import depthwisewords as word
from .image import SIZES, Alloc, Image, Opaque, channels_last, triple
from .launch import Address, Block, Launch
from .padcopy import pad_copy
from .sizes import deferred
from .spec import handwritten

_L1_ROWS = 24 << 10  # bytes of input rows of one chunk and strip, if they are to stay in L1
_L2_ROWS = 192 << 10  # the same in L2: the rows of a low window are read so seldom again that long runs of memory count more
_LOW = 3  # rows of such a window, at the most
_STRIP = 8  # output columns of the narrowest strip
_TASK_FLOPS = 100_000  # a task costs the executor about a microsecond


@dataclass(frozen=True)
class DepthwiseWeights:
    """Filters in the kernel's order.

    Attributes:
        channels: output channels.
        multiplier: output channels per input channel.
        kernel: (kD, kH, kW).
        address: of [vectors of channels, kD, kH, kW, lanes], the last vector filled up with zeros.
    """

    channels: int
    multiplier: int
    kernel: tuple[int, int, int]
    address: Opaque = 0

    @staticmethod
    def of(shape: Sequence[int], groups: int, address: Opaque = 0) -> DepthwiseWeights:
        """The packed weights at an address that were w[O, 1, *kernel]."""
        return DepthwiseWeights(shape[0], shape[0] // groups, triple(shape[2:], 1), address)


def padded_channels(channels: int, itemsize: int) -> int:
    """Channels rounded up to whole vectors."""
    lanes = target.current().lanes * 4 // itemsize
    return -(-channels // lanes) * lanes


def pack_depthwise(w: np.ndarray, groups: int) -> np.ndarray:
    """w[O, 1, *kernel] of a convolution whose groups have one input channel, in the order of `DepthwiseWeights`.

    Raises:
        ValueError: a group has more than one input channel, or O is not a multiple of groups.
    """
    if w.shape[1] != 1 or groups == 0 or w.shape[0] % groups:
        raise ValueError(f"depthwise weights {w.shape} of {groups} groups: expected [multiple of groups, 1, ...]")
    kernel = triple(w.shape[2:], 1)
    lanes = target.current().lanes * 4 // w.dtype.itemsize
    data = np.zeros((padded_channels(w.shape[0], w.dtype.itemsize), *kernel), w.dtype)
    data[: w.shape[0]] = w.reshape(w.shape[0], *kernel)
    return np.ascontiguousarray(np.moveaxis(data.reshape(-1, lanes, *kernel), 1, -1))


def depthwise(
    dtype: str,
    x: Image,
    weights: DepthwiseWeights,
    y: Image,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    *,
    bias: Opaque = 0,
    residual: Image | None = None,
    low: float = -np.inf,
    high: float = np.inf,
    epilogue: tuple[Opaque, Opaque] | None = None,
    alloc: Alloc,
    threads: int = 1,
    label: str = "depthwise",
) -> list[Launch]:
    """y = clip(depthwise convolution of x + bias + residual, low, high) (ONNX Conv with C / group = 1).

    Args:
        dtype: memory type of x, y and residual: f32, f64, f16 or bf16. Weights and bias are f32, or f64 for f64.
        pads: as for `conv`: borders before the first element (those behind may follow); the last tap follows from
            the shape of y.
        bias: address of one value per output channel, or 0.
        epilogue: (kernel address, argument block address), called on each completed row as `conv` describes.
        alloc: workspace that lives as long as the launches.

    Raises:
        ValueError: y is not channels-last and there is an epilogue.
    """
    if 0 in y.shape:
        return []
    size, work = SIZES[dtype], "f64" if dtype == "f64" else "f32"
    if weights.multiplier > 1 or not x.channels_last(size):
        shape = (x.shape[0], weights.channels, *x.shape[2:])
        copy = channels_last(alloc(prod(shape) * size), shape, size)
        first = pad_copy(dtype, x, dtype, copy, repeat=weights.multiplier, threads=threads, label=f"{label}: layout")
        x = copy
    else:
        first = []
    out, last = native_output(dtype, y, epilogue, alloc, threads, label)
    extra = residual and native_input(dtype, residual, first, alloc, threads, label)
    x3, y3 = x.volume(), out.volume()
    r3 = (extra or out).volume()
    n, c, od, oh, ow = y3.shape
    steps, dils, begin = triple(strides, 1), triple(dilations, 1), triple(pads[: len(x.shape) - 2], 0)
    taps = prod(weights.kernel)
    flops = 2 * n * c * od * oh * ow * taps
    chunk, row_blocks, strip = _blocking(c, weights.kernel[1:], ow, steps[1:], (n * od, oh), flops, threads, size)
    chunks = -(-c // chunk)
    address, block = epilogue or (0, 0)
    filters = padded_channels(c, SIZES[work]) * SIZES[work] * taps
    args = (x3.address, y3.address, weights.address, bias, extra.address if extra else 0, float(low), float(high),
            address, block, x3.strides[0], *x3.strides[2:], y3.strides[0], *y3.strides[2:], r3.strides[0], *r3.strides[2:],
            c, *x3.shape[2:], od, oh, ow, *weights.kernel, *steps, *dils, *begin, row_blocks, chunk, chunks, strip,
            *_unrolled(dtype, weights.kernel, steps, dils, (x3, y3, r3), (low, high)))  # fmt: skip
    assert len(args) == word.WORDS
    kernel = handwritten("depthwise", "depthwise:factory", dtype=dtype)
    moved = size * (n * c * (x3.pixels + y3.pixels)) + filters
    return [*first, Launch(kernel, args, n * od * row_blocks * chunks, 128, label, flops, moved), *last]


def _unrolled(
    dtype: str, kernel: tuple[int, ...], steps: tuple[int, ...], dils: tuple[int, ...], images: tuple[Image, Image, Image],
    clip: tuple[float, float],
) -> tuple[object, ...]:  # fmt: skip
    """Rows and columns of the unrolled tile for this window, its kernel and argument block; all 0 if it has none."""
    spec = depthwisetile.spec(dtype, kernel[1:], steps[1:]) if kernel[0] == dils[1] == dils[2] == 1 else None
    if spec is None:
        return (0, 0, 0, 0)
    strides = [step for image in images for step in image.strides[3:]]
    return (*depthwisetile.shape(kernel[1:]), Address(spec), Block((*strides, *map(float, clip))))


@deferred(least=1)
def _blocking(
    channels: int, window: tuple[int, int], width: int, steps: tuple[int, int], outer: tuple[int, int], flops: int, threads: int,
    size: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Channels of one task, blocks of output rows, output columns of a strip.

    As many blocks for each thread, which then works on rows that it made itself in the step before.
    """
    lanes = target.current().lanes
    images, height = outer
    vectors = -(-channels // lanes)
    # of one column of input, for a pair of output rows and the next pair
    column = (window[0] + 3 * steps[0]) * lanes * size
    narrow = min(width, _STRIP) * steps[1] + window[1]
    kept = _L2_ROWS if window[0] <= _LOW else _L1_ROWS
    chunk = min(vectors, max(2, kept // (narrow * column)))
    chunk = -(-vectors // -(-vectors // chunk) // 2) * 2 if chunk > 1 else 1
    strip = max(_STRIP, (kept // (chunk * column) - window[1]) // steps[1] // 4 * 4)
    tasks = max(1, min(8 * threads, flops // _TASK_FLOPS))
    chunks = -(-vectors // chunk)
    blocks = max(1, min(height, tasks // (images * chunks)))
    if images % threads and blocks > threads:
        blocks -= blocks % threads
    return chunk * lanes, blocks, strip


def native_output(dtype: str, y: Image, epilogue: object, alloc: Alloc, threads: int, label: str) -> tuple[Image, list[Launch]]:
    """A channels-last image to compute y in, and the launches that then bring it to y.

    Raises:
        ValueError: y is not channels-last and an epilogue has to see it.
    """
    size = SIZES[dtype]
    if y.channels_last(size):
        return y, []
    if epilogue is not None:
        raise ValueError(f"{label}: an epilogue needs a channels-last output, given strides {y.strides}")
    out = channels_last(alloc(prod(y.shape) * size), y.shape, size)
    return out, pad_copy(dtype, out, dtype, y, threads=threads, label=f"{label}: layout")


def native_input(dtype: str, x: Image, launches: list[Launch], alloc: Alloc, threads: int, label: str) -> Image:
    """x, or a channels-last copy of it that is made by a launch added to `launches`."""
    size = SIZES[dtype]
    if x.channels_last(size):
        return x
    copy = channels_last(alloc(prod(x.shape) * size), x.shape, size)
    launches.extend(pad_copy(dtype, x, dtype, copy, threads=threads, label=f"{label}: layout"))
    return copy


def factory(dtype: str) -> Callable:
    """The kernel. Task = (image, output depth, block of rows, chunk of channels), the chunk running fastest.

    Scratch: 64 bytes for the epilogue's block, as many for the unrolled tile's.
    """
    from . import simd

    lanes = target.current().lanes * (4 if dtype == "f64" else 8) // 8
    size, weight = SIZES[dtype], 8 if dtype == "f64" else 4
    four, part = _tile(dtype, lanes, 4, 2), _tile(dtype, lanes, 4, 0)
    two, one, edge = _tile(dtype, lanes, 2, 4), _tile(dtype, lanes, 1, 4), _tile(dtype, lanes, 1, 0)
    words, call_kernel = simd.block, simd.call_kernel

    def kernel(args, task, scratch):
        c, d, h, w = args[word.CHANNELS], args[word.PLANES], args[word.ROWS], args[word.PIXELS]
        od, oh, ow = args[word.OUT_PLANES], args[word.OUT_ROWS], args[word.OUT_PIXELS]
        kd, kh, kw = args[word.TAP_PLANES], args[word.TAP_ROWS], args[word.TAP_PIXELS]
        sd, sh, sw = args[word.STEP_PLANE], args[word.STEP_ROW], args[word.STEP_PIXEL]
        dd, dh, dw = args[word.APART_PLANE], args[word.APART_ROW], args[word.APART_PIXEL]
        bd, bh, bw = args[word.BEFORE_PLANES], args[word.BEFORE_ROWS], args[word.BEFORE_PIXELS]
        row_blocks, chunk, chunks = args[word.ROW_BLOCKS], args[word.CHUNK], args[word.CHUNKS]
        c0, outer = task % chunks * chunk, task // chunks
        block, outer = outer % row_blocks, outer // row_blocks
        depth, n = outer % od, outer // od
        cols = min(chunk, c - c0)
        vectors, left = cols // lanes, cols % lanes
        rest = cols - left
        # output columns [inside, after) have every tap of a row inside the image
        inside = min(ow, -(-bw // sw))
        after = max(inside, min(ow, (w - 1 + bw - (kw - 1) * dw) // sw + 1))
        at_d = depth * sd - bd
        d0, d1 = max(0, -(at_d // dd)), min(kd, (d - 1 - at_d) // dd + 1)
        tap, bias, across = lanes * weight, args[word.BIAS] + c0 * weight if args[word.BIAS] != 0 else 0, sw * args[word.X_PIXEL]
        vector = kd * kh * kw * tap  # bytes of the filters of one vector of channels
        row, stop, strip, begin = block * oh // row_blocks, (block + 1) * oh // row_blocks, args[word.STRIP], 0
        # strips have as many columns inside the image, the last one more
        end = inside + strip if after - inside >= 2 * strip else ow
        while begin < ow:
            at_h = row * sh - bh
            h0, h1 = max(0, -(at_h // dh)), min(kh, (h - 1 - at_h) // dh + 1)
            x = (args[word.X] + n * args[word.X_IMAGE] + (at_d + d0 * dd) * args[word.X_PLANE]
                 + (at_h + h0 * dh) * args[word.X_ROW] + c0 * size)  # fmt: skip
            filters = args[word.FILTERS] + c0 // lanes * vector + (d0 * kh + h0) * kw * tap
            y = args[word.Y] + n * args[word.Y_IMAGE] + depth * args[word.Y_PLANE] + row * args[word.Y_ROW] + c0 * size
            r = args[word.RESIDUAL]
            if r != 0:
                r += n * args[word.R_IMAGE] + depth * args[word.R_PLANE] + row * args[word.R_ROW] + c0 * size
            nd, nh, col, high = d1 - d0, h1 - h0, begin, 1
            # two rows with every tap inside the image
            if args[word.TILE_ROWS] != 1 and stop - row >= 2 and h0 == 0 and at_h + sh + (kh - 1) * dh < h:
                high = 2
            whole = nd == kd and nh == kh and high == args[word.TILE_ROWS]
            broad = args[word.TILE_PIXELS] if whole and after - inside >= args[word.TILE_PIXELS] else 4
            while col < end:
                w0, w1, pixels = 0, kw, 1
                if col < inside or col >= after:
                    at_w = col * sw - bw
                    w0, w1 = max(0, -(at_w // dw)), min(kw, (w - 1 - at_w) // dw + 1)
                elif after - inside >= broad:
                    pixels, col = broad, min(col, min(end, after) - broad)
                xt, ft, yt = x + (col * sw - bw + w0 * dw) * args[word.X_PIXEL], filters + w0 * tap, y + col * args[word.Y_PIXEL]
                rt = r + col * args[word.R_PIXEL] if r != 0 else 0
                if whole and pixels == args[word.TILE_PIXELS]:
                    tile = words(scratch + 64)
                    tile[0], tile[1], tile[2], tile[3], tile[4], tile[5] = xt, ft, bias, yt, rt, left
                    call_kernel(args[word.TILE_KERNEL], args[word.TILE_BLOCK], vectors, scratch)
                elif high == 2 and pixels == 1:
                    two(args, xt, ft, bias, yt, rt, nd, nh, w1 - w0, vectors,
                        sh * args[word.X_ROW], args[word.Y_ROW], args[word.R_ROW])  # fmt: skip
                elif pixels == 1:
                    one(args, xt, ft, bias, yt, rt, nd, nh, w1 - w0, vectors, 0, 0, 0)
                else:
                    for i in range(high):
                        ri = rt + i * args[word.R_ROW] if r != 0 else 0
                        xi, yi = xt + i * sh * args[word.X_ROW], yt + i * args[word.Y_ROW]
                        four(args, xi, ft, bias, yi, ri, nd, nh, kw, vectors, across, args[word.Y_PIXEL], args[word.R_PIXEL])
                if left > 0 and not (whole and pixels == args[word.TILE_PIXELS]):
                    xt, ft, yt = xt + rest * size, ft + vectors * vector, yt + rest * size
                    rt = rt + rest * size if r != 0 else 0
                    to = bias + rest * weight if bias != 0 else 0
                    for i in range(high):
                        ri = rt + i * args[word.R_ROW] if r != 0 else 0
                        xi, yi = xt + i * sh * args[word.X_ROW], yt + i * args[word.Y_ROW]
                        if pixels == 4:
                            part(args, xi, ft, to, yi, ri, nd, nh, kw, left, across, args[word.Y_PIXEL], args[word.R_PIXEL])
                        else:
                            edge(args, xi, ft, to, yi, ri, nd, nh, w1 - w0, left, 0, 0, 0)
                col += pixels
            for i in range(high if args[word.EPILOGUE] != 0 else 0):
                where = words(scratch)
                where[0], where[1], where[2] = n, 0, (depth * oh + row + i) * ow + begin
                where[3], where[4], where[5] = end - begin, c0, cols
                call_kernel(args[word.EPILOGUE], args[word.EPILOGUE_BLOCK], 0, scratch)
            row += high
            if row == stop:
                row, begin, end = block * oh // row_blocks, end, end + strip
                if after - end < strip:
                    end = ow

    return kernel


def _tile(dtype: str, lanes: int, pixels: int, wide: int) -> Callable:
    """``tile(args, x, filters, bias, y, residual, nd, nh, nw, count, pixel, out, other)``: `pixels` outputs of some channels.

    `count` vectors of channels, `wide` at a time while they last, or the first `count` lanes of one vector (wide = 0).
    x and filters point at the first tap of the first pixel; nd, nh, nw count the taps; pixel, out and other are bytes
    between the pixels of x, y and residual: along a row, or down a column.
    """
    from . import window

    weight = "f64" if dtype == "f64" else "f32"

    def body(code, block, x, filters, bias, y, residual, nd, nh, nw, count, pixel, out, other):
        argument = [code.argument(block, i) for i in range(word.WORDS)]
        tap_size = code.word(lanes * SIZES[weight])
        # bytes of the filters of one vector of channels
        vector = tap_size * argument[word.TAP_PLANES] * argument[word.TAP_ROWS] * argument[word.TAP_PIXELS]
        # from one tap to the next: bytes in the image and in the filters
        steps = [
            (argument[word.X_PLANE] * argument[word.APART_PLANE], tap_size * argument[word.TAP_PIXELS] * argument[word.TAP_ROWS]),
            (argument[word.X_ROW] * argument[word.APART_ROW], tap_size * argument[word.TAP_PIXELS]),
            (argument[word.X_PIXEL] * argument[word.APART_PIXEL], tap_size),
        ]
        low, high = code.number(argument[word.LOW]), code.number(argument[word.HIGH])
        left, step = None if wide else count, lanes * code.size

        def group(first, vectors):
            offset, sums = first * step, []
            for v in range(vectors):
                initial = code.variable(low.like(0))
                with code.when(bias != 0):
                    initial.set(code.load(bias + tap_size * (first + v), left, weight))
                sums.append([code.variable(initial.get()) for _ in range(pixels)])
            with code.taps([nd, nh, nw], steps, (x + offset, filters + vector * first)) as (at, tap):
                for v, row in enumerate(sums):
                    factor = code.load(tap + vector * v, None, weight)
                    for i, total in enumerate(row):
                        total.set(code.load(at + pixel * i + v * step, left).fma(factor, total.get()))
            for v, row in enumerate(sums):
                for i, total in enumerate(row):
                    here = offset + v * step
                    with code.when(residual != 0):
                        total.set(total.get() + code.load(residual + here + other * i, left))
                    code.store(y + here + out * i, total.get().at_least(low).at_most(high), left)

        if wide == 0:
            group(code.word(0), 1)
            return
        groups = count / wide
        with code.loop(groups) as index:
            group(index * wide, wide)
        if wide > 1:
            with code.loop(count - groups * wide) as index:
                group(groups * wide + index, 1)

    return window.leaf("x filters bias y residual nd nh nw count pixel out other", dtype, lanes, body)
