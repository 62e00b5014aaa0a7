"""Pooling: MaxPool, AveragePool, LpPool and their global forms, on `kernels/pool`. Channels-last in memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, Declined, OperatorError
from .convolve import padding
from .kernels import pool as kernels
from .kernels.image import Image
from .kernels.pool import Window
from .primitives import LaunchContext, Operand, Parts, Tensor
from .reduce import fold_mean
from .registry import op


@op("MaxPool", since=1)
def max_pool(
    t: Builder, X: Tensor, *, kernel_shape, auto_pad="NOTSET", ceil_mode=0, dilations=None, pads=None, storage_order=0, strides=None
):  # fmt: skip
    """The largest value of each window, and its index where it is asked for."""
    indices = len(t.output_names) > 1 and bool(t.output_names[1])
    if X.dtype == bool:
        raise Declined("maximum of bool")
    return _pool(
        t, X, "max", kernel_shape, auto_pad, ceil_mode, dilations, pads, strides, column_major=bool(storage_order), indices=indices
    )


@op("AveragePool", since=1)
def average_pool(
    t: Builder, X: Tensor, *,
    kernel_shape, auto_pad="NOTSET", ceil_mode=0, count_include_pad=0, dilations=None, pads=None, strides=None,
) -> Tensor:  # fmt: skip
    """The mean of each window, over the image or over image and border."""
    include_pad = bool(count_include_pad)
    return _pool(t, X, "average", kernel_shape, auto_pad, ceil_mode, dilations, pads, strides, include_pad=include_pad)[0]


@op("LpPool", since=1)
def lp_pool(
    t: Builder, X: Tensor, *, kernel_shape=None, auto_pad="NOTSET", ceil_mode=0, dilations=None, p=2, pads=None, strides=None
) -> Tensor:  # fmt: skip
    """The p-norm of each window."""
    if kernel_shape is None or p != int(p):
        raise Declined("LpPool of opset 1 without a window")
    return _pool(t, X, "lp", kernel_shape, auto_pad, ceil_mode, dilations, pads, strides, p=int(p))[0]


@op("GlobalAveragePool", since=1)
def global_average_pool(t: Builder, X: Tensor) -> Tensor:
    """The mean over all spatial dimensions."""
    return fold_mean(t, X, range(2, X.rank))


@op("GlobalMaxPool", since=1)
def global_max_pool(t: Builder, X: Tensor) -> Tensor:
    """The largest value over all spatial dimensions."""
    return t.reduce("maximum", X, range(2, X.rank))


@op("GlobalLpPool", since=1)
def global_lp_pool(t: Builder, X: Tensor, *, p=2) -> Tensor:
    """The p-norm over all spatial dimensions."""
    powers = t.map("a * a" if p == 2 else f"pow(absolute(a), {float(p)!r})", X)
    total = t.reduce("add", powers, range(2, X.rank))
    return t.map("sqrt(a)" if p == 2 else f"pow(a, {1.0 / p!r})", total)


def _pool(
    t: Builder, X: Tensor, mode: str, kernel_shape: Sequence[int], auto_pad: str, ceil_mode: int, dilations, pads, strides,
    *, column_major: bool = False, indices: bool = False, include_pad: bool = False, p: int = 2,
) -> tuple[Tensor, ...]:  # fmt: skip
    spatial = X.rank - 2
    if not 1 <= spatial <= 3:
        raise Declined("pooling over more than 3 dimensions")
    if len(kernel_shape) != spatial:
        raise OperatorError(f"kernel_shape {list(kernel_shape)} does not fit an input of rank {X.rank}")
    kernel, steps = tuple(kernel_shape), tuple(strides or (1,) * spatial)
    dils = tuple(dilations or (1,) * spatial)
    begin, end = padding(auto_pad, pads, X.shape[2:], kernel, steps, dils)
    size = tuple(window_count(*each, bool(ceil_mode)) for each in zip(X.shape[2:], kernel, steps, dils, begin, end))
    if any(n < 0 for n in size):
        raise OperatorError(f"window {list(kernel)} is larger than the padded image of {list(X.shape[2:])}")
    window = Window(kernel, steps, dils, begin, end, include_pad=include_pad, p=p, column_major=column_major)
    return _windows(t, X, mode, window, size, indices)


def _windows(t: Builder, X: Tensor, mode: str, window: Window, size: tuple[int, ...], indices: bool) -> tuple[Tensor, ...]:
    shape = (*X.shape[:2], *size)

    def launch(x: LaunchContext) -> list:
        positions = _image(x.outputs[1]) if indices else None
        return kernels.pool(
            evaluate.memory_name(X.dtype), mode, _image(x.inputs[0]), _image(x.outputs[0]), window, indices=positions,
            alloc=x.alloc, threads=x.threads, label=f"{'x'.join(map(str, window.kernel))} on {'x'.join(map(str, X.shape[1:]))}",
        )  # fmt: skip

    order = (0, *range(2, len(shape)), 1)
    outputs = [(X.dtype, shape)] + ([(np.dtype(np.int64), shape)] if indices else [])
    parts = Parts(lambda other, inputs, begin, rows: _windows(other, inputs[0], mode, window, size, False)[0], None)
    return t.kernel(
        f"{mode} pool", (X,), outputs, launch, output_orders=(order,) * len(outputs), flops=prod(shape) * prod(window.kernel),
        parts=None if indices else parts,
    )  # fmt: skip


def window_count(n: int, kernel: int, step: int, dilation: int, begin: int, end: int, ceil: bool) -> int:
    """Number of windows; with `ceil` one more that begins inside the image or its first border."""
    room = n + begin + end - (kernel - 1) * dilation - 1
    size = (-(-room // step) if ceil else room // step) + 1
    if ceil and (size - 1) * step >= n + begin:
        size -= 1
    return size


def _image(x: Operand) -> Image:
    return Image(x.address, x.shape, x.strides)
