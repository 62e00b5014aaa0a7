"""Constants whose content depends on open sizes: what shape arithmetic is made of, on arrays of objects.

Only whole numbers of 32 and 64 bits are computed with sizes in them; any other operation on such a constant asks for its
`Tensor.constant`, which fixes the sizes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from .evaluate import compiled
from .kernels.sizes import Size, most
from .kernels.sizes import least as smallest
from .primitives import Fold, Tensor

_WHOLE = ("int32", "int64")


def tensor(content: np.ndarray, dtype: np.dtype) -> Tensor:
    """A constant with this content, which may hold sizes: they stay open in whole numbers and in a float's one element."""
    content = np.asarray(content, object)
    flat = content.reshape(-1)
    if not any(isinstance(n, Size) for n in flat):
        return Tensor(dtype, content.shape, content.astype(dtype))
    made = Tensor(dtype, content.shape)
    made.content = content
    fits = dtype.name == "int32" and all(-(1 << 31) <= n < 1 << 31 for n in flat)
    if not (fits or dtype.name == "int64" or (dtype.name in ("float32", "float64") and len(flat) == 1)):
        return Tensor(dtype, content.shape, np.array([int(n) for n in flat]).astype(dtype).reshape(content.shape))
    return made


def whole(sizes: Sequence[object], shape: Sequence[int], dtype: np.dtype) -> Tensor:
    """A constant of integers and sizes."""
    content = np.empty(len(sizes), object)
    content[:] = sizes
    return tensor(content.reshape(shape), dtype)


def map_(text: str, inputs: Sequence[Tensor], dtype: np.dtype, shape: Sequence[int]) -> Tensor | None:
    """`text` over constants, some of which hold sizes; None if sizes have to be fixed for it."""
    if any(x.dtype.name not in (*_WHOLE, "bool") for x in inputs) or dtype.name not in (*_WHOLE, "bool"):
        return None
    names = {chr(ord("a") + i): x.content.astype(object) for i, x in enumerate(inputs)}
    try:
        result = np.asarray(eval(compiled(text), _SCOPE, names), object)
    except NameError:
        return None
    return tensor(np.broadcast_to(result, tuple(shape)), dtype)


def reduce(fold: Fold, x: Tensor, axes: Sequence[int]) -> Tensor | None:
    """Axes of a constant that holds sizes folded, and kept with size 1; None if sizes have to be fixed for it."""
    if fold not in _FOLDS or x.dtype.name not in _WHOLE:
        return None
    content = x.content
    for axis in axes:
        content = _FOLDS[fold].reduce(content, axis, keepdims=True)
    return tensor(content, x.dtype)


def _divided(x: object, y: object) -> object:
    """C's division, as `evaluate` has it."""
    if y == 0:
        return 0
    quotient = abs(x) // abs(y)
    return quotient if (x >= 0) == (y > 0) else -quotient


def _elementwise(function, count: int):
    return np.frompyfunc(function, count, 1)


_divide = _elementwise(_divided, 2)
_remainder = _elementwise(lambda x, y: x - _divided(x, y) * y, 2)
_same = _elementwise(lambda x: x, 1)
_FOLDS = {
    Fold.ADD: _elementwise(operator.add, 2), Fold.MUL: _elementwise(operator.mul, 2),
    Fold.MIN: _elementwise(smallest, 2), Fold.MAX: _elementwise(most, 2),
}  # fmt: skip
_SCOPE = {
    "select": _elementwise(lambda c, x, y: x if c else y, 3), "_divide": _divide, "_remainder": _remainder,
    "floor_mod": _elementwise(lambda x, y: x % y if y != 0 else 0, 2), "minimum": _elementwise(smallest, 2),
    "maximum": _elementwise(most, 2), "at_least": _elementwise(most, 2), "at_most": _elementwise(smallest, 2),
    "absolute": _elementwise(abs, 1), "to_i64": _same, "to_i32": _same, "to_b1": _elementwise(bool, 1), "__builtins__": {},
}  # fmt: skip
