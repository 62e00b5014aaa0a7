"""How quantised operators are drawn, of ONNX's domain and of com.microsoft's."""

from __future__ import annotations

import numpy as np

from .catalogue import Case, Node, Sums, Undrawable, rule
from .contractions import images, window
from .draw import Draw, Values, is_integer, limits

INT64, INT32, F32 = np.int64, np.int32, np.float32


def scale(d: Draw, shape: tuple[int, ...] = (), dtype: type = F32) -> np.ndarray:
    """Steps of about 0.02 to 0.08."""
    return np.asarray(d.values(np.float32, shape, Values.POSITIVE) / 25).astype(dtype)


def zero_point(d: Draw, dtype: np.dtype, shape: tuple[int, ...] = ()) -> np.ndarray:
    """A zero point within the type, near its middle."""
    low, high = limits(dtype)
    span = min(10, (high - low) // 4)
    return (d.indices(shape, 2 * span + 1, negative=False) - span + (low + high + 1) // 2).astype(dtype)


def bits(d: Draw, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Integers over the whole type; of int8 half, so that sums of two products do not saturate on any CPU."""
    low, high = (-64, 63) if dtype == np.int8 else limits(dtype)
    return (d.indices(shape, high - low + 1, negative=False) + low).astype(dtype)


def _placed(d: Draw, n: Node, x: np.ndarray) -> tuple[tuple[int, ...], bool]:
    """The shape of scale and zero point: one, one an index of an axis, or (newer opsets) one a block."""
    how = d.choice(["tensor", "axis", "block"])
    if how == "tensor" or not n.has("axis") or x.ndim == 0:
        return (), False
    axis = d.axis(x.ndim)
    if how == "block" and n.has("block_size"):
        n.set("axis", axis)
        divisors = [b for b in (1, 2, 3, 4) if x.shape[axis] % b == 0]
        block = d.choice(divisors)
        n.set("block_size", block)
        return tuple(s // block if i == axis % x.ndim else s for i, s in enumerate(x.shape)), True
    n.set("axis", axis)
    return (x.shape[axis],), False


@rule("QuantizeLinear")
def quantize(n: Node, d: Draw) -> Case:
    last = "T3" if "T3" in n.kernel else "T2"
    x = n.values("T1", d.shape(0, 3, least=1), Values.PLAIN)
    shape, _ = _placed(d, n, x)
    to = n.type(last)
    scale_type = n.type("T2") if last == "T3" else x.dtype
    zero = zero_point(d, to, shape) if is_integer(to) else np.zeros(shape, to)
    n.set("saturate", None, 0, 1)
    if to == np.uint8 and d.chance(30):
        zero = None
    if last == "T3" and scale_type != x.dtype:
        n.set("precision", 1)
    return n.case(x, scale(d, shape, scale_type), zero, tolerance=Sums.EXACT, maybe=(1, 2))


@rule("DequantizeLinear")
def dequantize(n: Node, d: Draw) -> Case:
    parameter = next(name for name in ("T1", "T") if name in n.kernel)
    x = n.values(parameter, d.shape(0, 3, least=1))
    shape, _ = _placed(d, n, x)
    to = n.type("T2") if "T2" in n.kernel else np.dtype(F32)
    zero = zero_point(d, x.dtype, shape) if is_integer(x.dtype) else np.zeros(shape, x.dtype)
    if x.dtype == np.int32 or d.chance(30):
        zero = None
    return n.case(x, scale(d, shape, to), zero, maybe=(1, 2))


@rule("DynamicQuantizeLinear")
def dynamic_quantize(n: Node, d: Draw) -> Case:
    return n.case(d.values(F32, d.shape(0, 3, least=1), Values.PLAIN), outputs=3, tolerance=Sums.STEP)


@rule("MatMulInteger")
def matmul_integer(n: Node, d: Draw) -> Case:
    rows, inner, columns = d.size(1), d.size(1), d.size(1)
    batch = d.shape(0, 1, least=1) if d.chance(40) else ()
    a, b = bits(d, n.type("T1"), (*batch, rows, inner)), bits(d, n.type("T2"), (*(batch if d.chance(50) else ()), inner, columns))
    zero_a = None if d.chance(40) else zero_point(d, a.dtype)
    zero_b = None if d.chance(40) else zero_point(d, b.dtype, (columns,) if d.chance(40) and b.ndim == 2 else ())
    return n.case(a, b, zero_a, zero_b, maybe=(1, 2, 3))


@rule("QLinearMatMul")
def quantised_matmul(n: Node, d: Draw) -> Case:
    rows, inner, columns = d.size(1), d.size(1), d.size(1)
    batch = d.shape(0, 1, least=1) if d.chance(40) else ()
    a, b, to = bits(d, n.type("T1"), (*batch, rows, inner)), bits(d, n.type("T2"), (inner, columns)), n.type("T3")
    by_column = (columns,) if d.chance(30) else ()
    first = [scale(d), zero_point(d, a.dtype)]
    second = [scale(d, by_column), zero_point(d, b.dtype, by_column)]
    return n.case(
        a, *first, b, *second, scale(d) * 20, zero_point(d, to), tolerance=Sums.STEP, constant=(1, 2, 4, 5, 6, 7), maybe=(3,)
    )


@rule("ConvInteger")
def convolution_integer(n: Node, d: Draw) -> Case:
    kernel, _, least = window(n, d, d.choice([1, 2, 2]))
    group, inner, outer = d.choice([1, 1, 2]), d.integer(1, 3), d.integer(1, 5)
    n.set("group", group)
    x, w = bits(d, n.type("T1"), images(d, least, inner * group)), bits(d, n.type("T2"), (outer * group, inner, *kernel))
    zero_w = None if d.chance(50) else zero_point(d, w.dtype)
    return n.case(x, w, None if zero_w is None and d.chance(50) else zero_point(d, x.dtype), zero_w, maybe=(1, 2, 3))


@rule("QLinearConv")
@rule("QLinearConv", domain="com.microsoft")
def quantised_convolution(n: Node, d: Draw) -> Case:
    kernel, _, least = window(n, d, d.choice([1, 2, 2]))
    group, inner, outer = d.choice([1, 1, 2]), d.integer(1, 3), d.integer(1, 5)
    n.set("group", group)
    last = n.set("channels_last", None, 0, 1)
    x, w = bits(d, n.type("T1"), images(d, least, inner * group)), bits(d, n.type("T2"), (outer * group, inner, *kernel))
    n.bind("T3", x.dtype)
    by_channel = (outer * group,) if d.chance(40) else ()
    bias = d.indices((outer * group,), 500).astype(INT32) if d.chance(50) else None
    if last:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    zero_w = np.zeros(by_channel, w.dtype) if w.dtype == np.int8 else np.full(by_channel, 128, w.dtype)
    given = [x, scale(d), zero_point(d, x.dtype), w, scale(d, by_channel), zero_w, scale(d) * 10, zero_point(d, x.dtype), bias]
    return n.case(*given, tolerance=Sums.STEP, constant=(1, 2, 4, 5, 6, 7), maybe=(3, 8))


def _quantised(d: Draw, dtype: np.dtype, shape: tuple[int, ...]) -> list[np.ndarray]:
    return [bits(d, dtype, shape), scale(d), zero_point(d, dtype)]


@rule("QLinearAdd", "QLinearMul", domain="com.microsoft")
def quantised_arithmetic(n: Node, d: Draw) -> Case:
    a, b = d.operand_shapes(2, 3)
    if 0 in (*a, *b):
        raise Undrawable
    to = n.type("T")
    return n.case(
        *_quantised(d, to, a),
        *_quantised(d, to, b),
        scale(d) * 2,
        zero_point(d, to),
        tolerance=Sums.STEP,
        constant=(1, 2, 4, 5, 6, 7),
    )


@rule("QLinearSigmoid", "QLinearLeakyRelu", domain="com.microsoft")
def quantised_activation(n: Node, d: Draw) -> Case:
    n.set("alpha", None, 0.3)
    to = n.type("T")
    return n.case(
        *_quantised(d, to, d.shape(1, 3, least=1)), scale(d) / 5, zero_point(d, to), tolerance=Sums.STEP, constant=(1, 2, 3, 4)
    )


@rule("QLinearSoftmax", domain="com.microsoft")
def quantised_softmax(n: Node, d: Draw) -> Case:
    to, shape = n.type("T"), d.shape(2, 3, least=1)
    n.set("axis", d.axis(len(shape)))
    n.set("opset", 11, 13)
    return n.case(
        *_quantised(d, to, shape), np.array(1 / 256, F32), np.array(limits(to)[0], to), tolerance=Sums.STEP, constant=(1, 2, 3, 4)
    )


@rule("QLinearConcat", domain="com.microsoft")
def quantised_concat(n: Node, d: Draw) -> Case:
    shape = d.shape(1, 3, least=1)
    n.set("axis", d.axis(len(shape)))
    to = np.dtype(d.choice([np.uint8, np.int8]))
    parts = [v for _ in range(d.integer(1, 3)) for v in _quantised(d, to, shape)]
    fixed = [i + 2 for i in range(len(parts)) if i % 3]
    return n.case(scale(d), zero_point(d, to), *parts, tolerance=Sums.STEP, constant=(0, 1, *fixed))


@rule("QLinearWhere", domain="com.microsoft")
def quantised_where(n: Node, d: Draw) -> Case:
    condition, a, b = d.operand_shapes(3, 3)
    to = n.type("T")
    given = [d.values(bool, condition), *_quantised(d, to, a), *_quantised(d, to, b), scale(d), zero_point(d, to)]
    return n.case(*given, tolerance=Sums.STEP, constant=(2, 3, 5, 6, 7, 8))


@rule("QLinearAveragePool", domain="com.microsoft")
def quantised_pool(n: Node, d: Draw) -> Case:
    kernel, _, least = window(n, d, d.choice([1, 2, 2]), auto=d.chance(40))
    n.set("kernel_shape", kernel)
    n.set("ceil_mode", None, 0, 1)
    n.set("count_include_pad", None, 0, 1)
    last = n.set("channels_last", None, 0, 1)
    to = np.dtype(d.choice([np.uint8, np.int8]))
    x, s, z = _quantised(d, to, images(d, least, d.integer(1, 3)))
    if last:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return n.case(x, s, z, scale(d), zero_point(d, to), tolerance=Sums.STEP, constant=(1, 2, 3, 4))


@rule("QLinearGlobalAveragePool", domain="com.microsoft")
def quantised_global_pool(n: Node, d: Draw) -> Case:
    last, to = n.set("channels_last", 0, 1), np.dtype(d.choice([np.uint8, np.int8]))
    x, s, z = _quantised(d, to, images(d, [1, 1], d.integer(1, 5)))
    if last:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return n.case(x, s, z, scale(d), zero_point(d, to), tolerance=Sums.STEP, constant=(1, 2, 3, 4))


@rule("MatMulInteger16", domain="com.microsoft")
def matmul_integer_16(n: Node, d: Draw) -> Case:
    rows, inner, columns = d.size(1), d.size(1), d.size(1)
    return n.case(d.indices((rows, inner), 3000, n.type("T1")), d.indices((inner, columns), 3000, n.type("T2")), maybe=(1,))


@rule("MatMulIntegerToFloat", domain="com.microsoft")
def matmul_integer_to_float(n: Node, d: Draw) -> Case:
    rows, inner, columns = d.size(1), d.size(1), d.size(1)
    a, b = bits(d, n.type("T1"), (rows, inner)), bits(d, n.type("T2"), (inner, columns))
    by_column = (columns,) if d.chance(40) else ()
    zero_a, zero_b = (None if d.chance(30) else zero_point(d, x.dtype, s) for x, s in ((a, ()), (b, by_column)))
    bias = d.values(F32, (columns,), Values.PLAIN) if d.chance(50) else None
    return n.case(a, b, scale(d), scale(d, by_column), zero_a, zero_b, bias, tolerance=Sums.SUMS, maybe=(1, 3, 5))


@rule("DynamicQuantizeMatMul", domain="com.microsoft")
def dynamic_matmul(n: Node, d: Draw) -> Case:
    rows, inner, columns = d.size(1), d.size(1), d.size(1)
    a, b = d.values(F32, (rows, inner), Values.PLAIN), bits(d, n.type("T2"), (inner, columns))
    by_column = (columns,) if d.chance(40) else ()
    zero, bias = (
        (None if d.chance(40) else zero_point(d, b.dtype, by_column)),
        (d.values(F32, (columns,), Values.PLAIN) if d.chance(50) else None),
    )
    return n.case(a, b, scale(d, by_column), zero, bias, tolerance=Sums.SUMS, constant=(1, 2, 3))


@rule("QGemm", domain="com.microsoft")
def quantised_gemm(n: Node, d: Draw) -> Case:
    rows, inner, columns = d.size(1), d.size(1), d.size(1)
    flip_a, flip_b = n.set("transA", None, 0, 1), n.set("transB", None, 0, 1)
    n.set("alpha", None, 0.5)
    a = bits(d, n.type("TA"), (inner, rows) if flip_a else (rows, inner))
    b = bits(d, n.type("TB"), (columns, inner) if flip_b else (inner, columns))
    bias = d.indices((columns,), 500).astype(INT32) if d.chance(50) else None
    given = [a, scale(d), zero_point(d, a.dtype), b, scale(d), zero_point(d, b.dtype), bias]
    if d.chance(60):
        given += [scale(d) * 20, zero_point(d, a.dtype)]
    return n.case(*given, tolerance=Sums.STEP, constant=(1, 2, 4, 5, 7, 8), maybe=(3, 6))


@rule("QuantizeLinear", domain="com.microsoft")
def contrib_quantize(n: Node, d: Draw) -> Case:
    x, to = n.values("T1", d.shape(1, 3, least=1), Values.PLAIN), n.type("T2")
    if not is_integer(to):
        raise Undrawable
    axis = d.axis(x.ndim)
    shape = d.choice([(), (x.shape[axis],)])
    n.set("axis", axis)
    return n.case(x, scale(d, shape, x.dtype), zero_point(d, to, shape), tolerance=Sums.EXACT, maybe=(1, 2))


@rule("DequantizeLinear", domain="com.microsoft")
def contrib_dequantize(n: Node, d: Draw) -> Case:
    x = n.values("T1", d.shape(1, 3, least=1))
    if not is_integer(x.dtype):
        raise Undrawable
    axis = d.axis(x.ndim)
    shape = d.choice([(), (x.shape[axis],)])
    n.set("axis", axis)
    zero = None if x.dtype == np.int32 else zero_point(d, x.dtype, shape)
    return n.case(x, scale(d, shape, n.type("T2")), zero, maybe=(1, 2))
