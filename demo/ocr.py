"""Reading a picture with RapidOCR's own pipeline (PP-OCRv4 detection, classification and recognition)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from benchmarks.console import heading, progress, table

from .picture import LINES, draw
from .substitute import import_on


@dataclass(frozen=True)
class Reading:
    """The lines that were read, top to bottom, with their scores, and the seconds of a first and a second reading."""

    texts: list[str]
    scores: list[float]
    boxes: np.ndarray  # float32[lines, 4 corners, 2]
    first: float
    second: float


def read(runtime: ModuleType, image: np.ndarray, threads: int) -> Reading:
    """Read an image (uint8[H, W, 3]) with RapidOCR running on `runtime`."""
    engine = import_on("rapidocr_onnxruntime", runtime).RapidOCR(intra_op_num_threads=threads)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        found, _ = engine(image)
        seconds.append(time.perf_counter() - start)
    found = found or []
    boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4, 2)
    return Reading([text for _, text, _ in found], [float(score) for _, _, score in found], boxes, *seconds)


def run(runtime: ModuleType, reference: ModuleType, threads: int, folder: Path) -> bool:
    """Draw, read on both runtimes, and print what was read; whether all is as it should be."""
    heading("Reading a picture: PP-OCRv4, the unmodified rapidocr-onnxruntime package")
    picture = draw()
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / "picture.png")
    print(f"drew {len(LINES)} lines: {folder / 'picture.png'}")
    image = np.asarray(picture)
    with progress(f"reading it on {runtime.__name__} (three models, compiled on first use)"):
        ours = read(runtime, image, threads)
    with progress(f"reading it on {reference.__name__}"):
        theirs = read(reference, image, threads)
    return _report(runtime.__name__, reference.__name__, ours, theirs)


def _report(name: str, other: str, ours: Reading, theirs: Reading) -> bool:
    drawn = [line.text for line in LINES]
    count = max(len(drawn), len(ours.texts))
    padded = ours.texts + [""] * (count - len(ours.texts))
    rows = [
        [text, f"{score:.4f}", "yes" if _plain(text) == _plain(want) else f"no: {want}"]
        for text, score, want in zip(padded, ours.scores + [0.0] * count, drawn + [""] * count, strict=False)
    ]
    table([f"read by {name}", "score", "as drawn*"], rows)
    print("* apart from spaces, of which the recognition model drops some between English words")
    right = [_plain(t) for t in ours.texts] == [_plain(t) for t in drawn]
    same = ours.texts == theirs.texts
    verdict = "yes" if same else f"NO: {theirs.texts}"
    print(f"as drawn: {'yes' if right else 'NO'}; the same text as on {other}: {verdict}")
    if same:
        score = max(abs(a - b) for a, b in zip(ours.scores, theirs.scores, strict=True)) if ours.scores else 0.0
        corner = float(np.abs(ours.boxes - theirs.boxes).max(initial=0.0))
        print(f"largest difference of a score {score:.1e}, of a box corner {corner:.1f} pixels")
    for title, reading in ((name, ours), (other, theirs)):
        print(f"{title:>12}: first reading {reading.first:.2f} s, second {reading.second * 1e3:.0f} ms")
    return right and same


def _plain(text: str) -> str:
    return text.replace(" ", "")
