"""Sizes that a plan leaves open: numbers known by their present value and by an expression of the sizes that vary.

A `Size` stands wherever a shape, a stride or a count is an integer. Arithmetic gives further sizes. Whatever asks for more
is answered by the present value, and what the answer takes for granted becomes a guard, so a plan that was made with sizes
is right for every value that meets its guards, whatever the code that made it looked at:

1. A comparison or a truth value is a guard, unless it follows from the expressions, the bounds of their parts or earlier
   guards.
2. A use as an ordinary number (``int``, ``float``, an index, a loop's bound, a numpy array's element) fixes it to its value.
3. A size has no hash, so nothing that is kept beyond the plan is found by one: see `cached`, `key` and `fixed`.
4. Its text is no Python expression, so no source that a size got into compiles.

`deferred` leaves a pure function of integers to be called for each value, instead of being looked into.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache, wraps
from typing import TypeVar

import numpy as np

from .polynomials import Frozen, Terms, frozen, product, total
from .symbols import Given, Symbols
from .symboltext import text

Value = TypeVar("Value")


class Size:
    """A number that depends on open sizes: its polynomial, and what that is now (`hint`).

    Annotations say int where it may stand.
    """

    __slots__ = ("_frozen", "hint", "symbols", "terms")
    __array_ufunc__ = None  # numpy's numbers leave operators to it
    __hash__ = None  # rule 3

    def __init__(self, symbols: Symbols, terms: Terms, hint: int) -> None:
        self.symbols, self.terms, self.hint = symbols, terms, hint
        self._frozen: Frozen | None = None

    @property
    def frozen(self) -> Frozen:
        """The polynomial as a value with a hash."""
        if self._frozen is None:
            self._frozen = frozen(self.terms)
        return self._frozen

    def __repr__(self) -> str:
        return text(self.symbols, self.terms)

    # -- arithmetic
    def __add__(self, other: object) -> object:
        terms = self._terms(other)
        if terms is None:
            return self._plain(other, "__add__")
        return _sized(self.symbols, total(self.terms, terms, 1), self.hint + now(other)) if terms else self

    __radd__ = __add__

    def __sub__(self, other: object) -> object:
        terms = self._terms(other)
        if terms is None:
            return self._plain(other, "__sub__")
        return _sized(self.symbols, total(self.terms, terms, -1), self.hint - now(other)) if terms else self

    def __rsub__(self, other: object) -> object:
        terms = self._terms(other)
        if terms is None:
            return self._plain(other, "__rsub__")
        return _sized(self.symbols, total(terms, self.terms, -1), now(other) - self.hint)

    def __mul__(self, other: object) -> object:
        if type(other) is int:
            return self if other == 1 else self._times(other) if other else 0
        terms = self._terms(other)
        if terms is None:
            return self._plain(other, "__mul__")
        return _sized(self.symbols, product(self.terms, terms), self.hint * now(other))

    __rmul__ = __mul__

    def _times(self, factor: int) -> Size:
        return Size(self.symbols, {monomial: f * factor for monomial, f in self.terms.items()}, self.hint * factor)

    def __neg__(self) -> int:
        return self._times(-1)

    def __pos__(self) -> Size:
        return self

    def __abs__(self) -> int:
        return self if self >= 0 else -self

    def __floordiv__(self, other: object) -> object:
        terms = self._terms(other)
        if terms is None:
            return self._plain(other, "__floordiv__")
        return _quotient(self.symbols, self.terms, terms, self.hint, now(other))

    def __rfloordiv__(self, other: object) -> object:
        terms = self._terms(other)
        if terms is None:
            return self._plain(other, "__rfloordiv__")
        return _quotient(self.symbols, terms, self.terms, now(other), self.hint)

    def __mod__(self, other: object) -> object:
        return self - self // other * other if self._terms(other) is not None else self._plain(other, "__mod__")

    def __rmod__(self, other: object) -> object:
        return other - other // self * self if self._terms(other) is not None else self._plain(other, "__rmod__")

    def __divmod__(self, other: object) -> tuple[object, object]:
        return self // other, self % other

    def __truediv__(self, other: object) -> float:
        return int(self) / other

    def __rtruediv__(self, other: object) -> float:
        return other / int(self)

    def __pow__(self, other: object) -> object:
        if type(other) is int and 0 <= other <= 4:
            return math.prod([self] * other)
        return int(self) ** other

    # -- questions (rule 1)
    def __eq__(self, other: object) -> bool:
        terms = self._terms(other)
        if terms is None:
            return int(self) == other if isinstance(other, float) else NotImplemented
        if terms == self.terms:
            return True
        return self.symbols.is_zero(total(self.terms, terms, -1))

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __ge__(self, other: object) -> bool:
        terms = self._terms(other)
        return self._plain(other, "__ge__") if terms is None else self.symbols.is_nonnegative(total(self.terms, terms, -1))

    def __le__(self, other: object) -> bool:
        terms = self._terms(other)
        return self._plain(other, "__le__") if terms is None else self.symbols.is_nonnegative(total(terms, self.terms, -1))

    def __gt__(self, other: object) -> bool:
        below = self.__le__(other)
        return below if below is NotImplemented else not below

    def __lt__(self, other: object) -> bool:
        above = self.__ge__(other)
        return above if above is NotImplemented else not above

    def __bool__(self) -> bool:
        return not self.symbols.is_zero(self.terms)

    # -- uses as an ordinary number (rule 2)
    def __index__(self) -> int:
        if not self.symbols.is_zero(total(self.terms, {(): self.hint}, -1)):
            raise AssertionError(f"{self!r} is not its own value")
        return self.hint

    __int__ = __index__

    def __float__(self) -> float:
        return float(int(self))

    # -- inside
    def _terms(self, other: object) -> Terms | None:
        """Another operand as a polynomial; None if it is no whole number."""
        if type(other) is int:
            return {(): other} if other else {}
        if isinstance(other, Size):
            if other.symbols is not self.symbols:
                raise RuntimeError("sizes of different plans meet")
            return other.terms
        if not isinstance(other, int | np.integer):
            return None
        number = int(other)
        return {(): number} if number else {}

    def _plain(self, other: object, operator: str) -> object:
        """What the operator gives for the present value, where the other operand is no whole number."""
        return getattr(float(int(self)), operator)(other) if isinstance(other, float) else NotImplemented


def opened(symbols: Symbols, name: str, value: int) -> Size:
    """A new open size."""
    return Size(symbols, symbols.symbol(name, value), value)


# -- what code that works on sizes is written with
def whole(number: object) -> int:
    """A size as it is; anything else as an int."""
    return number if isinstance(number, Size) else int(number)


def fixed(number: Value) -> Value:
    """A size as the int that it is from then on for this plan; anything else as it is, sequences element by element."""
    if isinstance(number, Size):
        return int(number)
    return type(number)(fixed(n) for n in number) if type(number) in (tuple, list) else number


def now(number: int) -> int:
    """The present value, for choices that are right whatever the value is."""
    return number.hint if isinstance(number, Size) else number


def about(number: int) -> int:
    """The present value of a positive number, for choices that are right whatever it is, but good only near it.

    The plan is for sizes where it is no more than that, and more than half of it.
    """
    value = now(number)
    if not number <= value < 2 * number:
        raise AssertionError(f"{number!r} is not its own value")
    return value


def certainly(n: int, value: int) -> bool:
    """Whether n has a value for all sizes that meet the guards; no guard comes of it."""
    return _clearly_equal(n, value)


def never_above(a: int, b: int) -> bool:
    """Whether a <= b for all sizes that meet the guards; no guard comes of it."""
    return _clearly_ahead(b, a, 1)


def alike(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two shapes are the same for all sizes that meet the guards: no guard comes of it.

    For choices that are right where the shapes are the same without being known to be.
    """
    if Size in map(type, a) or Size in map(type, b):
        return len(a) == len(b) and all(map(_clearly_equal, a, b))
    return tuple(a) == tuple(b)


