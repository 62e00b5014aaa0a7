"""The error function and GELU, branch-free."""

from __future__ import annotations

import math

from . import vmath_pieces
from .emit import E
from .vmath_core import LARGEST, odd_quotient, paired
from .vmath_exp import exp_negative, sigmoid

# erf x = x P(x^2) / Q(x^2) up to the x from which on erf rounds to 1; among the float32 neighbours of the minimax fit and
# its multiples, coefficients whose evaluation in float32 errs least
_ERF_P = (
    1.1230870485305786,
    0.1898891031742096,
    0.052542705088853836,
    0.0037618849892169237,
    0.0002834729093592614,
    2.0323939224908827e-06,
)
_ERF_Q = (
    0.9953100085258484,
    0.5000542402267456,
    0.11372167617082596,
    0.01492710318416357,
    0.0011597484117373824,
    3.782583735301159e-05,
)
_ERF_ONE = 3.93
# float64: erf x / x in x^2 for |x| <= 1; -log(1 - erf x) in x - 2 for 1 <= x <= 3, and in x - 4.5 for 3 <= x <= 6
_SMALL = (1.1283791670955125739, -0.37612638903183752381, 0.1128379167095512036, -0.026866170645129868152,
          0.0052239776254236103963, -0.00085483270219560250351, 0.0001205533290381260112, -0.00001492564759449785383,
          1.6462045980557631378e-6, -1.63646495514651601e-7, 1.4792469644520129023e-8, -1.2164968617165561075e-9,
          8.7104653366504727423e-11, -4.2331295286795806355e-12)  # fmt: skip
_NEAR = (5.3649412646166375776, 4.4181608059944139122, 0.92375084182377562594, 0.016465118136943995867,
         -0.003570756345403256294, 0.00073239938569071468975, -0.00013530934065957284506, 0.000020706428893303020682,
         -1.9521727902406988821e-6, -2.0362389404050802257e-7, 1.7316466216913971474e-7, -5.7838374591545456658e-8,
         1.3994657470928218869e-8, -2.4895941008595781806e-9, 2.4925350130853272976e-10, 1.1150076414502163604e-11,
         -3.2951159243676281783e-11, 1.8704597507007170721e-11)  # fmt: skip
_FAR = (22.349768303435940869, 9.2124012752861626694, 0.97836288965931701192, 0.0028252608533744175607,
        -0.00039943384141147489747, 0.000057982950453215755252, -8.4320333232904185948e-6, 1.2102921010901609343e-6,
        -1.6948615990290814332e-7, 2.2881087533193398072e-8, -2.9399339672288591912e-9, 3.4333372871532986787e-10,
        -3.5544839325217962663e-11, 5.8658525994304579929e-12, 2.2772569054853149844e-12, 7.6102045174234487927e-13,
        1.5162021231218739646e-13)  # fmt: skip
_ROOT_HALF = math.sqrt(0.5)
_SLOPE = 2.0 * math.sqrt(2.0 / math.pi)  # GELU is near x times the logistic function of _SLOPE (x + _CUBE x^3)
_CUBE = 0.044715
# from which on GELU is x or 0
_GELU_END = 5.4
_GELU_TANH_END = 5.0
# beyond this x, x Phi(x) rounds to 0 at the scale of x, and -infinity has to be kept from the product with 0
_GELU_LOWEST = -64.0


def _quotient(x: E, scale: float) -> E:
    """erf(x scale) in float32: the scale goes into the coefficients."""
    p = [c * scale ** (2 * i + 1) for i, c in enumerate(_ERF_P)]
    q = [c * scale ** (2 * i) for i, c in enumerate(_ERF_Q)]
    return odd_quotient(x, p, q, _ERF_ONE / scale)


def erf(x: E) -> E:
    """Error function; at most 6.5 ulp in float32 (3 with AVX-512, 7 without FMA), 3 in float64; never beyond 1."""
    if vmath_pieces.available(x):
        return vmath_pieces.pieces(math.erf, _ERF_ONE, 1.0)(x.abs()).copysign(x)
    if x.t == "f32":
        return _quotient(x, 1.0)
    t = x.abs()
    small = x * paired(x * x, _SMALL)
    near, far = paired(t.at_most(3.0) - 2.0, _NEAR), paired(t.at_least(3.0).at_most(6.0) - 4.5, _FAR)
    large = 1.0 - exp_negative(-x.select(t < 3.0, near, far))
    return x.select(t <= 1.0, small, large.copysign(x))


def gelu(x: E) -> E:
    """x (1 + erf(x / sqrt 2)) / 2; error at most 3 ulp of the larger of |x| and the result."""
    if vmath_pieces.available(x):
        return x.at_least(0.0) - vmath_pieces.pieces(_gelu_missing, _GELU_END, 0.0)(x.abs())
    half = x.at_least(_GELU_LOWEST) * 0.5
    value = _quotient(x, _ROOT_HALF) if x.t == "f32" else erf(x * _ROOT_HALF)
    return half.fma(value, half)


def gelu_tanh(x: E) -> E:
    """The tanh approximation of GELU; error at most 2.5 ulp of the larger of |x| and the result."""
    if vmath_pieces.available(x):
        return x.at_least(0.0) - vmath_pieces.pieces(_gelu_tanh_missing, _GELU_TANH_END, 0.0)(x.abs())
    # (1 + tanh u) / 2 is the logistic function of 2 u
    bounded = x.at_least(-LARGEST[x.t])
    return bounded * sigmoid(bounded * (bounded * bounded).fma(_CUBE * _SLOPE, _SLOPE))


def _gelu_missing(a: float) -> float:
    """max(x, 0) - GELU(x) of x = a and x = -a."""
    return a / 2 * math.erfc(a * _ROOT_HALF)


def _gelu_tanh_missing(a: float) -> float:
    """The same of the tanh approximation."""
    return a / (1 + math.exp(_SLOPE * (a + _CUBE * a**3)))
