"""What every elementary function is built from: polynomials, exact products, rounding by magic number, rare branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from . import target
from .emit import E

# (bits of the fraction, exponent bias, integer type of the same size, largest finite value) of a float type
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


def round_product(x: E, factor: float) -> tuple[E, E]:
    """(n, word): n = x * factor rounded to integral, and an integer whose low bits are n's.

    Adding 1.5 * 2^fraction leaves a last bit of weight one, so no rounding instruction is needed; |x * factor| must
    be below 2^(fraction - 1). `word` holds n plus a multiple of 2^(fraction - 1).
    """
    magic = x.like(1.5 * 2.0 ** FRACTION[x.t])
    shifted = x.fma(factor, magic)
    return shifted - magic, shifted.bits(INTEGER[x.t])


def power_of_two(word: E, dtype: str) -> E:
    """2^n for the word of `round_product`, where 2^n is a normal number: the high bits fall out of the shift."""
    return ((word + BIAS[dtype]) << FRACTION[dtype]).bits(dtype)


def product(x: E, y: E) -> tuple[E, E]:
    """x * y as an exact sum of two floats (Dekker 1971 where the CPU has no fused multiply-add)."""
    high = x * y
    if target.current().fma:
        return high, x.fma(y, -high)
    (a, b), (c, d) = _halves(x), _halves(y)
    return high, ((a * c - high) + a * d + b * c) + b * d


def _halves(x: E) -> tuple[E, E]:
    dropped = FRACTION[x.t] // 2 + 1
    high = (x.bits(INTEGER[x.t]) & -(1 << dropped)).bits(x.t)
    return high, x - high


def where_any(mask: E, usual: tuple[E, ...], rare: Callable[[], tuple[E, ...]]) -> tuple[E, ...]:
    """Per lane `rare()` where the mask is set, else `usual`; `rare` is branched over where no lane needs it."""
    b = mask.b
    any_set = mask.v
    if mask.n:
        word = ir.IntType(mask.n)
        any_set = b.icmp_unsigned("!=", b.bitcast(mask.v, word), ir.Constant(word, 0))
    before = b.block
    with b.if_then(any_set, likely=False):
        blended = [u.select(mask, r, u) for u, r in zip(usual, rare())]
        after = b.block
    results = []
    for u, r in zip(usual, blended):
        merged = b.phi(u.v.type)
        merged.add_incoming(u.v, before)
        merged.add_incoming(r.v, after)
        results.append(u.of(merged))
    return tuple(results)
