"""Loops whose states grow, beside onnxruntime: what they give, and that iterations neither plan nor enter Python."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from loop_models import check, expected, session

from jitrt import program
from jitrt.program import Program

rng = np.random.default_rng(13)
X = rng.standard_normal((3, 5)).astype(np.float32)
NUMBERS = (
    "zero = Constant <value = int64[1] {0}> () one = Constant <value = int64[1] {1}> ()"
    " end = Constant <value = int64[1] {-1}> () most = Constant <value = int64[1] {1000000}> ()"
)


def loop(states: dict[str, str], given: str, made: str, body: str, x: str = "N, 5") -> str:
    """A loop of n iterations over `states`, names and shapes, which begin as `given`; `body` computes those `made` and a number."""
    ends = ", ".join(f"float[?, ?] end_{name}" for name in states)
    taken = ", ".join(f"float[{shape}] {name}" for name, shape in states.items())
    left = ", ".join(f"float[?, ?] {name}" for name in made.split(", "))
    return f"""g (int64 n, float[{x}] x) => ({ends}, float[K] rows)
        {{ none = Constant <value = float[0, 5] {{}}> ()
           {", ".join(f"end_{name}" for name in states)}, rows = Loop (n, , {given})
           <body = b (int64 i, bool c, {taken}) => (bool on, {left}, float row) {{ on = Identity (c) {NUMBERS} {body} }}> }}"""


CASES = {
    "a row each time": loop(
        {"s": "R, 5"}, "x", "p",
        "last = Slice (s, end, most, zero) t = Tanh (last) p = Concat <axis = 0> (s, t) row = ReduceSum <keepdims = 0> (t)",
    ),
    "two rows each time, in front": loop(
        {"s": "R, 5"}, "x", "p",
        "f = Slice (s, zero, one, zero) g = Sin (f) h = Cos (f) p = Concat <axis = 0> (g, h, s) row = ReduceSum <keepdims = 0> (s)",
    ),
    "from nothing": loop(
        {"r": "A, 5", "s": "R, 5"}, "x, none", "q, p",
        "q = Tanh (r) p = Concat <axis = 0> (s, q) row = ReduceMean <keepdims = 0> (q)",
    ),
    "columns": loop(
        {"s": "3, R"}, "x", "p",
        "f = Slice (s, zero, one, one) g = Tanh (f) p = Concat <axis = 1> (s, g) row = ReduceSum <keepdims = 0> (p)",
        "3, N",
    ),
    "two states that grow differently": loop(
        {"r": "A, 5", "s": "R, 5"}, "x, none", "q, p",
        "f = Slice (r, zero, one, zero) g = Tanh (f) q = Concat <axis = 0> (r, g) p = Concat <axis = 0> (s, f, g)"
        " row = ReduceSum <keepdims = 0> (p)",
    ),
    "all that there is changes": loop(
        {"s": "R, 5"}, "x", "p",
        "f = Slice (s, zero, one, zero) t = Tanh (s) m = Mul (t, f) p = Concat <axis = 0> (f, m) d = Sub (m, t)"
        " v = Softmax <axis = 0> (d) row = ReduceMax <keepdims = 0> (v)",
    ),
    "a product with all so far": loop(
        {"s": "R, 5"}, "x", "p",
        "t = Transpose <perm = [1, 0]> (s) m = MatMul (t, s) k = Tanh (m) f = Slice (k, zero, one, zero)"
        " p = Concat <axis = 0> (s, f) row = ReduceSum <keepdims = 0> (f)",
    ),
    "a slice by the number of the iteration": loop(
        {"s": "R, 5"}, "none", "p",
        "o = Constant <value = int64 {1}> () j = Add (i, o) u = Unsqueeze (i, zero) v = Unsqueeze (j, zero)"
        " f = Slice (x, u, v, zero) g = Exp (f) p = Concat <axis = 0> (s, g) row = ReduceSum <keepdims = 0> (p)",
    ),
}  # fmt: skip
DOUBLED = loop({"s": "R, 5"}, "x", "p", "h = Tanh (s) p = Concat <axis = 0> (s, h) row = ReduceMean <keepdims = 0> (h)")


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How often a body is traced, and entered from Python."""
    counts = {"traces": 0, "entries": 0}
    trace, advance = program.trace, Program.advance

    def counting(name: str, function):
        def call(*args):
            counts[name] += 1
            return function(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(program, "trace", counting("traces", trace))
        patch.setattr(Program, "advance", counting("entries", advance))
        yield counts


@pytest.mark.parametrize("case", CASES)
def test_loops_whose_states_grow_give_what_onnxruntime_gives(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, ours = CASES[case], session(CASES[case])
    x = rng.standard_normal((3, 40) if case == "columns" else (200, 5) if "slice" in case else (3, 5)).astype(np.float32)
    for n in (1, 20, 0, 150, 5):
        feeds = {"n": np.array(n), "x": x}
        check(ours.run(None, feeds), expected(text, feeds))
    feeds = {"n": np.array(150), "x": x}
    with counted(monkeypatch) as counts:
        check(ours.run(None, feeds), expected(text, feeds))
    assert counts["traces"] == 0
    assert counts["entries"] <= 6  # sizes 0 and 1 have plans of their own; then 64 and more iterations at a time


def test_states_that_double_are_run_one_iteration_at_a_time() -> None:
    for n in (0, 1, 6):
        feeds = {"n": np.array(n), "x": X}
        check(session(DOUBLED).run(None, feeds), expected(DOUBLED, feeds))


def test_many_iterations_on_large_states() -> None:
    """So many that memory grows several times, and so much that threads share steps."""
    text = CASES["all that there is changes"]
    ours = session(text)
    for rows, n in ((2, 1500), (9000, 70)):
        feeds = {"n": np.array(n), "x": rng.standard_normal((rows, 5)).astype(np.float32)}
        check(ours.run(None, feeds), expected(text, feeds))


def test_what_grew_is_the_callers_own() -> None:
    text, feeds = CASES["a row each time"], {"n": np.array(9), "x": X.copy()}
    ours = session(text)
    first = ours.run(None, feeds)
    for _ in range(3):
        again = ours.run(None, feeds)
        check(again, first)
        again[0][:] = 7
        np.testing.assert_array_equal(feeds["x"], X)


def test_one_session_grows_states_on_several_threads_at_once() -> None:
    text = CASES["a row each time"]
    ours = session(text)
    wanted = {n: expected(text, {"n": np.array(n), "x": X}) for n in (3, 50, 170)}

    def work(_: int) -> None:
        for n in [3, 50, 170] * 3:
            check(ours.run(None, {"n": np.array(n), "x": X}), wanted[n])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))


