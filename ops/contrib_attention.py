"""com.microsoft: Attention, MultiHeadAttention and DecoderMaskedMultiHeadAttention, with the parts that all attention is made of.

Shapes: B batch, N heads, S queries, P past and T = P + new keys, H size of a head. Queries, keys and values are
[B, N, S or T, H] here, whatever the operator's inputs look like; that is a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from .builder import Builder, OperatorError
from .cast import widened
from .matmul import matmul, product
from .norm import softmax_over
from .primitives import Tensor
from .registry import contrib

_LOWEST = float(np.finfo(np.float32).min)


# -- parts
def heads_first(t: Builder, x: Tensor, heads: int) -> Tensor:
    """[B, S, heads * H] as [B, heads, S, H]."""
    batch, sequence, width = x.shape
    if width % heads:
        raise OperatorError(f"{width} channels do not divide into {heads} heads")
    return t.transpose(t.reshape(x, (batch, sequence, heads, width // heads)), (0, 2, 1, 3))


def side_by_side(t: Builder, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The parts of the last dimension of x[B, S, sum(sizes)]."""
    ends = [int(end) for end in np.cumsum(sizes)]
    return [t.take(x, 2, end - size, end) for size, end in zip(sizes, ends)]


def heads_last(t: Builder, x: Tensor) -> Tensor:
    """[B, N, S, H] as [B, S, N * H]."""
    batch, heads, sequence, size = x.shape
    return t.reshape(t.transpose(x, (0, 2, 1, 3)), (batch, sequence, heads * size))


