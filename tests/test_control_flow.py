"""Loop, Scan and SequenceMap beside onnxruntime: what they give, what they trace, and what their errors say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import onnx.parser
import onnxruntime
import pytest

import jitrt as ort
from jitrt import program
from jitrt.fusion.importer import load
from jitrt.fusion.interpret import Interpreter
from jitrt.ops.builder import OperatorError
from jitrt.program import Program
from jitrt.store import Store

HEAD = '<ir_version: 10, opset_import: ["": 20]>'
rng = np.random.default_rng(5)
X = rng.standard_normal((1, 5)).astype(np.float32)
W = (rng.standard_normal((5, 5)) / 3).astype(np.float32)
STACK = rng.standard_normal((7, 3, 5)).astype(np.float32)


def count(n: int | None) -> np.ndarray:
    return np.array(n, np.int64)


def truth(value: bool) -> np.ndarray:
    return np.array(value)


# a few nodes of each kind: contractions, fused loops, a row that is a state, and one that is not
STEP = "h = MatMul (s, w) t = Tanh (h) next = Add (t, x) row = Mul (t, t) on = Identity (c)"
LOOP = f"""
    g (int64 n, bool go, float[1, 5] x, float[5, 5] w) => (float[1, 5] y, float[K, 1, 5] rows, float[K, 1, 5] states)
    {{ y, rows, states = Loop (n, go, x) <body = b (int64 i, bool c, float[1, 5] s)
         => (bool on, float[1, 5] next, float[1, 5] row, float[1, 5] same) {{ {STEP} same = Identity (next) }}> }}"""
FEEDS = {"n": count(10), "go": truth(True), "x": X, "w": W}
WHILE = """
    g (float[1, 5] x, float limit) => (float[1, 5] y, float[K, 1] sums)
    { go = Constant <value = bool {1}> ()
      y, sums = Loop (, go, x) <body = b (int64 i, bool c, float[1, 5] s) => (bool on, float[1, 5] next, float[1] sum)
      { next = Add (s, s) z = Abs (next) axis = Constant <value = int64[1] {1}> () sum = ReduceSum <keepdims = 0> (z, axis)
        all = ReduceMax <keepdims = 0> (sum) on = Less (all, limit) }> }"""
FIBONACCI = """
    g (int64 n, int64 a, int64 b) => (int64 x, int64 y, float kept, int64[K] seen, int64[K] at, int64[K] fixed)
    { half = Constant <value = float {0.5}> () x, y, kept, seen, at, fixed = Loop (n, , a, b, half)
      <body = q (int64 i, bool c, int64 p, int64 q, float k)
        => (bool on, int64 q2, int64 sum, float k2, int64 old, int64 at, int64 five)
      { on = Identity (c) q2 = Identity (q) sum = Add (p, q) k2 = Identity (k) old = Identity (p) at = Mul (i, i)
        five = Constant <value = int64 {5}> () }> }"""
SCAN = """
    g (float[1, 5] x, float[5, 5] w, float[N, 3, 5] a, float[3, N] b) => (float[1, 5] y, float[A, B, C] p, float[D, E] q)
    { y, p, q = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [DIRECTIONS],
                      scan_output_axes = [1, 0], scan_output_directions = [1, 0],
      body = r (float[1, 5] s, float[3, 5] u, float[3] v) => (float[1, 5] next, float[3, 5] m, float[3] k)
      { h = MatMul (s, w) t = Tanh (h) g = Add (u, t) axis = Constant <value = int64[1] {0}> ()
        next = ReduceMean (g, axis) m = Sub (u, s) sum = Add (v, v) k = Relu (sum) }> (x, a, b) }"""
NESTED = """
    g (float[1, 5] x, float[5, 5] w, float[7, 3, 5] a, int64 n) => (float[1, 5] y, float[7, K, 3, 5] p)
    { two = Constant <value = float {2}> () big = Mul (x, two)
      y, p = Scan <num_scan_inputs = 1, body = outer (float[1, 5] s, float[3, 5] u) => (float[1, 5] next, float[K, 3, 5] m)
      { v = Add (u, big)
        next, m = Loop (n, , s) <body = inner (int64 i, bool c, float[1, 5] r) => (bool on, float[1, 5] nr, float[3, 5] row)
        { h = MatMul (r, w) t = Tanh (h) nr = Add (t, big) row = Mul (v, t) on = Identity (c) }> }> (x, a) }"""
GROWING = """
    g (int64 n, float[N, 5] x) => (float[M, 5] y, float[K] sums)
    { y, sums = Loop (n, , x) <body = b (int64 i, bool c, float[R, 5] s) => (bool on, float[P, 5] next, float sum)
      { on = Identity (c) two = Constant <value = int64[1] {2}> () zero = Constant <value = int64[1] {0}> ()
        one = Constant <value = int64[1] {1}> () first = Slice (s, zero, one, zero) more = Tanh (first)
        next = Concat <axis = 0> (s, more) sum = ReduceSum <keepdims = 0> (next) }> }"""
# slices whose places follow from the iteration's number, which the body also computes with, and whole rows in between
SLICED = """
    g (int64 n, float[1, 5] x, float[40, 5] a) => (float[1, 5] y, float[K, 2, 5] rows, int64[K] at)
    { none = Constant <value = int64[1] {0}> () one = Constant <value = int64 {1}> () three = Constant <value = int64 {3}> ()
      y, rows, at = Loop (n, , x) <body = b (int64 i, bool c, float[1, 5] s)
        => (bool on, float[1, 5] next, float[2, 5] row, int64 j)
      { on = Identity (c) j = Add (i, one) k = Add (i, three) f = Unsqueeze (i, none) t = Unsqueeze (j, none)
        v = Unsqueeze (k, none) p = Slice (a, f, t, none) r = Slice (a, t, v, none) q = Add (p, s) next = Tanh (q)
        row = Mul (r, next) }> }"""
ODD = """
    g (int64[1] n, float[2] x) => (float[2] y, float[K, 2, 1] rows, int64[K, 1] at)
    { limit = Constant <value = float {50}> () column = Constant <value = int64[2] {2, 1}> ()
      y, rows, at = Loop (n, , x) <body = b (int64[1] i, bool[1] c, float[2] s)
        => (bool[1] on, float[2] next, float[2, 1] row, int64[1] j)
      { next = Add (s, s) row = Reshape (next, column) most = ReduceMax <keepdims = 1> (next) on = Less (most, limit)
        j = Add (i, i) }> }"""
SEQUENCE = """
    g (int64 n, float[2] x) => (float[M] y)
    { e = SequenceEmpty () s = Loop (n, , e) <body = b (int64 i, bool c, seq(float[2]) q) => (bool on, seq(float[2]) more)
      { on = Identity (c) f = Cast <to = 1> (i) m = Mul (x, f) more = SequenceInsert (q, m) }>
      y = ConcatFromSequence <axis = 0> (s) }"""
TEXTS = """
    g (int64 n, string[2] a, string[2] b) => (string[2] y, string[2] z)
    { y, z = Loop (n, , a, b) <body = q (int64 i, bool c, string[2] s, string[2] t) => (bool on, string[2] u, string[2] v)
      { on = Identity (c) u = Identity (t) v = Identity (s) }> }"""
SCAN_FEEDS = {"x": X, "w": W, "a": STACK, "b": rng.standard_normal((3, 7)).astype(np.float32)}
NESTED_FEEDS = {"x": X, "w": W, "a": STACK, "n": count(4)}
CASES = {
    "a loop": (LOOP, FEEDS),
    "one iteration": (LOOP, {**FEEDS, "n": count(1)}),
    "two iterations": (LOOP, {**FEEDS, "n": count(2)}),
    "more iterations than one native call has": (LOOP, {**FEEDS, "n": count(1000)}),
    "no iteration": (LOOP, {**FEEDS, "n": count(0)}),
    "a negative number of iterations": (LOOP, {**FEEDS, "n": count(-3)}),
    "a condition that does not hold at the start": (LOOP, {**FEEDS, "go": truth(False)}),
    "a condition that ends it": (WHILE, {"x": X, "limit": np.array(1e6, np.float32)}),
    "a condition that ends it after one": (WHILE, {"x": X, "limit": np.array(0, np.float32)}),
    "a condition that ends it after many": (WHILE, {"x": X * 1e-30, "limit": np.array(1e30, np.float32)}),
    "NaN and infinity": (LOOP, {**FEEDS, "x": np.array([[np.nan, np.inf, -np.inf, 0, 1]], np.float32)}),
    "states that change places": (FIBONACCI, {"n": count(40), "a": count(0), "b": count(1)}),
    "states that change places an odd number of times": (FIBONACCI, {"n": count(41), "a": count(2), "b": count(1)}),
    "a scan": (SCAN.replace("DIRECTIONS", "0, 1"), SCAN_FEEDS),
    "a scan from the end": (SCAN.replace("DIRECTIONS", "1, 0"), SCAN_FEEDS),
    "a loop in a scan": (NESTED, NESTED_FEEDS),
    "a loop without iterations in a scan": (NESTED, {**NESTED_FEEDS, "n": count(0)}),
    "slices": (SLICED, {"n": count(30), "x": X, "a": rng.standard_normal((40, 5)).astype(np.float32)}),
    "counter and condition of one dimension": (ODD, {"n": np.array([9]), "x": np.array([1, 2], np.float32)}),
    "as many iterations as int64 can count": (ODD, {"n": np.array([2**63 - 1]), "x": np.array([1, 2], np.float32)}),
    "a sequence": (SEQUENCE, {"n": count(3), "x": np.array([1, 2], np.float32)}),
    "texts": (TEXTS, {"n": count(3), "a": np.array(["a", "b"], object), "b": np.array(["c", ""], object)}),
    "states that grow": (GROWING, {"n": count(9), "x": STACK[0]}),
}


def session(text: str, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(onnx.parser.parse_model(HEAD + text), options)


def peer(text: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = onnx.parser.parse_model(HEAD + text).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check(got: list, expected: list) -> None:
    for one, other in zip(got, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype == object:
            assert one.tolist() == other.tolist()
        else:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How often a graph is traced, a plan made, a kernel got ready, and Python enters a body."""
    counts = dict.fromkeys(("traces", "plans", "kernels", "entries"), 0)

    def counting(name: str, function, amount=lambda *_: 1):
        def call(*args, **kwargs):
            counts[name] += amount(*args)
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(program, "trace", counting("traces", program.trace))
        patch.setattr(program, "make_plan", counting("plans", program.make_plan))
        patch.setattr(Program, "advance", counting("entries", Program.advance))
        missing = Store._missing
        patch.setattr(Store, "prepare", counting("kernels", Store.prepare, lambda store, specs, *_: len(missing(store, specs))))
        yield counts


