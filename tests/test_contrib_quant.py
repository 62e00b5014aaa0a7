"""com.microsoft's operators on quantised tensors within one step of onnxruntime, those with weights of few bits as float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from contrib_nodes import Array, Numbers, assert_close, assert_same_node, bits, f32, i32, node_model, rng, run, run_both
from reference import skip_where_old

import jitrt

BYTES = [np.uint8, np.int8]
FLOAT = np.float32
own = Numbers()


def scalar(value: float) -> Array:
    """A scale."""
    return np.array(value, FLOAT)


def assert_within_a_step(name: str, inputs: list, dtype: type, constant: tuple[int, ...] = (), **attributes: object) -> None:
    """Both runtimes' integers differ by 1 at most, and seldom."""
    (got,), (expected,) = run_both(name, inputs, [dtype], constant, **attributes)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    off = abs(got.astype(int) - expected.astype(int))
    assert off.max(initial=0) <= 1
    assert off.mean() < 0.05


# -- element by element, rows, images
@pytest.mark.parametrize("dtype", BYTES)
def test_elementwise_operators_are_within_a_step(dtype: type) -> None:
    def zero(value: int) -> Array:
        return np.array(value, dtype)

    # scales without common factors: halves, which both round as their last digit falls, are rare
    x, y = bits(dtype, 2, 3, 17), bits(dtype, 17)
    assert_within_a_step("QLinearAdd", [x, scalar(0.1037), zero(3), y, scalar(0.0531), zero(7), scalar(0.2113), zero(4)], dtype)
    assert_within_a_step("QLinearMul", [x, scalar(0.1037), zero(3), y, scalar(0.0531), zero(7), scalar(0.9), zero(4)], dtype)
    assert_within_a_step("QLinearAdd", [x, scalar(0.1037), zero(0), x[:, :1], scalar(0.3), zero(7), scalar(0.2113), zero(4)], dtype)
    assert_within_a_step("QLinearSigmoid", [x, scalar(0.1037), zero(3), scalar(1 / 256), zero(0)], dtype)
    assert_within_a_step("QLinearLeakyRelu", [x, scalar(0.1037), zero(3), scalar(0.12), zero(9)], dtype, alpha=0.3)
    chosen, other = rng.integers(0, 2, (2, 3, 17)).astype(bool), bits(dtype, 2, 3, 17)
    both = [chosen, x, scalar(0.1037), zero(3), other, scalar(0.12), zero(9), scalar(0.15), zero(2)]
    assert_within_a_step("QLinearWhere", both, dtype)
    triples = [x, scalar(0.1037), zero(3), x[:, :2], scalar(0.12), zero(9)]
    assert_within_a_step("QLinearConcat", [scalar(0.2113), zero(1), *triples], dtype, axis=1)


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize(("axis", "opset"), [(-1, 13), (1, 12), (1, 13)])
def test_a_softmax_is_within_a_step(axis: int, opset: int, dtype: type) -> None:
    low = np.array(np.iinfo(dtype).min, dtype)
    inputs = [bits(dtype, 2, 5, 7), scalar(0.05), np.array(3, dtype), scalar(1 / 256), low]
    assert_within_a_step("QLinearSoftmax", inputs, dtype, axis=axis, opset=opset)


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("channels_last", [0, 1])
def test_pools_are_within_a_step(channels_last: int, dtype: type) -> None:
    inputs = [bits(dtype, 2, 6, 7, 8), scalar(0.1), np.array(3, dtype), scalar(0.09), np.array(9, dtype)]
    window = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    assert_within_a_step("QLinearAveragePool", inputs, dtype, channels_last=channels_last, **window)
    assert_within_a_step("QLinearAveragePool", inputs, dtype, channels_last=channels_last, count_include_pad=1, **window)
    assert_within_a_step("QLinearGlobalAveragePool", inputs, dtype, channels_last=channels_last)
    if channels_last:
        assert_within_a_step("NhwcMaxPool", inputs[:1], dtype, **window)
        assert_within_a_step("NhwcMaxPool", inputs[:1], dtype, kernel_shape=[2, 2], dilations=[2, 1], ceil_mode=1)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_is_its_definition(keepdims: int) -> None:
    x = bits(np.uint8, 2, 6, 7)
    inputs = [x, scalar(0.1), np.array(3, np.uint8), scalar(0.05), np.array(9, np.uint8)]
    mean = (0.1 * (x.astype(np.float64) - 3)).mean((0, 2), keepdims=bool(keepdims)) / 0.05 + 9
    (got,) = run("QLinearReduceMean", inputs, [np.uint8], axes=[-1, 0], keepdims=keepdims)
    assert got.shape == mean.shape
    assert abs(got - np.clip(mean, 0, 255)).max() <= 0.5001


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_conversions_are_onnxruntimes(dtype: type) -> None:
    x, scales, zeros = f32(3, 4, 5), abs(f32(4)) + FLOAT(0.01), bits(dtype, 4)
    assert_within_a_step("QuantizeLinear", [x, scalar(0.02), np.array(3, dtype)], dtype)
    assert_within_a_step("QuantizeLinear", [x, scales, zeros], dtype, axis=1)
    assert_same_node("DequantizeLinear", [bits(dtype, 3, 4, 5), scales, zeros], axis=1, rtol=1e-6)