ENDS = """
    g (int64 n, float[N, 5] x, float most) => (float[M, 5] y)
    { y = Loop (n, , x) <body = b (int64 i, bool c, float[R, 5] s) => (bool on, float[P, 5] p)
      { zero = Constant <value = int64[1] {0}> () one = Constant <value = int64[1] {1}> () f = Slice (s, zero, one, zero)
        g = Abs (f) p = Concat <axis = 0> (s, g) h = Abs (p) sum = ReduceSum <keepdims = 0> (h) on = Less (sum, most) }> }"""


def test_a_condition_ends_a_loop_that_grows() -> None:
    ours = session(ENDS)
    for most in (0, 30, 1e3, 1e4):
        feeds = {"n": np.array(2000), "x": X, "most": np.array(most, np.float32)}
        check(ours.run(None, feeds), expected(ENDS, feeds))


FAILS = """
    g (int64 n, float[N] x) => (float[M] y)
    { y = Loop (n, , x) <body = b (int64 i, bool c, float[R] s) => (bool on, float[P] p)
      { on = Identity (c) zero = Constant <value = int64[1] {0}> () k = Unsqueeze (i, zero) f = Gather (x, k)
        p = Concat <axis = 0> (s, f) }> }"""


def test_an_iteration_that_fails_is_named() -> None:
    ours, x = session(FAILS), np.arange(90, dtype=np.float32)
    (y,) = ours.run(None, {"n": np.array(90), "x": x})
    np.testing.assert_array_equal(y, np.concatenate([x, x]))
    with pytest.raises(RuntimeError, match="iteration 90: "):
        ours.run(None, {"n": np.array(99), "x": x})
