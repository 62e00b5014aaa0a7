"""Passes that only take away: what nobody needs, views of views, what is computed twice."""

from __future__ import annotations

from dataclasses import replace

from ..ops.kernels.sizes import alike, key
from ..ops.primitives import Expand, Map, Move, Permute, Primitive, Reduce, Reshape, Slice, Tensor, Trace
from .edit import Editor


def prune(trace: Trace) -> Trace:
    """Only what the outputs need."""
    needed = {id(v) for v in trace.outputs}
    kept: list[Primitive] = []
    for primitive in reversed(trace.primitives):
        for out in primitive.outputs:
            if id(out) in needed:
                kept.append(primitive)
                needed.update(map(id, primitive.inputs))
                break
    return Trace(trace.inputs, trace.outputs, kept[::-1]) if len(kept) < len(trace.primitives) else trace


def compose_moves(trace: Trace) -> Trace:
    """Reshape of reshape, permute of permute, and views that change nothing."""
    editor, changed = Editor(trace), False
    for primitive in trace.primitives:
        one = editor.renamed(primitive)
        if isinstance(one, Move):
            composed = _compose(one)
            if isinstance(composed, Tensor):
                editor.substitute(primitive.output, composed)
                changed = True
                continue
            one = composed
        editor.keep(primitive, one)
        changed |= one is not primitive
    return prune(editor.result()) if changed else trace


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
        elif isinstance(how, Slice) and isinstance(before, Slice):
            starts = tuple(b + k * s for b, k, s in zip(before.starts, before.steps, how.starts))
            how, start = Slice(starts, tuple(k * s for k, s in zip(before.steps, how.steps)), how.sizes), source.input
    if isinstance(how, Reshape | Expand) and alike(how.shape, start.shape):
        return start
    if isinstance(how, Permute) and how.axes == tuple(range(len(how.axes))):
        return start
    return move if start is move.input else replace(move, how=how, input=start)


def share(trace: Trace) -> Trace:
    """Common subexpressions."""
    editor, known = Editor(trace), {}
    for primitive in trace.primitives:
        one = editor.renamed(primitive)
        identity = _identity(one)
        if identity is not None and identity in known:
            editor.substitute(primitive.outputs[0], known[identity])
            continue
        editor.keep(primitive, one)
        if identity is not None:
            known[identity] = primitive.outputs[0]
    return editor.result()


def _identity(p: Primitive) -> object:
    if isinstance(p, Map):
        return key(p.text, p.output.dtype, p.output.shape, *map(_value_key, p.inputs))
    if isinstance(p, Reduce):
        return key(p.fold, p.axes, _value_key(p.input))
    if isinstance(p, Move):
        return key(p.how, _value_key(p.input))
    return None


def _value_key(x: Tensor) -> object:
    if x.is_open:
        return key(x.dtype, x.shape, *x.content.reshape(-1))
    if x.is_constant and x.size == 1:
        return (x.dtype, x.shape, x.constant.tobytes())
    return id(x) if not x.is_constant else id(x.constant)
