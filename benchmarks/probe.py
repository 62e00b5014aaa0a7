"""One runtime in a process of its own: `python -m benchmarks.probe RUNTIME MODEL THREADS FEEDS [FEEDS ...]`.

Prints a line of JSON (see `main`). Only the standard library is imported before the clock starts. FEEDS are .npz files;
the first is what the process starts with; the others, of sizes that it has not seen, run once and again in their order.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from pathlib import Path

from . import memory

LATER = 5  # further runs with known inputs
IDLE = 2.0  # seconds without a run


def main() -> dict[str, object]:
    """What was measured.

    Returns:
        seconds: from importing the runtime to the first result; later: median of later runs; imported: which of numba
        and onnx the process has imported by then; idle: share of one CPU used while nothing runs; peak: most memory that
        this process ever held; new: for each further input the seconds of its first run and of later ones, and the
        number of kernels that were compiled for it.
    """
    runtime_name, path, threads, *files = _arguments()
    start = time.perf_counter()
    runtime = importlib.import_module(runtime_name)
    feeds = _load(files[0])
    options = runtime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    seconds = time.perf_counter() - start
    found: dict[str, object] = {"seconds": seconds, "imported": [n for n in ("numba", "onnx") if n in sys.modules]}
    found |= {"later": _median(session, feeds), "idle": _idle_share(), "peak": _peak_bytes()}
    return found | {"new": [_new_size(session, _load(file)) for file in files[1:]]}


def _arguments() -> list[str]:
    arguments = sys.argv[1:]
    if len(arguments) < 4:
        raise SystemExit(f"usage: {' '.join(__doc__.split('`')[1].split())}")
    return arguments


def _load(file: str) -> dict[str, object]:
    import numpy as np

    with np.load(file) as arrays:
        return dict(arrays)


def _median(session, feeds: dict[str, object]) -> float:
    times = []
    for _ in range(LATER):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _new_size(session, feeds: dict[str, object]) -> dict[str, float]:
    kernels = stored_kernels()
    start = time.perf_counter()
    session.run(None, feeds)
    first = time.perf_counter() - start
    return {"first": first, "later": _median(session, feeds), "compiled": stored_kernels() - kernels}


def stored_kernels() -> int:
    """Files in the kernel store: every kernel that is compiled is stored at once."""
    store = Path(os.environ.get("JITRT_CACHE_DIR") or os.devnull)
    return sum(1 for _ in store.iterdir()) if store.is_dir() else 0


def _idle_share() -> float:
    """CPU time of all threads, right after a run, by the time that passes."""
    start, used = time.perf_counter(), time.process_time()
    time.sleep(IDLE)
    return (time.process_time() - used) / (time.perf_counter() - start)


def _peak_bytes() -> int:
    peak = memory.peak(os.getpid())
    if peak:
        return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(main()))
