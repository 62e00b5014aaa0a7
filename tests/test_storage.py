"""Where values lie in the arena."""

from __future__ import annotations

import itertools
import random

import pytest

from jitrt.fusion.plan import Space
from jitrt.fusion.storage import ALIGNMENT, Memory, assign


def chain(*sizes: int) -> list[Memory]:
    """Values of a network without branches: each is made by a step and read by the next one."""
    return [Memory(Space.ARENA, nbytes, first=i, last=i + 1) for i, nbytes in enumerate(sizes)]


def test_values_that_have_the_same_memory_lie_around_one_middle() -> None:
    memories = chain(1 << 20, 3 << 18, 1 << 19, 1 << 18, 5 << 14, 1 << 16)
    assign(memories)
    middles = {m.index + m.nbytes // 2 for m in memories}
    assert len(middles) == 2, "what a step reads and what it makes"
    assert [m.index + m.nbytes // 2 for m in memories] == [m.index + m.nbytes // 2 for m in memories[:2]] * 3


def test_a_chain_takes_no_more_than_the_largest_neighbours() -> None:
    memories = chain(1 << 20, 3 << 18, 1 << 19, 1 << 18)
    assert assign(memories) == (1 << 20) + (3 << 18)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_alive_at_once_does_not_overlap(seed: int) -> None:
    draw = random.Random(seed)
    memories = []
    for _ in range(draw.choice([1, 2, 60])):
        first = draw.randrange(80)
        nbytes = draw.choice([0, 1, 63, 64, 65, draw.randrange(1, 1 << 16)])
        memories.append(Memory(Space.ARENA, nbytes, first=first, last=first + draw.randrange(20)))
    total = assign(memories)
    assert all(m.index % ALIGNMENT == 0 and m.index >= 0 and m.index + m.nbytes <= total for m in memories)
    for a, b in itertools.combinations(memories, 2):
        if a.first <= b.last and b.first <= a.last:
            assert a.index + a.nbytes <= b.index or b.index + b.nbytes <= a.index
    peak = max(sum(m.nbytes for m in memories if m.first <= step <= m.last) for step in range(100))
    assert peak <= total <= 2 * peak + ALIGNMENT * len(memories)


def test_nothing_takes_nothing() -> None:
    assert assign([]) == 0
