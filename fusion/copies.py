"""Copies between layouts: `padcopy`'s kernel wherever strides allow it, so that one kernel an element size serves all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ops import evaluate
from ..ops.kernels.image import SIZES, Image
from ..ops.kernels.launch import Launch
from ..ops.kernels.padcopy import pad_copy
from ..ops.kernels.sizes import alike, now
from ..ops.primitives import Layout
from .storage import At

Level = tuple[int, tuple[int, int]]  # size, stride of the source and of the target


def copy_launches(
    dtype: np.dtype, shape: Sequence[int], source: At, read: Layout, target: At, written: Layout, threads: int
) -> list[Launch] | None:
    """Launches that copy; None if the source is repeated along runs of the target, or has more than five levels.

    The two levels that are innermost in the target and in the source are an image's pixels of a row and its channels,
    the others its rows, its depth and the images.
    """
    element, levels = _widened(evaluate.memory_name(dtype), _levels(shape, read.strides, written.strides))
    size = SIZES[element]
    # which level is which part of the image matters for speed only
    run = min(range(len(levels)), key=lambda i: abs(now(levels[i][1][1])))
    if levels[run][1][0] == 0 or len(levels) > 5:
        return None
    rest = [i for i in range(len(levels)) if i != run]
    across = min(rest, key=lambda i: (abs(now(levels[i][1][0])) != size, -min(now(levels[i][0]), 16), -i), default=None)
    # tasks are blocks of rows, and at least one for each image and depth
    outer = sorted((levels[i] for i in rest if i != across), key=lambda level: now(level[0]))
    none: Level = (1, (0, 0))
    pixels = levels[across] if across is not None else none
    image = [*[none] * (3 - len(outer)), *outer]
    whole = [image[0], levels[run], image[1], image[2], pixels]
    if across is None:
        whole[1], whole[4] = none, levels[run]
    sizes = tuple(n for n, _ in whole)
    a, b = (Image(at, sizes, tuple(strides[i] for _, strides in whole)) for i, at in enumerate((source, target)))
    return pad_copy(element, a, element, b, threads=threads, label=f"copy {'x'.join(map(str, shape))}")


def _widened(element: str, levels: list[Level]) -> tuple[str, list[Level]]:
    """Elements that are always beside each other, in the source and in the target, as one element of up to 8 bytes."""
    size = SIZES[element]
    for i, (n, strides) in enumerate(levels):
        if type(n) is int and strides == (size, size) and n * size in (2, 4, 8):
            return f"u{8 * n * size}", levels[:i] + levels[i + 1 :] or [(1, (0, 0))]
    return element, levels


def _levels(shape: Sequence[int], read: Sequence[int], written: Sequence[int]) -> list[Level]:
    """The dimensions, outermost of the target first; neighbours that both walk with one stride are one."""
    result: list[Level] = []
    order = sorted((d for d in range(len(shape)) if shape[d] != 1), key=lambda d: -abs(now(written[d])))
    for d in order:
        n, strides = shape[d], (read[d], written[d])
        if result and alike(result[-1][1], [n * inner for inner in strides]):
            result[-1] = (result[-1][0] * n, strides)
        else:
            result.append((n, strides))
    return result or [(1, (0, 0))]
