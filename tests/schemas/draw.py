"""Random choices, and the shapes and values that are awkward: sizes 0 and 1, NaN and infinities, extremes of integers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TypeVar

import ml_dtypes
import numpy as np

T = TypeVar("T")
Shape = tuple[int, ...]
SIZES = (0, 1, 1, 2, 3, 3, 4, 5, 7, 8, 9, 17)
TEXTS = ("", "a", "B", "ab", "ABC", "é", "0", "-1.5", "x y", "a,b,,c", "12")
_RNG = np.random.default_rng


class Values(enum.Enum):
    """What an array holds."""

    ANY = "any"  # everything that the type has
    PLAIN = "plain"  # about -4 to 4, for sums and products that are to be compared closely
    SPECIAL = "special"  # plain ones among NaN, infinities and zeros of both signs
    POSITIVE = "positive"  # 0.5 to 2; integers 1 to 5
    NONZERO = "nonzero"  # any but zero, NaN excluded; of signed integers not -1 either


class Draw:
    """Choices, all of them made by `below`: a function that gives an integer from 0 to n - 1."""

    def __init__(self, below: Callable[[int], int]) -> None:
        self.below = below

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.below(100) < percent

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return low + self.below(high - low + 1)

    def size(self, least: int = 0) -> int:
        """The size of a dimension."""
        return self.choice([n for n in SIZES if n >= least])

    def shape(self, low: int = 0, high: int = 4, least: int = 0) -> Shape:
        """A shape of `low` to `high` dimensions; those of many have small sizes."""
        rank = self.integer(low, high)
        least = max(least, 0 if self.chance(25) else 1)
        most = 17 if rank < 4 else 5
        return tuple(min(self.size(least), most) for _ in range(rank))

    def axis(self, rank: int) -> int:
        """An axis, counted from either end."""
        return self.integer(-rank, rank - 1)

    def axes(self, rank: int, low: int = 1) -> list[int]:
        """Different axes in any order, counted from either end."""
        chosen = self.shuffled(range(rank))[: self.integer(min(low, rank), rank)]
        return [a - rank if self.chance(40) else a for a in chosen]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in another order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(len(left))]

    def operand_shapes(self, count: int, high: int = 4) -> list[Shape]:
        """Shapes that broadcast with each other."""
        whole = self.shape(0, high)
        return [self.broadcastable(whole) if i else whole for i in self.shuffled(range(count))]

    def broadcastable(self, whole: Shape) -> Shape:
        """A shape that broadcasts to another one."""
        if self.chance(40):
            return whole
        shape = tuple(1 if self.chance(35) else n for n in whole)
        return shape[self.integer(0, len(shape)) :] if self.chance(40) else shape

    def values(self, dtype: np.dtype | type, shape: Sequence[int] = (), kind: Values = Values.ANY) -> np.ndarray:
        """An array."""
        dtype, rng = np.dtype(dtype), _RNG(self.below(1 << 32))
        if dtype.kind == "O":
            return np.asarray(rng.choice(np.array(TEXTS, object), shape), object)
        if dtype.kind == "b":
            return np.asarray(rng.random(shape) < 0.5)
        make = _integers if is_integer(dtype) else _floats
        return np.asarray(make(self, rng, dtype, tuple(shape), kind))

    def indices(self, shape: Sequence[int], size: int, dtype: np.dtype | type = np.int64, negative: bool = True) -> np.ndarray:
        """Indices into a dimension of `size` > 0, counted from either end."""
        rng = _RNG(self.below(1 << 32))
        return np.asarray(rng.integers(-size if negative and self.chance(50) else 0, size, tuple(shape))).astype(dtype)


def is_integer(dtype: np.dtype) -> bool:
    """Whether a dtype holds integers, of numpy's or of ml_dtypes'."""
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2")


def limits(dtype: np.dtype) -> tuple[int, int]:
    """The least and the greatest integer of a dtype."""
    info = np.iinfo(dtype) if dtype.kind in "iu" else ml_dtypes.iinfo(dtype)
    return int(info.min), int(info.max)


def _integers(draw: Draw, rng: np.random.Generator, dtype: np.dtype, shape: Shape, kind: Values) -> np.ndarray:
    low, high = limits(dtype)
    if kind is Values.POSITIVE:
        return np.asarray(rng.integers(1, min(high, 5) + 1, shape)).astype(dtype)
    small = np.asarray(rng.integers(max(low, -5), min(high, 5) + 1, shape))
    if kind is Values.NONZERO:
        small = np.where((small == 0) | (small == -1), 2 if high > 1 else 1, small)
        return np.where(rng.random(shape) < 0.2, high, small).astype(dtype)
    if kind is not Values.ANY or draw.chance(50):
        return small.astype(dtype)
    if draw.chance(50):
        return np.asarray(rng.choice(np.array([low, low + 1, high - 1, high, 0, 1], object), shape)).astype(dtype)
    return np.asarray(rng.integers(low, high, shape, dtype if dtype.kind in "iu" else np.int64, endpoint=True)).astype(dtype)


def _floats(draw: Draw, rng: np.random.Generator, dtype: np.dtype, shape: Shape, kind: Values) -> np.ndarray:
    plain = np.asarray(rng.standard_normal(shape) * 2)
    if kind is Values.POSITIVE:
        return np.asarray(0.5 + 1.5 * rng.random(shape)).astype(dtype)
    if kind is Values.NONZERO:
        return np.where(plain == 0, 1, plain).astype(dtype)
    if kind is Values.PLAIN:
        return plain.astype(dtype)
    how = "special" if kind is Values.SPECIAL else draw.choice(("plain", "plain", "special", "whole", "wide"))
    with np.errstate(all="ignore"):
        if how == "special":
            odd = rng.choice([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan], shape)
            return np.where(rng.random(shape) < 0.3, odd, plain).astype(dtype)
        if how == "whole":
            return np.rint(plain * 2).astype(dtype)
        if how == "wide":
            decades = {2: 4, 4: 30, 8: 200}.get(dtype.itemsize, 2)
            return (plain * 10.0 ** rng.uniform(-decades, decades, shape)).astype(dtype)
        return plain.astype(dtype)
