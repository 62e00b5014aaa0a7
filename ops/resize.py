"""Resampling: Resize and Upsample, on `kernels/resize`, axis by axis (every mode is separable).

A plan of an axis is a table: for every output position the input positions that it is made of (clamped to the axis) and
their weights. The memory order is the input's: channels-last behind convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, Declined, OperatorError, axis_index
from .kernels import resize as kernels
from .kernels.sizes import alike
from .primitives import Join, Kernel, LaunchContext, Map, Operand, Resampled, Tensor
from .registry import op

_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)  # fmt: skip
_ROUNDINGS = {
    "round_prefer_floor": lambda x: np.ceil(x - x.dtype.type(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + x.dtype.type(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
_OLDEST = "floor, ceil where it shrinks"  # what nearest meant before there was a choice, in onnx's tests and onnxruntime


@dataclass(frozen=True)
class How:
    """The attributes of Resize that say what an output element is made of."""

    mode: str
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0


@dataclass(frozen=True)
class Change:
    """One axis: its size before and after, the scale, and the part of it that is looked at (tf_crop_and_resize)."""

    before: int
    size: int
    scale: float
    begin: float = 0.0
    end: float = 1.0

    def is_identity(self, how: How) -> bool:
        """Whether every output element is the input element of the same place."""
        whole = how.coordinates != "tf_crop_and_resize" or (self.begin, self.end) == (0.0, 1.0)
        return self.size == self.before and self.scale == 1.0 and whole


@op("Upsample", since=1)
def upsample_of_images(t: Builder, X: Tensor, *, height_scale, width_scale, mode="nearest") -> Tensor:
    """Opset 1: the two spatial dimensions."""
    return _upsample(t, X, [1.0, 1.0, height_scale, width_scale], mode)


@op("Upsample", since=7)
def upsample_by_attribute(t: Builder, X: Tensor, *, scales, mode="nearest") -> Tensor:
    """Opset 7: the scales are an attribute."""
    return _upsample(t, X, scales, mode)


@op("Upsample", since=9)
def upsample(t: Builder, X: Tensor, scales: Tensor, *, mode="nearest") -> Tensor:
    """Larger by a scale for each dimension."""
    return _upsample(t, X, t.value(scales), mode)


@op("Resize", since=10)
def resize_by_scales(t: Builder, X: Tensor, scales: Tensor, *, mode="nearest") -> Tensor:
    """Opset 10: as Upsample, also smaller."""
    return _upsample(t, X, t.value(scales), mode)


def _upsample(t: Builder, X: Tensor, scales: Sequence[float], mode: str) -> Tensor:
    how = How("nearest" if mode == "nearest" else "linear", "asymmetric", _OLDEST)
    if mode not in ("nearest", "linear", "bilinear"):
        raise OperatorError(f"mode must be nearest or linear, not {mode!r}")
    return _resample(t, X, _by_scales(X.shape, range(X.rank), scales), how)


@op("Resize", since=11)
def resize(
    t: Builder, X: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None, *,
    antialias=0, axes=None, coordinate_transformation_mode="half_pixel", cubic_coeff_a=-0.75, exclude_outside=0,
    extrapolation_value=0.0, keep_aspect_ratio_policy="stretch", mode="nearest", nearest_mode="round_prefer_floor",
) -> Tensor:  # fmt: skip
    """The tensor resampled to `sizes` or by `scales`, along all axes or the given ones."""
    if mode not in ("nearest", "linear", "cubic"):
        raise OperatorError(f"mode must be nearest, linear or cubic, not {mode!r}")
    if coordinate_transformation_mode not in _COORDINATES or nearest_mode not in _ROUNDINGS:
        raise OperatorError(f"unknown mode {coordinate_transformation_mode!r} or {nearest_mode!r}")
    along = list(range(X.rank)) if axes is None else [axis_index(a, X.rank) for a in axes]
    given = None if scales is None or scales.size == 0 else t.value(scales).reshape(-1)
    wanted = None if sizes is None or sizes.size == 0 else t.ints(sizes)
    if (given is None) == (wanted is None) or len(along) != len(given if wanted is None else wanted):
        raise OperatorError(f"one of scales and sizes must be given, with a number for each of the {len(along)} axes")
    changes = _by_scales(X.shape, along, given) if wanted is None else _by_sizes(X.shape, along, wanted, keep_aspect_ratio_policy)
    if coordinate_transformation_mode == "tf_crop_and_resize":
        changes = _looking_at(changes, along, t.value(roi).reshape(-1) if roi is not None and roi.size else None)
    how = How(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, bool(exclude_outside),
        bool(antialias) and mode != "nearest", extrapolation_value,
    )  # fmt: skip
    return _resample(t, X, changes, how)


# -- sizes
def _by_scales(shape: Sequence[int], axes: Sequence[int], scales: Sequence[float]) -> list[Change]:
    if len(scales) != len(axes):
        raise OperatorError(f"{len(scales)} scales for {len(axes)} dimensions")
    changes = list(map(_same, shape))
    for d, scale in zip(axes, scales):
        if not scale > 0:
            raise OperatorError(f"a scale must be greater than 0, not {scale}")
        if scale != 1:  # in float32, as shape inference has it
            changes[d] = Change(shape[d], int(np.float32(shape[d]) * np.float32(scale)), float(scale))
    return changes


def _by_sizes(shape: Sequence[int], axes: Sequence[int], sizes: Sequence[int], policy: str) -> list[Change]:
    scales = [1.0 if alike((m,), (n,)) else float(m) / n if n else 1.0 for m, n in zip(sizes, (shape[d] for d in axes))]
    if policy in ("not_larger", "not_smaller"):
        scale = (min if policy == "not_larger" else max)(scales)
        scales = [scale] * len(scales)
        sizes = [math.floor(scale * shape[d] + 0.5) for d in axes]
    elif policy != "stretch":
        raise OperatorError(f"keep_aspect_ratio_policy must be stretch, not_larger or not_smaller, not {policy!r}")
    changes = list(map(_same, shape))
    for d, size, scale in zip(axes, sizes, scales):
        changes[d] = Change(shape[d], size, scale)
    return changes


def _looking_at(changes: list[Change], axes: Sequence[int], roi: np.ndarray | None) -> list[Change]:
    """The changes with each axis' begin and end from `roi` (all begins, then all ends)."""
    if roi is None or len(roi) != 2 * len(axes):
        raise OperatorError("tf_crop_and_resize needs a roi with begin and end of each axis")
    made = list(changes)
    for i, d in enumerate(axes):
        old = changes[d]
        made[d] = Change(old.before, old.size, old.scale, float(roi[i]), float(roi[i + len(axes)]))
    return made


