"""Whole models of com.microsoft's operators: what onnxruntime's optimiser and quantiser write, and layers made of fused nodes."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
from contrib_nodes import f32, i32, peer, rng
from onnx import numpy_helper, parser

import jitrt
from benchmarks import zoo

ENCODER = {"layers": 2, "width": 64, "heads": 4, "inner": 96, "vocabulary": 50}
DECODER = {"layers": 2, "width": 64, "heads": 4, "vocabulary": 50, "context": 32}
PICTURE = {"image": 64}


def optimised(model: onnx.ModelProto, folder: pathlib.Path) -> onnx.ModelProto:
    """What onnxruntime makes of a model before it runs it, with its fused nodes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(options.optimized_model_filepath)


def kinds(model: onnx.ModelProto) -> set[str]:
    """The operators of com.microsoft in a model."""
    return {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}


@pytest.mark.parametrize(
    ("name", "sizes", "runs", "expected"),
    [
        ("bert_base", ENCODER, [{"sequence": 9}, {"sequence": 14, "batch": 3}], {"BiasGelu", "FusedMatMul", "FusedGemm"}),
        ("gpt2", DECODER, [{"sequence": 7, "past_sequence": 0}, {"sequence": 1, "past_sequence": 8, "batch": 3}],
         {"FastGelu", "FusedMatMul"}),
        ("vit_b16", {"image": 48, "layers": 2, "width": 64, "heads": 4, "inner": 96}, [{}], {"SkipLayerNormalization"}),
    ],
)  # fmt: skip
def test_a_model_optimised_by_onnxruntime_runs(
    name: str, sizes: dict, runs: list[dict], expected: set[str], tmp_path: pathlib.Path
) -> None:
    plain = zoo.build(name, **sizes)
    model = optimised(plain, tmp_path)
    assert expected <= kinds(model)
    session, other = jitrt.InferenceSession(model.SerializeToString()), peer(plain.SerializeToString())
    for dims in runs:
        feeds = zoo.inputs(name, **sizes, **dims)
        for got, wanted in zip(session.run(None, feeds), other.run(None, feeds), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_an_encoder_quantised_by_onnxruntime_runs(tmp_path: pathlib.Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx.save(zoo.build("bert_base", **ENCODER), tmp_path / "plain.onnx")
    quantize_dynamic(
        tmp_path / "plain.onnx", tmp_path / "bytes.onnx", weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
    )
    model = optimised(onnx.load(tmp_path / "bytes.onnx"), tmp_path)
    assert {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"} <= kinds(model)
    content, feeds = model.SerializeToString(), zoo.inputs("bert_base", batch=3, sequence=9, **ENCODER)
    for got, wanted in zip(jitrt.InferenceSession(content).run(None, feeds), peer(content).run(None, feeds), strict=True):
        # one activation that rounds to its neighbour moves what follows by a step
        np.testing.assert_allclose(got, wanted, atol=2 * abs(wanted).max() / 255)


def test_a_convolutional_network_quantised_by_onnxruntime_runs(tmp_path: pathlib.Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [zoo.inputs("resnet18", seed=seed, **PICTURE) for seed in range(2)]

        def get_next(self) -> dict | None:
            return self.left.pop() if self.left else None

    onnx.save(zoo.build("resnet18", **PICTURE), tmp_path / "plain.onnx")
    quantize_static(
        tmp_path / "plain.onnx", tmp_path / "bytes.onnx", Pictures(), quant_format=QuantFormat.QOperator, per_channel=True,
        reduce_range=True,
    )  # fmt: skip
    model = onnx.load(tmp_path / "bytes.onnx")
    assert {"QLinearAdd", "QLinearGlobalAveragePool", "QGemm"} <= kinds(model)
    content, feeds = model.SerializeToString(), zoo.inputs("resnet18", seed=5, **PICTURE)
    (got,), (wanted,) = jitrt.InferenceSession(content).run(None, feeds), peer(content).run(None, feeds)
    np.testing.assert_allclose(got, wanted, atol=2 * abs(wanted).max() / 255)


# -- layers of fused nodes, as optimisers of transformers write them
ENCODER_LAYER = """
    <ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>
    encoder (int32[B, S] ids, int32[B, S] mask) => (float[B, S, 24] y, int32[B] kept)
    {
        x, kept = com.microsoft.EmbedLayerNormalization <epsilon = 1e-12> (ids, , words, places, , gamma, beta, mask)
        a = com.microsoft.Attention <num_heads = 4> (x, w_qkv, b_qkv, kept)
        p = MatMul (a, w_out)
        s = com.microsoft.SkipLayerNormalization (x, p, gamma, beta, b_out)
        h = MatMul (s, w_up)
        g = com.microsoft.BiasGelu (h, b_up)
        d = MatMul (g, w_down)
        y = com.microsoft.SkipLayerNormalization (s, d, gamma, beta, b_out)
    }"""
DECODER_LAYER = """
    <ir_version: 10, opset_import: ["": 17, "com.microsoft": 1]>
    decoder (float[B, S, 64] x, float[B, 2, P, 16] k, float[B, 2, P, 16] v, int32[B] last, int32 total)
        => (float[B, S, 64] y, float[B, 2, T, 16] new_k, float[B, 2, T, 16] new_v)
    {
        n = SimplifiedLayerNormalization (x, gamma)
        qkv = com.microsoft.MatMulNBits <K = 64, N = 128, block_size = 32, bits = 4> (n, packed, scales)
        a, new_k, new_v = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, do_rotary = 1>
            (qkv, , , k, v, last, total, cos, sin)
        o = MatMul (a, w_out)
        s, , , r = com.microsoft.SkipSimplifiedLayerNormalization (x, o, gamma)
        h = MatMul (s, w_up)
        g = com.microsoft.QuickGelu <alpha = 1.0> (h)
        d = MatMul (g, w_down)
        y = Add (r, d)
    }"""


def with_weights(text: str, **weights: np.ndarray) -> bytes:
    """The model with initializers."""
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model.SerializeToString()


def test_an_encoder_layer_of_fused_nodes_runs() -> None:
    content = with_weights(
        ENCODER_LAYER, words=f32(30, 24), places=f32(16, 24), gamma=f32(24), beta=f32(24), w_qkv=f32(24, 72) / 5, b_qkv=f32(72),
        w_out=f32(24, 24) / 5, b_out=f32(24), w_up=f32(24, 50) / 5, b_up=f32(50), w_down=f32(50, 24) / 7,
    )  # fmt: skip
    session, other = jitrt.InferenceSession(content), peer(content)
    for batch, sequence in ((1, 5), (3, 11)):
        mask = (np.arange(sequence) < rng.integers(1, sequence + 1, (batch, 1))).astype(np.int32)
        feeds = {"ids": rng.integers(0, 30, (batch, sequence)).astype(np.int32), "mask": mask}
        for got, wanted in zip(session.run(None, feeds), other.run(None, feeds), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_decoder_layer_of_fused_nodes_generates_as_onnxruntime_does() -> None:
    content = with_weights(
        DECODER_LAYER, gamma=f32(64), packed=rng.integers(0, 256, (128, 2, 16)).astype(np.uint8), scales=abs(f32(128, 2)) / 30,
        cos=f32(32, 8), sin=f32(32, 8), w_out=f32(64, 64) / 8, w_up=f32(64, 80) / 8, w_down=f32(80, 64) / 9,
    )  # fmt: skip
    states = [[f32(2, 2, 0, 16)] * 2 for _ in range(2)]
    sessions = [jitrt.InferenceSession(content), peer(content)]
    length = 0
    for new in (5, 1, 1, 1):  # a prompt, then one token after another
        length += new
        x = f32(2, new, 64)
        results = []
        for session, state in zip(sessions, states):
            feeds = {"x": x, "k": state[0], "v": state[1], "last": i32(length - 1, length - 1), "total": np.array(length, np.int32)}
            y, *state[:] = session.run(None, feeds)
            results.append([y, *state])
        for got, wanted in zip(*results, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
