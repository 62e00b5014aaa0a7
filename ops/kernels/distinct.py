"""The distinct rows of a matrix: their first places, the place of each row among them, and counts.

Rows are put in order by a radix sort: column by column from the last one, byte by byte from the lowest, so that equal rows stay
in their order. Keys are those of TopK (NaN above infinity and equal to itself, -0 equal to 0). A byte that all keys have in
common costs no pass. One task. Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable

from .image import SIZES, Opaque
from .launch import Launch
from .spec import handwritten

_UNSIGNED = ("b1", "u8", "u16", "u32")  # whose keys are never negative


def distinct(
    dtype: str, x: Opaque, first: Opaque, places: Opaque, counts: Opaque, found: Opaque, count: int, columns: int, ascending: bool
) -> list[Launch]:
    """first[: found[0]], counts[: found[0]]: of each distinct row of x[count, columns]; x[i] is the one of number places[i].

    Args:
        first, places, counts: int64[count]; what is behind the last distinct row is 0. found: int64[1].
        ascending: whether they are in the order of the rows' elements, else in that of their first places.
    """
    kernel = handwritten("distinct", "distinct:factory", dtype=dtype)
    args = (x, first, places, counts, found, count, columns, int(ascending))
    moved = count * (columns * SIZES[dtype] + 24)
    return [Launch(kernel, args, 1, 32 * count + 8 * 8 * 256, f"{count}x{columns}", 0, moved)]


def factory(dtype: str) -> Callable:
    """The kernel of `distinct`."""
    from . import simd
    from .topk import _key

    words, size, load, key = simd.block, SIZES[dtype], simd.load(dtype, 0), _key(dtype, True)
    sort, renumber = _sort(dtype), _renumber()

    def kernel(args, task, scratch):
        x, count, columns = args[0], args[5], args[6]
        first, places, counts = words(args[1]), words(args[2]), words(args[3])
        order = scratch + 8 * 8 * 256
        for i in range(count):
            words(order)[2 * i + 1] = i
        for column in range(columns - 1, -1, -1):
            sort(scratch, x + column * size, columns * size, count)
        pairs = words(order)
        found, last = 0, 0
        for j in range(count):
            i = pairs[2 * j + 1]
            same = j > 0
            column = 0
            while same and column < columns:
                same = key(load(x + (i * columns + column) * size)) == key(load(x + (last * columns + column) * size))
                column += 1
            if not same:
                first[found], counts[found] = i, 0
                found += 1
            places[i] = found - 1
            counts[found - 1] += 1
            last = i
        for j in range(found, count):
            first[j], counts[j] = 0, 0
        if args[7] == 0:
            renumber(args[1], args[2], args[3], order, count, found)
        words(args[4])[0] = found

    return kernel


def _sort(dtype: str) -> Callable:
    """``sort(scratch, x, step, count)``: bring pairs (key, row) in the order of the rows' keys, x[row * step].

    In scratch: counters of eight digits, the pairs, and room for as many.
    """
    from . import emit, simd
    from .subroutine import subroutine
    from .topk import _key

    words, load, key = simd.block, simd.load(dtype, 0), _key(dtype, True)
    digits = SIZES[emit.register(dtype)] if emit.is_float(emit.register(dtype)) else SIZES[dtype]
    # of signed keys the highest digit is in order when its sign is turned
    sign = 0 if dtype in _UNSIGNED else 1 << (8 * digits - 1)

    @subroutine
    def sort(scratch, x, step, count):
        counters = words(scratch)
        source, target = scratch + 8 * 8 * 256, scratch + 8 * 8 * 256 + 16 * count
        for i in range(256 * digits):
            counters[i] = 0
        pairs = words(source)
        for j in range(count):
            number = key(load(x + pairs[2 * j + 1] * step)) ^ sign
            pairs[2 * j] = number
            for d in range(digits):
                counters[256 * d + ((number >> (8 * d)) & 255)] += 1
        turns = 0
        for d in range(digits):
            if counters[256 * d + ((words(source)[0] >> (8 * d)) & 255)] == count:
                continue
            total = 0
            for i in range(256 * d, 256 * d + 256):
                here = counters[i]
                counters[i] = total
                total += here
            before, after = words(source), words(target)
            for j in range(count):
                number = before[2 * j]
                digit = 256 * d + ((number >> (8 * d)) & 255)
                at = counters[digit]
                counters[digit] = at + 1
                after[2 * at], after[2 * at + 1] = number, before[2 * j + 1]
            source, target = target, source
            turns += 1
        if turns % 2 == 1:
            before, after = words(source), words(target)
            for j in range(2 * count):
                after[j] = before[j]

    return sort


def _renumber() -> Callable:
    """``renumber(first, places, counts, free, count, found)``: order what was found by its first place; `free`: 3 count words."""
    from . import simd
    from .subroutine import subroutine

    words = simd.block

    @subroutine
    def renumber(first_at, places_at, counts_at, free_at, count, found):
        first, places, counts, free = words(first_at), words(places_at), words(counts_at), words(free_at)
        for g in range(found):
            free[count + g] = counts[g]
        number = 0
        for i in range(count):
            g = places[i]
            if first[g] == i:  # where a row is seen for the first time its number is due
                free[g] = number
                free[2 * count + number] = i
                counts[number] = free[count + g]
                number += 1
            places[i] = free[g]
        for g in range(found):
            first[g] = free[2 * count + g]

    return renumber
