"""Runs in the caller's memory: caches that grow where they are, outputs in inputs' arrays, and what lies on what."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import jitrt
from benchmarks import zoo
from jitrt import bound
from jitrt.engine import Engine
from jitrt.fusion import bindings
from jitrt.fusion.graph import Graph
from jitrt.fusion.importer import load
from jitrt.fusion.interpret import Interpreter
from jitrt.fusion.plan import Plan
from jitrt.program import Entry, Program

onnxruntime.set_default_logger_severity(4)
SMALL = {
    "gpt2": {"layers": 2, "width": 32, "heads": 2, "vocabulary": 50, "context": 64},
    "llama": {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "inner": 48, "vocabulary": 50},
}
FEW = settings(
    max_examples=60, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip


def model(text: str) -> bytes:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}').SerializeToString()


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(np.float32)


def programs(session: jitrt.InferenceSession) -> list[Program]:
    return list(session._engine.bound.values())


def open_plans(session: jitrt.InferenceSession) -> list[Entry]:
    return [e for program in programs(session) for family in program.families.values() for _, e in family.plans]


def in_place(session: jitrt.InferenceSession) -> list[list[str]]:
    """The outputs of each plan that are in place."""
    entries = [e for program in programs(session) for e in program.entries.values()]
    return [[name for name, i in e.outputs.items() if e.plan.outputs[i].in_place] for e in entries]


# -- decoders
class Decoding:
    """A decoder with bound caches, and onnxruntime with its own arrays."""

    def __init__(self, name: str, capacity: int) -> None:
        made = zoo.build(name, **SMALL[name]).SerializeToString()
        self.ours, self.theirs = jitrt.InferenceSession(made), onnxruntime.InferenceSession(made)
        inputs = {x.name: x.shape for x in self.ours.get_inputs()}
        self.pasts = [name for name in inputs if name.startswith("past")]
        self.presents = [name.replace("past_key_values", "present") for name in self.pasts]
        self.takes_positions = "position_ids" in inputs
        self.past = {name: np.zeros((1, inputs[name][1], 0, inputs[name][3]), np.float32) for name in self.pasts}
        self.binding = self.ours.io_binding()
        self.caches = [
            self.binding.bind_cache(past, present, self.past[past], capacity) for past, present in zip(self.pasts, self.presents)
        ]
        self.binding.bind_output("logits")
        self.length = 0

    def step(self, tokens: list[int]) -> None:
        """Take tokens in both, which must agree in everything."""
        total = self.length + len(tokens)
        feeds = {"input_ids": np.array([tokens]), "attention_mask": np.ones((1, total), np.int64)}
        if self.takes_positions:
            feeds["position_ids"] = np.arange(self.length, total)[None]
        for name, array in feeds.items():
            self.binding.bind_cpu_input(name, array)
        self.ours.run_with_iobinding(self.binding)
        wanted, *presents = self.theirs.run(["logits", *self.presents], {**feeds, **self.past})
        self.past, self.length = dict(zip(self.pasts, presents)), total
        np.testing.assert_allclose(self.binding.get_outputs()[0].numpy(), wanted, rtol=1e-3, atol=1e-4)
        for cache, present in zip(self.caches, presents):
            assert cache.rows == total
            np.testing.assert_allclose(cache.numpy(), present, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_decoders_caches_grow_where_they_are(name: str) -> None:
    made = Decoding(name, capacity=23)
    places = [cache.buffer.ctypes.data for cache in made.caches]
    for tokens in ([5, 3, 8], *[[t] for t in range(8)], [7, 7, 9, 1], *[[t] for t in range(8)]):
        made.step(tokens)
    assert [cache.buffer.ctypes.data for cache in made.caches] == places
    assert in_place(made.ours) == [made.presents] * 18
    assert len(open_plans(made.ours)) == 2  # for one token and for several
    assert made.length == made.caches[0].capacity


def test_memory_is_laid_out_anew_for_few_lengths_only(monkeypatch) -> None:
    """Though one size follows from another (the mask's from the past's), so that not any larger sizes will do."""
    packed = []

    class Counted(bindings.Packing):
        def __init__(self, plan: Plan, room: np.ndarray) -> None:
            super().__init__(plan, room)
            packed.append(room)

    monkeypatch.setattr(bindings, "Packing", Counted)
    made = Decoding("gpt2", capacity=60)
    for tokens in ([5, 3, 8], *[[t] for t in range(40)]):
        made.step(tokens)
    assert 1 <= len(packed) <= 12


def test_a_full_cache_is_an_error_until_there_is_more_room() -> None:
    made = Decoding("gpt2", capacity=6)
    for tokens in ([5, 3, 8], [1], [2], [3]):
        made.step(tokens)
    before, length = [cache.numpy().copy() for cache in made.caches], made.length
    for _ in range(2):
        with pytest.raises(jitrt.InvalidArgument, match="has room for 6 rows, the run makes 7"):
            made.step([4])
    assert [c.numpy().tobytes() for c in made.caches] == [x.tobytes() for x in before]
    assert made.length == length
    for cache in made.caches:
        cache.reserve(9)
    for token in (4, 5, 6):
        made.step([token])
    assert [cache.capacity for cache in made.caches] == [9] * len(made.caches)


def test_rows_can_be_forgotten() -> None:
    """As after guesses of a smaller model that the larger one does not share."""
    made, again = Decoding("llama", capacity=20), Decoding("llama", capacity=20)
    for tokens in ([5, 3, 8], [1], [2], [30]):
        made.step(tokens)
    for cache in made.caches:
        cache.rows = 4
    made.length, made.past = 4, {name: x[:, :, :4] for name, x in made.past.items()}
    made.step([9, 4])
    for tokens in ([5, 3, 8], [1], [9, 4]):
        again.step(tokens)
    for one, other in zip(made.caches, again.caches):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(jitrt.InvalidArgument, match="cannot go back to 7"):
        made.caches[0].rows = 7


# -- models that are not so simple
MODELS = {
    "rows behind": ("present = Concat <axis = 0> (past, x)", True),
    "new rows twice": ("present = Concat <axis = 0> (past, x, x)", True),
    "rows that hang on the past": ("m = ReduceSum (past) n = Add (x, m) present = Concat <axis = 0> (past, n)", True),
    "rows in front": ("present = Concat <axis = 0> (x, past)", False),
    "the past changed": ("h = Mul (past, past) present = Concat <axis = 0> (h, x)", False),
    "the past repeated": ("present = Concat <axis = 0> (past, past, x)", True),
    "the end of the past": ("present = Slice (past, one, far, zero)", False),
    "the past alone": ("present = Identity (past)", False),
    "new rows alone": ("present = Relu (x)", False),
}  # fmt: skip


NUMBERS = "zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> () far = Constant <value_ints = [99]> ()"


@pytest.mark.parametrize("name", MODELS)
def test_a_cache_is_right_whatever_the_model_does(name: str) -> None:
    """The last value says whether nothing is copied."""
    text, stays = MODELS[name]
    header = "(float[N,3] past, float[S,3] x) => (float[M,3] present, float[A,B] y)"
    made = model(f"{header} {{ {NUMBERS} {text} y = Add (present, present) }}")
    ours, theirs = jitrt.InferenceSession(made), onnxruntime.InferenceSession(made)
    past = values(2, 3) / 4
    binding = ours.io_binding()
    cache = binding.bind_cache("past", "present", jitrt.OrtValue.ortvalue_from_numpy(past), 1000)
    binding.bind_output("y")
    for step, rows in enumerate([2, 1, 1, 1, 3, 1, 0]):
        if not rows:  # then all that there is may stay
            assert in_place(ours) == [["present"] if stays else []] * len(in_place(ours))
        x = values(rows, 3, seed=step)
        binding.bind_cpu_input("x", x)
        binding.run()
        past, y = theirs.run(["present", "y"], {"past": past, "x": x})
        np.testing.assert_allclose(cache.numpy(), past, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(binding.get_outputs()[0].numpy(), y, rtol=1e-5, atol=1e-5)


def test_a_cache_may_grow_along_any_axis_and_hold_any_type() -> None:
    ours = jitrt.InferenceSession(model("(int8[2,3,N] past, int8[2,3,S] x) => (int8[2,3,M] p) { p = Concat <axis = 2> (past, x) }"))
    binding = ours.io_binding()
    cache = binding.bind_cache("past", "p", np.zeros((2, 3, 0), np.int8), capacity=11, axis=-1)
    pieces = [values(2, 3, n, seed=n).astype(np.int8) for n in (1, 4, 0, 2, 1, 3)]
    for piece in pieces:
        binding.bind_cpu_input("x", piece)
        binding.run()
    np.testing.assert_array_equal(cache.numpy(), np.concatenate(pieces, 2))
    assert repr(cache) == "<Cache 'past': 11 of 11 rows>"


def test_wrong_caches_are_refused() -> None:
    text = "(float[N,3] past, float[S,3] x) => (float[M,3] p, float[3,M] t) { p = Concat <axis = 0> (past, x) t = Transpose (p) }"
    binding = jitrt.InferenceSession(model(text)).io_binding()
    first = np.zeros((0, 3), np.float32)
    for wrong in (np.zeros((0, 4), np.float32), np.zeros((0, 3)), np.zeros(3, np.float32)):
        with pytest.raises(jitrt.InvalidArgument, match="'past'"):
            binding.bind_cache("past", "p", wrong)
    with pytest.raises(jitrt.InvalidArgument, match="none of them is 2"):
        binding.bind_cache("past", "p", first, axis=2)
    with pytest.raises(jitrt.InvalidArgument, match="'q'"):
        binding.bind_cache("past", "q", first)
    binding.bind_cache("past", "t", first, 9, axis=0)
    binding.bind_cpu_input("x", values(2, 3))
    with pytest.raises(jitrt.InvalidArgument, match=r"'t' has shape \[3, 2\], which is no longer 'past' \[9, 3\]"):
        binding.run()
    cache = binding.bind_cache("past", "p", first, 9)
    binding.bind_output("p")
    with pytest.raises(jitrt.InvalidArgument, match="'p' is bound, and kept by a cache"):
        binding.run()
    binding.clear_binding_outputs()
    binding.run()
    assert cache.rows == 2
    binding.clear_binding_inputs()
    with pytest.raises(jitrt.InvalidArgument, match="no output is bound"):
        binding.run()


# -- one buffer as past and present
def grouped(heads: int = 4, few: int = 2, size: int = 16) -> bytes:
    """GroupQueryAttention with buffers of keys and values."""
    wide = {"q": heads * size, "k": few * size, "v": few * size}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", "s", w]) for n, w in wide.items()]
    buffers = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", few, "c", size]) for n in ("pk", "pv", "nk", "nv")]
    inputs += [*buffers[:2], helper.make_tensor_value_info("lengths", TensorProto.INT32, ["b"])]
    inputs += [helper.make_tensor_value_info("total", TensorProto.INT32, [])]
    angles = np.arange(40)[:, None] * np.linspace(0.1, 1, size // 2)
    tables = [onnx.numpy_helper.from_array(f(angles).astype(np.float32), n) for f, n in ((np.cos, "cos"), (np.sin, "sin"))]
    node = helper.make_node(
        "GroupQueryAttention", ["q", "k", "v", "pk", "pv", "lengths", "total", "cos", "sin"], ["y", "nk", "nv"],
        domain="com.microsoft", num_heads=heads, kv_num_heads=few, do_rotary=1,
    )  # fmt: skip
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "s", heads * size]), *buffers[2:]]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", inputs, outputs, tables)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_buffer_that_is_past_and_present_is_as_with_onnxruntime(batch: int) -> None:
    """New keys are written where they belong, for sequences of different lengths too, by one plan for all lengths."""
    made = grouped()
    results = []
    for module in (onnxruntime, jitrt):
        session, seen = module.InferenceSession(made), []
        binding = session.io_binding()
        held = [module.OrtValue.ortvalue_from_numpy(np.zeros((batch, 2, 17, 16), np.float32)) for _ in range(2)]
        for value, (past, present) in zip(held, (("pk", "nk"), ("pv", "nv"))):
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)
        rng, before = np.random.default_rng(0), 0
        for count in (5, *[1] * 12):
            feeds = {n: rng.standard_normal((batch, count, w), np.float32) for n, w in (("q", 64), ("k", 32), ("v", 32))}
            before += count
            lengths = [before - b for b in range(batch)]  # the prompts of later sequences are padded
            feeds |= {"lengths": np.array(lengths, np.int32) - 1, "total": np.array(before, np.int32)}
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            binding.bind_output("y")
            session.run_with_iobinding(binding)
            for b, length in enumerate(lengths):
                seen += [binding.get_outputs()[2].numpy()[b, : min(length, count)].copy()]
                seen += [x.numpy()[b, :, :length].copy() for x in held]
        results.append(seen)
    for wanted, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)
    assert in_place(session)[-1] == ["nk", "nv"]
    assert [str(e.plan.guards).splitlines()[0] for e in open_plans(session)] == ["total >= 2: element 0 of total"]


# a packed past: keys and values in one array, as com.microsoft's Attention and early exports of GPT-2 have it
PACKED = {
    "an operator": "y, present = com.microsoft.Attention <num_heads = 2, unidirectional = 1> (x, w, b, , past)",
    "pieces": """m = MatMul (x, w) qkv = Add (m, b) q, k, v = Split <axis = 2, num_outputs = 3> (qkv)
        qr = Reshape (q, wide) kr = Reshape (k, wide) vr = Reshape (v, wide)
        qh = Transpose <perm = [0, 2, 1, 3]> (qr) kh = Transpose <perm = [0, 2, 1, 3]> (kr)
        vh = Transpose <perm = [0, 2, 1, 3]> (vr) pk = Gather <axis = 0> (past, first) pv = Gather <axis = 0> (past, second)
        kk = Concat <axis = 2> (pk, kh) vv = Concat <axis = 2> (pv, vh) ku = Unsqueeze (kk, zero) vu = Unsqueeze (vv, zero)
        present = Concat <axis = 0> (ku, vu) kt = Transpose <perm = [0, 1, 3, 2]> (kk) s = MatMul (qh, kt)
        p = Softmax <axis = -1> (s) h = MatMul (p, vv) ht = Transpose <perm = [0, 2, 1, 3]> (h) y = Reshape (ht, flat)""",
}  # fmt: skip


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_past_grows_where_it_is(name: str) -> None:
    rng = np.random.default_rng(0)
    text = f"""<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]>
        g (float[B,S,32] x, float[2,B,2,P,16] past, float[32,96] w, float[96] b) => (float[B,S,32] y, float[2,B,2,T,16] present) {{
        wide = Constant <value_ints = [0, 0, 2, 16]> () flat = Constant <value_ints = [0, 0, 32]> ()
        first = Constant <value_int = 0> () second = Constant <value_int = 1> () zero = Constant <value_ints = [0]> ()
        {PACKED[name]} }}"""
    made = onnx.parser.parse_model(text).SerializeToString()
    ours, theirs = jitrt.InferenceSession(made), onnxruntime.InferenceSession(made)
    past, w, b = (rng.standard_normal(shape, np.float32) for shape in ((2, 2, 2, 3, 16), (32, 96), (96,)))
    binding = ours.io_binding()
    cache = binding.bind_cache("past", "present", past, 40)
    binding.bind_cpu_input("w", w)
    binding.bind_cpu_input("b", b)
    binding.bind_output("y")
    for count in (2, *[1] * 8):
        x = rng.standard_normal((2, count, 32), np.float32)
        binding.bind_cpu_input("x", x)
        binding.run()
        y, past = theirs.run(["y", "present"], {"x": x, "past": past, "w": w, "b": b})
        np.testing.assert_allclose(cache.numpy(), past, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(binding.get_outputs()[0].numpy(), y, rtol=1e-3, atol=1e-4)
    assert in_place(ours) == [["present"]] * len(in_place(ours))
    assert all("copy" not in {step.kernel.name for step in entry.plan.steps} for entry in open_plans(ours))


# -- memory that overlaps
HALVES = "a, b = Split <axis = 0, num_outputs = 2> (x) "
HAZARDS = {
    "elements move": "r = Slice (x, last, first, zero, back) y = Add (x, r)",
    "each element its own": "y = Mul (x, x)",
    "read again later": "y = Neg (x) z = Mul (x, y)",
    "pieces change places": HALVES + "y = Concat <axis = 0> (b, a)",
    "half stays": HALVES + "c = Neg (b) y = Concat <axis = 0> (a, c)",
    "half stays and is read": HALVES + "c = Neg (b) y = Concat <axis = 0> (a, c) z = Add (a, c)",
    "half stays, the rest is read": HALVES + "c = Neg (b) y = Concat <axis = 0> (a, c) z = Add (a, b)",
    "nothing changes": "y = Identity (x)",
    "gaps": HALVES + "y = Pad (a, around)",
}  # fmt: skip
CONSTANTS = """zero = Constant <value_ints = [0]> () first = Constant <value_ints = [-100]> ()
    last = Constant <value_ints = [-1]> () back = Constant <value_ints = [-1]> ()
    around = Constant <value_ints = [0, 0, 3, 0]> ()"""


@pytest.mark.parametrize("name", HAZARDS)
@pytest.mark.parametrize("shift", [0, 1, 3, 6])
def test_outputs_on_inputs_are_right(name: str, shift: int) -> None:
    """An output is bound `shift` rows behind the input's first row."""
    text = HAZARDS[name]
    outputs = "float[6,3] y, float[A,B] z" if " z = " in text else "float[6,3] y"
    session = jitrt.InferenceSession(model(f"(float[6,3] x) => ({outputs}) {{ {CONSTANTS} {text} }}"))
    names = [x.name for x in session.get_outputs()]
    expected = session.run(names, {"x": values(6, 3)})
    memory = np.full((14, 3), np.nan, np.float32)
    x, y = memory[:6], memory[shift : shift + 6]
    binding = session.io_binding()
    for _ in range(3):
        x[...] = values(6, 3)
        binding.bind_cpu_input("x", x)
        binding.bind_ortvalue_output("y", jitrt.OrtValue.ortvalue_from_numpy(y))
        if "z" in names:
            binding.bind_output("z")
        binding.run()
        for got, wanted in zip(binding.get_outputs(), expected, strict=True):
            np.testing.assert_array_equal(got.numpy(), wanted)
        np.testing.assert_array_equal(y, expected[0])
        assert np.isnan(memory[max(6, shift + 6) :]).all()


