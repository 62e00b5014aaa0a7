"""Rewrites of imported graphs: each with the graph printed before and after, and the values that stay the same."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

import jitrt
from jitrt.engine import Engine
from jitrt.fusion.graph import Graph
from jitrt.fusion.importer import load
from jitrt.fusion.interpret import Interpreter
from jitrt.fusion.rewrite import fold_scales, prune, rewrite
from jitrt.ops.kernels import target

RNG = np.random.default_rng(0)


def model(text: str, **constants: tuple[int, ...] | float) -> onnx.ModelProto:
    """A model of nodes in ONNX's text form; constants of given shapes (values in 0.5 .. 1.5) or given values."""
    inputs = re.match(r"\s*(\([^)]*\) => \([^)]*\)) \{", text)
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {inputs[0]}{text[inputs.end() :]}')
    for name, shape in constants.items():
        array = np.float32(shape) if isinstance(shape, float) else RNG.uniform(0.5, 1.5, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def shown(graph: Graph) -> list[str]:
    """The nodes of a printed graph."""
    return [line.strip() for line in str(graph).splitlines()[1:-1]]


def same(proto: onnx.ModelProto, **shapes: tuple[int, ...]) -> Graph:
    """The rewritten graph, once it is known to compute what onnx's reference does."""
    feeds = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    graph = rewrite(load(proto).graph)
    for g, e in zip(Engine(graph, 1).run(feeds, graph.outputs), ReferenceEvaluator(proto).run(None, feeds), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-4)
    return graph


CONV = ("(float[1,2,5,5] x) => (float[1,3,5,5] y) {", {"x": (1, 2, 5, 5)})


def test_batch_normalisation_folds_into_the_convolution_before_it() -> None:
    proto = model(
        CONV[0] + "c = Conv <pads = [1,1,1,1]> (x, w, b) y = BatchNormalization (c, s, t, m, v) }",
        w=(3, 2, 3, 3), b=(3,), s=(3,), t=(3,), m=(3,), v=(3,),
    )  # fmt: skip
    assert shown(load(proto).graph) == ["c = Conv(x, w, b, pads=[1, 1, 1, 1])", "y = BatchNormalization(c, s, t, m, v)"]
    assert shown(same(proto, **CONV[1])) == ["y = Conv(x, y/weight, y/bias, pads=[1, 1, 1, 1])"]


def test_numbers_a_channel_fold_into_convolution_and_its_transpose() -> None:
    proto = model(
        CONV[0] + "c = Conv <pads = [1,1,1,1]> (x, w) d = Mul (c, s) e = Sub (d, t) y = Div (e, two) }",
        w=(3, 2, 3, 3), s=(3, 1, 1), t=(1, 3, 1, 1), two=2.0,
    )  # fmt: skip
    assert shown(same(proto, **CONV[1])) == ["y = Conv(x, y/weight, y/bias, pads=[1, 1, 1, 1])"]
    proto = model(CONV[0] + "c = ConvTranspose <pads = [1,1,1,1]> (x, w) y = Add (one, c) }", w=(2, 3, 3, 3), one=1.0)
    assert shown(same(proto, **CONV[1])) == ["y = ConvTranspose(x, y/weight, y/bias, pads=[1, 1, 1, 1])"]


def test_scales_fold_into_a_matrix_product_and_its_bias() -> None:
    proto = model("(float[2,4] x) => (float[2,3] y) { m = MatMul (x, w) a = Add (b, m) y = Mul (a, s) }", w=(4, 3), b=(3,), s=(3,))
    assert shown(load(proto).graph) == ["m = MatMul(x, w)", "a = Add(b, m)", "y = Mul(a, s)"]
    assert shown(same(proto, x=(2, 4))) == ["y/product = MatMul(x, y/weight)", "y = Add(y/product, y/bias)"]


def test_a_bias_alone_stays_after_its_matrix_product() -> None:
    proto = model("(float[2,4] x) => (float[2,3] y) { m = MatMul (x, w) y = Add (m, b) }", w=(4, 3), b=(3,))
    assert shown(same(proto, x=(2, 4))) == ["m = MatMul(x, w)", "y = Add(m, b)"]


def test_batch_normalisation_folds_into_gemm_with_its_factors() -> None:
    proto = model(
        "(float[2,4] x) => (float[2,3] y) {"
        " m = Gemm <alpha = 2.0, beta = 0.5, transB = 1> (x, w, b) y = BatchNormalization (m, s, t, u, v) }",
        w=(3, 4), b=(1, 3), s=(3,), t=(3,), u=(3,), v=(3,),
    )  # fmt: skip
    assert shown(same(proto, x=(2, 4))) == ["y = Gemm(x, y/weight, y/bias, transB=1)"]


def test_a_scale_folds_through_a_transposition() -> None:
    proto = model(
        "(float[1,2,5,4] x) => (float[1,3,2,5] y) {"
        " m = MatMul (x, w) a = Add (m, b) t = Transpose <perm = [0,3,1,2]> (a) y = Mul (t, s) }",
        w=(4, 3), b=(3,), s=(3, 1, 1),
    )  # fmt: skip
    assert shown(same(proto, x=(1, 2, 5, 4))) == [
        "y/product = MatMul(x, y/weight)", "y/0 = Add(y/product, y/bias)", "y = Transpose(y/0, perm=[0, 3, 1, 2])",
    ]  # fmt: skip


@pytest.mark.parametrize(("dtype", "folds"), [("float16", False), ("bfloat16", False), ("float32", True)])
@pytest.mark.parametrize("form", ["m = MatMul (x, w) a = Add (m, b)", "a = Gemm (x, w, b)"])
def test_a_matrix_that_is_held_in_16_bits_stays_as_it_is(form, dtype, folds) -> None:
    proto = model(f"(float[2,128] x) => (float[2,130] y) {{ {form} y = Mul (a, s) }}", b=(130,), s=0.125)
    w = RNG.standard_normal((128, 130)).astype(np.float32).astype(dtype).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    folds = folds or (dtype == "float16" and not target.current().half)
    assert ("y = Mul(a, s)" in shown(same(proto, x=(2, 128)))) != folds


def test_what_is_added_to_a_product_leaves_its_matrix() -> None:
    proto = model("(float[2,128] x) => (float[2,130] y) { g = Gemm (x, w) y = Add (g, b) }", w=(128, 130), b=(130,))
    before = load(proto).graph
    assert fold_scales(before).constants["y/weight"] is before.constants["w"]


LEFT_ALONE = {
    "a value that others read": "m = MatMul (x, w) a = Mul (m, s) y = Add (a, m) }",
    "weights that others read": "m = MatMul (x, w) a = Mul (m, s) n = MatMul (x, w) y = Add (a, n) }",
    "a number for each row": "m = MatMul (x, w) y = Mul (m, r) }",
    "a scale that adds a dimension": "m = MatMul (x, w) k = Mul (m, q) y = ReduceSum <keepdims = 0> (k, axis) }",
    "a scale that a run computes": "m = MatMul (x, w) z = ReduceMax (x) y = Mul (m, z) }",
    "statistics of the batch itself": "g = Gemm (x, w) y, p, q1 = BatchNormalization <training_mode = 1> (g, s, s, s, s) }",
    "a factor that makes weights infinite": "m = MatMul (x, w) y = Mul (m, huge) }",
}


@pytest.mark.parametrize("nodes", LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_left_alone(nodes: str) -> None:
    proto = model("(float[3,4] x) => (float[3,3] y) {" + nodes, w=(4, 3), s=(3,), r=(3, 1), q=(1, 1, 3), huge=3e38)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "axis"))
    before = load(proto).graph
    assert shown(fold_scales(before)) == shown(before)


def test_weights_that_a_run_may_override_are_left_alone() -> None:
    proto = model("(float[2,4] x, float[4,3] w) => (float[2,3] y) { m = MatMul (x, w) y = Mul (m, s) }", w=(4, 3), s=(3,))
    assert shown(rewrite(load(proto).graph)) == ["m = MatMul(x, w)", "y = Mul(m, s)"]


def test_values_between_can_still_be_asked_for() -> None:
    proto = model("(float[2,4] x) => (float[2,3] y) { m = MatMul (x, w) y = Mul (m, s) u = Relu (m) }", w=(4, 3), s=(3,))
    feeds = {"x": np.ones((2, 4), np.float32)}
    session = jitrt.InferenceSession(proto)
    for g, e in zip(session.run(["u", "m", "y"], feeds), Interpreter(load(proto).graph).run(feeds, ["u", "m", "y"])):
        np.testing.assert_allclose(g, e, rtol=1e-6)


def test_nodes_that_no_output_needs_go() -> None:
    graph = load(model("(float[2] x) => (float[2] y) { a = Exp (x) y = Relu (x) b = Neg (a) }")).graph
    assert shown(prune(graph)) == ["y = Relu(x)"]
