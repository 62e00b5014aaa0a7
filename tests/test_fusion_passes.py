"""The passes over a trace, each with the trace printed before and after, on graphs in ONNX's text form."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from jitrt.fusion.attention import fuse_attention
from jitrt.fusion.gelu import recognise_gelu
from jitrt.fusion.importer import load
from jitrt.fusion.interpret import interpret
from jitrt.fusion.products import hoist_scales
from jitrt.fusion.scales import merge_scales
from jitrt.fusion.simplify import PASSES, simplify
from jitrt.fusion.stacks import stack_joins
from jitrt.fusion.tidy import compose_moves, prune, share
from jitrt.fusion.trace import trace
from jitrt.fusion.views import fold_views, merge_pieces, sink_views, split_joins
from jitrt.ops.builder import Builder
from jitrt.ops.primitives import Tensor, Trace


def traced(text: str) -> Trace:
    """The trace of a graph whose inputs are all float32 of fixed shapes."""
    graph = load(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')).graph
    feeds = {name: np.zeros(graph.types[name].shape, np.float32) for name in graph.inputs}
    return trace(graph, feeds, graph.outputs).trace


def lines(trace_: Trace) -> list[str]:
    """The printed primitives."""
    return [line.strip() for line in str(trace_).splitlines()[1:-1]]


CASES = {
    prune: (
        "(float[2] x) => (float[2] y) { a = Exp (x) y = Neg (x) }",
        ["a: float32[2] = exp(x)", "y: float32[2] = -x"],
        ["y: float32[2] = -x"],
    ),
    compose_moves: (
        "(float[2,3] x) => (float[3,2] y, float[2,3] z) <int64[1] s = {6}, int64[2] t = {3, 2}>"
        "{ a = Reshape (x, s) y = Reshape (a, t) b = Transpose (x) c = Transpose (b) z = Relu (c) }",
        [
            "a: float32[6] = reshape(x, (6,))", "y: float32[3,2] = reshape(a, (3, 2))",
            "b: float32[3,2] = permute(x, (1, 0))", "c: float32[2,3] = permute(b, (1, 0))", "z: float32[2,3] = at_least(c, 0)",
        ],
        ["y: float32[3,2] = reshape(x, (3, 2))", "z: float32[2,3] = at_least(x, 0)"],
    ),
    share: (
        "(float[2] x) => (float[2] y) { a = Exp (x) b = Exp (x) y = Add (a, b) }",
        ["a: float32[2] = exp(x)", "b: float32[2] = exp(x)", "y: float32[2] = a + b"],
        ["a: float32[2] = exp(x)", "y: float32[2] = a + a"],
    ),
    stack_joins: (
        "(float[2,3] a, float[1,3] b) => (float[2,3,3] y, float[3,3] z) <int64[1] zero = {0}>"
        "{ j = Concat <axis = 0> (a, b) u = Unsqueeze (j, zero) k = Exp (u) y = Concat <axis = 0> (u, k) z = Neg (j) }",
        [
            "j: float32[3,3] = join(a at (0, 0), b at (2, 0))", "u: float32[1,3,3] = reshape(j, (1, 3, 3))",
            "k: float32[1,3,3] = exp(u)", "y: float32[2,3,3] = join(u at (0, 0, 0), k at (1, 0, 0))", "z: float32[3,3] = -j",
        ],
        [
            "%2: float32[1,2,3] = reshape(a, (1, 2, 3))", "%3: float32[1,1,3] = reshape(b, (1, 1, 3))",
            "u: float32[1,3,3] = join(%2 at (0, 0, 0), %3 at (0, 2, 0))", "j: float32[3,3] = reshape(u, (3, 3))",
            "k: float32[1,3,3] = exp(u)", "y: float32[2,3,3] = join(u at (0, 0, 0), k at (1, 0, 0))", "z: float32[3,3] = -j",
        ],
    ),
    merge_scales: (
        "(float[2] x) => (float[2] y, float[2] z, float[2] u) <float s = {3.0}, float t = {0.5}, float e = {8.0}>"
        "{ a = Div (x, s) b = Mul (t, a) y = Mul (b, s) c = Div (x, e) z = Exp (c) d = Div (y, s) u = Mul (d, e) }",
        [
            "a: float32[2] = x / 3.0", "b: float32[2] = 0.5 * a", "y: float32[2] = b * 3.0", "c: float32[2] = x * 0.125",
            "z: float32[2] = exp(c)", "d: float32[2] = y / 3.0", "u: float32[2] = d * 8.0",
        ],
        [
            "y: float32[2] = x * 0.5", "c: float32[2] = x * 0.125", "z: float32[2] = exp(c)",
            "u: float32[2] = y * 2.6666667",
        ],
    ),
    recognise_gelu: (
        "(float[2] x) => (float[2] y, float[2] e) <float root = {1.4142135}, float one = {1.0}, float half = {0.5}>"
        "{ a = Div (x, root) e = Erf (a) b = Add (e, one) c = Mul (x, b) y = Mul (c, half) }",
        [
            "a: float32[2] = x / 1.4142135", "e: float32[2] = erf(a)", "b: float32[2] = e + 1.0", "c: float32[2] = x * b",
            "y: float32[2] = c * 0.5",
        ],
        ["a: float32[2] = x / 1.4142135", "e: float32[2] = erf(a)", "y: float32[2] = gelu(x)"],
    ),
    hoist_scales: (
        "(float[2,3,4] q, float[2,5,4] k) => (float[2,3,5] y) <float s = {0.5}>"
        "{ a = Mul (q, s) b = Mul (s, k) t = Transpose <perm = [0, 2, 1]> (b) y = MatMul (a, t) }",
        [
            "a: float32[2,3,4] = q * 0.5", "b: float32[2,5,4] = 0.5 * k", "t: float32[2,4,5] = permute(b, (0, 2, 1))",
            "y: float32[2,3,5] = matmul(a, t)",
        ],
        ["%2: float32[2,4,5] = permute(k, (0, 2, 1))", "%3: float32[2,3,5] = matmul(q, %2)", "y: float32[2,3,5] = %3 * 0.25"],
    ),
    fuse_attention: (
        "(float[2,3,9,4] q, float[2,3,4,7] k, float[2,3,7,5] v, float[2,1,1,7] m) => (float[2,3,9,5] y) <float s = {0.5}>"
        "{ a = MatMul (q, k) b = Mul (a, s) c = Add (m, b) p = Softmax (c) y = MatMul (p, v) }",
        [
            "%4: float32[6,9,4] = reshape(q, (6, 9, 4))", "%5: float32[6,4,7] = reshape(k, (6, 4, 7))",
            "%6: float32[6,9,7] = matmul(%4, %5)", "a: float32[2,3,9,7] = reshape(%6, (2, 3, 9, 7))",
            "b: float32[2,3,9,7] = a * 0.5", "c: float32[2,3,9,7] = m + b", "%10: float32[2,3,9,1] = maximum_number(c, axes=(3,))",
            "%11: float32[2,3,9,7] = exp_flushed(c - %10)", "%12: float32[2,3,9,1] = add(%11, axes=(3,))",
            "%13: float32[2,3,9,1] = 1.0 / %12", "p: float32[2,3,9,7] = %11 * %13",
            "%15: float32[6,9,7] = reshape(p, (6, 9, 7))", "%16: float32[6,7,5] = reshape(v, (6, 7, 5))",
            "%17: float32[6,9,5] = matmul(%15, %16)", "y: float32[2,3,9,5] = reshape(%17, (2, 3, 9, 5))",
        ],
        [
            "%4: float32[1,2,3,9,4] = reshape(q, (1, 2, 3, 9, 4))", "%5: float32[1,2,3,4,7] = reshape(k, (1, 2, 3, 4, 7))",
            "%6: float32[1,2,3,7,4] = permute(%5, (0, 1, 2, 4, 3))", "%7: float32[1,2,3,7,5] = reshape(v, (1, 2, 3, 7, 5))",
            "%8: float32[1,2,1,1,7] = reshape(m, (1, 2, 1, 1, 7))",
            "%9: float32[1,2,1,7,1] = permute(%8, (0, 1, 2, 4, 3))",
            "%10: float32[1,2,3,9,5] = attention(%4, %6, %7, %9)", "%11: float32[6,9,5] = reshape(%10, (6, 9, 5))",
            "y: float32[2,3,9,5] = reshape(%11, (2, 3, 9, 5))",
        ],
    ),
    merge_pieces: (
        "(float[2,6] x) => (float[2,9] y) { e = Exp (x) a, b = Split <axis = 1, num_outputs = 2> (e) c = Neg (b)"
        " y = Concat <axis = 1> (a, b, c) }",
        [
            "e: float32[2,6] = exp(x)", "a: float32[2,3] = slice(e, (0, 0), (1, 1), (2, 3))",
            "b: float32[2,3] = slice(e, (0, 3), (1, 1), (2, 3))", "c: float32[2,3] = -b",
            "y: float32[2,9] = join(a at (0, 0), b at (0, 3), c at (0, 6))",
        ],
        [
            "e: float32[2,6] = exp(x)", "b: float32[2,3] = slice(e, (0, 3), (1, 1), (2, 3))", "c: float32[2,3] = -b",
            "y: float32[2,9] = join(e at (0, 0), c at (0, 6))",
        ],
    ),
    split_joins: (
        "(float[2,6] x, float[6] c) => (float[2,6] y) { a, b = Split <axis = 1, num_outputs = 2> (x) n = Neg (b)"
        " j = Concat <axis = 1> (n, a) y = Mul (j, c) }",
        [
            "a: float32[2,3] = slice(x, (0, 0), (1, 1), (2, 3))", "b: float32[2,3] = slice(x, (0, 3), (1, 1), (2, 3))",
            "n: float32[2,3] = -b", "j: float32[2,6] = join(n at (0, 0), a at (0, 3))", "y: float32[2,6] = j * c",
        ],
        [
            "a: float32[2,3] = slice(x, (0, 0), (1, 1), (2, 3))", "b: float32[2,3] = slice(x, (0, 3), (1, 1), (2, 3))",
            "n: float32[2,3] = -b", "%5: float32[3] = slice(c, (0,), (1,), (3,))", "%6: float32[2,3] = n * %5",
            "%7: float32[3] = slice(c, (3,), (1,), (3,))", "%8: float32[2,3] = a * %7",
            "y: float32[2,6] = join(%6 at (0, 0), %8 at (0, 3))",
        ],
    ),
    sink_views: (
        "(float[2,4] x, float[4,6] w, float[3,2,2] r) => (float[3,2,2] y) <int64[3] s = {2, 3, 2}>"
        "{ m = MatMul (x, w) v = Reshape (m, s) g = Gelu (v) t = Transpose <perm = [1, 0, 2]> (g) y = Add (t, r) }",
        [
            "m: float32[2,6] = matmul(x, w)", "v: float32[2,3,2] = reshape(m, (2, 3, 2))", "g: float32[2,3,2] = gelu(v)",
            "t: float32[3,2,2] = permute(g, (1, 0, 2))", "y: float32[3,2,2] = t + r",
        ],
        [
            "m: float32[2,6] = matmul(x, w)", "%4: float32[2,6] = gelu(m)", "g: float32[2,3,2] = reshape(%4, (2, 3, 2))",
            "t: float32[3,2,2] = permute(g, (1, 0, 2))", "y: float32[3,2,2] = t + r",
        ],
    ),
    fold_views: (
        "(float[2,3] x, float[3,1] c) => (float[3,1] y) { e = Exp (x) t = Transpose (e) d = Mul (t, c)"
        " y = ReduceSum <keepdims = 1> (d, n) }".replace("(float[3,1] y) {", "(float[3,1] y) <int64[1] n = {1}> {"),
        [
            "e: float32[2,3] = exp(x)", "t: float32[3,2] = permute(e, (1, 0))", "d: float32[3,2] = t * c",
            "y: float32[3,1] = add(d, axes=(1,))",
        ],
        [
            "%2: float32[3,2] = permute(x, (1, 0))", "t: float32[3,2] = exp(%2)", "d: float32[3,2] = t * c",
            "y: float32[3,1] = add(d, axes=(1,))",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("each", PASSES[:-1], ids=lambda each: each.__name__)
def test_pass(each) -> None:
    text, before, after = CASES[each]
    assert lines(traced(text)) == before
    assert lines(each(traced(text))) == after


@pytest.mark.parametrize("each", [*CASES, simplify], ids=lambda each: each.__name__)
def test_a_pass_changes_no_value(each) -> None:
    for text, _, _ in CASES.values():
        rng = np.random.default_rng(0)
        values = [rng.standard_normal(x.shape).astype(np.float32) for x in traced(text).inputs]
        for g, e in zip(interpret(each(traced(text)), values), interpret(traced(text), values), strict=True):
            np.testing.assert_allclose(g, e, rtol=1e-5, atol=1e-7)  # sums that cancel err as their terms do


def test_what_broadcasts_along_a_part_of_a_views_dimension_stays_where_it_is() -> None:
    """[4, 1, 1] would fit the product's shape [4, 2, 10] too, along another dimension."""
    trace_ = traced(
        "(float[2,2,2,6] a, float[2,2,6,10] b, float[4,1,1] c) => (float[2,4,5,2] y) <int64[4] s = {2, 4, 5, 2}>"
        "{ t = MatMul (a, b) u = Reshape (t, s) y = Add (u, c) }"
    )
    values = [np.random.default_rng(0).standard_normal(x.shape).astype(np.float32) for x in trace_.inputs]
    (got,), (wanted,) = interpret(sink_views(trace_), values), interpret(trace_, values)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


