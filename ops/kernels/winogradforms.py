"""The algebra of Winograd convolution: its forms, the points each takes, and the matrices that follow (Lavin & Gray, 2015).

A filter of r taps and m outputs are polynomials' coefficients: n = m + r - 1 products, one for each point that the
polynomials are evaluated at, give what m r products do (Toom and Cook). A picture takes a form along each dimension, n^2
products; a dimension of one tap has one point, and nothing is transformed along it.

Errors grow with the number of points, and with their square in two dimensions. `coarse` forms err too much to be taken
unasked; `python -m benchmarks.errors` prints the errors of all.

`whole` forms are for integers of 9 bits (differences of bytes), exactly: points are integers, transformed data and filters
fit in int16, and what divides the filters is left to the outputs, which are computed modulo 2^32 and times that divisor. Its
odd part has an inverse there, its power of two is shifted away: what the shift takes is missing to the range of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm, prod

import numpy as np

Matrix = tuple[tuple[Fraction, ...], ...]

# Beside 0 and infinity the points are +- these, by how many there are in all. Of those that are few binary digits long,
# products included, some with the smallest error: the usual 1 and 2 of six err twice as much.
_POINTS = {
    4: (Fraction(1),),
    6: (Fraction(5, 8), Fraction(25, 16)),
    8: (Fraction(1, 2), Fraction(1), Fraction(2)),
}
_WHOLE_POINTS = {4: (Fraction(1),), 6: (Fraction(1), Fraction(2))}
DIFFERENCE = 255  # of bytes: the largest magnitude of what whole forms multiply


@dataclass(frozen=True)
class Form:
    """Winograd convolution F(m, r) along each dimension of more than one tap, all with the same number of points.

    Attributes:
        taps: r of each spatial dimension.
        points: n.
        whole: whether it is one for integers.
    """

    taps: tuple[int, ...]
    points: int
    whole: bool = False

    @property
    def outputs(self) -> tuple[int, ...]:
        """m of each dimension: the size of a tile."""
        return tuple(self.points - r + 1 if r > 1 else 1 for r in self.taps)

    @property
    def patch(self) -> tuple[int, ...]:
        """Pixels that a tile reads, in each dimension; as many products give it."""
        return tuple(self.points if r > 1 else 1 for r in self.taps)

    @property
    def products(self) -> int:
        """Elements of a transformed patch."""
        return prod(self.patch)

    @property
    def coarse(self) -> bool:
        """Whether errors are 10 to 20 times those of direct summation."""
        return self.products > 36

    @property
    def dtype(self) -> np.dtype:
        """Of the image, the filters and their transforms."""
        return np.dtype(np.int16 if self.whole else np.float32)

    @property
    def matrices(self) -> list[Matrices]:
        """Those of each dimension."""
        return [matrices(outputs, r, self.whole) for outputs, r in zip(self.outputs, self.taps)]

    @property
    def sum_bits(self) -> int:
        """How many bits a sum of integers may have."""
        return 32 - divisor(prod(each.divisor for each in self.matrices))[1]

    def tiles(self, size: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
        """How many tiles cover a picture of `size` outputs, each dimension as `dilations` interleaved ones."""
        return tuple(d * -(n // -(d * m)) for n, m, d in zip(size, self.outputs, self.interleaved(dilations)))

    def interleaved(self, dilations: Sequence[int]) -> tuple[int, ...]:
        """Dilations that mean something: those of several taps."""
        return tuple(d if r > 1 else 1 for d, r in zip(dilations, self.taps))

    def __str__(self) -> str:
        return "x".join(map(str, self.outputs))


@lru_cache(maxsize=256)
def forms(taps: tuple[int, ...], whole: bool = False) -> tuple[Form, ...]:
    """The forms for filters of that size, fewest points first; for those of several taps in one or two dimensions.

    Along one alone four points save a third at most, which is what the transforms cost.
    """
    several = [r for r in taps if r > 1]
    if not 1 <= len(several) <= 2:
        return ()
    made = [
        Form(taps, n, whole) for n in (_WHOLE_POINTS if whole else _POINTS) if n > max(several) and (n > 4 or len(several) == 2)
    ]
    return tuple(form for form in made if not whole or _fits(form))


def _fits(form: Form) -> bool:
    """Whether what a whole form multiplies fits in int16."""
    factors = [[of.data for of in form.matrices], [of.filters for of in form.matrices]]
    return all(DIFFERENCE * prod(max(sum(map(abs, row)) for row in matrix) for matrix in each) < 1 << 15 for each in factors)


def divisor(total: int) -> tuple[int, int]:
    """What undoes a multiplication by `total` modulo 2^32: a number to multiply by, and bits to shift to the right then."""
    bits = (total & -total).bit_length() - 1
    return pow(total >> bits, -1, 1 << 32), bits


@dataclass(frozen=True)
class Matrices:
    """y = A' [(G g) * (B' d)] / divisor along one dimension, of m outputs y, r taps g, n data d.

    Attributes:
        outputs: A', m x n. filters: G, n x r. data: B', n x n.
    """

    outputs: Matrix
    filters: Matrix
    data: Matrix
    divisor: int = 1


@lru_cache(maxsize=64)
def matrices(outputs: int, taps: int, whole: bool = False) -> Matrices:
    """The matrices of F(outputs, taps), exactly; points in the order 0, +p, -p ..., infinity.

    The data are weighted by what vanishes at all points but one, monic; the filters by its value there, or, in a whole
    form, the outputs by as much as makes integers.
    """
    points = _finite(outputs + taps - 1, whole)
    others = [[q for q in points if q != p] for p in points]
    ones, values = [Fraction(1)] * len(points), [Fraction(prod(p - q for q in rest)) for p, rest in zip(points, others)]
    divisor = lcm(*map(int, values)) if whole else 1
    left, right = (values, ones) if whole else (ones, values)  # what divides outputs and filters
    return Matrices(
        _powers(points, [divisor / value for value in left], outputs, divisor),
        tuple(zip(*_powers(points, [1 / value for value in right], taps, 1))),
        (*((*_vanishing(rest), Fraction(0)) for rest in others), _vanishing(points)),
        divisor,
    )


def _powers(points: Sequence[Fraction], factors: Sequence[Fraction], count: int, last: int) -> Matrix:
    """A row for each power below `count` of the points, times factors; infinity has the highest one alone."""
    return tuple(
        (*(p**power * factor for p, factor in zip(points, factors)), Fraction(last * (power == count - 1)))
        for power in range(count)
    )


def _finite(count: int, whole: bool) -> tuple[Fraction, ...]:
    if count == 1:
        return ()
    return (Fraction(0), *(sign * p for p in (_WHOLE_POINTS if whole else _POINTS)[count] for sign in (1, -1)))


def _vanishing(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x - root), lowest first."""
    total = [Fraction(1)]
    for root in roots:
        total = [lower - root * same for same, lower in zip([*total, Fraction(0)], [Fraction(0), *total])]
    return tuple(total)
