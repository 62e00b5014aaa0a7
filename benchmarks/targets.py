"""`python -m benchmarks.targets`: the same models compiled for this CPU, for AVX2, and for any x86-64; writes TARGETS.md.

Each target has a process of its own, whose `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` say what to compile for; they take
turns. onnxruntime chooses its kernels by what the CPU has and cannot be told to use less, so jitrt is measured alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh

from . import machine, micro
from .console import progress
from .layers import Layer, conv_model, weights
from .peers.driver import LOAD_LIMIT, RUN_LIMIT, Child, write_request
from .report import Circumstances, Table, page

FILE = Path(__file__).resolve().parent / "TARGETS.md"
# (CPU's name, its features) as LLVM writes them; None: what this CPU is
TARGETS = {
    "native": None,
    "haswell (AVX2)": ("haswell", "+avx2,+fma,+f16c,+avx,+sse4.2,+bmi2"),
    "x86-64 (SSE2)": ("x86-64", ""),
}
LAYERS = (
    Layer(3, 64, 224, 7, 2), Layer(256, 64, 56, 1), Layer(64, 64, 56, 3), Layer(256, 256, 14, 3), Layer(128, 128, 56, 3, 2),
    Layer(144, 144, 56, 3, 1, 144), Layer(672, 672, 14, 5, 1, 672),
)  # fmt: skip
PRODUCT, SOFTMAX, CHAIN = (512, 512, 512), (4096, 1024), (64, 256, 256)
TURN, TURNS = 0.1, 10  # seconds of a turn, and how many each target has on a model
TEXT = (
    "GFLOP/s of the shortest run, of the same models compiled for three CPUs: this one, one with AVX2 and FMA (8 float32 a",
    "register), and any x86-64 (4, and no FMA). Ratios are medians over turns, so they need not be those of the shortest runs.",
    "Convolutions read and write channels-last, as within a network; their FLOPs are those of the direct way, so that Winograd",
    "counts as faster, not as less work. Softmax counts five operations an element, a chain one for each operator. onnxruntime",
    "has no option that restricts it likewise: jitrt is measured alone.",
)


@dataclass(frozen=True)
class Case:
    """A model, its inputs, and how many operations count for a run."""

    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, np.ndarray]
    flops: int


def cases() -> Iterator[Case]:
    """What is measured."""
    for layer in LAYERS:
        yield Case(str(layer), *channels_last(layer), layer.flops)
    m, k, n = PRODUCT
    yield Case(f"product {m}x{k}x{n}", *micro.product(*PRODUCT), 2 * m * k * n)
    yield Case("softmax {}x{}".format(*SOFTMAX), *micro.softmax(*SOFTMAX), 5 * int(np.prod(SOFTMAX)))
    size = "x".join(map(str, CHAIN))
    yield Case(f"{len(micro.CHAIN)} elementwise ops {size}", *micro.chain(*CHAIN), len(micro.CHAIN) * int(np.prod(CHAIN)))


def channels_last(layer: Layer) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A convolution whose input and output are [1, size, size, channels]: what it has within a network."""
    rng = np.random.default_rng(0)
    model = conv_model(layer, weights(layer, rng))
    (node,), graph = model.graph.node, model.graph
    node.input[0], node.output[0] = "turned", "made"
    graph.node.insert(0, oh.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]))
    graph.node.append(oh.make_node("Transpose", ["made"], ["y"], perm=[0, 2, 3, 1]))
    for value, channels, size in ((graph.input[0], layer.cin, layer.size), (graph.output[0], layer.cout, layer.out)):
        value.CopyFrom(oh.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, [1, size, size, channels]))
    return model, {"x": rng.standard_normal((1, layer.size, layer.size, layer.cin), np.float32)}


def possible() -> dict[str, Mapping[str, str]]:
    """The targets that this CPU can run, and the environment of their processes."""
    import llvmlite.binding as llvm

    have = llvm.get_host_cpu_features()
    x86 = llvm.get_process_triple().startswith("x86_64")
    found: dict[str, Mapping[str, str]] = {}
    for name, target in TARGETS.items():
        if target is None:
            found[name] = {}
        elif x86 and all(have.get(feature.removeprefix("+")) for feature in target[1].split(",") if feature):
            found[name] = {"NUMBA_CPU_NAME": target[0], "NUMBA_CPU_FEATURES": target[1]}
    return found


def measure(case: Case, children: Mapping[str, Child], threads: int) -> dict[str, list[float]]:
    """For each target the seconds of the shortest run in each of its turns.

    Raises:
        ChildError: a process fails or dies.
    """
    times: dict[str, list[float]] = {name: [] for name in children}
    with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as folder:
        request = write_request(Path(folder), case.model, case.feeds, threads)
        for child in children.values():
            child.ask(request, LOAD_LIMIT)
        for _ in range(TURNS):
            for name, child in children.items():
                times[name].append(min(child.ask({"do": "run", "seconds": TURN, "least": 2}, RUN_LIMIT)["times"]))
    return times


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description="Measure jitrt compiled for several CPUs.")
    parser.add_argument("--threads", type=int, default=min(2, machine.cpu_count()))
    parser.add_argument("--output", type=Path, default=FILE, help=f"default: {FILE.name} beside this program")
    arguments = parser.parse_args()
    load, start, rows = machine.load(), time.perf_counter(), []
    targets = possible()
    with contextlib.ExitStack() as stack:
        children = {name: stack.enter_context(Child("jitrt", environment=env)) for name, env in targets.items()}
        for case in cases():
            with progress(case.name):
                found = measure(case, children, arguments.threads)
            rows.append(_cells(case, found))
            print("    " + "  ".join(rows[-1][1:]), flush=True)
    native = next(iter(targets))
    titles = ("GFLOP/s", *targets, *(f"{name} / {native}" for name in list(targets)[1:]))
    table = Table("Models", titles, rows)
    table.show()
    how = Circumstances(["python", "-m", "benchmarks.targets", *sys.argv[1:]], load, (time.perf_counter() - start) / 60,
                        machine.versions(), arguments.threads)  # fmt: skip
    arguments.output.write_text(page("jitrt compiled for other CPUs", how, TEXT, [table]))
    return 0


def _cells(case: Case, found: Mapping[str, list[float]]) -> list[str]:
    """A row: the rates, then the others' by the first one's."""
    first, *others = found.values()
    rates = [f"{case.flops / min(turns) / 1e9:.1f}" for turns in found.values()]
    ratios = [statistics.median(a / b for a, b in zip(first, turns, strict=True)) for turns in others]
    return [case.name, *rates, *(f"{ratio:.2f}" for ratio in ratios)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as store:
        os.environ.setdefault("JITRT_CACHE_DIR", store)
        status = main()
    sys.exit(status)
