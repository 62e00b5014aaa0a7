"""`python -m benchmarks.errors`: how far each algorithm of a convolution is from float64, and how far from direct sums.

The algorithms are those of the option ``jitrt.conv_algorithm``; onnxruntime's error is printed beside them. Inputs and filters
are normally distributed, the filters scaled so that outputs are of order one. Nothing is timed, so a busy machine does no harm.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
import onnx.parser
import onnxruntime

import jitrt
from jitrt.ops.kernels.winogradforms import forms

from .console import table
from .report import geometric_mean


@dataclass(frozen=True)
class Layer:
    """A convolution of stride 1 that keeps the size: float32[1, channels, size, size], as many filters of kernel."""

    channels: int
    size: int
    kernel: tuple[int, int]

    @property
    def pads(self) -> tuple[int, int]:
        """Borders before and after rows and columns."""
        return self.kernel[0] // 2, self.kernel[1] // 2

    @property
    def algorithms(self) -> dict[str, str]:
        """Names of algorithms, and the options' values that ask for them."""
        return {"direct": "direct", **{f"winograd {form}": f"winograd{max(form.outputs)}" for form in forms(self.kernel)}}

    def __str__(self) -> str:
        return f"{self.channels}x{self.size}x{self.size}, {'x'.join(map(str, self.kernel))}"


LAYERS = (
    Layer(64, 56, (3, 3)), Layer(128, 28, (3, 3)), Layer(256, 14, (3, 3)), Layer(512, 7, (3, 3)),
    Layer(64, 28, (5, 5)), Layer(128, 28, (5, 5)),
    Layer(64, 64, (1, 3)), Layer(384, 8, (3, 1)), Layer(64, 64, (1, 5)), Layer(128, 17, (1, 7)), Layer(192, 17, (7, 1)),
)  # fmt: skip
TITLES = ("layer", "algorithm", "root mean square", "largest", "times direct's", "largest, times direct's")


def exact(x: np.ndarray, w: np.ndarray, pads: tuple[int, int]) -> np.ndarray:
    """The convolution with these borders, in float64."""
    size, kernel = x.shape[2:], w.shape[2:]
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *((p, p) for p in pads)))
    parts = (
        np.einsum("oc,nchw->nohw", w[:, :, i, j].astype(np.float64), padded[:, :, i : i + size[0], j : j + size[1]], optimize=True)
        for i, j in itertools.product(*map(range, kernel))
    )
    return sum(parts, np.zeros(()))


def model(layer: Layer, w: np.ndarray) -> onnx.ModelProto:
    """A model of one Conv node."""
    shape, (rows, cols) = f"1, {layer.channels}, {layer.size}, {layer.size}", layer.pads
    made = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 17]>
        conv (float[{shape}] x) => (float[{shape}] y) {{ y = Conv <pads = [{rows}, {cols}, {rows}, {cols}]> (x, w) }}""")
    made.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    return made


def outputs(layer: Layer, w: np.ndarray, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What every algorithm makes of an image."""
    made = model(layer, w)
    for name, value in layer.algorithms.items():
        options = jitrt.SessionOptions()
        options.add_session_config_entry("jitrt.conv_algorithm", value)
        options.add_session_config_entry("jitrt.conv_winograd6", "1")
        yield name, jitrt.InferenceSession(made, options).run(None, {"x": x})[0]
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    yield "onnxruntime", session.run(None, {"x": x})[0]


def errors(layer: Layer, seed: int = 0) -> dict[str, tuple[float, float]]:
    """For each algorithm the root mean square of the errors by that of the outputs, and the largest by the largest."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((layer.channels, layer.channels, *layer.kernel), np.float32)
    w /= np.float32(np.sqrt(prod(w.shape[1:])))
    x = rng.standard_normal((1, layer.channels, layer.size, layer.size), np.float32)
    right = exact(x, w, layer.pads)
    found = {}
    for name, y in outputs(layer, w, x):
        wrong = np.abs(y - right)
        found[name] = (float(np.sqrt(np.mean(wrong**2) / np.mean(right**2))), float(wrong.max() / np.abs(right).max()))
    return found


def main() -> None:
    """Print the errors of all layers, and each algorithm's mean ratio to direct summation for filters of a size."""
    argparse.ArgumentParser(prog="python -m benchmarks.errors", description="Errors of convolution algorithms.").parse_args()
    rows, ratios = [], {}
    for layer in LAYERS:
        found = errors(layer)
        for name, (mean, largest) in found.items():
            by_direct = mean / found["direct"][0], largest / found["direct"][1]
            ratios.setdefault((layer.kernel, name), []).append(by_direct)
            rows.append([str(layer), name, f"{mean:.1e}", f"{largest:.1e}", *(f"{ratio:.2f}" for ratio in by_direct)])
    for (kernel, name), each in ratios.items():
        means = (f"{geometric_mean(kind):.2f}" for kind in zip(*each, strict=True))
        rows.append([f"geometric mean, {'x'.join(map(str, kernel))}", name, "", "", *means])
    table(TITLES, rows)


if __name__ == "__main__":
    main()
