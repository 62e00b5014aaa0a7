"""ai.onnx: operators that onnx had on trial until opset 9 and then gave up. Old converters wrote them, onnxruntime kept them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .builder import Builder, OperatorError
from .cast import widened
from .norm import moments
from .primitives import Tensor
from .registry import FLOATS, Takes, check_types, elementwise, op

elementwise("Affine", "{alpha=1} * a + {beta=0}")
elementwise("ParametricSoftplus", "{alpha=1} * softplus({beta=1} * a)")
elementwise("Scale", "{scale=1} * a")
elementwise("ScaledTanh", "{alpha=1} * tanh({beta=1} * a)")


@op("ImageScaler")
def image_scaler(t: Builder, x: Tensor, *, scale=1.0, bias=()) -> Tensor:
    """scale * x + bias, one bias a channel of [N, C, H, W]."""
    check_types((x,), FLOATS)
    if len(bias) != x.shape[1]:
        raise OperatorError(f"{len(bias)} biases for {x.shape[1]} channels")
    shift = t.constant(np.reshape(bias, (len(bias), 1, 1)), x.dtype)
    return t.map("a * b + c", x, t.constant(scale, x.dtype), shift)


@op("Crop")
def crop(t: Builder, x: Tensor, *, border=(), scale: Sequence[int] | None = None) -> Tensor:
    """Images without a border (left, top, right, bottom); with `scale` (height, width) of that size, from the border on."""
    if len(border) != 4 or x.rank != 4:
        raise OperatorError(f"a border of {len(border)} numbers does not fit {list(x.shape)}")
    left, top, right, bottom = border
    height, width = scale if scale is not None else (x.shape[2] - top - bottom, x.shape[3] - left - right)
    if min(height, width, left, top) < 0 or top + height > x.shape[2] or left + width > x.shape[3]:
        raise OperatorError(f"{height} x {width} pixels from ({top}, {left}) on lie outside {list(x.shape)}")
    return t.take(t.take(x, 2, top, top + height), 3, left, left + width)


@op("DynamicSlice", takes=Takes.TENSORS)
def dynamic_slice(t: Builder, data: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None) -> Tensor:
    """Slice without steps."""
    return t.op("Slice", data, starts, ends, axes, since=10)


@op("MeanVarianceNormalization")
def mean_variance_normalization_of_images(t: Builder, x: Tensor, *, across_channels=0, normalize_variance=1) -> Tensor:
    """Each channel of the images, or all of them, less its mean and by its standard deviation, which are the batch's."""
    check_types((x,), FLOATS)
    axes = [d for d in range(x.rank) if across_channels or d != 1]
    _, deviation, variance = moments(t, widened(t, x), axes)
    return t.cast(t.map("a / sqrt(b)", deviation, variance) if normalize_variance else deviation, x.dtype)
