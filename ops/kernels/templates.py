"""Launches that differ in addresses only, such as those of a network's blocks: made once, then repeated elsewhere in memory.

What makes launches never looks into addresses (`image.Opaque`), so it can be given numbered slots for them. Numba-free.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from .image import Alloc, Opaque
from .launch import Block, Launch
from .sizes import key as sizes_key
from .sizes import memo

Make = Callable[[Sequence[Opaque], Alloc], list[Launch]]

_MOST = 4096
_known: dict[Hashable, _Template] = {}


def launches(make: Make, key: tuple[object, ...], addresses: Sequence[Opaque], alloc: Alloc) -> list[Launch]:
    """``make(addresses, alloc)``, whose result depends on nothing else but the key."""
    known = _known
    try:
        found = known.get(key)
    except TypeError:  # open sizes have no hash: what is made of them is the plan's
        known, key = memo(*key), sizes_key(launches, *key)
        found = known.get(key)
    if found is None:
        if len(known) >= _MOST:
            known.clear()
        found = known[key] = _Template(make, len(addresses))
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
                return Block(tuple(map(filled, arg.args))) if type(arg) is Block else arg
            nothing = type(arg.offset) is int and not arg.offset
            return known[arg.number] if nothing else known[arg.number] + arg.offset

        return [
            Launch(one.kernel, tuple(map(filled, one.args)), one.tasks, one.scratch, one.label, one.flops, one.bytes, one.status)
            for one in self.made
        ]
