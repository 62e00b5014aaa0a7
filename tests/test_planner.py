"""What becomes one step, where values lie, and what is not copied. Each plan is also run and checked."""

from __future__ import annotations

import numpy as np
import onnx.numpy_helper
import onnx.parser
import onnx.reference
import pytest

from jitrt.engine import Engine
from jitrt.fusion.importer import load
from jitrt.fusion.interpret import Interpreter, NoReference
from jitrt.fusion.plan import Plan, Ref, Space, Step

RNG = np.random.default_rng(0)
CONV = "Conv <pads = [1, 1, 1, 1]>"


def planned(text: str, **constants: tuple[int, ...]) -> Plan:
    """The plan of a graph of fixed shapes for two threads; its results agree with numpy."""
    graph = load(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')).graph
    for name, shape in constants.items():
        graph.constants[name] = RNG.uniform(0.5, 1.5, shape).astype(np.float32)
        if name in graph.inputs:
            graph.inputs.remove(name)
    feeds = {n: RNG.uniform(-2, 2, graph.types[n].shape).astype(graph.types[n].dtype) for n in graph.inputs}
    engine = Engine(graph, 2)
    got = engine.run(feeds, graph.outputs)
    try:
        expected = Interpreter(graph).run(feeds)
    except NoReference:
        expected = Engine(graph, 1).run(feeds, graph.outputs)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-4, atol=1e-4)
    return engine.plan(feeds, graph.outputs)


def kernels(plan: Plan) -> list[str]:
    return [s.kernel.name for s in plan.steps if isinstance(s, Step)]


def copies(plan: Plan) -> list[Step]:
    """The steps that only move values (a copy that the planner makes says so in its text)."""
    return [s for s in plan.steps if isinstance(s, Step) and (s.kernel.name == "copy" or s.shape.startswith("copy "))]


ONE_LOOP = {
    "softmax with what is before and after": "(float[7,33] x) => (float[7,33] y) { a = Sin (x) b = Softmax (a) y = Neg (b) }",
    "log-softmax": "(float[7,33] x) => (float[7,33] y) { a = Sin (x) y = LogSoftmax (a) }",
    "softmax over columns": "(float[9,7,33] x) => (float[9,7,33] y) { y = Softmax <axis = 1> (x) }",
    "layer normalisation of a residual": (
        "(float[9,17] x, float[9,17] r, float[17] s, float[17] t) => (float[9,17] y)"
        "{ a = Add (x, r) b = LayerNormalization (a, s, t) y = Relu (b) }"
    ),
    "instance normalisation": (
        "(float[2,9,5,3] x, float[9] s, float[9] t) => (float[2,9,5,3] y) { a = InstanceNormalization (x, s, t) y = Relu (a) }"
    ),
    "root mean square normalisation": (
        "(float[9,17] x, float[17] s) => (float[9,17] y) <float e = {0.001}, int64[1] d = {-1}>"
        "{ q = Mul (x, x) m = ReduceMean (q, d) n = Add (m, e) r = Sqrt (n) i = Reciprocal (r) z = Mul (x, i) y = Mul (z, s) }"
    ),
    "L2 normalisation": (
        "(float[9,17] x) => (float[9,17] y) <int64[1] d = {-1}> { n = ReduceL2 (x, d) y = Div (x, n) }"
    ),
    "mean and variance": (
        "(float[9,17] x) => (float[9,1] m, float[9,1] v) <int64[1] d = {-1}>"
        "{ m = ReduceMean (x, d) c = Sub (x, m) q = Mul (c, c) v = ReduceMean (q, d) }"
    ),
    "argmax of a sum": "(float[9,17] x, float[9,17] z) => (int64[9,1] y) { a = Add (x, z) y = ArgMax <axis = 1> (a) }",
    "a chain over views": (
        "(float[5,6] x, float[6] z) => (float[3,5] y) <int64[1] b = {5}, int64[1] e = {-7}, int64[1] k = {-2}, int64[1] d = {0}>"
        "{ a = Add (x, z) t = Transpose (a) s = Slice (t, b, e, d, k) y = Exp (s) }"
    ),
    "two results of one chain": "(float[9,17] x) => (float[9,17] y, float[9,17] z) { a = Sin (x) y = Exp (a) z = Cos (a) }",
}  # fmt: skip


@pytest.mark.parametrize("text", ONE_LOOP.values(), ids=ONE_LOOP.keys())
def test_one_loop(text: str) -> None:
    plan = planned(text)
    assert len(plan.steps) == 1
    assert plan.arena_bytes == 0


