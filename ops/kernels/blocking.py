"""How one product of `conv` is cut: tiles of a row, K blocks, tasks.

Either the panels of a task stay in L2 and its tiles stream, or its tiles stay and the panels stream; `_share` weighs what
has to be read again from L3 against a last task that others wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, inf, prod

from . import target
from .image import SIZES
from .sizes import deferred

K_STEPS = 768  # of a K block, whose part of a panel every tile streams from L2
# Not all of L2: neighbours may share it, and what comes next needs room
SECOND_CACHE = target.second_cache() or 512 << 10  # bytes of L2
_A_BYTES = SECOND_CACHE * 20 // 32  # image rows of one task and K block, if they are what stays in L2
_B_BYTES = SECOND_CACHE * 5 // 16  # weights of one task and K block, if they are what stays in L2
_PANEL_BYTES = 11 << 10  # a panel's part of one K block, if it is to stay in L1 while a group of tiles passes by
_GROUP_BYTES = 64 << 10  # image rows of such a group: they come from L2 for each panel, in order
_FEW_REGISTERS = (6, 5, 4, 3, 2, 1)  # tile heights where there are 16
TILES_OF_WORD = 15  # numbers of 4 bits in an int64 that stays positive
_SET_SPAN = 4096  # bytes after which addresses fall into the same set of L1, which is indexed by what pages leave alone
_WAYS = 7  # lines of a set that a tile's rows may take: of 8, one is left for what passes by
_L2_BYTES = 20  # that come from L2 in a cycle
_SEARCHED = 10  # rows of up to so many tiles are cut in the best of all ways
# of one core, for weighing work against traffic from L3
_FLOPS_PER_SECOND, _BYTES_PER_SECOND = 80e9, 15e9
_TASK_FLOPS = 250_000  # a task costs the executor about a microsecond
_TASKS = 32  # a thread, at most
_LATE = 2.0  # tasks, what threads wait for the last one on cores that others use too
# cycles of one core, fitted to products of the sizes that real networks have
BEGINNING = 60  # of a tile
_APART = 20  # of a line of A that another core may have written, if tasks do not take its rows apart
_LINE = 64  # bytes


def panel_width(itemsize: int, groups: int = 1, each: int = 0) -> int:
    """NR: output channels of a panel: two vectors, or a single one if that holds those of each of several groups."""
    lanes = target.current().lanes * 4 // itemsize
    return lanes if groups > 1 and each <= lanes else 2 * lanes


@dataclass(frozen=True)
class Blocking:
    """How one product is cut: tiles of a row, K blocks, tasks."""

    first: int  # height of the first tiles of a row
    count: int  # how many of them
    second: int  # height of the other tiles of a row (0: none)
    per_row: int
    segments: int  # of one K block
    length: int  # elements of each
    tiles: int  # of one task
    row_blocks: int
    panels: int  # of one task
    panel_blocks: int
    tile_group: int  # tiles that pass by one panel before the next one comes


def heights() -> tuple[int, ...]:
    """The tile heights that the kernel has: 28 accumulators and three operands fill 32 registers, 12 and three 16.

    Without fused multiply-adds products need registers too: with 8 accumulators none is spilled.
    """
    if target.current().registers >= 32:
        return (14, 10, 8, 7, 6, 4, 2, 1)
    return _FEW_REGISTERS if target.current().fma else _FEW_REGISTERS[2:]


def single_heights() -> tuple[int, ...]:
    """Tile heights for a panel of one vector; a run of pixels is cut into these (`single_tiles`)."""
    return (14, 8, 7, 6, 4, 2, 1) if target.current().registers >= 32 else _FEW_REGISTERS


def tallest_tile() -> int:
    """The height of the tallest of all tiles."""
    return max(heights()[0], single_heights()[0])


def single_tiles() -> tuple[int, int]:
    """The height of the first tile, of one vector, that covers 1, 2 ... pixels exactly at the least cost.

    4 bits each, from the lowest ones: of up to `TILES_OF_WORD` pixels in the first word, of up to twice as many in the second.
    """
    costs, first = [0.0], []
    for pixels in range(1, 2 * TILES_OF_WORD + 1):
        cost, height = min((tile_cost(h, 1) + costs[pixels - h], -h) for h in single_heights() if h <= pixels)
        costs.append(cost)
        first.append(-height)
    low, high = (sum(h << 4 * i for i, h in enumerate(part)) for part in (first[:TILES_OF_WORD], first[TILES_OF_WORD:]))
    return low, high


def crosses_rows() -> bool:
    """Whether a tile may go on from one row of the image to the next: if there is a register for the address of each row."""
    return heights()[0] <= 6


def most_rows(stride: int) -> int:
    """The tallest tile whose rows, as many bytes apart, find room in L1 side by side."""
    sets = _SET_SPAN // gcd(stride, _SET_SPAN)  # that the rows are spread over, at most
    return max(h for h in heights() if h <= _WAYS * sets)


@lru_cache(maxsize=4096)
def split_row(width: int, tallest: int = 0) -> tuple[int, int, int, int]:
    """(first, count, second, tiles): heights, of `tallest` at the most, that cover `width` pixels exactly at the least cost.

    A wide row begins with tiles of the height that costs the least for a pixel; what they leave is looked up.
    """
    possible = [h for h in heights() if h <= (tallest or heights()[0])]
    tallest = possible[0]
    spare = (width - _SEARCHED * tallest) // tallest
    if spare > 0:
        first, count, second, tiles = split_row(width - spare * tallest, tallest)
        if first == tallest:
            return first, count + spare, second, tiles + spare
    least, best = inf, (0, 0, 0, 0)
    costs = {height: tile_cost(height) for height in possible}
    for i, first in enumerate(possible):
        most, cost = width // first, costs[first]
        if width * cost >= least * first:
            break  # lower tiles cost more for a pixel
        if most * first == width:
            least, best = most * cost, (first, most, 0, most)
        for second in possible[i + 1 :]:
            # what is left repeats itself, modulo the second height, after as many tiles as that
            for count in range(most, max(-1, most - second), -1):
                others, rest = divmod(width - count * first, second)
                if not rest:
                    both = count * cost + others * costs[second]
                    if both < least:
                        least, best = both, (first, count, second, count + others)
                    break
    return best


def tile_cost(height: int, vectors: int = 2) -> float:
    """Cycles of one K step of a tile: two loads a cycle, its vectors from L2, FMA latency 4, and a share of what surrounds it."""
    of = target.current()
    return max(vectors * height / of.units, (height + vectors) / 2, vectors * of.lanes * 4 / _L2_BYTES, 4) + 0.5


def cycles(rows: int, depth: int, columns: int, threads: int) -> float:
    """Cycles of each thread for a float32 product A[rows, depth] B[depth, columns], the direct way."""
    first, count, second, tiles = split_row(rows, most_rows(depth * 4))
    step = count * tile_cost(first) + ((tiles - count) * tile_cost(second) if tiles > count else 0.0)
    panel = depth * step + -(-depth // K_STEPS) * BEGINNING * tiles
    flops = 2 * rows * depth * columns
    of_rows = blocking("f32", 1, rows, (1, 1, 1, depth), 1, columns, flops, 1, threads, depth * 4).row_blocks
    return -(-columns // panel_width(4)) * panel / threads + moving_cycles(rows, depth, threads, of_rows)


def moving_cycles(rows: int, depth: int, threads: int, row_blocks: int) -> float:
    """Cycles in which each thread waits for lines of A that others wrote, unless there is a block of rows for each."""
    return 0.0 if row_blocks >= threads else _APART * rows * depth * 4 / _LINE * (threads - 1) / threads


@deferred()
@lru_cache(maxsize=4096)
def blocking(
    work: str, tile_rows: int, width: int, segments: tuple[int, int, int, int], groups: int, each: int, flops: int,
    images: int, threads: int, stride: int,
) -> Blocking:  # fmt: skip
    """The cut of a product of `tile_rows` rows of `width` pixels with `groups` times `each` output channels.

    Args:
        segments: of K: depth, rows, columns, elements.
        flops: of the whole.
        stride: bytes from one pixel to the next.
    """
    first, count, second, per_row = split_row(width, most_rows(stride))
    size = SIZES[work]
    panel = panel_width(size, groups, each)
    limit = K_STEPS
    total, length = prod(segments[:3]), segments[3]
    if length > limit:
        parts = -(-length // limit)
        taps, length = 1, -(-length // (parts * 8)) * 8
    else:
        parts = -(-total // max(1, limit // max(1, length)))
        taps, length = max(1, -(-total // max(1, parts))), max(1, length)
    per_group, depth = -(-each // panel), taps * length
    cut = (first, count, second) if tile_rows == 1 else (1, 0, 1)
    whole = _Work(
        tile_rows * per_row, cut, groups * per_group, images, max(1, min(flops // _TASK_FLOPS, _TASKS * threads)), threads,
        first * length * size, panel * size * prod(segments), panel * size * depth, flops, groups == 1,
    )  # fmt: skip
    tiles, row_blocks, own_panels, panel_blocks = _share(whole)
    group = tiles
    if whole.panels_stay(own_panels):
        group = max(1, _GROUP_BYTES // (first * depth * size))
    return Blocking(first, count, second, per_row, taps, length, tiles, row_blocks, own_panels, panel_blocks, group)


@dataclass(frozen=True)
class _Work:
    """What is shared among tasks.

    Attributes:
        tiles: of one image. heights: of its first tiles, how many of them, of the others. tasks: how many are worth while.
        shared: whether all panels read the same tiles.
        tile_bytes, panel_bytes, block_bytes: of a tile's image rows, of a panel, of its part in one K block.
    """

    tiles: int
    heights: tuple[int, int, int]
    panels: int
    images: int
    tasks: int
    threads: int
    tile_bytes: int
    panel_bytes: int
    block_bytes: int
    flops: int
    shared: bool

    def rows(self, tiles: int) -> int:
        """How many rows so many tiles side by side have at the most."""
        first, count, second = self.heights
        if count == self.tiles:
            return tiles * first
        ahead = tiles * second + min(tiles, count) * (first - second)
        behind = tiles * first + min(tiles, self.tiles - count) * (second - first)
        return max(ahead, behind)

    @property
    def all_rows(self) -> int:
        """How many rows there are."""
        first, count, second = self.heights
        return count * first + (self.tiles - count) * second

    def panels_stay(self, panels: int) -> bool:
        """Whether a task's panels stay in L2 while tiles stream; each must fit in L1 beside the tiles that pass by.

        Panels that have an image to themselves, those of grouped convolution, take no turns.
        """
        fits = self.shared and self.block_bytes <= _PANEL_BYTES
        return fits and (panels * self.block_bytes <= _B_BYTES)


def _share(work: _Work) -> tuple[int, int, int, int]:
    """(tiles of a task, row blocks, panels of a task, panel blocks) at the least expected time.

    Either the panels of a task stay in L2 and the tiles stream, or the tiles stay and the panels stream. What has to be
    read again from L3 costs time, and so does a last task that others wait for.
    """
    tiles, panels, threads, images = work.tiles, work.panels, work.threads, work.images
    most = max(1, _A_BYTES // max(1, work.tile_bytes))
    ideal = max(work.flops, 1) / threads / _FLOPS_PER_SECOND
    of_row = ideal * threads / max(1, images * work.all_rows * panels)
    of_row_block = images * panels * work.panel_bytes / threads / _BYTES_PER_SECOND
    of_panel_block = images * tiles * work.tile_bytes / threads / _BYTES_PER_SECOND
    late, start = 0.0 if threads == 1 else ideal * _LATE * threads, 1e-6 / threads
    across = [(*cut, work.panels_stay(cut[1])) for cut in _cuts(panels, min(panels, 2 * work.tasks))]
    least, best = inf, (tiles, 1, panels, 1)
    for row_blocks, of_tiles in _cuts(tiles, min(tiles, max(2 * work.tasks, -(-tiles // most)))):
        begun, each = row_blocks * of_row_block, work.rows(of_tiles) * of_row
        tiles_stay, limit = of_tiles <= most or row_blocks == tiles, max(2 * work.tasks, images * row_blocks)
        for panel_blocks, of_panels, panels_stay in across:
            number = images * row_blocks * panel_blocks
            if number > limit:
                break
            waits = begun + panel_blocks * of_panel_block + late / number + start * number
            if waits + ideal < least and (tiles_stay or panels_stay):
                cost = waits + -(-number // threads) * each * of_panels
                if cost < least:
                    least, best = cost, (of_tiles, row_blocks, of_panels, panel_blocks)
    return best


@lru_cache(maxsize=256)
def _cuts(whole: int, most: int) -> list[tuple[int, int]]:
    """The numbers of blocks, of `most` at the most, that cut something without an empty block; and the size of each block."""
    found, blocks = [], 1
    while blocks <= most:
        each = -(-whole // blocks)
        found.append((blocks, each))
        blocks = -(-whole // (each - 1)) if each > 1 else most + 1
    return found
