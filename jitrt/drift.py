"""Bodies that slice by the number of the iteration: how the words of a plan that leaves this number open change with it.

Words that are the number times something, plus something, change by the same amount each time, and so does what the guards compare:
if they hold for two numbers, they hold between them. `Drift.of` finds out whether nothing else in a plan depends on the number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .families import OpenSizes
from .fusion.bindings import Binding
from .fusion.plan import Tensor
from .ops.kernels.polynomials import Frozen, Terms
from .ops.kernels.sizes import Size
from .ops.kernels.symbols import Given, Symbols

if TYPE_CHECKING:
    from .executor import Executor


@dataclass(frozen=True)
class Drift:
    """What an iteration adds to words of a context.

    Attributes:
        symbol: the place of the iteration's number among the binding's sizes.
        change: what is added to each open size of the plan. steps: places of words, and what is added to each.
    """

    executor: Executor
    binding: Binding
    symbol: int
    change: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]

    @staticmethod
    def of(executor: Executor, binding: Binding, sizes: OpenSizes | None, counter: str) -> Drift | None:
        """That of a plan in which the element of input `counter` is open; None: it has none."""
        plan, symbol = executor.plan, -1 if sizes is None else sizes.place_of_content(counter)
        if symbol < 0 or plan.symbols is None:
            return None
        number = [i for i, part in enumerate(plan.symbols.parts) if part.kind == "symbol"][symbol]
        follows = _follows(plan.symbols, number)
        conditions = [c for c in plan.symbols.conditions if not follows.isdisjoint(_parts(c.terms))]
        fixed = [plan.scratch_bytes, *(memory.nbytes for memory in plan.memories)]
        fixed += [n for x in (*plan.inputs, *plan.outputs) if isinstance(x, Tensor) for n in x.shape]
        same = all(follows.isdisjoint(_parts(n.terms)) for n in fixed if isinstance(n, Size))
        straight = all(_is_straight(n.terms, number, follows) for n in plan.sizes)
        guarded = all(c.kind != "nonzero" and _is_straight(dict(c.terms), number, follows) for c in conditions)
        after = executor.binder.values_at(_moved(binding.sizes, symbol, 1))
        if not (same and straight and guarded) or after is None:
            return None
        change = tuple(b - a for a, b in zip(binding.values.tolist(), after))
        steps = ((at, change[size]) for at, size in executor.words.places_of_sizes())
        return Drift(executor, binding, symbol, change, tuple((at, step) for at, step in steps if step))

    def of_number(self, number: object) -> int:
        """What is added to a number of the plan."""
        return self.change[self.executor.plan.place(number)] if isinstance(number, Size) else 0

    def reach(self, count: int) -> int:
        """For how many iterations, of `count`, the plan may be used."""
        while count > 1 and self.executor.binder.values_at(_moved(self.binding.sizes, self.symbol, count - 1)) is None:
            count //= 2
        return count


def _moved(sizes: tuple[int, ...], symbol: int, by: int) -> tuple[int, ...]:
    return (*sizes[:symbol], sizes[symbol] + by, *sizes[symbol + 1 :])


def _parts(terms: Terms | Frozen) -> set[int]:
    return {part for monomial in dict(terms) for part in monomial}


def _follows(symbols: Symbols, number: int) -> set[int]:
    """A symbol, and the parts that depend on it; what comes later can only depend on what was before."""
    found = {number}
    for i, part in enumerate(symbols.parts):
        sources: Iterable[Frozen] = part.terms
        if part.kind == "item":
            sources = [a.terms for a in symbols.calls[part.call].arguments if isinstance(a, Given)]
        if any(not found.isdisjoint(_parts(terms)) for terms in sources):
            found.add(i)
    return found


def _is_straight(terms: Terms, number: int, follows: set[int]) -> bool:
    """Whether a polynomial holds a symbol at most once a monomial, and nothing else that follows from it."""
    return all(sum(part in follows for part in monomial) <= monomial.count(number) <= 1 for monomial in terms)
