"""Loops that are steps of a plan, run by native code: `Nested` is one of them in a context, `Chain` all of a plan's segments.

So a loop in a plan costs little to begin, and a body with a loop in it is native as a whole and can be repeated itself. The loop's
own memory (a table of addresses, two buffers a state, an arena) belongs to the context of the plan that it is a step of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .fusion.plan import HostStep, Plan, Space, Step, Tensor
from .memory import DATA_OFFSET, Arena
from .ops.iteration import AT_ONCE
from .ops.kernels import nest as words
from .ops.kernels import repeat
from .ops.kernels.replay import FAULT
from .ops.kernels.spec import handwritten
from .pool import KERNEL, REPLAY
from .repeat import REPEAT, Words
from .turn import Turn

if TYPE_CHECKING:
    from .executor import Context, KernelFault

NEST = handwritten("nest", "nest:make_nest")
_WORK = 1 << 28  # arithmetic and bytes of a loop that is not left to Python: some hundredths of a second
_LOOPS = 64  # iterations of one whose body has loops, which are as long again


def with_native_loops(plan: Plan) -> Plan:
    """The plan in which those of its loops have turns that native code can begin."""
    if plan.is_open or not any(isinstance(step, HostStep) and step.nest is not None for step in plan.steps):
        return plan
    return replace(plan, steps=tuple(replace(s, turn=_turn(s)) if isinstance(s, HostStep) else s for s in plan.steps))


def nested_turns(plan: Plan) -> Mapping[int, Turn]:
    """The turns of these loops, by the step's number."""
    return {i: step.turn for i, step in enumerate(plan.steps) if isinstance(step, HostStep) and isinstance(step.turn, Turn)}


def _turn(step: HostStep) -> Turn | None:
    """The turn of a loop that native code can begin; None: it is another step."""
    if step.nest is None or step.body is None or not _is_placed(step):
        return None
    turn = step.body.turn(step.nest.roles, step.nest.kinds)
    return turn if isinstance(turn, Turn) and turn.is_alone else None


def _is_placed(step: HostStep) -> bool:
    """Whether all that a loop is given has a place in memory, and its states; the condition, which is the second, may be absent."""
    given = all(isinstance(x, Tensor) or (x is None and i == 1) for i, x in enumerate(step.inputs))
    return given and all(isinstance(x, Tensor) for x in step.outputs[: len(step.nest.roles.states) - 1])


