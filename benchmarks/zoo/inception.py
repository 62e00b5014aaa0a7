"""Image classifiers of Inception blocks: parallel branches, concatenated. Their auxiliary classifiers are left out.

Both end in a global pooling; Inception v1 takes any picture, v2 those whose sides are multiples of 32.
"""

from .builder import GraphBuilder, Value
from .image import finish, image_input

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


# ---- Inception v2: Ioffe and Szegedy 2015 (batch normalisation) ----

# of each block: 1x1; 3x3 and what it reads; two 3x3 in a row and what they read; the pooled branch.
# Blocks without a 1x1 branch halve the picture and pass the pooled one on.
INCEPTION_V2 = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 96),
    "4d": (96, 128, 192, 160, 192, 96),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}


def _average_pool(g: GraphBuilder, x: Value) -> Value:
    """Means of 3x3 windows, padding counted as zeros, of the same size; neighbours resemble each other."""
    pads = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4, "count_include_pad": 1}
    return g.op("AveragePool", x, power=0.6 * x.power, **pads)


def _inception_v2_block(g: GraphBuilder, x: Value, widths: tuple[int, ...], pool: str) -> Value:
    one, reduce3, three, reduce5, five, pooled = widths
    stride = 1 if one else 2
    branches = [g.conv_bn_act(x, one, 1)] if one else []
    branches.append(g.conv_bn_act(g.conv_bn_act(x, reduce3, 1), three, 3, stride))
    y = g.conv_bn_act(g.conv_bn_act(x, reduce5, 1), five, 3)
    branches.append(g.conv_bn_act(y, five, 3, stride))
    if not pooled:
        return g.concat([*branches, g.max_pool(x, 3, 2, ceil=True)])
    y = g.max_pool(x, 3, 1, 1) if pool == "max" else _average_pool(g, x)
    return g.concat([*branches, g.conv_bn_act(y, pooled, 1)])


def inception_v2(g: GraphBuilder, image: int | None = 224, classes: int = 1000) -> None:
    """Inception v2: two 3x3 convolutions in place of a 5x5, batch normalisation after each convolution."""
    x = g.max_pool(g.conv_bn_act(image_input(g, image), 64, 7, 2), 3, 2, ceil=True)
    x = g.conv_bn_act(g.conv_bn_act(x, 64, 1), 192, 3)
    x = g.max_pool(x, 3, 2, ceil=True)
    for name, widths in INCEPTION_V2.items():
        with g.scope(f"inception_{name}"):
            x = _inception_v2_block(g, x, widths, "max" if name == "5b" else "average")
    finish(g, g.pooled_classifier(x, classes))
