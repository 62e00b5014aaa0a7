"""Normalisations, as compositions of elementwise expressions and folds; the planner makes one loop of each.

float16 and bfloat16 are computed in float32 throughout and rounded at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .cast import native_dtype, widened
from .primitives import Fold, Tensor
from .reduce import fold_mean, fold_sum
from .registry import FLOATS, check_types, op


# -- softmax and its kin
def _peak(t: Builder, x: Tensor, axis: int) -> Tensor:
    """The maximum but for NaN, which makes the row's sum NaN anyway: a fold in one instruction instead of four."""
    return t.reduce(Fold.MAXNUM, x, [axis])


def softmax_over(t: Builder, x: Tensor, axis: int) -> Tensor:
    """exp(x - max) / sum along one axis."""
    wide = widened(t, x)
    grown = t.map("exp_flushed(a - b)", wide, _peak(t, wide, axis))
    # one division a row; the sum is at least 1
    return t.cast(t.map("a * b", grown, t.map("1.0 / a", fold_sum(t, grown, [axis]))), x.dtype)


def _log_softmax_over(t: Builder, x: Tensor, axis: int) -> Tensor:
    wide = widened(t, x)
    low = t.map("a - b", wide, _peak(t, wide, axis))
    total = fold_sum(t, t.map("exp_flushed(a)", low), [axis])
    return t.cast(t.map("a - log(b)", low, total), x.dtype)


def _hardmax_over(t: Builder, x: Tensor, axis: int) -> Tensor:
    if x.size == 0:
        return x
    best = t.reduce(Fold.ARGMAX, x, [axis])
    along = [n if d == axis else 1 for d, n in enumerate(x.shape)]
    place = t.constant(np.arange(x.shape[axis]).reshape(along), np.int64)
    return t.cast(t.map("a == b", best, place, dtype="bool"), x.dtype)


def _along_axis(name: str, over) -> None:
    @op(name)
    def flattened(t, x, *, axis=1):
        """Before opset 13: over all dimensions from `axis` on, as one."""
        check_types((x,), FLOATS)
        at = axis_index(axis, x.rank)
        rows = t.reshape(x, [prod(x.shape[:at]), prod(x.shape[at:])])
        return t.reshape(over(t, rows, 1), x.shape)

    @op(name, since=13)
    def along(t, x, *, axis=-1):
        check_types((x,), FLOATS)
        return over(t, x, axis_index(axis, x.rank)) if x.rank else t.constant(0 if name == "LogSoftmax" else 1, x.dtype)


_along_axis("Softmax", softmax_over)
_along_axis("LogSoftmax", _log_softmax_over)
_along_axis("Hardmax", _hardmax_over)


