"""Convolution kernels (dense, grouped, depthwise, transposed) and the padding copy against float64 and onnxruntime."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from kernel_problems import (
    EPILOGUE,
    Memory,
    address_of,
    block,
    convolution,
    empty,
    image,
    native,
    output_shape,
    relative_error,
    run,
)

from jitrt.ops.kernels import conv as dense
from jitrt.ops.kernels import convtranspose, convweights, depthwise, target
from jitrt.ops.kernels.convtranspose import TransposedWeights
from jitrt.ops.kernels.padcopy import pad_copy
from jitrt.ops.kernels.spec import KernelSpec

FLOAT = {"f32": np.float32, "f64": np.float64, "f16": np.float16}
TOLERANCE = {"f32": 2e-6, "f64": 1e-14, "f16": 2e-3}
RNG = np.random.default_rng(7)

# kernel, stride, dilation, border before, border behind
WINDOWS = [
    ((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    ((3, 3), (2, 2), (1, 1), (1, 0), (0, 1)),
    ((1, 1), (1, 1), (1, 1), (0, 0), (0, 0)),
    ((1, 1), (2, 3), (1, 1), (0, 0), (0, 0)),
    ((3, 2), (1, 2), (2, 3), (2, 1), (2, 3)),
    ((5, 5), (1, 1), (1, 1), (2, 2), (2, 2)),
    ((7, 7), (2, 2), (1, 1), (3, 3), (3, 3)),
    ((3,), (1,), (1,), (1,), (1,)),
    ((4,), (3,), (2,), (0,), (5,)),
    ((2, 3, 1), (1, 2, 1), (1, 1, 1), (1, 0, 0), (0, 2, 0)),
]
SIZES = {1: (29,), 2: (9, 17), 3: (4, 5, 6)}


def pack(w: np.ndarray, groups: int, memory: Memory) -> convweights.PackedWeights | depthwise.DepthwiseWeights:
    """Packed filters in memory."""
    if w.shape[1] == 1 and groups > 1:
        return depthwise.DepthwiseWeights.of(w.shape, groups, memory.keep(depthwise.pack_depthwise(w, groups)))
    return convweights.PackedWeights.of(w.shape, groups, memory.keep(convweights.pack_weights(w, groups)))


def convolve(
    x: np.ndarray, w: np.ndarray, window: tuple, groups: int, dtype: str = "f32", bias: bool = True, residual: bool = True,
    x_last: bool = True, y_last: bool = True, low: float = -np.inf, threads: int = 2,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Result and float64 reference."""
    _, strides, dilations, begin, end = window
    memory, kind = Memory(), FLOAT[dtype]
    weight = np.float64 if dtype == "f64" else np.float32
    x, w = x.astype(kind), w.astype(weight)
    y = empty(output_shape(x.shape, w.shape, strides, dilations, begin, end), kind, y_last)
    vector = RNG.standard_normal(w.shape[0]).astype(weight)
    other = native(RNG.standard_normal(y.shape).astype(kind))
    separate = w.shape[1] == 1 and groups > 1
    packed = pack(w, groups, memory)
    source = native(x) if x_last else x
    launches = (depthwise.depthwise if separate else dense.conv)(
        dtype, image(source), packed, image(y), strides, dilations, [*begin, *end], bias=memory.keep(vector) if bias else 0,
        residual=image(other) if residual else None, low=low, alloc=memory.alloc, threads=threads,
    )  # fmt: skip
    run(launches)
    expected = convolution(x, w, strides, dilations, begin, end, groups)
    if bias:
        expected += vector.reshape(1, -1, *[1] * (x.ndim - 2))
    if residual:
        expected += other
    return y, np.maximum(expected, low)


