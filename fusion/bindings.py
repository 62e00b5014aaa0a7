"""Bindings: what a plan with open sizes becomes for their values; a plan without has one binding.

`Binder.bind` checks the guards and gives the values of everything in the plan that depends on sizes: a tenth of a millisecond
for a large model. The arena is packed for more than the sizes at hand, and anew only when some memory outgrows its place.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile

import numpy as np

from ..ops.kernels.launch import Block
from ..ops.kernels.sizes import Size
from ..ops.kernels.solver import solver
from .plan import Buffer, HostStep, Numbers, Plan, Ref, Space, Step, Tensor
from .storage import assign

_FINENESS = 8, 64  # the arena is packed for one of so many sizes between powers of two: the first that guards allow
_SMALL = 7  # below 2 to this, sizes are as far apart as above


@dataclass(frozen=True)
class Binding:
    """A plan's memory and outputs for one set of sizes.

    Attributes:
        plan: may have open sizes.
        values: of the plan's open sizes, in their order. offsets: of the arena's memories.
        shapes: of each output; None: only a run knows it.
        made: of each output that a run allocates: its index, shape, dtype and bytes.
        sizes: the values of the symbols.
    """

    plan: Plan
    arena_bytes: int
    scratch_bytes: int
    values: np.ndarray = field(repr=False)
    offsets: np.ndarray = field(repr=False)
    shapes: list[tuple[int, ...] | None]
    made: list[tuple[int, tuple[int, ...], np.dtype, int]]
    sizes: tuple[int, ...] = ()

    @cached_property
    def _at(self) -> _Values:
        return _Values(self.plan, self.values.tolist(), self.offsets, self.sizes)

    @cached_property
    def inputs(self) -> tuple[Tensor | Buffer, ...]:
        """The plan's inputs, all shapes given."""
        return tuple(map(self._at.value, self.plan.inputs)) if self.plan.is_open else self.plan.inputs

    @cached_property
    def outputs(self) -> tuple[Tensor | Numbers | Buffer, ...]:
        """The plan's outputs, all shapes given."""
        return tuple(map(self._at.value, self.plan.outputs)) if self.plan.is_open else self.plan.outputs

    @cached_property
    def hosts(self) -> Mapping[int, HostStep]:
        """The plan's steps in Python by number, all shapes given."""
        steps = {i: step for i, step in enumerate(self.plan.steps) if isinstance(step, HostStep)}
        return {i: self._at.host(step) for i, step in steps.items()} if self.plan.is_open else steps

    def concrete(self) -> Plan:
        """The plan as it is with these values."""
        if not self.plan.is_open:
            return self.plan
        at = self._at
        at.learn([number for step in self.plan.steps if isinstance(step, Step) for number in (step.flops, step.bytes)])
        return replace(
            self.plan, inputs=tuple(map(at.value, self.plan.inputs)), outputs=self.outputs,
            steps=tuple(map(at.step, self.plan.steps)), arena_bytes=self.arena_bytes, scratch_bytes=self.scratch_bytes,
            symbols=None, sizes=(), memories=(), places={},
        )  # fmt: skip


_NONE = np.empty(0, np.int64)


class Packing:
    """Places in the arena for memories of up to certain sizes."""

    def __init__(self, plan: Plan, room: np.ndarray) -> None:
        self.room = room
        memories = [replace(memory, nbytes=int(n)) for memory, n in zip(plan.memories, room)]
        self.nbytes = assign(memories)
        self.offsets = np.array([memory.index for memory in memories], np.int64)

    def holds(self, nbytes: np.ndarray) -> bool:
        """Whether memories of these sizes fit."""
        return bool((nbytes <= self.room).all())


