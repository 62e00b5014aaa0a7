"""How com.microsoft's attention and what surrounds it is drawn."""

from __future__ import annotations

import numpy as np

from .catalogue import MICROSOFT, Case, Node, Sums, rule
from .draw import Draw, Values
from .quantised import bits, scale, zero_point

INT32, INT64 = np.int32, np.int64


def _plain(n: Node, *shape: int) -> np.ndarray:
    return n.values("T", shape, Values.PLAIN)


def _mask(d: Draw, batch: int, queries: int, keys: int) -> np.ndarray | None:
    """A mask in one of its forms that hides no key of every query."""
    how = d.choice(["none", "lengths", "ends", "keys", "pairs"])
    if how == "lengths":
        return 1 + d.indices((batch,), keys, INT32, negative=False)
    if how == "ends":
        starts = d.indices((batch,), keys, INT32, negative=False)
        return np.concatenate([starts + 1 + np.minimum(keys - starts - 1, 1), starts]).astype(INT32)
    if how == "keys":
        kept = d.values(INT32, (batch, keys), Values.POSITIVE) % 2
        kept[:, 0] = 1
        return kept
    if how == "pairs":
        kept = d.values(INT32, (batch, queries, keys), Values.POSITIVE) % 2
        kept[:, :, 0] = 1
        return kept
    return None


@rule("Attention", "QAttention", domain=MICROSOFT)
def attention(n: Node, d: Draw) -> Case:
    batch, length, heads, width, inner = d.integer(1, 3), d.integer(1, 7), d.integer(1, 3), d.choice([4, 8]), 6
    quantised = n.op == "QAttention"
    n.set("num_heads", heads)
    n.set("unidirectional", None, 0, 1)
    n.set("scale", None, 0.4)
    n.set("mask_filter_value", None, -50.0)
    hidden = heads * width
    past = d.integer(0, 4) if d.chance(35) else None
    keys = length + (past or 0)
    sizes = [hidden] * 3
    if past is None and not quantised and d.chance(30):
        sizes[2] = heads * 2
        n.set("qkv_hidden_sizes", sizes)
    mask = _mask(d, batch, length, keys)
    before = None if past is None else n.values("T3" if quantised else "T", (2, batch, heads, past, width), Values.PLAIN)
    outputs = (True, past is not None or d.chance(30)) if sizes[2] == hidden else (True,)
    if quantised:
        x, weights = bits(d, n.type("T1"), (batch, length, inner)), bits(d, n.type("T2"), (inner, sum(sizes)))
        bias = n.values("T3", (sum(sizes),), Values.PLAIN)
        by_column = (sum(sizes),) if d.chance(40) else ()
        zeros = zero_point(d, x.dtype), zero_point(d, weights.dtype, by_column)
        given = [x, weights, bias, scale(d), scale(d, by_column), mask, *(zeros if d.chance(70) else (None, None)), before]
        return n.case(*given, outputs=outputs, tolerance=Sums.SUMS, constant=(1, 2, 4))
    x, weights = _plain(n, batch, length, inner), _plain(n, inner, sum(sizes))
    some = past is None and d.chance(30)
    extra = _plain(n, d.choice([1, batch]), d.choice([1, heads]), length, keys) if some else None
    bias = _plain(n, sum(sizes)) if d.chance(80) else None
    return n.case(x, weights, bias, mask, before, extra, outputs=outputs, tolerance=Sums.SUMS, maybe=(1, 2))


@rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head(n: Node, d: Draw) -> Case:
    batch, queries, keys, heads, width = d.integer(1, 2), d.integer(1, 6), d.integer(1, 6), d.integer(1, 3), d.choice([4, 8])
    n.set("num_heads", heads)
    n.set("scale", None, 0.4)
    n.set("unidirectional", None, None, 0, 1)
    n.set("mask_filter_value", None, -50.0)
    size = heads * width
    past = d.integer(1, 4) if d.chance(30) else 0
    how = d.choice(["apart", "apart", "apart", "all packed", "keys packed", "made"])
    if how == "all packed" or n.attributes.get("unidirectional"):
        keys = queries
    q = _plain(n, batch, queries, size)
    k, v = _plain(n, batch, keys, size), _plain(n, batch, keys, d.choice([size, heads * 2]) if not past else size)
    if how == "all packed":
        q, k, v = _plain(n, batch, queries, heads, 3, width), None, None
    elif how == "keys packed":
        k, v = _plain(n, batch, keys, heads, 2, width), None
    elif how == "made":
        k, v = _plain(n, batch, heads, keys, width), _plain(n, batch, heads, keys, width)
    if how != "apart":
        past = 0
    wide = 3 * size if v is None or v.ndim == 4 else 2 * size + v.shape[-1]
    bias = _plain(n, wide) if d.chance(40) and how in ("apart", "all packed") else None
    total = keys + past
    mask = d.choice([None, d.values(INT32, (batch, total), Values.POSITIVE) % 2])
    if mask is not None and d.chance(20):
        mask[0] = 0
    extra = _plain(n, d.choice([1, batch]), d.choice([1, heads]), queries, total) if d.chance(30) else None
    before = [_plain(n, batch, heads, past, width) for _ in "kv"] if past else [None, None]
    outputs = 3 if past or (how == "apart" and d.chance(30)) else 1
    return n.case(q, k, v, bias, mask, extra, *before, outputs=outputs, tolerance=Sums.SUMS)


@rule("DecoderMaskedMultiHeadAttention", domain=MICROSOFT)
def decoder_masked(n: Node, d: Draw) -> Case:
    batch, heads, width, past = d.integer(1, 3), d.integer(1, 3), d.choice([4, 8]), d.integer(1, 5)
    n.set("num_heads", heads)
    n.set("scale", None, 0.4)
    n.set("mask_filter_value", None, -50.0)
    size, crossed = heads * width, d.chance(25)
    q = _plain(n, batch, 1, size)
    keys = past if crossed else past + 1
    mask = None
    if d.chance(40):
        mask = 1 - (d.values(INT32, (batch, keys), Values.POSITIVE) == 3).astype(INT32)
        mask[:, 0] = 1
    extra = _plain(n, 1, heads, 1, keys) if d.chance(30) and not crossed else None
    if crossed:  # keys and values of an encoder
        k, v = (_plain(n, batch, heads, past, width) for _ in "kv")
        return n.case(q, k, v, mask, tolerance=Sums.SUMS)
    n.set("past_present_share_buffer", 1)
    k, v = (_plain(n, batch, 1, size) for _ in "kv")
    before = [_plain(n, batch, heads, past + d.integer(1, 3), width) for _ in "k"] * 2
    bias = _plain(n, 3 * size) if d.chance(30) else None
    given = [q, k, v, mask, extra, *before, np.array([past], INT32), None, None, bias]
    return n.case(*given, outputs=3, tolerance=Sums.SUMS, constant=(7,))


@rule("RotaryEmbedding", domain=MICROSOFT)
def rotary(n: Node, d: Draw) -> Case:
    batch, heads, length, half = d.integer(1, 2), d.integer(1, 3), d.integer(1, 5), d.choice([4, 8])
    n.set("interleaved", None, 0, 1)
    n.set("scale", None, 1.0)
    n.set("is_packed_batching", None, 0)
    turned = half
    if d.chance(30):
        turned = half // 2
        n.set("rotary_embedding_dim", 2 * turned)
        n.set("num_heads", heads)
    shape = (batch, heads, length, 2 * half) if d.chance(30) else (batch, length, heads * 2 * half)
    x = _plain(n, *shape)
    positions = d.indices((batch, length), 9, negative=False) if d.chance(60) else np.array([d.integer(0, 4)], INT64)
    return n.case(x, positions, *(_plain(n, 9, turned) for _ in "cs"), tolerance=Sums.SUMS)


