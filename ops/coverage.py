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
    Way.PYTHON: "texts, maps, sequences, control flow: Python moves values between compiled parts, bodies have plans of their own",
    Way.BODY: "no row of its own: the definition that ONNX publishes is inlined, and compiled as far as its operators are",
    Way.HOST: "a step of the plan calls the implementation in `onnx.reference` on numpy arrays",
    Way.NONE: "neither a row, nor a body, nor an implementation in `onnx.reference`",
}
_HEAD = """# Operators

Made by `make docs` from the registry and the schemas of onnx {version}; do not edit.

{count} operators in {versions} versions. A version is the first opset that it holds in; a node means the newest
version that its model's opset reaches.

{summary}
"""


@dataclass(frozen=True)
class Operator:
    """One operator with the way of each of its versions, ascending."""

    domain: str
    name: str
    ways: tuple[tuple[int, Way], ...]
    meaning: str

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
        yield Operator(domain, name, tuple(versions), _meaning(newest) if newest is not None else "")


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
    return Way.PYTHON if row.takes is registry.Takes.VALUES else Way.NATIVE


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
        rows = [(one.name, one.versions, _escaped(one.meaning)) for one in every if one.domain == domain]
        parts.append(f"## {domain or 'ai.onnx'}\n\n{_table(('operator', 'versions', 'meaning'), rows)}\n")
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if not text.startswith("`") else text.replace("|", "\\|")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
