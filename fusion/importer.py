"""ModelProto -> Graph.

1. The file is parsed without its external data; external tensors are memory-mapped, never outside the model's folder.
2. Constant nodes and initializers become constants; initializers that are also inputs may be overridden by a run (from
   IR version 4 on).
3. Model-local functions are inlined: each call's inner names, in its bodies too, get the call's name in front.
4. What cannot be a graph (unknown names, duplicate names, cycles, missing opsets) is an `InvalidModel`, in a sentence.

Whether nodes fit their operators' schemas is the question of `check`, which a session asks first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..ops.weights import Weight
from .graph import Attribute, Dim, Graph, MapType, Node, OptionalType, SequenceType, TensorType, Type
from .invalid import InvalidModel, Kind
from .modelfile import read
from .tensors import LARGE, Folder, numpy_dtype, sparse_to_array, text, to_array, to_weight

_IMPLIED = {
    "": None,
    "ai.onnx.ml": None,
    "com.microsoft": 1,
}  # domains that a model need not import, and their version (None: newest)


@dataclass
class Model:
    """A graph with what the file says of itself."""

    graph: Graph
    producer: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    metadata: dict[str, str] = field(default_factory=dict)


def load(source: str | os.PathLike | bytes | object) -> Model:
    """Import a model from a path, its bytes, or a ModelProto.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidModel: it is not an ONNX model, or its graph is not valid.
        TypeError: the source is none of these.
    """
    return build(*read(source))


def build(proto, folder: Folder, given: Mapping[str, np.ndarray] | None = None) -> Model:
    """A parsed model as a graph.

    Args:
        given: initializers that the caller gives in place of the model's, whose data is not read then.

    Raises:
        InvalidModel: its graph is not valid.
    """
    return _Importer(proto, folder, given or {}).model()


def opsets_of(proto) -> dict[str, int]:
    """domain -> version of a model's or a function's imports; ``""`` is ai.onnx."""
    return {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}


class _Scope:
    """What the names in a function's call mean outside it. The model's own graph and its bodies keep their names.

    Attributes:
        prefix: stands before the names that the call makes; empty outside functions.
        names: inner name -> name in the graph (``""``: an optional input that the call leaves out).
        attributes: the values of the call's attributes.
    """

    def __init__(self, prefix: str, names: Mapping[str, str], attributes: Mapping[str, Attribute]) -> None:
        self.prefix, self.names, self.attributes = prefix, dict(names), attributes

    def __call__(self, name: str) -> str:
        return self.names.get(name, self.prefix + name) if name else ""

    def body(self, names: Iterable[str]) -> _Scope:
        """The scope of a body that defines these names itself."""
        return _Scope(self.prefix, {**self.names, **{n: self.prefix + n for n in names}} if self.prefix else {}, self.attributes)


class _Importer:
    def __init__(self, proto, folder: Folder, given: Mapping[str, np.ndarray]) -> None:
        self.proto, self.folder, self.given = proto, folder, given
        self.opsets = opsets_of(proto)
        if proto.ir_version < 3 and not self.opsets:
            self.opsets = {"": 1}
        if not self.opsets:
            raise InvalidModel("the model imports no operator set")
        self.prefixes: set[str] = set()
        self.calls: list[tuple[str, str, str]] = []  # the functions that are being inlined
        self.functions = {}
        for f in proto.functions:
            if self.functions.setdefault(_identity(f), f) is not f:
                raise InvalidModel(f"two functions of the model are named {f.domain}::{f.name}")

    def model(self) -> Model:
        """The whole model."""
        proto = self.proto
        graph = self.graph(proto.graph, self.opsets, _Scope("", {}, {}))
        self.folder.complete()
        if proto.ir_version < 4:
            graph.overridable = []
        _check(graph, set())
        metadata = {p.key: p.value for p in proto.metadata_props}
        return Model(
            graph, proto.producer_name, proto.domain, proto.doc_string, proto.graph.doc_string, proto.model_version, metadata
        )

    def graph(self, proto, opsets: Mapping[str, int], scope: _Scope) -> Graph:
        """A graph or a body."""
        constants: dict[str, np.ndarray | Weight] = {}
        factors = _factors(proto)
        for tensor in proto.initializer:
            later = to_weight(tensor, self.folder) if tensor.name in factors and tensor.name not in self.given else None
            array = self._initializer(tensor, scope) if later is None else None
            # held in one place, so that it is gone when it is packed
            shared = array is not None and tensor.name in factors and array.nbytes >= LARGE
            constants[scope(tensor.name)] = Weight(array) if shared else array if later is None else later
        for sparse in proto.sparse_initializer:
            constants[scope(sparse.values.name)] = sparse_to_array(sparse, self.folder)
        declared = [scope(v.name) for v in proto.input]
        stated = [*proto.input, *proto.output, *proto.value_info]
        types = {scope(v.name): t for v in stated if (t := value_type(v.type)) is not None}
        overridable = [n for n in declared if n in constants]
        graph = Graph(
            [n for n in declared if n not in constants], [scope(v.name) for v in proto.output], [], constants, types,
            dict(opsets), overridable, proto.name,
        )  # fmt: skip
        for name in overridable:
            _check_default(name, constants[name], types.get(name))
            types.setdefault(name, TensorType(constants[name].dtype, constants[name].shape))
        self.nodes(proto.node, graph, opsets, scope)
        return graph

    def _initializer(self, tensor, scope: _Scope) -> np.ndarray:
        given = None if scope.prefix else self.given.get(tensor.name)
        if given is None:
            return to_array(tensor, self.folder)
        if given.dtype != numpy_dtype(tensor.data_type) or given.shape != tuple(tensor.dims):
            expected = TensorType(numpy_dtype(tensor.data_type), tuple(tensor.dims))
            raise InvalidModel(f"initializer {tensor.name!r}: {expected} expected, {given.dtype}{list(given.shape)} given")
        return given

    # -- nodes
    def nodes(self, protos: Iterable, graph: Graph, opsets: Mapping[str, int], scope: _Scope) -> None:
        """Append nodes."""
        names: set[str] = set()
        for proto in protos:
            if proto.name and proto.name in names and not scope.prefix:
                raise InvalidModel(f"two nodes are named {proto.name!r}")
            names.add(proto.name)
            label = scope.prefix + (proto.name or (proto.op_type if scope.prefix else ""))
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            function = self.functions.get((domain, proto.op_type, proto.overload))
            version = self._version(proto, domain, opsets, label)
            if function is not None:
                self._call(function, proto, graph, label or proto.op_type, opsets, scope)
                continue
            inputs, outputs = [scope(n) for n in proto.input], [scope(n) for n in proto.output]
            attributes = {a.name: v for a in proto.attribute if (v := self.attribute(a, opsets, scope)) is not None}
            if proto.op_type == "Constant" and domain == "":
                if outputs[0] in graph.constants:
                    raise InvalidModel(f"Constant {label!r}: the name {outputs[0]!r} is defined twice")
                graph.constants[outputs[0]] = self._constant(attributes, label)
                continue
            node = Node(proto.op_type, inputs, outputs, attributes, label, domain)
            if graph.opsets.setdefault(domain, version) != version and _differs(node, version, graph.opsets[domain]):
                node.version = version
            graph.nodes.append(node)

    def _version(self, proto, domain: str, opsets: Mapping[str, int], label: str) -> int:
        found = opsets.get(domain)
        if found is None:
            if domain not in _IMPLIED:
                raise InvalidModel(
                    f"{proto.op_type} {label!r} is of domain {domain or 'ai.onnx'!r}, which the model does not import", Kind.GRAPH
                )
            found = _IMPLIED[domain] or newest(domain)
        return found

    def _call(self, function, call, graph: Graph, label: str, opsets: Mapping[str, int], scope: _Scope) -> None:
        """Inline one call of a model-local function (rule 3)."""
        identity, name = _identity(function), f"{function.domain}::{function.name}"
        if identity in self.calls:
            raise InvalidModel(f"the function {name} calls itself", Kind.GRAPH)
        for what, given, taken in (("inputs", call.input, function.input), ("outputs", call.output, function.output)):
            if len(given) > len(taken):
                raise InvalidModel(f"{label!r} has {len(given)} {what}, the function {name} has {len(taken)}")
        inner = self._inner_scope(function, call, label, opsets, scope)
        self.calls.append(identity)
        try:
            self.nodes(function.node, graph, {**opsets, **opsets_of(function)}, inner)
        finally:
            self.calls.pop()
        for inside, outside in zip(function.output, call.output):
            if inside in function.input and outside:  # an input that is handed through
                graph.nodes.append(Node("Identity", [inner(inside)], [scope(outside)], {}, label))

    def _inner_scope(self, function, call, label: str, opsets: Mapping[str, int], scope: _Scope) -> _Scope:
        """Inputs and outputs of a function are the call's, its attributes the call's or their defaults."""
        inputs = [*call.input, *[""] * (len(function.input) - len(call.input))]
        names = {inside: scope(outside) for inside, outside in zip(function.input, inputs)}
        names.update({i: scope(o) for i, o in zip(function.output, call.output) if o and i not in names})
        attributes = {a.name: self.attribute(a, opsets, scope) for a in call.attribute}
        for default in function.attribute_proto:
            if attributes.get(default.name) is None:
                attributes[default.name] = self.attribute(default, opsets, scope)
        made = {out for node in function.node for out in node.output} | set(function.input)
        for out in function.output:
            if out not in made:
                raise InvalidModel(
                    f"no node of the function {function.domain}::{function.name} makes its output {out!r}", Kind.ARGUMENT
                )
        return _Scope(self._prefix(label), names, attributes)

    def _prefix(self, label: str) -> str:
        """A prefix for the inner names of a call that neither another call nor the model's graph uses."""
        if not self.prefixes:
            g = self.proto.graph
            used = [o for n in g.node for o in n.output] + [v.name for v in [*g.input, *g.initializer]]
            self.prefixes.update(name[: i + 1] for name in used for i, letter in enumerate(name) if letter == "/")
            self.prefixes.add("")
        prefix, count = f"{label}/", 1
        while prefix in self.prefixes:
            count += 1
            prefix = f"{label}:{count}/"
        self.prefixes.add(prefix)
        return prefix

    def _constant(self, attributes: Mapping[str, Attribute], label: str) -> np.ndarray:
        kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
        for name, value in attributes.items():
            if name in ("value", "sparse_value"):
                return value
            if name in kinds:
                return np.asarray(value, kinds[name])
            if name in ("value_string", "value_strings"):
                return np.asarray(value, object)
        raise InvalidModel(f"Constant {label!r} has no value")

    # -- attributes
    def attribute(self, a, opsets: Mapping[str, int], scope: _Scope) -> Attribute:
        """An attribute as a Python value; None if it refers to an attribute that the function's call leaves out."""
        if a.ref_attr_name:
            return scope.attributes.get(a.ref_attr_name)
        read = _READERS.get(a.type)
        if read is not None:
            return read(a)
        if a.type == 4:
            return to_array(a.t, self.folder)
        if a.type == 5:
            return self._body(a.g, opsets, scope)
        if a.type == 9:
            return [to_array(t, self.folder) for t in a.tensors]
        if a.type == 10:
            return [self._body(g, opsets, scope) for g in a.graphs]
        if a.type == 11:
            return sparse_to_array(a.sparse_tensor, self.folder)
        return self._untyped(a)

    def _untyped(self, a) -> Attribute:
        """Before IR version 3 attributes do not state their type: take what is there."""
        if a.HasField("t"):
            return to_array(a.t, self.folder)
        for name in ("f", "i", "s"):
            if a.HasField(name):
                return text(a.s) if name == "s" else getattr(a, name)
        for name in ("floats", "ints", "strings"):
            if len(getattr(a, name)):
                return [text(v) if name == "strings" else v for v in getattr(a, name)]
        return []

    def _body(self, proto, opsets: Mapping[str, int], scope: _Scope) -> Graph:
        own = [v.name for v in [*proto.input, *proto.initializer]] + [o for n in proto.node for o in n.output if o]
        return self.graph(proto, opsets, scope.body(own))


