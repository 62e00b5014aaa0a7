"""A table of models: jitrt's outputs and times beside onnxruntime's."""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path
from types import ModuleType

from benchmarks import zoo
from benchmarks.compare import ATOL, RTOL, Comparison, Runner, compare, in_new_process
from benchmarks.console import heading, progress, table

MODELS = {"resnet50": "ResNet-50", "bert_base": "BERT-base"}
SECONDS = 6.0  # spent on the later runs of a model


def measure(name: str, path: Path, runtime_name: str, reference_name: str, threads: int) -> Comparison:
    """Build a model of the zoo, save it at `path`, and compare the two runtimes on it."""
    title = MODELS[name]
    runtime, reference = importlib.import_module(runtime_name), importlib.import_module(reference_name)
    with progress(f"{title}: building"):
        path.write_bytes(zoo.build(name).SerializeToString())
        feeds = zoo.inputs(name)
    return compare(runtime, reference, path, feeds, threads, SECONDS, lambda text: progress(f"{title}: {text}"))


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
            row = in_new_process(measure, name, path, ours, theirs, threads)
            again = in_new_process(measure_again, name, path, ours, threads)
        cells.append(_cells(title, row, again))
        agree = agree and row.difference.agrees
    print()
    table(["model", "max |d|", "of max |y|", "agree", "first", "again", "its first", ours, theirs, "ratio"], cells)
    print(
        f"d: difference of the outputs y (agree: rtol {RTOL:g}, atol {ATOL:g}); first: from file to first result on\n"
        f"{ours}, compiling; again: in a new process, with stored kernels; its first: on {theirs}; then the median\n"
        f"of later runs, measured in turns, and their ratio: above 1, {ours} is faster"
    )
    return agree


def _cells(title: str, row: Comparison, again: float) -> list[str]:
    return [
        title,
        f"{row.difference.absolute:.1e}",
        f"{row.difference.relative:.1e}",
        "yes" if row.difference.agrees else "NO",
        f"{row.first:.2f} s",
        f"{again:.2f} s",
        f"{row.other_first:.2f} s",
        f"{row.later * 1e3:.1f} ms",
        f"{row.other_later * 1e3:.1f} ms",
        f"{row.ratio:.2f}",
    ]
