"""Div by constants: what is computed as a product equals the division in every bit."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import jitrt

VALUES = [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 1e-7, 6e-8, -65000.0, 3.3]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("divisor", [2.0, 0.25, -4.0, 8192.0, 3.0, 0.0, np.inf])
def test_division_by_a_constant_is_exact(dtype, divisor):
    x, c = np.array(VALUES, dtype), np.array(divisor, dtype)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    assert kind != TensorProto.UNDEFINED
    graph = helper.make_graph(
        [helper.make_node("Div", ["x", "c"], ["y"])], "g", [helper.make_tensor_value_info("x", kind, ["N"])],
        [helper.make_tensor_value_info("y", kind, ["N"])], [numpy_helper.from_array(c, "c")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    (y,) = jitrt.InferenceSession(model).run(None, {"x": x})
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y, x / c)
