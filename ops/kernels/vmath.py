"""Vectorised elementary functions on `emit.E`: any width, float32 and float64, branch-free but for huge angles.

Polynomials are minimax fits (Remez exchange in 60 digits) on the reduced range. Bounds in the docstrings are the
largest errors, in units in the last place of the correctly rounded result, over all finite arguments, measured in
tests/test_vmath.py. NaN gives NaN everywhere; other special values are as in C99's Annex F.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from llvmlite import ir

from .emit import E

LN2, LOG2E, PI_2 = math.log(2.0), 1.4426950408889634, math.pi / 2
INF, NAN = math.inf, math.nan

_EXP = {
    "f32": (0.49999993044657047832, 0.1666651478386606172, 0.041668457833683670747, 0.0083694197127975531279,
            0.0013813102058589145739),
    "f64": (0.50000000000000117007, 0.16666666666666386189, 0.041666666666519156215, 0.0083333333335077341244,
            0.0013888888946919486485, 0.00019841269486007261162, 0.000024801489352447347002, 2.7557597317855192446e-6,
            2.7631687374071862309e-7, 2.4998953697063096752e-8),
}  # fmt: skip
_LOG = (0.33333316730677518322, -0.25000810393373070972, 0.20002285938587633151, -0.16624553522086602907,
        0.14181199149618730555, -0.1312877079267186962, 0.12881604748061434317, -0.078595110448873630429)  # fmt: skip
_LOG64 = (0.66666666666667349049, 0.39999999999411060508, 0.28571428743266947199, 0.22222198475659588227,
          0.18183569755523482309, 0.15313902820153331946, 0.14797512483452878698)  # fmt: skip
_ERF_SMALL = {
    "f32": (1.1283791659141861957, -0.37612627137424210358, 0.11283600185630825884, -0.026854444844954315155,
            0.0051895356635608047754, -0.00080208431151955213949, 0.000078891227681959120452),
    "f64": (1.1283791670955125739, -0.37612638903183752381, 0.1128379167095512036, -0.026866170645129868152,
            0.0052239776254236103963, -0.00085483270219560250351, 0.0001205533290381260112, -0.00001492564759449785383,
            1.6462045980557631378e-6, -1.63646495514651601e-7, 1.4792469644520129023e-8, -1.2164968617165561075e-9,
            8.7104653366504727423e-11, -4.2331295286795806355e-12),
}  # fmt: skip
_ERF_LARGE = (7.8068153003101856952, 5.3526806894597468285, 0.94389233045624775927, 0.010854245870594937342,
              -0.002167088514747413022, 0.00042821362812345062468, -0.000064766311641458271365,
              0.000020286219270402513782, -2.5164222596480543193e-7)  # fmt: skip
_ERF64_1 = (5.3649412646166375776, 4.4181608059944139122, 0.92375084182377562594, 0.016465118136943995867,
            -0.003570756345403256294, 0.00073239938569071468975, -0.00013530934065957284506, 0.000020706428893303020682,
            -1.9521727902406988821e-6, -2.0362389404050802257e-7, 1.7316466216913971474e-7, -5.7838374591545456658e-8,
            1.3994657470928218869e-8, -2.4895941008595781806e-9, 2.4925350130853272976e-10, 1.1150076414502163604e-11,
            -3.2951159243676281783e-11, 1.8704597507007170721e-11)  # fmt: skip
_ERF64_2 = (22.349768303435940869, 9.2124012752861626694, 0.97836288965931701192, 0.0028252608533744175607,
            -0.00039943384141147489747, 0.000057982950453215755252, -8.4320333232904185948e-6, 1.2102921010901609343e-6,
            -1.6948615990290814332e-7, 2.2881087533193398072e-8, -2.9399339672288591912e-9, 3.4333372871532986787e-10,
            -3.5544839325217962663e-11, 5.8658525994304579929e-12, 2.2772569054853149844e-12, 7.6102045174234487927e-13,
            1.5162021231218739646e-13)  # fmt: skip
_SIN = {
    "f32": (-0.16666653474359350912, 0.0083320835547965666069, -0.00019504323869667276605),
    "f64": (-0.16666666666666666633, 0.0083333333333333200143, -0.00019841269841251921865, 2.7557319212555170926e-6,
            -2.5052104485335125709e-8, 1.605831234578532586e-10, -7.5760107575112701132e-13),
}  # fmt: skip
_COS = {
    "f32": (0.04166664437600789151, -0.0013887242624339313566, 0.000024423875706221466563),
    "f64": (0.041666666666666666598, -0.0013888888888888870276, 0.000024801587301568094624, -2.7557319213923083705e-7,
            2.087675404100868677e-9, -1.1470256619076979784e-11, 4.7364679144350902309e-14),
}  # fmt: skip
_ATAN = {
    "f32": (-0.33332953814697064361, 0.19977864544674137066, -0.13879124625259704152, 0.08057786891426896465),
    "f64": (-0.33333333333333197727, 0.19999999999953656895, -0.14285714280203514027, 0.11111110783791741129,
            -0.090908977664756879781, 0.076920603516070958918, -0.066631053438567247858, 0.058478965958427465397,
            -0.05039327288693745319, 0.038064865729852121252, -0.017907246669033055369),
}  # fmt: skip
# ln 2 in two parts: n * high is exact for the n that occur
_LN2_HIGH = {"f32": 0.693359375, "f64": 0.69314718036912381649}
_LN2_LOW = {"f32": -2.12194440e-4, "f64": 1.90821492927058770002e-10}
# pi / 2 in three parts of 33 bits each
_PI_2_PARTS = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


def _bias(x: E) -> tuple[int, int, str]:
    """(mantissa bits, exponent bias, integer type) of x's format."""
    return (23, 127, "i32") if x.t == "f32" else (52, 1023, "i64")


