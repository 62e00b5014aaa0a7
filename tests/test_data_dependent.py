"""What no case of a single operator shows: sizes that only a run knows are native, and what follows them is planned."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import parser

import jitrt
from benchmarks import hosts
from jitrt import program
from jitrt.fusion.graph import Graph

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


def test_views_that_python_gives_are_row_major_for_kernels() -> None:
    text = """<ir_version: 9, opset_import: ["": 18]> g (float[3, 4] x) => (float[3, 2] y, seq(float[3, 2]) z)
        { two = Constant <value = int64 {2}> () one = Constant <value = int64 {1}> () parts = SplitToSequence <axis = 1> (x, two)
          part = SequenceAt (parts, one) y = Neg (part)
          z = SequenceMap (parts) <body = b (float[3, 2] p) => (float[3, 2] q) { q = Abs (p) }> }"""
    x = -np.arange(12, dtype=np.float32).reshape(3, 4)
    y, z = jitrt.InferenceSession(parser.parse_model(text).SerializeToString()).run(None, {"x": x})
    np.testing.assert_array_equal(y, -x[:, 2:])
    np.testing.assert_array_equal(z, [-x[:, :2], -x[:, 2:]])


# -- what follows is planned for the size that came out, and cached by it
# of x[40, 8] a run finds `count` elements above zero, all in the first rows; `n` is that number as a vector
COUNTED = """
    zero = Constant <value = float {0}> () above = Greater (x, zero) ones = Cast <to = 7> (above)
    all = Constant <value = int64[1] {-1}> () last = Constant <value = int64[1] {1}> ()
    zeros = Constant <value = int64[1] {0}> () flat = Reshape (x, all) which = Reshape (above, all)
    flags = Reshape (ones, all) n = ReduceSum (flags, zeros) """
NUMBER = "scalar = Constant <value = int64[0] {}> () number = Reshape (n, scalar) start = Constant <value = int64 {0}> () "
FOUND = {
    "NonZero": "places = NonZero (above) y = Mul (places, places)",
    "Where of one argument": "places = NonZero (above) tuples = Transpose (places) one = GatherND (x, tuples) y = Exp (one)",
    "Compress": "one = Compress (flat, which) y = Exp (one)",
    "Compress of rows": """rows = ReduceMax <keepdims = 0> (ones, last) hold = Cast <to = 9> (rows)
        one = Compress <axis = 0> (x, hold) y = Exp (one)""",
    "Unique": "one, f, p, c = Unique (flat) y = Exp (one)",
    "Unique's counts": "low = Max (flat, zero) a, f, p, c = Unique (low) y = Mul (c, c)",
    "NonMaxSuppression": """boxes, scores = Split <axis = 1, num_outputs = 2> (x)
        b = Unsqueeze (boxes, zeros) t = Transpose (scores) sc = Unsqueeze (t, zeros) most = Constant <value = int64[1] {20}> ()
        iou = Constant <value = float[1] {0.5}> () least = Constant <value = float[1] {0}> ()
        one = NonMaxSuppression (b, sc, most, iou, least) y = Mul (one, one)""",
    "TopK with computed k": "one, i = TopK (flat, n) y = Exp (one)",
    "Range": NUMBER + "step = Constant <value = int64 {1}> () one = Range (start, number, step) y = Mul (one, one)",
    "Reshape": """shape = Concat <axis = 0> (n, last, all) k = Tile (flat, n) one = Reshape (k, shape) y = Exp (one)""",
    "Expand": """wide = Constant <value = int64[1] {3}> () shape = Concat <axis = 0> (n, wide) s = ReduceMax (x)
        one = Expand (s, shape) y = Exp (one)""",
    "Slice": "one = Slice (flat, zeros, n) y = Exp (one)",
    "Pad": "pads = Concat <axis = 0> (zeros, n) one = Pad (flat, pads) y = Exp (one)",
    "Resize": """eight = Constant <value = int64[1] {8}> () sizes = Concat <axis = 0> (n, eight)
        one = Resize (x, , , sizes) y = Exp (one)""",
    "Tile": "one = Tile (flat, n) y = Exp (one)",
    "ConstantOfShape": "one = ConstantOfShape <value = float[1] {2}> (n) y = Exp (one)",
    "a loop": NUMBER
    + """s = ReduceMax <keepdims = 0> (x) last_s, one = Loop (number, , s) <body = b (int64 i, bool c, float a)
        => (bool on, float m, float r) { on = Identity (c) m = Neg (a) r = Exp (m) }> y = Mul (one, one)""",
}


def _found(count: int) -> np.ndarray:
    x = -1 - np.random.default_rng(3).random((40, 8)).astype(np.float32)
    x.reshape(-1)[:count] *= -1
    x[:, 2:4] += np.sign(x[:, 2:4]) * 0.5
    return x


@pytest.mark.parametrize("case", FOUND)
def test_a_size_that_came_out_before_traces_nothing_and_a_new_one_what_follows(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "int64" if case in ("NonZero", "Unique's counts", "NonMaxSuppression", "Range") else "float"
    head = f'<ir_version: 9, opset_import: ["": 18]> g (float[40, 8] x) => ({kind}[] y)'
    model = parser.parse_model(f"{head} {{ {COUNTED} {FOUND[case]} }}").SerializeToString()
    session = jitrt.InferenceSession(model)
    peer = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    traced: list[Graph] = []
    plain = program.trace
    monkeypatch.setattr(program, "trace", lambda graph, *rest: traced.append(graph) or plain(graph, *rest))

    def run(count: int) -> list[Graph]:
        """What is traced."""
        traced.clear()
        x = _found(count)
        (y,), (wanted,) = session.run(None, {"x": x}), peer.run(None, {"x": x})
        assert y.dtype == wanted.dtype
        np.testing.assert_allclose(y, wanted, rtol=1e-5)
        return list(traced)

    assert run(9)
    assert run(9) == []
    assert session._engine.graph not in run(17)
    assert run(9) == []
    assert run(17) == []
    run(33)
    for count in (40, 41, 55, 9, 17, 33, 41):  # by now sizes are open, or were there
        assert session._engine.graph not in run(count)
    assert run(41) == []
