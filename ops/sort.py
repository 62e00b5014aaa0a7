"""Selecting by order: TopK, on `kernels/topk`, and Unique, on `kernels/distinct`; the values are gathered by the indices."""

from __future__ import annotations

from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, OperatorError, axis_index
from .gather import gather, gather_elements
from .kernels import distinct as distinct_kernels
from .kernels import topk as kernels
from .primitives import LaunchContext, Opaque, Tensor
from .registry import Takes, contrib, op


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


@op("Unique", since=11, takes=Takes.TENSORS)
def unique(t: Builder, x: Tensor, *, axis=None, sorted=1) -> tuple[Tensor | Opaque, ...]:
    """The distinct slices along an axis (None: elements), their first places, the place of each among them, counts."""
    x = t.reshape(x, (x.size,)) if axis is None else x
    d = 0 if axis is None else axis_index(axis, x.rank)
    first, places, counts, found = _distinct(t, x, d, bool(sorted))
    firsts = t.cut(first, found, 0)
    return t.cut(gather(t, x, first, axis=d), found, d), firsts, places, t.cut(counts, found, 0)


@contrib("Unique", takes=Takes.TENSORS)
def contrib_unique(t: Builder, x: Tensor) -> tuple[Tensor | Opaque, ...]:
    """The distinct values in the order of their first occurrence, the place of each element among them, and their counts."""
    values, _, places, counts = unique(t, x, sorted=0)
    return values, places, counts


def _distinct(t: Builder, x: Tensor, d: int, ascending: bool) -> tuple[Tensor, ...]:
    """Of the slices of x along dimension d: first places and counts, each followed by zeros, places among them; their number."""
    count = x.shape[d]
    columns = prod(x.shape[:d]) * prod(x.shape[d + 1 :])
    rows = t.reshape(t.transpose(x, [d, *(e for e in range(x.rank) if e != d)]), (count, columns))

    def launch(c: LaunchContext) -> list:
        places = (c.inputs[0].address, *(y.address for y in c.outputs))
        return distinct_kernels.distinct(evaluate.memory_name(x.dtype), *places, count, columns, ascending)

    whole = np.dtype(np.int64)
    kinds = [(whole, (count,)), (whole, (count,)), (whole, (count,)), (whole, (1,))]
    first, places, counts, found = t.kernel(
        "distinct", (rows,), kinds, launch, orders=((0, 1),), reference=lambda v: _distinct_rows(v[0], ascending)
    )
    return first, places, counts, found


def _distinct_rows(x: np.ndarray, ascending: bool) -> list[np.ndarray]:
    """The same with numpy."""
    if x.dtype == object:  # texts by their ranks, as numpy compares no rows of them
        x = np.unique(x, return_inverse=True)[1].reshape(x.shape)
    x = x if x.shape[1] else np.zeros((len(x), 1), x.dtype)
    _, first, places, counts = np.unique(x[:, 0] if x.shape[1] == 1 else x, True, True, True, axis=0)
    places = places.reshape(-1)
    if not ascending:
        order = np.argsort(first, kind="stable")
        numbers = np.empty_like(order)
        numbers[order] = np.arange(len(order))
        first, places, counts = first[order], numbers[places], counts[order]
    rest = np.zeros(len(x) - len(first), np.int64)
    return [np.r_[first, rest], np.asarray(places, np.int64), np.r_[counts, rest], np.array([len(first)], np.int64)]
