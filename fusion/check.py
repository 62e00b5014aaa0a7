"""Whether a parsed model is valid: versions, the operators' schemas, types. What a graph's names must be, `importer` says.

1. Names are texts. IR version and operator sets are ones that the installed onnx knows.
2. Every node has an operator, and the number of inputs and outputs and the attributes that its schema allows. A node of
   a model-local function, or of an operator that a user has registered, has no schema and may be anything.
3. Inputs have types. Shape inference, without the weights and without what the model states of intermediate values,
   finds no contradiction.
4. The types of a node's inputs are ones that the schema allows, and equal where it says so. What the model states of
   outputs and intermediate values agrees with the types (not the shapes) that were inferred.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..ops import registry
from .importer import newest, opsets_of
from .invalid import InvalidModel, Kind
from .tensors import numpy_dtype

_SMALL = 64  # elements of an integer initializer that inference may read
_GRAPH, _GRAPHS = 5, 10
Opsets = Mapping[str, int]


@dataclass(frozen=True)
class Schema:
    """What onnx publishes of an operator, read once."""

    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    fewest: tuple[int, int]
    most: tuple[int, int]
    attributes: Mapping[str, tuple[int, bool]]
    deprecated: bool
    since: int


@dataclass(frozen=True)
class Parameter:
    """One formal input or output: its type variable (or type) and the types that it allows."""

    name: str
    variable: str
    types: frozenset[str]
    single: bool
    variadic: bool
    homogeneous: bool


def check_nodes(proto) -> None:
    """Rules 1 and 2.

    Raises:
        InvalidModel: one is broken.
    """
    _check_texts(proto)
    _check_versions(proto)
    functions = {(_domain(f), f.name) for f in proto.functions}
    opsets = opsets_of(proto)
    _check_nodes(proto.graph.node, opsets, functions)
    for function in proto.functions:
        _check_nodes(function.node, {**opsets, **opsets_of(function)}, functions)


def check_types(proto) -> dict[str, object]:
    """Rules 3 and 4, for a model whose names are known to be right.

    Returns:
        Name -> TypeProto of every value whose type was inferred.

    Raises:
        InvalidModel: a rule is broken.
    """
    for value in proto.graph.input:
        _check_input(value)
    graph = _inferred(proto)
    types: dict[str, str] = {}
    _check_bound_types(graph, opsets_of(proto), types)
    _check_stated_types(proto.graph, graph)
    return {v.name: v.type for v in [*graph.input, *graph.value_info]}


# -- names and versions
def _check_texts(proto) -> None:
    for owner in (proto, *proto.functions):
        _require_text([o.domain for o in owner.opset_import])
    for function in proto.functions:
        _require_text([function.domain, function.name, function.overload, *function.input, *function.output, *function.attribute])
        _require_text([a.name for a in function.attribute_proto])
        _check_node_texts(function.node)
    _check_graph_texts(proto.graph)


def _check_graph_texts(graph) -> None:
    _require_text([graph.name])
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        _require_text([v.name for v in values])
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            _require_text([entry.key, entry.value])
    _check_node_texts(graph.node)


def _check_node_texts(nodes: Iterable) -> None:
    for node in nodes:
        _require_text([node.op_type, node.domain, node.name, node.overload, *node.input, *node.output])
        for a in node.attribute:
            _require_text([a.name, a.ref_attr_name])
        for body in _bodies(node):
            _check_graph_texts(body)


def _require_text(names: Iterable[str | bytes]) -> None:
    """protobuf gives a string that is not UTF-8 as bytes."""
    for name in names:
        if type(name) is not str:
            raise InvalidModel(f"the name {name!r} is not UTF-8 text")


def _check_versions(proto) -> None:
    from onnx import IR_VERSION

    if not proto.HasField("ir_version"):
        raise InvalidModel("the model states no IR version")
    if proto.ir_version > IR_VERSION:
        raise InvalidModel(f"the model has IR version {proto.ir_version}, the installed onnx knows versions up to {IR_VERSION}")
    for domain, version in opsets_of(proto).items():
        known = newest(domain)
        if known and version > known:
            raise InvalidModel(
                f"the model imports version {version} of operator set {domain or 'ai.onnx'!r}, the installed onnx knows "
                f"versions up to {known}"
            )


def _check_input(value) -> None:
    kind = value.type.WhichOneof("value")
    if kind is None:
        raise InvalidModel(f"the model's input {value.name!r} does not have type information")
    if kind in ("tensor_type", "sparse_tensor_type"):
        try:
            numpy_dtype(getattr(value.type, kind).elem_type)
        except InvalidModel as error:
            raise InvalidModel(f"the model's input {value.name!r}: {error}", Kind.ARGUMENT) from error


# -- schemas
@lru_cache(maxsize=4096)
def schema_of(domain: str, name: str, version: int) -> Schema | None:
    """The schema that holds at an opset version, or None."""
    from onnx import defs

    try:
        found = defs.get_schema(name, max_inclusive_version=version, domain=domain)
    except defs.SchemaError:
        return None
    option = defs.OpSchema.FormalParameterOption

    def parameters(formal: Iterable) -> tuple[Parameter, ...]:
        return tuple(
            Parameter(
                p.name, p.type_str, frozenset(p.types), p.option == option.Single, p.option == option.Variadic, p.is_homogeneous
            )
            for p in formal
        )

    attributes = {n: (int(a.type.value), bool(a.required)) for n, a in found.attributes.items()}
    return Schema(
        name, parameters(found.inputs), parameters(found.outputs), (found.min_input, found.min_output),
        (found.max_input, found.max_output), attributes, bool(found.deprecated),
        found.since_version,
    )  # fmt: skip


def _check_nodes(nodes: Iterable, opsets: Opsets, functions: set[tuple[str, str]]) -> None:
    for node in nodes:
        domain = _domain(node)
        if (domain, node.op_type) not in functions:
            _check_node(node, domain, opsets)
        elif domain not in opsets:
            raise _invalid(node, f"the model does not import the domain {domain!r} of the function")
        for body in _bodies(node):
            _check_nodes(body.node, opsets, functions)


def _check_node(node, domain: str, opsets: Opsets) -> None:
    version = _version(domain, opsets)
    schema = schema_of(domain, node.op_type, version)
    if schema is None:
        _check_unpublished(node, domain, opsets, version)
        return
    if schema.deprecated:
        _check_withdrawn(node, domain, schema, version)
        return
    for what, given, i in (("inputs", node.input, 0), ("outputs", node.output, 1)):
        if not schema.fewest[i] <= len(given) <= schema.most[i]:
            allowed = f"{schema.fewest[i]}" if schema.fewest[i] == schema.most[i] else f"{schema.fewest[i]} to {schema.most[i]}"
            raise _invalid(node, f"it has {len(given)} {what}, the operator (opset {version}) takes {allowed}")
    for formal, name in zip(schema.inputs, node.input):
        if formal.single and not name:
            raise _invalid(node, f"its input {formal.name!r} is required")
    _check_attributes(node, schema, version)


def _check_attributes(node, schema: Schema, version: int) -> None:
    given = {}
    for a in node.attribute:
        if a.name not in schema.attributes:
            if a.name.startswith("__"):
                continue
            raise _invalid(node, f"it has the attribute {a.name!r}, which the operator (opset {version}) does not know")
        given[a.name] = a.type
        expected = schema.attributes[a.name][0]
        if a.type and a.type != expected:
            raise _invalid(node, f"its attribute {a.name!r} is of type {_kind(a.type)}, expected {_kind(expected)}")
    for name, (_, required) in schema.attributes.items():
        if required and name not in given:
            raise _invalid(node, f"its required attribute {name!r} is missing")


def _check_withdrawn(node, domain: str, schema: Schema, version: int) -> None:
    """An operator that onnx has given up: only who supplies it anew may use it."""
    row = registry.find(domain, node.op_type, version)
    if row is None or row.since < schema.since:
        gone = f"the operator {_full(node, domain)} is deprecated since opset {schema.since}, the model imports opset {version}"
        raise _invalid(node, f"{gone}. {_how_to_supply(node, domain, schema.since)}")


def _check_unpublished(node, domain: str, opsets: Opsets, version: int) -> None:
    """An operator that onnx does not publish: a user's or another runtime's."""
    if registry.find(domain, node.op_type, version) is not None:
        return
    first = _first_version(domain, node.op_type)
    later = f"; it exists since opset {first}" if first > version else ""
    what = f"no operator {_full(node, domain)} is known (opset {version}){later}. {_how_to_supply(node, domain)}"
    if domain not in opsets and not newest(domain) and domain != "com.microsoft":
        raise _invalid(node, f"the model does not import the domain {domain!r}")
    if domain == "com.microsoft":
        raise _invalid(node, what, Kind.NOT_IMPLEMENTED)
    raise _invalid(node, what, Kind.GRAPH if newest(domain) else Kind.FAIL)


def _full(node, domain: str) -> str:
    return f"{domain or 'ai.onnx'}::{node.op_type}"


def _how_to_supply(node, domain: str, since: int = 1) -> str:
    arguments = [repr(node.op_type), *([f"since={since}"] if since > 1 else []), *([f"domain={domain!r}"] if domain else [])]
    call = f"@jitrt.ops.registry.op({', '.join(arguments)})"
    return f"To supply it, add it to the model as a local function, or register it: {call}"


def _first_version(domain: str, name: str) -> int:
    """The first opset that has an operator; 0: none."""
    from onnx import defs

    return min((s.since_version for s in defs.get_all_schemas_with_history() if (s.domain, s.name) == (domain, name)), default=0)


def _invalid(node, problem: str, kind: Kind = Kind.GRAPH) -> InvalidModel:
    return InvalidModel(f"{node.op_type} {node.name or next(iter(node.output), '')!r}: {problem}", kind)


def _kind(attribute_type: int) -> str:
    from onnx import AttributeProto

    return AttributeProto.AttributeType.Name(attribute_type)


def _version(domain: str, opsets: Opsets) -> int:
    return opsets[domain] if domain in opsets else newest(domain) or 1


def _domain(node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _bodies(node) -> Iterator:
    for a in node.attribute:
        if a.type == _GRAPH:
            yield a.g
        elif a.type == _GRAPHS:
            yield from a.graphs


# -- types
def _inferred(proto):
    """The graph with the types that inference finds (rule 3)."""
    from onnx import ModelProto, checker, shape_inference

    light = ModelProto(ir_version=proto.ir_version, functions=proto.functions)
    for domain, version in opsets_of(proto).items():
        light.opset_import.add(domain=domain, version=version)
    _strip(proto.graph, light.graph, whole=True)
    outputs = {(_domain(f), f.name, f.overload): len(f.output) for f in light.functions}
    for nodes in (light.graph.node, *(f.node for f in light.functions)) if outputs else ():
        _name_all_outputs(nodes, outputs)
    _import_domains(light, light.graph.node, opsets_of(proto))
    for function in light.functions:
        _import_domains(function, function.node, opsets_of(proto))
    opsets, functions = opsets_of(light), {key[:2] for key in outputs}
    published = all(_are_published(nodes, opsets, functions) for nodes in (light.graph.node, *(f.node for f in light.functions)))
    if not published:  # what follows such a node lacks types, which is no contradiction
        try:
            return shape_inference.infer_shapes(light).graph
        except shape_inference.InferenceError:  # onnx still looks at what it gave up
            return light.graph
    try:
        return shape_inference.infer_shapes(light, strict_mode=True).graph
    except shape_inference.InferenceError as error:
        # constants are the importer's matter; onnx rejects some in its own functions
        if "op_type:Constant" in str(error) or _lacks_types_only(str(error)):
            return shape_inference.infer_shapes(light).graph
        raise InvalidModel(f"shape inference: {str(error).strip()}") from error
    except (checker.ValidationError, RuntimeError, ValueError):  # onnx itself failed; that says nothing of the model
        return light.graph


def _lacks_types_only(errors: str) -> bool:
    """Whether inference complains of nothing but values without a type: of much in ai.onnx.ml, onnx does not say what it makes."""
    found = re.findall(r"\[\w+Error\]([^\[]*)", errors.partition("Inference error(s)")[2])
    return bool(found) and all("expected to have type but instead is null" in one for one in found)


def _import_domains(owner, nodes: Iterable, opsets: Opsets) -> None:
    """Import what a model or function need not import (`importer`): onnx's inference wants to be told."""
    stated = set(opsets_of(owner))
    for domain in sorted(_domains(nodes) - stated):
        owner.opset_import.add(domain=domain, version=_version(domain, opsets))