@pytest.mark.parametrize("case", CASES)
def test_loops_give_what_onnxruntime_gives(case: str) -> None:
    text, feeds = CASES[case]
    ours, expected = session(text, threads=2), peer(text).run(None, feeds)
    check(ours.run(None, feeds), expected)
    check(ours.run(None, feeds), expected)


@pytest.mark.parametrize("case", [name for name in CASES if "many" not in name and "more" not in name])
def test_loops_on_numpy_alone_give_the_same(case: str) -> None:
    text, feeds = CASES[case]
    graph = load(onnx.parser.parse_model(HEAD + text)).graph
    check(Interpreter(graph).run({k: np.asarray(v) for k, v in feeds.items()}), peer(text).run(None, feeds))


@pytest.mark.parametrize("case", ["a loop", "states that change places", "a loop in a scan", "a scan"])
def test_further_iterations_and_runs_trace_plan_and_compile_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, feeds = CASES[case]
    single = {"a": STACK[:1], "b": SCAN_FEEDS["b"][:, :1]} if case == "a scan" else {"n": count(1)}
    with counted(monkeypatch) as few:
        session(text).run(None, feeds | single)
    with counted(monkeypatch) as many:
        ours = session(text)
        ours.run(None, feeds)
    assert {k: many[k] for k in ("traces", "plans")} == {k: few[k] for k in ("traces", "plans")}
    assert many["plans"] > 0
    with counted(monkeypatch) as again:
        ours.run(None, feeds)
    assert (again["traces"], again["plans"], again["kernels"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("case", "entries"), [("a loop", 0), ("states that change places", 0), ("a scan", 1), ("a loop in a scan", 7)]
)
def test_python_is_not_entered_between_iterations_of_a_native_body(
    case: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, feeds = CASES[case]
    ours = session(text)
    with counted(monkeypatch) as counts:
        ours.run(None, feeds)
    assert counts["entries"] == entries


def test_slices_by_the_number_of_the_iteration_are_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two numbers, 0 and 1, have plans of their own; the third one's serves all others."""
    ours, feeds = session(SLICED), CASES["slices"][1]
    ours.run(None, feeds)
    for n in (30, 37, 5):
        with counted(monkeypatch) as counts:
            ours.run(None, {**feeds, "n": count(n)})
        assert counts == {"traces": 0, "plans": 0, "kernels": 0, "entries": 3}


def test_a_slice_that_reaches_the_end_is_not_taken_for_a_whole_one() -> None:
    feeds = {**CASES["slices"][1], "n": count(40)}
    found = error_of(session(SLICED), feeds)
    wanted = "scan output 'row' is float32[1, 5], in the iterations before it was float32[2, 5]"
    assert found == f"Loop 'y', iteration 38: {wanted}"


def test_iterations_whose_states_grow_share_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = session(GROWING)
    ours.run(None, {"n": count(9), "x": STACK[0]})
    with counted(monkeypatch) as counts:
        (y, sums) = ours.run(None, {"n": count(30), "x": STACK[0]})
    assert (y.shape, sums.shape) == ((33, 5), (30,))
    assert counts["traces"] <= 1


HANDED = """
    g (int64 n, float[3] x) => (float[3] y, float[3] z, float[3] t) <float[3] w = {1, 2, 3}>
    { u = Exp (x) y, z, t = Loop (n, , w, x, u) <body = b (int64 i, bool c, float[3] p, float[3] q, float[3] r)
      => (bool on, float[3] p2, float[3] q2, float[3] r2)
      { on = Identity (c) p2 = Exp (p) q2 = Identity (q) r2 = Identity (r) }> }"""


@pytest.mark.parametrize("n", [0, 1, 2])
def test_what_a_loop_hands_through_is_the_callers_own(n: int) -> None:
    """Results may be written: neither constants, nor inputs, nor the memory of the next run are among them."""
    ours, x = session(HANDED), np.ones(3, np.float32)
    first = ours.run(None, {"n": count(n), "x": x})
    expected = [y.copy() for y in first]
    np.testing.assert_allclose(expected[2], np.exp(x), rtol=1e-6)
    for y in first:
        y[:] = 7
    np.testing.assert_array_equal(x, 1)
    second = ours.run(None, {"n": count(n), "x": x})
    check(second, expected)
    ours.run(None, {"n": count(n), "x": -x})
    check(second, expected)


KEPT = """
    g (int64 n, float[2] x) => (float[M] y)
    { e = SequenceEmpty () u = Exp (x) s = Loop (n, , e) <body = b (int64 i, bool c, seq(float[2]) q)
      => (bool on, seq(float[2]) more) { on = Identity (c) more = SequenceInsert (q, u) }>
      v = Sin (x) w = Mul (v, v) joined = ConcatFromSequence <axis = 0> (s) z = ReduceSum (w) y = Add (joined, z) }"""


def test_a_sequence_keeps_what_a_body_captured() -> None:
    x = np.array([1, 2], np.float32)
    check(session(KEPT).run(None, {"n": count(3), "x": x}), peer(KEPT).run(None, {"n": count(3), "x": x}))


def test_an_iteration_reads_nothing_of_the_one_after_the_next() -> None:
    """A large state: it goes to and fro between two buffers, and what the caller gave stays."""
    text = LOOP.replace("float[1, 5]", "float[300, 5]").replace("1, 5", "300, 5")
    x = rng.standard_normal((300, 5)).astype(np.float32)
    feeds, kept = {**FEEDS, "x": x}, x.copy()
    check(session(text, threads=2).run(None, feeds), peer(text).run(None, feeds))
    np.testing.assert_array_equal(x, kept)


def test_one_session_runs_loops_on_several_threads_at_once() -> None:
    ours = session(LOOP, threads=2)
    expected = {n: peer(LOOP).run(None, {**FEEDS, "n": count(n)}) for n in (3, 50, 200)}

    def work(_: int) -> None:
        for n in [3, 50, 200] * 5:
            check(ours.run(None, {**FEEDS, "n": count(n)}), expected[n])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))


