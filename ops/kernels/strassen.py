"""Matrix products with an eighth less to multiply: Strassen's way, once, for C = A B of many rows with packed panels of B.

Seven products of sums of quarters make the four quarters of C (Strassen, Gaussian elimination is not optimal, 1969; the form
with 15 additions is Winograd's). Quarters are small: rows of A from the two halves of a block of rows, columns of two
neighbouring panels, the two halves of a K block. So sums and products stay in the caches, and B lies in memory as it does for
the direct way, which takes over where operands differ too much for a product of their sums (`strassenpasses`).

Errors are about two and a half times those of `conv`, which adds up in parts: those of a plain sum of 1,000 terms, and less than
those of Winograd's convolution (bounds: Higham, Accuracy and Stability of Numerical Algorithms, 23.2.2). Numba-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from . import blocking as direct
from . import strassenwords as word
from . import target
from .blocking import crosses_rows, most_rows, panel_width, split_row, tallest_tile, tile_cost
from .convweights import PackedWeights
from .convwords import PART, PIECE
from .halves import KINDS
from .image import SIZES
from .launch import Launch
from .matrix import Matrix, product_words
from .sizes import deferred
from .spec import KernelSpec, handwritten

_LEAST, _MOST = 28, 98  # rows of half a block
_BLOCKS = 5  # numbers of blocks that are tried
_STEPS = 384  # of half a K block, at the most
_TASKS = 2  # of a thread, at the most, if they need not be more
_TOGETHER = 4  # blocks of a task, at the most: their sums are in its scratch
_LINE = 64  # bytes
# cycles of one core, fitted to products of the sizes that real networks have
_COLUMNS, _ROWS, _OUTPUTS = 30, 45, 25  # for a step of K of two panels; for a vector of each quarter of A, and of C
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


def kernel() -> KernelSpec:
    """The kernel of all such products."""
    return handwritten("strassen", "strassenkernel:factory", ahead=True)


def launch(
    a: Matrix, weights: PackedWeights, c: Matrix, residual: Matrix | None, finish: tuple, made: Cut, label: str
) -> Launch:  # fmt: skip
    """Strassen's way, cut as it is said."""
    (_, rows, depth), n = a.shape, c.shape[2]
    pairs, row = -(-n // (2 * panel_width(4))), made.steps * 4 + _LINE
    args = (*product_words(a, weights.address, c, residual, finish), row, rows, n, depth, made.half, made.steps, made.k_blocks,
            made.first, made.count, made.second, made.seconds, made.blocks, made.own_blocks, pairs, made.own_pairs,
            made.pair_tasks, KINDS.index(weights.held))  # fmt: skip
    assert len(args) == word.WORDS
    flops, moved = 7 * rows * n * depth // 4, 4 * rows * (depth + n) + SIZES[weights.held or "f32"] * n * depth
    scratch = scratch_bytes(made.half, made.steps, made.own_blocks, bool(weights.held))
    return Launch(kernel(), args, made.tasks, scratch, label, flops, moved)


@deferred()
def scratch_bytes(half: int, steps: int, blocks: int, widens: bool) -> int:
    """What a task needs for so many blocks of rows."""

    def lines(nbytes: int) -> int:
        return -(-nbytes // _LINE) * _LINE

    row = panel_width(4) * 4
    tables = 64 + word.PAGE + word.TODO_BYTES + 2 * lines(8 * word.WORDS) + lines(-(-steps // PART) * PIECE) + 2 * lines(8 * half)
    tables += 8 * steps + lines(8 * blocks + 8) + (2 * tallest_tile() + 1) * row
    tables += 4 * steps * row if widens else 0
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
    pair, best, made = _COLUMNS * depth / 2, _GAIN * direct.cycles(rows, depth, columns, threads), Cut()
    for half in sorted({-(-total // blocks) for blocks in range(fewest, fewest + _BLOCKS) if total >= blocks * _LEAST}):
        step, tiles = _tiles(half, tallest)
        blocks, block = -(-total // half), _ROWS * half * depth / 2 / lanes
        # a block of rows and a pair of panels, for all of K
        both = 7 * (depth / 2 * step + k_blocks * direct.BEGINNING * (tiles[1] + tiles[3])) + k_blocks * _OUTPUTS * 2 * half
        if (blocks * (pairs * both + block) + pairs * pair) / threads >= best:
            continue  # whatever the tasks
        for own_blocks, own_pairs, tasks in _shares(blocks, pairs, threads):
            task = own_blocks * (own_pairs * both + block) + own_pairs * pair
            cycles = (-(-tasks // threads) + late) * task + direct.moving_cycles(rows, depth, threads, -(-blocks // own_blocks))
            if cycles < best:
                best = cycles
                made = Cut(half, steps, k_blocks, *tiles, blocks, own_blocks, own_pairs, -(-pairs // own_pairs), tasks)
    return made


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
