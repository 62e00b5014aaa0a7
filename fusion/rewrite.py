"""Rewrites of the imported graph, made once per session without shapes; applied in the order of `PASSES`.

1. `fold_scales`: numbers that a contraction's result is multiplied by, or that are added to it, go into its constant
   weights and bias; batch normalisation is such a pair of numbers a channel.
2. `merge_projections`: products of one value, as those for attention, become one product.
3. `prune`: nodes that no output needs go.

A name that is left in a graph stands for the value that it stood for before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..ops.pages import give_back, lasting
from ..ops.weights import Weight, content, fitting
from .graph import Graph, Node, TensorType, uses
from .projections import merge_projections
from .tensors import LARGE
from .weights import derived

Pass = Callable[[Graph], Graph]


def rewrite(graph: Graph) -> Graph:
    """All passes in order."""
    for each in PASSES:
        graph = each(graph)
    return graph


def prune(graph: Graph) -> Graph:
    """Only what the outputs need, and constants that a run may override."""
    needed = {*graph.outputs, *graph.overridable}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.reads())
    return graph.copy(nodes=kept[::-1], constants={name: x for name, x in graph.constants.items() if name in needed})


# -- scales and shifts into weights
def fold_scales(graph: Graph) -> Graph:
    """f (W x + b) + t  ->  (f W) x + (f b + t).

    1. f and t are constants: of Mul, Div, Add, Sub, or of BatchNormalization at inference; one number, or one a channel.
    2. W is a constant of Conv, ConvTranspose (one group), Gemm or MatMul, b of Conv, ConvTranspose or Gemm, or of an
       Add after a MatMul. A MatMul gets an Add after it where t is not zero.
    3. A Transpose may stand between.
    4. Left alone: values that others read or that are outputs, weights that others read or a run may override,
       half-precision weights, factors that make weights infinite, and additions after a MatMul, which its kernel does; factors
       of matrices that a 16-bit type has all values of (`Weight.fitting`): it may not have those of the product.
    """
    return _Folding(graph).run()


@dataclass(frozen=True)
class _Affine:
    """y = x * factor + shift, each one number or one a channel (float64)."""

    factor: np.ndarray
    shift: np.ndarray


@dataclass
class _Contraction:
    """A contraction with constant weights and the addition after it, if there is one (only a MatMul needs it).

    `factor` (float64, one number or one a channel) is what the weights are multiplied by already.
    """

    node: Node
    weight: np.ndarray | Weight
    factor: np.ndarray
    bias: np.ndarray | None
    added: Node | None = None

    @property
    def channel_axis(self) -> int:
        """The output channels' dimension in the weights."""
        if self.node.op == "Gemm":
            return 0 if self.node.attributes.get("transB", 0) else 1
        return 0 if self.node.op == "Conv" else 1

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.weight.shape[self.channel_axis]

    def scaled(self, by: _Affine) -> tuple[np.ndarray, np.ndarray]:
        """The weights' factor and the bias of the contraction whose result is scaled and shifted."""
        alpha, beta = (self.node.attributes.get(k, 1.0) if self.node.op == "Gemm" else 1.0 for k in ("alpha", "beta"))
        with np.errstate(all="ignore"):
            bias = (0.0 if self.bias is None else self.bias.astype(np.float64)) * beta * by.factor + by.shift
            return self.factor * alpha * by.factor, bias.astype(self.weight.dtype)

    def loses(self, factor: np.ndarray) -> bool:
        """Whether a matrix that is held in 16 bits might have to be held in 32 if it were multiplied."""
        if self.node.op not in ("MatMul", "Gemm") or self.weight.nbytes < LARGE or (factor == 1).all():
            return False
        return bool(fitting(self.weight))

    def is_finite(self, factor: np.ndarray) -> bool:
        """Whether the weights times a factor surely stay in the range of their type."""
        weight = content(self.weight)
        largest = max(-float(weight.min(initial=0)), float(weight.max(initial=0)))
        give_back(weight)
        return bool(largest * np.abs(factor).max(initial=0) < np.finfo(self.weight.dtype).max)

    def multiplied(self, factor: np.ndarray) -> np.ndarray | Weight:
        """The weights times a factor; large ones are computed when they are asked for."""
        if (factor == 1).all():
            return self.weight
        along = [-1 if d == self.channel_axis else 1 for d in range(self.weight.ndim)]
        make = partial(_product, self.weight, factor.reshape(along if factor.size > 1 else ()))
        return derived(make, self.weight.dtype, self.weight.shape)


