"""Operators that move elements without computing: views, concatenation, padding, tiling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

import numpy as np

from .builder import Builder, Declined, OperatorError, axis_index, broadcast
from .kernels.sizes import is_open
from .primitives import Tensor
from .registry import Takes, op


# -- the shape changes, the order does not
@op("Reshape", takes=Takes.TENSORS)
def reshape_by_attribute(t: Builder, x, *, shape, consumed_inputs=None):
    """Before opset 5 the shape is an attribute."""
    return _reshape(t, x, shape)


@op("Reshape", since=5, takes=Takes.TENSORS)
def reshape(t: Builder, x, shape, *, allowzero=0):
    """0 keeps a size (unless allowzero), one -1 is what remains."""
    return _reshape(t, x, t.ints(shape), allowzero)


def _reshape(t: Builder, x: Tensor, shape: Sequence[int], allowzero: int = 0) -> Tensor:
    sizes = list(shape)
    for d, n in enumerate(sizes):
        if n == 0 and not allowzero:
            if d >= x.rank:
                raise OperatorError(f"shape {list(shape)} keeps dimension {d}, which the input {list(x.shape)} does not have")
            sizes[d] = x.shape[d]
    if sizes.count(-1) > 1 or any(n < -1 for n in sizes):
        raise OperatorError(f"shape {list(shape)} may hold one -1 and no other negative size")
    if -1 in sizes:
        known = prod(n for n in sizes if n != -1)
        if known == 0 or x.size % known:
            raise OperatorError(f"cannot reshape {list(x.shape)} to {list(shape)}: {x.size} elements do not divide by {known}")
        sizes[sizes.index(-1)] = x.size // known
    return t.reshape(x, sizes)


@op("Flatten", takes=Takes.TENSORS)
def flatten(t: Builder, x, *, axis=1):
    """Two dimensions: those before `axis`, and the rest."""
    at = axis + x.rank if axis < 0 else axis
    if not 0 <= at <= x.rank:
        raise OperatorError(f"axis {axis} is outside the {x.rank} dimensions of the input")
    return t.reshape(x, [prod(x.shape[:at]), prod(x.shape[at:])])


@op("Squeeze", takes=Takes.TENSORS)
def squeeze_by_attribute(t: Builder, x, *, axes=None):
    """Before opset 13 the axes are an attribute."""
    gone = [d for d, n in enumerate(x.shape) if n == 1] if axes is None else [axis_index(a, x.rank) for a in axes]
    if any(x.shape[d] != 1 for d in gone):
        raise OperatorError(f"cannot squeeze axes {list(axes)} of {list(x.shape)}: not all have size 1")
    return t.squeeze(x, gone)


@op("Squeeze", since=13, takes=Takes.TENSORS)
def squeeze(t: Builder, x, axes=None):
    """Without dimensions of size 1 (all of them, or those in `axes`)."""
    return squeeze_by_attribute(t, x, axes=None if axes is None else t.ints(axes))


@op("Unsqueeze", takes=Takes.TENSORS)
def unsqueeze_by_attribute(t: Builder, x, *, axes):
    """Before opset 13 the axes are an attribute."""
    places = [axis_index(a, x.rank + len(axes)) for a in axes]
    if len(set(places)) != len(places):
        raise OperatorError(f"axes {list(axes)} name a dimension twice")
    return t.unsqueeze(x, places)


@op("Unsqueeze", since=13, takes=Takes.TENSORS)
def unsqueeze(t: Builder, x, axes):
    """With dimensions of size 1 at the given places of the result."""
    return unsqueeze_by_attribute(t, x, axes=t.ints(axes))


# -- views that change the order
@op("Transpose", takes=Takes.TENSORS)
def transpose(t: Builder, x, *, perm=None):
    """Dimension d of the result is dimension perm[d]; default: reversed."""
    return t.transpose(x, range(x.rank)[::-1] if perm is None else perm)


@op("Expand", since=8, takes=Takes.TENSORS)
def expand(t: Builder, x, shape):
    """Broadcast with `shape` (both ways)."""
    return t.expand(x, broadcast(x.shape, t.ints(shape)))


@op("Slice", takes=Takes.TENSORS)
def slice_by_attributes(t: Builder, x, *, starts, ends, axes=None):
    """Before opset 10 the ranges are attributes."""
    return _slice(t, x, starts, ends, axes, None)


@op("Slice", since=10, takes=Takes.TENSORS)
def slice_(t: Builder, x, starts, ends, axes=None, steps=None):
    """x[start:end:step] along the axes, with Python's rules for negative and large numbers."""
    return _slice(
        t,
        x,
        t.ints(starts),
        t.ints(ends),
        None if axes is None else t.ints(axes),
        None if steps is None else t.ints(steps),
    )