def _are_published(nodes: Iterable, opsets: Opsets, functions: set[tuple[str, str]]) -> bool:
    """Whether onnx, in these versions, or the model defines every operator."""
    return all(
        ((domain := _domain(node)), node.op_type) in functions
        or ((schema := schema_of(domain, node.op_type, _version(domain, opsets))) is not None and not schema.deprecated)
        for node in nodes
    ) and all(_are_published(body.node, opsets, functions) for node in nodes for body in _bodies(node))


def _domains(nodes: Iterable) -> set[str]:
    found = {_domain(node) for node in nodes}
    return found.union(*(_domains(body.node) for node in nodes for body in _bodies(node)))


def _name_all_outputs(nodes: Iterable, outputs: Mapping[tuple[str, str, str], int]) -> None:
    """Name the outputs that calls of functions leave out, and the domain of onnx: its inference knows neither habit."""
    for node in nodes:
        node.domain = _domain(node)
        missing = outputs.get((_domain(node), node.op_type, node.overload), 0) - len(node.output)
        node.output.extend([""] * missing)
        if (_domain(node), node.op_type, node.overload) in outputs:
            node.output[:] = [name or f"/{next(iter(node.output))}/{i}" for i, name in enumerate(node.output)]
        for body in _bodies(node):
            _name_all_outputs(body.node, outputs)


