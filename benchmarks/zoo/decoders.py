"""Language-model decoders with past keys and values: GPT-2 and a small Llama.

Inputs: int64[batch, sequence] `input_ids`, int64[batch, past_sequence + sequence] `attention_mask`, and for each layer
i float32[batch, kv_heads, past_sequence, size] `past_key_values.i.key` and `.value`; the Llama also wants int64[batch,
sequence] `position_ids`. Outputs: float32[batch, sequence, vocabulary] `logits` and the longer `present.i.key` and
`.value`. The output projection is the transposed table of token embeddings.
"""

import math

import numpy as np

from .builder import Dim, GraphBuilder, Value
from .encoders import FLOAT_MIN, QUERY_GAIN, SEQUENCES, token_input
from .samplers import normal, ones, positions

TOTAL = "past_sequence + sequence"


def token_inputs(g: GraphBuilder, vocabulary: int) -> tuple[Value, Value]:
    """Declares `input_ids` and `attention_mask`."""
    return token_input(g, vocabulary), g.input("attention_mask", np.int64, ("batch", TOTAL), ones)


def cache_inputs(
    g: GraphBuilder, layers: int, heads: int, size: int, prefix: str = "", length: str = "past_sequence"
) -> list[tuple[Value, Value]]:
    """Declares the past key and value of every layer; `prefix` is a part of their names, `length` the name of a dimension."""
    shape = ("batch", heads, length, size)

    def declare(layer: int, part: str) -> Value:
        return g.input(f"past_key_values.{layer}.{prefix}{part}", np.float32, shape, normal, channels=size)

    return [(declare(layer, "key"), declare(layer, "value")) for layer in range(layers)]


def extend_cache(
    g: GraphBuilder, layer: int, past: tuple[Value, Value], key: Value, value: Value, heads: int
) -> tuple[Value, Value]:
    """Appends new keys and values to the past ones along time, and makes the results outputs."""
    extended = []
    for part, old, new in zip(("key", "value"), past, (key, value), strict=True):
        whole = g.op("Concat", old, new, axis=2)
        g.output(f"present.{layer}.{part}", whole, ("batch", heads, TOTAL, whole.channels))
        extended.append(whole)
    return extended[0], extended[1]


def causal_mask(g: GraphBuilder, ids: Value, kept: Value, past_key: Value) -> tuple[Value, Value]:
    """Additive mask, float32[N, 1, S, T], and the positions of the new tokens, int64[S].

    A token sees the past, itself and the new tokens before it, except for padding.
    """
    with g.scope("causal_mask"):
        past = g.dim(past_key, 2)
        total = g.op("Add", past, g.dim(ids, 1))
        places = g.op("Range", past, total, g.const(1))
        everywhere = g.op("Range", g.const(0), total, g.const(1))
        seen = g.op("LessOrEqual", g.unsqueeze(everywhere, 0), g.unsqueeze(places, 1))
        seen = g.op("And", seen, g.unsqueeze(g.op("Cast", kept, to=9), 1, 2))
        return g.op("Where", seen, g.scalar(0), g.scalar(FLOAT_MIN)), places


def tied_logits(g: GraphBuilder, x: Value, table: Value, vocabulary: int, rows: tuple[Dim, ...] = SEQUENCES) -> None:
    """Logits by the transposed embedding table."""
    with g.scope("lm_head"):
        logits = g.op("MatMul", x, g.transpose(table, 1, 0))
        g.output("logits", logits, (*rows, vocabulary))


# ---- GPT-2: Radford et al. 2019 ----


def _conv1d(g: GraphBuilder, x: Value, features: int, gain: float = 1.0) -> Value:
    """GPT-2's dense layer: flattens to a matrix, Gemm, and restores the leading dimensions from the input's shape."""
    weight = g.weight("weight", (x.channels, features), math.sqrt(gain / (x.channels * x.power)))
    flat = g.reshape(x, (-1, x.channels))
    y = g.op("Gemm", flat, weight, g.weight("bias", (features,), 0.05), channels=features, power=gain)
    leading = g.slice(g.op("Shape", x), 0, 2, 0)
    return g.op("Reshape", y, g.op("Concat", leading, g.const([features]), axis=0))