@rule("GroupQueryAttention", domain=MICROSOFT)
def grouped(n: Node, d: Draw) -> Case:
    batch, groups, few, width = d.integer(1, 3), d.choice([1, 2, 3]), d.integer(1, 2), 16
    heads = groups * few
    n.type("T", "float float16")
    n.bind("T_CACHE", n.type("T"))
    n.bind("T_KV_SCALE", np.dtype(np.float32))
    n.set("num_heads", heads)
    n.set("kv_num_heads", few)
    n.set("scale", None, 0.3)
    n.set("softcap", None, None, 5.0)
    n.set("local_window_size", None, None, 2)
    n.set("smooth_softmax", None, None, 0, 1)
    n.set("causal", None, None, 1)
    turned = n.set("do_rotary", None, 0, 1)
    if turned:
        n.set("rotary_interleaved", None, 0, 1)
    first = d.chance(50)
    new, past = (d.integer(1, 6), 0) if first else (1, d.integer(1, 6))
    total = new + past
    room = past if d.chance(50) else total + d.integer(0, 3)
    if d.chance(30):
        q, k, v = _plain(n, batch, new, (heads + 2 * few) * width), None, None
    else:
        q, k, v = (_plain(n, batch, new, count * width) for count in (heads, few, few))
    before = [None, None] if first and d.chance(50) else [_plain(n, batch, few, room, width) for _ in "kv"]
    scales = [None, None]
    if before[0] is not None and d.chance(40):
        before, scales = _few_bits(n, d, before)
    for cache in filter(lambda x: x is not None, before):
        cache[:, :, past:] = 0  # what lies behind the tokens is nobody's
    last = np.full(batch, total - 1, INT32)
    tables = [_plain(n, 16, width // 2) for _ in "cs"] if turned else [None, None]
    extra = _plain(n, d.choice([1, batch]), d.choice([1, heads]), new, total) if d.chance(25) else None
    sink = _plain(n, heads) if d.chance(20) and "smooth_softmax" not in n.attributes else None
    positions = None
    if turned and d.chance(25):
        positions = np.broadcast_to(np.arange(past, total), (batch, new)).astype(INT64)
    outputs = 3
    if sink is None and d.chance(20):
        n.set("qk_output", 1, 2)
        outputs = 4
    given = [q, k, v, *before, last, np.array(total, INT32), *tables, positions, extra, sink, *scales]
    return n.case(*given, outputs=outputs, tolerance=Sums.SUMS, constant=(6,) if d.chance(30) else ())


def _few_bits(n: Node, d: Draw, caches: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Caches of 8 or 4 bits with their scales."""
    _, few, _, width = caches[0].shape
    wide = n.set("kv_cache_bit_width", 8, 4) == 8
    kind = n.set("k_quant_type", "PER_TENSOR", "PER_CHANNEL")
    n.set("v_quant_type", kind)
    shape = (1,) if kind == "PER_TENSOR" else (few * width,)
    made = [d.indices((*x.shape[:3], width if wide else width // 2), 256, np.uint8, negative=False) for x in caches]
    return [x.view(np.int8) if wide else x for x in made], [scale(d, shape) * 3 for _ in "kv"]


@rule("EmbedLayerNormalization", domain=MICROSOFT)
def embedding(n: Node, d: Draw) -> Case:
    batch, length, width = d.integer(1, 3), d.integer(1, 6), d.choice([4, 9, 16])
    n.set("epsilon", 1e-2, 1e-5)
    n.set("mask_index_type", None, 0)
    kinds = d.chance(60)
    ids, segments = d.indices((batch, length), 9, INT32, negative=False), d.indices((batch, length), 2, INT32, negative=False)
    tables = _plain(n, 9, width), _plain(n, 8, width), _plain(n, 2, width) if kinds else None
    mask = d.values(INT32, (batch, length), Values.POSITIVE) % 2 if d.chance(50) else None
    positions = d.indices((d.choice([1, batch]), length), 8, INT32, negative=False) if d.chance(30) else None
    given = [ids, segments if kinds else None, *tables, _plain(n, width), _plain(n, width), mask, positions]
    return n.case(*given, outputs=(True, True, d.chance(50)), tolerance=Sums.SUMS, constant=(2, 3, 4, 5, 6))


@rule("QEmbedLayerNormalization", domain=MICROSOFT)
def quantised_embedding(n: Node, d: Draw) -> Case:
    batch, length, width = d.integer(1, 3), d.integer(1, 6), d.choice([4, 9, 16])
    n.set("epsilon", 1e-2, 1e-5)
    kind, kinds = np.dtype(d.choice([np.uint8, np.int8])), d.chance(60)
    ids, segments = d.indices((batch, length), 9, INT32, negative=False), d.indices((batch, length), 2, INT32, negative=False)
    tables = [bits(d, kind, shape) for shape in ((9, width), (8, width), (2, width), (width,), (width,))]
    mask = d.values(INT32, (batch, length), Values.POSITIVE) % 2 if d.chance(50) else None
    scales, zeros = [scale(d) for _ in tables], [zero_point(d, kind) for _ in tables]
    if not kinds:
        tables[2] = scales[2] = zeros[2] = None
    given = [ids, segments if kinds else None, *tables, mask, *scales, *zeros]
    return n.case(*given, outputs=2, tolerance=Sums.SUMS, constant=tuple(range(2, 7)))
