"""Progress of long work on standard error: one line that is written over, and gone at the end.

Shown on a terminal and in a notebook once work has taken half a second; ``JITRT_PROGRESS=0`` never, ``1`` always.
"""

from __future__ import annotations

import os
import sys
import time

DELAY = 0.5  # seconds


class ProgressLine:
    """Call it with (done, of how many, name of what comes next); ``done == total`` ends it. `work`: what is counted."""

    def __init__(self, work: str = "compiling kernel") -> None:
        self.work = work
        self.started = time.perf_counter()
        self.width = 0

    def __call__(self, done: int, total: int, name: str) -> None:
        """Show how far the work is."""
        if not _wanted() or (done < total and time.perf_counter() - self.started < DELAY):
            return
        text = f"jitrt: {self.work} {done + 1} of {total}: {name}" if done < total else ""
        if text or self.width:
            print("\r" + text.ljust(self.width) + ("" if text else "\r"), end="", file=sys.stderr, flush=True)
        self.width = len(text)


def _wanted() -> bool:
    chosen = os.environ.get("JITRT_PROGRESS")
    return chosen == "1" if chosen else sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
