"""The tail of a call: how the elementwise work after a contraction is carried out.

1. A vector added to the rows, one residual and one clip are applied in registers, by the kernel itself, in the
   residual's memory if nobody reads that later.
2. What follows is an epilogue: a generated kernel that is called on each finished tile.
3. What neither kernel can write where it belongs is written elsewhere and copied after the call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from math import prod

from ..ops.convchoice import Choose
from ..ops.kernels.sizes import alike
from ..ops.primitives import Expand, Kernel, Layout, Map, Operand, Tensor
from . import loops
from .drafts import Drafts
from .group import Call
from .places import Places, as_operand, dense_in
from .plan import Address, Block
from .storage import At, Place
from .weights import Weights

NUMBER = r"(-?(?:[0-9.]+(?:e[-+]?\d+)?|inf)|\(-?[0-9.e+-]+\))"
_CLIPS = (
    (re.compile(rf"^(?:at_least|maximum)\(a, {NUMBER}\)$"), "low"),
    (re.compile(rf"^(?:at_most|minimum)\(a, {NUMBER}\)$"), "high"),
    (re.compile(rf"^at_most\(at_least\(a, {NUMBER}\), {NUMBER}\)$"), "both"),
)


class Tail:
    """The tail of one call, which is unit `now`, placed and compiled; `escaping`: values of the call that others read."""

    def __init__(self, call: Call, now: int, escaping: Sequence[Tensor], places: Places, nodes: tuple[str, ...]) -> None:
        self.kernel, self.escaping, self.places, self.nodes = call.kernel, escaping, places, nodes
        self.drafts: Drafts = places.drafts
        self.bias: Operand | None = None
        self.residual: Operand | None = None
        self.low, self.high, self.epilogue = -math.inf, math.inf, None
        self.after: list[tuple[Tensor, Place, Place]] = []
        self.raw: Place | None = None  # what the kernel writes for the epilogue
        self.result = call.kernel.outputs[0]
        rest, added = list(call.tail), []
        while rest and self._in_registers(rest[0], rest):
            added += [x for x in rest[0].inputs if x is not self.result] if self.residual and not added else []
            self.result = rest.pop(0).output
        if rest:
            self._epilogue(rest)
        elif added and call.kernel.in_place:
            inputs = [places.view(x) for x in call.kernel.inputs if x is not None]
            places.reuse(self.result, added, [places.view(x) for x in added], now, set(), inputs)

    def outputs(self) -> list[Operand]:
        """The kernel's outputs; the first may be what the tail makes of it."""
        first = as_operand(self.result, self.raw or self._writable(self.result))
        return [first, *(as_operand(x, self.places.place(x)) for x in self.kernel.outputs[1:])]

    def finish(self) -> None:
        """The copies after the call."""
        for w, own, final in self.after:
            self.drafts.copy(w.dtype, own, final, w.shape, self.nodes)

    # -- in registers
    def _in_registers(self, p: Map, rest: list[Map]) -> bool:
        """Take over p if it is a residual addition or a clip of the running result, which nothing else reads."""
        readers = sum(q.inputs.count(self.result) for q in rest)
        if readers != 1 or any(x is self.result for x in self.escaping) or p.output.dtype != self.result.dtype:
            return False
        clipped = (self.low, self.high) != (-math.inf, math.inf)
        others = [x for x in p.inputs if x is not self.result]
        if p.text in ("a + b", "(a + b)") and len(others) == 1 and not clipped:
            return self._add(others[0])
        if p.inputs[0] is not self.result or others or clipped or p.output.dtype.kind != "f":
            return False
        for pattern, kind in _CLIPS:
            if found := pattern.match(p.text):
                numbers = [float(g.strip("()")) for g in found.groups()]
                self.low = numbers[0] if kind in ("low", "both") else -math.inf
                self.high = numbers[-1] if kind in ("high", "both") else math.inf
                return True
        return False

    def _add(self, other: Tensor) -> bool:
        column = self.kernel.matrix[3]
        if other.dtype != self.result.dtype:
            return False
        shape = (1,) * (self.result.rank - other.rank) + other.shape
        is_bias = all(n == 1 or d in column for d, n in enumerate(shape)) and other.size == prod(
            self.result.shape[d] for d in column
        )
        if is_bias and self.kernel.bias and self.bias is None and self.residual is None:
            place = self.places.view(other)
            if dense_in(place.layout, range(other.rank), other.dtype.itemsize):
                self.bias = as_operand(other, place)
                return True
            return False
        if alike(other.shape, self.result.shape) and self.residual is None and not other.is_constant:
            place = self.places.view(other)
            if _rows_collapse(place.layout, self.kernel):
                self.residual = as_operand(other, place)
                return True
        return False

    # -- where the kernel writes
    def _order(self) -> tuple[int, ...]:
        orders = self.kernel.output_orders
        return orders[0] if orders and orders[0] is not None else tuple(range(self.result.rank))

    def _writable(self, x: Tensor) -> Place:
        """x's place if the kernel can write it (dense along its innermost dimension), else its own, copied after."""
        place, order = self.places.place(x), self._order()
        dense = not order or x.shape[order[-1]] <= 1 or place.layout.strides[order[-1]] == x.dtype.itemsize
        if dense and any(self.kernel.matrix) and _rows_collapse(place.layout, self.kernel):
            return place
        if dense_in(place.layout, order, x.dtype.itemsize):
            return place
        own = self.places.own(x, order)
        self.after.append((x, own, place))
        return own

    def _place_raw(self, writes: list[Tensor]) -> Place:
        """Where the contraction writes before the epilogue: in the final value's place if that is alike."""
        x = self.result
        if any(y is x for y in self.escaping):
            return self._writable(x)
        order = self._order()
        if len(writes) == 1 and writes[0].dtype.itemsize == x.dtype.itemsize:
            place = self.places.place(writes[0])
            dense = x.rank == 0 or place.layout.strides[order[-1]] == x.dtype.itemsize
            if dense and (x.rank == 0 or _rows_collapse(place.layout, self.kernel)):
                return place
        return self.places.own(x, order)

    # -- the epilogue
    def _epilogue(self, maps: list[Map]) -> None:
        made = {id(p.output) for p in maps}
        writes = [x for x in self.escaping if id(x) in made]
        self.raw = self._place_raw(writes)
        work = loops.body(maps, writes, None)
        shape = self.result.shape
        places = [self.raw if x is self.result else self.places.view(x) for x in work.reads]
        targets = [self.places.place(w) for w in writes]
        while True:
            layouts = [
                Expand(shape).layout(p.layout) if not alike(p.layout.shape, shape) else p.layout for p in [*places, *targets]
            ]
            try:
                kernel, args = loops.epilogue(work, self.kernel.matrix, shape, layouts, [p.at for p in [*places, *targets]])
                break
            except loops.NotDense as problem:
                i = problem.index
                if i < len(places):
                    places[i] = self.drafts.dense(work.reads[i], places[i], shape, self.nodes, self._order())
                else:
                    w = work.writes[i - len(places)]
                    own = self.places.own(w, self._order())
                    self.after.append((w, own, targets[i - len(places)]))
                    targets[i - len(places)] = own
        self.epilogue = (Address(kernel), Block(args))


class CallContext:
    """`primitives.LaunchContext` for one call."""

    def __init__(self, tail: Tail, inputs: Sequence[Operand | None], weights: Weights, choose: Choose) -> None:
        self._tail, self._weights, self.choose, self.weights_mode = tail, weights, choose, weights.mode
        self.inputs, self.outputs, self.threads = inputs, tail.outputs(), tail.drafts.threads
        self.bias, self.residual, self.low, self.high, self.epilogue = tail.bias, tail.residual, tail.low, tail.high, tail.epilogue

    def alloc(self, nbytes: int) -> At:
        """Workspace in the arena."""
        return At(self._tail.drafts.arena(nbytes))

    def packed(self, tensor: Tensor, key: object, how) -> At:
        """A packed constant, shared by the session's plans."""
        return self._tail.places.constant(self._weights.packed(tensor, key, how)).at


def _rows_collapse(layout: Layout, kernel: Kernel) -> bool:
    """Whether each group of a contraction's dimensions is walked with one stride."""
    return all(loops.one_stride(layout, layout.shape, dims) is not None for dims in kernel.matrix)