def problem(channels: int, outputs: int, groups: int, window: tuple, batch: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Input and weights of a convolution."""
    rank = len(window[0])
    x = RNG.standard_normal((batch, channels, *SIZES[rank]))
    return x, RNG.standard_normal((outputs, channels // groups, *window[0]))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(
    ("channels", "outputs", "groups"), [(1, 1, 1), (3, 40, 1), (37, 70, 1), (8, 12, 4), (30, 48, 3), (96, 64, 2)]
)
def test_convolution_agrees_with_float64(window, channels, outputs, groups):
    x, w = problem(channels, outputs, groups, window)
    got, expected = convolve(x, w, window, groups, bias=channels != 37, residual=outputs != 40, low=0.0 if groups == 1 else -np.inf)
    assert relative_error(got, expected) < TOLERANCE["f32"]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(("channels", "multiplier"), [(2, 1), (23, 1), (96, 1), (5, 3)])
def test_depthwise_convolution_agrees_with_float64(window, channels, multiplier):
    x, w = problem(channels, channels * multiplier, channels, window)
    got, expected = convolve(x, w, window, channels, bias=channels != 23, residual=channels != 96, low=-0.5)
    assert relative_error(got, expected) < TOLERANCE["f32"]


@pytest.mark.parametrize("dtype", ["f64", "f16"])
@pytest.mark.parametrize(("outputs", "groups"), [(24, 1), (20, 1), (13, 1), (5, 1), (24, 3), (12, 12)])
def test_other_element_types(dtype, outputs, groups):
    for window in (WINDOWS[0], WINDOWS[2]):
        x, w = problem(12, outputs, groups, window)
        got, expected = convolve(x, w, window, groups, dtype)
        assert relative_error(got, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("x_last", [False, True])
@pytest.mark.parametrize("y_last", [False, True])
def test_every_layout_is_accepted(groups, x_last, y_last):
    for window in (WINDOWS[0], WINDOWS[2], WINDOWS[7]):
        x, w = problem(6, 18, groups, window)
        got, expected = convolve(x, w, window, groups, x_last=x_last, y_last=y_last)
        assert relative_error(got, expected) < TOLERANCE["f32"]


@pytest.mark.parametrize("channels", [300, 1700])
def test_sums_too_long_for_one_k_block(channels):
    for window in (WINDOWS[0], WINDOWS[2]):
        x, w = problem(channels, 33, 1, window)
        got, expected = convolve(x, w, window, 1, low=0.0)
        assert relative_error(got, expected) < 5e-6


@pytest.mark.parametrize("groups", [1, 4])
def test_image_smaller_than_the_kernel(groups):
    window = ((5, 5), (1, 1), (1, 1), (2, 2), (2, 2))
    got, expected = convolve(RNG.standard_normal((1, 4, 1, 2)), RNG.standard_normal((4, 4 // groups, 5, 5)), window, groups)
    assert relative_error(got, expected) < TOLERANCE["f32"]


@pytest.mark.parametrize("groups", [1, 4])
def test_empty_batch_needs_no_launch(groups):
    got, expected = convolve(np.zeros((0, 4, 5, 5)), np.zeros((4, 4 // groups, 3, 3)), WINDOWS[0], groups)
    assert got.shape == expected.shape


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_any_number_of_threads_gives_the_same_result(threads):
    x, w = problem(64, 128, 1, WINDOWS[0])
    got, expected = convolve(x, w, WINDOWS[0], 1, threads=threads)
    assert relative_error(got, expected) < TOLERANCE["f32"]


def test_residual_may_be_the_output_itself_when_k_is_split():
    memory = Memory()
    x, w = native(RNG.standard_normal((1, 1700, 3, 5)).astype(np.float32)), RNG.standard_normal((40, 1700, 1, 1)).astype(np.float32)
    y = native(RNG.standard_normal((1, 40, 3, 5)).astype(np.float32))
    expected = convolution(x, w, (1, 1), (1, 1), (0, 0), (0, 0), 1) + y
    packed = pack(w, 1, memory)
    run(dense.conv("f32", image(x), packed, image(y), [1, 1], [1, 1], [0, 0], residual=image(y), alloc=memory.alloc, threads=2))
    assert relative_error(y, expected) < 5e-6


@pytest.mark.parametrize("window", [WINDOWS[0], WINDOWS[2]], ids=str)
@pytest.mark.parametrize("outputs", [*range(1, 33), 40, 58, 60, 72, 116])
def test_any_number_of_outputs_is_written_and_nothing_beside_them(outputs, window):
    """Part of a vector or half a one, with sums that are added up in parts, and with neighbours on both sides."""
    for channels, groups, low in ((140, 1, 0.0), (14, 2, -np.inf)):
        memory = Memory()
        x, w = problem(channels, outputs * groups, groups, window)
        source, w = native(x.astype(np.float32)), w.astype(np.float32)
        shape = output_shape(x.shape, w.shape, *window[1:])
        wide = np.full((shape[0], *shape[2:], shape[1] + 40), 7, np.float32)
        y = np.moveaxis(wide[..., 20 : 20 + shape[1]], -1, 1)
        vector, other = RNG.standard_normal(shape[1]).astype(np.float32), native(RNG.standard_normal(shape).astype(np.float32))
        launches = dense.conv(
            "f32", image(source), pack(w, groups, memory), image(y), *window[1:4], bias=memory.keep(vector), residual=image(other),
            low=low, alloc=memory.alloc, threads=2,
        )  # fmt: skip
        run(launches)
        expected = convolution(source, w, *window[1:], groups) + vector.reshape(1, -1, 1, 1) + other
        assert relative_error(y, np.maximum(expected, low)) < TOLERANCE["f32"]
        assert (wide[..., :20] == 7).all()
        assert (wide[..., 20 + shape[1] :] == 7).all()


def test_nan_passes_the_clip():
    x, w = problem(16, 32, 1, WINDOWS[2])
    x[0, 0, 0, 0] = np.nan
    got, _ = convolve(x, w, WINDOWS[2], 1, low=0.0)
    assert np.isnan(got[0, :, 0, 0]).all()
    assert np.isnan(got).sum() == 32


def test_output_may_be_part_of_a_wider_buffer():
    """As when a concatenation is written in place."""
    memory, window = Memory(), WINDOWS[0]
    x, w = problem(20, 40, 1, window)
    wide = np.full((2, 9, 17, 100), 7, np.float32)
    y = np.moveaxis(wide[..., 30:70], -1, 1)
    packed = pack(w.astype(np.float32), 1, memory)
    source = native(x.astype(np.float32))
    run(dense.conv("f32", image(source), packed, image(y), [1, 1], [1, 1], [1, 1], alloc=memory.alloc, threads=2))
    assert relative_error(y, convolution(x, w, *window[1:], 1)) < TOLERANCE["f32"]
    assert (wide[..., :30] == 7).all()
    assert (wide[..., 70:] == 7).all()


@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "window"),
    [
        (8, 40, 1, WINDOWS[0]),
        (1300, 70, 1, WINDOWS[2]),
        (8, 24, 2, WINDOWS[1]),
        (40, 40, 40, WINDOWS[0]),
        (30, 24, 1, WINDOWS[2]),
        (30, 116, 2, WINDOWS[2]),
    ],
)
def test_epilogue_sees_every_element_once(channels, outputs, groups, window):
    memory = Memory()
    x, w = problem(channels, outputs, groups, window)
    x, w = native(x.astype(np.float32)), w.astype(np.float32)
    y = empty(output_shape(x.shape, w.shape, *window[1:]), np.float32)
    pixels = y.shape[2] * y.shape[3]
    counts = np.zeros((y.shape[0], pixels, outputs), np.int32)
    args = block((y.ctypes.data, y.strides[0], y.strides[3], counts.ctypes.data, pixels, outputs))
    epilogue = (address_of(KernelSpec("double", EPILOGUE)), memory.keep(args))
    build = depthwise.depthwise if groups == channels else dense.conv
    packed = pack(w, groups, memory)
    run(build("f32", image(x), packed, image(y), window[1], window[2], window[3], epilogue=epilogue, alloc=memory.alloc, threads=2))
    assert (counts == 1).all()
    assert relative_error(y, 2 * convolution(x, w, *window[1:], groups)) < 5e-6


def transposed(
    x: np.ndarray, w: np.ndarray, strides: tuple, dilations: tuple, pads: tuple, extra: tuple, groups: int, dtype: str = "f32",
    y_last: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Result and the float64 reference: every product added to its place."""
    memory, kind = Memory(), FLOAT[dtype]
    weight = np.float64 if dtype == "f64" else np.float32
    x, w = x.astype(kind), w.astype(weight)
    full = [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], strides, dilations)]
    each, outputs = w.shape[0] // groups, w.shape[1]
    whole = np.zeros((x.shape[0], outputs * groups, *[n + e for n, e in zip(full, extra)]))
    for tap in np.ndindex(*w.shape[2:]):
        at = tuple(slice(k * d, k * d + (n - 1) * s + 1, s) for k, d, n, s in zip(tap, dilations, x.shape[2:], strides))
        for g in range(groups):
            part = np.einsum(
                "nc...,co->no...",
                x[:, g * each : (g + 1) * each].astype(np.float64),
                w[(slice(g * each, (g + 1) * each), slice(None), *tap)],
            )
            whole[(slice(None), slice(g * outputs, (g + 1) * outputs), *at)] += part
    crop = tuple(slice(p, n + e - p) for p, n, e in zip(pads, full, extra))
    expected = whole[(slice(None), slice(None), *crop)]
    vector = RNG.standard_normal(outputs * groups).astype(weight)
    other = native(RNG.standard_normal(expected.shape).astype(kind))
    y = empty(expected.shape, kind, y_last)
    source = native(x)
    data = convtranspose.pack_transposed(w, groups, strides, dilations)
    packed = TransposedWeights.of(w.shape, w.itemsize, groups, strides, dilations, memory.keep(data))
    launches = convtranspose.conv_transpose(
        dtype, image(source), packed, image(y), pads, bias=memory.keep(vector), residual=image(other), low=-1.0,
        alloc=memory.alloc, threads=2,
    )  # fmt: skip
    run(launches)
    return y, np.maximum(expected + vector.reshape(1, -1, *[1] * (x.ndim - 2)) + other, -1.0)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pad", "extra"),
    [
        (2, 2, 1, 0, 0),
        (3, 2, 1, 1, 1),
        (4, 2, 1, 1, 0),
        (3, 1, 1, 1, 0),
        (1, 3, 1, 0, 2),
        (5, 2, 3, 2, 0),
        (3, 2, 2, 0, 1),
        (2, 3, 1, 0, 0),
    ],
)
@pytest.mark.parametrize(("channels", "outputs", "groups"), [(5, 33, 1), (6, 4, 2), (4, 4, 4)])
def test_transposed_convolution_agrees_with_float64(kernel, stride, dilation, pad, extra, channels, outputs, groups):
    for rank in (1, 2):
        x = RNG.standard_normal((2, channels, *(5, 6)[:rank]))
        w = RNG.standard_normal((channels, outputs // groups, *[kernel] * rank))
        got, expected = transposed(x, w, *[(v,) * rank for v in (stride, dilation, pad, extra)], groups, y_last=rank == 2)
        assert relative_error(got, expected) < TOLERANCE["f32"]


def test_transposed_convolution_in_three_dimensions_and_other_types():
    x, w = RNG.standard_normal((1, 4, 3, 4, 5)), RNG.standard_normal((4, 3, 3, 2, 3))
    for dtype in ("f64", "f16"):
        got, expected = transposed(x, w, (2, 1, 2), (1, 1, 1), (1, 0, 1), (1, 0, 1), 2, dtype)
        assert relative_error(got, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("channels", [1, 3, 5, 16, 37])
@pytest.mark.parametrize("width", [1, 5, 33])
def test_padding_copy_between_all_layouts(channels, width):
    x = RNG.standard_normal((2, channels, 4, width)).astype(np.float32)
    for x_last in (False, True):
        for y_last in (False, True):
            for before, behind in ((0, 0), (1, 2), (-1, 1)):
                source = native(x) if x_last else x
                expected = np.pad(
                    x[:, :, max(0, -before) :], ((0, 0), (0, 0), (max(0, before), behind), (2, 0)), constant_values=-1.5
                )
                y = empty(expected.shape, np.float32, y_last)
                run(pad_copy("f32", image(source), "f32", image(y), (before, 2), -1.5, threads=2))
                np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("source", "target"), [("f32", "f16"), ("f16", "f32"), ("f64", "f32")])
def test_padding_copy_converts(source, target):
    x = RNG.standard_normal((1, 19, 3, 20)).astype(FLOAT[source])
    y = empty((1, 19, 5, 22), FLOAT[target])
    run(pad_copy(source, image(x), target, image(y), (1, 1), threads=2))
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).astype(FLOAT[target]))


