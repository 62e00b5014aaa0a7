"""What an operator means when no row of the registry lowers it, after the installed `onnx` package.

1. `function_body`: the body that ONNX publishes for the operator (the tracer lowers its nodes in place).
2. `lower`: a host step that runs the operator's implementation in `onnx.reference`.
3. An operator that `onnx` does not know either is an `UnknownOperator`.

onnx is imported when it is first needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import registry
from .builder import Builder, OperatorError
from .kernels.sizes import Size, fixed, is_open
from .primitives import Opaque, Shape, Tensor
from .weights import content

if TYPE_CHECKING:
    from ..fusion.graph import Graph, Node

Value = Tensor | Opaque


# operators that give other values every time
_RANDOM = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


class UnknownOperator(OperatorError):
    """Neither jitrt nor the installed onnx package knows the operator."""

    def __init__(self, domain: str, name: str, version: int) -> None:
        full = f"{domain or 'ai.onnx'}::{name}"
        super().__init__(
            f"{full} (opset {version}) is not a known operator. To supply it, add it to the model as a "
            f"local function, or register what it means:  @jitrt.ops.registry.op({name!r}, domain={domain!r})"
        )


def function_body(node: Node, inputs: Sequence[Value | None], opsets: Mapping[str, int]) -> Graph | None:
    """The operator's published definition as a graph, its inputs in the node's order; None if it has none."""
    schema = _schema(node.domain, node.op, opsets.get(node.domain, 1))
    if schema is None or any(isinstance(x, Opaque) for x in inputs):
        return None
    proto = _node_proto(node, schema)
    function = _function(schema, proto, inputs, opsets.get(node.domain, 1))
    return None if function is None else _graph(function, proto, schema, opsets)


def is_known(domain: str, name: str, version: int) -> bool:
    """Whether the installed onnx knows the operator."""
    return _schema(domain, name, version) is not None


def input_names(domain: str, name: str, version: int) -> tuple[str, ...]:
    """The operator's own words for its inputs, as far as the installed onnx knows them."""
    schema = _schema(domain, name, version)
    return () if schema is None else tuple(x.name for x in schema.inputs)


def draws_random(graph: Graph) -> bool:
    """Whether a node of the graph or of its bodies draws random numbers."""
    return any(node.op in _RANDOM or any(map(draws_random, node.subgraphs())) for node in graph.nodes)


def lower(t: Builder, node: Node, inputs: Sequence[Value | None], version: int) -> tuple[Value, ...]:
    """A host step that calls `onnx.reference`.

    Raises:
        UnknownOperator: onnx has no such operator.
        OperatorError: nor has it, and the row declined this use.
    """
    schema = _schema(node.domain, node.op, version)
    if schema is None and registry.find(node.domain, node.op, version) is not None:
        kinds = ", ".join(repr(x) for x in inputs if x is not None)
        raise OperatorError(f"the operator is not available for these types or attributes: {kinds}")
    if schema is None:
        raise UnknownOperator(node.domain, node.op, version)
    proto = _node_proto(node, schema)
    call = _Reference(proto, node.domain, version, [i for i, x in enumerate(inputs) if x is not None])
    outputs = _output_types(schema, proto, inputs, t.opsets)
    reason = f"{node.op} has no native kernel" + (
        " for these types or attributes" if registry.find(node.domain, node.op, version) else ""
    )
    return t.host(call, inputs, outputs, reason, fold=node.op not in _RANDOM)


class _Reference:
    """One node as a function of arrays."""

    def __init__(self, proto, domain: str, version: int, present: list[int]) -> None:
        self.proto, self.domain, self.version, self.present = proto, domain, version, present
        self.evaluator = None

    def __call__(self, values: list[object]) -> list[object]:
        """The node's outputs; None for those that are not asked for."""
        if self.evaluator is None:
            self.evaluator = self._make()
        feeds = {self.proto.input[i]: _to_reference(values[i]) for i in self.present}
        with np.errstate(all="ignore"):
            results = iter(self.evaluator.run(None, feeds))
        return [_from_reference(next(results)) if name else None for name in self.proto.output]

    def _make(self):
        from onnx import TypeProto, helper
        from onnx.reference import ReferenceEvaluator

        inputs = [helper.make_value_info(self.proto.input[i], TypeProto()) for i in self.present]
        outputs = [helper.make_value_info(name, TypeProto()) for name in self.proto.output if name]
        graph = helper.make_graph([self.proto], "node", inputs, outputs)
        opsets = {"": 1 << 20, self.domain: self.version} if self.domain else {"": self.version}
        opsets = {d: min(v, _newest(d)) for d, v in opsets.items()}
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()]))


