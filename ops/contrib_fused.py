"""com.microsoft: activations, convolutions, products and normalisations with what follows or precedes them.

Runtimes that optimise graphs write these where a model had several nodes; here they are the several nodes again, and the
planner fuses what it would have fused anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .cast import widened
from .conv import conv
from .matmul import gemm_, matmul
from .norm import group_normalization, layer_normalization
from .primitives import Tensor
from .reduce import fold_mean
from .registry import FLOATS, MICROSOFT, check_types, contrib, elementwise, op

Pair = tuple[Tensor, Tensor | None]

# -- activations
elementwise("Gelu", "gelu(a)", domain=MICROSOFT)
elementwise("BiasGelu", "gelu(a + b)", domain=MICROSOFT)
elementwise("QuickGelu", "a * sigmoid({alpha=1.702} * a)", domain=MICROSOFT)
elementwise("BiasAdd", "a + b + c", domain=MICROSOFT)


@contrib("FastGelu")
def fast_gelu(t: Builder, x, bias=None):
    """The tanh approximation of GELU, of x + bias."""
    inputs = (x,) if bias is None else (x, bias)
    check_types(inputs, FLOATS)
    return t.map("gelu_tanh(a)" if bias is None else "gelu_tanh(a + b)", *inputs)


@contrib("BiasSplitGelu")
def bias_split_gelu(t: Builder, x, bias):
    """The first half of x + bias along the last axis, times GELU of the second half."""
    check_types((x, bias), FLOATS)
    half = x.shape[-1] // 2
    parts = [t.take(v, v.rank - 1, at, at + half) for at in (0, half) for v in (x, bias)]
    return t.map("(a + b) * gelu(c + d)", *parts)


# operators that `activation` may name -> their attributes, in the order of `activation_params`
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (), "Sigmoid": (), "Tanh": (), "Softplus": (), "Softsign": (), "LeakyRelu": ("alpha",), "Elu": ("alpha",),
    "ThresholdedRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Selu": ("alpha", "gamma"), "Clip": ("min", "max"),
}  # fmt: skip


def _activated(t: Builder, x: Tensor, activation: str | None, parameters: Mapping[str, float] | Sequence[float]) -> Tensor:
    """x, or the named operator of it; parameters by name or in order."""
    if not activation:
        return x
    if activation not in _ACTIVATIONS:
        raise OperatorError(f"activation must be one of {', '.join(_ACTIVATIONS)}, not {activation!r}")
    names = _ACTIVATIONS[activation]
    values = parameters if isinstance(parameters, Mapping) else dict(zip(names, parameters))
    # the meaning of Clip with attributes ended with opset 10
    return t.op(activation, x, since=10 if activation == "Clip" else None, **{n: values[n] for n in names if n in values})


# -- convolutions
@contrib("FusedConv")
def fused_conv(t: Builder, X, W, B=None, Z=None, *, activation=None, activation_params=(), **attributes):
    """activation(Conv + Z)."""
    y = conv(t, X, W, B, **attributes)
    return _activated(t, y if Z is None else t.map("a + b", y, Z), activation, activation_params)


@contrib("NhwcFusedConv")
def nhwc_fused_conv(t: Builder, X, W, B=None, Z=None, **attributes):
    """`fused_conv` of images [N, H, W, C]; the filters stay [M, C / group, kH, kW]."""
    residual = None if Z is None else to_second(t, Z)
    return to_last(t, fused_conv(t, to_second(t, X), W, B, residual, **attributes))


@contrib("NhwcConv")
def nhwc_conv(t: Builder, X, W, B=None, **attributes):
    """Conv of images [N, H, W, C]; the filters stay [M, C / group, kH, kW]."""
    return to_last(t, conv(t, to_second(t, X), W, B, **attributes))


def to_second(t: Builder, x: Tensor) -> Tensor:
    """[N, H, W, C] as [N, C, H, W]."""
    return t.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def to_last(t: Builder, x: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, C]."""
    return t.transpose(x, (0, *range(2, x.rank), 1))


