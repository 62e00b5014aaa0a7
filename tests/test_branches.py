"""If whose condition a node computes: both branches and a choice where that is right, the branch that is taken otherwise."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime
import pytest

import jitrt as ort
from jitrt import program

HEAD = '<ir_version: 10, opset_import: ["": 20]>'
rng = np.random.default_rng(11)
X = rng.standard_normal((3, 5)).astype(np.float32)
W = rng.standard_normal((5, 5)).astype(np.float32)
SUM = "zero = Constant <value = float {0}> () m = ReduceSum <keepdims = 0> (x) p = Greater (m, zero)"


def branches(then: str, other: str, shape: str = "float[3, 5]") -> str:
    """A model whose branches give v; what is taken depends on the sign of a sum."""
    return f"""g (float[3, 5] x, float[R, C] w, int64[1] i) => ({shape} y, bool q)
        {{ {SUM} u = If (p) <then_branch = a () => ({shape} v) {{ {then} }}, else_branch = b () => ({shape} v) {{ {other} }}>
           y = Neg (u) q = Not (p) }}"""


BOTH = {
    "elementwise work": ("v = Tanh (x)", "k = Abs (x) v = Sqrt (k)"),
    "products": ("v = MatMul (x, w)", "k = MatMul (x, w) v = Softmax (k)"),
    "what is outside": ("v = Identity (x)", "v = Neg (x)"),
    "the same value": ("v = Identity (x)", "v = Identity (x)"),
    "constants": (
        "s = Constant <value = int64[2] {3, 5}> () v = ConstantOfShape (s)",
        "s = Constant <value = int64[2] {3, 5}> () v = ConstantOfShape <value = float[1] {2}> (s)",
    ),
    "an If in a branch": (
        "e = ReduceMax <keepdims = 0> (x) f = Less (e, m) v = If (f) <then_branch = c () => (float[3, 5] o) { o = Exp (x) },"
        " else_branch = d () => (float[3, 5] o) { o = Sin (x) }>",
        "v = Cos (x)",
    ),
}
ONE = {
    "another shape": ("v = Tanh (x)", "j = Constant <value = int64[1] {0}> () v = ReduceSum (x, j)"),
    "a kernel that may fail": ("v = Neg (x)", "v = Gather (x, i)"),
    "a loop": (
        "v = Neg (x)",
        "n = Constant <value = int64 {3}> () v = Loop (n, , x) <body = c (int64 k, bool g, float[3, 5] s)"
        " => (bool on, float[3, 5] t) { on = Identity (g) t = Exp (s) }>",
    ),
    "much work": (
        "j = Constant <value = int64[1] {0}> () s = Constant <value = int64[3] {20000, 3, 5}> () k = Expand (x, s) l = Exp (k)"
        " v = ReduceMax <keepdims = 0> (l, j)",
        "v = Neg (x)",
    ),
    "a shape that does not fit": ("v = Tanh (x)", "v = MatMul (x, w)"),
}


def session(text: str) -> ort.InferenceSession:
    return ort.InferenceSession(onnx.parser.parse_model(HEAD + text))


def expected(text: str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = onnx.parser.parse_model(HEAD + text)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.mark.parametrize("kind", BOTH)
def test_one_plan_computes_both_branches_and_chooses(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, made = branches(*BOTH[kind]), []
    plan = program.make_plan
    monkeypatch.setattr(program, "make_plan", lambda *args: made.append(args) or plan(*args))
    ours = session(text)
    for x in (np.abs(X), -np.abs(X), np.full_like(X, np.nan)):
        feeds = {"x": x, "w": W, "i": np.array([0])}
        for got, wanted in zip(ours.run(None, feeds), expected(text, feeds), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert len(made) == 1
    assert ours.get_plan(feeds).host_nodes == ()


@pytest.mark.parametrize("kind", [kind for kind in ONE if "fit" not in kind])
def test_what_should_not_be_computed_for_nothing_waits_for_the_condition(kind: str) -> None:
    text = branches(*ONE[kind], "float[N, M]")
    ours = session(text)
    for x in (np.abs(X), -np.abs(X)):
        feeds = {"x": x, "w": W, "i": np.array([1])}
        for got, wanted in zip(ours.run(None, feeds), expected(text, feeds), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert len(ours._engine.plans(feeds)) > 1


@pytest.mark.parametrize("kind", ["a kernel that may fail", "a shape that does not fit"])
def test_a_branch_that_fails_is_no_matter_where_the_other_is_taken(kind: str) -> None:
    ours = session(branches(*ONE[kind], "float[N, M]"))
    (then, _) = ONE[kind]
    (y, _) = ours.run(None, {"x": np.abs(X), "w": W[:4], "i": np.array([7])})
    np.testing.assert_allclose(y, -np.tanh(np.abs(X)) if "Tanh" in then else np.abs(X), rtol=1e-5)
    with pytest.raises(RuntimeError):
        ours.run(None, {"x": -np.abs(X), "w": W[:4], "i": np.array([7])})


FIRST = """
    g (int64 n, float[3, 5] x, float[5, 5] w) => (float[3, 5] y, float[K] sums)
    { y, sums = Loop (n, , x) <body = b (int64 i, bool c, float[3, 5] s) => (bool on, float[3, 5] next, float sum)
      { none = Constant <value = int64 {0}> () zero = Constant <value = float {0}> () h = MatMul (s, w)
        sum = ReduceSum <keepdims = 0> (h) is = Equal (i, none) up = Greater (sum, zero)
        next = If (is) <then_branch = t () => (float[3, 5] v) { v = Tanh (s) }, else_branch = e () => (float[3, 5] v)
          { v = If (up) <then_branch = k () => (float[3, 5] o) { o = Tanh (h) },
                         else_branch = l () => (float[3, 5] o) { q = Neg (h) o = Sigmoid (q) }> }>
        on = Identity (c) }> }"""


def test_iterations_that_branch_are_run_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: list[int] = []
    advance = program.Program.advance
    monkeypatch.setattr(program.Program, "advance", lambda *args: entries.append(1) or advance(*args))
    ours = session(FIRST)
    for n in (1, 2, 30):
        feeds = {"n": np.array(n), "x": X, "w": W}
        entries.clear()
        for got, wanted in zip(ours.run(None, feeds), expected(FIRST, feeds), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        assert len(entries) <= 1  # not one an iteration
