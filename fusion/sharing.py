"""Outputs that take an input's array: a cache of keys and values that a run makes longer where it is.

The caller names pairs of an output and the input whose array it would like the output in. The output then begins where the
input's array does, and has its strides. That is done where nothing can go wrong:

1. The output is a join that leaves no gaps and fits in the input.
2. Pieces of it that are slices of the input lie where they are; all others are written.
3. Whatever reads the input reads slices of it that nothing is written to.
4. Or a kernel that alone reads the input changes it to the output.

Else the output has memory of its own, as any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..ops.kernels.sizes import alike, never_above
from ..ops.primitives import Join, Kernel, Move, Opaque, Primitive, Shape, Slice, Tensor, Trace

Box = tuple[Shape, Shape]  # where it begins and where it ends


def in_place(trace: Trace, pairs: Mapping[int, int]) -> dict[int, int]:
    """Of the pairs (number of an output -> number of an input) those that can share an array, each array once."""
    found: dict[int, int] = {}
    for i, j in pairs.items():
        if j not in found.values() and _possible(trace, trace.outputs[i], trace.inputs[j]):
            found[i] = j
    return found


def _possible(trace: Trace, x: Tensor | Opaque, array: Tensor | Opaque) -> bool:
    if isinstance(x, Opaque) or isinstance(array, Opaque):
        return False
    if x.dtype != array.dtype or x.rank != array.rank or any(y is array for y in trace.outputs):
        return False
    readers = [p for p in trace.primitives for y in p.inputs if y is array]
    return _changed(x, array, readers) if isinstance(x.source, Kernel) else _joined(x, array, readers)


def _changed(x: Tensor, array: Tensor, readers: Sequence[Primitive]) -> bool:
    """Rule 4."""
    kernel = x.source
    changed = kernel.changes is not None and kernel.inputs[kernel.changes] is array and kernel.outputs[0] is x
    return changed and readers == [kernel] and alike(x.shape, array.shape)


def _joined(x: Tensor, array: Tensor, readers: Sequence[Primitive]) -> bool:
    """Rules 1 to 3."""
    if not isinstance(x.source, Join):
        return False
    if not all(n <= room for n, room in zip(x.shape, array.shape)):
        return False
    written: list[Box] = []
    for piece, start in _pieces(x, (0,) * x.rank):
        if isinstance(piece.source, Join):  # gaps
            return False
        if not _stays(piece, start, array):
            written.append((start, _sum(start, piece.shape)))
    return all(isinstance(p, Move) and all(_apart(p, box) for box in written) for p in readers)


def _pieces(x: Tensor, at: Shape) -> Iterator[tuple[Tensor, Shape]]:
    """What joins are made of, with the place of each in the outermost."""
    join = x.source
    if not isinstance(join, Join) or join.fill is not None:
        yield x, at
        return
    for piece, start in zip(join.inputs, join.starts):
        yield from _pieces(piece, _sum(at, start))


def _stays(piece: Tensor, start: Shape, array: Tensor) -> bool:
    """Whether a piece is the part of the array that lies where the piece is to be."""
    move = piece.source
    if not isinstance(move, Move) or not isinstance(move.how, Slice) or move.input is not array:
        return False
    return set(move.how.steps) <= {1} and alike(move.how.starts, start)


def _apart(move: Move, box: Box) -> bool:
    """Whether a view of an array has nothing of a box of it."""
    how = move.how
    if not isinstance(how, Slice) or not all(type(step) is int and step > 0 for step in how.steps):
        return False
    ends = [start + step * n for start, step, n in zip(how.starts, how.steps, how.sizes)]
    return any(never_above(end, begin) or never_above(finish, start) for start, end, begin, finish in zip(how.starts, ends, *box))


def _sum(a: Shape, b: Shape) -> Shape:
    return tuple(m + n for m, n in zip(a, b))
