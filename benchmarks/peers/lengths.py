"""What it costs to run a known model at a length that it has not seen, and what memory many lengths leave behind.

A process of its own for each runtime runs a model of the zoo once at every length up to a limit, in random order. After the
first few, some lengths are run again at once: what the first run took more is the price of a new length.
"""

from __future__ import annotations

import gc
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks import memory, zoo
from benchmarks.probe import stored_kernels
from benchmarks.report import seconds, verdict

from .child import session
from .decoding import elapsed
from .driver import load_request

FIRST = 2  # length: a single one has a plan of its own, as sizes of 1 are broadcast
SETTLED = 50  # runs, each of another length, after which nothing may be new
EVERY = 10  # of later runs, one is made again and followed by a look at the memory
AGAIN = 3  # times
PATIENCE = 60.0  # seconds
LIMIT = 1e-3  # seconds that a first run may take more, promised
FLAT = 1.05  # times the memory after `SETTLED` runs, promised of what is held later
TITLES = (
    *("model", "lengths", "first run, more than later", "one in ten, more than", "compiled", "promised", "kept"),
    *(f"memory after {SETTLED}", "most later", "flat", "onnxruntime's first run, more than later", "its memory", "its most later"),
)
NOTE = (
    f"Every length is run once, in random order, in a process of each runtime. After {SETTLED} runs, one in {EVERY} is made again "
    f"{AGAIN} times at once, and the median of these taken from the first run's time: shown are the median and what one in ten "
    f"exceeds. Kernels are counted that were compiled after {SETTLED} runs. Memory is physical, inputs included; it counts as "
    f"flat up to {FLAT - 1:.0%} more."
)


@dataclass(frozen=True)
class Growth:
    """What new lengths cost.

    Attributes:
        extra: seconds that first runs took more than later ones.
        compiled: kernels that were compiled for them.
        settled, most: bytes held after `SETTLED` runs, and the most that was held later.
    """

    extra: list[float]
    compiled: int
    settled: int
    most: int

    @property
    def is_flat(self) -> bool:
        """Whether memory stays."""
        return self.most <= FLAT * self.settled


def cells(name: str, dimension: str, limit: int, ours: Growth, theirs: Growth) -> list[str]:
    """A line of the table, of jitrt and onnxruntime."""
    kept = statistics.median(ours.extra) < LIMIT and not ours.compiled
    return [
        f"{name}, {dimension.replace('_sequence', '').replace('sequence', 'tokens')}",
        f"{FIRST} to {limit}",
        *(seconds(each) for each in _typical(ours.extra)),
        str(ours.compiled),
        f"{seconds(LIMIT)}, none compiled",
        verdict(kept),
        *_memory(ours),
        verdict(ours.is_flat),
        seconds(_typical(theirs.extra)[0]),
        *_memory(theirs),
    ]


def _typical(extra: list[float]) -> tuple[float, float]:
    return statistics.median(extra), float(np.quantile(extra, 0.9))


def _memory(found: Growth) -> list[str]:
    return [f"{nbytes / 1e6:.0f} MB" for nbytes in (found.settled, found.most)]


def measure(runtime_name: str, name: str, dimension: str, limit: int, threads: int) -> Growth:
    """Run a model of the zoo with that dimension from `FIRST` to `limit` (in a process of its own)."""
    with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as store:
        os.environ["JITRT_CACHE_DIR"] = store
        model = zoo.build(name)
        request = load_request(model, model.SerializeToString(), threads)
        made = session(importlib.import_module(runtime_name), request, {})
        del model
        return grow(lambda feeds: made.run(None, feeds), inputs(name, dimension, limit), limit)


def inputs(name: str, dimension: str, limit: int) -> Callable[[int], dict[str, np.ndarray]]:
    """A function from a length to inputs, which are parts of the longest ones; a decoder with a past takes one token."""
    rest = {"sequence": 1} | {dimension: limit}
    longest = zoo.inputs(name, **rest)
    growing = {
        key: np.subtract(longest[key].shape, x.shape) for key, x in zoo.inputs(name, **rest | {dimension: limit - 1}).items()
    }

    def cut(length: int) -> dict[str, np.ndarray]:
        ends = {key: x.shape - (limit - length) * growing[key] for key, x in longest.items()}
        return {key: np.ascontiguousarray(x[tuple(map(slice, ends[key]))]) for key, x in longest.items()}

    return cut


def grow(run: Callable[[dict], object], feeds_of: Callable[[int], dict], limit: int) -> Growth:
    """Run for all lengths up to a limit, in random order."""
    extra: list[float] = []
    settled = most = kernels = 0
    for i, length in enumerate(np.random.default_rng(0).permutation(np.arange(FIRST, limit + 1)), 1):
        feeds = feeds_of(int(length))
        first = elapsed(lambda feeds=feeds: run(feeds))
        if i > SETTLED and i % EVERY == 0:
            extra.append(first - statistics.median(elapsed(lambda feeds=feeds: run(feeds)) for _ in range(AGAIN)))
        del feeds
        if i == SETTLED:
            _wait_for_processes()
            settled, kernels = _held(), stored_kernels()
        elif i > SETTLED and i % EVERY == 0:
            most = max(most, _held())
    return Growth(extra, stored_kernels() - kernels, settled, most)


def _wait_for_processes() -> None:
    """Until those that this one has started to compile ahead, for other sizes, have ended."""
    end = time.perf_counter() + PATIENCE
    while len(memory.family(os.getpid())) > 1 and time.perf_counter() < end:
        time.sleep(0.1)


def _held() -> int:
    gc.collect()
    return memory.held(os.getpid())