_NUMBERS = (
    "float half = {0.5}, float one = {1.0}, float root = {0.70710677}, float slope = {0.7978845608}, float cube = {0.044715},"
    " float three = {3.0}, float two = {2.0}"
)
_TANH = "t = Tanh (u) b = Add (t, one) h = Mul (x, half) y = Mul (h, b)"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("gelu", "a = Mul (root, x) e = Erf (a) b = Add (one, e) h = Mul (half, x) y = Mul (h, b)"),
        ("gelu", "a = Mul (x, root) e = Erf (a) b = Add (e, one) h = Mul (b, half) y = Mul (x, h)"),
        ("gelu", "r = Sqrt (two) a = Div (x, r) e = Erf (a) b = Add (e, one) c = Mul (b, x) y = Div (c, two)"),
        ("gelu_tanh", f"p = Pow (x, three) c = Mul (p, cube) a = Add (x, c) u = Mul (a, slope) {_TANH}"),
        ("gelu_tanh", f"s = Mul (x, x) p = Mul (s, x) c = Mul (cube, p) a = Add (c, x) u = Mul (slope, a) {_TANH}"),
        ("gelu_tanh", f"g = Mul (x, slope) s = Mul (x, x) c = Mul (s, cube) a = Add (one, c) u = Mul (g, a) {_TANH}"),
    ],
)
def test_gelu_is_found_in_other_words(function, words):
    before = traced(f"(float[2] x) => (float[2] y) <{_NUMBERS}> {{ {words} }}")
    trace_ = simplify(before)
    assert lines(trace_) == [f"y: float32[2] = {function}(x)"]
    assert set(trace_.primitives[0].nodes) == {name for p in before.primitives for name in p.nodes}


