"""Vision transformers in stages, each at half the resolution of the one before: Swin (classes), SegFormer (a map).

Inputs are float32[batch, 3, image, image], normalised.
"""

import numpy as np

from .builder import GraphBuilder, Value
from .encoders import QUERY_GAIN
from .image import finish, image_input

MASKED = -100.0  # added to the scores of places that are neighbours only because the picture was rolled


# ---- Swin: Liu et al. 2021 ----


def _windows(g: GraphBuilder, x: Value, side: int, window: int) -> Value:
    """float32[N, side, side, C] to float32[N * windows, window^2, C]."""
    count = side // window
    y = g.reshape(x, (-1, count, window, count, window, x.channels))
    return g.reshape(g.transpose(y, 0, 1, 3, 2, 4, 5), (-1, window * window, x.channels))


def _picture(g: GraphBuilder, x: Value, side: int, window: int) -> Value:
    """The inverse of `_windows`."""
    count = side // window
    y = g.reshape(x, (-1, count, count, window, window, x.channels))
    return g.reshape(g.transpose(y, 0, 1, 3, 2, 4, 5), (-1, side, side, x.channels))


def _roll(g: GraphBuilder, x: Value, shift: int, side: int) -> Value:
    """Moves float32[N, H, W, C] up and left by `shift`, around the border; a negative shift moves it back."""
    cut = shift % side
    for axis in (1, 2):
        parts = g.slice(x, cut, side, axis), g.slice(x, 0, cut, axis)
        x = g.op("Concat", *parts, axis=axis)
    return x


def _roll_mask(side: int, window: int, shift: int) -> np.ndarray:
    """What is added to the scores of each window of a rolled picture, float32[windows, 1, window^2, window^2]."""
    line = np.searchsorted([side - window, side - shift], np.arange(side), side="right")
    regions = (3 * line[:, None] + line).reshape(side // window, window, side // window, window)
    regions = regions.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(regions[:, :, None] != regions[:, None], MASKED, 0.0)[:, None]


def _window_bias(g: GraphBuilder, window: int, heads: int) -> Value:
    """A learned bias for each offset between two places of a window, float32[1, heads, window^2, window^2]."""
    places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    offset = places[:, :, None] - places[:, None] + window - 1
    index = g.const((offset[0] * (2 * window - 1) + offset[1]).ravel())
    table = g.weight("relative_position_bias_table", ((2 * window - 1) ** 2, heads), 0.5)
    bias = g.reshape(g.op("Gather", table, index, axis=0), (window * window, window * window, heads))
    return g.unsqueeze(g.transpose(bias, 2, 0, 1), 0)


def _window_attention(g: GraphBuilder, x: Value, side: int, window: int, shift: int, heads: int) -> Value:
    """Attention among the places of each window, float32[N * windows, window^2, C]."""
    size, places, count = x.channels // heads, window * window, (side // window) ** 2
    joint = g.reshape(g.linear(x, 3 * x.channels, 2.0), (-1, places, 3, heads, size), size)
    joint = g.transpose(joint, 2, 0, 3, 1, 4)
    query, key, value = (g.op("Gather", joint, g.const(i), axis=0) for i in range(3))
    query = g.op("Mul", query, g.scalar(size**-0.5))
    scores = g.op("MatMul", query, g.transpose(key, 0, 1, 3, 2))
    scores = g.op("Add", scores, _window_bias(g, window, heads))
    if shift:
        apart = g.reshape(scores, (-1, count, heads, places, places))
        apart = g.op("Add", apart, g.fixed("attention_mask", _roll_mask(side, window, shift)))
        scores = g.reshape(apart, (-1, heads, places, places))
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), value, channels=size, power=0.3 * value.power)
    return g.reshape(g.transpose(mixed, 0, 2, 1, 3), (-1, places, x.channels), x.channels)


def _swin_block(g: GraphBuilder, x: Value, side: int, window: int, shift: int, heads: int) -> Value:
    with g.scope("attn"):
        y = g.layer_norm(x)
        y = _roll(g, y, shift, side) if shift else y
        y = _window_attention(g, _windows(g, y, side, window), side, window, shift, heads)
        y = _picture(g, g.linear(y, x.channels, 0.25), side, window)
        x = g.add(x, _roll(g, y, -shift, side) if shift else y)
    with g.scope("mlp"):
        y = g.act(g.linear(g.layer_norm(x), 4 * x.channels), "gelu")
        return g.add(x, g.linear(y, x.channels, 0.25))


def _merge_patches(g: GraphBuilder, x: Value) -> Value:
    """Four neighbours become one place with twice the channels."""

    def every_second(row: int, column: int) -> Value:
        starts, ends = g.const([row, column]), g.const([np.iinfo(np.int64).max] * 2)
        return g.op("Slice", x, starts, ends, g.const([1, 2]), g.const([2, 2]))

    joined = g.concat([every_second(i, j) for j in (0, 1) for i in (0, 1)], axis=-1)
    return g.linear(g.layer_norm(joined), 2 * x.channels, bias=False)