def _product(of: np.ndarray | Weight, factor: np.ndarray) -> np.ndarray:
    """In float64, rounded once."""
    weight = content(of)
    made = lasting(weight.nbytes).view(weight.dtype).reshape(weight.shape)
    with np.errstate(all="ignore"):
        np.multiply(weight, factor, out=made, dtype=np.float64, casting="same_kind")
    give_back(weight)
    return made


class _Folding:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.counts = graph, uses(graph)
        self.constants = dict(graph.constants)
        self.fixed = {name for name in graph.constants if name not in graph.overridable}
        self.slots: list[list[Node]] = []  # each holds what stands in place of one node: a MatMul has its Add with it
        # new weight -> what it is the product of
        self.factors: dict[str, tuple[np.ndarray | Weight, np.ndarray]] = {}
        self.makers: dict[str, int] = {}  # value -> its slot

    def run(self) -> Graph:
        for node in self.graph.nodes:
            if not self._fold(node):
                self.makers.update((out, len(self.slots)) for out in node.outputs if out)
                self.slots.append([node])
        return self.graph.copy(nodes=[node for slot in self.slots for node in slot], constants=self.constants)

    def _fold(self, node: Node) -> bool:
        """Fold a node into the contraction before it, if it is a scale or shift of one."""
        if node.domain or node.op not in ("Mul", "Div", "Add", "Sub", "BatchNormalization"):
            return False
        if node.op != "BatchNormalization" and node.attributes:
            return False  # the broadcasting of opsets below 7
        swaps = node.op in ("Mul", "Add") and len(node.inputs) == 2
        return any(self._fold_operand(node, i) for i in ((0, 1) if swaps else (0,)))

    def _fold_operand(self, node: Node, operand: int) -> bool:
        views: list[int] = []
        x = node.inputs[operand]
        while x in self.makers and self.counts.get(x) == 1 and self.slots[self.makers[x]][-1].op == "Transpose":
            views.append(self.makers[x])
            x = self.slots[views[-1]][-1].inputs[0]
        at = self.makers.get(x)
        found = self._contraction(self.slots[at]) if at is not None and self.counts.get(x) == 1 else None
        by = self._affine(node, operand, found, [self.slots[v][-1] for v in views]) if found else None
        if by is None:
            return False
        if found.node.op == "MatMul" and found.bias is None and np.all(by.factor == 1):
            return node.op == "Add" and not views and self._attach(node, at)
        factor, bias = found.scaled(by)
        if found.loses(factor) or not (np.isfinite(bias).all() and found.is_finite(factor)):
            return False
        self._replace(found, factor, bias, at, views, node.outputs[0])
        return True

    def _attach(self, node: Node, at: int) -> bool:
        """Keep the addition in its MatMul's slot, where a later scale finds both."""
        self.slots[at].append(node)
        self.makers[node.outputs[0]] = at
        return True

    def _contraction(self, slot: list[Node]) -> _Contraction | None:
        node, added = slot[0], slot[1] if len(slot) > 1 else None
        if node.domain or node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return None
        weight, factor = self.factors.get(node.inputs[1]) or (self._weight(node.inputs[1]), np.ones(1))
        if weight is None or weight.dtype not in (np.float32, np.float64) or self.counts.get(node.inputs[1], 1) != 1:
            return None
        if (node.op == "MatMul" and weight.ndim != 2) or (node.op == "ConvTranspose" and node.attributes.get("group", 1) != 1):
            return None
        name = node.inputs[2] if len(node.inputs) > 2 else ""
        if added is not None:
            name = next(n for n in added.inputs if n != node.outputs[0])
        bias = self._constant(name) if name else None
        return None if name and bias is None else _Contraction(node, weight, factor, bias, added)

    def _weight(self, name: str) -> np.ndarray | Weight | None:
        return self.constants[name] if name in self.fixed else None

    def _constant(self, name: str) -> np.ndarray | None:
        return content(self.constants[name]) if name in self.fixed else None

    def _affine(self, node: Node, operand: int, found: _Contraction, views: list[Node]) -> _Affine | None:
        """What the node does to each channel of the contraction, if that is all that it does."""
        rank = {"Gemm": 2, "MatMul": self._rank(found.node)}.get(found.node.op, found.weight.ndim)
        axis = None if rank is None else 1 if found.node.op in ("Conv", "ConvTranspose") else rank - 1
        for view in reversed(views):
            perm = view.attributes.get("perm")
            if perm is None or (rank is not None and len(perm) != rank):
                return None
            rank, axis = len(perm), perm.index(len(perm) - 1 if axis is None else axis)
        if node.op == "BatchNormalization":
            return self._statistics(node, found.channels) if axis == 1 else None
        value = self._constant(node.inputs[1 - operand])
        if value is None or value.dtype != found.weight.dtype:
            return None
        if value.size > 1:
            at = 0 if axis is None and value.ndim == 1 else None if axis is None else axis - (rank - value.ndim)
            if at is None or not 0 <= at < value.ndim or value.size != value.shape[at] or value.size != found.channels:
                return None
        elif value.size != 1 or value.ndim > (1 if rank is None else rank):
            return None
        one, number = np.ones(1), value.reshape(-1).astype(np.float64)
        with np.errstate(all="ignore"):
            forms = {"Mul": (number, 0 * one), "Div": (1 / number, 0 * one), "Add": (one, number), "Sub": (one, -number)}
            return _Affine(*forms[node.op])

    def _rank(self, node: Node) -> int | None:
        known = self.graph.types.get(node.outputs[0])
        return len(known.shape) if isinstance(known, TensorType) and known.shape is not None else None

    def _statistics(self, norm: Node, channels: int) -> _Affine | None:
        parts = [self._constant(name) for name in norm.inputs[1:5]]
        trains = norm.attributes.get("training_mode", 0) or norm.attributes.get("spatial", 1) != 1 or any(norm.outputs[1:])
        if trains or any(part is None or part.shape != (channels,) for part in parts):
            return None
        scale, shift, mean, variance = (part.astype(np.float64) for part in parts)
        factor = scale / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5))
        return _Affine(factor, shift - mean * factor)

    def _replace(
        self, found: _Contraction, factor: np.ndarray, bias: np.ndarray, at: int, views: list[int], output: str
    ) -> None:  # fmt: skip
        """Put the new contraction in the old one's slot, and let the views between lead to `output`."""
        names = [output, *(f"{output}/{i}" for i in range(len(views)))]
        result = names[-1]
        for place, made, source in zip(views, names, names[1:]):
            self.slots[place] = [replace(self.slots[place][-1], inputs=[source], outputs=[made])]
            self.makers[made] = place
        node = found.node
        weights = self._add_constant(f"{output}/weight", found.multiplied(factor))
        self.factors[weights] = found.weight, factor
        attributes = {k: v for k, v in node.attributes.items() if k not in ("alpha", "beta")}
        inputs = [node.inputs[0], weights]
        if node.op == "MatMul" and (found.added is not None or bias.any()):
            product = f"{output}/product"
            added = Node("Add", [product, self._add_constant(f"{output}/bias", bias)], [result], {}, f"{node.name}/bias")
            self.slots[at] = [replace(node, inputs=inputs, outputs=[product]), added]
        else:
            if node.op != "MatMul" and (found.bias is not None or bias.any()):
                if node.op != "Gemm":
                    bias = np.broadcast_to(bias, (found.channels,)).copy()
                inputs.append(self._add_constant(f"{output}/bias", bias))
            self.slots[at] = [replace(node, inputs=inputs, outputs=[result], attributes=attributes)]
        self.makers[result] = at
        self.counts.update((name, 1) for name in names[1:])

    def _add_constant(self, name: str, value: np.ndarray | Weight) -> str:
        self.constants[name] = value
        self.fixed.add(name)
        return name


PASSES: tuple[Pass, ...] = (fold_scales, merge_projections, prune)
