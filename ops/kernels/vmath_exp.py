"""Exponentials: exp, exp2, expm1, the hyperbolic functions and the logistic function, branch-free.

All reduce x to r + 2 m ln 2 with |r| <= ln 2. An even power of two is s * s with s = 2^m, which is a normal number
wherever e^x is finite or subnormal: multiplying by s twice rounds once, overflows and underflows as it should, and
formulas that divide by one s first (the logistic function, tanh, expm1) never leave the range of the format.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import target
from .emit import E
from .vmath_core import BIAS, FRACTION, LARGEST, horner, odd_quotient, paired, round_product

LN2 = math.log(2.0)
# ln 2 = high + low; n * high is exact for every exponent n
LN2_HIGH = {"f32": 0.693145751953125, "f64": 0.69314718036912381649}
LN2_LOW = {"f32": 1.42860682030941723212e-6, "f64": 1.90821492927058770002e-10}

# (e^r - 1 - r) / r^2 for |r| <= ln 2
_TAIL = {
    "f32": (0.50000029458974878097, 0.16666676392344719552, 0.041661670649800275351, 0.0083323609925495726307,
            0.0014098001912552407164, 0.00020134499765973190239),
    "f64": (0.49999999999999955919, 0.1666666666666665076, 0.041666666666692672352, 0.0083333333333386854427,
            0.0013888888884538887606, 0.00019841269835010187529, 0.000024801590412201737616, 2.7557322674203132204e-6,
            2.7556239342513541132e-7, 2.5051130990819521466e-8, 2.1056488262656551923e-9, 1.6196833373353612961e-10),
}  # fmt: skip
# e^r for |r| <= ln 2 / 2
_SHORT = (1.0, 1.0, 0.49999231494816887, 0.16667114652336443, 0.0418901568827609, 0.0083125199684253)
# 2^r for |r| <= 1/2
_SHORT_2 = (1.0, 0.69314700365, 0.24022242427, 0.055507335812, 0.0096715129912, 0.0013264727313)
# tanh x = x P(x^2) / Q(x^2) up to the x from which on tanh rounds to 1; among the float32 neighbours of the minimax fit
# and its multiples, coefficients whose evaluation in float32 errs least
_TANH_P = (0.7497627139091492, 0.1003161370754242, 0.0026196970138698816, 1.5432729924214073e-05, 9.986149684948487e-09)
_TANH_Q = (0.749762773513794, 0.3502368927001953, 0.01939716748893261, 0.00024615408619865775, 5.819674697704613e-07)
# tanh(r / 2) = r P(r^2) / Q(r^2) for |r| <= ln 2
_HALF_P = (0.499999983433, 0.00829076190047)
_HALF_Q = (1.0, 0.0999135915677)
_TANH_ONE = {"f32": 9.02, "f64": 22.0}

# arguments beyond which e^x rounds to 0 or infinity
LOWEST_EXP = {"f32": -104.0, "f64": -746.0}
_HIGHEST_EXP = {"f32": 89.0, "f64": 710.0}


@dataclass(frozen=True, eq=False)
class _Reduced:
    """x = r + 2 m ln 2; the integer `shift` holds m in the exponent's place."""

    r: E
    shift: E

    def power(self) -> E:
        """2^m."""
        return (self.shift + _one(self.r)).bits(self.r.t)

    def inverse(self) -> E:
        """2^-m."""
        return (-self.shift + _one(self.r)).bits(self.r.t)

    def exp(self) -> E:
        """e^r."""
        return self.expm1() + 1.0

    def expm1(self) -> E:
        """e^r - 1."""
        return (self.r * self.r).fma(paired(self.r, _TAIL[self.r.t]), self.r)


def _one(x: E) -> int:
    """The bits of 1.0."""
    return BIAS[x.t] << FRACTION[x.t]


def _reduce(x: E, rest: E | None = None) -> _Reduced:
    """Reduction of x (+ rest) within the range of exp; the high bits of the rounded word fall out of the shift."""
    m, word = round_product(x, 0.5 / LN2)
    r = m.fma(-2.0 * LN2_HIGH[x.t], x)
    low = -2.0 * LN2_LOW[x.t]
    r = m.fma(low, r) if rest is None else r + m.fma(low, rest)
    return _Reduced(r, word << FRACTION[x.t])


def _bounded(x: E) -> E:
    return x.at_least(LOWEST_EXP[x.t]).at_most(_HIGHEST_EXP[x.t])


def _both_bounded(x: E) -> E:
    return x.at_least(LOWEST_EXP[x.t]).at_most(-LOWEST_EXP[x.t])


def exp(x: E) -> E:
    """e^x; at most 2 ulp."""
    return exp_sum(_bounded(x))


def exp_negative(x: E) -> E:
    """e^x for x <= 0; at most 2 ulp."""
    return exp_sum(x.at_least(LOWEST_EXP[x.t]))


