"""Loops as steps of native plans: alone among other nodes, and in the bodies of other loops."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from loop_models import check, expected, session

from jitrt import nest
from jitrt.display import plan_html
from jitrt.fusion.plan import Plan
from jitrt.ops.kernels import nest as words
from jitrt.program import Program

rng = np.random.default_rng(17)
X = rng.standard_normal((2, 5)).astype(np.float32)
W = (rng.standard_normal((5, 5)) / 3).astype(np.float32)
STEP = "h = MatMul (s, w) t = Tanh (h) next = Add (t, s) on = Identity (c)"
BODY = f"<body = q (int64 i, bool c, float[2, 5] s) => (bool on, float[2, 5] next) {{ {STEP} }}>"
BETWEEN = f"""
    g (int64 n, float[2, 5] x, float[5, 5] w) => (float[2, 5] y, float[2, 5] z)
    {{ a = Exp (x) b = Loop (n, , a) {BODY} z = Mul (b, x) k = Loop (n, , z) {BODY} y = Sub (k, b) }}"""
TWO = f"""
    g (int64 n, int64 m, float[2, 5] x, float[5, 5] w) => (float[2, 5] y, float[K, 2, 5] rows)
    {{ y, rows = Loop (n, , x) <body = o (int64 j, bool d, float[2, 5] r) => (bool od, float[2, 5] nr, float[2, 5] row)
      {{ od = Identity (d) a = Sin (r) b = Loop (m, , a) {BODY} nr = Mul (b, x) row = Add (nr, r) }}> }}"""
THREE = f"""
    g (int64 n, int64 m, float[2, 5] x, float[5, 5] w) => (float[2, 5] y)
    {{ y = Loop (n, , x) <body = p (int64 u, bool v, float[2, 5] e) => (bool ov, float[2, 5] ne)
      {{ ov = Identity (v) ne = Loop (m, , e) <body = o (int64 j, bool d, float[2, 5] r) => (bool od, float[2, 5] nr)
        {{ od = Identity (d) a = Sin (r) b = Loop (m, , a) {BODY} nr = Mul (b, x) }}> }}> }}"""
# an inner trip count that the outer body computes, the counter as data, states that change places, that are handed through, and a
# condition that ends the inner loop or does not let it begin
MIXED = """
    g (int64 n, float[2, 5] x, float most) => (float[2, 5] y, float[2, 5] z, int64 total)
    { nothing = Constant <value = int64 {0}> () y, z, total = Loop (n, , x, x, nothing)
      <body = o (int64 j, bool d, float[2, 5] r, float[2, 5] q, int64 k) => (bool od, float[2, 5] nr, float[2, 5] nq, int64 nk)
      { od = Identity (d) two = Constant <value = int64 {2}> () limit = Mul (j, two) sum = ReduceSum <keepdims = 0> (r)
        begin = Less (sum, most)
        nr, nq, same, nk = Loop (limit, begin, r, q, x, k)
        <body = i (int64 i, bool c, float[2, 5] a, float[2, 5] b, float[2, 5] e, int64 f)
          => (bool on, float[2, 5] na, float[2, 5] nb, float[2, 5] ne, int64 nf)
        { na = Neg (b) h = Abs (a) nb = Add (h, e) ne = Identity (e) nf = Add (f, i) v = ReduceSum <keepdims = 0> (nb)
          on = Less (v, most) }> }> }"""
# rows, of which there are fewer than the trip count says where the condition ends the loop
ROWS = """
    g (int64 n, float[2, 5] x, float most) => (float[2, 5] y, float[K, 2, 5] rows, float[K] sums, int64[K] numbers, float[2, 5] z)
    { a = Abs (x) y, states, sums, numbers = Loop (n, , a) <body = b (int64 i, bool c, float[2, 5] s)
        => (bool on, float[2, 5] next, float[2, 5] row, float sum, int64 number)
      { next = Add (s, s) row = Neg (next) sum = ReduceSum <keepdims = 0> (next) on = Less (sum, most) number = Add (i, i) }>
      rows = Exp (states) z = Add (y, a) }"""
FEEDS = {"x": X, "w": W}
CASES = {
    "between other nodes": (BETWEEN, [{"n": n} for n in (0, 1, 2, 7, -1)], FEEDS),
    "two levels": (TWO, [{"n": n, "m": m} for n, m in ((0, 3), (1, 1), (5, 3), (4, 2), (3, 0), (70, 2))], FEEDS),
    "three levels": (THREE, [{"n": n, "m": m} for n, m in ((1, 1), (2, 3), (3, 2), (2, 0))], FEEDS),
    "rows": (ROWS, [{"n": n} for n in (0, 1, 2, 5, 50)], {"x": X, "most": np.array(200, np.float32)}),
    "all kinds of states": (MIXED, [{"n": n} for n in (0, 1, 2, 3, 6, 9)], {"x": X, "most": np.array(40, np.float32)}),
}


@contextmanager
def entered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Program]]:
    """The bodies that Python runs, one by one."""
    found: list[Program] = []
    advance = Program.advance
    with monkeypatch.context() as patch:
        patch.setattr(Program, "advance", lambda self, *args: found.append(self) or advance(self, *args))
        yield found


@pytest.mark.parametrize("case", CASES)
def test_loops_in_plans_and_in_loops_give_what_onnxruntime_gives(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, counts, rest = CASES[case]
    ours = session(text)
    for given in counts:
        feeds = {**rest, **{name: np.array(n, np.int64) for name, n in given.items()}}
        with entered(monkeypatch) as found:
            check(ours.run(None, feeds), expected(text, feeds))
        # what no rows are is Python's business, and so are many iterations of a body with loops
        assert len(found) <= (case in ("two levels", "rows") and given["n"] in (0, 70))


@pytest.mark.parametrize(("where", "name", "limit"), [(words, "MOST", 3), (nest, "_WORK", 2000), (nest, "AT_ONCE", 100)])
def test_a_loop_of_many_iterations_is_left_to_python(where: object, name: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, name, limit)
    for case in CASES:
        text, counts, rest = CASES[case]
        ours = session(text)
        for given in counts:
            feeds = {**rest, **{name: np.array(n, np.int64) for name, n in given.items()}}
            check(ours.run(None, feeds), expected(text, feeds))


FAILS = """
    g (int64 n, float[9] x) => (float y)
    { zero = Constant <value = float {0}> () y = Loop (n, , zero) <body = o (int64 j, bool d, float r) => (bool od, float nr)
      { od = Identity (d) nr = Loop (j, , r) <body = b (int64 i, bool c, float s) => (bool on, float next)
        { on = Identity (c) k = Add (i, j) one = Gather (x, k) next = Add (s, one) }> }> }"""


def test_an_index_out_of_range_names_the_iteration_of_each_level() -> None:
    ours, x = session(FAILS), np.arange(9, dtype=np.float32)
    for n in (0, 1, 5):
        check(ours.run(None, {"n": np.array(n), "x": x}), expected(FAILS, {"n": np.array(n), "x": x}))
    with pytest.raises(RuntimeError, match="Loop 'y', iteration 5: Loop 'nr', iteration 4: "):
        ours.run(None, {"n": np.array(9), "x": x})
    check(ours.run(None, {"n": np.array(5), "x": x}), expected(FAILS, {"n": np.array(5), "x": x}))


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("text", [BETWEEN, ROWS])
def test_results_are_the_callers_own(text: str, n: int) -> None:
    more = {"w": W} if text is BETWEEN else {"most": np.array(30, np.float32)}
    ours, x, feeds = session(text), X.copy(), {"n": np.array(n), **more}
    first = ours.run(None, {**feeds, "x": x})
    kept = [y.copy() for y in first]
    for y in first:
        y[:] = 7
    np.testing.assert_array_equal(x, X)
    second = ours.run(None, {**feeds, "x": x})
    check(second, kept)
    ours.run(None, {**feeds, "x": -x})
    check(second, kept)


def test_threads_that_run_one_session_have_loops_of_their_own() -> None:
    ours = session(TWO)
    sizes = [(3, 2), (20, 5), (50, 1)]
    wanted = {(n, m): session(TWO).run(None, {**FEEDS, "n": np.array(n), "m": np.array(m)}) for n, m in sizes}

    def work(_: int) -> None:
        for n, m in sizes * 5:
            check(ours.run(None, {**FEEDS, "n": np.array(n), "m": np.array(m)}), wanted[n, m])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))


def test_large_states_are_shared_by_threads() -> None:
    text = TWO.replace("[2, 5]", "[700, 300]").replace("K, 2, 5", "K, 700, 300").replace("[5, 5]", "[300, 300]")
    x, w = rng.standard_normal((700, 300)).astype(np.float32), (rng.standard_normal((300, 300)) / 20).astype(np.float32)
    feeds = {"n": np.array(3), "m": np.array(2), "x": x, "w": w}
    check(session(text).run(None, feeds), expected(text, feeds))


def test_a_batch_that_varies_changes_nothing() -> None:
    text = BETWEEN.replace("[2, 5]", "[N, 5]")
    ours = session(text)
    for rows in (2, 3, 4, 9, 1, 30, 2):
        feeds = {"n": np.array(4), "x": rng.standard_normal((rows, 5)).astype(np.float32), "w": W}
        check(ours.run(None, feeds), expected(text, feeds))


def shown(plan: Plan) -> list[str]:
    """What a plan's table says of its steps that have no kernel."""
    table = str(plan).splitlines()[1 : 1 + len(plan.steps)]
    return [word for line in table for word in ("(host)", "(loop)") if word in line]


