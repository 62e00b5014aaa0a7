"""Joins in joins: pieces that are joined, given a dimension of size 1, and joined again along it (keys and values in one array)."""

from __future__ import annotations

from dataclasses import replace

from ..ops.kernels.sizes import alike
from ..ops.primitives import Join, Move, Reshape, Shape, Tensor, Trace
from .edit import Editor, readers_of
from .tidy import compose_moves


def stack_joins(trace: Trace) -> Trace:
    """A join that another one reads with further dimensions of size 1 is made with these, and viewed where it is read without.

    So its pieces are made in the outer join's memory, or are there already (`sharing`). Left alone: outputs, joins with gaps.
    """
    readers = readers_of(trace)
    wider = {id(p): shape for p in trace.primitives if isinstance(p, Join) and (shape := _stacked(p, readers)) is not None}
    if not wider:
        return trace
    editor = Editor(trace)
    for p in trace.primitives:
        one = editor.renamed(p)
        if id(p) not in wider:
            editor.keep(p, one)
            continue
        new = _widened(editor, one, wider[id(p)])
        editor.insert(new)
        editor.keep(p, Move(Reshape(p.output.shape), new.output, p.output, p.nodes))
    return compose_moves(editor.result())


def _stacked(join: Join, readers: dict[int, list]) -> Shape | None:
    """The shape in which a join is a piece of another one, if it has dimensions of size 1 more there."""
    found = readers[id(join.output)]
    if join.fill is not None or None in found:
        return None
    for p in found:
        wider = isinstance(p, Move) and isinstance(p.how, Reshape) and _inserted(join.output.shape, p.how.shape)
        if wider and any(isinstance(outer, Join) and outer.fill is None for outer in readers[id(p.output)]):
            return p.how.shape
    return None


def _inserted(shape: Shape, wider: Shape) -> list[int]:
    """The dimensions of size 1 that the wider shape has besides those of the other; none if it is another shape."""
    inserted, i = [], 0
    for d, n in enumerate(wider):
        if i < len(shape) and alike((n,), shape[i : i + 1]):
            i += 1
        elif alike((n,), (1,)):
            inserted.append(d)
        else:
            return []
    return inserted if i == len(shape) else []


def _widened(editor: Editor, join: Join, shape: Shape) -> Join:
    """The join with more dimensions."""
    inserted = _inserted(join.output.shape, shape)

    def with_ones(sizes: Shape, size: int) -> Shape:
        rest = iter(sizes)
        return tuple(size if d in inserted else next(rest) for d in range(len(shape)))

    pieces = []
    for x in join.inputs:
        piece = Tensor(x.dtype, with_ones(x.shape, 1))
        editor.insert(Move(Reshape(piece.shape), x, piece, join.nodes))
        pieces.append(piece)
    starts = tuple(with_ones(start, 0) for start in join.starts)
    return replace(join, inputs=tuple(pieces), starts=starts, output=Tensor(join.output.dtype, shape))