def horner(x: E, coefficients: Sequence[float]) -> E:
    """c0 + c1 x + c2 x^2 ..."""
    total = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.fma(x, c)
    return total


def _round(x: E) -> tuple[E, E]:
    """Nearest integer of a small |x|, as float and as integer: the magic number's last bit has weight one."""
    mantissa, _, integer = _bias(x)
    magic = x.like(1.5 * 2.0**mantissa)
    shifted = x + magic
    return shifted - magic, shifted.bits(integer) - magic.bits(integer)


def _scale(x: E, n: E) -> E:
    """x * 2^n in two steps, so that results in the subnormal range round once and large ones overflow properly."""
    mantissa, bias, _ = _bias(x)
    half = n >> 1
    first = ((half + bias) << mantissa).bits(x.t)
    second = ((n - half + bias) << mantissa).bits(x.t)
    return x * first * second


def _reduce_exp(x: E) -> tuple[E, E]:
    """(r, n): x = r + n ln 2 with |r| <= ln 2 / 2; x is within the range of exp."""
    n, whole = _round(x * LOG2E)
    r = n.fma(-_LN2_HIGH[x.t], x)
    return n.fma(-_LN2_LOW[x.t], r), whole


def exp(x: E) -> E:
    """e^x; at most 1 ulp."""
    low, high = (-104.0, 89.0) if x.t == "f32" else (-746.0, 710.0)
    bounded = x.at_least(low).at_most(high)
    r, n = _reduce_exp(bounded)
    return _scale((r * r).fma(horner(r, _EXP[x.t]), r) + 1.0, n)


def exp2(x: E) -> E:
    """2^x; at most 2 ulp."""
    low, high = (-151.0, 129.0) if x.t == "f32" else (-1076.0, 1025.0)
    bounded = x.at_least(low).at_most(high)
    n, whole = _round(bounded)
    r = (bounded - n) * LN2
    return _scale((r * r).fma(horner(r, _EXP[x.t]), r) + 1.0, whole)


def expm1(x: E) -> E:
    """e^x - 1; at most 3 ulp."""
    low, high = (-40.0, 89.0) if x.t == "f32" else (-50.0, 710.0)
    mantissa, bias, _ = _bias(x)
    bounded = x.at_least(low).at_most(high)
    r, n = _reduce_exp(bounded)
    small = (r * r).fma(horner(r, _EXP[x.t]), r)
    half = n >> 1
    first, second = (((k + bias) << mantissa).bits(x.t) for k in (half, n - half))
    power = first * second
    # 2^n (e^r - 1) + (2^n - 1); where 2^n overflows the one does not matter
    usual = power.fma(small, power - 1.0)
    huge = (small + 1.0) * first * second
    result = x.select(n > bias - 1, huge, usual)
    return x.select(x == 0.0, x, result)


