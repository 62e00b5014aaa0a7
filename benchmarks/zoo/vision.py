"""Image classifiers.

The sizes are those of torchvision's models, and those of the original Caffe model for Inception v1. All but VGG-19 end
in a global pooling and take any picture: `image=None` leaves height and width symbolic. Inputs are float32[batch, 3,
image, image], normalised; outputs are float32[batch, classes] logits (probabilities for Inception v1).
"""

import numpy as np

from .builder import GraphBuilder, Value
from .samplers import photo

BRANCH_GAIN = 0.5  # of a residual branch's last normalisation: branches refine the sum, they do not dominate it


def image_input(g: GraphBuilder, image: int | None) -> Value:
    """The input `pixels`; its height and width are symbolic if `image` is None."""
    size = ("height", "width") if image is None else (image, image)
    return g.input("pixels", np.float32, ("batch", 3, *size), photo, channels=3)


def finish(g: GraphBuilder, logits: Value) -> None:
    """Declares the only output."""
    g.output("logits", logits, ("batch", logits.channels))


# ---- ResNet: He et al. 2016 ----


def _basic_block(g: GraphBuilder, x: Value, width: int, stride: int) -> Value:
    y = g.conv_bn_act(x, width, 3, stride)
    return g.conv_bn_act(y, width, 3, act=None, gain=BRANCH_GAIN)


def _bottleneck(g: GraphBuilder, x: Value, width: int, stride: int) -> Value:
    y = g.conv_bn_act(x, width, 1)
    y = g.conv_bn_act(y, width, 3, stride)
    return g.conv_bn_act(y, 4 * width, 1, act=None, gain=BRANCH_GAIN)


def _resnet(g: GraphBuilder, image: int | None, classes: int, depths: tuple[int, ...], bottleneck: bool) -> None:
    x = g.conv_bn_act(image_input(g, image), 64, 7, 2)
    x = g.max_pool(x, 3, 2, 1)
    branch = _bottleneck if bottleneck else _basic_block
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            with g.scope(f"layer{stage + 1}.{block}"):
                y = branch(g, x, 64 << stage, stride)
                if stride > 1 or x.channels != y.channels:
                    with g.scope("downsample"):
                        x = g.conv_bn_act(x, y.channels, 1, stride, act=None)
                # The shortcut is positive already where it is an identity, so ReLU takes little from the sum.
                x = g.op("Relu", g.add(y, x), power=0.5 * (x.power + y.power) if not block else x.power + 0.7 * y.power)
    finish(g, g.pooled_classifier(x, classes))


