"""`python -m benchmarks.halves`: products with matrices held in 16 bits, beside the same ones held in float32, by number of rows.

The matrices are values of float16, large enough together for no cache to hold them, and are multiplied one after the other. Both
sessions take turns in one process; ratios are medians of those of a turn.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from onnx import ModelProto, numpy_helper, parser

import jitrt

from . import console

SIZE, COUNT = 2048, 6  # of the matrices, and how many: 100 MB in float32
ROWS = (1, 2, 4, 6, 8, 11, 12, 14, 16, 24, 32, 64, 128, 256)


def chain(rows: int) -> ModelProto:
    """x[rows, SIZE] times the matrices."""
    nodes = " ".join(f"x{i + 1} = MatMul (x{i}, w{i})" for i in range(COUNT))
    shape = f"float[{rows},{SIZE}]"
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> g ({shape} x0) => ({shape} x{COUNT}) {{ {nodes} }}')
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        matrix = (rng.standard_normal((SIZE, SIZE), np.float32) / SIZE**0.5).astype(np.float16).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(matrix, f"w{i}"))
    return model


def measure(rows: int, threads: int, turns: int) -> tuple[float, float, float]:
    """Seconds of a product with a matrix in float32 and in 16 bits, and the ratio of the second to the first."""
    model, feeds = chain(rows).SerializeToString(), {"x0": np.ones((rows, SIZE), np.float32)}
    sessions = []
    for held in ("float32", "exact"):
        options = jitrt.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("jitrt.weights", held)
        sessions.append(jitrt.InferenceSession(model, options))
        sessions[-1].run(None, feeds)
    times = np.array([[_elapsed(session, feeds) for session in sessions] for _ in range(turns)])
    wide, narrow = np.median(times, axis=0) / COUNT
    return float(wide), float(narrow), float(np.median(times[:, 1] / times[:, 0]))


def _elapsed(session: jitrt.InferenceSession, feeds: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    session.run(None, feeds)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.halves", description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="of a run (default: 2)")
    parser.add_argument("--turns", type=int, default=30, help="of each number of rows (default: 30)")
    arguments = parser.parse_args()
    lines = []
    for rows in ROWS:
        wide, narrow, ratio = measure(rows, arguments.threads, arguments.turns)
        lines.append([f"{rows}x{SIZE}x{SIZE}", *(f"{seconds * 1e6:.0f} us" for seconds in (wide, narrow)), f"{ratio:.2f}"])
    console.table(("product", "float32", "16 bits", "of the time"), lines)


if __name__ == "__main__":
    main()