# -- errors
PICK = """
    g (int64 n, float[3] x) => (float y, float[K] rows)
    { zero = Constant <value = float {0}> ()
      y, rows = Loop (n, , zero) <body = b (int64 i, bool c, float s) => (bool on, float next, float row)
      { on = Identity (c) one = Gather (x, i) next = Add (s, one) row = Identity (next) }> }"""


def error_of(ours: ort.InferenceSession, feeds: Mapping[str, object]) -> str:
    with pytest.raises((RuntimeError, ValueError)) as caught:
        ours.run(None, feeds)
    return str(caught.value)


def test_a_kernel_that_fails_says_in_which_iteration() -> None:
    feeds = {"n": count(9), "x": np.ones(3, np.float32)}
    text = error_of(session(PICK), feeds)
    assert text == "Loop 'y', iteration 3: one: an index lies outside the dimension that it selects from"
    with pytest.raises(Exception, match="indices element out of data bounds"):
        peer(PICK).run(None, feeds)


def test_each_level_of_nested_bodies_is_named() -> None:
    text = """
        g (float[4, 3] a, int64 n) => (float y, float[4, K] p)
        { zero = Constant <value = float {0}> ()
          y, p = Scan <num_scan_inputs = 1, body = outer (float s, float[3] u) => (float next, float[K] m)
          { total = ReduceSum <keepdims = 0> (u) whole = Cast <to = 7> (total)
            next, m = Loop (n, , s) <body = inner (int64 i, bool c, float r) => (bool on, float nr, float row)
            { at = Add (i, whole) one = Gather (u, at) nr = Add (r, one) row = Identity (nr) on = Identity (c) }> }> (zero, a) }"""
    a = np.zeros((4, 3), np.float32)
    a[2] = 0.25, 0.25, 0.5
    found = error_of(session(text), {"a": a, "n": count(3)})
    assert found == "Scan 'y', iteration 2: Loop 'next', iteration 2: one: an index lies outside the dimension that it selects from"


