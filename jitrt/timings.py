"""Times of convolution algorithms that were measured on this machine, kept in a file beside the compiled kernels.

JSON: machine (the CPU's name, and a digest of kernels, compiler and CPU features) -> "layer, threads" -> algorithm ->
seconds. What is damaged or foreign is ignored and written again. Two processes that write at the same time may lose the
times of one: they are measured once more.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping

from .ops.kernels import target
from .ops.kernels.digest import digest
from .ops.kernels.spec import environment
from .store import Store

FILE = "convolutions.json"
_MOST_MACHINES, _MOST_LAYERS = 8, 4096  # the oldest go

Times = Mapping[str, float]  # algorithm -> seconds
_Machines = dict[str, dict[str, dict[str, float]]]


class Timings:
    """The times of this machine: read once, written as soon as one is added."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, dict[str, float]] | None = None

    def get(self, layer: str) -> Times:
        """What is known of a layer (and a number of threads)."""
        if self._known is None:
            self._known = _parsed(self._store.read(FILE)).get(_machine(), {})
        return self._known.get(layer, {})

    def add(self, layer: str, times: Times) -> None:
        """Note a layer's times, beside what other processes have written."""
        machines = _parsed(self._store.read(FILE))
        known = {**machines.pop(_machine(), {}), **(self._known or {})}
        known.pop(layer, None)
        known[layer] = dict(times)
        self._known = _newest(known, _MOST_LAYERS)
        machines[_machine()] = self._known
        self._store.write(FILE, json.dumps(_newest(machines, _MOST_MACHINES), indent=1).encode())


def _machine() -> str:
    """All that times depend on beside layer and threads, as far as a program can know."""
    return f"{target.current().name} {digest(environment().encode())[:16]}"


def _parsed(content: bytes | None) -> _Machines:
    """What a file holds; nothing if it is no such file."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        machines = json.loads(content or b"{}")
        times = [x for layers in machines.values() for each in layers.values() for x in each.values()]
        if all(type(x) is float and 0 < x < math.inf for x in times):
            return machines
    return {}


def _newest(items: dict, count: int) -> dict:
    """The last `count` of a dictionary."""
    return dict(list(items.items())[-count:])
