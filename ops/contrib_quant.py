"""com.microsoft: operators on 8-bit tensors whose scales and zero points are inputs.

Sums are exact; results are computed in float32 and rounded once, half to even. A missing zero point is 0.
"""

from __future__ import annotations

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .contrib_attention import Options, self_attention
from .contrib_fused import embedded, normalised_sum, to_last, to_second
from .convolve import padding
from .integers import single
from .matmul import matmul_integer
from .movement import concat
from .pool import average_pool, global_average_pool, max_pool, window_count
from .primitives import Tensor
from .qlinear import qlinear_conv
from .quant import dequantize_linear, dynamic_quantize_linear, quantize_linear
from .reduce import fold_mean
from .registry import Takes, contrib
from .rnn import lstm


def real(t: Builder, x: Tensor, scale: Tensor, zero: Tensor | None, axis: int = 0) -> Tensor:
    """(x - zero) * scale: one scale in all, or one an index of `axis`."""
    return dequantize_linear(t, x, scale, zero, axis=axis)


def quantised(t: Builder, x: Tensor, scale: Tensor, zero: Tensor | None, dtype: np.dtype) -> Tensor:
    """round(x / scale) + zero, saturated."""
    return quantize_linear(t, x, scale, t.constant(0, dtype) if zero is None else zero, axis=0)


# -- conversions
@contrib("QuantizeLinear", takes=Takes.TENSORS)
def quantize(t: Builder, x, y_scale, y_zero_point=None, *, axis=1):
    """QuantizeLinear, also where onnx had no 16-bit integers yet."""
    return quantize_linear(t, x, y_scale, y_zero_point, axis=axis)


@contrib("DequantizeLinear", takes=Takes.TENSORS)
def dequantize(t: Builder, x, x_scale, x_zero_point=None, *, axis=1):
    """DequantizeLinear, also where onnx had no 16-bit integers yet."""
    return dequantize_linear(t, x, x_scale, x_zero_point, axis=axis)


# -- element by element
def _binary(name: str, text: str) -> None:
    def lower(t, A, A_scale, A_zero_point, B, B_scale, B_zero_point, C_scale, C_zero_point=None):
        y = t.map(text, real(t, A, A_scale, A_zero_point), real(t, B, B_scale, B_zero_point))
        return quantised(t, y, C_scale, C_zero_point, A.dtype)

    lower.__doc__ = f"{text} of real numbers."
    contrib(name)(lower)


_binary("QLinearAdd", "a + b")
_binary("QLinearMul", "a * b")


@contrib("QLinearSigmoid")
def qlinear_sigmoid(t: Builder, X, X_scale, X_zero_point, Y_scale, Y_zero_point=None):
    """1 / (1 + exp(-x))."""
    return quantised(t, t.map("sigmoid(a)", real(t, X, X_scale, X_zero_point)), Y_scale, Y_zero_point, X.dtype)


@contrib("QLinearLeakyRelu")
def qlinear_leaky_relu(t: Builder, X, X_scale, X_zero_point, Y_scale, Y_zero_point=None, *, alpha=0.01):
    """x, or alpha x where x is negative."""
    y = t.map(f"select(a < 0, a * {float(alpha)!r}, a)", real(t, X, X_scale, X_zero_point))
    return quantised(t, y, Y_scale, Y_zero_point, X.dtype)


@contrib("QLinearWhere")
def qlinear_where(t: Builder, condition, X, x_scale, x_zero_point, Y, y_scale, y_zero_point, z_scale, z_zero_point):
    """x where the condition holds, else y."""
    x, y = real(t, X, x_scale, x_zero_point), real(t, Y, y_scale, y_zero_point)
    chosen = t.map("select(a, b, c)", condition, x, y, dtype=x.dtype)
    return quantised(t, chosen, z_scale, z_zero_point, X.dtype)


@contrib("QLinearConcat")
def qlinear_concat(t: Builder, Y_scale, Y_zero_point, *inputs, axis):
    """Concat of (tensor, scale, zero point) triples."""
    if len(inputs) % 3:
        raise OperatorError(f"{len(inputs)} inputs are no triples of tensor, scale and zero point")
    parts = [quantised(t, real(t, *inputs[i : i + 3]), Y_scale, Y_zero_point, Y_zero_point.dtype) for i in range(0, len(inputs), 3)]
    return concat(t, *parts, axis=axis)


