"""Iterations of a body in native code (`ops/kernels/repeat.py`), without Python between them.

`turn` says how one iteration lies in memory; here are the kernel's words for one, and the calls that run many.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from .growth import Stretch
from .memory import DATA_OFFSET
from .ops.iteration import Iteration
from .ops.kernels import repeat as words
from .ops.kernels.spec import handwritten
from .pool import KERNEL, REPLAY

if TYPE_CHECKING:
    from .executor import Job
    from .nest import Chain
    from .turn import Turn

REPEAT = handwritten("repeat", "repeat:make_repeat")
SEQUENCE = handwritten("sequence", "nest:make_sequence")
_FIRST = 64  # iterations of the first native call
_REACH = 1 << 20  # iterations that are looked ahead for
_SHORT, _LONG = 0.01, 0.1  # seconds of a native call: Python looks for signals between them


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
            self.words[at + 1], self.words[at + 2] = id(array), iteration.done * row.nbytes
            at += words.OBJECT_WORDS
