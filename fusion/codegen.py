"""Code generation: the description of one fused loop (`loopcode.py`) -> Python source that defines its kernel.

Which pass over a row computes what is decided in `schedule.py`; here it is written out, over vectors of LANES elements
(`ops/kernels/simd.py`). Where values lie, and how they are loaded and stored, is in `loopmemory.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..ops.kernels.spec import KernelSpec, generated
from ..ops.primitives import Fold
from .loopcode import SIZES_AT, Access, LoopCode, Shape, Statement, is_dear, register_of, size_of
from .loopmemory import RESERVED, LoopMemory
from .schedule import Schedule

BLOCK = 512  # elements of a staged row that all passes go over before the next ones
AHEAD_ROWS = 8  # by which work on scores does
AHEAD = 1024  # bytes by which a single pass prefetches


@dataclass(frozen=True)
class Generated:
    """A kernel and what its callers have to know.

    Attributes:
        lanes: elements of a vector.
        staged: whether rows are done block by block.
        saved: number of values that wait in scratch between passes.
        cost: of one element, in operations as cheap as an addition or an access to memory.
    """

    kernel: KernelSpec
    shape: Shape
    lanes: int
    staged: bool
    saved: int
    cost: int

    def scratch_bytes(self, row: int) -> int:
        """Thread scratch that a run needs; `row` is the inner size (ROW) or the folded size (COLUMN)."""
        row = BLOCK if self.staged else row
        width = row * self.lanes if self.shape is Shape.COLUMN else row + self.lanes
        return RESERVED + self.saved * width * 8 if self.saved else 0


@lru_cache(maxsize=2048)
def generate(code: LoopCode, lanes: int) -> Generated:
    """The kernel of a loop. Most loops of a model, and of all its shapes, are alike, so this remembers."""
    writer = _Writer(code)
    name = {Shape.TILE: "tail_", Shape.SCORES: "scores_", Shape.SCORE_ROWS: "scores_"}.get(code.shape, "") + names_of(
        code.statements
    )
    cost = sum(8 if is_dear(s.text) else 1 for s in code.statements) + len(code.operands)
    schedule = writer.schedule
    kernel = generated(name, writer.write(), lanes)
    return Generated(kernel, code.shape, lanes, schedule.is_staged, len(schedule.in_scratch_at_most), cost)


class _Writer:
    def __init__(self, code: LoopCode) -> None:
        self.code, self.schedule = code, Schedule(code)
        self.memory = LoopMemory(code, self.schedule)
        self.lines: list[str] = ["def kernel(args, task, scratch):"]
        self.column = code.shape is Shape.COLUMN

    def put(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def write(self) -> str:
        for i, dtype in enumerate(self.code.scalars):
            word = f"args[{self.code.scalar_place(i)}]"
            self.put(1, f"s{i} = splat_{dtype}({f'float_argument({word})' if dtype[0] == 'f' else word})")
        if self.code.blockwise:
            self._tile()
        else:
            self._rows()
        return "\n".join(self.lines) + "\n"

    # -- loops
    def _rows(self) -> None:
        code, rank = self.code, self.code.rank
        self.put(1, "chunks, rows, rows_per_task, n, chunk = args[0], args[1], args[2], args[3], args[4]")
        self.put(1, "fold_size, far = args[5], args[6]")
        self.put(1, "first_row = task // chunks * rows_per_task")
        self.put(1, "last_row = min(first_row + rows_per_task, rows)")
        first, last = ("begin", "end") if self.schedule.is_staged else ("lo", "hi")
        self.put(1, f"{first} = task % chunks * chunk")
        self.put(1, f"{last} = min({first} + chunk, n)")
        for i, operand in enumerate(code.operands):
            at = code.place(i)
            if operand.access is Access.STRIDED:
                self.put(1, f"t{i} = args[{at + 1 + rank}]")
            if self.column:
                self.put(1, f"f{i} = args[{at + 2 + rank}]")
        count = len(code.operands)
        self.put(1, f"at = walk_from(args, first_row, {rank}, {SIZES_AT}, {count}, {code.header}, {code.operand_words})")
        self.put(1, "for row in range(first_row, last_row):")
        for i in range(count):
            self.put(2, f"p{i} = at[{i}]")
        for line in self.memory.begin_row():
            self.put(2, line)
        if self.schedule.is_staged:
            self.put(2, f"for lo in range(begin, end, {BLOCK}):")
            self.put(3, f"hi = min(lo + {BLOCK}, end)")
            self._row_body(3)
        else:
            (self._column_body if self.column else self._row_body)(2)
        self.put(2, f"walk_on(at, {rank}, {count})")
        if self.schedule.streamed:
            self.put(1, "if far != 0:")
            self.put(2, "fence()")

    def _tile(self) -> None:
        """A block of rows and columns that the scratch names."""
        code = self.code
        *leads, first, count, column, columns = (0, 1, 2, 3, 4, 5) if code.shape is Shape.TILE else (0, 1, 2, 3, 4, 5, 6)
        self.put(1, "tile = block(scratch)")
        self.put(1, f"rows, lo, hi = tile[{count}], 0, tile[{columns}]")
        for i, operand in enumerate(code.operands):
            at = code.place(i)
            self.put(1, f"t{i}, r{i} = args[{at + 1 + code.rank}], args[{at + code.rank}]")
            step = {Access.UNIT: f"{size_of(operand.dtype)}", Access.ZERO: "0"}.get(operand.access, f"t{i}")
            terms = [f"tile[{word}] * args[{at + 1 + d}]" for d, word in enumerate((*leads, first))]
            start = f"args[{at}] + {' + '.join(terms)} + tile[{column}] * {step}"
            self.put(1, f"p{i} = {'tile[7]' if operand.local else start}")
        if code.shape is Shape.SCORES:
            self._panel()
            return
        self.put(1, "for row in range(rows):")
        self._row_body(2)
        self._next_row(2)

    def _panel(self) -> None:
        """Rows that are one vector each; what lies elsewhere is read no further than the queries go."""
        self.put(1, "j = 0")
        for head, count in (("if hi == LANES:", ""), ("else:", "hi")):
            self.put(1, head)
            self.put(2, "for row in range(rows):")
            for i, operand in enumerate(self.code.operands):
                if operand.access is Access.ZERO:
                    self.put(3, f"x{i} = {self.memory.operand(i, '')}")
                elif operand.access is Access.UNIT and not operand.local:  # rows lie pages apart
                    self.put(3, f"prefetch_{operand.dtype}(p{i} + {AHEAD_ROWS} * r{i})")
            self._elements(3, 0, count)
            self._next_row(3)

    def _next_row(self, depth: int) -> None:
        for i in range(len(self.code.operands)):
            self.put(depth, f"p{i} += r{i}")

    def _row_body(self, depth: int) -> None:
        """One row: its passes, each a loop over whole vectors and one masked rest."""
        code, schedule = self.code, self.schedule
        for i, operand in enumerate(code.operands):
            if self._is_read(i) and (operand.row or operand.access is Access.ZERO):
                self.put(depth, f"x{i} = splat_{register_of(operand.dtype)}(load_one_{operand.dtype}(p{i}))")
        for k in range(schedule.passes):
            self._row_statements(depth, k)
            self._start_folds(depth, k)
            ahead = self._ahead(depth, k)
            self.put(depth, "whole = lo + (hi - lo) // LANES * LANES")
            self.put(depth, "for j in range(lo, whole, LANES):")
            self._elements(depth + 1, k, "")
            self._prefetch(depth, ahead)
            self.put(depth, "if whole < hi:")
            self.put(depth + 1, "j = whole")
            self._elements(depth + 1, k, "hi - j")
            self._finish_folds(depth, k)
        self._row_statements(depth, schedule.passes)

    def _ahead(self, depth: int, k: int) -> list[int]:
        """The operands that pass k prefetches, with addresses n<i> in front of its loop.

        Hardware stops prefetching where a page ends, which is noticed too late. Loops of several passes ask for the next
        row while their second pass reads this one from L1; a single pass that computes long, for what comes soon.
        """
        several = self.schedule.passes > 1 and not self.schedule.is_staged
        if self.code.blockwise or k != several or not (several or any(is_dear(s.text) for s in self.code.statements)):
            return []
        found = [i for i in sorted(self.schedule.loads(0)) if self.code.operands[i].access is Access.UNIT]
        for i in found:
            step = f"args[{self.code.place(i) + self.code.rank}]" if several else AHEAD
            self.put(depth, f"n{i} = p{i} + {step}")
        return found

    def _prefetch(self, depth: int, ahead: list[int]) -> None:
        for i in ahead:
            dtype = self.code.operands[i].dtype
            self.put(depth + 1, f"prefetch_{dtype}(n{i} + j * {size_of(dtype)})")

    def _column_body(self, depth: int) -> None:
        """One row of vectors: for each vector of neighbouring rows its passes over the folded dimension."""
        self.put(depth, "whole = lo + (hi - lo) // LANES * LANES")
        self.put(depth, "for j in range(lo, whole, LANES):")
        self._column_passes(depth + 1, "")
        self.put(depth, "if whole < hi:")
        self.put(depth + 1, "j = whole")
        self._column_passes(depth + 1, "hi - j")

    def _column_passes(self, depth: int, count: str) -> None:
        for i, operand in enumerate(self.code.operands):
            if self._is_read(i) and operand.row:
                self.put(depth, f"x{i} = {self.memory.operand(i, count)}")
        for k in range(self.schedule.passes):
            self._row_statements(depth, k, count)
            self._start_folds(depth, k)
            self.put(depth, "for r in range(fold_size):")
            self._elements(depth + 1, k, count)
            self._finish_folds(depth, k)
        self._row_statements(depth, self.schedule.passes, count)

    # -- statements
    def _row_statements(self, depth: int, k: int, count: str = "") -> None:
        """What is known once a row before pass k."""
        for s in self.code.statements:
            if s.row and not s.fold and self.schedule.level[s.target] == k:
                self.put(depth, f"{s.target} = {_substitute(s)}")
        for i, value in self.code.stores:
            if self.code.operands[i].row and self.schedule.level.get(value, 0) == k:
                if self.column:
                    self.put(depth, self.memory.result(i, value, count))
                else:
                    self.put(depth, f"store_{self.code.operands[i].dtype}(p{i}, first({value}))")

    def _elements(self, depth: int, k: int, count: str) -> None:
        """The statements of pass k for one vector; `count` is the number of valid lanes if not all are."""
        schedule = self.schedule
        done: set[str] = set()
        for name in schedule.wanted(k):
            self._evaluate(depth, name, k, count, done)
        for name in schedule.saved:
            if schedule.level[name] == k:
                self.put(depth, self.memory.save(name, count))
        for i, value in self.code.stores:
            if not self.code.operands[i].row and schedule.level.get(value, 0) == k:
                self.put(depth, self.memory.result(i, value, count))
        for s in self.schedule.folds(k):
            self._fold(depth, s, count)

    def _evaluate(self, depth: int, name: str, k: int, count: str, done: set[str]) -> None:
        if name in done or name[0] == "s":
            return
        done.add(name)
        if name[0] == "x":
            operand = self.code.operands[int(name[1:])]
            if not operand.row and (self.column or operand.access is not Access.ZERO):
                self.put(depth, f"{name} = {self.memory.operand(int(name[1:]), count)}")
            return
        s = self.schedule.by_target[name]
        if s.row or s.fold:
            return
        if name in self.schedule.saved and self.schedule.level[name] < k:
            self.put(depth, f"{name} = {self.memory.saved(name, count)}")
            return
        for a in s.args:
            self._evaluate(depth, a, k, count, done)
        self.put(depth, f"{name} = {_substitute(s)}")

    def _is_read(self, i: int) -> bool:
        return any(f"x{i}" in s.args for s in self.code.statements) or any(v == f"x{i}" for _, v in self.code.stores)

    # -- reductions
    def _start_folds(self, depth: int, k: int) -> None:
        for s in self.schedule.folds(k):
            kind = self._fold_type(s)
            self.put(depth, f"a_{s.target} = splat_{kind}({_identity(s.fold, kind)})")
            if s.fold.value.startswith("arg"):
                self.put(depth, f"n_{s.target} = splat_i64(0)")

    def _fold_type(self, s: Statement) -> str:
        name = s.args[0]
        if name[0] == "x":
            return register_of(self.code.operands[int(name[1:])].dtype)
        if name[0] == "s":
            return self.code.scalars[int(name[1:])]
        return self.schedule.by_target[name].dtype

    def _fold(self, depth: int, s: Statement, count: str) -> None:
        target, value = f"a_{s.target}", s.args[0]
        kind = self._fold_type(s)
        if s.fold.value.startswith("arg"):
            better = {"argmax": ">", "argmin": "<", "argmax_last": ">=", "argmin_last": "<="}[s.fold.value]
            valid = "" if self.column or not count else f" & first_lanes({count})"
            index = "splat_i64(r)" if self.column else "iota_i64() + j"
            self.put(depth, f"better = ({value} {better} {target}){valid}")
            self.put(depth, f"{target} = select(better, {value}, {target})")
            self.put(depth, f"n_{s.target} = select(better, {index}, n_{s.target})")
            return
        if count and not self.column:
            neutral = f"splat_{kind}({_identity(s.fold, kind)})"
            self.put(depth, f"valid_{s.target} = select(first_lanes({count}), {value}, {neutral})")
            value = f"valid_{s.target}"
        combined = {
            Fold.ADD: f"{target} + {value}", Fold.MUL: f"{target} * {value}",
            Fold.MIN: f"minimum({target}, {value})", Fold.MAX: f"maximum({target}, {value})",
            Fold.MAXNUM: f"at_least({target}, {value})",
        }[s.fold]  # fmt: skip
        if kind == "b1" and s.fold in (Fold.MIN, Fold.MAX):
            combined = f"{target} {'&' if s.fold is Fold.MIN else '|'} {value}"
        self.put(depth, f"{target} = {combined}")

    def _finish_folds(self, depth: int, k: int) -> None:
        """The lanes of a row become one value, in every lane; columns are separate rows already."""
        for s in self.schedule.folds(k):
            total = f"a_{s.target}"
            if s.fold.value.startswith("arg"):
                self._finish_arg(depth, s, total)
                continue
            if not self.column:
                across = {Fold.ADD: "add", Fold.MUL: "mul"}.get(s.fold, s.fold.value)
                if self._fold_type(s) == "b1":
                    across = "and" if s.fold is Fold.MIN else "or"
                total = f"reduce_{across}({total})"
            self.put(depth, f"{s.target} = {total}")

    def _finish_arg(self, depth: int, s: Statement, total: str) -> None:
        if self.column:
            self.put(depth, f"{s.target} = n_{s.target}")
            return
        across = "maximum" if "max" in s.fold.value else "minimum"
        last = s.fold.value.endswith("last")
        worst = "splat_i64(-1)" if last else "splat_i64(9223372036854775807)"
        pick = "reduce_maximum" if last else "reduce_minimum"
        self.put(depth, f"best_{s.target} = reduce_{across}({total})")
        self.put(depth, f"{s.target} = {pick}(select({total} == best_{s.target}, n_{s.target}, {worst}))")


def _substitute(s: Statement) -> str:
    return re.sub(r"\b[a-z]\b", lambda m: s.args[ord(m.group()) - ord("a")], s.text)


def _identity(fold: Fold, kind: str) -> str:
    if fold is Fold.ADD:
        return "0"
    if fold is Fold.MUL:
        return "1"
    smallest = fold in (Fold.MAX, Fold.MAXNUM, Fold.ARGMAX, Fold.ARGMAX_LAST)
    if kind == "b1":
        return "0" if smallest else "1"
    if kind[0] == "f":
        return "-inf" if smallest else "inf"
    bits = int(kind[1:])
    low, high = (0, (1 << bits) - 1) if kind[0] == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return str(low if smallest else high)


def names_of(statements: Sequence[Statement]) -> str:
    """A short name for a kernel: its operations."""
    words: list[str] = []
    for s in statements:
        words += [s.fold.value] if s.fold else (re.findall(r"[a-z]\w+(?=\()", s.text) or _symbols(s.text) or ["copy"])
    short = "_".join(dict.fromkeys(words))
    return short[:48] or "copy"


def _symbols(text: str) -> list[str]:
    known = {"+": "add", "-": "sub", "*": "mul", "/": "div", "<": "lt", ">": "gt", "=": "eq", "&": "and", "|": "or", "~": "not"}
    return [known[c] for c in text if c in known]
