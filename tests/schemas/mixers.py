"""How com.microsoft's layers around linear attention are drawn."""

from __future__ import annotations

import numpy as np

from .catalogue import MICROSOFT, Case, Node, Sums, rule
from .draw import Draw, Values


@rule("CausalConvWithState", domain=MICROSOFT)
def causal_convolution(n: Node, d: Draw) -> Case:
    batch, channels, length, window = d.integer(1, 2), d.integer(1, 5), d.choice([1, 1, 2, 7]), d.integer(1, 4)
    n.set("ndim", None, 1)
    n.set("activation", None, "none", "silu", "swish")
    before = (window - 1) * (n.set("dilation", None, 1, 2) or 1)
    last = n.set("channels_last", None, 0, 1)

    def laid(places: int) -> np.ndarray:
        return n.values("T", (batch, places, channels) if last else (batch, channels, places), Values.PLAIN)

    weight, bias = n.values("T", (channels, 1, window), Values.PLAIN), n.values("T", (channels,), Values.PLAIN)
    past = laid(before) if d.chance(60) and before else None
    return n.case(laid(length), weight, bias if d.chance(50) else None, past, outputs=2, tolerance=Sums.SUMS, maybe=(1, 2))


@rule("LinearAttentionGate", domain=MICROSOFT)
def gate(n: Node, d: Draw) -> Case:
    shape, both = d.shape(3, 3, least=1), d.chance(60)
    vectors = [d.values(np.float32, shape[-1:], Values.PLAIN) for _ in "bs"]
    b = n.values("T", shape, Values.PLAIN) if both else None
    return n.case(n.values("T", shape, Values.PLAIN), *vectors, b, outputs=1 + both, tolerance=Sums.UNIT)


@rule("GatedRMSNorm", domain=MICROSOFT)
def gated_norm(n: Node, d: Draw) -> Case:
    width, groups, rows = d.choice([4, 9]), d.integer(1, 3), d.shape(1, 2, least=1)
    n.set("epsilon", None, 1e-2)
    n.set("activation", None, "silu", "swish", "sigmoid")
    x, z = (n.values("T", (*rows, groups * width), Values.PLAIN) for _ in "xz")
    return n.case(x, n.values("T", (width,), Values.PLAIN), z, tolerance=Sums.SUMS, maybe=(1,))


@rule("BranchwiseRMSNorm", domain=MICROSOFT)
def branch_norm(n: Node, d: Draw) -> Case:
    width, branches, rows = d.choice([4, 9]), d.integer(1, 3), d.shape(1, 2, least=1)
    n.set("epsilon", None, 1e-2)
    flat = d.chance(50)
    n.set("num_branches", branches if flat else None)
    x = n.values("T", (*rows, branches * width) if flat else (*rows, branches, width), Values.PLAIN)
    shape = d.choice([(width,), (branches, width), (branches * width,)])
    return n.case(x, n.values("M", shape, Values.PLAIN) if d.chance(70) else None, tolerance=Sums.SUMS, maybe=(1,))


@rule("ScaledSiLU", domain=MICROSOFT)
def scaled_silu(n: Node, d: Draw) -> Case:
    n.set("alpha", None, 0.5, -2.0)
    x = n.values("T", d.shape(1, 3, least=1), Values.PLAIN)
    return n.case(x, n.values("M", (), Values.PLAIN) if d.chance(40) else None, tolerance=Sums.UNIT, maybe=(1,))


@rule("GatedAdd", domain=MICROSOFT)
def gated_sum(n: Node, d: Draw) -> Case:
    shape = d.shape(1, 3, least=1)
    x, y = (n.values("T", shape, Values.PLAIN) for _ in "xy")
    return n.case(x, y, n.values("T", (*shape[:-1], 1), Values.PLAIN), tolerance=Sums.UNIT)


@rule("MRotaryEmbedding", domain=MICROSOFT)
def rotary_of_three(n: Node, d: Draw) -> Case:
    batch, heads, length, half = d.integer(1, 2), d.integer(1, 3), d.integer(1, 5), d.choice([4, 6])
    first = d.integer(0, half - 1)
    second = d.integer(0, half - first)
    n.set("mrope_section", [first, second, half - first - second])
    n.set("mrope_layout", None, 0, 1)
    n.set("interleaved", None, 0, 1)
    n.set("scale", None, 1.0)
    n.set("is_packed_batching", None, 0)
    size = 2 * half + d.choice([0, 0, 4])
    n.set("rotary_embedding_dim", 2 * half if size > 2 * half else None)
    n.set("num_heads", heads)
    x = n.values("T", (batch, heads, length, size) if d.chance(30) else (batch, length, heads * size), Values.PLAIN)
    positions = d.indices((3, batch, length), 9, negative=False)
    return n.case(x, positions, *(n.values("T", (9, half), Values.PLAIN) for _ in "cs"), tolerance=Sums.SUMS)


@rule("LinearAttention", domain=MICROSOFT)
def linear_attention(n: Node, d: Draw) -> Case:
    batch, tokens, few, size, width = (
        d.integer(1, 2),
        d.choice([1, 1, 2, 5]),
        d.integer(1, 2),
        d.choice([3, 8]),
        d.choice([4, 9, 17]),
    )
    queries, values, keys = d.choice([(few, few, few), (2 * few, few, few), (few, 2 * few, few), (few, 2 * few, 2 * few)])
    n.set("q_num_heads", queries)
    n.set("kv_num_heads", values)
    n.set("scale", None, 0.0, 0.3)
    n.set("chunk_size", None, 16)
    n.set("state_window", None, 0)
    rule = n.set("update_rule", None, "linear", "gated", "delta", "gated_delta") or "gated_delta"
    q, k, v = (n.values("T", (batch, tokens, count), Values.PLAIN) / 3 for count in (queries * size, keys * size, values * width))
    n.bind("S", n.type("T"))
    past = n.values("S", (batch, values, size, width), Values.PLAIN) if d.chance(60) else None
    per = d.choice([values, values * size])
    decay = -n.values("T", (batch, tokens, per), Values.POSITIVE) if "gated" in rule else None
    beta = n.values("T", (batch, tokens, d.choice([1, values])), Values.POSITIVE) / 2 if "delta" in rule else None
    return n.case(q, k, v, past, decay, beta, outputs=2, tolerance=Sums.SUMS)
