"""Convolution of images whose shape chooses another way: dimensions of size one, few channels, padded groups, short rows."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

import jitrt

# sizes of the input, of the filters, groups, attributes
CASES = {
    "picture of width one": ((2, 6, 37, 1), (9, 6, 5, 1), 1, "pads = [2, 0, 1, 0]"),
    "picture of height one": ((1, 6, 1, 37), (9, 6, 1, 5), 1, "strides = [1, 2]"),
    "width one, padded there": ((1, 6, 11, 1), (9, 6, 3, 3), 1, "pads = [0, 1, 0, 1]"),
    "width one, strided and dilated": ((1, 6, 41, 1), (9, 6, 4, 1), 1, "strides = [3, 1], dilations = [2, 1]"),
    "depthwise": ((2, 20, 37, 1), (20, 1, 5, 1), 20, "pads = [2, 0, 2, 0]"),
    "depthwise, planes of nothing but padding": ((1, 20, 3, 9, 13), (20, 1, 1, 3, 3), 20, "pads = [1, 1, 1, 2, 1, 1]"),
    "groups": ((1, 8, 23, 1), (6, 4, 3, 1), 2, "strides = [2, 1]"),
    "volume with length in the middle": ((1, 5, 1, 29, 1), (7, 5, 1, 3, 1), 1, "pads = [0, 1, 0, 0, 1, 0]"),
    "three channels": ((2, 3, 37, 50), (9, 3, 7, 7), 1, "pads = [3, 3, 3, 3], strides = [2, 2]"),
    "one channel, dilated": ((3, 1, 20, 21), (5, 1, 5, 3), 1, "pads = [2, 0, 2, 0], dilations = [2, 2]"),
    "four channels without padding": ((1, 4, 16, 15), (24, 4, 2, 2), 1, "strides = [2, 2]"),
    "two channels, uneven padding": ((1, 2, 45, 33), (17, 2, 11, 11), 1, "pads = [2, 5, 3, 0], strides = [4, 4]"),
    "three channels, filters of one column": ((1, 3, 9, 9), (8, 3, 3, 1), 1, "pads = [1, 0, 1, 0], strides = [2, 3]"),
    "one channel, filters of one column, all columns": ((2, 1, 23, 11), (5, 1, 3, 1), 1, "pads = [1, 0, 1, 0]"),
    "padded groups of single taps": ((2, 6, 9, 7), (10, 3, 1, 1), 2, "pads = [1, 2, 0, 1]"),
    "patches": ((2, 3, 66, 64), (20, 3, 32, 32), 1, "strides = [32, 32]"),
    "padded groups": ((2, 15, 11, 9), (20, 3, 3, 3), 5, "pads = [1, 1, 1, 1]"),
    "padded groups of many channels": ((1, 64, 15, 17), (96, 32, 3, 3), 2, "pads = [2, 0, 1, 1], strides = [2, 2]"),
    "padded groups, planes behind the only one": ((1, 16, 1, 21, 13), (18, 8, 1, 5, 5), 2, "pads = [0, 2, 2, 2, 2, 2]"),
    "padded groups, dilated": ((1, 48, 14, 13), (48, 16, 3, 3), 3, "pads = [2, 2, 2, 2], dilations = [2, 2]"),
    "short rows": ((2, 20, 15, 13), (33, 20, 3, 3), 1, "pads = [1, 1, 1, 1], strides = [2, 2]"),
    "short rows of strided pixels": ((1, 40, 13, 13), (50, 40, 1, 1), 1, "strides = [2, 2]"),
    "a single pixel": ((3, 5, 1, 1), (7, 5, 1, 1), 1, "strides = [1, 1]"),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_convolution_with_residual_and_activation_agrees(case, channels_last):
    shape, filters, groups, attributes = CASES[case]
    given = (0, *range(2, len(shape)), 1) if channels_last else tuple(range(len(shape)))  # order in memory
    rng = np.random.default_rng(0)
    model = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 20]>
        sequence (float[{",".join(str(shape[d]) for d in given)}] x, float r) => (float y, float z) {{
            t = Transpose <perm = {np.argsort(given).tolist()}> (x)
            c = Conv <group = {groups}, {attributes}> (t, w, b)
            y = Relu (c)
            s = Add (c, r)
            z = Tanh (s)
        }}""")
    weights = {
        "w": rng.standard_normal(filters, np.float32) / np.float32(np.prod(filters[1:]) ** 0.5),
        "b": rng.standard_normal(filters[0], np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    feeds = {"x": rng.standard_normal([shape[d] for d in given], np.float32)}
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    size = next(value for value in inferred if value.name == "c").type.tensor_type.shape
    feeds["r"] = rng.standard_normal([d.dim_value for d in size.dim], np.float32)
    model.graph.input[1].type.tensor_type.ClearField("shape")
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    for output, expected in zip(jitrt.InferenceSession(model).run(None, feeds), theirs, strict=True):
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_depthwise_of_no_image_with_activation_agrees():
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 20]>
        picture (float[0, 5, 3, 9] x, float[5, 1, 3, 3] w) => (float[0, 5, 3, 9] c, float[0, 5, 3, 9] y) {
            c = Conv <group = 5, pads = [1, 1, 1, 1]> (x, w)
            y = Tanh (c)
        }""")
    results = jitrt.InferenceSession(model).run(None, {"x": np.zeros((0, 5, 3, 9), "f4"), "w": np.ones((5, 1, 3, 3), "f4")})
    assert [y.shape for y in results] == [(0, 5, 3, 9)] * 2


@pytest.mark.parametrize("pads", ["[0, 0, 0, 0]", "[0, 0, 1, 1]", "[1, 0, 0, 1]", "[1, 1, 0, 0]"])
def test_transposed_windows_that_do_not_meet_are_cropped_where_the_pads_say(pads):
    extra = [1, 1] if "1" in pads else [0, 0]
    model = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 20]>
        picture (float[2, 6, 5, 9] x) => (float y) {{
            y = ConvTranspose <strides = [2, 2], pads = {pads}, output_padding = {extra}> (x, w, b)
        }}""")
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((6, 3, 2, 2), np.float32), "b": rng.standard_normal(3, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = {"x": rng.standard_normal((2, 6, 5, 9), np.float32)}
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    np.testing.assert_allclose(jitrt.InferenceSession(model).run(None, feeds)[0], theirs[0], rtol=1e-4, atol=1e-5)


def fenced(values: np.ndarray) -> np.ndarray:
    """A copy that ends where a page begins that nobody may read."""
    size = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = np.frombuffer(mmap.mmap(-1, size + mmap.PAGESIZE), np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(pages.ctypes.data + size), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = pages[size - values.nbytes : size].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def check_reads() -> None:
    """Convolutions of channels-last images in fenced memory, for a process that may crash."""
    rng = np.random.default_rng(0)
    for channels, outputs, groups in (
        (21, 21, 21),
        (3, 9, 1),
        (10, 14, 2),
        (11, 13, 1),
        (8, 24, 1),
        (8, 23, 1),
        (8, 40, 1),
        (5, 5, 1),
    ):
        model = parser.parse_model(f"""
            <ir_version: 9, opset_import: ["": 20]>
            picture (float[1, 9, 20, {channels}] x, float[{outputs}] b, float[1, 9, 20, {outputs}] r) => (float y) {{
                image = Transpose <perm = [0, 3, 1, 2]> (x)
                c = Conv <group = {groups}, pads = [1, 1, 1, 1]> (image, w, b)
                residual = Transpose <perm = [0, 3, 1, 2]> (r)
                y = Add (c, residual)
            }}""")
        model.graph.output[0].type.tensor_type.ClearField("shape")
        w = rng.standard_normal((outputs, channels // groups, 3, 3), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(w, "w"))
        shapes = {"x": (1, 9, 20, channels), "b": (outputs,), "r": (1, 9, 20, outputs)}
        feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
        session = jitrt.InferenceSession(model)
        (expected,) = session.run(None, feeds)
        (got,) = session.run(None, {name: fenced(values) for name, values in feeds.items()})
        np.testing.assert_array_equal(got, expected)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mprotect")
def test_nothing_is_read_behind_image_bias_and_residual():
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_conv_shapes as t; t.check_reads()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_transposed_convolution_whose_pads_take_more_than_there_is_says_so():
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> cropped (float[1, 2, n] x) => (float[1, 3, m] y)'
        "{ y = ConvTranspose <pads = [3, 3]> (x, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 3, 2), np.float32), "w"))
    session = jitrt.InferenceSession(model.SerializeToString())
    with pytest.raises(jitrt.NodeFailure, match=r"pads \[3, 3\]"):
        session.run(None, {"x": np.ones((1, 2, 4), np.float32)})