# -- products
PAIRS = [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]  # that onnxruntime has kernels for


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_integer_products_with_float_results_are_onnxruntimes(left: type, right: type) -> None:
    a, b, bias = bits(left, 2, 4, 9), bits(right, 9, 7), f32(7)
    zeros = [np.array(3, left), np.array(5, right)]
    assert_same_node("MatMulIntegerToFloat", [a, b, scalar(0.1), scalar(0.02), *zeros, bias])
    columns = [abs(f32(7)), zeros[0], bits(right, 7)]
    assert_same_node("MatMulIntegerToFloat", [a[0], b, scalar(0.1), *columns], atol=1e-3)
    x = f32(2, 4, 9)
    assert_same_node("DynamicQuantizeMatMul", [x, b, scalar(0.1), zeros[1], bias], atol=1e-3)
    assert_same_node("DynamicQuantizeMatMul", [x, b, columns[0], columns[2]], atol=1e-3)
    assert_same_node("DynamicQuantizeMatMul", [x[0], b, scalar(0.1)], atol=1e-3)


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_quantised_products_and_convolutions_are_within_a_step(left: type, right: type) -> None:
    bias = rng.integers(-999, 999, 7).astype(np.int32)
    a_side, b_side = [scalar(0.1), np.array(3, left)], [scalar(0.02), np.array(5, right)]
    inputs = [bits(left, 4, 9), *a_side, bits(right, 9, 7), *b_side, bias, scalar(0.9), np.array(4, left)]
    assert_within_a_step("QGemm", inputs, left, alpha=0.7)
    inputs = [bits(left, 9, 4), *a_side, bits(right, 7, 9), abs(f32(7)), bits(right, 7), bias]
    assert_same_node("QGemm", inputs, alpha=0.7, transA=1, transB=1, rtol=1e-5, atol=1e-3)
    inputs = [bits(left, 1, 6, 7, 3), *a_side, bits(right, 7, 3, 3, 3), *b_side, scalar(0.3), np.array(9, left), bias]
    assert_within_a_step("QLinearConv", inputs, left, constant=(3, 4, 5), channels_last=1, pads=[1, 1, 1, 1])


@pytest.mark.parametrize("weights", BYTES)
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_quantised_attention_is_onnxruntimes(unidirectional: int, weights: type) -> None:
    x, w, bias, zero = bits(np.uint8, 2, 5, 12), bits(weights, 12, 36), f32(36), np.array(3, np.uint8)
    one, many = [scalar(0.02), np.array(5, weights)], [0.02 * abs(f32(36)), bits(weights, 36)]
    how = {"num_heads": 3, "unidirectional": unidirectional}
    masks = [(None, None), (i32(3, 5), None), (rng.integers(0, 2, (2, 5)).astype(np.int32), None), (i32(4, 5, 1, 0), None)]
    masks += [(None, f32(2, 2, 3, 3, 4)), (i32(6, 8), f32(2, 2, 3, 3, 4))]
    for (mask, past), (scale, w_zero) in zip(masks, [one, many] * 3):
        inputs = [x, w, bias, scalar(0.02), scale, mask, zero, w_zero, past]
        assert_same_node("QAttention", inputs, [FLOAT, FLOAT], rtol=1e-4, atol=1e-4, **how)


