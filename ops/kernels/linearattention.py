"""Linear attention: a matrix of state that each token decays, adds its key and value to, and is asked by its query.

The columns of a state know nothing of each other, so a task takes one head of one sequence and as many columns as a vector has
lanes, and walks its tokens in order. Task = those columns. Numba-free but for the factory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import target
from .image import Opaque
from .launch import Launch
from .spec import handwritten


@dataclass(frozen=True)
class Heads:
    """How many heads queries, keys and values have, and the sizes of a key and of a value."""

    queries: int
    keys: int
    values: int
    key_size: int
    value_size: int


def walk(
    query: Opaque, key: Opaque, value: Opaque, decay: Opaque, beta: Opaque, past: Opaque, out: Opaque, state: Opaque, batch: int,
    tokens: int, heads: Heads, per_key: bool, per_head: bool,
) -> list[Launch]:  # fmt: skip
    """All dense float32 [B, T, heads * size]; states are [B, heads, key size, value size].

    Args:
        decay: factors of the state, one a head or (`per_key`) one a row of it; 0: there are none.
        beta: what is learned of a value, one a head (`per_head`) or one a token; 0: all, whatever the state knows of the key.
        past: 0 is a state of zeros.
    """
    lanes = target.current().lanes
    blocks = -(-heads.value_size // lanes)
    tasks = batch * heads.values * blocks
    group = max(heads.queries // heads.values, 1)
    decay_row = heads.key_size if per_key else 1
    args = (
        query, key, value, decay, beta, past, out, state, tokens, heads.queries, heads.keys, heads.values, heads.key_size,
        heads.value_size, blocks, group, decay_row, int(per_head),
    )  # fmt: skip
    kernel = handwritten("linear_attention", "linearattention:factory", decays=decay != 0, learns=beta != 0, starts=past == 0)
    size = heads.key_size * heads.value_size
    label = f"{tokens} tokens, {heads.values} states of {heads.key_size}x{heads.value_size}"
    flops = 2 * batch * tokens * heads.values * size * (1 + group + (beta != 0))
    return [Launch(kernel, args, tasks, 4 * lanes, label, flops, 8 * batch * heads.values * size)]


def factory(decays: bool, learns: bool, starts: bool) -> Callable:
    """The kernel of `walk`."""
    from . import simd
    from .subroutine import subroutine

    lanes, one, fma = target.current().lanes, simd.load("f32", 0), simd.fma
    load, store, splat = simd.load_first("f32", lanes), simd.store_first("f32"), simd.splat("f32", lanes)

    @subroutine
    def begin(past, state, rows, step, count):
        # the state is the past one, or zeros
        for i in range(rows):
            store(state + i * step, splat(0.0) if starts else load(past + i * step, count), count)

    @subroutine
    def look_up(state, key, factors, factor_step, rows, step, count, seen):
        # decays the state; what it says of the key
        total = splat(0.0)
        for i in range(rows):
            row = load(state + i * step, count)
            if decays:
                row = row * splat(one(factors + i * factor_step))
                store(state + i * step, row, count)
            total = fma(splat(one(key + 4 * i)), row, total)
        store(seen, total, count)

    @subroutine
    def add(state, key, value, rows, step, count):
        # to each row of the state its element of the key times the value
        new = load(value, count)
        for i in range(rows):
            store(state + i * step, fma(splat(one(key + 4 * i)), new, load(state + i * step, count)), count)

    @subroutine
    def ask(state, query, out, rows, step, count):
        # the rows of the state, weighted by the query
        total = splat(0.0)
        for i in range(rows):
            total = fma(splat(one(query + 4 * i)), load(state + i * step, count), total)
        store(out, total, count)

    def kernel(args, task, scratch):
        tokens, q_heads, k_heads, heads, rows, columns = args[8], args[9], args[10], args[11], args[12], args[13]
        blocks, group, factor_row, per_head = args[14], args[15], args[16], args[17]
        column, head, b = task % blocks * lanes, task // blocks % heads, task // (blocks * heads)
        count, step = min(lanes, columns - column), 4 * columns
        at = 4 * ((b * heads + head) * rows * columns + column)
        state = args[7] + at
        begin(args[5] + at, state, rows, step, count)
        first, out_heads = head * q_heads // heads, max(q_heads, heads)
        for token in range(b * tokens, (b + 1) * tokens):
            key = args[1] + 4 * (token * k_heads + head * k_heads // heads) * rows
            new = load(args[2] + 4 * ((token * heads + head) * columns + column), count)
            if decays or learns:
                factors = args[3] + 4 * (token * heads + head) * factor_row
                look_up(state, key, factors, 4 * min(factor_row - 1, 1), rows, step, count, scratch)
            if learns:
                place = token * heads + head if per_head else token
                new = (new - load(scratch, count)) * splat(one(args[4] + 4 * place))
            store(scratch, new, count)
            add(state, key, scratch, rows, step, count)
            for g in range(group):
                query = args[0] + 4 * (token * q_heads + first + g) * rows
                out = args[6] + 4 * ((token * out_heads + head * group + g) * columns + column)
                ask(state, query, out, rows, step, count)

    return kernel
