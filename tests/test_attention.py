"""Attention in the spellings of exporters becomes one kernel, and computes what the nodes say (run with numpy)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx.parser
import pytest

import jitrt
from benchmarks import zoo
from jitrt.fusion.importer import load
from jitrt.fusion.interpret import Interpreter
from jitrt.fusion.plan import Step
from jitrt.fusion.rewrite import rewrite
from jitrt.fusion.simplify import simplify
from jitrt.fusion.trace import Specialise, trace
from jitrt.ops.kernels import target
from jitrt.ops.kernels.attention import Band
from jitrt.ops.kernels.attentionfew import AT_ONCE
from jitrt.ops.primitives import Kernel

Array = np.ndarray
B, N, S, T, D = 2, 4, 19, 23, 8
RNG = np.random.default_rng(3)
LOWEST = float(np.finfo(np.float32).min)
QKV = f"float[{B},{N},{S},{D}] q, float[{B},{N},{D},{T}] k, float[{B},{N},{T},{D}] v"
Y = f"float[{B},{N},{S},{D}] y"
END = "p = Softmax <axis = -1> (c) y = MatMul (p, v)"


def model_of(text: str, opset: int = 20) -> onnx.ModelProto:
    """A model whose body is given in ONNX's text form."""
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> g {text}')


