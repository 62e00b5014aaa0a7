"""Solving: from the values of symbols to the values of what depends on them, by one compiled function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from .polynomials import Frozen, Terms, code
from .symbols import LARGEST, LEAST, Given, Symbols
from .symboltext import SIGNS

Solver = Callable[..., "tuple[int, ...] | None"]
_Used = set[tuple[str, int]]  # parts and calls


def solver(symbols: Symbols, wanted: Sequence[Terms | int]) -> Solver:
    """A function of the symbols' values, in their order: the wanted values, or None where a guard does not hold.

    Guards come first. A part is computed after the guards that were asked before it came to be, as those may be what makes it
    computable. From here on nothing more may be asked of the symbols.
    """
    symbols.sealed = True
    guarded = _used(symbols, (c.terms for c in symbols.conditions))
    rest = _used(symbols, (tuple(w.items()) for w in wanted if not isinstance(w, int))) - guarded
    names = [f"s{i}" for i, part in enumerate(symbols.parts) if part.kind == "symbol"]
    lines = [f"def solve({', '.join(names)}):"]
    lines += [f" if not {LEAST} <= {name} <= {LARGEST}: return None" for name in names]
    lines += _lines(symbols, guarded, conditions=True)
    lines += _lines(symbols, rest, conditions=False)
    lines.append(f" return ({''.join(f'{w if isinstance(w, int) else code(w)}, ' for w in wanted)})")
    scope: dict = {f"f{i}": call.function for i, call in enumerate(symbols.calls)}
    scope |= {f"c{i}": call.arguments for i, call in enumerate(symbols.calls)}
    exec(compile("\n".join(lines), "<sizes>", "exec"), scope)
    return scope["solve"]


def _lines(symbols: Symbols, used: _Used, conditions: bool) -> Iterator[str]:
    for kind, i in symbols.order:
        if kind == "condition" and conditions:
            condition = symbols.conditions[i]
            yield f" if not {code(dict(condition.terms))} {SIGNS[condition.kind]} 0: return None"
        elif (kind, i) in used and kind == "call":
            arguments = ", ".join(_argument(a, f"c{i}[{n}]") for n, a in enumerate(symbols.calls[i].arguments))
            yield f" r{i} = f{i}({arguments})"
        elif (kind, i) in used and symbols.parts[i].kind == "floor":
            above, below = (code(dict(one)) for one in symbols.parts[i].terms)
            yield f" s{i} = ({above}) // ({below})"
        elif (kind, i) in used and symbols.parts[i].kind == "item":
            yield f" s{i} = r{symbols.parts[i].call}{symbols.parts[i].item}"


def _argument(given: object, place: str) -> str:
    """An argument of a function; what is no number is taken from its place."""
    if isinstance(given, Given):
        return code(dict(given.terms))
    return str(given) if type(given) is int else place


def _used(symbols: Symbols, polynomials: Iterable[Frozen]) -> _Used:
    """The parts and calls that polynomials need."""
    pending = [part for terms in polynomials for m, _ in terms for part in m]
    used: _Used = set()
    while pending:
        number = pending.pop()
        if ("part", number) in used:
            continue
        used.add(("part", number))
        part = symbols.parts[number]
        pending += [p for one in part.terms for m, _ in one for p in m]
        if part.kind == "item" and ("call", part.call) not in used:
            used.add(("call", part.call))
            given = (a for a in symbols.calls[part.call].arguments if isinstance(a, Given))
            pending += [p for a in given for m, _ in a.terms for p in m]
    return used