def _strip(graph, light, whole: bool) -> None:
    """Copy a graph without its weights, and without what it states of values that nodes make."""
    light.name = graph.name
    inputs = {v.name for v in graph.input}
    for value in graph.input:
        kept = light.input.add()
        kept.CopyFrom(value)
        if not whole and kept.type.WhichOneof("value") == "tensor_type":
            kept.type.tensor_type.ClearField("shape")  # a body's inputs may change their shape from turn to turn
    for tensor in graph.initializer:
        size = 1
        for d in tensor.dims:
            size *= max(d, 0)
        if tensor.data_type == 7 and size <= _SMALL and tensor.data_location == 0:
            light.initializer.add().CopyFrom(tensor)
        elif tensor.name not in inputs and whole:
            tensor_type = light.input.add(name=tensor.name).type.tensor_type
            tensor_type.elem_type = tensor.data_type
            tensor_type.shape.SetInParent()
            for d in tensor.dims:
                tensor_type.shape.dim.add().dim_value = d
        elif tensor.name not in inputs:
            light.initializer.add().CopyFrom(tensor)
    for node in _ordered(graph):
        _strip_node(node, light.node.add())
    if not whole:
        for value in graph.output:
            light.output.add(name=value.name)


def _ordered(graph) -> list:
    """The nodes in an order in which values are made before they are read (most models' own)."""
    made = {out for node in graph.node for out in node.output if out}
    rest, ordered = list(graph.node), []
    while rest:
        later = []
        for node in rest:
            if made.isdisjoint(node.input) and made.isdisjoint(_captured(node)):
                ordered.append(node)
                made.difference_update(node.output)
            else:
                later.append(node)
        if len(later) == len(rest):
            return [*ordered, *rest]
        rest = later
    return ordered


