"""Pooling kernels against onnxruntime and numpy."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx.helper as oh
import onnxruntime
import pytest
from kernel_problems import Memory, empty, image, native, relative_error, run
from reference import skip_where_old

from jitrt.ops.kernels.pool import Window, global_window, pool

RNG = np.random.default_rng(3)
OPERATORS = {"max": "MaxPool", "average": "AveragePool", "lp": "LpPool"}
NAMES = {"float32": "f32", "float64": "f64", "int8": "i8", "uint8": "u8"}
SIZES = {1: (23,), 2: (11, 9), 3: (5, 4, 6)}
# kernel, stride, dilation, border (both sides)
WINDOWS = [
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 3), (2, 2), (1, 1), (1, 1)),
    ((2, 2), (2, 2), (1, 1), (0, 0)),
    ((3, 2), (1, 2), (2, 3), (2, 1)),
    ((5, 5), (3, 3), (1, 1), (2, 2)),
    ((3,), (2,), (1,), (1,)),
    ((3, 2, 3), (2, 1, 2), (1, 1, 1), (1, 1, 1)),
]


def reference(mode: str, x: np.ndarray, window: tuple, indices: bool, **attributes: int) -> list[np.ndarray]:
    """What onnxruntime computes."""
    kernel, strides, dilations, pad = window
    node = oh.make_node(OPERATORS[mode], ["x"], ["y", "i"][: 1 + indices], kernel_shape=kernel, strides=strides,
                        dilations=dilations, pads=[*pad, *pad], **attributes)  # fmt: skip
    kind = oh.np_dtype_to_tensor_dtype(x.dtype)
    outputs = [oh.make_tensor_value_info("y", kind, None), oh.make_tensor_value_info("i", 7, None)][: 1 + indices]
    graph = oh.make_graph([node], "pool", [oh.make_tensor_value_info("x", kind, x.shape)], outputs)
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 18 if mode == "lp" else 22)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def compare(
    mode: str, channels: int, window: tuple, dtype: str = "float32", indices: bool = False, last: bool = True, **attributes: int
) -> None:
    """Pool random data with the kernel and with onnxruntime."""
    kernel, strides, dilations, pad = window
    x = (RNG.standard_normal((2, channels, *SIZES[len(kernel)])) * 40).astype(dtype)
    expected = reference(mode, x, window, indices, **attributes)
    memory, y, places = Memory(), empty(expected[0].shape, dtype, last), empty(expected[0].shape, np.int64, last)
    source = native(x) if last else x
    geometry = Window(kernel, strides, dilations, pad, pad, bool(attributes.get("count_include_pad", 0)),
                      p=attributes.get("p", 2), column_major=bool(attributes.get("storage_order", 0)))  # fmt: skip
    run(pool(NAMES[dtype], mode, image(source), image(y), geometry, indices=image(places) if indices else None,
             alloc=memory.alloc, threads=2))  # fmt: skip
    assert relative_error(y, expected[0].astype(np.float64)) < 5e-6
    if indices:
        np.testing.assert_array_equal(places, expected[1])


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("channels", [1, 7, 64, 150])
def test_pooling_agrees_with_onnxruntime(window, channels):
    for ceil in (0, 1):
        compare("max", channels, window, ceil_mode=ceil)
        compare("lp", channels, window, ceil_mode=ceil, p=1 + ceil + channels % 2)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("channels", [1, 7, 64, 150])
@pytest.mark.parametrize("ceil", [0, 1])
def test_averages_agree_with_onnxruntime(window, channels, ceil):
    if ceil and len(set(window[3])) > 1:
        skip_where_old("counts another dimension's padding (microsoft/onnxruntime#27375)")
    compare("average", channels, window, ceil_mode=ceil, count_include_pad=ceil, last=channels != 7)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("order", [0, 1])
def test_positions_of_maxima(window, order):
    compare("max", 37, window, indices=True, storage_order=order, last=order == 0)
    compare("max", 5, window, "int8", indices=True, storage_order=order)


@pytest.mark.parametrize("dtype", ["float64", "int8", "uint8"])
def test_maxima_of_other_types(dtype):
    compare("max", 37, WINDOWS[1], dtype)


@pytest.mark.parametrize(("channels", "size"), [(3, (40, 50)), (200, (7, 7)), (5, (1, 1)), (8, (1200,)), (8, (3, 4, 5))])
def test_global_pooling(channels, size):
    x = native(RNG.standard_normal((2, channels, *size)).astype(np.float32))
    axes = tuple(range(2, x.ndim))
    for mode, expected in (
        ("max", x.max(axes, keepdims=True)),
        ("average", x.mean(axes, keepdims=True, dtype=np.float64)),
        ("lp", (np.abs(x.astype(np.float64)) ** 3).sum(axes, keepdims=True) ** (1 / 3)),
    ):
        for batch in (1, 2):
            memory, y = Memory(), empty((batch, *expected.shape[1:]), np.float32)
            source = x[:batch]
            run(pool("f32", mode, image(source), image(y), global_window(image(source), p=3), alloc=memory.alloc, threads=4))
            assert relative_error(y, expected[:batch]) < 2e-6


def test_half_precision_is_computed_in_single():
    x = native(RNG.standard_normal((1, 20, 9, 9)).astype(np.float16))
    y, memory = empty((1, 20, 1, 1), np.float16), Memory()
    run(pool("f16", "average", image(x), image(y), global_window(image(x)), alloc=memory.alloc))
    np.testing.assert_array_equal(y, x.astype(np.float64).mean((2, 3), keepdims=True).astype(np.float16))


def test_nan_is_the_maximum_of_every_window_that_holds_it():
    x = native(RNG.standard_normal((1, 20, 9, 9)).astype(np.float32))
    x[0, 3, 4, 4] = x[0, 18, 0, 0] = np.nan
    y = empty(x.shape, np.float32)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    run(pool("f32", "max", image(x), image(y), window, alloc=Memory().alloc))
    assert np.isnan(y[0, 3, 3:6, 3:6]).all()
    assert np.isnan(y[0, 18, :2, :2]).all()
    assert np.isnan(y).sum() == 13


def test_empty_batch_needs_no_launch():
    x, y = np.zeros((0, 4, 5, 5), np.float32), np.zeros((0, 4, 3, 3), np.float32)
    assert pool("f32", "max", image(x), image(y), Window((3, 3), (1, 1), (1, 1), (0, 0), (0, 0)), alloc=Memory().alloc) == []


def test_unknown_mode_is_refused():
    x = np.zeros((1, 4, 5, 5), np.float32)
    with pytest.raises(ValueError, match="median"):
        pool("f32", "median", image(x), image(x), global_window(image(x)), alloc=Memory().alloc)


def check_target() -> None:
    """A few of the problems above, for a process that compiles for another CPU."""
    for mode in ("max", "average", "lp"):
        compare(mode, 21, WINDOWS[1])
    compare("max", 37, WINDOWS[0], "int8", indices=True)


@pytest.mark.parametrize(("name", "features"), [("haswell", "+avx2,+fma,+f16c,+avx,+sse4.2,+bmi2"), ("x86-64", "")])
def test_other_targets(name, features):
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    folder = os.path.dirname(__file__)
    code = f"import sys; sys.path.insert(0, {folder!r}); import test_pool_kernels as t; t.check_target()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
