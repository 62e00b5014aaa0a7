"""Import: every way to give a model, functions, and the errors that onnxruntime raises for bad files."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import (
    BAD,
    BOOL,
    ELSE,
    FLOAT,
    FUNCTIONS,
    INT64,
    LENIENT,
    ODD,
    RECENT,
    RELU,
    body,
    branch,
    call,
    function,
    model,
    node,
    outcome,
    value,
    weight,
)
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from reference import IS_NEW, skip_where_old

import jitrt
from jitrt import errors
from jitrt.fusion import importer
from jitrt.fusion.modelfile import without_weights
from jitrt.loading import load
from jitrt.ops import registry

onnxruntime.set_default_logger_severity(4)


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore")
def test_a_bad_model_raises_what_onnxruntime_raises_and_says_what_is_wrong(case, capsys):
    made, said = BAD[case]
    data = made if isinstance(made, bytes) else made.SerializeToString()
    known = case in RECENT and not IS_NEW
    expected = RECENT[case] if known else outcome(lambda: onnxruntime.InferenceSession(data))
    assert expected != "ok"
    with pytest.raises(getattr(jitrt.capi.onnxruntime_pybind11_state, expected)) as caught:
        jitrt.InferenceSession(data)
    assert type(caught.value).__name__ == expected
    assert said in str(caught.value)


@pytest.mark.parametrize("case", ODD)
@pytest.mark.filterwarnings("ignore")
def test_an_odd_model_that_onnxruntime_takes_runs(case):
    data = ODD[case].SerializeToString()
    theirs, ours = onnxruntime.InferenceSession(data), jitrt.InferenceSession(data)
    assert [(v.name, v.shape, v.type) for v in ours.get_outputs()] == [(v.name, v.shape, v.type) for v in theirs.get_outputs()]
    feeds = {"x": np.array([-1.5, 2.0, 3.0], np.float32), "c": np.array(True)}
    feeds["c"] = feeds["x"] if case == "an unused input" else feeds["c"]
    feeds = {v.name: feeds[v.name] for v in theirs.get_inputs()}
    for ours_, theirs_ in zip(ours.run(None, feeds), theirs.run(None, feeds)):
        np.testing.assert_array_equal(ours_, theirs_)


def test_a_body_whose_nodes_are_out_of_order_runs():
    made = branch(body([node("Exp", ["u"], ["t"]), node("Neg", ["x"], ["u"])], "t"))
    (y,) = jitrt.InferenceSession(made).run(None, {"x": np.float32([1]), "c": np.array(True)})
    np.testing.assert_allclose(y, np.exp(np.float32([-1])), rtol=1e-6)


def test_an_operator_that_a_user_has_registered_may_be_anything_and_stops_no_inference(monkeypatch):
    monkeypatch.setattr(registry, "_rows", dict(registry._rows))
    registry.load()

    @registry.op("Twice", domain="com.microsoft")
    def twice(t, x, *, extra=0):
        return t.map("a + a", x)

    inner = body([node("Twice", ["x"], ["t"], domain="com.microsoft", extra=1)], "t")
    chosen = node("If", ["c"], ["z"], then_branch=inner, else_branch=ELSE)
    made = model(
        [chosen, node("Neg", ["z"], ["u"]), node("Twice", ["u"], ["y"], domain="com.microsoft")], ["x", value("c", (), BOOL)]
    )
    (y,) = jitrt.InferenceSession(made).run(None, {"x": np.float32([1, 3]), "c": np.array(True)})
    np.testing.assert_array_equal(y, [-4, -12])


# -- ways to give a model
def test_a_model_comes_as_path_bytes_or_proto(tmp_path):
    made = model([node("Add", ["x", "w"], ["y"])], weights=[weight(values=[5.0])])
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    data = made.SerializeToString()
    for source in (str(path), path, data, bytearray(data), memoryview(data), made):
        np.testing.assert_array_equal(jitrt.InferenceSession(source).run(None, {"x": np.float32([1])})[0], [6])


@pytest.mark.parametrize("source", [3, None, [b"x"]])
def test_anything_else_is_a_type_error(source):
    with pytest.raises(TypeError, match="Unable to load from type"):
        jitrt.InferenceSession(source)


@pytest.mark.filterwarnings("ignore")
def test_paths_that_are_no_model_raise_what_onnxruntime_raises(tmp_path, capsys):
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for path in (tmp_path / "none.onnx", tmp_path, empty):
        known = path == empty and not IS_NEW
        expected = "InvalidArgument" if known else outcome(lambda path=path: onnxruntime.InferenceSession(path))
        with pytest.raises(getattr(jitrt.capi.onnxruntime_pybind11_state, expected), match=path.name):
            jitrt.InferenceSession(path)


@pytest.mark.parametrize("opset", range(1, onnx.defs.onnx_opset_version() + 1))
def test_every_operator_set_is_read(opset):
    made = model([node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["y"])], opset=opset)
    if opset < 6:
        for each in made.graph.node:
            each.attribute.append(helper.make_attribute("consumed_inputs", [0]))
    (y,) = jitrt.InferenceSession(made).run(None, {"x": np.float32([-1, 2])})
    np.testing.assert_array_equal(y, [0, -2])


def test_attributes_without_a_type_are_read_from_old_models():
    made = model([node("LeakyRelu", ["x"], ["y"], alpha=0.5)], opset=1, ir=1)
    made.graph.node[0].attribute[0].ClearField("type")
    (y,) = jitrt.InferenceSession(made).run(None, {"x": np.float32([-1, 2])})
    np.testing.assert_array_equal(y, [-0.5, 2])


@pytest.mark.parametrize("ir", [3, 4])
def test_initializers_that_are_inputs_may_be_overridden_from_ir_version_4_on(ir):
    made = model([node("Add", ["x", "w"], ["y"])], ["x", "w"], weights=[weight(values=[5.0])], opset=8, ir=ir).SerializeToString()
    feeds = {"x": np.float32([1]), "w": np.float32([2])}
    results = []
    for session in (onnxruntime.InferenceSession(made), jitrt.InferenceSession(made)):
        names = [v.name for v in session.get_inputs()], [v.name for v in session.get_overridable_initializers()]
        kind = outcome(lambda session=session: session.run(None, feeds))
        values = [session.run(None, f)[0].tolist() for f in (feeds, {"x": feeds["x"]}) if kind == "ok" or "w" not in f]
        results.append((names, kind, values))
    assert results[0] == results[1]


def test_packed_and_sparse_initializers_are_read():
    four = helper.make_tensor("four", TensorProto.INT4, [3], [1, -2, 7])
    two = helper.make_tensor("two", TensorProto.UINT2, [5], [3, 2, 1, 0, 3])
    dense = np.array([[0, 2, 0], [0, 0, 5]], np.float32)
    places = helper.make_tensor("i", INT64, [2], [1, 5])
    sparse = helper.make_sparse_tensor(helper.make_tensor("s", FLOAT, [2], [2, 5]), places, [2, 3])
    made = model([RELU], weights=[four, two], opset=25, ir=13)
    made.graph.sparse_initializer.append(sparse)
    constants = importer.load(made).graph.constants
    np.testing.assert_array_equal(constants["four"].astype(np.int32), [1, -2, 7])
    np.testing.assert_array_equal(constants["two"].astype(np.int32), [3, 2, 1, 0, 3])
    np.testing.assert_array_equal(constants["s"], dense)


# -- weights in the model's own file
def large_model() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.standard_normal((97, 31), np.float32),
        "b": rng.integers(-9, 9, 5001),
        "tiny": rng.standard_normal(3, np.float32),
        "h": rng.standard_normal(4099).astype(np.float16),
    }
    tensors = [numpy_helper.from_array(x, n) for n, x in arrays.items()]
    arrays["f"] = rng.standard_normal(2000).astype(np.float32)
    tensors.append(helper.make_tensor("f", FLOAT, [2000], arrays["f"]))  # not as raw data
    return model([RELU], weights=tensors), arrays


def test_large_weights_stay_out_of_the_parsed_message_and_arrive_whole(tmp_path):
    made, arrays = large_model()
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    for source in (path, path.read_bytes()):
        proto, folder = importer.read(source)
        assert proto.ByteSize() < 12_000 < made.ByteSize()
        graph = importer.build(proto, folder).graph
        for name, array in arrays.items():
            found = graph.constants[name]
            np.testing.assert_array_equal(found, array, strict=True)
            assert found.flags.aligned


def test_a_model_file_may_be_overwritten_while_its_session_lives(tmp_path):
    made = model([node("Add", ["x", "w"], ["y"])], weights=[numpy_helper.from_array(np.arange(40000, dtype=np.float32), "w")])
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    session = jitrt.InferenceSession(path)
    path.write_bytes(b"")
    (y,) = session.run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, np.arange(1, 40001))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_as_protobuf_reads_it(data):
    whole = bytearray(DAMAGED)
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, 400) | st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
    expected = parsed(damaged)
    lean = parsed(without_weights(damaged))
    if expected is None:
        assert lean is None
        return
    assert lean is not None
    for tensor, kept in zip(expected.graph.initializer, lean.graph.initializer):
        if not kept.external_data or tensor.data_location:
            assert tensor == kept
            continue
        where = {e.key: e.value for e in kept.external_data}
        start = int(where["offset"])
        assert damaged[start : start + int(where["length"])] == tensor.raw_data
        assert (kept.name, kept.dims, kept.data_type) == (tensor.name, tensor.dims, tensor.data_type)


@settings(max_examples=200, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_whatever_is_wrong_in_a_message_ends_in_onnxruntimes_errors(data):
    made = onnx.ModelProto()
    made.CopyFrom(data.draw(st.sampled_from([*FUNCTIONS.values(), *ODD.values()])))
    for _ in range(data.draw(st.integers(1, 3))):
        spoil(made, data)
    with contextlib.suppress(*(getattr(errors, name) for name in errors.__all__)):
        assert load(made.SerializeToString(), jitrt.SessionOptions()).graph is not None


def spoil(message: object, data: st.DataObject) -> None:
    """Change one field somewhere in a protobuf message."""
    while True:
        field, content = data.draw(st.sampled_from(message.ListFields()))
        if field.type != field.TYPE_MESSAGE:
            break
        repeated = not hasattr(content, "ListFields")
        inner = data.draw(st.sampled_from(list(content))) if repeated else content
        if repeated and data.draw(st.integers(0, 5)) == 0:
            content.remove(inner) if data.draw(st.booleans()) else content.add().CopyFrom(inner)
            return
        if not inner.ListFields():
            return
        message = inner
    texts, numbers = ["", "x", "y", "t", "F", "my", "Add", "If", "alpha"], [0, 1, 2, 7, 8, 16, 22, 100, 2**31 - 1]
    choices = texts if field.cpp_type == field.CPPTYPE_STRING else numbers
    value = data.draw(st.sampled_from(choices))
    value = value.encode() if field.type == field.TYPE_BYTES else value
    if isinstance(content, str | bytes | int | float):
        with contextlib.suppress(ValueError):  # no member of the field's enumeration
            setattr(message, field.name, value)
    else:
        content[data.draw(st.integers(0, len(content) - 1))] = value


def parsed(data: bytes) -> onnx.ModelProto | None:
    try:
        return onnx.ModelProto.FromString(data)
    except Exception:
        return None


DAMAGED = model(
    [RELU], weights=[weight("small"), *(numpy_helper.from_array(np.arange(n, dtype=np.float32), f"w{n}") for n in (1100, 1500))]
).SerializeToString()


# -- functions
X = {"x": np.array([-2.0, -0.5, 0.0, 1.5], np.float32)}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_mean_what_onnxruntime_or_onnx_says(case):
    if case == "overloads":
        skip_where_old("takes all functions of one name for one (microsoft/onnxruntime#28275)")
    made = FUNCTIONS[case]
    found = jitrt.InferenceSession(made).run(None, X)
    if case in LENIENT:
        expecteds = ReferenceEvaluator(made).run(None, X)
    else:
        expecteds = onnxruntime.InferenceSession(made.SerializeToString()).run(None, X)
    for ours, expected in zip(found, expecteds):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_a_functions_operators_have_the_versions_that_the_function_imports():
    made = call([function([node("Softmax", ["a"], ["b"], axis=0)], opset=11)])
    made.graph.input[0].CopyFrom(value("x", (2, 2)))
    made.graph.output[0].CopyFrom(value("y", (2, 2)))
    x = np.array([[0, 1], [2, 4]], np.float32)
    (y,) = jitrt.InferenceSession(made).run(None, {"x": x})
    np.testing.assert_allclose(y, (np.exp(x) / np.exp(x).sum()), rtol=1e-6)  # flattened: as before opset 13


def test_inner_names_of_calls_are_the_calls_own():
    graph = importer.load(FUNCTIONS["nested calls with equal inner names"]).graph
    names = [out for n in graph.nodes for out in n.outputs]
    assert len(names) == len(set(names))
    assert all(n.name.count("/") in (1, 2) for n in graph.nodes)
