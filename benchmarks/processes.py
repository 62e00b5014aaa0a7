"""Figures of whole processes beside onnxruntime's: first runs, new sizes, memory, and what an idle process costs.

Every figure comes from fresh processes (`probe.py`). A store that is empty at first is filled by one process; the next
ones find it full. Processes of the two runtimes alternate.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import memory, zoo
from .compare import Show

ROUNDS = 3  # processes of each runtime with a full store
ROOT = Path(__file__).resolve().parent.parent
START_LIMIT = 8.0  # seconds
IDLE_LIMIT = 0.01  # of one CPU


@dataclass(frozen=True)
class Subject:
    """A model of the zoo.

    Attributes:
        name, title, build: in the zoo, in the table, and the sizes that it is built with.
        start: sizes of the inputs of the first run. new: those of later ones by what they are called, in order.
        new_limit: seconds that the first run of a new size may take more than later ones, with nothing compiled; None: nothing
            is promised.
    """

    name: str
    title: str
    build: dict[str, object] = field(default_factory=dict)
    start: dict[str, int] = field(default_factory=dict)
    new: dict[str, dict[str, int]] = field(default_factory=dict)
    new_limit: float | None = None


# The second new value of a size shows what a plan with open sizes is worth.
SUBJECTS = (
    Subject(
        "resnet50",
        "ResNet-50",
        {"image": None},
        new={
            "batch 4": {"batch": 4},
            "batch 6 after it": {"batch": 6},
            "image 256x256": {"image": 256},
            "image 320x320 after it": {"image": 320},
        },
        new_limit=0.1,
    ),
    Subject(
        "bert_base",
        "BERT-base",
        new={"sequence 77": {"sequence": 77}, "sequence 90 after it": {"sequence": 90}, "batch 3": {"batch": 3}},
    ),
    Subject("vgg19", "VGG-19"),
)


@dataclass(frozen=True)
class Figure:
    """A row of the table: what, jitrt's and onnxruntime's figure, what was promised and whether it is kept."""

    what: str
    ours: str
    theirs: str
    promised: str = ""
    kept: bool | None = None


def chosen(words: str) -> list[Subject]:
    """The subjects whose names hold every word of `words` ("process" is part of all names); all for none."""
    return [s for s in SUBJECTS if all(word in f"process: {s.name}" for word in words.lower().split())]


def measure(subject: Subject, threads: int, show: Show) -> list[Figure]:
    """All figures of one model; `show` tells of progress."""
    with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as name:
        folder = Path(name)
        with show(f"{subject.title}: building"):
            files = _prepare(subject, folder)

        def probe(runtime: str, *arguments: Path) -> dict:
            return _probe(runtime, folder / "store", [folder / "model.onnx", threads, *arguments])

        with show(f"{subject.title}: a process with an empty store"):
            empty = probe("jitrt", files[0])
        with show(f"{subject.title}: memory of all processes, empty store"):
            together = _together(folder, [folder / "model.onnx", threads, files[0]])
        with show(f"{subject.title}: {ROUNDS} processes of each runtime, full store"):
            pairs = [(probe("jitrt", files[0]), probe("onnxruntime", files[0])) for _ in range(ROUNDS)]
        with show(f"{subject.title}: new sizes"):
            news = _new_sizes(probe, files) if subject.new else ([], [])
    full, others = zip(*pairs, strict=True)
    return [*_starts(subject, empty, full, others), *_sizes(subject, *news), *_costs(subject, empty, full, others, together)]


def _prepare(subject: Subject, folder: Path) -> list[Path]:
    """Write model.onnx and the inputs' files: those to start with, then those of new sizes."""
    (folder / "model.onnx").write_bytes(zoo.build(subject.name, **subject.build).SerializeToString())
    files = []
    for sizes in (subject.start, *subject.new.values()):
        files.append(folder / f"feeds{len(files)}.npz")
        np.savez(files[-1], **zoo.inputs(subject.name, **(subject.build | sizes)))
    return files


def _together(folder: Path, arguments: list[object]) -> int | None:
    """Most memory that a program with an empty store and the processes which compile for it hold; None if unknown."""
    if not memory.available():
        return None
    with _start("jitrt", folder / "other store", arguments) as program:
        peak = memory.watch(program)
        _result("jitrt", program)
    return peak


