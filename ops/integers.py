"""Products of integers on the kernels of `kernels/conv`: which element types they have, and 8-bit integers as int16.

Factors of int16 are multiplied two at a time: neighbours along the dimension that is summed over are one element of the
kernel (`i16x2`), and the sum of their products is an int32. As differences of 8-bit integers are at most 255, it is exact.
"""

from __future__ import annotations

import numpy as np

from . import evaluate
from .builder import Builder
from .primitives import Tensor

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


def centred(t: Builder, x: Tensor, zero: Tensor | None) -> Tensor:
    """x - zero of 8-bit integers, as int16."""
    if zero is None:
        return t.cast(x, np.int16)
    if not zero.is_constant:
        return t.map("to_i16(a) - to_i16(b)", x, zero, dtype=np.int16)
    offset, weight = zero.constant.astype(np.int16), x.weight
    if not offset.any():
        return t.cast(x, np.int16)
    if weight is None:
        return t.map("to_i16(a) - b", x, t.constant(offset), dtype=np.int16)
    key = ("centred", offset.shape, offset.tobytes())
    made = weight.computed(key, lambda: weight.array().astype(np.int16) - offset, np.dtype(np.int16), x.shape)
    return Tensor(made.dtype, made.shape, weight=made)


def single(t: Builder, x: Tensor | None) -> Tensor | None:
    """Scales or zero points; a single one as a scalar."""
    return x if x is None or x.size != 1 else t.reshape(x, ())