def test_gelu_bias_and_residual_go_into_a_contractions_tail() -> None:
    plan = planned(
        "(float[2,9,16] x, float[16,24] w, float[24] b, float[24,16] v, float[2,9,16] y0) => (float[2,9,16] y)"
        "{ m = MatMul (x, w) a = Add (m, b) g = Gelu (a) n = MatMul (g, v) y = Add (n, x) }",
        w=(16, 24), b=(24,), v=(24, 16),
    )  # fmt: skip
    assert sum(len(s.nodes) for s in plan.steps) >= 5
    assert not {"gelu", "add"}.intersection(kernels(plan))
    assert not copies(plan)


def test_a_residual_goes_into_a_convolution_through_its_activation() -> None:
    plan = planned(
        f"(float[1,8,9,9] x, float[8,8,3,3] w) => (float[1,8,9,9] y)"
        f"{{ a = {CONV} (x, w) b = Sigmoid (a) c = Mul (a, b) y = Add (c, x) }}",
        w=(8, 8, 3, 3),
    )  # fmt: skip
    assert not {"sigmoid_mul_add", "add", "mul_add"}.intersection(kernels(plan))


def test_attention_copies_no_heads() -> None:
    """Heads are read by strides, scores scaled in the product's tail, and the context stored side by side."""
    plan = planned(
        "(float[1,9,24] x, float[24,24] p, float[24,24] q, float[24,24] r, float[24,24] o) => (float[1,9,24] y)"
        "<int64[4] heads = {1, 9, 3, 8}, int64[3] flat = {1, 9, 24}, float s = {0.35}> {"
        " a = MatMul (x, p) b = Reshape (a, heads) c = Transpose <perm = [0, 2, 1, 3]> (b) cs = Mul (c, s)"
        " d = MatMul (x, q) e = Reshape (d, heads) f = Transpose <perm = [0, 2, 3, 1]> (e) fs = Mul (f, s)"
        " g = MatMul (x, r) h = Reshape (g, heads) i = Transpose <perm = [0, 2, 1, 3]> (h)"
        " j = MatMul (cs, fs) k = Softmax (j) l = MatMul (k, i)"
        " m = Transpose <perm = [0, 2, 1, 3]> (l) n = Reshape (m, flat) z = MatMul (n, o) y = Add (z, x) }",
        p=(24, 24), q=(24, 24), r=(24, 24), o=(24, 24),
    )  # fmt: skip
    assert "mul" not in kernels(plan)
    assert not copies(plan)


def test_grouped_queries_share_keys_without_repeating_them() -> None:
    plan = planned(
        "(float[1,6,1,8] q, float[1,2,9,8] k) => (float[1,6,1,9] y)"
        "<int64[5] one = {1, 2, 1, 9, 8}, int64[5] many = {1, 2, 3, 9, 8}, int64[4] all = {1, 6, 9, 8}>"
        "{ a = Reshape (k, one) b = Expand (a, many) c = Reshape (b, all)"
        " d = Transpose <perm = [0, 1, 3, 2]> (c) y = MatMul (q, d) }"
    )
    assert not copies(plan)
    assert plan.steps[-1].shape == "2x(3x8x9)"


def test_each_piece_of_a_dense_block_is_made_in_the_last_join() -> None:
    plan = planned(
        f"(float[1,8,9,9] x, float[8,8,3,3] v, float[8,16,3,3] w) => (float[1,24,9,9] y)"
        f"{{ a = {CONV} (x, v) b = Relu (a) c = Concat <axis = 1> (b, a) d = Sigmoid (c) e = {CONV} (d, w)"
        f" f = Concat <axis = 1> (b, a, e) y = Neg (f) }}",
        v=(8, 8, 3, 3), w=(8, 16, 3, 3),
    )  # fmt: skip
    assert not copies(plan)


def test_a_rotary_embedding_joins_its_halves_without_a_copy() -> None:
    plan = planned(
        "(float[1,3,5,8] x, float[5,8] c, float[5,8] s) => (float[1,3,5,8] y) {"
        " a, b = Split <axis = 3, num_outputs = 2> (x) n = Neg (b) r = Concat <axis = 3> (n, a)"
        " p = Mul (x, c) q = Mul (r, s) y = Add (p, q) }"
    )
    assert len(plan.steps) == 2
    assert plan.arena_bytes == 0


