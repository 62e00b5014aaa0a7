"""Convolution, dense or grouped, as products of image rows with packed weights; nothing is unrolled into columns.

Loop order of a task: K blocks; groups of tiles; panels of output channels; tiles of the group. A tile is a register
block (`convtile`) of T neighbouring output pixels times a panel of two vectors of channels. If the task's
panels fit in L2, groups are small: their image rows stay in L1 while all panels pass by. Otherwise all tiles are one
group: its image rows stay in L2, each panel is read once. K runs over the filter's taps; the taps of a row and their
channels are consecutive in memory, one segment, if dilation is 1. Tiles take a segment in pieces (`convtile`). A 1 x 1
convolution of stride 1 takes the whole image as one row, which makes it a GEMM.

The image must be channels-last and padded; if it is not, a copying launch is put in front, or tasks copy what they need
(`convfetch`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from . import convfetch, target
from .blocking import blocking, crosses_rows, heights, panel_width, single_heights
from .convweights import PackedWeights
from .convwords import (
    BIAS,
    BLOCK_LENGTH,
    BLOCK_SEGMENTS,
    COUNT,
    EPILOGUE,
    EPILOGUE_BLOCK,
    FETCH,
    FETCH_ABOVE,
    FETCH_EXTENT,
    FETCH_IMAGE,
    FETCH_LEFT,
    FETCH_PIXEL,
    FETCH_PIXELS,
    FETCH_ROW,
    FETCH_ROWS,
    FETCH_STEP,
    FETCH_WIDTH,
    FILTERS,
    FILTERS_IMAGE,
    FILTERS_OFFSET,
    FIRST,
    GROUP_BYTES,
    GROUP_CHANNELS,
    GROUP_PANELS,
    GROUPS,
    HIGH,
    LINE_PIXELS,
    LINES,
    LOW,
    PANEL_BLOCKS,
    PANEL_BYTES,
    PANELS,
    PER_ROW,
    PIXELS,
    PLANES,
    R_IMAGE,
    R_OFFSET,
    R_PIXEL,
    R_PLANE,
    R_ROW,
    RESIDUAL,
    ROW_BLOCKS,
    ROWS,
    SECOND,
    SEGMENT_LENGTH,
    SEGMENT_PIXELS,
    SEGMENT_PLANES,
    SEGMENT_ROWS,
    TAP_PIXEL,
    TAP_PLANE,
    TAP_ROW,
    TILE_GROUP,
    TILES,
    WORDS,
    X_IMAGE,
    X_OFFSET,
    X_PIXEL,
    X_PLANE,
    X_ROW,
    Y_IMAGE,
    Y_OFFSET,
    Y_PIXEL,
    Y_PLANE,
    Y_ROW,
    X,
    Y,
)  # fmt: skip
from .depthwise import native_input, native_output
from .image import SIZES, Alloc, Image, Opaque, channels_last, merge_rows, triple
from .launch import Launch
from .padcopy import pad_copy
from .sizes import least, most
from .spec import handwritten

PART = 128  # K steps of a piece at the most, and of one part of a sum
PIECE = 16  # bytes of a piece's two words


def conv(
    dtype: str,
    x: Image,
    weights: PackedWeights,
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
    label: str = "conv",
) -> list[Launch]:
    """y = clip(convolution of x + bias + residual, low, high) (ONNX Conv).

    Args:
        dtype: memory type of x, y and residual: f32, f64, i32, i64; f16 and bf16 are converted to f32 and back by copies.
            Weights and bias are of that type, f32 for f16 and bf16. i16x2: channels of x and weights are pairs of int16,
            all else is int32.
        pads: borders before the first element of each spatial dimension (those behind the last one may follow); what
            lies behind the last element follows from the shape of y.
        bias: address of one value per output channel, or 0.
        residual: an image of y's shape that is added; it may be y itself.
        low, high: of floats.
        epilogue: (kernel address, argument block address). The kernel is called once for each block of finished
            outputs with [n, 0, first pixel, pixels, first channel, channels] as int64 at the start of the scratch;
            pixels count through the flattened output image. It needs channels-last output, not f16 or bf16.
        alloc: workspace that lives as long as the launches.

    Raises:
        ValueError: shapes do not fit, or an epilogue is given with an output that it cannot see.
    """
    o, c, *kernel = weights.shape
    if x.shape[1] != c * weights.groups or y.shape[1] != o or x.shape[0] != y.shape[0]:
        raise ValueError(f"{label}: input {x.shape}, weights {weights.shape}, groups {weights.groups}, output {y.shape}")
    if 0 in y.shape:
        return []
    work = "f32" if dtype in ("f16", "bf16") else dtype
    steps, dils, begin = triple(strides, 1), triple(dilations, 1), triple(pads[: len(x.shape) - 2], 0)
    before: list[Launch] = []
    window = convfetch.Window(tuple(kernel), steps, dils, begin)
    fetch = convfetch.of_groups(x, y, weights.groups, window, work) if dtype == work else None
    if weights.folded:
        copy = convfetch.padded(dtype, work, x, y, window, before, alloc, threads, label, behind=64)
        fetch = convfetch.of_rows(copy, y.shape[2], window, work)
        weights = replace(weights, shape=(o, kernel[1] * c, 1, 1, kernel[2]))
        steps, dils = (1, 1, steps[2]), (1, 1, dils[2])
    image = fetch.image if fetch else convfetch.padded(dtype, work, x, y, window, before, alloc, threads, label)
    if dtype != work:
        if epilogue is not None:
            raise ValueError(f"{label}: an epilogue needs output of the type that is computed, given {dtype}")
        out = channels_last(alloc(prod(y.shape) * 4), y.shape, 4)
        after = pad_copy(work, out, dtype, y, threads=threads, label=f"{label}: layout")
        if residual is not None:
            wide = channels_last(alloc(prod(y.shape) * 4), y.shape, 4)
            before += pad_copy(dtype, residual, work, wide, threads=threads, label=f"{label}: layout")
            residual = wide
    else:
        out, after = native_output(dtype, y, epilogue, alloc, threads, label)
        residual = residual and native_input(dtype, residual, before, alloc, threads, label)
    main = product(work, image, weights, out.volume(), residual and residual.volume(), steps, dils, threads,
                      (bias, float(low), float(high), *(epilogue or (0, 0))), label, fetch=fetch)  # fmt: skip
    return [*before, main, *after]


def product(
    work: str, x: Image, weights: PackedWeights, y: Image, residual: Image | None, steps: tuple[int, ...],
    dils: tuple[int, ...], threads: int, finish: tuple, label: str, offsets: tuple[int, int, int, int] = (0, 0, 0, 0),
    fetch: convfetch.Fetch | None = None,
) -> Launch:  # fmt: skip
    """The launch of one product; `offsets` are bytes to add to the addresses of x, y, weights and residual."""
    size, groups = SIZES[work], weights.groups
    o, c, *kernel = weights.shape
    flops = 2 * y.shape[0] * y.pixels * o * c * prod(kernel) * (2 if work == "i16x2" else 1)
    moved = size * (x.shape[0] * x.shape[1] * x.pixels + y.shape[0] * o * y.pixels + o * c * prod(kernel))
    taps = tuple(s * d for s, d in zip(x.strides[2:], dils))
    # the image as the tiles' rows see it: one pixel per output pixel
    seen = Image(x.address, (*y.shape[:1], x.shape[1], *y.shape[2:]),
                 (*x.strides[:2], *(s * t for s, t in zip(x.strides[2:], steps))))  # fmt: skip
    other = residual or y
    if kernel == [1, 1, 1] and fetch is None:  # what a task fetches is counted in rows
        seen, y, other = merge_rows(seen, y, other)
    lines = y.shape[3:]  # of the image; tiles may go on from one to the next
    if crosses_rows():
        y, other = merge_rows(y, other)
    segments = (kernel[0], kernel[1], kernel[2], c)
    if kernel[2] == 1 or (dils[2] == 1 and x.strides[4] == c * size):
        segments = (kernel[0], kernel[1], 1, kernel[2] * c)
    n, _, od, oh, ow = y.shape
    b = blocking(work, od * oh, ow, segments, groups, o // groups, flops, n, threads)
    per_group, panel = -(-o // groups // panel_width(size)), panel_width(size) * c * prod(kernel) * size
    args = (x.address, y.address, weights.address, finish[0], residual.address if residual else 0, *finish[1:],
            seen.strides[0], *seen.strides[2:], y.strides[0], *y.strides[2:], other.strides[0], *other.strides[2:],
            od, oh, *taps, ow, *segments, b.first, b.count, b.second, b.per_row, b.segments, b.length,
            groups, per_group, o // groups, c * size, panel, b.tiles, b.row_blocks, b.panels, b.panel_blocks, *offsets,
            weights.image_stride, b.tile_group, *(fetch.arguments() if fetch else convfetch.NO_FETCH), *lines)  # fmt: skip
    assert len(args) == WORDS
    spec = handwritten("conv", "conv:factory", dtype=work)
    scratch = 64 + 3 * heights()[0] * panel_width(size) * size + -(-PIECE * b.segments * -(-b.length // PART) // 64) * 64
    pixels = b.tiles * most(b.first, b.second)
    scratch += -(-8 * pixels // 64) * 64
    if fetch:
        scratch += fetch.scratch(least(lines[0], (pixels - 2) // lines[1] + 2))
    return Launch(spec, args, n * b.row_blocks * b.panel_blocks, scratch, label, flops, moved)


def factory(dtype: str) -> Callable:
    """The kernel. Task = (image, block of tiles, block of panels), the panels running fastest.

    Scratch: 64 bytes for the epilogue's block, a tile of zeros, one tile (for a panel that is not full), sums put
    aside, the pieces of a K block, offsets of the task's pixels, fetched rows of a group.
    """
    from . import convtile, simd
    from .subroutine import subroutine

    lanes = target.current().lanes * 4 // SIZES[dtype]
    size, width = SIZES[dtype], 2 * lanes
    row_bytes = width * size
    raw, singles = convtile.memory_type(dtype), single_heights()
    tiles_of = convtile.tiles(dtype, lanes, heights(), singles)
    h0, h1, h2, h3, h4, _ = singles
    fetch_group, fold_rows = convfetch.copiers(raw, lanes)
    fetched, crossing, longest, piece_bytes = convtile.FETCHED, crosses_rows(), PART, PIECE
    words, call_kernel, highest = simd.block, simd.call_kernel, heights()[0]
    load_first, load_one = simd.load_first(raw, lanes), simd.load(raw, 0)
    load, store, zero = simd.load(raw, lanes), simd.store(raw), simd.splat(raw, lanes)

    @subroutine
    def gather(x, x_row, base, y, rows, cols):
        # y[i, :] = x[i, :cols] + base[:cols], the vectors of a row that hold columns
        for i in range(rows):
            for v in range(0, cols, lanes):
                value = load_first(x + i * x_row + v * size, cols - v) + load_first(base + v * size, cols - v)
                store(y + i * row_bytes + v * size, value)

    @subroutine
    def scatter(x, y, y_row, rows, cols):
        # the rest one by one: masked stores take AMD's CPUs tens of cycles
        whole = cols // lanes * lanes
        for i in range(rows):
            for v in range(0, whole, lanes):
                store(y + i * y_row + v * size, load(x + i * row_bytes + v * size))
            for v in range(whole, cols):
                store(y + i * y_row + v * size, load_one(x + i * row_bytes + v * size))

    @subroutine
    def cut(table, first, after, rows, columns, plane_step, row_step, step, begin, end):
        # a K block as pieces: the elements from `begin` to `end` of the segments from `first` to `after`
        pieces, at, taken = words(table), 0, 0
        for s in range(first, after):
            offset = s // (rows * columns) * plane_step + s // columns % rows * row_step + s % columns * step
            for k in range(begin, end, longest):
                steps, full = min(longest, end - k), taken >= longest
                pieces[at], pieces[at + 1] = offset + k * size, 2 * steps + (1 if full else 0)
                taken = steps if full else taken + steps
                at += 2

    @subroutine
    def lay_out(places, first, count, lines, columns, depth_step, line_step, step):
        # bytes from the image's first pixel to each of `count` pixels from pixel number `first` on
        pixels, line = words(places), first // columns
        w, h, d = first % columns, line % lines, line // lines
        for i in range(count):
            pixels[i] = d * depth_step + h * line_step + w * step
            w += 1
            if w == columns:
                w, h = 0, h + 1
                if h == lines:
                    h, d = 0, d + 1

    @subroutine
    def finish(kernel, block, scratch, image, pixel, pixels, channel, channels):
        where = words(scratch)
        where[0], where[1], where[2], where[3], where[4], where[5] = image, 0, pixel, pixels, channel, channels
        call_kernel(kernel, block, 0, scratch)

    def kernel(args, task, scratch):
        oh, ow, nd, nh, nw, length = (
            args[ROWS],
            args[PIXELS],
            args[SEGMENT_PLANES],
            args[SEGMENT_ROWS],
            args[SEGMENT_PIXELS],
            args[SEGMENT_LENGTH],
        )
        first, count, second, per_row, taps, part = (
            args[FIRST],
            args[COUNT],
            args[SECOND],
            args[PER_ROW],
            args[BLOCK_SEGMENTS],
            args[BLOCK_LENGTH],
        )
        y_col, infinity = args[Y_PIXEL], 0x7FF << 52
        clips = args[LOW] != infinity - (1 << 63) or args[HIGH] != infinity
        per_group, each, tiles, row_blocks, panels, panel_blocks = (
            args[GROUP_PANELS],
            args[GROUP_CHANNELS],
            args[TILES],
            args[ROW_BLOCKS],
            args[PANELS],
            args[PANEL_BLOCKS],
        )
        p0, outer = task % panel_blocks * panels, task // panel_blocks
        p1 = min(args[GROUPS] * per_group, p0 + panels)
        t0, n = outer % row_blocks * tiles, outer // row_blocks
        t1 = min(args[PLANES] * oh * per_row, t0 + tiles)
        images, outputs, filters = (
            args[X] + args[X_OFFSET],
            args[Y] + args[Y_OFFSET],
            args[FILTERS] + args[FILTERS_OFFSET] + n * args[FILTERS_IMAGE],
        )
        zeros, block = scratch + 64, scratch + 64 + highest * row_bytes
        aside = block + highest * row_bytes
        table = aside + highest * row_bytes
        for v in range(0, highest * width, lanes):
            store(zeros + v * size, zero(0.0))
        segments = nd * nh * nw
        places = table + (taps * ((part + longest - 1) // longest) * piece_bytes + 63) // 64 * 64
        # the place of the task's first tile and first panel; a division costs as much as some K steps
        at0, row0, group0 = t0 % per_row, t0 // per_row, p0 // per_group
        depth0, row0, first0 = row0 // oh, row0 % oh, (p0 - group0 * per_group) * width
        # the task's pixels [q0, q1)
        skew, lines, columns, after = count * (first - second), args[LINES], args[LINE_PIXELS], t1 % per_row
        q0 = t0 // per_row * ow + (at0 * first if at0 <= count else at0 * second + skew)
        q1 = t1 // per_row * ow + (after * first if after <= count else after * second + skew)
        lay_out(places, q0, q1 - q0, lines, columns, args[X_PLANE], args[X_ROW], args[X_PIXEL])
        line = q0 // columns
        copy, held = places + ((q1 - q0) * 8 + 63) // 64 * 64, -1
        # without a single tap or channel the blocks still write bias and residual
        for s in range(0, max(1, segments), taps):
            for k in range(0, max(1, length), part):
                begins = s + k == 0
                last = s + taps >= segments and k + part >= length
                clip = last and clips
                steps = min(taps, segments - s) * min(part, length - k)
                s1, k1 = min(segments, s + taps), min(length, k + part)
                cut(table, s, s1, nh, nw, args[TAP_PLANE], args[TAP_ROW], args[TAP_PIXEL], k, k1)
                pieces = (s1 - s) * ((k1 - k + longest - 1) // longest)
                next_at, next_row, next_depth = at0, row0, depth0
                for t in range(t0, t1, args[TILE_GROUP]):
                    begin_at, begin_row, begin_depth = next_at, next_row, next_depth
                    group, column = group0, first0
                    for p in range(p0, p1):
                        if args[FETCH] != 0 and group != held:
                            held, rows = group, ((q1 - 1) // columns - line) * args[FETCH_STEP] + args[FETCH_EXTENT]
                            row_step, pixel_step = args[FETCH_ROW], args[FETCH_PIXEL]
                            high, wide = args[FETCH_ROWS], args[FETCH_PIXELS]
                            if args[FETCH] == 1:
                                fetch_group(
                                    images + n * args[FETCH_IMAGE] + group * args[GROUP_BYTES], copy,
                                    line * args[FETCH_STEP] - args[FETCH_ABOVE], rows, row_step, pixel_step, high, wide,
                                    args[FETCH_LEFT], args[FETCH_WIDTH], args[GROUP_BYTES],
                                )  # fmt: skip
                            else:
                                first_line = images + n * args[FETCH_IMAGE] + line * row_step
                                fold_rows(first_line, copy, rows, row_step, pixel_step, high, wide, args[FETCH_WIDTH])
                        cols, c0 = min(width, each - column), group * each + column
                        vectors = 1 if cols <= lanes else 2
                        weights = filters + p * args[PANEL_BYTES] + (s * length + k) * row_bytes
                        base = zeros
                        if begins and args[BIAS] != 0:
                            base = args[BIAS] + c0 * size
                        at, row, depth, moved = begin_at, begin_row, begin_depth, True
                        y_line, r_line = outputs, args[RESIDUAL]
                        image = copy - line * args[X_ROW]
                        if args[FETCH] == 0:
                            image = images + n * args[X_IMAGE] + group * args[GROUP_BYTES]
                        # the first tiles to use this panel bring the next one to L2, each a share
                        following, fetch_end = weights + args[PANEL_BYTES], 0
                        if t == t0:
                            fetch_end = following + steps * row_bytes
                        left = min(args[TILE_GROUP], t1 - t)
                        while left > 0:
                            if moved:
                                y_line = outputs + n * args[Y_IMAGE] + depth * args[Y_PLANE] + row * args[Y_ROW] + c0 * size
                                r_line = (
                                    args[RESIDUAL]
                                    + args[R_OFFSET]
                                    + n * args[R_IMAGE]
                                    + depth * args[R_PLANE]
                                    + row * args[R_ROW]
                                    + c0 * size
                                )
                            # a run of tiles of one height in one row
                            height, col, run = first, at * first, min(left, count - at)
                            if at >= count:
                                height, col, run = second, at * second + skew, min(left, per_row - at)
                            place, y = places + ((depth * oh + row) * ow + col - q0) * 8, y_line + col * y_col
                            x = image
                            if not crossing:
                                x += depth * args[X_PLANE] + row * args[X_ROW] + col * args[X_PIXEL]
                            start, start_row, common, out, out_row = y, y_col, base, y, y_col
                            if begins:
                                start, start_row = 0, 0
                                if args[RESIDUAL] != 0:
                                    start, start_row = r_line + col * args[R_PIXEL], args[R_PIXEL]
                            if cols < vectors * lanes:
                                run = 1
                                gather(start if start != 0 else zeros, start_row, base, block, height, cols)
                                start, start_row, common, out, out_row = block, row_bytes, zeros, block, row_bytes
                            done = 0
                            while done < height:
                                rows = height
                                if vectors == 1:
                                    rest = height - done
                                    rows = h0 if rest >= h0 else h1 if rest >= h1 else h2 if rest >= h2 else h3
                                    rows = rows if rest >= rows else h4 if rest >= h4 else 1
                                    run = run if rows == height else 1
                                tiles_of(args, vectors, rows, run, x, place, weights, following, fetch_end,
                                     start + done * start_row, start_row, common, out + done * out_row, out_row, table, pieces,
                                     clip, zeros, aside)  # fmt: skip
                                place, done = place + rows * 8, done + rows
                                if not crossing:
                                    x += rows * args[X_PIXEL]
                            following += run * steps * fetched
                            if cols < vectors * lanes:
                                scatter(block, y, y_col, height, cols)
                            at += run
                            left -= run
                            moved = at == per_row
                            if moved:
                                at, row = 0, row + 1
                                if row == oh:
                                    row, depth = 0, depth + 1
                        next_at, next_row, next_depth = at, row, depth
                        if last and args[EPILOGUE] != 0:
                            begin = begin_at * first if begin_at <= count else begin_at * second + skew
                            stop = at * first if at <= count else at * second + skew
                            pixel = (begin_depth * oh + begin_row) * ow + begin
                            finish(
                                args[EPILOGUE],
                                args[EPILOGUE_BLOCK],
                                scratch,
                                n,
                                pixel,
                                (depth * oh + row) * ow + stop - pixel,
                                c0,
                                cols,
                            )
                        column += width
                        if column >= each:
                            column, group = 0, group + 1

    return kernel
