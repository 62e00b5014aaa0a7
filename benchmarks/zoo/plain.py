"""Image classifiers that are chains of layers with large dense ones at the end: AlexNet, ZFNet, VGG.

`image` is what the dense layers are made for.
"""

from .builder import GraphBuilder, Value
from .image import finish, image_input


def _dense(g: GraphBuilder, x: Value, places: int, hidden: tuple[int, ...], classes: int) -> None:
    """Flatten `places` positions, Gemm and Relu for each of `hidden`, and a last Gemm."""
    x = g.op("Flatten", x, channels=x.channels * places, axis=1)
    with g.scope("classifier"):
        for size in hidden:
            x = g.act(g.gemm(x, size), "relu")
        finish(g, g.gemm(x, classes))


# ---- AlexNet: Krizhevsky et al. 2012, in the form of Caffe's reference model ----


def alexnet(g: GraphBuilder, image: int = 224, classes: int = 1000, hidden: int = 4096) -> None:
    """AlexNet with local response normalisation, and two groups in the convolutions that two GPUs shared."""
    x = image_input(g, image)
    for i, (channels, kernel, stride, pad, groups) in enumerate(((96, 11, 4, 0, 1), (256, 5, 1, 2, 2))):
        with g.scope(f"conv{i + 1}"):
            x = g.act(g.conv(x, channels, kernel, stride, pad=pad, groups=groups), "relu")
            x = g.max_pool(g.op("LRN", x, size=5, alpha=1e-4, beta=0.75, bias=1.0), 3, 2)
    for i, (channels, groups) in enumerate(((384, 1), (384, 2), (256, 2))):
        with g.scope(f"conv{i + 3}"):
            x = g.act(g.conv(x, channels, 3, groups=groups), "relu")
    side = (((image - 11) // 4 - 2) // 2 - 2) // 2 + 1
    _dense(g, g.max_pool(x, 3, 2, ceil=True), (-(-(side - 3) // 2) + 1) ** 2, (hidden, hidden), classes)


# ---- ZFNet-512: Zeiler and Fergus 2014, the wider variant ----


def zfnet512(g: GraphBuilder, image: int = 224, classes: int = 1000, hidden: int = 4096) -> None:
    """ZFNet with 512 channels in its last three convolutions."""
    x, side = image_input(g, image), image
    for i, (channels, kernel) in enumerate(((96, 7), (256, 5))):
        with g.scope(f"conv{i + 1}"):
            x = g.act(g.conv(x, channels, kernel, 2, pad=0), "relu")
            normal = g.op("LRN", x, size=5, alpha=5e-4, beta=0.75, bias=2.0, power=2**-1.5 * x.power)
            x, side = g.max_pool(normal, 3, 2), ((side - kernel) // 2 - 2) // 2 + 1
    for i in range(3):
        with g.scope(f"conv{i + 3}"):
            x = g.act(g.conv(x, 512, 3), "relu")
    _dense(g, g.max_pool(x, 2, 2), (side // 2) ** 2, (hidden, hidden // 4), classes)


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
