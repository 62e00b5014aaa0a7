"""How kernels want constants laid out. A layout is made in parts, so that threads share the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PART_BYTES = 512 << 10  # of the packed array: a part costs some microseconds of Python


@dataclass(frozen=True)
class Packing:
    """A layout of one constant.

    Attributes:
        shape, dtype: of the packed array.
        parts: how many; they may be made in any order, on any thread.
        fill: ``fill(source, packed, part)`` writes every element of a part.
        unpack: the source's values from the packed array, in any strides; None: the packed array does not hold them.
        nearly: whether `unpack` gives them with a rounding error.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: int
    fill: Callable[[np.ndarray, np.ndarray, int], None]
    unpack: Callable[[np.ndarray], np.ndarray] | None = None
    nearly: bool = False

    def make(self, source: np.ndarray) -> np.ndarray:
        """The packed array."""
        packed = np.empty(self.shape, self.dtype)
        for part in range(self.parts):
            self.fill(source, packed, part)
        return packed


def slices(count: int, nbytes: int) -> tuple[int, int]:
    """(how many of `count` equal pieces, `nbytes` in all, make a part; number of parts)."""
    each = max(1, count * PART_BYTES // max(nbytes, 1))
    return each, -(-count // each)
