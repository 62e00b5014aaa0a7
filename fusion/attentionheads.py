"""The dimensions of an attention: how its rows of scores split into heads and queries, and what its factors are views of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ..ops.kernels import attention as kernels
from ..ops.kernels.sizes import certainly
from ..ops.primitives import Move, Permute, Primitive, Reshape, Shape, Tensor


class Unfit(Exception):
    """The pattern is there, but its dimensions are not those of heads."""


@dataclass(frozen=True)
class Heads:
    """How the rows of all scores, taken as one dimension, split into `LEADS` dimensions of heads and the queries of a head.

    Attributes:
        sizes: of the dimensions; inner: rows within one element of each. The queries come last.
    """

    sizes: Shape
    inner: Shape

    @classmethod
    def of(cls, dimensions: Sequence[tuple[Shape, int]], shared: Sequence[int]) -> Heads:
        """The coarsest split that everything's dimensions are made of.

        Args:
            dimensions: of the values, each with the number of rows within one element of the last of them.
            shared: numbers of neighbouring rows that share keys, and values.
        """
        marks = [1]
        for below, shape in [*((1, (n,)) for n in shared), *((below, shape) for shape, below in dimensions)]:
            for n in reversed(shape):
                below *= n
                if not any(certainly(below, mark) for mark in marks):
                    marks.append(below)
        ends = sorted(marks)
        if any(b % a for a, b in itertools.pairwise(ends)):
            raise Unfit
        queries = 1 if min(shared) == 1 else ends[1]
        inner = [n for n in ends[:-1] if n >= queries]
        sizes = [b // a for a, b in zip(inner, [*inner[1:], ends[-1]])]
        missing = kernels.LEADS - len(inner)
        if missing < 0:
            raise Unfit
        return cls((*[1] * missing, *sizes[::-1], queries), (*[ends[-1]] * missing, *inner[::-1], 1))

    def spread(self, shape: Shape, given: Shape) -> Shape:
        """The dimensions of a value of rows `given` that broadcasts with `shape`: each whole or 1."""
        given = (1,) * (len(shape) - len(given)) + given
        ends = [prod(shape[d:]) for d in range(len(shape))]
        found = []
        for n, inner in zip(self.sizes, self.inner):
            d = max((d for d in range(len(shape)) if shape[d] > 1 and ends[d] // shape[d] <= inner < ends[d]), default=None)
            found.append(n if d is not None and given[d] == shape[d] else 1)
        return tuple(found)

    def shared(self, rows: int) -> Shape:
        """The dimensions of heads of what so many neighbouring rows share."""
        return tuple(n if inner >= rows else 1 for n, inner in zip(self.sizes[:-1], self.inner))


def under_views(x: Tensor) -> tuple[Tensor, bool]:
    """The matrices that x, the second factor of a product, is views of, and whether its rows are their columns."""
    swapped = False
    while True:
        if keeps_last(x.source, 2):
            x = x.source.input
        elif isinstance(x.source, Move) and x.source.how == Permute((*range(x.rank - 2), x.rank - 1, x.rank - 2)):
            x, swapped = x.source.input, not swapped
        else:
            return x, swapped


def under_reshapes(x: Tensor) -> Tensor:
    """What x is reshapes of, all of which keep its rows."""
    while keeps_last(x.source, 1):
        x = x.source.input
    return x


def keeps_last(p: Primitive | None, count: int) -> bool:
    """Whether p is a reshape that leaves so many dimensions at the end as they are."""
    if not isinstance(p, Move) or not isinstance(p.how, Reshape):
        return False
    before, after = p.input.shape, p.output.shape
    return min(len(before), len(after)) >= count and before[-count:] == after[-count:]
