"""Iterations of a body in native code (`ops/kernels/repeat.py`), without Python between them.

A `Turn` is how one iteration lies in memory. A plan has one if it is native as a whole and leaves its states in the shapes that
it found them in. A state is read where the iteration before wrote it, and written to the other of two buffers; slices are
read, and rows written, where they lie in their arrays. What the body hands through is copied, unless it stays what it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from .executor import Context, Executor
from .fusion.bindings import Binding
from .fusion.plan import Space, Tensor
from .memory import DATA_OFFSET
from .ops.iteration import Iteration, Roles
from .ops.kernels import repeat as words
from .ops.kernels.spec import handwritten
from .pool import KERNEL, REPLAY

REPEAT = handwritten("repeat", "repeat:make_repeat")
_FIRST = 64  # iterations of the first native call
_SHORT, _LONG = 0.01, 0.1  # seconds of a native call: Python looks for signals between them


def turn_of(executor: Executor, binding: Binding, inputs: Sequence[str], outputs: Mapping[str, int], roles: Roles) -> Turn | None:
    """The turn of a body's plan for a binding, if it has one.

    Args:
        inputs: names of the plan's inputs. outputs: for each output of the body its place in the plan's.
    """
    native = len(executor.segments) == 1 and executor.segments[0].host is None
    given, made = binding.inputs, binding.outputs
    if not native or not all(isinstance(x, Tensor) and x.dtype != object for x in (*given, *made)):
        return None
    for name, result in roles.states:
        before, after = given[inputs.index(name)], made[outputs[result]]
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            return None
    condition = given[inputs.index(roles.states[0][0])] if roles.conditional else None
    if condition is not None and (condition.dtype != bool or condition.shape not in ((), (1,))):
        return None
    return Turn(executor, binding, inputs, outputs, roles)


class Turn:
    """One iteration of a body in memory: places in the table of addresses (`data`) and the rows of the kernel's tables.

    Attributes:
        size: number of addresses; the first are those of the plan's inputs and outputs.
        states: for each state that has two buffers its number and the places of its input, of its output and of the other buffer.
        rows: places of the rows. slices: places of the slices.
        arena: places of the arena's address. constants: places of constants, and their addresses.
    """

    def __init__(
        self, executor: Executor, binding: Binding, inputs: Sequence[str], outputs: Mapping[str, int], roles: Roles
    ) -> None:  # fmt: skip
        self.executor, self.binding, self.inputs = executor, binding, inputs
        self._outputs = binding.outputs
        self.slots = self.size = len(inputs) + len(self._outputs)
        self.copies: list[tuple[int, int, int, int]] = []
        self.states: list[tuple[int, int, int, int]] = []
        self.arena: list[int] = []
        self.constants: list[tuple[int, int]] = []
        self._taken: set[int] = set()
        for k, (name, result) in enumerate(roles.states):
            slot, ref = inputs.index(name), self._outputs[outputs[result]].ref
            if (ref.buffer.space, ref.buffer.index, ref.offset) != (Space.INPUT, slot, 0):
                self.states.append((k, slot, self._target(outputs[result]), self._word()))
        self.rows = [self._target(outputs[name]) for name in roles.rows]
        self.made = [self._outputs[outputs[name]] for name in roles.rows]
        self.slices = [inputs.index(name) for name in roles.slices]
        self.going = inputs.index(roles.states[0][0]) if roles.conditional else -1
        self.counter = inputs.index(roles.counter) if roles.counter else -1
        self.count = self._word()  # the counter itself

    def _word(self) -> int:
        self.size += 1
        return self.size - 1

    def _target(self, index: int) -> int:
        """Where an output is wanted: its own place for the first that wants it, else one that it is copied to."""
        out, own = self._outputs[index], len(self.inputs) + index
        if out.ref.buffer.space is Space.OUTPUT and index not in self._taken:
            self._taken.add(index)
            return own
        place = self._word()
        self.copies.append((place, *self._source(out, own), _nbytes(out)))
        return place

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

    def run(self, iteration: Iteration, feeds: Mapping[str, object]) -> None:
        """The iterations that are left.

        Args:
            feeds: the inputs of the first of them.

        Raises:
            KernelFault: a kernel met data that its operator does not allow.
        """
        context = self.executor.take(self.binding)
        try:
            _Run(self, context, iteration, feeds).all()
        finally:
            self.executor.give(context)


class _Run:
    """One run of a turn: the kernel's argument block, the addresses and the tables, as one array of words."""

    def __init__(self, turn: Turn, context: Context, iteration: Iteration, feeds: Mapping[str, object]) -> None:
        self.turn, self.iteration = turn, iteration
        self.job = context.jobs[0]
        self.buffers = [(np.empty_like(x), np.empty_like(x)) for x in (iteration.states[k] for k, *_ in turn.states)]
        data = [0] * turn.size
        for place in turn.arena:
            data[place] = context.address
        for place, address in turn.constants:
            data[place] = address
        data[turn.count] = iteration.done
        self.kept = [feeds[name] for name in turn.inputs]  # what is read has to live as long
        objects = [(slot, id(x), 0) for slot, x in enumerate(self.kept)]
        for slot, (array, backward) in zip(turn.slices, iteration.slices):
            at = (len(array) - 1 - iteration.done if backward else iteration.done) * _stride(array)
            objects[slot] = (slot, id(array), at)
        if turn.counter >= 0:
            del objects[turn.counter]  # a word of the table
        for (_, _, own, other), pair in zip(turn.states, self.buffers):
            objects += [(own, id(pair[0]), 0), (other, id(pair[1]), 0)]
        states = [places for _, *places in turn.states]
        moves = [(slot, -_stride(x) if backward else _stride(x)) for slot, (x, backward) in zip(turn.slices, iteration.slices)]
        moves += [(place, _nbytes(row)) for place, row in zip(turn.rows, turn.made)]
        moves.append((turn.count, 1))
        self._lay_out(data, ([(0, 0, 0)] * len(turn.rows) + objects, turn.copies, states, moves))
        begin = self.address + 8 * words.BLOCK_WORDS
        if turn.counter >= 0:
            self.words[words.BLOCK_WORDS + turn.counter] = begin + 8 * turn.count
        # the replay loop takes addresses from array objects: words of the table stand where those keep them
        first = begin - DATA_OFFSET
        context.buffers[: turn.slots] = range(first, first + 8 * turn.slots, 8)

    def _lay_out(self, data: list[int], tables: Sequence[Sequence[Sequence[int]]]) -> None:
        turn, executor = self.turn, self.turn.executor
        flat = [number for table in tables for row in table for number in row]
        self.words = np.array([0] * words.BLOCK_WORDS + data + flat, np.int64)
        self.address = self.words.ctypes.data
        at = self.address + 8 * (words.BLOCK_WORDS + turn.size)
        head = [executor.store.address(REPLAY), self.job.address, executor.helpers(self.job), 0, 0]
        head += [self.address + 8 * words.BLOCK_WORDS, turn.going, DATA_OFFSET]
        for table in tables:
            head += [at, len(table)]
            at += 8 * sum(map(len, table))
        self.words[: len(head)] = head

    def all(self) -> None:
        """All iterations, some in each native call."""
        iteration, block = self.iteration, self.words
        replay = KERNEL(self.turn.executor.store.address(REPEAT))
        began, count = iteration.done, _FIRST
        while iteration.goes_on:
            count = min(count, iteration.limit - iteration.done)
            self._reserve(iteration.done + count)
            block[words.COUNT] = count
            started = time.perf_counter()
            replay(self.address, 0, 0)
            seconds = time.perf_counter() - started
            iteration.done += int(block[words.DONE])
            fault = self.job.fault
            if fault is not None:
                raise fault
            last = (iteration.done - began + 1) % 2
            for (k, *_), pair in zip(self.turn.states, self.buffers):
                iteration.states[k] = pair[last]
            block[words.OBJECT_COUNT] = len(self.turn.rows)  # the others are known, and have moved on
            count = 2 * count if seconds < _SHORT else max(count // 2, 1) if seconds > _LONG else count

    def _reserve(self, count: int) -> None:
        """Room for the rows of so many iterations, which may be in another place then."""
        at = words.BLOCK_WORDS + self.turn.size
        for rows, place, row in zip(self.iteration.rows, self.turn.rows, self.turn.made):
            array = rows.reserve(row.shape, row.dtype, count)
            self.words[at : at + words.OBJECT_WORDS] = place, id(array), self.iteration.done * _nbytes(row)
            at += words.OBJECT_WORDS


def _stride(array: np.ndarray) -> int:
    """Bytes of a slice."""
    return array.nbytes // len(array)


def _nbytes(x: Tensor) -> int:
    size = x.dtype.itemsize
    for n in x.shape:
        size *= n
    return size
