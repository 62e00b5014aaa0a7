"""Convolutions of 8-bit integers: ConvInteger, and what those of quantised and of dequantised tensors are made of."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np

from .builder import Builder
from .convolve import convolve, windows
from .integers import centred, single
from .kernels.winogradforms import DIFFERENCE
from .primitives import Tensor
from .registry import op

_EXACT = (1 << 24) // 255**2  # products of differences of bytes whose sum float32 holds
_AT_ONCE = 128 << 10  # filters' elements that are widened at once: memory that is new costs more than adding them up
_PAIRED = 2  # channels a group from which on they are multiplied as pairs of int16


@op("ConvInteger", since=10)
def conv_integer(
    t: Builder, x: Tensor, w: Tensor, x_zero_point: Tensor | None = None, w_zero_point: Tensor | None = None, **attributes
) -> Tensor:
    """Conv of (x - x_zero_point) and (w - w_zero_point) in int32, which wraps."""
    return t.cast(conv_of_bytes(t, x, w, x_zero_point, w_zero_point, **attributes), np.int32)


def conv_of_bytes(
    t: Builder, x: Tensor, w: Tensor, x_zero_point: Tensor | None, w_zero_point: Tensor | None, **how
) -> Tensor:  # fmt: skip
    """Conv of (x - x_zero_point) and (w - w_zero_point) in int32, or in float32 if that holds every sum.

    The weights' zero point is one in all, or one a filter.
    """
    own = None if w_zero_point is None else per_filter(t, w_zero_point, w.rank)
    filters, window = centred(t, w, own), windows(x, w, **how)

    def image(dtype: type) -> Tensor:
        return centred(t, x, single(t, x_zero_point), dtype)

    if filters.is_constant and w.shape[1] >= _PAIRED:
        whole = image(np.int16)
        if w.shape[1] % 2:
            whole, filters = _completed(t, whole, window[3]), t.pad(filters, (0,) * w.rank, (0, 1, *(0,) * (w.rank - 2)))
        return convolve(t, whole, filters, None, *window, sum_bits=cache(lambda: _sum_bits(x, w, x_zero_point, own)))
    if prod(w.shape[1:]) <= _EXACT:
        return convolve(t, image(np.float32), t.cast(filters, np.float32), None, *window)
    total = convolve(t, image(np.float64), t.cast(filters, np.float64), None, *window)
    return t.cast(t.cast(total, np.int64), np.int32)


def _sum_bits(x: Tensor, w: Tensor, x_zero: Tensor | None, w_zero: Tensor | None) -> int:
    """How many bits hold every sum of products of x and constant filters, both less their zero points."""
    low, high = _range(x, x_zero)
    filters = w.constant if w.weight is None else w.weight.source()
    zeros = np.broadcast_to(np.int16(0) if w_zero is None else w_zero.constant.astype(np.int16), (w.shape[0], *(1,) * (w.rank - 1)))
    largest, step = 0, max(1, _AT_ONCE // prod(w.shape[1:]))
    for first in range(0, w.shape[0], step):
        factors = (filters[first : first + step].astype(np.int16) - zeros[first : first + step]).reshape(-1, prod(w.shape[1:]))
        total, magnitude = factors.sum(1, dtype=np.int32), np.abs(factors).sum(1, dtype=np.int32)
        above, below = ((magnitude + each).astype(np.int64) // 2 for each in (total, -total))  # of positive and negative factors
        largest = max(largest, int((high * above - low * below).max()), int((high * below - low * above).max()))
    return largest.bit_length() + 1


def _range(x: Tensor, zero: Tensor | None) -> tuple[int, int]:
    """The least and the greatest difference of bytes from their zero point; 0, of borders, is between them."""
    if zero is not None and not zero.is_constant:
        return -DIFFERENCE, DIFFERENCE
    limits, offset = np.iinfo(x.dtype), 0 if zero is None else int(zero.constant.reshape(()))
    return limits.min - offset, limits.max - offset


def _completed(t: Builder, image: Tensor, group: int) -> Tensor:
    """An image with another channel of zeros for each group."""
    n, c, *size = image.shape
    apart = t.reshape(image, (n, group, c // group, *size))
    apart = t.pad(apart, (0,) * apart.rank, (0, 0, 1, *(0,) * len(size)))
    return t.reshape(apart, (n, c + group, *size))


def conv_of_codes(t: Builder, X: Tensor, W: Tensor, B: Tensor | None, how: dict[str, Any]) -> Tensor | None:
    """The convolution of dequantised tensors as the scaled one of their 8-bit integers, if the filters are constant."""
    image, filters = X.codes, W.codes
    if image is None or filters is None or X.dtype != np.float32 or image.scale.size != 1 or not filters.values.is_constant:
        return None
    if filters.scale.size != 1 and filters.axis != 0:
        return None
    total = conv_of_bytes(t, image.values, filters.values, image.zero, filters.zero, **how)
    factor = t.map("a * b", single(t, image.scale), per_filter(t, filters.scale, W.rank - 1))
    y = t.map("to_f32(a) * b", total, factor, dtype=np.float32)
    return y if B is None else t.map("a + b", y, per_filter(t, B, W.rank - 1))


def per_filter(t: Builder, x: Tensor, rank: int) -> Tensor:
    """Numbers, one in all or one a filter, as they broadcast over filters of a rank; for images it is one less."""
    return t.reshape(x, (x.size, *(1,) * (rank - 1)) if x.size > 1 else ())
