"""Powers: float32 through float64, float64 through a logarithm in two floats, integers through float64."""

from __future__ import annotations

from .emit import E
from .vmath_core import INF, NAN, fast_sum, paired, product
from .vmath_exp import LN2_HIGH, LN2_LOW, LOWEST_EXP, exp, exp_sum
from .vmath_log import log, split

# (atanh(s) / s - 1 - z / 3) / z^2 in z = s^2; a third in two floats; what LN2_HIGH + LN2_LOW leave of ln 2 is below 2^-85
_ATANH = (0.19999999999999988662, 0.1428571428572260902, 0.11111111108755284285, 0.090909094367476526353,
          0.076922783268712712174, 0.066681628943059607799, 0.058373241848886655226, 0.059952160917597481312)  # fmt: skip
_THIRD = (0.3333333333333333, 1.850371707708594e-17)
# no finite logarithm but 0 is so small that a power beyond this stays in range
_HIGHEST_POWER = 2.0**75


def pow(x: E, y: E) -> E:
    """x^y with C's special cases; at most 1 ulp in float32, 1.5 in float64. Integers: as float64, to the nearest integer."""
    if x.t not in ("f32", "f64"):
        return pow(x.cast("f64"), y.cast("f64")).rint().cast(x.t)
    magnitude = _magnitude_single(x, y) if x.t == "f32" else _magnitude_double(x, y)
    return _special(x, y, magnitude)


def _special(x: E, y: E, magnitude: E) -> E:
    """|x|^y with the sign, and the cases that no logarithm decides."""
    half = y * 0.5
    whole = y.trunc() == y
    odd = whole & (half.trunc() != half)
    negative = (x.bits("i" + x.t[1:]) < 0) & ~x.isnan()
    result = x.select(negative & odd, -magnitude, magnitude)
    result = x.select(negative & ~whole & (x != 0.0) & (x != -INF), x.like(NAN), result)
    result = x.select((x == -1.0) & (y.abs() == INF), x.like(1.0), result)
    result = x.select(x.isnan() | y.isnan(), x.like(NAN), result)
    return x.select((y == 0.0) | (x == 1.0), x.like(1.0), result)


def _magnitude_single(x: E, y: E) -> E:
    # bounded, so that infinite logarithms and powers do not become NaN in the product with a 0 that the caller treats
    logarithm = log(x.cast("f64").abs()).at_least(-1e300).at_most(1e300)
    return exp((y.cast("f64") * logarithm).at_least(-1e4).at_most(1e4)).cast("f32")


def _magnitude_double(x: E, y: E) -> E:
    t = x.abs()
    high, low = _log_pair(t)
    power = y.at_least(-_HIGHEST_POWER).at_most(_HIGHEST_POWER)
    main, rest = product(power, high)
    rest = rest + power * low
    outside = main.abs() > -LOWEST_EXP["f64"]
    bounded = main.at_least(LOWEST_EXP["f64"]).at_most(-LOWEST_EXP["f64"])
    result = exp_sum(bounded, x.select(outside, x.like(0.0), rest))
    extreme = (t == 0.0) | (t == INF)
    infinite = (t == INF) ^ (y < 0.0)
    return x.select(extreme, x.select(infinite, x.like(INF), x.like(0.0)), result)


def _log_pair(x: E) -> tuple[E, E]:
    """log x as a sum of two floats, relative error below 2^-64, for positive finite x: 2 atanh((m - 1) / (m + 1)) + e ln 2."""
    m, e = split(x)
    f = m - 1.0
    bottom, bottom_low = fast_sum(m.like(1.0), m)
    inverse = 1.0 / bottom
    s = f * inverse
    covered, covered_low = product(s, bottom)
    s_low = (((f - covered) - covered_low) - s * bottom_low) * inverse
    z, z_low = product(s, s)
    z_low = z_low + 2.0 * s * s_low
    # w = z (1/3 + z (1/5 + ...)) = atanh(s) / s - 1
    v, v_low = fast_sum(x.like(_THIRD[0]), z * paired(z, _ATANH))
    v_low = v_low + _THIRD[1]
    w, w_low = product(z, v)
    w_low = w_low + (z * v_low + z_low * v)
    double = s * 2.0
    a, a_low = product(double, w)
    a_low = a_low + (double * w_low + 2.0 * s_low * (w + 1.0))
    log_m, log_m_low = fast_sum(double, a)
    high, low = fast_sum(e * LN2_HIGH["f64"], log_m)
    return fast_sum(high, low + (e * LN2_LOW["f64"] + (log_m_low + a_low)))
