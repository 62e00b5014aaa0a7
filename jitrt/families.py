"""Families: signatures that differ in sizes only, and the plans with open sizes that serve them.

What tracing had to read of inputs (`Program.read`) counts as sizes too: the number of tokens in a buffer, say, or a shape.

1. The first signature of a family has a plan of its own, the best for its sizes.
2. A later signature leaves all sizes open that have ever differed from the first one's, but for 0 and 1, which are structure
   (nothing to do, a broadcast). Sizes that the model names alike, or that are equal now and were at first, are one.
3. What a plan with open sizes takes for granted is checked for each new signature; one that no plan serves makes another.
4. A size that cannot stay open, as something reads its value, is closed: for that value, as it may be one that happens to equal
   another size, and for good when that happens with a second value. A family that needs too many plans is closed too.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .fusion.graph import Graph
from .fusion.guards import SizeGuard
from .fusion.trace import Opened
from .ops.kernels.sizes import opened
from .ops.kernels.symbols import LEAST, Fixed, Symbols

if TYPE_CHECKING:
    from .program import Entry

MOST_PLANS = 16  # with open sizes, of one family
_CONTENT = " (content)"  # follows an input's name where `Shapes` has its elements
Shapes = dict[str, tuple[int, ...]]
Place = tuple[str, int]  # an input and one of its dimensions, or one of its elements


def is_counted(value: np.ndarray) -> bool:
    """Whether the elements of an input that was read may be open."""
    return value.dtype.name in ("int32", "int64")


def shapes_of(feeds: Mapping[str, object], read: Container[str] = ()) -> Shapes:
    """The shapes of the arrays among inputs, and the elements of those that were read."""
    shapes = {name: value.shape for name, value in feeds.items() if isinstance(value, np.ndarray)}
    counted = [name for name in shapes if name in read and is_counted(feeds[name])]
    return shapes | {name + _CONTENT: tuple(feeds[name].reshape(-1).tolist()) for name in counted}


@dataclass(frozen=True)
class OpenSizes:
    """Which sizes of a family's inputs are open in a plan: for each symbol its name and places; `shapes` has the others."""

    names: tuple[str, ...]
    places: tuple[tuple[Place, ...], ...]
    shapes: Shapes

    def values(self, shapes: Shapes) -> tuple[int, ...] | None:
        """The symbols' values for these shapes; None if they are other ones than the plan's."""
        values = tuple([shapes[name][d] for (name, d), *_ in self.places])
        return values if self.at(values) == shapes else None

    def place_of_content(self, name: str) -> int:
        """The symbol that stands for the one element of an input and for nothing else; -1: there is none."""
        own = ((name + _CONTENT, 0),)
        return self.places.index(own) if own in self.places and len(self.shapes[name + _CONTENT]) == 1 else -1

    def at(self, values: Sequence[int]) -> Shapes:
        """The inputs' shapes for values of the symbols."""
        open_ones = {name: list(self.shapes[name]) for places in self.places for name, _ in places}
        for value, places in zip(values, self.places):
            for name, d in places:
                open_ones[name][d] = value
        return self.shapes | {name: tuple(shape) for name, shape in open_ones.items()}

    def opened(self, symbols: Symbols) -> Opened:
        """The inputs' shapes with symbols."""
        values = [self.shapes[name][d] for (name, d), *_ in self.places]
        shapes = self.at([opened(symbols, name, value) for name, value in zip(self.names, values)])
        contents = {name.removesuffix(_CONTENT): content for name, content in shapes.items() if name.endswith(_CONTENT)}
        return Opened(symbols, shapes, contents)

    def guards(self, symbols: Symbols) -> list[SizeGuard]:
        """What a plan with these symbols takes for granted."""
        own = [SizeGuard(f"{name} >= {LEAST}", _where(places)) for name, places in zip(self.names, self.places)]
        return own + [SizeGuard(c.text, c.reason) for c in symbols.conditions]


@dataclass
class Family:
    """What is known of signatures that differ in sizes.

    Attributes:
        first: the shapes of the first one.
        can_open: whether any size may still be open. varying: the sizes that have differed in later ones.
        fixed: values that sizes could have alone. reasons: what asked for them.
        plans: made so far with open sizes.
    """

    first: Shapes
    varying: set[Place] = field(default_factory=set)
    fixed: dict[Place, set[int]] = field(default_factory=dict)
    reasons: dict[Place, str] = field(default_factory=dict)
    can_open: bool = True
    plans: list[tuple[OpenSizes, Entry]] = field(default_factory=list, repr=False)

    def see(self, shapes: Shapes) -> None:
        """Note what differs."""
        for name, shape in shapes.items():
            for d, n in enumerate(shape):
                if n != self.first[name][d]:
                    self.varying.add((name, d))

    def open_sizes(self, graph: Graph, shapes: Shapes) -> OpenSizes | None:
        """What a plan for these shapes leaves open; None: nothing."""
        groups: dict[tuple[str, int, int], list[Place]] = {}
        if not self.can_open or len(self.plans) >= MOST_PLANS:
            return None
        for name, d in sorted(self.varying):
            n = shapes[name][d]
            if n >= LEAST and not self.closed(name, d, n):
                groups.setdefault((_called(graph, name, d, shapes[name]), self.first[name][d], n), []).append((name, d))
        names: list[str] = []
        for (declared, _, _), ((name, d), *_) in groups.items():
            plain = declared if declared.isidentifier() else f"{name}[{d}]"
            names.append(plain if plain not in names else f"{plain} of {name}[{d}]")
        return OpenSizes(tuple(names), tuple(map(tuple, groups.values())), shapes) if groups else None

    def close(self, sizes: OpenSizes, found: Fixed) -> None:
        """A symbol has turned out to have one value only."""
        for place, d in sizes.places[sizes.names.index(found.name)]:
            self.fixed.setdefault((place, d), set()).add(sizes.shapes[place][d])
            self.reasons[place, d] = found.reason

    def closed_sizes(self, shapes: Shapes) -> list[SizeGuard]:
        """The sizes of these shapes that cannot be open, and why."""
        groups: dict[tuple[int, str], list[Place]] = {}
        for name, d in self.fixed:
            if self.closed(name, d, shapes[name][d]):
                groups.setdefault((shapes[name][d], self.reasons[name, d]), []).append((name, d))
        return [SizeGuard(f"{_where(places)} is {n}", reason) for (n, reason), places in groups.items()]

    def closed(self, name: str, d: int, value: int) -> bool:
        """Whether a size of this value cannot be open."""
        values = self.fixed.get((name, d), set())
        return value in values or len(values) > 1


def _called(graph: Graph, name: str, d: int, sizes: Sequence[int]) -> str:
    """What the model calls a size; an element of an input is called after it."""
    if name.endswith(_CONTENT):
        return name.removesuffix(_CONTENT) + (f"_{d}" if len(sizes) > 1 else "")
    kind = graph.types.get(name)
    shape = getattr(kind, "shape", None)
    return shape[d] if shape is not None and d < len(shape) and isinstance(shape[d], str) else ""


def _where(places: Sequence[Place]) -> str:
    """What a symbol is, for people."""
    sizes = ", ".join(f"{name}[{d}]" for name, d in places if not name.endswith(_CONTENT))
    elements = [f"element {d} of {name.removesuffix(_CONTENT)}" for name, d in places if name.endswith(_CONTENT)]
    return ", ".join([*([f"the size of {sizes}"] if sizes else []), *elements])
