"""Vectorised elementary functions on `emit.E`: any width, float32 and float64; the names that kernels see.

One file a family: `vmath_exp`, `vmath_log`, `vmath_erf`, `vmath_trig`, `vmath_pow`; here are remainders and the sign.
Polynomials and quotients are minimax fits on the reduced range. A bound in a docstring is the largest error in units
in the last place of the correctly rounded result, over all arguments, with or without FMA, measured in
tests/test_vmath.py. NaN gives NaN everywhere; other special values are as in C99's Annex F. Subnormal arguments and
results are exact or rounded as others. No function calls the C library but sine, cosine and tangent of huge angles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from .emit import E
from .vmath_erf import erf, gelu, gelu_tanh
from .vmath_exp import cosh, exp, exp2, exp2_flushed, exp2_less, exp_flushed, expm1, sigmoid, sinh, tanh
from .vmath_log import acosh, asinh, atanh, log, log1p, log2, log10, softplus
from .vmath_pow import pow
from .vmath_trig import acos, asin, atan, cos, sin, tan


def fmod(x: E, y: E) -> E:
    """Remainder with the sign of x, exact (C fmod)."""
    return x % y


def floor_mod(x: E, y: E) -> E:
    """Remainder with the sign of y (Python's and numpy's %)."""
    r = x % y
    return x.select((r != 0) & ((r < 0) ^ (y < 0)), r + y, r) if x.t[0] != "u" else r


def sign(x: E) -> E:
    """-1, 0 or 1; NaN stays NaN."""
    value = x.select(x > 0, x.like(1), x.like(0))
    if x.t[0] != "u":
        value = x.select(x < 0, x.like(-1), value)
    return x.select(x.isnan(), x, value) if x.t[0] == "f" else value


_ALL = (
    exp, exp_flushed, exp2, exp2_flushed, exp2_less, expm1, log, log2, log10, log1p, tanh, sigmoid, erf, sin, cos, tan, asin,
    acos, atan, sinh, cosh, asinh, acosh, atanh, softplus, gelu, gelu_tanh, pow, fmod, sign, floor_mod,
)  # fmt: skip


@lru_cache(maxsize=1)
def functions() -> dict[str, Callable]:
    """Name -> numba function, for `simd.namespace`."""
    from .simd import lift

    return {each.__name__: lift(each) for each in _ALL}
