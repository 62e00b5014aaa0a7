"""Sums over an image's pixels where channels lie innermost, in two loops: a sum of each thread's pixels, then the sum of these.

1. Tasks of a loop that folds such an image would share its channels. But the steps before and after it share its pixels: cores
   would read each other's lines, and to change these later (squeeze and excite) each has to be asked back.
2. So the pixels become as many pieces as divide them and the threads; the first loop folds each piece, the second one what the
   first has made, and computes what follows from the result.
3. Left alone: loops that make more than what follows from one fold, small ones, several images (which tasks share), pixels of an
   open number, and types whose sums are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

import numpy as np

from ..ops.kernels.sizes import alike, is_open, now
from ..ops.primitives import Expand, Fold, Layout, Reduce, Shape, Tensor
from .group import Loop
from .loops import Body, one_stride

FOLDS = (Fold.ADD, Fold.MUL, Fold.MIN, Fold.MAX, Fold.MAXNUM)
TYPES = tuple(map(np.dtype, (np.float32, np.float64, np.int32, np.int64)))
MANY = 1 << 15  # elements of a loop for which it pays


@dataclass(frozen=True)
class Partials:
    """One loop as two.

    Attributes:
        first: folds pieces; it reads what the loop read, in the layouts `read`, and makes `sums`.
        order: the dimensions of `sums` as they lie in memory.
        second: makes what the loop made.
    """

    first: Loop
    read: tuple[Layout, ...]
    sums: Tensor
    order: tuple[int, ...]
    second: Loop


def partials(loop: Loop, work: Body, layouts: Sequence[Layout], threads: int) -> Partials | None:
    """The two loops for one that reads values in these layouts; None if it is left alone."""
    fold, space, axes = _only_fold(loop, work.writes), loop.space, loop.axes
    if fold is None or len(axes) < 2 or axes != tuple(range(axes[0], axes[-1] + 1)):
        return None
    pixels = prod(space[d] for d in axes)
    pieces = 1 if is_open(pixels) or now(prod(space)) < MANY else gcd(pixels, threads)
    spread = [Expand(space).layout(x) for x in layouts]
    steps = [one_stride(x, space, axes) for x in spread]
    lane = _innermost(work.reads, spread)
    others = tuple(d for d in range(len(space)) if d not in axes and d != lane)
    if pieces == 1 or None in steps or lane in (None, *axes) or now(prod(space[d] for d in others)) >= threads:
        return None

    def cut(numbers: Shape, first: int, second: int) -> Shape:
        """Sizes or strides with those of the pieces and of their pixels; further folded dimensions have size 1."""
        return (*numbers[: axes[0]], first, second, *[1] * (len(axes) - 2), *numbers[axes[-1] + 1 :])

    inside, each = cut(space, pieces, pixels // pieces), pixels // pieces
    sums = Tensor(fold.output.dtype, cut(space, pieces, 1))
    at = loop.members.index(fold)
    return Partials(
        Loop(inside, axes[1:], [*loop.members[:at], replace(fold, axes=axes[1:], output=sums)]),
        tuple(Layout(inside, cut(x.strides, each * step, step), x.offset) for x, step in zip(spread, steps)),
        sums,
        (*others, *axes, lane),
        Loop(sums.shape, axes, [replace(fold, input=sums), *loop.members[at + 1 :]]),
    )


def _only_fold(loop: Loop, writes: Sequence[Tensor]) -> Reduce | None:
    """The one fold of a loop that makes its result, or what follows from it, and nothing else."""
    folds = [p for p in loop.members if isinstance(p, Reduce)]
    if len(folds) != 1 or folds[0].fold not in FOLDS or folds[0].output.dtype not in TYPES:
        return None
    at = loop.members.index(folds[0])
    before = {id(p.output) for p in loop.members[:at]}
    after = loop.members[at + 1 :]
    more = [*writes, *(x for p in after for x in p.inputs)]
    known = any(id(x) in before for x in more) or any(not alike(p.output.shape, loop.row_shape) for p in after)
    return None if known else folds[0]


def _innermost(reads: Sequence[Tensor], layouts: Sequence[Layout]) -> int | None:
    """The dimension along which elements of a value are neighbours in memory."""
    for x, layout in zip(reads, layouts):
        for d, (size, stride) in enumerate(zip(layout.shape, layout.strides)):
            if not alike((size, stride), (1, stride)) and alike((stride,), (x.dtype.itemsize,)):
                return d
    return None
