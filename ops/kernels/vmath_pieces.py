"""Functions of one number in float32 as sixteen polynomials, whose coefficients are looked up in vector registers (AVX-512).

Half as many instructions as a quotient of polynomials, none of them a division, and a smaller error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from . import target
from .emit import E, lookup
from .vmath_core import FRACTION

_COUNT, _DEGREE = 16, 5
_MAGIC = 1.5 * 2.0 ** FRACTION["f32"]  # added to a number, it leaves in the last bits what that rounds to


def available(x: E) -> bool:
    """Whether the CPU looks up sixteen numbers at once, and the type is one that such polynomials are exact enough for."""
    return x.t == "f32" and target.current().has("avx512f")


@dataclass(frozen=True)
class Pieces:
    """A function f of a >= 0 with f(0) = 0, and a number in its place from `end` on.

    Piece i is around i / scale, as wide as 1 / scale, and a polynomial in what a scale lies beside i. The first is only half
    as wide and has the factor a, so that its relative error is small; the last is the number.

    Attributes:
        scale: pieces to 1.
        coefficients: of each power, the lowest first, those of the sixteen pieces.
    """

    scale: float
    coefficients: tuple[tuple[float, ...], ...]

    def __call__(self, a: E) -> E:
        """f(a) of a >= 0; NaN stays NaN."""
        inside = a.at_most((_COUNT - 1) / self.scale)
        shifted = inside.fma(self.scale, _MAGIC)
        beside, piece = inside.fma(self.scale, _MAGIC - shifted), shifted.bits("i32")
        total = lookup(piece, self.coefficients[-1])
        for row in reversed(self.coefficients[:-1]):
            total = total.fma(beside, lookup(piece, row))
        return total


@cache
def pieces(function: Callable[[float], float], end: float, beyond: float) -> Pieces:
    """A function's pieces, by interpolation at Chebyshev's points, whose errors are near the least that is possible."""
    scale = (_COUNT - 1.5) / end
    at = np.vectorize(function, otypes=[np.float64])
    slope = _polynomial(lambda r: at(r / scale) / r, _DEGREE - 1, 0.0)
    rows = [[0.0, *slope], *(_polynomial(lambda r, i=i: at((i + r) / scale), _DEGREE, -0.5) for i in range(1, _COUNT - 1))]
    rows.append([beyond] + [0.0] * _DEGREE)
    return Pieces(scale, tuple(zip(*rows)))


def _polynomial(function: Callable[[np.ndarray], np.ndarray], degree: int, low: float) -> list[float]:
    """Coefficients of what agrees with a function at Chebyshev's points between `low` and 1/2."""
    return Chebyshev.interpolate(function, degree, domain=[low, 0.5]).convert(kind=Polynomial).coef.tolist()