# -- tables
def coordinates(change: Change, how: How) -> np.ndarray:
    """Where each output position lies in the input; in float32 where a rounding decides, as onnxruntime has it."""
    real = np.float32 if how.mode == "nearest" or how.coordinates == "tf_crop_and_resize" else np.float64
    i, n, scale = np.arange(change.size).astype(real), change.before, real(change.scale)
    length = change.scale * n
    half = real(0.5)
    if how.coordinates == "align_corners":
        return np.zeros_like(i) if length == 1 else i * real(n - 1) / real(length - 1)
    if how.coordinates == "asymmetric":
        return i / scale
    if how.coordinates == "tf_half_pixel_for_nn":
        return (i + half) / scale
    if how.coordinates == "tf_crop_and_resize":
        begin, end = real(change.begin), real(change.end)
        if change.size == 1:
            return np.full_like(i, half * (begin + end) * real(n - 1))
        return begin * real(n - 1) + i * ((end - begin) * real(n - 1) / real(change.size - 1))
    if how.coordinates == "pytorch_half_pixel" and change.size == 1:
        return np.zeros_like(i)
    if how.coordinates == "half_pixel_symmetric":
        # float32 and float64 as onnxruntime mixes them
        single = np.float32(change.scale)
        excess = 1 - float(np.float32(change.size) / (single * np.float32(n)))
        return (n / 2 * excess + (np.arange(change.size) + 0.5) / float(single) - 0.5).astype(real)
    return (i + half) / scale - half


