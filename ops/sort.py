"""Selecting by order: TopK, on `kernels/topk`; the values are gathered by the indices."""

from __future__ import annotations

from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, OperatorError, axis_index
from .gather import gather_elements
from .kernels import topk as kernels
from .primitives import LaunchContext, Tensor
from .registry import op


@op("TopK", since=1)
def top_k_by_attribute(t: Builder, X: Tensor, *, k, axis=-1) -> tuple[Tensor, Tensor]:
    """Opset 1: k is an attribute."""
    return _top_k(t, X, k, axis, largest=True)


@op("TopK", since=10)
def top_k(t: Builder, X: Tensor, K: Tensor, *, axis=-1, largest=1, sorted=1) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements along an axis and their indices; of equal ones the first come first."""
    return _top_k(t, X, t.ints(K)[0], axis, bool(largest))


def _top_k(t: Builder, x: Tensor, k: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    d = axis_index(axis, x.rank)
    if x.rank == 0 or x.dtype == bool:
        raise OperatorError(f"no elements can be chosen from {x.dtype}{list(x.shape)}")
    count = x.shape[d]
    if not 0 <= k <= count:
        raise OperatorError(f"k = {k} is not between 0 and the {count} elements of axis {axis}")
    shape = tuple(k if e == d else n for e, n in enumerate(x.shape))
    if k == 1 and largest and prod(x.shape[d + 1 :]) > 1:
        # a reduction reads neighbouring rows by vectors
        indices = t.reduce("argmax", x, (d,))
        return gather_elements(t, x, indices, axis=d), indices

    def launch(c: LaunchContext) -> list:
        name = evaluate.memory_name(x.dtype)
        outer, inner = prod(x.shape[:d]), prod(x.shape[d + 1 :])
        return kernels.topk(name, c.inputs[0].address, c.outputs[0].address, outer, count, inner, k, largest)

    (indices,) = t.kernel(
        "topk", (x,), [(np.dtype(np.int64), shape)], launch, orders=(tuple(range(x.rank)),),
        reference=lambda v: [_reference(v[0], k, d, largest)],
    )  # fmt: skip
    return gather_elements(t, x, indices, axis=d), indices


def _reference(x: np.ndarray, k: int, axis: int, largest: bool) -> np.ndarray:
    """The same with numpy: a stable sort, which puts NaN last (of the largest: first)."""
    if not largest:
        return np.take(np.argsort(x, axis, kind="stable"), range(k), axis)
    # sorted backwards, so that of equal elements the first is last
    turned = np.argsort(np.flip(x, axis), axis, kind="stable")
    return x.shape[axis] - 1 - np.take(np.flip(turned, axis), range(k), axis)
