"""Whisper (Radford et al. 2022), the tiny one: an encoder of spectrograms, and a decoder step with caches.

Heads are a part of the batch, as in what torch's exporter writes of transformers' layers.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from .builder import GraphBuilder, Value
from .decoders import cache_inputs, extend_cache, tied_logits
from .encoders import QUERY_GAIN
from .samplers import normal, tokens

BRANCH = 0.25  # mean square of what a layer adds


def _convolution(g: GraphBuilder, x: Value, channels: int, stride: int) -> Value:
    """Three taps over time and GELU."""
    weight = g.weight("weight", (channels, x.channels, 3), math.sqrt(1 / (3 * x.channels * x.power)))
    bias = g.weight("bias", (channels,), 0.05)
    line = {"kernel_shape": [3], "strides": [stride], "pads": [1, 1], "dilations": [1], "group": 1}
    return g.act(g.op("Conv", x, weight, bias, channels=channels, power=1.0, **line), "gelu")


def _sinusoids(length: int, width: int) -> np.ndarray:
    """Positions of the encoder, float32[length, width]."""
    steps = np.exp(-math.log(10_000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(length)[:, None] * steps
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def _split(g: GraphBuilder, x: Value, heads: int, length: Value | int) -> Value:
    """[N, S, heads * D] to [N, heads, S, D]."""
    size = x.channels // heads
    return g.transpose(g.op("Reshape", x, g.sizes(g.dim(x, 0), length, heads, size), channels=size), 0, 2, 1, 3)


def _attend(g: GraphBuilder, query: Value, key: Value, value: Value, heads: int) -> Value:
    """Attention of [N, heads, S, D] to [N, heads, T, D], the first two dimensions joined for the products; [N, S, heads * D]."""
    size, batch = value.channels, g.dim(query, 0)
    length = g.dim(query, 2)
    flat = g.sizes(g.op("Mul", batch, g.const(heads)), -1, size)
    query, key, value = (g.op("Reshape", x, flat) for x in (query, key, value))
    scores = g.op("MatMul", query, g.transpose(key, 0, 2, 1))
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), value, channels=size, power=0.3 * value.power)
    mixed = g.transpose(g.op("Reshape", mixed, g.sizes(batch, heads, length, size)), 0, 2, 1, 3)
    return g.op("Reshape", mixed, g.sizes(batch, length, heads * size), channels=heads * size)


def _scaled_query(g: GraphBuilder, x: Value, heads: int, length: Value | int) -> Value:
    query = g.linear(x, x.channels, QUERY_GAIN)
    return _split(g, g.op("Mul", query, g.scalar((x.channels // heads) ** -0.5)), heads, length)


def _self_attention(
    g: GraphBuilder, x: Value, heads: int, extend: Callable[[Value, Value], tuple[Value, Value]] | None = None
) -> Value:
    """Keys have no bias; `extend` adds past keys and values to the new ones."""
    with g.scope("self_attn"):
        y = g.layer_norm(x)
        query = _scaled_query(g, y, heads, g.dim(y, 1))
        key, value = _split(g, g.linear(y, x.channels, bias=False), heads, -1), _split(g, g.linear(y, x.channels), heads, -1)
        if extend is not None:
            key, value = extend(key, value)
        return g.add(x, g.linear(_attend(g, query, key, value, heads), x.channels, BRANCH))


def _feed_forward(g: GraphBuilder, x: Value) -> Value:
    with g.scope("mlp"):
        y = g.act(g.linear(g.layer_norm(x), 4 * x.channels), "gelu")
        return g.add(x, g.linear(y, x.channels, BRANCH))


def whisper_tiny_encoder(
    g: GraphBuilder, layers: int = 4, width: int = 384, heads: int = 6, bands: int = 80, frames: int = 3000
) -> None:
    """The encoder; `frames` is even.

    Input: float32[batch, bands, frames] `input_features`. Output: float32[batch, frames / 2, width] `last_hidden_state`.
    """
    x = g.input("input_features", np.float32, ("batch", bands, frames), normal, channels=bands)
    with g.scope("conv1"):
        x = _convolution(g, x, width, 1)
    with g.scope("conv2"):
        x = _convolution(g, x, width, 2)
    x = g.transpose(x, 0, 2, 1)
    places = g.parameter("embed_positions.weight", _sinusoids(frames // 2, width))
    x = g.op("Add", x, places, power=x.power + 0.5)
    for layer in range(layers):
        with g.scope(f"layers.{layer}"):
            x = _feed_forward(g, _self_attention(g, x, heads))
    with g.scope("layer_norm"):
        g.output("last_hidden_state", g.layer_norm(x), ("batch", frames // 2, width))


# ---- the decoder


def _cross_attention(g: GraphBuilder, x: Value, heads: int, key: Value, value: Value) -> Value:
    """Attention to what the encoder has heard, whose keys and values are given; their projections are no part of the model."""
    with g.scope("encoder_attn"):
        y = g.layer_norm(x)
        query = _scaled_query(g, y, heads, g.dim(y, 1))
        return g.add(x, g.linear(_attend(g, query, key, value, heads), x.channels, BRANCH))


def whisper_tiny_decoder(
    g: GraphBuilder,
    layers: int = 4,
    width: int = 384,
    heads: int = 6,
    vocabulary: int = 51_865,
    context: int = 448,
) -> None:
    """A step of the decoder: one token for each sequence, without a mask, as its exports with a past are.

    Inputs: int64[batch, 1] `input_ids`, for each layer i float32[batch, heads, past_sequence, size] `past_key_values.i.key`
    and `.value`, and float32[batch, heads, encoder_sequence, size] `past_key_values.i.encoder.key` and `.value`. Outputs:
    float32[batch, 1, vocabulary] `logits` and the longer `present.i.key` and `.value`.
    """
    ids = g.input("input_ids", np.int64, ("batch", 1), tokens(vocabulary))
    size = width // heads
    past = cache_inputs(g, layers, heads, size)
    heard = cache_inputs(g, layers, heads, size, "encoder.", "encoder_sequence")
    with g.scope("decoder"):
        table = g.weight("embed_tokens.weight", (vocabulary, width), 1.0)
        x = g.op("Gather", table, ids, channels=width, axis=0)
        with g.scope("embed_positions"):
            first = g.dim(past[0][0], 2)
            ends = (g.unsqueeze(place, 0) for place in (first, g.op("Add", first, g.dim(ids, 1))))
            places = g.op("Slice", g.weight("weight", (context, width), 0.5), *ends, g.const([0]))
            x = g.op("Add", x, places, power=1.25)
        for layer in range(layers):
            with g.scope(f"layers.{layer}"):
                x = _self_attention(g, x, heads, partial(extend_cache, g, layer, past[layer], heads=heads))
                x = _feed_forward(g, _cross_attention(g, x, heads, *heard[layer]))
        with g.scope("layer_norm"):
            x = g.layer_norm(x, width**-0.5)
    tied_logits(g, x, table, vocabulary, ("batch", 1))