def taps(change: Change, how: How) -> tuple[np.ndarray, np.ndarray]:
    """Input positions int64[size, taps] and weights float64[size, taps] of every output position."""
    at = coordinates(change, how)
    if how.mode == "nearest":
        rounding = ("ceil" if change.scale < 1 else "floor") if how.rounding == _OLDEST else how.rounding
        index = _ROUNDINGS[rounding](at).astype(np.int64)[:, None]
        return np.clip(index, 0, change.before - 1), np.ones((change.size, 1))
    left = np.ceil(at) - 1
    ratio = (at - left).astype(np.float64)  # above 0, at most 1
    shrink = min(change.scale, 1.0) if how.antialias else 1.0
    reach = 1 if how.mode == "linear" else 2
    first = math.floor(-reach / shrink) + 1
    offsets = np.arange(first, 2 - first)
    distance = np.abs(offsets - ratio[:, None]) * shrink
    weight = np.clip(1 - distance, 0, 1) if how.mode == "linear" else _cubic(distance, how.cubic)
    index = left.astype(np.int64)[:, None] + offsets
    if how.exclude_outside:
        weight = np.where((index < 0) | (index >= change.before), 0, weight)
    if how.antialias or how.exclude_outside:
        total = weight.sum(1, keepdims=True)
        weight = weight / np.where(total == 0, 1, total)
    return np.clip(index, 0, change.before - 1), weight


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution with parameter a."""
    x = distance
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


# -- lowering
def _resample(t: Builder, X: Tensor, changes: list[Change], how: How) -> Tensor:
    changed = [d for d, c in enumerate(changes) if not c.is_identity(how)]
    if any(c.before == 0 and c.size for c in changes):
        raise OperatorError("cannot enlarge an empty dimension")
    if prod(c.size for c in changes) == 0:
        return t.expand(t.constant(0, X.dtype), [c.size for c in changes])
    wide = X.dtype
    if how.mode != "nearest" and X.dtype.name not in ("float32", "float64"):
        if X.dtype == bool:
            raise Declined("interpolation of bool")
        wide = np.dtype(np.float64 if X.dtype.kind in "iu" and X.dtype.itemsize > 2 else np.float32)
    y = t.cast(X, wide)
    order = memory_order(X)
    for pair in _passes([d for d in order if d in changed], order):
        y = _pass(t, y, {d: changes[d] for d in pair}, order, how)
    if how.coordinates == "tf_crop_and_resize":
        y = _extrapolated(t, y, changes, how)
    elif y is not X and wide == X.dtype and min(changed) >= 2:
        y.resampled = Resampled(X, lambda other, image: _resample(other, image, [*map(_same, image.shape[:2]), *changes[2:]], how))
    return _converted(t, y, X.dtype)


def _same(size: int) -> Change:
    return Change(size, size, 1.0)


def memory_order(x: Tensor) -> tuple[int, ...]:
    """The order of dimensions in memory, outermost first, that the kernel in front of x (if there is one) writes."""
    while isinstance(x.source, Map | Join):
        like = [y for y in x.source.inputs if y.rank == x.rank and y.constant is None]
        if not like:
            break
        x = max(like, key=lambda y: y.size)
    if isinstance(x.source, Kernel):
        orders = x.source.output_orders
        i = next(i for i, out in enumerate(x.source.outputs) if out is x)
        if i < len(orders) and orders[i] is not None:
            return orders[i]
    return tuple(range(x.rank))


def _passes(changed: list[int], order: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The dimensions (in memory order) that are resampled together: the last two if they are neighbours."""
    if len(changed) >= 2 and order.index(changed[-1]) == order.index(changed[-2]) + 1:
        return [*((d,) for d in changed[:-2]), (changed[-2], changed[-1])]
    return [(d,) for d in changed]


