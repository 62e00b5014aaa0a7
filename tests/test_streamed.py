"""Results of rows that are written past the caches: the same bits as results that are not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import jitrt as ort
from jitrt.fusion import loops
from jitrt.ops.kernels import target

SOFTMAX = "y = Softmax <axis = -1> (x)"
BODIES = {
    "softmax": SOFTMAX,
    "log softmax": "y = LogSoftmax <axis = -1> (x)",
    "normalised": "m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) s = Mul (d, d) v = ReduceMean <axes = [-1]> (s) y = Div (d, v)",
    "softmax of dear values": "t = Tanh (x) p = Softmax <axis = -1> (t) e = Exp (t) y = Mul (p, e)",
}


def session(text: str, kind: str = "float", threads: int = 2) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    head = '<ir_version: 10, opset_import: ["": 17]> g'
    return ort.InferenceSession(onnx.parser.parse_model(f"{head} ({kind}[M, N] x) => ({kind}[M, N] y) {{ {text} }}"), options)


def values(rows: int, columns: int, dtype: str = "float32") -> np.ndarray:
    return (np.random.default_rng(columns).standard_normal((rows, columns)) * 3).astype(dtype)


def asked(far: int, monkeypatch) -> None:
    """From how many bytes results are written past the caches."""
    monkeypatch.setattr(loops, "FAR", far)


@pytest.mark.parametrize("columns", [16, 48, 64, 1008, 1000, 1])
@pytest.mark.parametrize(("kind", "dtype"), [("float", "float32"), ("double", "float64"), ("float16", "float16")])
@pytest.mark.parametrize("body", BODIES)
def test_streamed_results_are_the_same_bits(body, kind, dtype, columns, monkeypatch):
    x = values(37, columns, dtype)
    expected = session(BODIES[body], kind).run(None, {"x": x})[0]
    asked(1, monkeypatch)
    made = session(BODIES[body], kind)
    np.testing.assert_array_equal(made.run(None, {"x": x})[0], expected)
    (step,) = made.get_plan({"x": x}).steps
    assert step.args[6] == (columns * x.itemsize % 64 == 0)
    assert (f"stream_f{8 * x.itemsize}(" in step.kernel.source) == (columns > 1)


def test_special_values_are_streamed_too(monkeypatch):
    x = values(8, 64)
    x[0, :3], x[1], x[2, 5], x[3, 7] = [np.nan, np.inf, -np.inf], -np.inf, np.inf, -np.inf
    expected = session(SOFTMAX).run(None, {"x": x})[0]
    asked(1, monkeypatch)
    np.testing.assert_array_equal(session(SOFTMAX).run(None, {"x": x})[0], expected)


@pytest.mark.parametrize("offset", [0, 4, 32, 60])
def test_an_output_that_begins_anywhere_is_right(offset, monkeypatch):
    x = values(5, 96)
    expected = session(SOFTMAX).run(None, {"x": x})[0]
    asked(1, monkeypatch)
    room = np.full(x.nbytes + 192, 99, np.uint8)
    start = -room.ctypes.data % 64 + offset
    y = room[start : start + x.nbytes].view(np.float32).reshape(x.shape)
    made = session(SOFTMAX)
    binding = made.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    made.run_with_iobinding(binding)
    np.testing.assert_array_equal(y, expected)
    assert (room[:start] == 99).all()
    assert (room[start + x.nbytes :] == 99).all()


def test_whether_results_are_streamed_follows_an_open_size(monkeypatch):
    made = session(SOFTMAX)
    asked(64 * 4 * 100, monkeypatch)
    for rows in (20, 50, 99, 100, 300):
        x = values(rows, 64)
        e = np.exp(x.astype(np.float64))
        np.testing.assert_allclose(made.run(None, {"x": x})[0], e / e.sum(1, keepdims=True), 1e-5, 1e-7)
    (family,) = made._engine.program.families.values()
    assert len(family.plans) == 1


@pytest.mark.parametrize(("rows", "far"), [(16, 0), (loops.FAR // 4096, 1)])
def test_only_large_results_are_streamed(rows, far):
    made, x = session(SOFTMAX), np.zeros((rows, 1024), np.float32)
    assert np.unique(made.run(None, {"x": x})[0]) == [np.float32(1 / 1024)]
    assert made.get_plan({"x": x}).steps[0].args[6] == far


@pytest.mark.parametrize(
    ("caches", "last", "second"),
    [
        ([(1, "32K"), (1, "48K"), (2, "512K"), (3, "32768K")], 32 << 20, 512 << 10),
        ([(1, "48K"), (1, "64K"), (2, "1024K")], 1 << 20, 1 << 20),
        ([(1, "32K"), (1, "32K")], 0, 0),
        ([(1, "32K"), (3, "unknown")], 0, 0),
        ([], 0, 0),
    ],
)
def test_the_last_cache_is_the_highest_that_the_system_names_behind_the_first_level(caches, last, second, tmp_path: Path):
    cpu = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    for i, (level, size) in enumerate(caches):
        place = tmp_path / f"cpu{cpu}" / "cache" / f"index{i}"
        place.mkdir(parents=True)
        (place / "level").write_text(f"{level}\n")
        (place / "size").write_text(f"{size}\n")
    assert target.last_cache.__wrapped__(tmp_path) == last
    assert target.second_cache.__wrapped__(tmp_path) == second


def test_half_of_the_last_cache_decides_what_is_far():
    assert (target.last_cache() // 2 or 1 << 24) == loops.FAR
