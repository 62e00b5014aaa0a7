"""Which algorithm computes a convolution: as the session's options say, or the fastest on this machine, measured.

A layer is measured when its shape is first met, by a model of its own (`trial_model`): all threads read memory, so that
the layer's filters come from there as they do in a network, whose other layers have used the caches; its input is
written, as the layer before does; then it runs, and its time counts alone. No process measures what another one has
(`timings`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .executor import Executor
from .fusion.graph import Graph, Node
from .fusion.planner import make_plan
from .fusion.trace import trace
from .fusion.weights import Weights
from .log import log
from .ops.convchoice import Choose, ConvLayer, expected, wherever_possible, winograd_forms, winograd_of, without_winograd
from .ops.kernels.sizes import fixed
from .options import CONV_ALGORITHM, CONV_WINOGRAD6, SessionOptions
from .pool import pool
from .profile import timed
from .progress import ProgressLine
from .store import Progress, Store, store
from .timings import Timings

ROUNDS, FEWEST, SECONDS = 10, 3, 0.6  # runs of each algorithm; how many are enough when they have taken so long
_TIE = 1.03  # times of algorithms that differ by less say nothing: the cost model decides
_SWEEP = (1024, 8192)  # float32 values that are read before each run: 32 MB
_OPSET, _BEFORE, _CONV = 13, "before", "convolution"
_alone = threading.Lock()  # two measurements at the same time would disturb each other


def rule(options: SessionOptions, threads: int) -> Choose:
    """The rule that the options ask for."""
    asked, coarse = options._own(CONV_ALGORITHM), options._own(CONV_WINOGRAD6) == "1"
    if asked == "measure":
        return Measured(store(), threads, coarse)
    if asked.startswith("winograd"):
        return winograd_of(int(asked.removeprefix("winograd")), coarse or asked == "winograd6")
    return without_winograd if asked == "direct" else expected


class Measured:
    """The rule that takes the fastest algorithm; what has no time yet is measured now.

    Args:
        store: where kernels and times are kept.
        coarse: whether forms of Winograd with large errors may be taken.
    """

    def __init__(self, store: Store, threads: int, coarse: bool = False) -> None:
        self.store, self.threads, self.coarse = store, threads, coarse
        self.timings, self.line = Timings(store), ProgressLine("measuring run")

    def __call__(self, layer: ConvLayer, names: Sequence[str]) -> str:
        """The fastest of these algorithms; of those that are as good as that the first."""
        coarse = set() if self.coarse else {name for name, form in winograd_forms(layer).items() if form.coarse}
        allowed = [name for name in names if name not in coarse]
        if len(allowed) == 1:
            return allowed[0]
        layer = replace(layer, image=fixed(layer.image), pads=fixed(layer.pads))  # times are those of one size
        key = f"{layer}, threads {self.threads}"
        with _alone:
            times = self.timings.get(key)
            if not times.keys() >= set(allowed):
                times = measure(layer, allowed, self.store, self.threads, self.line)
                self.timings.add(key, times)
        shortest = min(times[name] for name in allowed)
        best = next(name for name in allowed if times[name] < _TIE * shortest)
        log("compile", lambda: f"{key}: {best}; " + ", ".join(f"{name} {1e3 * s:.3f} ms" for name, s in times.items()))
        return best


def measure(layer: ConvLayer, names: Sequence[str], store: Store, threads: int, progress: Progress) -> dict[str, float]:
    """Seconds of each algorithm: the least of some runs, which alternate; the first one of each does not count."""
    graph, feeds = trial_model(layer)
    trials: list[_Trial] = []
    total = (1 + ROUNDS) * len(names)
    for i, name in enumerate(names):
        progress(i, total, f"{name}, {layer}")
        trials.append(_Trial.of(graph, feeds, name, store, threads))
        trials[-1].seconds()
    times: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for turn in range(1, 1 + ROUNDS):
        if turn > FEWEST and time.perf_counter() - started > SECONDS:
            break
        for i, trial in enumerate(trials):
            progress(turn * len(trials) + i, total, f"{trial.name}, {layer}")
            times[trial.name].append(trial.seconds())
    progress(total, total, "")
    return {name: min(runs) for name, runs in times.items()}


def trial_model(layer: ConvLayer) -> tuple[Graph, dict[str, np.ndarray]]:
    """A model that runs the layer on a channels-last image, after its caches have been swept; and its inputs."""
    rng, rank = np.random.default_rng(0), len(layer.image) + 1
    attributes = {
        "strides": list(layer.strides), "dilations": list(layer.dilations), "pads": list(layer.pads), "group": layer.groups,
    }  # fmt: skip
    made = _of_bytes(layer, rng) if layer.dtype == "int16" else _of_floats(layer, rng)
    nodes = [
        Node("ReduceMax", ["memory"], ["swept"], {"axes": [1]}, "sweep"),
        Node("Transpose", ["x"], ["turned"], {"perm": [0, rank - 1, *range(1, rank - 1)]}, "view"),
        Node(made.before, ["turned", *made.given], ["image"], {}, _BEFORE),
        Node(made.name, ["image", "filters"], ["y"], attributes, _CONV),
        Node("Transpose", ["y"], ["result"], {"perm": [0, *range(2, rank), 1]}, "view back"),
    ]
    graph = Graph(["memory", "x"], ["swept", "result"], nodes, {"filters": made.filters, **made.given}, opsets={"": _OPSET})
    c, *size = layer.image
    image = rng.standard_normal((1, *size, c), np.float32).astype(made.image)
    return graph, {"memory": np.ones(_SWEEP, np.float32), "x": image}


@dataclass(frozen=True)
class _Operators:
    """The convolution, with its filters, and what writes its image: an operator with these constants, of an image of that type."""

    name: str
    filters: np.ndarray
    before: str
    image: np.dtype
    given: dict[str, np.ndarray]


def _of_floats(layer: ConvLayer, rng: np.random.Generator) -> _Operators:
    filters = rng.standard_normal(layer.filters, np.float32) / np.float32(np.sqrt(np.prod(layer.filters[1:])))
    dtype = np.dtype(layer.dtype)
    return _Operators("Conv", filters.astype(dtype), "Relu", dtype, {})


def _of_bytes(layer: ConvLayer, rng: np.random.Generator) -> _Operators:
    """Filters are small: sums then fit whatever the algorithm."""
    quantisation = {"scale": np.float32(0.1), "zero": np.int8(0)}
    filters = rng.integers(-3, 4, layer.filters, np.int8)
    return _Operators("ConvInteger", filters, "QuantizeLinear", np.dtype(np.float32), quantisation)


@dataclass(frozen=True)
class _Trial:
    """One algorithm, ready to run."""

    name: str
    executor: Executor
    inputs: list[np.ndarray]
    steps: frozenset[int]  # those of the convolution

    @staticmethod
    def of(graph: Graph, feeds: dict[str, np.ndarray], name: str, store: Store, threads: int) -> _Trial:
        traced = trace(graph, feeds, graph.outputs)
        weights = Weights()
        plan = make_plan(traced.trace, threads, weights, choose=wherever_possible(name))
        steps = frozenset(i for i, step in enumerate(plan.steps) if _CONV in step.nodes and _BEFORE not in step.nodes)
        executor = Executor(plan, store, pool(threads), ProgressLine())
        weights.complete(threads)
        return _Trial(name, executor, [feeds[name] for name in graph.inputs], steps)

    def seconds(self) -> float:
        """From the start of the convolution's first step to the end of its last one."""
        _, spans = timed(self.executor, self.inputs, {})
        own = [(start, end) for step, _, start, end in spans if step in self.steps]
        return max(end for _, end in own) - min(start for start, _ in own)
