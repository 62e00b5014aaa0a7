"""Selecting by index: Gather, GatherElements, GatherND. Constant indices become slices where they run evenly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from . import openvalues
from .builder import Builder, Declined, OperatorError, axis_index
from .evaluate import is_native
from .kernels import gather as kernels
from .kernels.sizes import alike, is_open
from .movement import take_at
from .primitives import LaunchContext, Tensor
from .registry import Takes, op


def index_type(indices: Tensor) -> str:
    """The element type of an index tensor.

    Raises:
        OperatorError: it is not int32 or int64.
    """
    if indices.dtype not in (np.int32, np.int64):
        raise OperatorError(f"indices must be int32 or int64, not {indices.dtype}")
    return f"i{indices.dtype.itemsize * 8}"


def wrapped(indices: np.ndarray, size: int) -> np.ndarray:
    """Indices with negative ones counted from the end.

    Raises:
        OperatorError: one lies outside `size`.
    """
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise OperatorError(f"an index of {indices.min()} .. {indices.max()} lies outside a dimension of {size}")
    if not indices.size or indices.min() >= 0:
        return indices
    return np.where(indices < 0, indices + size, indices)


def _dense(*tensors: Tensor) -> list[tuple[int, ...]]:
    return [tuple(range(x.rank)) for x in tensors]


def _kernel(
    t: Builder, name: str, x: Tensor, indices: Tensor, shape: Sequence[int], launch: Callable, reference: Callable
) -> Tensor:
    (out,) = t.kernel(
        name,
        (x, indices),
        [(x.dtype, tuple(shape))],
        launch,
        orders=_dense(x, indices),
        errors=kernels.ERRORS,
        reference=reference,
    )
    return out


@op("Gather", takes=Takes.TENSORS)
def gather(t: Builder, x, indices, *, axis=0):
    """The slices of x at the indices along an axis; the indices' dimensions take the axis' place."""
    kind = index_type(indices)
    d = axis_index(axis, x.rank)
    if x.rank == 0:
        raise OperatorError("the input has no dimension to gather from")
    shape = (*x.shape[:d], *indices.shape, *x.shape[d + 1 :])
    if x.is_open and indices.is_constant:
        return openvalues.tensor(np.take(x.content, wrapped(indices.constant, x.shape[d]), d), x.dtype)
    known = indices.is_constant and not x.is_constant and is_native(x.dtype)
    if known and is_open(x.shape[d]) and indices.size == 1:
        place = indices.constant.item()
        place = place + x.shape[d] if place < 0 else place
        if not 0 <= place < x.shape[d]:
            raise OperatorError(f"an index lies outside a dimension of {x.shape[d]}")
        return t.reshape(t.take(x, d, place, place + 1), shape)
    if known and not (is_open(x.shape[d]) and indices.size and indices.constant.min() < 0):
        places = wrapped(indices.constant, x.shape[d]).reshape(-1)
        try:
            return t.reshape(take_at(t, x, d, places), shape)
        except Declined:
            pass

    def launch(c: LaunchContext) -> list:
        (source, chosen), (out,) = c.inputs, c.outputs
        return kernels.gather_rows(
            source.address, chosen.address, out.address, x.dtype.itemsize, kind, prod(x.shape[:d]), x.shape[d : d + 1],
            prod(x.shape[d + 1 :]), indices.size, shared=True,
        )  # fmt: skip

    dtype = x.dtype

    def reference(values: list[np.ndarray]) -> list[np.ndarray]:
        source, chosen = values
        return [np.asarray(np.take(source, wrapped(chosen, source.shape[d]), d), dtype)]

    return _kernel(t, "gather", x, indices, shape, launch, reference)


@op("GatherND", since=11, takes=Takes.TENSORS)
def gather_nd(t: Builder, x, indices, *, batch_dims=0):
    """The slices of x at the index tuples in the last dimension of `indices`."""
    kind = index_type(indices)
    depth = indices.shape[-1] if indices.rank else 0
    if not 1 <= depth <= x.rank - batch_dims or x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise OperatorError(f"indices {list(indices.shape)} with {batch_dims} batch dimensions do not fit an input {list(x.shape)}")
    batch, chosen, inner = x.shape[:batch_dims], x.shape[batch_dims : batch_dims + depth], x.shape[batch_dims + depth :]
    between = indices.shape[batch_dims:-1]

    def launch(c: LaunchContext) -> list:
        (source, tuples), (out,) = c.inputs, c.outputs
        return kernels.gather_rows(
            source.address, tuples.address, out.address, x.dtype.itemsize, kind, prod(batch), chosen, prod(inner),
            prod(between), shared=False,
        )  # fmt: skip

    def reference(values: list[np.ndarray]) -> list[np.ndarray]:
        source = values[0].reshape(-1, *chosen, *inner)
        tuples = values[1].reshape(-1, prod(between), depth)
        places = [wrapped(tuples[:, :, k], n) for k, n in enumerate(chosen)]
        picked = np.asarray(source[(np.arange(len(source))[:, None], *places)], x.dtype)
        return [picked.reshape((*batch, *between, *inner))]

    return _kernel(t, "gather_nd", x, indices, (*batch, *between, *inner), launch, reference)


@op("GatherElements", since=11, takes=Takes.TENSORS)
def gather_elements(t: Builder, x, indices, *, axis=0):
    """out[i, j, k] = x[i, indices[i, j, k], k] for axis 1, and so on."""
    kind = index_type(indices)
    d = axis_index(axis, x.rank)
    if indices.rank != x.rank or any(m > n for e, (m, n) in enumerate(zip(indices.shape, x.shape)) if e != d):
        raise OperatorError(f"indices {list(indices.shape)} do not fit an input {list(x.shape)} along axis {axis}")
    sizes = [n if e == d else m for e, (m, n) in enumerate(zip(indices.shape, x.shape))]
    if d == x.rank - 1 and alike(sizes, x.shape):
        x, indices = _columns_alone(t, x, indices)
        sizes[d] = x.shape[d]
    corner = tuple(map(slice, sizes))
    x = t.slice(x, [0] * x.rank, [1] * x.rank, sizes) if is_native(x.dtype) else x

    def launch(c: LaunchContext) -> list:
        (source, chosen), (out,) = c.inputs, c.outputs
        return kernels.gather_elements(
            source.address, chosen.address, out.address, x.dtype.itemsize, kind, prod(sizes[:d]), sizes[d],
            indices.shape[d], prod(sizes[d + 1 :]),
        )  # fmt: skip

    def reference(values: list[np.ndarray]) -> list[np.ndarray]:
        return [np.take_along_axis(values[0][corner], wrapped(values[1], sizes[d]), d)]

    return _kernel(t, "gather_elements", x, indices, indices.shape, launch, reference)


def _columns_alone(t: Builder, x: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Of a product whose columns are chosen by known places, those that lie between these: of relative positions a few."""
    if x.columns is None or not indices.is_constant or indices.is_open or not indices.size:
        return x, indices
    places = wrapped(indices.constant, x.shape[-1])
    first, after = int(places.min()), int(places.max()) + 1
    if 2 * (after - first) > x.shape[-1]:
        return x, indices
    return x.columns(t, first, after), t.constant((places - first).astype(indices.dtype))


@op("ReverseSequence", since=10)
def reverse_sequence(t: Builder, x, sequence_lens, *, batch_axis=1, time_axis=0):
    """The first sequence_lens[b] steps of each sequence b in reverse; what comes after them stays."""
    if x.rank < 2 or {batch_axis, time_axis} != {0, 1}:
        raise OperatorError(f"time axis {time_axis} and batch axis {batch_axis} must be 0 and 1 of {list(x.shape)}")
    turned = [batch_axis, time_axis, *range(2, x.rank)]
    sequences = t.transpose(x, turned)
    steps = t.constant(np.arange(sequences.shape[1]))
    places = t.map("select(a < b, b - 1 - a, a)", steps, t.cast(t.unsqueeze(sequence_lens, [1]), np.int64))
    return t.transpose(gather_nd(t, sequences, t.unsqueeze(places, [2]), batch_dims=1), turned)
