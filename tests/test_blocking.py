"""How rows of pixels are cut into register tiles."""

from __future__ import annotations

import numpy as np
import pytest

from jitrt.ops.kernels import blocking

HEIGHTS = {"32 registers": (14, 10, 8, 7, 6, 4, 2, 1), "16": (6, 5, 4, 3, 2, 1), "16, no multiply-add": (4, 3, 2, 1)}


@pytest.mark.parametrize("registers", HEIGHTS)
def test_rows_of_any_width_are_cut_at_the_least_cost_of_two_heights(monkeypatch, registers: str) -> None:
    heights = HEIGHTS[registers]
    monkeypatch.setattr(blocking, "heights", lambda: heights)
    blocking.split_row.cache_clear()
    cost = {h: blocking.tile_cost(h) for h in heights}
    try:
        for width in (0, 1, 2, 13, *range(14, 160), 197, 1000, 4093):
            first, count, second, tiles = blocking.split_row(width)
            assert first * count + second * (tiles - count) == width
            counts = np.arange(width + 1)
            pairs = [(a, b, counts[(a * counts <= width) & ((width - a * counts) % b == 0)]) for a in heights for b in heights]
            least = min((n * cost[a] + (width - a * n) // b * cost[b]).min() for a, b, n in pairs if len(n))
            assert count * cost[first] + (tiles - count) * cost.get(second, 0) == pytest.approx(least)
    finally:
        blocking.split_row.cache_clear()


@pytest.mark.parametrize("heights", [(14, 8, 7, 6, 4, 2, 1), (6, 5, 4, 3, 2, 1)], ids=str)
def test_pixels_of_one_vector_are_cut_at_the_least_cost(monkeypatch, heights: tuple[int, ...]) -> None:
    """The kernel goes on from what a word says of the pixels that are left."""
    monkeypatch.setattr(blocking, "single_heights", lambda: heights)
    size, words = blocking.TILES_OF_WORD, blocking.single_tiles()
    assert all(0 <= word < 1 << 63 for word in words)
    cost, least = {h: blocking.tile_cost(h, 1) for h in heights}, [0.0]
    for pixels in range(1, 2 * size + 1):
        least.append(min(cost[h] + least[pixels - h] for h in heights if h <= pixels))
        rest, taken = pixels, 0.0
        while rest:
            height = words[(rest - 1) // size] >> 4 * ((rest - 1) % size) & 15
            assert height in heights
            assert height <= rest
            rest, taken = rest - height, taken + cost[height]
        assert taken == pytest.approx(least[pixels])


def test_rows_that_fall_into_the_same_set_of_a_cache_are_few(monkeypatch) -> None:
    """Of a set's 8 lines one is left; rows apart by a multiple of 4096 bytes share it, by half of that every second one."""
    monkeypatch.setattr(blocking, "heights", lambda: HEIGHTS["32 registers"])
    apart = {64: 14, 2048: 14, 3072: 14, 4096: 7, 12288: 7, 4096 + 64: 14, 6144: 14, 0: 7}
    assert {stride: blocking.most_rows(stride) for stride in apart} == apart
    blocking.split_row.cache_clear()
    try:
        assert blocking.split_row(196, 7) == (7, 28, 0, 28)
        assert blocking.split_row(196) == (14, 14, 0, 14)
        for width in (0, 1, 5, 49, 197):
            first, count, second, tiles = blocking.split_row(width, 7)
            assert first * count + second * (tiles - count) == width
            assert max(first, second) <= 7
    finally:
        blocking.split_row.cache_clear()


def test_tasks_are_cut_at_the_least_of_all_expected_times() -> None:
    """The search leaves out cuts that cannot be the best; here all are weighed."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        tiles, panels, images, threads = (int(rng.integers(1, most)) for most in (60, 40, 4, 5))
        tasks, flops = int(rng.integers(1, 32 * threads + 1)), int(rng.integers(1, 10**9))
        count, sizes = int(rng.integers(0, tiles + 1)), [int(n) for n in rng.integers(1, 60 << 10, 3)]
        work = blocking._Work(tiles, (14, count, 8), panels, images, tasks, threads, *sizes, flops, bool(rng.integers(2)))
        chosen = blocking._share(work)
        assert _seconds(work, *chosen) == pytest.approx(_least_seconds(work), rel=1e-9)


def _least_seconds(work: blocking._Work) -> float:
    downs, acrosses = ({-(-whole // n) for n in range(1, whole + 1)} for whole in (work.tiles, work.panels))
    cuts = [(t, -(-work.tiles // t), p, -(-work.panels // p)) for t in downs for p in acrosses]
    most = max(1, blocking._A_BYTES // work.tile_bytes)
    least = max(2 * work.tasks, -(-work.tiles // most))
    return min(
        _seconds(work, *cut) for cut in cuts
        if (cut[0] <= most or cut[1] == work.tiles or work.panels_stay(cut[2]))
        and cut[1] <= least and cut[3] <= 2 * work.tasks
        and work.images * cut[1] * cut[3] <= max(2 * work.tasks, work.images * cut[1])
    )  # fmt: skip


def _seconds(work: blocking._Work, tiles: int, row_blocks: int, panels: int, panel_blocks: int) -> float:
    number, threads = work.images * row_blocks * panel_blocks, work.threads
    ideal = work.flops / threads / blocking._FLOPS_PER_SECOND
    share = work.rows(tiles) * panels * threads / (work.images * work.rows(work.tiles) * work.panels)
    moved = work.images * (row_blocks * work.panels * work.panel_bytes + panel_blocks * work.tiles * work.tile_bytes)
    late = blocking._LATE * threads / number if threads > 1 else 0.0
    return ideal * (-(-number // threads) * share + late) + moved / threads / blocking._BYTES_PER_SECOND + 1e-6 * number / threads
