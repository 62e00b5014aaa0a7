"""Operators whose result is known from shapes, or is a constant pattern: nothing of them reaches a plan."""

from __future__ import annotations

import math

import numpy as np

from .builder import Builder, Declined, OperatorError, axis_index
from .cast import native_dtype
from .evaluate import is_native
from .kernels.sizes import most
from .registry import Takes, op


@op("Shape", takes=Takes.TENSORS)
def shape(t: Builder, x, *, start=0, end=None):
    """The dimensions from `start` up to `end`."""
    return t.constant(x.shape[start:end], np.int64)


@op("Size", takes=Takes.TENSORS)
def size(t: Builder, x):
    """The number of elements."""
    return t.constant(x.size, np.int64)


@op("ConstantOfShape", since=9)
def constant_of_shape(t: Builder, shape, *, value=None):
    """`value` (default float32 0) in every element."""
    fill = np.zeros(1, np.float32) if value is None else value
    sizes = t.ints(shape)
    if any(n < 0 for n in sizes):
        raise OperatorError(f"the shape {list(sizes)} has a negative size")
    return t.expand(t.constant(fill.reshape(())), sizes)


@op("Range", since=11)
def range_(t: Builder, start, limit, delta):
    """start, start + delta, ... up to, not including, limit."""
    if any(x.is_open for x in (start, limit, delta)):
        (first,), (last,), step = t.ints(start), t.ints(limit), t.value(delta).item()
        if step != 1:
            raise Declined("a range over an open size, in other steps than 1")
        return t.cast(t.numbers(most(last - first, 0), first), start.dtype)
    first, last, step = (t.value(x).reshape(())[()] for x in (start, limit, delta))
    if step == 0:
        raise OperatorError("delta is zero")
    number = int if start.dtype.kind in "iu" else float
    count = max(math.ceil((number(last) - number(first)) / number(step)), 0)
    return t.constant(first + np.arange(count).astype(start.dtype) * step, start.dtype)


@op("EyeLike", since=9)
def eye_like(t: Builder, x, *, dtype=None, k=0):
    """Ones on diagonal k of a matrix like x."""
    if x.rank != 2:
        raise OperatorError(f"the input must have 2 dimensions, not {x.rank}")
    return t.constant(np.eye(*x.shape, k=k), x.dtype if dtype is None else native_dtype(dtype))


@op("OneHot", since=9, takes=Takes.TENSORS)
def one_hot(t: Builder, indices, depth, values, *, axis=-1):
    """values[1] where an index equals the position along the new axis, else values[0]; negative indices count back."""
    n = t.ints(depth)[0]
    place = axis_index(axis, indices.rank + 1)
    spread = [n if d == place else 1 for d in range(indices.rank + 1)]
    wanted = t.unsqueeze(t.cast(indices, np.int64), [place])
    wanted = t.map("select(a < 0, a + b, a)", wanted, t.constant(n, np.int64))
    position = t.reshape(t.numbers(n), spread)
    if not is_native(values.dtype):
        marks = t.map("to_i64(a == b)", wanted, position, dtype=np.int64)
        kind = [(values.dtype, marks.shape)]
        return t.host(lambda v: [v[1][v[0]]], (marks, values), kind, f"{values.dtype} lives on the host")[0]
    off, on = (t.reshape(t.take(values, 0, i, i + 1), ()) for i in (0, 1))
    return t.map("select(a == b, c, d)", wanted, position, on, off, dtype=values.dtype)