def check_target() -> None:
    """A few of the problems above, for a process that compiles for another CPU."""
    for window in (WINDOWS[0], WINDOWS[6]):
        for channels, outputs, groups in ((3, 40, 1), (37, 70, 1), (8, 12, 4), (23, 23, 23)):
            got, expected = convolve(*problem(channels, outputs, groups, window), window, groups, low=0.0)
            assert relative_error(got, expected) < TOLERANCE["f32"]
    for outputs in (1, 6, 12, 20, 24, 31):
        got, expected = convolve(*problem(20, outputs, 1, WINDOWS[2]), WINDOWS[2], 1, low=0.0)
        assert relative_error(got, expected) < TOLERANCE["f32"]
    got, expected = convolve(*problem(6, 18, 1, WINDOWS[0]), WINDOWS[0], 1, x_last=False, y_last=False)
    assert relative_error(got, expected) < TOLERANCE["f32"]


@pytest.mark.parametrize(("name", "features"), [("haswell", "+avx2,+fma,+f16c,+avx,+sse4.2,+bmi2"), ("x86-64", "")])
def test_other_targets(name, features):
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_conv_kernels as t; t.check_target()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_many_registers() -> None:
    """`check_target` with the tiles for 32 vector registers, which the compiler spills where there are 16."""
    found = replace(target.current(), registers=32)
    target.current = lambda: found
    check_target()


def test_tiles_for_many_registers():
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_conv_kernels as t; t.check_many_registers()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_impossible_shapes_are_refused():
    memory = Memory()
    packed = convweights.PackedWeights.of((8, 4, 3, 3), 1)
    few, x, y = (image(np.zeros(shape, np.float32)) for shape in [(1, 3, 5, 5), (1, 4, 5, 5), (1, 8, 3, 3)])
    with pytest.raises(ValueError, match="input"):
        dense.conv("f32", few, packed, y, [1, 1], [1, 1], [0, 0], alloc=memory.alloc)
    with pytest.raises(ValueError, match="groups"):
        convweights.pack_weights(np.zeros((8, 4, 3, 3), np.float32), 3)
    with pytest.raises(ValueError, match="epilogue"):
        dense.conv("f32", x, packed, y, [1, 1], [1, 1], [0, 0], epilogue=(1, 1), alloc=memory.alloc)
