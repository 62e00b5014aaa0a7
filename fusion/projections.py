"""Projections of one value, as those to queries, keys and values, become one product with all of their weights.

One product reads the value once, has columns for all threads, and is one launch instead of three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..ops.pages import give_back, lasting
from ..ops.weights import Weight
from .graph import Graph, Node, uses
from .weights import derived


def merge_projections(graph: Graph) -> Graph:
    """x W1 + b1, x W2, ...  ->  x [W1 W2 ...] + [b1 0 ...], split.

    1. W are matrices of constants, b vectors of constants; each is read by its projection only.
    2. Projections are followed by a Reshape, which parts them into heads: other operators would be computed with the product,
       while its results are in registers. They may be multiplied by a number before, as queries are whose matrix `fold_scales` has
       left alone: `products.hoist_scales` multiplies scores by it.
    3. Left alone: what a run may override.
    """
    found = _Projections(graph)
    groups = [group for group in found.groups() if len(group) > 1]
    if not groups:
        return graph
    heads = {id(group[0].product): group for group in groups}
    gone = {id(node) for group in groups for one in group for node in one.nodes}
    nodes, constants = [], dict(graph.constants)
    for node in graph.nodes:
        if id(node) in heads:
            nodes += _merged(heads[id(node)], constants)
        elif id(node) not in gone:
            nodes.append(node)
    return graph.copy(nodes=nodes, constants=constants)


@dataclass(frozen=True)
class _Projection:
    """A product and, if there are such, the addition of a vector and the multiplication by a number after it."""

    product: Node
    weight: np.ndarray | Weight
    added: Node | None = None
    bias: np.ndarray | None = None
    scaled: Node | None = None

    @property
    def nodes(self) -> list[Node]:
        return [node for node in (self.product, self.added, self.scaled) if node is not None]

    @property
    def output(self) -> str:
        return self.nodes[-1].outputs[0]


class _Projections:
    """Finds the projections of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.counts = graph, uses(graph)
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def groups(self) -> list[list[_Projection]]:
        """Those of the same value and type together."""
        groups: dict[tuple[str, np.dtype], list[_Projection]] = {}
        for node in self.graph.nodes:
            found = self._projection(node)
            if found is not None:
                groups.setdefault((node.inputs[0], found.weight.dtype), []).append(found)
        return list(groups.values())

    def _projection(self, node: Node) -> _Projection | None:
        if node.op != "MatMul" or node.domain or node.inputs[0] in self.graph.constants:
            return None
        weight = self._constant(node.inputs[1], 2)
        if weight is None or weight.dtype not in (np.float32, np.float64) or 0 in weight.shape:
            return None
        found = self._scaled(self._biased(node, weight) or _Projection(node, weight))
        readers = self.readers.get(found.output, ())
        ops = {reader.domain or reader.op for reader in readers}
        parted = "Reshape" in ops and ops <= {"Reshape", "Shape"}
        return found if parted and self.counts[found.output] == len(readers) else None

    def _biased(self, product: Node, weight: np.ndarray | Weight) -> _Projection | None:
        (output,) = product.outputs
        reader = self._only_reader(output, "Add")
        if reader is None:
            return None
        bias = self._constant(next(name for name in reader.inputs if name != output), 1)
        if bias is None or bias.shape != weight.shape[1:] or bias.dtype != weight.dtype:
            return None
        return _Projection(product, weight, reader, np.asarray(bias))

    def _scaled(self, found: _Projection) -> _Projection:
        reader = self._only_reader(found.output, "Mul", "Div")
        if reader is None:
            return found
        at = reader.inputs.index(found.output)
        name = reader.inputs[1 - at]
        number = self.graph.constants.get(name) if name not in self.graph.overridable else None
        fits = number is not None and number.size == 1 and number.ndim < 2 and number.dtype == found.weight.dtype
        return replace(found, scaled=reader) if fits and (at == 0 or reader.op == "Mul") else found

    def _only_reader(self, output: str, *ops: str) -> Node | None:
        readers = self.readers.get(output, [])
        reader = readers[0] if len(readers) == 1 and self.counts[output] == 1 else None
        return reader if reader is not None and reader.op in ops and not reader.domain and not reader.attributes else None

    def _constant(self, name: str, rank: int) -> np.ndarray | Weight | None:
        """A constant that a single node reads."""
        value = self.graph.constants.get(name) if name not in self.graph.overridable and self.counts[name] == 1 else None
        return value if value is not None and value.ndim == rank else None


def _merged(group: Sequence[_Projection], constants: dict[str, np.ndarray | Weight]) -> list[Node]:
    """The nodes in place of a group; their constants are added to the graph's."""
    x, names = group[0].product.inputs[0], [one.output for one in group]
    stem, columns = names[0], [one.weight.shape[1] for one in group]
    label = "+".join(one.product.name for one in group)
    weights = [one.weight for one in group]
    shape, dtype = (weights[0].shape[0], sum(columns)), weights[0].dtype
    constants[f"{stem}/weights"] = derived(partial(_joined, weights, shape, dtype), dtype, shape, weights)
    constants[f"{stem}/columns"] = np.array(columns, np.int64)
    nodes = [Node("MatMul", [x, f"{stem}/weights"], [f"{stem}/all"], {}, label)]
    if any(one.bias is not None for one in group):
        vectors = [np.zeros(n, dtype) if one.bias is None else one.bias for one, n in zip(group, columns)]
        constants[f"{stem}/biases"] = np.concatenate(vectors)
        nodes.append(Node("Add", [f"{stem}/all", f"{stem}/biases"], [f"{stem}/biased"], {}, f"{label}/bias"))
    parts = [name if one.scaled is None else f"{name}/unscaled" for one, name in zip(group, names)]
    nodes.append(Node("Split", [nodes[-1].outputs[0], f"{stem}/columns"], parts, {"axis": -1}, f"{label}/split", version=13))
    for one, part in zip(group, parts):
        if one.scaled is not None:
            unscaled = (one.added or one.product).outputs[0]
            nodes.append(replace(one.scaled, inputs=[part if name == unscaled else name for name in one.scaled.inputs]))
    return nodes


def _joined(weights: Sequence[np.ndarray | Weight], shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """One matrix of all their columns."""
    made = lasting(shape[0] * shape[1] * dtype.itemsize).view(dtype).reshape(shape)
    first = 0
    for weight in weights:
        read = weight.source() if isinstance(weight, Weight) else weight
        made[:, first : first + read.shape[1]] = read
        give_back(read)
        first += read.shape[1]
    return made
