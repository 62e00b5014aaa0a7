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
