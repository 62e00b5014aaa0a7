"""GELU, which exporters write in words, is one function."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..ops.kernels.polynomials import Monomial, product, total
from ..ops.kernels.sizes import alike
from ..ops.primitives import Map, Primitive, Tensor, Trace
from .edit import Editor, literal
from .tidy import prune

Terms = dict[Monomial, float]  # of a polynomial in x, which is part 0

_X, _X3 = (0,), (0, 0, 0)
_CUBE, _SLOPE = 0.044715, math.sqrt(2.0 / math.pi)
# what 1 is added to -> the function, and the polynomial of its argument
_FORMS: dict[str, tuple[str, Terms]] = {
    "erf(a)": ("gelu(a)", {_X: math.sqrt(0.5)}),
    "tanh(a)": ("gelu_tanh(a)", {_X: _SLOPE, _X3: _SLOPE * _CUBE}),
}
_CLOSE = 1e-5  # relative: exporters round numbers to float32, and some write 0.7978845608 for the slope
_ARITHMETIC: dict[str, Callable[..., Terms]] = {
    "a + b": lambda a, b: total(a, b, 1),
    "a - b": lambda a, b: total(a, b, -1),
    "a * b": product,
    "a * a": lambda a: product(a, a),
    "a * a * a": lambda a: product(product(a, a), a),
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
            return Map(form[0], (x,), p.output, tuple(dict.fromkeys(_nodes(p, x))))
    return None


def _nodes(p: Map, x: Tensor) -> list[str]:
    """The nodes whose work p and what leads to it from x do."""
    before = (one.source for one in p.inputs if one is not x)
    return [*(name for q in before if isinstance(q, Map) for name in _nodes(q, x)), *p.nodes]


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


def _is(u: Tensor, x: Tensor, wanted: Terms) -> bool:
    """Whether u is this polynomial in x."""
    found = _polynomial(u, x, _DEPTH)
    return found is not None and found.keys() == wanted.keys() and all(
        math.isclose(found[power], factor, rel_tol=_CLOSE) for power, factor in wanted.items()
    )  # fmt: skip


def _polynomial(u: Tensor, x: Tensor, depth: int) -> Terms | None:
    """u as a polynomial in x of the third degree at the most; None if it is no such."""
    if u is x:
        return {_X: 1.0}
    number, p = literal(u), u.source
    if number is not None:
        return {(): float(number)} if number else {}
    if not depth or not isinstance(p, Map):
        return None
    operands = [_polynomial(one, x, depth - 1) for one in p.inputs]
    if any(one is None for one in operands):
        return None
    text = p.text
    if text == "a / b":
        if operands[1].keys() != {()}:
            return None
        text, operands[1] = "a * b", {(): 1.0 / operands[1][()]}
    made = _ARITHMETIC[text](*operands) if text in _ARITHMETIC else None
    return made if made is not None and all(len(power) <= len(_X3) for power in made) else None
