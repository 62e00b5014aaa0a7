"""Gathering rows: more of them than are found at once, across batches, of every length; indices out of range."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import jitrt

MODEL = """
    <ir_version: 9, opset_import: ["": 18]>
    g (float[N, K, C] x, int64[N, M, 1] i) => (float[N, M, C] y) { y = GatherND <batch_dims = 1> (x, i) }"""


@pytest.mark.parametrize("channels", [1, 3, 16, 150])
@pytest.mark.parametrize("count", [0, 1, 16, 37, 1000])
def test_rows_of_several_batches_are_gathered(count: int, channels: int) -> None:
    rng = np.random.default_rng(count)
    x, i = rng.standard_normal((3, 50, channels)).astype(np.float32), rng.integers(-50, 50, (3, count, 1))
    (y,) = jitrt.InferenceSession(parser.parse_model(MODEL).SerializeToString()).run(None, {"x": x, "i": i})
    np.testing.assert_array_equal(y, np.take_along_axis(x, i % 50, 1))


@pytest.mark.parametrize("place", [0, 15, 16, 36])
def test_an_index_out_of_range_is_an_error_wherever_it_is(place: int) -> None:
    x, i = np.zeros((1, 50, 4), np.float32), np.zeros((1, 37, 1), np.int64)
    i[0, place] = 50
    with pytest.raises(Exception, match="outside the dimension"):
        jitrt.InferenceSession(parser.parse_model(MODEL).SerializeToString()).run(None, {"x": x, "i": i})


@pytest.mark.parametrize(
    ("shape", "count", "axis"), [((40, 64, 30), 64, 2), ((9, 700, 3), 333, 1), ((5, 7), 1, 1), ((300, 11), 40, 0)]
)
def test_elements_are_gathered_across_tasks(shape: tuple[int, ...], count: int, axis: int) -> None:
    rng = np.random.default_rng(count)
    x = rng.standard_normal(shape).astype(np.float32)
    i = rng.integers(-shape[axis], shape[axis], [count if d == axis else n for d, n in enumerate(shape)])
    node = helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("i", TensorProto.INT64, i.shape),
    ]
    (y,) = session([node], inputs, i.shape, []).run(None, {"x": x, "i": i})
    np.testing.assert_array_equal(y, np.take_along_axis(x, i % shape[axis], axis))


@pytest.mark.parametrize(("heads", "rows", "columns", "first"), [(1, 64, 512, 193), (4, 5, 48, 0), (3, 16, 33, 1), (2, 7, 20, -20)])
def test_of_a_product_only_the_columns_that_are_taken_are_computed(heads: int, rows: int, columns: int, first: int) -> None:
    rng = np.random.default_rng(rows)
    x, w = (rng.standard_normal(size).astype(np.float32) for size in ((heads, rows, 24), (heads, 24, columns)))
    i = first + rows - 1 + np.arange(rows)[:, None] - np.arange(rows) + np.zeros((heads, 1, 1), np.int64)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("GatherElements", ["p", "i"], ["g"], axis=-1),
        helper.make_node("Relu", ["g"], ["y"]),
    ]  # fmt: skip
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(i, "i")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    made = session(nodes, inputs, i.shape, constants)
    (y,) = made.run(None, {"x": x})
    want = np.maximum(np.take_along_axis(x.astype(np.float64) @ w, i % columns, 2), 0)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
    taken = 2 * rows - 1
    (product,) = [step for step in made.get_plan({"x": x}).steps if step.kernel.name == "conv"]
    assert product.shape.rstrip(")").endswith(f"x{taken if 2 * taken <= columns else columns}")


def session(nodes: list, inputs: list, shape: tuple[int, ...], constants: list) -> jitrt.InferenceSession:
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return jitrt.InferenceSession(made.SerializeToString())
