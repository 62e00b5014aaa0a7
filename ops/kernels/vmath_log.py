"""Logarithms and the functions that end in one: softplus and the inverse hyperbolic functions, branch-free."""

from __future__ import annotations

import math

from .emit import E
from .vmath_core import FRACTION, INF, INTEGER, NAN, TINY, paired, product
from .vmath_exp import LN2_HIGH, LN2_LOW, exp_negative

_LOG2E, _LOG10E = 1.4426950408889634, 0.43429448190325182765
# the part of log2(e) that the format does not hold
_LOG2E_LOW = {"f32": 1.925963033500000e-8, "f64": 2.0355273740931033e-17}
# log10(2) = high + low; e * high is exact for every exponent e
_LOG10_2_HIGH = {"f32": 0.301025390625, "f64": 0.30102999566383914498}
_LOG10_2_LOW = {"f32": 4.60503898119521373889e-6, "f64": 1.42050232272660695419e-13}

# (log(1 + f) - f + f^2 / 2) / f^3 for sqrt(1/2) <= 1 + f < sqrt(2)
_LOG = (0.33333316730677518322, -0.25000810393373070972, 0.20002285938587633151, -0.16624553522086602907,
        0.14181199149618730555, -0.1312877079267186962, 0.12881604748061434317, -0.078595110448873630429)  # fmt: skip
# (log((1 + s) / (1 - s)) - 2 s) / s^3 in s^2
_LOG64 = (0.66666666666667349049, 0.39999999999411060508, 0.28571428743266947199, 0.22222198475659588227,
          0.18183569755523482309, 0.15313902820153331946, 0.14797512483452878698)  # fmt: skip


def split(x: E) -> tuple[E, E]:
    """(m, e): x = m 2^e with sqrt(1/2) <= m < sqrt(2), for positive finite x."""
    fraction, integer = FRACTION[x.t], INTEGER[x.t]
    tiny = x < TINY[x.t]
    bits = x.select(tiny, x * 2.0**fraction, x).bits(integer)
    # subtracting the bits of sqrt(1/2) carries into the exponent exactly when the mantissa is at least sqrt(2)
    shifted = bits - (0x3F3504F3 if x.t == "f32" else 0x3FE6A09E667F3BCD)
    e, m = _exponent(shifted, x.t)
    m = (bits - m).bits(x.t)
    return m, e - x.select(tiny, x.like(fraction), x.like(0.0))


def _exponent(shifted: E, dtype: str) -> tuple[E, E]:
    """The signed exponent field as a float, and in its place."""
    fraction = FRACTION[dtype]
    place = shifted & -(1 << fraction)
    if dtype == "f32":
        return (shifted >> fraction).cast(dtype), place
    # few CPUs shift 64-bit integers arithmetically or convert them: as the low digits of a large float instead
    magic = 1.5 * 2.0**52
    low = (place ^ -(1 << 63)).bits("u64") >> fraction
    return (low.bits("i64") | shifted.like(0x4338000000000000)).bits(dtype) - (magic + 2048.0), place


def _tail(f: E) -> E:
    """log(1 + f) - f for sqrt(1/2) <= 1 + f <= sqrt(2)."""
    z = f * f
    if f.t == "f32":
        return (z * f).fma(paired(f, _LOG), z * -0.5)
    s = f / (f + 2.0)
    # log(1 + f) = f - f^2/2 + s (f^2/2 + Q(s^2)) keeps the leading terms exact
    half, w = z * 0.5, s * s
    return s.fma(w.fma(paired(w, _LOG64), half), -half)


def _parts(x: E) -> tuple[E, E, E]:
    """(f, tail, e): log x = f + tail + e ln 2, with |tail| small beside f, for positive finite x."""
    m, e = split(x)
    f = m - 1.0
    return f, _tail(f), e


def _special(x: E, result: E) -> E:
    """Logarithms of 0, infinity, NaN and negative numbers put in."""
    result = x.select(x == INF, x, result)
    result = x.select(x == 0.0, x.like(-INF), result)
    return x.select(x >= 0.0, result, x.like(NAN))