def _split_log(x: E) -> tuple[E, E]:
    """(m, e): x = m 2^e with m in [sqrt(1/2), sqrt(2)); x is positive and finite."""
    mantissa, bias, integer = _bias(x)
    tiny = x < (1.1754943508222875e-38 if x.t == "f32" else 2.2250738585072014e-308)
    scaled = x.select(tiny, x * 2.0**mantissa, x)
    bits = scaled.bits(integer)
    # adding this constant carries into the exponent exactly when the mantissa is at least sqrt(2)
    root = 0x3F3504F3 if x.t == "f32" else 0x3FE6A09E667F3BCD
    shifted = bits - root
    e = shifted >> mantissa
    m = (bits - (e << mantissa)).bits(x.t)
    adjust = e.select(tiny, e.like(-mantissa), e.like(0))
    return m, (e + adjust).cast(x.t)


def _log_parts(x: E) -> tuple[E, E, E]:
    """(f, tail, e): log x = f + tail + e ln 2, |tail| small beside f."""
    m, e = _split_log(x)
    f = m - 1.0
    if x.t == "f32":
        z = f * f
        return f, (z * f).fma(horner(f, _LOG), z * -0.5), e
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    # log(1 + f) = f - f^2/2 + s (f^2/2 + Q(s^2)), the form whose leading term is exact
    return f, s.fma(half + z * horner(z, _LOG64), -half), e


def _log_special(x: E, result: E) -> E:
    result = x.select(x == INF, x.like(INF), result)
    result = x.select(x == 0.0, x.like(-INF), result)
    return x.select((x < 0.0) | x.isnan(), x.like(NAN), result)


def log(x: E) -> E:
    """Natural logarithm; at most 1 ulp."""
    f, tail, e = _log_parts(x)
    low = e.fma(_LN2_LOW[x.t], tail)
    return _log_special(x, e.fma(_LN2_HIGH[x.t], f + low))


def log2(x: E) -> E:
    """Base-2 logarithm; at most 2 ulp."""
    f, tail, e = _log_parts(x)
    # f * log2(e) in two parts keeps the error below an ulp where e is 0
    high = f * 1.4426950408889634
    rest = f.fma(1.4426950408889634, -high) + f * (LOG2E - _single(LOG2E) if x.t == "f32" else 2.0355273740931033e-17)
    return _log_special(x, e + (high + (tail * 1.4426950408889634 + rest)))


def _single(value: float) -> float:
    import struct

    return struct.unpack("f", struct.pack("f", value))[0]


def log10(x: E) -> E:
    """Base-10 logarithm; at most 3 ulp."""
    f, tail, e = _log_parts(x)
    high = 0.301025390625 if x.t == "f32" else 0.30102999566406652
    low = math.log10(2.0) - high if x.t == "f32" else -8.5323443170571066e-14
    return _log_special(x, e.fma(high, e.fma(low, (f + tail) * 0.43429448190325182765)))


def log1p(x: E) -> E:
    """log(1 + x); at most 3 ulp."""
    u = x + 1.0
    lost = x.select(x > 1.0, (x - u) + 1.0, x - (u - 1.0))
    f, tail, e = _log_parts(u)
    low = e.fma(_LN2_LOW[x.t], tail) + lost / u
    result = e.fma(_LN2_HIGH[x.t], f + low)
    result = x.select(x.abs() < (2.0**-25 if x.t == "f32" else 2.0**-54), x, result)
    result = x.select(x == INF, x.like(INF), result)
    result = x.select(x == -1.0, x.like(-INF), result)
    return x.select((x < -1.0) | x.isnan(), x.like(NAN), result)


def tanh(x: E) -> E:
    """Hyperbolic tangent; at most 3 ulp."""
    bounded = x.abs().at_most(10.0 if x.t == "f32" else 22.0)
    r, n = _reduce_exp(bounded * 2.0)
    mantissa, bias, _ = _bias(x)
    small = (r * r).fma(horner(r, _EXP[x.t]), r)
    power = ((n + bias) << mantissa).bits(x.t)
    m = power.fma(small, power - 1.0)
    return (m / (m + 2.0)).copysign(x)


def sigmoid(x: E) -> E:
    """1 / (1 + e^-x); at most 3 ulp."""
    e = exp(-x.abs())
    top = x.select(x < 0.0, e, x.like(1.0))
    return top / (e + 1.0)


