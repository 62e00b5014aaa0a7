"""How one iteration of a body lies in memory, so that native code can repeat it (`repeat`).

A plan has a `Turn` if it is native as a whole and leaves its states in the shapes that it found them in, or larger by the same each
time (`growth`). A state is read where the iteration before wrote it, and written to the other of two buffers; slices are read, and
rows written, where they lie in their arrays. What the body hands through is copied, unless it stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .drift import Drift
from .fusion.bindings import Binding
from .fusion.plan import Buffer, Numbers, Space, Tensor
from .growth import Growth
from .ops.iteration import Iteration, Roles
from .repeat import Words

if TYPE_CHECKING:
    from .executor import Executor


def turn_of(
    executor: Executor, binding: Binding, inputs: Sequence[str], outputs: Mapping[str, int], roles: Roles,
    drift: Drift | None = None, growth: Growth | None = None,
) -> Turn | None:  # fmt: skip
    """The turn of a body's plan for a binding, if it has one.

    Args:
        inputs: names of the plan's inputs. outputs: for each output of the body its place in the plan's.
        drift: how the plan's words change with the number of the iteration, if they do.
        growth: how its sizes do, and its words with them.
    """
    given, made = binding.inputs, binding.outputs
    tensors = (*given, *(x for x in made if not isinstance(x, Numbers) or x.dtype != np.int64))
    if not executor.is_native or not all(isinstance(x, Tensor) and x.dtype != object for x in tensors):
        return None
    for k, (name, result) in enumerate(roles.states):
        before, after = given[inputs.index(name)], made[outputs[result]]
        if before.dtype != after.dtype or (before.shape != after.shape and not (growth and growth.grows(k))):
            return None
    condition = given[inputs.index(roles.states[0][0])] if roles.conditional else None
    if condition is not None and (condition.dtype != bool or condition.shape not in ((), (1,))):
        return None
    if growth is not None and not _only_states_grow(growth, binding, outputs, roles):
        return None
    turn = Turn(executor, binding, inputs, outputs, roles, drift, growth)
    return None if growth is not None and turn.arena else turn


def _only_states_grow(growth: Growth, binding: Binding, outputs: Mapping[str, int], roles: Roles) -> bool:
    """Whether what an iteration leaves is as large as before, but for states that have memory of their own."""
    later = growth.executor.binder.bind(growth.after(binding.sizes, 1))
    grown = [outputs[result] for k, (_, result) in enumerate(roles.states) if growth.grows(k)]
    own = all(isinstance(x, Tensor) and x.ref.buffer.space is Space.OUTPUT for x in (binding.outputs[i] for i in grown))
    if later is None or not own or len({*grown, *(outputs[name] for name in roles.rows)}) < len(grown) + len(roles.rows):
        return False
    return all(i in grown or _kind(x) == _kind(y) for i, (x, y) in enumerate(zip(binding.outputs, later.outputs)))


def _kind(x: Tensor | Numbers | Buffer) -> object:
    return x.elements if isinstance(x, Numbers) else x.shape if isinstance(x, Tensor) else x


class Turn:
    """One iteration of a body in memory: places in the table of addresses (`data`), and the rows of the kernel's tables.

    Attributes:
        size: number of addresses; the first `slots` are those of the plan's inputs and outputs.
        states: for each state that has two buffers its number and the places of its input, of its output and of the other buffer.
        rows: places of the rows; `made`: what they are. slices: places of the slices, and their bytes.
        arena: places of the arena's address. constants: places of constants, and their addresses.
        numbers: places of the addresses of shape arithmetic's results, their own first places, and what they are at first.
    """

    def __init__(
        self, executor: Executor, binding: Binding, inputs: Sequence[str], outputs: Mapping[str, int], roles: Roles,
        drift: Drift | None, growth: Growth | None = None,
    ) -> None:  # fmt: skip
        self.executor, self.binding, self.inputs, self.drift, self.growth = executor, binding, inputs, drift, growth
        self._outputs = binding.outputs
        self.slots = self.size = len(inputs) + len(self._outputs)
        self.copies: list[tuple[int, int, int, int]] = []
        self.states: list[tuple[int, int, int, int]] = []
        self.arena: list[int] = []
        self.constants: list[tuple[int, int]] = []
        self.numbers: list[tuple[int, int, tuple[int, ...]]] = []
        self.moves: list[tuple[int, int]] = []
        self._taken: set[int] = set()
        for k, (name, result) in enumerate(roles.states):
            slot, out = inputs.index(name), self._outputs[outputs[result]]
            if not _lies_in_input(out, slot):
                self.states.append((k, slot, self._target(outputs[result]), self._word()))
        self.rows = [self._target(outputs[name]) for name in roles.rows]
        self.made = [self._outputs[outputs[name]] for name in roles.rows]
        self.slices = [(slot := inputs.index(name), binding.inputs[slot].nbytes) for name in roles.slices]
        self.going = inputs.index(roles.states[0][0]) if roles.conditional else -1
        self.counter = inputs.index(roles.counter) if roles.counter else -1
        self.count = self._word()  # the counter itself
        self.moves += [(slot, -step if back else step) for (slot, step), back in zip(self.slices, roles.backward)]
        self.moves += [(place, row.nbytes) for place, row in zip(self.rows, self.made)] + [(self.count, 1)]
        self._free: list[Words] = []

    @property
    def is_alone(self) -> bool:
        """Whether iterations take nothing but states that changes, and leave nothing but those and rows."""
        return not (self.slices or self.numbers or self.drift or self.growth)

    def _word(self) -> int:
        self.size += 1
        return self.size - 1

    def _target(self, index: int) -> int:
        """Where an output is wanted: its own place for the first that wants it, else one that it is copied to."""
        out, own = self._outputs[index], len(self.inputs) + index
        if isinstance(out, Tensor) and out.ref.buffer.space is Space.OUTPUT and index not in self._taken:
            self._taken.add(index)
            return own
        place = self._word()
        source = self._source(out, own) if isinstance(out, Tensor) else self._words_of(out, index)
        self.copies.append((place, *source, out.nbytes))
        return place

    def _words_of(self, out: Numbers, index: int) -> tuple[int, int]:
        """Where shape arithmetic's results lie, which are words of the table: place of their address, and offset."""
        place, first = self._word(), self.size
        self.size += len(out.elements)
        self.numbers.append((place, first, out.elements))
        plain = self.executor.plan.outputs[index].elements
        self.moves += [(first + i, self.drift.of_number(n) if self.drift else 0) for i, n in enumerate(plain)]
        return place, 0

    def _source(self, out: Tensor, own: int) -> tuple[int, int]:
        """Where an output lies after a replay: place and offset."""
        space, index, offset = out.ref.buffer.space, out.ref.buffer.index, out.ref.offset
        if space is Space.OUTPUT:
            return own, 0
        if space is Space.INPUT:
            return index, offset
        place = self._word()
        if space is Space.ARENA:
            self.arena.append(place)
            return place, index + offset
        self.constants.append((place, self.executor.words.constants[index]))
        return place, offset

    def run(self, iteration: Iteration, feeds: Mapping[str, object], binding: Binding) -> bool:
        """The iterations that are left and that the plan is for; False: the next one has to be run by Python.

        Args:
            feeds: the inputs of the first of them. binding: the plan's for these.

        Raises:
            KernelFault: a kernel met data that its operator does not allow.
        """
        arenas = self.executor.arenas
        try:
            mine = self._free.pop()
        except IndexError:
            mine = Words(self)
        context = mine.context
        stretch = self.growth and self.growth.stretch(binding.sizes, iteration.limit - iteration.done)
        context.get_ready(stretch.last if stretch else self.binding, arenas.take(context.arena))
        try:
            return mine.run(iteration, feeds, stretch)
        finally:
            arenas.give(context.arena)
            self._free.append(mine)


def _lies_in_input(out: Tensor | Numbers, slot: int) -> bool:
    """Whether an output is an input, and nothing else."""
    return isinstance(out, Tensor) and (out.ref.buffer.space, out.ref.buffer.index, out.ref.offset) == (Space.INPUT, slot, 0)
