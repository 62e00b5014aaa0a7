"""Resampling along one axis or two neighbouring axes of a dense tensor: nearest copies, others add weighted taps.

The tensor is seen as [outer, rows, columns, inner]; the output may have gaps between them. Every output position of an
axis has its taps in a table: indices of elements and, for `blend`, their weights; so one kernel serves linear, cubic
and antialiased resampling.

- `nearest`: an output row is copied element by element (or, where single elements are repeated 2, 3 or 4 times, by
  interleaving a vector with itself); a dense row that repeats the one before is copied from it.
- `blend`: rows are mixed into a row of the input's width in scratch (L1 or L2), which is then mixed along its columns:
  by vectors of `inner` (channels-last), or by gathering (inner = 1).

Task = (outer index, block of output rows, chunk of inner elements). Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import target
from .image import SIZES
from .launch import Launch
from .spec import handwritten

_TASK_BYTES = 64 << 10
_SCRATCH_BYTES = 64 << 10  # of a mixed row: chunks of inner elements keep below it where they can
_UNROLLED = 4  # taps up to which a kernel has the number compiled in
_REPEATS = (2, 3, 4)  # factors of enlargement that have a kernel of their own


@dataclass(frozen=True)
class Axis:
    """How an axis is resampled: sizes before and after, taps an output position, and addresses of the tables.

    index: int64[size, taps]; weight: [size, taps] of the tensor's type. For columns of single elements (`blend` with
    inner = 1) both tables are [taps, size rounded up to `padded`] and the indices count bytes.
    """

    before: int
    size: int
    taps: int = 1
    index: object = 0
    weight: object = 0


@dataclass(frozen=True)
class Output:
    """Where the result goes: address, and bytes between neighbours of its first three dimensions."""

    address: object
    outer: int
    row: int
    column: int


def padded(size: int) -> int:
    """The length of a row of transposed tables: whole vectors."""
    lanes = target.current().lanes
    return -(-size // lanes) * lanes


def nearest(
    x: object, y: Output, itemsize: int, outer: int, rows: Axis, columns: Axis, inner: int, repeat: int, label: str
) -> list[Launch]:
    """y[o, i, j, :] = x[o, rows.index[i], columns.index[j], :] for elements of `itemsize` bytes.

    Args:
        repeat: k where columns.index[j] is j // k for every j, else 0.
    """
    if outer * rows.size * columns.size * inner == 0:
        return []
    run = inner * itemsize
    block = _rows_of_task(columns.size * run, rows.size)
    blocks = -(-rows.size // block)
    dense = int(y.column == run or columns.size == 1)
    args = (x, y.address, rows.index, columns.index, rows.before, columns.before, rows.size, columns.size, run, block, blocks,
            y.outer, y.row, y.column, dense)  # fmt: skip
    single = inner == 1 and y.column == itemsize
    kernel = handwritten(
        "resize_nearest",
        "resize:nearest_kernel",
        size=itemsize,
        single=single,
        repeat=repeat if single and repeat in _REPEATS else 0,
    )
    moved = run * outer * (rows.before * columns.before + rows.size * columns.size)
    return [Launch(kernel, args, outer * blocks, 0, label, 0, moved)]


def blend(dtype: str, x: object, y: Output, outer: int, rows: Axis, columns: Axis, inner: int, label: str) -> list[Launch]:
    """y[o, i, j, :] = sum over s, t of rows.weight[i, s] columns.weight[j, t] x[o, rows.index[i, s], columns.index[j, t], :].

    Args:
        dtype: f32 or f64.
        rows, columns: with taps = 0 the axis stays as it is (its tables are not read), but not both.
    """
    if outer * rows.size * columns.size * inner == 0:
        return []
    size = SIZES[dtype]
    chunk = inner if columns.taps == 0 or rows.taps == 0 else _chunk(columns.before * size, inner)
    chunks = -(-inner // chunk)
    block = _rows_of_task(columns.size * chunk * size, rows.size)
    blocks = -(-rows.size // block)
    args = (
        x, y.address, rows.index, rows.weight, columns.index, columns.weight, rows.before, columns.before, rows.size,
        columns.size, inner, block, blocks, chunk, chunks, rows.taps, columns.taps, padded(columns.size), y.outer, y.row,
        y.column,
    )  # fmt: skip
    unrolled = [n if n <= _UNROLLED else -1 for n in (rows.taps, columns.taps)]
    kernel = handwritten("resize", "resize:blend_kernel", dtype=dtype, down=unrolled[0], across=unrolled[1], single=inner == 1)
    work = outer * inner * rows.size * (columns.before * rows.taps + columns.size * columns.taps)
    moved = size * outer * inner * (rows.before * columns.before + rows.size * columns.size)
    scratch = (columns.before * chunk + 64) * size if rows.taps and columns.taps else 0
    return [Launch(kernel, args, outer * blocks * chunks, scratch, label, 2 * work, moved)]


def _rows_of_task(row_bytes: int, rows: int) -> int:
    return max(1, min(rows, _TASK_BYTES // max(row_bytes, 1)))


def _chunk(column_bytes: int, inner: int) -> int:
    """Inner elements that are resampled together: whole vectors, all if the row fits."""
    lanes = target.current().lanes
    fit = _SCRATCH_BYTES // max(column_bytes, 1)
    return inner if fit >= inner else max(4 * lanes, fit - fit % lanes)


def nearest_kernel(size: int, single: bool, repeat: int) -> Callable:
    """The kernel of `nearest`; `single`: inner is 1 and columns are dense; `repeat`: 0 if it does not matter."""
    from . import simd
    from .gather import copy_run

    copy, copy_row, word = copy_run(size, single), copy_run(size, False), simd.load("i64", 0)
    enlarge = _enlarge(size, repeat) if repeat else None

    def kernel(args, task, scratch):
        before, width, rows, columns, run = args[4], args[5], args[6], args[7], args[8]
        block, blocks = args[9], args[10]
        outer, first = task // blocks, task % blocks * block
        last = -1
        for i in range(first, min(first + block, rows)):
            at = word(args[2] + 8 * i)
            y = args[1] + outer * args[11] + i * args[12]
            x = args[0] + (outer * before + at) * width * run
            if at == last and args[14] != 0:
                copy_row(y - args[12], y, columns * run)
            elif repeat:
                enlarge(x, y, width)
            else:
                for j in range(columns):
                    copy(x + word(args[3] + 8 * j) * run, y + j * args[13], run)
            last = at

    return kernel


def _enlarge(size: int, repeat: int) -> Callable:
    """``enlarge(x, y, count)``: each of `count` elements of `size` bytes `repeat` times."""
    from . import simd
    from .shuffle import interleave
    from .subroutine import subroutine

    raw, lanes = f"u{8 * size}", target.current().lanes * 4 // size
    spread, load, store = interleave(raw, raw, lanes, repeat), simd.load(raw, 0), simd.store(raw)

    @subroutine
    def enlarge(x, y, count):
        whole = count - count % lanes
        for i in range(0, whole, lanes):
            spread(x + i * size, 0, y + i * repeat * size)
        for i in range(whole, count):
            for k in range(repeat):
                store(y + (i * repeat + k) * size, load(x + i * size))

    return enlarge


def blend_kernel(dtype: str, down: int, across: int, single: bool) -> Callable:
    """The kernel of `blend`; down, across: taps of rows and columns (-1: an argument); `single`: inner is 1."""
    size = SIZES[dtype]
    mix_down, mix_across, along = mix(dtype, down), mix(dtype, across), _along(dtype, across)

    def kernel(args, task, scratch):
        before, width, rows, columns, inner = args[6], args[7], args[8], args[9], args[10]
        block, chunk, chunks = args[11], args[13], args[14]
        first, outer = task // chunks % args[12] * block, task // chunks // args[12]
        c0 = task % chunks * chunk
        count = min(chunk, inner - c0)
        run = inner * size
        x = args[0] + outer * before * width * run + c0 * size
        for i in range(first, min(first + block, rows)):
            y = args[1] + outer * args[18] + i * args[19] + c0 * size
            at, weights = args[2] + 8 * args[15] * i, args[3] + size * args[15] * i
            source, step = x + i * width * run, run
            if across == 0:
                mix_down(x, width * run, at, weights, args[15], y, inner)
            else:
                if down != 0:
                    source, step = scratch, count * size
                    if count == inner:
                        mix_down(x, width * run, at, weights, args[15], scratch, width * inner)
                    else:
                        for j in range(width):
                            mix_down(x + j * run, width * run, at, weights, args[15], scratch + j * step, count)
                if single:
                    along(source, args[4], args[5], args[16], y, columns, args[17])
                else:
                    for j in range(columns):
                        table, factors = args[4] + 8 * args[16] * j, args[5] + size * args[16] * j
                        mix_across(source, step, table, factors, args[16], y + j * args[20], count)

    return kernel


def mix(dtype: str, fixed: int) -> Callable:
    """``mix(x, step, index, weight, taps, y, count)``: y[c] = sum over t of weight[t] x[index[t] * step bytes + c]."""
    from . import simd
    from .subroutine import subroutine

    size, lanes = SIZES[dtype], target.current().lanes * 4 // SIZES[dtype]
    load, load_first, store, store_first = (
        simd.load(dtype, lanes), simd.load_first(dtype, lanes), simd.store(dtype), simd.store_first(dtype)
    )  # fmt: skip
    word, scalar, splat, fma = simd.load("i64", 0), simd.load(dtype, 0), simd.splat(dtype, lanes), simd.fma

    @subroutine
    def mixed(x, step, index, weight, taps, y, count):
        number = taps if fixed < 0 else fixed
        whole = count - count % lanes
        for c in range(0, whole, lanes):
            total = splat(scalar(weight)) * load(x + word(index) * step + c * size)
            for t in range(1, number):
                total = fma(splat(scalar(weight + t * size)), load(x + word(index + 8 * t) * step + c * size), total)
            store(y + c * size, total)
        if whole < count:
            left, rest = count - whole, x + whole * size
            total = splat(scalar(weight)) * load_first(rest + word(index) * step, left)
            for t in range(1, number):
                total = fma(splat(scalar(weight + t * size)), load_first(rest + word(index + 8 * t) * step, left), total)
            store_first(y + whole * size, total, left)

    return mixed


def _along(dtype: str, fixed: int) -> Callable:
    """``along(x, index, weight, taps, y, count, row)``: y[j] = sum over t of weight[t, j] x(index[t, j]).

    Indices are bytes behind x; `row` is the length of a table's row.
    """
    from . import simd
    from .subroutine import subroutine

    size, lanes = SIZES[dtype], target.current().lanes * 4 // SIZES[dtype]
    load, store, store_first = simd.load(dtype, lanes), simd.store(dtype), simd.store_first(dtype)
    words, gather, all_of, fma = simd.load("i64", lanes), simd.gather(dtype), simd.first_lanes(lanes), simd.fma

    @subroutine
    def along(x, index, weight, taps, y, count, row):
        number = taps if fixed < 0 else fixed
        for j in range(0, count, lanes):
            every = all_of(lanes)
            total = load(weight + j * size) * gather(words(index + 8 * j) + x, every)
            for t in range(1, number):
                at = t * row + j
                total = fma(load(weight + at * size), gather(words(index + 8 * at) + x, every), total)
            if j + lanes <= count:
                store(y + j * size, total)
            else:
                store_first(y + j * size, total, count - j)

    return along