@pytest.mark.parametrize(
    "words",
    [
        "a = Mul (x, root) e = Erf (a) b = Add (e, one) y = Mul (x, b)",
        "a = Mul (x, slope) e = Erf (a) b = Add (e, one) h = Mul (x, half) y = Mul (h, b)",
        "a = Mul (x, root) e = Erf (a) b = Add (e, half) h = Mul (x, half) y = Mul (h, b)",
        "a = Mul (x, root) e = Erf (a) b = Add (e, one) n = Neg (x) h = Mul (n, half) y = Mul (h, b)",
        f"c = Mul (x, cube) a = Add (x, c) u = Mul (a, slope) {_TANH}",
    ],
)
def test_what_is_not_quite_gelu_is_left_alone(words):
    trace_ = traced(f"(float[2] x) => (float[2] y) <{_NUMBERS}> {{ {words} }}")
    assert lines(recognise_gelu(trace_)) == lines(trace_)


def test_factors_of_float16_are_not_merged_for_they_might_leave_its_range() -> None:
    trace_ = traced(
        "(float[2] x) => (float16[2] y) <float s = {300.0}>"
        "{ h = Cast <to = 10> (x) t = Cast <to = 10> (s) a = Mul (h, t) y = Mul (a, t) }"
    )
    assert lines(merge_scales(trace_)) == lines(trace_)


def test_a_map_whose_literals_have_no_type_to_take_is_refused() -> None:
    t = Builder()
    mask, whole = Tensor(np.dtype(bool), (3,)), Tensor(np.dtype(np.int32), (3,))
    assert t.map("select(a, splat_f32(0.0), splat_f32(-10.0))", mask, dtype=np.float32).dtype == np.float32
    for text, x, dtype in (("select(a, 0.0, -10.0)", mask, np.float32), ("a * 0.5", whole, np.int32)):
        with pytest.raises(TypeError, match="gives"):
            t.map(text, x, dtype=dtype)
