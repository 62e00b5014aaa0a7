"""com.microsoft: weights of 2, 4 or 8 bits with a scale for every block of a row: MatMulNBits, GatherBlockQuantized.

Constant weights of products become float32 before the plan is made, once a session; tables that are gathered from stay as
they are, and the rows that were gathered are unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .cast import widened
from .matmul import matmul
from .primitives import Shape, Tensor
from .quant import spread
from .registry import Takes, contrib
from .weights import content


def unpacked(t: Builder, x: Tensor, bits: int) -> Tensor:
    """The elements of uint8[..., n], of `bits` bits each, the first in the lowest bits, as uint8[..., n * 8 / bits]."""
    if bits not in (2, 4, 8):
        raise OperatorError(f"bits must be 2, 4 or 8, not {bits}")
    if bits == 8:
        return x
    shifts = t.constant(np.arange(0, 8, bits, dtype=np.uint8))
    parts = t.map("(a >> b) & c", t.unsqueeze(x, [-1]), shifts, t.constant((1 << bits) - 1, np.uint8))
    return t.reshape(parts, (*x.shape[:-1], x.shape[-1] * (8 // bits)))


def _once(t: Builder, parts: Sequence[Tensor | None], shape: Shape, key: object, make: Callable) -> Tensor:
    """``make(builder, *parts)``, float32; of a large constant and others it is computed once a session."""
    weight = None if parts[0] is None else parts[0].weight
    if weight is None or not all(x is None or x.is_constant for x in parts):
        return make(t, *parts)
    contents = [None if x is None else x.weight or x.constant for x in parts]

    def compute() -> np.ndarray:
        alone = Builder()
        return make(alone, *(None if x is None else alone.constant(content(x)) for x in contents)).constant

    made = weight.computed((key, *map(id, contents)), compute, np.dtype(np.float32), shape)
    return Tensor(np.float32, shape, weight=made)


# -- products
@contrib("MatMulNBits")
def matmul_nbits(
    t: Builder, A, B, scales, zero_points=None, g_idx=None, bias=None, *,
    K, N, block_size, bits=4, accuracy_level=0, weight_prepacked=0,
):  # fmt: skip
    """A times the transpose of (B - zero point) * scale[N, K]; the zero points are packed like B, or float."""
    if weight_prepacked:
        raise OperatorError(f"weight_prepacked must be 0, not {weight_prepacked}: other layouts belong to GPU kernels")
    if B.size == 0:  # an optional weight that is not there
        y = t.constant(np.zeros((*A.shape[:-1], N), A.dtype))
        return y if bias is None else t.map("a + b", y, bias)
    blocks = -(-K // block_size)
    if B.size * 8 != N * blocks * block_size * bits or scales.size != N * blocks:
        raise OperatorError(f"{B.size} bytes and {scales.size} scales do not fit {N} x {K} values in blocks of {block_size}")

    def dequantised(t: Builder, B: Tensor, scales: Tensor, zeros: Tensor | None, groups: Tensor | None) -> Tensor:
        scales = t.cast(t.reshape(scales, (N, blocks)), np.float32)
        if zeros is None:
            zeros = t.constant(1 << (bits - 1), np.float32)
        elif zeros.dtype == np.uint8:
            zeros = t.take(unpacked(t, t.reshape(zeros, (N, zeros.size // N)), bits), 1, 0, blocks)
        zeros = t.cast(zeros if zeros.rank == 0 else t.reshape(zeros, (N, blocks)), np.float32)
        values = t.cast(unpacked(t, t.reshape(B, (N, B.size // N)), bits), np.float32)
        if groups is None:
            each = [x if x.rank == 0 else t.unsqueeze(x, [2]) for x in (zeros, scales)]
            wide = t.map("(a - b) * c", t.reshape(values, (N, blocks, block_size)), *each)
            return t.take(t.reshape(wide, (N, blocks * block_size)), 1, 0, K)
        each = [x if x.rank == 0 else t.op("Gather", x, groups, axis=1) for x in (zeros, scales)]
        return t.map("(a - b) * c", t.take(values, 1, 0, K), *each)

    key = ("nbits", bits, block_size, K, N)
    weights = _once(t, (B, scales, zero_points, g_idx), (N, K), key, dequantised)
    y = matmul(t, widened(t, A), t.transpose(weights, (1, 0)))
    return t.cast(y if bias is None else t.map("a + b", y, widened(t, bias)), A.dtype)


# -- tables
@contrib("GatherBlockQuantized", takes=Takes.TENSORS)
def gather_block_quantized(
    t: Builder, data, indices, scales, zero_points=None, *, bits=4, block_size=128, quantize_axis=1, gather_axis=0
):
    """Gather from (data - zero point) * scale; uint8 holds `bits` bits an element, what lies outside is 0."""
    if data.rank != scales.rank:
        raise OperatorError(f"data {list(data.shape)} and scales {list(scales.shape)} have different numbers of dimensions")
    along, gathered = axis_index(quantize_axis, data.rank), axis_index(gather_axis, data.rank)
    width = bits if data.dtype == np.uint8 else 8
    if zero_points is None and data.dtype == np.uint8:
        zero_points = t.constant(1 << (bits - 1), np.uint8)
    data, zero_points = (None if x is None else _native(t, x) for x in (data, zero_points))
    size = data.shape[gathered]
    inside = t.map(f"(a >= {-size}) & (a < {size})", indices, dtype="bool")
    index = t.map("select(b, a, 0)", indices, inside)

    def picked(x: Tensor | None) -> Tensor | None:
        if x is None or x.rank == 0:
            return x
        if x.shape[gathered] == 1 != size:  # one for all
            return t.reshape(x, (*x.shape[:gathered], *[1] * indices.rank, *x.shape[gathered + 1 :]))
        return t.op("Gather", x, index, axis=gathered)

    if along == gathered:
        y = picked(_blocks(t, data, scales, zero_points, width, along, block_size))
    else:
        place = along + indices.rank - 1 if along > gathered else along
        y = _blocks(t, picked(data), picked(scales), picked(zero_points), width, place, block_size)
    inside = t.reshape(inside, (*indices.shape, *[1] * (data.rank - 1 - gathered)))
    return t.map("select(b, a, 0)", y, inside)


def _native(t: Builder, x: Tensor) -> Tensor:
    """Elements narrower than a byte as bytes, float8 and float4 as float32."""
    dtype = {"int4": np.int8, "uint4": np.uint8, "uint8": np.uint8}.get(x.dtype.name, np.float32)
    if x.dtype == dtype:
        return x
    if not x.is_constant:
        raise OperatorError(f"data of type {x.dtype} must be constant")
    if x.weight is None:
        return t.constant(x.constant.astype(dtype))
    weight = x.weight
    made = weight.computed("native", lambda: weight.array().astype(dtype), np.dtype(dtype), x.shape)
    return Tensor(dtype, x.shape, weight=made)


def _blocks(t: Builder, data: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, axis: int, block_size: int) -> Tensor:
    """(data - zero point) * scale in the scales' type; block size 0: the whole axis is a block."""
    wide = t.cast(unpacked(t, data, bits), np.float32)
    if zeros is not None:
        if zeros.rank:
            zeros = t.take(unpacked(t, zeros, bits), scales.rank - 1, 0, scales.shape[-1])
        wide = t.map("a - b", wide, t.cast(spread(t, wide, zeros, axis, block_size), np.float32))
    return t.cast(t.map("a * b", wide, t.cast(spread(t, wide, scales, axis, block_size), np.float32)), scales.dtype)
