"""Profiles: how long each step of a plan takes, read from the CPU's cycle counter inside the replay loop."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .display import Svg, bars, table, timeline
from .executor import Executor
from .fusion.bindings import Binding
from .fusion.plan import HostStep, Plan

Span = tuple[int, int, float, float]  # step, thread, start and end in seconds from the start of the run


@dataclass(frozen=True)
class StepTime:
    """One step's median time.

    Attributes:
        seconds: wall time from the first thread's start to the last one's end.
        share: of the sum over all steps.
        gflops, gbytes: per second, from the plan's counts.
    """

    index: int
    name: str
    nodes: tuple[str, ...]
    shape: str
    seconds: float
    share: float
    gflops: float
    gbytes: float

    @property
    def label(self) -> str:
        """Kernel and nodes, for charts."""
        return f"{self.name} {', '.join(self.nodes)}"


@dataclass(frozen=True)
class Profile:
    """Median times of a plan's steps over some runs, and every span of the last run."""

    plan: Plan
    steps: tuple[StepTime, ...]
    run_seconds: float
    spans: tuple[Span, ...]

    def slowest(self) -> list[StepTime]:
        """The steps, slowest first."""
        return sorted(self.steps, key=lambda s: -s.seconds)

    def bars(self, limit: int = 20) -> Svg:
        """A chart of the slowest steps' times, and one bar for all others together."""
        ordered = self.slowest()
        rows = [(s.label, s.seconds, f"{s.seconds * 1e3:.3f} ms  {s.share:.1%}") for s in ordered[:limit]]
        rest = sum(s.seconds for s in ordered[limit:])
        if ordered[limit:]:
            rows.append((f"{len(ordered) - limit} other steps", rest, f"{rest * 1e3:.3f} ms"))
        return bars(rows, f"Time per step, of {self.run_seconds * 1e3:.3f} ms a run")

    def timeline(self) -> Svg:
        """What each thread did in the last run. Steps that Python runs are gaps."""
        spans = [(self.steps[i].label, thread, start, end) for i, thread, start, end in self.spans]
        return timeline(spans, max((thread for _, thread, _, _ in self.spans), default=0) + 1, "Timeline of the last run")

    def __str__(self) -> str:
        """Steps, slowest first."""
        lines = [f"{'ms':>9} {'share':>6} {'GFLOP/s':>8} {'GB/s':>6}  kernel, shape, nodes"]
        for s in self.slowest():
            what = f"{s.name}  {s.shape}  {', '.join(s.nodes[:3])}"
            lines.append(f"{s.seconds * 1e3:9.4f} {s.share:6.1%} {s.gflops:8.1f} {s.gbytes:6.1f}  {what}")
        return "\n".join([*lines, f"run: {self.run_seconds * 1e3:.3f} ms"])

    def __repr__(self) -> str:
        return f"<Profile of {len(self.steps)} steps: {self.run_seconds * 1e3:.3f} ms a run>"

    def _repr_html_(self) -> str:
        columns = (">#", ">ms", ">share", ">GFLOP/s", ">GB/s", "kernel", "shape", "nodes")
        rows = [
            (s.index, f"{s.seconds * 1e3:.4f}", f"{s.share:.1%}", f"{s.gflops:.1f}", f"{s.gbytes:.1f}", s.name, s.shape,
             ", ".join(s.nodes))
            for s in self.slowest()
        ]  # fmt: skip
        caption = f"<b>profile</b>: median of the runs {self.run_seconds * 1e3:.3f} ms"
        return self.bars().text + self.timeline().text + table(columns, rows, caption)

    def chrome_trace(self) -> str:
        """The last run as JSON for a trace viewer (chrome://tracing, Perfetto)."""
        events = [
            {
                "name": self.steps[i].name, "cat": "step", "ph": "X", "pid": 0, "tid": thread, "ts": start * 1e6,
                "dur": (end - start) * 1e6, "args": {"nodes": list(self.steps[i].nodes), "shape": self.steps[i].shape},
            }
            for i, thread, start, end in self.spans
        ]  # fmt: skip
        return json.dumps({"traceEvents": events})


def timed(
    executor: Executor, inputs: Sequence[object], host: dict[int, float], binding: Binding | None = None
) -> tuple[float, list[Span]]:
    """Run once: the time of the run, and when which thread was at which native step; `host` gets the others' times."""
    rate = _cycles_per_second()
    record = np.zeros((max(len(executor.plan.steps), 1), executor.pool.threads, 2), np.int64)
    started = time.perf_counter()
    executor.run(inputs, binding, record.ctypes.data, host)
    return time.perf_counter() - started, _spans(record, rate)


def profile(executor: Executor, inputs: Sequence[object], repeat: int = 10, binding: Binding | None = None) -> Profile:
    """Run `repeat` times with a timeline and take each step's median."""
    plan = executor.plan if binding is None else binding.concrete()
    executor.run(inputs, binding)
    durations: list[list[float]] = [[] for _ in plan.steps]
    runs: list[float] = []
    spans: list[Span] = []
    for _ in range(max(repeat, 1)):
        host: dict[int, float] = {}
        whole, spans = timed(executor, inputs, host, binding)
        runs.append(whole)
        for i, seconds in enumerate(_durations(spans, len(plan.steps))):
            durations[i].append(host.get(i, seconds))
    medians = [float(np.median(d)) for d in durations]
    total = sum(medians) or 1.0
    return Profile(plan, tuple(_step(plan, i, m, total) for i, m in enumerate(medians)), float(np.median(runs)), tuple(spans))


def _step(plan: Plan, i: int, seconds: float, total: float) -> StepTime:
    step = plan.steps[i]
    if isinstance(step, HostStep):
        return StepTime(i, step.kind, step.nodes, step.reason, seconds, seconds / total, 0.0, 0.0)
    per = 1e9 * max(seconds, 1e-9)
    return StepTime(i, step.kernel.name, step.nodes, step.shape, seconds, seconds / total, step.flops / per, step.bytes / per)


def _durations(spans: Sequence[Span], steps: int) -> list[float]:
    """Per step, from the first thread's start to the last one's end; 0 for a step that no thread ran."""
    first, last = [float("inf")] * steps, [0.0] * steps
    for step, _, start, end in spans:
        first[step], last[step] = min(first[step], start), max(last[step], end)
    return [max(b - a, 0.0) for a, b in zip(first, last)]


def _spans(record: np.ndarray, rate: float) -> list[Span]:
    used = record[record > 0]
    first = used.min() if used.size else 0
    steps, threads = record.shape[:2]
    return [
        (s, t, (int(record[s, t, 0]) - int(first)) / rate, (int(record[s, t, 1]) - int(first)) / rate)
        for s in range(steps)
        for t in range(threads)
        if record[s, t, 1]
    ]


@lru_cache(maxsize=1)
def _cycles_per_second() -> float:
    """The cycle counter's rate, measured against the clock for 20 ms."""
    from .ops.kernels.spec import handwritten
    from .pool import KERNEL
    from .store import store

    read = KERNEL(store().address(handwritten("clock", "replay:make_clock")))
    word = np.zeros(1, np.int64)
    address = word.ctypes.data
    read(address, 0, 0)
    before, t0 = int(word[0]), time.perf_counter()
    time.sleep(0.02)
    read(address, 0, 0)
    return (int(word[0]) - before) / (time.perf_counter() - t0)
