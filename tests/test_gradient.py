"""The Gradient operator against central differences in float64."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import jitrt

# name -> (expression nodes from x and w to y, shape of x, shape of w)
GRAPHS = {
    "arithmetic with broadcasting": ("a = Mul(x, w) b = Sub(a, x) c = Div(b, w) y = Add(c, w)", (3, 4), (4,)),
    "the same value twice": ("a = Mul(x, x) y = Pow(a, w)", (3,), (1,)),
    "functions": ("a = Tanh(x) b = Exp(a) c = Sigmoid(w) d = Sin(b) e = Mul(d, c) y = Gelu(e)", (5,), (5,)),
    "softmax": ("a = Mul(x, w) y0 = Softmax<axis = -1>(a) y = Mul(y0, w)", (3, 5), (3, 5)),
    "matrix products": ("a = MatMul(x, w) b = Transpose<perm = [1, 0]>(a) y = MatMul(b, x)", (3, 4), (4, 2)),
    "batched products": ("a = MatMul(x, w) b = Relu(a) y = Mul(b, b)", (2, 3, 4), (2, 4, 2)),
    "views": ("a = Transpose<perm = [1, 0]>(x) b = Concat<axis = 1>(a, w) c = Flatten<axis = 0>(b) y = Mul(c, c)", (2, 3), (3, 1)),
    "extrema and products": (
        "a = ReduceMax<keepdims = 0>(x) b = ReduceProd<keepdims = 1>(w) c = ReduceMin<keepdims = 0>(w) d = Mul(a, b) y = Mul(d, c)",
        (4,), (3,),
    ),
    "layer normalisation": ("one = Reciprocal(w) a = LayerNormalization(x, w, one) y = Mul(a, a)", (3, 6), (6,)),
    "a step backwards": (
        "s = Constant<value_ints = [-1]>() e = Constant<value_ints = [-9]>() z = Constant<value_ints = [0]>() "
        "k = Constant<value_ints = [-2]>() a = Slice(x, s, e, z, k) b = Mul(a, a) y = Mul(b, w)",
        (5, 2), (2,),
    ),
}  # fmt: skip


def _session(nodes: str, outputs: str) -> jitrt.InferenceSession:
    text = f"""<ir_version: 10, opset_import: ["": 20, "ai.onnx.preview.training": 1]>
        g (double[] x, double[] w) => ({outputs}) {{ {nodes} }}"""
    model = onnx.parser.parse_model(text)
    for info in [*model.graph.input, *model.graph.output]:
        info.type.tensor_type.ClearField("shape")
    options = jitrt.SessionOptions()
    options.intra_op_num_threads = 1
    return jitrt.InferenceSession(model, options)


def _differences(nodes: str, feeds: dict[str, np.ndarray], name: str, h: float = 1e-5) -> np.ndarray:
    session, slopes = _session(nodes, "double[] y"), np.zeros_like(feeds[name])
    for i in np.ndindex(slopes.shape):
        sums = []
        for step in (h, -h):
            moved = feeds[name].copy()
            moved[i] += step
            sums.append(session.run(None, {**feeds, name: moved})[0].sum())
        slopes[i] = (sums[0] - sums[1]) / (2 * h)
    return slopes


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_are_the_slopes_of_the_sum(name):
    nodes, x_shape, w_shape = GRAPHS[name]
    rng = np.random.default_rng(0)
    feeds = {"x": rng.uniform(0.5, 2, x_shape), "w": rng.uniform(0.5, 2, w_shape)}
    call = 'dx, dw = ai.onnx.preview.training.Gradient<xs = ["x", "w"], y = "y">(x, w)'
    found = _session(f"{nodes} {call}", "double[] dx, double[] dw").run(None, feeds)
    for gradient, value in zip(found, ("x", "w")):
        np.testing.assert_allclose(gradient, _differences(nodes, feeds, value), rtol=1e-5, atol=1e-7)


def test_products_with_zeros_have_the_gradient_of_the_others():
    nodes = 'y = ReduceProd(x) a = Mul(y, w) dx = ai.onnx.preview.training.Gradient<xs = ["x"], y = "y">(x)'
    session = _session(nodes, "double[] dx, double[] a")
    for x, expected in (([2.0, 0, 3], [0, 6, 0]), ([0.0, 0, 3], [0, 0, 0]), ([2.0, 4, 5], [20, 10, 8])):
        assert session.run(["dx"], {"x": np.array(x), "w": np.ones(1)})[0].tolist() == expected


def test_a_gradient_can_be_differentiated_again():
    nodes = (
        'a = Mul(x, x) y = Mul(a, x) d = ai.onnx.preview.training.Gradient<xs = ["x"], y = "y">(x) '
        'dd = ai.onnx.preview.training.Gradient<xs = ["x"], y = "d">(w)'
    )
    (second,) = _session(nodes, "double[] dd").run(None, {"x": np.ones(2), "w": np.array([2.0, -3.0])})
    np.testing.assert_allclose(second, [12.0, -18.0])  # the second derivative of x^3, at w


def test_what_y_does_not_depend_on_has_gradient_zero():
    nodes = 'y = Exp(x) dx, dw = ai.onnx.preview.training.Gradient<xs = ["x", "w"], y = "y">(x, w)'
    dx, dw = _session(nodes, "double[] dx, double[] dw").run(None, {"x": np.zeros(3), "w": np.ones((2, 2))})
    assert dx.tolist() == [1, 1, 1]
    assert dw.tolist() == [[0, 0], [0, 0]]


def test_an_operator_without_a_derivative_is_an_error_that_names_it():
    nodes = 'n = Det(x) y = Mul(n, n) dx = ai.onnx.preview.training.Gradient<xs = ["x"], y = "y">(x)'
    session = _session(nodes, "double[] dx")
    with pytest.raises(jitrt.capi.onnxruntime_pybind11_state.RuntimeException, match="no derivative"):
        session.run(None, {"x": np.eye(3), "w": np.ones(1)})