class Binder:
    """Makes the bindings of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._lock = threading.Lock()
        self._packing: Packing | None = None
        shapes = [_Coded.at(plan, x.shape) if isinstance(x, Tensor | Numbers) else None for x in plan.outputs]
        self._shapes = list(dict.fromkeys(shapes))  # those of a decoder's new keys and values are all alike
        self._shape_of = [self._shapes.index(shape) for shape in shapes]
        buffers = [(i, x.dtype, x.ref.buffer) for i, x in enumerate(plan.outputs) if isinstance(x, Tensor)]
        self._made = [(i, dtype, _Coded.at(plan, (b.nbytes,))) for i, dtype, b in buffers if b.space is Space.OUTPUT]
        self._scratch_bytes = _Coded.at(plan, (plan.scratch_bytes,))
        if plan.is_open:
            self._solve = solver(plan.symbols, [size.terms for size in plan.sizes])
            self._memories = [plan.place(m.nbytes) if isinstance(m.nbytes, Size) else m.nbytes for m in plan.memories]
            self._of = np.array([isinstance(m.nbytes, Size) for m in plan.memories], bool)
            self._at = np.array(self._memories, np.int64)

    def bind(self, sizes: Sequence[int] = ()) -> Binding | None:
        """The binding for these values of the symbols; None: they do not meet the plan's guards."""
        plan = self.plan
        if not plan.is_open:
            return self._binding(plan.arena_bytes, plan.scratch_bytes, (), _NONE, _NONE)
        solved = self.values_at(sizes)
        if solved is None:
            return None
        values = np.array(solved, np.int64)
        packing = self._packed(self._memory_sizes(values), sizes)
        return self._binding(packing.nbytes, self._scratch(solved), solved, values, packing.offsets, tuple(sizes))

    def bind_all(self, several: Sequence[Sequence[int]]) -> tuple[Binding, np.ndarray] | None:
        """The binding for the first of several values of the symbols, with memory for all, and the plan's sizes for each of them.

        Those from the first one on that does not meet the guards are left out; None: nothing is left.
        """
        solved = [*takewhile(lambda values: values is not None, map(self.values_at, several))]
        if not solved:
            return None
        values = np.array(solved, np.int64).reshape(len(solved), -1)
        packing = self._packed(np.max([self._memory_sizes(row) for row in values], axis=0), several[len(solved) - 1])
        scratch = max(map(self._scratch, solved))
        return self._binding(packing.nbytes, scratch, solved[0], values[0], packing.offsets, tuple(several[0])), values

    def _binding(
        self,
        arena: int,
        scratch: int,
        numbers: tuple[int, ...],
        values: np.ndarray,
        offsets: np.ndarray,
        sizes: tuple[int, ...] = (),
    ) -> Binding:
        known = [None if shape is None else shape.of(numbers) for shape in self._shapes]
        shapes = [known[i] for i in self._shape_of]
        made = [(i, shapes[i], dtype, nbytes.of(numbers)[0]) for i, dtype, nbytes in self._made]
        return Binding(self.plan, arena, scratch, values, offsets, shapes, made, sizes)

    def _scratch(self, numbers: tuple[int, ...]) -> int:
        return self._scratch_bytes.of(numbers)[0]

    def values_at(self, sizes: Sequence[int]) -> tuple[int, ...] | None:
        """The values of the plan's open sizes for these of the symbols; None: they do not meet the plan's guards."""
        try:
            return self._solve(*sizes)
        except (ArithmeticError, ValueError, IndexError):  # a function meets numbers that the plan's own did not lead it to
            return None

    def _packed(self, nbytes: np.ndarray, sizes: Sequence[int]) -> Packing:
        """Places for memories of these bytes, and maybe for those of somewhat larger sizes."""
        with self._lock:
            if self._packing is None or not self._packing.holds(nbytes):
                room = np.maximum(nbytes, self._larger(sizes))
                if self._packing is not None:
                    room = np.maximum(room, self._packing.room)
                self._packing = Packing(self.plan, room)
            return self._packing

    def _larger(self, sizes: Sequence[int]) -> np.ndarray:
        """The bytes of memories for somewhat larger sizes that meet the guards; 0 if none are found."""
        for fineness in _FINENESS:
            rounded = self.plan.symbols.consistent([_rounded(n, fineness) for n in sizes])
            larger = self.values_at(rounded)
            if larger is not None:
                return self._memory_sizes(np.array(larger, np.int64))
        return np.zeros(len(self._memories), np.int64)

    def _memory_sizes(self, values: np.ndarray) -> np.ndarray:
        nbytes = self._at.copy()
        nbytes[self._of] = values[self._at[self._of]]
        return nbytes


