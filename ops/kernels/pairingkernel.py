"""The kernel of `pairing`: what a task is, and the loops around the passes and the register tile (`pairingtile`).

Loop order of a task: K blocks; panels; tiles. The rows of A, scaled, stand in scratch for a K block, and stay in L2; a panel is
looked at before the first tile takes it, and stays there for all tiles.
"""

from __future__ import annotations

from collections.abc import Callable

from functools import lru_cache

from . import pairingwords as word
from . import target
from .ahead import ASKED, bringing

HEIGHTS = (8, 7, 6, 5, 4, 2, 1)  # of tiles: 20 accumulators, 6 vectors of a panel and sums fill 32 registers
TABLED = 15  # rows whose first tile one word tells


def factory() -> Callable:
    """The kernel. Task = (block of rows, block of panels), the panels running fastest; scratch: `pairing.scratch_bytes`."""
    from . import pairingtile, simd
    from .convkernel import finishing

    lanes = target.current().lanes
    width, vector, row_bytes = 2 * lanes, 4 * lanes, 8 * lanes
    take, measure, compare = pairingtile.taking(lanes), pairingtile.measuring(lanes), pairingtile.comparing(lanes)
    tile, finish, bring = pairingtile.tile(lanes, HEIGHTS), finishing(), bringing()
    words, load_word, load_one = simd.block, simd.load("i64", 0), simd.load("f32", 0)
    load, store, splat, total, first_lane = simd.load("f32", lanes), simd.store("f32"), simd.splat("f32", lanes), simd.reduce_add, simd.first
    first_lanes, select = simd.first_lanes(lanes), simd.select
    tallest, (few, more), tabled = HEIGHTS[0], _first_tiles(), TABLED
    turn, row_room, info_room = word.TURN, word.ROW_BYTES, word.INFO_BYTES
    infinity, inverse_odd = 0x7FF << 52, 4 * word.ODD

    def kernel(args, task, scratch):
        depth, panel_tasks, own_panels = args[word.DEPTH], args[word.PANEL_TASKS], args[word.OWN_PANELS]
        columns, rows, steps = args[word.COLUMNS], args[word.ROWS], args[word.STEPS]
        panel, panels = depth * row_bytes, (columns + width - 1) // width
        if task < 0:
            p = (-1 - task) % ASKED % panel_tasks * own_panels
            bring(args[word.B] + p * panel, min(own_panels, panels - p) * panel, (-1 - task) // ASKED)
            return
        p0, row = task % panel_tasks * own_panels, task // panel_tasks * args[word.OWN_ROWS]
        p1, own_rows = min(panels, p0 + own_panels), min(args[word.OWN_ROWS], rows - row)
        clips = args[word.LOW] != infinity - (1 << 63) or args[word.HIGH] != infinity
        zeros = scratch + 64
        squares = zeros + row_bytes
        facts = squares + row_bytes
        pairs = facts + 128
        info = pairs + row_bytes
        copy = info + args[word.OWN_ROWS] * info_room
        copy += (4096 + 2048 - copy) % 4096
        for v in range(0, row_bytes, vector):
            store(zeros + v, splat(0.0))
        for kb in range((depth + steps - 1) // steps):
            k = kb * steps
            own = min(steps, depth - k)
            last = k + own >= depth
            turns, rest = own // turn, own % turn
            for p in range(p0, p1):
                b, c0 = args[word.B] + p * panel + k * row_bytes, p * width
                cols = min(width, columns - c0)
                measure(args, b, turns, rest, cols, pairs, squares, facts)
                if p == p0:
                    low = select(first_lanes(cols), load(squares), splat(0.0))
                    high = select(first_lanes(cols - lanes), load(squares + vector), splat(0.0))
                    store(facts + 16, total(low + high) * (splat(1.0) / splat(cols)))
                    take(args, args[word.X] + row * args[word.X_ROW] + k * 4, own_rows, own, facts + 16, copy, info)
                compare(args, squares, facts + 16, facts + 8)
                plain = 1.0 - load_word(facts) * load_word(facts + 8)
                base = zeros
                if k == 0 and args[word.BIAS] != 0:
                    base = args[word.BIAS] + c0 * 4
                start, start_row = args[word.RESIDUAL], args[word.R_ROW]
                if k > 0:
                    start, start_row = args[word.Y], args[word.Y_ROW]
                if start != 0:
                    start += row * start_row + c0 * 4
                y, ahead, end = args[word.Y] + row * args[word.Y_ROW] + c0 * 4, b + panel, b + panel + own * row_bytes
                x, about, left, clip = copy, info, own_rows, 1 if last and clips else 0
                while left > 0:
                    height, odd = tallest, plain
                    if left <= tabled:
                        height = few >> 4 * (left - 1) & 15
                    elif left < 2 * tabled:
                        height = more >> 4 * (left - 1 - tabled) & 15
                    for i in range(height):
                        odd += load_one(about + i * info_room + inverse_odd)
                    if odd != 0:
                        tile(args, height, x, about, b, pairs, 0, own, 0, 0, base, start, start_row, y, cols, clip)
                    else:
                        tile(args, height, x, about, b, pairs, turns, rest, ahead, end, base, start, start_row, y, cols, clip)
                        ahead = min(end, ahead + turns * 256)
                    left, x, about, y = left - height, x + height * row_room, about + height * info_room, y + height * args[word.Y_ROW]
                    if start != 0:
                        start += height * start_row
                if last and args[word.EPILOGUE] != 0:
                    finish(args[word.EPILOGUE], args[word.EPILOGUE_BLOCK], scratch, 0, row, own_rows, c0, cols)

    return kernel


@lru_cache(maxsize=None)
def rows_cost(rows: int) -> float:
    """Cycles of a step of K of all tiles that rows are cut into."""
    if rows >= 3 * HEIGHTS[0]:
        each, rest = divmod(rows - 2 * HEIGHTS[0], HEIGHTS[0])
        return each * tile_cost(HEIGHTS[0]) + rows_cost(rest + 2 * HEIGHTS[0])
    return min((tile_cost(height) + rows_cost(rows - height) for height in HEIGHTS if height <= rows), default=0.0)


def tile_cost(height: int) -> float:
    """Cycles of a step of K: two additions and two multiply-adds of three steps, and a share of what surrounds them."""
    return max(4 * height / 3, 2.67) + 0.7


def _first_tiles() -> tuple[int, int]:
    """The height of the first tile of 1, 2 ... rows, 4 bits each, of up to `TABLED` in the first word."""
    first = [min((tile_cost(h) + rows_cost(rows - h), -h) for h in HEIGHTS if h <= rows)[1] for rows in range(1, 2 * TABLED)]
    low, high = (sum(-h << 4 * i for i, h in enumerate(part)) for part in (first[:TABLED], first[TABLED:]))
    return low, high
