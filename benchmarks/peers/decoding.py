"""How fast a decoder's step reads its weights and cache, beside how fast the same cores can read memory in the same process.

Memory is read in two ways, by a product of a vector with weights many times as large as the caches, in jitrt, and by maxima
in numpy, each with as many threads; the faster one counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx

from benchmarks import micro, zoo
from benchmarks.report import seconds, verdict

from .child import LOADERS, PAST
from .driver import load_request

LEAST = 0.9  # of the speed at which memory can be read, promised of a step
LARGE = (8192, 16384)  # the weights that are read, float32: half a gigabyte
RUNS = 5  # steps of a turn
TITLES = ("a step", "time", "weights and cache", "read", "memory gives", "share", "of shortest", "promised", "kept")
NOTE = (
    "A step takes one token and reads every weight, and all keys and values, once. Memory is read by "
    f"{4 * LARGE[0] * LARGE[1] >> 20} MB in the same process, in turns with the steps, with the same number of threads. The share "
    "is that of medians; beside it stands that of the shortest step and the shortest reading."
)


@dataclass(frozen=True)
class Reading:
    """A step of a decoder: the seconds that steps took, the bytes that each reads, and bytes a second that memory gave."""

    steps: Sequence[float]
    size: int
    memory: Sequence[float]

    @property
    def speed(self) -> float:
        """Bytes a second of the median step."""
        return self.size / statistics.median(self.steps)

    @property
    def share(self) -> float:
        """Of the speed of memory, what a step reaches."""
        return self.speed / statistics.median(self.memory)

    @property
    def best_share(self) -> float:
        """The same of the shortest step and the shortest reading."""
        return self.size / min(self.steps) / max(self.memory)


def cells(name: str, past: int, reading: Reading) -> list[str]:
    """A line of the table."""
    return [
        f"{name}, past of {past}",
        seconds(statistics.median(reading.steps)),
        f"{reading.size / 1e6:.0f} MB",
        *(f"{speed / 1e9:.1f} GB/s" for speed in (reading.speed, statistics.median(reading.memory))),
        *(f"{share:.0%}" for share in (reading.share, reading.best_share, LEAST)),
        verdict(reading.share >= LEAST),
    ]


def measure(name: str, past: int, threads: int, duration: float) -> Reading:
    """Steps of a model of the zoo with a cache of `past` rows, and readings of memory, in turns for about `duration` seconds."""
    model, feeds = zoo.build(name), zoo.inputs(name, sequence=1, past_sequence=past)
    size = bytes_read(model, feeds)
    step, readers = _run(model, feeds, threads), _readers(threads)
    del model
    large = 4 * LARGE[0] * LARGE[1]
    steps: list[float] = []
    speeds: list[list[float]] = [[] for _ in readers]
    for each in (step, *readers):
        each()
    end = time.perf_counter() + duration
    while not steps or time.perf_counter() < end:
        steps += [elapsed(step) for _ in range(RUNS)]
        for reader, found in zip(readers, speeds, strict=True):
            found += [large / elapsed(reader) for _ in range(RUNS)]
    return Reading(steps, size, max(speeds, key=statistics.median))


def bytes_read(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> int:
    """Of weights that are not merely tables of which rows are taken, and of past keys and values."""
    whole = {name for node in model.graph.node for name in node.input[1 if node.op_type == "Gather" else 0 :]}
    weights = [w for w in model.graph.initializer if w.name in whole]
    caches = [array for name, array in feeds.items() if name.startswith(PAST)]
    return sum(onnx.numpy_helper.to_array(w).nbytes for w in weights) + sum(array.nbytes for array in caches)


def elapsed(run: Callable[[], object]) -> float:
    """The seconds of a run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], threads: int) -> Callable[[], object]:
    """A run of jitrt, as it is measured beside the peers."""
    return LOADERS["jitrt"](load_request(model, model.SerializeToString(), threads), dict(feeds))


def _readers(threads: int) -> list[Callable[[], object]]:
    """Functions that read `LARGE` float32 numbers once."""
    model, feeds = micro.product(1, *LARGE)
    product = _run(model, feeds, threads)
    parts = np.array_split(onnx.numpy_helper.to_array(model.graph.initializer[0]), threads)
    pool = ThreadPoolExecutor(threads)
    return [product, lambda: list(pool.map(np.max, parts))]