def _gelu_tanh(g: GraphBuilder, x: Value) -> Value:
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016), written out."""
    cube = g.op("Mul", g.op("Pow", x, g.scalar(3)), g.scalar(0.044715))
    inner = g.op("Mul", g.op("Add", x, cube), g.scalar(math.sqrt(2 / math.pi)))
    gate = g.op("Add", g.op("Tanh", inner), g.scalar(1))
    return g.op("Mul", g.op("Mul", x, g.scalar(0.5)), gate, power=0.425 * x.power)


def _gpt2_block(g: GraphBuilder, x: Value, layer: int, past: tuple[Value, Value], mask: Value, heads: int, branch: float) -> Value:
    width, size = x.channels, x.channels // heads
    with g.scope("attn"):
        query, key, value = g.split(_conv1d(g, g.layer_norm(x), 3 * width, 2.0), 3, axis=2)
        key, value = extend_cache(g, layer, past, g.heads(key, heads), g.heads(value, heads), heads)
        mixed = g.attention(g.heads(query, heads), g.transpose(key, 0, 1, 3, 2), value, heads=heads, mask=mask, scale=size**-0.5)
        x = g.add(_conv1d(g, mixed, width, branch), x)
    with g.scope("mlp"):
        y = _gelu_tanh(g, _conv1d(g, g.layer_norm(x), 4 * width))
        return g.add(x, _conv1d(g, y, width, branch))


def gpt2(
    g: GraphBuilder,
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    vocabulary: int = 50257,
    context: int = 1024,
) -> None:
    """GPT-2 (small) with past keys and values; past and new tokens are at most `context` together."""
    ids, kept = token_inputs(g, vocabulary)
    cache = cache_inputs(g, layers, heads, width // heads)
    mask, places = causal_mask(g, ids, kept, cache[0][0])
    with g.scope("transformer"):
        table = g.weight("wte.weight", (vocabulary, width), 1.0)
        x = g.op("Gather", table, ids, channels=width, axis=0)
        with g.scope("wpe"):
            x = g.add(x, g.embedding(g.unsqueeze(places, 0), context, width, 0.5))
        for layer in range(layers):
            with g.scope(f"h.{layer}"):
                x = _gpt2_block(g, x, layer, cache[layer], mask, heads, branch=0.25)
        with g.scope("ln_f"):
            x = g.layer_norm(x, width**-0.5)
    tied_logits(g, x, table, vocabulary)


# ---- Llama: Touvron et al. 2023; grouped queries: Ainslie et al. 2023 ----


def _rotary_table(g: GraphBuilder, places: Value, size: int) -> tuple[Value, Value]:
    """Cosines and sines of rotary embedding (Su et al. 2021), float32[N, 1, S, size], from positions int64[N, S]."""
    with g.scope("rotary_emb"):
        frequencies = g.fixed("inv_freq", 10000.0 ** (-np.arange(0, size, 2) / size)[None, :, None])
        steps = g.op("Cast", g.unsqueeze(places, 1), to=1)
        angles = g.transpose(g.op("MatMul", frequencies, steps), 0, 2, 1)
        angles = g.op("Concat", angles, angles, axis=-1)
        return g.unsqueeze(g.op("Cos", angles), 1), g.unsqueeze(g.op("Sin", angles), 1)


def _rotate(g: GraphBuilder, x: Value, cosine: Value, sine: Value) -> Value:
    """x cos + rotate_half(x) sin."""
    half = x.channels // 2
    low, high = g.slice(x, 0, half, 3), g.slice(x, half, 2 * half, 3)
    turned = g.op("Concat", g.op("Neg", high), low, channels=x.channels, axis=-1)
    return g.op("Add", g.op("Mul", x, cosine), g.op("Mul", turned, sine))


def _repeat_heads(g: GraphBuilder, x: Value, kv_heads: int, heads: int) -> Value:
    """Repeats each head of float32[N, kv_heads, T, D] for its group of queries."""
    if heads == kv_heads:
        return x
    wide = g.op("Expand", g.unsqueeze(x, 2), g.const([1, 1, heads // kv_heads, 1, 1]))
    shape = g.op("Concat", g.op("Shape", x, start=0, end=1), g.const([heads]), g.op("Shape", x, start=2, end=4), axis=0)
    return g.op("Reshape", wide, shape)


def _llama_attention(
    g: GraphBuilder,
    x: Value,
    layer: int,
    past: tuple[Value, Value],
    mask: Value,
    rotary: tuple[Value, Value],
    heads: int,
    kv_heads: int,
) -> Value:
    size = x.channels // heads
    query = _rotate(g, g.heads(g.linear(x, x.channels, QUERY_GAIN, bias=False), heads), *rotary)
    key = _rotate(g, g.heads(g.linear(x, kv_heads * size, bias=False), kv_heads), *rotary)
    value = g.heads(g.linear(x, kv_heads * size, bias=False), kv_heads)
    key, value = extend_cache(g, layer, past, key, value, kv_heads)
    key, value = _repeat_heads(g, key, kv_heads, heads), _repeat_heads(g, value, kv_heads, heads)
    key = g.transpose(key, 0, 1, 3, 2)
    return g.attention(query, key, value, heads=heads, mask=mask, scale=size**-0.5)


def _swiglu(g: GraphBuilder, x: Value, inner: int) -> Value:
    """Gated unit (Shazeer 2020): silu(x W) * (x V)."""
    gate = g.act(g.linear(x, inner, bias=False), "silu")
    return g.op("Mul", gate, g.linear(x, inner, bias=False))


def llama(
    g: GraphBuilder,
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    kv_heads: int = 4,
    inner: int = 2048,
    vocabulary: int = 32000,
) -> None:
    """A Llama of 100 million parameters: RMS normalisation, rotary positions, grouped queries, SwiGLU."""
    ids, kept = token_inputs(g, vocabulary)
    places = g.input("position_ids", np.int64, SEQUENCES, positions)
    cache = cache_inputs(g, layers, kv_heads, width // heads)
    mask, _ = causal_mask(g, ids, kept, cache[0][0])
    with g.scope("model"):
        table = g.weight("embed_tokens.weight", (vocabulary, width), 1.0)
        x = g.op("Gather", table, ids, channels=width, axis=0)
        rotary = _rotary_table(g, places, width // heads)
        for layer in range(layers):
            with g.scope(f"layers.{layer}"):
                with g.scope("self_attn"):
                    mixed = _llama_attention(g, g.rms_norm(x), layer, cache[layer], mask, rotary, heads, kv_heads)
                    x = g.add(x, g.linear(mixed, width, 0.25, bias=False))
                with g.scope("mlp"):
                    x = g.add(x, g.linear(_swiglu(g, g.rms_norm(x), inner), width, 0.25, bias=False))
        with g.scope("norm"):
            x = g.rms_norm(x, width**-0.5)
    tied_logits(g, x, table, vocabulary)
