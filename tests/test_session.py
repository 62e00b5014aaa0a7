"""The session: onnxruntime's calls, answers and errors on the same models."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.parser import parse_model
from reference import skip_where_old
from small_model import MODEL, WRONG, K, X, raised

import jitrt
from jitrt.fusion import support
from jitrt.log import log

onnxruntime.set_default_logger_severity(4)


@pytest.fixture(scope="module")
def theirs() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(MODEL)


@pytest.fixture(scope="module")
def ours() -> jitrt.InferenceSession:
    return jitrt.InferenceSession(MODEL)


def session(text: str, **options: object) -> jitrt.InferenceSession:
    header = '<ir_version: 11, opset_import: ["": 23]> '
    return jitrt.InferenceSession(parse_model(header + text), jitrt.SessionOptions(**options))


# -- errors


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_raises_what_onnxruntime_raises_and_says_what_was_expected(case, ours, theirs):
    feeds, names, said = WRONG[case]
    expected, found = raised(lambda: theirs.run(names, feeds)), raised(lambda: ours.run(names, feeds))
    assert type(found).__name__ == type(expected).__name__
    assert said in str(found)


UNFIT = {
    "text": "abc",
    "nothing": None,
    "a dictionary": {},
    "a ragged list": [[1.0, 2.0], [3.0]],
    "dates": np.zeros((2, 3), "M8[s]"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_is_no_array_of_numbers_is_an_invalid_argument_that_names_the_input(case, ours):
    with pytest.raises(jitrt.InvalidArgument, match="input 'x'") as caught:
        ours.run(None, {"x": UNFIT[case], "k": K})
    assert isinstance(caught.value, RuntimeError)  # which onnxruntime raises for most of these


def test_programs_that_catch_onnxruntimes_classes_by_its_module_catch_ours(ours):
    state = jitrt.capi.onnxruntime_pybind11_state
    with pytest.raises(state.InvalidArgument):
        ours.run(["nope"], {"x": X, "k": K})
    theirs = onnxruntime.capi.onnxruntime_pybind11_state
    names = [n for n, v in vars(theirs).items() if isinstance(v, type) and issubclass(v, Exception)]
    assert [n for n in names if not hasattr(state, n) or not hasattr(jitrt, n)] == []


FAILING = {
    "Add": ("float[N] x, float[M] s", "y = Add (x, s)", {"x": X[0], "s": X[0, :2]}),
    "Reshape": ("float[N] x, int64[M] s", "y = Reshape (x, s)", {"x": X[0], "s": np.array([2, 2])}),
    "MatMul": ("float[N, M] x", "y = MatMul (x, x)", {"x": X}),
    "Gather": ("float[N] x, int64[M] s", "y = Gather (x, s)", {"x": X[0], "s": np.array([9])}),
    "Expand": ("float[N] x, int64[M] s", "y = Expand (x, s)", {"x": X[0], "s": np.array([4])}),
    "Det": ("float[N, M] x", "y = Det (x)", {"x": X}),
    "Cast": ("string[N] x", "y = Cast <to = 1> (x)", {"x": np.array(["no number"])}),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_node_that_fails_raises_what_onnxruntime_raises_and_says_why(case):
    inputs, body, feeds = FAILING[case]
    text = f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => (y) {{ {body} }}'
    made = parse_model(text).SerializeToString()
    expected = raised(lambda: onnxruntime.InferenceSession(made).run(None, feeds))
    with pytest.raises(getattr(jitrt, type(expected).__name__)) as caught:
        jitrt.InferenceSession(made).run(None, feeds)
    assert str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_operator_that_nothing_computes_is_not_implemented(monkeypatch):
    monkeypatch.setattr(support.registry, "find", lambda *_: None)
    monkeypatch.setattr(support, "_is_defined", lambda *_: False)
    with pytest.raises(jitrt.NotImplemented, match="Add 't': nothing computes"):
        jitrt.InferenceSession(MODEL)


def test_a_node_that_does_not_fit_names_itself():
    made = session("g (float[N] x, float[M] y) => (float[K] z) { [the_sum] z = Add (x, y) }")
    with pytest.raises(jitrt.RuntimeException, match="Add 'the_sum'"):
        made.run(None, {"x": np.zeros(2, np.float32), "y": np.zeros(3, np.float32)})


# -- feeds
class HasArray:
    """Anything with ``__array__``."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return X


