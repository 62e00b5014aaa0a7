"""The graph of a model: nodes in topological order over named values. Plain data; every pass is Graph -> Graph.

`print(graph)` gives one line a node. Values are names; their types are in `Graph.types` where they are known, their
contents in `Graph.constants` where they are constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..ops.weights import Weight

Dim = int | str | None  # a size, a named size, or unknown


@dataclass(frozen=True)
class TensorType:
    """Element type (a numpy dtype; strings are `object`) and shape (None: unknown rank)."""

    dtype: np.dtype
    shape: tuple[Dim, ...] | None

    def __str__(self) -> str:
        dims = "..." if self.shape is None else ",".join("?" if d is None else str(d) for d in self.shape)
        return f"{'string' if self.dtype == object else self.dtype}[{dims}]"


@dataclass(frozen=True)
class SequenceType:
    """A list of values of one type."""

    element: Type | None

    def __str__(self) -> str:
        return f"seq({self.element})"


@dataclass(frozen=True)
class OptionalType:
    """A value of a type, or none."""

    element: Type | None

    def __str__(self) -> str:
        return f"optional({self.element})"


@dataclass(frozen=True)
class MapType:
    """A dictionary from scalars to values of one type."""

    key: np.dtype
    value: Type | None

    def __str__(self) -> str:
        return f"map({self.key},{self.value})"


Type = TensorType | SequenceType | OptionalType | MapType
# int, float, str, bytes, lists of them, an array, a subgraph, a type
Attribute = object


@dataclass
class Node:
    """One use of an operator. An absent optional input or output is ``""``.

    `version` is the opset version that gives the node its meaning; 0: the graph's.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Attribute] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    version: int = 0

    def __str__(self) -> str:
        shown = [f"{k}={_short(v)}" for k, v in self.attributes.items()]
        op = f"{self.domain}::{self.op}" if self.domain else self.op
        return f"{', '.join(o or '_' for o in self.outputs)} = {op}({', '.join([*(i or '_' for i in self.inputs), *shown])})"

    @property
    def label(self) -> str:
        """How messages name the node: ``Add '/blocks.3/Add'``."""
        return f"{self.op} {self.name or (self.outputs[0] if self.outputs else '')!r}"

    def subgraphs(self) -> Iterator[Graph]:
        """The graphs among the attributes."""
        for value in self.attributes.values():
            if isinstance(value, Graph):
                yield value
            elif isinstance(value, list) and value and isinstance(value[0], Graph):  # a list is of one kind, and may be long
                yield from value

    def reads(self) -> list[str]:
        """The values that the node reads: its inputs, what its bodies use from outside, and what a Gradient names as its y."""
        named = [str(self.attributes["y"])] if self.op == "Gradient" and "y" in self.attributes else []
        return [*(i for i in self.inputs if i), *(name for body in self.subgraphs() for name in body.captured()), *named]


@dataclass
class Graph:
    """Inputs, outputs, nodes in topological order, constants.

    Attributes:
        inputs: names that a run must give, in order. `overridable`: names that it may give (initializers that are
            inputs too; their defaults are in `constants`).
        types: what is declared or known of a value.
        opsets: domain -> version that the nodes mean (``""`` is ai.onnx).
        memo: what lowerings keep from trace to trace (`Builder.once`); copies share it.
    """

    inputs: list[str]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, np.ndarray | Weight] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)
    overridable: list[str] = field(default_factory=list)
    name: str = ""
    memo: dict[object, tuple[object, object]] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        lines = [f"graph {self.name}({', '.join(self._typed(i) for i in self.inputs)})"]
        lines += [f"  {node}" for node in self.nodes]
        return "\n".join([*lines, f"  return {', '.join(self._typed(o) for o in self.outputs)}"])

    def _typed(self, name: str) -> str:
        return f"{name}: {self.types[name]}" if name in self.types else name

    def copy(self, **changes: object) -> Graph:
        """A graph with its own lists, and some fields replaced."""
        fresh = {
            "inputs": list(self.inputs), "outputs": list(self.outputs), "nodes": list(self.nodes),
            "constants": dict(self.constants), "types": dict(self.types), "overridable": list(self.overridable),
        }  # fmt: skip
        return replace(self, **{**fresh, **changes})

    def captured(self) -> list[str]:
        """Names that the graph (a body) uses from outside it, in order of first use."""
        known = {*self.inputs, *self.constants, *(out for node in self.nodes for out in node.outputs)}
        used: list[str] = []
        for node in self.nodes:
            used += node.inputs
            used += [name for body in node.subgraphs() for name in body.captured()]
        found = dict.fromkeys(name for name in [*used, *self.outputs] if name and name not in known)
        return list(found)


def uses(graph: Graph) -> dict[str, int]:
    """How often each value is read: by nodes, bodies and the graph's outputs."""
    counts: dict[str, int] = {}
    for node in graph.nodes:
        for name in node.reads():
            counts[name] = counts.get(name, 0) + 1
    for name in graph.outputs:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _short(value: Attribute) -> str:
    if isinstance(value, Graph):
        return f"graph<{len(value.nodes)} nodes>"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]" if value.size > 8 else re.sub(r"\s+", " ", repr(value.tolist()))
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
