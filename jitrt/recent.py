"""A session's last run: the next one, if its inputs are of the same types and shapes, needs no checks and no search for its plan.

After a model's kernels have filled the caches, every line of Python costs a microsecond or two: a run that is like the one
before takes as few as it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .program import Entry


@dataclass(frozen=True)
class Recent:
    """A run that was right.

    Attributes:
        asked: the names that the caller gave for the outputs.
        kinds: dtype and shape of each input, which were used as they were given.
        places: of the asked outputs among the plan's.
    """

    asked: list[str] | None
    kinds: Mapping[str, tuple[np.dtype, tuple[int, ...]]]
    entry: Entry
    places: list[int]

    @staticmethod
    def of(
        asked: Sequence[str] | None, given: Mapping[str, object], feeds: Mapping[str, object], outputs: Sequence[str], entry: Entry
    ) -> Recent | None:
        """What can be done again; None: contents decide the plan, it is one of several, or inputs were not used as they are."""
        whole = entry.rest is None and entry.fresh and not entry.is_of_contents and (asked is None or type(asked) is list)
        if not whole or type(given) is not dict or len(given) != len(feeds) or not all(x is given.get(n) for n, x in feeds.items()):
            return None
        kinds = {name: (x.dtype, x.shape) for name, x in given.items() if type(x) is np.ndarray and x.dtype.kind != "O"}
        names = None if asked is None else [*asked]
        return Recent(names, kinds, entry, [entry.outputs[name] for name in outputs]) if len(kinds) == len(given) else None

    def is_like(self, asked: object, given: object) -> bool:
        """Whether this is the same run on other numbers."""
        if type(given) is not dict or type(asked) is not type(self.asked) or len(given) != len(self.kinds):
            return False
        if asked is not None and ({*map(type, asked)} - {str} or asked != self.asked):
            return False
        for name, x in given.items():
            if type(x) is not np.ndarray or self.kinds.get(name) != (x.dtype, x.shape):
                return False
            flags = x.flags
            if not flags.c_contiguous or not flags.aligned:
                return False
        return True

    def run(self, given: Mapping[str, np.ndarray]) -> list[object]:
        """The asked outputs."""
        entry = self.entry
        results = entry.executor.run([given[name] for name in entry.inputs], entry.binding)
        return [results[i] for i in self.places]
