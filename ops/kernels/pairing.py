"""Matrix products with a third less to multiply, for CPUs that add beside multiplying: C = A B of many rows, packed panels of B.

Two terms of a sum are one product of sums, x0 b0 + x1 b1 = (x0 + b1) (x1 + b0) - x0 x1 - b0 b1, and what is taken away belongs
to a row of A or a column of B alone (Winograd, A new algorithm for inner product, 1968). That halves multiplications and doubles
additions. Zen 4 has units for either, so that of three terms two are made a pair and one is multiplied as it is: two multiply-adds
and, beside them, two additions in place of three multiply-adds, half as many terms again in a cycle.

Nothing is lost by it if both operands of a sum are of like size: rows of A are multiplied by powers of 2 that make them as long
as columns of B. Where that is no help the same tile goes without pairs (`pairingkernel`): for a column much longer or shorter
than others, for features that are large where weights are small, a row that is nearly one element, NaN and infinity. Every other
pair is one of differences, x0 b0 + x1 b1 = x0 x1 + b0 b1 - (b1 - x0) (b0 - x1), so that what is taken away stays small for
operands of one sign as well. Errors are those of a plain sum, or a fifth more: twice those of `conv`, which adds up in parts.

Numba-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from . import blocking as direct
from . import pairingwords as word
from . import target
from .blocking import panel_width
from .convweights import PackedWeights
from .halves import KINDS
from .image import SIZES
from .launch import Launch
from .matrix import Matrix, product_words
from .sizes import deferred
from .spec import KernelSpec, handwritten

_FEWEST = 16  # rows
_MOST_BYTES = (target.second_cache() or 512 << 10) * 5 // 8  # of a task's rows in scratch, which stay in L2
_BLOCKS, _TASKS = 4, 2  # numbers of blocks of rows that are tried; tasks of a thread, at the most, that are side by side
# cycles of one core, fitted to products of the sizes that real networks have
_PANEL, _ROW = 2.2, 0.5  # for a step of K of a panel that is looked at; for an element of a row that is taken
_REST = 1.6  # times as long as one in a turn takes a step of K that is left over
_LATE = 0.03  # tasks, what threads wait for the last one
_GAIN = 0.97  # of the direct way's time, which it has to stay below


@dataclass(frozen=True)
class Cut:
    """How a product is cut; all numbers are 0 if the direct way is faster.

    Attributes:
        steps: K steps of a K block.
        own_rows, own_panels: of a task; panel_tasks: tasks side by side.
    """

    steps: int = 0
    own_rows: int = 0
    own_panels: int = 0
    panel_tasks: int = 0
    tasks: int = 0


def kernel() -> KernelSpec:
    """The kernel of all such products."""
    return handwritten("pairing", "pairingkernel:factory", ahead=True)


def launch(
    a: Matrix, weights: PackedWeights, c: Matrix, residual: Matrix | None, finish: tuple, made: Cut, label: str
) -> Launch:  # fmt: skip
    """Products by pairs, cut as it is said; arguments as in `ways.instead`."""
    (_, rows, depth), n = a.shape, c.shape[2]
    cut = made.steps, made.own_rows, made.own_panels, made.panel_tasks
    args = (*product_words(a, weights.address, c, residual, finish), rows, n, depth, *cut, KINDS.index(weights.held))
    assert len(args) == word.WORDS
    flops, moved = 2 * rows * n * depth, 4 * rows * (depth + n) + SIZES[weights.held or "f32"] * n * depth
    return Launch(kernel(), args, made.tasks, scratch_bytes(made.own_rows, bool(weights.held)), label, flops, moved)


@deferred()
def scratch_bytes(rows: int, widens: bool) -> int:
    """What a task of so many rows needs."""
    return word.INFO_AT + rows * (word.INFO_BYTES + word.ROW_BYTES) + word.PAGE + (word.WIDE_BYTES if widens else 0)


def possible(depth: int, columns: int) -> bool:
    """Whether there may be numbers of rows for which it is faster."""
    return target.current().pairs and depth >= 4 * word.TURN and columns >= 2 * panel_width(4)


@deferred()
def cut(rows: int, depth: int, columns: int, threads: int) -> Cut:
    """How A[rows, depth] B[depth, columns] is cut; nothing if the direct way is expected to be faster, or rows are too few."""
    return _cut(rows, depth, columns, threads) if rows >= _FEWEST else Cut()


@lru_cache(maxsize=4096)
def _cut(rows: int, depth: int, columns: int, threads: int) -> Cut:
    k_blocks, panels = -(-depth // word.MOST_STEPS), -(-columns // panel_width(4))
    steps = -(-depth // (k_blocks * word.TURN)) * word.TURN
    left = sum(min(steps, depth - k) % word.TURN for k in range(0, depth, steps))
    most, late = _MOST_BYTES // word.ROW_BYTES, _LATE if threads > 1 else 0.0
    best, made = _GAIN * direct.cycles(rows, depth, columns, threads), Cut()
    fewest = -(-rows // most)
    for own_rows in {each for down in range(fewest, fewest + _BLOCKS) for each in _heights(rows, -(-rows // down)) if each <= most}:
        step, tiles = tiles_cost(own_rows)
        panel = depth * _PANEL + (depth + left * _REST) * step + k_blocks * direct.BEGINNING * tiles
        down = -(-rows // own_rows)
        for across in range(1, _TASKS * threads + 1):
            own_panels = -(-panels // across)
            panel_tasks = -(-panels // own_panels)
            tasks = panel_tasks * down
            task = own_panels * panel + own_rows * depth * _ROW
            cycles = (-(-tasks // threads) + late) * task + direct.moving_cycles(rows, depth, threads, down)
            if cycles < best:
                best, made = cycles, Cut(steps, own_rows, own_panels, panel_tasks, tasks)
    return made


def _heights(rows: int, least: int) -> tuple[int, int]:
    """Rows of a task: as few as there may be, or full tiles."""
    tallest = word.HEIGHTS[0]
    return least, min(rows, -(-least // tallest) * tallest)


@lru_cache(maxsize=4096)
def tiles_cost(rows: int) -> tuple[float, int]:
    """Cycles of a step of K of all tiles that rows are cut into, and their number."""
    tallest = word.HEIGHTS[0]
    full = max(0, rows // tallest - 2)
    cost, tiles, rest = full * _tile_cost(tallest), full, rows - full * tallest
    while rest > 0:
        height = first_tile(rest)
        cost, tiles, rest = cost + _tile_cost(height), tiles + 1, rest - height
    return cost, tiles


@lru_cache(maxsize=64)
def first_tile(rows: int) -> int:
    """The height of the first of the tiles that rows are cut into."""
    return word.HEIGHTS[0] if rows >= 2 * word.HEIGHTS[0] else _least_cost(rows)[1]


@lru_cache(maxsize=64)
def _least_cost(rows: int) -> tuple[float, int]:
    """Cycles of a step of K of few rows, and the height of their first tile."""
    ways = ((_tile_cost(height) + _least_cost(rows - height)[0], -height) for height in word.HEIGHTS if height <= rows)
    cost, height = min(ways, default=(0.0, 0))
    return cost, -height


def _tile_cost(height: int) -> float:
    """Cycles of a step of K: four multiply-adds for three steps, and a share of what surrounds them."""
    return max(4 * height / 3, 8 / 3) + 0.7
