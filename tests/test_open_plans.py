"""Plans with open sizes: right for every size that they accept, and no plan is made for one that they do."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import onnx.parser
import pytest
from fusion_graphs import Problem, problems
from hypothesis import HealthCheck, Phase, given, settings
from test_fusion import reference

import jitrt as ort
from benchmarks import zoo
from jitrt.engine import Engine
from jitrt.families import Family, shapes_of
from jitrt.fusion import attention
from jitrt.fusion.attentionband import band_of
from jitrt.fusion.graph import Graph
from jitrt.fusion.importer import load
from jitrt.fusion.interpret import Interpreter
from jitrt.memory import Recycler
from jitrt.ops.kernels.sizes import now
from jitrt.program import Entry

THREADS = 2
ENCODER = {"layers": 1, "width": 32, "heads": 2, "inner": 48, "vocabulary": 50}
DECODER = {"layers": 1, "width": 32, "heads": 2, "vocabulary": 50, "context": 64}


def engine(text: str) -> Engine:
    return Engine(load(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')).graph, THREADS)


def feeds_of(graph: Graph, seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    """Inputs of the shapes that a graph states, with these sizes."""
    rng = np.random.default_rng(seed)
    shapes = {n: tuple(sizes.get(d, d) for d in graph.types[n].shape) for n in graph.inputs}
    kinds = {n: graph.types[n].dtype for n in graph.inputs}
    return {n: rng.uniform(-2, 2, shape).astype(kinds[n]) for n, shape in shapes.items()}


def plans(made: Engine) -> list[Entry]:
    """The plans with open sizes, the latest first."""
    return [entry for family in made.program.families.values() for _, entry in family.plans]


def assert_right(made: Engine, feeds: Mapping[str, np.ndarray], expected: list[np.ndarray] | None = None) -> None:
    graph = made.graph
    for got, wanted in zip(made.run(feeds, graph.outputs), expected or Interpreter(graph).run(feeds), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


# -- any graph
@settings(
    max_examples=40, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(problems(6))
def test_random_graphs_are_right_at_every_size_that_their_plan_accepts(problem: Problem) -> None:
    """Sizes that the graph has no meaning for, as constants or other inputs do not fit, are refused."""
    graph, feeds = needed(problem.graph), problem.feeds
    made, shapes = Engine(graph, 1), shapes_of(problem.feeds)
    places = {(name, d) for name, shape in shapes.items() for d in range(len(shape))}
    family = Family(shapes, {place: {2} for place in places})
    entry = made.program._open(family, shapes, feeds, graph.outputs)
    if entry is None:
        return
    (sizes, _) = family.plans[0]
    now, rng = sizes.values(shapes), np.random.default_rng(0)
    for turn in range(8):
        values = now if turn == 0 else tuple(int(rng.integers(2, n + 3)) if rng.integers(2) else n for n in now)
        binding = entry.executor.binder.bind(values)
        assert binding is not None or turn
        if binding is not None:
            others = {name: np.resize(feeds[name], shape) for name, shape in sizes.at(values).items()}
            results = entry.executor.run([others[name] for name in entry.inputs], binding)
            assert_agrees(problem, [results[entry.outputs[name]] for name in graph.outputs], reference(graph, others))


def needed(graph: Graph) -> Graph:
    """A graph without the nodes that its outputs do not need, and which no plan checks."""
    names, nodes = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if names.intersection(node.outputs):
            names.update(node.inputs)
            nodes.insert(0, node)
    return graph.copy(nodes=nodes)


def assert_agrees(problem: Problem, got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for name, g, e in zip(problem.graph.outputs, got, expected, strict=True):
        x = problem.known[name]
        assert (g.dtype, g.shape) == (e.dtype, e.shape)
        if x.dtype.kind != "f":
            np.testing.assert_array_equal(g, e, err_msg=name)
            continue
        g, e = g.astype(np.float64), e.astype(np.float64)
        limit = 3e-2 if x.coarse or x.dtype == np.float16 else 1e-3
        np.testing.assert_allclose(g, e, rtol=limit, atol=limit * max(np.abs(e[np.isfinite(e)]).max(initial=0), 1), err_msg=name)


# -- kinds of work
WORK = {
    "a broadcast": "(float[N,3,S] x, float[1,1,S] m) => (float[N,3,S] y) { a = Add (x, m) y = Exp (a) }",
    "a masked softmax": "(float[N,3,S,S] x, float[N,1,1,S] m) => (float[N,3,S,S] y) { a = Add (x, m) y = Softmax (a) }",
    "a transposition": "(float[N,S,3,8] x) => (float[N,3,S,8] y) { y = Transpose <perm = [0, 2, 1, 3]> (x) }",
    "a norm": "(float[N,S,8] x, float[8] s, float[8] t) => (float[N,S,8] y) { y = LayerNormalization (x, s, t) }",
    "a mean": "(float[N,S,5] x) => (float[N,1,5] y) { i = Constant <value_ints = [1]> () y = ReduceMean (x, i) }",
    "products": "(float[N,S,7] x, float[N,7,S] z) => (float[N,S,S] y) { p = MatMul (x, z) y = Relu (p) }",
    "a product of everything": "(float[N,S] x, float[S,N] z) => (float[N,N] y) { y = MatMul (x, z) }",
    "a concatenation": "(float[N,S] x, float[N,3] z) => (float[N,T] y) { c = Concat <axis = 1> (x, z, x) y = Neg (c) }",
    "a copy": "(float[N,S] x) => (float[S,N] y) { y = Transpose <perm = [1, 0]> (x) }",
}
# with shapes computed as exporters write it
SHAPES = {
    "heads": """(float[N,S,12] x) => (float[N,3,S,4] y) {
        s = Shape (x) zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> ()
        n = Gather <axis = 0> (s, zero) t = Gather <axis = 0> (s, one) h = Constant <value_ints = [3]> ()
        rest = Constant <value_ints = [-1]> () shape = Concat <axis = 0> (n, t, h, rest) r = Reshape (x, shape)
        y = Transpose <perm = [0, 2, 1, 3]> (r) }""",
    "a causal mask": """(float[N,S,S] x) => (float[N,S,S] y) {
        s = Shape <start = 1> (x) one = Constant <value_float = 1.0> () m = Expand (one, s) k = Trilu <upper = 0> (m)
        y = Mul (x, k) }""",
    "positions": """(float[N,S] x) => (float[N,S] y) {
        s = Shape (x) i = Constant <value_int = 1> () n = Gather <axis = 0> (s, i) zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> () p = Range (zero, n, one) f = CastLike (p, x) y = Add (x, f) }""",
    "an expanded mask": """(float[N,S] x) => (float[N,2,S,S] y) {
        axes = Constant <value_ints = [1, 2]> () w = Unsqueeze (x, axes) s = Shape (x) one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> () three = Constant <value_ints = [3]> () zero = Constant <value_ints = [0]> ()
        n = Slice (s, zero, one) t = Slice (s, one, two) shape = Concat <axis = 0> (n, two, t, t)
        minus = Constant <value_ints = [-1]> () e = Equal (shape, minus) ones = ConstantOfShape <value = int64[1] {1}> (three)
        same = Equal (one, two) kept = Where (same, one, shape) y = Expand (w, kept) }""",
    "the last token": """(float[N,S,5] x) => (float[N,5] y) { i = Constant <value_int = -1> () y = Gather <axis = 1> (x, i) }""",
    "windows": """(float[N,S,5] x) => (float[N,T,5] y) {
        one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> () s = Shape <start = 1, end = 2> (x)
        last = Sub (s, one) y = Slice (x, one, last, one, two) }""",
    "half": """(float[N,S] x) => (float[N,H] y) {
        zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> ()
        s = Shape <start = 1> (x) h = Div (s, two) y = Slice (x, zero, h, one) }""",
    "a scale of the length": """(float[N,S] x) => (float[N,S] y) {
        s = Shape <start = 1> (x) f = CastLike (s, x) y = Div (x, f) }""",
}  # fmt: skip
SIZES = [(n, s) for n in (2, 3, 5) for s in (2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65)]


@pytest.mark.parametrize("text", [*WORK.values(), *SHAPES.values()], ids=[*WORK, *SHAPES])
def test_every_size_is_right_and_few_plans_serve_all(text: str) -> None:
    made = engine(text)
    for n, s in [(4, 6), (3, 6), (3, 5), *SIZES]:
        assert_right(made, feeds_of(made.graph, N=n, S=s))
    (family,) = made.program.families.values()
    assert family.can_open
    assert not any(family.closed(name, d, 0) for name, shape in family.first.items() for d in range(len(shape)))
    count = len(family.plans)
    assert 2 <= count <= 6, [str(entry.plan.guards) for entry in plans(made)]
    for n, s in SIZES:
        assert_right(made, feeds_of(made.graph, seed=1, N=n + 1, S=s))
    assert len(family.plans) == count
    for n, s in [(1, 6), (4, 1), (1, 1), (1, 40), (40, 2), *([(0, 3), (3, 0), (0, 1)] if text in WORK.values() else [])]:
        assert_right(made, feeds_of(made.graph, N=n, S=s))


def test_a_known_size_is_neither_traced_nor_compiled(monkeypatch) -> None:
    made = engine(SHAPES["heads"])
    for s in (6, 7):
        assert_right(made, feeds_of(made.graph, N=2, S=s))
    known = set(made.shared.store.addresses)
    monkeypatch.setattr("jitrt.program.trace", None)
    monkeypatch.setattr("jitrt.program.make_plan", None)
    for s in (2, 50, 6, 700):
        feeds = feeds_of(made.graph, N=2, S=s)
        assert made.run(feeds, ["y"])[0].tobytes() == feeds["x"].reshape(2, s, 3, 4).transpose(0, 2, 1, 3).tobytes()
    assert set(made.shared.store.addresses) == known


# -- guards
def test_guards_are_printed_with_what_asked() -> None:
    made = engine("""(float[N,S] x) => (float[N,S] y) {
        table = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]> () zero = Constant <value_ints = [0]> ()
        s = Shape <start = 1> (x) part = Slice (table, zero, s, zero) y = Add (x, part) }""")
    for s in (3, 4, 8):
        assert_right(made, feeds_of(made.graph, N=2, S=s))
    (entry,) = plans(made)
    assert "S >= 2: the size of x[1]" in str(entry.plan.guards).splitlines()
    (guard,) = (line for line in str(entry.plan.guards).splitlines() if line.startswith("S <= 8: asked for part in "))
    assert guard in str(made.plan(feeds_of(made.graph, N=2, S=5)))
    with pytest.raises(ValueError, match=r"cannot broadcast \[2,9\] with \[8\]"):
        made.run(feeds_of(made.graph, N=2, S=9), ["y"])
    assert_right(made, feeds_of(made.graph, N=2, S=7))
    assert len(plans(made)) == 1


def test_a_size_that_decides_how_often_something_happens_is_closed() -> None:
    """The other one stays open."""
    made = engine("""(float[N,S] x) => (float[N] y) {
        around = Constant <value_ints = [0, 1, 0, 0]> () axes = Constant <value_ints = [1]> ()
        p = Pad <mode = "reflect"> (x, around) y = ReduceSum <keepdims = 0> (p, axes) }""")
    for n, s in ((4, 9), (5, 9), (5, 12), (6, 15), (7, 12), (9, 12)):
        assert_right(made, feeds_of(made.graph, N=n, S=s))
    (family,) = made.program.families.values()
    assert family.closed("x", 1, 0)
    assert not family.closed("x", 0, 0)
    assert {names for sizes, _ in family.plans for names in sizes.names} == {"N"}


def test_values_that_tracing_reads_belong_to_each_plan() -> None:
    made = engine("(float[N,S] x, int64[2] s) => (float[A,B] y) { y = Reshape (x, s) }")
    for n, shape in ((2, (4, -1)), (4, (4, -1)), (6, (4, -1)), (6, (-1, 3)), (8, (-1, 3)), (10, (-1, 3)), (12, (4, -1))):
        x = np.arange(n * 6, dtype=np.float32).reshape(n, 6)
        (y,) = made.run({"x": x, "s": np.array(shape)}, ["y"])
        np.testing.assert_array_equal(y, x.reshape(shape))
    assert len(plans(made)) == 2


def test_values_that_tracing_reads_are_open_when_they_differ() -> None:
    made = engine("(float[N] x, int64[2] s, int64 n) => (float[A,B] y) { r = Reshape (x, s) one = Constant <value_ints = [1]> () "
                  "zero = Constant <value_ints = [0]> () e = Unsqueeze (n, zero) y = Slice (r, zero, e, zero) }")  # fmt: skip
    for rows, n in ((2, 2), (3, 3), (4, 2), (5, 4), (9, 5), (33, 30), (5, 1), (5, -2), (5, 0)):
        x = np.arange(rows * 6, dtype=np.float32)
        (y,) = made.run({"x": x, "s": np.array([rows, 6]), "n": np.array(n)}, ["y"])
        np.testing.assert_array_equal(y, x.reshape(rows, 6)[:n])
    printed = [str(entry.plan.guards).splitlines() for entry in plans(made)]
    assert any("s = [$s_0, 6]: read as shape by Reshape 'r'" in lines and "s_0 >= 2: element 0 of s" in lines for lines in printed)
    assert any("n >= 2: element 0 of n" in lines and not any(line.startswith("n = ") for line in lines) for lines in printed)
    assert len(plans(made)) <= 4


# -- masks
PLACES = """n = Shape <start = 2, end = 3> (q) t = Shape <start = 3, end = 4> (k) zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> () four = Constant <value_ints = [4]> () low = Constant <value_float = -1e30> ()
    far = Constant <value_ints = [9999]> () p = Sub (t, n) p0 = Squeeze (p) t0 = Squeeze (t) z0 = Squeeze (zero)
    o0 = Squeeze (one) i = Range (p0, t0, o0) j = Range (z0, t0, o0) i1 = Unsqueeze (i, one)"""
SEEN = {
    "up to its own place": ("m = LessOrEqual (j, i1)", lambda s, t: (s, t - s)),
    "the other way round": ("m = GreaterOrEqual (i1, j)", lambda s, t: (s, t - s)),
    "before the next place": ("h = Add (i1, one) m = Less (j, h)", lambda s, t: (s, t - s)),
    "not the later ones": ("h = Greater (j, i1) m = Not (h)", lambda s, t: (s, t - s)),
    "a window": ("a = LessOrEqual (j, i1) h = Sub (i1, four) b = Greater (j, h) m = And (a, b)", lambda s, t: (3 + s - t, t - s)),
    "a part of a table": ("a = Slice (table, p, t, zero) m = Slice (a, zero, t, one)", lambda s, t: (299 - t + s, t - s)),
    "a filler times what hides": (
        "m = Greater (j, i1)"
        " w = Cast <to = 1> (m) h = Concat <axis = 0> (n, t) a = Expand (low, h) b = Mul (a, w) a1 = Add (a0, b)",
        lambda s, t: (s, t - s),
    ),
    "whatever comes later": ("m = LessOrEqual (i1, j)", lambda s, t: (s - t, t)),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_a_mask_made_of_open_sizes_leaves_out_what_it_hides(monkeypatch, name: str) -> None:
    """The band (how far before and behind its place a query sees keys) is known for all sizes."""
    text, reach = SEEN[name]
    end = "" if " a1 = " in text else "a1 = Where (m, a0, low)"
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
        g (float[1,2,S,8] q, float[1,2,8,T] k, float[1,2,T,8] v) => (float[1,2,S,8] y) {{ {PLACES} a0 = MatMul (q, k) {text} {end}
        a2 = Softmax (a1) y = MatMul (a2, v) }}""")
    table = onnx.numpy_helper.from_array(np.tri(300, dtype=bool), "table")
    model.graph.initializer.append(table)
    found = []
    monkeypatch.setattr(attention, "band_of", lambda *given: found.append(band_of(*given)) or found[-1])
    made = Engine(load(model).graph, THREADS)
    for s, t in ((5, 9), (6, 11), (7, 13), (40, 77), (130, 131), (9, 299), (200, 290)):
        assert_right(made, feeds_of(made.graph, seed=s, S=s, T=t))
    assert plans(made)
    band = found[1]
    assert (now(band.back), now(band.ahead)) == reach(6, 11)
    assert len(plans(made)) <= 2