def test_an_input_that_lies_in_a_cache_is_read_before_it_changes() -> None:
    ours = jitrt.InferenceSession(model("(float[N,3] past, float[S,3] x) => (float[M,3] p) { p = Concat <axis = 0> (past, x) }"))
    binding = ours.io_binding()
    cache = binding.bind_cache("past", "p", values(4, 3), 40)
    for n in range(3):
        expected = np.concatenate([cache.numpy(), cache.buffer[n : n + 5]])
        binding.bind_cpu_input("x", cache.buffer[n : n + 5])  # some rows in use, one that is written now
        binding.run()
        np.testing.assert_array_equal(cache.numpy(), expected)


def test_an_output_goes_straight_to_its_memory() -> None:
    ours = jitrt.InferenceSession(model("(float[N] x) => (float[N] y, float[N] z) { y = Exp (x) z = Neg (x) }"))
    binding = ours.io_binding()
    y, apart = np.empty(5, np.float32), np.zeros(10, np.float32)
    x = np.linspace(0, 1, 5, dtype=np.float32)
    binding.bind_cpu_input("x", x)
    binding.bind_ortvalue_output("y", jitrt.OrtValue.ortvalue_from_numpy(y))
    binding.bind_ortvalue_output("z", jitrt.OrtValue(apart[::2]))  # not contiguous: copied
    binding.run()
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-6)
    np.testing.assert_array_equal(apart, np.stack([-x, 0 * x], 1).reshape(-1))
    assert binding.get_outputs()[0].numpy() is y


