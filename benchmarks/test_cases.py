"""Every model of the catalogue: pytest-benchmark times jitrt, and onnxruntime takes its turns in between."""

from __future__ import annotations

import math
import statistics
import time

import onnxruntime
import pytest

import jitrt
from benchmarks import cases
from benchmarks.compare import RUNS, TURN, Runner, difference

MOST_ROUNDS = 20_000


class Turns:
    """What happens before each round of `ours`: a turn of `theirs` first, whenever a turn of `ours` is over.

    Attributes:
        rounds: that fit into the given seconds; other_times: seconds of the runs of `theirs`.
    """

    def __init__(self, ours: Runner, theirs: Runner, seconds: float) -> None:
        self._ours, self._theirs = ours, theirs
        self.other_times: list[float] = []
        start = time.perf_counter()
        mine = statistics.median(ours.turn())
        theirs.turn()
        both = time.perf_counter() - start
        self._length = max(RUNS, math.ceil(TURN / mine))
        self.rounds = min(MOST_ROUNDS, self._length * max(1, round(seconds / both)))
        self._done = 0

    def __call__(self) -> None:
        """Called before each round."""
        if self._done % self._length == 0:
            self.other_times += self._theirs.turn()
            self._ours.lead()
        self._done += 1


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_model(case, benchmark, threads, seconds, ratios, tmp_path):
    """Outputs agree, and both are timed."""
    model, feeds = case.make()
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    del model
    ours, theirs = (Runner(runtime, path, feeds, threads) for runtime in (jitrt, onnxruntime))
    path.unlink()  # pytest keeps the folders of several runs
    assert difference(ours.outputs, theirs.outputs).agrees
    turns = Turns(ours, theirs, seconds)
    benchmark.group = case.group
    benchmark.pedantic(ours.run, setup=turns, rounds=turns.rounds)
    other = statistics.median(turns.other_times)
    benchmark.extra_info["onnxruntime"] = other
    if benchmark.stats is not None:  # None with --benchmark-disable
        mine = benchmark.stats.stats.median
        benchmark.extra_info["ratio"] = other / mine
        ratios.append([str(case), f"{mine * 1e3:.3f} ms", f"{other * 1e3:.3f} ms", f"{other / mine:.2f}"])
