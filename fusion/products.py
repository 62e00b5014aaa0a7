"""Passes over matrix products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..ops.primitives import Kernel, Map, Move, Slice, Tensor, Trace
from .edit import Editor, use_counts
from .scales import scaled
from .tidy import prune


def hoist_scales(trace: Trace) -> Trace:
    """(a * s) b -> (a b) * s: a number by which an operand of a product is multiplied multiplies the product.

    There it is part of the product's tail, or of the softmax that follows, and both operands may have one (attention
    that scales queries and keys by the root of its scale).

    Left alone: scaled values that others read too; sums that might leave the range of the type (a factor below 2^-20).
    """
    editor, uses = Editor(trace), use_counts(trace)
    for p in trace.primitives:
        one = editor.renamed(p)
        if not isinstance(p, Kernel) or not p.linear:
            editor.keep(p, one)
            continue
        total = 1.0
        inputs = []
        for x in one.inputs:
            found = _unscaled(x, uses)
            if found is None:
                inputs.append(x)
                continue
            factor, source, moves = found
            total *= factor
            for move in moves:
                again = replace(move, input=source, output=Tensor(move.output.dtype, move.output.shape))
                editor.insert(again)
                source = again.output
            inputs.append(source)
        if total == 1.0:
            editor.keep(p, one)
            continue
        raw = Tensor(p.outputs[0].dtype, p.outputs[0].shape)
        editor.insert(replace(one, inputs=tuple(inputs), outputs=(raw,)))
        scale = np.array(total, raw.dtype)
        editor.keep(p, Map("a * b", (raw, Tensor(raw.dtype, (), scale)), p.outputs[0], p.nodes))
    return prune(editor.result())


def _unscaled(x: Tensor | None, uses: dict[int, int]) -> tuple[float, Tensor, list[Move]] | None:
    """The factor of a scaled value, the value without it, and the views that lead from there to x."""
    moves: list[Move] = []
    while x is not None and isinstance(x.source, Move) and uses.get(id(x)) == 1 and not isinstance(x.source.how, Slice):
        moves.append(x.source)
        x = x.source.input
    found = scaled(x.source) if x is not None and uses.get(id(x)) == 1 else None
    return None if found is None else (found[1], found[0], moves[::-1])
