"""Guards: a plan says on which values of its inputs it depends, and what asked for them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.parser import parse_model

import jitrt
from jitrt.fusion.plan import Plan


def plan_of(text: str, **feeds: np.ndarray) -> Plan:
    session = jitrt.InferenceSession(parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}'))
    return session.get_plan(feeds)


X = np.zeros((2, 3), np.float32)
CASES = {
    "a shape": (
        "g (float[N, 3] x, int64[2] s) => (float[?, ?] y) { [r] y = Reshape (x, s) }",
        {"x": X, "s": np.array([3, -1])},
        ["s = [3, -1]: read as shape by Reshape 'r'"],
    ),
    "axes": (
        "g (float[N, 3] x, int64[K] a) => (float[?, ?] y) { [m] y = ReduceSum (x, a) }",
        {"x": X, "a": np.array([1])},
        ["a = [1]: read as axes by ReduceSum 'm'"],
    ),
    "a count": (
        "g (float[N, 3] x, int64[1] k) => (float[?, ?] y, int64[?, ?] i) { [top] y, i = TopK (x, k) }",
        {"x": X, "k": np.array([2])},
        ["k = [2]: read as K by TopK 'top'"],
    ),
    "a condition": (
        """g (float[N, 3] x, bool c) => (float[N, 3] y)
        { [choose] y = If (c) <then_branch = a () => (float[N, 3] p) { p = Neg (x) },
                               else_branch = b () => (float[N, 3] q) { q = Abs (x) }> }""",
        {"x": X, "c": np.array(True)},
        ["c = True: read as cond by If 'choose'"],
    ),
    "shape arithmetic of two inputs": (
        """g (float[N, 3] x, int64[1] rows, int64 columns) => (float[?, ?] y) {
            one = Constant <value_ints = [0]> () [widen] c = Unsqueeze (columns, one) [join] s = Concat <axis = 0> (rows, c)
            [spread] y = Expand (x, s) }""",
        {"x": X[:1], "rows": np.array([4]), "columns": np.array(3)},
        [
            "columns = 3: read as shape by Expand 'spread', by way of widen, join",
            "rows = [4]: read as shape by Expand 'spread', by way of widen, join",
        ],
    ),
    "what an operator is made of": (
        "g (float[N, 3] x, int64[2] s) => (float[?, ?] y) { [crop] y = CenterCropPad (x, s) }",
        {"x": X, "s": np.array([1, 5])},
        ["s = [1, 5]: read as shape by CenterCropPad 'crop'"],
    ),
    "what a branch reads": (
        """g (float[N, 3] x, int64[2] s) => (float[?, ?] y) { c = Constant <value = bool {1}> ()
        [choose] y = If (c) <then_branch = a () => (float[?, ?] p) { [r] p = Reshape (x, s) },
                               else_branch = b () => (float[?, ?] q) { q = Abs (x) }> }""",
        {"x": X, "s": np.array([6, 1])},
        ["s = [6, 1]: read as shape of its Reshape 'r' by If 'choose'"],
    ),
    "a long value": (
        "g (float[N] x, int64[K] s) => (float y) { [r] z = Reshape (x, s) y = ReduceSum <keepdims = 0> (z) }",
        {"x": X[0], "s": np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 3])},
        ["s = [1, 1, 1, 1, 1, 1, 1, 1 ...] (10 elements): read as shape by Reshape 'r'"],
    ),
    "a value of floating-point numbers": (
        """g (float[1, 1, N] x, float[3] k) => (float[?, ?, ?] y) { [up] y = Resize (x, , k) }""",
        {"x": X[None, :1], "k": np.array([1, 1, 2.5], np.float32)},
        ["k = [1.0, 1.0, 2.5]: read as scales by Resize 'up'"],
    ),
    "what another operator computes in the same way": (
        "g (float[N, 3] x, int64[2] s) => (float[?, ?] y) { t = Neg (s) [m] u = Neg (t) [r] y = Reshape (x, u) }",
        {"x": X, "s": np.array([3, 2])},
        ["s = [3, 2]: read as shape by Reshape 'r', by way of t, m"],
    ),
    "no value": ("g (float[N, 3] x) => (float[N, 3] y) { y = Exp (x) }", {"x": X}, []),
}


def test_a_plan_and_its_guards_print_what_they_hold_for():
    text, feeds, (line,) = CASES["a shape"]
    plan = plan_of(text, **feeds)
    assert str(plan.guards) == line
    assert str(plan).splitlines()[-1] == f"for {line}"
    assert str(plan_of(*CASES["no value"][:1], x=X).guards) == "no values: any inputs of these types and shapes"


def test_each_value_has_a_plan_with_a_guard_of_its_own():
    text, feeds, _ = CASES["a shape"]
    session = jitrt.InferenceSession(parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}'))
    found = [session.get_plan(feeds | {"s": np.array(s)}).guards[0] for s in ([3, 2], [6, 1], [3, 2])]
    assert [(guard.input, guard.value) for guard in found] == [("s", "[3, 2]"), ("s", "[6, 1]"), ("s", "[3, 2]")]
    assert len({guard.reader for guard in found}) == 1


def test_inputs_that_are_read_at_different_nodes_have_a_guard_each():
    plan = plan_of(
        """g (float[N, 3] x, int64[2] s, int64[1] a) => (float[?] z)
        { [r] y = Reshape (x, s) [m] z = ReduceMax <keepdims = 0> (y, a) }""",
        x=X, s=np.array([3, 2]), a=np.array([0]),
    )  # fmt: skip
    assert [str(guard) for guard in plan.guards] == [
        "s = [3, 2]: read as shape by Reshape 'r'", "a = [0]: read as axes by ReduceMax 'm'",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_guard_names_the_input_its_value_and_the_node_that_read_it(name):
    text, feeds, expected = CASES[name]
    assert sorted(map(str, plan_of(text, **feeds).guards)) == expected