class HasDLPack:
    """Anything with DLPack only."""

    def __dlpack__(self, **options: object) -> object:
        return X.copy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return X.__dlpack_device__()


class Tracked(HasDLPack):
    """A tensor that has to be detached from a tape first, as torch's."""

    def __dlpack__(self, **options: object) -> object:
        raise BufferError("needs a gradient")

    def detach(self) -> object:
        return HasDLPack()


def unaligned() -> np.ndarray:
    return np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(X.shape)


def read_only() -> np.ndarray:
    array = X.copy()
    array.flags.writeable = False
    return array


def foreign() -> onnxruntime.OrtValue:
    skip_where_old("has no OrtValues that are arrays (microsoft/onnxruntime#27980)")
    return onnxruntime.OrtValue.ortvalue_from_numpy(X)


FEEDS: dict[str, Callable[[], object]] = {
    "__array__": HasArray,
    "DLPack": HasDLPack,
    "a tracked tensor": Tracked,
    "a nested list": lambda: X.tolist(),
    "a list of integers": lambda: X.astype(int).tolist(),
    "a tuple of arrays": lambda: tuple(X),
    "Fortran order": lambda: np.asfortranarray(X),
    "strides": lambda: np.repeat(X, 2, 0)[::2],
    "negative strides": lambda: X[::-1, ::-1].copy()[::-1, ::-1],
    "a broadcast view": lambda: np.broadcast_to(X, (2, 2, 3))[1],
    "swapped bytes": lambda: X.astype(X.dtype.newbyteorder()),
    "read only": read_only,
    "unaligned": unaligned,
    "a memoryview": lambda: memoryview(X),
    "a subclass": lambda: np.ma.masked_array(X),
    "an OrtValue": lambda: jitrt.OrtValue.ortvalue_from_numpy(X),
    "onnxruntime's OrtValue": foreign,
}


@pytest.mark.parametrize("case", FEEDS)
def test_anything_that_is_an_array_may_be_fed(case, ours):
    y, z = ours.run(None, {"x": FEEDS[case](), "k": [1, 2]})
    np.testing.assert_array_equal(y, X + np.float32([1, 2, 3]), strict=True)
    np.testing.assert_array_equal(z, [-1, -2])


