"""The engine of a session: its graph, rewritten once, as a program (`program`), and what all programs of a session share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import display  # noqa: F401  graphs, plans and steps get their look in notebooks
from .fusion.graph import Graph
from .fusion.plan import Plan
from .fusion.rewrite import rewrite
from .fusion.weights import pack_ahead, with_weights
from .log import log
from .measure import rule
from .ops.weights import Weight
from .options import WEIGHTS, SessionOptions
from .program import Entry, Program, Shared


class Engine:
    """A session's engine: rewrites the graph once, then runs programs of it."""

    def __init__(self, graph: Graph, threads: int, options: SessionOptions | None = None) -> None:
        self.graph = with_weights(rewrite(graph))
        log("graph", lambda: str(self.graph))
        options = options or SessionOptions()
        self.shared = Shared(threads, rule(options, threads), options._own(WEIGHTS))
        pack_ahead(self.graph, self.shared.weights, threads)
        self.program = Program(self.graph, self.shared)
        self.bound: dict[object, Program] = {}  # of runs in the caller's memory (`bound`)

    def run(self, feeds: Mapping[str, object], outputs: list[str]) -> list[object]:
        """Run and return the named values, which are the caller's alone."""
        return self.run_and_tell(feeds, outputs)[0]

    def run_and_tell(self, feeds: Mapping[str, object], outputs: list[str]) -> tuple[list[object], Entry]:
        """`run`, and the plan of these inputs."""
        entry = self.program.entry(feeds, outputs)
        values = self.program.run_entry(entry, feeds, outputs)
        return values if entry.fresh else owned(values, feeds), entry

    def rounded(self, names: Sequence[str]) -> bool:
        """Whether there are constants among these values that are no longer held exactly."""
        constants = self.graph.constants
        if constants.keys().isdisjoint(names):
            return False
        found = [constants[name] for name in names if name in constants]
        return any(isinstance(x, Weight) and x.rounded for x in found)

    def plan(self, feeds: Mapping[str, object], outputs: list[str] | None = None) -> Plan:
        """The plan that these inputs lead to."""
        entry = self.program.entry(feeds, outputs or self.graph.outputs)
        return entry.binding.concrete()

    def plans(self, feeds: Mapping[str, object]) -> list[Plan]:
        """That plan, and those of what waited for values in the runs so far."""
        found, pending = [], [self.program.entry(feeds, self.graph.outputs)]
        while pending:
            entry = pending.pop(0)
            found.append(entry.plan)
            pending += entry.rest.entries.values() if entry.rest is not None else []
        return found

    def profile(self, feeds: Mapping[str, object], repeat: int = 10):
        """Time per step, over `repeat` runs."""
        from .profile import profile

        entry = self.program.entry(feeds, self.graph.outputs)
        return profile(entry.executor, [feeds[name] for name in entry.inputs], repeat, entry.binding)


def owned(values: list[object], feeds: Mapping[str, object]) -> list[object]:
    """A run's outputs, copied where they are not the caller's alone (host steps may hand through what they were given)."""
    seen: set[int] = set()
    for i, value in enumerate(values):
        if type(value) is list:
            values[i] = [np.array(v) if isinstance(v, np.ndarray) else v for v in value]
        elif type(value) is np.ndarray and (id(value) in seen or _is_shared(value, feeds)):
            values[i] = value.copy()
        seen.add(id(value))
    return values


def _is_shared(value: np.ndarray, feeds: Mapping[str, object]) -> bool:
    if not value.flags.writeable:
        return True
    for given in feeds.values():
        if type(given) is list:
            if any(isinstance(v, np.ndarray) and np.may_share_memory(value, v) for v in given):
                return True
        elif value is given or (value.base is not None and isinstance(given, np.ndarray) and np.may_share_memory(value, given)):
            return True
    return False
