"""Models with an output per place of the picture: YOLOv8n (boxes) and UNet (a mask).

Inputs are float32[batch, 3, image, image] in [0, 1].
"""

import numpy as np

from .builder import GraphBuilder, Value
from .samplers import unit_photo

UNIT_POWER = 0.31  # mean square of a picture in [0, 1]
BINS = 16  # of the distribution over distances that YOLOv8 predicts for each side of a box


# ---- YOLOv8n: Jocher et al. 2023 (ultralytics), width 0.25, depth 0.33 ----


def _unit(g: GraphBuilder, x: Value, channels: int, kernel: int, stride: int = 1, gain: float = 1.0) -> Value:
    return g.conv_bn_act(x, channels, kernel, stride, "silu", gain=gain, epsilon=1e-3)


def _c2f(g: GraphBuilder, x: Value, channels: int, depth: int, shortcut: bool) -> Value:
    """Cross-stage block: half the channels go through `depth` bottlenecks, and all stages are read at the end."""
    parts = g.split(_unit(g, x, channels, 1), 2)
    for _ in range(depth):
        y = _unit(g, _unit(g, parts[-1], channels // 2, 3), channels // 2, 3)
        parts.append(g.add(parts[-1], y) if shortcut else y)
    return _unit(g, g.concat(parts), channels, 1)


def _sppf(g: GraphBuilder, x: Value) -> Value:
    """Spatial pyramid pooling: three 5x5 maxima in a row."""
    parts = [_unit(g, x, x.channels // 2, 1)]
    for _ in range(3):
        parts.append(g.max_pool(parts[-1], 5, 1, 2))
    return _unit(g, g.concat(parts), x.channels, 1)


def _backbone(g: GraphBuilder, x: Value) -> tuple[Value, Value, Value]:
    """Features at strides 8, 16 and 32."""
    levels = []
    x = _unit(g, x, 16, 3, 2)
    for stage, (channels, depth) in enumerate(((32, 1), (64, 2), (128, 2), (256, 1))):
        with g.scope(f"backbone.{stage}"):
            x = _c2f(g, _unit(g, x, channels, 3, 2), channels, depth, shortcut=True)
            levels.append(x)
    with g.scope("backbone.sppf"):
        return levels[1], levels[2], _sppf(g, x)


def _neck(g: GraphBuilder, p3: Value, p4: Value, p5: Value) -> list[Value]:
    """Path aggregation: information flows up to stride 8 and down again."""

    def upsample(x: Value) -> Value:
        scales = g.const([1, 1, 2, 2], np.float32)
        return g.op("Resize", x, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")

    with g.scope("neck"):
        middle = _c2f(g, g.concat([upsample(p5), p4]), 128, 1, shortcut=False)
        out3 = _c2f(g, g.concat([upsample(middle), p3]), 64, 1, shortcut=False)
        out4 = _c2f(g, g.concat([_unit(g, out3, 64, 3, 2), middle]), 128, 1, shortcut=False)
        out5 = _c2f(g, g.concat([_unit(g, out4, 128, 3, 2), p5]), 256, 1, shortcut=False)
    return [out3, out4, out5]


def _anchors(image: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of all cells, float32[1, 2, A], in units of their stride, and the strides, float32[1, A]."""
    centres, strides = [], []
    for stride in (8, 16, 32):
        axis = np.arange(image // stride) + 0.5
        y, x = np.meshgrid(axis, axis, indexing="ij")
        centres.append(np.stack([x.ravel(), y.ravel()]))
        strides.append(np.full(x.size, stride))
    return np.concatenate(centres, axis=1)[None], np.concatenate(strides)[None]


def _decode_boxes(g: GraphBuilder, x: Value, image: int) -> Value:
    """Expected distances to the four sides (Li et al. 2020, DFL), turned into centre, width and height in pixels."""
    y = g.transpose(g.reshape(x, (0, 4, BINS, -1), BINS), 0, 2, 1, 3)
    bins = g.fixed("dfl.weight", np.arange(BINS).reshape(1, BINS, 1, 1))
    y = g.op("Conv", g.op("Softmax", y, axis=1), bins, kernel_shape=[1, 1])
    y = g.reshape(y, (0, 4, -1))
    centres, strides = _anchors(image)
    anchor = g.fixed("anchors", centres)
    low = g.op("Sub", anchor, g.slice(y, 0, 2, 1))
    high = g.op("Add", anchor, g.slice(y, 2, 4, 1))
    middle = g.op("Div", g.op("Add", low, high), g.scalar(2))
    box = g.op("Concat", middle, g.op("Sub", high, low), axis=1)
    return g.op("Mul", box, g.fixed("strides", strides))


def yolov8n(g: GraphBuilder, image: int = 640, classes: int = 80) -> None:
    """YOLOv8n with its whole head but for non-maximum suppression; `image` is a multiple of 32.

    Output: float32[batch, 4 + classes, A], centre x, centre y, width, height in pixels and class probabilities, with
    A = 21 (image / 32)^2 places.
    """
    x = g.input("images", np.float32, ("batch", 3, image, image), unit_photo, channels=3, power=UNIT_POWER)
    outputs = 4 * BINS + classes
    levels = []
    for i, level in enumerate(_neck(g, *_backbone(g, x))):
        with g.scope(f"detect.{i}"):
            box = g.conv(_unit(g, _unit(g, level, 64, 3), 64, 3), 4 * BINS, 1, gain=4.0)
            label = g.conv(_unit(g, _unit(g, level, max(64, classes), 3), max(64, classes), 3), classes, 1, gain=4.0)
            levels.append(g.reshape(g.concat([box, label]), (0, outputs, -1), outputs))
    with g.scope("detect"):
        everything = g.op("Concat", *levels, axis=2)
        boxes, labels = g.multi_op("Split", everything, g.const([4 * BINS, classes]), outputs=2, channels=4 * BINS, axis=1)
        decoded = g.op("Concat", _decode_boxes(g, boxes, image), g.op("Sigmoid", labels), axis=1)
    places = 21 * (image // 32) ** 2
    g.output("predictions", decoded, ("batch", 4 + classes, places))


# ---- UNet: Ronneberger et al. 2015, in the form with batch normalisation of Buda et al. 2019 ----


def _double_conv(g: GraphBuilder, x: Value, channels: int) -> Value:
    return g.conv_bn_act(g.conv_bn_act(x, channels, 3), channels, 3)


def _up_conv(g: GraphBuilder, x: Value, channels: int) -> Value:
    """ConvTranspose 2x2 with stride 2: each output pixel reads one input pixel."""
    weight = g.weight("weight", (x.channels, channels, 2, 2), (x.channels * x.power) ** -0.5)
    bias = g.weight("bias", (channels,), 0.05)
    return g.op("ConvTranspose", x, weight, bias, channels=channels, power=1.0, kernel_shape=[2, 2], strides=[2, 2])


def unet(g: GraphBuilder, image: int | None = 256, width: int = 32, classes: int = 1) -> None:
    """UNet of five levels, `width` channels at the first; `image` is a multiple of 16, None leaves it symbolic.

    Output: float32[batch, classes, image, image], probabilities.
    """
    size = ("height", "width") if image is None else (image, image)
    x = g.input("images", np.float32, ("batch", 3, *size), unit_photo, channels=3, power=UNIT_POWER)
    skips = []
    for level in range(4):
        with g.scope(f"encoder{level + 1}"):
            skips.append(_double_conv(g, x, width << level))
            x = g.max_pool(skips[-1], 2, 2)
    with g.scope("bottleneck"):
        x = _double_conv(g, x, width << 4)
    for level in reversed(range(4)):
        with g.scope(f"decoder{level + 1}"):
            x = g.concat([_up_conv(g, x, width << level), skips[level]])
            x = _double_conv(g, x, width << level)
    g.output("mask", g.op("Sigmoid", g.conv(x, classes, 1, gain=4.0)), ("batch", classes, *size))
