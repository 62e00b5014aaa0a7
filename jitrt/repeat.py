"""Iterations of a body in native code (`ops/kernels/repeat.py`), without Python between them.

A `Turn` is how one iteration lies in memory. A plan has one if it is native as a whole and leaves its states in the shapes that
it found them in, or larger by the same each time (`growth`). A state is read where the iteration before wrote it, and written to
the other of two buffers; slices are read, and rows written, where they lie in their arrays. What the body hands through is
copied, unless it stays what it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from .drift import Drift
from .fusion.bindings import Binding
from .fusion.plan import Buffer, Numbers, Space, Tensor
from .growth import Growth, Stretch
from .memory import DATA_OFFSET
from .ops.iteration import Iteration, Roles
from .ops.kernels import repeat as words
from .ops.kernels.spec import handwritten
from .pool import KERNEL, REPLAY

if TYPE_CHECKING:
    from .executor import Executor, Job
    from .nest import Chain

REPEAT = handwritten("repeat", "repeat:make_repeat")
SEQUENCE = handwritten("sequence", "nest:make_sequence")
_FIRST = 64  # iterations of the first native call
_REACH = 1 << 20  # iterations that are looked ahead for
_SHORT, _LONG = 0.01, 0.1  # seconds of a native call: Python looks for signals between them


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
        self.slices = [(slot := inputs.index(name), _nbytes(binding.inputs[slot])) for name in roles.slices]
        self.going = inputs.index(roles.states[0][0]) if roles.conditional else -1
        self.counter = inputs.index(roles.counter) if roles.counter else -1
        self.count = self._word()  # the counter itself
        self.moves += [(slot, -step if back else step) for (slot, step), back in zip(self.slices, roles.backward)]
        self.moves += [(place, _nbytes(row)) for place, row in zip(self.rows, self.made)] + [(self.count, 1)]
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
        self.copies.append((place, *source, _nbytes(out)))
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


class Words:
    """What one run of a turn at a time needs: the kernel's argument block, addresses and tables as one array, and a context."""

    def __init__(self, turn: Turn) -> None:
        self.turn, self.context = turn, turn.executor.context()
        sequence = self.context.sequence
        self.job: Job | Chain = sequence or self.context.jobs[0]
        self.runs = SEQUENCE if sequence else REPLAY
        read = [slot for slot in range(len(turn.inputs)) if slot != turn.counter]
        places = [*turn.rows, *read, *(place for _, _, *pair in turn.states for place in pair)]
        self.objects = [number for place in places for number in (place, 0, 0)]
        self.read = [turn.inputs[slot] for slot in read]
        # of each slice: where it stands among the objects, and its bytes
        self.slices = [(len(turn.rows) + read.index(slot), step) for slot, step in turn.slices]
        self.first = words.BLOCK_WORDS + turn.size  # where the objects begin
        drift = [(0, step) for _, step in turn.drift.steps] if turn.drift else []
        tables = ([(0, 0, 0)] * len(places), turn.copies, [pair for _, *pair in turn.states], [*drift, *turn.moves])
        self._lay_out(tables)
        self.native = KERNEL(turn.executor.store.address(REPEAT))

    def _lay_out(self, tables: Sequence[Sequence[Sequence[int]]]) -> None:
        turn = self.turn
        flat = [number for table in tables for row in table for number in row]
        self.words = np.array([0] * self.first + flat, np.int64)
        self.address: int = self.words.ctypes.data
        begin, at = self.address + 8 * words.BLOCK_WORDS, self.address + 8 * self.first
        head = [turn.executor.store.address(self.runs), self.job.address, 0, 0, 0, begin, turn.going, DATA_OFFSET]
        for table in tables:
            head += [at, len(table)]
            at += 8 * sum(map(len, table))
        self.words[: len(head)] = head
        self.data = self.words[words.BLOCK_WORDS : self.first]
        for place, address in turn.constants:
            self.data[place] = address
        for place, first, _ in turn.numbers:
            self.data[place] = begin + 8 * first
        if turn.counter >= 0:
            self.data[turn.counter] = begin + 8 * turn.count
        if turn.drift:  # words of the context, counted from the table of addresses
            moves = self.words[(self.words[words.MOVES] - self.address) // 8 :]
            between = (self.context.words.ctypes.data - begin) // 8
            for i, (at, _) in enumerate(turn.drift.steps):
                moves[words.MOVE_WORDS * i] = between + at
        # the replay loop takes addresses from array objects: words of the table stand where those keep them
        self.context.buffers[: turn.slots] = begin - DATA_OFFSET + 8 * np.arange(turn.slots)

    def share(self) -> None:
        """Let the iterations have the pool's threads."""
        sequence = self.context.sequence
        if sequence:
            sequence.share()
        else:
            self.words[words.POOL] = self.turn.executor.helpers(self.job)

    def run(self, iteration: Iteration, feeds: Mapping[str, object], stretch: Stretch | None) -> bool:
        """All iterations that the plan is for, some in each native call; False: a loop in the next one is left to Python."""
        turn, block, began, changed = self.turn, self.words, iteration.done, None
        end = iteration.limit
        if turn.drift:
            end = began + turn.drift.reach(min(end - began, _REACH))
        if stretch:
            end = min(end, began + len(stretch))
            changed = self._begin_stretch(stretch)
        if turn.drift or stretch:
            self.context.binding = None  # its words will be those of another one
        buffers = [self._buffers(iteration, k, stretch) for k, *_ in turn.states]
        kept = self._begin(iteration, feeds, [x for pair in buffers for x in pair])
        count, left = _FIRST, False
        while not left and iteration.done < end and iteration.goes_on:
            count = min(count, end - iteration.done)
            self._reserve(iteration, count)
            block[words.COUNT] = count
            if stretch:
                block[words.CHANGES] = stretch.address + stretch.changes.strides[0] * (iteration.done - began)
            started = time.perf_counter()
            self.native(self.address, 0, 0)
            seconds = time.perf_counter() - started
            iteration.done += int(block[words.DONE])
            fault = self.job.fault
            if fault is not None:
                raise fault
            left = self.context.sequence is not None and self.context.sequence.is_left
            last = (iteration.done - began + 1) % 2
            for (k, *_), pair in zip(turn.states, buffers if iteration.done > began else ()):
                iteration.states[k] = self._state(iteration, k, pair[last], stretch, iteration.done - began)
            block[words.OBJECT_COUNT] = len(turn.rows)  # the others are known, and have moved on
            count = 2 * count if seconds < _SHORT else max(count // 2, 1) if seconds > _LONG else count
        del kept, changed  # until now somebody read it
        return not left

    def _begin_stretch(self, stretch: Stretch) -> np.ndarray:
        """The words of the first of its iterations; gives the places of what changes after each, counted from `data`."""
        context, block = self.context, self.words
        self.turn.executor.words.fill(context.words, context.address, stretch.binding)
        changed = stretch.places + (context.words.ctypes.data - int(block[words.DATA])) // 8
        block[words.CHANGED], block[words.CHANGE_COUNT] = changed.ctypes.data, len(changed)
        return changed

    def _buffers(self, iteration: Iteration, k: int, stretch: Stretch | None) -> tuple[np.ndarray, np.ndarray]:
        """Two of a state, for the largest that it will be."""
        state, growth = iteration.states[k], self.turn.growth
        if stretch is None or not growth.grows(k):
            return np.empty_like(state), np.empty_like(state)
        nbytes = prod(growth.shape(k, growth.after(stretch.binding.sizes, len(stretch)))) * state.itemsize
        return np.empty(nbytes, np.uint8), np.empty(nbytes, np.uint8)

    def _state(self, iteration: Iteration, k: int, buffer: np.ndarray, stretch: Stretch | None, done: int) -> np.ndarray:
        """What a state is after so many iterations that wrote it to its buffers."""
        growth = self.turn.growth
        if stretch is None or not growth.grows(k):
            return buffer
        return np.ndarray(growth.shape(k, growth.after(stretch.binding.sizes, done)), iteration.states[k].dtype, buffer)

    def _begin(self, iteration: Iteration, feeds: Mapping[str, object], buffers: list[np.ndarray]) -> list[object]:
        """The first addresses; gives what lies there."""
        turn, block, rows = self.turn, self.words, len(self.turn.rows)
        kept = [feeds[name] for name in self.read]
        for (i, step), array, backward in zip(self.slices, iteration.slices, iteration.roles.backward):
            kept[i - rows] = array
            self.objects[3 * i + 2] = step * (len(array) - 1 - iteration.done if backward else iteration.done)
        self.objects[3 * rows + 1 :: 3] = [id(x) for x in (*kept, *buffers)]
        block[self.first : self.first + len(self.objects)] = self.objects
        block[words.OBJECT_COUNT] = len(self.objects) // words.OBJECT_WORDS
        self.share()
        for place in turn.arena:
            self.data[place] = self.context.address
        for _, first, elements in turn.numbers:
            self.data[first : first + len(elements)] = elements
        self.data[turn.count] = iteration.done
        return kept

    def _reserve(self, iteration: Iteration, count: int) -> None:
        """Room for the rows of so many more iterations, which may be in another place then."""
        at = self.first
        for rows, row in zip(iteration.rows, self.turn.made):
            array = rows.reserve(row.shape, row.dtype, iteration.done + count)
            self.words[at + 1], self.words[at + 2] = id(array), iteration.done * _nbytes(row)
            at += words.OBJECT_WORDS


def _lies_in_input(out: Tensor | Numbers, slot: int) -> bool:
    """Whether an output is an input, and nothing else."""
    return isinstance(out, Tensor) and (out.ref.buffer.space, out.ref.buffer.index, out.ref.offset) == (Space.INPUT, slot, 0)


def _nbytes(x: Tensor | Numbers) -> int:
    return prod(x.shape) * x.dtype.itemsize