def _clearly_equal(m: int, n: int) -> bool:
    if m is n:
        return True
    if type(m) is not Size and type(n) is not Size:
        return m == n
    if now(m) != now(n):
        return False
    difference = m - n
    return difference.symbols.clearly_zero(difference.terms) if isinstance(difference, Size) else difference == 0


def is_open(*values: object) -> bool:
    """Whether sizes are among the values, or in the tuples and lists among them."""
    return _has_size(values)


def _has_size(values: Iterable[object]) -> bool:
    for value in values:
        kind = type(value)
        if kind is Size or ((kind is tuple or kind is list) and _has_size(value)):
            return True
    return False


def key(*values: object) -> object:
    """What has a hash and is equal for equal values; of sizes it is the expression (equal values of others do not count)."""
    try:
        hash(values)
    except TypeError:
        return tuple(map(_key, values))
    return values


def _key(value: object) -> object:
    kind = type(value)
    if kind is Size:
        return "size", value.frozen
    if kind is int or kind is str:
        return value
    if kind is tuple or kind is list:
        return tuple(map(_key, value))
    names = _compared(kind)
    return value if names is None or kind.__hash__ is None else (kind, *(_key(getattr(value, name)) for name in names))


@lru_cache(maxsize=1024)
def _compared(kind: type) -> tuple[str, ...] | None:
    """The fields by which values of a dataclass are compared; None: it is none."""
    return tuple(f.name for f in fields(kind) if f.compare) if is_dataclass(kind) else None


def memo(*values: object) -> dict[object, object]:
    """What is kept for the plan that the sizes among values belong to; there is one, maybe in a tuple or dataclass.

    What is made again of the same expressions asks no other questions.
    """
    symbols = _symbols_in(values)
    assert symbols is not None
    return symbols.memo


def _symbols_in(values: Iterable[object]) -> Symbols | None:
    """Those of the first size among values; None: there is no size."""
    for value in values:
        kind, found = type(value), None
        if kind is Size:
            return value.symbols
        if kind is tuple or kind is list:
            found = _symbols_in(value)
        elif kind is not int and kind is not str and (names := _compared(kind)) is not None:
            found = _symbols_in(getattr(value, name) for name in names)
        if found is not None:
            return found
    return None


