"""DeBERTa-v3 (He et al. 2021): attention to contents and to relative positions, in products of their own.

The layers are written as torch's exporter writes those of transformers: heads are a part of the batch, shapes are made of
sizes, and the softmax replaces what a mask hides before and after.
"""

import math

from .builder import GraphBuilder, Value
from .encoders import FLOAT_MIN, QUERY_GAIN, SEQUENCES, feed_forward, padded_inputs

BUCKETS = 256  # of relative positions in each direction: exact up to half of them, logarithmic beyond
FARTHEST = 512  # the distance that has the last bucket
EPSILON = 1e-7


def bucketed_positions(g: GraphBuilder, x: Value) -> Value:
    """The bucket of the distance of every pair of positions, int64[1, S, S], negative for keys behind the query."""
    middle = BUCKETS // 2
    places = g.op("Range", g.const(0), g.dim(x, 1), g.const(1))
    offset = g.op("Sub", g.unsqueeze(places, 1), g.unsqueeze(places, 0))
    near = g.op("And", g.op("Less", offset, g.const(middle)), g.op("Greater", offset, g.const(-middle)))
    distance = g.op("Where", near, g.const(middle - 1), g.op("Abs", offset))
    ratio = g.op("Log", g.op("Div", g.op("Cast", distance, to=1), g.scalar(middle)))
    steps = g.op("Mul", g.op("Div", ratio, g.scalar(math.log((FARTHEST - 1) / middle))), g.scalar(middle - 1))
    far = g.op("Add", g.op("Ceil", steps), g.scalar(middle))
    far = g.op("Mul", far, g.op("Cast", g.op("Sign", offset), to=1))
    exact = g.op("LessOrEqual", distance, g.const(middle))
    bucket = g.op("Where", exact, g.op("Cast", offset, to=1), far)
    return g.unsqueeze(g.op("Cast", bucket, to=7), 0)


def _pair_mask(g: GraphBuilder, kept: Value) -> Value:
    """Which pairs of tokens are no padding, int64[N, 1, S, S]."""
    rows = g.unsqueeze(kept, 1, 2)
    columns = g.unsqueeze(g.op("Squeeze", rows, g.const([-2])), -1)
    return g.op("Mul", rows, columns)


def _flat_heads(g: GraphBuilder, x: Value, heads: int) -> Value:
    """[N, S, heads * D] to [N * heads, S, D], its shape made of sizes."""
    size = x.channels // heads
    split = g.op("Reshape", x, g.sizes(g.dim(x, 0), g.dim(x, 1), heads, -1), channels=size)
    turned = g.transpose(split, 0, 2, 1, 3)
    return g.op("Reshape", turned, g.sizes(-1, g.dim(turned, 2), g.dim(turned, 3)))


def _repeated(g: GraphBuilder, x: Value, rows: Value, heads: int) -> Value:
    """A matrix for each head, as often as there are sequences."""
    return g.op("Tile", x, g.sizes(g.op("Div", g.dim(rows, 0), g.const(heads)), 1, 1))


def _clipped(g: GraphBuilder, position: Value) -> Value:
    """Rows of the table of relative embeddings."""
    shifted = g.op("Add", position, g.const(BUCKETS))
    return g.op("Clip", shifted, g.const(0), g.const(2 * BUCKETS - 1))


def _gathered(g: GraphBuilder, rows: Value, table: Value, position: Value, scale: Value) -> Value:
    """Scores of `rows` with the relative embedding of each pair: a product with all of them, of which each pair takes one."""
    scores = g.op("MatMul", rows, g.transpose(table, 0, 2, 1))
    shape = g.sizes(g.dim(rows, 0), g.dim(rows, 1), g.dim(position, -1))
    index = g.op("Expand", g.op("Squeeze", position, g.const([0])), shape)
    return g.op("Div", g.op("GatherElements", scores, index, axis=2), scale)


