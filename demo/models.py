"""A table of models: jitrt's outputs and times beside onnxruntime's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from benchmarks import zoo

from .console import heading, progress, table

MODELS = {"resnet50": "ResNet-50", "bert_base": "BERT-base"}
SECONDS = 6.0  # spent on the later runs of a model
BLOCK = 3  # timed runs in a row of one runtime, after one that is not timed
RTOL, ATOL = 1e-3, 1e-4  # how closely outputs must agree


@dataclass(frozen=True)
class Row:
    """What was measured of one model: differences of outputs, seconds."""

    title: str
    absolute: float
    relative: float  # to the largest value of the output
    agrees: bool
    first: float
    other_first: float
    later: float
    other_later: float


class Runner:
    """A model in one runtime; `first` is the seconds from its bytes to its first result."""

    def __init__(self, runtime: ModuleType, model: bytes, feeds: Mapping[str, np.ndarray], threads: int) -> None:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        start = time.perf_counter()
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._feeds = dict(feeds)
        self.outputs: Sequence[np.ndarray] = self.run()
        self.first = time.perf_counter() - start

    def run(self) -> Sequence[np.ndarray]:
        """Run once."""
        return self._session.run(None, self._feeds)


def alternate(runs: Sequence[Callable[[], object]], seconds: float = SECONDS) -> list[float]:
    """The median seconds of each, measured in turns.

    Every turn begins with a run that is not timed: threads of the other runtime may still be spinning, and the caches
    hold the other's data.
    """
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times[-1]:
        for run, found in zip(runs, times, strict=True):
            run()
            for _ in range(BLOCK):
                start = time.perf_counter()
                run()
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def measure(name: str, title: str, runtime: ModuleType, reference: ModuleType, threads: int) -> Row:
    """Compare one model of the zoo on two runtimes."""
    with progress(f"{title}: building"):
        model, feeds = zoo.build(name).SerializeToString(), zoo.inputs(name)
    with progress(f"{title}: first run on {runtime.__name__} (trace, compile, run)"):
        ours = Runner(runtime, model, feeds, threads)
    with progress(f"{title}: first run on {reference.__name__}"):
        theirs = Runner(reference, model, feeds, threads)
    with progress(f"{title}: later runs of both in turns"):
        later, other_later = alternate([ours.run, theirs.run])
    pairs = list(zip(ours.outputs, theirs.outputs, strict=True))
    differences = [float(np.abs(a - b).max(initial=0.0)) for a, b in pairs]
    relative = [d / max(float(np.abs(b).max(initial=0.0)), 1e-30) for d, (_, b) in zip(differences, pairs, strict=True)]
    agrees = all(a.shape == b.shape and np.allclose(a, b, RTOL, ATOL) for a, b in pairs)
    return Row(title, max(differences), max(relative), agrees, ours.first, theirs.first, later, other_later)


def run(runtime: ModuleType, reference: ModuleType, threads: int) -> bool:
    """Measure all models and print the table; whether all outputs agree."""
    heading(f"Speed: {threads} threads, float32, the same process for both runtimes")
    rows = [measure(name, title, runtime, reference, threads) for name, title in MODELS.items()]
    ours, theirs = runtime.__name__, reference.__name__
    print()
    table(
        ["model", "max |d|", "max |d|/max|y|", "agree", f"first {ours}", f"first {theirs}", ours, theirs, "ratio"],
        [_cells(row) for row in rows],
    )
    print(
        f"d: difference of the outputs, y: outputs; agree: rtol {RTOL:g}, atol {ATOL:g}; first: from bytes\n"
        f"to the first result, kernels compiled; then the median of later runs; ratio: above 1, {ours} is faster"
    )
    return all(row.agrees for row in rows)


def _cells(row: Row) -> list[str]:
    return [
        row.title,
        f"{row.absolute:.1e}",
        f"{row.relative:.1e}",
        "yes" if row.agrees else "NO",
        f"{row.first:.2f} s",
        f"{row.other_first:.2f} s",
        f"{row.later * 1e3:.1f} ms",
        f"{row.other_later * 1e3:.1f} ms",
        f"{row.other_later / row.later:.2f}",
    ]