def log(x: E) -> E:
    """Natural logarithm; at most 1 ulp."""
    f, tail, e = _parts(x)
    return _special(x, e.fma(LN2_HIGH[x.t], f + e.fma(LN2_LOW[x.t], tail)))


def log2(x: E) -> E:
    """Base-2 logarithm; at most 1.5 ulp."""
    f, tail, e = _parts(x)
    # f * log2(e) in two parts keeps the error below an ulp where e is 0
    high, rest = product(f, f.like(_LOG2E))
    rest = f.fma(_LOG2E_LOW[x.t], rest)
    return _special(x, e + (high + tail.fma(_LOG2E, rest)))


def log10(x: E) -> E:
    """Base-10 logarithm; at most 2 ulp."""
    f, tail, e = _parts(x)
    low = e.fma(_LOG10_2_LOW[x.t], (f + tail) * _LOG10E)
    return _special(x, e.fma(_LOG10_2_HIGH[x.t], low))


def _log1p_parts(x: E, doublings: E | None = None) -> E:
    """log(1 + x) + doublings * ln 2 for finite x > -1; NaN for NaN."""
    u = x + 1.0
    lost = x.select(x > 1.0, (x - u) + 1.0, x - (u - 1.0))
    f, tail, e = _parts(u)
    if doublings is not None:
        e = e + doublings
    low = e.fma(LN2_LOW[u.t], tail) + lost / u
    return e.fma(LN2_HIGH[u.t], f + low)


def log1p(x: E) -> E:
    """log(1 + x); at most 1 ulp."""
    result = _log1p_parts(x)
    result = x.select((x.abs() < 2.0 ** -(FRACTION[x.t] + 2)) | (x == INF), x, result)
    result = x.select(x == -1.0, x.like(-INF), result)
    return x.select(x >= -1.0, result, x.like(NAN))


def _log1p_unit(x: E) -> E:
    """log(1 + x) for 0 <= x <= 1."""
    u = x + 1.0
    lost = x - (u - 1.0)
    large = u > math.sqrt(2.0)
    f = u.select(large, u * 0.5, u) - 1.0
    # the correction lost / u needs few digits: a chord of 1 / u
    low = lost.fma(u.fma(-0.5, 1.5), _tail(f))
    zero = x.like(0.0)
    low = low + x.select(large, x.like(LN2_LOW[x.t]), zero)
    return x.select(large, x.like(LN2_HIGH[x.t]), zero) + (f + low)


def softplus(x: E) -> E:
    """log(1 + e^x); at most 3 ulp."""
    return x.at_least(0.0) + _log1p_unit(exp_negative(-x.abs()))


def asinh(x: E) -> E:
    """Inverse hyperbolic sine; at most 2 ulp."""
    t = x.abs()
    z = t * t
    large = t > 2.0**60
    argument = x.select(large, t, t + z / ((z + 1.0).sqrt() + 1.0))
    result = _log1p_parts(argument, x.select(large, x.like(1.0), x.like(0.0)))
    small = t < 2.0 ** -(FRACTION[x.t] // 2 + 2)
    return x.select(small | (t == INF), t, result).copysign(x)


def acosh(x: E) -> E:
    """Inverse hyperbolic cosine; at most 2.5 ulp; NaN below 1."""
    t = x - 1.0
    large = x > 2.0**60
    argument = x.select(large, x, t + (t * (t + 2.0)).sqrt())
    result = _log1p_parts(argument, x.select(large, x.like(1.0), x.like(0.0)))
    return x.select(x >= 1.0, x.select(x == INF, x, result), x.like(NAN))


def atanh(x: E) -> E:
    """Inverse hyperbolic tangent; at most 2.5 ulp; NaN beyond 1."""
    t = x.abs()
    return (log1p(t * 2.0 / (1.0 - t)) * 0.5).copysign(x)