def _newest(domain: str) -> int:
    from onnx import helper

    return max((v for (d, v) in helper.OP_SET_ID_VERSION_MAP if ("" if d == "ai.onnx" else d) == domain), default=1)


def _to_reference(value: object) -> object:
    return value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value


def _from_reference(value: object) -> object:
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        return value.astype(object)
    return np.asarray(value) if isinstance(value, np.generic | int | float | bool) else value


# -- onnx's protobuf
def _schema(domain: str, name: str, version: int):
    from onnx import defs

    try:
        return defs.get_schema(name, max_inclusive_version=version, domain=domain)
    except defs.SchemaError:
        return None


def _node_proto(node: Node, schema, named: bool = False):
    """The node as a NodeProto; its values are called x0, x1 ... and y0, y1 ... unless `named`."""
    from onnx import helper

    inputs = [f"x{i}" if name and not named else name for i, name in enumerate(node.inputs)]
    outputs = [f"y{i}" if name and not named else name for i, name in enumerate(node.outputs)]
    proto = helper.make_node(node.op, inputs, outputs, name=node.name, domain=node.domain)
    for name, value in node.attributes.items():
        if name not in schema.attributes:
            raise OperatorError(f"unknown attribute {name!r}")
        kind = int(schema.attributes[name].type.value)
        proto.attribute.append(helper.make_attribute(name, _attribute(value), attr_type=kind))
    return proto


def _attribute(value: object) -> object:
    from onnx import numpy_helper

    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(value)
    if isinstance(value, list):
        return [_attribute(v) for v in value]
    if hasattr(value, "nodes"):
        return _graph_proto(value)
    if hasattr(value, "dtype") or hasattr(value, "element"):
        return _type_proto_of(value)
    return value


def _graph_proto(graph: Graph):
    """A body as a GraphProto."""
    from onnx import TypeProto, helper, numpy_helper

    def info(name: str):
        kind = graph.types.get(name)
        return helper.make_value_info(name, TypeProto() if kind is None else _type_proto_of(kind))

    nodes = [_node_proto(n, _schema(n.domain, n.op, graph.opsets.get(n.domain, 1)), named=True) for n in graph.nodes]
    constants = [numpy_helper.from_array(content(x), name) for name, x in graph.constants.items()]
    return helper.make_graph(nodes, graph.name or "body", [*map(info, graph.inputs)], [*map(info, graph.outputs)], constants)


def _type_proto_of(kind):
    """A graph type as a TypeProto."""
    from onnx import helper

    if hasattr(kind, "shape"):
        return helper.make_tensor_type_proto(_element(kind.dtype), kind.shape)
    inner = _type_proto_of(kind.element)
    make = helper.make_sequence_type_proto if type(kind).__name__ == "SequenceType" else helper.make_optional_type_proto
    return make(inner)


def _element(dtype: np.dtype) -> int:
    from onnx import TensorProto, helper

    return TensorProto.STRING if dtype.kind == "O" else helper.np_dtype_to_tensor_dtype(dtype)


def _types(proto, inputs: Sequence[Value | None]) -> dict[str, object]:
    from onnx import helper

    tensors = {name: x for name, x in zip(proto.input, inputs) if isinstance(x, Tensor)}
    return {name: helper.make_tensor_type_proto(_element(x.dtype), list(map(_dimension, x.shape))) for name, x in tensors.items()}


def _dimension(n: int) -> int | str:
    """A size as onnx has it: an open one by a name."""
    return str(n.frozen) if isinstance(n, Size) else n


def _output_types(schema, proto, inputs: Sequence[Value | None], opsets: Mapping[str, int]) -> list[tuple[np.dtype, Shape] | None]:
    """What shape inference says of each output: dtype and shape if both are certain, else None.

    Open sizes are fixed where it has to know them.
    """
    if any(isinstance(x, Opaque) for x in inputs):
        return [None] * len(proto.output)
    found = _inferred(schema, proto, inputs, opsets)
    given = [x for x in inputs if isinstance(x, Tensor)]
    if any(kind is None and name for kind, name in zip(found, proto.output)) and any(x.is_open or is_open(x.shape) for x in given):
        return _inferred(schema, proto, [_with_fixed_sizes(x) for x in inputs], opsets)
    return found


