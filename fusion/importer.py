"""ModelProto -> Graph.

1. The file is parsed without its external data; external tensors are memory-mapped, never outside the model's folder.
2. Constant nodes and initializers become constants; initializers that are also inputs may be overridden by a run.
3. Model-local functions are inlined: each call's inner names get the call's name in front.
4. What cannot be a graph (unknown names, duplicate names, missing opsets) is an `InvalidModel`, in a sentence.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .graph import Attribute, Dim, Graph, MapType, Node, OptionalType, SequenceType, TensorType, Type

_NUMPY = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "object", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128",
}  # fmt: skip
_EXTENDED = {
    16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4",
    22: "int4", 23: "float4_e2m1fn", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2",
}  # fmt: skip
_EXTERNAL = 1


class InvalidModel(ValueError):
    """The model is no valid ONNX graph."""


class BadFile(ValueError):
    """The bytes are not a serialized ModelProto."""


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
        BadFile: it is not an ONNX model.
        InvalidModel: its graph is not valid.
    """
    from onnx import onnx_ml_pb2

    folder = pathlib.Path()
    if isinstance(source, onnx_ml_pb2.ModelProto):
        proto = source
    else:
        if isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source)
        else:
            path = pathlib.Path(source)
            if not path.is_file():
                raise FileNotFoundError(f"Load model from {path} failed: File doesn't exist")
            folder, data = path.parent, path.read_bytes()
        proto = _parse(data, onnx_ml_pb2)
    if not proto.HasField("graph"):
        raise BadFile("the file holds no ONNX graph")
    return _Importer(proto, folder).model()


def _parse(data: bytes, pb) -> object:
    from google.protobuf.message import DecodeError

    proto = pb.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise BadFile("the bytes are not a serialized ONNX model (protobuf parsing failed)") from error
    return proto


def numpy_dtype(element: int) -> np.dtype:
    """The numpy dtype of an ONNX element type; strings are `object`.

    Raises:
        InvalidModel: no such element type.
    """
    if element in _NUMPY:
        return np.dtype(_NUMPY[element])
    if element in _EXTENDED:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _EXTENDED[element]))
    raise InvalidModel(f"unknown tensor element type {element}")