class Nested:
    """A loop of a context."""

    def __init__(self, context: Context, step: HostStep, turn: Turn) -> None:
        self.context, self.step, self.turn = context, step, turn
        self.loop, self.arena = Words(turn), Arena()
        self.always = np.array(True)
        self.words = np.zeros(words.NEST_WORDS, np.int64)
        self.address: int = self.words.ctypes.data
        store = context.executor.store
        self.native = KERNEL(store.address(NEST))
        self.words[words.REPEAT], self.words[words.LOOP] = store.address(REPEAT), self.loop.address
        self.words[words.OFFSET], self.words[words.MOST_COUNT] = DATA_OFFSET, _most(turn)

    def bind(self) -> None:
        """Take over where the context's memory lies."""
        turn, loop, block = self.turn, self.loop, self.words
        loop.context.get_ready(turn.binding, self.arena)
        loop.words[repeat.OBJECT_COUNT] = 0
        for place in turn.arena:
            loop.data[place] = self.arena.address
        data = int(loop.words[repeat.DATA])
        shapes = [turn.binding.inputs[slot] for _, slot, *_ in turn.states]
        self.buffers = [np.empty(x.shape, x.dtype) for x in shapes for _ in range(2)]
        places = [place for _, _, *pair in turn.states for place in pair]
        written = [(data + 8 * place, 0, x.ctypes.data) for place, x in zip(places, self.buffers)]
        written += [(data + 8 * slot, *self._source(name)) for slot, name in enumerate(turn.inputs) if slot != turn.counter]
        written += [(data + 8 * turn.count, 0, 0), (self.address + 8 * words.COUNT, *self._source(""))]
        names = [name for name, _ in self.step.nest.roles.states[1:]]
        results = [(data + 8 * turn.inputs.index(name), *self._place(x), x.nbytes) for name, x in zip(names, self.step.outputs)]
        self.tables = [np.array(table, np.int64) for table in (written, results)]
        for at, table in zip((words.WRITTEN, words.RESULTS), self.tables):
            block[at], block[at + 1] = table.ctypes.data, len(table)

    def share(self) -> None:
        """Let the loop have the pool's threads."""
        self.loop.share()

    def run(self) -> bool:
        """Run the loop; whether it is done, and not left to Python."""
        self.share()
        self.native(self.address, 0, 0)
        return not self.words[FAULT]

    def run_with_rows(self, count: int) -> list[np.ndarray]:
        """Run so many iterations, or as many as the condition allows, and give their rows; nothing: it is left to Python."""
        made = self.turn.made
        if not 0 < count <= self.words[words.MOST_COUNT] or count * sum(x.nbytes for x in made) > AT_ONCE:
            return []
        rows = [np.empty((count, *x.shape), x.dtype) for x in made]
        for place, array in zip(self.turn.rows, rows):
            self.loop.data[place] = array.ctypes.data
        self.loop.words[repeat.DONE] = 0
        done = int(self.loop.words[repeat.DONE]) if self.run() else 0
        return rows if done == count else [array[:done].copy() for array in rows] if done else []

    def _source(self, name: str) -> tuple[int, int]:
        """What the body's input of this name is at first."""
        x = self.step.inputs[self.step.nest.inputs.index(name)]
        return (0, self.always.ctypes.data) if x is None else self._place(x)

    def _place(self, x: Tensor) -> tuple[int, int]:
        """Where a value of the plan lies: address of an array object's address, or 0, and what is added to that of its data."""
        context, space, index = self.context, x.ref.buffer.space, x.ref.buffer.index
        if space is Space.ARENA:
            return 0, context.address + index + x.ref.offset
        if space is Space.CONSTANT:
            return 0, context.executor.words.constants[index] + x.ref.offset
        slot = index + (len(context.executor.plan.inputs) if space is Space.OUTPUT else 0)
        return context.buffers.ctypes.data + 8 * slot, x.ref.offset


class Chain:
    """All segments of a context as one native call."""

    def __init__(self, context: Context) -> None:
        self.context, executor = context, context.executor
        self.parts = [context.nested.get(s.first) or context.jobs[s.first] for s in executor.segments]
        replay, nest = executor.store.address(REPLAY), executor.store.address(NEST)
        rows = [(nest if isinstance(part, Nested) else replay, part.address, 0) for part in self.parts]
        self.rows = np.array(rows, np.int64)
        self.words = np.zeros(words.SEQUENCE_WORDS, np.int64)
        self.words[words.PARTS], self.words[words.PART_COUNT] = self.rows.ctypes.data, len(self.rows)
        self.address: int = self.words.ctypes.data

    def share(self) -> None:
        """Let segments have the pool's threads."""
        for row, part in zip(self.rows, self.parts):
            if isinstance(part, Nested):
                part.share()
            else:
                row[2] = self.context.executor.helpers(part)

    @property
    def fault(self) -> KernelFault | None:
        """What went wrong in the last run, if no loop was left to Python."""
        number = int(self.words[FAULT])
        part = self.parts[number - 1] if number else None
        return None if part is None or isinstance(part, Nested) else part.fault

    @property
    def is_left(self) -> bool:
        """Whether a loop was left to Python in the last run."""
        number = int(self.words[FAULT])
        return number > 0 and isinstance(self.parts[number - 1], Nested)


def _most(turn: Turn) -> int:
    """Iterations of a native call that nobody can interrupt."""
    work = sum(step.flops + step.bytes for step in turn.executor.plan.steps if isinstance(step, Step))
    return max(1, min(_LOOPS if turn.executor.turns else words.MOST, _WORK // max(work, 1)))
