"""Passes over multiplications by numbers."""

from __future__ import annotations

import numpy as np

from ..ops.kernels.sizes import alike
from ..ops.primitives import Map, Primitive, Tensor, Trace
from .edit import Editor, literal, use_counts
from .tidy import prune

FACTORS = {"a * b": lambda x, y: x * y, "a / b": lambda x, y: x / y}  # of a value and a number
_LARGEST = 2.0**20  # beyond it, or its inverse, a value between the two might have left the range of its type


def merge_scales(trace: Trace) -> Trace:
    """x / 6 * s -> x * (s / 6): numbers by which a value is multiplied or divided, one after the other, are one factor.

    Left alone: values that others read too; single divisions, whose last digit a product with the inverse may miss.
    """
    editor, uses, changed = Editor(trace), use_counts(trace), False
    for p in trace.primitives:
        one = editor.renamed(p)
        found = _merged(one, uses)
        if found is not None:
            value, factor = found
            one, changed = Map("a * b", (value, Tensor(value.dtype, (), np.array(factor, value.dtype))), p.output, p.nodes), True
        editor.keep(p, one)
    return prune(editor.result()) if changed else trace


def _merged(p: Primitive, uses: dict[int, int]) -> tuple[Tensor, float] | None:
    """The value and the factor of its product that p can be."""
    outer = scaled(p)
    if outer is None:
        return None
    value, factor = outer
    inner = scaled(value.source) if uses.get(id(value)) == 1 else None
    if inner is not None and 1 / _LARGEST < abs(inner[1] * factor) < _LARGEST:
        return inner[0], inner[1] * factor
    return None


def scaled(p: Primitive | None) -> tuple[Tensor, float] | None:
    """The value and the factor of a p that multiplies or divides a value by a number; float16 has no room for others."""
    if not isinstance(p, Map) or p.text not in FACTORS or p.output.dtype not in (np.float32, np.float64):
        return None
    value, number = p.inputs[0], literal(p.inputs[1])
    if number is None and p.text == "a * b":
        value, number = p.inputs[1], literal(p.inputs[0])
    if number is None or not alike(value.shape, p.output.shape) or value.dtype != p.output.dtype:
        return None
    factor = FACTORS[p.text](1.0, float(number)) if number else 0.0
    return (value, factor) if 1 / _LARGEST < abs(factor) < _LARGEST else None
