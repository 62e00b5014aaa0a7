"""Gathering by index: rows of a tensor (Gather, GatherND) and single elements (GatherElements).

Sizes are arguments; compiled in are the element size and the index type. Negative indices count from the end; one
outside its dimension sets the status word (code 1) and nothing is read for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from . import target
from .launch import Launch
from .spec import handwritten

# bytes that one task should move at least
TASK_BYTES = 32768
# rows that are asked for before the first of them is copied, and bytes of each
_AHEAD, _ASKED = 16, 512
# what status code 1 means
ERRORS = ("an index lies outside the dimension that it selects from",)
_STATUS = 3


def gather_rows(
    x: object, indices: object, out: object, itemsize: int, index: str, batches: int, selected: Sequence[int],
    inner: int, rows: int, shared: bool,
) -> list[Launch]:  # fmt: skip
    """out[b, j, :] = x[b, *indices[b, j], :], all dense.

    Args:
        itemsize: bytes of an element. index: element type of `indices` (i32 or i64).
        selected: sizes of the dimensions of x that an index tuple selects from. inner: elements of a row.
        rows: j runs up to it. shared: the indices have no batch dimension.
    """
    depth, row = len(selected), inner * itemsize
    if batches * rows * inner == 0:
        return []
    strides = [row * prod(selected[k + 1 :]) for k in range(depth)]
    per_task = max(1, TASK_BYTES // max(row, 16))
    index_bytes = int(index[1:]) // 8
    index_step = 0 if shared else rows * depth * index_bytes
    total, x_step = batches * rows, row * prod(selected)
    args = (x, indices, out, 0, rows, total, row, x_step, index_step, per_task, depth, *selected, *strides)
    kernel = handwritten("gather", "gather:rows", size=itemsize, index=index, single=inner == 1)
    moved = 2 * batches * rows * row
    return [Launch(kernel, args, -(-batches * rows // per_task), 8 * _AHEAD, f"{batches}x{rows} of {inner}", 0, moved, _STATUS)]


def gather_elements(
    x: object, indices: object, out: object, itemsize: int, index: str, outer: int, selected: int, rows: int, inner: int
) -> list[Launch]:
    """out[o, j, i] = x[o, indices[o, j, i], i], all dense; x is [outer, selected, inner], out [outer, rows, inner]."""
    if outer * rows * inner == 0:
        return []
    per_task = max(1, TASK_BYTES // (inner * itemsize))
    args = (x, indices, out, 0, rows, outer * rows, inner, selected, per_task)
    kernel = handwritten("gather_elements", "gather:elements", size=itemsize, index=index)
    moved = outer * rows * inner * (2 * itemsize + int(index[1:]) // 8)
    return [Launch(kernel, args, -(-outer * rows // per_task), 0, f"{outer}x{rows}x{inner}", 0, moved, _STATUS)]


def rows(size: int, index: str, single: bool) -> Callable:
    """The kernel of `gather_rows` for elements of `size` bytes; `single`: a row is one element. Task = some rows.

    Rows lie anywhere: those of a group are found and asked for together, so that they come while others are copied.
    """
    from . import simd

    index_bytes = int(index[1:]) // 8
    load_index, to_word, copy, words = simd.load(index, 0), simd.to("i64"), copy_run(size, single), simd.block
    ask = simd.prefetch("u8", 1)

    def kernel(args, task, scratch):
        per_batch, row, depth = args[4], args[6], args[10]
        first, sources = task * args[9], words(scratch)
        last = min(first + args[9], args[5])
        batch, place = first // per_batch, first % per_batch
        for group in range(first, last, _AHEAD):
            count = min(_AHEAD, last - group)
            for j in range(count):
                at = args[1] + batch * args[8] + place * depth * index_bytes
                source = args[0] + batch * args[7]
                place += 1
                if place == per_batch:
                    batch, place = batch + 1, 0
                inside = True
                for k in range(depth):
                    n = args[11 + k]
                    i = to_word(load_index(at + k * index_bytes))
                    if i < 0:
                        i += n
                    inside = inside and 0 <= i < n
                    source += i * args[11 + depth + k]
                sources[j] = source if inside else 0
                if inside and not single:
                    for line in range(0, min(row, _ASKED), 64):
                        ask(source + line)
            for j in range(count):
                if sources[j] != 0:
                    copy(sources[j], args[2] + (group + j) * row, row)
                else:
                    args[3] = 1

    return kernel


def copy_run(size: int, single: bool) -> Callable:
    """``copy(source, to, bytes)`` of elements of `size` bytes; `single`: it is always one."""
    from . import simd
    from .subroutine import subroutine

    raw, lanes = f"u{8 * size}", target.current().lanes * 4 // size
    load_one, store = simd.load(raw, 0), simd.store(raw)
    load, load_first, store_first = simd.load(raw, lanes), simd.load_first(raw, lanes), simd.store_first(raw)

    @subroutine
    def copy(source, to, nbytes):
        if single:
            store(to, load_one(source))
        else:
            count = nbytes // size
            whole = count - count % lanes
            for i in range(0, whole, lanes):
                store(to + i * size, load(source + i * size))
            if whole < count:
                store_first(to + whole * size, load_first(source + whole * size, count - whole), count - whole)

    return copy


def elements(size: int, index: str) -> Callable:
    """The kernel of `gather_elements` for elements of `size` bytes. Task = some rows."""
    from . import simd

    raw, index_bytes = f"u{8 * size}", int(index[1:]) // 8
    load_index, to_word = simd.load(index, 0), simd.to("i64")
    load_one, store = simd.load(raw, 0), simd.store(raw)

    def kernel(args, task, scratch):
        x, indices, out, per_outer, total = args[0], args[1], args[2], args[4], args[5]
        inner, n = args[6], args[7]
        first = task * args[8]
        base, rest = x + first // per_outer * n * inner * size, per_outer - first % per_outer
        for j in range(first, min(first + args[8], total)):
            for i in range(inner):
                at = to_word(load_index(indices + (j * inner + i) * index_bytes))
                if at < 0:
                    at += n
                if 0 <= at < n:
                    store(out + (j * inner + i) * size, load_one(base + (at * inner + i) * size))
                else:
                    args[3] = 1
            rest -= 1
            if rest == 0:
                base, rest = base + n * inner * size, per_outer

    return kernel
