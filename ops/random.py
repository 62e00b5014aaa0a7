"""Random numbers: RandomNormal, RandomUniform and their Like forms, Multinomial, Bernoulli, Dropout in training.

They are host steps on numpy's RandomState. A node with a `seed` gives the same numbers in every run, as in
`onnx.reference`; the others draw from one generator, which `set_seed` makes repeatable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache

import numpy as np

from .builder import Builder, OperatorError
from .cast import native_dtype
from .primitives import Shape, Tensor
from .registry import op

_lock = threading.Lock()


@cache
def _shared() -> np.random.RandomState:
    """The generator of nodes without a seed. It is made, and numpy's part for that is imported, when one runs."""
    return np.random.RandomState()


def set_seed(seed: int) -> None:
    """Seed the generator of the nodes without a seed of their own."""
    with _lock:
        _shared().seed(int(seed) % (1 << 32))


def _draw(
    t: Builder, make: Callable[..., np.ndarray], shape: Shape, dtype: np.dtype, seed: float | None, *inputs: Tensor
) -> Tensor:
    """A host step: ``make(state, shape, *inputs)`` as `dtype`."""

    def call(values: list[np.ndarray]) -> list[np.ndarray]:
        size, *given = values
        if seed is None:
            with _lock:
                made = make(_shared(), tuple(size.tolist()), *given)
        else:
            made = make(np.random.RandomState(int(seed) % (1 << 32)), tuple(size.tolist()), *given)
        return [np.asarray(made).astype(dtype)]

    kind, size = (dtype, tuple(shape)), t.constant(tuple(shape), np.int64)
    return t.host(call, (size, *inputs), [kind], "random numbers are drawn on the host", fold=False)[0]


def _dtype(number: int | None, like: Tensor | None = None) -> np.dtype:
    """The element type of an attribute, else the other tensor's."""
    return like.dtype if number in (None, 0) and like is not None else native_dtype(number)


@op("RandomNormal", since=1)
def random_normal(t: Builder, *, shape, dtype=1, mean=0.0, scale=1.0, seed=None) -> Tensor:
    """Normal numbers of a mean and a standard deviation."""
    return _draw(t, lambda state, size: state.normal(mean, scale, size), shape, _dtype(dtype), seed)


@op("RandomNormalLike", since=1)
def random_normal_like(t: Builder, input: Tensor, *, dtype=None, mean=0.0, scale=1.0, seed=None) -> Tensor:
    """Normal numbers of the shape of another tensor."""
    return _draw(t, lambda state, size: state.normal(mean, scale, size), input.shape, _dtype(dtype, input), seed)


@op("RandomUniform", since=1)
def random_uniform(t: Builder, *, shape, dtype=1, high=1.0, low=0.0, seed=None) -> Tensor:
    """Numbers that lie evenly between two bounds."""
    return _draw(t, lambda state, size: state.uniform(low, high, size), shape, _dtype(dtype), seed)


@op("RandomUniformLike", since=1)
def random_uniform_like(t: Builder, input: Tensor, *, dtype=None, high=1.0, low=0.0, seed=None) -> Tensor:
    """Evenly spread numbers of the shape of another tensor."""
    return _draw(t, lambda state, size: state.uniform(low, high, size), input.shape, _dtype(dtype, input), seed)


@op("Bernoulli", since=15)
def bernoulli(t: Builder, input: Tensor, *, dtype=None, seed=None) -> Tensor:
    """1 with the probability that the input states, else 0."""
    if input.dtype.kind not in "fV":
        raise OperatorError(f"probabilities must be floating-point numbers, not {input.dtype}")

    def make(state: np.random.RandomState, size: tuple[int, ...], p: np.ndarray) -> np.ndarray:
        return state.uniform(size=size) < p.astype(np.float64)

    return _draw(t, make, input.shape, _dtype(dtype, input), seed, input)


@op("Multinomial", since=7)
def multinomial(t: Builder, input: Tensor, *, dtype=6, sample_size=1, seed=None) -> Tensor:
    """`sample_size` classes for each row of unnormalised log-probabilities."""
    if input.rank != 2 or input.dtype.kind not in "fV":
        raise OperatorError(f"expected log-probabilities [batch, classes], not {input.dtype}{list(input.shape)}")
    kind = _dtype(dtype)
    if kind not in (np.int32, np.int64):
        raise OperatorError(f"classes are int32 or int64, not {kind}")

    def make(state: np.random.RandomState, size: tuple[int, ...], logits: np.ndarray) -> np.ndarray:
        wide = logits.astype(np.float64)
        with np.errstate(all="ignore"):
            weights = np.exp(wide - wide.max(1, keepdims=True, initial=-np.inf))
        bounds = np.cumsum(weights, 1)
        aim = state.uniform(size=size) * bounds[:, -1:]
        # the first class whose cumulated weight lies above the aim
        return np.stack([np.searchsorted(b, a, "right") for b, a in zip(bounds, aim)]) if len(wide) else aim

    return _draw(t, make, (input.shape[0], sample_size), kind, seed, input)


@op("Dropout", since=12)
def dropout(t: Builder, x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None, *, seed=None):
    """At inference the input and a mask that keeps everything; in training elements are dropped and the rest enlarged."""
    training = training_mode is not None and bool(t.value(training_mode).item())
    share = 0.5 if ratio is None else float(t.value(ratio).item()) if training else 0.0
    if not training or share == 0:
        return x, t.expand(t.constant(True), x.shape)
    if not 0 <= share < 1:
        raise OperatorError(f"ratio must be at least 0 and below 1, not {share}")
    kept = _draw(t, lambda state, size: state.uniform(0, 1, size) >= share, x.shape, np.dtype(bool), seed)
    wide = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    y = t.map("select(a, b, c)", kept, t.map(f"a * {1 / (1 - share)!r}", t.cast(x, wide)), t.constant(0, wide), dtype=wide)
    return t.cast(y, x.dtype), kept
