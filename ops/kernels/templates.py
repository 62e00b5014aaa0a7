"""Launches that differ in addresses only, such as those of a network's blocks: made once, then repeated elsewhere in memory.

What makes launches never looks into addresses (`image.Opaque`), so it can be given numbered slots for them. Numba-free.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from .image import Alloc, Opaque
from .launch import Launch

Make = Callable[[Sequence[Opaque], Alloc], list[Launch]]

_MOST = 4096
_known: dict[Hashable, _Template] = {}


def launches(make: Make, key: tuple[object, ...], addresses: Sequence[Opaque], alloc: Alloc) -> list[Launch]:
    """``make(addresses, alloc)``, whose result depends on nothing else but the key."""
    try:
        found = _known.get(key)
    except TypeError:  # open sizes have no hash
        return make(addresses, alloc)
    if found is None:
        if len(_known) >= _MOST:
            _known.clear()
        found = _known[key] = _Template(make, len(addresses))
    return found.launches(addresses, alloc)


@dataclass(frozen=True)
class _Slot:
    """The place of an address."""

    number: int
    offset: int = 0

    def __add__(self, nbytes: int) -> _Slot:
        return _Slot(self.number, self.offset + nbytes)


class _Template:
    """Launches with slots: first those of the given addresses, then those of workspaces."""

    def __init__(self, make: Make, count: int) -> None:
        self.workspaces: list[int] = []

        def alloc(nbytes: int) -> _Slot:
            self.workspaces.append(nbytes)
            return _Slot(count + len(self.workspaces) - 1)

        self.made = make([_Slot(i) for i in range(count)], alloc)

    def launches(self, addresses: Sequence[Opaque], alloc: Alloc) -> list[Launch]:
        """With addresses in the slots."""
        known = [*addresses, *map(alloc, self.workspaces)]

        def filled(arg: object) -> object:
            if type(arg) is not _Slot:
                return arg
            return known[arg.number] + arg.offset if arg.offset else known[arg.number]

        return [
            Launch(one.kernel, tuple(map(filled, one.args)), one.tasks, one.scratch, one.label, one.flops, one.bytes, one.status)
            for one in self.made
        ]
