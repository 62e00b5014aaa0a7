"""Polynomials of numbered parts; those with whole factors are what sizes are written in."""

from __future__ import annotations

from typing import TypeVar

Factor = TypeVar("Factor", int, float)
Monomial = tuple[int, ...]  # parts, by number, sorted; one that stands twice is squared
Terms = dict[Monomial, int]  # factors of monomials, none of them 0
Frozen = tuple[tuple[Monomial, int], ...]  # the same with a hash


def add(terms: dict[Monomial, Factor], monomial: Monomial, factor: Factor) -> None:
    """Add to one factor, in place."""
    total = terms.get(monomial, 0) + factor
    if total:
        terms[monomial] = total
    else:
        terms.pop(monomial, None)


def total(a: dict[Monomial, Factor], b: dict[Monomial, Factor], sign: int) -> dict[Monomial, Factor]:
    """a + sign b."""
    made = dict(a)
    for monomial, factor in b.items():
        factor = made.get(monomial, 0) + sign * factor
        if factor:
            made[monomial] = factor
        else:
            made.pop(monomial, None)
    return made


def product(a: dict[Monomial, Factor], b: dict[Monomial, Factor]) -> dict[Monomial, Factor]:
    """a b."""
    made: dict[Monomial, Factor] = {}
    for m, f in a.items():
        for n, g in b.items():
            add(made, tuple(sorted(m + n)) if m and n else m or n, f * g)
    return made


def without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    """A monomial divided by another; None if that is none of its factors."""
    left = list(monomial)
    for part in factor:
        if part not in left:
            return None
        left.remove(part)
    return tuple(left)


def split(terms: Terms) -> tuple[Terms, int]:
    """Without the constant, and the constant."""
    return {m: f for m, f in terms.items() if m}, terms.get((), 0)


def frozen(terms: Terms) -> Frozen:
    """The polynomial as a value."""
    return tuple(sorted(terms.items()))


def code(terms: Terms) -> str:
    """As a Python expression of s<i>."""
    return "+".join(map(_product, sorted(terms.items()))) or "0"


def _product(item: tuple[Monomial, int]) -> str:
    monomial, factor = item
    return "*".join([*([str(factor)] if factor != 1 or not monomial else []), *(f"s{part}" for part in monomial)])