def test_an_input_without_elements_may_be_fed(ours):
    y, _ = ours.run(None, {"x": X[:0], "k": K})
    assert y.shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "given", "fits"),
    [
        ("int64", 3, True), ("int64", 3.0, True), ("int64", 3.5, False), ("uint8", 200, True), ("uint8", 300, False),
        ("uint8", -1, False), ("float", 3, True), ("bool", True, True), ("bool", 2, False), ("double", np.float64(2), True),
        ("float", np.float64(2), False),
    ],
)  # fmt: skip
def test_a_python_number_becomes_the_declared_type_if_that_can_hold_it(kind, given, fits):
    made = session(f"g ({kind} x) => ({kind} y) {{ y = Identity (x) }}")
    if fits:
        assert made.run(None, {"x": given})[0] == given
    else:
        with pytest.raises(jitrt.InvalidArgument, match="input 'x'"):
            made.run(None, {"x": given})


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"])
def test_arrays_of_ml_dtypes_go_in_and_come_out(name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    kind = name.replace("_", "")
    made = session(f"g ({kind}[N] x) => (float[N] y, {kind}[N] z) {{ y = Cast <to = 1> (x) z = Identity (x) }}")
    x = np.array([0, 1, 2, 3, 5], np.float32).astype(dtype)
    y, z = made.run(None, {"x": x})
    np.testing.assert_array_equal(y, x.astype(np.float32), strict=True)
    assert z.dtype == dtype
    np.testing.assert_array_equal(z.astype(np.float32), y)
    assert made.get_inputs()[0].type == f"tensor({kind})"


def test_a_bfloat16_tensor_comes_by_dlpack_though_numpy_does_not_know_it():
    x = np.array([[1.5, -2, 3], [0.25, 7, 9]], np.float32).astype(ml_dtypes.bfloat16)
    # what OrtValue wraps: OrtValue itself was not always a tensor of DLPack
    tensor = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(x.view(np.uint16), TensorProto.BFLOAT16)._ortvalue

    class Foreign:
        def __dlpack__(self, **_: object) -> object:
            return tensor.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return tensor.__dlpack_device__()

    made = session("g (bfloat16[N, 3] x) => (float[N, 3] y) { y = Cast <to = 1> (x) }")
    np.testing.assert_array_equal(made.run(None, {"x": Foreign()})[0], x.astype(np.float32))


def test_strings_are_fed_as_texts_or_objects():
    made = session("g (string[N] x) => (string[N] y) { y = Identity (x) }")
    for x in (["a", "béta", ""], np.array(["a", "béta", ""]), np.array(["a", "béta", ""], object)):
        assert made.run(None, {"x": x})[0].tolist() == ["a", "béta", ""]


def test_what_is_no_text_becomes_text_as_in_onnxruntime():
    made = session("g (string[N] x) => (string[N] y) { y = Identity (x) }")
    assert made.run(None, {"x": np.array([1, None, b"c", "d"], object)})[0].tolist() == ["1", "None", "c", "d"]
    assert made.run(None, {"x": np.array([b"a", b"b"])})[0].tolist() == ["a", "b"]


def test_sequences_are_lists_of_arrays_of_one_type_and_any_shape():
    made = session("g (seq(float[N]) s) => (float[K] y) { y = ConcatFromSequence <axis = 0> (s) }")
    assert made.run(None, {"s": [X[0], X[1, :1], [7.0]]})[0].tolist() == [0, 1, 2, 3, 7]
    for wrong, said in (([X[0], K], r"'s\[1\]': unexpected data type: got tensor\(int64\)"), (X, "got ndarray"), ("ab", "got str")):
        with pytest.raises(jitrt.InvalidArgument, match=said):
            made.run(None, {"s": wrong})


def test_maps_are_dictionaries_with_the_declared_keys_and_values():
    vectorize = onnx.helper.make_node("DictVectorizer", ["d"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])
    texts_to_floats = onnx.helper.make_map_type_proto(TensorProto.STRING, onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    inputs, outputs = [onnx.helper.make_value_info("d", texts_to_floats)], [onnx.helper.make_tensor_value_info("y", 1, None)]
    made = onnx.helper.make_model(onnx.helper.make_graph([vectorize], "g", inputs, outputs), ir_version=10)
    found = jitrt.InferenceSession(made)
    assert found.get_inputs()[0].type == "map(string,tensor(float))"
    assert found.run(None, {"d": {"b": 2, "c": 3.5}})[0].ravel().tolist() == [0, 2]
    for wrong in ({1: 1.0}, {"a": "x"}, [{"a": 1.0}], X):
        with pytest.raises(jitrt.InvalidArgument, match="input 'd': expected"):
            found.run(None, {"d": wrong})


# -- outputs
def test_later_runs_do_not_change_earlier_outputs(ours):
    first = ours.run(None, {"x": X, "k": K})
    kept = copy.deepcopy(first)
    for shift in range(1, 4):
        ours.run(None, {"x": X + shift, "k": K + shift})
    for a, b in zip(first, kept):
        np.testing.assert_array_equal(a, b)


def test_outputs_are_the_callers_own():
    made = session("""g (float[N] x, float[2] w = {1, 2}) => (float[N] same, float[1, N] shaped, float[2] constant, float[N] sum)
        { a = Constant <value_ints = [1, -1]> () same = Identity (x) shaped = Reshape (x, a) constant = Identity (w)
          sum = Add (x, x) }""")
    x = np.ones(30_000, np.float32)
    for _ in range(2):
        outputs = made.run(None, {"x": x})
        np.testing.assert_array_equal(outputs[2], [1, 2])
        for i, out in enumerate(outputs):
            assert out.flags.writeable
            assert not any(np.shares_memory(out, other) for other in [x, *outputs[:i]])
            out[...] = 99
        np.testing.assert_array_equal(x, np.ones_like(x))


def test_sequences_that_come_out_do_not_share_memory_with_what_went_in():
    made = session(
        "g (float[N] x, seq(float[N]) s) => (seq(float[N]) y, seq(float[N]) z) { y = SequenceConstruct (x) z = Identity (s) }"
    )
    x, s = np.ones(4, np.float32), [np.ones(4, np.float32)]
    y, z = made.run(None, {"x": x, "s": s})
    y[0][:], z[0][:] = 5, 6
    np.testing.assert_array_equal([x, s[0]], np.ones((2, 4)))


def test_any_value_of_the_graph_may_be_asked_for_by_name(ours):
    t, w, x, y, again = ours.run(["t", "w", "x", "y", "y"], {"x": X - 3, "k": K})
    np.testing.assert_array_equal(t, X - 3 + w)
    np.testing.assert_array_equal(x, X - 3)
    np.testing.assert_array_equal(y, np.maximum(t, 0))
    np.testing.assert_array_equal(y, again)


def test_values_that_optimisation_removes_may_be_asked_for():
    rng = np.random.default_rng(0)
    w, b = rng.standard_normal((4, 3, 1, 1)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    made = parse_model("""<ir_version: 10, opset_import: ["": 20]> g (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y)
        { c = Conv (x, w) n = BatchNormalization (c, b, b, b, v) y = Relu (n) unused = Exp (c) }""")
    made.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for a, n in ((w, "w"), (b, "b"), (b * b, "v")))
    x = rng.standard_normal((2, 3, 5, 5)).astype(np.float32)
    names = ["c", "n", "unused", "y"]
    found = dict(zip(names, jitrt.InferenceSession(made).run(names, {"x": x})))
    whole = copy.deepcopy(made)
    whole.graph.output.extend(onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names[:3])
    for name, expected in zip(names, onnxruntime.InferenceSession(whole.SerializeToString()).run(names, {"x": x})):
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)


def test_optionals_may_be_empty_and_need_not_be_fed():
    made = session("g (optional(float[N]) x) => (bool y) { y = OptionalHasElement (x) }")
    assert [made.run(None, f)[0].item() for f in ({"x": np.ones(2, np.float32)}, {"x": None}, {})] == [True, False, False]


def test_a_model_without_outputs_is_told_to_name_a_value():
    made = parse_model('<ir_version: 10, opset_import: ["": 20]> g (float[N] x) => () { t = Neg (x) }')
    with pytest.raises(jitrt.InvalidArgument, match="name at least one"):
        jitrt.InferenceSession(made).run(None, {"x": X[0]})
    np.testing.assert_array_equal(jitrt.InferenceSession(made).run(["t"], {"x": X[0]})[0], -X[0])


# -- what a session says of itself
def test_inputs_outputs_and_metadata_are_onnxruntimes(ours, theirs):
    for query in ("get_inputs", "get_outputs", "get_overridable_initializers"):
        found, expected = (getattr(s, query)() for s in (ours, theirs))
        assert [(v.name, v.shape, v.type) for v in found] == [(v.name, v.shape, v.type) for v in expected]
        assert [str(v) for v in found] == [str(v) for v in expected]
    fields = [n for n in dir(theirs.get_modelmeta()) if not n.startswith("_")]
    assert [getattr(ours.get_modelmeta(), n) for n in fields] == [getattr(theirs.get_modelmeta(), n) for n in fields]
    assert ours.get_providers() == ["CPUExecutionProvider"] == list(ours.get_provider_options())


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N, 3] x) => (y) { y = MatMul (x, x) }",
        "g (float[2, 3] x) => (float[a, b] y) { y = Transpose (x) }",
        "g (float[2, 3] x, int64 i) => (float[?, 3] y) { y = Gather (x, i) }",
        "g (seq(float[N]) x) => (float[M] y) { i = Constant <value_int = 0> () y = SequenceAt (x, i) }",
        "g (optional(int64[2]) x) => (optional(int64[2]) y) { y = Identity (x) }",
    ],
)
def test_types_and_shapes_that_the_model_leaves_open_are_inferred_as_by_onnxruntime(text):
    made = parse_model('<ir_version: 10, opset_import: ["": 20]> ' + text).SerializeToString()
    found, expected = (
        [(v.name, v.shape, v.type) for v in [*s.get_inputs(), *s.get_outputs()]]
        for s in (jitrt.InferenceSession(made), onnxruntime.InferenceSession(made))
    )
    assert found == expected


