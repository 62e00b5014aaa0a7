"""Measuring a runtime beside another in one process: what the benchmarks, the results command and the demo share.

Both get the same file, the same arrays and the same number of threads, and run in turns, so that what else the machine
does meets both. Figures are medians; what is compared across machines are ratios.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np

RTOL, ATOL = 1e-3, 1e-4  # how closely outputs must agree
LEAD = 0.08  # seconds of runs before the timed ones of a turn: onnxruntime's idle threads spin for some 55 ms
TURN = 0.05  # seconds that the timed runs of a turn take, at least
RUNS = 3  # timed runs of a turn, at least

Result = TypeVar("Result")
Show = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class Difference:
    """How far outputs are from those of the reference.

    Attributes:
        absolute: the largest difference; relative: the largest, divided by the largest value of its output.
        agrees: shapes are equal and values within `RTOL` and `ATOL`.
    """

    absolute: float
    relative: float
    agrees: bool


@dataclass(frozen=True)
class Comparison:
    """A model on two runtimes, times in seconds: from its file to its first result, and the median of later runs."""

    difference: Difference
    first: float
    other_first: float
    later: float
    other_later: float

    @property
    def ratio(self) -> float:
        """Above 1, the runtime is faster than the reference."""
        return self.other_later / self.later


class Runner:
    """A model in one runtime; `first` is the seconds from its file to its first result."""

    def __init__(self, runtime: ModuleType, path: Path, feeds: Mapping[str, np.ndarray], threads: int) -> None:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        start = time.perf_counter()
        self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._feeds = dict(feeds)
        self.outputs: Sequence[object] = self.run()
        self.first = time.perf_counter() - start

    def run(self) -> Sequence[object]:
        """Run once."""
        return self.session.run(None, self._feeds)

    def lead(self) -> None:
        """Run untimed: threads of the other runtime may still be spinning, and the caches hold the other's data."""
        end = time.perf_counter() + LEAD
        self.run()
        while time.perf_counter() < end:
            self.run()

    def turn(self) -> list[float]:
        """The seconds of each run of a turn."""
        self.lead()
        times: list[float] = []
        while len(times) < RUNS or sum(times) < TURN:
            start = time.perf_counter()
            self.run()
            times.append(time.perf_counter() - start)
        return times


def alternate(runners: Sequence[Runner], seconds: float) -> list[float]:
    """The median seconds of a run of each, measured in turns for about `seconds` in all."""
    times: list[list[float]] = [[] for _ in runners]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times[-1]:
        for runner, found in zip(runners, times, strict=True):
            found.extend(runner.turn())
    return [statistics.median(found) for found in times]


def difference(outputs: Sequence[object], expected: Sequence[object]) -> Difference:
    """Compare what two runtimes gave; nested sequences of arrays count element by element."""
    pairs = list(zip(_arrays(outputs), _arrays(expected), strict=True))
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return Difference(np.inf, np.inf, False)
    absolute = [float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0)) for a, b in pairs]
    largest = [float(np.abs(b.astype(np.float64)).max(initial=0.0)) for _, b in pairs]
    relative = [d / max(size, np.finfo(np.float32).tiny) for d, size in zip(absolute, largest, strict=True)]
    agrees = all(np.allclose(a, b, RTOL, ATOL, equal_nan=True) for a, b in pairs)
    return Difference(max(absolute, default=0.0), max(relative, default=0.0), agrees)


def _arrays(values: Sequence[object]) -> list[np.ndarray]:
    nested = (_arrays(v) if isinstance(v, list) else [np.asarray(v)] for v in values)
    return [array for arrays in nested for array in arrays]


def compare(
    runtime: ModuleType,
    reference: ModuleType,
    path: Path,
    feeds: Mapping[str, np.ndarray],
    threads: int,
    seconds: float,
    show: Show = lambda text: nullcontext(),
) -> Comparison:
    """Run a model's file on two runtimes and measure later runs in turns for about `seconds`; `show` tells of progress."""
    with show(f"first run on {runtime.__name__} (trace, compile, run)"):
        ours = Runner(runtime, path, feeds, threads)
    with show(f"first run on {reference.__name__}"):
        theirs = Runner(reference, path, feeds, threads)
    with show("later runs of both in turns"):
        later, other_later = alternate([ours, theirs], seconds)
    return Comparison(difference(ours.outputs, theirs.outputs), ours.first, theirs.first, later, other_later)


def in_new_process(function: Callable[..., Result], *arguments: object) -> Result:
    """The result of a function that runs in a fresh interpreter."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()
