"""NonMaxSuppression, RoiAlign and GridSample against onnxruntime, and GridSample of a volume against arithmetic."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import jitrt


def _model(op: str, feeds: dict[str, np.ndarray], opset: int, constants: dict[str, np.ndarray] | None = None, **attributes: object):
    constants = constants or {}
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()]
    weights = [numpy_helper.from_array(v, n) for n, v in constants.items()]
    kind = TensorProto.INT64 if op == "NonMaxSuppression" else infos[0].type.tensor_type.elem_type
    node = helper.make_node(op, [*feeds, *constants], ["y"], **attributes)
    graph = helper.make_graph([node], op, infos, [helper.make_tensor_value_info("y", kind, None)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _both(model, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    return jitrt.InferenceSession(model).run(None, feeds)[0], expected


def _boxes(images: int, count: int, seed: int, center: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    first, size = rng.uniform(0, 5, (images, count, 2)), rng.uniform(0, 2, (images, count, 2))
    corners = np.concatenate([first, size if center else first + size], 2)
    if not center:
        # corners may come in any order
        corners[:, ::3] = corners[:, ::3][..., [2, 3, 0, 1]]
    return corners.astype(np.float32)


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize(("images", "classes", "count", "most"), [(1, 1, 1, 5), (2, 3, 57, 200), (1, 2, 300, 4), (1, 1, 30, 0)])
def test_boxes_that_stay_are_those_of_onnxruntime(images: int, classes: int, count: int, most: int, center: int) -> None:
    rng = np.random.default_rng(count)
    # few different scores, so that there are equal ones
    scores = (rng.integers(0, 40, (images, classes, count)) / 40).astype(np.float32)
    feeds = {"boxes": _boxes(images, count, 1, bool(center)), "scores": scores}
    for limits in ({"iou": np.array([0.3], np.float32), "score": np.array([0.25], np.float32)}, {}):
        model = _model("NonMaxSuppression", feeds, 11, {"most": np.array([most]), **limits}, center_point_box=center)
        got, expected = _both(model, feeds)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got.reshape(-1, 3), expected.reshape(-1, 3))


def test_suppression_takes_its_limits_from_the_run() -> None:
    feeds = {"boxes": _boxes(1, 40, 2, False), "scores": np.random.default_rng(0).random((1, 1, 40), np.float32)}
    limits = {"most": np.array([9]), "iou": np.array([0.5], np.float32), "score": np.array([0.1], np.float32)}
    model = _model("NonMaxSuppression", feeds | limits, 11)
    session, peer = jitrt.InferenceSession(model), onnxruntime.InferenceSession(model.SerializeToString())
    for most, iou in ((9, 0.5), (3, 0.0), (40, 0.9)):
        given = feeds | limits | {"most": np.array([most]), "iou": np.array([iou], np.float32)}
        np.testing.assert_array_equal(session.run(None, given)[0], peer.run(None, given)[0])


ROIS = [
    {"output_height": 3, "output_width": 2},
    {"output_height": 2, "output_width": 3, "mode": "max", "sampling_ratio": 2},
    {"output_height": 1, "output_width": 1, "sampling_ratio": 9, "spatial_scale": 0.5},
    {"output_height": 4, "output_width": 4, "coordinate_transformation_mode": "output_half_pixel", "sampling_ratio": 1},
]  # fmt: skip


@pytest.mark.parametrize("attributes", ROIS)
@pytest.mark.parametrize("channels", [1, 19])
def test_roi_align_agrees_with_onnxruntime(channels: int, attributes: dict) -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(-3, 9, (7, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 12, (7, 2))], 1).astype(np.float32)
    feeds = {"x": rng.standard_normal((2, channels, 9, 11)).astype(np.float32), "rois": boxes, "batch": rng.integers(0, 2, 7)}
    got, expected = _both(_model("RoiAlign", feeds, 16, **attributes), feeds)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_box_of_an_image_that_is_not_there_is_an_error() -> None:
    feeds = {"x": np.zeros((1, 2, 3, 3), np.float32), "rois": np.zeros((1, 4), np.float32), "batch": np.array([1])}
    with pytest.raises(jitrt.InvalidArgument, match="not there"):
        jitrt.InferenceSession(_model("RoiAlign", feeds, 16)).run(None, feeds)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_agrees_with_onnxruntime(mode: str, padding: str) -> None:
    rng = np.random.default_rng(4)
    for align in (0, 1):
        feeds = {
            "x": rng.standard_normal((2, 5, 6, 7)).astype(np.float32),
            "grid": rng.uniform(-2.2, 2.2, (2, 4, 9, 2)).astype(np.float32),
        }
        got, expected = _both(_model("GridSample", feeds, 16, mode=mode, padding_mode=padding, align_corners=align), feeds)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("mode", "dtype"), [("linear", np.float32), ("nearest", np.float64), ("linear", np.float16)])
def test_grid_sample_of_a_volume_interpolates_a_linear_function_exactly(mode: str, dtype: type) -> None:
    # corners aligned: coordinate v of a dimension of n lies at pixel (v + 1) / 2 * (n - 1)
    d, h, w = np.meshgrid(np.arange(3), np.arange(4), np.arange(5), indexing="ij")
    x = np.stack([d + 10 * h + 100 * w, d, w])[None].astype(dtype)
    at = np.random.default_rng(5).uniform(0, 1, (1, 2, 3, 2, 3))
    if mode == "nearest":
        at = np.rint(at * [4, 3, 2]) / [4, 3, 2]
    feeds = {"x": x, "grid": (2 * at - 1).astype(np.float32)}
    (got,) = jitrt.InferenceSession(_model("GridSample", feeds, 20, mode=mode, align_corners=1)).run(None, feeds)
    pw, ph, pd = np.moveaxis(at * [4, 3, 2], -1, 0)
    tolerance = 3e-3 if dtype is np.float16 else 1e-5
    np.testing.assert_allclose(
        got.astype(np.float64), np.stack([pd + 10 * ph + 100 * pw, pd, pw], 1), rtol=tolerance, atol=tolerance
    )
