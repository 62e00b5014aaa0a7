"""Transformer encoders: BERT and what was distilled from it, ViT, CLIP's and T5's, each as its usual exporter writes it."""

import math

import numpy as np

from .builder import GraphBuilder, Value
from .samplers import padding, photo, tokens, zeros

SEQUENCES = ("batch", "sequence")  # the shape of tokens and what goes with them
FLOAT_MIN = float(np.finfo(np.float32).min)
QUERY_GAIN = 4.0  # gives attention scores a standard deviation of 2: peaked, as in trained models


def additive_padding_mask(g: GraphBuilder, mask: Value) -> Value:
    """int64[N, T] of ones and zeros to float32[N, 1, 1, T] of zeros and the most negative number."""
    kept = g.op("Cast", g.unsqueeze(mask, 1, 2), to=1)
    return g.op("Mul", g.op("Sub", g.scalar(1), kept), g.scalar(FLOAT_MIN))


def token_input(g: GraphBuilder, vocabulary: int) -> Value:
    """Declares `input_ids`."""
    return g.input("input_ids", np.int64, SEQUENCES, tokens(vocabulary))


def padded_inputs(g: GraphBuilder, vocabulary: int) -> tuple[Value, Value]:
    """Declares `input_ids` and `attention_mask`."""
    return token_input(g, vocabulary), g.input("attention_mask", np.int64, SEQUENCES, padding)


def _projections(g: GraphBuilder, x: Value, heads: int, gain: float = QUERY_GAIN, bias: bool = True) -> tuple[Value, Value, Value]:
    """Query, key (transposed for the product) and value of `x`, each from a dense layer of its own, in heads."""
    query = g.heads(g.linear(x, x.channels, gain, bias=bias), heads)
    key = g.heads(g.linear(x, x.channels, bias=bias), heads, 0, 2, 3, 1)
    return query, key, g.heads(g.linear(x, x.channels, bias=bias), heads)


# ---- BERT: Devlin et al. 2019 ----


def _first_places(g: GraphBuilder, ids: Value) -> Value:
    """The positions of a sequence's tokens, int64[1, S], out of a table of 512."""
    return g.op("Slice", g.const([range(512)]), g.const([0]), g.unsqueeze(g.dim(ids, 1), 0), g.const([1]))


def _added(g: GraphBuilder, y: Value, x: Value, epsilon: float = 1e-12) -> Value:
    """Normalisation after the addition."""
    return g.layer_norm(g.add(y, x), epsilon=epsilon)


def feed_forward(g: GraphBuilder, x: Value, inner: int, epsilon: float = 1e-12) -> Value:
    """Two dense layers with GELU between them, added and normalised."""
    return _added(g, g.linear(g.act(g.linear(x, inner), "gelu"), x.channels), x, epsilon)


def _bert_layer(g: GraphBuilder, x: Value, mask: Value, heads: int, inner: int) -> Value:
    with g.scope("attention"):
        query, key, value = _projections(g, x, heads)
        mixed = g.attention(query, key, value, heads=heads, mask=mask, scale=query.channels**-0.5)
        x = _added(g, g.linear(mixed, x.channels), x)
    with g.scope("mlp"):
        return feed_forward(g, x, inner)


def bert_base(
    g: GraphBuilder, layers: int = 12, width: int = 768, heads: int = 12, inner: int = 3072, vocabulary: int = 30522
) -> None:
    """BERT-base with its pooler.

    Inputs: int64[batch, sequence] `input_ids`, `attention_mask`, `token_type_ids`; sequences of up to 512 tokens.
    Outputs: float32[batch, sequence, width] `last_hidden_state`, float32[batch, width] `pooler_output`.
    """
    ids, kept = padded_inputs(g, vocabulary)
    segments = g.input("token_type_ids", np.int64, SEQUENCES, zeros)
    with g.scope("embeddings"):
        places = _first_places(g, ids)
        x = g.add(g.embedding(ids, vocabulary, width), g.embedding(segments, 2, width))
        x = g.layer_norm(g.add(x, g.embedding(places, 512, width)), epsilon=1e-12)
    mask = additive_padding_mask(g, kept)
    for layer in range(layers):
        with g.scope(f"encoder.layer.{layer}"):
            x = _bert_layer(g, x, mask, heads, inner)
    with g.scope("pooler"):
        first = g.op("Gather", x, g.const(0), axis=1)
        pooled = g.op("Tanh", g.gemm(first, width))
    g.output("last_hidden_state", x, (*SEQUENCES, width))
    g.output("pooler_output", pooled, ("batch", width))


