"""Rows into a buffer: a decoder's new keys or values, for each sequence from a place of its own on.

Task = some heads; their rows are copied one by one. A row that the buffer has no room for is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from .gather import TASK_BYTES
from .launch import Launch
from .sizes import most
from .spec import handwritten


def append_rows(
    x: object, first: object, out: object, sizes: tuple[int, int, int, int], strides: tuple[int, int, int], room: int, size: int
) -> list[Launch]:
    """out[b, n, first[b] + s, :] = x[b, n, s, :]; out is [batch, heads, room, head], dense, first int32[batch].

    Args:
        sizes: of x: batch, heads, rows, head. strides: bytes from a sequence, a head, a row of it to the next; heads are dense.
        size: bytes of an element.
    """
    batch, heads, rows, head = sizes
    if prod(sizes) == 0:
        return []
    row = head * size
    per_task = most(1, TASK_BYTES // (rows * row))
    args = (x, first, out, batch * heads, heads, rows, room, row, *strides, per_task)
    moved = 2 * prod(sizes) * size
    return [Launch(handwritten("append", "append:rows"), args, -(-batch * heads // per_task), 0, f"{batch}x{rows} rows", 0, moved)]


def rows() -> Callable:
    """The kernel of `append_rows`."""
    from . import simd
    from .gather import copy_run

    load_index, to_word, copy = simd.load("i32", 0), simd.to("i64"), copy_run(1, single=False)

    def kernel(args, task, scratch):
        total, heads, rows, room, row = args[3], args[4], args[5], args[6], args[7]
        begin = task * args[11]
        for i in range(begin, min(begin + args[11], total)):
            at = to_word(load_index(args[1] + i // heads * 4))
            source = args[0] + i // heads * args[8] + i % heads * args[9]
            for s in range(rows):
                if 0 <= at + s < room:
                    copy(source + s * args[10], args[2] + (i * room + at + s) * row, row)

    return kernel