def _captured(node) -> set[str]:
    """Every name that a node's bodies mention."""
    names: set[str] = set()
    for body in _bodies(node):
        names.update(v.name for v in body.output)
        for inner in body.node:
            names.update(inner.input, _captured(inner))
        names.difference_update(out for inner in body.node for out in inner.output)
        names.difference_update(v.name for v in [*body.input, *body.initializer])
    return names


def _strip_node(node, light) -> None:
    if not any(a.type in (_GRAPH, _GRAPHS) for a in node.attribute):
        light.CopyFrom(node)
        light.domain = _domain(node)
        return
    light.op_type, light.domain, light.name = node.op_type, _domain(node), node.name
    light.input.extend(node.input)
    light.output.extend(node.output)
    for a in node.attribute:
        kept = light.attribute.add()
        if a.type == _GRAPH:
            kept.name, kept.type = a.name, a.type
            _strip(a.g, kept.g, whole=False)
        elif a.type != _GRAPHS:
            kept.CopyFrom(a)


def _check_bound_types(graph, opsets: Opsets, outer: Mapping[str, str]) -> None:
    """What nodes take, for a graph with inferred types and its bodies; `outer` are the types of the names around it."""
    types = {**outer, **_types_of(graph)}
    for node in graph.node:
        domain = _domain(node)
        schema = schema_of(domain, node.op_type, _version(domain, opsets))
        if schema is not None:
            _check_bindings(node, schema, types)
        for body in _bodies(node):
            _check_bound_types(body, opsets, types)