# -- models
MODELS = {
    "bert_base": (ENCODER, [{"sequence": 13}, {"sequence": 16}], [{"sequence": s} for s in (14, 33, 64, 512)]),
    "t5_encoder": (ENCODER, [{"sequence": 13}, {"sequence": 16}], [{"sequence": s} for s in (14, 33, 64, 200)]),
    "gpt2": (
        DECODER,
        [{"past_sequence": 0, "sequence": 7}, {"past_sequence": 7, "sequence": 1}],
        [{"past_sequence": p, "sequence": 1} for p in (2, 8, 9, 31, 60)],
    ),
    "llama": (
        {**ENCODER, "kv_heads": 1},
        [{"past_sequence": 0, "sequence": 7}, {"past_sequence": 7, "sequence": 1}],
        [{"past_sequence": p, "sequence": 1} for p in (2, 8, 9, 31, 60)],
    ),
    "resnet18": ({"image": 64}, [{"batch": 1}, {"batch": 2}], [{"batch": 3}, {"batch": 4}]),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models_need_no_second_plan(name: str) -> None:
    sizes, known, new = MODELS[name]
    model = zoo.build(name, **sizes)
    made, graph = Engine(load(model).graph, THREADS), load(model).graph
    for run in (*known, *new, *known):
        feeds = zoo.inputs(name, **(sizes | run))
        expected = Engine(load(model).graph, THREADS).run(feeds, graph.outputs) if name == "resnet18" else None
        assert_right(made, feeds, expected)
        assert len(plans(made)) == (run != known[0] or run in new) or len(plans(made)) == 1
    assert len(plans(made)) == 1


# -- running
def test_threads_run_one_session_at_different_sizes() -> None:
    made = engine(WORK["products"])
    cases = [feeds_of(made.graph, seed=s, N=2 + s % 3, S=2 + 5 * s) for s in range(8)]
    for feeds in cases[:2]:
        made.run(feeds, ["y"])
    expected = [Interpreter(made.graph).run(feeds)[0] for feeds in cases]
    problems: list[str] = []

    def hammer(k: int) -> None:
        for i in range(60):
            case = (k * 3 + i * (k + 1)) % len(cases)
            (y,) = made.run(cases[case], ["y"])
            if not np.allclose(y, expected[case], rtol=1e-3, atol=1e-4):
                problems.append(f"thread {k}, case {case}")

    workers = [threading.Thread(target=hammer, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert problems == []
    assert len(plans(made)) <= 2


def test_a_thousand_lengths_need_the_memory_of_the_longest() -> None:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {SHAPES["heads"]}')
    session = ort.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(0)
    for s in (1000, 999):
        session.run(None, {"x": np.ones((2, s, 12), np.float32)})
    program = session._engine.program
    ((entry,),) = [[e for _, e in family.plans] for family in program.families.values()]
    (arena,) = entry.executor.arenas._free
    address = arena.address
    for s in rng.permutation(np.arange(2, 1002))[:1000]:
        x = rng.standard_normal((2, s, 12), np.float32)
        (y,) = session.run(None, {"x": x})
        assert np.array_equal(y, x.reshape(2, s, 3, 4).transpose(0, 2, 1, 3))
    assert len(entry.executor.free) == 1
    assert entry.executor.arenas._free == [arena]
    assert arena.address == address
    assert len(program.entries) <= 64
    assert entry.executor.recycler.held < 2 << 20


def test_outputs_of_similar_sizes_share_remembered_memory() -> None:
    recycler = Recycler()
    for n in range(20_000, 22_000, 10):
        recycler.empty((n,), np.dtype(np.float32), 4 * n)
    assert recycler.held < 400_000


def test_the_second_different_value_of_a_size_leaves_it_open():
    made = engine("(float[N, M] x) => (float[N, M] y) { y = Relu (x) }")
    cases = (({"N": 3, "M": 4}, 0), ({"N": 1, "M": 4}, 0), ({"N": 5, "M": 4}, 1), ({"N": 3, "M": 7}, 2), ({"N": 9, "M": 6}, 2))
    for sizes, count in cases:
        assert_right(made, feeds_of(made.graph, **sizes))
        assert len(plans(made)) == count
    assert [list(sizes.names) for family in made.program.families.values() for sizes, _ in family.plans] == [["N", "M"], ["N"]]
