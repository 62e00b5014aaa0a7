"""Exponentials and logarithms on `emit.E`: float32 and float64, any width, branch-free.

Polynomials are minimax fits (Remez exchange in 60 digits) on the reduced range. A bound in a docstring is the largest
error in units in the last place over all finite arguments, measured in tests/test_vmath.py. NaN gives NaN; other
special values are as in C99's Annex F.
"""

from __future__ import annotations

import math

from . import avx512
from .emit import E
from .vmath_core import BIAS, FRACTION, INTEGER, TINY, horner, power_of_two, product, round_product

INF, NAN = math.inf, math.nan
LN2, LOG2E = math.log(2.0), 1.4426950408889634
# ln 2 = high + low; n * high is exact for the n that occur; both positive, so that n = -inf gives -inf
LN2_HIGH = {"f32": 0.693145751953125, "f64": 0.69314718036912381649}
LN2_LOW = {"f32": 1.42860682030941723212e-6, "f64": 1.90821492927058770002e-10}
_LOG10_2_HIGH = {"f32": 0.301025390625, "f64": 0.30102999566383914498}
_LOG10_2_LOW = {"f32": 4.60503898119521373889e-6, "f64": 1.42050232272660695419e-13}
_LOG2E_LOW = {"f32": 1.925963033500000e-8, "f64": 2.0355273740931033e-17}

# (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2
EXP_TAIL = {
    "f32": (0.49999993044657047832, 0.1666651478386606172, 0.041668457833683670747, 0.0083694197127975531279,
            0.0013813102058589145739),
    "f64": (0.50000000000000117007, 0.16666666666666386189, 0.041666666666519156215, 0.0083333333335077341244,
            0.0013888888946919486485, 0.00019841269486007261162, 0.000024801487352447347002, 2.7557597317855192446e-6,
            2.7631687374071862309e-7, 2.4998953697063096752e-8),
}  # fmt: skip
# (log(1 + f) - f + f^2 / 2) / f^3 for sqrt(1/2) <= 1 + f < sqrt(2)
_LOG = (0.33333316730677518322, -0.25000810393373070972, 0.20002285938587633151, -0.16624553522086602907,
        0.14181199149618730555, -0.1312877079267186962, 0.12881604748061434317, -0.078595110448873630429)  # fmt: skip
# (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2
_LOG64 = (0.66666666666667349049, 0.39999999999411060508, 0.28571428743266947199, 0.22222198475659588227,
          0.18183569755523482309, 0.15313902820153331946, 0.14797512483452878698)  # fmt: skip

# arguments beyond which e^x is 0 or infinite for certain, also when rounded
_EXP_RANGE = {"f32": (-104.0, 89.0), "f64": (-746.0, 710.0)}


def reduce_exp(x: E) -> tuple[E, E, E]:
    """(r, n, word): x = r + n ln 2 with |r| <= ln 2 / 2 and n as in `round_product`; x is within the range of exp."""
    n, word = round_product(x, LOG2E)
    r = n.fma(-LN2_HIGH[x.t], x)
    return n.fma(-LN2_LOW[x.t], r), n, word


def exp_tail(r: E) -> E:
    """e^r - 1 for |r| <= ln 2 / 2."""
    return (r * r).fma(horner(r, EXP_TAIL[r.t]), r)


def scale(x: E, n: E, word: E) -> E:
    """x * 2^n (n and word of `round_product`), rounded once where the result is subnormal, infinite on overflow."""
    if avx512.usable(x):
        return avx512.scale(x, n)
    # in two steps; the word's bias makes its low half a logical shift away, which every vector unit has
    fraction, bias = FRACTION[x.t], BIAS[x.t]
    magic = x.like(1.5 * 2.0**fraction).bits(INTEGER[x.t])
    biased = (word - magic + 2 * bias).bits("u" + INTEGER[x.t][1:])
    first = biased >> 1
    second = biased - first
    return x * (first << fraction).bits(x.t) * (second << fraction).bits(x.t)


def exp_between(x: E, correction: E | None = None) -> E:
    """e^(x + correction) for x within the range of exp and a correction that is small beside ln 2."""
    r, n, word = reduce_exp(x)
    if correction is not None:
        r = r + correction
    return scale(horner(r, (1.0, 1.0, *EXP_TAIL[x.t])), n, word)


def exp_negative(x: E) -> E:
    """e^x for x <= 0."""
    return exp_between(x.at_least(_EXP_RANGE[x.t][0]))


def exp_half(x: E) -> E:
    """e^x / 2, for x >= 0, finite wherever sinh x is."""
    r, n, word = reduce_exp(x.at_most(_EXP_RANGE[x.t][1] + 1.0))
    return scale(horner(r, (1.0, 1.0, *EXP_TAIL[x.t])), n - 1.0, word - 1)


def exp(x: E) -> E:
    """e^x; at most 1.1 ulp."""
    low, high = _EXP_RANGE[x.t]
    return exp_between(x.at_least(low).at_most(high))


def exp2(x: E) -> E:
    """2^x; at most 1.5 ulp."""
    low, high = (-151.0, 129.0) if x.t == "f32" else (-1076.0, 1025.0)
    bounded = x.at_least(low).at_most(high)
    n, word = round_product(bounded, 1.0)
    r = (bounded - n) * LN2
    return scale(exp_tail(r) + 1.0, n, word)


