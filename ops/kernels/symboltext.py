"""Polynomials of symbols and the guards over them as text, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .polynomials import Terms

if TYPE_CHECKING:
    from .symbols import Symbols

SIGNS = {"zero": "==", "nonzero": "!=", "nonnegative": ">="}
MARK = "$"  # before each name, so that no text of an open size is a Python expression


def text(symbols: Symbols, terms: Terms) -> str:
    """A polynomial."""
    parts = []
    for monomial, factor in sorted(terms.items(), key=lambda item: (-len(item[0]), item[0])):
        names = [_name(symbols, part) for part in monomial]
        number = [str(abs(factor))] if abs(factor) != 1 or not names else []
        parts.append(("-" if factor < 0 else "+", "*".join([*number, *names])))
    joined = " ".join(f"{sign} {one}" for sign, one in parts)
    return joined[2:] if joined.startswith("+") else joined.replace("- ", "-", 1) or "0"


def sentence(symbols: Symbols, kind: str, terms: Terms) -> str:
    """What a condition says, without marks: what is negative is on the right."""
    left = {m: f for m, f in terms.items() if m and f > 0}
    right = {m: -f for m, f in terms.items() if m and f < 0}
    constant, sign = terms.get((), 0), SIGNS[kind]
    if not left:
        left, right, constant = right, left, -constant
        sign = "<=" if sign == ">=" else sign
    if constant:
        side = left if right and constant > 0 else right
        side[()] = constant if side is left else -constant
    return f"{text(symbols, left)} {sign} {text(symbols, right)}".replace(MARK, "")


def _name(symbols: Symbols, number: int) -> str:
    part = symbols.parts[number]
    if part.kind == "symbol":
        return MARK + part.name
    if part.kind == "floor":
        above, below = (_operand(symbols, dict(one)) for one in part.terms)
        return f"({above} // {below})"
    call = symbols.calls[part.call]
    given = ", ".join(text(symbols, dict(a.terms)) if hasattr(a, "terms") else str(a) for a in call.arguments)
    return f"{MARK}{call.function.__name__.strip('_')}({given}){part.item}"


def _operand(symbols: Symbols, terms: Terms) -> str:
    """A polynomial in a quotient."""
    one = text(symbols, terms)
    return one if one.removeprefix(MARK).isidentifier() or one.isdigit() else f"({one})"