class _Importer:
    def __init__(self, proto, folder: pathlib.Path) -> None:
        self.proto, self.folder = proto, folder
        self.opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
        if proto.ir_version < 3 and not self.opsets:
            self.opsets = {"": 1}
        if not self.opsets:
            raise InvalidModel("the model imports no operator set")
        self.references: dict[str, object] = {}  # attribute name -> its value in the function call being inlined
        self.scopes: set[str] = set()
        self.functions = {(f.domain, f.name, f.overload): f for f in proto.functions}

    def model(self) -> Model:
        """The whole model."""
        proto = self.proto
        graph = self.graph(proto.graph, set(), self.opsets)
        _check(graph, set())
        metadata = {p.key: p.value for p in proto.metadata_props}
        return Model(
            graph, proto.producer_name, proto.domain, proto.doc_string, proto.graph.doc_string, proto.model_version, metadata
        )

    def graph(self, proto, outer: set[str], opsets: Mapping[str, int]) -> Graph:
        """A graph or a body; `outer` are the names that it may use from around it."""
        constants: dict[str, np.ndarray] = {}
        for tensor in proto.initializer:
            if tensor.name in constants:
                raise InvalidModel(f"two initializers are named {tensor.name!r}")
            constants[tensor.name] = self.tensor(tensor)
        for sparse in proto.sparse_initializer:
            constants[sparse.values.name] = self.sparse(sparse)
        declared = [v.name for v in proto.input]
        types = {v.name: t for v in [*proto.input, *proto.output, *proto.value_info] if (t := value_type(v.type)) is not None}
        overridable = [n for n in declared if n in constants]
        graph = Graph(
            [n for n in declared if n not in constants], [v.name for v in proto.output], [], constants, types, dict(opsets),
            overridable, proto.name,
        )  # fmt: skip
        self.nodes(proto.node, graph, opsets, "", {})
        return graph

    # -- nodes
    def nodes(self, protos: Iterable, graph: Graph, opsets: Mapping[str, int], scope: str, names: dict[str, str]) -> None:
        """Append nodes; `names` maps a function's inner names to the graph's."""
        for proto in protos:
            function = self.functions.get((proto.domain, proto.op_type, proto.overload))
            inputs = [self._name(n, scope, names) for n in proto.input]
            outputs = [self._name(n, scope, names) for n in proto.output]
            label = scope + (proto.name or "")
            if function is not None:
                self._call(function, proto, inputs, outputs, graph, label or f"{scope}{proto.op_type}", opsets)
                continue
            attributes = {a.name: self.attribute(a, opsets, scope, names) for a in proto.attribute}
            attributes = {k: v for k, v in attributes.items() if v is not None}
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            if domain not in opsets:
                if domain and domain not in ("com.microsoft",):
                    raise InvalidModel(f"{proto.op_type} {label!r} is of domain {domain!r}, which the model does not import")
                opsets = {**opsets, domain: 1}
                graph.opsets.setdefault(domain, 1)
            if proto.op_type == "Constant" and domain == "":
                graph.constants[outputs[0]] = self._constant(attributes, label)
                continue
            graph.nodes.append(Node(proto.op_type, inputs, outputs, attributes, label, domain))

    def _name(self, name: str, scope: str, names: dict[str, str]) -> str:
        if not name or not scope:
            return name
        return names.setdefault(name, scope + name)

    def _call(self, function, call, inputs, outputs, graph: Graph, label: str, opsets: Mapping[str, int]) -> None:
        """Inline one call of a model-local function (rule 3)."""
        scope = self._scope(label)
        given = {a.name: a for a in call.attribute}
        defaults = {a.name: a for a in function.attribute_proto}
        names = dict(zip(function.input, inputs))
        names.update(dict.fromkeys(list(function.input)[len(inputs) :], ""))
        names.update({n: o for n, o in zip(function.output, outputs) if o})
        inner = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in function.opset_import}
        outer = self.references
        resolved = {k: outer.get(a.ref_attr_name) if a.ref_attr_name else a for k, a in {**defaults, **given}.items()}
        self.references = {k: a for k, a in resolved.items() if a is not None}
        try:
            self.nodes(function.node, graph, {**opsets, **inner}, scope, names)
        finally:
            self.references = outer
        through = [(n, names[n]) for n in function.output if n in set(function.input)]
        for n, target in through:
            source = dict(zip(function.input, inputs))[n]
            graph.nodes.append(Node("Identity", [source], [target], {}, label))

    def _scope(self, label: str) -> str:
        """A prefix for the inner names of a call that no other call has."""
        scope, count = f"{label}/", 1
        while scope in self.scopes:
            count += 1
            scope = f"{label}:{count}/"
        self.scopes.add(scope)
        return scope

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
    def attribute(self, a, opsets: Mapping[str, int], scope: str = "", names: dict[str, str] | None = None) -> Attribute:
        """An attribute as a Python value."""
        if a.ref_attr_name:
            a = self.references.get(a.ref_attr_name)
            if a is None:
                return None
        kind = a.type
        if kind == 1:
            return a.f
        if kind == 2:
            return a.i
        if kind == 3:
            return _text(a.s)
        if kind == 4:
            return self.tensor(a.t)
        if kind == 5:
            return self._body(a.g, opsets, scope, names)
        if kind == 6:
            return list(a.floats)
        if kind == 7:
            return list(a.ints)
        if kind == 8:
            return [_text(s) for s in a.strings]
        if kind == 9:
            return [self.tensor(t) for t in a.tensors]
        if kind == 10:
            return [self._body(g, opsets, scope, names) for g in a.graphs]
        if kind == 11:
            return self.sparse(a.sparse_tensor)
        if kind == 13:
            return value_type(a.tp)
        if kind == 14:
            return [value_type(t) for t in a.type_protos]
        return _untyped(a)

    def _body(self, proto, opsets: Mapping[str, int], scope: str, names: dict[str, str] | None) -> Graph:
        body = self.graph(proto, set(), opsets)
        if scope and names is not None:
            own = {*body.inputs, *body.constants, *(o for n in body.nodes for o in n.outputs)}
            _rename(body, {k: v for k, v in names.items() if k not in own})
        return body

    # -- tensors
    def tensor(self, t) -> np.ndarray:
        """A TensorProto as an array; raw data is not copied, external data is mapped."""
        dtype = numpy_dtype(t.data_type)
        shape = tuple(t.dims)
        if t.data_location == _EXTERNAL:
            return self._external(t, dtype, shape)
        if dtype == object:
            return np.array([_text(s) for s in t.string_data], object).reshape(shape)
        if t.HasField("raw_data") and t.data_type not in (21, 22, 23, 25, 26):
            return _from_bytes(t.raw_data, dtype, shape, t.name)
        from onnx import numpy_helper

        return np.ascontiguousarray(numpy_helper.to_array(t)).reshape(shape)

    def _external(self, t, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        info = {e.key: e.value for e in t.external_data}
        where = info.get("location", "")
        folder = self.folder.resolve()
        path = (folder / where).resolve()
        if not where or os.path.isabs(where) or folder not in path.parents:
            raise InvalidModel(f"initializer {t.name!r}: external data {where!r} lies outside the model's folder")
        if not path.is_file():
            raise InvalidModel(f"initializer {t.name!r}: external data file {where!r} does not exist")
        offset = int(info.get("offset", 0))
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if t.data_type in (21, 22, 23, 25, 26):
            from onnx import numpy_helper

            return numpy_helper.to_array(t, str(folder))
        if offset < 0 or offset + size > path.stat().st_size or int(info.get("length", size)) < size:
            raise InvalidModel(f"initializer {t.name!r}: external data {where!r} is shorter than {offset} + {size} bytes")
        if size == 0:
            return np.zeros(shape, dtype)
        return np.memmap(path, np.uint8, "r", offset, (size,)).view(np.ndarray).view(dtype).reshape(shape)

    def sparse(self, s) -> np.ndarray:
        """A sparse tensor as a dense one."""
        shape = tuple(s.dims)
        values, indices = self.tensor(s.values), self.tensor(s.indices)
        dense = np.zeros(shape, values.dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        elif len(indices):
            dense[tuple(indices.T)] = values
        return dense


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


def _dim(d) -> Dim:
    kind = d.WhichOneof("value")
    if kind == "dim_value":
        return d.dim_value if d.dim_value >= 0 else None
    return d.dim_param or None if kind == "dim_param" else None


def _from_bytes(raw: bytes, dtype: np.dtype, shape: tuple[int, ...], name: str) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(raw) != size:
        raise InvalidModel(f"initializer {name!r} has {len(raw)} bytes, its shape {list(shape)} of {dtype} needs {size}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _untyped(a) -> Attribute:
    """Before IR version 3 attributes do not state their type: take what is there."""
    for name in ("f", "i", "s", "t"):
        if a.HasField(name):
            return {"f": a.f, "i": a.i, "s": _text(a.s)}.get(name)
    for name in ("floats", "ints", "strings"):
        if len(getattr(a, name)):
            return [_text(v) if name == "strings" else v for v in getattr(a, name)]
    return []


def _rename(graph: Graph, names: Mapping[str, str]) -> None:
    """Rename what a body uses from outside it."""
    for node in graph.nodes:
        node.inputs = [names.get(n, n) for n in node.inputs]
        for body in node.subgraphs():
            _rename(body, {k: v for k, v in names.items() if k not in body.inputs})
    graph.outputs = [names.get(n, n) for n in graph.outputs]


def _check(graph: Graph, outer: set[str]) -> None:
    """Every name is defined once, before it is used."""
    known = outer | set(graph.inputs) | set(graph.constants)
    own = set(graph.inputs) | set(graph.constants)
    if len(graph.inputs) != len(set(graph.inputs)):
        raise InvalidModel("two inputs of the graph have the same name")
    pending = list(graph.nodes)
    ordered: list[Node] = []
    while pending:
        rest = []
        for node in pending:
            needs = [n for n in [*node.inputs, *(c for b in node.subgraphs() for c in b.captured())] if n and n not in known]
            if needs:
                rest.append(node)
                continue
            for body in node.subgraphs():
                _check(body, known)
            for out in node.outputs:
                if out and out in own:
                    raise InvalidModel(f"{node.label}: the name {out!r} is defined twice (the graph must be in SSA form)")
                if out:
                    known.add(out)
                    own.add(out)
            ordered.append(node)
        if len(rest) == len(pending):
            node = rest[0]
            missing = next(n for n in [*node.inputs, *(c for b in node.subgraphs() for c in b.captured())] if n and n not in known)
            raise InvalidModel(f"{node.label}: input {missing!r} is no graph input, initializer or output of an earlier node")
        pending = rest
    graph.nodes = ordered
    for out in graph.outputs:
        if out not in known:
            raise InvalidModel(f"graph output {out!r} is produced by no node")