def test_an_operator_that_does_not_fit_says_in_which_iteration() -> None:
    text = GROWING.replace("more = Tanh (first)", "t = Tanh (first) e = Add (s, x) d = Sub (e, e) none = Slice (d, zero, zero) "
                           "more = Concat <axis = 0> (t, none)")  # fmt: skip
    found = error_of(session(text), {"n": count(9), "x": STACK[0]})
    assert found.startswith("Loop 'y', iteration 1: Add 'e': cannot broadcast")


def test_an_element_of_a_sequence_that_fails_is_named() -> None:
    text = """
        g (float[3] x, int64 a, int64 b) => (seq(float) y)
        { s = SequenceConstruct (a, b) y = SequenceMap (s) <body = m (int64 i) => (float one) { one = Gather (x, i) }> }"""
    feeds = {"x": np.ones(3, np.float32), "a": count(0), "b": count(5)}
    found = error_of(session(text), feeds)
    assert found == "SequenceMap 'y', iteration 1: one: an index lies outside the dimension that it selects from"


def test_scan_outputs_of_changing_shapes_are_an_error_as_in_onnxruntime() -> None:
    text = GROWING.replace("float[K] sums", "float[K, P, 5] sums").replace("float sum)", "float[P, 5] sum)")
    text = text.replace("sum = ReduceSum <keepdims = 0> (next)", "sum = Relu (next)")
    feeds = {"n": count(3), "x": STACK[0]}
    with pytest.raises(Exception, match=r"[Ii]nconsistent shape"):
        peer(text).run(None, feeds)
    found = error_of(session(text), feeds)
    wanted = "scan output 'sum' is float32[5, 5], in the iterations before it was float32[4, 5]"
    assert found == f"Loop 'y', iteration 1: {wanted}"


