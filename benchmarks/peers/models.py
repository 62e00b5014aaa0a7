"""What is measured beside the peers, and what has been promised of it: ratios to the fastest of them."""

from __future__ import annotations

from benchmarks import cases

# the least ratio of the fastest peer's time to jitrt's; None: selected by default, without a promise of its own
PROMISED: dict[str, float | None] = {
    "zoo: vgg19": 1.15,
    "zoo: resnet50": 1.25,
    "zoo: resnet18": 1.25,
    "zoo: densenet121": 1.15,
    "zoo: inception_v1": 1.15,
    "zoo: inception_v2": 1.15,
    "zoo: alexnet": 1.05,
    "zoo: zfnet512": 1.05,
    "zoo: squeezenet1_1": 1.1,
    "zoo: shufflenet_v2": 1.1,
    "zoo: mobilenet_v2": 1.1,
    "zoo: mobilenet_v3": 1.1,
    "zoo: efficientnet_b0": 1.1,
    "zoo: regnet_y_800mf": 1.1,
    "zoo: convnext_tiny": 1.1,
    "zoo: yolov8n": 1.2,
    "zoo: unet": 1.2,
    "real: PP-OCRv4 detection, 736x1280": 1.2,
    "zoo: resnet50, batch 8": None,
}
MEAN = 1.25  # geometric mean of the ratios that have a promise
WORST = 1.0  # none of them below
COLD = 8.0  # seconds of a first run with an empty store


def chosen(words: str) -> list[cases.Case]:
    """The cases that hold every word of `words` in their names: any of the catalogue; for none, those of `PROMISED`."""
    if words:
        return cases.chosen(words)
    known = {str(case): case for case in cases.CASES}
    return [known[name] for name in PROMISED if name in known]
