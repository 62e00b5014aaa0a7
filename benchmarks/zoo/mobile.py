"""Image classifiers for small devices: SqueezeNet, ShuffleNet, MobileNet, EfficientNet. The sizes are torchvision's.

All end in a global pooling and take any picture.
"""

from .builder import GraphBuilder, Value
from .image import BRANCH_GAIN, finish, image_input, squeeze_excite

# ---- inverted residuals: MobileNetV2 (Sandler et al. 2018), V3 (Howard et al. 2019), EfficientNet (Tan and Le 2019) ----


def _inverted_residual(
    g: GraphBuilder,
    x: Value,
    channels: int,
    kernel: int,
    stride: int,
    *,
    expanded: int,
    act: str,
    squeezed: int = 0,
    excite: tuple[str, str] = ("silu", "Sigmoid"),
    epsilon: float = 1e-5,
) -> Value:
    """1x1 to `expanded` channels, depthwise, gates by way of `squeezed` channels (none for 0), 1x1; `excite` is their form."""
    y = x
    if expanded > x.channels:
        y = g.conv_bn_act(y, expanded, 1, act=act, epsilon=epsilon)
    y = g.conv_bn_act(y, expanded, kernel, stride, act, groups=expanded, epsilon=epsilon)
    if squeezed:
        with g.scope("se"):
            y = squeeze_excite(g, y, squeezed, *excite)
    keep = stride == 1 and x.channels == channels
    y = g.conv_bn_act(y, channels, 1, act=None, gain=BRANCH_GAIN if keep else 1.0, epsilon=epsilon)
    return g.add(x, y) if keep else y


def _inverted_classifier(
    g: GraphBuilder,
    image: int | None,
    classes: int,
    stages: tuple[tuple[int, int, int, int, int], ...],
    act: str,
    squeeze: bool,
) -> None:
    """A first convolution, `stages` of (expansion, kernel, stride, channels, repeats), 1280 channels, the classifier."""
    x = g.conv_bn_act(image_input(g, image), 32, 3, 2, act)
    for stage, (expand, kernel, first_stride, channels, repeats) in enumerate(stages):
        for block in range(repeats):
            with g.scope(f"features.{stage + 1}.{block}"):
                stride = 1 if block else first_stride
                squeezed = x.channels // 4 if squeeze else 0
                x = _inverted_residual(g, x, channels, kernel, stride, expanded=x.channels * expand, act=act, squeezed=squeezed)
    finish(g, g.pooled_classifier(g.conv_bn_act(x, 1280, 1, act=act), classes))


MOBILENET_V2 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 3, 2, 64, 4),
    (6, 3, 1, 96, 3),
    (6, 3, 2, 160, 3),
    (6, 3, 1, 320, 1),
)
EFFICIENTNET_B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def mobilenet_v2(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """MobileNetV2, width 1.0."""
    _inverted_classifier(g, image, classes, MOBILENET_V2, "relu6", squeeze=False)


def efficientnet_b0(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """EfficientNet-B0."""
    _inverted_classifier(g, image, classes, EFFICIENTNET_B0, "silu", squeeze=True)


# kernel, channels inside, channels, squeezed channels (0: no gates), activation, stride
MOBILENET_V3 = (
    (3, 16, 16, 0, "relu", 1),
    (3, 64, 24, 0, "relu", 2),
    (3, 72, 24, 0, "relu", 1),
    (5, 72, 40, 24, "relu", 2),
    (5, 120, 40, 32, "relu", 1),
    (5, 120, 40, 32, "relu", 1),
    (3, 240, 80, 0, "hardswish", 2),
    (3, 200, 80, 0, "hardswish", 1),
    (3, 184, 80, 0, "hardswish", 1),
    (3, 184, 80, 0, "hardswish", 1),
    (3, 480, 112, 120, "hardswish", 1),
    (3, 672, 112, 168, "hardswish", 1),
    (5, 672, 160, 168, "hardswish", 2),
    (5, 960, 160, 240, "hardswish", 1),
    (5, 960, 160, 240, "hardswish", 1),
)


def mobilenet_v3(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """MobileNetV3, large."""
    x = g.conv_bn_act(image_input(g, image), 16, 3, 2, "hardswish", epsilon=1e-3)
    for block, (kernel, expanded, channels, squeezed, act, stride) in enumerate(MOBILENET_V3):
        with g.scope(f"features.{block + 1}"):
            form = {"expanded": expanded, "act": act, "squeezed": squeezed, "excite": ("relu", "HardSigmoid")}
            x = _inverted_residual(g, x, channels, kernel, stride, epsilon=1e-3, **form)
    x = g.op("GlobalAveragePool", g.conv_bn_act(x, 960, 1, act="hardswish", epsilon=1e-3))
    finish(g, g.gemm(g.act(g.gemm(g.op("Flatten", x, axis=1), 1280), "hardswish"), classes))


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
