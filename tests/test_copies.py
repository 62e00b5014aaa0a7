"""Copies between layouts: short runs, elements that move together, rows of every remainder of a vector."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_problems import image, run
from onnx import helper

import jitrt
from jitrt.ops.kernels.padcopy import pad_copy

NAMES = {np.int8: "i8", np.float32: "f32", np.float64: "f64"}
TYPES = {"b": np.int8, "h": np.float16, "f": np.float32, "d": np.float64, "c": np.bool_}


def shuffled(x: np.ndarray, order: tuple[int, ...], shape: tuple[int, ...]) -> tuple[np.ndarray, jitrt.InferenceSession]:
    """The transposed x in another shape, and the session that computed it."""
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=order), helper.make_node("Reshape", ["t", "shape"], ["y"])]
    values = [helper.make_tensor_value_info(name, kind, size) for name, size in (("x", x.shape), ("y", shape))]
    constant = helper.make_tensor("shape", 7, [len(shape)], shape)
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [constant])
    session = jitrt.InferenceSession(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]))
    return session.run(None, {"x": x})[0], session


@pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("together", [1, 2, 3, 4, 7, 8, 9, 17])
def test_elements_that_move_together(dtype, together):
    rng = np.random.default_rng(together)
    for rows, columns in ((1, 1), (3, 5), (16, 33)):
        x = rng.integers(0, 100, (2, rows, columns, together)).astype(dtype)
        y, _ = shuffled(x, (0, 2, 1, 3), (2 * columns, rows * together))
        np.testing.assert_array_equal(y, x.transpose(0, 2, 1, 3).reshape(y.shape))


def test_pairs_are_copied_as_one_element_each():
    x = np.arange(6 * 5 * 2 * 2, dtype=np.float32).reshape(6, 5, 2, 2)
    y, session = shuffled(x, (0, 2, 1, 3), (12, 10))
    np.testing.assert_array_equal(y, x.transpose(0, 2, 1, 3).reshape(12, 10))
    (step,) = session.get_plan().steps
    assert dict(step.kernel.parameters)["source"] == "u64"


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("count", [*range(1, 20), 31, 32, 33, 64, 65])
def test_runs_of_every_remainder(dtype, count):
    x = np.random.default_rng(count).integers(0, 100, (1, 1, 3, count)).astype(dtype)
    wide = np.full((1, 1, 3, count + 2), 55, dtype)
    run(pad_copy(NAMES[dtype], image(x), NAMES[dtype], image(wide[..., 1:-1])))
    np.testing.assert_array_equal(wide[..., 1:-1], x)
    assert (wide[..., [0, -1]] == 55).all()


def test_runs_that_are_converted():
    for count in (1, 3, 7, 8, 9, 15, 23):
        x = np.random.default_rng(count).standard_normal((1, 1, 2, count)).astype(np.float32)
        y = np.empty(x.shape, np.float16)
        run(pad_copy("f32", image(x), "f16", image(y)))
        np.testing.assert_array_equal(y, x.astype(np.float16))