@pytest.mark.parametrize("weights", BYTES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_an_lstm_with_bytes_as_weights_is_within_a_step_of_its_state(direction: str, weights: type) -> None:
    d, hidden, width = (2 if direction == "bidirectional" else 1), 6, 5
    w, r = bits(weights, d, width, 4 * hidden), bits(weights, d, hidden, 4 * hidden)
    scale = np.full((d, 4 * hidden) if d == 2 else (d,), 0.005, FLOAT)
    zero = np.full(scale.shape, 3 if weights is np.uint8 else 0, weights)
    inputs = [f32(7, 2, width), w, r, 0.1 * f32(d, 8 * hidden), None, None, None, None, scale, zero, scale, zero]
    # onnxruntime rounds the state, of -1 .. 1, to 8 bits at every step; jitrt does not
    assert_same_node(
        "DynamicQuantizeLSTM", inputs, [FLOAT] * 3, (1, 2, 8, 9, 10, 11), atol=2 / 255, hidden_size=hidden, direction=direction
    )  # fmt: skip


# -- weights of few bits
def weights_of(n: int, k: int, block: int, width: int, zeros: str) -> list[Array | None]:
    """B, scales and zero points of MatMulNBits."""
    blocks = -(-k // block)
    packed = bits(np.uint8, n, blocks, block * width // 8)
    points = {
        "none": None,
        "packed": bits(np.uint8, n, -(-blocks * width // 8)),
        "float": rng.integers(0, 1 << width, (n, blocks)).astype(FLOAT),
    }
    return [packed, abs(f32(n, blocks)) / 10, points[zeros]]


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize(("k", "block", "zeros"), [(64, 16, "none"), (70, 32, "packed"), (96, 32, "float")])
def test_products_with_weights_of_few_bits_are_onnxruntimes(k: int, block: int, zeros: str, width: int) -> None:
    if width == 2:
        skip_where_old("multiplies by weights of 4 and 8 bits only")
    parts = weights_of(9, k, block, width, zeros)
    how = {"K": k, "N": 9, "block_size": block, "bits": width}
    given = tuple(i + 1 for i, x in enumerate(parts) if x is not None)
    if zeros == "float" and width == 8:  # not in onnxruntime
        x = f32(2, 3, k)
        values = (parts[0].reshape(9, -1).astype(FLOAT) - np.repeat(parts[2], block, 1)) * np.repeat(parts[1], block, 1)
        assert_close(run("MatMulNBits", [x, *parts], constant=given, **how), [x @ values[:, :k].T], atol=1e-2)
        return
    for constant, rows in ((given, 1), (given, 3), ((), 5), (given, 11)):  # up to a tile, and from `nbits.MANY_ROWS` on
        x = f32(2, rows, k)
        got, expected = run_both("MatMulNBits", [x, *parts, None, f32(9)], constant=constant, **how)
        assert_close(got, expected, rtol=1e-5, atol=2e-5 * abs(expected[0]).max())


def test_weights_of_few_bits_serve_half_precision_any_accuracy_level_and_groups() -> None:
    x, (packed, scales, zeros) = f32(3, 64), weights_of(16, 64, 32, 4, "packed")
    how = {"K": 64, "N": 16, "block_size": 32, "bits": 4}
    half = [x.astype(np.float16), packed, scales.astype(np.float16), zeros]
    assert_same_node("MatMulNBits", half, [np.float16], (1, 2, 3), **how)
    whole = [x, packed, scales, zeros]
    assert_close(run("MatMulNBits", whole, **how), run("MatMulNBits", whole, accuracy_level=4, **how))
    groups = i32(*[1] * 32, *[0] * 32)
    assert_same_node("MatMulNBits", [*whole[:3], None, groups], constant=(1, 2, 4), atol=1e-3, **how)


def test_an_optional_weight_that_is_not_there_gives_the_bias() -> None:
    inputs = [f32(3, 64), np.zeros((0, 4, 8), np.uint8), np.zeros((0, 4), FLOAT), None, None, f32(16)]
    (y,) = run("MatMulNBits", inputs, K=64, N=16, block_size=16)
    np.testing.assert_array_equal(y, np.broadcast_to(inputs[5], (3, 16)))


@pytest.mark.parametrize("rows", [4, 19])
@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_products_of_few_and_of_many_rows_are_right_to_the_last_column(width: int, zeros: str, rows: int) -> None:
    n, k, block = 37, 300, 128
    packed, scales, points = weights_of(n, k, block, width, zeros)
    shifts = np.arange(0, 8, width)

    def apart(x: Array) -> Array:
        return ((x[..., None] >> shifts) & ((1 << width) - 1)).reshape(n, -1).astype(np.float64)

    middle = np.full(scales.shape, 1 << (width - 1))
    offsets = {"none": lambda: middle, "packed": lambda: apart(points)[:, : scales.shape[1]], "float": lambda: points}[zeros]()
    values = (apart(packed) - np.repeat(offsets, block, 1)) * np.repeat(scales, block, 1).astype(np.float64)
    x = f32(rows, k)
    inputs = [x, packed, scales, points]
    constant = tuple(i for i in (1, 2, 3) if inputs[i] is not None)
    (y,) = run("MatMulNBits", inputs, constant=constant, K=k, N=n, block_size=block, bits=width)
    bound = 3e-6 * abs(x).astype(np.float64) @ abs(values[:, :k].T)
    assert (abs(y - x.astype(np.float64) @ values[:, :k].T) <= bound).all()


def test_plans_share_weights_of_few_bits_as_they_are() -> None:
    parts = weights_of(512, 1024, 32, 4, "packed")
    how = {"K": 1024, "N": 512, "block_size": 32, "bits": 4}
    model = node_model("MatMulNBits", [f32(2, 1024), *parts], [FLOAT], (1, 2, 3), attributes=how)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    session = jitrt.InferenceSession(model.SerializeToString())
    for rows in (1, 30):
        session.run(None, {"x0": f32(rows, 1024)})
    plans = [session.get_plan({"x0": f32(rows, 1024)}) for rows in (1, 30)]
    held = [{c.__array_interface__["data"][0]: c.nbytes for c in plan.constants if c.nbytes > 1 << 15} for plan in plans]
    assert held[0] == held[1]
    assert sum(held[0].values()) == parts[0].nbytes + parts[1].nbytes


# -- tables of few bits
INDICES = np.array([[1, 4, 0], [2, 2, -1]])


def narrow(name: str, *shape: int) -> Array:
    """Integers of 4 bits."""
    low = -8 if name == "int4" else 0
    return own.rng.integers(low, low + 16, shape).astype(getattr(ml_dtypes, name))


TABLES = {
    "int4": ([narrow("int4", 6, 40), INDICES, own.f32(6, 3)], {}),
    "uint4 with zero points": ([narrow("uint4", 6, 40), INDICES.astype(np.int32), own.f32(6, 3), narrow("uint4", 6, 3)], {}),
    "the second axis": (
        [narrow("int4", 40, 6), INDICES, own.f32(3, 6), narrow("int4", 3, 6)], {"quantize_axis": 0, "gather_axis": 1}
    ),
    "the same axis": ([narrow("int4", 40, 6), INDICES, own.f32(3, 6), narrow("int4", 3, 6)], {"quantize_axis": 0}),
    "three dimensions": ([narrow("int4", 6, 3, 40), INDICES, own.f32(6, 3, 3)], {"quantize_axis": 2}),
    "bytes of two": ([own.bits(np.uint8, 6, 32), INDICES, own.f32(6, 4)], {}),
    "bytes of two with zero points": ([own.bits(np.uint8, 6, 24), INDICES, own.f32(6, 3), own.bits(np.uint8, 6, 2)], {}),
    "bytes": ([own.bits(np.uint8, 6, 32), INDICES, own.f32(6, 2), own.bits(np.uint8, 6, 2)], {"bits": 8}),
    "bytes of four": ([own.bits(np.uint8, 6, 8), INDICES, own.f32(6, 2), own.bits(np.uint8, 6, 1)], {"bits": 2}),
    "outside": ([own.bits(np.uint8, 6, 32), np.array([1, 6, -7]), own.f32(6, 4)], {}),
    "a scalar": ([own.bits(np.uint8, 6, 32), np.array(3), own.f32(6, 4)], {}),
    "float8": ([own.f32(6, 32).astype(ml_dtypes.float8_e4m3fn), INDICES, own.f32(6, 2)], {}),
    "float8 with one scale": ([own.f32(6, 32).astype(ml_dtypes.float8_e4m3fn), INDICES, own.f32(1, 1)], {"block_size": 0}),
    "float4": ([own.f32(6, 32).astype(ml_dtypes.float4_e2m1fn), INDICES, own.f32(6, 1)], {"block_size": 0}),
    "many rows": ([own.bits(np.uint8, 6000, 32), INDICES, own.f32(6000, 4), own.bits(np.uint8, 6000, 2)], {}),
}  # fmt: skip
NEW_TABLES = {  # and what an old onnxruntime does with them
    "bytes of two with zero points": "packs zero points across rows (microsoft/onnxruntime#26506)",
    "bytes of four": "gathers from no tables of 2 bits (microsoft/onnxruntime#28530)",
    "outside": "refuses indices outside",
    "float8": "gathers from no tables of float8",
    "float8 with one scale": "gathers from no tables of float8",
    "float4": "gathers from no tables of float4",
}


@pytest.mark.parametrize("case", TABLES)
def test_gathering_from_a_quantised_table_is_onnxruntimes(case: str) -> None:
    if case in NEW_TABLES:
        skip_where_old(NEW_TABLES[case])
    inputs, how = TABLES[case]
    constant = tuple(i for i in (0, 2, 3) if i < len(inputs))
    assert_same_node("GatherBlockQuantized", inputs, constant=constant, **{"block_size": 16, **how})
    if case == "int4":
        half = [*inputs[:2], inputs[2].astype(np.float16)]
        assert_same_node("GatherBlockQuantized", half, [np.float16], constant=constant, block_size=16)
