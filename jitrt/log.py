"""Log channels: ``JITRT_LOG=plan,graph,source,compile`` prints them to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache

CHANNELS = ("plan", "graph", "source", "compile")


def log(channel: str, text: Callable[[], str]) -> None:
    """Print a text if its channel is on; it is not made otherwise."""
    chosen = os.environ.get("JITRT_LOG")
    if chosen and channel in _channels(chosen):
        print(f"[jitrt {channel}] {text()}", file=sys.stderr)


@lru_cache(maxsize=8)
def _channels(chosen: str) -> frozenset[str]:
    """The channels that a setting names; unknown ones are told of once."""
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    for name in names:
        if name not in CHANNELS:
            print(f"[jitrt] JITRT_LOG: {name!r} is no channel; there are {', '.join(CHANNELS)}", file=sys.stderr)
    return frozenset(names)
