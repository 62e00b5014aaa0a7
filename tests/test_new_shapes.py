"""A new size of a known model needs no new kernel: sizes are arguments, and structure does not depend on them.

Kernels are compared without compiling them: those of a plan are its specifications, and equal ones are one kernel.
"""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from benchmarks import zoo
from jitrt.engine import Engine
from jitrt.fusion.importer import load
from jitrt.fusion.interpret import Interpreter
from jitrt.fusion.plan import Address, Block, Plan, Spare, Step
from jitrt.fusion.planner import make_plan
from jitrt.fusion.rewrite import rewrite
from jitrt.fusion.trace import Specialise, trace
from jitrt.fusion.weights import Weights
from jitrt.store import Store

THREADS = 2
ENCODER = {"layers": 2, "width": 64, "heads": 4, "inner": 96, "vocabulary": 50}
GPT2 = {"layers": 2, "width": 64, "heads": 4, "vocabulary": 50, "context": 64}
BATCHES = ({}, {"batch": 2}, {"batch": 5})
# name: sizes of the small model, then symbolic dimensions of runs, the first of which decides the kernels
SAME = {
    "mlp": ({"features": 50, "hidden": 37}, *BATCHES),
    "resnet18": ({"image": 64}, *BATCHES),
    "resnet50": ({"image": None}, {"image": 64}, {"image": 96, "batch": 4}, {"image": 75}),
    "mobilenet_v2": ({"image": 64}, *BATCHES),
    "efficientnet_b0": ({"image": 64}, *BATCHES),
    "densenet121": ({"image": 64}, *BATCHES),
    "shufflenet_v2": ({"image": 64}, *BATCHES),
    "inception_v1": ({"image": 64}, *BATCHES),
    "squeezenet1_1": ({"image": None}, {"image": 64}, {"image": 75, "batch": 2}),
    "yolov8n": ({"image": 128}, *BATCHES),
    "unet": ({"image": None, "width": 16}, {"height": 48}, {"height": 32, "batch": 3}),
    "vit_b16": ({"image": 48, "layers": 2, "width": 64, "heads": 4, "inner": 96}, *BATCHES),
    "bert_base": (ENCODER, {"sequence": 9}, {"sequence": 77}, {"batch": 3}, {"sequence": 2, "batch": 4}),
    "t5_encoder": (ENCODER, {"sequence": 9}, {"sequence": 77}, {"sequence": 14, "batch": 3}),
    "gpt2": (GPT2, {"past_sequence": 8}, {"past_sequence": 9}, {"past_sequence": 40, "batch": 3}),
    "gpt2 prompt": (
        GPT2,
        {"sequence": 7, "past_sequence": 0},
        {"sequence": 40, "past_sequence": 0, "batch": 2},
        {"sequence": 5, "past_sequence": 6},
    ),
    "llama": ({**ENCODER, "kv_heads": 2}, {"past_sequence": 8}, {"past_sequence": 40}, {"past_sequence": 30, "batch": 3}),
    "llama prompt": (
        {**ENCODER, "kv_heads": 2},
        {"sequence": 7, "past_sequence": 0},
        {"sequence": 40, "past_sequence": 0, "batch": 2},
        {"sequence": 5, "past_sequence": 6},
    ),
    "lstm_classifier": ({"width": 24, "hidden": 20, "vocabulary": 50}, {"sequence": 9}, {"sequence": 5}, {"sequence": 1}),
}
# where a size of 1 is another structure: sizes, run, run, the work that differs
DIFFERENT = {
    "lstm_classifier": (
        SAME["lstm_classifier"][0], {"sequence": 9}, {"sequence": 9, "batch": 3}, {"pad_copy"},
    ),  # one sequence lies in memory as the recurrence reads it, several are turned
    "gpt2": (
        GPT2, {"past_sequence": 8}, {"sequence": 7, "past_sequence": 0}, {"to_b1", "and_select"},
    ),  # the mask of one token has the shape of its padding, so all of it is one loop
    "llama": (
        SAME["llama"][0], {"past_sequence": 8}, {"sequence": 7, "past_sequence": 0},
        {"to_b1", "and_select", "sub_mul_add", "mul_add"},
    ),  # also the rotary table of one token lies as its heads do
}  # fmt: skip


