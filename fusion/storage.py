"""Storage: where every stored value of a trace lies. Memory layout is strides, and nothing else.

- `Orders` says in which order of dimensions a value prefers to be dense.
- `placements` lets what feeds a join be written in the join's own memory, and joins be parts of larger ones.
- `Memory` is a buffer whose life (first and last step) is noted as steps use it; `assign` then packs the arena.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ops.kernels.sizes import alike
from ..ops.primitives import (
    Host,
    Join,
    Kernel,
    Layout,
    Map,
    Move,
    Movement,
    Permute,
    Primitive,
    Reduce,
    Reshape,
    Shape,
    Tensor,
    Trace,
)  # fmt: skip
from .group import Call, Unit
from .plan import Space

ALIGNMENT = 64
Order = tuple[int, ...]


@dataclass(eq=False)
class Memory:
    """A buffer while the plan is made; `first` and `last` are the steps that touch it."""

    space: Space
    nbytes: int
    index: int = 0
    first: int = 1 << 60
    last: int = -1

    def touch(self, step: int) -> None:
        """Note a use."""
        self.first, self.last = min(self.first, step), max(self.last, step)


@dataclass(frozen=True)
class At:
    """An address while the plan is made."""

    memory: Memory
    offset: int = 0

    def __add__(self, nbytes: int) -> At:
        """An address further on."""
        return At(self.memory, self.offset + nbytes)


@dataclass(frozen=True)
class Place:
    """A stored value: its buffer and layout."""

    memory: Memory
    layout: Layout

    @property
    def at(self) -> At:
        """Address of element 0."""
        return At(self.memory, self.layout.offset)


class Orders:
    """The preferred order of dimensions in memory, outermost first.

    1. The plan's outputs are row-major.
    2. What is read through a permutation and then a reshape (attention's heads, put side by side) is stored so that
       the two are a view, if the innermost dimension stays what it is.
    3. Kernels state theirs (channels-last for convolutions), which what their tails make keeps; elementwise work,
       reductions and joins keep their input's, seen through the views between.
    """

    def __init__(self, trace: Trace, units: Sequence[Unit] = ()) -> None:
        self.row_major = {id(x) for x in trace.outputs}
        self.heads = {id(p.output): unit.kernel.outputs[0] for unit in units if isinstance(unit, Call) for p in unit.tail}
        self.known: dict[int, Order] = {}
        self.readers: dict[int, list[Primitive | None]] = {}
        for p in trace.primitives:
            for x in p.inputs:
                if x is not None:
                    self.readers.setdefault(id(x), []).append(p)
        for x in trace.outputs:
            self.readers.setdefault(id(x), []).append(None)

    def stored(self, x: Tensor) -> Order:
        """The order that `x` is stored in if it gets a buffer of its own."""
        if id(x) in self.row_major:
            return tuple(range(x.rank))
        order = self.preferred(x)
        return self._asked(x, order) or order

    def preferred(self, x: Tensor) -> Order:
        """The order that the work on x would like, whether or not x is an output."""
        chain = []
        while id(x) not in self.known:
            ahead = self._follows(x)
            if ahead is None:
                break
            chain.append(x)
            x = ahead
        if id(x) not in self.known:
            self.known[id(x)] = self._own(x)
        order = self.known[id(x)]
        for y in reversed(chain):
            order = self._through(y, x, order)
            self.known[id(y)] = order
            x = y
        return order

    def _follows(self, x: Tensor) -> Tensor | None:
        """The input whose order x keeps."""
        p = x.source
        if id(x) in self.heads:
            return self.heads[id(x)]
        if isinstance(p, Map):
            return next((y for y in p.inputs if alike(y.shape, x.shape) and not y.is_constant), None)
        if isinstance(p, Reduce):
            return p.input
        if isinstance(p, Join):
            return max(p.inputs, key=lambda y: y.size if not y.is_constant else -1)
        if isinstance(p, Move) and (isinstance(p.how, Permute | Reshape) or p.input.rank == x.rank):
            return p.input
        return None

    def _own(self, x: Tensor) -> Order:
        if isinstance(x.source, Kernel):
            i = next(i for i, out in enumerate(x.source.outputs) if out is x)
            orders = x.source.output_orders
            if i < len(orders) and orders[i] is not None:
                return orders[i]
        return tuple(range(x.rank))

    def _through(self, x: Tensor, before: Tensor, order: Order) -> Order:
        """The order of x, whose `_follows` is `before` with this order."""
        if not isinstance(x.source, Move) or not isinstance(x.source.how, Permute | Reshape):
            return order
        layout = x.source.how.layout(Layout.contiguous(before.shape, 1, order))
        return tuple(range(x.rank)) if layout is None else _order_of(layout)

    def _asked(self, x: Tensor, order: Order) -> Order | None:
        """Rule 2: the order in which the views that alone read x are all expressed by strides."""
        moves: list[Move] = []
        layout: Layout | None = Layout.contiguous(x.shape, 1, order)
        y = x
        while layout is not None:
            readers = self.readers.get(id(y), [])
            if len(readers) != 1 or not isinstance(readers[0], Move) or not isinstance(readers[0].how, Permute | Reshape):
                return None
            moves.append(readers[0])
            y, layout = moves[-1].output, moves[-1].how.layout(layout)
        layout = Layout.contiguous(moves[-1].input.shape, 1)
        for move in reversed(moves[:-1]):
            layout = _inverse(move).layout(layout)
            if layout is None:
                return None
        asked = _order_of(layout)
        return asked if _innermost(asked, x.shape) == _innermost(order, x.shape) else None


def _inverse(move: Move) -> Movement:
    """The view that leads back from a permutation or reshape."""
    if isinstance(move.how, Permute):
        return Permute(tuple(move.how.axes.index(d) for d in range(len(move.how.axes))))
    return Reshape(move.input.shape)


def _order_of(layout: Layout) -> Order:
    """The dimensions from the largest stride to the smallest; those of size 1 come first."""
    return tuple(sorted(range(len(layout.shape)), key=lambda d: (layout.shape[d] != 1, -layout.strides[d])))


def _innermost(order: Order, shape: Shape) -> int | None:
    return next((d for d in reversed(order) if shape[d] != 1), None)


def _movable(p: Primitive) -> tuple[Tensor, ...]:
    """The outputs that may lie in a join."""
    return () if isinstance(p, Host) else p.outputs[:1] if isinstance(p, Kernel) else p.outputs


def placements(units: Sequence[Unit], trace: Trace) -> dict[int, tuple[Join, Shape]]:
    """id(value) -> the join in whose memory it is made, and where.

    1. What a loop, a kernel or a join leaves is made in the memory of the last join that reads it, if it does so once.
    2. A join whose pieces lie side by side in a later join's memory already, as it would place them, is that part
       of it (each layer of a dense block reads all layers before it: only the block's last join has memory).
    3. Left alone: outputs, what a hand-built kernel makes beside its first output (that may be copied where the kernel
       cannot write it, the others are always dense), and joins that fill gaps between several pieces.
    """
    made = {id(out) for unit in units for p in unit.members for out in _movable(p)}
    taken = {id(x) for x in trace.outputs}
    found: dict[int, tuple[Join, Shape]] = {}
    for unit in reversed(units):
        join = getattr(unit, "primitive", None)
        if not isinstance(join, Join) or (join.fill is not None and len(join.inputs) > 1):
            continue
        part = _part_of(join, found) if id(join.output) not in taken else None
        if part is not None:
            found[id(join.output)] = part
            taken.add(id(join.output))
            continue
        for x, start in zip(join.inputs, join.starts):
            if id(x) in made and id(x) not in taken and join.inputs.count(x) == 1:
                found[id(x)] = (join, start)
                taken.add(id(x))
    return found


def _part_of(join: Join, found: Mapping[int, tuple[Join, Shape]]) -> tuple[Join, Shape] | None:
    """The join that holds every piece where `join` wants it, and where `join` begins in it (rule 2)."""
    if join.fill is not None or not all(id(x) in found for x in join.inputs):
        return None
    places = [found[id(x)] for x in join.inputs]
    begins = {tuple(b - a for a, b in zip(start, there)) for start, (_, there) in zip(join.starts, places)}
    whole = places[0][0]
    return (whole, begins.pop()) if len(begins) == 1 and all(p[0] is whole for p in places) else None


def assign(memories: Sequence[Memory]) -> int:
    """Give arena buffers offsets (`index`) so that those alive at once do not overlap; returns the arena's size.

    Largest first. Each lies around the middle of an earlier one whose memory it can have: threads have the same shares of all
    values, so that what a core's caches hold of that memory stays with it. Else it has the lowest offset that is free, which
    alone would be within a few percent of the peak of live bytes; this way networks take up to a sixth more.
    """
    placed: list[tuple[int, int, int, int]] = []  # offsets of beginning and end, first and last step
    middles: list[int] = []
    for memory in sorted(memories, key=lambda m: (-m.nbytes, m.first)):
        nbytes, first, last = memory.nbytes, memory.first, memory.last
        alive = [(begin, end) for begin, end, since, until in placed if since <= last and first <= until]
        for middle in middles:
            at = (middle - nbytes // 2) // ALIGNMENT * ALIGNMENT
            if at >= 0 and all(at + nbytes <= begin or end <= at for begin, end in alive):
                break
        else:
            at = _lowest(nbytes, alive)
            middles.append(at + nbytes // 2)
        memory.index = at
        insort(placed, (at, at + nbytes, first, last))
    return max((end for _, end, _, _ in placed), default=0)


def _lowest(nbytes: int, alive: Sequence[tuple[int, int]]) -> int:
    """The lowest offset at which so many bytes are free beside what is alive, which is in the order of offsets."""
    offset = 0
    for begin, end in alive:
        if offset + nbytes <= begin:
            break
        offset = max(offset, -(-end // ALIGNMENT) * ALIGNMENT)
    return offset