def _probe(runtime: str, store: Path, arguments: list[object]) -> dict:
    with _start(runtime, store, arguments) as program:
        return _result(runtime, program)


def _start(runtime: str, store: Path, arguments: list[object]) -> subprocess.Popen:
    environment = os.environ | {"JITRT_CACHE_DIR": str(store), "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    command = [sys.executable, "-m", "benchmarks.probe", runtime, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def _result(runtime: str, program: subprocess.Popen) -> dict:
    said, complaint = program.communicate()
    if program.returncode:
        raise RuntimeError(f"{runtime}: {complaint.strip().splitlines()[-1] if complaint.strip() else program.returncode}")
    return json.loads(said.splitlines()[-1])


def _new_sizes(probe: Callable[..., dict], files: list[Path]) -> tuple[list[dict], list[dict]]:
    """For each new size the medians of times, and the kernels compiled by whichever process met it first."""
    rounds = [(probe("jitrt", *files)["new"], probe("onnxruntime", *files)["new"]) for _ in range(ROUNDS)]
    sides = ([list(sizes) for sizes in zip(*side, strict=True)] for side in zip(*rounds, strict=True))
    ours, theirs = ([_typical(found) for found in side] for side in sides)
    return ours, theirs


def _typical(found: list[dict]) -> dict:
    extra = statistics.median(each["first"] - each["later"] for each in found)
    first = statistics.median(each["first"] for each in found)
    return {"first": first, "extra": extra, "compiled": max(each["compiled"] for each in found)}


def _middle(found: tuple[dict, ...], key: str) -> float:
    return statistics.median(each[key] for each in found)


def _starts(subject: Subject, empty: dict, full: tuple[dict, ...], others: tuple[dict, ...]) -> Iterator[Figure]:
    first, again, other = empty["seconds"], _middle(full, "seconds"), _middle(others, "seconds")
    what = f"{subject.title}: import to first result"
    yield Figure(f"{what}, empty store", f"{first:.2f} s", f"{other:.2f} s", f"{START_LIMIT:.0f} s", first <= START_LIMIT)
    imported = sorted({name for each in full for name in each["imported"]})
    also = f", imports {' and '.join(imported)}" if imported else ", no numba"
    kept = again <= 2 * other and "numba" not in imported
    yield Figure(f"{what}, full store", f"{again:.2f} s{also}", f"{other:.2f} s", "2 times onnxruntime's, no numba", kept)


def _sizes(subject: Subject, ours: list[dict], theirs: list[dict]) -> Iterator[Figure]:
    limit = subject.new_limit
    promised = "" if limit is None else f"{limit * 1e3:.0f} ms more, none compiled"
    for name, mine, other in zip(subject.new, ours, theirs, strict=True):
        extra, compiled = mine["extra"], mine["compiled"]
        text = f"{mine['first'] * 1e3:.0f} ms ({extra * 1e3:.0f} ms more than later), {compiled} compiled"
        kept = None if limit is None else extra < limit and not compiled
        yield Figure(f"{subject.title}: first run of {name}", text, f"{other['first'] * 1e3:.0f} ms", promised, kept)


def _costs(
    subject: Subject, empty: dict, full: tuple[dict, ...], others: tuple[dict, ...], together: int | None
) -> Iterator[Figure]:
    other = max(each["peak"] for each in others)

    def row(what: str, peak: int) -> Figure:
        text = f"{_megabytes(peak)} ({peak / other:.2f})"
        return Figure(f"{subject.title}: peak memory, {what}", text, _megabytes(other), "1.3 times", peak <= 1.3 * other)

    yield row("full store", max(each["peak"] for each in full))
    yield row("empty store (compiling), the program's process", empty["peak"])
    if together is not None:
        yield row("empty store, with the processes that compile beside it (pages they share counted once)", together)
    share, other_share = _middle(full, "idle"), _middle(others, "idle")
    kept = share <= IDLE_LIMIT
    yield Figure(f"{subject.title}: CPU used in the 2 s after a run", f"{share:.1%}", f"{other_share:.1%}", "none", kept)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