@pytest.mark.parametrize("how", ["path", "bytes", "proto"])
def test_a_session_is_pickled_with_its_options(how, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL)
    source = {"path": path, "bytes": MODEL, "proto": onnx.ModelProto.FromString(MODEL)}[how]
    options = jitrt.SessionOptions(intra_op_num_threads=1, logid="mine")
    options.add_session_config_entry("a", "b")
    options.add_free_dimension_override_by_name("N", 2)
    options.add_external_initializers_from_files_in_memory(["unused.bin"], [b"12"])
    made = pickle.loads(pickle.dumps(jitrt.InferenceSession(source, options, ["CPUExecutionProvider"])))
    np.testing.assert_array_equal(made.run(["y"], {"x": X, "k": K})[0], X + np.float32([1, 2, 3]))
    restored = made.get_session_options()
    assert (restored.intra_op_num_threads, restored.logid, restored.get_session_config_entry("a")) == (1, "mine", "b")
    assert made.get_inputs()[0].shape == [2, 3]


def test_a_terminated_run_fails(ours):
    options = jitrt.RunOptions()
    ours.run(None, {"x": X, "k": K}, options)
    options.terminate = True
    with pytest.raises(jitrt.Fail, match="terminate"):
        ours.run(None, {"x": X, "k": K}, options)
    with pytest.raises(TypeError, match="RunOptions"):
        ours.run(None, {"x": X, "k": K}, 5)


