"""The file that a session with `SessionOptions.enable_profiling` writes: a Chrome trace of its runs."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .profile import Profile


class TraceFile:
    """Events of one session, in microseconds since it was made."""

    def __init__(self, prefix: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now))
        self.path = f"{prefix}_{stamp}_{int(now * 1000) % 1000:03}.json"
        self.started_ns = time.monotonic_ns()
        self._start = time.perf_counter()
        self._events: list[dict[str, object]] = []

    def now(self) -> float:
        """Seconds since the session was made."""
        return time.perf_counter() - self._start

    def add(self, name: str, started: float) -> None:
        """An event of the session that ends now."""
        self._events.append(self._event("Session", name, 0, started, self.now(), {}))

    def add_steps(self, profile: Profile, started: float) -> None:
        """The steps of one run."""
        for i, thread, first, last in profile.spans:
            step = profile.steps[i]
            arguments = {"nodes": list(step.nodes), "shape": step.shape}
            self._events.append(self._event("Node", step.name, thread, started + first, started + last, arguments))

    def _event(self, category: str, name: str, thread: int, first: float, last: float, arguments: dict) -> dict[str, object]:
        return {
            "cat": category, "name": name, "ph": "X", "pid": os.getpid(), "tid": thread, "ts": round(first * 1e6, 3),
            "dur": round((last - first) * 1e6, 3), "args": arguments,
        }  # fmt: skip

    def write(self) -> str:
        """Write the file and return its path."""
        with open(self.path, "w") as file:
            json.dump(self._events, file)
        return self.path
