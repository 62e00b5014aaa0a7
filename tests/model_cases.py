"""Models that are bad, odd, or made of functions, and short ways to make them: for the tests of imports."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
from onnx import TensorProto, helper
from onnx.parser import parse_model

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

# what onnxruntime raises for those that an old one crashes at, takes, or has another error for
RECENT = {
    "raw data of the wrong size": "Fail", "float data of the wrong size": "Fail", "initializer of no type": "Fail",
    "negative size": "Fail", "too many inputs of a function": "Fail", "two functions of one name": "Fail",
    "function calls itself": "InvalidGraph", "functions call each other": "InvalidGraph",
}  # fmt: skip


def outcome(make: Callable[[], object]) -> str:
    try:
        make()
    except Exception as error:
        return type(error).__name__
    return "ok"


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