def exp_flushed(x: E) -> E:
    """e^x for x <= 0, in float32 at most 3 - x / 30 ulp and 0 below 2^-126; in float64 at most 2 ulp.

    Half as many instructions as `exp`, for softmax, whose sums do not notice subnormal terms: the exponent's bias is part of
    what rounds x, and the lowest exponent, which x is bounded to, stands for 0; ln 2 is one number, which errs by 2e-9 for
    each power of two that a term is smaller than the largest.
    """
    if x.t == "f64":
        return exp_negative(x)
    bias = BIAS["f32"]
    bounded = x.at_least(-bias * LN2)
    magic = 1.5 * 2.0 ** FRACTION["f32"] + bias
    shifted = bounded.fma(1.0 / LN2, magic)
    n = shifted - magic
    if target.current().fma:
        r = n.fma(-LN2, bounded)
    else:  # products are rounded: that with the high part is exact
        r = n.fma(-LN2_LOW["f32"], n.fma(-LN2_HIGH["f32"], bounded))
    return horner(r, _SHORT) * (shifted.bits("i32") << FRACTION["f32"]).bits("f32")


def exp2_flushed(x: E) -> E:
    """2^x for x <= 0, in float32 at most 3 ulp and 0 below 2^-126 (see `exp_flushed`); in float64 `exp2`."""
    if x.t == "f64":
        return exp2(x)
    bias = BIAS["f32"]
    r, shifted = _short_reduced(x.at_least(-bias), bias)
    return horner(r, _SHORT_2) * (shifted << FRACTION["f32"]).bits("f32")


def exp2_less(x: E, n: E) -> E:
    """2^(x - n) in float32 for integral n and x - n of -125 to 126, at most 3 ulp; anything else for what lies outside.

    x - n is not rounded. It is made for many values beside each other, which wait for units that multiply: the powers of r are one
    chain, and a power of two is not a factor but added to the exponent, which others do (Zen's integer units).
    """
    r, shifted = _short_reduced(x, -n)
    return (horner(r, _SHORT_2).bits("i32") + (shifted << FRACTION["f32"])).bits("f32")


def _short_reduced(x: E, offset: E | float) -> tuple[E, E]:
    """(r, word): x = r + n with |r| <= 1/2, and an integer whose low bits are those of n + an integral offset."""
    magic = x.like(1.5 * 2.0 ** FRACTION["f32"]) + offset
    shifted = x + magic
    return x - (shifted - magic), shifted.bits("i32")


def exp_sum(x: E, rest: E | None = None) -> E:
    """e^(x + rest) for x within the range of exp, and |rest| small."""
    reduced = _reduce(x, rest)
    return reduced.power().fma(reduced.expm1(), reduced.power()) * reduced.power()


def exp2(x: E) -> E:
    """2^x; at most 2 ulp."""
    low, high = (-151.0, 129.0) if x.t == "f32" else (-1076.0, 1025.0)
    bounded = x.at_least(low).at_most(high)
    m, word = round_product(bounded, 0.5)
    reduced = _Reduced(m.fma(-2.0, bounded) * LN2, word << FRACTION[x.t])
    power = reduced.power()
    return reduced.exp() * power * power


def expm1(x: E) -> E:
    """e^x - 1; at most 2.5 ulp."""
    reduced = _reduce(_bounded(x))
    power = reduced.power()
    # (e^x - 1) / 2^m is finite wherever e^x is not certainly infinite
    scaled = power.fma(reduced.expm1(), power - reduced.inverse())
    return x.select(x == 0.0, x, scaled * power)


def sinh(x: E) -> E:
    """Hyperbolic sine; at most 3 ulp."""
    reduced = _reduce(x.abs().at_most(_HIGHEST_EXP[x.t] + 1.0))
    power = reduced.power()
    scaled = power.fma(reduced.expm1(), power - reduced.inverse())
    m = (scaled * power).at_most(LARGEST[x.t])
    # (e^t - e^-t) / 2 = (m + m / (m + 1)) / 2 for m = e^t - 1
    return scaled.fma(power * 0.5, m / (m + 1.0) * 0.5).copysign(x)


def cosh(x: E) -> E:
    """Hyperbolic cosine; at most 2 ulp."""
    reduced = _reduce(x.abs().at_most(_HIGHEST_EXP[x.t] + 1.0))
    power = reduced.power()
    half = reduced.exp() * power * (power * 0.5)
    return half + 0.25 / half


def tanh(x: E) -> E:
    """Hyperbolic tangent; at most 5.5 ulp in float32 (7 without FMA), 3 in float64; never beyond 1."""
    one = _TANH_ONE[x.t]
    if x.t == "f32":
        return odd_quotient(x, _TANH_P, _TANH_Q, one)
    bounded = x.at_least(-one).at_most(one)
    reduced = _reduce(bounded * 2.0)
    power, inverse, small = reduced.power(), reduced.inverse(), reduced.expm1()
    # (e^2x - 1) / (e^2x + 1), both divided by 2^m
    result = power.fma(small, power - inverse) / power.fma(small, power + inverse)
    return x.select(x == 0.0, x, result)


def sigmoid(x: E) -> E:
    """1 / (1 + e^-x); at most 4 ulp, also where the result is subnormal."""
    reduced = _reduce(_both_bounded(-x))
    inverse = reduced.inverse()
    if x.t == "f64":
        return inverse / reduced.exp().fma(reduced.power(), inverse)
    # a quotient comes anyway: e^r = (a + b) / (a - b) takes fewer steps than the polynomial
    z = reduced.r * reduced.r
    a, b = horner(z, _HALF_Q), reduced.r * horner(z, _HALF_P)
    below = (a - b) * inverse
    return below / (a + b).fma(reduced.power(), below)
