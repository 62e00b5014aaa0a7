"""The algebra of Winograd convolution: its forms, the points each takes, and the matrices that follow (Lavin & Gray, 2015).

A filter of r taps and m outputs are polynomials' coefficients: n = m + r - 1 products, one for each point that the
polynomials are evaluated at, give what m r products do (Toom and Cook). A picture takes a form along each dimension, n^2
products; a dimension of one tap has one point, and nothing is transformed along it.

Errors grow with the number of points, and with their square in two dimensions. `coarse` forms err too much to be taken
unasked; `python -m benchmarks.errors` prints the errors of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

Matrix = tuple[tuple[Fraction, ...], ...]

# Beside 0 and infinity the points are +- these, by how many there are in all. Of those that are few binary digits long,
# products included, some with the smallest error: the usual 1 and 2 of six err twice as much.
_POINTS = {
    4: (Fraction(1),),
    6: (Fraction(5, 8), Fraction(25, 16)),
    8: (Fraction(1, 2), Fraction(1), Fraction(2)),
}


@dataclass(frozen=True)
class Form:
    """Winograd convolution F(m, r) along each dimension of more than one tap, all with the same number of points.

    Attributes:
        taps: r of each spatial dimension.
        points: n.
    """

    taps: tuple[int, ...]
    points: int

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

    def tiles(self, size: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
        """How many tiles cover a picture of `size` outputs, each dimension as `dilations` interleaved ones."""
        return tuple(d * -(n // -(d * m)) for n, m, d in zip(size, self.outputs, self.interleaved(dilations)))

    def interleaved(self, dilations: Sequence[int]) -> tuple[int, ...]:
        """Dilations that mean something: those of several taps."""
        return tuple(d if r > 1 else 1 for d, r in zip(dilations, self.taps))

    def __str__(self) -> str:
        return "x".join(map(str, self.outputs))


@lru_cache(maxsize=256)
def forms(taps: tuple[int, ...]) -> tuple[Form, ...]:
    """The forms for filters of that size, fewest points first; for those of several taps in one or two dimensions.

    Along one alone four points save a third at most, which is what the transforms cost.
    """
    several = [r for r in taps if r > 1]
    if not 1 <= len(several) <= 2:
        return ()
    return tuple(Form(taps, n) for n in _POINTS if n > max(several) and (n > 4 or len(several) == 2))


@dataclass(frozen=True)
class Matrices:
    """y = A' [(G g) * (B' d)] along one dimension, of m outputs y, r taps g, n data d.

    Attributes:
        outputs: A', m x n. filters: G, n x r. data: B', n x n.
    """

    outputs: Matrix
    filters: Matrix
    data: Matrix


@lru_cache(maxsize=64)
def matrices(outputs: int, taps: int) -> Matrices:
    """The matrices of F(outputs, taps), exactly; points in the order 0, +p, -p ..., infinity.

    The data are weighted by what vanishes at all points but one, monic; the filters by its value there.
    """
    count = outputs + taps - 1
    points = _finite(count)
    others = [[q for q in points if q != p] for p in points]
    return Matrices(
        tuple((*(p**power for p in points), Fraction(power == outputs - 1)) for power in range(outputs)),
        (
            *(tuple(p**power / prod(p - q for q in rest) for power in range(taps)) for p, rest in zip(points, others)),
            tuple(Fraction(power == taps - 1) for power in range(taps)),
        ),
        (*((*_vanishing(rest), Fraction(0)) for rest in others), _vanishing(points)),
    )


def _finite(count: int) -> tuple[Fraction, ...]:
    if count == 1:
        return ()
    return (Fraction(0), *(sign * p for p in _POINTS[count] for sign in (1, -1)))


def _vanishing(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x - root), lowest first."""
    total = [Fraction(1)]
    for root in roots:
        total = [lower - root * same for same, lower in zip([*total, Fraction(0)], [Fraction(0), *total])]
    return tuple(total)