@st.composite
def joins(draw) -> tuple[Graph, np.ndarray, np.ndarray]:
    """Rows of x, new rows and rows of others in any order, as long as x; more of x is read beside."""
    count = draw(st.integers(2, 9))
    pieces, left, nodes = [], count, []

    def rows(size: int) -> str:
        start = draw(st.integers(0, count - size)) if draw(st.booleans()) else count - left if size <= left else 0
        nodes.append(f"s{len(nodes)} = Slice (x, {const(start)}, {const(start + size)}, zero)")
        return nodes[-1].split()[0]

    numbers: dict[int, str] = {}

    def const(n: int) -> str:
        return numbers.setdefault(n, f"c{n}")

    while left:
        size = draw(st.integers(1, left))
        name = rows(size)
        if draw(st.booleans()):
            nodes.append(f"n{len(nodes)} = Mul ({name}, w)")
            name = nodes[-1].split()[0]
        pieces.append(name)
        left -= size
    beside = rows(draw(st.integers(1, count)))
    nodes.append(f"z = Mul ({beside}, {beside})")
    if len(pieces) > 2 and draw(st.booleans()):
        nodes.append(f"inner = Concat <axis = 0> ({', '.join(pieces[1:])})")
        pieces = [pieces[0], "inner"]
    nodes.append(f"j = Concat <axis = 0> ({', '.join(pieces)})" if len(pieces) > 1 else f"j = Identity ({pieces[0]})")
    nodes.append("y = Identity (j)")
    constants = " ".join(f"{name} = Constant <value_ints = [{n}]> ()" for n, name in numbers.items())
    header = f"(float[{count},3] x, float[3] w) => (float[{count},3] y, float[A,B] z)"
    text = f"{header} {{ zero = Constant <value_ints = [0]> () {constants} {' '.join(nodes)} }}"
    graph = load(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')).graph
    return graph, values(count, 3), values(3, seed=1)


@FEW
@given(joins())
def test_random_joins_in_the_array_that_they_read_are_right(problem) -> None:
    graph, x, w = problem
    expected = Interpreter(graph).run({"x": x, "w": w})
    memory = x.copy()
    (y, z), *_ = bound.run(Engine(graph, 1), {"x": memory, "w": w}, {"y": memory, "z": None})
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(memory, expected[0])
    np.testing.assert_array_equal(z, expected[1])
