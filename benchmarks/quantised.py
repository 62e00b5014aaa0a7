"""8-bit models beside the float32 models that they were made of, both on jitrt; onnxruntime's time of the 8-bit one beside it.

onnxruntime's quantiser makes them: `dynamic` quantises activations as the model runs, `QDQ` writes pairs of QuantizeLinear and
DequantizeLinear around float operators, `QOperator` operators of integers.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from . import zoo
from .compare import Runner, alternate, in_new_process
from .report import Table, seconds

LEAST = 1.0  # of the float32 model's speed
TITLES = ("model", "float32", "8 bits", "ratio", "onnxruntime, 8 bits")


@dataclass(frozen=True)
class Quantised:
    """A model of the zoo and the ways in which it is quantised; `build`: its sizes."""

    name: str
    title: str
    ways: tuple[str, ...]
    build: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Seconds of a run: of the float32 model, of an 8-bit one, and of that on onnxruntime."""

    title: str
    plain: float
    bytes: float
    other: float

    @property
    def ratio(self) -> float:
        """Above 1 the 8-bit model is the faster one."""
        return self.plain / self.bytes

    def cells(self) -> list[str]:
        """A row under `TITLES`."""
        return [self.title, seconds(self.plain), seconds(self.bytes), f"{self.ratio:.2f}", seconds(self.other)]


MODELS = (
    Quantised("bert_base", "BERT, two layers", ("dynamic", "QDQ"), {"layers": 2, "vocabulary": 1000}),
    Quantised("resnet18", "ResNet-18", ("QOperator", "QDQ")),
    Quantised("resnet50", "ResNet-50", ("QOperator", "QDQ")),
    Quantised("mobilenet_v2", "MobileNetV2", ("QOperator", "QDQ")),
)


def chosen(words: str) -> list[Quantised]:
    """The models whose names hold every word of `words` ("quantised" is part of all names); all for none."""
    return [m for m in MODELS if all(word in f"quantised: {m.name}" for word in words.lower().split())]


def measure(model: Quantised, threads: int, seconds: float) -> list[Found]:
    """Every way of one model, in a process of its own."""
    return in_new_process(_measure, MODELS.index(model), threads, seconds)


def _measure(number: int, threads: int, seconds: float) -> list[Found]:
    model = MODELS[number]
    ours, theirs = (importlib.import_module(name) for name in ("jitrt", "onnxruntime"))
    with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as name:
        folder = Path(name)
        feeds = zoo.inputs(model.name, **model.build)
        write(zoo.build(model.name, **model.build), folder / "plain.onnx")
        plain, found = Runner(ours, folder / "plain.onnx", feeds, threads), []
        for way in model.ways:
            quantise(folder / "plain.onnx", folder / "bytes.onnx", way, _Samples(model))
            runners = [Runner(runtime, folder / "bytes.onnx", feeds, threads) for runtime in (ours, theirs)]
            found.append(Found(f"{model.title}, {way}", *alternate([plain, *runners], seconds)))
    return found


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model with its batch norms in its weights, as models are before they are quantised."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class _Samples:
    """What the quantiser calibrates with."""

    def __init__(self, model: Quantised) -> None:
        self._left: Iterator[dict[str, np.ndarray]] = (zoo.inputs(model.name, seed=seed, **model.build) for seed in (1, 2))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample."""
        return next(self._left, None)


def quantise(source: Path, target: Path, way: str, samples: object) -> None:
    """Write a model with 8-bit weights; `samples` is a calibration reader of onnxruntime's."""
    from onnxruntime import quantization as q

    if way == "dynamic":
        q.quantize_dynamic(source, target, weight_type=q.QuantType.QInt8)
    else:
        how = {"quant_format": q.QuantFormat[way], "weight_type": q.QuantType.QInt8, "per_channel": True}
        q.quantize_static(source, target, samples, **how)


def table(found: list[Found]) -> Table:
    """All that was found."""
    return Table("Quantised networks, both on jitrt", TITLES, [each.cells() for each in found])