def cached(maxsize: int) -> Callable[[Callable], Callable]:
    """`lru_cache` of a function; what it gives for sizes is kept for their plan."""

    def decorate(function: Callable) -> Callable:
        fast = lru_cache(maxsize)(function)

        @wraps(function)
        def call(*arguments: object) -> object:
            try:
                return fast(*arguments)
            except TypeError:  # no hash
                return _of_plan(function, arguments)

        return call

    return decorate


def _of_plan(function: Callable, arguments: tuple[object, ...]) -> object:
    """What a function gives for arguments that have no hash, kept if that is due to sizes."""
    symbols = _symbols_in(arguments)
    if symbols is None:
        return function(*arguments)
    known = function, key(*arguments)
    if known not in symbols.memo:
        symbols.memo[known] = function(*arguments)
    return symbols.memo[known]


def deferred(least: int | None = 0) -> Callable[[Callable], Callable]:
    """A function of numbers, the same for the same numbers, that gives an int, or a tuple or dataclass of ints.

    With sizes it is called anew for each value; what it gives is never under `least` (None: it may be).
    """

    def decorate(function: Callable) -> Callable:
        def of_sizes(*arguments: object) -> object:
            return _called(function, arguments, least)

        @wraps(function)
        def call(*arguments: object) -> object:
            return _of_plan(of_sizes, arguments) if _has_size(arguments) else function(*arguments)

        return call

    return decorate


def _called(function: Callable, arguments: tuple[object, ...], least: int | None) -> object:
    """The sizes that a function gives."""
    flat = list(_flattened(arguments))
    symbols = next(a.symbols for a in flat if isinstance(a, Size))
    call = _Rebuilt.of(function, _shapes(arguments))
    result = call(*map(now, flat))
    values = _values(result)
    given = tuple(Given(a.frozen) if isinstance(a, Size) else a for a in flat)
    made = [_sized(symbols, terms, hint) for terms, (_, hint) in zip(symbols.call(call, given, values, least), values)]
    return type(result)(*made) if is_dataclass(result) else tuple(made) if isinstance(result, tuple) else made[0]


def _values(result: object) -> list[tuple[str, int]]:
    """The integers in a function's result: the code that takes each, and what it is."""
    if is_dataclass(result):
        return [(f".{f.name}", int(getattr(result, f.name))) for f in fields(result)]
    return [(f"[{i}]", int(n)) for i, n in enumerate(result)] if isinstance(result, tuple) else [("", int(result))]


def _flattened(arguments: Iterable[object]) -> Iterable[object]:
    for a in arguments:
        if type(a) in (tuple, list):
            yield from _flattened(a)
        else:
            yield a


def _shapes(arguments: Iterable[object]) -> tuple:
    """Where tuples and lists are among arguments."""
    return tuple(_shapes(a) if type(a) in (tuple, list) else None for a in arguments)


@dataclass(frozen=True)
class _Rebuilt:
    """A function called with the elements of its arguments."""

    function: Callable
    shapes: tuple

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(function: Callable, shapes: tuple) -> Callable:
        """The function itself if its arguments are no sequences."""
        return function if not any(type(s) is tuple for s in shapes) else _Rebuilt(function, shapes)

    @property
    def __name__(self) -> str:
        return self.function.__name__

    def __call__(self, *flat: object) -> object:
        rest = iter(flat)

        def build(shapes: tuple) -> tuple:
            return tuple(next(rest) if s is None else build(s) for s in shapes)

        return self.function(*build(self.shapes))


def most(*numbers: int) -> int:
    """The largest; no guard comes of it."""
    return _chosen(numbers, _largest, 1) if Size in map(type, numbers) else max(numbers)


def least(*numbers: int) -> int:
    """The smallest; no guard comes of it."""
    return _chosen(numbers, _smallest, -1) if Size in map(type, numbers) else min(numbers)


def _chosen(numbers: Sequence[int], function: Callable, sign: int) -> int:
    kept: list[int] = []
    for n in numbers:
        if any(_clearly_ahead(m, n, sign) for m in kept):
            continue
        kept = [m for m in kept if not _clearly_ahead(n, m, sign)] + [n]
    return kept[0] if len(kept) == 1 else function(*kept)


def _clearly_ahead(a: int, b: int, sign: int) -> bool:
    difference = (a - b) * sign
    if not isinstance(difference, Size):
        return difference >= 0
    return difference.symbols.clearly_nonnegative(difference.terms) is True


_largest, _smallest = deferred(least=None)(max), deferred(least=None)(min)


def _sized(symbols: Symbols, terms: Terms, hint: int) -> int:
    """A polynomial as a size, or as the number that it is."""
    if not terms:
        return 0
    return terms[()] if len(terms) == 1 and () in terms else Size(symbols, terms, hint)


def _quotient(symbols: Symbols, above: Terms, below: Terms, dividend: int, divisor: int) -> int:
    if not below or symbols.is_zero(below):
        raise ZeroDivisionError
    return _sized(symbols, symbols.floor(above, below), dividend // divisor)
