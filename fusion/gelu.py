"""GELU, which exporters write in words, is one function."""

from __future__ import annotations

import math
import operator

from numpy.polynomial import Polynomial

from ..ops.kernels.sizes import alike
from ..ops.primitives import Map, Primitive, Tensor, Trace
from .edit import Editor, literal
from .tidy import prune

_CUBE, _SLOPE = 0.044715, math.sqrt(2.0 / math.pi)
# what 1 is added to -> the function, and the polynomial of its argument
_FORMS = {
    "erf(a)": ("gelu(a)", (0.0, math.sqrt(0.5))),
    "tanh(a)": ("gelu_tanh(a)", (0.0, _SLOPE, 0.0, _SLOPE * _CUBE)),
}
_CLOSE = 1e-5  # relative: exporters round numbers to float32, and some write 0.7978845608 for the slope
_ARITHMETIC = {
    "a + b": operator.add,
    "a - b": operator.sub,
    "a * b": operator.mul,
    "a * a": lambda a: a * a,
    "a * a * a": lambda a: a * a * a,
}
_DEPTH = 8  # operations between x and what erf or tanh is taken of


def recognise_gelu(trace: Trace) -> Trace:
    """x / 2 * (1 + erf(x / sqrt 2)) -> gelu(x), and x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) -> gelu_tanh(x).

    Factors stand in any order and grouping; so do the terms of the polynomial. Float16 is left alone: it rounds each step.
    """
    editor, changed = Editor(trace), False
    for p in trace.primitives:
        one = editor.renamed(p)
        found = _gelu(one)
        editor.keep(p, found or one)
        changed |= found is not None
    return prune(editor.result()) if changed else trace


def _gelu(p: Primitive) -> Map | None:
    """The primitive as a GELU, if it is one."""
    if not isinstance(p, Map) or p.text not in ("a * b", "a / b") or p.output.dtype.name not in ("float32", "float64"):
        return None
    values, number = _factors(p.output, p)
    if len(values) != 2 or not math.isclose(number, 0.5, rel_tol=_CLOSE):
        return None
    for x, rest in (values, values[::-1]):
        form = _FORMS.get(inner.text) if (inner := _beside_one(rest)) else None
        if form and alike(x.shape, p.output.shape) and x.dtype == p.output.dtype and _is(inner.inputs[0], x, form[1]):
            return Map(form[0], (x,), p.output, p.nodes)
    return None


def _factors(x: Tensor, p: Primitive | None, depth: int = 3) -> tuple[list[Tensor], float]:
    """The values and the number that x, which p makes, is the product of."""
    number = literal(x)
    if number is not None:
        return [], float(number)
    divisor = literal(p.inputs[1]) if isinstance(p, Map) and p.text == "a / b" else None
    if not depth or not isinstance(p, Map) or not (p.text == "a * b" or divisor):
        return [x], 1.0
    parts = [_factors(one, one.source, depth - 1) for one in (p.inputs[:1] if divisor else p.inputs)]
    return [value for values, _ in parts for value in values], math.prod(n for _, n in parts) / (divisor or 1.0)


def _beside_one(x: Tensor) -> Map | None:
    """What makes f(u) where x = 1 + f(u)."""
    p = x.source
    if not isinstance(p, Map) or p.text != "a + b":
        return None
    for value, other in (p.inputs, p.inputs[::-1]):
        if literal(other) == 1.0 and isinstance(value.source, Map):
            return value.source
    return None


def _is(u: Tensor, x: Tensor, coefficients: tuple[float, ...]) -> bool:
    """Whether u is a polynomial in x with these coefficients."""
    found = _polynomial(u, x, _DEPTH)
    if not isinstance(found, Polynomial) or found.degree() != len(coefficients) - 1:
        return False
    return all(math.isclose(a, b, rel_tol=_CLOSE) for a, b in zip(found.coef, coefficients))


def _polynomial(u: Tensor, x: Tensor, depth: int) -> Polynomial | float | None:
    """u as a polynomial in x, or as a number; None if it is neither."""
    if u is x:
        return Polynomial((0.0, 1.0))
    number, p = literal(u), u.source
    if number is not None:
        return float(number)
    if not depth or not isinstance(p, Map):
        return None
    operands = [_polynomial(one, x, depth - 1) for one in p.inputs]
    if any(one is None for one in operands):
        return None
    if p.text == "a / b":
        return operands[0] / operands[1] if isinstance(operands[1], float) and operands[1] else None
    return _ARITHMETIC[p.text](*operands) if p.text in _ARITHMETIC else None
