"""How every operator of the installed onnx package is run, as a page: ``python -m jitrt.ops.coverage``.

The page is `docs/operators.md`; it is made from the registry and onnx's schemas alone, so it says what is so.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Sequence
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


_MEANING = {
    Way.NATIVE: "compiled; dtypes or attributes that the lowering declines go the way of *reference*",
    Way.IMPORT: "gone before anything runs: the value is a constant of the graph",
    Way.PYTHON: "texts, maps, sequences, control flow: Python moves or computes values, bodies have plans of their own",
    Way.BODY: "no row of its own: the definition that ONNX publishes is inlined, and compiled as far as its operators are",
    Way.HOST: "a step of the plan calls the implementation in `onnx.reference` on numpy arrays",
    Way.NONE: "neither a row, nor a body, nor an implementation in `onnx.reference`",
}
_HEAD = """# Operators

Made by `make docs` from the registry and the schemas of onnx {version}; do not edit.

{count} operators in {versions} versions. A version is the first opset that it holds in; a node means the newest
version that its model's opset reaches. Types are those of the newest version's inputs (`f32` is float32, `i8-64` are
the integers int8 to int64, `f8` float8 of any kind, `c64` complex64); in parentheses those that Python moves or
computes where kernels handle the others.

{summary}

Every operator of the standard is tested by onnx's backend tests (`pytest tests/test_backend.py -k gather_nd`). Those that
onnxruntime has too are compared with it on cases drawn from the schemas, over versions, types, attributes and shapes
(`python -m tests.schemas GatherND`).
"""
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


def operators() -> Iterator[Operator]:
    """Every operator that the installed onnx knows, by domain and name, with those that only the registry has."""
    from onnx import defs

    schemas: dict[tuple[str, str], list] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.deprecated:
            schemas.setdefault((schema.domain, schema.name), []).append(schema)
    own = {(row.domain, row.name) for row in registry.rows()}
    for domain, name in sorted(own | set(schemas)):
        known = sorted(schemas.get((domain, name), []), key=lambda s: s.since_version)
        versions = [(s.since_version, _way(s)) for s in known]
        if not known:
            versions = [(row.since, _row_way(row)) for row in registry.rows() if (row.domain, row.name) == (domain, name)]
        newest = registry.find(domain, name, versions[-1][0])
        types = _types(known[-1], versions[-1][1]) if known else ""
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


def page() -> str:
    """The page as Markdown."""
    import onnx

    every = list(operators())
    ways = Counter(way for one in every for _, way in one.ways)
    newest = Counter(one.ways[-1][1] for one in every)
    used = [(way.value, str(newest[way]), str(ways[way]), _MEANING[way]) for way in Way if ways[way]]
    summary = _table(("way", "newest versions", "all versions", "meaning"), used)
    parts = [_HEAD.format(version=onnx.__version__, count=len(every), versions=sum(ways.values()), summary=summary)]
    for domain in dict.fromkeys(one.domain for one in every):
        rows = [(one.name, one.versions, one.types, _escaped(one.meaning)) for one in every if one.domain == domain]
        table = _table(*_without_empty(("operator", "versions", "types", "meaning"), rows))
        parts.append(f"## {domain or 'ai.onnx'}\n\n{table}\n")
    return "\n".join(parts)


def _without_empty(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Without columns that say nothing: onnx does not know the types of others' operators."""
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if not text.startswith("`") else text.replace("|", "\\|")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