# -- rows and images
@contrib("QLinearSoftmax")
def qlinear_softmax(t: Builder, X, X_scale, x_zero_point, y_scale, y_zero_point, *, opset, axis=-1):
    """Softmax as the opset has it."""
    y = t.op("Softmax", real(t, X, X_scale, x_zero_point), since=opset, axis=axis)
    return quantised(t, y, y_scale, y_zero_point, X.dtype)


@contrib("QLinearReduceMean")
def qlinear_reduce_mean(t: Builder, data, data_scale, data_zero_point, reduced_scale, reduced_zero_point=None, *, axes, keepdims):
    """The mean over the axes."""
    places = sorted({axis_index(a, data.rank) for a in axes})
    y = fold_mean(t, real(t, data, data_scale, data_zero_point), places)
    y = quantised(t, y, reduced_scale, reduced_zero_point, data.dtype)
    return y if keepdims else t.squeeze(y, places)


@contrib("QLinearAveragePool")
def qlinear_average_pool(t: Builder, X, x_scale, x_zero_point, y_scale, y_zero_point=None, *, channels_last=0, **attributes):
    """AveragePool; with a border that counts (count_include_pad), what a last window has beyond it counts too."""
    x = real(t, X, x_scale, x_zero_point)
    x = to_second(t, x) if channels_last else x
    if attributes.get("count_include_pad") and attributes.get("ceil_mode"):
        attributes["pads"] = _whole_windows(x.shape[2:], **attributes)
    y = average_pool(t, x, **attributes)
    return quantised(t, to_last(t, y) if channels_last else y, y_scale, y_zero_point, X.dtype)


def _whole_windows(image, *, kernel_shape, pads=None, strides=None, dilations=None, auto_pad="NOTSET", **others) -> list[int]:
    """Pads with so much more after the image that its last window, which ceil_mode lets hang over, ends with them."""
    steps, dils = (tuple(v or (1,) * len(image)) for v in (strides, dilations))
    begin, end = padding(auto_pad, pads, image, tuple(kernel_shape), steps, dils)
    after = []
    for n, k, s, d, b, e in zip(image, kernel_shape, steps, dils, begin, end):
        count = window_count(n, k, s, d, b, e, True)
        after.append(max(e, (count - 1) * s + (k - 1) * d + 1 - n - b))
    return [*begin, *after]


@contrib("QLinearGlobalAveragePool")
def qlinear_global_average_pool(t: Builder, X, x_scale, x_zero_point, y_scale, y_zero_point, *, channels_last=0):
    """GlobalAveragePool."""
    x = real(t, X, x_scale, x_zero_point)
    y = global_average_pool(t, to_second(t, x) if channels_last else x)
    return quantised(t, to_last(t, y) if channels_last else y, y_scale, y_zero_point, X.dtype)


@contrib("NhwcMaxPool")
def nhwc_max_pool(t: Builder, x, **attributes):
    """MaxPool of images [N, H, W, C]."""
    return to_last(t, max_pool(t, to_second(t, x), **attributes)[0])


@contrib("QLinearConv")
def qlinear_conv_in_either_layout(t: Builder, x, *inputs, channels_last=0, **attributes):
    """QLinearConv of images [N, C, H, W], or with channels_last [N, H, W, C]."""
    if not channels_last:
        return qlinear_conv(t, x, *inputs, **attributes)
    return to_last(t, qlinear_conv(t, to_second(t, x), *inputs, **attributes))


# -- products
@contrib("MatMulInteger16")
def matmul_integer_16(t: Builder, A, B):
    """The product of int16 matrices in int32."""
    return matmul_integer(t, A, B)


@contrib("MatMulIntegerToFloat")
def matmul_integer_to_float(
    t: Builder, A, B, a_scale, b_scale, a_zero_point=None, b_zero_point=None, bias=None
):  # fmt: skip
    """MatMulInteger times the scales, plus a bias."""
    total = t.cast(matmul_integer(t, A, B, a_zero_point, b_zero_point), np.float32)
    factor = t.map("a * b", *(single(t, t.cast(x, np.float32)) for x in (a_scale, b_scale)))
    y = t.map("a * b", total, factor)
    return t.cast(y if bias is None else t.map("a + b", y, t.cast(bias, np.float32)), a_scale.dtype)