def swin_tiny(
    g: GraphBuilder,
    image: int = 224,
    classes: int = 1000,
    depths: tuple[int, ...] = (2, 2, 6, 2),
    width: int = 96,
    heads: int = 3,
    window: int = 7,
) -> None:
    """Swin-T; `image` is a multiple of 4 * window for each stage's doubling.

    Output: float32[batch, classes] logits.
    """
    with g.scope("patch_embed"):
        x = g.layer_norm(g.transpose(g.conv(image_input(g, image), width, 4, 4, pad=0), 0, 2, 3, 1))
    for stage, depth in enumerate(depths):
        side = image >> (2 + stage)
        if stage:
            with g.scope(f"merge.{stage}"):
                x = _merge_patches(g, x)
        for block in range(depth):
            with g.scope(f"stages.{stage}.{block}"):
                shift = window // 2 if block % 2 and side > window else 0
                x = _swin_block(g, x, side, window, shift, heads << stage)
    x = g.transpose(g.layer_norm(x), 0, 3, 1, 2)
    finish(g, g.pooled_classifier(x, classes))


# ---- SegFormer: Xie et al. 2021 ----


def _sequence(g: GraphBuilder, x: Value) -> Value:
    """float32[N, C, H, W] to float32[N, H * W, C]."""
    return g.transpose(g.reshape(x, (0, x.channels, -1)), 0, 2, 1)


def _image(g: GraphBuilder, x: Value, side: int) -> Value:
    """float32[N, side^2, C] to float32[N, C, side, side]."""
    return g.reshape(g.transpose(x, 0, 2, 1), (0, x.channels, side, side))


def _reduced_attention(g: GraphBuilder, x: Value, side: int, heads: int, reduction: int) -> Value:
    """Every place asks a picture that a strided convolution has made smaller."""
    query = g.heads(g.linear(x, x.channels, QUERY_GAIN), heads)
    seen = x
    if reduction > 1:
        with g.scope("sr"):
            seen = g.conv(_image(g, x, side), x.channels, reduction, reduction, pad=0)
            seen = g.layer_norm(_sequence(g, seen))
    key = g.heads(g.linear(seen, x.channels), heads, 0, 2, 3, 1)
    value = g.heads(g.linear(seen, x.channels), heads)
    size = x.channels // heads
    mixed = g.attention(query, key, value, heads=heads, scale=size**-0.5)
    return g.linear(mixed, x.channels, 0.25)


def _segformer_block(g: GraphBuilder, x: Value, side: int, heads: int, reduction: int) -> Value:
    """The perceptron holds a depthwise convolution, which tells it where it is: there is no embedding of positions."""
    with g.scope("attention"):
        x = g.add(_reduced_attention(g, g.layer_norm(x), side, heads, reduction), x)
    with g.scope("mlp"):
        y = _image(g, g.linear(g.layer_norm(x), 4 * x.channels), side)
        y = g.act(_sequence(g, g.conv(y, y.channels, 3, groups=y.channels)), "gelu")
        return g.add(g.linear(y, x.channels, 0.25), x)


def segformer_b0(g: GraphBuilder, image: int = 512, classes: int = 150, depth: int = 2, hidden: int = 256) -> None:
    """SegFormer-B0 with its head; `image` is a multiple of 32.

    Output: float32[batch, classes, image / 4, image / 4] logits.
    """
    x, features = image_input(g, image), []
    for stage, (width, heads, reduction) in enumerate(((32, 1, 8), (64, 2, 4), (160, 5, 2), (256, 8, 1))):
        side = image >> (2 + stage)
        with g.scope(f"patch_embed.{stage}"):
            x = g.layer_norm(_sequence(g, g.conv(x, width, 3, 2) if stage else g.conv(x, width, 7, 4)))
        for block in range(depth):
            with g.scope(f"block.{stage}.{block}"):
                x = _segformer_block(g, x, side, heads, reduction)
        x = _image(g, g.layer_norm(x), side)
        features.append(x)
    with g.scope("decode_head"):
        _finish_map(g, features, image // 4, classes, hidden)


def _finish_map(g: GraphBuilder, features: list[Value], side: int, classes: int, hidden: int) -> None:
    """Brings all levels to `hidden` channels and the size of the first, mixes them and declares the output."""
    levels = []
    for i, x in enumerate(features):
        with g.scope(f"linear_c.{i}"):
            y = _image(g, g.linear(_sequence(g, x), hidden), side >> i)
            sizes = g.op("Concat", g.op("Shape", y, start=0, end=2), g.const([side, side]), axis=0)
            half = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel", "cubic_coeff_a": -0.75}
            levels.append(g.op("Resize", y, None, None, sizes, **half))
    mixed = g.conv_bn_act(g.concat(levels[::-1]), hidden, 1)
    g.output("logits", g.conv(mixed, classes, 1), ("batch", classes, side, side))
