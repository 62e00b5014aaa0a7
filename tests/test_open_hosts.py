"""Plans with open sizes that have steps in Python: loops, sequences, random numbers, texts, values that a run has to find first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import onnx.parser
import onnxruntime
import pytest

from jitrt.engine import Engine
from jitrt.fusion.importer import load
from jitrt.fusion.plan import HostStep
from jitrt.ops.held import fix_sizes_held_by_python
from jitrt.ops.kernels.sizes import opened
from jitrt.ops.kernels.symbols import Fixed, Symbols
from jitrt.ops.primitives import Tensor
from jitrt.program import Entry, Program

THREADS = 2
NUMBERS = """zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> ()
    three = Constant <value_int = 3> () yes = Constant <value_int = 1> () go = Cast <to = 9> (yes)"""
# without random numbers, so that onnxruntime says what is right
MODELS = {
    "a loop": """(float[N,S] x) => (float[N,S] y, float[I,N,S] z) {
        a = Relu (x) b, z = Loop <body = body (int64 i, bool c, float[A,B] s) => (bool c1, float[A,B] s1, float[A,B] t) {
            c1 = Identity (c) f = Cast <to = 1> (i) d = Mul (s, f) s1 = Add (d, x) t = Exp (s1) }> (three, go, a)
        y = Neg (b) }""",
    "a loop of the length": """(float[N,S] x) => (float[N,S] y) {
        n = Shape <start = 1> (x) m = Squeeze (n)
        y = Loop <body = body (int64 i, bool c, float[A,B] s) => (bool c1, float[A,B] s1) {
            c1 = Identity (c) s1 = Add (s, x) }> (m, go, x) }""",
    "a loop that grows": """(float[N,S] x) => (float[N,T] y) {
        y = Loop <body = body (int64 i, bool c, float[A,B] s) => (bool c1, float[A,D] s1) {
            c1 = Identity (c) s1 = Concat <axis = 1> (s, x) }> (three, go, x) }""",
    "a sequence": """(float[N,S] x) => (float[N,T] y) {
        a = Sigmoid (x) s = SplitToSequence <axis = 0> (a, yes) b = SequenceAt (s, zero0) s1 = SequenceInsert (s, b)
        c = ConcatFromSequence <axis = 0> (s1) y = Mul (c, c) }""",
    "places": """(float[N,S] x) => (int64[2,M] y, float[N,S] z) { a = Floor (x) y = NonZero (a) z = Exp (x) }""",
    "a shape after what is found": """(float[N,S] x) => (float[N,S] y, int64[1] m) {
        n = Shape (x) a = NonZero (x) b = Shape <start = 1> (a) flat = Concat <axis = 0> (n, b) f = ReduceSum (b) h = Sub (b, f)
        k = Add (n, h) r = Reshape (x, k) y = Exp (r) m = ReduceProd (flat, zero) }""",
    "texts": """(string[N,S] x, float[N,S] w) => (string[N,T] y, float[N,S] v) {
        a = StringConcat (x, x) b = Concat <axis = 1> (a, x) n = Shape <start = 1> (w) y = Slice (b, one, n, one) v = Exp (w) }""",
    "texts of another shape": """(string[N,S] x, float[N,S] w) => (string[S,N] y, string[N,S] u, float[N] v) {
        a = Transpose <perm = [1, 0]> (x) y = StringConcat (a, a) n = Shape (w) flat = Reshape (x, minus) u = Reshape (flat, n)
        v = ReduceSum <keepdims = 0> (w, one) }""",
    "sizes as outputs": "(float[N,S] x) => (int64[2] y, float[N,S] z) { n = Shape (x) y = Add (n, one) z = Neg (x) }",
    "a product of integers": "(int32[N,S] x, int32[S,N] w) => (int32[N,N] y) { a = Neg (x) b = MatMul (a, w) y = Mul (b, b) }",
    "an operator by onnx alone": "(float[N,S] x) => (float[N,S] y) { a = Relu (x) f = Det (q) b = Mul (a, f) y = Exp (b) }",
}  # fmt: skip
RANDOM = {
    "evenly": "a = RandomUniformLike <seed = 7.0> (x) y = Mul (a, x)",
    "normally": "a = RandomNormalLike <seed = 7.0, mean = 1.0> (x) y = Add (a, x)",
    "by chance": "h = Sigmoid (x) a = Bernoulli <seed = 7.0> (h) y = Mul (a, x)",
    "in training": "h = Constant <value_float = 0.5> () y, m = Dropout <seed = 7> (x, h, go)",
    "of classes": "h = Multinomial <seed = 7.0, sample_size = 4> (x) f = Cast <to = 1> (h) e = ReduceSum (f, one) y = Add (x, e)",
}
SIZES = [(n, s) for n in (2, 3, 5) for s in (2, 3, 7, 8, 17, 33)]
MORE = (
    "minus = Constant <value_ints = [-1]> () zero0 = Constant <value_int = 0> () q = Constant <value = float[2,2] {1, 2, 3, 5}> ()"
)


def model(text: str) -> onnx.ModelProto:
    head, body = text.split("{", 1)
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {head} {{ {NUMBERS} {MORE} {body}')


def engine(proto: onnx.ModelProto) -> Engine:
    return Engine(load(proto).graph, THREADS)


def feeds_of(proto: onnx.ModelProto, n: int, s: int) -> dict[str, np.ndarray]:
    rng, feeds = np.random.default_rng(n * 100 + s), {}
    for x in proto.graph.input:
        kind = x.type.tensor_type
        shape = tuple({"N": n, "S": s}.get(d.dim_param, d.dim_value) for d in kind.shape.dim)
        values = rng.uniform(-3, 3, shape)
        if kind.elem_type == onnx.TensorProto.STRING:
            feeds[x.name] = np.vectorize(lambda v: f"{v:.2f}", otypes=[object])(values)
        else:
            feeds[x.name] = values.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return feeds


def programs(program: Program) -> Iterator[Program]:
    """A program, those that wait for its values, and the bodies that its steps run."""
    yield program
    for entry in entries(program):
        if entry.rest is not None:
            yield from programs(entry.rest)
        for step in entry.plan.steps:
            for cell in (isinstance(step, HostStep) and step.call.__closure__) or ():
                owner = getattr(cell.cell_contents, "__self__", None)
                if isinstance(owner, Program):
                    yield from programs(owner)


def entries(program: Program) -> list[Entry]:
    """One for each plan."""
    return list({id(entry.plan): entry for entry in program.entries.values()}.values())


def made_plans(made: Engine) -> int:
    return sum(len(entries(program)) for program in programs(made.program))


def guards(made: Engine) -> list[str]:
    return [str(entry.plan.guards) for entry in entries(made.program)]


def assert_same(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for g, w in zip(got, wanted, strict=True):
        assert (g.shape, g.dtype.kind) == (w.shape, w.dtype.kind)
        if w.dtype.kind == "f":
            np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(g, w)


def run(made: Engine, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return made.run(feeds, made.graph.outputs)


@pytest.mark.parametrize("name", MODELS)
def test_steps_in_python_are_right_at_every_size_and_need_few_plans(monkeypatch, name: str) -> None:
    proto = model(MODELS[name])
    made, theirs = engine(proto), onnxruntime.InferenceSession(proto.SerializeToString())
    for n, s in [(4, 6), (3, 6), (3, 5), (6, 9), (7, 11), *SIZES]:
        feeds = feeds_of(proto, n, s)
        assert_same(run(made, feeds), theirs.run(None, feeds))
    known = made_plans(made)
    assert any(entry.plan.is_open for entry in entries(made.program))
    monkeypatch.setattr("jitrt.program.trace", None)
    monkeypatch.setattr("jitrt.program.make_plan", None)
    for n, s in SIZES:
        feeds = feeds_of(proto, n + 3, s + 1)
        assert_same(run(made, feeds), theirs.run(None, feeds))
    assert made_plans(made) <= known


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_of_a_seed_are_those_of_a_plan_for_the_size_alone(monkeypatch, name: str) -> None:
    proto = model(f"(float[N,S] x) => (float[N,S] y) {{ {RANDOM[name]} }}")
    made = engine(proto)
    for n, s in [(4, 6), (3, 6), (3, 5), *SIZES]:
        feeds = feeds_of(proto, n, s)
        assert_same(run(made, feeds), run(engine(proto), feeds))
    count, cases = made_plans(made), [feeds_of(proto, n + 3, s + 1) for n, s in SIZES]
    assert count <= 4
    wanted = [run(engine(proto), feeds) for feeds in cases]
    monkeypatch.setattr("jitrt.program.trace", None)
    for feeds, expected in zip(cases, wanted):
        assert_same(run(made, feeds), expected)


def test_one_size_and_none_are_right_too() -> None:
    for name in ("a loop", "texts", "places", "a sequence"):
        proto = model(MODELS[name])
        made, theirs = engine(proto), onnxruntime.InferenceSession(proto.SerializeToString())
        for n, s in ((3, 4), (5, 6), (7, 9), (1, 6), (5, 1), (1, 1), (8, 2)):
            feeds = feeds_of(proto, n, s)
            assert_same(run(made, feeds), theirs.run(None, feeds))


# -- what Python holds
def test_a_size_that_python_holds_is_closed_and_the_guards_say_why() -> None:
    """The other one stays open."""
    proto = model("""(string[2,S] x, int64[2,S] w, float[N] z) => (string[2,S] y, float[N] v) {
        y = GatherElements <axis = 1> (x, w) v = Exp (z) }""")
    made = engine(proto)
    for n, s in ((2, 8), (3, 8), (3, 9), (4, 9), (5, 11), (6, 12), (7, 11)):
        feeds = feeds_of(proto, n, s)
        assert_same(run(made, feeds), [np.take_along_axis(feeds["x"], feeds["w"] % s, 1), np.exp(feeds["z"])])
    held = "the size of w[1], x[1] is 11: asked for y in held.py: fix_sizes_held_by_python (Fix all"
    assert any(lines.startswith(f"N >= 2: the size of z[0]\n{held}") for lines in guards(made))


class Called:
    def __init__(self, what: object) -> None:
        self.what = what

    def __call__(self) -> object:
        return self.what


HOLDERS = {
    "a closure": lambda n: lambda: n,
    "a function in a closure": lambda n: (lambda inner: lambda: inner())(lambda: n),
    "a default": lambda n: lambda known=(1, [n]): known,
    "what is given in part": lambda n: partial(dict, {"a": {"b": n}}),
    "an object's method": lambda n: Tensor(np.dtype(np.float32), (3, n)).__repr__,
    "an object that is called": Called,
    "a function of an object that is called": lambda n: Called(lambda: n),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_sizes_are_found_wherever_a_function_has_them(name: str) -> None:
    with pytest.raises(Fixed, match="n is fixed"):
        fix_sizes_held_by_python(HOLDERS[name](opened(Symbols(), "n", 7)))
    fix_sizes_held_by_python(HOLDERS[name](7))
