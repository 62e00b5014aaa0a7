"""Memory of a fused loop as source text: where an operand or a waiting value lies, and how it is loaded and stored.

A value that a later pass reads waits in the output that has room for it, else in the thread's scratch. An output that may be
streamed is decided about row by row: if its row begins with a cache line, results go past the caches, and what would have
waited there (at ``w<i>``) waits in scratch.
"""

from __future__ import annotations

from .loopcode import Access, LoopCode, Shape, register_of, size_of
from .schedule import Schedule

# bytes at the start of a thread's scratch: the epilogue's coordinates, and half a page more, so that loads do not wait
# for stores of neighbouring elements whose addresses look alike in their low 12 bits (tensors begin at pages)
RESERVED = 64 + 2048
LINE = 64  # bytes of a cache line


class LoopMemory:
    """Places, loads and stores of one loop. ``count`` is the number of valid lanes, or nothing if all are."""

    def __init__(self, code: LoopCode, schedule: Schedule) -> None:
        self.code, self.schedule = code, schedule
        self._column = code.shape is Shape.COLUMN

    def begin_row(self) -> list[str]:
        """Whether this row's results are streamed, which takes lines that begin where the row does, and what waits where."""
        streamed = self.schedule.streamed
        lines = [f"far{i} = far if p{i} % {LINE} == 0 else 0" for i in sorted(streamed)]
        for name, i in self.schedule.in_output.items():
            if i in streamed:
                size = size_of(self.code.operands[i].dtype)
                lines.append(f"w{i} = {self._row_in_scratch(name)} - lo * {size} if far{i} != 0 else p{i}")
        return lines

    def operand(self, i: int, count: str) -> str:
        """The elements of operand i."""
        return self._load(i, self._address(i), count)

    def result(self, i: int, value: str, count: str) -> str:
        """Store elements of output i for good."""
        if i in self.schedule.streamed and not count:
            return f"stream_{self.code.operands[i].dtype}({self._element(i, f'p{i}')}, {value}, far{i})"
        return self._store(i, self._address(i), value, count)

    def save(self, name: str, count: str) -> str:
        """Put a value where it waits."""
        if name in self.schedule.in_output:
            i = self.schedule.in_output[name]
            return self._store(i, self._room(i), name, count)
        return f"store_{self.schedule.by_target[name].dtype}({self._place_in_scratch(name)}, {name})"

    def saved(self, name: str, count: str) -> str:
        """A value that waited."""
        if name in self.schedule.in_output:
            i = self.schedule.in_output[name]
            return self._load(i, self._room(i), count)
        return f"load_{self.schedule.by_target[name].dtype}({self._place_in_scratch(name)})"

    def _load(self, i: int, base: str, count: str) -> str:
        """Elements like those of operand i, in the row that begins at `base`."""
        operand = self.code.operands[i]
        d = operand.dtype
        count = "" if operand.local else count
        if operand.access is Access.ZERO:
            return f"splat_{register_of(d)}(load_one_{d}({base}))"
        if operand.access is Access.STRIDED:
            return f"load_strided_{d}({base} + j * t{i}, t{i}, {count or 'LANES'})"
        return f"load_first_{d}({self._element(i, base)}, {count})" if count else f"load_{d}({self._element(i, base)})"

    def _store(self, i: int, base: str, value: str, count: str) -> str:
        operand = self.code.operands[i]
        d = operand.dtype
        count = "" if operand.local else count
        if operand.access is Access.STRIDED:
            return f"store_strided_{d}({base} + j * t{i}, t{i}, {value}, {count or 'LANES'})"
        place = self._element(i, base)
        return f"store_first_{d}({place}, {value}, {count})" if count else f"store_{d}({place}, {value})"

    def _element(self, i: int, base: str) -> str:
        """Where element j is of a row whose elements are neighbours."""
        return f"{base} + j * {size_of(self.code.operands[i].dtype)}"

    def _address(self, i: int) -> str:
        return f"p{i} + r * f{i}" if self._column and not self.code.operands[i].row else f"p{i}"

    def _room(self, i: int) -> str:
        """Where a value waits that output i has room for."""
        return f"w{i}" if i in self.schedule.streamed else f"p{i}"

    def _place_in_scratch(self, name: str) -> str:
        """Where a value of this vector waits: dense in a region for rows of elements of 8 bytes."""
        size = size_of(self.schedule.by_target[name].dtype)
        if self._column:
            return f"scratch + {RESERVED} + ({self.schedule.in_scratch.index(name)} * fold_size * 8 + r * {size}) * LANES"
        return f"{self._row_in_scratch(name)} + (j - lo) * {size}"

    def _row_in_scratch(self, name: str) -> str:
        return f"scratch + {RESERVED} + {self.schedule.in_scratch_at_most.index(name)} * ((hi - lo + LANES) * 8)"
