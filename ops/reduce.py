"""Reductions over axes, as compositions of elementwise expressions and folds: Reduce*, ArgMax, ArgMin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .cast import widened
from .primitives import Fold, Tensor
from .registry import ANY, FLOATS, NUMBERS, check_types, op

# how one reduction is written: builder, x, sorted axes -> result with the axes kept with size 1
Reduction = Callable[[Builder, Tensor, Sequence[int]], Tensor]


def fold_sum(t: Builder, x: Tensor, axes: Sequence[int]) -> Tensor:
    """Sum over the axes, kept with size 1."""
    return t.reduce(Fold.ADD, x, axes)


def fold_mean(t: Builder, x: Tensor, axes: Sequence[int]) -> Tensor:
    """Mean over the axes, kept with size 1; integers divide with truncation."""
    count = prod(x.shape[a] for a in axes)
    return t.map("a / b", fold_sum(t, x, axes), t.constant(count, x.dtype))


def _sum_square(t: Builder, x: Tensor, axes: Sequence[int]) -> Tensor:
    return fold_sum(t, t.map("a * a", x), axes)


def _l2(t: Builder, x: Tensor, axes: Sequence[int]) -> Tensor:
    if x.dtype.kind in FLOATS:
        return t.map("sqrt(a)", _sum_square(t, x, axes))
    return t.cast(_l2(t, t.cast(x, np.float64), axes), x.dtype)


def _log_sum(t: Builder, x: Tensor, axes: Sequence[int]) -> Tensor:
    if x.dtype.kind in FLOATS:
        return t.map("log(a)", fold_sum(t, x, axes))
    return t.cast(_log_sum(t, t.cast(x, np.float64), axes), x.dtype)


def _log_sum_exp(t: Builder, x: Tensor, axes: Sequence[int]) -> Tensor:
    if x.dtype.kind not in FLOATS:
        return t.cast(_log_sum_exp(t, t.cast(x, np.float64), axes), x.dtype)
    # the largest element is taken out; an infinite one is not, for inf - inf is NaN
    top = t.map("select(absolute(a) == inf, 0, a)", t.reduce(Fold.MAX, x, axes))
    return t.map("log(a) + b", fold_sum(t, t.map("exp(a - b)", x, top), axes), top)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": fold_sum,
    "ReduceMean": fold_mean,
    "ReduceProd": lambda t, x, axes: t.reduce(Fold.MUL, x, axes),
    "ReduceMax": lambda t, x, axes: t.reduce(Fold.MAX, x, axes),
    "ReduceMin": lambda t, x, axes: t.reduce(Fold.MIN, x, axes),
    "ReduceL1": lambda t, x, axes: fold_sum(t, t.map("absolute(a)", x), axes),
    "ReduceL2": _l2,
    "ReduceSumSquare": _sum_square,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}


def _register(name: str, reduction: Reduction) -> None:
    def lower(t: Builder, x: Tensor, axes: Sequence[int] | None, keepdims: int) -> Tensor:
        check_types((x,), ANY if name in ("ReduceMax", "ReduceMin") else NUMBERS)
        places = sorted({axis_index(a, x.rank) for a in axes} if axes is not None else range(x.rank))
        total = t.cast(reduction(t, widened(t, x), places), x.dtype)
        return total if keepdims else t.squeeze(total, places)

    @op(name)
    def by_attribute(t, x, *, axes=None, keepdims=1):
        return lower(t, x, axes or None, keepdims)

    @op(name, since=13 if name == "ReduceSum" else 18)
    def by_input(t, x, axes=None, *, keepdims=1, noop_with_empty_axes=0):
        given = () if axes is None else t.ints(axes)
        return lower(t, x, given or (() if noop_with_empty_axes else None), keepdims)


for _name, _reduction in _REDUCTIONS.items():
    _register(_name, _reduction)


def _arg(name: str, first: Fold, last: Fold) -> None:
    @op(name)
    def lower(t, x, *, axis=0, keepdims=1, select_last_index=0):
        check_types((x,), NUMBERS)
        if x.size == 0:
            return _arg_of_nothing(t, x, axis_index(axis, x.rank), bool(keepdims))
        return t.reduce(last if select_last_index else first, x, [axis], bool(keepdims))


def _arg_of_nothing(t: Builder, x: Tensor, axis: int, keepdims: bool) -> Tensor:
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    if prod(before) * prod(after):
        raise OperatorError(f"axis {axis} of {list(x.shape)} is empty: no element is the first or last extreme one")
    return t.constant(np.zeros((*before, *([1] if keepdims else []), *after), np.int64))


_arg("ArgMax", Fold.ARGMAX, Fold.ARGMAX_LAST)
_arg("ArgMin", Fold.ARGMIN, Fold.ARGMIN_LAST)
