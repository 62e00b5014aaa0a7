"""Physical memory of a process, and of a program and all processes that it starts, seen from outside (Linux).

Pages that processes share, such as those of LLVM's library, are held once: each process is asked for its proportional
set size (`Pss` in /proc/PID/smaps_rollup), and the sum over all of them is what the program takes from the machine.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

INTERVAL = 0.02  # seconds between looks


def available() -> bool:
    """Whether this system tells."""
    return Path("/proc/self/smaps_rollup").exists()


def peak(pid: int) -> int:
    """Most memory, in bytes, that a process has held so far; 0 if it has gone or the system does not tell.

    Pages that it shares count whole. (`ru_maxrss` begins with the peak of the process that started it, this does not.)
    """
    return _number(pid, "status", "VmHWM") * 1024


def watch(program: subprocess.Popen) -> int:
    """Most memory, in bytes, that a program and what it has started held at one time; returns when it ends."""
    peak = 0
    while program.poll() is None:
        peak = max(peak, sum(map(held, family(program.pid))))
        time.sleep(INTERVAL)
    return peak


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {each: parent for folder in Path("/proc").glob("[0-9]*") if (parent := _parent(each := int(folder.name)))}
    found = [pid]
    for member in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == member]
    return found


def held(pid: int) -> int:
    """Bytes that a process holds, its share of what others hold too; 0 if it has gone."""
    return _number(pid, "smaps_rollup", "Pss") * 1024


def _parent(pid: int) -> int:
    return _number(pid, "status", "PPid")


def _number(pid: int, file: str, name: str) -> int:
    """A number of a file of /proc/PID; 0 if there is no such process."""
    try:
        lines = Path("/proc", str(pid), file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