NUMBERS = """g (int64[N] n, float[1] x) => (float[1] y) { y = Loop (n, , x) <body = b (int64 i, bool c, float[1] s)
    => (bool[M] on, float[1] next) { next = Exp (s) shape = Constant <value = int64[1] {2}> ()
      two = Expand (c, shape) on = Not (two) }> }"""


@pytest.mark.parametrize(
    ("n", "message"),
    [
        ([], "Loop 'y': the trip count must be one number, not int64[0]"),
        ([1, 2], "Loop 'y': the trip count must be one number, not int64[2]"),
        ([2], "Loop 'y', iteration 1: the condition must be one truth value, not bool[2]"),
    ],
    ids=str,
)
def test_trip_count_and_condition_are_single_numbers(n: list[int], message: str) -> None:
    assert error_of(session(NUMBERS), {"n": np.array(n, np.int64), "x": np.ones(1, np.float32)}) == message


def test_scan_inputs_of_different_lengths_are_told() -> None:
    feeds = {**SCAN_FEEDS, "b": SCAN_FEEDS["b"][:, :5]}
    found = error_of(session(SCAN.replace("DIRECTIONS", "0, 0").replace("float[3, N]", "float[3, M]")), feeds)
    assert found == "Scan 'y': the scan inputs have different lengths: [7, 5]"


def test_errors_of_bodies_keep_their_class() -> None:
    graph = load(onnx.parser.parse_model(HEAD + PICK)).graph
    with pytest.raises(OperatorError, match=r"^Loop 'y', iteration 3: .*lies outside"):
        Interpreter(graph).run({"n": count(9), "x": np.ones(3, np.float32)})
