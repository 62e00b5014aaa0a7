"""Products of integers on the kernels of `kernels/conv`: which element types they have, and 8-bit integers as int16.

Factors of int16 are multiplied two at a time: neighbours along the dimension that is summed over are one element of the
kernel (`i16x2`), and the sum of their products is an int32. As differences of 8-bit integers are at most 255, it is exact.
"""

from __future__ import annotations

import numpy as np

from . import evaluate
from .builder import Builder
from .primitives import Rounded, Tensor

# element types of kernels that compute others' too
_TYPES = {"i16": "i16x2", "u32": "i32", "u64": "i64"}


def kernel_type(dtype: np.dtype) -> str:
    """The element type of the kernel that multiplies factors of a dtype."""
    name = evaluate.memory_name(dtype)
    return _TYPES.get(name, name)


def sum_type(dtype: np.dtype) -> np.dtype:
    """What that kernel's sums are."""
    return np.dtype(np.int32) if dtype == np.int16 else dtype


def paired(
    dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...], inner: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:  # fmt: skip
    """Shape and strides of factors as the kernel sees them: neighbouring int16 along dimension `inner` are one element."""
    if dtype != np.int16:
        return shape, strides
    pairs = tuple(n // 2 if d == inner else n for d, n in enumerate(shape))
    return pairs, tuple(2 * s if d == inner else s for d, s in enumerate(strides))


def centred(t: Builder, x: Tensor, zero: Tensor | None, dtype: type = np.int16) -> Tensor:
    """x - zero of 8-bit integers as int16, or as floats."""
    if x.rounded is not None and same(x.rounded.zero, zero):
        return t.cast(x.rounded.value, dtype)
    if zero is None:
        return t.cast(x, dtype)
    if not zero.is_constant:
        return t.cast(t.map("to_i16(a) - to_i16(b)", x, zero, dtype=np.int16), dtype)
    offset, weight = zero.constant.astype(np.int16), x.weight
    if not offset.any():
        return t.cast(x, dtype)
    if weight is None:
        return t.cast(t.map("to_i16(a) - b", x, t.constant(offset), dtype=np.int16), dtype)
    key = ("centred", offset.shape, offset.tobytes())
    made = weight.computed(key, lambda: weight.array().astype(np.int16) - offset, np.dtype(np.int16), x.shape)
    return t.cast(Tensor(made.dtype, made.shape, weight=made), dtype)


def same(zero: Tensor, other: Tensor | None) -> bool:
    """Whether two zero points are surely the same; None is 0."""
    if zero is other:
        return True
    known = zero.is_constant and (other is None or other.is_constant)
    return known and bool(np.all(zero.constant == (0 if other is None else other.constant))) and zero.size == 1


def rounded(t: Builder, text: str, inputs: tuple[Tensor, ...], zero: Tensor, dtype: np.dtype) -> Tensor:
    """round(text of the inputs) + zero, saturated to the limits of an 8-bit type.

    What is to be rounded is limited first: the sum, and the conversion, are then left to those who want them.
    """
    limits, offset = np.iinfo(dtype), t.cast(zero, np.float32)
    low, high = (t.map(f"{float(limit)} - a", offset) for limit in (limits.min, limits.max))
    names = "abcdefgh"[len(inputs) : len(inputs) + 2]
    value = t.map(f"rint(at_most(at_least({text}, {names[0]}), {names[1]}))", *inputs, low, high, dtype=np.float32)
    y = t.cast(t.map("a + b", value, offset), dtype)
    y.rounded = Rounded(value, zero)
    return y


def single(t: Builder, x: Tensor | None) -> Tensor | None:
    """Scales or zero points; a single one as a scalar."""
    return x if x is None or x.size != 1 else t.reshape(x, ())