class Planner:
    """Plans of one graph, as a session makes them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph, self.weights, self.read = rewrite(load(model).graph), Weights(), frozenset()

    def plan(self, feeds: dict[str, np.ndarray]) -> Plan:
        try:
            traced = trace(self.graph, feeds, self.graph.outputs, self.read)
        except Specialise as need:
            self.read |= {*need.readers}
            return self.plan(feeds)
        return make_plan(traced.trace, THREADS, self.weights)


def kernels(plan: Plan, spare: bool = False) -> dict[str, str]:
    """Key and name of every kernel that a plan needs, or has to spare."""
    found = {}

    def visit(args: tuple[object, ...]) -> None:
        for arg in args:
            if isinstance(arg, Address) or (spare and isinstance(arg, Spare)):
                found[arg.kernel.key] = arg.kernel.name
            elif isinstance(arg, Block):
                visit(arg.args)

    for step in plan.steps:
        if isinstance(step, Step):
            found[step.kernel.key] = step.kernel.name
            visit(step.args)
    return found


@pytest.mark.parametrize("case", SAME)
def test_other_sizes_have_the_kernels_of_the_first(case: str) -> None:
    sizes, *runs = SAME[case]
    name = case.split()[0]
    planner = Planner(zoo.build(name, **sizes))
    first, *others = [kernels(planner.plan(zoo.inputs(name, **(sizes | run))), not i) for i, run in enumerate(runs)]
    assert first
    for run, other in zip(runs[1:], others, strict=True):
        assert {other[key] for key in other.keys() - first.keys()} == set(), run


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_size_of_one_differs_only_where_it_is_said_to(name: str) -> None:
    sizes, one, many, expected = DIFFERENT[name]
    planner = Planner(zoo.build(name, **sizes))
    known, other = (kernels(planner.plan(zoo.inputs(name, **(sizes | run))), run is one) for run in (one, many))
    assert {other[key] for key in other.keys() - known.keys()} == expected


LOOPS = {
    "a broadcast over the batch": "(float[N,3,S] x, float[1,1,S] m) => (float[N,3,S] y) { a = Add (x, m) y = Exp (a) }",
    "a softmax with a mask": "(float[N,3,S,S] x, float[N,1,1,S] m) => (float[N,3,S,S] y) { a = Add (x, m) y = Softmax (a) }",
    "a transposition": "(float[N,S,3,8] x) => (float[N,3,S,8] y) { y = Transpose <perm = [0, 2, 1, 3]> (x) }",
    "a scalar": "(float[N] x, float z) => (float[N] y) { a = Add (x, z) y = Sin (a) }",
    "channels": "(float[N,4,S,S] x, float[4,1,1] z) => (float[N,4,S,S] y) { a = Mul (x, z) y = Relu (a) }",
    "a norm": "(float[N,S,8] x, float[8] s, float[8] t) => (float[N,S,8] y) { y = LayerNormalization (x, s, t) }",
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS.keys())
def test_one_set_of_loops_computes_every_size(text: str, tmp_path) -> None:
    """The second to last sizes find all kernels compiled, and their results are right."""
    graph = load(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')).graph
    engine, rng = Engine(graph, THREADS), np.random.default_rng(0)
    engine.shared.store = store = Store(tmp_path)
    known = None
    for sizes in ({"N": 1, "S": 5}, {"N": 3, "S": 5}, {"N": 2, "S": 70}, {"N": 1, "S": 33}):
        shapes = {n: tuple(sizes.get(d, d) for d in graph.types[n].shape) for n in graph.inputs}
        feeds = {n: rng.uniform(-2, 2, shape).astype(np.float32) for n, shape in shapes.items()}
        for got, expected in zip(engine.run(feeds, graph.outputs), Interpreter(graph).run(feeds), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        known = known or set(store.addresses)
        assert set(store.addresses) == known, sizes
