"""What every elementary function is built from: polynomials, exact products, rounding by magic number, rare branches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from llvmlite import ir

from . import target
from .emit import E

INF, NAN = math.inf, math.nan
# of each float type: bits of the fraction, exponent bias, integer type of the same size, largest and smallest normal value
FRACTION = {"f32": 23, "f64": 52}
BIAS = {"f32": 127, "f64": 1023}
INTEGER = {"f32": "i32", "f64": "i64"}
LARGEST = {"f32": 3.4028234663852886e38, "f64": 1.7976931348623157e308}
TINY = {"f32": 2.0**-126, "f64": 2.0**-1022}


def horner(x: E, coefficients: Sequence[float]) -> E:
    """c0 + c1 x + c2 x^2 ..."""
    total = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, c)
    return total


def paired(x: E, coefficients: Sequence[float]) -> E:
    """(c0 + c1 x) + x^2 ((c2 + c3 x) + ...): one product more than `horner` and half as many dependent steps."""
    pairs = [horner(x, coefficients[i : i + 2]) for i in range(0, len(coefficients), 2)]
    square = x * x
    total = pairs.pop()
    while pairs:
        total = total.fma(square, pairs.pop())
    return total


def odd_quotient(x: E, p: Sequence[float], q: Sequence[float], end: float) -> E:
    """x P(x^2) / Q(x^2) kept within -1 and 1, for a quotient that fits up to x = end and has reached 1 there."""
    square = x * x
    z = square.at_most(end * end)
    return (x * horner(z, p) / horner(z, q)).at_least(-1.0).at_most(1.0)


def round_product(x: E, factor: float) -> tuple[E, E]:
    """(n, word): n = x * factor rounded to integral, and an integer whose low bits are n's.

    Adding 1.5 * 2^fraction leaves a last bit of weight one, so no rounding instruction is needed; |x * factor| must
    be below 2^(fraction - 1). `word` is n plus a multiple of 2^(fraction - 1).
    """
    magic = x.like(1.5 * 2.0 ** FRACTION[x.t])
    shifted = x.fma(factor, magic)
    return shifted - magic, shifted.bits(INTEGER[x.t])


def product(x: E, y: E) -> tuple[E, E]:
    """x * y as an exact sum of two floats (Dekker 1971 where the CPU has no fused multiply-add)."""
    high = x * y
    if target.current().fma:
        return high, x.fma(y, -high)
    (a, b), (c, d) = _halves(x), _halves(y)
    return high, ((a * c - high) + a * d + b * c) + b * d


def _halves(x: E) -> tuple[E, E]:
    """x as a sum of two floats of half the digits each, whose products are exact (Veltkamp 1968)."""
    scaled = x * (2.0 ** (FRACTION[x.t] // 2 + 1) + 1.0)
    high = scaled - (scaled - x)
    return high, x - high


def fast_sum(x: E, y: E) -> tuple[E, E]:
    """x + y as an exact sum of two floats, where |x| >= |y| or x = 0."""
    high = x + y
    return high, y - (high - x)


def where_any(mask: E, usual: E, rare: Callable[[], E]) -> E:
    """Per lane `rare()` where the mask is set, else `usual`; `rare` is branched over where no lane needs it."""
    b, any_set = mask.b, mask.v
    if mask.n:
        word = ir.IntType(mask.n)
        any_set = b.icmp_unsigned("!=", b.bitcast(mask.v, word), ir.Constant(word, 0))
    before = b.block
    with b.if_then(any_set, likely=False):
        blended = usual.select(mask, rare(), usual)
        after = b.block
    merged = b.phi(usual.v.type)
    merged.add_incoming(usual.v, before)
    merged.add_incoming(blended.v, after)
    return usual.of(merged)
