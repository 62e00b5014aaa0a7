"""Code generation: the description of one fused loop -> Python source that defines its kernel.

Three shapes of loop, all over vectors of LANES elements (`ops/kernels/simd.py`):

- ROW: rows (outer dimensions) are shared among tasks; lanes run along a row. Without reductions a row may be split
  among tasks too. With reductions a row is passed over once per level of dependence: pass k computes what needs only
  the reductions of earlier passes, and what a later pass would have to compute dearly again waits in thread scratch.
- COLUMN: the reduced dimension is not the innermost in memory: lanes run across neighbouring rows instead.
- TILE: an epilogue: the contraction states batch, rows and columns of its tile in the first words of its scratch.

Sizes and strides are arguments, so the source depends on structure alone and equal structures share a kernel.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..ops.kernels.spec import KernelSpec, generated
from ..ops.primitives import Fold

# bytes at the start of a thread's scratch: the epilogue's coordinates, and half a page more, so that loads do not wait
# for stores of neighbouring elements whose addresses look alike in their low 12 bits (tensors begin at pages)
RESERVED = 64 + 2048
AHEAD = 1024  # bytes by which a single pass prefetches
# functions worth keeping a result of, rather than computing it again in a later pass
_DEAR = re.compile(r"\b(exp\w*|log\w*|tanh|sigmoid|erf|gelu\w*|softplus|pow|sin|cos|tan|a?(sin|cos|tan)h?|sqrt|mish)\(|/")


class Shape(enum.Enum):
    """The kind of loop (see the module's text)."""

    ROW = "row"
    COLUMN = "column"
    TILE = "tile"


class Access(enum.Enum):
    """How an operand moves along the lanes."""

    UNIT = "unit"
    ZERO = "zero"
    STRIDED = "strided"


@dataclass(frozen=True)
class Operand:
    """Memory that the loop reads or writes. `row`: it has one element a row (reduction results and what goes with them)."""

    dtype: str
    access: Access
    row: bool = False


@dataclass(frozen=True)
class Statement:
    """``target = text(args)`` for every element (or once a row), or a fold of one argument over the row.

    Names: ``v<i>`` values, ``x<i>`` operands read, ``s<i>`` scalars.
    """

    target: str
    text: str
    args: tuple[str, ...]
    dtype: str
    row: bool = False
    fold: Fold | None = None


@dataclass(frozen=True)
class LoopCode:
    """Everything that decides the source.

    Attributes:
        rank: number of outer dimensions that are stepped through (3 or 7; unused ones have size 1).
        operands: inputs and outputs; x<i> in statements. `stores`: (operand, value).
        scalars: register types of scalar arguments.
    """

    shape: Shape
    rank: int
    operands: tuple[Operand, ...]
    scalars: tuple[str, ...]
    statements: tuple[Statement, ...]
    stores: tuple[tuple[int, str], ...]

    # -- the argument block's layout
    @property
    def header(self) -> int:
        """Words before the operands: inner chunks, rows, rows a task, inner size, chunk, fold size, outer sizes."""
        return 0 if self.shape is Shape.TILE else 6 + self.rank

    @property
    def operand_words(self) -> int:
        """Words an operand: address, outer strides, stride along the lanes, stride along the folded dimension."""
        return 5 if self.shape is Shape.TILE else 3 + self.rank

    def place(self, operand: int) -> int:
        """Index of an operand's first word."""
        return self.header + operand * self.operand_words

    def scalar_place(self, scalar: int) -> int:
        """Index of a scalar argument."""
        return self.place(len(self.operands)) + scalar


def is_dear(text: str) -> bool:
    """Whether an expression takes so long that its result is worth keeping."""
    return bool(_DEAR.search(text))


def outer_rank(dims: int) -> int:
    """The rank class for a number of outer dimensions.

    Raises:
        ValueError: more than 7.
    """
    for rank in (3, 7):
        if dims <= rank:
            return rank
    raise ValueError(f"a loop over {dims} outer dimensions")


@dataclass(frozen=True)
class Generated:
    """A kernel and what its callers have to know.

    Attributes:
        lanes: elements of a vector.
        saved: number of values that wait in scratch between passes.
        cost: of one element, in operations as cheap as an addition or an access to memory.
    """

    kernel: KernelSpec
    shape: Shape
    lanes: int
    saved: int
    cost: int

    def scratch_bytes(self, row: int) -> int:
        """Thread scratch that a run needs; `row` is the inner size (ROW) or the folded size (COLUMN)."""
        width = row * self.lanes if self.shape is Shape.COLUMN else row + self.lanes
        return RESERVED + self.saved * width * 8 if self.saved else 0


@lru_cache(maxsize=2048)
def generate(code: LoopCode, lanes: int) -> Generated:
    """The kernel of a loop. Most loops of a model, and of all its shapes, are alike, so this remembers."""
    writer = _Writer(code)
    name = ("tail_" if code.shape is Shape.TILE else "") + names_of(code.statements)
    cost = sum(8 if is_dear(s.text) else 1 for s in code.statements) + len(code.operands)
    return Generated(generated(name, writer.write(), lanes), code.shape, lanes, len(writer.levels.in_scratch), cost)


class _Levels:
    """Which pass computes what."""

    def __init__(self, code: LoopCode) -> None:
        self.code = code
        self.by_target = {s.target: s for s in code.statements}
        self.level: dict[str, int] = {}
        for s in code.statements:
            self.level[s.target] = max((self.level.get(a, 0) for a in s.args), default=0) + (s.fold is not None)
        work = [self.level[s.args[0]] for s in code.statements if s.fold and s.args[0] in self.level]
        work += [0 for s in code.statements if s.fold]
        work += [self.level.get(value, 0) for i, value in code.stores if not code.operands[i].row]
        self.passes = max(work, default=-1) + 1
        self.saved = tuple(s.target for s in code.statements if self._is_saved(s))
        self.in_output = self._waiting_in_outputs() if code.shape is Shape.ROW else {}
        self.in_scratch = tuple(name for name in self.saved if name not in self.in_output)

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


class _Writer:
    def __init__(self, code: LoopCode) -> None:
        self.code, self.levels = code, _Levels(code)
        self.lines: list[str] = ["def kernel(args, task, scratch):"]
        self.column = code.shape is Shape.COLUMN

    def put(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def write(self) -> str:
        for i, dtype in enumerate(self.code.scalars):
            word = f"args[{self.code.scalar_place(i)}]"
            self.put(1, f"s{i} = splat_{dtype}({f'float_argument({word})' if dtype[0] == 'f' else word})")
        if self.code.shape is Shape.TILE:
            self._tile()
        else:
            self._rows()
        return "\n".join(self.lines) + "\n"

    # -- loops
    def _rows(self) -> None:
        code, rank = self.code, self.code.rank
        self.put(1, "chunks, rows, rows_per_task, n, chunk = args[0], args[1], args[2], args[3], args[4]")
        self.put(1, "fold_size = args[5]")
        self.put(1, "first_row = task // chunks * rows_per_task")
        self.put(1, "last_row = min(first_row + rows_per_task, rows)")
        self.put(1, "lo = task % chunks * chunk")
        self.put(1, "hi = min(lo + chunk, n)")
        for i, operand in enumerate(code.operands):
            at = code.place(i)
            if operand.access is Access.STRIDED:
                self.put(1, f"t{i} = args[{at + 1 + rank}]")
            if self.column:
                self.put(1, f"f{i} = args[{at + 2 + rank}]")
        count = len(code.operands)
        self.put(1, f"at = walk_from(args, first_row, {rank}, 6, {count}, {code.header}, {code.operand_words})")
        self.put(1, "for row in range(first_row, last_row):")
        for i in range(count):
            self.put(2, f"p{i} = at[{i}]")
        (self._column_body if self.column else self._row_body)(2)
        self.put(2, f"walk_on(at, {rank}, {count})")

    def _tile(self) -> None:
        self.put(1, "tile = block(scratch)")
        self.put(1, "rows, lo, n = tile[3], 0, tile[5]")
        self.put(1, "hi = n")
        for i, operand in enumerate(self.code.operands):
            at = self.code.place(i)
            column = {Access.UNIT: f" + tile[4] * {_size(operand.dtype)}", Access.ZERO: ""}.get(
                operand.access, f" + tile[4] * args[{at + 4}]"
            )
            self.put(1, f"t{i} = args[{at + 4}]")
            self.put(
                1, f"p{i} = args[{at}] + tile[0] * args[{at + 1}] + tile[1] * args[{at + 2}] + tile[2] * args[{at + 3}]{column}"
            )
        self.put(1, "for row in range(rows):")
        self._row_body(2)
        for i in range(len(self.code.operands)):
            self.put(2, f"p{i} += args[{self.code.place(i) + 3}]")

    def _row_body(self, depth: int) -> None:
        """One row: its passes, each a loop over whole vectors and one masked rest."""
        code, levels = self.code, self.levels
        for i, operand in enumerate(code.operands):
            if self._is_read(i) and (operand.row or operand.access is Access.ZERO):
                self.put(depth, f"x{i} = splat_{_register(operand.dtype)}(load_one_{operand.dtype}(p{i}))")
        for k in range(levels.passes):
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
        self._row_statements(depth, levels.passes)

    def _ahead(self, depth: int, k: int) -> list[int]:
        """The operands that pass k prefetches, with addresses n<i> in front of its loop.

        Hardware stops prefetching where a page ends, which is noticed too late. Loops of several passes ask for the next
        row while their second pass reads this one from L1; a single pass that computes long, for what comes soon.
        """
        several = self.levels.passes > 1
        if self.code.shape is Shape.TILE or k != several or not (several or any(is_dear(s.text) for s in self.code.statements)):
            return []
        found = [i for i in sorted(self.levels.loads(0)) if self.code.operands[i].access is Access.UNIT]
        for i in found:
            step = f"args[{self.code.place(i) + self.code.rank}]" if several else AHEAD
            self.put(depth, f"n{i} = p{i} + {step}")
        return found

    def _prefetch(self, depth: int, ahead: list[int]) -> None:
        for i in ahead:
            dtype = self.code.operands[i].dtype
            self.put(depth + 1, f"prefetch_{dtype}(n{i} + j * {_size(dtype)})")

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
                self.put(depth, f"x{i} = {self._load(i, f'p{i}', count)}")
        for k in range(self.levels.passes):
            self._row_statements(depth, k, count)
            self._start_folds(depth, k)
            self.put(depth, "for r in range(fold_size):")
            self._elements(depth + 1, k, count)
            self._finish_folds(depth, k)
        self._row_statements(depth, self.levels.passes, count)

    # -- statements
    def _row_statements(self, depth: int, k: int, count: str = "") -> None:
        """What is known once a row before pass k."""
        for s in self.code.statements:
            if s.row and not s.fold and self.levels.level[s.target] == k:
                self.put(depth, f"{s.target} = {_substitute(s)}")
        for i, value in self.code.stores:
            if self.code.operands[i].row and self.levels.level.get(value, 0) == k:
                if self.column:
                    self._store(depth, i, value, f"p{i}", count)
                else:
                    self.put(depth, f"store_{self.code.operands[i].dtype}(p{i}, first({value}))")

    def _elements(self, depth: int, k: int, count: str) -> None:
        """The statements of pass k for one vector; `count` is the number of valid lanes if not all are."""
        levels = self.levels
        done: set[str] = set()
        for name in levels.wanted(k):
            self._evaluate(depth, name, k, count, done)
        for name in levels.saved:
            if levels.level[name] == k:
                self._save(depth, name, count)
        for i, value in self.code.stores:
            if not self.code.operands[i].row and levels.level.get(value, 0) == k:
                self._store(depth, i, value, self._address(i), count)
        for s in self.levels.folds(k):
            self._fold(depth, s, count)

    def _evaluate(self, depth: int, name: str, k: int, count: str, done: set[str]) -> None:
        if name in done or name[0] == "s":
            return
        done.add(name)
        if name[0] == "x":
            operand = self.code.operands[int(name[1:])]
            if not operand.row and (self.column or operand.access is not Access.ZERO):
                self.put(depth, f"{name} = {self._load(int(name[1:]), self._address(int(name[1:])), count)}")
            return
        s = self.levels.by_target[name]
        if s.row or s.fold:
            return
        if name in self.levels.saved and self.levels.level[name] < k:
            self.put(depth, f"{name} = {self._saved(name, count)}")
            return
        for a in s.args:
            self._evaluate(depth, a, k, count, done)
        self.put(depth, f"{name} = {_substitute(s)}")

    # -- memory
    def _is_read(self, i: int) -> bool:
        return any(f"x{i}" in s.args for s in self.code.statements) or any(v == f"x{i}" for _, v in self.code.stores)

    def _address(self, i: int) -> str:
        return f"p{i} + r * f{i}" if self.column else f"p{i}"

    def _save(self, depth: int, name: str, count: str) -> None:
        if name in self.levels.in_output:
            i = self.levels.in_output[name]
            self._store(depth, i, name, self._address(i), count)
        else:
            self.put(depth, f"store_{self.levels.by_target[name].dtype}({self._scratch_place(name)}, {name})")

    def _saved(self, name: str, count: str) -> str:
        if name in self.levels.in_output:
            i = self.levels.in_output[name]
            return self._load(i, self._address(i), count)
        return f"load_{self.levels.by_target[name].dtype}({self._scratch_place(name)})"

    def _scratch_place(self, name: str) -> str:
        """Where a value of this vector waits: dense in a region for rows of elements of 8 bytes."""
        n = self.levels.in_scratch.index(name)
        size = _size(self.levels.by_target[name].dtype)
        if self.column:
            return f"scratch + {RESERVED} + ({n} * fold_size * 8 + r * {size}) * LANES"
        return f"scratch + {RESERVED} + {n} * ((hi - lo + LANES) * 8) + (j - lo) * {size}"

    def _load(self, i: int, base: str, count: str) -> str:
        operand = self.code.operands[i]
        d = operand.dtype
        if operand.access is Access.ZERO:
            return f"splat_{_register(d)}(load_one_{d}({base}))"
        if operand.access is Access.STRIDED:
            return f"load_strided_{d}({base} + j * t{i}, t{i}, {count or 'LANES'})"
        place = f"{base} + j * {_size(d)}"
        return f"load_first_{d}({place}, {count})" if count else f"load_{d}({place})"

    def _store(self, depth: int, i: int, value: str, base: str, count: str) -> None:
        operand = self.code.operands[i]
        d = operand.dtype
        if operand.access is Access.STRIDED:
            self.put(depth, f"store_strided_{d}({base} + j * t{i}, t{i}, {value}, {count or 'LANES'})")
            return
        place = f"{base} + j * {_size(d)}"
        self.put(depth, f"store_first_{d}({place}, {value}, {count})" if count else f"store_{d}({place}, {value})")

    # -- reductions
    def _start_folds(self, depth: int, k: int) -> None:
        for s in self.levels.folds(k):
            kind = self._fold_type(s)
            self.put(depth, f"a_{s.target} = splat_{kind}({_identity(s.fold, kind)})")
            if s.fold.value.startswith("arg"):
                self.put(depth, f"n_{s.target} = splat_i64(0)")

    def _fold_type(self, s: Statement) -> str:
        name = s.args[0]
        if name[0] == "x":
            return _register(self.code.operands[int(name[1:])].dtype)
        if name[0] == "s":
            return self.code.scalars[int(name[1:])]
        return self.levels.by_target[name].dtype

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
        for s in self.levels.folds(k):
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


def _register(dtype: str) -> str:
    return "f32" if dtype in ("f16", "bf16") else dtype


def _size(dtype: str) -> int:
    return 1 if dtype == "b1" else 2 if dtype in ("f16", "bf16") else int(dtype[1:]) // 8


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