def _pass(t: Builder, x: Tensor, changes: dict[int, Change], order: tuple[int, ...], how: How) -> Tensor:
    """One or two dimensions that are neighbours in memory resampled."""
    shape = tuple(changes[d].size if d in changes else n for d, n in enumerate(x.shape))
    last = order.index(max(changes, key=order.index))
    inner = prod(x.shape[d] for d in order[last + 1 :])
    outer = prod(x.shape[d] for d in order[: last + 1 - len(changes)])
    # a single dimension of single elements is columns, another one rows
    both: list[Change | None] = [changes[d] for d in order if d in changes]
    if len(both) == 1:
        both = [None, *both] if inner == 1 else [*both, None]
    tables = [c and taps(c, how) for c in both]
    nearest = how.mode == "nearest"
    constants: list[Tensor | None] = []
    for is_column, table in enumerate(tables):
        index, weight = table if table is not None else (np.zeros((1, 1), np.int64), np.ones((1, 1)))
        if not nearest and is_column and inner == 1:
            index, weight = _transposed(index * x.dtype.itemsize), _transposed(weight)
        constants += [t.constant(index), t.constant(weight, x.dtype)]
    repeat = _repeat(tables[1][0][:, 0], both[1].before) if nearest and tables[1] is not None else 0
    # the groups of dimensions that kernels know: outer, rows, columns, inner
    first = last + 1 - len(changes)
    groups = (
        order[:first], () if both[0] is None else (order[first],), () if both[1] is None else (order[last],), order[last + 1 :]
    )  # fmt: skip
    counts = [0 if table is None else table[0].shape[1] for table in tables]
    label = f"{how.mode} " + "x".join(str(c.before) for c in changes.values())
    label += " to " + "x".join(str(c.size) for c in changes.values())

    def launch(c: LaunchContext) -> list:
        address = [None if operand is None else operand.address for operand in c.inputs]
        rows, columns = (
            kernels.Axis(1 if change is None else change.before, 1 if change is None else change.size, count, at, weight)
            for change, count, at, weight in zip(both, counts, address[1::2], address[2::2])
        )
        out = kernels.Output(c.outputs[0].address, *(_stride(c.outputs[0], dims) for dims in groups[:3]))
        if nearest:
            return kernels.nearest(address[0], out, x.dtype.itemsize, outer, rows, columns, inner, repeat, label)
        return kernels.blend(evaluate.memory_name(x.dtype), address[0], out, outer, rows, columns, inner, label)

    dense = [tuple(range(2))] * len(constants)
    flops = 0 if nearest else 2 * prod(shape) * sum(counts)
    return t.kernel(
        f"{how.mode} resize", (x, *constants), [(x.dtype, shape)], launch, orders=(order, *dense), output_orders=(order,),
        matrix=groups, flops=flops, reference=lambda v: [_apply(v[0], changes, how)],
    )[0]  # fmt: skip


def _repeat(index: np.ndarray, before: int) -> int:
    """k if every element stands k times in a row, else 0."""
    k = len(index) // before
    return k if k * before == len(index) and np.array_equal(index, np.arange(len(index)) // max(k, 1)) else 0


def _stride(x: Operand, dims: Sequence[int]) -> int:
    """The stride of dimensions that have a common one."""
    return next((x.strides[d] for d in reversed(dims) if x.shape[d] != 1), 0)


def _transposed(table: np.ndarray) -> np.ndarray:
    """[taps, size] with zeros up to whole vectors."""
    spare = kernels.padded(len(table)) - len(table)
    return np.ascontiguousarray(np.pad(table, ((0, spare), (0, 0))).T)


def _apply(x: np.ndarray, changes: dict[int, Change], how: How) -> np.ndarray:
    """The same with numpy."""
    for d, change in changes.items():
        index, weight = taps(change, how)
        if how.mode == "nearest":
            x = np.take(x, index[:, 0], d)
        else:
            shape = [1] * (x.ndim + 1)
            shape[d : d + 2] = weight.shape
            x = (np.take(x, index, d) * weight.reshape(shape)).sum(d + 1).astype(x.dtype)
    return x


def _extrapolated(t: Builder, y: Tensor, changes: list[Change], how: How) -> Tensor:
    """y with the extrapolation value where a coordinate lies outside the input."""
    for d, change in enumerate(changes):
        at = coordinates(change, how)
        outside = (at < 0) | (at > change.before - 1)
        if not change.is_identity(how) and outside.any():
            shape = [change.size if e == d else 1 for e in range(y.rank)]
            value = t.constant(how.extrapolation, y.dtype)
            y = t.map("select(a, b, c)", t.constant(outside.reshape(shape)), value, y, dtype=y.dtype)
    return y


def _converted(t: Builder, y: Tensor, dtype: np.dtype) -> Tensor:
    """y as `dtype`; integers saturate and lose their fraction."""
    if y.dtype != dtype and dtype.kind in "iu" and dtype.itemsize < 8:
        bounds = np.iinfo(dtype)
        y = t.map(f"at_most(at_least(a, {float(bounds.min)!r}), {float(bounds.max)!r})", y)
    return t.cast(y, dtype)
