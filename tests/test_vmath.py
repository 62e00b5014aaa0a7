"""Elementary functions: error bounds over the whole range, special values, every width, three kinds of CPU."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from vector_kernels import OTHER_TARGETS, build, evaluate, run_on

from jitrt.ops.kernels import compiler, target, vmath

INF, NAN = np.inf, np.nan
NUMPY = {"f32": np.float32, "f64": np.float64}
# float64 holds what float32 needs; for float64 the 64 bits of x87's fraction (or more) are needed
WIDE = {"f32": np.float64, "f64": np.longdouble}
# where it is missing, numpy's own error counts too
SLACK = 0.0 if np.finfo(np.longdouble).nmant >= 63 else 2.0


def _erf(x: np.ndarray) -> np.ndarray:
    """2 x exp(-x^2) / sqrt(pi) * sum of (2 x^2)^k / (1 * 3 * ... (2 k + 1)): no term is negative."""
    pi = np.asarray("3.14159265358979323846264338327950288", x.dtype) if x.dtype == np.longdouble else np.pi
    t = np.minimum(np.abs(x), 7)
    term = total = np.ones_like(t)
    for k in range(1, 260):
        term = term * (2 * t * t) / (2 * k + 1)
        total = total + term
    return np.copysign(np.minimum(2 * t * np.exp(-t * t) / np.sqrt(x.dtype.type(pi)) * total, 1), x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def _gelu(x: np.ndarray) -> np.ndarray:
    x = np.maximum(x, -200)
    return x / 2 * (1 + _erf(x / np.sqrt(x.dtype.type(2))))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    x, number = np.maximum(x, -200), x.dtype.type
    slope = np.sqrt(number(1) / (2 * np.arctan(number(1))))
    return x / 2 * (1 + np.tanh(slope * (x + number(44715) / 1000000 * x * x * x)))


REFERENCE = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p,
    "tanh": np.tanh, "sigmoid": _sigmoid, "erf": _erf, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), "gelu": _gelu,
    "gelu_tanh": _gelu_tanh, "sqrt": np.sqrt,
}  # fmt: skip
# largest error in ulp: what the docstrings state
BOUNDS = {
    "exp": 2, "exp2": 2, "expm1": 2.5, "log": 1, "log2": 1.5, "log10": 2, "log1p": 1, "tanh": 3, "sigmoid": 4, "erf": 3, "sin": 2,
    "cos": 2, "tan": 4, "asin": 4, "acos": 4, "atan": 3, "sinh": 3, "cosh": 2, "asinh": 2, "acosh": 2.5, "atanh": 2.5,
    "softplus": 3, "gelu": 3, "gelu_tanh": 2.5, "sqrt": 0.5,
}  # fmt: skip
# in float32 these are quotients (erf is none with AVX-512), whose roundings add up where the result is just below 1
BOUNDS_F32 = {"tanh": 5.5, "erf": 6.5} if target.current().fma else {"tanh": 7, "erf": 7}
if target.current().has("avx512f"):
    BOUNDS_F32["erf"] = 3
# their errors are measured at the scale of the argument: the result of large negative arguments cancels
AT_THE_SCALE_OF_X = {"gelu", "gelu_tanh"}
FUNCTIONS = tuple(REFERENCE)
CALLS = tuple(f"{name}(a)" for name in FUNCTIONS)


def specials(dtype: str) -> np.ndarray:
    """Zeros, infinities, NaNs with and without payload, ones, ends of the normal and the subnormal range."""
    kind = NUMPY[dtype]
    limits = np.finfo(kind)
    ends = [limits.max, limits.tiny, np.nextafter(limits.tiny, kind(0)), limits.smallest_subnormal, 7 * limits.smallest_subnormal]
    values = np.array([0, 1, INF, NAN, 0.5, 2, 3, 1e-3, 100, 700, *ends], kind)
    payload = np.array([-1], "i4" if dtype == "f32" else "i8").view(kind)
    return np.concatenate([values, -values, payload, -payload])


def sample(dtype: str, count: int) -> np.ndarray:
    """Special values, bit patterns evenly over the whole format, and numbers of the sizes that models hold."""
    rng = np.random.default_rng(11)
    kind, bits = NUMPY[dtype], (32 if dtype == "f32" else 64)
    patterns = rng.integers(0, 2**bits, count, dtype=f"u{bits // 8}")
    usual = rng.standard_normal(count) * np.exp2(rng.uniform(-12, 10, count))
    return np.concatenate([specials(dtype), patterns.view(kind), usual.astype(kind), rng.uniform(-2, 2, count).astype(kind)])


def ulps(got: np.ndarray, exact: np.ndarray, scale: np.ndarray | float = 0.0) -> np.ndarray:
    """Error in units in the last place of the result (or of `scale`, if that is larger); 0 where both are NaN."""
    limits, wide = np.finfo(got.dtype), exact.dtype.type
    end = wide(2) ** (limits.maxexp)
    with np.errstate(all="ignore"):
        size = np.clip(np.maximum(np.abs(exact), np.abs(scale)), wide(limits.tiny), wide(limits.max))
        last = np.ldexp(wide(1), np.frexp(size)[1] - 1 - limits.nmant)
        error = np.abs(np.clip(got.astype(wide), -end, end) - np.clip(exact, -end, end)) / last
    return np.where(np.isnan(got) & np.isnan(exact), 0, np.where(np.isnan(error), INF, error))


def check_errors(dtype: str, count: int) -> None:
    """Every function is within its bound, with the sign of zeros right."""
    x = sample(dtype, count)
    results = evaluate(CALLS, x, lanes=target.current().lanes)
    for name, got in zip(FUNCTIONS, results):
        with np.errstate(all="ignore"):
            exact = REFERENCE[name](x.astype(WIDE[dtype]))
        scale = np.where(np.isfinite(x), x, 0) if name in AT_THE_SCALE_OF_X else 0.0
        error = ulps(got, exact, scale)
        worst = int(np.argmax(error))
        bound = BOUNDS[name] + SLACK if dtype == "f64" else BOUNDS_F32.get(name, BOUNDS[name])
        assert error[worst] <= bound, f"{name}({x[worst]!r}) = {got[worst]!r}: {error[worst]:.2f} ulp"
        if name not in AT_THE_SCALE_OF_X:
            zero = exact == 0
            np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(exact[zero]), name)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_errors_stay_within_the_bounds(dtype):
    check_errors(dtype, 60000 if dtype == "f32" else 20000)


def check_flushed(dtype: str, count: int) -> None:
    """Within their bounds for x <= 0; in float32 what would be subnormal may be 0."""
    x = -np.abs(sample(dtype, count))
    results = evaluate(("exp_flushed(a)", "exp2_flushed(a)"), x, lanes=target.current().lanes)
    bounds = 3 + np.fmin(-x, 104) / 30, 3
    for got, reference, lowest, bound in zip(results, (np.exp, np.exp2), (-746, -1076), bounds):
        with np.errstate(all="ignore"):
            exact = reference(x.astype(WIDE[dtype]))
        _check_flushed(dtype, x, got, exact, lowest, bound)


def _check_flushed(dtype: str, x: np.ndarray, got: np.ndarray, exact: np.ndarray, lowest: float, bound: np.ndarray | int) -> None:
    error = ulps(got, exact)
    if dtype == "f32":
        error[(exact < np.finfo(np.float32).tiny) & (got >= 0) & (got <= exact)] = 0
    excess = error - (bound if dtype == "f32" else 2 + SLACK)
    worst = int(np.argmax(excess))
    assert excess[worst] <= 0, f"{x[worst]!r}: {error[worst]:.2f} ulp"
    assert not np.signbit(got[~np.isnan(got)]).any()
    assert not got[x < lowest].any()


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_exponentials_of_negative_numbers_stay_within_their_bounds(dtype):
    check_flushed(dtype, 60000)


def check_exp2_less(count: int) -> None:
    """Within its bound wherever x - n is in its range, however large both are."""
    rng = np.random.default_rng(12)
    n = rng.integers(-200, 200, count).astype(np.float32)
    x = n + np.concatenate([rng.uniform(-125, 126, count - 2), [-125, 126]]).astype(np.float32)
    x = np.clip(x, n - 125, n + 126)
    (got,) = evaluate(("exp2_less(a, b)",), x, n, lanes=target.current().lanes)
    error = ulps(got, np.exp2(x.astype(np.float64) - n))
    worst = int(np.argmax(error))
    assert error[worst] <= 3, f"{x[worst]!r} - {n[worst]!r}: {error[worst]:.2f} ulp"


def test_powers_of_two_less_an_exponent_stay_within_their_bound():
    check_exp2_less(60000)


@pytest.mark.parametrize("lanes", [0, 4, 8, 16, 32])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_every_width_gives_the_same_bits(dtype, lanes):
    x = np.concatenate([specials(dtype), np.linspace(-9, 9, 77, dtype=NUMPY[dtype])])
    names = ("exp", "tanh", "sigmoid", "erf", "gelu", "gelu_tanh", "sin", "acos", "asinh")
    narrow, wide = (evaluate([f"{name}(a)" for name in names], x, lanes=n) for n in (lanes, 2))
    for name, got, expected in zip(names, narrow, wide):
        np.testing.assert_array_equal(got, expected, name)


def test_results_keep_their_ranges():
    x = np.concatenate([sample("f32", 30000), np.linspace(-12, 12, 200001, dtype=np.float32)])
    limits = {"tanh": (-1, 1), "erf": (-1, 1), "sigmoid": (0, 1), "sin": (-1, 1), "cos": (-1, 1), "exp": (0, INF)}
    for (name, (low, high)), got in zip(limits.items(), evaluate([f"{name}(a)" for name in limits], x, lanes=8)):
        assert np.nanmin(got) >= low, name
        assert np.nanmax(got) <= high, name
        assert not np.isnan(got[np.isfinite(x)]).any(), name


def test_huge_angles_are_reduced_exactly():
    x = np.array([1e9, -3e20, 2.0**100, 1e38, 2.0**28, 2.0**28 + 32, 1.5, INF], np.float32)
    with np.errstate(all="ignore"):
        for got, function in zip(evaluate(["sin(a)", "cos(a)", "tan(a)"], x, lanes=4), (np.sin, np.cos, np.tan)):
            assert ulps(got, function(x.astype(np.longdouble))).max() <= 4


# -- powers
def power_pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Special values with one another, integral powers, and powers over the whole range of results."""
    rng = np.random.default_rng(3)
    kind = NUMPY[dtype]
    special = specials(dtype)
    pairs = np.array(list(itertools.product([*special, -3, 1.5, -7.25], repeat=2))).astype(kind)
    width = rng.choice([1e-6, 0.1, 3, 50 if dtype == "f32" else 400], 6000)
    base = np.exp(rng.uniform(-width, width) * 1.7).astype(kind)
    limit = np.log(np.finfo(kind).max) * 1.06
    power = (rng.uniform(-limit, limit, 6000) / np.maximum(np.abs(np.log(base, dtype=np.float64)), 1e-7)).astype(kind)
    whole = rng.integers(-20, 20, 3000).astype(kind)
    return (np.concatenate([pairs[:, 0], base, -rng.uniform(0, 9, 3000).astype(kind)]), np.concatenate([pairs[:, 1], power, whole]))