def resnet18(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """ResNet-18."""
    _resnet(g, image, classes, (2, 2, 2, 2), bottleneck=False)


def resnet50(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """ResNet-50 (v1.5: the stride is in the 3x3 convolution)."""
    _resnet(g, image, classes, (3, 4, 6, 3), bottleneck=True)


# ---- inverted residuals: MobileNetV2 (Sandler et al. 2018) and EfficientNet (Tan and Le 2019) ----


def _squeeze_excite(g: GraphBuilder, x: Value, squeezed: int) -> Value:
    """Gates channels by their own averages (Hu et al. 2018)."""
    average = g.op("GlobalAveragePool", x)
    gate = g.conv(g.act(g.conv(average, squeezed, 1), "silu"), x.channels, 1)
    return g.op("Mul", x, g.op("Sigmoid", gate), power=0.3 * x.power)  # E[sigmoid(z)^2] is 0.29


def _inverted_residual(
    g: GraphBuilder, x: Value, channels: int, kernel: int, stride: int, expand: int, act: str, squeeze: bool
) -> Value:
    y = x
    if expand > 1:
        y = g.conv_bn_act(y, x.channels * expand, 1, act=act)
    y = g.conv_bn_act(y, y.channels, kernel, stride, act, groups=y.channels)
    if squeeze:
        with g.scope("se"):
            y = _squeeze_excite(g, y, x.channels // 4)
    keep = stride == 1 and x.channels == channels
    y = g.conv_bn_act(y, channels, 1, act=None, gain=BRANCH_GAIN if keep else 1.0)
    return g.add(x, y) if keep else y


def _inverted_stages(
    g: GraphBuilder, x: Value, stages: tuple[tuple[int, int, int, int, int], ...], act: str, squeeze: bool
) -> Value:
    """Runs `stages` of (expansion, kernel, stride, channels, repeats)."""
    for stage, (expand, kernel, first_stride, channels, repeats) in enumerate(stages):
        for block in range(repeats):
            with g.scope(f"features.{stage + 1}.{block}"):
                stride = 1 if block else first_stride
                x = _inverted_residual(g, x, channels, kernel, stride, expand, act, squeeze)
    return x


def mobilenet_v2(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """MobileNetV2, width 1.0."""
    x = g.conv_bn_act(image_input(g, image), 32, 3, 2, "relu6")
    stages = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 3, 2, 32, 3),
        (6, 3, 2, 64, 4),
        (6, 3, 1, 96, 3),
        (6, 3, 2, 160, 3),
        (6, 3, 1, 320, 1),
    )
    x = _inverted_stages(g, x, stages, "relu6", squeeze=False)
    finish(g, g.pooled_classifier(g.conv_bn_act(x, 1280, 1, act="relu6"), classes))


def efficientnet_b0(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """EfficientNet-B0."""
    x = g.conv_bn_act(image_input(g, image), 32, 3, 2, "silu")
    stages = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )
    x = _inverted_stages(g, x, stages, "silu", squeeze=True)
    finish(g, g.pooled_classifier(g.conv_bn_act(x, 1280, 1, act="silu"), classes))


# ---- VGG: Simonyan and Zisserman 2015 ----


def vgg19(g: GraphBuilder, image: int = 224, classes: int = 1000, hidden: int = 4096) -> None:
    """VGG-19 without batch normalisation; `image` is a multiple of 32."""
    x = image_input(g, image)
    for stage, (channels, depth) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))):
        with g.scope(f"features.{stage}"):
            for _ in range(depth):
                x = g.act(g.conv(x, channels, 3), "relu")
            x = g.max_pool(x, 2, 2)
    x = g.op("Flatten", x, channels=x.channels * (image // 32) ** 2, axis=1)
    with g.scope("classifier"):
        for _ in range(2):
            x = g.act(g.gemm(x, hidden), "relu")
        finish(g, g.gemm(x, classes))


# ---- DenseNet: Huang et al. 2017 ----


def densenet121(g: GraphBuilder, image: int | None = 224, classes: int = 1000, growth: int = 32) -> None:
    """DenseNet-121: normalisation comes before convolution, and every layer reads all earlier ones."""
    x = g.max_pool(g.conv_bn_act(image_input(g, image), 2 * growth, 7, 2), 3, 2, 1)
    depths = (6, 12, 24, 16)
    for block, depth in enumerate(depths):
        features = [x]
        for layer in range(depth):
            with g.scope(f"denseblock{block + 1}.denselayer{layer + 1}"):
                y = g.concat(features) if layer else x
                y = g.conv(g.act(g.batch_norm(y), "relu"), 4 * growth, 1, bias=False)
                features.append(g.conv(g.act(g.batch_norm(y), "relu"), growth, 3, bias=False))
        x = g.concat(features)
        if block < len(depths) - 1:
            with g.scope(f"transition{block + 1}"):
                x = g.conv(g.act(g.batch_norm(x), "relu"), x.channels // 2, 1, bias=False)
                x = g.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    finish(g, g.pooled_classifier(g.act(g.batch_norm(x), "relu"), classes))


# ---- SqueezeNet: Iandola et al. 2016 ----


def squeezenet1_1(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """SqueezeNet 1.1: its classifier is a convolution."""
    x = g.act(g.conv(image_input(g, image), 64, 3, 2, pad=0), "relu")
    fires = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    for i, (squeeze, expand) in enumerate(fires):
        if i in (0, 2, 4):
            x = g.max_pool(x, 3, 2, ceil=True)
        with g.scope(f"fire{i + 2}"):
            x = g.act(g.conv(x, squeeze, 1), "relu")
            x = g.concat([g.act(g.conv(x, expand, 1), "relu"), g.act(g.conv(x, expand, 3), "relu")])
    x = g.act(g.conv(x, classes, 1), "relu")
    finish(g, g.op("Flatten", g.op("GlobalAveragePool", x), axis=1))


# ---- Inception v1: Szegedy et al. 2015 ----

INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _inception_block(g: GraphBuilder, x: Value, widths: tuple[int, ...]) -> Value:
    one, reduce3, three, reduce5, five, pooled = widths

    def unit(y: Value, channels: int, kernel: int) -> Value:
        return g.act(g.conv(y, channels, kernel), "relu")

    return g.concat(
        [
            unit(x, one, 1),
            unit(unit(x, reduce3, 1), three, 3),
            unit(unit(x, reduce5, 1), five, 5),
            unit(g.max_pool(x, 3, 1, 1), pooled, 1),
        ]
    )


def inception_v1(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """Inception v1 (GoogLeNet) with local response normalisation, without the auxiliary classifiers."""

    def response_norm(y: Value) -> Value:
        return g.op("LRN", y, size=5, alpha=1e-4, beta=0.75, bias=1.0)

    x = g.act(g.conv(image_input(g, image), 64, 7, 2), "relu")
    x = response_norm(g.max_pool(x, 3, 2, ceil=True))
    x = g.act(g.conv(x, 64, 1), "relu")
    x = response_norm(g.act(g.conv(x, 192, 3), "relu"))
    for name, widths in INCEPTION.items():
        if name in ("3a", "4a", "5a"):
            x = g.max_pool(x, 3, 2, ceil=True)
        with g.scope(f"inception_{name}"):
            x = _inception_block(g, x, widths)
    logits = g.pooled_classifier(x, classes)
    g.output("probabilities", g.op("Softmax", logits, axis=1), ("batch", classes))


# ---- ShuffleNet v2: Ma et al. 2018 ----


def _channel_shuffle(g: GraphBuilder, x: Value) -> Value:
    """Interleaves the two halves of the channels."""
    y = g.reshape(x, (0, 2, x.channels // 2, -1), x.channels)
    return g.op("Reshape", g.transpose(y, 0, 2, 1, 3), g.op("Shape", x))


def _shuffle_branch(g: GraphBuilder, x: Value, channels: int, stride: int) -> Value:
    y = g.conv_bn_act(x, channels, 1)
    y = g.conv_bn_act(y, channels, 3, stride, act=None, groups=channels)
    return g.conv_bn_act(y, channels, 1)


def _shuffle_unit(g: GraphBuilder, x: Value, channels: int, stride: int) -> Value:
    half = channels // 2
    if stride == 1:
        left, right = g.split(x, 2)
    else:
        left = g.conv_bn_act(x, x.channels, 3, stride, act=None, groups=x.channels)
        left, right = g.conv_bn_act(left, half, 1), x
    return _channel_shuffle(g, g.concat([left, _shuffle_branch(g, right, half, stride)]))


def shufflenet_v2(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """ShuffleNet v2, width 1.0."""
    x = g.max_pool(g.conv_bn_act(image_input(g, image), 24, 3, 2), 3, 2, 1)
    for stage, (channels, depth) in enumerate(((116, 4), (232, 8), (464, 4))):
        for block in range(depth):
            with g.scope(f"stage{stage + 2}.{block}"):
                x = _shuffle_unit(g, x, channels, 1 if block else 2)
    finish(g, g.pooled_classifier(g.conv_bn_act(x, 1024, 1), classes))