@contrib("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(t: Builder, A, B, b_scale, b_zero_point=None, bias=None):
    """`matmul_integer_to_float` of A quantised by its own range."""
    a, scale, zero = dynamic_quantize_linear(t, A)
    return matmul_integer_to_float(t, a, B, scale, b_scale, zero, b_zero_point, bias)


@contrib("QGemm")
def qgemm(
    t: Builder, A, a_scale, a_zero_point, B, b_scale, b_zero_point, C=None, y_scale=None, y_zero_point=None, *,
    alpha=1.0, transA=0, transB=0,
):  # fmt: skip
    """alpha A' B' + C, where C is int32 in units of alpha * a_scale * b_scale; quantised if y_scale is given."""
    a = t.transpose(A, (1, 0)) if transA else A
    b = t.transpose(B, (1, 0)) if transB else B
    total = matmul_integer(t, a, b, a_zero_point, b_zero_point)
    if C is not None:
        total = t.map("a + b", total, C)
    factor = t.map(f"a * b * {float(alpha)!r}", single(t, a_scale), single(t, b_scale))
    y = t.map("a * b", t.cast(total, np.float32), factor)
    return y if y_scale is None else quantised(t, y, y_scale, y_zero_point, A.dtype)


# -- layers
@contrib("QAttention")
def qattention(
    t: Builder, x, weight, bias, input_scale, weight_scale, mask_index=None, input_zero_point=None, weight_zero_point=None,
    past=None, *, num_heads, unidirectional=0, mask_filter_value=-10000.0, scale=None, do_rotary=0, past_present_share_buffer=0,
):  # fmt: skip
    """Attention whose projection is a product of integers."""
    if do_rotary or past_present_share_buffer:
        raise OperatorError("do_rotary and past_present_share_buffer must be 0")
    projected = matmul_integer_to_float(t, x, weight, input_scale, weight_scale, input_zero_point, weight_zero_point, bias)
    options = Options(num_heads, bool(unidirectional), mask_filter_value, scale)
    return self_attention(t, projected, [projected.shape[2] // 3] * 3, mask_index, past, None, options)


@contrib("QEmbedLayerNormalization")
def qembed_layer_normalization(
    t: Builder, input_ids, segment_ids, words, places, kinds, gamma, beta, mask, word_scale, place_scale, kind_scale, gamma_scale,
    beta_scale, word_zero, place_zero, kind_zero, gamma_zero, beta_zero, *, epsilon=1e-12,
):  # fmt: skip
    """EmbedLayerNormalization with tables and weights of 8 bits."""
    rows = embedded(t, (words, input_ids), (places, None), (kinds, segment_ids))
    parameters = ((word_scale, word_zero), (place_scale, place_zero), (kind_scale, kind_zero))
    wide = [None if x is None else real(t, x, *each) for x, each in zip(rows, parameters)]
    weights = real(t, gamma, gamma_scale, gamma_zero), real(t, beta, beta_scale, beta_zero)
    return normalised_sum(t, *wide, *weights, mask, epsilon)[:2]


@contrib("DynamicQuantizeLSTM")
def dynamic_quantize_lstm(
    t: Builder, X, W, R, B=None, sequence_lens=None, initial_h=None, initial_c=None, P=None, W_scale=None, W_zero_point=None,
    R_scale=None, R_zero_point=None, **attributes,
):  # fmt: skip
    """LSTM with weights [directions, inputs, gates] of 8 bits. X is rounded to 8 bits by its own range; the state is not."""
    x = real(t, *dynamic_quantize_linear(t, X))
    weights = []
    for values, scale, zero in ((W, W_scale, W_zero_point), (R, R_scale, R_zero_point)):
        along = [t.reshape(v, (v.shape[0], 1, v.size // v.shape[0])) for v in (scale, zero)]
        wide = t.map("a - b", *(t.cast(v, np.float32) for v in (values, along[1])))
        weights.append(t.transpose(t.map("a * b", wide, along[0]), (0, 2, 1)))
    return lstm(t, x, *weights, B, sequence_lens, initial_h, initial_c, P, **attributes)
