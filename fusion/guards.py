"""Guards: the inputs whose values a plan is made for, and what asked for them.

Tracing reads the value of an input only where a shape hangs on it. From then on the value is part of a signature: another
one has a plan of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SHOWN = 8  # elements of a value, and nodes on the way to its reader, that are printed


@dataclass(frozen=True)
class Reader:
    """What first asked for the value of an input.

    Attributes:
        node: the node of the model, as messages name it.
        role: what it is to that node: the operator's own word for an input (`shape`, `axes`, `repeats` ...).
        through: names of the nodes that compute what is read from the input; empty if the input itself is read.
    """

    node: str
    role: str
    through: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(self.through[:SHOWN])
        more = len(self.through) - SHOWN
        way = f", by way of {shown}{f' and {more} more' if more > 0 else ''}" if self.through else ""
        return f"read as {self.role} by {self.node}{way}"


@dataclass(frozen=True)
class Guard:
    """An input that the plan holds for only as long as it has this value."""

    input: str
    value: str
    reader: Reader

    def __str__(self) -> str:
        return f"{self.input} = {self.value}: {self.reader}"


@dataclass(frozen=True)
class SizeGuard:
    """What a plan takes for granted of its open sizes, and why."""

    condition: str
    reason: str

    def __str__(self) -> str:
        return f"{self.condition}: {self.reason}"


class Guards(tuple[Guard | SizeGuard, ...]):
    """A plan's guards; printed, a line each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no values: any inputs of these types and shapes"


NO_GUARDS = Guards()


def guards(readers: Mapping[str, Reader], feeds: Mapping[str, object]) -> Guards:
    """The guards of the plan for these inputs, which has read the values of those that have readers."""
    return Guards(Guard(name, _text(feeds[name]), reader) for name, reader in readers.items() if name in feeds)


def _text(value: object) -> str:
    """An array as a nested list, shortened if it is long."""
    array = np.asarray(value)
    if array.size <= SHOWN or array.ndim == 0:
        return str(array.tolist())
    first = ", ".join(map(str, array.reshape(-1)[:SHOWN].tolist()))
    return f"[{first} ...] ({array.size} elements)"
