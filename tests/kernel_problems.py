"""What the kernel tests share: images in both layouts, workspace, a float64 reference of convolution."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from kernel_driver import Memory, address_of, block, run

from jitrt.ops.kernels.image import Image

__all__ = ["Memory", "address_of", "block", "convolution", "empty", "image", "native", "output_shape", "relative_error", "run"]


def image(array: np.ndarray) -> Image:
    """An array [N, C, ...] with any strides as an image."""
    return Image(array.ctypes.data, array.shape, array.strides)


def native(array: np.ndarray) -> np.ndarray:
    """The same values, channels-last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def empty(shape: Sequence[int], dtype: np.dtype | str, channels_last: bool = True) -> np.ndarray:
    """An array whose values show that nothing wrote them."""
    made = np.full(tuple(shape), 99, dtype)
    return native(made) if channels_last else made


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest magnitude; 0 for empty arrays."""
    if expected.size == 0:
        return 0.0
    return float(np.abs(got.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-30))


def output_shape(
    x: Sequence[int], w: Sequence[int], strides: Sequence[int], dilations: Sequence[int], begin: Sequence[int], end: Sequence[int]
) -> tuple[int, ...]:
    """Shape of the convolution of x[N, C, ...] with w[O, C / groups, ...]."""
    spatial = (
        max(0, (n + b + e - (k - 1) * d - 1) // s + 1) for n, k, s, d, b, e in zip(x[2:], w[2:], strides, dilations, begin, end)
    )
    return (x[0], w[0], *spatial)


def convolution(
    x: np.ndarray,
    w: np.ndarray,
    strides: Sequence[int],
    dilations: Sequence[int],
    begin: Sequence[int],
    end: Sequence[int],
    groups: int,
) -> np.ndarray:
    """The convolution in float64, tap by tap."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *zip(begin, end)))
    shape = output_shape(x.shape, w.shape, strides, dilations, begin, end)
    y, each, per = np.zeros(shape), w.shape[1], w.shape[0] // groups
    for tap in itertools.product(*map(range, w.shape[2:])):
        seen = tuple(slice(k * d, k * d + (n - 1) * s + 1, s) for k, d, n, s in zip(tap, dilations, shape[2:], strides))
        part = padded[(slice(None), slice(None), *seen)]
        for g in range(groups):
            weights = w[(slice(g * per, (g + 1) * per), slice(None), *tap)].astype(np.float64)
            y[:, g * per : (g + 1) * per] += np.einsum("nc...,oc->no...", part[:, g * each : (g + 1) * each], weights)
    return y


# doubles a tile of outputs and counts each: args are output, image stride, pixel stride, counts, pixels, channels
EPILOGUE = """
def kernel(args, task, scratch):
    where = block(scratch)
    for i in range(where[3]):
        for j in range(where[5]):
            pixel = where[2] + i
            y = args[0] + where[0] * args[1] + pixel * args[2] + (where[4] + j) * 4
            store_f32(y, load_one_f32(y) * 2.0 + to_f32(where[1]))
            count = args[3] + ((where[0] * args[4] + pixel) * args[5] + where[4] + j) * 4
            store_i32(count, load_one_i32(count) + to_i32(1))
"""
