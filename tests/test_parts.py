"""Values computed part by part are those that are computed whole: random networks, every way to cut them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import jitrt
from jitrt.fusion import parts

NOTHING = 1 << 62
LAYERS = st.tuples(
    st.sampled_from(["conv", "depthwise", "grouped", "pool", "average", "relu", "swish", "add", "concat", "gate"]),
    st.integers(1, 5),  # window
    st.integers(1, 2),  # stride
    st.integers(1, 2),  # dilation
    st.integers(0, 3),  # border before
    st.integers(0, 3),  # border after
)


class Network:
    """A random chain of image operators with some links across it."""

    def __init__(self, layers: list[tuple], channels: int, seed: int, spatial: int = 2) -> None:
        self.rng, self.spatial = np.random.default_rng(seed), spatial
        self.nodes, self.weights, self.names = [], [], {"x": channels}
        self.last, self.channels, self.size = "x", channels, "x"
        for layer in layers:
            self.add(*layer)

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        data = self.rng.standard_normal(shape).astype(np.float32) / np.sqrt(max(1, np.prod(shape[1:])))
        self.weights.append(numpy_helper.from_array(data.astype(np.float32), name))
        return name

    def add(self, kind: str, window: int, stride: int, dilation: int, before: int, after: int) -> None:
        n, last, c = self.spatial, self.last, self.channels
        border = (window - 1) * dilation
        pads = [min(before, border)] * n + [min(after, border)] * n
        moved = {"kernel_shape": [window] * n, "strides": [stride] * n, "pads": pads}
        if kind in ("conv", "depthwise", "grouped"):
            group = {"conv": 1, "depthwise": c, "grouped": 2 if c % 2 == 0 else 1}[kind]
            self.channels = c if kind == "depthwise" else (c // group + 3) * group
            filters = self.weight(self.channels, c // group, *[window] * n)
            self.last = self.node("Conv", last, filters, self.weight(self.channels), group=group, dilations=[dilation] * n, **moved)
        elif kind in ("pool", "average"):
            pads = [min(before, window - 1)] * n + [min(after, window - 1)] * n
            extra = {"count_include_pad": 1} if kind == "average" else {}
            op = "AveragePool" if kind == "average" else "MaxPool"
            self.last = self.node(op, last, kernel_shape=[window] * n, strides=[stride] * n, pads=pads, **extra)
        elif kind == "swish":
            self.last = self.node("Mul", last, self.node("Sigmoid", last))
        elif kind == "add":
            self.last = self.node("Add", last, self.node("Tanh", last))
        elif kind == "gate":
            axes = self.node("ReduceMean", last, axes=list(range(2, 2 + n)))
            self.last = self.node("Mul", last, self.node("Sigmoid", axes))
        elif kind == "concat":
            self.last, self.channels = self.node("Concat", last, self.node("Neg", last), axis=1), 2 * c
        else:
            self.last = self.node("Relu", last)

    def model(self, middle: bool = True) -> bytes:
        """With what a node in the middle makes as another output, if that is asked for."""
        inner = self.nodes[len(self.nodes) // 2].output[0] if middle else self.last
        rank = 2 + self.spatial
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None] * rank)
        names = dict.fromkeys([self.last, inner])
        outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank) for name in names]
        graph = helper.make_graph(self.nodes, "network", [x], outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def run(model: bytes, x: np.ndarray, large: int, part: int) -> tuple[list[np.ndarray], int]:
    """Outputs, and the number of steps of the plan."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("LARGE", large), ("PART", part), ("BAND", part), ("AGAIN", 9.0), ("INTENSE", NOTHING)):
            patch.setattr(parts, name, value)
        session = jitrt.InferenceSession(model)
        return session.run(None, {"x": x}), len(session.get_plan({"x": x}).steps)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.lists(LAYERS, min_size=2, max_size=7), st.integers(1, 4), st.sampled_from([1, 1, 2, 3, 5]),
    st.tuples(st.integers(8, 30), st.integers(1, 20)), st.sampled_from([300, 1000, 4000, 20_000]), st.integers(0, 99),
)  # fmt: skip
def test_parts_of_random_networks_are_what_the_whole_is(layers, channels, images, size, part, seed):
    network = Network(layers, channels, seed)
    x = np.random.default_rng(seed).standard_normal((images, channels, *size)).astype(np.float32)
    model = network.model()
    try:
        expected, _ = run(model, x, NOTHING, NOTHING)
    except jitrt.capi.onnxruntime_pybind11_state.Fail:  # a window larger than its image
        with pytest.raises(jitrt.capi.onnxruntime_pybind11_state.Fail):
            run(model, x, 1, part)
        return
    found, _ = run(model, x, 1, part)
    for mine, whole in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, whole, rtol=1e-4, atol=1e-5)


CHAIN = [
    ("conv", 1, 1, 1, 0, 0),
    ("relu",) + (1,) * 5,
    ("depthwise", 3, 2, 1, 1, 1),
    ("swish",) + (1,) * 5,
    ("conv", 1, 1, 1, 0, 0),
]


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_a_chain_of_kernels_is_cut_and_joined_without_copies(images, spatial):
    x = np.random.default_rng(1).standard_normal((images, 4, 33, *[6] * (spatial - 1))).astype(np.float32)
    model = Network(CHAIN, 4, 2, spatial).model(middle=False)
    expected, whole = run(model, x, NOTHING, NOTHING)
    found, cut = run(model, x, 1, 1 if images > 1 else x.nbytes // 2)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert cut >= whole + 3


def test_small_values_are_computed_whole():
    x = np.zeros((2, 4, 33, 6), np.float32)
    model = Network(CHAIN, 4, 2).model()
    assert len(jitrt.InferenceSession(model)._engine.plan({"x": x}).steps) == run(model, x, NOTHING, NOTHING)[1]


def test_bands_that_would_be_computed_twice_for_the_most_part_are_not_made():
    layers = [("depthwise", 5, 1, 1, 3, 3)] * 6
    x = np.random.default_rng(0).standard_normal((1, 8, 30, 30)).astype(np.float32)
    session = jitrt.InferenceSession(Network(layers, 8, 0).model())
    trace = session._engine.plan({"x": x})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "LARGE", 1)
        patch.setattr(parts, "BAND", 4 * x[0, :, :3].nbytes)
        again = jitrt.InferenceSession(Network(layers, 8, 0).model())._engine.plan({"x": x})
    assert len(again.steps) == len(trace.steps)


def test_an_open_number_of_images_is_cut_where_it_moves_more() -> None:
    model = Network(CHAIN, 4, 2).model(middle=False)
    x = np.random.default_rng(3).standard_normal((6, 4, 33, 6)).astype(np.float32)
    steps = {}
    for limit in (1, NOTHING):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "PART", 1)
            patch.setattr(parts, "OPEN", limit)
            session = jitrt.InferenceSession(model)
            first = session.run(None, {"x": x[:1]})[0]
            found = session.run(None, {"x": x})[0]
            (family,) = session._engine.program.families.values()
            ((_, entry),) = family.plans
        np.testing.assert_allclose(found[:1], first, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found, run(model, x, NOTHING, NOTHING)[0][0], rtol=1e-5, atol=1e-6)
        steps[limit] = len(entry.plan.steps)
    assert steps[1] > steps[NOTHING]
