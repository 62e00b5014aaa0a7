"""Products of few rows with constant factors, held as float32 and in 16 bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper, parser

import jitrt
from jitrt.fusion import weights
from jitrt.ops.kernels import gemv

SIZES = [(0, 5), (1, 1), (1, 16), (2, 17), (7, 15), (31, 33), (64, 16), (130, 47), (257, 100)]
TAILS = {
    "nothing": "y = MatMul (x, w)",
    "bias and clip": "p = MatMul (x, w) s = Add (p, b) y = Relu (s)",
    "residual": "p = MatMul (x, w) y = Add (p, r)",
    "residual and clip": "p = MatMul (x, w) s = Add (p, b) q = Add (s, r) y = Relu (q)",
    "epilogue": "p = MatMul (x, w) s = Add (p, b) t = Sigmoid (s) y = Mul (s, t)",
    "epilogue with a residual": "p = MatMul (x, w) s = Add (p, b) t = Tanh (s) y = Add (t, r)",
    "turned": "p = Gemm <transB = 1, alpha = 0.5> (x, v, b) y = Identity (p)",
}


HELD = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "exact bfloat16": ml_dtypes.bfloat16, "exact float16": np.float16}


@pytest.fixture(params=list(HELD))
def held(request, monkeypatch) -> str:
    """How weights are held; exactly, those are that may be."""
    monkeypatch.setattr(weights, "LARGE", 1)
    return request.param


def session(rows: int, k: int, n: int, tail: str, held: str) -> tuple[jitrt.InferenceSession, dict, np.ndarray]:
    """jitrt's session, inputs, and what onnxruntime makes of the weights as they are to be held."""
    rng = np.random.default_rng(k * n + rows)
    w, b = rng.standard_normal((k, n)).astype(np.float32), rng.standard_normal(n).astype(np.float32)
    rounded = w.astype(HELD[held]).astype(np.float32)
    model = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 17]>
        g (float[{rows},{k}] x, float[{rows},{n}] r) => (float[{rows},{n}] y) {{ {TAILS[tail]} }}""")

    def serialized(w: np.ndarray) -> bytes:
        del model.graph.initializer[:]
        for name, value in (("w", w), ("v", np.ascontiguousarray(w.T)), ("b", b)):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        return model.SerializeToString()

    options = jitrt.SessionOptions()
    options.add_session_config_entry("jitrt.weights", held.partition(" ")[0])
    ours = jitrt.InferenceSession(serialized(w if held == "bfloat16" else rounded), options)
    feeds = {"x": rng.standard_normal((rows, k)).astype(np.float32), "r": rng.standard_normal((rows, n)).astype(np.float32)}
    expected = onnxruntime.InferenceSession(serialized(rounded), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    return ours, feeds, expected


@pytest.mark.parametrize("tail", TAILS)
def test_rows_and_what_follows_agree(tail, held):
    for k, n in SIZES:
        for rows in (1, 2, 3, 4, 5, 7, 8, 9, 11, 15, 16, 21):
            ours, feeds, expected = session(rows, k, n, tail, held)
            np.testing.assert_allclose(ours.run(None, feeds)[0], expected, rtol=1e-4, atol=1e-4, err_msg=f"{rows}x{k}x{n}")


def test_not_a_number_and_infinity_stay_in_their_rows_and_columns(held):
    ours, feeds, _ = session(3, 31, 33, "nothing", held)
    feeds["x"][1, 4], feeds["x"][2, 30] = np.nan, np.inf
    found = ours.run(None, feeds)[0]
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
    assert np.isinf(found[2]).all()


def test_sums_of_many_terms_are_as_exact_as_float32_allows():
    ours, feeds, _ = session(1, 20_000, 33, "nothing", "float32")
    w = ours._engine.graph.constants["w"].array().astype(np.float64)
    exact = feeds["x"].astype(np.float64) @ w
    assert np.abs(ours.run(None, feeds)[0] - exact).max() < 1e-6 * (np.abs(feeds["x"]) @ np.abs(w)).max()


def test_narrow_weights_are_held_once_and_are_rounded_when_asked_for():
    ours, feeds, _ = session(2, 512, 256, "nothing", "bfloat16")
    ours.run(None, feeds)
    weight = ours._engine.graph.constants["w"]
    assert weight._array is None
    assert (weight.array() == weight.array().astype(ml_dtypes.bfloat16).astype(np.float32)).all()
    packed = [place for _, place in ours._engine.shared.weights._places.values()]
    assert [place.dtype for place in packed] == [np.dtype(ml_dtypes.bfloat16)]


def test_products_that_differ_in_places_only_are_laid_out_once(monkeypatch):
    laid_out, product = [], gemv.product
    monkeypatch.setattr(gemv, "product", lambda *operands, **how: laid_out.append(operands) or product(*operands, **how))
    text = "p = MatMul (x, u) q = MatMul (p, v) r = MatMul (q, w) y = Add (r, b)"
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> g (float[7,24] x) => (float[7,24] y) {{ {text} }}')
    rng = np.random.default_rng(0)
    u, v, w, x, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((24, 24), (24, 24), (24, 24), (7, 24), (24,)))
    for name, value in (("u", u), ("v", v), ("w", w), ("b", b)):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    (y,) = jitrt.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ u @ v @ w + b, rtol=1e-4, atol=1e-3)
    assert len(laid_out) == 2  # one without a bias, one with
