"""Records of blocks of keys and their values: what `attention` does to them once, whoever and how many tasks they are for.

Values are copied so that what a tile reads is a run in memory, and keys if their rows lie apart; pairs of both are summed up, and
lengths are measured, which tell what may go by pairs and how large scores may be. Numba-free but for the factory.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import attentionwords as word
from . import target
from .attention import LIFT
from .image import SIZES

LONGEST = 1e15  # that a query or key may be whose product goes by pairs
_AHEAD = 8  # rows by which a copy asks for what it will read


def making(dtype: str, k_pairs: bool, v_pairs: bool, bounded: bool) -> Callable:
    """The subroutine ``make(block, k, v, rows, record)`` for so many rows of keys and values; `block`: address of the arguments."""
    from . import attentiontile, pairsums, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    measured, k_by_pairs, v_by_pairs, triple = int(bounded or k_pairs), int(k_pairs), int(v_pairs), pairsums.TRIPLE
    of_columns, of_rows = pairsums.of_columns(lanes, 4, far=True), pairsums.of_rows(lanes)
    squares, tiled, spread = attentiontile.squares(dtype, lanes), attentiontile.tiled(dtype, lanes), spreading()
    load, store, load_one = simd.load(dtype, lanes), simd.store(dtype), simd.load(dtype, 0)
    words, added, root, ask, ahead_rows = simd.block, simd.reduce_add, simd.sqrt, simd.prefetch(dtype, 1), _AHEAD

    @subroutine
    def copy(x, rows, columns, row, y):
        # rows that lie apart, side by side
        whole = columns // lanes * lanes
        for i in range(rows):
            for j in range(0, whole, lanes):
                ask(x + (i + ahead_rows) * row + j * size)
                store(y + (i * columns + j) * size, load(x + i * row + j * size))
            for j in range(whole, columns):
                store(y + (i * columns + j) * size, load_one(x + i * row + j * size))

    @subroutine
    def make(block, k, v, rows, record):
        args = words(block)
        head, value, k_row, v_row = args[word.HEAD], args[word.VALUE], args[word.K_ROW], args[word.V_ROW]
        if args[word.K_COPIED] != 0:
            copy(k, rows, head, k_row, record + args[word.K_AT])
            k, k_row = record + args[word.K_AT], head * size
        if measured != 0:
            squares(args, rows, head, k, k_row, record + word.LONGEST_AT)
            store(record + word.LONGEST_AT, root(added(load(record + word.LONGEST_AT))))
        if k_by_pairs != 0:
            of_rows(args, k, k_row, rows, head // triple, record + word.OF_KEYS_AT)
        if v_by_pairs != 0:
            sums = record + args[word.OF_VALUES_AT]
            lengths = sums + (4 * value + 63) // 64 * 64
            of_columns(args, v, v_row, rows // triple, value, sums, lengths)
            spread(lengths, value, record + word.LEAST_AT)
        if args[word.V_COPIED] != 0:
            copied = record + args[word.V_AT]
            for i in range(word.V_TILES, word.V_TILES + 4, 2):
                height, count = args[i], args[i + 1]
                tiled(args, rows, height, count, v, v_row, copied)
                v, copied = v + height * count * size, copied + rows * height * count * size

    return make


def comparing(k_pairs: bool, v_pairs: bool, bounded: bool) -> Callable:
    """The subroutine ``compare(block, k, record, reference, lifted, like)``: how products of float32 may go by pairs.

    At `reference` is put how long queries are to be made, as long as the first keys. At `like` the mean square of the values of a
    block, 0 if weights cannot be made like them, and at `lifted` what levels are lowered by for that.
    """
    from . import attentiontile, pairsums, simd
    from .subroutine import subroutine

    lanes, triple, k_by_pairs, v_by_pairs = target.current().lanes, pairsums.TRIPLE, int(k_pairs), int(v_pairs)
    squares, lift = attentiontile.squares("f32", lanes), attentiontile.lifting(lanes, 2 if bounded else math.e)
    load, store, splat = simd.load("f32", lanes), simd.store("f32"), simd.splat("f32", lanes)
    words, added, root, first_lane = simd.block, simd.reduce_add, simd.sqrt, simd.first
    longest, highest = LONGEST, 4.0**LIFT

    @subroutine
    def compare(block, k, record, reference, lifted, like):
        args = words(block)
        store(reference, splat(1.0))
        store(lifted, splat(0.0))
        store(like, splat(0.0))
        if k_by_pairs != 0:
            squares(args, min(args[word.KEYS], lanes), args[word.HEAD], k, args[word.K_ROW], like)
            sample = root(added(load(like)))
            store(like, splat(0.0))
            if first_lane(sample) <= longest and first_lane(sample) * longest >= 1.0:
                store(reference, sample)
        if v_by_pairs != 0:
            in_pairs = min(args[word.STEP], args[word.KEYS]) // triple * 2 * args[word.VALUE]
            mean = load(record + word.TOTAL_AT) * (splat(1.0) / splat(max(1, in_pairs)))
            if first_lane(mean) <= highest and first_lane(mean) * highest >= 1.0:
                store(like, mean)
                lift(args, like, lifted)

    return compare


def spreading() -> Callable:
    """The subroutine ``spread(x, count, y)``: the smallest, the largest and the sum of float32 values, a cache line each."""
    from . import simd
    from .subroutine import subroutine

    lanes, line, highest_number = target.current().lanes, word.LINE, 1e38
    load, store, splat = simd.load("f32", lanes), simd.store("f32"), simd.splat("f32", lanes)
    minimum, maximum, select, inside = simd.minimum, simd.maximum, simd.select, simd.first_lanes(lanes)
    lowest, highest, added = simd.reduce_minimum, simd.reduce_maximum, simd.reduce_add

    @subroutine
    def spread(x, count, y):
        low, high, total = splat(highest_number), splat(0.0), splat(0.0)
        for j in range(0, count, lanes):
            some, here = inside(count - j), load(x + j * 4)
            low = minimum(low, select(some, here, splat(highest_number)))
            high = maximum(high, select(some, here, splat(0.0)))
            total = total + select(some, here, splat(0.0))
        store(y, lowest(low))
        store(y + line, highest(high))
        store(y + 2 * line, added(total))

    return spread
