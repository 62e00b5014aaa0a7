"""com.microsoft: fused nodes and old forms of operators, against onnxruntime or, where that has no kernel, their definition."""

from __future__ import annotations

import inspect
from math import erf

import ml_dtypes
import numpy as np
import pytest
from contrib_nodes import MICROSOFT, Numbers, assert_close, assert_same_node, bits, f32, i32, node_model, rng, run, run_both
from onnx import helper
from reference import skip_where_old

import jitrt
from jitrt.ops import registry

own = Numbers()
X = own.f32(2, 3, 5, 17)
BIAS = own.f32(17)
ACTIVATIONS = [
    ("Relu", []), ("Tanh", []), ("Sigmoid", []), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.7]), ("HardSigmoid", [0.3, 0.4]),
]  # fmt: skip


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact GELU."""
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


# -- activations, products, convolutions
@pytest.mark.parametrize(
    ("name", "inputs", "attributes"),
    [
        ("Gelu", [X], {}), ("BiasGelu", [X, BIAS], {}), ("FastGelu", [X], {}), ("FastGelu", [X, BIAS], {}), ("QuickGelu", [X], {}),
        ("QuickGelu", [X], {"alpha": 0.7}), ("TransposeMatMul", [own.f32(3, 4), own.f32(4, 5)], {}),
    ],
)  # fmt: skip
def test_an_activation_is_onnxruntimes(name: str, inputs: list, attributes: dict) -> None:
    assert_same_node(name, inputs, **attributes)


@pytest.mark.parametrize(("activation", "parameters"), ACTIVATIONS)
def test_a_fused_convolution_is_onnxruntimes(activation: str, parameters: list[float]) -> None:
    attributes = {"activation": activation, "pads": [1, 0, 1, 2]} | ({"activation_params": parameters} if parameters else {})
    image, filters, bias = f32(1, 4, 7, 6), f32(6, 2, 3, 3), f32(6)
    assert_same_node("FusedConv", [image, filters, bias], group=2, **attributes)
    if activation == "Relu":
        assert_same_node("FusedConv", [image, filters, bias, f32(1, 6, 7, 6)], group=2, **attributes)


@pytest.mark.parametrize(
    "how",
    [
        {}, {"transA": 1}, {"transB": 1, "alpha": 0.3}, {"transA": 1, "transB": 1}, {"transBatchA": 1}, {"transBatchB": 1},
        {"transBatchA": 1, "transA": 1}, {"transBatchB": 1, "transB": 1},
    ],
)  # fmt: skip
def test_a_fused_product_transposes_as_onnxruntime_does(how: dict) -> None:
    def arranged(shape: tuple[int, ...], side: str) -> tuple[int, ...]:
        if how.get("trans" + side):
            shape = (*shape[:-2], shape[-1], shape[-2])
        return (shape[2], *shape[:2], shape[3]) if how.get("transBatch" + side) else shape

    assert_same_node("FusedMatMul", [f32(*arranged((2, 3, 4, 5), "A")), f32(*arranged((2, 3, 5, 6), "B"))], **how)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("HardSigmoid", {"alpha": 0.2, "beta": 0.3}),
        ("Selu", {"alpha": 2.0, "gamma": 0.3}),
    ],
)  # fmt: skip
def test_a_fused_gemm_is_onnxruntimes(activation: str, parameters: dict[str, float]) -> None:
    attributes = {f"activation_{name}": value for name, value in parameters.items()}
    assert_same_node(
        "FusedGemm", [f32(5, 3), f32(7, 3), f32(7)], transB=1, alpha=0.5, beta=0.2, activation=activation, **attributes
    )


# -- normalisations
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_normalisations_of_old_opsets_are_onnxruntimes(dtype: type) -> None:
    x, scale, bias = (v.astype(dtype) for v in (X, f32(17), BIAS))
    assert_same_node("LayerNormalization", [x, scale, bias], [dtype, np.float32, np.float32], domain="", onnx_opset=13)
    scale = np.stack([scale] * 5)
    assert_same_node("LayerNormalization", [x, scale], [dtype], domain="", onnx_opset=12, axis=-2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_normalisation_without_a_mean_is_onnxruntimes(dtype: type) -> None:
    if dtype == np.float64:
        skip_where_old("has no SimplifiedLayerNormalization of float64")
    inputs = [X.astype(dtype), f32(17).astype(dtype)]
    assert_same_node("SimplifiedLayerNormalization", inputs, [dtype, np.float32], domain="", epsilon=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_skip_normalisations_are_onnxruntimes(dtype: type) -> None:
    x, skip, gamma, beta, bias = (f32(*shape).astype(dtype) for shape in [(3, 5, 17)] * 2 + [(17,)] * 3)
    outputs = [dtype, None, None, dtype]
    assert_same_node("SkipLayerNormalization", [x, skip, gamma, beta, bias], outputs)
    assert_same_node("SkipLayerNormalization", [x, skip[:1], gamma], outputs, epsilon=0.1)
    assert_same_node("SkipLayerNormalization", [x, skip[0], gamma, beta], outputs[:1])
    assert_same_node("SkipSimplifiedLayerNormalization", [x, skip, gamma, bias], outputs)


def test_an_embedding_layer_is_onnxruntimes() -> None:
    ids, segments = rng.integers(0, 9, (2, 5)).astype(np.int32), rng.integers(0, 2, (2, 5)).astype(np.int32)
    words, places, kinds, gamma, beta = f32(9, 16), f32(8, 16), f32(2, 16), f32(16), f32(16)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    outputs = [np.float32, np.int32, np.float32]
    assert_same_node("EmbedLayerNormalization", [ids, segments, words, places, kinds, gamma, beta, mask], outputs)
    assert_same_node("EmbedLayerNormalization", [ids, segments, words, places, kinds, gamma, beta], outputs[:2])
    positions = rng.integers(0, 8, (1, 5)).astype(np.int32)
    assert_same_node("EmbedLayerNormalization", [ids, None, words, places, None, gamma, beta, None, positions], outputs)


# -- what onnxruntime computes on GPUs only
def test_bias_split_gelu_is_its_definition() -> None:
    x, bias = f32(2, 3, 18), f32(18)
    y = (x + bias).astype(np.float64)
    assert_close(run("BiasSplitGelu", [x, bias]), [(y[..., :9] * gelu(y[..., 9:])).astype(np.float32)])
    skip = f32(2, 3, 18)
    assert_close(run("BiasAdd", [x, bias, skip]), [x + bias + skip])


@pytest.mark.parametrize("activation", [0, 1])
@pytest.mark.parametrize("channels_last", [0, 1])
def test_group_norm_is_its_definition(activation: int, channels_last: int) -> None:
    x, gamma, beta, skip, bias = f32(2, 6, 5, 4), f32(6), f32(6), f32(2, 6), f32(6)

    def norm(x: np.ndarray) -> np.ndarray:
        groups = x.astype(np.float64).reshape(2, 3, -1)
        centred = groups - groups.mean(2, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(2, keepdims=True) + 1e-5)
        y = y.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]
        return (y / (1 + np.exp(-y)) if activation else y).astype(np.float32)

    def laid(x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if channels_last else x

    how = {"groups": 3, "activation": activation, "channels_last": channels_last}
    assert_close(run("GroupNorm", [laid(x), gamma, beta], **how), [laid(norm(x))])
    total = x + skip[:, :, None, None] + bias[:, None, None]
    results = run("SkipGroupNorm", [laid(x), gamma, beta, skip, bias], [np.float32] * 2, **how)
    assert_close(results, [laid(norm(total)), laid(total)])


def test_convolutions_of_channels_last_images_are_convolutions() -> None:
    x, filters, bias, residual = f32(2, 6, 7, 4), f32(5, 4, 3, 3), f32(5), f32(2, 6, 7, 5)
    (second,) = run("Conv", [np.ascontiguousarray(x.transpose(0, 3, 1, 2)), filters, bias], domain="", pads=[1, 1, 1, 1])
    expected = second.transpose(0, 2, 3, 1)
    assert_close(run("NhwcConv", [x, filters, bias], pads=[1, 1, 1, 1]), [expected])
    fused = run("NhwcFusedConv", [x, filters, bias, residual], pads=[1, 1, 1, 1], activation="Relu")
    assert_close(fused, [np.maximum(expected + residual, 0)])


def test_a_product_with_a_softmax_is_its_definition() -> None:
    a, b = f32(2, 3, 4), f32(2, 5, 4)
    grown = np.exp(0.5 * a.astype(np.float64) @ b.transpose(0, 2, 1))
    expected = (grown / grown.sum(1, keepdims=True)).astype(np.float32)
    how = {"transB": 1, "alpha": 0.5, "activation": "Softmax", "activation_axis": 1}
    assert_close(run("FusedMatMulActivation", [a, b], **how), [expected])


# -- tensors
IMAGES = own.f32(2, 3, 7, 9)
BOXES = np.array([[0.1, 0.2, 0.9, 0.8], [-0.2, 0, 1.3, 0.5], [1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("name", "inputs", "attributes"),
    [
        ("Trilu", [own.f32(2, 4, 5), np.array(1)], {"upper": 0}), ("Trilu", [own.f32(4, 5)], {}),
        ("ExpandDims", [own.f32(3, 4), np.array(-1, np.int32)], {}), ("ExpandDims", [own.f32(3, 4), np.array(1, np.int32)], {}),
        ("Pad", [own.f32(3, 4), np.array([1, 0, 2, -1]), np.array([2.0], np.float32)], {}),
        ("Pad", [own.f32(3, 4), np.array([[1, 0, 2, 3]])], {"mode": "reflect"}),
        ("Pad", [own.f32(3, 4), np.array([[1, 0, 2, 3]])], {"mode": "edge"}),
        ("Inverse", [own.f32(2, 3, 5, 5) + 4 * np.eye(5, dtype=np.float32)], {}),
        ("ConvTransposeWithDynamicPads", [own.f32(1, 3, 5, 6), own.f32(3, 4, 3, 2), np.array([1, 0, 1, 1]), own.f32(4)],
         {"strides": [2, 1]}),
        ("GridSample", [IMAGES, own.f32(2, 4, 5, 2)], {"mode": "bicubic", "align_corners": 1, "padding_mode": "reflection"}),
        ("GatherND", [IMAGES, np.array([[0, 1], [1, 2]], np.int32)], {}),
        ("Range", [np.array(1, np.float32), np.array(9, np.float32)], {}),
    ],
)  # fmt: skip
def test_an_operator_that_onnx_took_in_later_is_onnxruntimes(name: str, inputs: list, attributes: dict) -> None:
    assert_same_node(name, inputs, **attributes)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(4, 5), (1, 3), (7, 1), (14, 9)])
def test_crops_are_resized_as_onnxruntime_does(mode: str, size: tuple[int, int]) -> None:
    inputs = [IMAGES, BOXES, i32(0, 1, 1, 0), i32(*size)]
    assert_same_node("CropAndResize", inputs, mode=mode, extrapolation_value=0.7)


@pytest.mark.parametrize("values", [[], [2, 1, 1, 3, 4, 3], list(own.rng.integers(0, 9, 50))])
def test_unique_values_keep_their_order(values: list[int]) -> None:
    assert_same_node("Unique", [np.array(values, np.float32)], [np.float32, np.int64, np.int64])


@pytest.mark.parametrize(("length", "size"), [(12, 1), (12, 2), (12, 3), (12, 12), (2, 3)])
def test_repeated_ngrams_are_blocked_as_in_onnxruntime(length: int, size: int) -> None:
    got, expected = run_both("NGramRepeatBlock", [rng.integers(0, 4, (3, length)), f32(3, 11)], ngram_size=size)
    np.testing.assert_array_equal(got[0], expected[0])


# -- types that onnxruntime's CPU kernels do not have
HALF = [
    ("Gelu", [own.f32(3, 9)], {}), ("BiasGelu", [own.f32(3, 9), own.f32(9)], {}), ("FastGelu", [own.f32(3, 9), own.f32(9)], {}),
    ("BiasSplitGelu", [own.f32(2, 3, 8), own.f32(8)], {}), ("FusedMatMul", [own.f32(3, 4), own.f32(4, 5)], {"alpha": 0.5}),
    ("FusedConv", [own.f32(1, 2, 5, 5), own.f32(3, 2, 3, 3), own.f32(3)], {"activation": "Relu"}),
    ("GroupNorm", [own.f32(2, 3, 4, 6), own.f32(6), own.f32(6)], {"groups": 2, "activation": 1}),
    ("Attention", [own.f32(2, 5, 12), own.f32(12, 36), own.f32(36), i32(3, 5)], {"num_heads": 3}),
    ("MultiHeadAttention", [own.f32(2, 5, 12)] * 3, {"num_heads": 3}),
    ("MatMulNBits", [own.f32(3, 32), own.bits(np.uint8, 4, 2, 8), own.f32(4, 2)], {"K": 32, "N": 4, "block_size": 16}),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("case", range(len(HALF)), ids=[name for name, *_ in HALF])
def test_half_types_are_computed_in_float32(case: int, dtype: type) -> None:
    name, inputs, attributes = HALF[case]
    halves = [x.astype(dtype) if x.dtype == np.float32 else x for x in inputs]
    (got,) = run(name, halves, [dtype], **attributes)
    (expected,) = run(name, [x.astype(np.float32) if x.dtype == dtype else x for x in halves], **attributes)
    assert got.dtype == dtype
    # what is rounded twice, a projection and the result, is off by two halves of the last place
    assert abs(got.astype(np.float32) - expected).max() <= 2 * float(ml_dtypes.finfo(dtype).eps) * abs(expected).max()


# -- nothing
@pytest.mark.parametrize(("batch", "sequence"), [(0, 3), (2, 0)])
def test_no_sequences_and_no_tokens_are_nothing(batch: int, sequence: int) -> None:
    x, ids = f32(batch, sequence, 8), np.zeros((batch, sequence), np.int32)
    assert_same_node("Attention", [x, f32(8, 24), f32(24)], [np.float32, np.float32], num_heads=2)
    # not compared: an old onnxruntime divides by the number of rows
    assert_close(run("MultiHeadAttention", [x, f32(batch, 4, 8), f32(batch, 4, 8)], num_heads=2), [x])
    assert_same_node("RotaryEmbedding", [x, ids.astype(np.int64), f32(9, 2), f32(9, 2)])
    assert_same_node("SkipLayerNormalization", [x, x, f32(8)])
    inputs = [ids, None, f32(5, 8), f32(9, 8), None, f32(8), f32(8), ids]
    assert_same_node("EmbedLayerNormalization", inputs, [np.float32, np.int32])
    assert_same_node("FusedMatMul", [x, f32(batch, 8, 3)])
    assert_same_node("MatMulNBits", [f32(batch, sequence, 16), bits(np.uint8, 3, 1, 8), f32(3, 1)], K=16, N=3, block_size=16)
    assert_same_node("DynamicQuantizeMatMul", [x, bits(np.uint8, 8, 3), f32()])
    assert_same_node("NGramRepeatBlock", [ids.astype(np.int64), f32(batch, 5)], ngram_size=2)
    table = [bits(np.uint8, 6, 16), ids.astype(np.int64), f32(6, 2)]
    assert_same_node("GatherBlockQuantized", table, constant=(0, 2), block_size=16)
    assert_same_node("CropAndResize", [IMAGES, f32(0, 4), i32(), i32(3, 2)])


# -- the domain
def test_lowerings_take_what_the_published_schemas_state() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    schemas = {s.name: s for s in state.get_all_operator_schema() if s.domain == MICROSOFT}
    rows = [row for row in registry.rows() if row.domain == MICROSOFT and row.name in schemas and not row.text]
    assert len(rows) > 40
    for row in rows:
        parameters = inspect.signature(row.lower).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            taken = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
            assert set(schemas[row.name].attributes) <= taken, row.name
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            places = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
            assert len(places) - 1 >= len(schemas[row.name].inputs), row.name


def test_an_unknown_operator_of_the_domain_is_named_with_a_way_to_supply_it() -> None:
    model = node_model("FusedEverything", [X], [np.float32])
    with pytest.raises(jitrt.NotImplemented, match=r"com\.microsoft::FusedEverything .*opset 1.*registry\.op"):
        jitrt.InferenceSession(model.SerializeToString())


def test_types_that_an_operator_does_not_have_are_an_error_of_that_node() -> None:
    model = node_model("QLinearAdd", [bits(np.uint8, 3), f32(), bits(np.uint8)] * 2 + [f32()], [np.uint8])
    model.graph.node[0].name = "sum"
    model.graph.input[0].type.CopyFrom(helper.make_tensor_type_proto(8, (3,)))
    session = jitrt.InferenceSession(model.SerializeToString())
    feeds = {f"x{i}": v for i, v in enumerate([bits(np.uint8, 3), f32(), bits(np.uint8)] * 2 + [f32()])}
    feeds["x0"] = np.array(["a", "b", "c"], object)
    with pytest.raises(jitrt.Fail, match=r"sum.*not available for these types"):
        session.run(None, feeds)


def test_a_missing_attribute_or_input_is_an_error_of_that_node() -> None:
    for name, inputs, missing in (
        ("FusedGemm", [f32(2, 3)], "'B'"),
        ("RotaryEmbedding", [X], "position_ids"),
        ("GroupNorm", [X, BIAS, BIAS], "groups"),
    ):
        model = node_model(name, inputs, [np.float32])
        model.graph.node[0].name = "turn"
        session = jitrt.InferenceSession(model.SerializeToString())
        with pytest.raises(jitrt.Fail, match=f"turn.*missing a required.*{missing}"):
            session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})


def test_a_model_of_the_domain_needs_no_import_of_it() -> None:
    model = node_model("Gelu", [X], [np.float32])
    del model.opset_import[1]
    (y,) = jitrt.InferenceSession(model.SerializeToString()).run(None, {"x0": X})
    np.testing.assert_allclose(y, gelu(X.astype(np.float64)), rtol=1e-5, atol=1e-6)
