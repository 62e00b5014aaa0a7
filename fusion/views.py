"""Passes that move views and joins out of the way of fusion.

A view costs nothing where it is read by strides, but it ends the chain of elementwise work over one index space that
a loop or a contraction's tail is made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from ..ops.kernels.sizes import alike
from ..ops.primitives import (
    Expand,
    Join,
    Kernel,
    Map,
    Move,
    Movement,
    Permute,
    Primitive,
    Reduce,
    Reshape,
    Shape,
    Slice,
    Tail,
    Tensor,
    Trace,
)  # fmt: skip
from .edit import Editor, readers_of, use_counts, view
from .group import matrix_fits
from .tidy import compose_moves, prune

MOST_PIECES = 4  # a join of more is made once rather than its readers' work several times


# -- views of elementwise work
def fold_views(trace: Trace) -> Trace:
    """A view of an elementwise result that nobody else reads, or slices that share it out, are taken of its inputs.

    Left alone: a map that a contraction takes into its epilogue (its result is stored anyway), views that a kernel
    reads, views that strides would not express of the inputs.
    """
    while True:
        uses = use_counts(trace)
        readers = readers_of(trace)
        targets = [
            p
            for p in trace.primitives
            if isinstance(p, Move)
            and isinstance(p.input.source, Map)
            and _takes_apart(readers[id(p.input)], p.input)
            and not _in_epilogue(p.input.source, uses)
            and _gains(p, readers)
        ]
        moved = {id(p): made for p in targets if (made := _through(p)) is not None}
        if not moved:
            return trace
        # a chain of moves: only the last of each chain is folded in one round
        editor = Editor(trace)
        for primitive in trace.primitives:
            if id(primitive) in moved:
                *moves, new = moved[id(primitive)]
                for extra in moves:
                    editor.insert(extra)
                editor.keep(primitive, editor.renamed(new))
            else:
                editor.keep(primitive, editor.renamed(primitive))
        trace = compose_moves(prune(editor.result()))


def _takes_apart(readers: list[Primitive | None], x: Tensor) -> bool:
    """Whether x is read by one primitive, or by slices that together are no more than x."""
    slices = [r for r in readers if isinstance(r, Move) and isinstance(r.how, Slice)]
    return len(readers) == 1 or (len(slices) == len(readers) and sum(r.output.size for r in slices) <= x.size)


def _gains(move: Move, readers: dict[int, list[Primitive | None]]) -> bool:
    """Whether all that reads a view, or views of it, can be fused with what makes it.

    An output (None) has to be written anyway, which a permuted or sliced loop does at once.
    """
    return all(
        _gains(r, readers)
        if isinstance(r, Move)
        else isinstance(r, Map | Reduce) or (r is None and not isinstance(move.how, Reshape))
        for r in readers[id(move.output)]
    )


def _in_epilogue(p: Map, uses: dict[int, int]) -> bool:
    """Whether a chain of maps of one shape leads back to a contraction with a tail."""
    while True:
        sources = [x.source for x in p.inputs if not x.is_constant and alike(x.shape, p.output.shape)]
        if any(isinstance(s, Kernel) and s.tail is Tail.EPILOGUE for s in sources):
            return True
        maps = [s for s in sources if isinstance(s, Map) and uses[id(s.output)] <= 2]
        if not maps:
            return False
        p = maps[0]


def _through(move: Move) -> list[Primitive] | None:
    """The map with the view taken of its inputs, after the moves that this needs; None if strides cannot say it."""
    inner = move.input.source
    assert isinstance(inner, Map)
    moves: list[Move] = []
    inputs: list[Tensor] = []
    for x in inner.inputs:
        steps = [Expand(inner.output.shape), move.how] if x.size != 1 else [Reshape(())] if x.rank > move.output.rank else []
        viewed = _viewed(x, steps, move.nodes, moves)
        if viewed is None:
            return None
        inputs.append(viewed)
    output = Tensor(move.output.dtype, move.output.shape, None, move.output.name)
    return [*moves, Map(inner.text, tuple(inputs), output, (*inner.nodes, *move.nodes))]


def _viewed(x: Tensor, steps: Iterable[Movement], nodes: tuple[str, ...], moves: list[Move]) -> Tensor | None:
    """x under one view after another; the moves that this needs are added to `moves`. None if strides cannot say it."""
    for how in steps:
        if isinstance(how, Expand) and alike(how.shape, x.shape):
            continue
        step = view(how, x, nodes)
        if step is None:
            return None
        if isinstance(step, Move):
            moves.append(step)
        x = step.output if isinstance(step, Move) else step
    return x


# -- elementwise work on views of contractions
def sink_views(trace: Trace) -> Trace:
    """A map of a reshaped or permuted contraction is done on the contraction's own shape; its result is then viewed.

    1. The map has the view's shape, and the contraction takes elementwise work over (`Tail`).
    2. Each other input exists without the contraction, or is the same view of its tail, and can be viewed back.
    3. Left alone: a map whose result goes into a reduction's loop, where it costs nothing.
    """
    return _Sinking(trace).run()


class _Sinking:
    def __init__(self, trace: Trace) -> None:
        self.trace, self.editor, self.readers = trace, Editor(trace), readers_of(trace)
        self.tail_of: dict[int, Kernel] = {}  # id(value in the shape of a contraction) -> the contraction
        self.masks: dict[int, int] = {}  # id(value) -> bit set of the primitives that it depends on
        self.index = {id(out): i for i, p in enumerate(trace.primitives) for out in p.outputs}

    def run(self) -> Trace:
        for i, p in enumerate(self.trace.primitives):
            mask = 1 << i
            for x in p.inputs:
                mask |= self.masks.get(id(x), 0)
            self.masks.update((id(out), mask) for out in p.outputs)
            one = self.editor.renamed(p)
            if isinstance(p, Kernel) and p.tail is Tail.EPILOGUE:
                self.tail_of[id(p.outputs[0])] = p
            if isinstance(p, Map) and not self._sunk(p):
                for x in p.inputs:
                    if alike(x.shape, p.output.shape) and id(x) in self.tail_of:
                        self.tail_of.setdefault(id(p.output), self.tail_of[id(x)])
                self.editor.keep(p, one)
            elif not isinstance(p, Map):
                self.editor.keep(p, one)
        return compose_moves(self.editor.result())

    def _sunk(self, p: Map) -> bool:
        """Whether p went before a view that it reads: of the last contraction that has everything else before it."""
        moves = [x.source for x in p.inputs if self._is_viewed(x) and alike(x.shape, p.output.shape)]
        if 0 in p.output.shape or not moves or self._feeds_reduction(p.output):
            return False
        moves.sort(key=lambda move: -self.index[id(self.tail_of[id(move.input)].outputs[0])])
        return any(self._sink(p, move) for move in moves)

    def _sink(self, p: Map, move: Move) -> bool:
        kernel, shape = self.tail_of[id(move.input)], move.input.shape
        moves: list[Move] = []
        inputs: list[Tensor] = []
        for x in p.inputs:
            if not self._is_ready(x, move, kernel):
                return False
            back = _back(move, x.shape)
            viewed = None if back is None else _viewed(x, back, p.nodes, moves)
            if viewed is None or viewed.rank > len(shape):
                return False
            if any(n not in (1, m) for n, m in zip(reversed(viewed.shape), reversed(shape))):
                return False
            inputs.append(viewed)
        made = Map(p.text, tuple(inputs), Tensor(p.output.dtype, shape), p.nodes)
        if not matrix_fits(kernel, made):
            return False
        for extra in moves:
            self.editor.insert(extra)
        self.editor.insert(made)
        self.tail_of[id(made.output)] = kernel
        self.editor.keep(p, Move(move.how, made.output, p.output, p.nodes))
        return True

    def _is_viewed(self, x: Tensor) -> bool:
        how = x.source.how if isinstance(x.source, Move) else None
        return isinstance(how, Reshape | Permute) and id(x.source.input) in self.tail_of

    def _is_ready(self, x: Tensor, move: Move, kernel: Kernel) -> bool:
        """Rule 2."""
        if x.is_constant or x is move.output:
            return True
        at = self.index[id(kernel.outputs[0])]
        same = self._is_viewed(x) and x.source.how == move.how and self.tail_of[id(x.source.input)] is kernel
        return same or not (self.masks.get(id(x), 0) >> at) & 1

    def _feeds_reduction(self, x: Tensor) -> bool:
        """Rule 3: whether x, or the one map that follows it, is read by a reduction and at most one more."""
        readers = self.readers.get(id(x), [])
        if len(readers) == 1 and isinstance(readers[0], Map) and alike(readers[0].output.shape, x.shape):
            return self._feeds_reduction(readers[0].output)
        return len(readers) <= 2 and any(isinstance(r, Reduce) for r in readers)


def _back(move: Move, shape: Shape) -> list[Reshape | Permute] | None:
    """The views that lead a value of `shape`, which broadcasts with the view's result, back to what the view is of.

    None: there are none, though the shapes may fit by chance.
    """
    whole, inner = move.output.shape, move.input.shape
    lead = (1,) * (len(whole) - len(shape)) + shape
    if prod(shape) == 1:
        return [Reshape(())] if shape else []
    if isinstance(move.how, Permute):
        axes = move.how.axes
        return [Reshape(lead), Permute(tuple(axes.index(d) for d in range(len(axes))))]
    there: list[int] = []
    for ours, theirs in _blocks(whole, inner):
        if all(lead[d] == whole[d] for d in ours):
            there += [inner[d] for d in theirs]
        elif all(lead[d] == 1 for d in ours):
            there += [1 for _ in theirs]
        else:
            return None
    return [Reshape(tuple(there))]


def _blocks(a: Shape, b: Shape) -> list[tuple[range, range]]:
    """The finest split of two shapes of one size, none of it 0, into runs of dimensions of the same size."""
    blocks = []
    i = j = 0
    while i < len(a) or j < len(b):
        first, second, have, want = i, j, 1, 1
        while True:
            if i < len(a) and (have < want or i == first):
                have, i = have * a[i], i + 1
            elif j < len(b) and (want < have or j == second):
                want, j = want * b[j], j + 1
            if have == want and (i > first or i == len(a)) and (j > second or j == len(b)):
                break
        blocks.append((range(first, i), range(second, j)))
    return blocks


# -- joins
def merge_pieces(trace: Trace) -> Trace:
    """Neighbouring pieces of a join that are neighbouring slices of one value are one slice, or the value itself.

    So what is split, worked on in part and joined with the results can be made in the join's memory.
    """
    if not _has_joins(trace):
        return trace
    editor = Editor(trace)
    for p in trace.primitives:
        one = editor.renamed(p)
        if isinstance(one, Join):
            parts: list[_Part] = []
            for x, start in zip(one.inputs, one.starts):
                part = _Part.of(x, start)
                if not (parts and parts[-1].grows(part)):
                    parts.append(part)
            if len(parts) < len(one.inputs):
                inputs = tuple(part.value(editor, one.nodes) for part in parts)
                one = replace(one, inputs=inputs, starts=tuple(part.place for part in parts))
        editor.keep(p, one)
    return prune(editor.result())


def _has_joins(trace: Trace) -> bool:
    return any(isinstance(p, Join) for p in trace.primitives)


@dataclass
class _Part:
    """A box of `source` (or all of it) at `place` in a join; `x` is the value if it exists as such."""

    x: Tensor | None
    source: Tensor
    start: Shape
    sizes: Shape
    place: Shape

    @classmethod
    def of(cls, x: Tensor, place: Shape) -> _Part:
        how = x.source.how if isinstance(x.source, Move) else None
        if isinstance(how, Slice) and all(step == 1 for step in how.steps):
            return cls(x, x.source.input, how.starts, how.sizes, place)
        return cls(x, x, (0,) * x.rank, x.shape, place)

    def grows(self, other: _Part) -> bool:
        """Take in the part that follows, here and in the source, along one dimension."""
        along = [d for d, (a, b) in enumerate(zip(self.place, other.place)) if a != b]
        if self.source is not other.source or len(along) != 1:
            return False
        (d,) = along
        ends = (self.place[d] + self.sizes[d], self.start[d] + self.sizes[d])
        same = all(
            (a, n) == (b, m) for e, (a, b, n, m) in enumerate(zip(self.start, other.start, self.sizes, other.sizes)) if e != d
        )
        if not same or ends != (other.place[d], other.start[d]):
            return False
        self.x, self.sizes = None, (*self.sizes[:d], self.sizes[d] + other.sizes[d], *self.sizes[d + 1 :])
        return True

    def value(self, editor: Editor, nodes: tuple[str, ...]) -> Tensor:
        """The part as a tensor."""
        if self.x is None and alike(self.sizes, self.source.shape):
            return self.source
        if self.x is None:
            self.x = Tensor(self.source.dtype, self.sizes)
            editor.insert(Move(Slice(self.start, (1,) * len(self.sizes), self.sizes), self.source, self.x, nodes))
        return self.x


# -- elementwise work on joins
def split_joins(trace: Trace) -> Trace:
    """A map that alone reads a join is done on each piece, and the results are joined (a rotary embedding's halves).

    Left alone: joins with fill, of many pieces, or of pieces that are made in the join's memory for nothing
    (by kernels, reductions and joins, or by maps that others read too).
    """
    if not _has_joins(trace):
        return trace
    editor, uses = Editor(trace), use_counts(trace)
    for p in trace.primitives:
        join = next((x.source for x in p.inputs if _is_split(x, p, uses)), None) if isinstance(p, Map) else None
        one = editor.renamed(p)
        if join is None:
            editor.keep(p, one)
            continue
        at = next(i for i, x in enumerate(one.inputs) if x.source is join)
        pieces = [_piece(editor, one, at, x, start) for x, start in zip(join.inputs, join.starts)]
        editor.keep(p, Join(tuple(pieces), join.starts, p.output, None, p.nodes))
    return prune(editor.result())


def _is_split(x: Tensor, p: Map, uses: dict[int, int]) -> bool:
    join = x.source
    if not isinstance(join, Join) or join.fill is not None or len(join.inputs) > MOST_PIECES or not alike(x.shape, p.output.shape):
        return False
    return uses[id(x)] == 1 and all(_is_free(piece, uses) for piece in join.inputs)


def _is_free(piece: Tensor, uses: dict[int, int]) -> bool:
    return isinstance(piece.source, Move | None) or (isinstance(piece.source, Map) and uses.get(id(piece), 1) == 1)


def _piece(editor: Editor, p: Map, at: int, x: Tensor, start: Shape) -> Tensor:
    """The map on one piece of the join that is its input `at`."""
    inputs = []
    for i, y in enumerate(p.inputs):
        if i == at:
            inputs.append(x)
            continue
        lead = len(start) - y.rank
        starts = tuple(s if n != 1 else 0 for s, n in zip(start[lead:], y.shape))
        sizes = tuple(m if n != 1 else 1 for m, n in zip(x.shape[lead:], y.shape))
        step = view(Slice(starts, (1,) * y.rank, sizes), y, p.nodes) if not alike(sizes, y.shape) else y
        if isinstance(step, Move):
            editor.insert(step)
        inputs.append(step.output if isinstance(step, Move) else step)
    made = replace(p, inputs=tuple(inputs), output=Tensor(p.output.dtype, x.shape))
    editor.insert(made)
    return made.output