def erf(x: E) -> E:
    """Error function; at most 3 ulp."""
    t = x.abs()
    small = x * horner(x * x, _ERF_SMALL[x.t])
    if x.t == "f32":
        u = t.at_most(4.1)
        large = 1.0 - exp(-horner(u - 2.5, _ERF_LARGE))
    else:
        near, far = horner(t.at_most(3.0) - 2.0, _ERF64_1), horner(t.at_least(3.0).at_most(6.0) - 4.5, _ERF64_2)
        large = 1.0 - exp(-x.select(t < 3.0, near, far))
    return x.select(t <= 1.0, small, large.copysign(x))


def _reduce_angle(x: E) -> tuple[E, E]:
    """(r, quadrant): x = r + quadrant pi/2 with |r| <= pi/4, for |x| up to 2^28."""
    if x.t == "f32":
        wide = x.cast("f64")
        n, q = _round(wide * (2.0 / math.pi))
        r = n.fma(-_PI_2_PARTS[1] - _PI_2_PARTS[2], n.fma(-_PI_2_PARTS[0], wide))
        return r.cast("f32"), q.cast("i32")
    n, q = _round(x * (2.0 / math.pi))
    r = n.fma(-_PI_2_PARTS[1], n.fma(-_PI_2_PARTS[0], x))
    return n.fma(-_PI_2_PARTS[2], r), q


def _sin_cos(r: E) -> tuple[E, E]:
    z = r * r
    s = (z * r).fma(horner(z, _SIN[r.t]), r)
    c = (z * z).fma(horner(z, _COS[r.t]), z.fma(-0.5, z.like(1.0)))
    return s, c


def _huge_angles(x: E, usual: E, name: str) -> E:
    """Where any |x| is above 2^28 the C library computes the vector (its reduction is exact)."""
    mask = ~(x.abs() <= 2.0**28)
    if x.n:
        word = x.b.bitcast(mask.v, ir.IntType(x.n))
        any_huge = x.b.icmp_unsigned("!=", word, ir.Constant(ir.IntType(x.n), 0))
    else:
        any_huge = mask.v
    start = x.b.block
    with x.b.if_then(any_huge, likely=False):
        slow = x.call(name)
        slow_block = x.b.block
    result = x.b.phi(usual.v.type)
    result.add_incoming(usual.v, start)
    result.add_incoming(slow.v, slow_block)
    return x.of(result)


def sin(x: E) -> E:
    """Sine; at most 2 ulp, beyond |x| = 2^28 as the C library."""
    r, q = _reduce_angle(x)
    s, c = _sin_cos(r)
    value = x.select((q & 1) == 0, s, c)
    value = x.select((q & 2) == 0, value, -value)
    return _huge_angles(x, x.select(x == 0.0, x, value), "sin")


def cos(x: E) -> E:
    """Cosine; at most 2 ulp, beyond |x| = 2^28 as the C library."""
    r, q = _reduce_angle(x)
    s, c = _sin_cos(r)
    value = x.select((q & 1) == 0, c, s)
    return _huge_angles(x, x.select(((q + 1) & 2) == 0, value, -value), "cos")


def tan(x: E) -> E:
    """Tangent; at most 4 ulp, beyond |x| = 2^28 the quotient of the C library's sine and cosine."""
    return sin(x) / cos(x)


def atan(x: E) -> E:
    """Arc tangent; at most 3 ulp."""
    t = x.abs()
    steep, middle = t > 2.414213562373095, t > 0.4142135623730950
    u = x.select(steep, -1.0 / t, x.select(middle, (t - 1.0) / (t + 1.0), t))
    base = x.select(steep, x.like(PI_2), x.select(middle, x.like(math.pi / 4), x.like(0.0)))
    z = u * u
    return (base + (z * u).fma(horner(z, _ATAN[x.t]), u)).copysign(x)


def asin(x: E) -> E:
    """Arc sine; at most 4 ulp; NaN beyond 1."""
    return atan(x / ((1.0 - x) * (x + 1.0)).sqrt())


def acos(x: E) -> E:
    """Arc cosine; at most 4 ulp; NaN beyond 1."""
    return atan(((1.0 - x) / (x + 1.0)).sqrt()) * 2.0


def sinh(x: E) -> E:
    """Hyperbolic sine; at most 4 ulp."""
    t = x.abs()
    m = expm1(t)
    usual = (m + m / (m + 1.0)) * 0.5
    half = exp(t * 0.5)
    return x.select(t > (80.0 if x.t == "f32" else 700.0), half * 0.5 * half, usual).copysign(x)


