"""Sums over pixels in two loops are those of one loop, and are made in two where it pays and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.parser import parse_model

import jitrt
from jitrt.fusion import partials

REDUCTIONS = {
    "ReduceSum": np.sum, "ReduceMean": np.mean, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod,
    "ReduceL2": lambda x, **how: np.sqrt(np.sum(x * x, **how)), "ReduceSumSquare": lambda x, **how: np.sum(x * x, **how),
}  # fmt: skip


def model(reduction: str, kind: str = "FLOAT", batch: str = "N") -> bytes:
    """Gates an image whose channels lie innermost, by what a reduction makes of it."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.DataType.Value(kind), [batch, "H", "W", "C"]) for n in "xy")
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node(reduction, ["t", "axes"], ["r"]),
        helper.make_node("Mul", ["t", "r"], ["m"]),
        helper.make_node("Transpose", ["m"], ["y"], perm=[0, 2, 3, 1]),
    ]
    axes = helper.make_tensor("axes", 7, [2], [2, 3])
    graph = helper.make_graph(nodes, "g", [x], [y], [axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def session(data: bytes, threads: int) -> jitrt.InferenceSession:
    options = jitrt.SessionOptions()
    options.intra_op_num_threads = threads
    return jitrt.InferenceSession(data, options)


def loops(data: bytes, x: np.ndarray, threads: int) -> int:
    plan = session(data, threads)._engine.plan({"x": x})
    return sum("fold" in step.shape for step in plan.steps)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("size", [(12, 10, 40), (7, 9, 96), (1, 64, 33), (35, 3, 1)])
def test_results_are_those_of_numpy(reduction: str, size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partials, "MANY", 0)
    x = np.random.default_rng(5).uniform(0.5, 1.5, (1, *size))
    want = x * REDUCTIONS[reduction](x, axis=(1, 2), keepdims=True)
    for threads in (2, 3, 4):
        found = session(model(reduction), threads).run(None, {"x": x.astype(np.float32)})[0]
        np.testing.assert_allclose(found, want, rtol=2e-5)


def test_integers_and_what_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partials, "MANY", 0)
    x = np.random.default_rng(6).integers(-9, 9, (1, 6, 8, 20))
    for kind, dtype in (("INT32", np.int32), ("INT64", np.int64)):
        found = session(model("ReduceSum", kind), 2).run(None, {"x": x.astype(dtype)})[0]
        assert np.array_equal(found, x * x.sum((1, 2), keepdims=True))
    y = x.astype(np.float32)
    y[0, 5, 7, 3], y[0, 0, 0, 4] = np.nan, np.inf
    for reduction in ("ReduceMax", "ReduceSum"):
        with np.errstate(invalid="ignore"):
            want = y * REDUCTIONS[reduction](y, axis=(1, 2), keepdims=True)
        assert np.array_equal(session(model(reduction), 2).run(None, {"x": y})[0], want, equal_nan=True)


def test_two_loops_where_threads_would_share_channels_of_one_image() -> None:
    image = np.ones((1, 28, 28, 144), np.float32)
    assert loops(model("ReduceMean"), image, 2) == 2
    assert loops(model("ReduceMean"), image, 1) == 1  # nobody to share with
    assert loops(model("ReduceMean"), image[:, :27, :27], 2) == 1  # an odd number of pixels
    assert loops(model("ReduceMean"), image[:, :14, :14, :16], 2) == 1  # a small one
    assert loops(model("ReduceMean"), np.ones((2, 28, 28, 144), np.float32), 2) == 1  # an image for each thread


def test_a_loop_that_goes_over_the_image_again_stays_one() -> None:
    data = parse_model("""
        <ir_version: 10, opset_import: ["": 18]>
        g (float[1, 28, 28, 144] x) => (float[1, 28, 28, 144] y)
        <int64[2] axes = {1, 2}>
        { m = ReduceMean (x, axes) d = Sub (x, m) s = Mul (d, d) v = ReduceMean (s, axes) r = Sqrt (v) y = Div (d, r) }""")
    x = np.random.default_rng(7).standard_normal((1, 28, 28, 144))
    found = session(data.SerializeToString(), 2).run(None, {"x": x.astype(np.float32)})[0]
    np.testing.assert_allclose(found, (x - x.mean((1, 2))) / x.std((1, 2)), rtol=1e-4, atol=1e-5)
    assert loops(data.SerializeToString(), x.astype(np.float32), 2) == 1
