"""Attention of a few queries, a decoder's next tokens: a matter of how fast keys and values come from memory.

A panel of `attention`, whose lanes run along queries, would be empty but for them. Here lanes run along a head's channels for
both products, and along keys between them; keys and values are read once, in the order in which they lie, and whatever is
done to them hides behind that.

Loop order of a task, which is a head: blocks of keys; up to four queries at once; keys.
Numba-free but for the factory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import ahead, target
from . import attentionwords as word
from .image import SIZES, Opaque
from .launch import Launch
from .spec import KernelSpec, handwritten

if TYPE_CHECKING:
    from .attention import Sizes

AT_ONCE = 4  # queries that a row is multiplied with when it is read
BLOCK = 96  # keys, at most, a multiple of 16; a row of scores is as long. Two streams in turn: each is read ahead meanwhile
# rows of a query's state: the largest score so far, the sums of weights in each lane, the factor of what came before
LEVEL, SUM, FACTOR = range(3)
STATE = 3
_START = 128  # bytes of scratch for the block of `scores`
# words behind those that `attention` has: bytes of a query and of a result; where scores, queries and results are in scratch
_Q_BYTES, _Y_BYTES, _SCORES_AT, _TURNED_AT, _RESULTS_AT = range(word.LOWEST + 1, word.LOWEST + 6)


def most(dtype: str) -> int:
    """How many queries are few: half as many as a vector has lanes, and as are done at once."""
    return max(AT_ONCE, target.current().lanes * 2 // SIZES[dtype])


def attention(dtype: str, problem: tuple[Opaque | float, ...], s: Sizes, label: str) -> list[Launch]:
    """As `attention.attention`, for rows of keys and values that are runs in memory; scores' kernel works on [queries, keys].

    problem: the words of the argument block up to LOWEST.
    """
    size, vector = SIZES[dtype], 4 * target.current().lanes
    q_bytes, y_bytes = (-(-size * columns // vector) * vector for columns in (s.head, s.value))
    scores_at = _START + s.queries * STATE * 2 * vector
    turned_at = scores_at + s.queries * BLOCK * size
    results_at = turned_at + s.queries * q_bytes
    args = (*problem, q_bytes, y_bytes, scores_at, turned_at, results_at)
    moved = size * s.heads * (s.queries + s.keys) * (s.head + s.value)
    return [Launch(kernel_of(dtype), args, s.heads, results_at + s.queries * y_bytes, label, s.flops, moved)]


def kernel_of(dtype: str) -> KernelSpec:
    """The kernel of a type, for plans of other sizes too."""
    return handwritten("attention", "attentionfew:factory", ahead=True, dtype=dtype)


def factory(dtype: str) -> Callable:
    """The kernel. Task = a head.

    Scratch: a block for `scores`; for each query its state, its scores of a block of keys, itself and its result so far.
    """
    from . import attentionfewtile as tile
    from . import simd
    from .subroutine import subroutine

    lanes, size = target.current().lanes * 4 // SIZES[dtype], SIZES[dtype]
    vector, state_bytes, step, start = lanes * size, STATE * 2 * lanes * size, BLOCK, _START
    level_at, sum_at, factor_at = (row * 2 * vector for row in (LEVEL, SUM, FACTOR))
    dots, weigh, mixed = tile.dots(dtype, lanes), tile.weigh(dtype, lanes), tile.mixed(dtype, lanes)
    words, address, call_kernel, number = simd.block, simd.address, simd.call_kernel, simd.float_argument
    first_lane, added = simd.first, simd.reduce_add
    load, store, splat = simd.load(dtype, lanes), simd.store(dtype), simd.splat(dtype, lanes)
    lowest = float("-inf")
    bring, asked = ahead.bringing(), ahead.ASKED
    load_strided, store_first = simd.load_strided(dtype, lanes), simd.store_first(dtype)
    q_bytes_at, y_bytes_at, scores_at, turned_at, results_at = _Q_BYTES, _Y_BYTES, _SCORES_AT, _TURNED_AT, _RESULTS_AT

    @subroutine
    def scaled(x, columns, column, factor, y):
        for j in range(0, columns, lanes):
            store(y + j * size, load_strided(x + j * column, column, min(lanes, columns - j)) * splat(number(factor)))

    @subroutine
    def divided(x, columns, state, y):
        inverse = splat(1.0) / added(load(state + sum_at))
        for j in range(0, columns, lanes):
            store_first(y + j * size, load(x + j * size) * inverse, min(lanes, columns - j))

    @subroutine
    def cleared(x, columns):
        for j in range(0, columns, lanes):
            store(x + j * size, splat(0.0))

    @subroutine
    def work_on(kernel, block, scratch, l0, l1, l2, queries, key, keys, scores):
        where = words(scratch)
        where[0], where[1], where[2], where[3] = l0, l1, l2, 0
        where[4], where[5], where[6], where[7] = queries, key, keys, scores
        call_kernel(kernel, block, 0, scratch)

    @subroutine
    def look(block, scratch, l0, l1, l2, k, v, after, low, high):
        """The results of all queries, of these keys in blocks of about the same size; `after`: the keys that come next."""
        args = words(block)
        queries, head, value = args[word.QUERIES], args[word.HEAD], args[word.VALUE]
        k_row, v_row = args[word.K_ROW], args[word.V_ROW]
        q_bytes, y_bytes, states = args[q_bytes_at], args[y_bytes_at], scratch + start
        scores, turned, results = scratch + args[scores_at], scratch + args[turned_at], scratch + args[results_at]
        for i in range(queries):
            store(states + i * state_bytes + level_at, splat(lowest))
            store(states + i * state_bytes + sum_at, splat(0.0))
            cleared(results + i * y_bytes, value)
        blocks = max(1, (high - low + step - 1) // step)
        each = max(16, ((high - low + blocks - 1) // blocks + 15) // 16 * 16)
        for key in range(low, high, each):
            rows = min(each, high - key)
            here, coming = v + key * v_row, after
            dots(args, rows, k + key * k_row, k_row, queries, turned, q_bytes, head, scores, here, v_row)
            if args[word.SCORES] != 0:
                work_on(args[word.SCORES], args[word.SCORES_BLOCK], scratch, l0, l1, l2, queries, key, rows, scores)
            for i in range(queries):
                weigh(args, rows, scores + i * step * size, states + i * state_bytes)
            if key + rows < high:
                coming = k + (key + rows) * k_row
            factors = states + factor_at
            mixed(args, rows, scores, here, v_row, value, queries, factors, state_bytes, results, y_bytes, coming, k_row)

    def kernel(args, task, scratch):
        n1, n2, k1, k2 = args[word.LEADS + 1], args[word.LEADS + 2], args[word.K_LEADS + 1], args[word.K_LEADS + 2]
        k_row = args[word.K_ROW]
        queries, keys, head, value = args[word.QUERIES], args[word.KEYS], args[word.HEAD], args[word.VALUE]
        low, high = max(0, -args[word.BACK]), min(keys, queries + args[word.AHEAD])
        one = (-1 - task) % asked if task < 0 else task
        l0, l1, l2 = one // (n1 * n2), one // n2 % n1, one % n2
        k = args[word.K] + l0 * args[word.K_LEADS] + l1 * k1 + l2 * k2
        if task < 0:
            if k_row == head * size:  # what lies between rows further apart is of other heads
                bring(k + low * k_row, (high - low) * k_row, (-1 - task) // asked)
            return
        then = min(one + 1, args[word.LEADS] * n1 * n2 - 1)
        after = args[word.K] + then // (n1 * n2) * args[word.K_LEADS] + then // n2 % n1 * k1 + then % n2 * k2
        q = args[word.Q] + l0 * args[word.Q_LEADS] + l1 * args[word.Q_LEADS + 1] + l2 * args[word.Q_LEADS + 2]
        v = args[word.V] + l0 * args[word.V_LEADS] + l1 * args[word.V_LEADS + 1] + l2 * args[word.V_LEADS + 2]
        y = args[word.Y] + l0 * args[word.Y_LEADS] + l1 * args[word.Y_LEADS + 1] + l2 * args[word.Y_LEADS + 2]
        q_bytes, y_bytes, states = args[q_bytes_at], args[y_bytes_at], scratch + start
        turned, results = scratch + args[turned_at], scratch + args[results_at]
        for i in range(queries):
            scaled(q + i * args[word.Q_ROW], head, args[word.Q_COLUMN], args[word.SCALE], turned + i * q_bytes)
        wanted = 1
        for attempt in range(2):
            if attempt == 1:
                # rows that saw nothing above the level see everything
                wanted = 0
                for i in range(queries):
                    if first_lane(load(states + i * state_bytes + level_at)) < number(args[word.LOWEST]):
                        wanted = 1
            if attempt == 1 or low >= high:
                low, high = 0, keys
            if wanted != 0:
                look(address(args), scratch, l0, l1, l2, k, v, after, low, high)
        for i in range(queries):
            if keys == 0:
                store(states + i * state_bytes + sum_at, splat(1.0))
            divided(results + i * y_bytes, value, states + i * state_bytes, y + i * args[word.Y_ROW])

    return kernel