def test_a_join_of_outputs_and_inputs_is_copied_where_it_must_be() -> None:
    plan = planned(
        "(float[3,4] x) => (float[6,4] y, float[3,4] e, float[9,4] z) {"
        " e = Exp (x) y = Concat <axis = 0> (x, e) z = Concat <axis = 0> (y, e) }"
    )
    assert "exp" in kernels(plan)
    assert copies(plan)


def test_reshaped_outputs_are_written_in_the_callers_array() -> None:
    plan = planned("(float[3,4] x) => (float[12] y) <int64[1] s = {12}> { e = Exp (x) y = Reshape (e, s) }")
    assert len(plan.steps) == 1
    assert plan.outputs[0].ref.buffer.space is Space.OUTPUT


def test_a_chain_of_loops_of_one_size_uses_one_buffer() -> None:
    text = "(float[64,33] x) => (float[64,1] y) <int64[1] d = {1}> {" + "".join(
        f" s{i} = Softmax <axis = {i % 2}> ({'x' if i == 0 else f's{i - 1}'})" for i in range(6)
    )
    plan = planned(text + " y = ReduceMax (s5, d) }")
    assert plan.arena_bytes < 4 * (64 * 33 * 4 + 64)
    assert len(plan.steps) <= 7


def test_empty_tensors_need_no_step() -> None:
    plan = planned(
        "(float[0,4] x) => (float[0,4] y, float[4] z) <int64[1] d = {0}> { y = Softmax (x) z = ReduceSum <keepdims = 0> (y, d) }"
    )
    assert len(plan.steps) <= 1


SUMS = {
    "direct": ((16, 8, 1, 1), 1, False, True),
    "of odd channels": ((13, 8, 3, 3), 1, True, True),
    "winograd": ((64, 32, 3, 3), 1, True, True),
    "grouped": ((24, 4, 3, 3), 4, True, True),
    "depthwise": ((24, 1, 3, 3), 24, True, False),
}


@pytest.mark.parametrize("case", SUMS)
def test_a_sum_lies_where_the_term_lay_that_nobody_needs_later(case):
    shape, group, pad, in_place = SUMS[case]
    channels = shape[1] * group
    conv = f"Conv <group = {group}{', pads = [1, 1, 1, 1]' if pad else ''}>"
    text = (
        f"g (float[1,{channels},29,23] x, float[{shape[0]},{channels},1,1] v, float[{','.join(map(str, shape))}] w)"
        f"=> (float[1,{shape[0]},28,22] y)"
        f"{{ s = Conv (x, v) c = {conv} (x, w) r = Add (c, s) z = Relu (r) y = MaxPool <kernel_shape = [2, 2]> (z) }}"
    )
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    feeds = {n: RNG.uniform(-2, 2, s).astype(np.float32) for n, s in
             (("x", (1, channels, 29, 23)), ("v", (shape[0], channels, 1, 1)), ("w", shape))}  # fmt: skip
    model.graph.initializer.extend(onnx.numpy_helper.from_array(feeds[n], n) for n in "vw")
    feeds = {"x": feeds["x"]}
    engine = Engine(load(model).graph, 2)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(engine.run(feeds, ["y"])[0], expected[0], rtol=1e-4, atol=1e-4)
    plan = engine.plan(feeds)
    buffers = {r.buffer for s in plan.steps for r in s.args if isinstance(r, Ref) and r.buffer.space is Space.ARENA}
    assert (sum(b.nbytes == shape[0] * 29 * 23 * 4 for b in buffers) == 1) == in_place


@pytest.mark.parametrize("work", ["z = Tanh (j)", "s = MatMul (x, d) z = Add (s, j)"])
def test_what_lies_in_a_join_outlives_the_joins_last_reader(work: str) -> None:
    planned(
        "(float[6, 8] x, float[8, 8] a, float[8, 8] b, float[16, 8] c, float[8, 16] d) => (float[6, 8] y) {"
        f" m = MatMul (x, a) k = MatMul (x, b) j = Concat <axis = 1> (m, k) {work} p = MatMul (z, c) y = Mul (m, p) }}",
        a=(8, 8), b=(8, 8), c=(16, 8), d=(8, 16),
    )  # fmt: skip


@pytest.mark.parametrize("shape", ["2, 0, 4", "0, 2, 4"])
def test_a_product_of_no_rows_with_work_after_it_is_planned(shape: str) -> None:
    plan = planned(
        f"(float[{shape}] a, float[4, 3] b) => (int32[B, M, 3] y) {{ p = MatMul (a, b) t = Tanh (p) y = Cast <to = 6> (t) }}",
        b=(4, 3),
    )
    assert not copies(plan)
