"""Convolutions 1 x 1 of images that were enlarged and joined, done before these are enlarged, beside onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import jitrt

RNG = np.random.default_rng(17)


def model(parts: list[tuple[int, int]], side: int, resize: dict, bias: bool = True, outputs: int = 40) -> onnx.ModelProto:
    """Images of (channels, times as small as the first) enlarged to the side of the first, joined and mixed."""
    channels = sum(c for c, _ in parts)
    weights = [
        numpy_helper.from_array((RNG.standard_normal((outputs, channels, 1, 1)) / np.sqrt(channels)).astype(np.float32), "w")
    ]
    weights += [numpy_helper.from_array(RNG.standard_normal(outputs).astype(np.float32), "b")] * bias
    weights.append(helper.make_tensor("sizes", TensorProto.INT64, [2], [side, side]))
    nodes, inputs = [], []
    for i, (c, _) in enumerate(parts):
        inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, ["N", c, f"H{i}", f"W{i}"]))
        nodes.append(helper.make_node("Resize", [f"x{i}", "", "", "sizes"], [f"r{i}"], axes=[2, 3], **resize))
    nodes.append(helper.make_node("Concat", [f"r{i}" for i in range(len(parts))], ["j"], axis=1))
    nodes.append(helper.make_node("Conv", ["j", "w", *["b"] * bias], ["c"]))
    nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs, side, side])
    graph = helper.make_graph(nodes, "g", inputs, [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def images(parts: list[tuple[int, int]], side: int, batch: int = 1) -> dict[str, np.ndarray]:
    shapes = [(batch, c, -(-side // factor), -(-side // factor)) for c, factor in parts]
    return {f"x{i}": RNG.standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)}


def products(session: jitrt.InferenceSession, feeds: dict[str, np.ndarray]) -> list[str]:
    return [step.shape for step in session.get_plan(feeds).steps if step.kernel.name == "conv"]


@pytest.mark.parametrize(
    "resize",
    [{"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}, {"mode": "linear"},
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, {"mode": "nearest"}, {"mode": "cubic"},
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    ("parts", "side", "bias"),
    [([(64, 8), (70, 4), (96, 2), (30, 1)], 24, True), ([(64, 3)], 21, False), ([(65, 2), (66, 4)], 13, True),
     ([(16, 1), (64, 2), (8, 2), (8, 1)], 9, True), ([(64, 5)], 5, True)],
)  # fmt: skip
def test_results_are_those_of_onnxruntime(parts, side, bias, resize):
    data = model(parts, side, resize, bias).SerializeToString()
    ours, theirs = jitrt.InferenceSession(data), onnxruntime.InferenceSession(data)
    for batch in (1, 3, 2):  # the second and the third one are an open plan's
        feeds = images(parts, side, batch)
        np.testing.assert_allclose(ours.run(None, feeds)[0], theirs.run(None, feeds)[0], rtol=1e-4, atol=2e-5)


def test_products_are_those_of_the_small_images():
    parts = [(128, 4), (64, 2), (32, 1), (20, 2)]
    feeds = images(parts, 32)
    steps = products(jitrt.InferenceSession(model(parts, 32, {"mode": "linear"}).SerializeToString()), feeds)
    assert {step.split(" ", 1)[1] for step in steps} == {"52->40 1x1 on 32x32", "128->40 1x1 on 8x8", "64->40 1x1 on 16x16"}


@pytest.mark.parametrize("parts", [[(128, 1), (64, 1)], [(32, 4), (48, 2)]], ids=["as large", "few channels"])
def test_others_are_joined(parts):
    feeds = images(parts, 16)
    steps = products(jitrt.InferenceSession(model(parts, 16, {"mode": "linear"}).SerializeToString()), feeds)
    assert len(steps) == 1


def test_filters_are_cut_once_a_session():
    parts = [(256, 2), (256, 4)]
    session = jitrt.InferenceSession(model(parts, 16, {"mode": "linear"}, outputs=256).SerializeToString())
    for batch in (1, 2, 3):
        session.run(None, images(parts, 16, batch))
    plans = [session.get_plan(images(parts, 16, batch)) for batch in (1, 2)]
    first, second = ({x.ctypes.data for x in plan.constants if x.nbytes >= 256 * 256 * 4} for plan in plans)
    assert first
    assert first == second
