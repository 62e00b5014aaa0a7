"""How every operator of the installed onnx package, and every other one of the registry, is run, and in which types."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from . import registry


class Way(enum.Enum):
    """How a node is run."""

    NATIVE = "native"
    IMPORT = "import"
    PYTHON = "Python"
    BODY = "function body"
    HOST = "reference"
    NONE = "not run"


_SHORT = {
    "float16": "f16", "bfloat16": "bf16", "float": "f32", "double": "f64", "bool": "bool", "string": "string",
    "complex64": "c64", "complex128": "c128",
}  # fmt: skip
_ORDER = (
    "f16", "bf16", "f32", "f64", "i2", "i4", "i8", "i16", "i32", "i64", "u2", "u4", "u8", "u16", "u32", "u64", "bool", "f4", "f6",
    "f8", "c64", "c128", "string", "sequence", "optional", "map",
)  # fmt: skip
_RANGES = {"i8 i16 i32 i64": "i8-64", "u8 u16 u32 u64": "u8-64"}
_COMPILED = frozenset(("f16", "bf16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool"))


@dataclass(frozen=True)
class Operator:
    """One operator with the way of each of its versions, ascending."""

    domain: str
    name: str
    ways: tuple[tuple[int, Way], ...]
    meaning: str
    types: str = ""

    @property
    def versions(self) -> str:
        """The versions of each way, newest first: ``native 13, 7; reference 1``."""
        groups: dict[Way, list[str]] = {}
        for version, way in reversed(self.ways):
            groups.setdefault(way, []).append(str(version))
        return "; ".join(f"{way.value} {', '.join(numbers)}" for way, numbers in groups.items())


def operators(others: Iterable = ()) -> Iterator[Operator]:
    """Every operator that the installed onnx knows, by domain and name, with those that only the registry has.

    Args:
        others: schemas of operators that onnx does not know, which say what types they take.
    """
    from onnx import defs

    schemas: dict[tuple[str, str], list] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.deprecated:
            schemas.setdefault((schema.domain, schema.name), []).append(schema)
    kept = {(schema.domain, schema.name): schema for schema in others}
    own = {(row.domain, row.name) for row in registry.rows()}
    for domain, name in sorted(own | set(schemas)):
        known = sorted(schemas.get((domain, name), []), key=lambda s: s.since_version)
        versions = [(s.since_version, _way(s)) for s in known]
        if not known:
            versions = [(row.since, _row_way(row)) for row in registry.rows() if (row.domain, row.name) == (domain, name)]
        newest = registry.find(domain, name, versions[-1][0])
        described = known[-1] if known else kept.get((domain, name))
        types = _types(described, versions[-1][1]) if described is not None else ""
        yield Operator(domain, name, tuple(versions), _meaning(newest) if newest is not None else "", types)


def _types(schema, way: Way) -> str:
    """The types of a schema's inputs in short."""
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    given = [text for one in schema.inputs for text in allowed.get(one.type_str, [one.type_str])]
    names = sorted({_short(text) for text in given}, key=_ORDER.index)
    rest = [name for name in names if way in (Way.NATIVE, Way.BODY) and name not in _COMPILED]
    own = _ranges([name for name in names if name not in rest])
    return f"{own} ({_ranges(rest)})".strip() if rest else own


def _short(text: str) -> str:
    """``f32`` for ``tensor(float)``."""
    kind, _, element = text.rstrip(")").partition("(")
    if kind != "tensor":
        return {"seq": "sequence"}.get(kind, kind)
    if element.startswith(("float8", "float6", "float4")):
        return f"f{element[5]}"
    return _SHORT.get(element) or element.replace("uint", "u").replace("int", "i")


def _ranges(names: Sequence[str]) -> str:
    text = " ".join(names)
    for listed, short in _RANGES.items():
        text = text.replace(listed, short)
    return text


def _way(schema) -> Way:
    row = registry.find(schema.domain, schema.name, schema.since_version)
    if row is not None:
        return _row_way(row)
    if (schema.domain, schema.name) == ("", "Constant"):
        return Way.IMPORT
    bodies = [*schema.function_opset_versions, *schema.context_dependent_function_opset_versions]
    if any(version <= schema.since_version for version in bodies):
        return Way.BODY
    return Way.HOST if _has_reference(schema.domain, schema.name, schema.since_version) else Way.NONE


def _row_way(row: registry.Row) -> Way:
    return Way.PYTHON if row.host or row.takes is registry.Takes.VALUES else Way.NATIVE


def _meaning(row: registry.Row) -> str:
    """The row's expression, or the first line that its lowering says of itself."""
    return f"`{row.text}`" if row.text else (row.lower.__doc__ or "").partition("\n")[0]


def _has_reference(domain: str, name: str, version: int) -> bool:
    from onnx import defs, helper
    from onnx.reference import ReferenceEvaluator

    schema = defs.get_schema(name, max_inclusive_version=version, domain=domain)
    inputs = [f"x{i}" for i in range(schema.min_input)]
    node = helper.make_node(name, inputs, ["y"] * bool(schema.max_output), domain=domain)
    graph = helper.make_graph([node], "one", [helper.make_tensor_value_info(x, 1, None) for x in inputs], [])
    try:
        ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, version)]))
    except NotImplementedError:
        return False
    except Exception:  # an implementation that misses an attribute is one
        return True
    return True
