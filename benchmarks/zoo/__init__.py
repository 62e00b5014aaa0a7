"""A zoo of real topologies with seeded random weights, for benchmarks and tests that cannot download models.

    model = build("resnet50")                     # an onnx.ModelProto, weights embedded
    feeds = inputs("resnet50", batch=4)           # arrays for its inputs
    python -m benchmarks.zoo resnet50 -o resnet50.onnx

Sizes beyond the defaults are keyword arguments of the function that writes the model (`build("bert_base", layers=2)`);
give `inputs` the same ones, and the symbolic dimensions (`inputs("gpt2", batch=2, sequence=8, past_sequence=0)`).
Weights are random: outputs are finite, of order one, and depend on the input, but mean nothing. Those of Whisper and CLIP are
values of float16, as the ones that OpenAI published and that exports have in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto

from . import classic, decoders, detection, disentangled, encoders, hierarchical, inception, mobile, plain, residual, speech
from .builder import Dim, GraphBuilder

__all__ = ["NAMES", "build", "inputs", "outline"]


@dataclass(frozen=True)
class Model:
    """A row of the zoo.

    Attributes:
        write: the function that writes the model.
        dims: what its symbolic dimensions default to.
        published: the type in which OpenAI published the weights that exports have in float32.
    """

    write: Callable[..., None]
    opset: int = 17
    dims: dict[str, int] = field(default_factory=dict)
    published: type = np.float32


MODELS = {
    "resnet18": Model(residual.resnet18),
    "resnet50": Model(residual.resnet50),
    "mobilenet_v2": Model(mobile.mobilenet_v2),
    "mobilenet_v3": Model(mobile.mobilenet_v3),
    "efficientnet_b0": Model(mobile.efficientnet_b0, opset=18),
    "regnet_y_800mf": Model(residual.regnet_y_800mf),
    "convnext_tiny": Model(residual.convnext_tiny, opset=18),
    "alexnet": Model(plain.alexnet),
    "zfnet512": Model(plain.zfnet512),
    "vgg19": Model(plain.vgg19),
    "densenet121": Model(residual.densenet121),
    "squeezenet1_1": Model(mobile.squeezenet1_1),
    "inception_v1": Model(inception.inception_v1),
    "inception_v2": Model(inception.inception_v2),
    "shufflenet_v2": Model(mobile.shufflenet_v2),
    "yolov8n": Model(detection.yolov8n, opset=19),
    "unet": Model(detection.unet, opset=18, dims={"height": 256, "width": 256}),
    "bert_base": Model(encoders.bert_base, dims={"sequence": 128}),
    "distilbert": Model(encoders.distilbert, dims={"sequence": 128}),
    "minilm_l6": Model(encoders.minilm_l6, dims={"sequence": 128}),
    "vit_b16": Model(encoders.vit_b16, opset=20),
    "clip_vision_b32": Model(encoders.clip_vision_b32, published=np.float16),
    "swin_tiny": Model(hierarchical.swin_tiny),
    "segformer_b0": Model(hierarchical.segformer_b0),
    "t5_encoder": Model(encoders.t5_encoder, dims={"sequence": 128}),
    "deberta_v3_small": Model(disentangled.deberta_v3_small, dims={"sequence": 64}),
    "whisper_tiny_encoder": Model(speech.whisper_tiny_encoder, published=np.float16),
    "whisper_tiny_decoder": Model(
        speech.whisper_tiny_decoder, dims={"past_sequence": 32, "encoder_sequence": 1500}, published=np.float16
    ),
    "gpt2": Model(decoders.gpt2, dims={"sequence": 1, "past_sequence": 128}),
    "llama": Model(decoders.llama, opset=20, dims={"sequence": 1, "past_sequence": 128}),
    "lstm_classifier": Model(classic.lstm_classifier, dims={"sequence": 64}),
    "mlp": Model(classic.mlp),
}
NAMES: tuple[str, ...] = tuple(MODELS)
IMAGE_DIMS = {"height": 224, "width": 224}


def _find(name: str) -> Model:
    if name not in MODELS:
        raise KeyError(f"no model {name!r} in the zoo: expected one of {', '.join(NAMES)}")
    return MODELS[name]


def _write(name: str, seed: int, weights: bool, sizes: dict[str, object]) -> GraphBuilder:
    row = _find(name)
    graph = GraphBuilder(name, row.opset, seed, weights, row.published)
    row.write(graph, **sizes)
    return graph


def build(name: str, *, seed: int = 0, **sizes: object) -> ModelProto:
    """Builds a model with its weights.

    Args:
        name: one of `NAMES`.
        seed: of the weights.
        **sizes: arguments of the function that writes the model, such as `image`, `layers` or `vocabulary`.

    Raises:
        KeyError: the zoo has no such model.
        TypeError: the model has no such size.
    """
    return _write(name, seed, True, sizes).model()


def outline(name: str, **sizes: object) -> tuple[ModelProto, int]:
    """The model without its weights' data, in milliseconds, and its number of trainable parameters."""
    graph = _write(name, 0, False, sizes)
    return graph.model(), graph.parameters


def inputs(name: str, seed: int = 0, batch: int = 1, **sizes: object) -> dict[str, np.ndarray]:
    """Draws arrays for a model's inputs.

    Args:
        name: one of `NAMES`.
        seed: of the arrays.
        batch: the dimension `batch`.
        **sizes: other symbolic dimensions (`sequence`, `past_sequence`; `height` and `width` with `image=None`) and
            the sizes that `build` was called with. An image model with symbolic height and width also takes what
            `image=160` draws.

    Raises:
        KeyError: the zoo has no such model.
        TypeError: the model has no such size or dimension.
    """
    dims = {"batch": batch, **IMAGE_DIMS, **_find(name).dims}
    dims |= {key: sizes.pop(key) for key in list(sizes) if key in dims and key != "width"}
    graph = _write(name, seed, False, sizes)
    rng = np.random.default_rng(seed)

    def bind(dim: Dim) -> int:
        return dim if isinstance(dim, int) else sum(dims[part] for part in dim.split(" + "))

    return {
        spec.name: spec.sample(rng, tuple(bind(dim) for dim in spec.shape), dims).astype(spec.dtype, copy=False)
        for spec in graph.inputs
    }
