"""A table of models: jitrt's outputs and times beside onnxruntime's."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
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

    absolute: float
    relative: float  # to the largest value of the output
    agrees: bool
    first: float
    other_first: float
    later: float
    other_later: float


class Runner:
    """A model in one runtime; `first` is the seconds from its file to its first result."""

    def __init__(self, runtime: ModuleType, path: Path, feeds: Mapping[str, np.ndarray], threads: int) -> None:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        start = time.perf_counter()
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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


def measure(name: str, path: Path, runtime_name: str, reference_name: str, threads: int) -> Row:
    """Build a model of the zoo, save it at `path`, and compare the two runtimes on it."""
    title = MODELS[name]
    runtime, reference = importlib.import_module(runtime_name), importlib.import_module(reference_name)
    with progress(f"{title}: building"):
        path.write_bytes(zoo.build(name).SerializeToString())
        feeds = zoo.inputs(name)
    with progress(f"{title}: first run on {runtime_name} (trace, compile, run)"):
        ours = Runner(runtime, path, feeds, threads)
    with progress(f"{title}: first run on {reference_name}"):
        theirs = Runner(reference, path, feeds, threads)
    with progress(f"{title}: later runs of both in turns"):
        later, other_later = alternate([ours.run, theirs.run])
    pairs = list(zip(ours.outputs, theirs.outputs, strict=True))
    differences = [float(np.abs(a - b).max(initial=0.0)) for a, b in pairs]
    relative = [d / max(float(np.abs(b).max(initial=0.0)), 1e-30) for d, (_, b) in zip(differences, pairs, strict=True)]
    agrees = all(a.shape == b.shape and np.allclose(a, b, RTOL, ATOL) for a, b in pairs)
    return Row(max(differences), max(relative), agrees, ours.first, theirs.first, later, other_later)


def measure_again(name: str, path: Path, runtime_name: str, threads: int) -> float:
    """Seconds from the file to the first result, with the kernels that another process has stored."""
    runtime = importlib.import_module(runtime_name)
    feeds = zoo.inputs(name)
    with progress(f"{MODELS[name]}: first run on {runtime_name} in a new process"):
        return Runner(runtime, path, feeds, threads).first


def run(runtime: ModuleType, reference: ModuleType, threads: int) -> bool:
    """Measure all models and print the table; whether all outputs agree."""
    heading(f"Speed: {threads} threads, float32, both runtimes in the same process")
    ours, theirs = runtime.__name__, reference.__name__
    cells, agree = [], True
    for name, title in MODELS.items():
        with tempfile.TemporaryDirectory(prefix="jitrt-demo-") as folder:
            # An empty kernel store for each model, so that its first run is really a first run.
            os.environ["JITRT_CACHE_DIR"] = str(Path(folder) / "store")
            path = Path(folder) / f"{name}.onnx"
            row = _in_new_process(measure, name, path, ours, theirs, threads)
            again = _in_new_process(measure_again, name, path, ours, threads)
        cells.append(_cells(title, row, again))
        agree = agree and row.agrees
    print()
    table(["model", "max |d|", "of max |y|", "agree", "first", "again", "its first", ours, theirs, "ratio"], cells)
    print(
        f"d: difference of the outputs y (agree: rtol {RTOL:g}, atol {ATOL:g}); first: from file to first result on\n"
        f"{ours}, compiling; again: in a new process, with stored kernels; its first: on {theirs}; then the median\n"
        f"of later runs, measured in turns, and their ratio: above 1, {ours} is faster"
    )
    return agree


def _in_new_process(function: Callable, *arguments: object):
    """The result of a function that runs in a fresh interpreter."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


def _cells(title: str, row: Row, again: float) -> list[str]:
    return [
        title,
        f"{row.absolute:.1e}",
        f"{row.relative:.1e}",
        "yes" if row.agrees else "NO",
        f"{row.first:.2f} s",
        f"{again:.2f} s",
        f"{row.other_first:.2f} s",
        f"{row.later * 1e3:.1f} ms",
        f"{row.other_later * 1e3:.1f} ms",
        f"{row.other_later / row.later:.2f}",
    ]
