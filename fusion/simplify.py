"""Rewrites of a trace before it is grouped; each is a function Trace -> Trace, applied in the order of `PASSES`.

1. `prune`: primitives that no output needs go.
2. `compose_moves`: a view of a view is one view; a view that changes nothing is its input.
3. `share`: primitives of the same kind on the same inputs are computed once.
4. `fold_views`: a view of an elementwise result that nobody else reads is taken of its inputs instead, so that the
   elementwise work can be fused with what reads the view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..ops import evaluate
from ..ops.primitives import (
    Expand,
    Host,
    Join,
    Kernel,
    Layout,
    Map,
    Move,
    Movement,
    Opaque,
    Permute,
    Primitive,
    Reduce,
    Reshape,
    Slice,
    Tail,
    Tensor,
    Trace,
)  # fmt: skip

Value = Tensor | Opaque


def simplify(trace: Trace) -> Trace:
    """All passes in order."""
    for each in PASSES:
        trace = each(trace)
    return trace


def prune(trace: Trace) -> Trace:
    """Only what the outputs need."""
    needed = {id(v) for v in trace.outputs}
    kept: list[Primitive] = []
    for primitive in reversed(trace.primitives):
        if any(id(out) in needed for out in primitive.outputs):
            kept.append(primitive)
            needed.update(id(x) for x in primitive.inputs if x is not None)
    return Trace(trace.inputs, trace.outputs, kept[::-1])


def compose_moves(trace: Trace) -> Trace:
    """Reshape of reshape, permute of permute, and views that change nothing."""
    editor = _Editor(trace)
    for primitive in trace.primitives:
        one = editor.renamed(primitive)
        if isinstance(one, Move):
            composed = _compose(one)
            if isinstance(composed, Tensor):
                editor.substitute(primitive.output, composed)
                continue
            one = composed
        editor.keep(primitive, one)
    return prune(editor.result())


def _compose(move: Move) -> Move | Tensor:
    """The move with an earlier one folded in; what it is taken of if together they change nothing."""
    source = move.input.source
    how, start = move.how, move.input
    if isinstance(source, Move):
        before = source.how
        if isinstance(how, Reshape) and isinstance(before, Reshape):
            start = source.input
        elif isinstance(how, Permute) and isinstance(before, Permute):
            how, start = Permute(tuple(before.axes[a] for a in how.axes)), source.input
        elif isinstance(how, Expand) and isinstance(before, Expand):
            start = source.input
    if isinstance(how, Reshape | Expand) and how.shape == start.shape:
        return start
    if isinstance(how, Permute) and how.axes == tuple(range(len(how.axes))):
        return start
    return move if start is move.input else replace(move, how=how, input=start)


def share(trace: Trace) -> Trace:
    """Common subexpressions."""
    editor, known = _Editor(trace), {}
    for primitive in trace.primitives:
        one = editor.renamed(primitive)
        key = _identity(one)
        if key is not None and key in known:
            editor.substitute(primitive.outputs[0], known[key])
            continue
        editor.keep(primitive, one)
        if key is not None:
            known[key] = primitive.outputs[0]
    return editor.result()


def _identity(p: Primitive) -> object:
    if isinstance(p, Map):
        return (p.text, p.output.dtype, p.output.shape, *map(_value_key, p.inputs))
    if isinstance(p, Reduce):
        return (p.fold, p.axes, _value_key(p.input))
    if isinstance(p, Move):
        return (p.how, _value_key(p.input))
    return None


def _value_key(x: Tensor) -> object:
    if x.constant is not None and x.size == 1:
        return (x.dtype, x.shape, x.constant.tobytes())
    return id(x) if x.constant is None else id(x.constant)


def fold_views(trace: Trace) -> Trace:
    """Rule 4. A map that a contraction takes into its epilogue is left alone: its result is stored anyway."""
    while True:
        uses = use_counts(trace)
        readers = _readers(trace)
        targets = [
            p
            for p in trace.primitives
            if isinstance(p, Move)
            and isinstance(p.input.source, Map)
            and uses[id(p.input)] == 1
            and not _in_epilogue(p.input.source, uses)
            and all(_gains(r, p) for r in readers[id(p.output)])
        ]
        moved = {id(p): made for p in targets if (made := _through(p)) is not None}
        if not moved:
            return trace
        # a chain of moves: only the last of each chain is folded in one round
        editor = _Editor(trace)
        for primitive in trace.primitives:
            if id(primitive) in moved:
                *moves, new = moved[id(primitive)]
                for extra in moves:
                    editor.insert(extra)
                editor.keep(primitive, editor.renamed(new))
            else:
                editor.keep(primitive, editor.renamed(primitive))
        trace = compose_moves(prune(editor.result()))


def _gains(reader: Primitive | None, move: Move) -> bool:
    """Whether a reader of a view can be fused with what makes it; an output (None) has to be written anyway."""
    return isinstance(reader, Map | Reduce) or (reader is None and not isinstance(move.how, Reshape))


def _in_epilogue(p: Map, uses: dict[int, int]) -> bool:
    """Whether a chain of maps of one shape leads back to a contraction with a tail."""
    while True:
        sources = [x.source for x in p.inputs if x.constant is None and x.shape == p.output.shape]
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
    moves: list[Primitive] = []
    inputs: list[Tensor] = []
    for x in inner.inputs:
        if x.size == 1:
            inputs.append(x)
            continue
        for how in (Expand(inner.output.shape), move.how):
            if isinstance(how, Expand) and how.shape == x.shape:
                continue
            step = _view(how, x, move.nodes)
            if step is None:
                return None
            if isinstance(step, Move):
                moves.append(step)
                x = step.output
            else:
                x = step
        inputs.append(x)
    output = Tensor(move.output.dtype, move.output.shape, None, move.output.name)
    return [*moves, Map(inner.text, tuple(inputs), output, (*inner.nodes, *move.nodes))]


def _view(how: Movement, x: Tensor, nodes: tuple[str, ...]) -> Move | Tensor | None:
    if x.constant is not None:
        made = evaluate.move(how, x.constant)
        return Tensor(x.dtype, made.shape, made)
    shape = how.sizes if isinstance(how, Slice) else tuple(x.shape[a] for a in how.axes) if isinstance(how, Permute) else how.shape
    if isinstance(how, Reshape) and (strides := _known_strides(x)) is not None and how.layout(strides) is None:
        return None
    output = Tensor(x.dtype, shape)
    move = Move(how, x, output, nodes)
    output.source = move
    return move


def _known_strides(x: Tensor) -> Layout | None:
    """The layout of a value if every stored tensor were dense in its own order."""
    chain: list[Movement] = []
    while isinstance(x.source, Move):
        chain.append(x.source.how)
        x = x.source.input
    layout: Layout | None = Layout.contiguous(x.shape, x.dtype.itemsize)
    for how in reversed(chain):
        layout = how.layout(layout) if layout is not None else None
    return layout


PASSES: tuple[Callable[[Trace], Trace], ...] = (prune, compose_moves, share, fold_views, share)


def use_counts(trace: Trace) -> dict[int, int]:
    """id(value) -> number of reads, the trace's outputs included."""
    counts: dict[int, int] = {}
    for values in [*(p.inputs for p in trace.primitives), trace.outputs]:
        for x in values:
            if x is not None:
                counts[id(x)] = counts.get(id(x), 0) + 1
    return counts


