"""Resize and Upsample: every mode and coordinate transformation, against onnxruntime where it follows the standard."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import jitrt


def _model(x: np.ndarray, inputs: list[np.ndarray | None], opset: int = 19, op: str = "Resize", **attributes: object):
    names = ["x", *("" if v is None else f"i{k}" for k, v in enumerate(inputs))]
    weights = [numpy_helper.from_array(v, f"i{k}") for k, v in enumerate(inputs) if v is not None]
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    infos = [[helper.make_tensor_value_info(name, kind, shape)] for name, shape in (("x", x.shape), ("y", None))]
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], "resize", *infos, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _scales(*values: float) -> list[np.ndarray | None]:
    return [None, np.array(values, np.float32)]


def _sizes(*values: int) -> list[np.ndarray | None]:
    return [None, None, np.array(values)]


def _agree(model, x: np.ndarray, peer: object = None, tolerance: float = 1e-5) -> np.ndarray:
    peer = peer or onnxruntime.InferenceSession(model.SerializeToString())
    session = jitrt.InferenceSession(model)
    (got,), (expected,) = session.run(None, {"x": x}), peer.run(None, {"x": x})
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=10 * tolerance, atol=tolerance)
    assert not session.get_plan({"x": x}).host_nodes
    return got


IMAGE = np.random.default_rng(0).standard_normal((2, 3, 7, 9)).astype(np.float32)
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")


@pytest.mark.parametrize("nearest_mode", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_nearest_takes_the_elements_that_onnxruntime_takes(coordinates: str, nearest_mode: str) -> None:
    for size in ((2, 3, 14, 27), (2, 3, 7, 5), (2, 3, 3, 9), (2, 3, 1, 36)):
        attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest_mode}
        _agree(_model(IMAGE, _sizes(*size), mode="nearest", **attributes), IMAGE)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_interpolation_agrees_with_onnxruntime(coordinates: str, mode: str) -> None:
    for size in ((2, 3, 14, 18), (2, 3, 4, 21), (2, 3, 7, 13)):
        _agree(_model(IMAGE, _sizes(*size), mode=mode, coordinate_transformation_mode=coordinates), IMAGE)


@pytest.mark.parametrize("attributes", [
    {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    {"mode": "linear", "antialias": 1},
    {"mode": "cubic", "antialias": 1, "exclude_outside": 1},
], ids=["exclude_outside", "antialias", "antialias_cubic"])  # fmt: skip
def test_filters_agree_with_onnxruntime(attributes: dict) -> None:
    for scales in ((1, 1, 0.3, 0.45), (1, 1, 2.6, 0.7)):
        _agree(_model(IMAGE, _scales(*scales), **attributes), IMAGE)


def test_corners_of_a_fractional_length_are_those_of_the_standard() -> None:
    # onnxruntime rounds the length first; onnx's own tests do not
    model = _model(IMAGE, _scales(1, 1, 0.6, 1.7), mode="linear", coordinate_transformation_mode="align_corners")
    _agree(model, IMAGE, ReferenceEvaluator(model))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_the_part_of_a_roi_is_cropped_and_what_lies_outside_is_extrapolated(mode: str) -> None:
    x = IMAGE[:1, :1]
    roi = np.array([0, 0, -0.2, 0.1, 1, 1, 0.8, 1.3], np.float32)
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
    got = _agree(_model(x, [roi, None, np.array([1, 1, 10, 6])], mode=mode, **attributes), x)
    assert (got == 7).any()


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_the_aspect_ratio_may_be_kept(policy: str) -> None:
    model = _model(IMAGE, _sizes(20, 12), axes=[3, 2], mode="linear", keep_aspect_ratio_policy=policy)
    got = _agree(model, IMAGE)
    assert got.shape == ((2, 3, 12, 15) if policy == "not_larger" else (2, 3, 16, 20))


@pytest.mark.parametrize(("shape", "scales"), [
    ((5,), (2.5,)), ((2, 9), (3, 1)), ((1, 2, 3, 4, 5), (1, 1, 2, 1.5, 3)), ((3, 4, 5, 6), (2, 1, 2, 1)), ((4, 1, 1), (1, 5, 5)),
])  # fmt: skip
def test_any_number_of_dimensions_is_resized(shape: tuple[int, ...], scales: tuple[float, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for mode in ("nearest", "linear"):
        model = _model(x, _scales(*scales), mode=mode, coordinate_transformation_mode="asymmetric")
        _agree(model, x, ReferenceEvaluator(model))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float16", "float64"])
def test_other_types_are_resized(dtype: str) -> None:
    x = np.random.default_rng(2).integers(-100 if dtype != "uint8" else 0, 120, (1, 2, 5, 6)).astype(dtype)
    for mode in ("nearest", "linear"):
        model = _model(x, _scales(1, 1, 2, 3), mode=mode)
        (got,) = jitrt.InferenceSession(model).run(None, {"x": x})
        wide = _model(x.astype(np.float64), _scales(1, 1, 2, 3), mode=mode)
        (expected,) = ReferenceEvaluator(wide).run(None, {"x": x.astype(np.float64)})
        assert got.dtype == x.dtype
        # integers lose their fraction, which float32 may have rounded up
        tolerance = 1e-12 if dtype == "float64" else 1e-3 if dtype == "float16" else 0 if mode == "nearest" else 1
        np.testing.assert_allclose(got.astype(np.float64), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_between_convolutions_the_image_stays_channels_last(mode: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    first, last = (rng.standard_normal(s).astype(np.float32) for s in ((21, 3, 1, 1), (4, 24, 1, 1)))
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], mode=mode),
        helper.make_node("Resize", ["x", "", "scales"], ["c"], mode=mode),
        helper.make_node("Concat", ["c", "b"], ["d"], axis=1),
        helper.make_node("Conv", ["d", "last"], ["y"]),
    ]
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in (("x", x.shape), ("y", None))]
    weights = {"first": first, "last": last, "scales": np.array([1, 1, 2, 3], np.float32)}
    graph = helper.make_graph(nodes, "net", *infos, [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    _agree(model, x, tolerance=1e-4)
    steps = jitrt.InferenceSession(model).get_plan({"x": x}).steps
    resized = [s for s in steps if "b" in s.nodes or s.nodes == ("b",)]
    assert [s.kernel.name.split("_")[0] for s in resized] == ["resize"]


def test_old_operators_give_what_the_new_one_gives() -> None:
    scales = np.array([1, 1, 2, 3], np.float32)
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for mode in ("nearest", "linear"):
        model = _model(IMAGE, [None, scales], mode=mode, **attributes)
        (expected,) = jitrt.InferenceSession(model).run(None, {"x": IMAGE})
        old = [
            _model(IMAGE, [scales], 10, mode=mode),
            _model(IMAGE, [scales], 9, "Upsample", mode=mode),
            _model(IMAGE, [], 7, "Upsample", mode=mode, scales=[1.0, 1.0, 2.0, 3.0]),
        ]
        for one in old:
            np.testing.assert_array_equal(jitrt.InferenceSession(one).run(None, {"x": IMAGE})[0], expected)


def test_nothing_is_resized_to_nothing() -> None:
    x = np.zeros((1, 2, 0, 4), np.float32)
    (got,) = jitrt.InferenceSession(_model(x, _scales(1, 1, 2, 2))).run(None, {"x": x})
    assert got.shape == (1, 2, 0, 8)
    (got,) = jitrt.InferenceSession(_model(IMAGE, _scales(1, 1, 0.1, 1))).run(None, {"x": IMAGE})
    assert got.shape == (2, 3, 0, 9)
