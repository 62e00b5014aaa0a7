"""What the passes over a trace are written with: an editor, views of values, and who reads what."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from ..ops import evaluate, openvalues
from ..ops.kernels.sizes import is_open
from ..ops.primitives import (
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
    Tensor,
    Trace,
)  # fmt: skip

Value = Tensor | Opaque


def use_counts(trace: Trace) -> dict[int, int]:
    """id(value) -> number of reads, the trace's outputs included."""
    counts: dict[int, int] = {}
    for values in [*(p.inputs for p in trace.primitives), trace.outputs]:
        for x in values:
            if x is not None:
                counts[id(x)] = counts.get(id(x), 0) + 1
    return counts


def readers_of(trace: Trace) -> dict[int, list[Primitive | None]]:
    """id(value) -> the primitives that read it; None stands for the trace's outputs."""
    readers: dict[int, list[Primitive | None]] = {}
    for p in trace.primitives:
        for x in p.inputs:
            if x is not None:
                readers.setdefault(id(x), []).append(p)
    for x in trace.outputs:
        readers.setdefault(id(x), []).append(None)
    return readers


class Editor:
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
        replaced = self.replaced
        if not replaced or not any(id(x) in replaced for x in p.inputs):
            return p
        inputs = [self.current(x) for x in p.inputs]
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
        if new is old:
            self.primitives.append(old)
            return
        if isinstance(new, Map | Reduce | Move) and new.output is not old.outputs[0]:
            new = replace(new, output=old.outputs[0])
        for out in new.outputs:
            out.source = new
        self.primitives.append(new)

    def result(self) -> Trace:
        """The new trace."""
        return Trace(self.trace.inputs, [self.current(x) for x in self.trace.outputs], self.primitives)


def literal(x: Tensor) -> float | int | None:
    """The one element of a constant as a Python number; None for anything else."""
    if not x.is_constant or x.is_open or x.size != 1 or not isinstance(x.constant, np.ndarray):
        return None
    return x.constant.reshape(-1)[0].item()


def view(how: Movement, x: Tensor, nodes: tuple[str, ...]) -> Move | Tensor | None:
    """A view of x: a move with its output, a constant, or None if no strides would express it."""
    if x.is_constant and not is_open(*(getattr(how, field.name) for field in fields(how))):
        if x.is_open:
            return openvalues.tensor(evaluate.move(how, x.content), x.dtype)
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
