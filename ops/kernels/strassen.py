"""Matrix products with an eighth less to multiply: Strassen's way, once, for C = A B of many rows with packed panels of B.

Seven products of sums of quarters make the four quarters of C (Strassen, Gaussian elimination is not optimal, 1969; the form
with 15 additions is Winograd's). Quarters are small: rows of A from the two halves of a block of rows, columns of two
neighbouring panels, the two halves of a K block. So sums and products stay in the caches, and B lies in memory as it does for
the direct way, which takes over where operands differ too much for a product of their sums (`strassenpasses`).

Errors are about two and a half times those of `conv`, which adds up in parts: those of a plain sum of 1,000 terms, and less than
those of Winograd's convolution (bounds: Higham, Accuracy and Stability of Numerical Algorithms, 23.2.2). Numba-free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from . import strassenwords as word
from . import target
from .blocking import blocking, crosses_rows, most_rows, panel_width, split_row, tallest_tile, tile_cost
from .convwords import PART, PIECE
from .image import Opaque
from .launch import Launch, with_spare
from .matrix import Matrix
from .sizes import certainly, deferred, is_open, now
from .spec import KernelSpec, handwritten

_LEAST, _MOST = 28, 98  # rows of half a block
_VECTORS = 16  # rows: if there are fewer they are taken for single vectors, as those of a classifier
_BLOCKS = 5  # numbers of blocks that are tried
_STEPS = 384  # of half a K block, at the most
_TASKS = 2  # of a thread, at the most, if they need not be more
_TOGETHER = 4  # blocks of a task, at the most: their sums are in its scratch
_LINE = 64  # bytes
# cycles of one core, fitted to products of the sizes that real networks have
_COLUMNS, _ROWS, _OUTPUTS = 30, 45, 25  # for a step of K of two panels; for a vector of each quarter of A, and of C
_BEGINNING = 60  # of a tile
_APART = 20  # of a line of A that another core may have written, if tasks do not take its rows apart
_LATE = 0.03  # tasks, what threads wait for the last one
_GAIN = 0.985  # of the direct way's time, which it has to stay below


@dataclass(frozen=True)
class Cut:
    """How a product is cut; all numbers are 0 if the direct way is faster.

    Attributes:
        half: rows of half a block. steps: K steps of half a K block.
        first, count, second, seconds: tiles of half a block.
        blocks, own_blocks: of rows, in all and of a task. own_pairs: of panels, of a task; pair_tasks: tasks side by side.
    """

    half: int = 0
    steps: int = 0
    k_blocks: int = 0
    first: int = 0
    count: int = 0
    second: int = 0
    seconds: int = 0
    blocks: int = 0
    own_blocks: int = 0
    own_pairs: int = 0
    pair_tasks: int = 0
    tasks: int = 0


def instead(
    direct: Launch, a: Matrix, panels: Opaque, c: Matrix, residual: Matrix | None, finish: tuple, threads: int
) -> list[Launch]:
    """The launches for C = clip(A B + bias + residual, low, high) of float32: `direct`, or Strassen's way if that is faster.

    A plan whose number of rows is open has both, one of which has no tasks, unless it is made for a few vectors and serves few rows
    only; that has the kernel to spare.

    Args:
        a, c, residual: of one matrix each, whose columns are neighbours. panels: address of a B of constants.
        finish: bias, low, high and the epilogue, as in `conv`.
    """
    (batch, rows, depth), columns = a.shape, c.shape[2]
    if not possible(depth, columns):
        return [direct]
    made = cut(rows, depth, columns, threads)
    if not certainly(batch, 1) or _few(rows) or certainly(made.tasks, 0):
        return with_spare([direct], kernel())
    fast = launch(a, panels, c, residual, finish, made, direct.label)
    if is_open(made.tasks):
        return [replace(direct, tasks=_unless(made.tasks, direct.tasks)), fast]
    return with_spare([fast], direct.kernel)


@deferred()
def _unless(others: int, tasks: int) -> int:
    return 0 if others else tasks


def _few(rows: int) -> bool:
    """Whether there are vectors now, and too few rows for any cut at all times; an open number is not asked for more rows."""
    return now(rows) < _VECTORS and rows < 2 * _LEAST


def kernel() -> KernelSpec:
    """The kernel of all such products."""
    return handwritten("strassen", "strassenkernel:factory", ahead=True)


def launch(a: Matrix, panels: Opaque, c: Matrix, residual: Matrix | None, finish: tuple, made: Cut, label: str) -> Launch:
    """Strassen's way, cut as it is said."""
    (_, rows, depth), n, other = a.shape, c.shape[2], residual or c
    pairs, row = -(-n // (2 * panel_width(4))), made.steps * 4 + _LINE
    bias, low, high, *epilogue = finish
    args = (a.address, c.address, panels, bias, residual.address if residual else 0, float(low), float(high), *epilogue,
            a.strides[1], c.strides[1], other.strides[1], row, rows, n, depth, made.half, made.steps, made.k_blocks,
            made.first, made.count, made.second, made.seconds, made.blocks, made.own_blocks, pairs, made.own_pairs,
            made.pair_tasks)  # fmt: skip
    assert len(args) == word.WORDS
    flops, moved = 7 * rows * n * depth // 4, 4 * (rows * (depth + n) + n * depth)
    return Launch(kernel(), args, made.tasks, scratch_bytes(made.half, made.steps, made.own_blocks), label, flops, moved)


@deferred()
def scratch_bytes(half: int, steps: int, blocks: int) -> int:
    """What a task needs for so many blocks of rows."""

    def lines(nbytes: int) -> int:
        return -(-nbytes // _LINE) * _LINE

    row = panel_width(4) * 4
    tables = 64 + word.PAGE + word.TODO_BYTES + 2 * lines(8 * word.WORDS) + lines(-(-steps // PART) * PIECE) + 2 * lines(8 * half)
    tables += 8 * steps + lines(8 * blocks + 8) + (2 * tallest_tile() + 1) * row
    return tables + word.B_SUMS * steps * row + half * (word.PRODUCTS * row + blocks * word.A_OPERANDS * (steps * 4 + _LINE))


def possible(depth: int, columns: int) -> bool:
    """Whether there may be numbers of rows for which it is faster.

    Sums of few terms take longer to prepare than to add up, and low register tiles (AVX2) longer to begin than half as many K steps
    save: there it was measured to lose 4 to 12 %.
    """
    return not (crosses_rows() or depth % 2 or columns < 2 * panel_width(4) or depth < 8 * target.current().lanes)


@deferred()
def cut(rows: int, depth: int, columns: int, threads: int) -> Cut:
    """How A[rows, depth] B[depth, columns] is cut; nothing if the direct way is expected to be faster, or rows are too few."""
    return _cut(rows, depth, columns, threads)


@lru_cache(maxsize=4096)
def _cut(rows: int, depth: int, columns: int, threads: int) -> Cut:
    lanes, pairs, total = target.current().lanes, -(-columns // (2 * panel_width(4))), -(-rows // 2)
    k_blocks = -(-depth // (2 * _STEPS))
    steps = -(-depth // (2 * k_blocks * lanes)) * lanes
    tallest, fewest = min(most_rows(steps * 4 + _LINE), most_rows(depth * 4)), -(-total // _MOST)
    late = _LATE if threads > 1 else 0.0
    pair, best, made = _COLUMNS * depth / 2, _GAIN * _direct_cycles(rows, depth, columns, threads), Cut()
    for half in sorted({-(-total // blocks) for blocks in range(fewest, fewest + _BLOCKS) if total >= blocks * _LEAST}):
        step, tiles = _tiles(half, tallest)
        blocks, block = -(-total // half), _ROWS * half * depth / 2 / lanes
        # a block of rows and a pair of panels, for all of K
        both = 7 * (depth / 2 * step + k_blocks * _BEGINNING * (tiles[1] + tiles[3])) + k_blocks * _OUTPUTS * 2 * half
        if (blocks * (pairs * both + block) + pairs * pair) / threads >= best:
            continue  # whatever the tasks
        for own_blocks, own_pairs, tasks in _shares(blocks, pairs, threads):
            task = own_blocks * (own_pairs * both + block) + own_pairs * pair
            cycles = (-(-tasks // threads) + late) * task + _moving(rows, depth, threads, -(-blocks // own_blocks))
            if cycles < best:
                best = cycles
                made = Cut(half, steps, k_blocks, *tiles, blocks, own_blocks, own_pairs, -(-pairs // own_pairs), tasks)
    return made


def _direct_cycles(rows: int, depth: int, columns: int, threads: int) -> float:
    """Of each thread, the direct way."""
    step, (_, count, _, seconds) = _tiles(rows, most_rows(depth * 4))
    panel = depth * step + -(-depth // (2 * _STEPS)) * _BEGINNING * (count + seconds)
    flops = 2 * rows * depth * columns
    of_rows = blocking("f32", 1, rows, (1, 1, 1, depth), 1, columns, flops, 1, threads, depth * 4).row_blocks
    return -(-columns // panel_width(4)) * panel / threads + _moving(rows, depth, threads, of_rows)


def _moving(rows: int, depth: int, threads: int, row_blocks: int) -> float:
    """Cycles in which each thread waits for lines of A that others wrote, unless there is a block of rows for each."""
    return 0.0 if row_blocks >= threads else _APART * rows * depth * 4 / _LINE * (threads - 1) / threads


@lru_cache(maxsize=4096)
def _shares(blocks: int, pairs: int, threads: int) -> list[tuple[int, int, int]]:
    """Blocks and pairs of a task, and the number of tasks, of all cuts into few enough tasks, or the fewest that there may be."""
    most, fewest = _TASKS * threads, -(-blocks // _TOGETHER)
    downs = range(fewest, max(most, fewest + 1) + 1)
    cuts = {(-(-blocks // down), -(-pairs // across)) for down in downs for across in range(1, max(1, most // down) + 1)}
    return sorted((*own, -(-blocks // own[0]) * -(-pairs // own[1])) for own in cuts)


@lru_cache(maxsize=4096)
def _tiles(rows: int, tallest: int) -> tuple[float, tuple[int, int, int, int]]:
    """Cycles of a step of K of the tiles that rows are cut into, and first, count, second, seconds of them."""
    first, count, second, number = split_row(rows, tallest)
    seconds = number - count
    return count * tile_cost(first) + (seconds * tile_cost(second) if seconds else 0.0), (first, count, second, seconds)
