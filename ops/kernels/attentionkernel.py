"""The kernel of `attention`: what a task does with its panels of queries. Numba-free but for the factory."""

from __future__ import annotations

import math
from collections.abc import Callable

from . import target
from .attention import FACTOR, FLAGS, LENGTH, LEVEL, LIFT, PAIRS, STATE, SUM, paired
from .image import SIZES

_AHEAD = 8  # rows by which a copy asks for what it will read
_ABOVE = 50.0  # the level, in powers of 2, may scores be that are weighed without a look at the largest
_BELOW = 100.0
_LIMIT = 16.0  # times longer than the first keys, which queries are made as long as, may others be for products by pairs
_LONGEST = 1e15  # that a query or key of such may be


def factory(dtype: str, k_lines: bool, v_lines: bool, bounded: bool) -> Callable:
    """The kernel. Task = (head, block of panels).

    Scratch: 64 bytes for the block of `scores`; a vector of `squares`; whether each panel is to be computed; the scores of a
    block of keys; for each panel its state, its queries and its result so far; copies of a block of keys and values; what
    products by pairs need.
    """
    from . import attentiontile, pairsums, shuffle, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, width, pitch = lanes * size, 2 * lanes, 2 * lanes * size
    # a column of the keys is what their tile broadcasts, a row of the values theirs
    k_pairs, v_pairs = paired(dtype) and k_lines, paired(dtype) and v_lines
    k_tiles = attentiontile.scores(dtype, lanes, not k_lines, bounded, k_pairs)
    v_tiles = attentiontile.mixtures(dtype, lanes, v_lines, v_pairs)
    k_by_pairs, v_by_pairs, k_turn, v_turn = int(k_pairs), int(v_pairs), pairsums.TURN, pairsums.TURN
    of_columns, of_rows, balance = pairsums.of_columns(lanes), pairsums.of_rows(lanes), attentiontile.balance(lanes)
    limit, longest_of_pairs, highest_like, highest_number, nothing = _LIMIT, _LONGEST, 4.0**LIFT, 1e38, math.nan
    lift, minimum = attentiontile.lifting(lanes, 2 if bounded else math.e), simd.minimum
    # scores that their lengths bound are exponents of 2
    weigh = attentiontile.weigh(dtype, lanes, 2 if bounded else math.e)
    squares, free = attentiontile.squares(dtype, lanes), int(bounded)
    state_rows, head_bytes = STATE, 128 + FLAGS
    first_lane, across, at_most, select = simd.first, simd.reduce_minimum, simd.at_most, simd.select
    maximum, highest, added, root, up, fma = simd.maximum, simd.reduce_maximum, simd.reduce_add, simd.sqrt, simd.ceil, simd.fma
    first_lanes = simd.first_lanes(lanes)
    words, call_kernel, number = simd.block, simd.call_kernel, simd.float_argument
    load, store, splat = simd.load(dtype, lanes), simd.store(dtype), simd.splat(dtype, lanes)
    ask, ask_later, line, ahead_rows = simd.prefetch(dtype, 1), simd.prefetch(dtype, 1, soon=False), 64, _AHEAD
    above, below = _ABOVE, _BELOW
    load_one, transpose = simd.load(dtype, 0), shuffle.transpose(dtype, dtype, lanes)

    @subroutine
    def turn(x, rows, columns, x_row, x_column, y, y_row):
        # y[j, i] = x[i, j], rows of y being runs in memory, by squares of lanes where x has them
        if x_column == size and rows >= lanes and columns >= lanes:
            # a square that would overhang starts earlier: what is copied twice is the same
            for i in range(0, rows, lanes):
                row = min(i, rows - lanes)
                for j in range(0, columns, lanes):
                    column = min(j, columns - lanes)
                    transpose(x + row * x_row + column * size, x_row, y + column * y_row + row * size, y_row)
        else:
            for i in range(rows):
                for j in range(columns):
                    store(y + j * y_row + i * size, load_one(x + i * x_row + j * x_column))

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
    def scaled(x, rows, factor, y):
        # and the lengths of columns
        total, other, even, odd = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        for i in range(0, rows - 1, 2):
            at = x + i * pitch
            a, b = load(at) * splat(number(factor)), load(at + vector) * splat(number(factor))
            c, d = load(at + pitch) * splat(number(factor)), load(at + pitch + vector) * splat(number(factor))
            store(at, a)
            store(at + vector, b)
            store(at + pitch, c)
            store(at + pitch + vector, d)
            total, other, even, odd = fma(a, a, total), fma(b, b, other), fma(c, c, even), fma(d, d, odd)
        if rows % 2 == 1:
            at = x + (rows - 1) * pitch
            a, b = load(at) * splat(number(factor)), load(at + vector) * splat(number(factor))
            store(at, a)
            store(at + vector, b)
            total, other = fma(a, a, total), fma(b, b, other)
        store(y, root(total + even))
        store(y + vector, root(other + odd))

    @subroutine
    def fill(x, rows, value):
        for i in range(2 * rows):
            store(x + i * vector, splat(number(value)))

    @subroutine
    def divided(x, rows, sums):
        for v in range(2):
            sum_of = load(sums + v * vector)
            # where nothing was weighed, products by pairs may have left what is not 0
            inverse = select(sum_of == splat(0.0), splat(nothing), splat(1.0) / sum_of)
            for i in range(rows):
                store(x + i * pitch + v * vector, load(x + i * pitch + v * vector) * inverse)

    @subroutine
    def score(vectors, height, count, second, others, x, x_row, x_step, panel, head, turns, pairs, state, weighed, y):
        # tiles of one height and tiles of another
        for _ in range(2):
            k_tiles(words(y), vectors, height, count, x, x_row, x_step, panel, head, turns, pairs, state, weighed, y)
            x, y, pairs = x + height * count * x_row, y + height * count * pitch, pairs + height * count * 4
            height, count = second, others

    @subroutine
    def spread(x, count, y):
        # the smallest, the largest and the sum
        low, high, total = splat(highest_number), splat(0.0), splat(0.0)
        for j in range(0, count, lanes):
            inside = first_lanes(count - j)
            low = minimum(low, select(inside, load(x + j * size), splat(highest_number)))
            high = maximum(high, select(inside, load(x + j * size), splat(0.0)))
            total = total + select(inside, load(x + j * size), splat(0.0))
        store(y, across(low))
        store(y + vector, highest(high))
        store(y + 2 * vector, added(total))

    @subroutine
    def fetch(x, rows, row, row_bytes):
        for i in range(rows):
            for j in range(0, row_bytes, line):
                ask(x + i * row + j)

    @subroutine
    def fetch_far(x, rows, row, row_bytes):
        # into L2
        for i in range(rows):
            for j in range(0, row_bytes, line):
                ask_later(x + i * row + j)

    @subroutine
    def work_on(kernel, block, scratch, l0, l1, l2, key, keys, query, queries, scores):
        where = words(scratch)
        where[0], where[1], where[2], where[3] = l0, l1, l2, key
        where[4], where[5], where[6], where[7] = keys, query, queries, scores
        call_kernel(kernel, block, 0, scratch)

    zero, one, lowest = 0, 0x3FF << 52, -(1 << 52)  # the bits of 0, 1 and -inf as float64

    def kernel(args, task, scratch):
        n1, n2, queries, keys, head, value = args[24], args[25], args[26], args[27], args[28], args[29]
        each, blocks, step = args[33], args[34], args[35]
        h = task // blocks
        l0, l1, l2 = h // (n1 * n2), h // n2 % n1, h % n2
        q0 = task % blocks * each * width
        panels = min(each, (queries - q0 + width - 1) // width)
        q = args[0] + l0 * args[4] + l1 * args[5] + l2 * args[6]
        k = args[1] + l0 * args[9] + l1 * args[10] + l2 * args[11]
        v = args[2] + l0 * args[14] + l1 * args[15] + l2 * args[16]
        y = args[3] + l0 * args[19] + l1 * args[20] + l2 * args[21]
        wanted, scores = words(scratch + 128), scratch + head_bytes
        states = scores + step * pitch
        turned = states + each * state_rows * pitch
        results = turned + each * head * pitch
        k_copy = results + each * value * pitch
        v_copy = k_copy + args[48] * step * head * size
        of_keys = (v_copy + args[49] * step * value * size + 63) // 64 * 64
        of_weights = of_keys + (step * 4 + 63) // 64 * 64
        of_values = of_weights + 4 * vector
        weight_squares = of_weights + 2 * vector
        value_squares = of_values + (value * 4 + 63) // 64 * 64
        reference = value_squares + (value * 4 + 63) // 64 * 64
        lifted, extent = reference + vector, reference + 2 * vector
        store(lifted, splat(0.0))
        if k_by_pairs != 0:
            squares(args, min(keys, lanes), head, k, args[12], scratch + 64)
            store(reference, splat(1.0))
            sample = root(added(load(scratch + 64)))
            if first_lane(sample) <= longest_of_pairs and first_lane(sample) * longest_of_pairs >= 1.0:
                store(reference, sample)
        v_like = 0.0  # the mean square of values, if weights can be made like them
        if v_by_pairs != 0:
            sampled = min(keys, lanes)
            of_columns(args, v, args[17], 0, sampled, value, of_values, value_squares)
            spread(value_squares, value, extent)
            store(extent, load(extent + 2 * vector) * (splat(1.0) / splat(max(1, sampled // 2 * 2 * value))))
            if first_lane(load(extent)) <= highest_like and first_lane(load(extent)) * highest_like >= 1.0:
                v_like = first_lane(load(extent))
                lift(args, extent, lifted)
        for p in range(panels):
            first = q0 + p * width
            panel, state = turned + p * head * pitch, states + p * state_rows * pitch
            count = min(width, queries - first)
            if count < width:
                fill(panel, head, zero)
            if p + 1 < panels and args[8] == size:
                fetch(q + (first + width) * args[7], min(width, queries - first - width), args[7], head * size)
            turn(q + first * args[7], count, head, args[7], args[8], panel, pitch)
            scaled(panel, head, args[30], state + LENGTH * pitch)
            if k_by_pairs != 0:
                balance(args, head, panel, state, reference)
                of_columns(args, panel, pitch, head // k_turn, head % k_turn, width, state + PAIRS * pitch, of_weights)
            wanted[p] = 1
        back, ahead = args[50], args[51]
        for attempt in range(2):
            begin, end = keys, 0
            for p in range(panels):
                state, first = states + p * state_rows * pitch, q0 + p * width
                count = min(width, queries - first)
                low, high = max(0, first - back), min(keys, first + count + ahead)
                if attempt == 1:
                    # rows that saw nothing above the level see everything
                    small = at_most(
                        select(first_lanes(count), load(state) + load(lifted), splat(0.0)),
                        select(first_lanes(count - lanes), load(state + vector) + load(lifted), splat(0.0)),
                    )
                    wanted[p] = 1 if first_lane(across(small)) < number(args[52]) else 0
                if attempt == 1 or low >= high:
                    low, high = 0, max(keys, 1)
                if wanted[p] != 0:
                    fill(state + LEVEL * pitch, 1, lowest)
                    fill(state + SUM * pitch, 1, zero)
                    begin, end = min(begin, low), max(end, high)
            for key in range(begin // step * step, end, step):
                rows = min(step, keys - key)
                at = 36 if key + step < keys else 40
                k_block, k_row, v_block, v_row = k + key * args[12], args[12], v + key * args[17], args[17]
                if args[48] != 0:
                    copy(k_block, rows, head, k_row, k_copy)
                    k_block, k_row = k_copy, head * size
                if args[49] != 0:
                    copy(v_block, rows, value, v_row, v_copy)
                    v_block, v_row = v_copy, value * size
                longest, k_turns = splat(0.0), 0
                if free != 0 or k_by_pairs != 0:
                    squares(args, rows, head, k_block, k_row, scratch + 64)
                    longest = root(added(load(scratch + 64)))
                # queries are as long as the first keys: others may not be much longer
                if k_by_pairs != 0 and first_lane(longest) <= limit * first_lane(load(reference)):
                    k_turns = head // k_turn
                    of_rows(args, k_block, k_row, rows, k_turns, head % k_turn, of_keys)
                v_turns, v_all = 0, v_like * (rows - rows // 3)  # of what is in pairs
                if v_like > 0.0:
                    of_columns(args, v_block, v_row, rows // v_turn, rows % v_turn, value, of_values, value_squares)
                    spread(value_squares, value, extent)
                    least, most = first_lane(load(extent)), first_lane(load(extent + vector))
                    if least * limit * limit >= v_all and most <= v_all * limit * limit:
                        v_turns = rows // v_turn
                coming = max(0, min(step, end - key - step))
                for p in range(panels):
                    for_p, until = coming * p // panels, coming * (p + 1) // panels
                    if free != 0:
                        fetch_far(k + (key + step + for_p) * args[12], until - for_p, args[12], head * size)
                    fetch_far(v + (key + step + for_p) * args[17], until - for_p, args[17], value * size)
                    first = q0 + p * width
                    count = min(width, queries - first)
                    vectors = 1 if count <= lanes else 2
                    low, high = max(0, first - back), min(keys, first + count + ahead)
                    if attempt == 1 or low >= high:
                        low, high = 0, max(keys, 1)
                    if wanted[p] == 0 or key >= high or (low > 0 and key + rows <= low):
                        continue
                    panel, state, result = turned + p * head * pitch, states + p * state_rows * pitch, results + p * value * pitch
                    later = max(0, key - low)
                    height, count_1, second, count_2 = args[at], args[at + 1], args[at + 2], args[at + 3]
                    weighed = 0
                    if free != 0:
                        # no score is further from 0 than `reach`
                        reach, other_reach = load(state + LENGTH * pitch) * longest, load(state + LENGTH * pitch + vector) * longest
                        level, other = load(state + LEVEL * pitch), load(state + LEVEL * pitch + vector)
                        if later == 0 and v_turns == 0:
                            level, other = up(reach), up(other_reach)
                        beyond = maximum(reach - level - above, reach + level - below)
                        beyond = maximum(beyond, maximum(other_reach - other - above, other_reach + other - below))
                        if first_lane(highest(beyond)) <= 0.0:
                            weighed = 1
                            store(state + LEVEL * pitch, level)
                            store(state + LEVEL * pitch + vector, other)
                            fill(state + FACTOR * pitch, 1, one)
                    turns = k_turns
                    if k_turns > 0:
                        length = maximum(load(state + LENGTH * pitch), load(state + LENGTH * pitch + vector))
                        if not first_lane(highest(length)) <= longest_of_pairs:
                            turns = 0
                    score(vectors, height, count_1, second, count_2, k_block, k_row, args[13], panel, head, turns, of_keys, state,
                          weighed, scores)  # fmt: skip
                    if args[31] != 0:
                        work_on(args[31], args[32], scratch, l0, l1, l2, key, rows, first, count, scores)
                    if weighed == 0:
                        weigh(args, vectors, rows, scores, state, lifted)
                    turns = 0
                    if v_turns > 0:
                        of_columns(
                            args, scores, pitch, v_turns, rows - v_turns * v_turn, vectors * lanes, of_weights, weight_squares
                        )
                        length = load(weight_squares)
                        if vectors == 2:
                            length = maximum(length, load(weight_squares + vector))
                        if first_lane(highest(length)) <= v_all * limit * limit:
                            turns = v_turns
                    x, s, of_channels, height, number_of = v_block, result, of_values, args[44], args[45]
                    for _ in range(2):
                        factor = state + FACTOR * pitch
                        v_tiles(args, vectors, height, number_of, x, args[18], v_row, scores, rows, turns, of_channels, of_weights,
                                later, factor, s)  # fmt: skip
                        x, s = x + height * number_of * args[18], s + height * number_of * pitch
                        of_channels += height * number_of * 4
                        height, number_of = args[46], args[47]
        for p in range(panels):
            first = q0 + p * width
            result, state = results + p * value * pitch, states + p * state_rows * pitch
            count = min(width, queries - first)
            if keys == 0:
                fill(result, value, zero)
                fill(state + SUM * pitch, 1, one)
            if p + 1 < panels:
                fetch(y + (first + width) * args[22], min(width, queries - first - width), args[22], value * size)
            divided(result, value, state + SUM * pitch)
            # lanes along queries, rows of y along channels
            turn(result, value, count, pitch, size, y + first * args[22], args[22])

    return kernel