def test_a_loop_that_native_code_begins_is_no_step_of_pythons() -> None:
    ours, feeds = session(BETWEEN), {**FEEDS, "n": np.array(3)}
    for _ in range(2):
        plan = ours.get_plan(feeds)
        assert shown(plan) == ["(loop)"] * 2
        assert plan.host_nodes == ()
        assert "(host)" not in plan_html(plan)
        check(ours.run(None, feeds), expected(BETWEEN, feeds))
    times = {step.name: step.seconds for step in ours.profile(feeds, repeat=2).steps}
    assert times["(loop)"] > 0
    assert "(host)" not in times


# a body that takes slices, one whose state grows, and one that is Python's
SCANNED = """
    g (float[9, 3] x) => (float[3] y, float[9, 3] z)
    { zero = Constant <value = float[3] {0, 0, 0}> ()
      y, z = Scan <num_scan_inputs = 1, body = b (float[3] s, float[3] e) => (float[3] n, float[3] r)
      { n = Add (s, e) r = Neg (n) }> (zero, x) }"""
GROWN = """
    g (float[9, 3] x) => (float[K, 3] y)
    { n = Constant <value = int64 {9}> () y = Loop (n, , x) <body = b (int64 i, bool c, float[M, 3] s) => (bool d, float[N, 3] t)
      { d = Identity (c) t = Concat <axis = 0> (s, x) }> }"""
LISTED = """
    g (float[9, 3] x) => (float[K, 3] y)
    { n = Constant <value = int64 {9}> () e = SequenceEmpty ()
      q = Loop (n, , e) <body = b (int64 i, bool c, seq(float[9, 3]) s) => (bool d, seq(float[9, 3]) t)
      { d = Identity (c) t = SequenceInsert (s, x) }> y = ConcatFromSequence <axis = 0> (q) }"""


@pytest.mark.parametrize(("text", "node", "native"), [(SCANNED, "y", True), (GROWN, "y", True), (LISTED, "q", False)])
def test_a_loop_that_python_begins_is_native_once_its_iterations_were(text: str, node: str, native: bool) -> None:
    ours, feeds = session(text), {"x": np.arange(27, dtype=np.float32).reshape(9, 3)}
    assert node in ours.get_plan(feeds).host_nodes
    check(ours.run(None, feeds), expected(text, feeds))
    plan = ours.get_plan(feeds)
    assert (node not in plan.host_nodes) == native
    assert ("(loop)" in shown(plan)) == native