# -- looking inside
def test_profiling_writes_a_chrome_trace_of_every_run(tmp_path):
    made = jitrt.InferenceSession(MODEL, jitrt.SessionOptions(enable_profiling=True, profile_file_prefix=str(tmp_path / "p")))
    assert made.get_profiling_start_time_ns() > 0
    for _ in range(2):
        made.run(None, {"x": X, "k": K})
    path = made.end_profiling()
    assert path.startswith(str(tmp_path / "p_"))
    with open(path) as file:
        events = json.load(file)
    names = [e["name"] for e in events if e["cat"] == "Session"]
    assert names == ["session_initialization", "model_run", "model_run"]
    steps = [e for e in events if e["cat"] == "Node"]
    assert {n for e in steps for n in e["args"]["nodes"]}
    assert all(e["ph"] == "X" and e["dur"] >= 0 for e in events)
    made.run(None, {"x": X, "k": K})
    assert made.end_profiling() == "" == jitrt.InferenceSession(MODEL).end_profiling()


def test_the_plan_says_which_nodes_run_on_the_host_and_so_does_the_log(monkeypatch, capsys):
    monkeypatch.setenv("JITRT_LOG", "plan")
    made = session("""g (string[N] x, float[N] f) => (string[M] y, float[N] g)
        { [texts] y = StringNormalizer <case_change_action = "UPPER"> (x) g = Exp (f) }""")
    feeds = {"x": np.array(["a", "b"], object), "f": np.ones(2, np.float32)}
    plan = made.get_plan(feeds)
    assert any("texts" in name for name in plan.host_nodes)
    logged = capsys.readouterr().err
    assert any("host" in line and "texts" in line for line in logged.splitlines())


def test_the_log_prints_the_channels_that_are_chosen_and_tells_once_of_unknown_ones(monkeypatch, capsys):
    made: list[str] = []

    def text() -> str:
        made.append("made")
        return "a line"

    for chosen, lines in (("", 0), ("graph", 0), ("plan, graph,plans", 2)):
        monkeypatch.setenv("JITRT_LOG", chosen)
        log("plan", text)
        log("compile", text)
        assert len(capsys.readouterr().err.splitlines()) == lines
    log("plan", text)
    assert capsys.readouterr().err == "[jitrt plan] a line\n"
    assert len(made) == 2


def test_a_plan_needs_no_example_where_shapes_are_declared():
    made = session("g (float[N, 4] x) => (float[N, 4] y) { y = Exp (x) }")
    assert len(made.get_plan().steps) == 1
    with pytest.raises(jitrt.InvalidArgument, match="give an example"):
        session("g (seq(float[N]) x) => (float y) { i = Constant <value_int = 0> () y = SequenceAt (x, i) }").get_plan()


