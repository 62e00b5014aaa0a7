"""The kernel of `attention`: what a task does with its panels of queries. Numba-free but for the factory."""

from __future__ import annotations

from collections.abc import Callable

from . import attentionscratch as own
from . import attentionwords as word
from . import target
from .attention import paired
from .image import SIZES

_ZERO, _LOWEST = 0, -(1 << 52)  # the bits of 0 and -inf as float64


def factory(dtype: str, k_lines: bool, v_lines: bool, bounded: bool) -> Callable:
    """The kernel. Task = (head, block of panels), or the record of a block of keys (`attentionrecord`)."""
    from . import attentionblock, attentionpanel, attentionrecord, simd
    from .subroutine import subroutine

    width = 2 * target.current().lanes * 4 // SIZES[dtype]
    # a column of the keys is what their tile broadcasts, a row of the values theirs
    k_pairs, v_pairs = paired(dtype) and k_lines, paired(dtype) and v_lines
    by_pairs = int(k_pairs or v_pairs)
    make = attentionrecord.making(dtype, k_pairs, v_pairs, bounded)
    compare = attentionrecord.comparing(k_pairs, v_pairs, bounded)
    begin_panels, end_panels = attentionpanel.beginning(dtype, k_pairs), attentionpanel.ending(dtype)
    span, enter = _spanning(dtype), attentionblock.entering(dtype, k_pairs, v_pairs)
    face, weigh = attentionblock.facing(dtype, bounded), attentionblock.weighing(dtype, bounded)
    score, mix = attentionblock.scoring(dtype, k_lines, bounded, k_pairs), attentionblock.mixing(dtype, v_lines, v_pairs)
    words, address = simd.block, simd.address
    store, splat, lay_out = simd.store(dtype), simd.splat(dtype, width // 2), _laying_out(dtype)

    @subroutine
    def record(block, task, key):
        args, mine = words(block), words(task)
        k, v = mine[own.KEYS] + key * args[word.K_ROW], mine[own.VALUES] + key * args[word.V_ROW]
        make(block, k, v, min(args[word.STEP], args[word.KEYS] - key), mine[own.RECORD])
        mine[own.RECORDED] = key

    @subroutine
    def start(block, task, q):
        # what is to be known before the first block
        mine = words(task)
        store(mine[own.LIFTED], splat(0.0))
        if by_pairs != 0:
            compare(block, mine[own.KEYS], mine[own.RECORD], mine[own.REFERENCE], mine[own.LIFTED], mine[own.LIKE])
        begin_panels(
            block, q, mine[own.FIRST], mine[own.PANELS], mine[own.STATES], mine[own.TURNED], mine[own.REFERENCE],
            mine[own.OF_WEIGHTS],
        )  # fmt: skip

    def kernel(args, task, scratch):
        step, keys = args[word.STEP], args[word.KEYS]
        tasks, n1, n2 = args[word.TASKS], args[word.LEADS + 1], args[word.LEADS + 2]
        if args[word.MAKES_RECORDS] != 0:
            tasks, n1, n2 = (keys + step - 1) // step, args[word.RECORD_HEADS + 1], args[word.RECORD_HEADS + 2]
        h, part = task // tasks, task % tasks
        l0, l1, l2 = h // (n1 * n2), h // n2 % n1, h % n2
        q = args[word.Q] + l0 * args[word.Q_LEADS] + l1 * args[word.Q_LEADS + 1] + l2 * args[word.Q_LEADS + 2]
        k = args[word.K] + l0 * args[word.K_LEADS] + l1 * args[word.K_LEADS + 1] + l2 * args[word.K_LEADS + 2]
        v = args[word.V] + l0 * args[word.V_LEADS] + l1 * args[word.V_LEADS + 1] + l2 * args[word.V_LEADS + 2]
        y = args[word.Y] + l0 * args[word.Y_LEADS] + l1 * args[word.Y_LEADS + 1] + l2 * args[word.Y_LEADS + 2]
        mine = words(scratch + own.TASK_AT)
        mine[own.HEAD], mine[own.HEAD + 1], mine[own.HEAD + 2], mine[own.KEYS], mine[own.VALUES] = l0, l1, l2, k, v
        if args[word.MAKES_RECORDS] != 0:
            mine[own.RECORD] = args[word.RECORDS] + task * args[word.RECORD_BYTES]
            record(address(args), scratch + own.TASK_AT, part * step)
            return
        lay_out(address(args), scratch, part * args[word.EACH] * width)
        own_records = args[word.RECORDS] == 0
        if own_records:
            record(address(args), scratch + own.TASK_AT, 0)
        start(address(args), scratch + own.TASK_AT, q)
        for attempt in range(2):
            span(address(args), scratch + own.TASK_AT, attempt)
            end = mine[own.END]
            for key in range(mine[own.BEGIN] // step * step, end, step):
                if own_records and key != mine[own.RECORDED]:
                    record(address(args), scratch + own.TASK_AT, key)
                enter(address(args), scratch + own.TASK_AT, key)
                for p in range(mine[own.PANELS]):
                    spans = words(mine[own.SPANS] + p * own.SPAN)
                    if spans[0] < key + mine[own.ROWS] and key < spans[1]:
                        face(address(args), scratch + own.TASK_AT, p)
                        score(address(args), scratch + own.TASK_AT)
                        weigh(address(args), scratch)
                        mix(address(args), scratch + own.TASK_AT)
        end_panels(address(args), y, mine[own.FIRST], mine[own.PANELS], mine[own.STATES], mine[own.RESULTS])

    return kernel


def _laying_out(dtype: str) -> Callable:
    """The subroutine ``lay_out(block, scratch, first)``: the task's words of what is in scratch; `first`: of its queries."""
    from . import simd
    from .subroutine import subroutine

    size = SIZES[dtype]
    width = 2 * target.current().lanes * 4 // size
    pitch, line, words, spans_at, state = width * size, word.LINE, simd.block, own.SPANS_AT, word.STATE

    @subroutine
    def lay_out(block, scratch, first):
        args, mine = words(block), words(scratch + own.TASK_AT)
        each = args[word.EACH]
        mine[own.FIRST], mine[own.PANELS] = first, min(each, (args[word.QUERIES] - first + width - 1) // width)
        mine[own.SPANS] = scratch + spans_at
        mine[own.SCORES] = mine[own.SPANS] + (own.SPAN * each + line - 1) // line * line
        mine[own.STATES] = mine[own.SCORES] + args[word.STEP] * pitch
        mine[own.TURNED] = mine[own.STATES] + each * state * pitch
        mine[own.RESULTS] = mine[own.TURNED] + each * args[word.HEAD] * pitch
        mine[own.OF_WEIGHTS] = mine[own.RESULTS] + each * args[word.VALUE] * pitch
        mine[own.WEIGHT_SQUARES] = mine[own.OF_WEIGHTS] + 2 * line
        mine[own.REFERENCE] = mine[own.WEIGHT_SQUARES] + 2 * line
        mine[own.LIFTED], mine[own.LIKE] = mine[own.REFERENCE] + line, mine[own.REFERENCE] + 2 * line
        mine[own.RECORD], mine[own.RECORDS] = mine[own.REFERENCE] + 3 * line, args[word.RECORDS]
        if args[word.RECORDS] != 0:
            for i in range(3):
                mine[own.RECORDS] += mine[own.HEAD + i] * args[word.RECORD_LEADS + i]
            mine[own.RECORD] = mine[own.RECORDS]

    return lay_out


def _spanning(dtype: str) -> Callable:
    """The subroutine ``span(block, task, attempt)``: from which key to which each panel looks, and all of them.

    At first that is as far as scores may count, or everywhere if they count nowhere; then, for panels with a row that saw nothing
    above the level, everywhere, and others are done.
    """
    from . import attentionpanel, simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, width, pitch, state_rows = lanes * size, 2 * lanes, 2 * lanes * size, word.STATE
    fill, words, number, first_lane = attentionpanel.filling(dtype), simd.block, simd.float_argument, simd.first
    lowest_of, at_most, select, first_lanes = simd.reduce_minimum, simd.at_most, simd.select, simd.first_lanes(lanes)
    load, splat, zero, lowest = simd.load(dtype, lanes), simd.splat(dtype, lanes), _ZERO, _LOWEST

    @subroutine
    def span(block, task, attempt):
        args, mine = words(block), words(task)
        keys, begin, end = args[word.KEYS], args[word.KEYS], 0
        for p in range(mine[own.PANELS]):
            state, first, spans = (
                mine[own.STATES] + p * state_rows * pitch,
                mine[own.FIRST] + p * width,
                words(mine[own.SPANS] + p * own.SPAN),
            )
            count = min(width, args[word.QUERIES] - first)
            low, high = max(0, first - args[word.BACK]), min(keys, first + count + args[word.AHEAD])
            if attempt == 1:
                small = at_most(
                    select(first_lanes(count), load(state) + load(mine[own.LIFTED]), splat(0.0)),
                    select(first_lanes(count - lanes), load(state + vector) + load(mine[own.LIFTED]), splat(0.0)),
                )
                low, high = 0, keys if first_lane(lowest_of(small)) < number(args[word.LOWEST]) else 0
            elif low >= high:
                low, high = 0, keys
            spans[0], spans[1] = low, high
            if low < high:
                fill(state + word.LEVEL * pitch, 1, lowest)
                fill(state + word.SUM * pitch, 1, zero)
                begin, end = min(begin, low), max(end, high)
        mine[own.BEGIN], mine[own.END] = begin, end

    return span
