"""TopK: which elements, in which order, along any axis."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import jitrt


def _model(x: np.ndarray, k: int | None, opset: int = 11, **attributes: object):
    dtype = helper.np_dtype_to_tensor_dtype(x.dtype)
    infos = [helper.make_tensor_value_info("x", dtype, x.shape), helper.make_tensor_value_info("k", TensorProto.INT64, [1])]
    results = [helper.make_tensor_value_info("v", dtype, None), helper.make_tensor_value_info("i", TensorProto.INT64, None)]
    weights = [] if k is None else [numpy_helper.from_array(np.array([k], np.int64), "k")]
    node = helper.make_node("TopK", ["x", "k"], ["v", "i"], **attributes)
    graph = helper.make_graph([node], "topk", infos[: 1 if weights else 2], results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


CASES = [
    ((1,), 1, 0),
    ((7,), 0, 0),
    ((9,), 9, 0),
    ((3, 5, 4), 2, 1),
    ((3, 5, 4), 5, -2),
    ((2, 1000), 17, 1),
    ((6, 0), 0, 1),
    ((4, 333), 333, -1),
]


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize(("shape", "k", "axis"), CASES)
def test_elements_and_order_are_those_of_onnxruntime(shape: tuple[int, ...], k: int, axis: int, largest: int) -> None:
    # few different values, so that there are many equal ones
    x = np.random.default_rng(0).integers(-9, 9, shape).astype(np.float32)
    model = _model(x, k, axis=axis, largest=largest)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    session = jitrt.InferenceSession(model)
    for got, want in zip(session.run(None, {"x": x}), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    assert not session.get_plan({"x": x}).host_nodes


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint8", "int32", "int64", "uint64"])
def test_every_type_is_ordered_by_value(dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 50)).astype(dtype) if "float" in dtype else rng.integers(0, 1 << 8, (3, 50)).astype(dtype)
    if dtype in ("int64", "uint64"):
        x = x << 55
    for largest in (0, 1):
        values, indices = jitrt.InferenceSession(_model(x, 11, opset=11, largest=largest)).run(None, {"x": x})
        order = np.sort(x, 1)
        np.testing.assert_array_equal(values, order[:, :-12:-1] if largest else order[:, :11])
        np.testing.assert_array_equal(np.take_along_axis(x, indices, 1), values)


def test_k_may_change_from_run_to_run() -> None:
    x = np.random.default_rng(2).standard_normal(40).astype(np.float32)
    session = jitrt.InferenceSession(_model(x, None))
    for k in (1, 40, 3):
        values, _ = session.run(None, {"x": x, "k": np.array([k])})
        np.testing.assert_array_equal(values, np.sort(x)[::-1][:k])


def test_nan_counts_as_the_largest_and_zeros_are_equal() -> None:
    x = np.array([1, np.nan, -np.inf, 0.0, -0.0, np.inf, -np.nan], np.float32)
    _, indices = jitrt.InferenceSession(_model(x, 7)).run(None, {"x": x})
    assert indices.tolist() == [1, 6, 5, 0, 3, 4, 2]
    _, indices = jitrt.InferenceSession(_model(x, 7, largest=0)).run(None, {"x": x})
    assert indices.tolist() == [2, 3, 4, 0, 5, 1, 6]


def test_more_than_there_is_cannot_be_asked_for() -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(jitrt.RuntimeException, match="k = 4"):
        jitrt.InferenceSession(_model(x, None)).run(None, {"x": x, "k": np.array([4])})
