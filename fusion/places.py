"""Places: where each value of a trace lies while its plan is made.

A value that a unit leaves for others is stored: in the memory of a join that reads it, in an output, in the memory of
an input that dies there (`reuse`), else in the arena. All others are constants or views. An output may be in an input's
array (`sharing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from ..ops import evaluate
from ..ops.kernels.sizes import alike, most
from ..ops.primitives import Host, Layout, Move, Opaque, Operand, Reshape, Slice, Tensor, Trace
from .drafts import Drafts
from .group import Unit, base, unit_inputs
from .plan import Numbers, Space
from .plan import Tensor as PlanTensor
from .sharing import in_place
from .storage import At, Memory, Orders, Place, placements

NEVER = 1 << 60  # no unit comes so late
Nodes = tuple[str, ...]


class Places:
    """The places of a trace's values; what has to be copied becomes a step of `drafts`."""

    def __init__(self, trace: Trace, units: Sequence[Unit], drafts: Drafts, shared: Mapping[int, int] | None = None) -> None:
        self.drafts = drafts
        self.orders = Orders(trace, units)
        self.in_join = placements(units, trace)
        self.known: dict[int, Place] = {}
        self.opaque: dict[int, Memory] = {}
        self.host_slots = 0
        self.constants: list[np.ndarray] = []
        self._constant_memory: dict[int, Memory] = {}
        self._kept: list[object] = []  # keeps ids unique
        self._last_reader = self._last_readers(trace, units)
        self._place_inputs(trace)
        self.shared = in_place(trace, shared or {})
        self._place_shared(trace)
        self._place_outputs(trace)

    def _last_readers(self, trace: Trace, units: Sequence[Unit]) -> dict[int, int]:
        """id(stored value) -> the last unit that reads it."""
        last: dict[int, int] = {}
        for i, unit in enumerate(units):
            for x in unit_inputs(unit):
                last[id(base(x))] = i
        for i, (join, _) in self.in_join.items():  # whose memory lives as long as what lies in it
            while id(join.output) in self.in_join:
                join, _ = self.in_join[id(join.output)]
            last[id(join.output)] = max(last.get(id(join.output), -1), last.get(i, -1))
        last.update({id(base(x)): NEVER for x in trace.outputs})
        last.update(dict.fromkeys(self.in_join, NEVER))
        return last

    def _place_inputs(self, trace: Trace) -> None:
        for i, x in enumerate(trace.inputs):
            if isinstance(x, Opaque):
                self.opaque[id(x)] = Memory(Space.INPUT, 0, i)
            else:
                self.known[id(x)] = _row_major(x, Space.INPUT, i)

    def _place_shared(self, trace: Trace) -> None:
        """Outputs that begin where an input does."""
        for i, j in self.shared.items():
            x, array = trace.outputs[i], self.known[id(trace.inputs[j])]
            self.known[id(x)] = Place(array.memory, Layout(x.shape, array.layout.strides))
            self.orders.row_major.add(id(x))

    def _place_outputs(self, trace: Trace) -> None:
        """Outputs that a unit stores, or reshapes of them, go straight to the caller's array."""
        for i, x in enumerate(trace.outputs):
            while isinstance(x.source, Move) and isinstance(x.source.how, Reshape):
                x = x.source.input
            made_here = isinstance(x, Tensor) and x.source is not None and not isinstance(x.source, Move | Host)
            if made_here and not x.is_constant and id(x) not in self.known:
                self.known[id(x)] = _row_major(x, Space.OUTPUT, i)
                self.orders.row_major.add(id(x))

    # -- values
    def place(self, x: Tensor) -> Place:
        """Where a stored value lies; it gets a place now if it has none."""
        found = self.known.get(id(x))
        if found is None:
            if id(x) in self.in_join:
                join, start = self.in_join[id(x)]
                whole = self.place(join.output)
                found = Place(whole.memory, Slice(start, (1,) * x.rank, x.shape).layout(whole.layout))
            else:
                found = self.own(x, self.orders.stored(x))
            self._note(x, found)
        return found

    def own(self, x: Tensor, order: Sequence[int] | None) -> Place:
        """New memory for a value, dense in an order."""
        size = x.dtype.itemsize
        return Place(self.drafts.arena(x.size * size), Layout.contiguous(x.shape, size, order))

    def view(self, x: Tensor) -> Place:
        """Where any value lies: stored, constant, or a view; a view that strides cannot express is copied."""
        found = self.known.get(id(x))
        if found is not None:
            return found
        if x.is_constant:
            made = self.constant(x.constant)
        elif isinstance(x.source, Move):
            origin = self.view(x.source.input)
            layout = x.source.how.layout(origin.layout)
            if layout is None:
                origin = self.drafts.dense(x.source.input, origin, x.source.input.shape, x.source.nodes)
                layout = x.source.how.layout(origin.layout)
            made = Place(origin.memory, layout)
        else:
            return self.place(x)
        self._note(x, made)
        return made

    def _note(self, x: Tensor, place: Place) -> None:
        self.known[id(x)] = place
        self._kept.append(x)

    def constant(self, array: np.ndarray) -> Place:
        """An array that the plan holds."""
        memory = self._constant_memory.get(id(array))
        if memory is None:
            stored = np.ascontiguousarray(array) if any(s < 0 for s in array.strides) else array
            self.constants.append(stored)
            memory = self._constant_memory[id(array)] = Memory(Space.CONSTANT, stored.nbytes, len(self.constants) - 1)
            self._kept.append(array)
        stored = self.constants[memory.index]
        return Place(memory, Layout(stored.shape, stored.strides))

    def reuse(
        self, w: Tensor, reads: Sequence[Tensor], places: Sequence[Place], now: int, taken: set[int], others: Sequence[Place] = ()
    ) -> None:
        """Let a result of unit `now` take the memory of one of `reads` that nobody reads later, and that is not `taken`.

        `others`: what the unit reads beside them, at other elements than it writes.
        """
        if id(w) in self.known or id(w) in self.in_join:
            return
        size = w.dtype.itemsize
        wanted = Layout.contiguous(w.shape, size, self.orders.stored(w))
        for x, place in zip(reads, places):
            memory = place.memory
            free = self._last_reader.get(id(base(x)), -1) == now and id(memory) not in taken
            if (
                free and memory.space is Space.ARENA and base(x) is x and x.dtype.itemsize == size
                and alike((*x.shape, memory.nbytes), (*w.shape, most(w.size * size, 1))) and _same_layout(place.layout, wanted)
                and sum(1 for p in (*places, *others) if p.memory is memory) == 1
            ):  # fmt: skip
                self._note(w, Place(memory, wanted))
                taken.add(id(memory))
                return

    # -- values as kernels and Python see them
    def operand(self, x: Tensor | None, order: tuple[int, ...] | None, nodes: Nodes) -> Operand | None:
        """A kernel's input, dense in `order` if the kernel asks for one."""
        if x is None:
            return None
        place = self.view(x)
        if order is not None and not dense_in(place.layout, order, x.dtype.itemsize):
            place = self.drafts.dense(x, place, x.shape, nodes, order)
        return as_operand(x, place)

    def host_input(self, x: Tensor | Opaque | None, nodes: Nodes) -> object:
        """A host step's input."""
        if x is None:
            return None
        if isinstance(x, Tensor) and x.is_open:
            return _numbers(x)
        return self.opaque[id(x)] if id(x) in self.opaque else self.array(x, nodes)

    def host_output(self, x: Tensor | Opaque) -> object:
        """A host step's output: in the arena, or in a slot of its own if only the run knows what it is."""
        if isinstance(x, Opaque) or x.dtype == object:
            memory = self.opaque[id(x)] = Memory(Space.HOST, 0, self.host_slots)
            self.host_slots += 1
            return memory
        place = self.known[id(x)] = self.own(x, None)
        return PlanTensor(x.name, x.dtype, x.shape, place.at)

    def array(self, x: Tensor, nodes: Nodes) -> PlanTensor:
        """A value as a row-major array, copied if it is not one."""
        place = self.view(x)
        if place.memory.space is Space.CONSTANT and not evaluate.is_native(x.dtype):
            place = self.constant(np.ascontiguousarray(x.constant))
        elif not dense_in(place.layout, range(x.rank), x.dtype.itemsize):
            place = self.drafts.dense(x, place, x.shape, nodes)
        return PlanTensor(x.name, x.dtype, x.shape, At(place.memory, place.layout.offset))

    def output(self, i: int, x: Tensor | Opaque) -> PlanTensor | Numbers | Memory:
        """Output i of the plan; one that lies in another output's array is copied."""
        if id(x) in self.opaque:
            return self.opaque[id(x)]
        if x.is_open:
            return _numbers(x)
        if i in self.shared:
            return PlanTensor(x.name, x.dtype, x.shape, self.known[id(x)].at, in_place=True)
        made = self.array(x, ())
        memory = made.ref.memory
        if memory.space is Space.OUTPUT and (memory.index != i or made.ref.offset or memory.nbytes != x.size * x.dtype.itemsize):
            copy = self.drafts.dense(x, self.view(x), x.shape, ())
            made = PlanTensor(x.name, x.dtype, x.shape, copy.at)
        return made


def _numbers(x: Tensor) -> Numbers:
    """A constant with open sizes in it."""
    return Numbers(x.name, x.dtype, x.content.shape, tuple(x.content.reshape(-1)))


def _row_major(x: Tensor, space: Space, index: int) -> Place:
    """The caller's array number `index` of a space."""
    size = x.dtype.itemsize
    return Place(Memory(space, x.size * size, index), Layout.contiguous(x.shape, size))


def _same_layout(a: Layout, b: Layout) -> bool:
    return alike((*a.shape, *a.strides, a.offset), (*b.shape, *b.strides, b.offset))


def as_operand(x: Tensor, place: Place) -> Operand:
    """A tensor at its place as kernels see it."""
    return Operand(place.at, x.dtype, x.shape, place.layout.strides)


def dense_in(layout: Layout, order: Sequence[int], itemsize: int) -> bool:
    """Whether a layout is the dense one of an order (where there is only one element, any stride will do)."""
    dense = Layout.contiguous(layout.shape, itemsize, order).strides
    return all(n <= 1 or a == b for n, a, b in zip(layout.shape, layout.strides, dense)) or not prod(layout.shape)
