"""`python -m benchmarks.errors`: how far each algorithm of a 3 x 3 convolution is from float64, and how far from direct sums.

The algorithms are those of the option ``jitrt.conv_algorithm``; onnxruntime's error is printed beside them. Inputs and filters
are normally distributed, the filters scaled so that outputs are of order one. Nothing is timed, so a busy machine does no harm.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime

import jitrt

from .console import table
from .layers import Layer, conv_model, weights
from .report import geometric_mean

ALGORITHMS = ("direct", "winograd2", "winograd4", "winograd6")
LAYERS = (Layer(64, 64, 56, 3), Layer(128, 128, 28, 3), Layer(256, 256, 14, 3), Layer(512, 512, 7, 3))
TITLES = ("layer", "algorithm", "root mean square", "largest", "times direct's", "largest, times direct's")


def exact(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The convolution with borders of one, in float64."""
    _, _, height, width = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    parts = (
        np.einsum("oc,nchw->nohw", w[:, :, i, j].astype(np.float64), padded[:, :, i : i + height, j : j + width], optimize=True)
        for i in range(3)
        for j in range(3)
    )
    return sum(parts, np.zeros(()))


def outputs(model: onnx.ModelProto, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What every algorithm makes of an image."""
    for name in ALGORITHMS:
        options = jitrt.SessionOptions()
        options.add_session_config_entry("jitrt.conv_algorithm", name)
        yield name, jitrt.InferenceSession(model, options).run(None, {"x": x})[0]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    yield "onnxruntime", session.run(None, {"x": x})[0]


def errors(layer: Layer, seed: int = 0) -> dict[str, tuple[float, float]]:
    """For each algorithm the root mean square of the errors by that of the outputs, and the largest by the largest."""
    rng = np.random.default_rng(seed)
    w = weights(layer, rng)
    x = rng.standard_normal((1, layer.cin, layer.size, layer.size), np.float32)
    right = exact(x, w)
    found = {}
    for name, y in outputs(conv_model(layer, w), x):
        wrong = np.abs(y - right)
        found[name] = (float(np.sqrt(np.mean(wrong**2) / np.mean(right**2))), float(wrong.max() / np.abs(right).max()))
    return found


def main() -> None:
    """Print the errors of all layers, and each algorithm's mean ratio to direct summation."""
    argparse.ArgumentParser(prog="python -m benchmarks.errors", description="Errors of convolution algorithms.").parse_args()
    rows, ratios = [], {}
    for layer in LAYERS:
        found = errors(layer)
        for name, (mean, largest) in found.items():
            by_direct = mean / found["direct"][0], largest / found["direct"][1]
            ratios.setdefault(name, []).append(by_direct)
            rows.append([str(layer), name, f"{mean:.1e}", f"{largest:.1e}", *(f"{ratio:.2f}" for ratio in by_direct)])
    for name, each in ratios.items():
        rows.append(["geometric mean", name, "", "", *(f"{geometric_mean(kind):.2f}" for kind in zip(*each, strict=True))])
    table(TITLES, rows)


if __name__ == "__main__":
    main()
