"""Projections of one value as one product: the graph before and after, and the values that stay the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import jitrt
from jitrt.engine import Engine
from jitrt.fusion.graph import Graph
from jitrt.fusion.importer import load
from jitrt.fusion.projections import merge_projections
from jitrt.ops.weights import Weight

RNG = np.random.default_rng(0)
HEADS = "a = MatMul (x, wq) q0 = Add (a, bq) k0 = MatMul (x, wk) c = MatMul (x, wv) v0 = Add (bv, c)"
PARTED = "q = Reshape (q0, heads) k = Reshape (k0, heads) v = Reshape (v0, heads)"
OF_THREE = "float[R,2,H] q, float[R,2,H] k, float[R,2,H] v"


def model(
    nodes: str, width: int = 8, outputs: str = OF_THREE, constants: dict[str, np.ndarray] | None = None, overridable: str = ""
) -> onnx.ModelProto:  # fmt: skip
    """A model of nodes in ONNX's text form that projects x[R, width]; `constants` replaces some, one may be `overridable`."""
    inputs = "float[R,W] x" + (f", float[W,W] {overridable}" if overridable else "")
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => ({outputs}) {{ {nodes} }}')
    values = {f"w{name}": RNG.standard_normal((width, width)) for name in "qkv"}
    values |= {f"b{name}": RNG.standard_normal(width) for name in "qv"} | {"half": np.array(0.5)} | (constants or {})
    for name, value in values.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 2, width // 2]), "heads"))
    return proto


def shown(graph: Graph) -> list[str]:
    return [line.strip() for line in str(graph).splitlines()[1:-1]]


