"""Log channels: ``JITRT_LOG=plan,graph,source,compile`` prints them to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

CHANNELS = ("plan", "graph", "source", "compile")


def log(channel: str, text: Callable[[], str]) -> None:
    """Print a text if its channel is on; it is not made otherwise."""
    chosen = os.environ.get("JITRT_LOG")
    if chosen and channel in chosen.split(","):
        print(f"[jitrt {channel}] {text()}", file=sys.stderr)
