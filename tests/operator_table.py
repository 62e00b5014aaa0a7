"""Every operator with how it is run, on which kernels, and what tests it, as a page: `docs/operators.md`, made by `make docs`.

Ways come from the registry, types from the schemas of onnx and onnxruntime, kernels from
traces: what the lowering makes of onnx's backend tests and of cases drawn from the schemas. Nothing is compiled or run.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as native
from backend import cases as backend
from contrib_nodes import f32, node_model
from ml_models import of_map
from schemas import catalogue

from jitrt.fusion.graph import Graph
from jitrt.fusion.group import Call, Loop, Unit, group
from jitrt.fusion.importer import load
from jitrt.fusion.simplify import simplify
from jitrt.fusion.trace import Specialise, trace
from jitrt.ops.coverage import Operator, Way, operators
from jitrt.ops.primitives import Host
from jitrt.ops.registry import MICROSOFT

Key = tuple[str, str]
FLOAT, STRING = onnx.TensorProto.FLOAT, onnx.TensorProto.STRING
CASES = 8  # backend tests of an operator, and cases drawn of its newest version, that are traced
FILES = 4  # of tests that a row names
PYTHON = "Python: "
_MEANING = {
    Way.NATIVE: "compiled; dtypes or attributes that the lowering declines go the way of *reference*",
    Way.IMPORT: "gone before anything runs: the value is a constant of the graph",
    Way.PYTHON: "texts, maps, sequences, control flow: Python moves or computes values, bodies have plans of their own",
    Way.BODY: "no row of its own: the definition that ONNX publishes is inlined, and compiled as far as its operators are",
    Way.HOST: "a step of the plan calls the implementation in `onnx.reference` on numpy arrays",
    Way.NONE: "neither a row, nor a body, nor an implementation in `onnx.reference`",
}
_HEAD = """# Operators

Made by `make docs` from the registry, the schemas and tests of onnx {onnx} and the schemas of onnxruntime {onnxruntime}; do not
edit.

{count} operators in {versions} versions. A version is the first opset that it holds in; a node means the newest
version that its model's opset reaches. Types are those of the newest version's inputs (`f32` is float32, `i8-64` are
the integers int8 to int64, `f8` float8 of any kind, `c64` complex64); in parentheses those that Python moves or
computes where kernels handle the others.

{summary}

*Runs on* are the units that nodes come to when they are traced alone, in any of the cases that test them: `loop` and `reduction`
are generated loops (in a model they are one with their neighbours), `join` copies side by side, `view` is index arithmetic that
nothing runs for; other names are kernels of `ops/kernels/`. What Python does is said with its reason.

