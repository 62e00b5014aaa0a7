"""What runs through a dimension in order: CumSum, CumProd, and selecting where a condition holds: NonZero, Compress."""

from __future__ import annotations

from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, OperatorError, axis_index
from .cast import widened
from .kernels import scan as kernels
from .primitives import LaunchContext, Opaque, Tensor
from .registry import NUMBERS, check_types, op


def _register(name: str, product: bool, since: int) -> None:
    @op(name, since=since)
    def lower(t, x, axis, *, exclusive=0, reverse=0):
        check_types((x,), NUMBERS)
        if x.rank == 0:
            raise OperatorError("the input has no dimension to run through")
        d = axis_index(t.ints(axis)[0], x.rank)
        return t.cast(_cumulative(t, widened(t, x), d, product, bool(exclusive), bool(reverse)), x.dtype)

    lower.__doc__ = f"The {'products' if product else 'sums'} of all elements up to each (`exclusive`: without it) along an axis."


def _cumulative(t: Builder, x: Tensor, d: int, product: bool, exclusive: bool, reverse: bool) -> Tensor:
    def launch(c: LaunchContext) -> list:
        sizes = prod(x.shape[:d]), x.shape[d], prod(x.shape[d + 1 :])
        how = {"product": product, "exclusive": exclusive, "reverse": reverse}
        return kernels.cumulative(evaluate.memory_name(x.dtype), c.inputs[0].address, c.outputs[0].address, *sizes, **how)

    def reference(values: list[np.ndarray]) -> list[np.ndarray]:
        turned = np.flip(values[0], d) if reverse else values[0]
        y = (np.cumprod if product else np.cumsum)(turned, d, dtype=x.dtype)
        if exclusive and x.shape[d]:
            y = np.roll(y, 1, d)
            y[(slice(None),) * d + (0,)] = int(product)
        return [np.ascontiguousarray(np.flip(y, d) if reverse else y)]

    dense = [tuple(range(x.rank))]
    return t.kernel("cumulative", (x,), [(x.dtype, x.shape)], launch, orders=dense, flops=x.size, reference=reference)[0]


_register("CumSum", False, since=11)
_register("CumProd", True, since=26)


def _holding(t: Builder, condition: Tensor) -> tuple[Tensor, Tensor]:
    """The indices at which a bool vector holds, followed by zeros, and their number, int64[1]."""
    count = condition.size

    def launch(c: LaunchContext) -> list:
        return kernels.positions(c.inputs[0].address, *(y.address for y in c.outputs), count)

    def reference(values: list[np.ndarray]) -> list[np.ndarray]:
        (found,) = np.nonzero(values[0])
        return [np.r_[found, np.zeros(count - len(found), np.int64)], np.array([len(found)], np.int64)]

    kinds = [(np.dtype(np.int64), (count,)), (np.dtype(np.int64), (1,))]
    return t.kernel("positions", (condition,), kinds, launch, orders=[(0,)], reference=reference)


@op("NonZero", since=9)
def non_zero(t: Builder, x: Tensor) -> Tensor | Opaque:
    """int64[rank, found]: the indices of the elements that are not zero, in row-major order."""
    if x.rank == 0 or x.size == 0:
        # as ONNX says, a scalar has no dimension in which it could have a place
        kept = int(x.size and t.value(x) != 0) if x.rank == 0 else 0
        return t.constant(np.zeros((x.rank, kept), np.int64))
    places, found = _holding(t, t.reshape(t.cast(x, bool), (x.size,)))
    places = t.unsqueeze(places, [0])
    steps = [(t.constant(prod(x.shape[d + 1 :]), np.int64), t.constant(n, np.int64)) for d, n in enumerate(x.shape)]
    return t.cut(t.concat([t.map("a / b % c", places, *step) for step in steps], 0), found, 1)


@op("Compress", since=9)
def compress(t: Builder, x: Tensor, condition: Tensor, *, axis=None) -> Tensor | Opaque:
    """The slices along an axis (None: the elements) where the condition, which may be shorter, holds."""
    check_types((condition,), "b")
    d = 0 if axis is None else axis_index(axis, x.rank)
    x = t.reshape(x, (x.size,)) if axis is None else x
    if condition.rank != 1:
        raise OperatorError(f"the condition must be a vector, not {list(condition.shape)}")
    condition = t.take(condition, 0, 0, min(condition.size, x.shape[d]))
    if condition.size == 0:
        return t.take(x, d, 0, 0)
    places, found = _holding(t, condition)
    return t.cut(t.op("Gather", x, places, axis=d, since=13), found, d)
