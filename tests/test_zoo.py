"""The networks of the zoo, made small, agree with onnxruntime and are compiled whole."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import jitrt
from benchmarks import zoo
from benchmarks.compare import ATOL, RTOL

THREADS = 2
ENCODER = {"layers": 2, "width": 64, "heads": 4, "inner": 96, "vocabulary": 50}
# name: sizes of the small model, symbolic dimensions of two runs of one session
SMALL = {
    "resnet18": ({"image": 64}, {}, {"batch": 3}),
    "resnet50": ({"image": None}, {"image": 64}, {"image": 75, "batch": 2}),
    "mobilenet_v2": ({"image": 64}, {}, {"batch": 3}),
    "mobilenet_v3": ({"image": 64}, {}, {"batch": 3}),
    "efficientnet_b0": ({"image": 64}, {}, {"batch": 3}),
    "regnet_y_800mf": ({"image": 64}, {}, {"batch": 3}),
    "convnext_tiny": ({"image": None}, {"image": 64}, {"image": 75, "batch": 2}),
    "alexnet": ({"image": 95, "hidden": 64, "classes": 10}, {}, {"batch": 3}),
    "zfnet512": ({"image": 71, "hidden": 64, "classes": 10}, {}, {"batch": 3}),
    "vgg19": ({"image": 32, "hidden": 64, "classes": 10}, {}, {"batch": 3}),
    "densenet121": ({"image": 64}, {}, {"batch": 3}),
    "squeezenet1_1": ({"image": None}, {"image": 64}, {"image": 75, "batch": 2}),
    "inception_v1": ({"image": 64}, {}, {"batch": 3}),
    "inception_v2": ({"image": None}, {"image": 64}, {"image": 96, "batch": 2}),
    "shufflenet_v2": ({"image": 64}, {}, {"batch": 3}),
    "yolov8n": ({"image": 64}, {}, {"batch": 3}),
    "unet": ({"image": None, "width": 8}, {"height": 48}, {"height": 32, "batch": 3}),
    "bert_base": (ENCODER, {"sequence": 9}, {"sequence": 14, "batch": 3}),
    "distilbert": (ENCODER, {"sequence": 9}, {"sequence": 14, "batch": 3}),
    "minilm_l6": (ENCODER, {"sequence": 9}, {"sequence": 14, "batch": 3}),
    "vit_b16": ({"image": 48, "layers": 2, "width": 64, "heads": 4, "inner": 96}, {}, {"batch": 3}),
    "clip_vision_b32": (
        {"image": 96, "layers": 2, "width": 64, "heads": 4, "inner": 96, "projected": 24},
        {},
        {"batch": 3},
    ),
    "swin_tiny": ({"image": 64, "depths": (2, 2), "width": 24, "window": 4}, {}, {"batch": 3}),
    "segformer_b0": ({"image": 96, "depth": 1, "hidden": 40, "classes": 7}, {}, {"batch": 3}),
    "t5_encoder": (ENCODER, {"sequence": 9}, {"sequence": 14, "batch": 3}),
    "deberta_v3_small": (ENCODER, {"sequence": 9}, {"sequence": 14, "batch": 3}),
    "whisper_tiny_encoder": ({"layers": 2, "width": 64, "heads": 4, "bands": 10, "frames": 46}, {}, {"batch": 3}),
    "whisper_tiny_decoder": (
        {"layers": 2, "width": 64, "heads": 4, "vocabulary": 50, "context": 32},
        {"past_sequence": 8, "encoder_sequence": 23},
        {"past_sequence": 9, "encoder_sequence": 40, "batch": 3},
    ),
    "gpt2": (
        {"layers": 2, "width": 64, "heads": 4, "vocabulary": 50, "context": 32},
        {"sequence": 7, "past_sequence": 0},
        {"sequence": 1, "past_sequence": 8, "batch": 3},
    ),
    "llama": (
        {**ENCODER, "kv_heads": 2},
        {"sequence": 7, "past_sequence": 0},
        {"sequence": 1, "past_sequence": 8, "batch": 3},
    ),
    "lstm_classifier": ({"width": 24, "hidden": 20, "vocabulary": 50}, {"sequence": 9}, {"sequence": 5, "batch": 3}),
    "mlp": ({"features": 50, "hidden": 37}, {}, {"batch": 3}),
}
# As published with torchvision, Caffe (AlexNet, ZFNet-512, Inception), ultralytics and transformers.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3": 5_483_032,
    "efficientnet_b0": 5_288_548,
    "regnet_y_800mf": 6_432_512,
    "convnext_tiny": 28_589_128,
    "alexnet": 60_965_224,
    "zfnet512": 87_250_536,
    "vgg19": 143_667_240,
    "densenet121": 7_978_856,
    "squeezenet1_1": 1_235_496,
    "inception_v1": 6_998_552,
    "inception_v2": 11_194_984,
    "shufflenet_v2": 2_278_604,
    "yolov8n": 3_157_200 - 16,  # the weights of the expected distance are no parameters here
    "unet": 7_763_041,
    "bert_base": 109_482_240,
    "distilbert": 66_362_880,
    "minilm_l6": 22_713_216,
    "vit_b16": 86_567_656,
    "clip_vision_b32": 87_849_216,
    "swin_tiny": 28_288_354,
    "segformer_b0": 3_752_694,
    "t5_encoder": 35_330_816,
    "deberta_v3_small": 141_304_320,
    "whisper_tiny_encoder": 8_208_384,
    # without the projections of the encoder's output to keys and values (biased), which are inputs of a step
    "whisper_tiny_decoder": 29_552_256 - 4 * (2 * 384 * 384 + 384),
    "gpt2": 124_439_808,
}
OWN = {"llama", "lstm_classifier", "mlp"}  # sizes chosen here


def test_all_networks_are_here():
    assert set(SMALL) == set(PARAMETERS) | OWN == set(zoo.NAMES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_network_has_the_published_number_of_parameters(name):
    assert zoo.outline(name)[1] == PARAMETERS[name]


@pytest.mark.parametrize("name", SMALL)
def test_small_network_agrees_with_onnxruntime_at_two_sizes_without_host_nodes(name):
    sizes, *runs = SMALL[name]
    model = zoo.build(name, **sizes).SerializeToString()
    options = jitrt.SessionOptions()
    options.intra_op_num_threads = THREADS
    ours = jitrt.InferenceSession(model, options)
    theirs = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for dims in runs:
        feeds = zoo.inputs(name, seed=1, **(sizes | dims))
        for output, expected in zip(ours.run(None, feeds), theirs.run(None, feeds), strict=True):
            assert output.dtype == expected.dtype
            np.testing.assert_allclose(output, expected, RTOL, ATOL)
        assert ours.get_plan(feeds).host_nodes == ()
