"""The time of an image in a batch beside that of an image alone, both in jitrt, in one process and in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks import zoo

MODEL, BATCH = "resnet50", 8


def image_times(threads: int, seconds: float) -> tuple[float, float]:
    """Medians of the seconds that an image takes: of `BATCH` runs on one image, and of a run on `BATCH` images."""
    import jitrt

    options = jitrt.SessionOptions()
    options.intra_op_num_threads = threads
    session = jitrt.InferenceSession(zoo.build(MODEL).SerializeToString(), options)
    one, many = (zoo.inputs(MODEL, batch=batch) for batch in (1, BATCH))
    turns: tuple[Callable[[], object], ...] = (lambda: _runs(session, one, BATCH), lambda: _runs(session, many, 1))
    times: tuple[list[float], list[float]] = ([], [])
    for turn in turns:
        turn()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for turn, into in zip(turns, times, strict=True):
            start = time.perf_counter()
            turn()
            into.append((time.perf_counter() - start) / BATCH)
    return statistics.median(times[0]), statistics.median(times[1])


def _runs(session: object, feeds: dict[str, np.ndarray], count: int) -> None:
    for _ in range(count):
        session.run(None, feeds)
