"""What no case of a single operator shows: sizes that only a run knows are native, and what follows them is planned."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import parser

import jitrt
from benchmarks import hosts

FOLLOWED = """
    <ir_version: 9, opset_import: ["": 18]>
    g (float[N, 5] x) => (float[K] y, int64[2, K] places, float[M, 5] kept)
    <float zero = {0.0}, int64[1] one = {1}>
    {
        above = Greater (x, zero)
        places = NonZero (above)
        tuples = Transpose <perm = [1, 0]> (places)
        picked = GatherND (x, tuples)
        y = Mul (picked, picked)
        sums = ReduceSum <keepdims = 0> (x, one)
        rows = Greater (sums, zero)
        kept = Compress <axis = 0> (x, rows)
    }"""


@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_what_follows_a_size_that_a_run_finds_is_native(rows: int) -> None:
    model = parser.parse_model(FOLLOWED).SerializeToString()
    session, x = jitrt.InferenceSession(model), np.random.default_rng(rows).standard_normal((rows, 5)).astype(np.float32)
    expected = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    for got, wanted in zip(session.run(None, {"x": x}), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert [plan.host_nodes for plan in session.get_plans({"x": x})] == [()] * len(session.get_plans({"x": x}))


# those of packages have tests of their own, in test_real_models.py
MODELS = {name: make for name, make in hosts.models() if not name.startswith(("silero", "magika", "PP-OCR", "nudenet"))}


@pytest.mark.parametrize("name", MODELS)
def test_python_computes_no_node_of_models_that_are_exported(name: str) -> None:
    nodes, outputs, expected = hosts.host_nodes(MODELS[name])
    assert nodes == []
    for got, wanted in zip(outputs, expected, strict=True):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        # quantised models differ by a step where an activation rounds to its neighbour
        close = 0.05 if "int8" in name else 2e-5 * max(1.0, float(abs(np.asarray(wanted, np.float64)).max(initial=0)))
        np.testing.assert_allclose(np.sort(got, None), np.sort(wanted, None), rtol=1e-3, atol=close)


def test_a_transform_longer_than_a_matrix_is_numpys() -> None:
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 20]>
        g (float[1, N, 1] x) => (float[1, M, 2] y) { y = DFT <onesided = 1> (x) }""")
    x = np.random.default_rng(0).standard_normal((1, 4100, 1)).astype(np.float32)
    (y,) = jitrt.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    wanted = np.fft.rfft(x[..., 0].astype(np.float64))
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], wanted, atol=1e-3)