# -- products
def _arranged(t: Builder, x: Tensor, swap: int, batch: int) -> Tensor:
    """A factor with its first dimension moved behind the batch (`batch`), then its last two swapped (`swap`)."""
    axes = list(range(x.rank))
    if batch and x.rank > 2:
        axes = [*axes[1:-1], 0, axes[-1]]
    if swap and x.rank > 1:
        axes[-1], axes[-2] = axes[-2], axes[-1]
    return t.transpose(x, axes)


@contrib("FusedMatMul")
def fused_matmul(t: Builder, A, B, *, alpha=1.0, transA=0, transB=0, transBatchA=0, transBatchB=0):
    """alpha A B, the factors transposed as the attributes say."""
    y = matmul(t, _arranged(t, A, transA, transBatchA), _arranged(t, B, transB, transBatchB))
    return y if alpha == 1.0 else t.map(f"a * {float(alpha)!r}", y)


contrib("TransposeMatMul")(fused_matmul)


@contrib("FusedMatMulActivation")
def fused_matmul_activation(
    t: Builder, A, B, *, activation, activation_alpha=None, activation_beta=None, activation_gamma=None, activation_axis=-1,
    **attributes,
):  # fmt: skip
    """activation(FusedMatMul)."""
    y = fused_matmul(t, A, B, **attributes)
    if activation == "Softmax":
        return t.op("Softmax", y, since=13, axis=activation_axis)
    return _activated(t, y, activation, _given(alpha=activation_alpha, beta=activation_beta, gamma=activation_gamma))


@contrib("FusedGemm")
def fused_gemm(
    t: Builder, A, B, C=None, *, activation=None, activation_alpha=None, activation_beta=None, activation_gamma=None, **attributes
):
    """activation(Gemm)."""
    parameters = _given(alpha=activation_alpha, beta=activation_beta, gamma=activation_gamma)
    return _activated(t, gemm_(t, A, B, C, **attributes), activation, parameters)


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


