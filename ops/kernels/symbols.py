"""Symbols: the sizes that a plan leaves open, what follows from them, and what the plan takes for granted of them.

Numbers are polynomials of parts: of symbols, of quotients rounded down, of what functions give for numbers (`call`). A question
is answered by the present value; the answer is a guard, unless it follows from the bounds of the parts or from earlier guards.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType

from .polynomials import Frozen, Monomial, Terms, add, frozen, product, split, total, without
from .symboltext import sentence

Bounds = tuple["int | None", "int | None"]
_Items = tuple[tuple[Monomial, int], ...]  # a polynomial's, in any order
_HAS_DOCSTRING = 0x4000000  # among a code's flags, from Python 3.13 on
LEAST, LARGEST = 2, (1 << 31) - 1  # of a symbol: 0 and 1 are structure (nothing to do, a broadcast)


@dataclass(frozen=True)
class Condition:
    """What a plan takes for granted: `kind` of a polynomial is "zero", "nonzero" or "nonnegative".

    Attributes:
        text: for people. node: what was lowered or planned when it was asked.
        place: the code that asked, with the first line of what it says of itself.
    """

    kind: str
    terms: Frozen
    text: str
    node: str
    place: str

    @property
    def reason(self) -> str:
        """What asked, for people."""
        return f"asked for {self.node} in {self.place}" if self.node else f"asked in {self.place}"


@dataclass(frozen=True)
class Part:
    """What polynomials are made of: a symbol, a quotient rounded down, a part of a function's result.

    Attributes:
        item: the code behind the result that takes the part: an index, an attribute, or nothing.
    """

    kind: str
    name: str = ""
    terms: tuple[Frozen, ...] = ()
    call: int = 0
    item: str = ""


@dataclass(frozen=True)
class Given:
    """A polynomial among the arguments of a function."""

    terms: Frozen


@dataclass(frozen=True)
class Call:
    """A function that is called for each value. Its arguments are `Given`s, and what is the same for all values."""

    function: Callable
    arguments: tuple[object, ...]


class Fixed(Exception):
    """An open size may have its present value only.

    Attributes:
        name: the symbol's. reason: what asked, for people.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} is fixed: {reason}")
        self.name, self.reason = name, reason


