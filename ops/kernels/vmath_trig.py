"""Trigonometric functions and their inverses; branch-free but for huge angles."""

from __future__ import annotations

import math

from . import target
from .emit import E
from .vmath_core import horner, paired, round_product, where_any

# (sin r - r) / r^3 and (cos r - 1 + r^2 / 2) / r^4 in r^2 for |r| <= pi / 4
_SIN = {
    "f32": (-0.16666653474359350912, 0.0083320835547965666069, -0.00019504323869667276605),
    "f64": (-0.16666666666666666633, 0.0083333333333333200143, -0.00019841269841251921865, 2.7557319212551170926e-6,
            -2.5052104485335125709e-8, 1.605831234578532586e-10, -7.5760107575112701132e-13),
}  # fmt: skip
_COS = {
    "f32": (0.04166664437600789151, -0.0013887242624339313566, 0.000024423875706221466563),
    "f64": (0.041666666666666666598, -0.0013888888888888870276, 0.000024801587301568094624, -2.7557319213923083705e-7,
            2.087675404100868677e-9, -1.1470256619076979784e-11, 4.7364679144350902309e-14),
}  # fmt: skip
# (atan u - u) / u^3 in u^2 for |u| <= tan(pi / 8)
_ATAN = {
    "f32": (-0.33332953814697064361, 0.19977864544674137066, -0.13879124625259704152, 0.08057786891426896465),
    "f64": (-0.33333333333333197727, 0.19999999999953656895, -0.14285714280203514027, 0.11111110783791741129,
            -0.090908977664756879781, 0.076920603516070958918, -0.066631053438567247858, 0.058478965958427465397,
            -0.05039327288693745319, 0.038064865729852121252, -0.017907246669033055369),
}  # fmt: skip
# pi / 2 in three parts of 33 bits each
_PI_2_PARTS = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


def _limit() -> float:
    """The angle up to which multiples of the first part of pi / 2 are subtracted exactly."""
    return 2.0**28 if target.current().fma else 2.0**20


def _reduce(x: E) -> tuple[E, E]:
    """(r, quadrant): x = r + quadrant pi/2 with |r| <= pi/4, for |x| up to the limit."""
    if x.t == "f32":
        wide = x.cast("f64")
        n, q = round_product(wide, 2.0 / math.pi)
        r = n.fma(-_PI_2_PARTS[1] - _PI_2_PARTS[2], n.fma(-_PI_2_PARTS[0], wide))
        return r.cast("f32"), q.cast("i32")
    n, q = round_product(x, 2.0 / math.pi)
    r = n.fma(-_PI_2_PARTS[1], n.fma(-_PI_2_PARTS[0], x))
    return n.fma(-_PI_2_PARTS[2], r), q


def _sin_cos(r: E) -> tuple[E, E]:
    z = r * r
    s = (z * r).fma(horner(z, _SIN[r.t]), r)
    c = (z * z).fma(horner(z, _COS[r.t]), z.fma(-0.5, z.like(1.0)))
    return s, c


def _huge(x: E) -> E:
    return x.abs() > _limit()


def _negate_where_odd(value: E, bit: E) -> E:
    """-value where bit 1 of an integer is set: moved to the place of the sign."""
    sign = (bit & 2) << (30 if value.t == "f32" else 62)
    return (value.bits(sign.t) ^ sign).bits(value.t)


def sin(x: E) -> E:
    """Sine; at most 2 ulp; angles beyond 2^28 (2^20 without FMA) as the C library."""
    r, q = _reduce(x)
    s, c = _sin_cos(r)
    value = _negate_where_odd(x.select((q & 1) == 0, s, c), q)
    return where_any(_huge(x), x.select(x == 0.0, x, value), lambda: x.call("sin"))


def cos(x: E) -> E:
    """Cosine; at most 2 ulp; angles beyond 2^28 (2^20 without FMA) as the C library."""
    r, q = _reduce(x)
    s, c = _sin_cos(r)
    value = _negate_where_odd(x.select((q & 1) == 0, c, s), q + 1)
    return where_any(_huge(x), value, lambda: x.call("cos"))


def tan(x: E) -> E:
    """Tangent; at most 4 ulp; angles beyond 2^28 (2^20 without FMA) the quotient of the C library's sine and cosine."""
    r, q = _reduce(x)
    s, c = _sin_cos(r)
    even = (q & 1) == 0
    value = x.select(even, s, -c) / x.select(even, c, s)
    return where_any(_huge(x), x.select(x == 0.0, x, value), lambda: x.call("sin") / x.call("cos"))


def _atan_quotient(a: E, b: E) -> E:
    """atan(a / b) for a and b >= 0 that are not both 0 or infinite; NaN if either is NaN."""
    steep, middle = a > b * (1.0 + math.sqrt(2.0)), a > b * (math.sqrt(2.0) - 1.0)
    top = a.select(steep, -b, a.select(middle, a - b, a))
    bottom = a.select(steep, a, a.select(middle, a + b, b))
    base = a.select(steep, a.like(math.pi / 2), a.select(middle, a.like(math.pi / 4), a.like(0.0)))
    u = top / bottom
    z = u * u
    return base + (z * u).fma(paired(z, _ATAN[a.t]), u)


def atan(x: E) -> E:
    """Arc tangent; at most 3 ulp."""
    return _atan_quotient(x.abs(), x.like(1.0)).copysign(x)


def asin(x: E) -> E:
    """Arc sine; at most 4 ulp; NaN beyond 1."""
    t = x.abs()
    return _atan_quotient(t, ((1.0 - t) * (t + 1.0)).sqrt()).copysign(x)


def acos(x: E) -> E:
    """Arc cosine; at most 4 ulp; NaN beyond 1."""
    return _atan_quotient((1.0 - x).sqrt(), (x + 1.0).sqrt()) * 2.0