def expm1(x: E) -> E:
    """e^x - 1; at most 3 ulp."""
    low, high = (-40.0, 89.0) if x.t == "f32" else (-50.0, 710.0)
    r, n, word = reduce_exp(x.at_least(low).at_most(high))
    small = exp_tail(r)
    # 2^n (e^r - 1) + (2^n - 1); where 2^n overflows the one does not matter
    power = power_of_two(word, x.t)
    usual = power.fma(small, power - 1.0)
    result = x.select(n > BIAS[x.t], scale(small + 1.0, n, word), usual)
    return x.select(x == 0.0, x, result)


# -- logarithms
def _split(x: E) -> tuple[E, E]:
    """(m, e): x = m 2^e with m between sqrt(1/2) and sqrt(2), for positive finite x."""
    if avx512.usable(x):
        m, e = avx512.mantissa(x), avx512.exponent(x)
        large = m > math.sqrt(2.0)
        return m.select(large, m * 0.5, m), e.select(large, e + 1.0, e)
    fraction, integer = FRACTION[x.t], INTEGER[x.t]
    tiny = x < TINY[x.t]
    bits = x.select(tiny, x * 2.0**fraction, x).bits(integer)
    # subtracting the bits of sqrt(1/2) carries into the exponent exactly when the mantissa is at least sqrt(2)
    e = (bits - (0x3F3504F3 if x.t == "f32" else 0x3FE6A09E667F3BCD)) >> fraction
    m = (bits - (e << fraction)).bits(x.t)
    return m, (e - e.select(tiny, e.like(fraction), e.like(0))).cast(x.t)


def log_tail(f: E) -> E:
    """log(1 + f) - f for sqrt(1/2) <= 1 + f <= sqrt(2)."""
    z = f * f
    if f.t == "f32":
        return (z * f).fma(horner(f, _LOG), z * -0.5)
    s = f / (f + 2.0)
    # log(1 + f) = f - f^2/2 + s (f^2/2 + Q(s^2)) keeps the leading terms exact
    half, w = z * 0.5, s * s
    return s.fma(w.fma(horner(w, _LOG64), half), -half)


def log_parts(x: E) -> tuple[E, E, E]:
    """(f, tail, e): log x = f + tail + e ln 2, with |tail| small beside f, for positive finite x."""
    m, e = _split(x)
    f = m - 1.0
    return f, log_tail(f), e


def _log_special(x: E, result: E) -> E:
    """Logarithms of 0, infinity, NaN and negative numbers put in, where the instructions have not yielded them."""
    if avx512.usable(x):
        return result
    result = x.select(x == INF, x.like(INF), result)
    result = x.select(x == 0.0, x.like(-INF), result)
    return x.select(x >= 0.0, result, x.like(NAN))


def log(x: E) -> E:
    """Natural logarithm; at most 1 ulp."""
    f, tail, e = log_parts(x)
    return _log_special(x, e.fma(LN2_HIGH[x.t], f + e.fma(LN2_LOW[x.t], tail)))


def log2(x: E) -> E:
    """Base-2 logarithm; at most 2 ulp."""
    f, tail, e = log_parts(x)
    # f * log2(e) in two parts keeps the error below an ulp where e is 0
    high, rest = product(f, f.like(LOG2E))
    rest = f.fma(_LOG2E_LOW[x.t], rest)
    return _log_special(x, e + (high + tail.fma(LOG2E, rest)))


def log10(x: E) -> E:
    """Base-10 logarithm; at most 2.5 ulp."""
    f, tail, e = log_parts(x)
    low = e.fma(_LOG10_2_LOW[x.t], (f + tail) * 0.43429448190325182765)
    return _log_special(x, e.fma(_LOG10_2_HIGH[x.t], low))


def log_of_sum(u: E, lost: E, doublings: E | None = None) -> E:
    """log(u + lost) + doublings * ln 2 for u >= 0 and a rounding error `lost` of u."""
    f, tail, e = log_parts(u)
    if doublings is not None:
        e = e + doublings
    low = e.fma(LN2_LOW[u.t], tail) + lost / u
    return e.fma(LN2_HIGH[u.t], f + low)


def log1p(x: E) -> E:
    """log(1 + x); at most 2 ulp."""
    u = x + 1.0
    result = log_of_sum(u, x.select(x > 1.0, (x - u) + 1.0, x - (u - 1.0)))
    result = x.select(x.abs() < 2.0 ** -(FRACTION[x.t] + 2), x, result)
    result = x.select(x == INF, x.like(INF), result)
    result = x.select(x == -1.0, x.like(-INF), result)
    return x.select(x >= -1.0, result, x.like(NAN))


def log1p_unit(x: E) -> E:
    """log(1 + x) for 0 <= x <= 1, relative error of 1.5 ulp."""
    u = x + 1.0
    lost = x - (u - 1.0)
    large = u > math.sqrt(2.0)
    f = u.select(large, u * 0.5, u) - 1.0
    # the correction lost / u needs few digits: a chord of 1 / u
    low = lost.fma(u.fma(-0.5, 1.5), log_tail(f))
    zero = x.like(0.0)
    low = low + x.select(large, x.like(LN2_LOW[x.t]), zero)
    return x.select(large, x.like(LN2_HIGH[x.t]), zero) + (f + low)