class Symbols:
    """The sizes that vary, with what follows from them and what is taken for granted.

    Attributes:
        conditions: the guards, in the order in which they were asked.
        node: what is lowered or planned now, for the guards' sake.
        parts, calls: what polynomials are made of. order: of parts, calls and conditions, as they came to be.
        memo: what code that works on sizes keeps for as long as the plan is made.
        hints: the parts' present values. low, high: between what they lie; None: not known.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.hints: list[int] = []
        self.low: list[int | None] = []
        self.high: list[int | None] = []
        self.calls: list[Call] = []
        self.conditions: list[Condition] = []
        self.node = ""
        self.sealed = False
        self.order: list[tuple[str, int]] = []
        self._known: dict[object, int] = {}
        self._facts: set[object] = set()
        self._least: dict[frozenset, int] = {}  # a polynomial without its constant -> what it is at least
        self._same: dict[int, Terms] = {}  # a symbol -> what it equals
        self.memo: dict[object, object] = {}
        self._answers: dict[tuple[bool, _Items], bool] = {}  # to questions about polynomials, which stay as they are
        self._lowest: dict[_Items, int | None] = {}  # of polynomials, until something more is known

    # -- making
    def symbol(self, name: str, value: int) -> Terms:
        """A new open size."""
        return {(self._part(("symbol", name), Part("symbol", name), value, LEAST, LARGEST),): 1}

    def _part(self, known: object, part: Part, hint: int, low: int | None, high: int | None) -> int:
        number = self._known.get(known)
        if number is None:
            self._check()
            number = self._known[known] = len(self.parts)
            self.parts.append(part)
            self.hints.append(hint)
            self.low.append(low)
            self.high.append(high)
            self.order.append(("part", number))
        return number

    @staticmethod
    def value(terms: Terms, values: Mapping[int, int] | Sequence[int]) -> int:
        """A polynomial for values of its parts."""
        result = 0
        for monomial, factor in terms.items():
            for part in monomial:
                factor *= values[part]
            result += factor
        return result

    def consistent(self, values: Sequence[int]) -> list[int]:
        """Values of the symbols, with what follows from others by an equation of symbols (a guard) taken from these."""
        found = dict(zip((i for i, part in enumerate(self.parts) if part.kind == "symbol"), values))
        for _ in self._same:
            for part, terms in self._same.items():
                if all(p in found for m in terms for p in m):
                    found[part] = self.value(terms, found)
        return list(found.values())

    def now(self, terms: Terms) -> int:
        """A polynomial's present value."""
        return self.value(terms, self.hints)

    def floor(self, above: Terms, below: Terms) -> Terms:
        """above // below; `below` is not 0."""
        if list(below) == [()] and below[()] < 0:
            above, below = total({}, above, -1), {(): -below[()]}
        whole: Terms = {}
        rest = dict(above)
        if len(below) == 1:
            ((monomial, factor),) = below.items()
            if not monomial:  # what divides evenly comes out
                for m, f in above.items():
                    if f % factor == 0 or not m:
                        add(whole, m, f // factor)
                        rest[m] = f - f // factor * factor
            else:
                for m, f in above.items():
                    left = without(m, monomial)
                    if left is not None and f % factor == 0:
                        add(whole, left, f // factor)
                        rest[m] = 0
            rest = {m: f for m, f in rest.items() if f}
        if not rest:
            return whole
        if (nested := self._nested(rest, below)) is not None:
            return total(whole, nested, 1)
        low, high = self.bounds(rest)
        least, most = self.bounds(below)
        if least is not None and least > 0 and low is not None and low >= 0:
            difference = self.highest(total(rest, below, -1))
            if difference is not None and difference < 0:
                return whole
            low, high = 0 if most is None else low // most, None if high is None else high // least
        else:
            low = high = None
        one, two = frozen(rest), frozen(below)
        hint = self.value(rest, self.hints) // self.value(below, self.hints)
        part = self._part(("floor", one, two), Part("floor", terms=(one, two)), hint, low, high)
        return total(whole, {(part,): 1}, 1)

    def _nested(self, above: Terms, below: Terms) -> Terms | None:
        """(a // m + c) // n for numbers m, n > 0 and c, as (a + c m) // (m n)."""
        inner = [m for m in above if m]
        if len(inner) != 1 or above[inner[0]] != 1 or len(inner[0]) != 1 or list(below) != [()]:
            return None
        part = self.parts[inner[0][0]]
        if part.kind != "floor" or [m for m, _ in part.terms[1]] != [()]:
            return None
        divisor, outer = part.terms[1][0][1], below[()]
        if divisor < 1 or outer < 1:
            return None
        return self.floor(total(dict(part.terms[0]), {(): above.get((), 0) * divisor}, 1), {(): divisor * outer})

    def call(
        self, function: Callable, arguments: tuple[object, ...], items: Sequence[tuple[str, int]], least: int | None
    ) -> list[Terms]:
        """Parts of ``function(*arguments)``: the code that takes each, and its present value. None is under `least`."""
        known = ("call", function, arguments)
        number = self._known.get(known)
        if number is None:
            self._check()
            number = self._known[known] = len(self.calls)
            self.calls.append(Call(function, arguments))
            self.order.append(("call", number))
        made = []
        for taken, hint in items:
            part = Part("item", call=number, item=taken)
            made.append({(self._part(("item", number, taken), part, hint, least, None),): 1})
        return made

    # -- asking
    def bounds(self, terms: Terms) -> Bounds:
        """Between what a polynomial lies for all values that meet the guards so far; None: not known."""
        return self.lowest(terms), self.highest(terms)

    def lowest(self, terms: Terms) -> int | None:
        """The lower of a polynomial's bounds."""
        items = tuple(terms.items())
        if items not in self._lowest:
            plain, constant = split(terms)
            low = self._lower(plain) if plain else 0
            self._lowest[items] = None if low is None else low + constant
        return self._lowest[items]

    def highest(self, terms: Terms) -> int | None:
        """The upper of a polynomial's bounds."""
        low = self.lowest({m: -f for m, f in terms.items()})
        return None if low is None else -low

    def _lower(self, plain: Terms) -> int | None:
        known = self._least.get(frozenset(plain.items()))
        found = [known, self._shifted(plain), self._interval(plain), self._without_quotients(plain), self._factored(plain)]
        return max((n for n in found if n is not None), default=None)

    def _factored(self, plain: Terms) -> int | None:
        """The least value, if a part that cannot be negative is a factor of all, and what is left cannot be either."""
        first, *others = plain
        for part in first if others else ():
            if self.low[part] is not None and self.low[part] >= 0 and all(part in m for m in others):
                least = self.lowest({without(m, (part,)): f for m, f in plain.items()})
                return None if least is None or least < 0 else least * self.low[part]
        return None

    def _shifted(self, plain: Terms) -> int | None:
        """The least value, if as a polynomial of what its parts are above their least no factor is negative."""
        if all(f > 0 for f in plain.values()):
            if any(self.low[part] is None or self.low[part] < 0 for m in plain for part in m):
                return None
            return self.value(plain, self.low)
        shifted: Terms = {}
        for monomial, factor in plain.items():
            expanded: Terms = {(): factor}
            for part in monomial:
                low, grown = self.low[part], {}
                if low is None:
                    return None
                for m, f in expanded.items():
                    add(grown, tuple(sorted((*m, part))), f)
                    add(grown, m, f * low)
                expanded = grown
            for m, f in expanded.items():
                add(shifted, m, f)
        return shifted.get((), 0) if all(f >= 0 for m, f in shifted.items() if m) else None

    def _without_quotients(self, plain: Terms) -> int | None:
        """The least value by what is known of a // b for a number b: it lies between (a - b + 1) / b and a / b."""
        for monomial, factor in plain.items():
            part = self.parts[monomial[0]]
            if len(monomial) > 1 or part.kind != "floor" or part.terms[1][0][0] or len(part.terms[1]) > 1:
                continue
            above, divisor = dict(part.terms[0]), part.terms[1][0][1]
            if divisor < 1 or factor % divisor:
                continue
            rest = total(plain, {monomial: factor}, -1)
            if factor > 0:
                above = total(above, {(): divisor - 1}, -1)
            return self.lowest(total(rest, above, factor // divisor))
        return None

    def _interval(self, plain: Terms) -> int | None:
        least = 0
        for monomial, factor in plain.items():
            ends = self.low if factor > 0 else self.high
            for part in monomial:
                low, end = self.low[part], ends[part]
                if low is None or low < 0 or end is None:
                    return None
                factor *= end
            least += factor
        return least

    def is_nonnegative(self, terms: Terms) -> bool:
        """Whether a polynomial is at least 0; a guard if that is not clear."""
        question = False, tuple(terms.items())
        answer = self._answers.get(question)
        if answer is None:
            answer = self._answers[question] = self._nonnegative(terms)
        return answer

    def _nonnegative(self, terms: Terms) -> bool:
        answer = self.clearly_nonnegative(terms)
        if answer is None:
            terms = self._substituted(terms)
            answer = self.value(terms, self.hints) >= 0
            if not answer:
                terms = total({(): -1}, terms, -1)
            plain, constant = split(terms)
            common = math.gcd(*plain.values())
            plain, constant = {m: f // common for m, f in plain.items()}, constant // common
            self._take("nonnegative", total(plain, {(): constant}, 1))
            self._at_least(plain, -constant)
        return answer

    def clearly_nonnegative(self, terms: Terms) -> bool | None:
        """Whether a polynomial is at least 0 for all values that meet the guards; None: not known."""
        terms = self._substituted(terms)
        low = self.lowest(terms)
        if low is not None and low >= 0:
            return True
        high = self.highest(terms)
        return False if high is not None and high < 0 else None

    def clearly_zero(self, terms: Terms) -> bool:
        """Whether a polynomial is 0 for all values that meet the guards."""
        terms = self._substituted(terms)
        return not terms or self.bounds(terms) == (0, 0)

    def is_zero(self, terms: Terms) -> bool:
        """Whether a polynomial is 0; a guard if that is not clear."""
        if not terms:
            return True
        question = True, tuple(terms.items())
        answer = self._answers.get(question)
        if answer is None:
            answer = self._answers[question] = self._zero(terms)
        return answer

    def _zero(self, terms: Terms) -> bool:
        terms = self._substituted(terms)
        plain, constant = split(terms)
        if not plain:
            return constant == 0
        common = math.gcd(*plain.values())
        if constant % common:
            return False
        if next(iter(sorted(plain.items())))[1] < 0:
            common = -common
        plain, constant = {m: f // common for m, f in plain.items()}, constant // common
        terms = total(plain, {(): constant}, 1)
        low, high = self.bounds(terms)
        if (low is not None and low > 0) or (high is not None and high < 0) or ("nonzero", frozen(terms)) in self._facts:
            return False
        if low == high == 0:
            return True
        if self.value(terms, self.hints):
            self._take("nonzero", terms)
            if low == 0:
                self._at_least(plain, 1 - constant)
            if high == 0:
                self._at_least({m: -f for m, f in plain.items()}, 1 + constant)
            return False
        self._take("zero", terms)
        self._at_least(plain, -constant)
        self._at_least({m: -f for m, f in plain.items()}, constant)
        self._equate(terms)
        return True

    def _equate(self, terms: Terms) -> None:
        """Note what the last symbol equals that stands alone and with the factor 1 or -1."""
        alone = [m[0] for m, f in terms.items() if len(m) == 1 and f in (1, -1) and self.parts[m[0]].kind == "symbol"]
        for part in sorted(alone, reverse=True):
            if sum(part in m for m in terms) == 1:
                rest = {m: f for m, f in terms.items() if m != (part,)}
                equal = self._same[part] = total({}, rest, -terms[(part,)])
                self._lowest.clear()
                plain, constant = split(equal)  # what is known of the symbol holds for what stands for it from now on
                self._at_least(plain, self.low[part] - constant)
                self._at_least({m: -f for m, f in plain.items()}, constant - self.high[part])
                return

    def _substituted(self, terms: Terms) -> Terms:
        while self._same and any(part in self._same for m in terms for part in m):
            made: Terms = {}
            for monomial, factor in terms.items():
                expanded: Terms = {(): factor}
                for part in monomial:
                    expanded = product(expanded, self._same.get(part, {(part,): 1}))
                made = total(made, expanded, 1)
            terms = made
        return terms

    def _at_least(self, plain: Terms, least: int) -> None:
        self._lowest.clear()
        known = frozenset(plain.items())
        self._least[known] = max(least, self._least.get(known, least))
        if len(plain) == 1:
            ((monomial, factor),) = plain.items()
            if len(monomial) == 1:
                (part,) = monomial
                low, high = self.low[part], self.high[part]
                if factor == 1:
                    self.low[part] = least if low is None else max(least, low)
                elif factor == -1:
                    self.high[part] = -least if high is None else min(-least, high)

    def _take(self, kind: str, terms: Terms) -> None:
        self._check()
        fact = kind, frozen(terms)
        if fact not in self._facts:
            self._facts.add(fact)
            self.order.append(("condition", len(self.conditions)))
            self.conditions.append(Condition(*fact, sentence(self, kind, terms), self.node, _caller()))
        if kind == "zero" and len(terms) == 1 + (() in terms):
            (monomial,) = (m for m in terms if m)
            if len(monomial) == 1 and (part := self.parts[monomial[0]]).kind == "symbol":
                raise Fixed(part.name, self.conditions[-1].reason)

    def _check(self) -> None:
        if self.sealed:
            raise RuntimeError("an open size is looked into after its plan was made")


def _caller() -> str:
    """The function that asked, outside of this module and of `sizes`, and what it is for."""
    frame = sys._getframe(1)
    while frame is not None and (_file(frame) in ("symbols.py", "sizes.py") or frame.f_code.co_name.startswith("<")):
        frame = frame.f_back
    if frame is None:
        return ""
    purpose = _docstring(frame.f_code).strip().partition("\n")[0]
    return f"{_file(frame)}: {frame.f_code.co_name}{f' ({purpose})' if purpose else ''}"


def _file(frame: FrameType) -> str:
    return os.path.basename(frame.f_code.co_filename)


def _docstring(code: CodeType) -> str:
    """A function's, which is the first of its constants if it has one."""
    first = code.co_consts[0] if code.co_consts else None
    known = sys.version_info < (3, 13) or code.co_flags & _HAS_DOCSTRING
    return first if isinstance(first, str) and known else ""
