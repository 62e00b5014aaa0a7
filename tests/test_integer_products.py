"""Products and convolutions of integers: exact, with int32's wrap-around, for every rest of a tile and every zero point."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from contrib_nodes import Array, node_model, run
from kernel_problems import Memory, convolution, empty, image, native, output_shape
from kernel_problems import run as run_launches
from onnx import numpy_helper, parser

import jitrt
from jitrt.ops.kernels import compiler, convweights, gemm, target
from jitrt.ops.kernels import conv as dense
from jitrt.ops.kernels.matrix import Matrix
from jitrt.ops.kernels.winograd import WinogradWeights, pack_winograd, winograd
from jitrt.ops.kernels.winogradforms import Form, forms

RNG = np.random.default_rng(3)
BYTES = (np.uint8, np.int8)


def codes(dtype: type, *shape: int) -> Array:
    """Any integers of a type."""
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def wrapped(total: Array) -> Array:
    """The last 32 bits of sums."""
    return total.astype(np.int64).astype(np.int32)


def product(a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Array:
    """MatMulInteger's definition."""
    left = a.astype(np.int64) - (0 if a_zero is None else a_zero[:, None] if a_zero.ndim else a_zero)
    right = b.astype(np.int64) - (0 if b_zero is None else b_zero)
    return wrapped(left @ right)


