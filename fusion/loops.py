"""From a fused loop and the places of its operands to a kernel and its argument block.

1. Every operand is viewed over the loop's index space; dimensions of size 1 go, the others are ordered as they lie in
   the memory of the first output, and neighbours that are dense for every operand become one.
2. The innermost dimension carries the lanes: ROW if reductions fold it (or there are none), else COLUMN.
3. Rows, and without reductions also parts of a row, are shared among tasks of a useful size.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..ops import evaluate
from ..ops.kernels import target
from ..ops.kernels.blocking import panel_width
from ..ops.kernels.launch import Launch
from ..ops.kernels.sizes import Size, alike, deferred, is_open, least, now
from ..ops.kernels.spec import KernelSpec
from ..ops.primitives import Layout, Map, Reduce, Tensor
from .codegen import generate
from .loopcode import Access, LoopCode, Operand, Shape, Statement, is_dear, outer_rank
from .loopmemory import LINE

# elements of work, weighted by their cost, that are worth a task of their own
TASK_WORK = 1 << 14
# elements from which vectors have to suit the length of a row; for fewer, other ones cost some microseconds at most
MANY = 1 << 13
# bytes of an output that caches do not keep until it is read: half of the last one
FAR = target.last_cache() // 2 or 1 << 24
Dims = tuple[int, ...]


class NotDense(Exception):
    """Operand `index` cannot be walked along the folded dimensions with one stride; it needs a dense copy."""

    def __init__(self, index: int) -> None:
        super().__init__(f"operand {index}")
        self.index = index


@dataclass(frozen=True)
class Body:
    """What a loop computes: statements over x<i> (reads), s<i> (scalars) and v<i>; `stores` are values of outputs.

    Attributes:
        reads: tensors read from memory; writes: tensors stored, in the order of `stores`.
        scalars: (register type, value).
    """

    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    scalars: tuple[tuple[str, float | int | Size], ...]
    statements: tuple[Statement, ...]
    stores: tuple[str, ...]


def body(members: Sequence[Map | Reduce], writes: Sequence[Tensor], row_shape: tuple[int, ...] | None) -> Body:
    """Number the values of the members. `row_shape`: the shape of values that exist once a row, if there are rows."""
    names: dict[int, str] = {}
    reads: list[Tensor] = []
    scalars: list[tuple[str, float | int | Size]] = []
    statements: list[Statement] = []

    def name(x: Tensor) -> str:
        if id(x) not in names:
            if x.is_constant and x.size == 1:
                names[id(x)] = f"s{len(scalars)}"
                scalars.append(
                    (evaluate.register_name(x.dtype), x.content.reshape(-1)[0] if x.is_open else x.constant.reshape(-1)[0].item())
                )
            else:
                names[id(x)] = f"x{len(reads)}"
                reads.append(x)
        return names[id(x)]

    for p in members:
        args = tuple(name(x) for x in p.inputs)
        target_name = f"v{len(statements)}"
        kind = evaluate.register_name(p.output.dtype)
        if isinstance(p, Reduce):
            statements.append(Statement(target_name, "", args, kind, row=True, fold=p.fold))
        else:
            row = row_shape is not None and alike(p.output.shape, row_shape)
            statements.append(Statement(target_name, p.text, args, kind, row=row))
        names[id(p.output)] = target_name
    return Body(tuple(reads), tuple(writes), tuple(scalars), tuple(statements), tuple(names[id(w)] for w in writes))


def launch(work: Body, space: Dims, axes: Dims, layouts: Sequence[Layout], addresses: Sequence[object], threads: int) -> Launch:
    """The kernel of a loop over `space` folding `axes`; layouts and addresses of the reads, then of the writes.

    Raises:
        NotDense: an operand has to be copied first.
    """
    nest = _nest(space, axes, layouts, first_write=len(work.reads), writes=len(work.writes))
    lanes = _lanes(work, nest.inner[0], prod(space))
    operands = tuple(
        Operand(
            evaluate.memory_name(x.dtype),
            _access(nest.lane_stride(i), x.dtype.itemsize),
            row=bool(axes) and nest.constant_along_fold(i),
        )
        for i, x in enumerate([*work.reads, *work.writes])
    )
    outer, inner, fold = nest.outer, nest.inner, nest.fold
    shape = Shape.COLUMN if nest.column else Shape.ROW
    code = LoopCode(
        shape, outer_rank(len(outer)), operands, tuple(t for t, _ in work.scalars), work.statements,
        tuple((len(work.reads) + i, value) for i, value in enumerate(work.stores)), not axes and _is_long(work, nest.inner[0]),
    )  # fmt: skip
    made = generate(code, lanes)
    rows = prod(n for n, _ in outer)
    whole_rows = bool(axes) and not nest.column
    tasks, rows_per_task, chunks, chunk = _share(rows, inner[0], fold[0], whole_rows, threads, made.cost, made.lanes)
    padding = code.rank - len(outer)
    longest = max(x.dtype.itemsize for x in work.writes)
    args: list[object] = [chunks, rows, rows_per_task, inner[0], chunk, fold[0], _is_far(rows, inner[0], longest)]
    args += [1] * padding + [n for n, _ in outer]
    for i, address in enumerate(addresses):
        args += [address] + [0] * padding + [strides[i] for _, strides in outer] + [inner[1][i], fold[1][i]]
    args += [_scalar(kind, value) for kind, value in work.scalars]
    scratch = made.scratch_bytes(fold[0] if nest.column else least(chunk, inner[0]))
    return Launch(made.kernel, tuple(args), tasks, scratch, _describe(space, axes, nest.column))


def epilogue(
    work: Body, matrix: tuple[Dims, ...], shape: Dims, layouts: Sequence[Layout], addresses: Sequence[object]
) -> tuple[KernelSpec, tuple[object, ...]]:
    """The kernel and arguments of elementwise work on tiles of a contraction's output of `shape`.

    Raises:
        NotDense: an operand has to be copied first.
    """
    tensors = [*work.reads, *work.writes]
    strides = [[one_stride(layout, shape, dims) for dims in matrix] for layout in layouts]
    for i, steps in enumerate(strides):
        if None in steps:
            raise NotDense(i)
    operands = tuple(
        Operand(evaluate.memory_name(x.dtype), _access(steps[3], x.dtype.itemsize)) for x, steps in zip(tensors, strides)
    )
    code = LoopCode(
        Shape.TILE, 3, operands, tuple(t for t, _ in work.scalars), work.statements,
        tuple((len(work.reads) + i, value) for i, value in enumerate(work.stores)),
    )  # fmt: skip
    args: list[object] = []
    for address, steps in zip(addresses, strides):
        args += [address, *steps]
    args += [_scalar(kind, value) for kind, value in work.scalars]
    lanes = _lanes(work, prod(shape[d] for d in matrix[3]), prod(shape))
    return generate(code, lanes).kernel, tuple(args)


def scores(
    work: Body, raw: Tensor, layouts: Sequence[Layout], addresses: Sequence[object], pitch: int, rows: bool = False
) -> tuple[KernelSpec, tuple[object, ...]]:
    """The kernel and arguments of elementwise work in place of a block of attention's scores.

    Args:
        raw: the scores among the reads; layouts and addresses are those of the others, over all scores: three dimensions of
            heads, keys, queries; with `rows` queries, keys.
        pitch: bytes between the block's rows, which are as long as two of the CPU's vectors.
        rows: whether they are as long as there are keys, and may be of any length.
    """
    others = iter(zip(layouts, addresses, strict=True))
    operands: list[Operand] = []
    args: list[object] = []
    for x in [*work.reads, *work.writes]:
        dtype, local = evaluate.memory_name(x.dtype), x is raw or x in work.writes
        if local:
            operands.append(Operand(dtype, Access.UNIT, local=True))
            args += [0, 0, 0, 0, pitch, x.dtype.itemsize]
        else:
            layout, address = next(others)
            operands.append(Operand(dtype, _access(layout.strides[-1], x.dtype.itemsize)))
            args += [address, *layout.strides]
    code = LoopCode(
        Shape.SCORE_ROWS if rows else Shape.SCORES, 4, tuple(operands), tuple(t for t, _ in work.scalars), work.statements,
        tuple((len(work.reads) + i, value) for i, value in enumerate(work.stores)),
    )  # fmt: skip
    args += [_scalar(kind, value) for kind, value in work.scalars]
    return generate(code, panel_width(raw.dtype.itemsize)).kernel, tuple(args)


def _lanes(work: Body, inner: int, total: int) -> int:
    """Elements of a loop's vectors: as many registers as hide the latency of one's chain behind the others' work.

    Two for most. Four for long rows if the chain is longer than what the CPU looks ahead (some 250 instructions). One for
    short rows that two do not fill, if there are many: with few it makes no difference, and a size that grows should not
    need a second kernel for nothing.
    """
    native = target.current().lanes
    if _is_long(work, inner):
        return 4 * native
    short = not is_open(inner) and inner < 4 * native and inner % (2 * native) != 0
    return native if short and now(total) >= MANY else 2 * native


def _is_long(work: Body, inner: int) -> bool:
    """Whether the chain is long, and rows are: two turns of several elementary functions, or many of one and a sum.

    Rows of an open length count as long for several functions: short ones lose less than long ones gain.
    """
    dear, native = sum(is_dear(s.text) for s in work.statements if not s.row), target.current().lanes
    if any(s.fold for s in work.statements):
        return dear >= 1 and inner >= 64 * native
    return dear >= 3 and (is_open(inner) or inner >= 8 * native)


# -- the loop nest
Level = tuple[int, list[int]]  # size, stride of every operand


@dataclass(frozen=True)
class _Nest:
    outer: list[Level]
    inner: Level
    fold: Level  # COLUMN: the folded dimension; ROW: unused, size 1
    column: bool

    def lane_stride(self, i: int) -> int:
        return self.inner[1][i]

    def constant_along_fold(self, i: int) -> bool:
        return (self.fold if self.column else self.inner)[1][i] == 0


def _nest(space: Dims, axes: Dims, layouts: Sequence[Layout], first_write: int, writes: int) -> _Nest:
    count = len(layouts)
    primary = _primary(space, layouts, first_write, writes)
    levels = {d: (n, [lay.strides[d] for lay in layouts]) for d, n in enumerate(space) if n != 1}
    free = sorted((d for d in levels if d not in axes), key=lambda d: -abs(primary[d]))
    folded = sorted((d for d in levels if d in axes), key=lambda d: -abs(primary[d]))
    none: Level = (1, [0] * count)
    if not axes and not levels and space:
        # one element: what moves along the last dimension is told from what does not, as for any other size
        return _Nest([], (1, [lay.strides[-1] for lay in layouts]), none, False)
    outer = _collapse([levels[d] for d in free])
    fold = _collapse([levels[d] for d in folded])
    if any(space[d] == 0 for d in folded):
        # nothing is walked: any stride will do that tells what varies along the fold from what does not
        fold = [(0, [max((levels[d][1][i] for d in folded), key=abs) for i in range(count)])]
    if len(fold) > 1:
        raise NotDense(_culprit(fold))
    if not axes:
        inner = outer.pop() if outer else none
        return _Nest(outer, inner, none, False)
    if fold and outer and min(abs(primary[d]) for d in free) < min(abs(primary[d]) for d in folded):
        return _Nest(outer[:-1], outer[-1], fold[0], True)
    return _Nest(outer, fold[0] if fold else none, none, False)


def _primary(space: Dims, layouts: Sequence[Layout], first_write: int, writes: int) -> Sequence[int]:
    """Strides that decide the order: of the first operand that covers the whole space, outputs first."""
    order = [*range(first_write, first_write + writes), *range(first_write)]
    covers = [sum(1 for n, s in zip(space, layouts[i].strides) if n > 1 and s) for i in order]
    return layouts[order[covers.index(max(covers))]].strides


def _collapse(levels: list[Level]) -> list[Level]:
    result: list[Level] = []
    for size, strides in levels:
        if result and alike(result[-1][1], [b * size for b in strides]):
            result[-1] = (result[-1][0] * size, strides)
        else:
            result.append((size, strides))
    return result


def _culprit(levels: list[Level]) -> int:
    """The first operand that keeps two neighbouring levels apart (the densest one is never blamed)."""
    for (_, a), (size, b) in itertools.pairwise(levels):
        bad = [i for i, (x, y) in enumerate(zip(a, b)) if not alike((x,), (y * size,))]
        if bad:
            return bad[0]
    raise AssertionError("levels that collapse")


def one_stride(layout: Layout, shape: Dims, dims: Dims) -> int | None:
    """The stride of a group of dimensions taken as one; None if they have no common one."""
    if any(shape[d] == 0 for d in dims):  # nothing is walked
        return layout.strides[dims[-1]]
    levels = _collapse([(shape[d], [layout.strides[d]]) for d in dims if shape[d] != 1])
    return None if len(levels) > 1 else levels[0][1][0] if levels else 0


def _access(stride: int, itemsize: int) -> Access:
    return Access.UNIT if stride == itemsize else Access.ZERO if stride == 0 else Access.STRIDED


# -- tasks
@deferred()
def _share(
    rows: int, inner: int, fold: int, whole_rows: bool, threads: int, cost: int, lanes: int
) -> tuple[int, int, int, int]:  # fmt: skip
    """(tasks, rows a task, chunks of a row, elements a chunk) of a loop that costs so much an element."""
    total = rows * inner * fold * cost
    wanted = max(1, min(total // TASK_WORK, 8 * threads))
    if threads == 1 or wanted < 2:
        return 1, rows, 1, max(inner, 1)
    wanted = -(-wanted // threads) * threads
    if whole_rows or rows >= wanted:
        per_task = -(-rows // min(wanted, rows))
        return -(-rows // per_task), per_task, 1, max(inner, 1)
    chunks = -(-wanted // max(rows, 1))
    unit = lanes * 4
    chunk = -(-inner // chunks // unit) * unit or unit
    chunks = -(-inner // chunk)
    return rows * chunks, 1, chunks, chunk


@deferred(least=0)
def _is_far(rows: int, inner: int, itemsize: int) -> int:
    """1 if an output of so many elements is better written past the caches: a large one of rows that are whole lines."""
    return int(rows * inner * itemsize >= FAR and inner * itemsize % LINE == 0)


def _scalar(kind: str, value: float | int | Size) -> object:
    """A number as an argument."""
    if isinstance(value, Size):
        return _float_bits(kind, value) if kind[0] == "f" else value
    return float(value) if kind[0] == "f" else _word(value)


@deferred(least=None)
def _float_bits(kind: str, value: int) -> int:
    """The word of a whole number as a float argument."""
    rounded = float(np.float32(value)) if kind == "f32" else float(value)
    return int(np.float64(rounded).view(np.int64))


def _word(value: int | bool) -> int:
    value = int(value)
    return value - (1 << 64) if value >= 1 << 63 else value


def _describe(space: Dims, axes: Dims, column: bool) -> str:
    text = "x".join(map(str, space)) or "scalar"
    return text + (f" fold {','.join(map(str, axes))}{' across' if column else ''}" if axes else "")
