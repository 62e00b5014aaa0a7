"""What `attention` does with a block of keys: what is to be known of it, then a panel's scores of it, their weights, its values.

Numba-free but for the factories.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import attentionscratch as own
from . import attentionwords as word
from . import target
from .image import SIZES

_ABOVE = 50.0  # the level, in powers of 2, may scores be that are weighed without a look at the largest
_BELOW = 100.0
_LIMIT = 16.0  # times longer than the first keys, which queries are made as long as, may others be for products by pairs
_ONE = 0x3FF << 52  # the bits of 1 as float64


def entering(dtype: str, k_pairs: bool, v_pairs: bool) -> Callable:
    """The subroutine ``enter(block, task, key)``: the task's words of the block of keys that begins with `key`."""
    from . import pairsums, simd
    from .subroutine import subroutine

    lanes, size, triple, limit = target.current().lanes, SIZES[dtype], pairsums.TRIPLE, _LIMIT
    k_by_pairs, v_by_pairs, words, load, first = int(k_pairs), int(v_pairs), simd.block, simd.load("f32", lanes), simd.first

    @subroutine
    def pair_up(block, task):
        # Queries are made as long as the first keys, and weights like the first values: others may not differ much from those.
        args, mine = words(block), words(task)
        record, rows = mine[own.RECORD], mine[own.ROWS]
        mine[own.K_TRIPLES], mine[own.V_TRIPLES] = 0, 0
        if k_by_pairs != 0 and first(load(record)) <= limit * first(load(mine[own.REFERENCE])):
            mine[own.K_TRIPLES] = args[word.HEAD] // triple
        if v_by_pairs != 0:
            alike = first(load(mine[own.LIKE])) * (rows // triple * 2)
            least, most = first(load(record + word.LEAST_AT)), first(load(record + word.MOST_AT))
            if alike > 0.0 and least * limit * limit >= alike and most <= alike * limit * limit:
                mine[own.V_TRIPLES] = rows // triple

    @subroutine
    def look_ahead(block, task, key, coming):
        # what the next block of so many keys will read
        args, mine = words(block), words(task)
        k_row, v_row, record = args[word.K_ROW], args[word.V_ROW], mine[own.RECORD] + args[word.RECORD_BYTES]
        mine[own.NEXT_KEYS], mine[own.NEXT_KEYS + 1], mine[own.NEXT_KEYS + 2] = mine[own.KEYS] + key * k_row, k_row, coming
        mine[own.NEXT_VALUES], mine[own.NEXT_VALUES + 1], mine[own.NEXT_VALUES + 2] = mine[own.VALUES] + key * v_row, v_row, coming
        if args[word.RECORDS] != 0 and coming > 0:
            # a record up to its values takes the place of keys
            row = args[word.HEAD] * size
            mine[own.NEXT_KEYS], mine[own.NEXT_KEYS + 1], mine[own.NEXT_KEYS + 2] = record, row, args[word.V_AT] // max(1, row)
            mine[own.NEXT_VALUES], mine[own.NEXT_VALUES + 1] = record + args[word.V_AT], args[word.VALUE] * size

    @subroutine
    def enter(block, task, key):
        args, mine = words(block), words(task)
        following = key + args[word.STEP]
        if args[word.RECORDS] != 0:
            mine[own.RECORD] = mine[own.RECORDS] + key // args[word.STEP] * args[word.RECORD_BYTES]
        mine[own.KEY], mine[own.ROWS] = key, min(args[word.STEP], args[word.KEYS] - key)
        mine[own.TILES] = word.K_TILES if following < args[word.KEYS] else word.K_LAST_TILES
        mine[own.K_BLOCK], mine[own.K_PITCH] = mine[own.KEYS] + key * args[word.K_ROW], args[word.K_ROW]
        mine[own.V_BLOCK] = mine[own.VALUES] + key * args[word.V_ROW]
        if args[word.K_COPIED] != 0:
            mine[own.K_BLOCK], mine[own.K_PITCH] = mine[own.RECORD] + args[word.K_AT], args[word.HEAD] * size
        if args[word.V_COPIED] != 0:
            mine[own.V_BLOCK] = mine[own.RECORD] + args[word.V_AT]
        pair_up(block, task)
        look_ahead(block, task, following, max(0, min(args[word.STEP], mine[own.END] - following)))

    return enter


def facing(dtype: str, bounded: bool) -> Callable:
    """The subroutine ``face(block, task, p)``: the task's words of panel `p` and the block, and the panel's level.

    No score is further from 0 than the product of the lengths of a query and the longest key, if these are all (`bounded`). Scores
    may become weights in their tiles if a power of 2 of anything within that, less the level, is a normal number; in a panel's
    first block the level is that bound. By pairs weights are to be like values, for which the largest score has to be known.
    """
    from . import attentionpanel, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, width, pitch, state_rows, above, below = lanes * size, 2 * lanes, 2 * lanes * size, word.STATE, _ABOVE, _BELOW
    load, store, words, fill, one = simd.load(dtype, lanes), simd.store(dtype), simd.block, attentionpanel.filling(dtype), _ONE
    first, up, maximum, highest, free = simd.first, simd.ceil, simd.maximum, simd.reduce_maximum, int(bounded)

    @subroutine
    def settle(task):
        mine = words(task)
        at_length, at_level = mine[own.STATE] + word.LENGTH * pitch, mine[own.STATE] + word.LEVEL * pitch
        longest = load(mine[own.RECORD])
        reach, other_reach = load(at_length) * longest, load(at_length + vector) * longest
        level, other = load(at_level), load(at_level + vector)
        if mine[own.LATER] == 0 and mine[own.V_TRIPLES] == 0:
            level, other = up(reach), up(other_reach)
        beyond = maximum(reach - level - above, reach + level - below)
        beyond = maximum(beyond, maximum(other_reach - other - above, other_reach + other - below))
        if first(highest(beyond)) <= 0.0:
            mine[own.WEIGHED] = 1
            store(at_level, level)
            store(at_level + vector, other)
            fill(mine[own.STATE] + word.FACTOR * pitch, 1, one)

    @subroutine
    def face(block, task, p):
        args, mine = words(block), words(task)
        query, spans = mine[own.FIRST] + p * width, words(mine[own.SPANS] + p * own.SPAN)
        queries = min(width, args[word.QUERIES] - query)
        mine[own.PANEL], mine[own.QUERY], mine[own.QUERIES], mine[own.VECTORS] = p, query, queries, 1 if queries <= lanes else 2
        mine[own.STATE], mine[own.LATER] = mine[own.STATES] + p * state_rows * pitch, max(0, mine[own.KEY] - spans[0])
        mine[own.WEIGHED] = 0
        if free != 0:
            settle(task)

    return face


def scoring(dtype: str, k_lines: bool, bounded: bool, k_pairs: bool) -> Callable:
    """The subroutine ``score(block, task)``: a panel's scores of the block, or weights if they are WEIGHED."""
    from . import attentionrecord, attentiontile, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, pitch, line, longest_of_pairs = lanes * size, 2 * lanes * size, word.LINE, attentionrecord.LONGEST
    tiles_of, by_pairs = attentiontile.scores(dtype, lanes, not k_lines, bounded, k_pairs), int(k_pairs)
    load, words, first, maximum, highest = simd.load(dtype, lanes), simd.block, simd.first, simd.maximum, simd.reduce_maximum

    @subroutine
    def score(block, task):
        args, mine = words(block), words(task)
        p, state, triples, panels = mine[own.PANEL], mine[own.STATE], mine[own.K_TRIPLES], mine[own.PANELS]
        coming, far_row = mine[own.NEXT_KEYS + 2], mine[own.NEXT_KEYS + 1]
        head, pitch_of_keys, at = args[word.HEAD], mine[own.K_PITCH], mine[own.TILES]
        if by_pairs != 0:
            length = maximum(load(state + word.LENGTH * pitch), load(state + word.LENGTH * pitch + vector))
            if not first(highest(length)) <= longest_of_pairs:
                triples = 0
        x, y, pairs = mine[own.K_BLOCK], mine[own.SCORES], mine[own.RECORD] + word.OF_KEYS_AT
        panel, lines = mine[own.TURNED] + p * head * pitch, (head * size + line - 1) // line
        far, left = mine[own.NEXT_KEYS] + coming * p // panels * far_row, coming * (p + 1) // panels - coming * p // panels
        # The first half of the tiles asks for what comes next: what is asked for last has to arrive, too.
        tiles = args[at + 1] + args[at + 3]
        asked = (2 * left + tiles - 1) // max(1, tiles)
        for i in range(at, at + 4, 2):
            height, count = args[i], args[i + 1]
            tiles_of(args, mine[own.VECTORS], height, count, x, pitch_of_keys, args[word.K_COLUMN], panel, head, triples, pairs,
                     state, mine[own.WEIGHED], y, far, far_row, lines, asked, left)  # fmt: skip
            x, y, pairs = x + height * count * pitch_of_keys, y + height * count * pitch, pairs + height * count * 4
            far, left = far + asked * count * far_row, max(0, left - asked * count)

    return score


def weighing(dtype: str, bounded: bool) -> Callable:
    """The subroutine ``weigh(block, scratch)``: a panel's scores become weights, if they are not, whose pairs are summed up.

    Before, the kernel that works on scores does: see `loopcode.Shape.SCORES`.
    """
    from . import attentiontile, pairsums, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, pitch, limit, words, call_kernel = lanes * size, 2 * lanes * size, _LIMIT, simd.block, simd.call_kernel
    # scores that their lengths bound are exponents of 2
    exponentials, of_columns = attentiontile.weigh(dtype, lanes, 2 if bounded else math.e), pairsums.of_columns(lanes, 2)
    load, first_lane, maximum, highest = simd.load(dtype, lanes), simd.first, simd.maximum, simd.reduce_maximum

    @subroutine
    def work_on(kernel, block, scratch):
        where, mine = words(scratch), words(scratch + own.TASK_AT)
        where[0], where[1], where[2], where[3] = mine[own.HEAD], mine[own.HEAD + 1], mine[own.HEAD + 2], mine[own.KEY]
        where[4], where[5], where[6], where[7] = mine[own.ROWS], mine[own.QUERY], mine[own.QUERIES], mine[own.SCORES]
        call_kernel(kernel, block, 0, scratch)

    @subroutine
    def weigh(block, scratch):
        args, mine = words(block), words(scratch + own.TASK_AT)
        if args[word.SCORES] != 0:
            work_on(args[word.SCORES], args[word.SCORES_BLOCK], scratch)
        if mine[own.WEIGHED] == 0:
            exponentials(args, mine[own.VECTORS], mine[own.ROWS], mine[own.SCORES], mine[own.STATE], mine[own.LIFTED])
        triples, squares = mine[own.V_TRIPLES], mine[own.WEIGHT_SQUARES]
        if triples > 0:
            of_columns(args, mine[own.SCORES], pitch, triples, mine[own.VECTORS] * lanes, mine[own.OF_WEIGHTS], squares)
            length = load(squares)
            if mine[own.VECTORS] == 2:
                length = maximum(length, load(squares + vector))
            # pairs lose what values are less than weights
            if not first_lane(highest(length)) <= first_lane(load(mine[own.LIKE])) * (triples * 2) * limit * limit:
                triples = 0
        mine[own.TRIPLES] = triples

    return weigh


def mixing(dtype: str, v_lines: bool, v_pairs: bool) -> Callable:
    """The subroutine ``mix(block, task)``: the block's values, weighed, added to a panel's result."""
    from . import attentiontile, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    pitch, line, words, tiles_of = 2 * lanes * size, word.LINE, simd.block, attentiontile.mixtures(dtype, lanes, v_lines, v_pairs)

    @subroutine
    def mix(block, task):
        args, mine = words(block), words(task)
        p, rows, panels = mine[own.PANEL], mine[own.ROWS], mine[own.PANELS]
        coming, far_row = mine[own.NEXT_VALUES + 2], mine[own.NEXT_VALUES + 1]
        x, pairs = mine[own.V_BLOCK], mine[own.RECORD] + args[word.OF_VALUES_AT]
        y = mine[own.RESULTS] + p * args[word.VALUE] * pitch
        lines, v_column = (args[word.VALUE] * size + line - 1) // line, args[word.V_COLUMN]
        factor = mine[own.STATE] + word.FACTOR * pitch
        far, left = mine[own.NEXT_VALUES] + coming * p // panels * far_row, coming * (p + 1) // panels - coming * p // panels
        tiles = args[word.V_TILES + 1] + args[word.V_TILES + 3]
        asked = (2 * left + tiles - 1) // max(1, tiles)
        for i in range(word.V_TILES, word.V_TILES + 4, 2):
            height, count = args[i], args[i + 1]
            tile, step = height * v_column, args[word.V_ROW]
            if args[word.V_COPIED] != 0:
                tile, step = rows * height * size, height * size
            tiles_of(args, mine[own.VECTORS], height, count, x, tile, v_column, step, mine[own.SCORES], rows, mine[own.TRIPLES],
                     pairs, mine[own.OF_WEIGHTS], mine[own.LATER], factor, y, far, far_row, lines, asked, left)  # fmt: skip
            far, left = far + asked * count * far_row, max(0, left - asked * count)
            x, y, pairs = x + count * tile, y + height * count * pitch, pairs + height * count * 4

    return mix