def test_importing_jitrt_imports_no_compiler_and_no_onnx():
    heavy = ("numba", "llvmlite", "onnx", "ml_dtypes", "google.protobuf")
    code = f"import sys, jitrt; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_running_a_model_imports_nothing_that_it_does_not_need():
    unneeded = ("hashlib", "html", "numpy.random", "statistics")  # 7 MB
    model = '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y) { y = Exp (x) }'
    code = (
        f"import sys, numpy, onnx.parser; known = set(sys.modules); import jitrt; model = onnx.parser.parse_model({model!r});"
        "jitrt.InferenceSession(model).run(None, {'x': numpy.ones(2, 'float32')});"
        f"print([m for m in {unneeded!r} if m in sys.modules and m not in known], 'numba' in sys.modules)"
    )
    for _ in range(2):  # the second process finds the kernels in the store
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[] False"


def test_the_names_that_programs_use_of_onnxruntime_are_here():
    for name in (
        "InferenceSession",
        "SessionOptions",
        "RunOptions",
        "OrtValue",
        "IOBinding",
        "OrtDevice",
        "NodeArg",
        "ModelMetadata",
    ):
        assert hasattr(jitrt, name), name
    devices = ("tuning", "captured", "epdevice", "memory_info", "assignment", "vector", "ep_dynamic", "create_ortvalue")
    methods = [n for n in dir(onnxruntime.InferenceSession) if not n.startswith("_") and not any(w in n for w in devices)]
    assert [n for n in methods if not hasattr(jitrt.InferenceSession, n)] == []
    assert [n for n in dir(onnxruntime.IOBinding) if not n.startswith("_") and not hasattr(jitrt.IOBinding, n)] == [
        "get_outputs_as_ortvaluevector"
    ]
    assert jitrt.get_device() == onnxruntime.get_device() == "CPU"
    assert "CPUExecutionProvider" in jitrt.get_available_providers()
    assert jitrt.get_version_string() == jitrt.__version__


def _folded_model() -> onnx.ModelProto:
    """A product whose weights are rewritten: the originals are dropped after loading."""
    model = parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[N,160] x) => (float[N,160] y) { h = MatMul (x, w) y = Mul (h, s) }'
    )
    weights = np.random.default_rng(0).standard_normal((160, 160)).astype(np.float32)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(a, n) for n, a in (("w", weights), ("s", np.array(3.0, np.float32)))
    )
    return model


def test_inner_values_are_computed_from_weights_that_were_dropped(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(_folded_model(), path)
    x = np.ones((2, 160), np.float32)
    weights = onnx.numpy_helper.to_array(_folded_model().graph.initializer[0])
    exact = x.astype(np.float64) @ weights
    # sums may cancel: their rounding errors, most of which cancel too, are of the size of their terms
    bound = 4 * np.finfo(np.float32).eps * (np.abs(x) @ np.abs(weights))
    for source in (str(path), path.read_bytes(), _folded_model()):
        session = jitrt.InferenceSession(source)
        y, h, w = (session.run([name], {"x": x})[0] for name in ("y", "h", "w"))
        np.testing.assert_array_equal(w, weights)
        assert (np.abs(h - exact) <= bound).all()
        assert (np.abs(y - 3 * exact) <= 3 * bound).all()


def test_a_file_that_changed_is_not_mixed_with_what_was_loaded(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(_folded_model(), path)
    session, x = jitrt.InferenceSession(str(path)), np.ones((2, 160), np.float32)
    path.write_bytes(b"something else")
    assert session.run(["y"], {"x": x})[0].shape == (2, 160)
    with pytest.raises(jitrt.Fail, match="has changed"):
        session.run(["h"], {"x": x})


def test_outputs_of_one_value_are_arrays_of_their_own():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[4] x) => (float[4] y, float[4] z) { y = Neg (x) z = Identity (y) }'
    )
    session = jitrt.InferenceSession(model.SerializeToString())
    for names in (None, ["y", "z", "y"]):
        first, *others = session.run(names, {"x": np.ones(4, np.float32)})
        first[:] = 5
        assert all((other == -1).all() for other in others)
