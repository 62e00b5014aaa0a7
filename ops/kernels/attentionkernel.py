"""The kernel of `attention`: what a task does with its panels of queries. Numba-free but for the factory."""

from __future__ import annotations

import math
from collections.abc import Callable

from . import attentionwords as word
from . import target
from .attention import FLAGS, paired
from .image import SIZES

_ABOVE = 50.0  # the level, in powers of 2, may scores be that are weighed without a look at the largest
_BELOW = 100.0
_LIMIT = 16.0  # times longer than the first keys, which queries are made as long as, may others be for products by pairs


def factory(dtype: str, k_lines: bool, v_lines: bool, bounded: bool) -> Callable:
    """The kernel. Task = (head, block of panels), or the record of a block of keys (`attentionrecord`).

    Scratch: 64 bytes for the block of `scores`; whether each panel is to be computed; the scores of a block of keys; for each panel
    its state, its queries and its result so far; what is found out of weights, and of the first keys and values; a record, unless
    all are made before.
    """
    from . import attentionpanel, attentionrecord, attentiontile, pairsums, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, width, pitch = lanes * size, 2 * lanes, 2 * lanes * size
    # a column of the keys is what their tile broadcasts, a row of the values theirs
    k_pairs, v_pairs = paired(dtype) and k_lines, paired(dtype) and v_lines
    k_tiles = attentiontile.scores(dtype, lanes, not k_lines, bounded, k_pairs)
    v_tiles = attentiontile.mixtures(dtype, lanes, v_lines, v_pairs)
    k_by_pairs, by_pairs, triple, of_columns = int(k_pairs), int(k_pairs or v_pairs), pairsums.TRIPLE, pairsums.of_columns(lanes, 2)
    make_record = attentionrecord.making(dtype, k_pairs, v_pairs, bounded)
    compare = attentionrecord.comparing(k_pairs, v_pairs, bounded)
    begin_panels, end_panels = attentionpanel.beginning(dtype, k_pairs), attentionpanel.ending(dtype)
    fill, limit, longest_of_pairs = attentionpanel.filling(dtype), _LIMIT, attentionrecord.LONGEST
    # scores that their lengths bound are exponents of 2
    weigh = attentiontile.weigh(dtype, lanes, 2 if bounded else math.e)
    state_rows, scores_at, free = word.STATE, word.SCRATCH + FLAGS, int(bounded)
    first_lane, across, at_most, select = simd.first, simd.reduce_minimum, simd.at_most, simd.select
    maximum, highest, up = simd.maximum, simd.reduce_maximum, simd.ceil
    first_lanes = simd.first_lanes(lanes)
    words, call_kernel, number, address = simd.block, simd.call_kernel, simd.float_argument, simd.address
    load, store, splat = simd.load(dtype, lanes), simd.store(dtype), simd.splat(dtype, lanes)
    line, above, below = word.LINE, _ABOVE, _BELOW

    @subroutine
    def score(block, at, vectors, x, x_row, panel, triples, pairs, state, weighed, y, far, far_row, left):
        # Tiles of one height and tiles of another, as the words at `at` say. The first half of them asks for what comes next: what
        # is asked for last has to arrive, too.
        args = words(block)
        tiles, lines = args[at + 1] + args[at + 3], (args[word.HEAD] * size + line - 1) // line
        asked = (2 * left + tiles - 1) // max(1, tiles)
        for i in range(at, at + 4, 2):
            height, count = args[i], args[i + 1]
            k_tiles(args, vectors, height, count, x, x_row, args[word.K_COLUMN], panel, args[word.HEAD], triples, pairs, state,
                    weighed, y, far, far_row, lines, asked, left)  # fmt: skip
            x, y, pairs = x + height * count * x_row, y + height * count * pitch, pairs + height * count * 4
            far, left = far + asked * count * far_row, max(0, left - asked * count)

    @subroutine
    def mix(block, vectors, x, panel, rows, triples, pairs, of_lanes, again, state, y, far, far_row, left):
        args = words(block)
        tiles, lines = args[word.V_TILES + 1] + args[word.V_TILES + 3], (args[word.VALUE] * size + line - 1) // line
        asked = (2 * left + tiles - 1) // max(1, tiles)
        for i in range(word.V_TILES, word.V_TILES + 4, 2):
            height, count = args[i], args[i + 1]
            tile, step = height * args[word.V_COLUMN], args[word.V_ROW]
            if args[word.V_COPIED] != 0:
                tile, step = rows * height * size, height * size
            v_tiles(args, vectors, height, count, x, tile, args[word.V_COLUMN], step, panel, rows, triples, pairs, of_lanes, again,
                    state + word.FACTOR * pitch, y, far, far_row, lines, asked, left)  # fmt: skip
            far, left = far + asked * count * far_row, max(0, left - asked * count)
            x, y, pairs = x + count * tile, y + height * count * pitch, pairs + height * count * 4

    @subroutine
    def work_on(kernel, block, scratch, l0, l1, l2, key, keys, query, queries, scores):
        where = words(scratch)
        where[0], where[1], where[2], where[3] = l0, l1, l2, key
        where[4], where[5], where[6], where[7] = keys, query, queries, scores
        call_kernel(kernel, block, 0, scratch)

    zero, one, lowest = 0, 0x3FF << 52, -(1 << 52)  # the bits of 0, 1 and -inf as float64

    def kernel(args, task, scratch):
        queries, keys, head, value, step = args[word.QUERIES], args[word.KEYS], args[word.HEAD], args[word.VALUE], args[word.STEP]
        k_row, v_row, each, tasks = args[word.K_ROW], args[word.V_ROW], args[word.EACH], args[word.TASKS]
        n1, n2 = args[word.LEADS + 1], args[word.LEADS + 2]
        if args[word.MAKES_RECORDS] != 0:
            tasks, n1, n2 = (keys + step - 1) // step, args[word.RECORD_HEADS + 1], args[word.RECORD_HEADS + 2]
        h, part = task // tasks, task % tasks
        l0, l1, l2 = h // (n1 * n2), h // n2 % n1, h % n2
        q = args[word.Q] + l0 * args[word.Q_LEADS] + l1 * args[word.Q_LEADS + 1] + l2 * args[word.Q_LEADS + 2]
        k = args[word.K] + l0 * args[word.K_LEADS] + l1 * args[word.K_LEADS + 1] + l2 * args[word.K_LEADS + 2]
        v = args[word.V] + l0 * args[word.V_LEADS] + l1 * args[word.V_LEADS + 1] + l2 * args[word.V_LEADS + 2]
        y = args[word.Y] + l0 * args[word.Y_LEADS] + l1 * args[word.Y_LEADS + 1] + l2 * args[word.Y_LEADS + 2]
        if args[word.MAKES_RECORDS] != 0:
            key, record = part * step, args[word.RECORDS] + task * args[word.RECORD_BYTES]
            make_record(address(args), k + key * k_row, v + key * v_row, min(step, keys - key), record)
            return
        q0 = part * each * width
        panels = min(each, (queries - q0 + width - 1) // width)
        wanted, scores = words(scratch + word.SCRATCH), scratch + scores_at
        states = scores + step * pitch
        turned = states + each * state_rows * pitch
        results = turned + each * head * pitch
        of_weights = results + each * value * pitch
        weight_squares, reference = of_weights + 2 * line, of_weights + 4 * line
        lifted, like, record = reference + line, reference + 2 * line, reference + 3 * line
        records, made = args[word.RECORDS], 0
        if records != 0:
            records += l0 * args[word.RECORD_LEADS] + l1 * args[word.RECORD_LEADS + 1] + l2 * args[word.RECORD_LEADS + 2]
            record = records
        else:
            make_record(address(args), k, v, min(step, keys), record)
        v_like = 0.0
        if by_pairs != 0:
            compare(address(args), k, record, reference, lifted, like)
            v_like = first_lane(load(like))
        else:
            store(lifted, splat(0.0))
        begin_panels(address(args), q, q0, panels, states, turned, reference, of_weights)
        for p in range(panels):
            wanted[p] = 1
        back, ahead = args[word.BACK], args[word.AHEAD]
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
                    wanted[p] = 1 if first_lane(across(small)) < number(args[word.LOWEST]) else 0
                if attempt == 1 or low >= high:
                    low, high = 0, max(keys, 1)
                if wanted[p] != 0:
                    fill(state + word.LEVEL * pitch, 1, lowest)
                    fill(state + word.SUM * pitch, 1, zero)
                    begin, end = min(begin, low), max(end, high)
            for key in range(begin // step * step, end, step):
                rows = min(step, keys - key)
                at = word.K_TILES if key + step < keys else word.K_LAST_TILES
                if records != 0:
                    record = records + key // step * args[word.RECORD_BYTES]
                elif key != made:
                    make_record(address(args), k + key * k_row, v + key * v_row, rows, record)
                    made = key
                k_block, k_pitch, v_block = k + key * k_row, k_row, v + key * v_row
                if args[word.K_COPIED] != 0:
                    k_block, k_pitch = record + args[word.K_AT], head * size
                if args[word.V_COPIED] != 0:
                    v_block = record + args[word.V_AT]
                of_keys, of_values, longest = record + word.OF_KEYS_AT, record + args[word.OF_VALUES_AT], load(record)
                k_triples, v_triples, v_all = 0, 0, v_like * (rows // triple * 2)
                # queries are as long as the first keys: others may not be much longer
                if k_by_pairs != 0 and first_lane(longest) <= limit * first_lane(load(reference)):
                    k_triples = head // triple
                if v_like > 0.0:
                    least, most = first_lane(load(record + word.LEAST_AT)), first_lane(load(record + word.MOST_AT))
                    if least * limit * limit >= v_all and most <= v_all * limit * limit:
                        v_triples = rows // triple
                # tiles ask for what the next block will read
                coming = max(0, min(step, end - key - step))
                k_far, k_far_row, k_coming, v_far, v_far_row = (
                    k + (key + step) * k_row, k_row, coming, v + (key + step) * v_row, v_row,
                )  # fmt: skip
                if records != 0 and coming > 0:
                    k_far, k_far_row, v_far, v_far_row = record + args[word.RECORD_BYTES], head * size, 0, value * size
                    k_coming, v_far = args[word.V_AT] // max(1, k_far_row), k_far + args[word.V_AT]
                for p in range(panels):
                    k_for, v_for = k_coming * p // panels, coming * p // panels
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
                    weighed = 0
                    if free != 0:
                        # no score is further from 0 than `reach`
                        at_length, at_level = state + word.LENGTH * pitch, state + word.LEVEL * pitch
                        reach, other_reach = load(at_length) * longest, load(at_length + vector) * longest
                        level, other = load(at_level), load(at_level + vector)
                        if later == 0 and v_triples == 0:
                            level, other = up(reach), up(other_reach)
                        beyond = maximum(reach - level - above, reach + level - below)
                        beyond = maximum(beyond, maximum(other_reach - other - above, other_reach + other - below))
                        if first_lane(highest(beyond)) <= 0.0:
                            weighed = 1
                            store(at_level, level)
                            store(at_level + vector, other)
                            fill(state + word.FACTOR * pitch, 1, one)
                    triples = k_triples
                    if k_triples > 0:
                        length = maximum(load(state + word.LENGTH * pitch), load(state + word.LENGTH * pitch + vector))
                        if not first_lane(highest(length)) <= longest_of_pairs:
                            triples = 0
                    left = k_coming * (p + 1) // panels - k_for
                    score(address(args), at, vectors, k_block, k_pitch, panel, triples, of_keys, state, weighed,
                          scores, k_far + k_for * k_far_row, k_far_row, left)  # fmt: skip
                    if args[word.SCORES] != 0:
                        work_on(args[word.SCORES], args[word.SCORES_BLOCK], scratch, l0, l1, l2, key, rows, first, count, scores)
                    if weighed == 0:
                        weigh(args, vectors, rows, scores, state, lifted)
                    triples = 0
                    if v_triples > 0:
                        of_columns(args, scores, pitch, v_triples, vectors * lanes, of_weights, weight_squares)
                        length = load(weight_squares)
                        if vectors == 2:
                            length = maximum(length, load(weight_squares + vector))
                        if first_lane(highest(length)) <= v_all * limit * limit:
                            triples = v_triples
                    left = coming * (p + 1) // panels - v_for
                    mix(address(args), vectors, v_block, scores, rows, triples, of_values, of_weights, later, state, result,
                        v_far + v_for * v_far_row, v_far_row, left)  # fmt: skip
        end_panels(address(args), y, q0, panels, states, results)

    return kernel
