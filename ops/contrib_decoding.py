"""com.microsoft: decoders of large language models: RotaryEmbedding, GroupQueryAttention, SparseAttention."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .builder import Builder, OperatorError
from .cast import widened
from .contrib_attention import Scores, attend, default_scale, heads_first, heads_last, places, side_by_side
from .contrib_cachebits import cache_type
from .kernels.append import append_rows
from .kernels.scatter import copy_all
from .matmul import product
from .primitives import LaunchContext, Tensor
from .reduce import fold_mean
from .registry import contrib


# -- rotary positions
def rotated(t: Builder, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """The first channels of x turned by angles whose cosines and sines are given, one for each pair of channels.

    A pair is two neighbours (`interleaved`), or one channel of the first half with one of the second.
    """
    half = cos.shape[-1]
    turned = t.take(x, x.rank - 1, 0, 2 * half)
    if interleaved:
        pairs = t.reshape(turned, (*x.shape[:-1], half, 2))
        first, second = (t.squeeze(t.take(pairs, x.rank, i, i + 1), [-1]) for i in (0, 1))
    else:
        first, second = (t.take(turned, x.rank - 1, i * half, (i + 1) * half) for i in (0, 1))
    first, second, cos, sin = (widened(t, v) for v in (first, second, cos, sin))
    parts = [t.map("a * c - b * d", first, second, cos, sin), t.map("a * d + b * c", first, second, cos, sin)]
    parts = [t.cast(part, x.dtype) for part in parts]
    if interleaved:
        y = t.reshape(t.concat([t.unsqueeze(part, [-1]) for part in parts], x.rank), turned.shape)
        parts = [y]
    rest = t.take(x, x.rank - 1, 2 * half, x.shape[-1])
    return t.concat([*parts, rest] if rest.size else parts, x.rank - 1)


@contrib("RotaryEmbedding")
def rotary_embedding(
    t: Builder, x, position_ids, cos_cache, sin_cache, *,
    interleaved=0, num_heads=0, rotary_embedding_dim=0, is_packed_batching=0, scale=1.0,
):  # fmt: skip
    """x[B, S, N * H] or [B, N, S, H] turned by its tokens' positions; one position: that of each first token."""
    if position_ids.rank == 1:
        steps = t.constant(np.arange(x.shape[-2], dtype=np.int64).reshape(1, -1))
        position_ids = t.map("a + b", steps, t.reshape(position_ids, (1, 1)))
    cos, sin = (t.op("Gather", cache, position_ids) for cache in (cos_cache, sin_cache))
    if x.rank == 4:
        return rotated(t, x, t.unsqueeze(cos, [1]), t.unsqueeze(sin, [1]), bool(interleaved))
    size = x.shape[2] // num_heads if num_heads and rotary_embedding_dim else 2 * cos.shape[-1]
    heads = t.reshape(x, (*x.shape[:2], x.shape[2] // size, size))
    return t.reshape(rotated(t, heads, t.unsqueeze(cos, [2]), t.unsqueeze(sin, [2]), bool(interleaved)), x.shape)


@contrib("MRotaryEmbedding")
def multimodal_rotary_embedding(
    t: Builder, x, position_ids, cos_cache, sin_cache, *,
    mrope_section, num_heads=0, rotary_embedding_dim=0, interleaved=0, mrope_layout=0, is_packed_batching=0, scale=1.0,
):  # fmt: skip
    """RotaryEmbedding by three positions a token [3, B, S], in time, height and width: which one turns which channels."""
    half = cos_cache.shape[1]
    if len(mrope_section) != 3 or sum(mrope_section) != half or mrope_layout not in (0, 1):
        raise OperatorError(f"sections {list(mrope_section)} do not divide {half} angles, or the layout {mrope_layout} is unknown")
    if mrope_layout:  # every third one is a height's or a width's as far as their sections reach
        of = [i % 3 if i < 3 * mrope_section[i % 3] else 0 for i in range(half)]
    else:
        of = [axis for axis, count in enumerate(mrope_section) for _ in range(count)]
    which = t.constant(of, np.int32)

    def angles(cache: Tensor) -> Tensor:
        streams = t.op("Gather", cache, position_ids)  # [3, B, S, half]
        parts = (t.squeeze(t.take(streams, 0, i, i + 1), [0]) for i in range(3))
        return t.map("select(d == 0, a, select(d == 1, b, c))", *parts, which)

    cos, sin = angles(cos_cache), angles(sin_cache)
    if x.rank == 4:
        return rotated(t, x, t.unsqueeze(cos, [1]), t.unsqueeze(sin, [1]), bool(interleaved))
    heads = t.reshape(x, (*x.shape[:2], num_heads, x.shape[2] // num_heads))
    return t.reshape(rotated(t, heads, t.unsqueeze(cos, [2]), t.unsqueeze(sin, [2]), bool(interleaved)), x.shape)


# -- keys and values in buffers
class _Cache:
    """Where new tokens go: after `before` tokens, as many for all sequences (a number) or each its own (int32[B, 1, 1, 1]).

    Attributes:
        total: the most tokens that a sequence has then; attention reads that many.
        room: the length of the present.
    """

    def __init__(self, t: Builder, before: int | Tensor, new: int, total: int, room: int) -> None:
        self.t, self.before, self.new, self.total, self.room = t, before, new, total, room

    def queries(self) -> Tensor:
        """The position of each query, to broadcast with scores: int32[S, 1] or [B, 1, S, 1]."""
        if not isinstance(self.before, Tensor):
            return places(self.t, self.new, -2, self.before)
        return self.t.map("a + b", self.before, places(self.t, self.new, -2))

    def appended(self, past: Tensor | None, x: Tensor) -> Tensor:
        """New keys or values in their place in the past; zero where nothing is yet."""
        t = self.t
        if not isinstance(self.before, Tensor):
            end = self.before + self.new
            parts = [x] if past is None else [t.take(past, 2, 0, self.before), x]
            if past is not None and past.shape[2] >= end:
                parts.append(t.take(past, 2, end, past.shape[2]))
            both = t.concat(parts, 2)
            return t.pad(both, (0,) * 4, (0, 0, self.room - both.shape[2], 0))
        return _written(t, t.pad(past, (0,) * 4, (0, 0, self.room - past.shape[2], 0)), x, self.before)


def _written(t: Builder, buffer: Tensor, x: Tensor, first: Tensor) -> Tensor:
    """A copy of buffer[B, N, room, H], or itself, with x[B, N, S, H] from row first[B, 1, 1, 1] of each sequence on.

    What lies outside the buffer is left out.
    """

    def launch(c: LaunchContext) -> list:
        (old, new, places), (out,) = c.inputs, c.outputs
        size = x.dtype.itemsize
        copied = [] if old.address == out.address else copy_all(old.address, out.address, buffer.size * size)
        return [*copied, *append_rows(new.address, places.address, out.address, x.shape, new.strides[:3], buffer.shape[2], size)]

    def reference(values: list[np.ndarray]) -> list[np.ndarray]:
        result, new = values[0].copy(), values[1]
        for b, begin in enumerate(values[2].reshape(-1).tolist()):
            for s in range(new.shape[2]):
                if 0 <= begin + s < result.shape[2]:
                    result[b, :, begin + s] = new[b, :, s]
        return [result]

    orders, kind = [(0, 1, 2, 3), (0, 2, 1, 3), (0, 1, 2, 3)], [(buffer.dtype, buffer.shape)]
    return t.kernel("append", (buffer, x, t.cast(first, np.int32)), kind, launch, orders=orders, reference=reference, changes=0)[0]


@contrib("GroupQueryAttention")
def group_query_attention(
    t: Builder, query, key=None, value=None, past_key=None, past_value=None, seqlens_k=None, total_sequence_length=None,
    cos_cache=None, sin_cache=None, position_ids=None, attention_bias=None, head_sink=None, k_scale=None, v_scale=None,
    q_norm_weight=None, k_norm_weight=None, query_seqlens=None, *,
    num_heads, kv_num_heads, scale=None, softcap=0.0, do_rotary=0, rotary_interleaved=0, local_window_size=-1, smooth_softmax=-1,
    causal=1, qk_output=0, qk_norm_epsilon=1e-6, q_norm_epsilon=None, k_norm_epsilon=None, sliding_window_cache=0,
    kv_cache_bit_width=0, k_quant_type="NONE", v_quant_type="NONE",
):  # fmt: skip
    """Attention in which several query heads share a key head, with a growing or a preallocated cache of keys and values."""
    if sliding_window_cache:
        raise OperatorError("sliding_window_cache=1 is not supported")
    q, k, v = _projections(t, query, key, value, num_heads, kv_num_heads)
    if q_norm_weight is not None:
        q = _normalised(t, q, q_norm_weight, q_norm_epsilon or qk_norm_epsilon)
        k = _normalised(t, k, k_norm_weight, k_norm_epsilon or qk_norm_epsilon)
    total = t.ints(total_sequence_length)[0]
    cache = _cache_of(t, q.shape[0], q.shape[2], total, past_key, seqlens_k, query_seqlens)
    if do_rotary:
        turn = _turn(t, cache, cos_cache, sin_cache, position_ids, bool(rotary_interleaved))
        q, k = turn(q), turn(k)
    how_k = cache_type(t, k_quant_type, k_scale, kv_cache_bit_width, past_key, kv_num_heads, k.shape[-1])
    how_v = cache_type(t, v_quant_type, v_scale, kv_cache_bit_width, past_value, kv_num_heads, v.shape[-1])
    keys, values = cache.appended(past_key, how_k.stored(t, k)), cache.appended(past_value, how_v.stored(t, v))
    allowed = _window(t, cache, local_window_size) if causal else _filled(t, seqlens_k, cache.total)
    sink = None if head_sink is None else t.reshape(widened(t, head_sink), (1, num_heads, 1, 1))
    if sink is None and smooth_softmax == 1:
        sink = t.constant(np.zeros((1, 1, 1, 1), np.float32))
    bias = [] if attention_bias is None else [t.take(attention_bias, 3, 0, cache.total)]
    how = Scores(default_scale(scale, q.shape[-1]), bias, allowed, softcap, sink)
    read = [each.loaded(t, t.take(x, 2, 0, cache.total)) for each, x in ((how_k, keys), (how_v, values))]
    y, scores, probabilities = attend(t, q, *read, how)
    looked = probabilities
    if qk_output == 1:
        looked = scores if allowed is None else t.map("select(b, a, 0)", scores, allowed)
    return t.cast(heads_last(t, y), query.dtype), keys, values, t.cast(looked, query.dtype)


def _projections(
    t: Builder, query: Tensor, key: Tensor | None, value: Tensor | None, heads: int, few: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as [B, N, S, H]; without a key they lie side by side in the query."""
    if key is None:
        size = query.shape[2] // (heads + 2 * few)
        query, key, value = side_by_side(t, query, (heads * size, few * size, few * size))
    q = heads_first(t, query, heads)
    k, v = (x if x.rank == 4 else heads_first(t, x, few) for x in (key, value))
    return q, k, v


def _normalised(t: Builder, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Each head by its root mean square."""
    wide = widened(t, x)
    mean = fold_mean(t, t.map("a * a", wide), [3])
    text = f"a / sqrt(b + {float(epsilon)!r}) * c"
    return t.cast(t.map(text, wide, mean, widened(t, weight)), x.dtype)


def _cache_of(t: Builder, batch: int, new: int, total: int, past: Tensor | None, lengths: Tensor, counts: Tensor | None) -> _Cache:
    """A first prompt begins all sequences; one sequence has as many tokens before as `total` says; else lengths decide."""
    held = 0 if past is None else past.shape[2]
    room = total if total > held else held
    if counts is not None:
        new_tokens = t.reshape(counts, (batch, 1, 1, 1))
        before = t.map("a + 1 - b", t.reshape(lengths, (batch, 1, 1, 1)), new_tokens)
        return _Cache(t, before, new, total, room)
    if new == total or past is None or held == 0:
        return _Cache(t, 0, new, total, room)
    if batch == 1:
        return _Cache(t, total - new, new, total, room)
    return _Cache(t, t.map(f"a + {1 - new}", t.reshape(lengths, (batch, 1, 1, 1))), new, total, room)


def _turn(
    t: Builder, cache: _Cache, cos: Tensor, sin: Tensor, positions: Tensor | None, interleaved: bool
) -> Callable[[Tensor], Tensor]:
    """Turns queries or keys by their positions."""
    if positions is not None and cache.new == cache.total:  # of a first prompt only the first position counts
        steps = t.constant(np.arange(cache.new, dtype=np.int64).reshape(1, -1))
        positions = t.map("a + b", steps, t.take(t.take(positions, 0, 0, 1), 1, 0, 1))
    if positions is None and not isinstance(cache.before, Tensor):
        angles = [t.take(x, 0, cache.before, cache.before + cache.new) for x in (cos, sin)]
    else:
        if positions is None:
            # padding may lie beyond the table
            positions = t.map(f"at_most(at_least(a, 0), {cos.shape[0] - 1})", t.squeeze(cache.queries(), [1, 3]))
        angles = [t.unsqueeze(t.op("Gather", x, positions), [1]) for x in (cos, sin)]
    return lambda x: rotated(t, x, angles[0], angles[1], interleaved)


def _window(t: Builder, cache: _Cache, width: int) -> Tensor | None:
    """Keys up to the query's own position; with a `width` the last so many of them."""
    if cache.new == 1 and not isinstance(cache.before, Tensor) and cache.before == cache.total - 1 and width < 0:
        return None
    keys, queries = places(t, cache.total), cache.queries()
    text = "a <= b" if width < 0 else f"(a <= b) & (a > b - {width})"
    return t.map(text, keys, queries, dtype="bool")


def _filled(t: Builder, lengths: Tensor, total: int) -> Tensor:
    """Keys that a sequence has."""
    return t.map("a <= b", places(t, total), t.reshape(lengths, (lengths.size, 1, 1, 1)), dtype="bool")


# -- blocks of keys
@contrib("SparseAttention")
def sparse_attention(
    t: Builder, query, key, value, past_key, past_value, block_row_indices, block_col_indices, total_sequence_length,
    key_total_sequence_lengths, cos_cache=None, sin_cache=None, *,
    num_heads, kv_num_heads, sparse_block_size, scale=None, do_rotary=0, rotary_interleaved=0,
):  # fmt: skip
    """Grouped queries that look at some blocks of keys only, each head after its layout; the cache is a buffer."""
    q, k, v = _projections(t, query, key, value, num_heads, kv_num_heads)
    total = t.ints(total_sequence_length)[0]
    lengths = t.map("a - 1", key_total_sequence_lengths)
    cache = _cache_of(t, q.shape[0], q.shape[2], total, past_key, lengths, None)
    if do_rotary:
        turn = _turn(t, cache, cos_cache, sin_cache, None, bool(rotary_interleaved))
        q, k = turn(q), turn(k)
    keys, values = cache.appended(past_key, k), cache.appended(past_value, v)
    layouts = _layouts(t, block_row_indices, block_col_indices)
    allowed = _looked_at(t, cache, layouts, sparse_block_size, num_heads)
    before = t.map("a <= b", places(t, total), cache.queries(), dtype="bool")
    how = Scores(default_scale(scale, q.shape[-1]), allowed=t.map("a & b", allowed, before))
    y, *_ = attend(t, q, *(t.take(x, 2, 0, total) for x in (keys, values)), how)
    return t.cast(heads_last(t, y), query.dtype), keys, values


def _layouts(t: Builder, rows: Tensor, columns: Tensor) -> Tensor:
    """The blocks that each row of blocks looks at, given as compressed sparse rows: float32[layouts, rows, columns], not 0."""
    count, blocks = rows.shape[0], rows.shape[1] - 1
    index = places(t, columns.shape[1])
    first, last = (t.unsqueeze(t.take(rows, 1, i, i + blocks), [2]) for i in (0, 1))
    of_row = t.map("(a >= b) & (a < c)", index, first, last, dtype="bool")
    of_column = t.map("a == b", t.unsqueeze(columns, [2]), places(t, blocks), dtype="bool")
    made = product(t, t.cast(of_row, np.float32), t.cast(of_column, np.float32))
    return t.reshape(made, (count, blocks, blocks))


def _looked_at(t: Builder, cache: _Cache, layouts: Tensor, size: int, heads: int) -> Tensor:
    """bool[B or 1, heads, S, T]: heads take the layouts in turn."""
    count, blocks, _ = layouts.shape
    if heads % count or cache.total > blocks * size:
        raise OperatorError(f"{count} layouts of {blocks} x {size} keys do not fit {heads} heads and {cache.total} keys")
    wide = t.expand(t.unsqueeze(layouts, [3]), (count, blocks, blocks, size))
    wide = t.take(t.reshape(wide, (count, blocks, blocks * size)), 2, 0, cache.total)
    queries = cache.queries()
    batch = 1 if queries.rank == 2 else queries.shape[0]
    row = t.map(f"at_most(at_least(a / {size}, 0), {blocks - 1})", t.reshape(queries, (batch * cache.new,)))
    chosen = t.reshape(t.op("Gather", wide, row, axis=1), (count, batch, cache.new, cache.total))
    chosen = t.map("a > 0.0", t.transpose(chosen, (1, 0, 2, 3)), dtype="bool")
    every = t.expand(t.unsqueeze(chosen, [1]), (batch, heads // count, count, cache.new, cache.total))
    return t.reshape(every, (batch, heads, cache.new, cache.total))