# -- normalisations
@op("LayerNormalization")
def layer_normalization_opset_1(t: Builder, x, scale, bias=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    """Before opset 17, as onnxruntime had it: the result has the scale's type."""
    y, mean, inverse = layer_normalization(t, widened(t, x), scale, bias, axis=axis, epsilon=epsilon, stash_type=stash_type)
    return t.cast(y, scale.dtype), mean, inverse


@op("SimplifiedLayerNormalization")
def simplified_layer_normalization(t: Builder, x, scale, *, axis=-1, epsilon=1e-5, stash_type=1):
    """x / sqrt(mean(x^2) + epsilon) * scale in the scale's type, and the factor of x."""
    y, inverse = _simplified(t, widened(t, x), scale, axis, epsilon)
    return t.cast(y, scale.dtype), inverse


def _simplified(t: Builder, x: Tensor, scale: Tensor, axis: int, epsilon: float) -> tuple[Tensor, Tensor]:
    mean = fold_mean(t, t.map("a * a", x), range(axis_index(axis, x.rank), x.rank))
    inverse = t.map("1.0 / sqrt(a + b)", mean, t.constant(epsilon, x.dtype))
    return t.map("a * b * c", x, inverse, t.cast(scale, x.dtype)), t.cast(inverse, np.float32)


@contrib("SkipLayerNormalization")
def skip_layer_normalization(t: Builder, x, skip, gamma, beta=None, bias=None, *, epsilon=1e-12):
    """LayerNormalization of x + skip + bias; also mean, 1 / sqrt(variance + epsilon), and the sum itself."""
    total = _sum(t, x, skip, bias)
    y, mean, inverse = layer_normalization(t, total, gamma, beta, epsilon=epsilon)
    return t.cast(y, x.dtype), mean, inverse, t.cast(total, x.dtype)


@contrib("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(t: Builder, x, skip, gamma, bias=None, *, epsilon=1e-12):
    """x + skip + bias by its root mean square, times gamma; also a mean of 0, the factor, and the sum itself."""
    total = _sum(t, x, skip, bias)
    y, inverse = _simplified(t, total, gamma, -1, epsilon)
    mean = t.constant(np.zeros(inverse.shape, np.float32))
    return t.cast(y, x.dtype), mean, inverse, t.cast(total, x.dtype)


def _sum(t: Builder, x: Tensor, skip: Tensor, bias: Tensor | None) -> Tensor:
    """x + skip + bias, float16 and bfloat16 in float32."""
    parts = [widened(t, part) for part in (x, skip, bias) if part is not None]
    return t.map("a + b" if bias is None else "a + b + c", *parts)


@contrib("EmbedLayerNormalization")
def embed_layer_normalization(
    t: Builder, input_ids, segment_ids, word_embedding, position_embedding, segment_embedding, gamma, beta, mask=None,
    position_ids=None, *, epsilon=1e-12, mask_index_type=0,
):  # fmt: skip
    """LayerNormalization of the sum of a token's embeddings; also the tokens that the mask keeps, and the sum."""
    words, places, kinds = embedded(
        t, (word_embedding, input_ids), (position_embedding, position_ids), (segment_embedding, segment_ids)
    )
    y, kept, total = normalised_sum(t, words, places, kinds, gamma, beta, mask, epsilon)
    return t.cast(y, word_embedding.dtype), kept, t.cast(total, word_embedding.dtype)


def embedded(t: Builder, words: Pair, places: Pair, kinds: Pair) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows of three tables, each with the indices of its rows: without any, the first positions, and no kinds of tokens."""
    rows = t.op("Gather", *words)
    positions = t.take(places[0], 0, 0, rows.shape[1]) if places[1] is None else t.op("Gather", *places)
    return rows, positions, None if kinds[1] is None else t.op("Gather", *kinds)


def normalised_sum(
    t: Builder,
    words: Tensor,
    places: Tensor,
    kinds: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNormalization of the sum of embeddings, how many tokens of each sequence the mask keeps, and the sum."""
    total = _sum(t, words, places, kinds)
    y, *_ = layer_normalization(t, total, gamma, beta, epsilon=epsilon)
    if mask is None:
        return y, t.constant(np.zeros(words.shape[0], np.int32)), total
    ones = t.cast(t.map("a == 1", mask, dtype="bool"), np.int32)
    return y, t.reduce("add", ones, [1], keepdims=False), total


@contrib("GroupNorm")
def group_norm(t: Builder, x, gamma, beta, *, groups, activation, epsilon=1e-5, channels_last=1):
    """GroupNormalization of images [N, H, W, C], or with channels_last=0 [N, C, H, W]; activation 1 is SiLU."""
    image = to_second(t, x) if channels_last else x
    y = group_normalization(t, widened(t, image), gamma, beta, num_groups=groups, epsilon=epsilon)
    if activation not in (0, 1):
        raise OperatorError(f"activation must be 0 or 1 (SiLU), not {activation}")
    y = t.cast(t.map("a * sigmoid(a)", y) if activation else y, x.dtype)
    return to_last(t, y) if channels_last else y


@contrib("SkipGroupNorm")
def skip_group_norm(t: Builder, x, gamma, beta, skip, bias=None, *, groups, activation, epsilon=1e-5, channels_last=1):
    """GroupNorm of x + skip + bias, and that sum; skip may have one value a channel."""
    if not channels_last and bias is not None:
        bias = t.reshape(bias, (bias.size, 1, 1))
    if skip.rank == 2:
        skip = t.unsqueeze(skip, (1, 2) if channels_last else (2, 3))
    total = _sum(t, x, skip, bias)
    y = group_norm(t, total, gamma, beta, groups=groups, activation=activation, epsilon=epsilon, channels_last=channels_last)
    return t.cast(y, x.dtype), t.cast(total, x.dtype)
