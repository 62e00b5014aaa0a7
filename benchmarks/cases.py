"""The catalogue: every model that is measured beside onnxruntime, by name, and what has been promised of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from . import layers, micro, real, zoo

Feeds = dict[str, np.ndarray]
GROUPS = {
    "zoo": "Networks of the zoo",
    "real": "Models of real packages",
    "light": "Light models of the onnx wheel",
    "product": "Matrix products, float32",
    "conv": "Convolution layers",
    "pattern": "Single operators and patterns",
}


@dataclass(frozen=True)
class Case:
    """A model with inputs.

    Attributes:
        name: unique in its group.
        group: a key of `GROUPS`.
        make: builds or loads the model and its inputs.
        least: the ratio to onnxruntime's speed that it must reach, if one has been promised.
        longest: the seconds that a run may take, if a time has been promised.
    """

    name: str
    group: str
    make: Callable[[], tuple[onnx.ModelProto, Feeds]]
    least: float | None = None
    longest: float | None = None

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def _from_zoo(name: str, **sizes: int) -> tuple[onnx.ModelProto, Feeds]:
    return zoo.build(name), zoo.inputs(name, **sizes)


def _large(name: str, image: int) -> tuple[onnx.ModelProto, Feeds]:
    return zoo.build(name, image=image), zoo.inputs(name, image=image)


def _zoo() -> list[Case]:
    least = {"resnet50": 0.8, "bert_base": 0.8, "vgg19": 0.8}
    whole = [Case(name, "zoo", partial(_from_zoo, name), least.get(name)) for name in zoo.NAMES]
    return [
        *whole,
        Case("resnet50, batch 8", "zoo", partial(_from_zoo, "resnet50", batch=8)),
        Case("mobilenet_v2, batch 8", "zoo", partial(_from_zoo, "mobilenet_v2", batch=8)),
        Case("mobilenet_v2, 896x896", "zoo", partial(_large, "mobilenet_v2", 896)),
        Case("unet, 1024x1024", "zoo", partial(_large, "unet", 1024)),
        Case("bert_base, batch 8", "zoo", partial(_from_zoo, "bert_base", batch=8)),
        Case("minilm_l6, 32 tokens", "zoo", partial(_from_zoo, "minilm_l6", sequence=32)),
        Case("t5_encoder, 64 tokens", "zoo", partial(_from_zoo, "t5_encoder", sequence=64)),
        *(Case(f"gpt2, prompt of {n}", "zoo", partial(_from_zoo, "gpt2", sequence=n, past_sequence=0)) for n in (128, 256)),
        Case("gpt2, past of 256", "zoo", partial(_from_zoo, "gpt2", past_sequence=256)),
        Case("llama, past of 512", "zoo", partial(_from_zoo, "llama", past_sequence=512)),
    ]


def _real() -> list[Case]:
    """Those whose packages are installed."""
    found = [Case(f"PP-OCRv4 {part}", "real", partial(real.ocr, part)) for part in real.OCR if real.ocr_path(part)]
    if real.ocr_path("detection"):
        found.append(Case("PP-OCRv4 detection, 736x1280", "real", partial(real.ocr, "detection", (1, 3, 736, 1280))))
    if real.magika_path():
        found += [Case(f"magika, {batch} files", "real", partial(real.magika, batch)) for batch in (1, 16)]
    return found


def _products() -> list[Case]:
    def name(sizes: tuple[int, ...]) -> str:
        return "x".join(map(str, sizes))

    least = {(1024, 1024, 1024): 0.95, (197, 768, 3072): 0.95}
    return [
        *(Case(name(s), "product", partial(micro.product, *s), least.get(s)) for s in micro.PRODUCTS),
        Case("1024x1024x1024, both inputs", "product", partial(micro.product_of_inputs, 1024, 1024, 1024)),
        *(Case(name((1, *s)), "product", partial(micro.product, 1, *s)) for s in micro.VECTORS),
    ]


def _layers() -> list[Case]:
    networks = {"ResNet-50": layers.RESNET, "VGG-19": layers.VGG, "MobileNet": layers.MOBILENET}
    return [Case(f"{name}: {x}", "conv", partial(micro.convolution, x)) for name, group in networks.items() for x in group]


ATTENTIONS = ((128, 1.0), (1024, 1.5), (4096, 1.5))  # tokens, with 12 heads of 64, and the ratio to reach


def _patterns() -> list[Case]:
    return [
        Case("softmax 4096x1024", "pattern", partial(micro.softmax, 4096, 1024), 1.2),
        Case("layer norm 4096x768", "pattern", partial(micro.layer_norm, 4096, 768), 1.2),
        *(Case(f"attention, {n} tokens", "pattern", partial(micro.attention, 12, 64, n), least) for n, least in ATTENTIONS),
        Case("causal attention, 1024 tokens", "pattern", partial(micro.attention, 12, 64, 1024, True), 1.5),
        Case("20 elementwise ops 64x256x1024", "pattern", partial(micro.chain, 64, 256, 1024), 5.0),
        Case("300 tiny ops", "pattern", partial(micro.tiny_nodes, 300), 1.0),
        Case("one node, 4 numbers", "pattern", micro.one_node, longest=20e-6),
        Case("LSTM 100x1x512, bidirectional", "pattern", partial(micro.lstm, 100, 1, 512, 512), 0.8),
        Case("LSTM 100x16x512, bidirectional", "pattern", partial(micro.lstm, 100, 16, 512, 512), 0.8),
        Case("Loop of 100 iterations, 1x64", "pattern", partial(micro.loop, 100, 64), 1.0),
        Case("Scan of 100 iterations, 1x64", "pattern", partial(micro.scan, 100, 64), 1.0),
        Case("Loop of one iteration, 1x64", "pattern", partial(micro.loop, 1, 64)),
        Case("Loop of 50 loops of 3 iterations, 1x64", "pattern", partial(micro.nested_loops, 50, 3, 64)),
        Case("Loop of 100 iterations that grow, 1x64", "pattern", partial(micro.growing_loop, 100, 64)),
        Case("Loop of 100 iterations that branch, 1x64", "pattern", partial(micro.branching_loop, 100, 64)),
        Case("TopK 100 of 1000x1000", "pattern", partial(micro.top_k, 1000, 1000, 100), 0.8),
        Case("TopK 300 of 1x672000", "pattern", partial(micro.top_k, 1, 672_000, 300), 0.8),
        Case("TopK 5 of 1000x1000", "pattern", partial(micro.top_k, 1000, 1000, 5), 0.8),
        Case("GatherND 20000 vectors of 64", "pattern", partial(micro.gather_nd, 4, 20_000, 64, 128), 0.8),
        Case("GatherND 200000 numbers", "pattern", partial(micro.gather_nd, 4, 200_000, 1, 256), 0.8),
        Case("Resize linear 64x56x56 by 2", "pattern", partial(micro.resize, 64, 56, 2, "linear"), 0.8),
        Case("Resize nearest 64x56x56 by 2", "pattern", partial(micro.resize, 64, 56, 2, "nearest"), 0.8),
        Case("Resize cubic 3x224x224 by 1.5", "pattern", partial(micro.resize, 3, 224, 1.5, "cubic"), 0.8),
        Case("Einsum bhid,bhjd->bhij", "pattern", partial(micro.einsum, "bhid,bhjd->bhij", (2, 8, 197, 64), (2, 8, 197, 64)), 0.8),
        Case("Einsum ijk,kl->ijl", "pattern", partial(micro.einsum, "ijk,kl->ijl", (8, 128, 256), (256, 256)), 0.8),
        Case("NMS 8400 boxes, 1 class", "pattern", partial(micro.suppression, 8400, 1, 300), 0.8),
        Case("NMS 2000 boxes, 20 classes", "pattern", partial(micro.suppression, 2000, 20, 100), 0.8),
        Case("RoiAlign 100 boxes to 7x7x256", "pattern", partial(micro.roi_align, 256, 50, 100, 7), 0.8),
        *(Case(f"{op} 200x200", "pattern", partial(micro.square, op, 200), 1.0) for op in ("Det", "Inverse")),
        Case("500 trees of depth 8, 10000x30", "pattern", partial(micro.forest, 500, 8, 10_000, 30), 1.0),
        Case("100 trees of depth 8, 3 classes, 1000x30", "pattern", partial(micro.forest, 100, 8, 1000, 30, 3), 1.0),
        Case("500 trees of depth 8, one row", "pattern", partial(micro.forest, 500, 8, 1, 30)),
    ]


CASES: tuple[Case, ...] = (
    *_zoo(),
    *_real(),
    *(Case(name, "light", partial(real.light, name)) for name in real.light_paths()),
    *_products(),
    *_layers(),
    *_patterns(),
)


def chosen(words: str) -> list[Case]:
    """The cases whose group and name hold every word of `words`; all for none."""
    return [case for case in CASES if all(word in str(case).lower() for word in words.lower().split())]


def find(text: str) -> Case:
    """The case that prints as `text`."""
    return next(case for case in CASES if str(case) == text)
