"""One runtime in a process of its own, driven line by line: `python child.py RUNTIME`, by any interpreter that has it.

Every request is a line of JSON on standard input, every answer one on standard output; what runtimes print goes to
standard error. A request's `do` is one of

- version: answers with the runtime's `version`, None if it is not installed;
- load: a `model` (.onnx), `feeds` (.npz), names of `outputs`, number of `threads`, `entries` of jitrt's session options;
  runs the model once, writes what it gave into the file `results` (.npz, in the order of `outputs`), and answers with
  `seconds` from importing the runtime to the first result;
- run: for at least `seconds` and `least` runs after one that is not timed; answers with the `times` of the runs.

An answer with `error` says what went wrong. Only the standard library is imported before the clock of `load` starts.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Run = Callable[[], list]  # runs a model once: its outputs, arrays or values that have `numpy()`
PAST, PRESENT = "past_key_values.", "present."  # how the names of inputs and outputs that are caches begin


# ---- the runtimes: functions from a request and its arrays to a run


def session(runtime, request: dict, entries: dict):
    """A session of jitrt, or of onnxruntime, whose interface it has, as a `load` asks for it."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    return runtime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])


def _caches(request: dict, feeds: dict) -> dict:
    """Inputs that are past keys and values, and the longer outputs that take their places in the next run."""
    pairs = {name: PRESENT + name[len(PAST) :] for name in feeds if name.startswith(PAST)}
    return {past: present for past, present in pairs.items() if present in request["outputs"]}


def _jitrt(request: dict, feeds: dict) -> Run:
    """Caches stay where they are, and forget after a step what it has written."""
    import jitrt

    made, outputs, pairs = session(jitrt, request, request["entries"]), request["outputs"], _caches(request, feeds)
    if not pairs:
        return lambda: made.run(outputs, feeds)
    binding = made.io_binding()
    for name in feeds.keys() - pairs.keys():
        binding.bind_cpu_input(name, feeds[name])
    longest = max(feeds[name].shape[-1] for name in feeds.keys() - pairs.keys())  # of the new tokens, or of their mask
    caches = {new: binding.bind_cache(old, new, feeds[old], 2 * (feeds[old].shape[-2] + longest)) for old, new in pairs.items()}
    rows = [(cache, cache.rows) for cache in caches.values()]
    others = [i for i, name in enumerate(outputs) if name not in caches]
    found: list = [caches.get(name) for name in outputs]
    for i in others:
        binding.bind_output(outputs[i])

    def run() -> list:
        for cache, count in rows:
            cache.rows = count
        made.run_with_iobinding(binding)
        for i, value in zip(others, binding.get_outputs()):
            found[i] = value
        return found

    return run


def _onnxruntime(request: dict, feeds: dict) -> Run:
    """Caches are read and written where they are: the past in one place, the present in another."""
    import onnxruntime

    made, outputs = session(onnxruntime, request, {}), request["outputs"]
    if not _caches(request, feeds):
        return lambda: made.run(outputs, feeds)
    binding, held = made.io_binding(), onnxruntime.OrtValue.ortvalue_from_numpy
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, held(array))
    written = [held(array) for array in made.run(outputs, feeds)]
    for name, value in zip(outputs, written):
        binding.bind_ortvalue_output(name, value)

    def run() -> list:
        made.run_with_iobinding(binding)
        return written

    return run


def _openvino(request: dict, feeds: dict) -> Run:
    """One stream, float32 inside too, shapes fixed, and arrays shared with it instead of copied."""
    import openvino

    core = openvino.Core()
    model = core.read_model(request["model"])
    model.reshape({name: list(array.shape) for name, array in feeds.items()})
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": request["threads"],
        "ENABLE_HYPER_THREADING": True,  # as many threads as asked for, also where they share cores
    }
    compiled = core.compile_model(model, "CPU", hints)
    infer = compiled.create_infer_request().infer

    def run() -> list:
        found = infer(feeds, share_inputs=True, share_outputs=True)
        return [found[name] for name in request["outputs"]]

    return run


def _mnn(request: dict, feeds: dict) -> Run:
    """The module interface, shapes fixed, weights rearranged once; float32 inside too ("high").

    The converter is called in its library: its command line, in `MNN.tools`, installs a package that reports its use.
    """
    import _tools  # of the MNN wheel
    import MNN.expr as expr
    import MNN.nn as nn
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as folder:
        path = str(Path(folder) / "model.mnn")
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", request["model"], "--MNNModel", path, "--bizCode", "bench"])
        if not os.path.exists(path):
            raise RuntimeError("its converter refuses the model")
        module = nn.load_module_from_file(
            path,
            list(feeds),
            request["outputs"],
            shape_mutable=False,
            rearrange=True,
            backend=expr.Backend.CPU,
            precision_mode=expr.PrecisionMode.High,
            memory_mode=expr.MemoryMode.Normal,
            thread_num=request["threads"],
        )
    kinds = {"float32": expr.float, "int32": expr.int, "uint8": expr.uint8}
    # It has no 64-bit integers: models converted for it take 32-bit ones.
    narrow = [array.astype(np.int32) if array.dtype == np.int64 else array for array in feeds.values()]

    def run() -> list:
        given = [expr.const(array, list(array.shape), expr.NCHW, kinds[array.dtype.name]) for array in narrow]
        found = [expr.convert(v, expr.NCHW) if v.data_format == expr.NC4HW4 else v for v in module.forward(given)]
        return [v.read() for v in found]

    return run


LOADERS = {"jitrt": _jitrt, "onnxruntime": _onnxruntime, "openvino": _openvino, "MNN": _mnn}


# ---- requests


class Child:
    """A process's runtime and, once loaded, its model."""

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime
        self._run: Run | None = None

    def answer(self, request: dict) -> dict:
        """Do what a request asks for; whatever fails is an answer too."""
        try:
            return {"version": self._version, "load": self._load, "run": self._time}[request["do"]](request)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}

    def _version(self, request: dict) -> dict:
        try:
            return {"version": importlib.metadata.version(self._runtime)}
        except importlib.metadata.PackageNotFoundError:
            return {"version": None}

    def _load(self, request: dict) -> dict:
        start = time.perf_counter()
        import numpy as np

        with np.load(request["feeds"]) as arrays:
            feeds = dict(arrays)
        run = LOADERS[self._runtime](request, feeds)
        outputs = run()
        seconds = time.perf_counter() - start
        np.savez(request["results"], *(x if isinstance(x, np.ndarray) else x.numpy() for x in outputs))
        self._run = run
        return {"seconds": seconds}

    def _time(self, request: dict) -> dict:
        self._run()
        times: list[float] = []
        while len(times) < request["least"] or sum(times) < request["seconds"]:
            start = time.perf_counter()
            self._run()
            times.append(time.perf_counter() - start)
        return {"times": times}


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    child = Child(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(child.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    main()
