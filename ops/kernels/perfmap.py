"""Kernels' names for Linux's perf: with ``JITRT_PERF_MAP=1`` the functions that are linked are listed in /tmp/perf-PID.map.

A line has a function's address and size, in hexadecimal digits, and its name: perf looks there for what no file has
(tools/perf/Documentation/jit-interface.txt of the kernel's source).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def is_wanted() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get("JITRT_PERF_MAP", "0") not in ("", "0")


def path() -> Path:
    """Where perf looks for this process's functions."""
    return Path(f"/tmp/perf-{os.getpid()}.map")


def note(functions: Iterable[tuple[int, int, str]]) -> None:
    """Add functions, each with its address, its size in bytes and its name, to the list."""
    lines = "".join(f"{address:x} {size:x} {name}\n" for address, size, name in functions)
    with path().open("a", encoding="utf-8") as file:
        file.write(lines)