*Tested by*: `backend` is the number of onnx's own tests whose models have the operator (`pytest tests/test_backend.py -k
gather_nd`); `drawn` are cases drawn from the schema over versions, types, attributes and shapes, compared with onnxruntime
(`python -m tests.schemas GatherND`); the rest are files of `tests/` that write the operator's name.
"""


# -- what nodes come to
def units(model: onnx.ModelProto | bytes, feeds: Mapping[str, object]) -> Iterator[str]:
    """The names of what a model runs on for these inputs."""
    graph = load(model).graph
    read: frozenset[str] = frozenset()
    while True:
        try:
            traced = trace(graph, feeds, graph.outputs, read, _no_runner).trace
            break
        except Specialise as need:
            read |= {*need.readers}
    made = [_name(unit) for unit in group(simplify(traced))]
    yield from made or ["view" if any(p for p in traced.primitives) else "constant"]


def _no_runner(body: Graph) -> object:
    return None


def _name(unit: Unit) -> str:
    if isinstance(unit, Loop):
        return "reduction" if unit.axes else "loop"
    if isinstance(unit, Call):
        return unit.kernel.name
    return f"{PYTHON}{unit.primitive.reason}" if isinstance(unit.primitive, Host) else "join"


def _drawn() -> Iterator[catalogue.Case]:
    newest = {(s.domain, s.op): s for s in catalogue.signatures()}
    for signature in newest.values():
        yield from filter(None, (catalogue.draw_case(signature, number) for number in range(CASES)))


def others() -> Iterator[tuple[onnx.ModelProto, dict[str, object]]]:
    """Nodes that neither onnx's tests nor the draws have."""
    images, channels, row = f32(2, 6, 5, 4), f32(4), f32(2, 3, 8)
    groups = {"groups": 2, "activation": 1, "channels_last": 1}
    octets, one, zero = np.arange(12, dtype=np.uint8).reshape(3, 4), np.float32(0.1), np.uint8(7)
    gates, steps, zeros = octets.reshape(1, 3, 4), np.full((1,), 0.1, np.float32), np.zeros(1, np.uint8)
    lstm = [f32(2, 1, 3), gates, gates[:, :1], *[None] * 5, steps, zeros, steps, zeros]
    blocks, first = np.array([[0, 1]], np.int32), np.array([[0]], np.int32)
    sparse = [row[:1], row[:1], row[:1], *[f32(1, 1, 16, 8)] * 2, blocks, first, np.full(1, 3, np.int32), np.full(1, 3, np.int32)]
    for domain, name, inputs, attributes in (
        ("", "Multinomial", [f32(2, 3)], {}), ("", "RandomNormal", [], {"shape": [3]}), ("", "RandomNormalLike", [row], {}),
        ("", "RandomUniform", [], {"shape": [3]}), ("", "RandomUniformLike", [row], {}), ("", "SequenceEmpty", [], {}),
        ("", "Optional", [row], {}), (MICROSOFT, "BiasAdd", [row, f32(8), row], {}),
        (MICROSOFT, "BiasSplitGelu", [row, f32(8)], {}),
        (MICROSOFT, "FusedMatMulActivation", [f32(3, 4), f32(4, 5)], {"activation": "Relu"}),
        (MICROSOFT, "GroupNorm", [images, channels, channels], groups),
        (MICROSOFT, "SkipGroupNorm", [images, channels, channels, images], groups),
        (MICROSOFT, "NhwcConv", [images, f32(3, 4, 3, 3)], {}), (MICROSOFT, "NhwcFusedConv", [images, f32(3, 4, 3, 3)], {}),
        (MICROSOFT, "QLinearReduceMean", [octets, one, zero, one, zero], {"axes": [1], "keepdims": 1}),
        (MICROSOFT, "DynamicQuantizeLSTM", lstm, {"hidden_size": 1}),
        (MICROSOFT, "SparseAttention", sparse, {"num_heads": 1, "kv_num_heads": 1, "sparse_block_size": 16}),
    ):  # fmt: skip
        arrays = [None if x is None else np.asarray(x) for x in inputs]
        model = node_model(name, arrays, [np.float32], domain=domain, onnx_opset=21, attributes=attributes)
        yield model, {f"x{i}": x for i, x in enumerate(arrays) if x is not None}
    for name, attributes in (("CastMap", {}), ("DictVectorizer", {"string_vocabulary": ["a"]})):
        yield of_map(name, STRING, FLOAT, FLOAT, **attributes), {"x0": {"a": 1.0}}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


class Evidence:
    """What the tests say of operators: the units of their nodes, and how many backend tests have them."""

    def __init__(self) -> None:
        self.units: defaultdict[Key, Counter[str]] = defaultdict(Counter)
        self.backend: Counter[Key] = Counter()
        self.traced: Counter[Key] = Counter()
        self.drawn = {(s.domain, s.op) for s in catalogue.signatures()}
        for case in backend.cases():
            self._count(case)
        for drawn in _drawn():
            feeds = {f"x{i}": x for i, x in enumerate(drawn.inputs) if x is not None and i not in drawn.constant}
            with suppress(ValueError):  # onnx's helper refuses it
                self._see((drawn.domain, drawn.op), drawn.model(), feeds)
        for model, given in others():
            self._see(_key(model.graph.node[0]), model, given)

    def _count(self, case: backend.Case) -> None:
        model = onnx.ModelProto.FromString(case.model)
        nodes = [*_nodes(model.graph), *(node for f in model.functions for node in f.node)]
        self.backend.update({_key(node) for node in nodes})
        if len(model.graph.node) == 1 and self.traced[_key(nodes[0])] < CASES:
            names = [x.name for x in model.graph.input]
            self._see(_key(model.graph.node[0]), model, dict(zip(names, next(case.data())[0])))

    def _see(self, key: Key, model: onnx.ModelProto, feeds: Mapping[str, object]) -> None:
        self.traced[key] += 1
        with suppress(Exception), np.errstate(all="ignore"):  # a case that is wrong on purpose
            self.units[key].update(set(units(model, feeds)))

    def runs_on(self, key: Key) -> str:
        """Kernels, the most frequent first, then what Python does."""
        found = [name for name, _ in sorted(self.units[key].items(), key=lambda one: (-one[1], one[0]))]
        found = [name for name in found if name not in ("view", "constant")] or found
        kernels = [name for name in found if not name.startswith(PYTHON)]
        reasons = [name.removeprefix(PYTHON) for name in found if name.startswith(PYTHON)]
        return "; ".join(filter(None, (", ".join(kernels), PYTHON + ", ".join(reasons) if reasons else "")))


def _key(node: onnx.NodeProto) -> Key:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


# -- what tests write
def _written() -> dict[str, set[str]]:
    """Name of an operator -> files of tests that write it, as a string or in ONNX's text form."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for quoted, called in re.findall(r'"([A-Z]\w+)"|= (?:[\w.]+\.)?([A-Z]\w+) [(<]', path.read_text()):
            found[quoted or called].add(path.stem.removeprefix("test_"))
    return found


def _tested(key: Key, evidence: Evidence, written: Mapping[str, set[str]]) -> str:
    files = sorted(written.get(key[1], ()))
    if len(files) > FILES:
        files = ["many files"]
    counted = f"backend {evidence.backend[key]}" if evidence.backend[key] else ""
    return "; ".join(filter(None, (counted, "drawn" if key in evidence.drawn else "", ", ".join(files))))


# -- the page
def page() -> str:
    """The page as Markdown."""
    every, evidence, written = list(operators(_schemas_of_onnxruntime())), Evidence(), _written()
    ways = Counter(way for one in every for _, way in one.ways)
    parts = [_HEAD.format(onnx=onnx.__version__, onnxruntime=onnxruntime.__version__, count=len(every), versions=ways.total(),
                          summary=_summary(every, ways))]  # fmt: skip
    for domain in dict.fromkeys(one.domain for one in every):
        rows = []
        for one in every:
            key = one.domain, one.name
            if one.domain == domain:
                cells = (one.name, one.versions, one.types, evidence.runs_on(key), _tested(key, evidence, written), one.meaning)
                rows.append([_escaped(cell) for cell in cells])
        table = _table(("operator", "versions", "types", "runs on", "tested by", "meaning"), rows)
        parts.append(f"## {domain or 'ai.onnx'}\n\n{table}\n")
    return "\n".join(parts)


def _schemas_of_onnxruntime() -> Iterator[SimpleNamespace]:
    """Of com.microsoft, in the words of onnx's schemas."""
    for schema in native.get_all_operator_schema():
        if schema.domain == MICROSOFT:
            inputs = [SimpleNamespace(type_str=x.typeStr) for x in schema.inputs]
            yield SimpleNamespace(
                domain=schema.domain, name=schema.name, inputs=inputs, type_constraints=schema.type_constraints
            )  # fmt: skip


def _summary(every: Sequence[Operator], ways: Counter[Way]) -> str:
    newest = Counter(one.ways[-1][1] for one in every)
    used = [(way.value, str(newest[way]), str(ways[way]), _MEANING[way]) for way in Way if ways[way]]
    return _table(("way", "newest versions", "all versions", "meaning"), used)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if not text.startswith("`") else text.replace("|", "\\|")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
