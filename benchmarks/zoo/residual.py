"""Image classifiers with shortcuts: ResNet, DenseNet, RegNet, ConvNeXt. The sizes are those of torchvision's models.

All end in a global pooling and take any picture.
"""

from .builder import GraphBuilder, Value
from .image import BRANCH_GAIN, finish, image_input, squeeze_excite

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


# ---- RegNetY: Radosavovic et al. 2020 ----


def _regnet_block(g: GraphBuilder, x: Value, width: int, stride: int, group_width: int) -> Value:
    """A bottleneck that keeps its width: 1x1, grouped 3x3, squeeze-excite, 1x1."""
    y = g.conv_bn_act(x, width, 1)
    y = g.conv_bn_act(y, width, 3, stride, groups=width // group_width)
    with g.scope("se"):
        y = squeeze_excite(g, y, round(x.channels / 4), "relu")
    return g.conv_bn_act(y, width, 1, act=None, gain=BRANCH_GAIN)


def regnet_y_800mf(g: GraphBuilder, image: int | None = 224, classes: int = 1000, group_width: int = 16) -> None:
    """RegNetY of 800 million multiply-adds."""
    x = g.conv_bn_act(image_input(g, image), 32, 3, 2)
    for stage, (width, depth) in enumerate(((64, 1), (144, 3), (320, 8), (784, 2))):
        for block in range(depth):
            with g.scope(f"stage{stage + 1}.{block}"):
                y = _regnet_block(g, x, width, 1 if block else 2, group_width)
                if not block:
                    with g.scope("proj"):
                        x = g.conv_bn_act(x, width, 1, 2, act=None)
                x = g.op("Relu", g.add(y, x), power=0.5 * (x.power + y.power) if not block else x.power + 0.7 * y.power)
    finish(g, g.pooled_classifier(x, classes))


# ---- ConvNeXt: Liu et al. 2022 ----


def _channel_norm(g: GraphBuilder, x: Value) -> Value:
    """Layer normalisation over the channels of float32[N, C, H, W], by way of channels last."""
    return g.transpose(g.layer_norm(g.transpose(x, 0, 2, 3, 1), epsilon=1e-6), 0, 3, 1, 2)


def _convnext_block(g: GraphBuilder, x: Value) -> Value:
    """Depthwise 7x7, then a perceptron over channels, whose result is scaled channel by channel."""
    y = g.conv(x, x.channels, 7, groups=x.channels)
    y = g.layer_norm(g.transpose(y, 0, 2, 3, 1), epsilon=1e-6)
    y = g.linear(g.act(g.linear(y, 4 * x.channels), "gelu"), x.channels)
    scale = g.weight("layer_scale", (x.channels, 1, 1), BRANCH_GAIN)
    y = g.op("Mul", scale, g.transpose(y, 0, 3, 1, 2), channels=x.channels, power=BRANCH_GAIN**2 * y.power)
    return g.add(y, x)


def convnext_tiny(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """ConvNeXt-T."""
    x = image_input(g, image)
    for stage, (width, depth) in enumerate(((96, 3), (192, 3), (384, 9), (768, 3))):
        with g.scope(f"downsample{stage}"):
            x = g.conv(_channel_norm(g, x), width, 2, 2, pad=0) if stage else _channel_norm(g, g.conv(x, width, 4, 4, pad=0))
        for block in range(depth):
            with g.scope(f"stages.{stage}.{block}"):
                x = _convnext_block(g, x)
    pooled = _channel_norm(g, g.op("GlobalAveragePool", x))
    finish(g, g.gemm(g.op("Flatten", pooled, axis=1), classes))