# -- mean and variance over axes
def moments(t: Builder, x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviations and (biased) variance over the axes."""
    mean = fold_mean(t, x, axes)
    deviation = t.map("a - b", x, mean)
    return mean, deviation, fold_mean(t, t.map("a * a", deviation), axes)


def _inverse_root(t: Builder, x: Tensor, epsilon: float) -> Tensor:
    return t.map("1.0 / sqrt(a + b)", x, t.constant(epsilon, x.dtype))


def _scaled(t: Builder, x: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    scale = t.cast(scale, x.dtype)
    return t.map("a * b", x, scale) if bias is None else t.map("a * b + c", x, scale, t.cast(bias, x.dtype))


def _per_channel(t: Builder, x: Tensor, values: Tensor) -> Tensor:
    """A vector of one value a channel, to broadcast over x[N, C, ...]."""
    return t.reshape(values, [values.size, *[1] * (x.rank - 2)])


@op("LayerNormalization", since=17)
def layer_normalization(t: Builder, x, scale, bias=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    """Over the dimensions from `axis` on; also the mean and 1 / sqrt(variance + epsilon) in the stash type."""
    axes = range(axis_index(axis, x.rank), x.rank)
    wide = widened(t, x)
    mean, deviation, variance = moments(t, wide, axes)
    inverse = _inverse_root(t, variance, epsilon)
    y = _scaled(t, t.map("a * b", deviation, inverse), scale, bias)
    stash = native_dtype(stash_type)
    return t.cast(y, x.dtype), t.cast(mean, stash), t.cast(inverse, stash)


@op("RMSNormalization", since=23)
def rms_normalization(t: Builder, x, scale, *, axis=-1, epsilon=1e-5, stash_type=1):
    """x / sqrt(mean(x^2) + epsilon) * scale over the dimensions from `axis` on."""
    axes = range(axis_index(axis, x.rank), x.rank)
    wide = widened(t, x)
    inverse = _inverse_root(t, fold_mean(t, t.map("a * a", wide), axes), epsilon)
    return t.cast(_scaled(t, t.map("a * b", wide, inverse), scale, None), x.dtype)


@op("InstanceNormalization")
def instance_normalization(t: Builder, x, scale, bias, *, epsilon=1e-5, consumed_inputs=None):
    """Each channel of each image by itself."""
    if x.rank < 2 or scale.shape != (x.shape[1],) or bias.shape != (x.shape[1],):
        raise OperatorError(
            f"scale {list(scale.shape)} and bias {list(bias.shape)} must have one value a channel of {list(x.shape)}"
        )
    wide = widened(t, x)
    _, deviation, variance = moments(t, wide, range(2, x.rank))
    y = t.map("a * b", deviation, _inverse_root(t, variance, epsilon))
    return t.cast(_scaled(t, y, _per_channel(t, x, scale), _per_channel(t, x, bias)), x.dtype)


@op("GroupNormalization", since=18)
def group_normalization(t: Builder, x, scale, bias, *, num_groups, epsilon=1e-5, stash_type=1):
    """Groups of channels; scale and bias have one value a channel (before opset 21: a group)."""
    n, c, *space = x.shape
    if num_groups < 1 or c % num_groups:
        raise OperatorError(f"{c} channels do not divide into {num_groups} groups")
    grouped = t.reshape(widened(t, x), [n, num_groups, c // num_groups, *space])
    _, deviation, variance = moments(t, grouped, range(2, grouped.rank))
    y = t.map("a * b", deviation, _inverse_root(t, variance, epsilon))
    inner = [num_groups, -1 if scale.size == c else 1, *[1] * len(space)]
    inner[1] = scale.size // num_groups
    y = _scaled(t, y, t.reshape(scale, inner), t.reshape(bias, inner))
    return t.cast(t.reshape(y, x.shape), x.dtype)


@op("MeanVarianceNormalization", since=9)
def mean_variance_normalization(t: Builder, x, *, axes=(0, 2, 3)):
    """(x - mean) / (standard deviation + 1e-9)."""
    _, deviation, variance = moments(t, widened(t, x), [axis_index(a, x.rank) for a in axes])
    return t.cast(t.map("a / (sqrt(b) + 1e-09)", deviation, variance), x.dtype)


@op("LpNormalization")
def lp_normalization(t: Builder, x, *, axis=-1, p=2):
    """x by its 1- or 2-norm along an axis; a zero vector stays zero."""
    if p not in (1, 2):
        raise OperatorError(f"p must be 1 or 2, not {p}")
    wide = widened(t, x)
    total = fold_sum(t, t.map("absolute(a)" if p == 1 else "a * a", wide), [axis_index(axis, x.rank)])
    norm = total if p == 1 else t.map("sqrt(a)", total)
    return t.cast(t.map("select(b == 0, 0, a / b)", wide, norm), x.dtype)


@op("LRN")
def lrn(t: Builder, x, *, size, alpha=1e-4, beta=0.75, bias=1.0):
    """x / (bias + alpha / size * sum of squares over `size` neighbouring channels) ^ beta."""
    wide = widened(t, x)
    before = (size - 1) // 2
    edge = [0] * (x.rank - 2)
    squares = t.pad(t.map("a * a", wide), [0, before, *edge], [0, size - 1 - before, *edge])
    channels = x.shape[1]
    total = t.take(squares, 1, 0, channels)
    for i in range(1, size):
        total = t.map("a + b", total, t.take(squares, 1, i, i + channels))
    base = t.map("a * b + c", total, t.constant(alpha / size, wide.dtype), t.constant(bias, wide.dtype))
    power = t.op("Pow", base, t.constant(beta, wide.dtype), since=7)
    return t.cast(t.map("a / b", wide, power), x.dtype)


# -- batch normalisation
@op("BatchNormalization")
def batch_normalization_opset_1(
    t: Builder,
    x,
    scale,
    bias,
    mean,
    variance,
    *,
    epsilon=1e-5,
    momentum=0.9,
    spatial=1,
    is_test=0,
    consumed_inputs=None,
):
    """Before opset 14, at inference."""
    if not spatial:
        along = [1, *x.shape[1:]]
        parts = [t.reshape(v, along) for v in (scale, bias, mean, variance)]
        return t.map("(a - d) / sqrt(e + f) * b + c", x, *parts, t.constant(epsilon, x.dtype))
    return _batch_norm(t, x, scale, bias, mean, variance, epsilon)


@op("BatchNormalization", since=14)
def batch_normalization(t: Builder, x, scale, bias, mean, variance, *, epsilon=1e-5, momentum=0.9, training_mode=0):
    """With the given statistics; in training mode with the batch's own, which then move the running ones."""
    if not training_mode:
        return _batch_norm(t, x, scale, bias, mean, variance, epsilon)
    wide = widened(t, x)
    axes = [d for d in range(x.rank) if d != 1]
    own_mean, _, own_variance = moments(t, wide, axes)
    own = [t.reshape(v, [x.shape[1]]) for v in (own_mean, own_variance)]
    running = []
    for old, new in zip((mean, variance), own):
        weight = t.constant(momentum, wide.dtype)
        moved = t.map("a * c + b * (1.0 - c)", t.cast(old, wide.dtype), new, weight)
        running.append(t.cast(moved, old.dtype))
    return (_batch_norm(t, x, scale, bias, *own, epsilon), *running)


def _batch_norm(t: Builder, x, scale, bias, mean, variance, epsilon: float) -> Tensor:
    """x * factor + shift, one factor and shift a channel (constant when the statistics are)."""
    channels = x.shape[1] if x.rank > 1 else 1
    if any(v.shape != (channels,) for v in (scale, bias, mean, variance)):
        raise OperatorError(f"scale, bias, mean and variance must have one value for each of the {channels} channels")
    wide = widened(t, x)
    scale, bias, mean, variance = (t.cast(v, wide.dtype) for v in (scale, bias, mean, variance))
    factor = t.map("a / sqrt(b + c)", scale, variance, t.constant(epsilon, wide.dtype))
    shift = t.map("a - b * c", bias, mean, factor)
    return t.cast(t.map("a * b + c", wide, _per_channel(t, x, factor), _per_channel(t, x, shift)), x.dtype)
