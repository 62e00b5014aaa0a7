"""Import: every way to give a model, functions, external data, and the errors that onnxruntime raises for bad files."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_model
from onnx.reference import ReferenceEvaluator

import jitrt
from jitrt import errors
from jitrt.fusion import importer
from jitrt.fusion.modelfile import without_weights
from jitrt.loading import load
from jitrt.ops import registry

onnxruntime.set_default_logger_severity(4)
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def value(name: str, shape: Sequence[object] | None = ("N",), kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[object] = ("x",),
    outputs: Sequence[object] = ("y",),
    weights: Sequence[TensorProto] = (),
    opset: int = 20,
    ir: int = 10,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
    stated: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    values = [[value(v) if isinstance(v, str) else v for v in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *values, list(weights), value_info=stated)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, functions=functions)


def weight(name: str = "w", values: Sequence[float] = (1.0,), kind: int = FLOAT, **changes: object) -> TensorProto:
    tensor = helper.make_tensor(name, kind, [len(values)], values)
    for field, changed in changes.items():
        if field == "dims":
            tensor.ClearField("dims")
            tensor.dims.extend(changed)
        elif field == "raw_data":
            tensor.ClearField("float_data")
            tensor.raw_data = changed
        else:
            setattr(tensor, field, changed)
    return tensor


def body(nodes: Sequence[onnx.NodeProto], *outputs: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", [], [value(o) for o in outputs])


def function(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[str] = ("a",), name: str = "F", opset: int = 20, overload: str = ""
) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    return helper.make_function("my", name, inputs, ["b"], nodes, imports, overload=overload)


def changed(made: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    change(made)
    return made


RELU = node("Relu", ["x"], ["y"])
ELSE = body([node("Abs", ["x"], ["e"])], "e")


def branch(then: onnx.GraphProto, condition: str = "c", **attributes: object) -> onnx.ModelProto:
    chosen = node("If", [condition], ["y"], then_branch=then, **{"else_branch": ELSE, **attributes})
    return model([chosen], ["x", value("c", (), BOOL)])


def call(functions: Sequence[onnx.FunctionProto], inputs=("x",), outputs=("y",), domains=("my",)) -> onnx.ModelProto:
    return model([node("F", inputs, outputs, domain="my")], functions=functions, domains=domains)


def set_element(made: onnx.ModelProto, element: int) -> None:
    made.graph.input[0].type.tensor_type.elem_type = element


# what is wrong -> (the model, a part of our message)
BAD: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "garbage": (b"garbage bytes that are no model at all", "not a serialized ONNX model"),
    "empty": (b"", "No graph"),
    "truncated": (model([RELU]).SerializeToString()[:-9], "not a serialized ONNX model"),
    "no graph": (changed(model([RELU]), lambda m: m.ClearField("graph")), "No graph"),
    "no operator set": (changed(model([RELU]), lambda m: m.ClearField("opset_import")), "no operator set"),
    "operator set too new": (model([RELU], opset=999), "version 999"),
    "operator set too old": (model([RELU], opset=0), "no operator ai.onnx::Relu is known (opset 0)"),
    "IR version too new": (model([RELU], ir=99), "IR version 99"),
    "no IR version": (changed(model([RELU]), lambda m: m.ClearField("ir_version")), "no IR version"),
    "unknown operator": (model([node("Nonsense", ["x"], ["y"])]), "ai.onnx::Nonsense"),
    "unknown operator of a domain": (model([node("Foo", ["x"], ["y"], domain="my")], domains=["my"]), "my::Foo"),
    "domain not imported": (model([node("Foo", ["x"], ["y"], domain="my")]), "does not import the domain 'my'"),
    "operator newer than the opset": (model([node("Gelu", ["x"], ["y"])], opset=10), "Gelu is known (opset 10)"),
    "operator removed": (model([node("Upsample", ["x", "s"], ["y"])], ["x", "s"]), "deprecated"),
    "cycle": (model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]), "not acyclic"),
    "node of its own result": (model([node("Add", ["x", "y"], ["y"])]), "not acyclic"),
    "undefined input": (model([node("Add", ["x", "nope"], ["y"])]), "input 'nope'"),
    "undefined output": (model([node("Relu", ["x"], ["a"])]), "output 'y'"),
    "name defined by two nodes": (model([RELU, node("Abs", ["x"], ["y"])]), "'y'"),
    "name defined twice by a node": (model([node("Split", ["x"], ["y", "y"], num_outputs=2)]), "'y'"),
    "input defined again": (model([node("Relu", ["x"], ["x"]), RELU]), "'x'"),
    "initializer defined again": (model([node("Relu", ["x"], ["w"]), node("Relu", ["w"], ["y"])], weights=[weight()]), "'w'"),
    "two inputs of one name": (model([RELU], ["x", "x"]), "'x'"),
    "two nodes of one name": (model([node("Relu", ["x"], ["a"], name="n"), node("Relu", ["a"], ["y"], name="n")]), "'n'"),
    "output without a name": (model([RELU], outputs=["y", ""]), "output ''"),
    "inputs of two types": (
        model([node("Add", ["x", "i"], ["y"])], ["x", value("i", kind=INT64)]), "tensor(float) and tensor(int64)"
    ),
    "type not allowed": (model([node("Sin", ["x"], ["y"])], [value("x", kind=INT64)], [value("y", kind=INT64)]), "tensor(int64)"),
    "type of an output": (model([RELU], outputs=[value("y", kind=INT64)]), "tensor(int64)"),
    "type of a value": (
        model([node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["y"])], stated=[value("a", kind=INT64)]), "'a'"
    ),
    "shapes of a product": (model([node("MatMul", ["x", "b"], ["y"])], [value("x", (3, 4)), value("b", (5, 6))]), "MatMul"),
    "shapes of a sum": (model([node("Add", ["x", "b"], ["y"])], [value("x", (3,)), value("b", (5,))]), "Add"),
    "too few inputs": (model([node("Add", ["x"], ["y"])]), "1 inputs"),
    "too many inputs": (model([node("Relu", ["x", "x"], ["y"])]), "2 inputs"),
    "too many outputs": (model([node("Relu", ["x"], ["y", "z"])]), "2 outputs"),
    "no inputs": (model([node("Relu", [], ["y"])]), "0 inputs"),
    "required input left out": (model([node("Relu", [""], ["y"])]), "'X' is required"),
    "required attribute missing": (model([node("Cast", ["x"], ["y"])]), "'to' is missing"),
    "unknown attribute": (model([node("Relu", ["x"], ["y"], foo=1)]), "'foo'"),
    "type of an attribute": (model([node("Softmax", ["x"], ["y"], axis=1.5)]), "FLOAT, expected INT"),
    "axis out of range": (model([node("Softmax", ["x"], ["y"], axis=5)], [value("x", (3, 4))], [value("y", (3, 4))]), "axis"),
    "raw data of the wrong size": (model([node("Add", ["x", "w"], ["y"])], weights=[weight(raw_data=b"123")]), "3 bytes"),
    "float data of the wrong size": (model([node("Add", ["x", "w"], ["y"])], weights=[weight(dims=[5])]), "[5]"),
    "initializer of no type": (model([node("Add", ["x", "w"], ["y"])], weights=[weight(data_type=99)]), "99"),
    "initializer of type 0": (model([node("Add", ["x", "w"], ["y"])], weights=[weight(data_type=0)]), "'w'"),
    "negative size": (model([node("Add", ["x", "w"], ["y"])], weights=[weight(dims=[-2])]), "[-2]"),
    "input without a type": (changed(model([RELU]), lambda m: m.graph.input[0].ClearField("type")), "'x'"),
    "input of an unknown type": (changed(model([RELU]), lambda m: set_element(m, 77)), "77"),
    "input of type 0": (changed(model([RELU]), lambda m: set_element(m, 0)), "'x'"),
    "initializer of another type than its input": (
        model([node("Add", ["x", "w"], ["y"])], ["x", "w"], weights=[weight(values=[1], kind=INT64)]), "int64"
    ),
    "initializer of another shape than its input": (
        model([node("Add", ["x", "w"], ["y"])], ["x", value("w", (2,))], weights=[weight(values=[1, 2, 3])]), "[3]"
    ),
    "branch missing": (changed(branch(ELSE), lambda m: m.graph.node[0].attribute.pop()), "is missing"),
    "undefined in a body": (branch(body([node("Relu", ["zz"], ["t"])], "t")), "'zz'"),
    "outputs of branches": (branch(body([node("Relu", ["x"], ["t"]), node("Abs", ["x"], ["u"])], "t", "u")), "If"),
    "condition of the wrong type": (branch(body([node("Relu", ["x"], ["t"])], "t"), "x"), "tensor(bool)"),
    "unknown operator in a body": (branch(body([node("Nonsense", ["x"], ["t"])], "t")), "Nonsense"),
    "name of the graph in a body": (
        model(
            [
                node("Abs", ["x"], ["q"]),
                node("If", ["c"], ["z"], then_branch=body([node("Neg", ["x"], ["q"])], "q"), else_branch=ELSE),
                node("Add", ["z", "q"], ["y"]),
            ],
            ["x", value("c", (), BOOL)],
        ),
        "'q'",
    ),
    "function calls itself": (call([function([node("F", ["a"], ["b"], domain="my")])]), "calls itself"),
    "functions call each other": (
        call([function([node("G", ["a"], ["b"], domain="my")]), function([node("F", ["a"], ["b"], domain="my")], name="G")]),
        "calls itself",
    ),
    "undefined in a function": (call([function([node("Add", ["a", "q"], ["b"])])]), "q'"),
    "function without its output": (call([function([node("Relu", ["a"], ["q"])])]), "output 'b'"),
    "function's domain not imported": (call([function([node("Relu", ["a"], ["b"])])], domains=()), "'my'"),
    "too many inputs of a function": (call([function([node("Relu", ["a"], ["b"])])], ["x", "x"]), "has 2 inputs"),
    "too many outputs of a function": (call([function([node("Relu", ["a"], ["b"])])], outputs=["y", "z"]), "has 2 outputs"),
    "two functions of one name": (call([function([node("Relu", ["a"], ["b"])]), function([node("Abs", ["a"], ["b"])])]), "my::F"),
    "unknown operator in a function": (call([function([node("Nonsense", ["a"], ["b"])])]), "Nonsense"),
    "constant without a value": (model([node("Constant", [], ["k"]), node("Add", ["x", "k"], ["y"])]), "no value"),
    "tensor where a sequence is taken": (model([node("SequenceAt", ["x", "i"], ["y"])], ["x", value("i", (), INT64)]), "seq("),
}  # fmt: skip


def outcome(make: Callable[[], object]) -> str:
    try:
        make()
    except Exception as error:
        return type(error).__name__
    return "ok"


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore")
def test_a_bad_model_raises_what_onnxruntime_raises_and_says_what_is_wrong(case, capsys):
    made, said = BAD[case]
    data = made if isinstance(made, bytes) else made.SerializeToString()
    expected = outcome(lambda: onnxruntime.InferenceSession(data))
    assert expected != "ok"
    with pytest.raises(getattr(jitrt.capi.onnxruntime_pybind11_state, expected)) as caught:
        jitrt.InferenceSession(data)
    assert type(caught.value).__name__ == expected
    assert said in str(caught.value)


# what is odd -> a model that onnxruntime takes nevertheless
ODD: dict[str, onnx.ModelProto] = {
    "nodes out of order": model([node("Relu", ["a"], ["y"]), node("Relu", ["x"], ["a"])]),
    "two initializers of one name": model([node("Add", ["x", "w"], ["y"])], weights=[weight(values=[2.0]), weight(values=[3.0])]),
    "an output twice": model([RELU], outputs=["y", "y"]),
    "an input that is an output": model([RELU], outputs=["x", "y"]),
    "an initializer that is an output": model([RELU], outputs=["w", "y"], weights=[weight()]),
    "an output without a type": changed(model([RELU]), lambda m: m.graph.output[0].ClearField("type")),
    "an output of another shape": model([RELU], outputs=[value("y", (7,))]),
    "an unused input": model([RELU], ["x", "c"]),
    "the domain's full name": changed(
        model([node("Relu", ["x"], ["y"], domain="ai.onnx")]), lambda m: setattr(m.opset_import[0], "domain", "ai.onnx")
    ),
    "the domain's full name in a node only": model([node("Relu", ["x"], ["y"], domain="ai.onnx")]),
    "the operator set of onnx not imported": changed(model([RELU], domains=["my"]), lambda m: m.opset_import.__delitem__(0)),
    "a domain of onnx that is not imported": model([node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml")]),
    "nodes of one name in graph and body": branch(body([node("Relu", ["x"], ["t"], name="n")], "t"), name="n"),
    "a body's output named as its node's": branch(body([node("Relu", ["x"], ["y"])], "y")),
    "two values of a constant": model([node("Constant", [], ["k"], value_float=1.0, value_int=2), node("Add", ["x", "k"], ["y"])]),
}


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
        expected = outcome(lambda path=path: onnxruntime.InferenceSession(path))
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


# -- external data
def external(
    location: str | None, offset: object = None, length: object = None, shape: Sequence[int] = (4,), kind: int = FLOAT
) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, given_ in (("location", location), ("offset", offset), ("length", length)):
        if given_ is not None:
            tensor.external_data.add(key=key, value=str(given_))
    return model([node("Add", ["x", "w"], ["y"])], weights=[tensor])


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """A folder with data in it, beside a file that must not be read."""
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (inside / "in.bin").write_bytes(np.arange(1, 5, dtype=np.float32).tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "inner.bin").symlink_to(inside / "in.bin")
    (inside / "up").symlink_to(tmp_path)
    return inside


EXTERNAL = {
    "whole": ("in.bin",),
    "dotted": ("./in.bin",),
    "up and down": ("../model/in.bin",),
    "link inside": ("inner.bin",),
    "offset and length": ("in.bin", 4, 8, (2,)),
    "parent": ("../secret.bin",),
    "absolute": ("/etc/passwd",),
    "link to outside": ("link.bin",),
    "linked folder": ("up/secret.bin",),
    "missing": ("no.bin",),
    "a folder": (".",),
    "no location": (None,),
    "beyond the end": ("in.bin", 8),
    "length too small": ("in.bin", 0, 8),
    "length too large": ("in.bin", 0, 64),
    "negative offset": ("in.bin", -4),
    "offset no number": ("in.bin", "a"),
}


@pytest.mark.parametrize("case", EXTERNAL)
@pytest.mark.filterwarnings("ignore")
def test_external_data_is_read_or_refused_as_by_onnxruntime(case, folder, capsys):
    path = folder / "m.onnx"
    onnx.save(external(*EXTERNAL[case]), path)
    x = np.float32([1])
    expected = outcome(lambda: onnxruntime.InferenceSession(path).run(None, {"x": x}))
    if expected == "ok":
        np.testing.assert_array_equal(
            jitrt.InferenceSession(path).run(None, {"x": x})[0], onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
        )
        return
    with pytest.raises(getattr(jitrt.capi.onnxruntime_pybind11_state, expected), match="'w'"):
        jitrt.InferenceSession(path)


def test_external_data_beside_the_file_that_a_model_links_to_is_read(folder, tmp_path):
    store = tmp_path / "blobs"
    store.mkdir()
    (store / "data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    onnx.save(external("w.bin"), store / "model")
    (folder / "m.onnx").symlink_to(store / "model")
    (folder / "w.bin").symlink_to(store / "data")
    (y,) = jitrt.InferenceSession(folder / "m.onnx").run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, [1, 2, 3, 4])


def test_external_data_of_bytes_lies_in_the_working_directory_or_where_the_options_say(folder, monkeypatch):
    data = external("in.bin").SerializeToString()
    options = jitrt.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    for chosen in (options, None):
        if chosen is None:
            monkeypatch.chdir(folder)
        (y,) = jitrt.InferenceSession(data, chosen).run(None, {"x": np.float32([1])})
        np.testing.assert_array_equal(y, [2, 3, 4, 5])


def test_external_data_may_be_given_in_memory():
    data = np.float32([10, 20, 30, 40, 50])
    options = jitrt.SessionOptions()
    options.add_external_initializers_from_files_in_memory(["in.bin"], [data.tobytes()], [20])
    (y,) = jitrt.InferenceSession(external("in.bin", 4).SerializeToString(), options).run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, [21, 31, 41, 51])


def test_initializers_may_be_given_in_place_of_the_models(folder):
    for name in ("add_initializer", "add_external_initializers"):
        options = jitrt.SessionOptions()
        given_ = jitrt.OrtValue.ortvalue_from_numpy(np.float32([7, 8, 9, 10]))
        getattr(options, name)(*(("w", given_) if name == "add_initializer" else (["w"], [given_])))
        (y,) = jitrt.InferenceSession(external("missing.bin"), options).run(None, {"x": np.float32([1])})
        np.testing.assert_array_equal(y, [8, 9, 10, 11])
    options.add_initializer("w", jitrt.OrtValue.ortvalue_from_numpy(np.float32([7])))
    with pytest.raises(jitrt.Fail, match=r"'w': float32\[4\] expected, float32\[1\] given"):
        jitrt.InferenceSession(external("missing.bin"), options)


def test_unaligned_and_packed_external_data_are_read(folder):
    (folder / "odd.bin").write_bytes(b"\0" + np.arange(1, 5, dtype=np.float32).tobytes())
    onnx.save(external("odd.bin", 1), folder / "m.onnx")
    (y,) = jitrt.InferenceSession(folder / "m.onnx").run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, [2, 3, 4, 5])
    (folder / "four.bin").write_bytes(bytes([0x21, 0xF3, 0x07]))
    made = external("four.bin", 0, 3, (5,), TensorProto.INT4)
    made.graph.node[0].input[1] = "x"
    made.opset_import[0].version = 25
    onnx.save(made, folder / "m.onnx")
    found = importer.load(folder / "m.onnx").graph.constants["w"]
    np.testing.assert_array_equal(found.astype(np.int32), [1, 2, 3, -1, 7])


def test_external_data_is_mapped_not_read_and_may_be_larger_than_2_gb(folder):
    size = 2_500_000_000
    with open(folder / "huge.bin", "wb") as file:
        file.truncate(size)
        file.seek(size - 16)
        file.write(np.float32([1, 2, 3, 4]).tobytes())
    made = external("huge.bin", size - 16)
    whole = TensorProto(name="whole", data_type=FLOAT, dims=[size // 4], data_location=TensorProto.EXTERNAL)
    whole.external_data.add(key="location", value="huge.bin")
    made.graph.initializer.append(whole)
    onnx.save_model(made, folder / "m.onnx")
    before = resident()
    graph = importer.load(folder / "m.onnx").graph
    (y,) = jitrt.InferenceSession(folder / "m.onnx").run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, [2, 3, 4, 5])
    assert graph.constants["whole"].nbytes == size
    assert not graph.constants["whole"].flags.writeable
    assert resident() - before < 1 << 30


def resident() -> int:
    """Bytes of memory that the process uses."""
    pages = pathlib.Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


# -- functions
X = {"x": np.array([-2.0, -0.5, 0.0, 1.5], np.float32)}
FUNCTIONS: dict[str, onnx.ModelProto] = {
    "nested calls with equal inner names": parse_model("""
        <ir_version: 10, opset_import: ["": 20, "my": 1]>
        g (float[N] x) => (float[N] y) { t = my.F(x) y = my.F(t) }
        <domain: "my", opset_import: ["": 20, "my": 1]> F (t) => (u) { y = Neg(t) x = my.G(y) u = Add(x, t) }
        <domain: "my", opset_import: ["": 20]> G (y) => (u) { t = Abs(y) u = Sqrt(t) }"""),
    "attributes with references and defaults": parse_model("""
        <ir_version: 10, opset_import: ["": 20, "my": 1]>
        g (float[N] x) => (float[N] y, float[N] z) { y = my.F <alpha = 0.25> (x) z = my.F (x) }
        <domain: "my", opset_import: ["": 20, "my": 1]> F <alpha: float = 0.5> (a) => (b) { b = my.G <slope: float = @alpha> (a) }
        <domain: "my", opset_import: ["": 20]> G <slope> (a) => (b) { b = LeakyRelu <alpha: float = @slope> (a) }"""),
    "an attribute that the call leaves out has the operator's default": parse_model("""
        <ir_version: 10, opset_import: ["": 20, "my": 1]>
        g (float[N] x) => (float[N] y) { y = my.F (x) }
        <domain: "my", opset_import: ["": 20]> F <alpha> (a) => (b) { b = LeakyRelu <alpha: float = @alpha> (a) }"""),
    "outputs that a call leaves out": parse_model("""
        <ir_version: 10, opset_import: ["": 20, "my": 1]>
        g (float[N] x) => (float[N] y) { t, , u = my.F (x) v = my.F (t) y = Add (u, v) }
        <domain: "my", opset_import: ["": 20]> F (a) => (b, c, d) { b = Neg (a) c = Abs (a) d = Sign (a) }"""),
    "bodies that use the function's names": parse_model("""
        <ir_version: 10, opset_import: ["": 20, "my": 1]>
        g (float[N] x) => (float[N] y) { t = Neg (x) u = my.F (t) y = my.F (u) }
        <domain: "my", opset_import: ["": 20]> F (x) => (y)
        {
            t = Abs (x)
            zero = Constant <value_float = 0.0> ()
            s = ReduceSum <keepdims = 0> (x)
            c = Less (s, zero)
            y = If (c) <
                then_branch = g1 () => (float[N] y) { u = Add (t, x) y = Neg (u) },
                else_branch = g2 () => (float[N] z) { k = Constant <value_float = 2.0> () z = Mul (t, k) }>
        }"""),
    "an input that is handed through": parse_model("""
        <ir_version: 10, opset_import: ["": 20, "my": 1]>
        g (float[N] x) => (float[N] y, float[N] z) { y, z = my.F (x) }
        <domain: "my", opset_import: ["": 20]> F (a) => (b, a) { b = Neg (a) }"""),
    "optional inputs": call([function([node("Clip", ["a", "low", "high"], ["b"])], ["a", "low", "high"])], ["x", "", "x0"]),
    "names with slashes": model(
        [node("Neg", ["x"], ["call/t"]), node("F", ["call/t"], ["y"], domain="my", name="call")],
        functions=[function([node("Abs", ["a"], ["t"]), node("Neg", ["t"], ["b"])])], domains=["my"],
    ),
    "overloads": changed(
        model(
            [node("F", ["x"], ["t"], domain="my", overload="1"), node("F", ["t"], ["y"], domain="my", overload="2")],
            functions=[function([node("Neg", ["a"], ["b"])], overload="1"), function([node("Exp", ["a"], ["b"])], overload="2")],
            domains=["my"],
        ),
        lambda m: None,
    ),
}  # fmt: skip
LENIENT = {"outputs that a call leaves out", "an input that is handed through"}  # which onnxruntime refuses
FUNCTIONS["optional inputs"].graph.initializer.append(helper.make_tensor("x0", FLOAT, [], [1.0]))


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_mean_what_onnxruntime_or_onnx_says(case):
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
