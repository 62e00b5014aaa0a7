"""The schedule of a fused loop: which of its passes over a row computes what.

A row with reductions is passed over once per level of dependence: pass k computes what needs only the reductions of
earlier passes. What a later pass would have to compute dearly again waits, in an output where one is free until then,
else in thread scratch.

A staged row, which has no reductions but a long chain of dear functions, is passed over once for every two of them, in blocks
that stay in L1: the CPU looks ahead into the next vectors only where the way through one is short. All results must come in
its last pass, as they may lie where operands do.

Results of the last of several passes may be streamed: if they are so many that no cache would hold them until they are
read, they go to memory without being read from there first, and what waited in their place waits in scratch instead.
"""

from __future__ import annotations

from collections.abc import Callable

from .loopcode import Access, LoopCode, Shape, Statement, is_dear

TOGETHER = 2  # dear functions, one after the other, of a pass of a staged row


class Schedule:
    """Which pass computes what.

    Attributes:
        level: the first pass that can compute a value: the number of reductions that it depends on, one after the other.
        is_staged: whether a row is done in blocks.
        passes: how often a row is passed over.
        saved: values that a later pass would have to compute dearly again: they wait, in an output or in scratch.
        in_output: the saved values that wait in an output, and in which.
        in_scratch: the others, in the order of their places.
        streamed: the outputs that may be streamed.
    """

    def __init__(self, code: LoopCode) -> None:
        self.code = code
        self.by_target = {s.target: s for s in code.statements}
        self.level = self._staged() if code.staged else self._levels(lambda s: s.fold is not None)
        self.is_staged = any(self.level.values()) if code.staged else False
        work = [self.level[s.args[0]] for s in code.statements if s.fold and s.args[0] in self.level]
        work += [0 for s in code.statements if s.fold]
        work += [self.level.get(value, 0) for i, value in code.stores if not code.operands[i].row]
        self.passes = max(work, default=-1) + 1
        self.saved = tuple(s.target for s in code.statements if self._is_saved(s))
        self.in_output = self._waiting_in_outputs() if code.shape is Shape.ROW else {}
        self.in_scratch = tuple(name for name in self.saved if name not in self.in_output)
        self.streamed = self._streamed()

    @property
    def in_scratch_at_most(self) -> tuple[str, ...]:
        """The values that scratch has room for: what waits in outputs comes to it too if these are streamed."""
        return self.in_scratch + tuple(name for name, i in self.in_output.items() if i in self.streamed)

    def _levels(self, counts: Callable[[Statement], bool]) -> dict[str, int]:
        """How many statements that count a value depends on, one after the other."""
        level: dict[str, int] = {}
        for s in self.code.statements:
            level[s.target] = max((level.get(a, 0) for a in s.args), default=0) + counts(s)
        return level

    def _staged(self) -> dict[str, int]:
        """The passes of a staged row; just one if results would come in several."""
        level = {name: max(0, n - 1) // TOGETHER for name, n in self._levels(lambda s: is_dear(s.text)).items()}
        last = max(level.values())
        return level if all(level.get(value, 0) == last for _, value in self.code.stores) else dict.fromkeys(level, 0)

    def _is_saved(self, s: Statement) -> bool:
        if s.row or s.fold or not self._dear(s.target):
            return False
        return any(k > self.level[s.target] for k in self._read_in(s.target))

    def wanted(self, k: int) -> list[str]:
        """What pass k computes for each element: arguments of its folds, what it stores, what later passes read."""
        names = [s.args[0] for s in self.folds(k)]
        names += [value for i, value in self.code.stores if not self.code.operands[i].row and self.level.get(value, 0) == k]
        return names + [name for name in self.saved if self.level[name] == k]

    def folds(self, k: int) -> list[Statement]:
        """The reductions over what pass k computes."""
        return [s for s in self.code.statements if s.fold and self.level.get(s.args[0], 0) == k]

    def loads(self, k: int) -> set[int]:
        """The operands whose elements pass k reads."""
        found: set[int] = set()
        waiting = self.wanted(k)
        while waiting:
            name = waiting.pop()
            if name[0] == "x":
                found.add(int(name[1:]))
            elif name in self.by_target and not (name in self.saved and self.level[name] < k):
                s = self.by_target[name]
                waiting += () if s.row or s.fold else s.args
        return {i for i in found if not self.code.operands[i].row and self.code.operands[i].access is not Access.ZERO}

    def _waiting_in_outputs(self) -> dict[str, int]:
        """Saved values that can wait where the result of a later pass goes: in an output which lies dense in memory.

        The result may take the place of an operand, so no operand may be read after the value is there.
        """
        homes: dict[str, int] = {}
        for name in self.saved:
            k = self.level[name]
            if any(self.loads(later) for later in range(k + 1, self.passes)):
                continue
            for i, value in self.code.stores:
                operand = self.code.operands[i]
                last = max(self._read_in(name)) <= self.level.get(value, 0)
                dense = operand.access is Access.UNIT and not operand.row and operand.dtype == self.by_target[name].dtype
                if last and dense and self.level.get(value, 0) > k and i not in homes.values():
                    homes[name] = i
                    break
        return homes

    def _streamed(self) -> frozenset[int]:
        if self.code.shape is not Shape.ROW or self.is_staged or self.passes < 2:
            return frozenset()
        last = [i for i, value in self.code.stores if self.level.get(value, 0) == self.passes - 1]
        return frozenset(i for i in last if self.code.operands[i].access is Access.UNIT and not self.code.operands[i].row)

    def _dear(self, name: str) -> bool:
        s = self.by_target.get(name)
        if s is None or s.row or s.fold:
            return False
        return is_dear(s.text) or len(s.text) > 40 or any(self._dear(a) for a in s.args)

    def _read_in(self, name: str) -> set[int]:
        """The passes that evaluate a value, directly or through values that are computed again."""
        passes = {self.level[name]} if any(v == name for _, v in self.code.stores) else set()
        for s in self.code.statements:
            if name in s.args:
                if s.fold:
                    passes.add(self.level[s.target] - 1)
                elif not s.row:
                    passes.add(self.level[s.target])
                    if not self._dear(s.target):
                        passes |= self._read_in(s.target)
        return passes
