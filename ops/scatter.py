"""Writing by index into a copy of a tensor: Scatter, ScatterElements, ScatterND."""

from __future__ import annotations

from math import prod

import numpy as np

from .builder import Builder, Declined, OperatorError, axis_index
from .evaluate import is_native, memory_name
from .gather import index_type, wrapped
from .kernels import scatter as kernels
from .kernels.gather import ERRORS
from .primitives import LaunchContext, Tensor
from .registry import Takes, op

_REDUCTIONS = {"none": "none", "add": "add", "mul": "mul", "min": "minimum", "max": "maximum"}
_NUMPY = {"add": np.add, "mul": np.multiply, "minimum": np.minimum, "maximum": np.maximum}


def _reduction(name: str, data: Tensor, updates: Tensor) -> str:
    if data.dtype != updates.dtype:
        raise OperatorError(f"data and updates must have one type, not {data.dtype} and {updates.dtype}")
    if name not in _REDUCTIONS:
        raise OperatorError(f"reduction must be one of {', '.join(_REDUCTIONS)}, not {name!r}")
    if name != "none" and (data.dtype == bool or not is_native(data.dtype)):
        raise Declined
    return _REDUCTIONS[name]


def _kernel(t: Builder, name: str, data: Tensor, indices: Tensor, updates: Tensor, launches, places) -> Tensor:
    """`launches` makes the updating launches from operands; `places` an index of numpy from the indices' values."""

    def launch(c: LaunchContext) -> list:
        x, chosen, new = c.inputs
        (out,) = c.outputs
        here = x.address == out.address
        copied = [] if here else kernels.copy_all(x.address, out.address, data.size * data.dtype.itemsize)
        return [*copied, *launches(out.address, chosen.address, new.address)]

    def reference(values: list[np.ndarray]) -> list[np.ndarray]:
        result = values[0].copy()
        where, reduction = places(values[1])
        if reduction == "none":
            result[where] = values[2]
        else:
            _NUMPY[reduction].at(result, where, values[2])
        return [result]

    inputs = (data, indices, updates)
    orders = [tuple(range(x.rank)) for x in inputs]
    kind = [(data.dtype, data.shape)]
    return t.kernel(name, inputs, kind, launch, orders=orders, errors=ERRORS, reference=reference, changes=0)[0]


@op("ScatterND", since=11, takes=Takes.TENSORS)
def scatter_nd(t: Builder, data, indices, updates, *, reduction="none"):
    """A copy of data with updates[j] in the slice at the index tuple indices[j]."""
    kind, how = index_type(indices), _reduction(reduction, data, updates)
    depth = indices.shape[-1] if indices.rank else 0
    if not 1 <= depth <= data.rank or updates.shape != (*indices.shape[:-1], *data.shape[depth:]):
        raise OperatorError(f"updates {list(updates.shape)} at indices {list(indices.shape)} do not fit data {list(data.shape)}")
    chosen, inner, rows = data.shape[:depth], prod(data.shape[depth:]), prod(indices.shape[:-1])

    def launches(out: object, places: object, new: object) -> list:
        return kernels.scatter_rows(out, places, new, memory_name(data.dtype), kind, how, chosen, inner, rows)

    def places(values: np.ndarray) -> tuple:
        return tuple(wrapped(values[..., k], n) for k, n in enumerate(chosen)), how

    return _kernel(t, "scatter_nd", data, indices, updates, launches, places)


@op("Scatter", since=9, takes=Takes.TENSORS)
def scatter(t: Builder, data, indices, updates, *, axis=0):
    """ScatterElements under its first name."""
    return scatter_elements(t, data, indices, updates, axis=axis)


@op("ScatterElements", since=11, takes=Takes.TENSORS)
def scatter_elements(t: Builder, data, indices, updates, *, axis=0, reduction="none"):
    """A copy of data with out[i, indices[i, j, k], k] = updates[i, j, k] for axis 1, and so on."""
    kind, how = index_type(indices), _reduction(reduction, data, updates)
    d = axis_index(axis, data.rank)
    sizes = data.shape
    if indices.shape != updates.shape or any(m > n for e, (m, n) in enumerate(zip(indices.shape, sizes)) if e != d):
        raise OperatorError(f"updates {list(updates.shape)} at indices {list(indices.shape)} do not fit data {list(sizes)}")
    if is_native(data.dtype) and any(m != n for e, (m, n) in enumerate(zip(indices.shape, sizes)) if e != d):
        return _scatter_corner(t, data, indices, updates, d, reduction)

    def launches(out: object, places: object, new: object) -> list:
        return kernels.scatter_elements(
            out,
            places,
            new,
            memory_name(data.dtype),
            kind,
            how,
            prod(sizes[:d]),
            sizes[d],
            indices.shape[d],
            prod(sizes[d + 1 :]),
        )

    def places(values: np.ndarray) -> tuple:
        grid = list(np.indices(values.shape, sparse=True))
        grid[d] = wrapped(values, sizes[d])
        return tuple(grid), how

    return _kernel(t, "scatter_elements", data, indices, updates, launches, places)


def _scatter_corner(t: Builder, data: Tensor, indices: Tensor, updates: Tensor, d: int, reduction: str) -> Tensor:
    """Indices smaller than data beside the axis: only the corner that they cover is written, the rest is joined on."""
    sizes = [n if e == d else m for e, (m, n) in enumerate(zip(indices.shape, data.shape))]
    whole = scatter_elements(
        t, t.slice(data, [0] * data.rank, [1] * data.rank, sizes), indices, updates, axis=d, reduction=reduction
    )
    for e in range(data.rank):
        if whole.shape[e] < data.shape[e]:
            starts = [whole.shape[e] if f == e else 0 for f in range(data.rank)]
            rest = [data.shape[f] - starts[f] if f == e else n for f, n in enumerate(whole.shape)]
            whole = t.concat([whole, t.slice(data, starts, [1] * data.rank, rest)], e)
    return whole


@op("TensorScatter", since=24)
def tensor_scatter(t: Builder, past_cache, update, write_indices=None, *, axis=-2, mode="linear"):
    """A copy of the cache with each sequence's update from its write index on; `circular`: past the end from the start."""
    d = axis_index(axis, past_cache.rank)
    size, count = past_cache.shape[d], update.shape[d]
    if mode not in ("linear", "circular") or d == 0 or count > size:
        raise OperatorError(f"an update {list(update.shape)} of a cache {list(past_cache.shape)} along axis {axis}, mode {mode!r}")
    steps = np.arange(count).reshape([-1 if e == d else 1 for e in range(update.rank)])
    first = t.constant(0, np.int64) if write_indices is None else t.cast(write_indices, np.int64)
    first = t.reshape(first, [first.size, *[1] * (update.rank - 1)])
    places = t.map(
        "(a + b) % c" if mode == "circular" else "a + b", first, t.constant(steps), *([t.constant(size)] * (mode == "circular"))
    )
    return scatter_elements(t, past_cache, t.expand(places, update.shape), update, axis=d)