def check_powers(dtype: str) -> None:
    x, y = power_pairs(dtype)
    (got,) = evaluate(["pow(a, b)"], x, y, lanes=target.current().lanes)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(WIDE[dtype]), y.astype(WIDE[dtype]))
    error = ulps(got, exact)
    worst = int(np.argmax(error))
    bound = 1.0 if dtype == "f32" else 1.5 + SLACK
    assert error[worst] <= bound, f"pow({x[worst]!r}, {y[worst]!r}) = {got[worst]!r}: {error[worst]:.2f} ulp"
    zero = (exact == 0) & (got == 0)
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(exact[zero]))


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_powers_stay_within_the_bound(dtype):
    check_powers(dtype)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integer_powers_are_exact(dtype):
    x, y = (np.array(v, dtype) for v in zip(*itertools.product(range(-12, 13), range(9))))
    (got,) = evaluate(["pow(a, b)"], x, y, lanes=8)
    np.testing.assert_array_equal(got, x**y)


# -- remainders and the sign
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int32", "int64", "uint8", "uint32"])
def test_remainders_and_sign_agree_with_numpy(dtype):
    numbers = [0, 1, 2, 3, 5, 7, 100, *([-1, -3, -7, -128] if dtype[0] != "u" else []), *([2.5, -0.75] if dtype[0] == "f" else [])]
    x, y = (np.array(v, dtype) for v in zip(*itertools.product(numbers, [n for n in numbers if n])))
    remainder, modulo, sign = evaluate(["fmod(a, b)", "floor_mod(a, b)", "sign(a)"], x, y, lanes=4)
    np.testing.assert_array_equal(remainder, np.fmod(x, y))
    np.testing.assert_array_equal(modulo, np.mod(x, y))
    np.testing.assert_array_equal(sign, np.sign(x))


# -- machine code, other CPUs, documents
def test_only_angles_call_the_c_library():
    if not target.current().has("avx2"):
        pytest.skip("a CPU without rounding instructions calls the C library for trunc")
    calls = (*(c for c in CALLS if c[:3] not in ("sin", "cos", "tan") or c[3] == "h"), "pow(a, a)")
    for dtype in ("f32", "f64"):
        assert "call" not in compiler.assembly(build(calls, (dtype,), (dtype,) * len(calls), 8).ir)


def check_target() -> None:
    """Errors, for a process that compiles for another CPU."""
    for dtype in ("f32", "f64"):
        check_errors(dtype, 4000)
        check_flushed(dtype, 4000)
        check_powers(dtype)
    check_exp2_less(4000)


@pytest.mark.parametrize("name", OTHER_TARGETS, ids=lambda t: t[0])
def test_other_targets_keep_the_bounds(name):
    run_on(name, "test_vmath")


def test_every_function_states_its_bound():
    for name in {*FUNCTIONS, "exp_flushed", "exp2_flushed", "exp2_less"} - {"sqrt"}:
        assert "ulp" in getattr(vmath, name).__doc__, name