def feeds_of(model: onnx.ModelProto, given: Mapping[str, Array]) -> dict[str, Array]:
    """Values for all inputs: those given, random ones for the others."""
    made, rng = {}, np.random.default_rng(3)
    for x in model.graph.input:
        shape = [d.dim_value for d in x.type.tensor_type.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(x.type.tensor_type.elem_type)
        made[x.name] = given[x.name] if x.name in given else rng.standard_normal(shape).astype(kind)
    return made


def check(model: onnx.ModelProto, kernels: int = 1, given: Mapping[str, Array] | None = None) -> None:
    """Compare with numpy, and count what attention's kernel computes; it may be called for parts of the queries."""
    feeds = feeds_of(model, given or {})
    session = jitrt.InferenceSession(model.SerializeToString())
    expected = Interpreter(load(model).graph).run(feeds)
    for got, wanted in zip(session.run(None, feeds), expected, strict=True):
        np.testing.assert_allclose(got, wanted, 2e-5, 2e-6)
    steps = [step for step in session.get_plan(feeds).steps if isinstance(step, Step)]
    assert len({step.nodes for step in steps if step.kernel.name == "attention"}) == kernels


SPELLINGS = {
    "no scale": f"({QKV}) => ({Y}) {{ c = MatMul (q, k) {END} }}",
    "a scale after": f"({QKV}) => ({Y}) <float s = {{0.3}}> {{ a = MatMul (q, k) c = Mul (a, s) {END} }}",
    "a divisor": f"({QKV}) => ({Y}) <float s = {{3.0}}> {{ a = MatMul (q, k) c = Div (a, s) {END} }}",
    "a scale on both": f"({QKV}) => ({Y}) <float s = {{0.6}}> {{ a = Mul (q, s) b = Mul (k, s) c = MatMul (a, b) {END} }}",
    "a scale on queries in heads": f"(float[{B},{S},{N * D}] x, float[{B},{N},{D},{T}] k, float[{B},{N},{T},{D}] v) => ({Y})"
    f" <float s = {{0.3}}, int64[4] h = {{{B},{S},{N},{D}}}>"
    " { a = Mul (s, x) b = Reshape (a, h) q = Transpose <perm = [0, 2, 1, 3]> (b) c = MatMul (q, k)"
    f" {END} }}",
    "a scale on queries of one head": f"(float[{S},{D}] q, float[{D},{T}] k, float[{T},{D}] v) => (float[{S},{D}] y)"
    f" <float s = {{0.3}}> {{ a = Mul (q, s) c = MatMul (a, k) {END} }}",
    "a cap": f"({QKV}) => ({Y}) <float s = {{2.0}}> {{ a = MatMul (q, k) b = Div (a, s) d = Tanh (b) c = Mul (d, s) {END} }}",
    "a scale after the mask": f"({QKV}, float[{S},{T}] m) => ({Y}) <float s = {{0.3}}>"
    f" {{ a = MatMul (q, k) b = Add (a, m) c = Mul (s, b) {END} }}",
    "a mask and a bias": f"({QKV}, float[{B},1,1,{T}] m, float[1,{N},{S},{T}] b) => ({Y})"
    f" {{ a = MatMul (q, k) d = Add (b, a) c = Add (d, m) {END} }}",
    "scores used twice": f"({QKV}) => ({Y}) {{ a = MatMul (q, k) b = Sigmoid (a) c = Mul (a, b) {END} }}",
    "a scale of a value used twice": f"({QKV}) => ({Y}) <float s = {{0.3}}>"
    f" {{ a = MatMul (q, k) b = Mul (a, s) d = Neg (a) c = Max (b, d) {END} }}",
    "softmax in steps": f"({QKV}) => ({Y}) <int64[1] n = {{-1}}> {{ c = MatMul (q, k) t = ReduceMax (c, n) d = Sub (c, t)"
    " e = Exp (d) r = ReduceSum (e, n) p = Div (e, r) y = MatMul (p, v) }",
    "batches of matrices": f"(float[{B * N},{S},{D}] q, float[{B * N},{T},{D}] k, float[{B * N},{T},{D}] v,"
    f" float[{B},1,{S},{T}] m) => (float[{B * N},{S},{D}] y) <int64[4] s = {{{B},{N},{S},{T}}}, int64[3] u = {{{B * N},{S},{T}}}>"
    " { t = Transpose <perm = [0, 2, 1]> (k) a = MatMul (q, t) b = Reshape (a, s) d = Add (b, m) c = Reshape (d, u)"
    f" {END} }}",
    "queries, keys and values in one": f"(float[{B},{S},{3 * N * D}] x) => (float[{B},{S},{N * D}] y)"
    f" <int64[5] s = {{{B},{S},3,{N},{D}}}, int64[3] u = {{{B},{S},{N * D}}}, int64[1] n = {{0}}>"
    " { a = Reshape (x, s) b = Transpose <perm = [2, 0, 3, 1, 4]> (a) h, i, j = Split <axis = 0, num_outputs = 3> (b)"
    " q = Squeeze (h, n) l = Squeeze (i, n) v = Squeeze (j, n) k = Transpose <perm = [0, 1, 3, 2]> (l) c = MatMul (q, k)"
    " p = Softmax <axis = -1> (c) o = MatMul (p, v) r = Transpose <perm = [0, 2, 1, 3]> (o) y = Reshape (r, u) }",
    "heads that share keys": f"(float[{B},{N},{S},{D}] q, float[{B},2,{T},{D}] k, float[{B},2,{T},{D}] v, float[{B},1,{S},{T}] m)"
    f" => ({Y}) <int64[1] n = {{2}}, int64[5] e = {{1,1,2,1,1}}, int64[4] s = {{{B},{N},{T},{D}}}>"
    " { a = Unsqueeze (k, n) b = Expand (a, e) d = Reshape (b, s) t = Transpose <perm = [0, 1, 3, 2]> (d) f = MatMul (q, t)"
    " c = Add (f, m) p = Softmax <axis = -1> (c) g = Unsqueeze (v, n) h = Expand (g, e) i = Reshape (h, s) y = MatMul (p, i) }",
    "windows": f"(float[6,{N},{S},{D}] q, float[6,{N},{D},{T}] k, float[6,{N},{T},{D}] v, float[1,3,1,{S},{T}] m,"
    f" float[1,{N},{S},{T}] b) => (float[6,{N},{S},{D}] y)"
    f" <int64[5] s = {{2,3,{N},{S},{T}}}, int64[4] u = {{6,{N},{S},{T}}}>"
    f" {{ a = MatMul (q, k) d = Add (a, b) e = Reshape (d, s) f = Add (e, m) c = Reshape (f, u) {END} }}",
    "a mask spread in advance": f"({QKV}, float[{B},1,1,{T}] m) => ({Y}) <int64[4] s = {{{B},1,{S},{T}}}>"
    f" {{ e = Expand (m, s) a = MatMul (q, k) c = Add (a, e) {END} }}",
    "one head": f"(float[{S},{D}] q, float[{D},{T}] k, float[{T},{D}] v) => (float[{S},{D}] y) {{ c = MatMul (q, k) {END} }}",
    "float64": f"({QKV}) => ({Y}) {{ c = MatMul (q, k) {END} }}".replace("float[", "double["),
}  # fmt: skip


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_a_spelling_is_one_kernel(text: str) -> None:
    check(model_of(text))


@pytest.mark.parametrize("name", ["a scale on both", "a scale on queries in heads", "a scale on queries of one head"])
def test_a_number_for_queries_and_keys_is_one_for_scores(name: str) -> None:
    model = model_of(SPELLINGS[name])
    session = jitrt.InferenceSession(model.SerializeToString())
    assert [step.kernel.name for step in session.get_plan(feeds_of(model, {})).steps] == ["attention"]


STAYS = {
    "probabilities are an output": f"({QKV}) => ({Y}, float[{B},{N},{S},{T}] p) {{ c = MatMul (q, k) {END} }}",
    "scores are an output": f"({QKV}) => ({Y}, float[{B},{N},{S},{T}] c) {{ c = MatMul (q, k) {END} }}",
    "scores are read elsewhere": f"({QKV}) => ({Y}, float z) {{ c = MatMul (q, k) z = ReduceSum <keepdims = 0> (c) {END} }}",
    "another axis": f"({QKV}) => ({Y}) {{ c = MatMul (q, k) p = Softmax <axis = 2> (c) y = MatMul (p, v) }}",
    "more scores than products": f"(float[{S},{D}] q, float[{D},{T}] k, float[{N},{T},{D}] v, float[{N},1,{T}] m)"
    f" => (float[{N},{S},{D}] y) {{ a = MatMul (q, k) c = Add (a, m) {END} }}",
}  # fmt: skip


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS)
def test_what_others_read_stays_as_it_is(text: str) -> None:
    check(model_of(text), kernels=0)