def minilm_l6(
    g: GraphBuilder, layers: int = 6, width: int = 384, heads: int = 12, inner: int = 1536, vocabulary: int = 30522
) -> None:
    """MiniLM-L6 (Wang et al. 2020), as in all-MiniLM-L6-v2: a small BERT, with its inputs and outputs."""
    bert_base(g, layers, width, heads, inner, vocabulary)


# ---- DistilBERT: Sanh et al. 2019 ----


def _distilbert_layer(g: GraphBuilder, x: Value, hidden: Value, heads: int, inner: int) -> Value:
    """The query is scaled, and scores of padding are replaced, where BERT scales scores and adds to them."""
    with g.scope("attention"):
        query, key, value = _projections(g, x, heads)
        query = g.op("Div", query, g.scalar(math.sqrt(query.channels)))
        scores = g.op("MatMul", query, key)
        padded = g.op("Cast", g.op("Expand", hidden, g.op("Shape", scores)), to=9)
        scores = g.op("Where", padded, g.scalar(FLOAT_MIN), scores)
        shares = g.op("Softmax", scores, axis=-1)
        mixed = g.op("MatMul", shares, value, power=0.3 * value.power, channels=value.channels)
        mixed = g.reshape(g.transpose(mixed, 0, 2, 1, 3), (0, 0, x.channels), x.channels)
        x = _added(g, g.linear(mixed, x.channels), x)
    with g.scope("ffn"):
        return feed_forward(g, x, inner)


def distilbert(
    g: GraphBuilder, layers: int = 6, width: int = 768, heads: int = 12, inner: int = 3072, vocabulary: int = 30522
) -> None:
    """DistilBERT: half of BERT's layers, neither segments nor pooler.

    Inputs: int64[batch, sequence] `input_ids`, `attention_mask`; sequences of up to 512 tokens.
    Output: float32[batch, sequence, width] `last_hidden_state`.
    """
    ids, kept = padded_inputs(g, vocabulary)
    with g.scope("embeddings"):
        places = _first_places(g, ids)
        x = g.add(g.embedding(ids, vocabulary, width), g.embedding(places, 512, width))
        x = g.layer_norm(x, epsilon=1e-12)
    hidden = g.unsqueeze(g.op("Equal", kept, g.const(0)), 1, 2)
    for layer in range(layers):
        with g.scope(f"transformer.layer.{layer}"):
            x = _distilbert_layer(g, x, hidden, heads, inner)
    g.output("last_hidden_state", x, (*SEQUENCES, width))


# ---- ViT: Dosovitskiy et al. 2021 ----


def _vit_block(g: GraphBuilder, x: Value, heads: int, inner: int, branch: float) -> Value:
    """Normalisation first, one projection for query, key and value (as in timm), GELU as one node."""
    width, size = x.channels, x.channels // heads
    with g.scope("attn"):
        joint = g.linear(g.layer_norm(x, epsilon=1e-6), 3 * width, 2.0)
        joint = g.transpose(g.reshape(joint, (0, 0, 3, heads, size), size), 2, 0, 3, 1, 4)
        parts = g.multi_op("Split", joint, g.const([1, 1, 1]), outputs=3, axis=0)
        query, key, value = (g.op("Squeeze", part, g.const([0])) for part in parts)
        key = g.transpose(key, 0, 1, 3, 2)
        mixed = g.attention(query, key, value, heads=heads, scale=size**-0.5)
        x = g.add(x, g.linear(mixed, width, branch))
    with g.scope("mlp"):
        y = g.act(g.linear(g.layer_norm(x, epsilon=1e-6), inner), "gelu")
        return g.add(x, g.linear(y, width, branch))