def _readers(trace: Trace) -> dict[int, list[Primitive | None]]:
    readers: dict[int, list[Primitive | None]] = {}
    for p in trace.primitives:
        for x in p.inputs:
            if x is not None:
                readers.setdefault(id(x), []).append(p)
    for x in trace.outputs:
        readers.setdefault(id(x), []).append(None)
    return readers


class _Editor:
    """Builds a trace from another while values are replaced. Outputs keep their tensors, whose `source` is updated."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.primitives = trace, []
        self.replaced: dict[int, Value] = {}
        self.alive: list[object] = []  # keeps ids unique

    def current(self, x: Value | None) -> Value | None:
        """What stands for a value now."""
        while x is not None and id(x) in self.replaced:
            x = self.replaced[id(x)]
        return x

    def substitute(self, old: Value, new: Value) -> None:
        """Readers of `old` read `new` from here on."""
        self.alive.append(old)
        if not new.name:
            new.name = old.name
        self.replaced[id(old)] = new

    def renamed(self, p: Primitive) -> Primitive:
        """The primitive with its inputs replaced; itself when nothing changed."""
        inputs = [self.current(x) for x in p.inputs]
        if all(a is b for a, b in zip(inputs, p.inputs)):
            return p
        if isinstance(p, Reduce | Move):
            return replace(p, input=inputs[0])
        assert isinstance(p, Map | Join | Kernel | Host)
        return replace(p, inputs=tuple(inputs))

    def insert(self, p: Primitive) -> None:
        """A new primitive with new outputs."""
        one = self.renamed(p)
        for out in one.outputs:
            out.source = one
        self.primitives.append(one)

    def keep(self, old: Primitive, new: Primitive) -> None:
        """`new` in place of `old`; its outputs are old's tensors."""
        if new is not old and isinstance(new, Map | Reduce | Move) and new.output is not old.outputs[0]:
            new = replace(new, output=old.outputs[0])
        for out in new.outputs:
            out.source = new
        self.primitives.append(new)

    def result(self) -> Trace:
        """The new trace."""
        return Trace(self.trace.inputs, [self.current(x) for x in self.trace.outputs], self.primitives)


def literal(x: Tensor) -> float | int | None:
    """The one element of a constant as a Python number; None for anything else."""
    if x.constant is None or x.size != 1 or not isinstance(x.constant, np.ndarray):
        return None
    return x.constant.reshape(-1)[0].item()
