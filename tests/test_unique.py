"""Unique: all outputs, every type, axes and orders, beside numpy and onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import jitrt

NATIVE = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
OUTPUTS = ["y", "first", "places", "counts"]
rng = np.random.default_rng(11)


def model(x: np.ndarray, outputs: list[str] = OUTPUTS, domain: str = "", **attributes: object) -> bytes:
    kind = TensorProto.STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype)
    named = [name for name in outputs if name]
    results = [helper.make_tensor_value_info(n, kind if n == "y" else TensorProto.INT64, None) for n in named]
    node = helper.make_node("Unique", ["x"], outputs, domain=domain, **attributes)
    graph = helper.make_graph([node], "unique", [helper.make_tensor_value_info("x", kind, [None] * x.ndim)], results)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def expected(x: np.ndarray, axis: int | None, ordered: bool) -> list[np.ndarray]:
    y, first, places, counts = np.unique(x, True, True, True, axis=axis)
    places = places.reshape(-1)
    if not ordered:
        order = np.argsort(first, kind="stable")
        y, first, places, counts = np.take(y, order, axis or 0), first[order], np.argsort(order)[places], counts[order]
    return [y, first, places, counts]


def check(x: np.ndarray, axis: int | None = None, ordered: int = 1) -> None:
    attributes = {"sorted": ordered} | ({} if axis is None else {"axis": axis})
    session = jitrt.InferenceSession(model(x, **attributes))
    for got, wanted in zip(session.run(None, {"x": x}), expected(x, axis, bool(ordered)), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
    assert session.get_plan({"x": x}).host_nodes == ()


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("dtype", NATIVE)
def test_values_of_every_type_are_told_apart(dtype: str, ordered: int) -> None:
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        ends = np.iinfo(kind)
        x = np.r_[rng.integers(0, 50, 300).astype(kind), np.array([ends.min, ends.max, ends.min, 0, ends.max], kind)]
    else:
        x = rng.integers(-9, 9, 300) / 3 > 0 if dtype == "bool" else rng.integers(-9, 9, 300) / 3
    check(x.astype(kind), ordered=ordered)


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 2), (40, 2, 2), (3, 50, 2), (2, 3, 300)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_slices_along_an_axis_are_told_apart(shape: tuple[int, ...], axis: int, dtype: str, ordered: int) -> None:
    check((rng.integers(0, 3, shape) - (dtype != "uint8")).astype(dtype), axis, ordered)


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 5000])
def test_any_number_of_elements(count: int) -> None:
    check(rng.integers(-1 << 40, 1 << 40, count))
    check(np.zeros(count, np.float32), ordered=0)


def test_zeros_are_one_value_and_so_are_nans() -> None:
    x = np.array([0.0, np.nan, -0.0, np.inf, np.nan, -np.inf, -np.nan, 0.0], np.float32)
    y, first, places, counts = jitrt.InferenceSession(model(x)).run(None, {"x": x})
    np.testing.assert_array_equal(y, [-np.inf, 0, np.inf, np.nan])
    assert not np.signbit(y[1])
    assert first.tolist() == [5, 0, 3, 1]
    assert places.tolist() == [1, 3, 1, 2, 3, 0, 3, 1]
    assert counts.tolist() == [1, 3, 1, 3]


@pytest.mark.parametrize("outputs", [["y"], ["y", "", "places"], ["y", "", "", "counts"], ["y", "first"]], ids=str)
def test_outputs_that_nobody_wants_may_be_left_out(outputs: list[str]) -> None:
    x = rng.integers(0, 5, (4, 5)).astype(np.float32)
    made = model(x, outputs)
    for got, wanted in zip(
        jitrt.InferenceSession(made).run(None, {"x": x}), onnxruntime.InferenceSession(made).run(None, {"x": x}), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("ordered", [0, 1])
def test_texts_are_told_apart_too(ordered: int) -> None:
    words = np.array(["b", "a", "b", "", "c", "a"], object)
    for x, axis in ((words, None), (words[rng.integers(0, 6, (40, 3))], 0), (words[rng.integers(0, 6, (2, 30))], 1)):
        made = model(x, sorted=ordered, **({} if axis is None else {"axis": axis}))
        expected = onnxruntime.InferenceSession(made).run(None, {"x": x})
        for got, wanted in zip(jitrt.InferenceSession(made).run(None, {"x": x}), expected, strict=True):
            assert got.tolist() == wanted.tolist()


def test_rows_of_nothing_are_equal() -> None:
    x = np.zeros((3, 0), np.float32)
    y, first, places, counts = jitrt.InferenceSession(model(x, axis=0)).run(None, {"x": x})
    assert (y.shape, first.tolist(), places.tolist(), counts.tolist()) == ((1, 0), [0], [0, 0, 0], [3])
