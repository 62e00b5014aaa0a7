"""Small classifiers: a bidirectional LSTM over tokens and a multi-layer perceptron."""

import numpy as np

from .builder import GraphBuilder, Value
from .encoders import token_input
from .samplers import normal


def _bidirectional_lstm(g: GraphBuilder, x: Value, hidden: int) -> tuple[Value, Value]:
    """One layer over float32[S, N, C].

    Returns:
        All outputs, float32[S, N, 2 * hidden], and the last state of both directions, float32[2, N, hidden].
    """
    weight = g.weight("weight_ih", (2, 4 * hidden, x.channels), (x.channels * x.power) ** -0.5)
    recurrence = g.weight("weight_hh", (2, 4 * hidden, hidden), hidden**-0.5)
    bias = g.weight("bias", (2, 8 * hidden), 0.1)
    batch = g.op("Shape", x, start=1, end=2)
    zero = g.op("ConstantOfShape", g.op("Concat", g.const([2]), batch, g.const([hidden]), axis=0))
    every, last, _ = g.multi_op(
        "LSTM",
        x,
        weight,
        recurrence,
        bias,
        None,
        zero,
        zero,
        outputs=3,
        channels=hidden,
        power=0.15,
        hidden_size=hidden,
        direction="bidirectional",
    )
    return g.reshape(g.transpose(every, 0, 2, 1, 3), (0, 0, -1), 2 * hidden), last


def lstm_classifier(
    g: GraphBuilder,
    layers: int = 2,
    width: int = 128,
    hidden: int = 256,
    vocabulary: int = 20000,
    classes: int = 10,
) -> None:
    """Embedding, `layers` bidirectional LSTM layers, and a dense layer on the last states.

    Input: int64[batch, sequence] `input_ids`. Output: float32[batch, classes] `logits`.
    """
    ids = token_input(g, vocabulary)
    with g.scope("embedding"):
        x = g.transpose(g.embedding(ids, vocabulary, width), 1, 0, 2)
    for layer in range(layers):
        with g.scope(f"lstm.{layer}"):
            x, last = _bidirectional_lstm(g, x, hidden)
    state = g.reshape(g.transpose(last, 1, 0, 2), (0, -1), 2 * hidden)
    g.output("logits", g.gemm(state, classes), ("batch", classes))


def mlp(g: GraphBuilder, features: int = 784, hidden: int = 1024, layers: int = 3, classes: int = 10) -> None:
    """Gemm and Relu, `layers` times, and a last Gemm.

    Input: float32[batch, features] `features`. Output: float32[batch, classes] `logits`.
    """
    x = g.input("features", np.float32, ("batch", features), normal, channels=features)
    for layer in range(layers):
        with g.scope(f"layers.{layer}"):
            x = g.act(g.gemm(x, hidden), "relu")
    g.output("logits", g.gemm(x, classes), ("batch", classes))