def vit_b16(
    g: GraphBuilder,
    image: int = 224,
    classes: int = 1000,
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    inner: int = 3072,
) -> None:
    """ViT-B/16; `image` is a multiple of 16.

    Input: float32[batch, 3, image, image]. Output: float32[batch, classes] logits.
    """
    pixels = g.input("pixels", np.float32, ("batch", 3, image, image), photo, channels=3)
    with g.scope("patch_embed"):
        x = _patch_sequence(g, pixels, width, 16, bias=True)
        x = g.add(x, g.weight("pos_embed", (1, (image // 16) ** 2 + 1, width), 0.5))
    for layer in range(layers):
        with g.scope(f"blocks.{layer}"):
            x = _vit_block(g, x, heads, inner, branch=0.25)
    x = g.op("Gather", g.layer_norm(x, epsilon=1e-6), g.const(0), axis=1)
    g.output("logits", g.gemm(x, classes), ("batch", classes))


def _patch_sequence(g: GraphBuilder, pixels: Value, width: int, patch: int, bias: bool) -> Value:
    """A learned first token and one for each patch, float32[N, 1 + patches, width]."""
    patches = g.conv(pixels, width, patch, patch, pad=0, bias=bias)
    patches = g.transpose(g.reshape(patches, (0, width, -1), width), 0, 2, 1)
    shape = g.op("Concat", g.op("Shape", pixels, start=0, end=1), g.const([-1, -1]), axis=0)
    first = g.op("Expand", g.weight("cls_token", (1, 1, width), 1.0), _positive_shape(g, shape))
    return g.op("Concat", first, patches, channels=width, power=1.0, axis=1)


def _positive_shape(g: GraphBuilder, shape: Value) -> Value:
    """torch's expand keeps a dimension that is given as -1; ONNX's wants 1 there, so exporters replace it."""
    return g.op("Where", g.op("Equal", shape, g.const([-1])), g.const([1]), shape)


# ---- CLIP's picture encoder: Radford et al. 2021 ----


def _quick_gelu(g: GraphBuilder, x: Value) -> Value:
    """x sigmoid(1.702 x), near GELU."""
    share = g.op("Sigmoid", g.op("Mul", x, g.scalar(1.702)))
    return g.op("Mul", x, share, power=0.42 * x.power)


def _clip_layer(g: GraphBuilder, x: Value, heads: int, inner: int) -> Value:
    with g.scope("self_attn"):
        y = g.layer_norm(x)
        query = g.op("Mul", g.linear(y, x.channels, QUERY_GAIN), g.scalar((x.channels // heads) ** -0.5))
        query, value = g.heads(query, heads), g.heads(g.linear(y, x.channels), heads)
        key = g.heads(g.linear(y, x.channels), heads, 0, 2, 3, 1)
        x = g.add(x, g.linear(g.attention(query, key, value, heads=heads), x.channels, 0.25))
    with g.scope("mlp"):
        y = _quick_gelu(g, g.linear(g.layer_norm(x), inner))
        return g.add(x, g.linear(y, x.channels, 0.25))


def clip_vision_b32(
    g: GraphBuilder,
    image: int = 224,
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    inner: int = 3072,
    projected: int = 512,
) -> None:
    """CLIP ViT-B/32's picture encoder with its projection; `image` is a multiple of 32.

    Input: float32[batch, 3, image, image]. Outputs: float32[batch, projected] `image_embeds`,
    float32[batch, 1 + patches, width] `last_hidden_state`.
    """
    pixels = g.input("pixels", np.float32, ("batch", 3, image, image), photo, channels=3)
    count = (image // 32) ** 2 + 1
    with g.scope("embeddings"):
        x = _patch_sequence(g, pixels, width, 32, bias=False)
        x = g.layer_norm(g.add(x, g.embedding(g.const([range(count)]), count, width, 0.5)))
    for layer in range(layers):
        with g.scope(f"encoder.layers.{layer}"):
            x = _clip_layer(g, x, heads, inner)
    pooled = g.layer_norm(g.op("Gather", x, g.const(0), axis=1))
    g.output("image_embeds", g.linear(pooled, projected, bias=False), ("batch", projected))
    g.output("last_hidden_state", x, ("batch", count, width))


# ---- T5 encoder: Raffel et al. 2020 ----

BUCKETS = 32  # of relative positions, half of them for each direction
MAX_DISTANCE = 128


def relative_position_bias(g: GraphBuilder, ids: Value, heads: int) -> Value:
    """Learned bias of each pair of positions by the logarithmic bucket of their distance, float32[1, heads, S, S].

    The logarithm of distance 0 is -infinity and its conversion to an integer means nothing: `Where` drops it, as in
    the models that transformers exports.
    """
    half, exact = BUCKETS // 2, BUCKETS // 4
    places = g.op("Range", g.const(0), g.dim(ids, 1), g.const(1))
    offset = g.op("Sub", g.unsqueeze(places, 0), g.unsqueeze(places, 1))
    after = g.op("Mul", g.op("Cast", g.op("Greater", offset, g.const(0)), to=7), g.const(half))
    distance = g.op("Abs", offset)
    ratio = g.op("Log", g.op("Div", g.op("Cast", distance, to=1), g.scalar(exact)))
    steps = g.op("Div", ratio, g.scalar(math.log(MAX_DISTANCE / exact)))
    far = g.op("Cast", g.op("Mul", steps, g.scalar(half - exact)), to=7)
    far = g.op("Min", g.op("Add", far, g.const(exact)), g.const(half - 1))
    bucket = g.op("Add", after, g.op("Where", g.op("Less", distance, g.const(exact)), distance, far))
    return g.unsqueeze(g.transpose(g.embedding(bucket, BUCKETS, heads), 2, 0, 1), 0)


def _t5_block(g: GraphBuilder, x: Value, bias: Value, heads: int, inner: int) -> Value:
    """No biases, no scale of the scores (the weights hold it), ReLU."""
    size = x.channels // heads
    with g.scope("SelfAttention"):
        y = g.rms_norm(x)
        query, key, value = _projections(g, y, heads, QUERY_GAIN / size, bias=False)
        mixed = g.attention(query, key, value, heads=heads, mask=bias)
        x = g.add(x, g.linear(mixed, x.channels, 0.25, bias=False))
    with g.scope("DenseReluDense"):
        y = g.act(g.linear(g.rms_norm(x), inner, bias=False), "relu")
        return g.add(x, g.linear(y, x.channels, 0.25, bias=False))


def t5_encoder(
    g: GraphBuilder, layers: int = 6, width: int = 512, heads: int = 8, inner: int = 2048, vocabulary: int = 32128
) -> None:
    """T5-small's encoder.

    Inputs: int64[batch, sequence] `input_ids`, `attention_mask`.
    Output: float32[batch, sequence, width] `last_hidden_state`.
    """
    ids, kept = padded_inputs(g, vocabulary)
    with g.scope("embed_tokens"):
        x = g.embedding(ids, vocabulary, width)
    with g.scope("relative_attention_bias"):
        bias = g.op("Add", relative_position_bias(g, ids, heads), additive_padding_mask(g, kept))
    for layer in range(layers):
        with g.scope(f"block.{layer}"):
            x = _t5_block(g, x, bias, heads, inner)
    with g.scope("final_layer_norm"):
        g.output("last_hidden_state", g.rms_norm(x), (*SEQUENCES, width))