def cosh(x: E) -> E:
    """Hyperbolic cosine; at most 4 ulp."""
    t = x.abs()
    e, half = exp(t), exp(t * 0.5)
    usual = (e + 1.0 / e) * 0.5
    return x.select(t > (80.0 if x.t == "f32" else 700.0), half * 0.5 * half, usual)


def asinh(x: E) -> E:
    """Inverse hyperbolic sine; at most 4 ulp."""
    t = x.abs()
    z = t * t
    usual = log1p(t + z / ((z + 1.0).sqrt() + 1.0))
    return x.select(t > 1e18, log(t) + LN2, usual).copysign(x)


def acosh(x: E) -> E:
    """Inverse hyperbolic cosine; at most 4 ulp; NaN below 1."""
    t = x - 1.0
    usual = log1p(t + (t * (t + 2.0)).sqrt())
    result = x.select(x > 1e18, log(x) + LN2, usual)
    return x.select(x < 1.0, x.like(NAN), result)


def atanh(x: E) -> E:
    """Inverse hyperbolic tangent; at most 4 ulp; NaN beyond 1."""
    t = x.abs()
    return (log1p(t * 2.0 / (1.0 - t)) * 0.5).copysign(x)


def softplus(x: E) -> E:
    """log(1 + e^x); at most 4 ulp."""
    return x.maximum(0.0) + log1p(exp(-x.abs()))


def gelu(x: E) -> E:
    """x (1 + erf(x / sqrt 2)) / 2; error at most 2 ulp of the largest of |x| and the result."""
    return x * 0.5 * (erf(x * 0.7071067811865476) + 1.0)


def gelu_tanh(x: E) -> E:
    """The tanh approximation of GELU; error at most 4 ulp of the largest of |x| and the result."""
    inner = (x * x).fma(0.044715, 1.0 + x.like(0.0)) * x * 0.7978845608028654
    return x * 0.5 * (tanh(inner) + 1.0)


def pow(x: E, y: E) -> E:
    """x^y with C's special cases; float32 at most 1 ulp (computed in float64), float64 as the C library."""
    if x.t == "f32":
        return _pow_single(x, y)
    if x.t == "f64":
        return x.call("pow", y)
    return x.cast("f64").call("pow", y.cast("f64")).cast(x.t)


def _pow_single(x: E, y: E) -> E:
    base, power = x.cast("f64").abs(), y.cast("f64")
    # clamped so that the product is never NaN: 0 * inf cannot arise once y = 0 and |x| = 1 are set apart
    logarithm = log(base).at_least(-1e300).at_most(1e300)
    magnitude = exp((power * logarithm).at_least(-1e4).at_most(1e4)).cast("f32")
    whole = y.trunc() == y
    half = y * 0.5
    odd = whole & (half.trunc() != half)
    negative = (x.bits("i32") < 0) & ~x.isnan()
    result = x.select(negative & odd, -magnitude, magnitude)
    result = x.select(negative & ~whole & (x != 0.0) & (x != -INF), x.like(NAN), result)
    result = x.select((x == -1.0) & (y.abs() == INF), x.like(1.0), result)
    result = x.select(x.isnan() | y.isnan(), x.like(NAN), result)
    return x.select((y == 0.0) | (x == 1.0), x.like(1.0), result)


def fmod(x: E, y: E) -> E:
    """Remainder with the sign of x, exact (C fmod)."""
    return x % y


def sign(x: E) -> E:
    """-1, 0 or 1; NaN stays NaN."""
    positive, negative = x > 0, x < 0 if x.t[0] != "u" else (x > 0) & (x == 0)
    value = x.select(positive, x.like(1), x.like(0))
    value = x.select(negative, -x.like(1), value)
    return x.select(x.isnan(), x, value) if x.t[0] == "f" else value


def floor_mod(x: E, y: E) -> E:
    """Remainder with the sign of y (Python's and numpy's %)."""
    r = x % y
    return x.select((r != 0) & ((r < 0) ^ (y < 0)), r + y, r) if x.t[0] != "u" else r


_ALL = (
    exp, exp2, expm1, log, log2, log10, log1p, tanh, sigmoid, erf, sin, cos, tan, asin, acos, atan, sinh, cosh, asinh,
    acosh, atanh, softplus, gelu, gelu_tanh, pow, fmod, sign, floor_mod,
)  # fmt: skip


@lru_cache(maxsize=1)
def functions() -> dict[str, Callable]:
    """Name -> numba function, for `simd.namespace`."""
    from .simd import lift

    return {each.__name__: lift(each) for each in _ALL}