def _with_fixed_sizes(x: Tensor | None) -> Tensor | None:
    return None if x is None else Tensor(x.dtype, fixed(x.shape), x.constant)


def _inferred(
    schema, proto, inputs: Sequence[Tensor | None], opsets: Mapping[str, int]
) -> list[tuple[np.dtype, Shape] | None]:  # fmt: skip
    from onnx import defs, helper, numpy_helper, shape_inference

    sizes = {_dimension(n): n for x in inputs if x is not None for n in x.shape}
    known = {name: x for name, x in zip(proto.input, inputs) if x is not None and x.is_constant and not x.is_open}
    small = {name: x.constant for name, x in known.items() if x.dtype != object and x.size <= 1024}
    data = {name: numpy_helper.from_array(np.asarray(x)) for name, x in small.items()}
    imports = [helper.make_opsetid(d, v) for d, v in opsets.items()]
    try:
        found = shape_inference.infer_node_outputs(schema, proto, _types(proto, inputs), data, opset_imports=imports)
    except (shape_inference.InferenceError, defs.SchemaError, RuntimeError):
        return [None] * len(proto.output)
    return [_concrete(found.get(name), sizes) if name else None for name in proto.output]


def _concrete(kind, sizes: Mapping[object, int]) -> tuple[np.dtype, Shape] | None:
    """dtype and shape; `sizes`: open ones by their names."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    from onnx import TensorProto, helper

    dims = kind.tensor_type.shape.dim
    element = kind.tensor_type.elem_type
    if not element or not all(d.HasField("dim_value") or d.dim_param in sizes for d in dims):
        return None
    dtype = np.dtype(object) if element == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(element)
    return dtype, tuple(d.dim_value if d.HasField("dim_value") else sizes[d.dim_param] for d in dims)


# -- function bodies
def _function(schema, proto, inputs: Sequence[Value | None], version: int):
    """The newest published body that holds at the opset version, as a FunctionProto."""
    from onnx import FunctionProto

    plain = [v for v in schema.function_opset_versions if v <= version]
    if plain:
        return FunctionProto.FromString(schema.get_function_with_opset_version(max(plain)))
    known = [v for v in schema.context_dependent_function_opset_versions if v <= version]
    if not known:
        return None
    types = _types(proto, inputs)
    kinds = [types[name].SerializeToString() if name else b"" for name in proto.input]
    raw = schema.get_context_dependent_function_with_opset_version(max(known), proto.SerializeToString(), kinds)
    return FunctionProto.FromString(raw) if raw else None


def _graph(function, proto, schema, opsets: Mapping[str, int]) -> Graph | None:
    """The function applied to the node, through the importer, which inlines a model's local functions.

    None if the body leaves out an output that the node has.
    """
    from onnx import TypeProto, helper

    from ..fusion.importer import load

    wanted = list(proto.output)
    made = {*function.input, *(out for node in function.node for out in node.output)}
    if any(outside and inside not in made for inside, outside in zip(function.output, wanted)):
        return None
    # a body that depends on the node's context still lists the outputs that it does not make
    pairs = [(inside, outside) for inside, outside in zip(function.output, wanted) if inside in made]
    function.ClearField("output")
    function.output.extend(inside for inside, _ in pairs)
    proto.ClearField("output")
    proto.output.extend(outside for _, outside in pairs)
    given = {a.name for a in proto.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            proto.attribute.append(attribute.default_value)
    inputs = [helper.make_value_info(name, TypeProto()) for name in proto.input if name]
    outputs = [helper.make_value_info(name, TypeProto()) for name in proto.output if name]
    stated = {o.domain: o.version for o in function.opset_import}
    versions = {"": opsets.get("", _newest("")), proto.domain: schema.since_version, **stated}
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    function.ClearField("opset_import")
    function.opset_import.extend(imports)
    call = helper.make_graph([proto], "body", inputs, outputs)
    graph = load(helper.make_model(call, opset_imports=imports, functions=[function])).graph
    graph.inputs = list(proto.input)
    graph.outputs = wanted
    for node in graph.nodes:
        node.attributes = {k: v for k, v in node.attributes.items() if v is not None}
    return graph