@dataclass(frozen=True)
class _Coded:
    """Numbers that are not negative, or among the plan's open sizes: for those, -1 less their place."""

    codes: tuple[int, ...]

    @staticmethod
    def at(plan: Plan, numbers: Iterable[int]) -> _Coded:
        return _Coded(tuple(~plan.place(n) if isinstance(n, Size) else int(n) for n in numbers))

    def of(self, values: Sequence[int]) -> tuple[int, ...]:
        """The numbers for these values of the plan's open sizes."""
        return tuple([n if n >= 0 else values[~n] for n in self.codes])


class _Values:
    """Parts of a plan with values in place of sizes."""

    def __init__(self, plan: Plan, values: Sequence[int], offsets: np.ndarray = _NONE, symbols: tuple[int, ...] = ()) -> None:
        self.plan, self.values, self.offsets, self.symbols = plan, values, offsets, symbols
        self._others: dict[object, int] = {}

    def learn(self, numbers: Iterable[object]) -> None:
        """Values of sizes that are for people only, which a plan does not list."""
        others = [n for n in numbers if isinstance(n, Size) and n.frozen not in self.plan.places]
        values = solver(self.plan.symbols, [n.terms for n in others])(*self.symbols)
        self._others = {n.frozen: value for n, value in zip(others, values)}

    def number(self, number: object) -> object:
        if not isinstance(number, Size):
            return number
        place = self.plan.places.get(number.frozen)
        return self._others[number.frozen] if place is None else self.values[place]

    def value(self, x: Tensor | Numbers | Buffer | None) -> Tensor | Numbers | Buffer | None:
        if isinstance(x, Tensor):
            return replace(x, shape=tuple(map(self.number, x.shape)), ref=self.ref(x.ref))
        if isinstance(x, Numbers):
            return replace(x, elements=tuple(map(self.number, x.elements)))
        return x if x is None else self.buffer(x)

    def ref(self, ref: Ref) -> Ref:
        return Ref(self.buffer(ref.buffer), self.number(ref.offset))

    def buffer(self, buffer: Buffer) -> Buffer:
        index = int(self.offsets[buffer.index]) if buffer.space is Space.ARENA and len(self.offsets) else buffer.index
        return replace(buffer, index=index, nbytes=self.number(buffer.nbytes))

    def host(self, step: HostStep) -> HostStep:
        return replace(step, inputs=tuple(map(self.value, step.inputs)), outputs=tuple(map(self.value, step.outputs)))

    def step(self, step: Step | HostStep) -> Step | HostStep:
        if isinstance(step, HostStep):
            return self.host(step)
        return replace(
            step, args=tuple(map(self.argument, step.args)), tasks=self.number(step.tasks), flops=self.number(step.flops),
            bytes=self.number(step.bytes),
        )  # fmt: skip

    def argument(self, arg: object) -> object:
        if type(arg) is int:
            return arg
        if isinstance(arg, Ref):
            return self.ref(arg)
        return Block(tuple(map(self.argument, arg.args))) if isinstance(arg, Block) else self.number(arg)


def _rounded(size: int, fineness: int) -> int:
    """The next of the sizes that the arena is packed for."""
    step = (1 << max(size.bit_length() - 1, _SMALL)) // fineness
    return -(-size // step) * step