def _texts(raw: list[bytes]) -> list[str]:
    """Texts, equal ones as one object: a forest states the kind of each node."""
    known = {one: text(one) for one in set(raw)}
    return [known[one] for one in raw]


_READERS = {
    1: lambda a: a.f,
    2: lambda a: a.i,
    3: lambda a: text(a.s),
    6: lambda a: list(a.floats),
    7: lambda a: list(a.ints),
    8: lambda a: _texts(list(a.strings)),
    13: lambda a: value_type(a.tp),
    14: lambda a: [value_type(t) for t in a.type_protos],
}


def value_type(proto) -> Type | None:
    """A TypeProto as a Type; None if nothing is said."""
    kind = proto.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(proto, kind)
        if not tensor.elem_type:
            return None
        shape = tuple(_dim(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None
        return TensorType(numpy_dtype(tensor.elem_type), shape)
    if kind == "sequence_type":
        return SequenceType(value_type(proto.sequence_type.elem_type))
    if kind == "optional_type":
        return OptionalType(value_type(proto.optional_type.elem_type))
    if kind == "map_type":
        return MapType(numpy_dtype(proto.map_type.key_type), value_type(proto.map_type.value_type))
    return None


def newest(domain: str) -> int:
    """The newest version of a domain's operator set that the installed onnx knows; 0: it does not know the domain."""
    from onnx import defs

    return defs.onnx_opset_version() if domain == "" else _domain_versions().get(domain, 0)


def _domain_versions() -> dict[str, int]:
    from onnx import helper

    versions: dict[str, int] = {}
    for domain, version in helper.OP_SET_ID_VERSION_MAP:
        versions[domain] = max(version, versions.get(domain, 0))
    return versions


def _dim(d) -> Dim:
    kind = d.WhichOneof("value")
    if kind == "dim_value":
        return d.dim_value if d.dim_value >= 0 else None
    return d.dim_param or None if kind == "dim_param" else None


def _factors(graph) -> set[str]:
    """The names of a GraphProto that nothing reads but matrix products, as their second factor."""
    found, others = set(), {v.name for v in [*graph.input, *graph.output]}
    for node in graph.node:
        for i, name in enumerate(node.input):
            (found if i == 1 and node.op_type in ("MatMul", "Gemm") and not node.domain else others).add(name)
    has_bodies = any(a.type in (5, 10) for node in graph.node for a in node.attribute)
    return set() if has_bodies else found - others


def _identity(function) -> tuple[str, str, str]:
    return ("" if function.domain == "ai.onnx" else function.domain, function.name, function.overload)


def _differs(node: Node, version: int, other: int) -> bool:
    """Whether the operator means something else at another version."""
    from onnx import defs

    try:
        found = [defs.get_schema(node.op, max_inclusive_version=v, domain=node.domain).since_version for v in (version, other)]
    except defs.SchemaError:
        return True
    return found[0] != found[1]


def _check_default(name: str, array: np.ndarray, kind: Type | None) -> None:
    """An initializer fits the type that the input of the same name declares."""
    if not isinstance(kind, TensorType):
        return
    if kind.dtype != array.dtype:
        raise InvalidModel(f"initializer {name!r} has elements of type {array.dtype}, the input of that name {kind.dtype}")
    shape = kind.shape
    if shape is not None and (len(shape) != array.ndim or any(isinstance(d, int) and d != n for d, n in zip(shape, array.shape))):
        raise InvalidModel(f"initializer {name!r} has the shape {list(array.shape)}, the input of that name {kind}")


def _check(graph: Graph, outer: set[str]) -> None:
    """Every name is defined once; nodes are put in an order in which every name is defined before it is used."""
    own = [*graph.inputs, *graph.constants]
    if len(own) != len(set(own)):
        raise InvalidModel(f"two inputs of the graph are named {next(n for n in own if own.count(n) > 1)!r}")
    known = outer.union(own)
    made = _makers(graph, set(own))
    ordered: list[Node] = []
    waiting: dict[str, list[tuple[Node, set[str]]]] = {}  # name -> nodes that wait for it
    left = len(graph.nodes)
    for node in graph.nodes:
        needs = {n for n in _reads(node) if n and n not in known}
        for name in needs - made:
            kind = Kind.ARGUMENT if name in node.inputs else Kind.GRAPH
            raise InvalidModel(f"{node.label}: input {name!r} is no graph input, initializer, or output of a node", kind)
        ready = [node] if not needs else []
        for name in needs:
            waiting.setdefault(name, []).append((node, needs))
        while ready:
            done = ready.pop()
            ordered.append(done)
            left -= 1
            for out in done.outputs:
                known.add(out)
                for other, needed in waiting.pop(out, ()):
                    needed.discard(out)
                    if not needed:
                        ready.append(other)
    if left:
        stuck = next(node for pairs in waiting.values() for node, _ in pairs)
        raise InvalidModel(f"the graph is not acyclic: {stuck.label} needs a value that is made from its own result")
    graph.nodes = ordered
    for out in graph.outputs:
        if out not in known or not out:
            raise InvalidModel(f"the graph's output {out!r} is produced by no node")
    _check_bodies(graph, outer.union(own), known)


def _check_bodies(graph: Graph, before: set[str], known: set[str]) -> None:
    """As `_check`, for the bodies of a graph's nodes; `before` are the names that exist before its nodes."""
    for node in graph.nodes:
        for body in node.subgraphs():
            for name in (o for n in body.nodes for o in n.outputs if o and o in before):
                raise InvalidModel(f"{node.label}: its body defines the name {name!r} again", Kind.GRAPH)
            _check(body, known)
        before.update(node.outputs)


def _makers(graph: Graph, own: set[str]) -> set[str]:
    """The names that nodes define."""
    made: set[str] = set()
    for node in graph.nodes:
        for out in node.outputs:
            if out and (out in made or out in own):
                raise InvalidModel(f"{node.label}: duplicate definition of name {out!r}")
            if out:
                made.add(out)
    return made


def _reads(node: Node) -> list[str]:
    return [*node.inputs, *(c for body in node.subgraphs() for c in body.captured())]
