"""Scattering by index: rows (ScatterND) or elements (ScatterElements) of updates into a copy of a tensor.

Two launches: the copy, then the updates in their order (of several to one place the last stays), so tasks share out
what cannot collide: columns of the rows for ScatterND, outer and inner dimensions for ScatterElements. Sizes are
arguments; compiled in are element type, index type and reduction. An index outside its dimension sets the status word
(code 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from . import target
from .gather import TASK_BYTES
from .image import SIZES
from .launch import Launch
from .spec import handwritten

_STATUS = 3


def copy_all(x: object, out: object, nbytes: int) -> list[Launch]:
    """The bytes of x to out."""
    if nbytes == 0:
        return []
    kernel = handwritten("copy", "scatter:copy")
    return [Launch(kernel, (x, out, nbytes, TASK_BYTES), -(-nbytes // TASK_BYTES), 0, f"{nbytes} bytes", 0, 2 * nbytes)]


def scatter_rows(
    out: object, indices: object, updates: object, dtype: str, index: str, reduction: str, selected: Sequence[int],
    inner: int, rows: int,
) -> list[Launch]:  # fmt: skip
    """out[*indices[j], :] = reduction(out[*indices[j], :], updates[j, :]) for every j, all dense.

    Args:
        dtype: memory element type. reduction: none, add, mul, minimum or maximum.
        selected: sizes of the dimensions of out that an index tuple selects from. inner: elements of a row.
    """
    if rows * inner == 0:
        return []
    depth, size = len(selected), SIZES[dtype]
    strides = [inner * size * prod(selected[k + 1 :]) for k in range(depth)]
    chunk = max(64, min(inner, TASK_BYTES // (size * rows)))
    args = (out, indices, updates, 0, rows, inner, chunk, depth, *selected, *strides)
    kernel = handwritten("scatter", "scatter:rows", dtype=_raw(dtype, reduction), index=index, reduction=reduction)
    return [Launch(kernel, args, -(-inner // chunk), 0, f"{rows} of {inner}", 0, 3 * rows * inner * size, _STATUS)]


def scatter_elements(
    out: object, indices: object, updates: object, dtype: str, index: str, reduction: str, outer: int, selected: int,
    rows: int, inner: int,
) -> list[Launch]:  # fmt: skip
    """out[o, indices[o, j, i], i] = reduction(that, updates[o, j, i]); out is [outer, selected, inner], all dense."""
    if outer * rows * inner == 0:
        return []
    chunk = max(16, min(inner, TASK_BYTES // (SIZES[dtype] * rows)))
    args = (out, indices, updates, 0, rows, inner, chunk, selected)
    kernel = handwritten("scatter_elements", "scatter:elements", dtype=_raw(dtype, reduction), index=index, reduction=reduction)
    moved = outer * rows * inner * (3 * SIZES[dtype] + SIZES[index])
    return [Launch(kernel, args, outer * -(-inner // chunk), 0, f"{outer}x{rows}x{inner}", 0, moved, _STATUS)]


def _raw(dtype: str, reduction: str) -> str:
    return f"u{8 * SIZES[dtype]}" if reduction == "none" else dtype


def copy() -> Callable:
    """The kernel of `copy_all`. Task = some bytes."""
    from .gather import copy_run

    move = copy_run(1, single=False)

    def kernel(args, task, scratch):
        first = task * args[3]
        move(args[0] + first, args[1] + first, min(args[3], args[2] - first))

    return kernel


def _combine(dtype: str, reduction: str) -> Callable:
    """``combine(to, update, count)``: neighbouring elements of `to` reduced with those of `update`."""
    from . import emit, simd
    from .subroutine import subroutine

    size, lanes = SIZES[dtype], target.current().lanes
    load, load_first = simd.load(dtype, lanes), simd.load_first(dtype, lanes)
    store, store_first = simd.store(dtype), simd.store_first(dtype)
    meaning = {"none": lambda a, b: b, "add": emit.E.__add__, "mul": emit.E.__mul__,
               "minimum": emit.E.minimum, "maximum": emit.E.maximum}[reduction]  # fmt: skip
    join = simd.lift(lambda a, b: meaning(a, b), f"join_{reduction}")

    @subroutine
    def combine(to, update, count):
        whole = count - count % lanes
        for i in range(0, whole, lanes):
            store(to + i * size, join(load(to + i * size), load(update + i * size)))
        if whole < count:
            rest, at = count - whole, whole * size
            store_first(to + at, join(load_first(to + at, rest), load_first(update + at, rest)), rest)

    return combine


def rows(dtype: str, index: str, reduction: str) -> Callable:
    """The kernel of `scatter_rows`. Task = some columns of all rows."""
    from . import simd

    size, index_bytes = SIZES[dtype], SIZES[index]
    load_index, to_word, combine = simd.load(index, 0), simd.to("i64"), _combine(dtype, reduction)

    def kernel(args, task, scratch):
        inner, depth = args[5], args[7]
        first = task * args[6]
        count = min(args[6], inner - first)
        for j in range(args[4]):
            to = args[0] + first * size
            inside = True
            for k in range(depth):
                n = args[8 + k]
                i = to_word(load_index(args[1] + (j * depth + k) * index_bytes))
                if i < 0:
                    i += n
                inside = inside and 0 <= i < n
                to += i * args[8 + depth + k]
            if inside:
                combine(to, args[2] + (j * inner + first) * size, count)
            else:
                args[3] = 1

    return kernel


def elements(dtype: str, index: str, reduction: str) -> Callable:
    """The kernel of `scatter_elements`. Task = some inner places of one outer place."""
    from . import simd

    size, index_bytes = SIZES[dtype], SIZES[index]
    load_index, to_word, combine = simd.load(index, 0), simd.to("i64"), _combine(dtype, reduction)

    def kernel(args, task, scratch):
        rows, inner, chunk, n = args[4], args[5], args[6], args[7]
        chunks = (inner + chunk - 1) // chunk
        outer, first = task // chunks, task % chunks * chunk
        for j in range(rows):
            for i in range(first, min(first + chunk, inner)):
                place = (outer * rows + j) * inner + i
                at = to_word(load_index(args[1] + place * index_bytes))
                if at < 0:
                    at += n
                if 0 <= at < n:
                    combine(args[0] + ((outer * n + at) * inner + i) * size, args[2] + place * size, 1)
                else:
                    args[3] = 1

    return kernel
