"""Models whose batch, pictures and sequences vary: one plan serves them, and its guards say what they are for."""

from __future__ import annotations

import re

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import zoo
from jitrt.engine import Engine
from jitrt.fusion.importer import load
from jitrt.fusion.plan import Plan
from jitrt.ops.kernels import gemv

TRANSFORMER = {"layers": 1, "width": 32, "heads": 2, "inner": 48}
VISION = {
    "vit_b16": {**TRANSFORMER, "image": 48, "classes": 10},
    "clip_vision_b32": {**TRANSFORMER, "image": 64, "projected": 8},
    "swin_tiny": {"image": 56, "depths": (2,), "width": 24, "classes": 10},
    "segformer_b0": {"image": 64, "depth": 1, "hidden": 16, "classes": 5},
}


def open_plans(made: Engine) -> list[Plan]:
    return [entry.plan for family in made.program.families.values() for _, entry in family.plans]


def assert_same(made: Engine, feeds: dict[str, np.ndarray], expected: list[np.ndarray]) -> None:
    for got, wanted in zip(made.run(feeds, made.graph.outputs), expected, strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", VISION)
def test_pictures_of_any_number_need_one_plan(name: str) -> None:
    model = zoo.build(name, **VISION[name])
    made, theirs = Engine(load(model).graph, 2), onnxruntime.InferenceSession(model.SerializeToString())
    few = gemv.many(False)  # rows of a head, one for each picture; of two pictures, other products of small networks have as few
    for batch in (1, 4, few - 1, 3):
        feeds = zoo.inputs(name, batch=batch, **VISION[name])
        assert_same(made, feeds, theirs.run(None, feeds))
    (plan,) = open_plans(made)
    conditions = [str(guard).partition(":")[0] for guard in plan.guards]
    assert re.fullmatch("batch >= [23]", conditions[0])
    assert not any("==" in condition or " is " in condition for condition in conditions)


def test_batch_and_size_of_pictures_are_open_together() -> None:
    """Though the batch has differed once only when the sizes have differed often enough."""
    model = zoo.build("mobilenet_v2", image=None, classes=10)
    made = Engine(load(model).graph, 2)
    rng = np.random.default_rng(0)
    cases = [(1, 64, 64), (1, 96, 80), (2, 80, 96), (3, 64, 64), (4, 96, 64)]
    for shape in cases:
        (y,) = made.run({"pixels": rng.standard_normal((shape[0], 3, *shape[1:]), np.float32)}, ["logits"])
        assert y.shape == (shape[0], 10)
    assert len(open_plans(made)) == 2  # the first one is of the one picture
    pixels = rng.standard_normal((3, 3, 72, 88), np.float32)
    assert_same(made, {"pixels": pixels}, Engine(load(model).graph, 2).run({"pixels": pixels}, ["logits"]))
    assert len(open_plans(made)) == 2


def test_a_guard_says_what_it_is_for() -> None:
    made = Engine(load(zoo.build("mlp", features=12, hidden=16, layers=1, classes=3)).graph, 2)
    for batch in (1, 2, 3):
        feeds = zoo.inputs("mlp", batch=batch, features=12, hidden=16, layers=1, classes=3)
        made.run(feeds, made.graph.outputs)
    (plan,) = open_plans(made)
    few = f"batch <= {gemv.many(False) - 1}"
    assert str(plan.guards).splitlines()[1].startswith(f"{few}: asked for /layers.0/Gemm in gemv.py: product (C = clip(A B + bias")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("hidden", "direction"), [(160, "forward"), (160, "reverse"), (24, "bidirectional")])
def test_sequences_of_any_length_need_up_to_three_plans_of_a_recurrent_layer(kind: str, hidden: int, direction: str) -> None:
    """A few steps are another product, and up to four are shared among threads step by step if they are as wide as the first."""
    few = gemv.many(False)
    rng, gates, directions = np.random.default_rng(0), {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 1 + (direction == "bidirectional")
    weights = {"w": (directions, gates * hidden, 8), "r": (directions, gates * hidden, hidden)}
    tables = [numpy_helper.from_array(rng.standard_normal(s, np.float32) * 0.1, name) for name, s in weights.items()]
    node = helper.make_node(kind, ["x", "w", "r"], ["y", "h"], hidden_size=hidden, direction=direction)
    shapes = {"y": ["S", directions, "N", hidden], "h": [directions, "N", hidden]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["S", "N", 8])], outputs, tables)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made, theirs = Engine(load(model).graph, 2), onnxruntime.InferenceSession(model.SerializeToString())
    for length in (few, few + 2, 2, few + 3, 3, few + 1, 1, few - 1):
        feeds = {"x": rng.standard_normal((length, 1, 8), np.float32)}
        assert_same(made, feeds, theirs.run(None, feeds))
    step_by_step = kind == "LSTM" and hidden == 160 and few > 5  # up to four, of those that are a few
    assert len(open_plans(made)) == (3 if step_by_step else 2)
