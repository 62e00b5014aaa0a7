"""The attention kernel against float64: sizes around every tile and block, layouts, special values."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from kernel_problems import Memory, run

from jitrt.ops.kernels import attention as kernels
from jitrt.ops.kernels import target
from jitrt.ops.kernels.attention import Band, Heads, Sizes
from jitrt.ops.kernels.attentionfew import BLOCK, most

KIND = {"f32": np.float32, "f64": np.float64}
TOLERANCE = {"f32": 3e-6, "f64": 1e-14}
RNG = np.random.default_rng(5)
Array = np.ndarray


@pytest.fixture(autouse=True)
def same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test draws the same ones, whichever ran before."""
    monkeypatch.setattr(sys.modules[__name__], "RNG", np.random.default_rng(5))


def heads(x: Array) -> Heads:
    """x[a, b, c, rows, columns] with any strides."""
    leads = tuple(0 if n == 1 else s for n, s in zip(x.shape, x.strides[:3]))
    return Heads(x.ctypes.data, leads, *x.strides[3:])


def attend(q: Array, k: Array, v: Array, scale: float = 1.0, threads: int = 2, band: Band | None = None) -> Array:
    """What the kernel makes; the result lies as [a, b, rows, c, columns]."""
    leads = np.broadcast_shapes(q.shape[:3], k.shape[:3], v.shape[:3])
    y = np.full((*leads[:2], q.shape[3], leads[2], v.shape[4]), 99, q.dtype).swapaxes(2, 3)
    sizes = Sizes(leads, q.shape[3], k.shape[3], q.shape[4], v.shape[4])
    memory, dtype = Memory(), "f32" if q.dtype == np.float32 else "f64"
    run(
        kernels.attention(
            dtype, heads(q), heads(k), heads(v), heads(y), sizes, scale=scale, band=band, alloc=memory.alloc, threads=threads
        )
    )  # fmt: skip
    return y


def expected(q: Array, k: Array, v: Array, scale: float = 1.0) -> Array:
    """The same in float64."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    with np.errstate(all="ignore"):
        scores = q @ k.swapaxes(-1, -2) * scale
        grown = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
        return grown / grown.sum(-1, keepdims=True) @ v


def problem(leads: tuple[int, ...], queries: int, keys: int, head: int, value: int, dtype: str = "f32") -> list[Array]:
    """Queries, keys and values."""
    shapes = ((queries, head), (keys, head), (keys, value))
    return [RNG.standard_normal((*leads, *shape)).astype(KIND[dtype]) for shape in shapes]


def check(q: Array, k: Array, v: Array, scale: float = 0.3, threads: int = 2) -> None:
    tolerance = TOLERANCE["f32" if q.dtype == np.float32 else "f64"]
    np.testing.assert_allclose(attend(q, k, v, scale, threads), expected(q, k, v, scale), tolerance, tolerance)


@pytest.mark.parametrize("queries", [*range(1, 10), 15, 16, 17, 18, 31, 33, 65])
def test_any_number_of_queries(queries: int) -> None:
    check(*problem((1, 1, 2), queries, 37, 16, 16))


@pytest.mark.parametrize("keys", [*range(1, 15), 128, 251, 256, 257, 263, 517, 1031])
def test_any_number_of_keys(keys: int) -> None:
    check(*problem((1, 2, 1), 19, keys, 12, 20))
    check(*problem((1, 2, 1), 3, keys, 12, 20))


@pytest.mark.parametrize(("head", "value"), [*((n, n) for n in range(1, 14)), (64, 64), (80, 3), (1, 96), (129, 40), (256, 256)])
def test_any_size_of_a_head_and_values_of_another(head: int, value: int) -> None:
    check(*problem((1, 1, 1), 18, 23, head, value), 0.1)
    check(*problem((1, 1, 1), 2, 23, head, value), 0.1)


@pytest.mark.parametrize("dtype", KIND)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_heads_in_three_dimensions_are_shared_among_threads(dtype: str, threads: int) -> None:
    check(*problem((2, 3, 2), 70, 90, 24, 8, dtype), threads=threads)


def test_heads_that_share_keys_and_values() -> None:
    q, k, v = problem((2, 2, 4), 21, 50, 8, 8)
    check(q, k[:, :, :1], v[:, :, :1])
    check(q, k[:1, :1], v[:, :, :1])


LAYOUTS = {
    "heads apart": (0, 2, 3, 1, 4), "as given": (0, 1, 2, 3, 4), "columns first": (0, 1, 2, 4, 3), "heads last": (0, 3, 4, 1, 2),
}  # fmt: skip


def laid(x: Array, order: tuple[int, ...]) -> Array:
    """The same array with axes in that order in memory."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


