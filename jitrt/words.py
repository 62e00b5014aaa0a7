"""The words of a plan: argument blocks, tables of steps, patches and statuses, as one array of int64.

`Words` says once what stands where, `fill` makes the array of one context: it adds the context's addresses, and for a plan
with open sizes what follows from their values. Filling takes some microseconds, so a context may change its sizes between runs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .fusion.bindings import Binding
from .fusion.plan import Address, Block, HostStep, Plan, Ref, Space, Spare, Step
from .ops.kernels.ahead import PIECES
from .ops.kernels.sizes import Size
from .store import Store

_DOUBLE, _WORD = struct.Struct("d"), struct.Struct("q")  # a number's bits as a word


@dataclass(frozen=True)
class Table:
    """Where the tables of one native segment begin, and how long they are; `failing`: the steps with a status word."""

    steps: int
    step_count: int
    patches: int
    patch_count: int
    statuses: int
    failing: tuple[Step, ...]


@dataclass
class _Additions:
    """Words, by position, to which an element of an array is added."""

    at: list[int] = field(default_factory=list)
    of: list[int] = field(default_factory=list)

    def add(self, at: int, of: int = 0) -> None:
        self.at.append(at)
        self.of.append(of)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.at, np.int64), np.array(self.of, np.int64)


class Words:
    """What stands where.

    Attributes:
        tables: those of each native segment, by its first step.
    """

    def __init__(self, plan: Plan, segments: Sequence[tuple[int, int]], store: Store) -> None:
        self.plan, self.store = plan, store
        self.constants = [c.ctypes.data for c in plan.constants]
        self._numbers: list[int] = []
        self._own, self._arena, self._memories, self._sizes = (_Additions() for _ in range(4))
        self._patches: list[tuple[int, int, int | Size]] = []
        self.tables = {first: self._table(plan.steps[first:end]) for first, end in segments}
        self._template = np.array(self._numbers, np.int64)
        self._own_at = self._own.arrays()[0]
        self._arena_at = self._arena.arrays()[0]
        self._memory_at, self._memory_of = self._memories.arrays()
        self._size_at, self._size_of = self._sizes.arrays()

    def empty(self) -> np.ndarray:
        """The array of a context, to be filled."""
        return np.empty_like(self._template)

    def fill(self, words: np.ndarray, arena: int, binding: Binding) -> np.ndarray:
        """Write all words for a context's arena and the sizes of a run; gives those to which sizes are added, without them."""
        words[:] = self._template
        words[self._own_at] += words.ctypes.data
        words[self._arena_at] += arena
        if self.plan.is_open:
            words[self._memory_at] += binding.offsets[self._memory_of]
        rest = words[self._size_at]
        self.resize(words, rest, binding)
        return rest

    def resize(self, words: np.ndarray, rest: np.ndarray, binding: Binding) -> None:
        """Write the words that depend on sizes, of an array that was filled for the same places; `rest` is what that gave."""
        if self.plan.is_open:
            words[self._size_at] = rest + binding.values[self._size_of]

    def places_of_sizes(self) -> list[tuple[int, int]]:
        """The words to which open sizes are added, and which ones, by their numbers in the plan."""
        return list(zip(self._size_at.tolist(), self._size_of.tolist()))

    # -- laying out
    def _table(self, steps: Sequence[Step | HostStep]) -> Table:
        blocks = [(step, self._block(step.args)) for step in steps]
        table = len(self._numbers)
        for step, block in blocks:
            self._number(self.store.address(step.kernel))
            self._address(block)
            self._number(step.tasks)
            self._number(PIECES if step.kernel.ahead else 0)
        patches, taken = len(self._numbers), self._patches
        for block, slot, offset in taken:
            self._address(block)
            self._number(slot)
            self._number(offset)
        self._patches = []
        statuses = len(self._numbers)
        failing = [(step, block) for step, block in blocks if step.status is not None]
        for step, block in failing:
            self._address(block + step.status)
        return Table(table, len(blocks), patches, len(taken), statuses, tuple(step for step, _ in failing))

    def _number(self, number: int | Size) -> None:
        if isinstance(number, Size):
            self._sizes.add(len(self._numbers), self.plan.place(number))
            number = 0
        self._numbers.append(number)

    def _address(self, position: int) -> None:
        """The address of a word of the same array."""
        self._own.add(len(self._numbers))
        self._numbers.append(8 * position)

    def _block(self, args: Sequence[object]) -> int:
        """Where an argument block begins; those in it come before."""
        inner = {i: self._block(arg.args) for i, arg in enumerate(args) if type(arg) is Block}
        begin = len(self._numbers)
        for i, arg in enumerate(args):
            if type(arg) is int:
                self._numbers.append(arg)
            elif i in inner:
                self._address(inner[i])
            else:
                self._argument(arg)
        if not args:
            self._numbers.append(0)
        return begin

    def _argument(self, arg: object) -> None:
        if isinstance(arg, Ref):
            self._reference(arg)
        elif isinstance(arg, Address):
            self._number(self.store.address(arg.kernel))
        elif isinstance(arg, Spare):
            self._number(0)
        elif isinstance(arg, Size):
            self._number(arg)
        else:
            self._number(_WORD.unpack(_DOUBLE.pack(arg))[0] if isinstance(arg, float) else int(arg))

    def _reference(self, ref: Ref) -> None:
        """An address in a buffer; what each run brings is noted as a patch."""
        space, index, at = ref.buffer.space, ref.buffer.index, len(self._numbers)
        if space in (Space.INPUT, Space.OUTPUT):
            self._patches.append((at, index + (0 if space is Space.INPUT else len(self.plan.inputs)), ref.offset))
            self._numbers.append(0)
            return
        self._number(ref.offset)
        if space is Space.CONSTANT:
            self._numbers[at] += self.constants[index]
        elif self.plan.is_open:
            self._arena.add(at)
            self._memories.add(at, index)
        else:
            self._arena.add(at)
            self._numbers[at] += index