def repeated(t: Builder, x: Tensor, heads: int) -> Tensor:
    """Each of fewer heads for as many neighbouring queries' heads as share it (`matmul.product` copies nothing)."""
    batch, few, sequence, size = x.shape
    if few == heads:
        return x
    if heads % few:
        raise OperatorError(f"{heads} query heads do not divide among {few} key heads")
    spread = t.expand(t.unsqueeze(x, [2]), (batch, few, heads // few, sequence, size))
    return t.reshape(spread, (batch, heads, sequence, size))


@dataclass
class Scores:
    """How scores are made of q k^T: ``softcap(q k^T * scale) + sum(added)``, and the lowest number where not `allowed`.

    Attributes:
        added: tensors that broadcast with [B, N, S, T].
        allowed: a bool tensor that does, or None.
        sink: a tensor of logits that share in each row's probability; none: None.
    """

    scale: float
    added: Sequence[Tensor] = ()
    allowed: Tensor | None = None
    softcap: float = 0.0
    sink: Tensor | None = None


def attend(t: Builder, q: Tensor, k: Tensor, v: Tensor, how: Scores) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(scores) v in float32 as [B, N, S, H], the scores and the probabilities."""
    heads = q.shape[1]
    q, k, v = (widened(t, x) for x in (q, k, v))
    k, v = repeated(t, k, heads), repeated(t, v, heads)
    if q.shape[-1] != k.shape[-1]:
        raise OperatorError(f"queries {list(q.shape)} and keys {list(k.shape)} have heads of different sizes")
    scores = t.map(f"a * {how.scale!r}", product(t, q, t.transpose(k, (0, 1, 3, 2))))
    if how.softcap:
        scores = t.map(f"tanh(a / {how.softcap!r}) * {how.softcap!r}", scores)
    for x in how.added:
        scores = t.map("a + b", scores, widened(t, x))
    if how.allowed is not None:
        scores = t.map(f"select(b, a, {_LOWEST!r})", scores, how.allowed)
    probabilities = _probabilities(t, scores, how.sink)
    return product(t, probabilities, v), scores, probabilities


def _probabilities(t: Builder, scores: Tensor, sink: Tensor | None) -> Tensor:
    if sink is None:
        return softmax_over(t, scores, 3)
    top = t.map("maximum(a, b)", t.reduce("maximum", scores, [3]), sink)
    grown = t.map("exp(a - b)", scores, top)
    total = t.map("a + exp(b - c)", t.reduce("add", grown, [3]), sink, top)
    return t.map("a / b", grown, total)


def default_scale(scale: float | None, size: int) -> float:
    """The given scale of the scores, or 1 / sqrt(H)."""
    return float(scale) if scale else 1.0 / sqrt(max(size, 1))


def places(t: Builder, count: int, axis: int = -1, start: int = 0) -> Tensor:
    """start, start + 1, ... as int32 along an axis counted from the end."""
    return t.cast(t.reshape(t.numbers(count, start), (count, *[1] * (-1 - axis))), np.int32)


def causal(t: Builder, queries: int, keys: int) -> Tensor | None:
    """Which keys a query may look at if the last query is at the last key; None: all."""
    if queries == 1:
        return None
    return t.map("a <= b", places(t, keys), places(t, queries, -2, keys - queries), dtype="bool")


def padding(t: Builder, mask: Tensor | None, batch: int, queries: int, keys: int, filler: float) -> list[Tensor]:
    """What a mask adds to the scores, in any of the forms that it may have: `filler` where it hides a key."""
    if mask is None:
        return []
    if mask.rank == 1:
        return [_by_lengths(t, mask, batch, keys, filler)]
    if mask.rank == 4:  # of the longest sequence
        mask = t.take(t.take(mask, 2, keys - queries, keys), 3, 0, keys)
    kept = {2: (mask.shape[0], 1, 1, mask.shape[-1]), 3: (mask.shape[0], 1, *mask.shape[1:])}.get(mask.rank, mask.shape)
    if kept[-1] not in (1, keys) or kept[-2] not in (1, queries) or kept[0] not in (1, batch):
        raise OperatorError(f"a mask {list(mask.shape)} does not fit {batch} x {queries} queries and {keys} keys")
    return [_filled(t, t.map("a > 0", t.reshape(mask, kept), dtype="bool"), filler)]


def _filled(t: Builder, kept: Tensor, filler: float) -> Tensor:
    """0 where a key is kept, else `filler`."""
    return t.map("select(a, b, c)", kept, t.constant(0, np.float32), t.constant(filler, np.float32), dtype=np.float32)


def _by_lengths(t: Builder, mask: Tensor, batch: int, keys: int, filler: float) -> Tensor:
    """A mask of lengths: [ends], [ends, starts], or [lengths, and two lists of offsets that packed input needs]."""
    if mask.size not in (batch, 2 * batch, 3 * batch + 2):
        raise OperatorError(f"a mask of {mask.size} lengths does not fit a batch of {batch}")
    ends = t.reshape(t.take(mask, 0, 0, batch), (batch, 1, 1, 1))
    if mask.size != 2 * batch:
        return _filled(t, t.map("a < b", places(t, keys), ends, dtype="bool"), filler)
    starts = t.reshape(t.take(mask, 0, batch, 2 * batch), (batch, 1, 1, 1))
    return _filled(t, t.map("(a < b) & (a >= c)", places(t, keys), ends, starts, dtype="bool"), filler)


@dataclass(frozen=True)
class Cached:
    """Keys or values with those before them: what attention reads, and what the operator returns."""

    read: Tensor
    present: Tensor


def appended(t: Builder, past: Tensor | None, new: Tensor, length: int | None = None) -> Cached:
    """New [..., S, H] after the past; with `length`, at that place of a buffer that is longer."""
    if past is None:
        return Cached(new, new)
    axis = new.rank - 2
    if length is None:
        both = t.concat([past, new], axis)
        return Cached(both, both)
    end = length + new.shape[axis]
    if end > past.shape[axis]:
        raise OperatorError(f"{end} keys do not fit a buffer of {past.shape[axis]}")
    read = t.concat([t.take(past, axis, 0, length), new], axis)
    return Cached(read, t.concat([read, t.take(past, axis, end, past.shape[axis])], axis))


# -- operators
@contrib("Attention")
def attention(
    t: Builder, x, weights, bias=None, mask_index=None, past=None, attention_bias=None, past_sequence_length=None, *,
    num_heads, unidirectional=0, qkv_hidden_sizes=None, mask_filter_value=-10000.0, scale=None, past_present_share_buffer=0,
    do_rotary=0, rotary_embedding_dim=0,
):  # fmt: skip
    """Self-attention with the projection to queries, keys and values, whose weights lie side by side."""
    if do_rotary:
        raise OperatorError("do_rotary=1: RotaryEmbedding as a node of its own is expected")
    projected = matmul(t, x, weights)
    projected = projected if bias is None else t.map("a + b", projected, bias)
    sizes = list(qkv_hidden_sizes or [projected.shape[-1] // 3] * 3)
    length = t.ints(past_sequence_length)[0] if past_present_share_buffer else None
    options = Options(num_heads, bool(unidirectional), mask_filter_value, scale, length)
    return self_attention(t, projected, sizes, mask_index, past, attention_bias, options)


@dataclass(frozen=True)
class Options:
    """Attributes that attention operators share; `length` is that of the past in a shared buffer."""

    heads: int
    causal: bool = False
    filler: float = -10000.0
    scale: float | None = None
    length: int | None = None


def self_attention(
    t: Builder, projected: Tensor, sizes: Sequence[int], mask: Tensor | None, past: Tensor | None, bias: Tensor | None,
    options: Options,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Attention of projected[B, S, sum(sizes)] with a past [2, B, N, P, H]: the result and, if asked for, the present."""
    if sum(sizes) != projected.shape[-1]:
        raise OperatorError(f"sizes {list(sizes)} of queries, keys and values do not add up to {projected.shape[-1]}")
    q, k, v = (heads_first(t, part, options.heads) for part in side_by_side(t, projected, sizes))
    both = None
    if past is not None or len(t.output_names) > 1:
        both = appended(t, past, t.concat([t.unsqueeze(x, [0]) for x in (k, v)], 0), options.length)
    if past is not None:
        k, v = (t.squeeze(t.take(both.read, 0, i, i + 1), [0]) for i in (0, 1))
    y, _ = _masked(t, q, k, v, mask, bias, options)
    y = t.cast(heads_last(t, y), projected.dtype)
    return (y,) if len(t.output_names) < 2 else (y, both.present)


def _masked(
    t: Builder, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, options: Options
) -> tuple[Tensor, Tensor]:
    batch, _, queries, size = q.shape
    added = padding(t, mask, batch, queries, k.shape[2], options.filler) + ([] if bias is None else [bias])
    allowed = causal(t, queries, k.shape[2]) if options.causal else None
    y, scores, _ = attend(t, q, k, v, Scores(default_scale(options.scale, size), added, allowed))
    return y, scores


@contrib("MultiHeadAttention")
def multi_head_attention(
    t: Builder, query, key=None, value=None, bias=None, key_padding_mask=None, attention_bias=None, past_key=None,
    past_value=None, past_sequence_length=None, cache_indirection=None, *,
    num_heads, mask_filter_value=-10000.0, scale=None, unidirectional=0,
):  # fmt: skip
    """Attention of queries, keys and values that are given, maybe packed in one; also keys and values with the past, and scores."""
    q, k, v = _separate(t, query, key, value, num_heads, bias)
    length = None if past_sequence_length is None else t.ints(past_sequence_length)[0]
    keys, values = appended(t, past_key, k, length), appended(t, past_value, v, length)
    read = [keys.read, values.read]
    if cache_indirection is not None:
        read = [_of_beams(t, x, cache_indirection) for x in read]
    options = Options(num_heads, bool(unidirectional), mask_filter_value, scale)
    y, scores = _masked(t, q, *read, key_padding_mask, attention_bias, options)
    return t.cast(heads_last(t, y), query.dtype), keys.present, values.present, t.cast(scores, query.dtype)


def _separate(
    t: Builder, query: Tensor, key: Tensor | None, value: Tensor | None, heads: int, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, N, S, H] with their biases added, from any of the forms that they come in."""
    packed = [] if query.rank != 5 else [_of_packed(t, query, i) for i in range(3)]
    if not packed and key is None:
        packed = side_by_side(t, query, [query.shape[2] // 3] * 3)
    if not packed and key.rank == 5:
        packed = [query, _of_packed(t, key, 0), _of_packed(t, key, 1)]
    parts = packed or [query, key, value]
    at = 0
    for i, x in enumerate(parts):
        if x.rank == 4 and i:  # keys and values that an encoder has made take no bias
            continue
        if bias is not None:
            parts[i] = t.map("a + b", x, t.take(bias, 0, at, at + x.shape[2]))
        at += x.shape[2]
        parts[i] = heads_first(t, parts[i], heads)
    return parts[0], parts[1], parts[2]


def _of_packed(t: Builder, x: Tensor, i: int) -> Tensor:
    """x[B, S, N, i, H] as [B, S, N * H]."""
    batch, sequence, heads, _, size = x.shape
    return t.reshape(t.take(x, 3, i, i + 1), (batch, sequence, heads * size))


def _of_beams(t: Builder, x: Tensor, source: Tensor) -> Tensor:
    """Keys or values [batch * beams, N, T, H] of which token k was made by beam source[batch, beam, k]; the last by its own."""
    batch, beams, _ = source.shape
    _, heads, keys, size = x.shape
    every = t.reshape(x, (batch, beams, heads, keys, size))
    own = t.constant(np.arange(beams, dtype=np.int32).reshape(beams, 1))
    chosen = t.concat([t.take(source, 2, 0, keys - 1), t.expand(own, (batch, beams, 1))], 2)
    indices = t.expand(t.reshape(chosen, (batch, beams, 1, keys, 1)), (batch, beams, heads, keys, size))
    return t.reshape(t.op("GatherElements", every, indices, axis=1), x.shape)


@contrib("DecoderMaskedMultiHeadAttention")
def decoder_masked_multi_head_attention(
    t: Builder, query, key=None, value=None, mask_index=None, attention_bias=None, past_key=None, past_value=None,
    past_sequence_length=None, beam_width=None, cache_indirection=None, bias=None, *,
    num_heads, mask_filter_value=-10000.0, scale=None, past_present_share_buffer=0, output_qk=0,
):  # fmt: skip
    """MultiHeadAttention of one query a sequence; with `cache_indirection` over beams that share their beginnings."""
    if query.shape[1] != 1:
        raise OperatorError(f"it takes one query a sequence, not {query.shape[1]}")
    return multi_head_attention(
        t, query, key, value, bias, mask_index, attention_bias, past_key, past_value,
        past_sequence_length if past_present_share_buffer else None, cache_indirection,
        num_heads=num_heads, mask_filter_value=mask_filter_value, scale=scale,
    )  # fmt: skip
