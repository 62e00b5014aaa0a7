"""Vectors in kernels: arithmetic as numpy defines it, conversions, memory access with every type and remainder."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from vector_kernels import DTYPES, OTHER_TARGETS, address, call, evaluate, run_on

from jitrt.ops.kernels import compiler, loader, simd, target

INF, NAN = np.inf, np.nan
INTEGERS = [name for name in DTYPES if name[0] in "iu"]
RNG = np.random.default_rng(2)


def integers(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of small numbers and the ends of the range."""
    limits = np.iinfo(DTYPES[dtype])
    numbers = sorted({limits.min, limits.min + 1, limits.max, limits.max - 1, 0, 1, 2, 3, 7, *([-1, -2, -7] if limits.min else [])})
    return tuple(np.array(v, DTYPES[dtype]) for v in zip(*itertools.product(numbers, repeat=2)))


def floats(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    limits = np.finfo(DTYPES[dtype])
    numbers = [0.0, -0.0, 1, -1, 0.5, 2.5, -2.5, 3.5, INF, -INF, NAN, limits.max, limits.smallest_subnormal, -7.75, 1e-3, 1234567.5]
    return tuple(np.array(v, DTYPES[dtype]) for v in zip(*itertools.product(numbers, repeat=2)))


def check_integers(dtype: str, lanes: int) -> None:
    a, b = integers(dtype)
    text = (
        "a + b", "a - b", "a * b", "a & b", "a | b", "a ^ b", "~a", "-a", "minimum(a, b)", "maximum(a, b)", "absolute(a)", "a + 3",
    )  # fmt: skip
    numpy_meaning = (
        a + b, a - b, a * b, a & b, a | b, a ^ b, ~a, -a, np.minimum(a, b), np.maximum(a, b), np.abs(a), a + DTYPES[dtype].type(3),
    )  # fmt: skip
    for expression, got, expected in zip(text, evaluate(text, a, b, lanes=lanes), numpy_meaning):
        np.testing.assert_array_equal(got, expected, expression)


@pytest.mark.parametrize(("dtype", "lanes"), [*((t, 8) for t in INTEGERS), ("i8", 16), ("i64", 4), ("u16", 0)])
def test_integer_arithmetic_wraps(dtype, lanes):
    with np.errstate(all="ignore"):
        check_integers(dtype, lanes)


@pytest.mark.parametrize("dtype", ["i8", "i32", "i64", "u8", "u32", "u64"])
def test_integer_division_truncates_and_never_traps(dtype):
    a, b = integers(dtype)
    quotient, remainder = evaluate(["a / b", "a % b"], a, b, lanes=4)
    for x, y, q, r in zip(a.tolist(), b.tolist(), quotient.tolist(), remainder.tolist()):
        if y == 0:
            assert (q, r) == (0, 0)
            continue
        exact = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        assert q == int(np.array(exact).astype(object)) or (x, y) == (np.iinfo(DTYPES[dtype]).min, -1)
        assert r == x - exact * y


@pytest.mark.parametrize("dtype", ["i8", "i32", "i64", "u8", "u16", "u32", "u64"])
def test_shifts_beyond_the_width_shift_everything_out(dtype):
    bits = 8 * DTYPES[dtype].itemsize
    numbers, counts = [0, 1, 5, 100, np.iinfo(DTYPES[dtype]).max], [0, 1, 7, bits - 1, bits, 100]
    a, b = (np.array(v, DTYPES[dtype]) for v in zip(*itertools.product(numbers, counts)))
    left, right = evaluate(["a << b", "a >> b"], a, b, lanes=8)
    mask = 2**bits - 1
    for x, n, up, down in zip(a.tolist(), b.tolist(), left.tolist(), right.tolist()):
        assert up & mask == (x << n) & mask
        assert down == x >> n


def check_floats(dtype: str, lanes: int) -> None:
    a, b = floats(dtype)
    text = (
        "a + b", "a - b", "a * b", "a / b", "-a", "minimum(a, b)", "maximum(a, b)", "absolute(a)", "floor(a)", "ceil(a)",
        "trunc(a)", "rint(a)", "sqrt(a)", "copysign(a, b)", "select(a < b, a, b)", "select(isnan(a), b, a)", "2.0 * a + 1",
        "at_least(a, 0.5)", "at_most(a, 0.5)", "1.0 / a",
    )  # fmt: skip
    one = DTYPES[dtype].type
    with np.errstate(all="ignore"):
        numpy_meaning = (
            a + b, a - b, a * b, a / b, -a, np.minimum(a, b), np.maximum(a, b), np.abs(a), np.floor(a), np.ceil(a), np.trunc(a),
            np.rint(a), np.sqrt(a), np.copysign(a, b), np.where(a < b, a, b), np.where(np.isnan(a), b, a), one(2) * a + one(1),
            np.maximum(a, one(0.5)), np.minimum(a, one(0.5)), one(1) / a,
        )  # fmt: skip
    for expression, got, expected in zip(text, evaluate(text, a, b, lanes=lanes), numpy_meaning):
        np.testing.assert_array_equal(got, expected, expression)
    compared = ("a < b", "a <= b", "a > b", "a >= b", "a == b", "a != b", "isnan(a)", "(a < b) | (b < 1)", "~(a < b)")
    numpy_meaning = (a < b, a <= b, a > b, a >= b, a == b, a != b, np.isnan(a), (a < b) | (b < 1), ~(a < b))
    for expression, got, expected in zip(compared, evaluate(compared, a, b, lanes=lanes, outputs=["b1"] * 9), numpy_meaning):
        np.testing.assert_array_equal(got, expected, expression)


@pytest.mark.parametrize("lanes", [0, 4, 8, 16])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_float_arithmetic_is_ieee(dtype, lanes):
    check_floats(dtype, lanes)


def test_fma_rounds_once_where_the_cpu_can():
    a = np.array([1 + 2.0**-12, 3.0, INF, NAN], np.float32)
    (got,) = evaluate(["fma(a, a, -1.0)"], a, lanes=4)
    once = (a.astype(np.float64) ** 2 - 1).astype(np.float32)
    np.testing.assert_array_equal(got, once if target.current().fma else a * a - np.float32(1))


def check_conversions(sources: list[str]) -> None:
    whole = [0, 1, 2, 7, 100, 127]
    names = list(DTYPES)
    for source in sources:
        a = np.array(whole, DTYPES[source])
        for kind, got in zip(names, evaluate(["a"] * len(names), a, lanes=8, outputs=names)):
            np.testing.assert_array_equal(got, a.astype(DTYPES[kind]), f"{source} to {kind}")
    wide = np.array([-1, -128, 300, 70000, -(2**40), 2**63 - 1], np.int64)
    for kind, got in zip(INTEGERS, evaluate(["a"] * len(INTEGERS), wide, lanes=4, outputs=INTEGERS)):
        np.testing.assert_array_equal(got, wide.astype(DTYPES[kind]), kind)
    real = np.array([-2.7, 2.7, -0.5, 99.99, -100.2], np.float64)
    for kind, got in zip(["i8", "i32", "i64", "f32"], evaluate(["a"] * 4, real, lanes=4, outputs=["i8", "i32", "i64", "f32"])):
        np.testing.assert_array_equal(got, real.astype(DTYPES[kind]), kind)
    check_half()


def check_half() -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    (wide,) = evaluate(["a"], every, lanes=8, outputs=["f32"])
    np.testing.assert_array_equal(wide, every.astype(np.float32))
    near = np.concatenate([wide[np.isfinite(wide)] * np.float32(f) for f in (1, 1 + 2.0**-11, 1 + 2.0**-10, 1.0003, 0.9998)])
    near = np.concatenate([near, np.array([65519.9, 65520, 65504, 1e-8, 2.0**-25, 2.0**-24, INF, -INF, NAN], np.float32)])
    (narrow,) = evaluate(["a"], near, lanes=8, outputs=["f16"])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(narrow, near.astype(np.float16))


def test_conversions_agree_with_numpy():
    check_conversions(["f16", "f32", "f64", "i8", "i64", "u8", "u32", "b1"])


def test_bfloat16_rounds_to_nearest_even():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    store, load = simd.store("bf16"), simd.load("bf16", 8)
    load_single, store_single = simd.load("f32", 8), simd.store("f32")

    def kernel(args, task, scratch):
        for i in range(0, args[0], 8):
            store(args[2] + 2 * i, load_single(args[1] + 4 * i))
            store_single(args[3] + 4 * i, load(args[2] + 2 * i))

    x = RNG.integers(0, 2**32, 4096, dtype=np.uint32).view(np.float32)
    x[:8] = [0, -0.0, INF, -INF, NAN, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 3.4e38]
    half, back = np.zeros(4096, np.uint16), np.zeros(4096, np.float32)
    call(kernel, 4096, x, half, back)
    with np.errstate(all="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(back, expected.astype(np.float32))


# -- memory
@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("dtype", [name for name in DTYPES if name not in ("u16", "u32", "i16")])
def test_partial_loads_and_stores_touch_nothing_else(dtype, lanes):
    load, store = simd.load_first(dtype, lanes), simd.store_first(dtype)
    gather, scatter = simd.load_strided(dtype, lanes), simd.store_strided(dtype)
    size = DTYPES[dtype].itemsize

    def kernel(args, task, scratch):
        count = args[0]
        store(args[2], load(args[1], count), count)
        scatter(args[3], 3 * size, gather(args[1], 2 * size, count), count)

    made = address(kernel)
    x = RNG.integers(0, 2 if dtype == "b1" else 100, 2 * lanes).astype(DTYPES[dtype])
    for count in (0, 1, lanes - 1, lanes):
        near, far = np.ones(lanes + 1, DTYPES[dtype]), np.ones(3 * lanes + 1, DTYPES[dtype])
        call(made, count, x, near, far)
        np.testing.assert_array_equal(near, np.concatenate([x[:count], np.ones(lanes + 1 - count, DTYPES[dtype])]))
        expected = np.ones(3 * lanes + 1, DTYPES[dtype])
        expected[: 3 * count : 3] = x[: 2 * count : 2]
        np.testing.assert_array_equal(far, expected)


@pytest.mark.parametrize(("dtype", "lanes"), [("f32", 4), ("f32", 16), ("f64", 8), ("i32", 8), ("i64", 4), ("u8", 16)])
def test_reductions_fold_every_lane(dtype, lanes):
    x = RNG.integers(1, 4, 64).astype(DTYPES[dtype])
    names = ("add", "mul", "minimum", "maximum")
    folded = evaluate([f"reduce_{name}(a)" for name in names], x, lanes=lanes)
    for name, got in zip(names, folded):
        fold = {"add": np.add, "mul": np.multiply}.get(name) or getattr(np, name)
        expected = np.repeat(fold.reduce(x.reshape(-1, lanes), axis=1, dtype=x.dtype), lanes)
        np.testing.assert_array_equal(got, expected, name)


def test_reductions_keep_nan():
    x = np.array([1, NAN, 3, 4, 5, 6, 7, 8], np.float32)
    low, high, total = evaluate(["reduce_minimum(a)", "reduce_maximum(a)", "reduce_add(a)"], x, lanes=4)
    for got in (low, high, total):
        assert np.isnan(got[:4]).all()
        assert not np.isnan(got[4:]).any()


def test_lanes_can_be_numbered_masked_and_gathered():
    first_lanes, iota, gather, store, splat = (
        simd.first_lanes(8), simd.iota("i64", 8), simd.gather("f32"), simd.store("f32"), simd.splat("i64", 8),
    )  # fmt: skip

    def kernel(args, task, scratch):
        places = splat(args[1]) + (splat(7) - iota()) * 4
        store(args[2], gather(places, first_lanes(args[0])))

    x, y = np.arange(8, dtype=np.float32) + 1, np.zeros(8, np.float32)
    call(kernel, 5, x, y)
    np.testing.assert_array_equal(y, [8, 7, 6, 5, 4, 0, 0, 0])


def test_vectors_of_different_kinds_do_not_mix():
    load4, load8, store = simd.load("f32", 4), simd.load("f32", 8), simd.store("f32")

    def kernel(args, task, scratch):
        store(args[0], load4(args[0]) + load8(args[0]))

    with pytest.raises(Exception, match="No implementation of function"):
        compiler.compile_kernel(kernel)


def test_scalars_convert_to_the_vector_they_meet():
    a = np.array([1, 2, 3, 4], np.float32)
    got = evaluate(["a + 1", "2 - a", "select(a > 2, a, 0)", "maximum(a, 2.5)"], a, lanes=4)
    for result, expected in zip(got, (a + 1, 2 - a, np.where(a > 2, a, 0), np.maximum(a, 2.5))):
        np.testing.assert_array_equal(result, expected)


def check_target() -> None:
    """Arithmetic and conversions, for a process that compiles for another CPU."""
    with np.errstate(all="ignore"):
        check_integers("i32", 16)
        check_floats("f32", 16)
        check_floats("f64", 4)
        check_conversions(["f16", "u32"])


@pytest.mark.parametrize("other", OTHER_TARGETS, ids=lambda t: t[0])
def test_other_targets_compute_the_same(other):
    run_on(other, "test_simd")


def test_objects_of_kernels_load_without_numba():
    store, load = simd.store("f32"), simd.load("f32", 8)

    def kernel(args, task, scratch):
        store(args[1], load(args[0]) * 2.0)

    assert loader.load(compiler.compile_kernel(kernel).code)