def _check_stated_types(graph, inferred) -> None:
    """What the model states of values is what their nodes make."""
    types, made = _types_of(inferred), {out for node in graph.node for out in node.output}
    for value in [*graph.output, *graph.value_info]:
        stated, found = type_text(value.type), types.get(value.name)
        if stated and found and stated != found and value.name in made:
            raise InvalidModel(f"the type {stated} that the model states of {value.name!r} is not what its node makes: {found}")


def _types_of(inferred) -> dict[str, str]:
    types = {v.name: type_text(v.type) for v in [*inferred.input, *inferred.value_info, *inferred.output]}
    types.update({t.name: f"tensor({element_name(t.data_type)})" for t in inferred.initializer})
    return {name: kind for name, kind in types.items() if kind}


def _check_bindings(node, schema: Schema, types: Mapping[str, str]) -> None:
    bound: dict[str, str] = {}
    for i, name in enumerate(node.input):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        given = types.get(name) if name else None
        if given is None:
            continue
        if formal.types and given not in formal.types:
            raise _invalid(
                node, f"its input {formal.name!r} ({name!r}) is of type {given}, the operator takes {_list(formal.types)}"
            )
        if formal.homogeneous and bound.setdefault(formal.variable, given) != given:
            raise _invalid(
                node, f"its inputs must have one type {formal.variable}, they have {bound[formal.variable]} and {given}", Kind.FAIL
            )


def _list(types: Iterable[str]) -> str:
    return ", ".join(sorted(types))


def element_name(element: int) -> str:
    """The name of an ONNX element type in type strings: float, int64, string ..."""
    from onnx import TensorProto

    return TensorProto.DataType.Name(element).lower()


def type_text(proto) -> str:
    """A TypeProto as schemas write it: ``tensor(float)``, ``seq(tensor(int64))``; empty if it says nothing."""
    kind = proto.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        element = getattr(proto, kind).elem_type
        return f"{kind[:-5]}({element_name(element)})" if element else ""
    if kind in ("sequence_type", "optional_type"):
        inner = type_text(getattr(proto, kind).elem_type)
        return f"{'seq' if kind == 'sequence_type' else 'optional'}({inner})" if inner else ""
    if kind == "map_type":
        inner = type_text(proto.map_type.value_type)
        return f"map({element_name(proto.map_type.key_type)},{inner})" if inner else ""
    return ""