@pytest.mark.parametrize(("keys", "values"), [*itertools.product(LAYOUTS, LAYOUTS)])
def test_keys_and_values_in_any_layout(keys: str, values: str) -> None:
    q, k, v = problem((1, 2, 3), 50, 41, 16, 24)
    check(laid(q, LAYOUTS[values]), laid(k, LAYOUTS[keys]), laid(v, LAYOUTS[values]))


@pytest.mark.parametrize("queries", [40, 120, 1300])  # copied by nobody, by a task, before all tasks
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_pages_apart_are_copied_together(queries: int, threads: int) -> None:
    q, k, v = problem((1, 2, 1), queries, 41, 16, 24)
    apart = [np.zeros((*x.shape[:4], 1024), np.float32) for x in (k, v)]
    for wide, x in zip(apart, (k, v)):
        wide[..., : x.shape[4]] = x
    check(q, *(wide[..., : x.shape[4]] for wide, x in zip(apart, (k, v))), threads=threads)


@pytest.mark.parametrize("k_heads", [(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 3)])
@pytest.mark.parametrize("v_heads", [(1, 1, 1), (2, 2, 1), (1, 1, 3)])
@pytest.mark.parametrize("layouts", [("as given", "as given"), ("columns first", "heads last"), ("heads last", "columns first")])
def test_tasks_share_records_of_keys(k_heads: tuple[int, ...], v_heads: tuple[int, ...], layouts: tuple[str, str]) -> None:
    """Several tasks a head: what they need of a block is made once for each head that has keys or values of its own."""
    leads, keys = (2, 2, 3), 300
    q, _, v = problem(leads, 1056, keys, 16, 8)
    k = problem(k_heads, 1, keys, 16, 1)[1]
    assert kernels._PANELS * kernels.panel_width(4) < 1056
    v = v[tuple(slice(n) for n in v_heads)]
    check(q, laid(k, LAYOUTS[layouts[0]]), laid(v, LAYOUTS[layouts[1]]))


def test_without_keys_the_result_is_0_and_without_queries_there_is_nothing_to_do() -> None:
    for queries in (5, 2000):
        assert np.array_equal(attend(*problem((1, 1, 2), queries, 0, 4, 3)), np.zeros((1, 1, 2, queries, 3)))
    assert attend(*problem((1, 1, 2), 0, 5, 4, 3)).size == 0
    assert attend(*problem((0, 1, 2), 5, 5, 4, 3)).size == 0
    np.testing.assert_allclose(*[f(*problem((1, 1, 1), 3, 300, 0, 1)[:2], np.ones((1, 1, 1, 300, 1), np.float32))
                                 for f in (attend, expected)], 1e-6)  # fmt: skip


