"""Reading images between their pixels: GridSample (at any points), RoiAlign (averages or maxima over boxes), MaxRoiPool.

Channels-last: for one output pixel the positions and weights of its taps are listed in scratch, then all channels are
mixed by vectors (`resize.mix`). Task = some output pixels, or one box. Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from . import target
from .image import SIZES, Alloc, Image, Opaque, channels_last
from .launch import Launch
from .padcopy import pad_copy
from .spec import handwritten

_TASK_BYTES = 32768
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
_LIST = 128  # taps of a list: 64 of a cubic point in a volume, or samples of a box of which the result is one


def grid_sample(
    dtype: str, grid_type: str, x: Image, grid: Opaque, y: Opaque, points: int, mode: str, padding: str, units: str, *,
    alloc: Alloc, threads: int = 1,
) -> list[Launch]:  # fmt: skip
    """y[n, p, c] = x[n, c, at grid[n, p]]; y and the grid are dense.

    Args:
        dtype, grid_type: f32 or f64. points: output pixels of an image.
        mode: nearest, linear or cubic. padding: zeros, border or reflection.
        units: where the grid's -1 and 1 are, at the image's `edges` or the centres of its `corners`; or it counts `pixels`.
        alloc: workspace for a channels-last copy of another x.
    """
    n, channels, *sizes = x.shape
    if n * points * channels == 0:
        return []
    address, launches = _dense(dtype, x, alloc, threads)
    block = max(1, min(points, _TASK_BYTES // (channels * SIZES[dtype])))
    blocks = -(-points // block)
    args = (address, grid, y, channels, points, block, blocks, prod(sizes) * channels, *sizes)
    kernel = handwritten(
        "grid_sample", "sample:grid_kernel", dtype=dtype, grid_type=grid_type, mode=mode, padding=padding, units=units,
        spatial=len(sizes),
    )  # fmt: skip
    moved = SIZES[dtype] * n * channels * (points + prod(sizes))
    flops = 2 * n * points * channels * _TAPS[mode] ** len(sizes)
    return [*launches, Launch(kernel, args, n * blocks, 8192, f"{mode} at {n}x{points} points", flops, moved)]


def _dense(dtype: str, x: Image, alloc: Alloc, threads: int) -> tuple[Opaque, list[Launch]]:
    """The address of x as a dense channels-last image, and what copies it there."""
    size = SIZES[dtype]
    wanted = channels_last(x.address, x.shape, size)
    if all(n == 1 or a == b for n, a, b in zip(x.shape, x.strides, wanted.strides)):
        return x.address, []
    copy = channels_last(alloc(prod(x.shape) * size), x.shape, size)
    return copy.address, pad_copy(dtype, x, dtype, copy, threads=threads, label="layout")


def roi_align(
    dtype: str, index: str, x: Image, boxes: Opaque, batch: Opaque, y: Opaque, count: int, size: tuple[int, int], mode: str,
    half_pixel: bool, scale: float, ratio: int, *, alloc: Alloc, threads: int = 1,
) -> list[Launch]:  # fmt: skip
    """y[r, i, j, c]: the average (or largest) sample of x in cell i, j of box r; y is dense.

    Args:
        index: type of the batch indices. size: cells of a box (height, width).
        ratio: samples along a cell's side; 0: as many as it has pixels.
        alloc: workspace for a channels-last copy of another x.
    """
    n, channels, height, width = x.shape
    if count * prod(size) * channels == 0:
        return []
    address, launches = _dense(dtype, x, alloc, threads)
    args = (address, boxes, batch, y, 0, n, height, width, channels, *size, ratio, float(scale))
    kernel = handwritten("roi_align", "sample:roi_kernel", dtype=dtype, index=index, mode=mode, half=half_pixel)
    moved = SIZES[dtype] * channels * (count * prod(size) + n * height * width)
    label = f"{count} boxes to {size[0]}x{size[1]}x{channels}"
    return [*launches, Launch(kernel, args, count * size[0], 8192, label, 8 * count * prod(size) * channels, moved, 4)]


def max_roi_pool(
    dtype: str, x: Image, boxes: Opaque, y: Opaque, count: int, size: Sequence[int], scale: float, *, alloc: Alloc, threads: int = 1
) -> list[Launch]:
    """y[r, i, j, c]: the largest pixel of x in cell i, j of box r (image, x1, y1, x2, y2), 0 where it has none; y is dense."""
    n, channels, height, width = x.shape
    if count * prod(size) * channels == 0:
        return []
    address, launches = _dense(dtype, x, alloc, threads)
    args = (address, boxes, y, 0, n, height, width, channels, *size, float(scale))
    kernel = handwritten("max_roi_pool", "sample:max_kernel", dtype=dtype)
    moved = SIZES[dtype] * channels * (count * prod(size) + n * height * width)
    return [*launches, Launch(kernel, args, count, 0, f"{count} boxes to {size[0]}x{size[1]}x{channels}", 0, moved, 3)]


def max_kernel(dtype: str) -> Callable:
    """The kernel of `max_roi_pool`. Task = a box. Cells overlap where they do not divide the box."""
    from . import simd

    size, lanes = SIZES[dtype], target.current().lanes * 4 // SIZES[dtype]
    load, store, to_word = simd.load(dtype, 0), simd.store_first(dtype), simd.to("i64")
    load_first, at_least, splat, single = simd.load_first(dtype, lanes), simd.maximum, simd.splat(dtype, lanes), simd.to(dtype)
    floor, ceil, number = simd.floor, simd.ceil, simd.float_argument
    # half away from zero, as C rounds
    rounded = simd.lift(lambda x: (x.abs() + 0.5).floor().copysign(x), "rounded")

    def kernel(args, task, scratch):
        n, height, width, channels, rows, columns = args[4], args[5], args[6], args[7], args[8], args[9]
        scale, box = single(number(args[10])), args[1] + 5 * task * size
        image = to_word(load(box))
        if image < 0 or image >= n:
            args[3] = 1
            return
        # both corners belong to the box
        left, top = to_word(rounded(load(box + size) * scale)), to_word(rounded(load(box + 2 * size) * scale))
        right, end = to_word(rounded(load(box + 3 * size) * scale)), to_word(rounded(load(box + 4 * size) * scale))
        high, broad = max(end - top + 1, 1) / rows, max(right - left + 1, 1) / columns
        for cell in range(rows * columns):
            i, j = cell // columns, cell % columns
            first_row, last_row = top + to_word(floor(i * high)), top + to_word(ceil((i + 1) * high))
            first, last = left + to_word(floor(j * broad)), left + to_word(ceil((j + 1) * broad))
            first_row, last_row = min(max(first_row, 0), height), min(max(last_row, 0), height)
            first, last = min(max(first, 0), width), min(max(last, 0), width)
            to = args[2] + (task * rows * columns + cell) * channels * size
            for c in range(0, channels, lanes):
                left_over = channels - c
                most = splat(single(0.0))
                if first_row < last_row and first < last:
                    most = splat(single(-float("inf")))
                for row in range(first_row, last_row):
                    for column in range(first, last):
                        at = args[0] + (((image * height + row) * width + column) * channels + c) * size
                        most = at_least(most, load_first(at, left_over))
                store(to + c * size, most, left_over)

    return kernel


def grid_kernel(dtype: str, grid_type: str, mode: str, padding: str, units: str, spatial: int) -> Callable:
    """The kernel of `grid_sample`."""
    from . import simd
    from .resize import mix

    size, grid_size, taps = SIZES[dtype], SIZES[grid_type], _TAPS[mode]
    place, factor, wide = _place(padding, units == "corners"), _weights(mode), simd.to("f64")
    position = _position(units)
    load_grid, words, store, zero = simd.load(grid_type, 0), simd.block, simd.store(dtype), _fill(dtype)
    gather = mix(dtype, -1)
    # scratch: positions, weights as float64 by dimension; then the list of taps
    at_index, at_weight, at_list, at_factor = 0, 128, 256, 256 + 8 * _LIST
    load_wide, store_wide, floor, rint = simd.load("f64", 0), simd.store("f64"), simd.floor, simd.rint
    to_word = simd.to("i64")

    def kernel(args, task, scratch):
        channels, points = args[3], args[4]
        n, first = task // args[6], task % args[6] * args[5]
        x = args[0] + n * args[7] * size
        table, listed = words(scratch + at_index), words(scratch + at_list)
        for p in range(first, min(first + args[5], points)):
            y = args[2] + (n * points + p) * channels * size
            grid = args[1] + (n * points + p) * spatial * grid_size
            for d in range(spatial):
                length = args[8 + d]
                # the grid names the innermost dimension first
                v = wide(load_grid(grid + (spatial - 1 - d) * grid_size))
                at = position(v, length)
                if not at > -1e9:
                    at = -1e9
                at = min(at, 1e9)
                base = rint(at) if taps == 1 else floor(at)
                ratio, left = at - base, to_word(base) - (taps // 2 - 1 if taps > 1 else 0)
                for k in range(taps):
                    table[4 * d + k] = place(left + k, length)
                    store_wide(scratch + at_weight + 8 * (4 * d + k), factor(ratio, k))
            count = 0
            for i in range(taps if spatial == 3 else 1):
                for j in range(taps if spatial >= 2 else 1):
                    for k in range(taps):
                        a, b, c = table[i], table[4 * max(spatial - 2, 0) + j], table[4 * (spatial - 1) + k]
                        weight = load_wide(scratch + at_weight + 8 * (4 * (spatial - 1) + k))
                        where, valid = c, c >= 0
                        if spatial >= 2:
                            weight *= load_wide(scratch + at_weight + 8 * (4 * (spatial - 2) + j))
                            where += b * args[8 + spatial - 1]
                            valid = valid and b >= 0
                        if spatial == 3:
                            weight *= load_wide(scratch + at_weight + 8 * i)
                            where += a * args[9] * args[10]
                            valid = valid and a >= 0
                        if valid:
                            listed[count] = where * channels * size
                            store(scratch + at_factor + count * size, weight)
                            count += 1
            if count == 0:
                zero(y, channels)
            else:
                gather(x, 1, scratch + at_list, scratch + at_factor, count, y, channels)

    return kernel


def _position(units: str) -> Callable:
    """``position(v, length)``: the pixel, and part of one, that a coordinate names."""
    from numba.extending import register_jitable

    @register_jitable
    def position(v, length):
        if units == "pixels":
            return v
        return (v + 1.0) * 0.5 * (length - 1) if units == "corners" else ((v + 1.0) * length - 1.0) * 0.5

    return position


def _place(padding: str, align: bool) -> Callable:
    """``place(i, length)``: the pixel that stands for position i, or -1 for none."""
    from . import emit, simd

    def place(i, length):
        if padding == "zeros":
            return i.select((i >= 0) & (i < length), i, i.like(-1))
        last = length - 1
        if padding == "border":
            return i.select(i < 0, i.like(0), i.select(i > last, last, i))
        period = last * 2 if align else length * 2
        # a period of 0 (one pixel, corners aligned) leaves 0
        r = emit.E.__mod__(i, period)
        r = r.select(r < 0, r + period, r)
        turned = period - r if align else period - 1 - r
        return r.select(r > last, turned, r)

    return simd.lift(place, "place")


def _weights(mode: str) -> Callable:
    """``factor(ratio, k)``: the weight of tap k of a point `ratio` behind its pixel."""
    from numba.extending import register_jitable

    @register_jitable
    def factor(ratio, k):
        if mode == "nearest":
            return 1.0
        if mode == "linear":
            return 1.0 - ratio if k == 0 else ratio
        a, x = -0.75, abs(ratio + 1.0 - k)
        if x <= 1.0:
            return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        return ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a

    return factor


def _fill(dtype: str) -> Callable:
    """``zero(y, count)``: `count` zeros."""
    from . import simd
    from .subroutine import subroutine

    size, store = SIZES[dtype], simd.store(dtype)

    @subroutine
    def zero(y, count):
        for i in range(count):
            store(y + i * size, 0.0)

    return zero


def roi_kernel(dtype: str, index: str, mode: str, half: bool) -> Callable:
    """The kernel of `roi_align`. Task = one row of cells of a box."""
    from . import simd
    from .resize import mix

    size, index_bytes = SIZES[dtype], SIZES[index]
    load, load_index, store, words, wide = (
        simd.load(dtype, 0), simd.load(index, 0), simd.store(dtype), simd.block, simd.to("f64")
    )  # fmt: skip
    number, to_word, ceil = simd.float_argument, simd.to("i64"), simd.ceil
    gather, peak, zero, maximum = mix(dtype, -1), _peak(dtype), _fill(dtype), mode == "max"
    at_factor = 8 * _LIST

    def kernel(args, task, scratch):
        height, width, channels, cells_h, cells_w = args[6], args[7], args[8], args[9], args[10]
        r, i = task // cells_h, task % cells_h
        image = to_word(load_index(args[2] + r * index_bytes))
        if image < 0 or image >= args[5]:
            args[4] = 1
            image = 0
        x, box, scale = args[0] + image * height * width * channels * size, args[1] + 4 * r * size, number(args[12])
        offset = 0.5 if half else 0.0
        x0, y0 = wide(load(box)) * scale - offset, wide(load(box + size)) * scale - offset
        across, down = wide(load(box + 2 * size)) * scale - offset - x0, wide(load(box + 3 * size)) * scale - offset - y0
        if not half:
            across, down = max(across, 1.0), max(down, 1.0)
        cell_h, cell_w = down / cells_h, across / cells_w
        grid_h, grid_w = args[11], args[11]
        if args[11] <= 0:
            grid_h, grid_w = to_word(ceil(cell_h)), to_word(ceil(cell_w))
        share = 1.0 if maximum else 1.0 / max(grid_h * grid_w, 1)
        listed = words(scratch)
        for j in range(cells_w):
            out = args[3] + ((r * cells_h + i) * cells_w + j) * channels * size
            count, filled = 0, 0
            for a in range(grid_h):
                v = y0 + i * cell_h + (a + 0.5) * cell_h / grid_h
                for b in range(grid_w):
                    u = x0 + j * cell_w + (b + 0.5) * cell_w / grid_w
                    inside = -1.0 <= v <= height and -1.0 <= u <= width
                    if not inside and not maximum:
                        continue
                    top, left, ly, lx, weight = 0, 0, 0.0, 0.0, 0.0
                    if inside:
                        top, left, weight = int(max(v, 0.0)), int(max(u, 0.0)), share
                        ly, lx = max(v, 0.0) - top, max(u, 0.0) - left
                    if top >= height - 1:
                        top, ly = height - 1 if inside else 0, 0.0
                    if left >= width - 1:
                        left, lx = width - 1 if inside else 0, 0.0
                    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
                    if not inside:
                        below, right = top, left
                    listed[count] = (top * width + left) * channels * size
                    listed[count + 1] = (top * width + right) * channels * size
                    listed[count + 2] = (below * width + left) * channels * size
                    listed[count + 3] = (below * width + right) * channels * size
                    store(scratch + at_factor + count * size, weight * (1.0 - ly) * (1.0 - lx))
                    store(scratch + at_factor + (count + 1) * size, weight * (1.0 - ly) * lx)
                    store(scratch + at_factor + (count + 2) * size, weight * ly * (1.0 - lx))
                    store(scratch + at_factor + (count + 3) * size, weight * ly * lx)
                    count += 4
                    if maximum:
                        peak(x, scratch, scratch + at_factor, out, channels, filled)
                        count, filled = 0, 1
                    elif count + 5 > 128:
                        # a full list: its result is the first tap of the next
                        gather(x, 1, scratch, scratch + at_factor, count, out, channels)
                        listed[0] = out - x
                        store(scratch + at_factor, 1.0)
                        count, filled = 1, 1
            if count > 1 or (count == 1 and filled == 0):
                gather(x, 1, scratch, scratch + at_factor, count, out, channels)
            elif filled == 0:
                zero(out, channels)

    return kernel


def _peak(dtype: str) -> Callable:
    """``peak(x, index, weight, y, count, filled)``: y = the largest of four weighted taps, and of y if it is `filled`."""
    from . import simd
    from .subroutine import subroutine

    size, lanes = SIZES[dtype], target.current().lanes * 4 // SIZES[dtype]
    load, store, word = simd.load_first(dtype, lanes), simd.store_first(dtype), simd.load("i64", 0)
    scalar, splat, maximum = simd.load(dtype, 0), simd.splat(dtype, lanes), simd.maximum

    @subroutine
    def peak(x, index, weight, y, count, filled):
        for c in range(0, count, lanes):
            left, at = count - c, c * size
            best = splat(scalar(weight)) * load(x + word(index) + at, left)
            for t in range(1, 4):
                best = maximum(best, splat(scalar(weight + t * size)) * load(x + word(index + 8 * t) + at, left))
            if filled != 0:
                best = maximum(best, load(y + at, left))
            store(y + at, best, left)

    return peak