def _slice(t: Builder, x: Tensor, starts, ends, axes, steps) -> Tensor:
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise OperatorError(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps do not match")
    if 0 in steps:
        raise OperatorError("a step is zero")
    where = [(0, 1, n) for n in x.shape]
    for start, end, axis, step in zip(starts, ends, axes, steps):
        d = axis_index(axis, x.rank)
        where[d] = _within(x.shape[d], start, end, step)
    return t.slice(x, *zip(*where)) if where else x


def _within(n: int, start: int, end: int, step: int) -> tuple[int, int, int]:
    """(first index, step, number of elements) of a range of n elements, with Python's rules."""
    if not is_open(n, start, end):
        r = range(n)[slice(start, end, step)]
        return (r.start if r else 0, r.step, len(r))
    if step < 0:
        raise Declined("a range backwards over an open size")
    first, after = (_clipped(bound, n) for bound in (start, end))
    return (first, step, -(-(after - first) // step)) if after > first else (0, step, 0)


def _clipped(bound: int, n: int) -> int:
    """A start or end as one from 0 to n."""
    if bound < 0:
        return bound + n if bound + n > 0 else 0
    return bound if bound <= n else n


@op("Split", takes=Takes.TENSORS)
def split_by_attribute(t: Builder, x, sizes=None, *, axis=0, split=None):
    """Before opset 13 the sizes are an attribute (in opset 1 possibly an input)."""
    return split_(t, x, t.constant(split, np.int64) if split is not None else sizes, axis=axis)


@op("Split", since=13, takes=Takes.TENSORS)
def split_(t: Builder, x, split=None, *, axis=0, num_outputs=None):
    """Parts along an axis: of the given sizes, or equal ones (the last may be smaller)."""
    d = axis_index(axis, x.rank)
    n = x.shape[d]
    if split is not None:
        sizes = t.ints(split)
    else:
        count = num_outputs or len(t.output_names)
        chunk = -(-n // count)
        sizes = [min(chunk, max(n - i * chunk, 0)) for i in range(count)]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise OperatorError(f"cannot split {n} elements of axis {axis} into parts of {list(sizes)}")
    ends = itertools.accumulate(sizes)
    return tuple(t.take(x, d, end - size, end) for size, end in zip(sizes, ends))


@op("DepthToSpace", takes=Takes.TENSORS)
def depth_to_space(t: Builder, x, *, blocksize, mode="DCR"):
    """[N, C, H, W] -> [N, C / b^2, H b, W b]; the channel index holds the block first (DCR) or last (CRD)."""
    n, c, h, w = _image(x)
    b = blocksize
    if c % (b * b):
        raise OperatorError(f"{c} channels do not divide by blocksize {b} squared")
    blocks = [n, b, b, c // (b * b), h, w] if mode == "DCR" else [n, c // (b * b), b, b, h, w]
    order = [0, 3, 4, 1, 5, 2] if mode == "DCR" else [0, 1, 4, 2, 5, 3]
    return t.reshape(t.transpose(t.reshape(x, blocks), order), [n, c // (b * b), h * b, w * b])


@op("SpaceToDepth", takes=Takes.TENSORS)
def space_to_depth(t: Builder, x, *, blocksize, mode="DCR"):
    """[N, C, H, W] -> [N, C b^2, H / b, W / b]: the inverse of DepthToSpace."""
    n, c, h, w = _image(x)
    b = blocksize
    if h % b or w % b:
        raise OperatorError(f"an image of {h} x {w} does not divide by blocksize {b}")
    order = [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4]
    blocks = t.transpose(t.reshape(x, [n, c, h // b, b, w // b, b]), order)
    return t.reshape(blocks, [n, c * b * b, h // b, w // b])


def _image(x: Tensor) -> tuple[int, int, int, int]:
    if x.rank != 4:
        raise OperatorError(f"the input must be [N, C, H, W], not of {x.rank} dimensions")
    return x.shape


# -- several tensors in one
@op("Concat", takes=Takes.TENSORS)
def concat(t: Builder, *inputs, axis=1):
    """The inputs one after the other along an axis."""
    if any(x.rank != inputs[0].rank or x.dtype != inputs[0].dtype for x in inputs):
        kinds = ", ".join(f"{x.dtype}{list(x.shape)}" for x in inputs)
        raise OperatorError(f"the inputs must agree in type and number of dimensions: {kinds}")
    return t.concat(inputs, axis)


@op("Tile", since=6, takes=Takes.TENSORS)
def tile(t: Builder, x, repeats):
    """Each dimension repeated as a whole."""
    times = t.ints(repeats)
    if len(times) != x.rank or min(times, default=0) < 0:
        raise OperatorError(f"repeats {list(times)} must be one count for each of the {x.rank} dimensions")
    spread = t.reshape(x, [m for n in x.shape for m in (1, n)])
    wide = t.expand(spread, [m for k, n in zip(times, x.shape) for m in (k, n)])
    return t.reshape(wide, [k * n for k, n in zip(times, x.shape)])


@op("Tile", takes=Takes.TENSORS)
def tile_one_axis(t: Builder, x, tiles, axis):
    """Opset 1: one axis repeated."""
    times = [1] * x.rank
    times[axis_index(t.ints(axis)[0], x.rank)] = t.ints(tiles)[0]
    return tile(t, x, t.constant(times, np.int64))


# -- padding
@op("Pad", takes=Takes.TENSORS)
def pad_opset_1(t: Builder, x, *, paddings, mode="constant", value=0.0):
    """Opset 1."""
    return _pad(t, x, paddings, range(x.rank), mode, value)


@op("Pad", since=2, takes=Takes.TENSORS)
def pad_by_attributes(t: Builder, x, *, pads, mode="constant", value=0.0):
    """Before opset 11 the amounts are attributes."""
    return _pad(t, x, pads, range(x.rank), mode, value)


@op("Pad", since=11, takes=Takes.TENSORS)
def pad(t: Builder, x, pads, constant_value=None, axes=None, *, mode="constant"):
    """Elements added before and after each axis (removed where negative): a constant, or copies of x's own."""
    fill = _nothing(x.dtype) if constant_value is None else t.value(constant_value).reshape(())[()].item()
    along = range(x.rank) if axes is None else [axis_index(a, x.rank) for a in t.ints(axes)]
    return _pad(t, x, t.ints(pads), along, mode, fill)


def _nothing(dtype: np.dtype) -> object:
    return "" if dtype.kind == "O" else 0


def _pad(t: Builder, x: Tensor, pads: Sequence[int], axes: Sequence[int], mode: str, fill: float) -> Tensor:
    if len(pads) != 2 * len(axes):
        raise OperatorError(f"{len(pads)} pads for {len(axes)} axes: there must be two an axis")
    before, after = [0] * x.rank, [0] * x.rank
    for i, d in enumerate(axes):
        before[d], after[d] = pads[i], pads[i + len(axes)]
    if min(before, default=0) < 0 or min(after, default=0) < 0:
        inner = [range(n)[max(-b, 0) : n - max(-a, 0)] for n, b, a in zip(x.shape, before, after)]
        x = t.slice(x, [r.start for r in inner], [1] * x.rank, [len(r) for r in inner])
    before, after = [max(b, 0) for b in before], [max(a, 0) for a in after]
    if mode == "constant":
        return t.pad(x, before, after, fill)
    if mode not in ("edge", "reflect", "wrap"):
        raise OperatorError(f"mode must be constant, edge, reflect or wrap, not {mode!r}")
    for d, (b, a) in enumerate(zip(before, after)):
        if b or a:
            if x.shape[d] == 0:
                raise OperatorError(f"cannot pad the empty dimension {d} with mode {mode!r}")
            x = take_at(t, x, d, np.pad(np.arange(x.shape[d]), (b, a), mode))
    return x


MAX_RUNS = 16


def take_at(t: Builder, x: Tensor, axis: int, indices: np.ndarray) -> Tensor:
    """x at constant indices along an axis: its arithmetic runs as slices, side by side.

    Raises:
        Declined: there are more than `MAX_RUNS` runs.
    """
    parts = []
    for start, step, count in _runs(indices):
        starts, steps, sizes = [0] * x.rank, [1] * x.rank, list(x.shape)
        starts[axis], steps[axis], sizes[axis] = start, step or 1, count if step else 1
        part = t.slice(x, starts, steps, sizes)
        parts.append(part if step else t.expand(part, [count if d == axis else n for d, n in enumerate(x.shape)]))
    return t.concat(parts, axis)


def _runs(indices: np.ndarray) -> list[tuple[int, int, int]]:
    """The indices as (start, step, count) runs, in order."""
    runs: list[tuple[int, int, int]] = []
    at, steps = 0, np.diff(indices)
    while at < len(indices):
        step = int(steps[at]) if at < len(steps) else 1
        changes = np.flatnonzero(steps[at:] != step)
        count = (int(changes[0]) if len(changes) else len(steps) - at) + 1
        runs.append((int(indices[at]), step, count))
        at += count
        if len(runs) > MAX_RUNS:
            raise Declined
    return runs or [(0, 1, 0)]


@op("Trilu", since=14, takes=Takes.TENSORS)
def trilu(t: Builder, x, k=None, *, upper=1):
    """The triangle of each matrix above (or below) diagonal k, zero elsewhere."""
    if x.rank < 2:
        raise OperatorError(f"the input must have at least 2 dimensions, not {x.rank}")
    offset = t.constant(0, np.int64) if k is None else t.reshape(k, ())
    rows, columns = map(t.numbers, x.shape[-2:])
    inside = t.map("a - b >= c" if upper else "a - b <= c", columns, t.unsqueeze(rows, [1]), offset, dtype="bool")
    return t.map("select(a, b, c)", inside, x, t.constant(0, x.dtype), dtype=x.dtype)