def _softmax(g: GraphBuilder, scores: Value, mask: Value) -> Value:
    """Softmax whose hidden places are replaced before, and are 0 afterwards."""
    hidden = g.op("Cast", g.op("Sub", g.const(1), g.op("Cast", mask, to=7)), to=9)
    scores = g.op("Where", hidden, g.scalar(FLOAT_MIN), scores)
    return g.op("Where", hidden, g.scalar(0), g.op("Softmax", scores, axis=3))


def _attention(g: GraphBuilder, x: Value, mask: Value, relative: Value, table: Value, heads: int) -> Value:
    """The projections of queries and keys are those of the relative embeddings, too."""
    query, key = g.shared_linear(x.channels, QUERY_GAIN), g.shared_linear(x.channels)
    rows, columns = _flat_heads(g, query(x), heads), _flat_heads(g, key(x), heads)
    values = _flat_heads(g, g.linear(x, x.channels), heads)
    scale = g.op("Sqrt", g.op("Mul", g.op("Cast", g.dim(rows, -1), to=1), g.scalar(3)))
    scores = g.op("MatMul", rows, g.op("Div", g.transpose(columns, 0, 2, 1), scale))
    asked, keyed = (_repeated(g, _flat_heads(g, dense(table), heads), rows, heads) for dense in (query, key))
    positions = g.unsqueeze(relative, 1)
    to_position = _gathered(g, rows, keyed, g.op("Squeeze", _clipped(g, positions), g.const([0])), scale)
    back = _clipped(g, g.op("Neg", positions))
    from_position = _gathered(g, columns, asked, g.op("Squeeze", back, g.const([0])), scale)
    bias = g.op("Add", to_position, g.transpose(from_position, 0, 2, 1))
    scores = g.op("Add", scores, bias)
    scores = g.op("Reshape", scores, g.sizes(-1, heads, g.dim(scores, 1), g.dim(scores, 2)))
    shares = _softmax(g, scores, mask)
    shares = g.op("Reshape", shares, g.sizes(-1, g.dim(shares, 2), g.dim(shares, 3)))
    mixed = g.op("MatMul", shares, values, channels=values.channels, power=0.3 * values.power)
    mixed = g.op("Reshape", mixed, g.sizes(-1, heads, g.dim(mixed, 1), g.dim(mixed, 2)))
    mixed = g.transpose(mixed, 0, 2, 1, 3)
    return g.op("Reshape", mixed, g.sizes(g.dim(mixed, 0), g.dim(mixed, 1), -1), channels=x.channels)


def deberta_v3_small(
    g: GraphBuilder, layers: int = 6, width: int = 768, heads: int = 12, inner: int = 3072, vocabulary: int = 128_100
) -> None:
    """DeBERTa-v3-small.

    Inputs: int64[batch, sequence] `input_ids`, `attention_mask`.
    Output: float32[batch, sequence, width] `last_hidden_state`.
    """
    ids, kept = padded_inputs(g, vocabulary)
    with g.scope("embeddings"):
        x = g.layer_norm(g.embedding(ids, vocabulary, width), epsilon=EPSILON)
        x = g.op("Mul", x, g.op("Cast", g.unsqueeze(kept, 2), to=1))
    with g.scope("encoder"):
        mask, relative = _pair_mask(g, kept), bucketed_positions(g, x)
        with g.scope("rel_embeddings"):
            table = g.layer_norm(g.weight("weight", (2 * BUCKETS, width), 1.0), epsilon=EPSILON)
            table = g.unsqueeze(g.slice(table, 0, 2 * BUCKETS, 0), 0)
    for layer in range(layers):
        with g.scope(f"encoder.layer.{layer}"):
            with g.scope("attention"):
                mixed = _attention(g, x, mask, relative, table, heads)
                x = g.layer_norm(g.add(g.linear(mixed, width), x), epsilon=EPSILON)
            with g.scope("mlp"):
                x = feed_forward(g, x, inner, EPSILON)
    g.output("last_hidden_state", x, (*SEQUENCES, width))
