"""Quantisation as elementwise expressions: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.

8-, 16- and 32-bit integers; those of 4 and 2 bits are 8 bits wide inside. float8 goes to the host.
"""

from __future__ import annotations

import numpy as np

from .builder import Builder, Declined, OperatorError, axis_index
from .cast import as_type, is_packed, native_dtype, unpacked, widened
from .evaluate import is_native, register_name
from .integers import rounded, same, single
from .primitives import Codes, Fold, Tensor
from .registry import Takes, op


def spread(t: Builder, x: Tensor, values: Tensor, axis: int, block_size: int) -> Tensor:
    """Scales or zero points to broadcast over x: one in all, one an index of `axis`, or one a block along it."""
    if values.size == 1 and values.rank <= 1:
        return t.reshape(values, ())
    d = axis_index(axis, x.rank)
    if values.rank == 1 and not block_size:
        if values.size != x.shape[d]:
            raise OperatorError(f"{values.size} scales or zero points for axis {axis} of size {x.shape[d]}")
        return t.reshape(values, [values.size, *[1] * (x.rank - d - 1)])
    blocks = values.shape[d]
    size = block_size or -(-x.shape[d] // blocks)
    wide = t.expand(t.unsqueeze(values, [d + 1]), [*values.shape[: d + 1], size, *values.shape[d + 1 :]])
    wide = t.reshape(wide, [*values.shape[:d], blocks * size, *values.shape[d + 1 :]])
    return t.take(wide, d, 0, x.shape[d])


@op("QuantizeLinear", since=10, takes=Takes.TENSORS)
def quantize_linear(t: Builder, x, y_scale, y_zero_point=None, *, axis=1, block_size=0, output_dtype=0, precision=0, saturate=1):
    """round(x / scale) + zero point, saturated to the zero point's type (default uint8)."""
    if y_zero_point is not None:
        dtype = y_zero_point.dtype
    else:
        dtype = native_dtype(output_dtype) if output_dtype else np.dtype(np.uint8)
    if is_packed(dtype):
        zero = None if y_zero_point is None else unpacked(t, y_zero_point)
        inside = np.dtype(np.uint8 if dtype.name[0] == "u" else np.int8)
        y = _quantised(t, x, y_scale, zero, (axis, block_size, precision), inside, _packed_limits(dtype))
        return as_type(t, y, dtype)
    if dtype.kind not in "iu" or dtype.itemsize > 2 or not is_native(x.dtype):
        raise Declined
    return _quantised(t, x, y_scale, y_zero_point, (axis, block_size, precision), dtype, (np.iinfo(dtype).min, np.iinfo(dtype).max))


def _packed_limits(dtype: np.dtype) -> tuple[int, int]:
    """The least and the greatest integer of a type of 4 or 2 bits."""
    bits = int(dtype.name[-1])
    return (0, 2**bits - 1) if dtype.name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _quantised(
    t: Builder, x: Tensor, y_scale: Tensor, y_zero_point: Tensor | None, how: tuple[int, int, int], dtype: np.dtype,
    limits: tuple[int, int],
) -> Tensor:  # fmt: skip
    axis, block_size, precision = how
    compute = native_dtype(precision) if precision else y_scale.dtype if x.dtype.kind == "i" else x.dtype
    float16 = compute == np.float16
    if compute.name not in ("float32", "float64"):
        compute = np.dtype(np.float32)
    # the quotient is one of float16 where the division is
    quotient = "rounded_f16(a / b)" if float16 else "a / b"
    scaled = t.map(quotient, t.cast(x, compute), t.cast(spread(t, x, y_scale, axis, block_size), compute))
    zero = t.constant(0, dtype) if y_zero_point is None else spread(t, x, y_zero_point, axis, block_size)
    if dtype.itemsize == 1 and compute == np.float32 and limits == (np.iinfo(dtype).min, np.iinfo(dtype).max):
        return rounded(t, "a", (scaled,), zero, dtype)
    low, high = limits
    text = f"at_most(at_least(rint(a) + b, {float(low)}), {float(high)})"
    return t.cast(t.map(text, scaled, t.cast(zero, compute)), dtype)


@op("DequantizeLinear", since=10, takes=Takes.TENSORS)
def dequantize_linear(t: Builder, x, x_scale, x_zero_point=None, *, axis=1, block_size=0, output_dtype=0):
    """(x - zero point) * scale."""
    dtype = native_dtype(output_dtype) if output_dtype else x_scale.dtype
    x, x_zero_point = unpacked(t, x), None if x_zero_point is None else unpacked(t, x_zero_point)
    if not is_native(x.dtype):
        raise Declined
    y = _dequantised(t, x, x_scale, x_zero_point, axis, block_size, dtype)
    if x.dtype.itemsize == 1 and (x_scale.size == 1 or (x_scale.rank == 1 and not block_size)):
        y.codes = Codes(x, x_scale, x_zero_point, axis_index(axis, max(x.rank, 1)) if x_scale.size > 1 else 0)
    return y


def _dequantised(
    t: Builder, x: Tensor, x_scale: Tensor, x_zero_point: Tensor | None, axis: int, block_size: int, dtype: np.dtype
) -> Tensor:  # fmt: skip
    """Of a large constant it is computed once a session, if it is needed: products take the integers."""
    parts, weight = [v for v in (x_scale, x_zero_point) if v is not None], x.weight
    if weight is not None and all(v.is_constant for v in parts):
        known = [v.constant for v in parts]

        def compute() -> np.ndarray:
            alone = Builder()
            scale, *zeros = map(alone.constant, known)
            whole = alone.constant(weight.array())
            return _dequantised(alone, whole, scale, zeros[0] if zeros else None, axis, block_size, dtype).constant

        key = ("dequantised", axis, block_size, dtype, *((v.dtype, v.shape, v.tobytes()) for v in known))
        return Tensor(dtype, x.shape, weight=weight.computed(key, compute, dtype, x.shape))
    scale = widened(t, spread(t, x, x_scale, axis, block_size))
    if x.rounded is not None and scale.dtype == np.float32 and same(x.rounded.zero, single(t, x_zero_point)):
        return t.cast(t.map("a * b", x.rounded.value, scale), dtype)
    wide = t.cast(x, np.int32)
    if x_zero_point is not None:
        wide = t.map("a - b", wide, t.cast(spread(t, x, x_zero_point, axis, block_size), np.int32))
    return t.cast(t.map(f"to_{register_name(scale.dtype)}(a) * b", wide, scale, dtype=scale.dtype), dtype)


@op("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(t: Builder, x):
    """uint8 with scale and zero point from the range of x, which is made to hold 0."""
    low = t.map("at_most(a, 0)", _of_all(t, Fold.MIN, x))
    high = t.map("at_least(a, 0)", _of_all(t, Fold.MAX, x))
    scale = t.map("(b - a) / 255.0", low, high)
    # all zeros: any scale will do
    safe = t.map("select(a == 0, 1, a)", scale)
    zero = t.cast(t.map("rint(at_most(at_least(-a / b, 0), 255))", low, safe), np.uint8)
    return rounded(t, "a / b", (x, safe), zero, np.dtype(np.uint8)), scale, zero


def _of_all(t: Builder, fold: Fold, x: Tensor) -> Tensor:
    """The smallest or the largest of all: of each row first, which threads share, and which what makes the rows may do."""
    if x.rank > 1:
        x = t.reduce(fold, x, [-1])
    return t.reduce(fold, x, keepdims=False)
