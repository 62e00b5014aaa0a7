"""Running through a dimension in order: cumulative sums and products, and where a condition holds.

Cumulative: lanes run across the inner dimensions, so that each is a chain of its own; where there are none, a task walks
whole rows one by one. Task = some chains. Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable

from . import target
from .image import SIZES, Opaque
from .launch import Launch
from .spec import handwritten

_TASK_BYTES = 32768


def cumulative(
    dtype: str, x: Opaque, y: Opaque, outer: int, count: int, inner: int, *, product: bool, exclusive: bool, reverse: bool
) -> list[Launch]:
    """y[o, j, i]: the sum (or product) of x[o, : j + 1, i], both dense.

    Args:
        exclusive: element j itself does not count. reverse: from the last element on.
    """
    size = SIZES[dtype]
    if outer * count * inner == 0:
        return []
    single = inner == 1
    chunk = max(1 if single else 64, _TASK_BYTES // (size * count))
    total = outer if single else inner
    chunks = -(-total // chunk)
    row = inner * size
    first, step = ((count - 1) * row, -row) if reverse else (0, row)
    args = (x, y, count, total, chunk, chunks, count * row, first, step)
    kernel = handwritten("cumulative", "scan:chains", dtype=dtype, product=product, exclusive=exclusive, single=single)
    tasks, moved = chunks if single else outer * chunks, 2 * outer * count * row
    return [Launch(kernel, args, tasks, 0, f"{outer}x{count}x{inner}", outer * count * inner, moved)]


def positions(condition: Opaque, places: Opaque, found: Opaque, count: int) -> list[Launch]:
    """places[: found[0]]: the indices at which a dense bool[count] holds, ascending; those after it are 0.

    Args:
        places: int64[count]. found: int64[1].
    """
    kernel = handwritten("positions", "scan:holding")
    return [Launch(kernel, (condition, places, found, count), 1, 0, f"of {count}", 0, 9 * count)]


def chains(dtype: str, product: bool, exclusive: bool, single: bool) -> Callable:
    """The kernel of `cumulative`; `single`: inner is 1."""
    from . import emit, simd

    size, register = SIZES[dtype], emit.register(dtype)
    lanes = 0 if single else target.current().lanes * 4 // size
    join = simd.lift((lambda a, b: a * b) if product else (lambda a, b: a + b), "join")
    start, identity, width = simd.to(register), int(product), max(lanes, 1)
    splat = simd.splat(register, lanes)
    load, store = simd.load(dtype, lanes), simd.store(dtype)
    load_first, store_first = simd.load_first(dtype, max(lanes, 1)), simd.store_first(dtype)

    def rows(args, task, scratch):
        count, step = args[2], args[8]
        first = task * args[4]
        for row in range(first, min(first + args[4], args[3])):
            at = row * args[6] + args[7]
            total = start(identity)
            for _ in range(count):
                value = join(total, load(args[0] + at))
                store(args[1] + at, total if exclusive else value)
                total = value
                at += step

    def columns(args, task, scratch):
        count, step = args[2], args[8]
        outer, first = task // args[5], task % args[5] * args[4]
        last = min(first + args[4], args[3])
        for i in range(first, last, width):
            at = outer * args[6] + args[7] + i * size
            total = splat(start(identity))
            left = last - i
            for _ in range(count):
                value = join(total, load_first(args[0] + at, left) if left < width else load(args[0] + at))
                store_first(args[1] + at, total if exclusive else value, min(left, width))
                total = value
                at += step

    return rows if single else columns


def holding() -> Callable:
    """The kernel of `positions`: every index is written, and stays if the next place is another one."""
    from . import simd

    words, load, to_word = simd.block, simd.load("u8", 0), simd.to("i64")

    def kernel(args, task, scratch):
        places, found = words(args[1]), 0
        count = args[3]
        for i in range(count):
            places[found] = i
            found += min(to_word(load(args[0] + i)), 1)
        for i in range(found, count):
            places[i] = 0
        words(args[2])[0] = found

    return kernel