ZEROED = (
    f"({QKV}, bool[{B},1,{S},{T}] m, bool[{B},1,{S},{T}] n) => ({Y}) <float low = {{LOW}}, float zero = {{0.0}}>"
    " { a = MatMul (q, k) c = Where (m, low, a) p = Softmax <axis = -1> (c) z = Where (OTHER, zero, p) y = MatMul (z, v) }"
)


@pytest.mark.parametrize(("low", "other", "kernels"), [(LOWEST, "m", 1), (-1e31, "m", 1), (-9.0, "m", 0), (LOWEST, "n", 0)])
def test_what_is_hidden_before_a_softmax_may_be_zeroed_behind_it(low: float, other: str, kernels: int) -> None:
    """As DeBERTa's exports do: that changes rows only of which everything is hidden."""
    m, n = RNG.random((2, B, 1, S, T)) < 0.3
    m[0, 0, 3], m[1, 0, :5], m[1, 0, 7] = True, True, False
    check(model_of(ZEROED.replace("LOW", repr(low)).replace("OTHER", other)), kernels, {"m": m, "n": n})


MASKS = {
    "a key": (T,), "a query": (S, 1), "a pair": (S, T), "a batch": (B, 1, 1, 1), "a batch's key": (B, 1, 1, T),
    "a batch's pair": (B, 1, S, T), "a head's pair": (1, N, S, T), "all": (B, N, S, T), "one": (1,), "a head": (N, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("shape", MASKS.values(), ids=MASKS)
def test_a_mask_of_every_shape(shape: tuple[int, ...], constant: bool) -> None:
    dims = ",".join(map(str, shape))
    hidden = np.where(RNG.random(shape) < 0.3, -1e9, RNG.standard_normal(shape)).astype(np.float32)
    model = model_of(f"({QKV}, float[{dims}] m) => ({Y}) {{ a = MatMul (q, k) c = Add (a, m) {END} }}")
    if constant:
        model.graph.input.pop()
        model.graph.initializer.append(onnx.numpy_helper.from_array(hidden, "m"))
    check(model, given={"m": hidden})


@pytest.mark.parametrize("filler", [-np.inf, LOWEST, -1e9, -1e4])
@pytest.mark.parametrize("kind", ["added", "chosen"])
def test_rows_that_see_nothing_are_what_softmax_makes_of_them(kind: str, filler: float) -> None:
    seen = RNG.random((B, 1, S, T)) < 0.5
    seen[0, 0, 3], seen[1, 0, :, T // 2 :], seen[1, 0, :2] = False, False, False
    if kind == "added":
        text = f"({QKV}, float[{B},1,{S},{T}] m) => ({Y}) {{ a = MatMul (q, k) c = Add (a, m) {END} }}"
        given = {"m": np.where(seen, 0, filler).astype(np.float32)}
    else:
        text = f"({QKV}, bool[{B},1,{S},{T}] m, float[1] f) => ({Y}) {{ a = MatMul (q, k) c = Where (m, a, f) {END} }}"
        given = {"m": seen, "f": np.array([filler], np.float32)}
    check(model_of(text), given=given)


CAUSAL = f"({QKV}) => ({Y}) {{ a = MatMul (q, k) c = Where (m, a, f) {END} }}"


@pytest.mark.parametrize("filler", [-np.inf, LOWEST])
@pytest.mark.parametrize("shift", [0, T - S, -5, T])
def test_a_causal_mask(shift: int, filler: float) -> None:
    model = model_of(CAUSAL)
    values = {"m": np.tri(S, T, shift, dtype=bool), "f": np.float32(filler)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(x), name) for name, x in values.items())
    check(model)


def bands(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Band | None]:
    """What each attention of a model is known to see."""
    read = frozenset()
    while True:
        try:
            made = trace(rewrite(load(model).graph), feeds, [x.name for x in model.graph.output], read).trace
            break
        except Specialise as need:
            read |= {*need.readers}
    return [p.launch.__self__.band for p in simplify(made).primitives if isinstance(p, Kernel) and p.name == "attention"]


SEEN = {
    "chosen": (CAUSAL, np.tri(S, T, 2, dtype=bool), (S - 1, 2)),
    "a window": (CAUSAL, np.tri(S, T, 2, dtype=bool) & ~np.tri(S, T, -6, dtype=bool), (5, 2)),
    "for some heads": (CAUSAL, np.stack([np.tri(S, T, n, dtype=bool) for n in (1, 2, 3, 0)]), (S - 1, 3)),
    "keys that nobody sees": (CAUSAL, np.arange(T) < 4, (S - 1, 3)),
    "added": (CAUSAL.replace("Where (m, a, f)", "Add (a, m)"), np.where(np.tri(S, T), 0, -np.inf).astype(np.float32), (S - 1, 0)),
    "with what a run hides": (
        f"({QKV}, bool[{B},1,1,{T}] r) => ({Y}) <float z = {{0.0}}>"
        f" {{ a = MatMul (q, k) n = And (r, m) w = Where (n, z, f) c = Add (w, a) {END} }}",
        np.tri(S, T, 4, dtype=bool), (S - 1, 4),
    ),
    "by little": (CAUSAL.replace("Where (m, a, f)", "Add (a, m)"), np.where(np.tri(S, T), 0, -5.0).astype(np.float32), None),
    "before a cap": (
        f"({QKV}) => ({Y}) {{ a = MatMul (q, k) b = Where (m, a, f) c = Tanh (b) {END} }}", np.tri(S, T, 2, dtype=bool), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "mask", "band"), SEEN.values(), ids=SEEN)
@pytest.mark.parametrize("filler", [-np.inf, LOWEST])
def test_a_mask_that_is_known_leaves_out_what_it_hides(text: str, mask: Array, band: tuple[int, int] | None, filler: float) -> None:
    model = model_of(text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(x), n) for n, x in {"m": mask, "f": np.float32(filler)}.items()
    )
    (found,) = bands(model, feeds_of(model, {}))
    assert (found and (found.back, found.ahead)) == band
    check(model, given={"r": RNG.random((B, 1, 1, T)) < 0.8})


def test_decoders_and_operators_leave_out_what_a_causal_mask_hides() -> None:
    sizes = {"layers": 1, "width": 32, "heads": 2, "vocabulary": 20, "context": 64}
    feeds = zoo.inputs("gpt2", **sizes, sequence=9, past_sequence=4)
    assert [band and band.ahead for band in bands(zoo.build("gpt2", **sizes), feeds)] == [4]
    shape = f"float[{B},{N},{S},{D}]"
    model = model_of(f"({shape} q, {shape} k, {shape} v) => ({Y}) {{ y = Attention <is_causal = 1> (q, k, v) }}", 23)
    assert [band and band.ahead for band in bands(model, feeds_of(model, {}))] == [0]


def test_the_attention_operators_are_the_kernel() -> None:
    shape = f"float[{B},{N},{S},{D}]"
    check(model_of(f"({shape} q, {shape} k, {shape} v) => ({Y}) {{ y = Attention <is_causal = 1> (q, k, v) }}", 23))
    few = f"float[{B},2,{S},{D}]"
    masked = f"({shape} q, {few} k, {few} v, bool[{S},{S}] m) => ({Y}) {{ y = Attention <softcap = 2.0> (q, k, v, m) }}"
    check(model_of(masked, 23), given={"m": RNG.random((S, S)) < 0.7})
    rows = f"float[{B},{S},{N * D}]"
    text = f"({rows} q, {rows} k, {rows} v) => ({rows} y) {{ y = com.microsoft.MultiHeadAttention <num_heads = {N}> (q, k, v) }}"
    check(model_of(text))


@pytest.mark.parametrize("queries", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("keys", [37, 300])
@pytest.mark.parametrize("mask", ["a key", "a query", "a pair", "a batch's pair", "all"])
def test_a_few_queries_are_masked_in_rows(queries: int, keys: int, mask: str) -> None:
    sizes = {S: queries, T: keys}
    shape = tuple(sizes.get(n, n) for n in MASKS[mask])
    dims = ",".join(map(str, shape))
    heads = f"float[{B},{N},{queries},{D}] q, float[{B},{N},{D},{keys}] k, float[{B},{N},{keys},{D}] v"
    text = f"({heads}, float[{dims}] m) => (float[{B},{N},{queries},{D}] y) {{ a = MatMul (q, k) c = Add (a, m) {END} }}"
    hidden = np.where(RNG.random(shape) < 0.3, -1e9, RNG.standard_normal(shape)).astype(np.float32)
    check(model_of(text), given={"m": hidden})
    turned = text.replace(f"float[{B},{N},{D},{keys}] k", f"float[{B},{N},{keys},{D}] l").replace(
        "a = MatMul", "k = Transpose <perm = [0, 1, 3, 2]> (l) a = MatMul"
    )
    check(model_of(turned), given={"m": hidden})


@pytest.mark.parametrize("rest", [1, 4, 5, 8, 9])
@pytest.mark.parametrize("mask", ["none", "a key", "a query", "a pair", "a batch's pair", "all", "causal", "a window"])
def test_a_few_queries_beyond_whole_vectors_are_a_part_of_their_own(rest: int, mask: str) -> None:
    queries, keys = target.current().lanes * 3 + rest, 53
    shape = tuple({S: queries, T: keys}.get(n, n) for n in MASKS.get(mask, (S, T)))
    hidden = np.where(RNG.random(shape) < 0.3, -1e9, RNG.standard_normal(shape)).astype(np.float32)
    if mask in ("causal", "a window"):
        seen = np.tri(queries, keys, 1, dtype=bool) & ~np.tri(queries, keys, -99 if mask == "causal" else -20, dtype=bool)
        hidden = np.where(seen, 0, -np.inf).astype(np.float32)
    text = (
        f"(float[{B},{N},{queries},{D}] q, float[{B},{N},{keys},{D}] l, float[{B},{N},{keys},{D}] v)"
        f" => (float[{B},{N},{queries},{D}] y) {{ k = Transpose <perm = [0, 1, 3, 2]> (l) a = MatMul (q, k)"
        f" c = {'Identity (a)' if mask == 'none' else 'Add (a, m)'} {END} }}"
    )
    model = model_of(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(hidden, "m"))
    check(model)
    session, feeds = jitrt.InferenceSession(model.SerializeToString()), feeds_of(model, {})
    session.run(None, feeds)
    assert len(session.get_plan(feeds).steps) == (2 if 0 < rest % target.current().lanes <= AT_ONCE else 1)


@pytest.mark.parametrize("queries", [1, 2, 5])
def test_decoding_with_a_past(queries: int) -> None:
    """Keys and values are joined with those before them, which are outputs."""
    text = (
        f"(float[{B},{N},{queries},{D}] q, float[{B},2,{queries},{D}] k, float[{B},2,{queries},{D}] v, float[{B},2,{T},{D}] h,"
        f" float[{B},2,{T},{D}] i) => (float[{B},{N},{queries},{D}] y, float[{B},2,{T + queries},{D}] r,"
        f" float[{B},2,{T + queries},{D}] s) {{ y, r, s = Attention <is_causal = 1> (q, k, v, , h, i) }}"
    )
    check(model_of(text, 23))


def test_masks_that_layers_share_are_turned_once() -> None:
    text = (
        f"({QKV}, float[{S},{T}] m) => ({Y}) {{ a = MatMul (q, k) b = Add (a, m) d = Softmax <axis = -1> (b) e = MatMul (d, v)"
        f" f = MatMul (e, k) c = Add (f, m) {END} }}"
    )
    model = model_of(text)
    check(model, kernels=2)
    feeds = feeds_of(model, {})
    session = jitrt.InferenceSession(model.SerializeToString())
    session.run(None, feeds)
    assert sum(step.kernel.name == "pad_copy" for step in session.get_plan(feeds).steps) == 1
