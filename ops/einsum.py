"""Einsum: any equation as diagonals, transposes, matrix products and sums.

1. Every letter of every operand becomes a dimension (of size 1 where the operand lacks it); a repeated letter takes
   the diagonal; the ellipsis stands for the leading dimensions that broadcast.
2. Operands are contracted from left to right. Of the letters of two operands, those that neither the output nor a
   later operand has are summed: by a matrix product where both operands have them, before it where one has.
"""

from __future__ import annotations

from math import prod

import numpy as np

from .builder import Builder, OperatorError, broadcast
from .gather import gather
from .matmul import product
from .primitives import Fold, Tensor
from .registry import NUMBERS, check_types, op


@op("Einsum", since=12)
def einsum(t: Builder, *inputs, equation):
    """The sum over all letters that the output lacks of the product of the operands."""
    check_types(inputs, NUMBERS)
    terms, result = _parsed(equation, [x.rank for x in inputs])
    operands = [_diagonal(t, x, term) for x, term in zip(inputs, terms)]
    value, letters = operands[0]
    for i, (other, theirs) in enumerate(operands[1:], 2):
        later = {*result, *(c for _, term in operands[i:] for c in term)}
        value, letters = _contracted(t, value, letters, other, theirs, later)
    value, letters = _summed(t, value, letters, set(result))
    return t.transpose(value, [letters.index(c) for c in result])


def _parsed(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of every operand and of the result; the ellipsis' dimensions are written 0, 1, ... 9.

    Raises:
        OperatorError: the equation does not fit the operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    letters = [term.replace("...", "", 1) for term in terms]
    if len(terms) != len(ranks):
        raise OperatorError(f"equation {equation!r} has {len(terms)} terms for {len(ranks)} inputs")
    spread = [rank - len(own) for own, rank in zip(letters, ranks)]
    for term, own, rank, extra in zip(terms, letters, ranks, spread):
        if (own and not own.isalpha()) or extra < 0 or extra > 10 or (extra and term == own):
            raise OperatorError(f"term {term!r} of equation {equation!r} does not name the {rank} dimensions of its input")
    digits = "0123456789"[: max(spread)]
    named = [term.replace("...", digits[len(digits) - extra :]) for term, extra in zip(terms, spread)]
    once = sorted(c for c in {*"".join(named)} if "".join(named).count(c) == 1 and c.isalpha())
    result = right.replace("...", digits) if arrow else digits + "".join(once)
    unknown = [c for c in result if c not in "".join(named)]
    if unknown or len({*result}) != len(result):
        raise OperatorError(f"the output of equation {equation!r} must name letters of the inputs, each once")
    return named, result


def _diagonal(t: Builder, x: Tensor, letters: str) -> tuple[Tensor, str]:
    """Without repeated letters."""
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            first, second = letters.index(c), letters.rindex(c)
            n = x.shape[first]
            if x.shape[second] != n:
                raise OperatorError(f"letter {c!r} stands for sizes {n} and {x.shape[second]}")
            rest = [d for d in range(x.rank) if d not in (first, second)]
            flat = t.reshape(t.transpose(x, [first, second, *rest]), [n * n, *(x.shape[d] for d in rest)])
            x = gather(t, flat, t.constant(np.arange(n) * (n + 1)), axis=0)
            letters = c + "".join(letters[d] for d in rest)
    return x, letters


def _summed(t: Builder, x: Tensor, letters: str, kept: set[str]) -> tuple[Tensor, str]:
    """Without the letters that are not kept."""
    gone = [d for d, c in enumerate(letters) if c not in kept]
    if not gone:
        return x, letters
    return t.reduce(Fold.ADD, x, gone, keepdims=False), "".join(c for c in letters if c in kept)


def _contracted(t: Builder, a: Tensor, left: str, b: Tensor, right: str, later: set[str]) -> tuple[Tensor, str]:
    """One operand of two."""
    a, left = _summed(t, a, left, {*right} | later)
    b, right = _summed(t, b, right, {*left} | later)
    sizes: dict[str, int] = {}
    for c, n in [*zip(left, a.shape), *zip(right, b.shape)]:
        (sizes[c],) = broadcast((sizes.get(c, 1),), (n,))
    both = [c for c in left if c in right]
    batch = [c for c in both if c in later]
    inner = [c for c in both if c not in later]
    rows, columns = [c for c in left if c not in right], [c for c in right if c not in left]
    if not inner:
        return _outer(t, a, left, b, right, [*batch, *rows, *columns])
    a3 = _matrices(t, a, left, [batch, rows, inner], sizes)
    b3 = _matrices(t, b, right, [batch, inner, columns], sizes)
    made = product(t, a3, b3)
    order = [*batch, *rows, *columns]
    return t.reshape(made, [sizes[c] for c in order]), "".join(order)


def _outer(t: Builder, a: Tensor, left: str, b: Tensor, right: str, order: list[str]) -> tuple[Tensor, str]:
    """The elementwise product with every letter a dimension."""
    wide = []
    for x, letters in ((a, left), (b, right)):
        present = [c for c in order if c in letters]
        moved = t.transpose(x, [letters.index(c) for c in present])
        sizes = dict(zip(present, moved.shape))
        wide.append(t.reshape(moved, [sizes.get(c, 1) for c in order]))
    return t.map("a * b", *wide), "".join(order)


def _matrices(t: Builder, x: Tensor, letters: str, groups: list[list[str]], sizes: dict[str, int]) -> Tensor:
    """x with each group of letters as one dimension."""
    order = [c for group in groups for c in group]
    moved = t.expand(t.transpose(x, [letters.index(c) for c in order]), [sizes[c] for c in order])
    return t.reshape(moved, [prod(sizes[c] for c in group) for group in groups])
