"""Products of quantised tensors with a quantised result: QLinearMatMul, QLinearConv.

The integer product is exact; it is scaled in float32 and rounded once, half to even, as in onnxruntime.
"""

from __future__ import annotations

import numpy as np

from .builder import Builder, Declined, OperatorError
from .conv_bytes import conv_of_bytes, per_filter
from .integers import rounded, single
from .matmul import matmul_integer
from .primitives import Tensor
from .registry import op


@op("QLinearMatMul", since=10)
def qlinear_matmul(t: Builder, a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point):
    """Scales and zero points: one in all, one a row of a (and y), one a column of b."""
    total = matmul_integer(t, a, b, a_zero_point, b_zero_point)
    rows, columns, result = _along_rows(t, a_scale), single(t, b_scale), _along_rows(t, y_scale)
    return _requantised(t, total, rows, columns, result, _along_rows(t, y_zero_point))


@op("QLinearConv", since=10)
def qlinear_conv(
    t: Builder, x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, B=None, **attributes
) -> Tensor:
    """The weights' scale and zero point are one in all or one a filter; the bias is int32 in units of x_scale * w_scale."""
    total = conv_of_bytes(t, x, w, x_zero_point, w_zero_point, **attributes)
    if B is not None:
        total = t.map("a + b", total, t.cast(per_filter(t, B, total.rank - 1), total.dtype))
    return _requantised(t, total, single(t, x_scale), per_filter(t, w_scale, total.rank - 1), y_scale, y_zero_point)


def _requantised(t: Builder, total: Tensor, left: Tensor, right: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """round(total * left * right / scale) + zero, saturated to the type of `zero`."""
    if zero.dtype.kind not in "iu" or zero.dtype.itemsize > 2:
        raise Declined
    factor = t.map("a * b / c", *(t.cast(x, np.float32) for x in (left, right, single(t, scale))))
    if zero.dtype.itemsize == 1:
        made = rounded(t, "to_f32(a) * b", (total, factor), single(t, zero), zero.dtype)
    else:
        limits = np.iinfo(zero.dtype)
        text = f"at_most(at_least(rint(to_f32(a) * b) + to_f32(c), {float(limits.min)}), {float(limits.max)})"
        made = t.cast(t.map(text, total, factor, t.cast(single(t, zero), np.int32), dtype=np.float32), zero.dtype)
    if made.shape != total.shape:
        raise OperatorError(f"a scale or zero point does not fit the result {list(total.shape)}")
    return made


def _along_rows(t: Builder, x: Tensor) -> Tensor:
    return t.unsqueeze(x, [1]) if x.rank == 1 and x.size > 1 else single(t, x)