# -- the kernel
def pairs(x: Array, axis: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and strides of int16 whose neighbours along an axis are one element."""
    assert x.strides[axis] == 2 or x.shape[axis] <= 1
    shape = tuple(-(-n // 2) if d == axis else n for d, n in enumerate(x.shape))
    return shape, tuple(4 if d == axis else s for d, s in enumerate(x.strides))


def multiply(m: int, k: int, n: int, bias: bool = False, residual: bool = False) -> tuple[Array, Array]:
    """A product of int16 on the kernel, and its definition."""
    memory = Memory()
    a, b = np.zeros((1, m, -(-k // 2) * 2), np.int16), RNG.integers(-255, 256, (k, n)).astype(np.int16)
    a[..., :k] = RNG.integers(-255, 256, (1, m, k))
    c = np.full((1, m, n), 99, np.int32)
    product = [Matrix(a.ctypes.data, *pairs(a, 2)), memory.keep(gemm.pack(b)), Matrix(c.ctypes.data, c.shape, c.strides)]
    vector, other = RNG.integers(-9999, 9999, n).astype(np.int32), RNG.integers(-9999, 9999, c.shape).astype(np.int32)
    addend = Matrix(other.ctypes.data, c.shape, c.strides) if residual else None
    start = {"bias": memory.keep(vector) if bias else 0, "residual": addend}
    run_launches(gemm.matmul("i16x2", *product, **start, alloc=memory.alloc, threads=2))
    expected = a[..., :k].astype(np.int64) @ b + (vector if bias else 0) + (other if residual else 0)
    return c, wrapped(expected)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 17, 64, 1537])
def test_products_of_int16_are_exact_for_every_rest_of_a_tile(k: int) -> None:
    for m in (1, 2, 3, 4, 5, 6, 7, 13):
        for n in (1, 7, 8, 9, 16, 17, 33):
            got, expected = multiply(m, k, n, bias=n != 8, residual=m != 3)
            np.testing.assert_array_equal(got, expected)


WINDOWS = [
    ((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    ((3, 2), (1, 2), (2, 3), (2, 1), (2, 3)),
    ((1, 1), (2, 3), (1, 1), (0, 0), (0, 0)),
    ((4,), (3,), (2,), (0,), (5,)),
    ((2, 3, 1), (1, 2, 1), (1, 1, 1), (1, 0, 0), (0, 2, 0)),
]
SIZES = {1: (29,), 2: (9, 17), 3: (4, 5, 6)}


def convolve(channels: int, outputs: int, groups: int, window: tuple) -> tuple[Array, Array]:
    """A convolution of int16 on the kernel, and its definition."""
    kernel, strides, dilations, begin, end = window
    memory = Memory()
    x = native(RNG.integers(-255, 256, (2, channels, *SIZES[len(kernel)])).astype(np.int16))
    w = RNG.integers(-255, 256, (outputs, channels // groups, *kernel)).astype(np.int16)
    y = empty(output_shape(x.shape, w.shape, strides, dilations, begin, end), np.int32)
    counted = (outputs, channels // groups // 2, *kernel)
    packed = convweights.PackedWeights.of(counted, groups, memory.keep(convweights.pack_weights(w, groups)))
    source = replace(image(x), shape=pairs(x, 1)[0], strides=pairs(x, 1)[1])
    run_launches(dense.conv("i16x2", source, packed, image(y), strides, dilations, [*begin, *end], alloc=memory.alloc, threads=2))
    return y, wrapped(np.rint(convolution(x, w, strides, dilations, begin, end, groups)))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(("channels", "outputs", "groups"), [(2, 1, 1), (38, 70, 1), (8, 12, 4), (96, 64, 2)])
def test_convolutions_of_int16_are_exact(channels: int, outputs: int, groups: int, window: tuple) -> None:
    np.testing.assert_array_equal(*convolve(channels, outputs, groups, window))


def by_winograd(channels: int, groups: int, form: Form) -> tuple[Array, Array]:
    """A convolution of int16 by a whole form, and its definition."""
    memory = Memory()
    x = native(RNG.integers(-255, 256, (2, channels, 9, 7)).astype(np.int16))
    w = RNG.integers(-255, 256, (channels, channels // groups, *form.taps)).astype(np.int16)
    y = empty(output_shape(x.shape, w.shape, (1, 1), (1, 1), (1, 1), (1, 2)), np.int32)
    weights = WinogradWeights(w.shape[:2], form, groups, memory.keep(pack_winograd(w, form, groups)))
    source = replace(image(x), shape=pairs(x, 1)[0], strides=pairs(x, 1)[1])
    run_launches(winograd(source, weights, image(y), (1, 1), alloc=memory.alloc, threads=2))
    return y, np.rint(convolution(x, w, (1, 1), (1, 1), (1, 1), (1, 2), groups)).astype(np.int64)


def check_target() -> None:
    """A few of the problems above, for a process that compiles for another CPU."""
    for form in (*forms((3, 3), whole=True), *forms((1, 3), whole=True)):
        np.testing.assert_array_equal(*by_winograd(64, 1, form))
        np.testing.assert_array_equal(*by_winograd(96, 3, form))
    for m, k, n in ((1, 3, 1), (7, 17, 9), (13, 301, 33), (29, 64, 70)):
        np.testing.assert_array_equal(*multiply(m, k, n, bias=True, residual=True))
    for window in WINDOWS[:2]:
        np.testing.assert_array_equal(*convolve(38, 70, 1, window))
        np.testing.assert_array_equal(*convolve(8, 12, 4, window))


def check_wide_vectors() -> None:
    """`check_target` with the tiles for AVX-512, which the compiler cuts to the size of the CPU's registers."""
    found = replace(target.current(), registers=32, lanes=16)
    target.current = lambda: found
    check_target()


def in_new_process(call: str, **environment: str) -> None:
    """Run a function of this file in a process of its own."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_integer_products as t; t.{call}()"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "features"), [("haswell", "+avx2,+fma,+f16c,+avx,+sse4.2,+bmi2"), ("x86-64", "")])
def test_other_targets(name: str, features: str) -> None:
    in_new_process("check_target", NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)


def check_plain_multiplications() -> None:
    """Products as CPUs without an instruction for pairs compute them."""
    target.Target.pair_sums = 0  # type: ignore[assignment, method-assign]
    np.testing.assert_array_equal(*multiply(13, 301, 33, bias=True, residual=True))


@pytest.mark.parametrize("call", ["check_wide_vectors", "check_plain_multiplications"])
def test_other_instructions(call: str) -> None:
    in_new_process(call)


def check_one_instruction() -> None:
    """With VNNI a step of a tile is one instruction; no CPU runs it here."""
    import llvmlite.binding as llvm

    kernel = compiler.compile_kernel(dense.kernel_of("i16x2").function())
    text = target.machine().emit_assembly(llvm.parse_assembly(kernel.ir))
    assert "vpdpwssd" in text
    assert "vpmaddwd" not in text


def test_products_are_added_by_one_instruction_where_there_is_one() -> None:
    features = "+avx512f,+avx512vl,+avx512bw,+avx512dq,+avx512vnni,+avx2,+fma,+f16c,+avx,+bmi2"
    in_new_process("check_one_instruction", NUMBA_CPU_NAME="icelake-server", NUMBA_CPU_FEATURES=features)


# -- the operators
@pytest.mark.parametrize("constant", [(), (1, 3)], ids=["B at run time", "B constant"])
@pytest.mark.parametrize("left", BYTES)
@pytest.mark.parametrize("right", BYTES)
def test_matrix_products_of_bytes_are_exact(left: type, right: type, constant: tuple[int, ...]) -> None:
    for m, k, n in ((0, 5, 3), (3, 0, 4), (4, 3, 0), (1, 1, 1), (6, 2, 16), (7, 33, 17), (5, 70, 40)):
        a, b = codes(left, m, k), codes(right, k, n)
        for a_zero, b_zero in ((None, None), (codes(left), codes(right)), (codes(left, m), codes(right, n))):
            given = tuple(i for i in constant if b_zero is not None or i < 2)
            (y,) = run("MatMulInteger", [a, b, a_zero, b_zero], [np.int32], given, domain="")
            np.testing.assert_array_equal(y, product(a, b, a_zero, b_zero))


def test_large_constants_keep_their_zero_points() -> None:
    a, b = codes(np.uint8, 9, 300), codes(np.uint8, 300, 301)
    for b_zero in (np.array(0, np.uint8), codes(np.uint8), codes(np.uint8, 301)):
        (y,) = run("MatMulInteger", [a, b, np.array(7, np.uint8), b_zero], [np.int32], (1, 3), domain="")
        np.testing.assert_array_equal(y, product(a, b, np.array(7, np.uint8), b_zero))


@pytest.mark.parametrize("constant", [(), (1,)])
def test_sums_beyond_int32_wrap(constant: tuple[int, ...]) -> None:
    a, b = np.full((2, 33_101), 255, np.uint8), np.full((33_101, 3), 255, np.uint8)
    (y,) = run("MatMulInteger", [a, b], [np.int32], constant, domain="")
    assert y.tolist() == [[33_101 * 255**2 - (1 << 32)] * 3] * 2


BATCHES = [
    ((3, 5, 7), (7, 6)), ((3, 5, 7), (3, 7, 6)), ((2, 1, 5, 8), (3, 8, 6)), ((5, 7), (3, 7, 6)), ((7,), (7, 6)), ((5, 7), (7,)),
    ((7,), (7,)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), BATCHES)
@pytest.mark.parametrize("constant", [(), (1,)])
def test_batches_and_vectors_of_bytes(left: tuple[int, ...], right: tuple[int, ...], constant: tuple[int, ...]) -> None:
    a, b, zero = codes(np.uint8, *left), codes(np.int8, *right), np.array(100, np.uint8)
    (y,) = run("MatMulInteger", [a, b, zero, np.array(-3, np.int8)], [np.int32], constant, domain="")
    np.testing.assert_array_equal(y, wrapped(np.matmul(a.astype(np.int64) - 100, b.astype(np.int64) + 3)))


@pytest.mark.parametrize(("window", "constant"), [*((w, (1, 3)) for w in WINDOWS), *((w, ()) for w in WINDOWS[:2])], ids=str)
@pytest.mark.parametrize(
    ("channels", "outputs", "groups"), [(3, 5, 1), (8, 17, 1), (13, 9, 1), (18, 4, 2), (12, 24, 12), (300, 3, 1), (30, 24, 1)]
)
def test_convolutions_of_bytes_are_exact(
    channels: int, outputs: int, groups: int, window: tuple, constant: tuple[int, ...]
) -> None:  # fmt: skip
    kernel, strides, dilations, begin, end = window
    x, w = codes(np.uint8, 2, channels, *SIZES[len(kernel)]), codes(np.int8, outputs, channels // groups, *kernel)
    zero, zeros = codes(np.uint8), codes(np.int8, outputs) if groups == 1 else codes(np.int8)
    how = {"strides": strides, "dilations": dilations, "pads": [*begin, *end], "group": groups}
    (y,) = run("ConvInteger", [x, w, zero, zeros], [np.int32], constant, domain="", **how)
    left = x.astype(np.int64) - int(zero)
    right = w.astype(np.int64) - zeros.reshape(-1, *[1] * (w.ndim - 1))
    np.testing.assert_array_equal(y, wrapped(np.rint(convolution(left, right, strides, dilations, begin, end, groups))))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
def test_matrix_products_of_wide_integers_wrap(dtype: type) -> None:
    for left, right in (((5, 7), (7, 9)), ((1, 130), (130, 1)), ((2, 3, 4), (2, 4, 20)), ((3, 0), (0, 2)), ((6, 33), (33, 16))):
        a, b = codes(dtype, *left), codes(dtype, *right)
        for constant in ((), (1,)):
            model = node_model("MatMul", [a, b], [dtype], constant, domain="")
            session, feeds = jitrt.InferenceSession(model.SerializeToString()), {"x0": a} | ({} if constant else {"x1": b})
            (y,) = session.run(None, feeds)
            np.testing.assert_array_equal(y, np.matmul(a, b))
            assert not session.get_plan(feeds).host_nodes
    a, b, c = codes(dtype, 4, 6), codes(dtype, 5, 6), codes(dtype, 5)
    (y,) = run("Gemm", [a, b, c], [dtype], domain="", transB=1)
    np.testing.assert_array_equal(y, a @ b.T + c)


# -- dequantised tensors
DEQUANTISED = """
    <ir_version: 10, opset_import: ["": 21]>
    g (uint8[M, 70] x, uint8[2, 24, 9, 10] image, float[40] c) => (float[M, 40] y, float[M, 40] z, float[2, 33, 9, 10] p)
    {
        a = DequantizeLinear (x, x_scale, x_zero)
        b = DequantizeLinear <axis = 1> (w, w_scale, w_zero)
        y = MatMul (a, b)
        d = DequantizeLinear <axis = 0> (v, w_scale, w_zero)
        z = Gemm <alpha = 0.5, transB = 1> (a, d, c)
        i = DequantizeLinear (image, x_scale)
        f = DequantizeLinear <axis = 0> (filters, f_scale)
        p = Conv <pads = [1, 1, 1, 1]> (i, f)
    }"""


@pytest.mark.parametrize("rows", [1, 37])
def test_products_of_dequantised_tensors_are_those_of_their_integers(rows: int) -> None:
    model = parser.parse_model(DEQUANTISED)
    w_scale, f_scale = RNG.uniform(0.01, 0.02, 40).astype(np.float32), RNG.uniform(0.01, 0.02, 33).astype(np.float32)
    weights = {
        "w": codes(np.int8, 70, 40), "v": codes(np.int8, 40, 70), "w_scale": w_scale, "w_zero": codes(np.int8, 40),
        "filters": codes(np.int8, 33, 24, 3, 3), "f_scale": f_scale, "x_scale": np.float32(0.03), "x_zero": np.uint8(130),
    }  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    session = jitrt.InferenceSession(model.SerializeToString())
    feeds = {"x": codes(np.uint8, rows, 70), "image": codes(np.uint8, 2, 24, 9, 10), "c": RNG.random(40, np.float32)}
    y, z, p = session.run(None, feeds)
    left, scale = feeds["x"].astype(np.float64) - 130, np.float64(np.float32(0.03)) * w_scale
    np.testing.assert_allclose(y, left @ (weights["w"].astype(np.float64) - weights["w_zero"]) * scale, rtol=1e-6)
    turned = left @ (weights["v"].T.astype(np.float64) - weights["w_zero"]) * scale
    np.testing.assert_allclose(z, 0.5 * turned + feeds["c"], rtol=1e-6, atol=1e-5)
    total = convolution(feeds["image"], weights["filters"], *[(1, 1)] * 4, 1)
    np.testing.assert_allclose(p, total * (np.float64(np.float32(0.03)) * f_scale)[:, None, None], rtol=1e-6)
    products = [dict(step.kernel.parameters)["dtype"] for step in session.get_plan(feeds).steps if step.kernel.name == "conv"]
    assert products == ["i16x2"] * 3


# -- quantised tensors
@pytest.mark.parametrize("zero", [130, 7])
def test_what_was_quantised_may_be_read_with_any_zero_point(zero: int) -> None:
    text = """
        <ir_version: 10, opset_import: ["": 21]>
        g (float[5, 9] x, float[1, 2, 4, 5] image) => (uint8[5, 9] q, int32[5, 3] y, float[5, 9] d, int32[1, 2, 4, 5] p)
        {
            q = QuantizeLinear (x, s, z)
            y = MatMulInteger (q, w, zero)
            d = DequantizeLinear (q, s, zero)
            i = QuantizeLinear (image, s, z)
            p = ConvInteger <group = 2> (i, f, zero)
        }"""
    model, w, f = parser.parse_model(text), codes(np.int8, 9, 3), codes(np.int8, 2, 1, 1, 1)
    weights = {"w": w, "f": f, "s": np.float32(0.1), "z": np.uint8(130), "zero": np.uint8(zero)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    x = 10 * RNG.standard_normal((5, 9), np.float32)
    x[0, :4] = np.inf, -np.inf, 1e30, 0.05
    image = 10 * RNG.standard_normal((1, 2, 4, 5), np.float32)
    q, y, d, p = jitrt.InferenceSession(model.SerializeToString()).run(None, {"x": x, "image": image})
    expected = np.clip(np.rint(x / np.float32(0.1)) + 130, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(q, expected)
    np.testing.assert_array_equal(y, product(expected, w, np.array(zero)))
    np.testing.assert_array_equal(d, (expected.astype(np.float32) - zero) * np.float32(0.1))
    pixels = np.clip(np.rint(image / np.float32(0.1)) + 130, 0, 255).astype(np.int32)
    np.testing.assert_array_equal(p, (pixels - zero) * f.reshape(1, 2, 1, 1).astype(np.int32))


def test_a_quantised_convolution_by_winograds_algorithm_is_exact() -> None:
    x, w, bias = (
        codes(np.uint8, 1, 64, 28, 28),
        codes(np.int8, 64, 64, 3, 3),
        RNG.integers(-(1 << 17), 1 << 17, 64).astype(np.int32),
    )
    one = [np.float32(0.02), np.uint8(120)]
    inputs = [x, *one, w, RNG.uniform(0.01, 0.02, 64).astype(np.float32), np.zeros(64, np.int8), np.float32(3), np.uint8(128), bias]
    given = [np.asarray(value) for value in inputs]
    model = node_model("QLinearConv", given, [np.uint8], (1, 2, 3, 4, 5, 6, 7, 8), domain="", attributes={"pads": [1, 1, 1, 1]})
    session = jitrt.InferenceSession(model.SerializeToString())
    (y,) = session.run(None, {"x0": x})
    total = convolution(x.astype(np.int64) - 120, w, *[(1, 1)] * 4, 1) + bias[:, None, None]
    factor = np.float32(0.02) * inputs[4] / np.float32(3)
    exact = np.clip(np.rint(total.astype(np.float32) * factor[:, None, None]) + 128, 0, 255)
    assert "winograd" in str(session.get_plan({"x0": x}))
    np.testing.assert_array_equal(y, exact)


@pytest.mark.parametrize(
    ("factor", "signs", "zero", "taken"),
    [(127, (1, 1), 0, "direct"), (40, (1, 1), 0, "winograd 2x2"), (10, (1, -1), 0, "winograd 4x4"),
     (10, (-1, -1), 0, "winograd 2x2"), (10, (1, 1), 128, "winograd 4x4"), (10, (1, 1), 250, "winograd 2x2"),
     (10, (1, 1), None, "winograd 2x2")],
)  # fmt: skip
def test_winograds_algorithm_is_taken_if_it_has_the_bits_of_every_sum(
    factor: int, signs: tuple[int, int], zero: int | None, taken: str
) -> None:  # fmt: skip
    """The largest sums follow from the filters, and from the zero point if it is constant; all are exact."""
    filters = np.full((32, 2048, 3, 3), factor, np.int8)
    filters[:, 0::2] *= signs[0]
    filters[:, 1::2] *= signs[1]
    x, point = np.zeros((1, 2048, 14, 14), np.uint8), np.array(7 if zero is None else zero, np.uint8)
    x[:, 0::2] = 255 if signs[0] > 0 else 0
    x[:, 1::2] = 255 if signs[1] > 0 else 0
    constant = (1,) if zero is None else (1, 2)
    model = node_model("ConvInteger", [x, filters, point], [np.int32], constant, domain="", attributes={"pads": [1, 1, 1, 1]})
    session = jitrt.InferenceSession(model.SerializeToString())
    for pixels in (x, 255 - x, codes(np.uint8, *x.shape)):
        feeds = {"x0": pixels} | ({"x2": point} if zero is None else {})
        (y,) = session.run(None, feeds)
        assert f"{taken} 2048->32" in str(session.get_plan(feeds))
        expected = convolution(pixels.astype(np.int64) - int(point), filters[:1], *[(1, 1)] * 4, 1)
        np.testing.assert_array_equal(y, np.broadcast_to(np.rint(expected), y.shape))
