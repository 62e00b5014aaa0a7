"""Rows with long chains of dear functions, which are passed over several times in blocks."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import jitrt as ort
from jitrt.fusion.codegen import BLOCK

LONG = "a = Sigmoid (x) b = Sqrt (a) c = Tanh (b) d = Mul (c, r) e = Exp (d) f = Reciprocal (e)"


def run(text: str, x: np.ndarray, r: np.ndarray, threads: int = 1) -> tuple[list[np.ndarray], str]:
    """The outputs, and the sources of the loops."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g (float[M, N] x, float[1, N] r) => {text}')
    session = ort.InferenceSession(model, options)
    feeds = {"x": x, "r": r}
    return session.run(None, feeds), "\n".join(step.kernel.source for step in session.get_plan(feeds).steps)


def chain(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """LONG in float64."""
    c = np.tanh(np.sqrt(1 / (1 + np.exp(-x.astype(np.float64)))))
    return 1 / np.exp(c * r)


def problem(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(columns)
    return rng.standard_normal((rows, columns), np.float32), rng.standard_normal((1, columns), np.float32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("columns", [128, 209, 1025, 4 * BLOCK, 3 * BLOCK + 1, 40 * BLOCK + 33])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_staged_row_of_any_length_is_right(rows, columns, threads):
    x, r = problem(rows, columns)
    x[0, :4], r[0, 3] = [np.nan, np.inf, -np.inf, 0], np.inf
    (f,), source = run(f"(float[M, N] f) {{ {LONG} }}", x, r, threads)
    assert f"range(begin, end, {BLOCK})" in source
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(f, chain(x, r), 1e-5, 1e-6)


def test_what_is_read_late_survives_results_in_its_place():
    x, r = problem(2, 2500)
    chained = f"{LONG} g = Add (f, p) h = Mul (g, p)".replace("(x)", "(p)")
    sort = "TopK <axis = 0>"  # whose values lie in memory that the chain may take
    (y,), source = run(f"(float[M, N] y) <int64[1] k = {{2}}> {{ p, i = {sort} (x, k) {chained} y, j = {sort} (h, k) }}", x, r)
    assert f"range(begin, end, {BLOCK})" in source
    p = -np.sort(-x.astype(np.float64), 0)
    np.testing.assert_allclose(y, -np.sort(-(chain(p, r) + p) * p, 0), 1e-5, 1e-5)


def test_results_of_several_stages_come_in_one_pass():
    x, r = problem(2, 2500)
    (f, b, d), source = run(f"(float[M, N] f, float[M, N] b, float[M, N] d) {{ {LONG} }}", x, r)
    assert "begin" not in source
    np.testing.assert_allclose(f, chain(x, r), 1e-5, 1e-6)
    np.testing.assert_allclose(b, np.sqrt(1 / (1 + np.exp(-x.astype(np.float64)))), 1e-5, 1e-6)
    np.testing.assert_allclose(d, np.tanh(b.astype(np.float64)) * r, 1e-5, 1e-6)


def test_values_of_other_types_wait_between_stages():
    x, r = problem(2, 1500)
    text = "s = Sigmoid (x) q = Sqrt (s) big = Greater (q, r) t = Tanh (q) e = Exp (t) u = Log (e) y = Where (big, u, q)"
    (y,), source = run(f"(float[M, N] y) {{ {text} }}", x, r)
    assert f"range(begin, end, {BLOCK})" in source
    q = np.sqrt(1 / (1 + np.exp(-x.astype(np.float64))))
    near = np.abs(q - r) < 1e-5
    np.testing.assert_allclose(y[~near], np.where(q > r, np.tanh(q), q)[~near], 1e-5, 1e-6)