def check(proto: onnx.ModelProto, rows: tuple[int, ...] = (1, 3, 70), width: int = 8) -> jitrt.InferenceSession:
    """A session whose every output is as onnxruntime has it, for some numbers of rows."""
    ours, theirs = (runtime.InferenceSession(proto.SerializeToString()) for runtime in (jitrt, onnxruntime))
    for n in rows:
        feeds = {"x": RNG.standard_normal((n, width)).astype(np.float32)}
        for got, expected in zip(ours.run(None, feeds), theirs.run(None, feeds), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    return ours


def test_three_projections_become_one() -> None:
    proto = model(HEADS + PARTED)
    assert shown(merge_projections(load(proto).graph)) == [
        "q0/all = MatMul(x, q0/weights)",
        "q0/biased = Add(q0/all, q0/biases)",
        "q0, k0, v0 = Split(q0/biased, q0/columns, axis=-1)",
        "q = Reshape(q0, heads)",
        "k = Reshape(k0, heads)",
        "v = Reshape(v0, heads)",
    ]
    assert [step.kernel.name for step in check(proto).get_plan({"x": np.ones((3, 8), np.float32)}).steps].count("gemv") == 1


@pytest.mark.parametrize("scaled", ["q0 = Mul (b, half)", "q0 = Mul (half, b)", "q0 = Div (b, half)"])
@pytest.mark.parametrize("first", ["a = MatMul (x, wq) b = Add (a, bq)", "b = MatMul (x, wq)"])
def test_one_that_is_multiplied_by_a_number_is_so_afterwards(first, scaled) -> None:
    proto = model(f"{first} {scaled} k0 = MatMul (x, wk) v0 = MatMul (x, wv) {PARTED}")
    lines = shown(merge_projections(load(proto).graph))
    assert [line.partition("(")[0].split()[-1] for line in lines if "Reshape" not in line] == [
        "MatMul", *(["Add"] if "Add" in first else []), "Split", scaled.split()[2],
    ]  # fmt: skip
    assert scaled.replace(" (", "(").replace("b", "q0/unscaled") in lines
    check(proto)


def test_without_biases_nothing_is_added() -> None:
    nodes = "q0 = MatMul (x, wq) k0 = MatMul (x, wk) q = Reshape (q0, heads) k = Reshape (k0, heads) n = Shape (k0)"
    proto = model(nodes, outputs="float[R,2,H] q, float[R,2,H] k, int64[2] n")
    assert [line.partition(" = ")[2].partition("(")[0] for line in shown(merge_projections(load(proto).graph))][:2] == [
        "MatMul",
        "Split",
    ]
    check(proto)


def test_large_weights_are_put_together_when_they_are_packed() -> None:
    proto = model(HEADS + PARTED, width=256)
    merged = merge_projections(load(proto).graph)
    assert isinstance(merged.constants["q0/weights"], Weight)
    check(proto, rows=(1, 3, 70, 200), width=256)


def test_columns_need_not_be_whole_panels() -> None:
    constants = {"wk": RNG.standard_normal((8, 2)), "wv": RNG.standard_normal((8, 6)), "bv": RNG.standard_normal(6)}
    proto = model(HEADS + "q = Reshape (q0, heads) k = Reshape (k0, two) v = Reshape (v0, six)", constants=constants)
    for name, columns in (("two", 2), ("six", 6)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 2, columns // 2]), name))
    assert len(shown(merge_projections(load(proto).graph))) == 6
    check(proto)


def test_the_weights_are_held_once() -> None:
    proto = model(HEADS + PARTED, width=256)
    given = {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
    engine = Engine(load(proto).graph, 1)
    merged = engine.graph.constants["q0/weights"]
    assert merged._array is None
    np.testing.assert_array_equal(merged.array(), np.hstack([given["wq"], given["wk"], given["wv"]]))
    assert {name for name, value in engine.graph.constants.items() if isinstance(value, Weight)} == {"q0/weights"}


def test_what_a_gradient_names_is_kept() -> None:
    nodes = HEADS + PARTED + ' g = ai.onnx.preview.training.Gradient <xs = ["x"], y = "a"> (x)'
    proto = model(nodes, outputs=OF_THREE + ", float[R,W] g")
    proto.opset_import.append(onnx.helper.make_opsetid("ai.onnx.preview.training", 1))
    weights = next(onnx.numpy_helper.to_array(each) for each in proto.graph.initializer if each.name == "wq")
    (g,) = jitrt.InferenceSession(proto).run(["g"], {"x": np.ones((3, 8), np.float32)})
    np.testing.assert_allclose(g, np.broadcast_to(weights.sum(axis=1), (3, 8)), rtol=1e-5, atol=1e-5)


def test_values_between_can_still_be_asked_for() -> None:
    proto, feeds = model(HEADS + PARTED), {"x": RNG.standard_normal((3, 8)).astype(np.float32)}
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
    a, q0, k0 = jitrt.InferenceSession(proto).run(["a", "q0", "k0"], feeds)
    np.testing.assert_allclose(a, feeds["x"] @ constants["wq"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(q0, a + constants["bq"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(k0, feeds["x"] @ constants["wk"], rtol=1e-5, atol=1e-5)


OF_TWO = "float[R,2,H] q, float[R,2,H] k"
BOTH = " q = Reshape (q0, heads) k = Reshape (k0, heads)"
LEFT_ALONE = {
    "one projection": "q0 = MatMul (x, wq) q = Reshape (q0, heads) k = Identity (q)",
    "outputs of the graph": "q = MatMul (x, wq) k = MatMul (x, wk)",
    "values that others read": "q0 = MatMul (x, wq) k0 = MatMul (x, wk) r = Relu (k0)" + BOTH,
    "what is no projection to heads": "a = MatMul (x, wq) q0 = Sigmoid (a) k0 = MatMul (x, wk)" + BOTH,
    "weights that others read": "q0 = MatMul (x, wq) k0 = MatMul (x, wq)" + BOTH,
    "projections of several values": "y = Relu (x) q0 = MatMul (x, wq) k0 = MatMul (y, wk)" + BOTH,
    "a number over it": "a = MatMul (x, wq) q0 = Div (half, a) k0 = MatMul (x, wk)" + BOTH,
    "a number a channel": "a = MatMul (x, wq) q0 = Mul (a, bq) k0 = MatMul (x, wk)" + BOTH,
    "weights on the left": "t = Transpose (x) q0 = MatMul (wq, t) k0 = MatMul (wk, t)" + BOTH,
}  # fmt: skip


@pytest.mark.parametrize("nodes", LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_left_alone(nodes: str) -> None:
    proto = model(nodes, outputs=OF_TWO)
    before = load(proto).graph
    assert shown(merge_projections(before)) == shown(before)
    check(proto, rows=(8,))


def test_an_added_vector_that_is_no_bias_stays_after_the_product() -> None:
    nodes = "a = MatMul (x, wq) q0 = Add (a, half) k0 = MatMul (x, wk) v0 = MatMul (x, wv) " + PARTED
    merged = shown(merge_projections(load(model(nodes)).graph))
    assert merged[:3] == ["a = MatMul(x, wq)", "q0 = Add(a, half)", "k0/all = MatMul(x, k0/weights)"]
    check(model(nodes))


def test_weights_that_a_run_may_override_are_left_alone() -> None:
    proto = model(HEADS + PARTED, overridable="wk")
    graph = merge_projections(load(proto).graph)
    assert "k0 = MatMul(x, wk)" in shown(graph)
    feeds = {"x": RNG.standard_normal((3, 8)).astype(np.float32), "wk": 2 * np.eye(8, dtype=np.float32)}
    np.testing.assert_allclose(jitrt.InferenceSession(proto).run(["k"], feeds)[0].reshape(3, 8), 2 * feeds["x"], rtol=1e-6)


def test_weights_held_as_bfloat16() -> None:
    options = jitrt.SessionOptions()
    options.add_session_config_entry("jitrt.weights", "bfloat16")
    proto, feeds = model(HEADS + PARTED, width=256), {"x": RNG.standard_normal((3, 256)).astype(np.float32)}
    near = jitrt.InferenceSession(proto, options).run(None, feeds)
    for got, expected in zip(near, jitrt.InferenceSession(proto).run(None, feeds), strict=True):
        np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())
        assert np.abs(got - expected).max() > 0