@pytest.mark.parametrize("queries", [2, 20])
@pytest.mark.parametrize("keys", [5, 700])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, -1])
def test_nan_and_infinity_reach_what_they_would(queries: int, keys: int, bad: float, place: int) -> None:
    q, k, v = problem((1, 1, 1), queries, keys, 4, 4)
    q[..., queries // 2, 1], k[..., place, 1] = bad, abs(k[..., place, 1]) + 1
    np.testing.assert_allclose(attend(q, k, v), expected(q, k, v), 1e-5, 1e-6)
    q, k, v = problem((1, 1, 1), queries, keys, 4, 4)
    v[..., place, 2] = bad
    np.testing.assert_allclose(attend(q, k, v), expected(q, k, v), 1e-5, 1e-6)


def test_scores_far_from_0_and_far_apart() -> None:
    q, k, v = problem((1, 1, 1), 20, 600, 8, 8)
    for factor in (1e-6, 30.0, 3e3):  # at the largest, one key has all the weight
        np.testing.assert_allclose(attend(q, k, v, factor), expected(q, k, v, factor), 2e-3, 2e-3)
    k[..., ::7, :] = 1e30
    q[...] = np.abs(q)
    check(q, k, v)


@pytest.mark.parametrize("size", [1e-30, 1e-5, 1.0, 1e5, 1e30])
def test_queries_keys_and_values_of_any_size(size: float) -> None:
    q, k, v = problem((1, 1, 2), 40, 300, 24, 24)
    by = np.float32(size)
    want = expected(q, k, v, 0.3)
    np.testing.assert_allclose(attend(q, k, v * by, 0.3) / by, want, 3e-6, 3e-6)
    np.testing.assert_allclose(attend(q * by, k / by, v, 0.3), want, 3e-6, 3e-6)


@pytest.mark.parametrize("decades", [0, 1, 9])
def test_channels_of_any_scale_keep_their_digits(decades: int) -> None:
    q, k, v = problem((1, 1, 2), 40, 300, 64, 24)
    v *= 10.0 ** RNG.integers(-decades, decades + 1, 24).astype(np.float32)
    v[..., 5] *= decades != 9
    got = attend(q, k, v, 0.3)
    assert (np.abs(got - expected(q, k, v, 0.3)) <= 5e-6 * np.abs(v).max(-2, keepdims=True)).all()


@pytest.mark.parametrize("sharp", [0.0, 0.05, 1.0, 20.0])
def test_weights_that_are_alike_and_one_key_that_has_all_of_it(sharp: float) -> None:
    """Results are a value alone where scores lie far apart, and the mean of all where they are the same."""
    q, k, v = problem((1, 1, 2), 40, 300, 64, 64)
    q = np.float32(sharp) * k[..., 7 : 7 * 40 + 1 : 7, :]
    np.testing.assert_allclose(attend(q, k, v, 0.3), expected(q, k, v, 0.3), 1e-5, 3e-6)


@pytest.mark.parametrize("factors", [*itertools.product((0.05, 3, 60), repeat=3)])
def test_lengths_that_bound_the_scores_of_some_blocks_of_keys_only(factors: tuple[float, ...]) -> None:
    """Blocks whose scores are weighed at once lie beside others, whichever comes first."""
    q, k, v = problem((1, 1, 2), 20, 600, 8, 8)
    step = kernels._key_block(600, 4 * kernels.panel_width(4), kernels.tile_heights("f32")[0])
    for i, factor in enumerate(factors):
        k[..., i * step : (i + 1) * step, :] *= factor
    np.testing.assert_allclose(attend(q, k, v, 0.3), expected(q, k, v, 0.3), 3e-5, 3e-5)


def test_nan_of_any_payload_in_keys_and_queries() -> None:
    for i in range(2):
        problem_ = problem((1, 1, 1), 20, 300, 8, 8)
        problem_[i][..., 7, 3] = np.array([0x7FC0_0155], np.uint32).view(np.float32)[0]
        np.testing.assert_allclose(attend(*problem_), expected(*problem_), 1e-5, 1e-6)


SHARES = [(12, 8, 2), (12, 64, 2), (1, 1, 2), (3, 13, 4), (1000, 1, 2), (1, 200, 64)]


@pytest.mark.parametrize(("heads_", "panels", "threads"), SHARES)
def test_tasks_cover_all_panels_once(heads_: int, panels: int, threads: int) -> None:
    each, blocks = kernels._share(heads_, panels, 16, heads_ * panels * 10**6, threads)
    assert (blocks - 1) * each < panels <= blocks * each
    assert each <= 16


def check_target(registers: int = 0) -> None:
    """A few problems on the present target, maybe with another number of registers: run in processes of their own."""
    found = replace(target.current(), registers=registers or target.current().registers)
    target.current = lambda: found
    few = (1, 5, 3, 2), (3, 300, 40, 33), (8, 131, 17, 65)
    for queries, keys, head, value in (*few, (21, 300, 40, 33), (70, 61, 64, 64), (1200, 90, 8, 8)):
        check(*problem((1, 2, 1), queries, keys, head, value))


TARGETS = {
    "any": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
    "without fma": {"NUMBA_CPU_NAME": "sandybridge", "NUMBA_CPU_FEATURES": "+avx,+sse4.2"},
    "many registers": {},
}


@pytest.mark.parametrize("name", TARGETS)
def test_other_targets(name: str) -> None:
    call = f"t.check_target({32 if name == 'many registers' else 0})"
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_attention_kernel as t; {call}"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | TARGETS[name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("queries", "keys"), [(40, 40), (33, 700), (300, 20), (9, 9)])
@pytest.mark.parametrize(("back", "ahead"), [(1000, 0), (3, 5), (0, 0), (1000, 250), (-7, 20), (400, -300)])
def test_blocks_outside_a_band_are_not_read(queries: int, keys: int, back: int, ahead: int) -> None:
    """Keys and values that no panel of queries sees are NaN; panels that see none see all."""
    q, k, v = problem((1, 1, 1), queries, keys, 8, 8)
    width = kernels.panel_width(4)
    wanted = np.empty((1, 1, 1, queries, 8))
    band, step = Band(back, ahead, -np.inf), kernels._key_block(keys, 4 * width, kernels.tile_heights("f32")[0])
    for first in range(0, queries, width):
        rows = slice(first, min(first + width, queries))
        low, high = max(0, first - back), min(keys, rows.stop + ahead)
        low, high = (low // step * step, min(keys, -(-high // step) * step)) if low < high else (0, keys)
        wanted[..., rows, :] = expected(q[..., rows, :], k[..., low:high, :], v[..., low:high, :], 0.3)
    np.testing.assert_allclose(attend(q, k, v, 0.3, 2, band), wanted, 3e-6, 3e-6)


@pytest.mark.parametrize(("queries", "keys"), [(1, 9), (1, 700), (3, 300), (4, 127), (2, 129), (6, 300), (8, 135)])
@pytest.mark.parametrize(("back", "ahead"), [(1000, 0), (5, 200), (-300, 1000), (1000, -5)])
def test_keys_that_none_of_a_few_queries_sees_are_not_read(queries: int, keys: int, back: int, ahead: int) -> None:
    queries = min(queries, most("f32"))
    q, k, v = problem((2, 1, 2), queries, keys, 20, 12)
    low, high = max(0, -back), min(keys, queries + ahead)
    low, high = (low, high) if low < high else (0, keys)
    wanted = expected(q, k[..., low:high, :], v[..., low:high, :], 0.3)
    np.testing.assert_allclose(attend(q, k, v, 0.3, 2, Band(back, ahead, -np.inf)), wanted, 3e-6, 3e-6)


@pytest.mark.parametrize("queries", range(1, 10))
@pytest.mark.parametrize("keys", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 9])
@pytest.mark.parametrize("dtype", KIND)
def test_a_few_queries_go_on_from_block_to_block(queries: int, keys: int, dtype: str) -> None:
    check(*problem((1, 2, 3), queries, keys, 33, 72, dtype))


def test_rows_without_a_score_above_the_level_see_everything() -> None:
    q, k, v = problem((1, 1, 2), 40, 600, 8, 8)
    q[..., 5, :], k[...] = -abs(q[..., 5, :]) - 1, abs(k) + 1
    band = Band(40, 0, -1.0)
    lanes = target.current().lanes
    together = slice(5 // lanes * lanes, (5 // lanes + 1) * lanes)  # the rows of a vector
    got = attend(q, k, v, 1.0, 2, band)
    np.testing.assert_allclose(got[..., together, :], expected(q, k, v)[..., together, :], 3e-6, 3e-6)
    q = q[..., 4:6, :]
    np.testing.assert_allclose(attend(q, k, v, 1.0, 2, Band(2, 0, -1.0)), expected(q, k, v), 3e-6, 3e-6)
