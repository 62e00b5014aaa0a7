"""com.microsoft: weights of 2, 4 or 8 bits with a scale for every block: MatMulNBits, MatMulBnb4, GatherBlockQuantized.

Weights stay packed: `kernels/nbits` unpacks them in registers, and of a table the rows that were gathered are unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .cast import widened
from .evaluate import memory_name
from .kernels import nbits
from .kernels.matrix import Matrix
from .matmul import matmul
from .primitives import LaunchContext, Shape, Tensor
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


def _once(
    t: Builder, parts: Sequence[Tensor | None], shape: Shape, key: object, make: Callable, dtype: type = np.float32
) -> Tensor:
    """``make(builder, *parts)``; of a large constant and others it is computed once a session."""
    weight = None if parts[0] is None else parts[0].weight
    if weight is None or not all(x is None or x.is_constant for x in parts):
        return make(t, *parts)
    contents = [None if x is None else x.weight or x.constant for x in parts]

    def compute() -> np.ndarray:
        alone = Builder()
        return make(alone, *(None if x is None else alone.constant(content(x)) for x in contents)).constant

    made = weight.computed((key, *map(id, contents)), compute, np.dtype(dtype), shape)
    return Tensor(dtype, shape, weight=made)


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
    if B.size * 8 != N * blocks * block_size * bits or scales.size != N * blocks or A.shape[-1] != K:
        raise OperatorError(
            f"{B.size} bytes and {scales.size} scales do not fit {N} x {K} values in blocks of {block_size}, or {list(A.shape)}"
        )
    rows = _Rows(bits, block_size, blocks, N, K)
    packed, wide = t.reshape(B, (N, B.size // N)), widened(t, A)
    each = rows.scales(t, scales), None if zero_points is None else rows.zeros(t, zero_points)
    y = rows.grouped_product(t, wide, packed, *each, g_idx) if g_idx is not None else rows.product(t, wide, packed, *each)
    return t.cast(y if bias is None else t.map("a + b", y, widened(t, bias)), A.dtype)


@dataclass(frozen=True)
class _Rows:
    """N rows of K elements of `bits` bits, each in `blocks` blocks."""

    bits: int
    block: int
    blocks: int
    count: int
    length: int

    def scales(self, t: Builder, x: Tensor) -> Tensor:
        """float32[N, blocks]."""
        shape = (self.count, self.blocks)
        return _once(t, (x,), shape, "scales", lambda t, x: t.cast(t.reshape(x, shape), np.float32))

    def zeros(self, t: Builder, x: Tensor) -> Tensor:
        """Zero points [N, blocks], uint8 or float32."""
        shape = (self.count, self.blocks)
        if x.dtype != np.uint8:
            return self.scales(t, x)

        def apart(t: Builder, x: Tensor) -> Tensor:
            return t.take(unpacked(t, t.reshape(x, (self.count, x.size // self.count)), self.bits), 1, 0, self.blocks)

        return _once(t, (x,), shape, ("zeros", self.bits), apart, np.uint8)

    def product(self, t: Builder, x: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
        """x[..., K] by all rows, on `kernels/nbits`."""
        rows, phases = prod(x.shape[:-1]), 8 // self.bits
        whole = self.blocks * self.block
        x2 = t.pad(t.reshape(x, (rows, self.length)), (0, 0), (0, whole - self.length))
        many = rows >= nbits.MANY_ROWS
        taken = x2 if many else t.transpose(t.reshape(x2, (rows, whole // phases, phases)), (0, 2, 1))
        kind = "none" if zeros is None else memory_name(zeros.dtype)

        def launch(c: LaunchContext) -> list:
            addresses = [1 if v is None else v.address for v in c.inputs[1:]]
            weights = nbits.Weights(self.bits, self.block, self.blocks, self.count, kind, *addresses)
            label = f"{rows}x{self.length}x{self.count} of {self.bits} bits"
            source, y = c.inputs[0], c.outputs[0]
            if not many:
                return nbits.multiply(source.address, weights, y.address, rows, c.threads, label)
            matrices = (Matrix(v.address, (1, *v.shape), (0, *v.strides)) for v in (source, y))
            return nbits.unpacked_product(next(matrices), weights, next(matrices), c.alloc, c.threads, label)

        def reference(values: list[np.ndarray | None]) -> list[np.ndarray]:
            given = [None if v is None else t.constant(v) for v in values[1:]]
            whole_rows = self.values(Builder(), *given).constant
            x = values[0] if many else values[0].transpose(0, 2, 1).reshape(rows, whole)
            return [x[:, : self.length] @ whole_rows.T]

        inputs = (taken, packed, scales, zeros)
        (y,) = t.kernel(
            "nbits", inputs, [(np.dtype(np.float32), (rows, self.count))], launch,
            orders=tuple(None if v is None else tuple(range(v.rank)) for v in inputs), output_orders=((0, 1),),
            flops=2 * rows * self.count * self.length, reference=reference,
        )  # fmt: skip
        return t.reshape(y, (*x.shape[:-1], self.count))

    def values(self, t: Builder, packed: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
        """float32[N, K]."""
        wide = t.cast(unpacked(t, packed, self.bits), np.float32)
        wide = t.reshape(wide, (self.count, self.blocks, self.block))
        middle = t.constant(1 << (self.bits - 1), np.float32)
        offset = middle if zeros is None else t.unsqueeze(t.cast(zeros, np.float32), [2])
        made = t.map("(a - b) * c", wide, offset, t.unsqueeze(scales, [2]))
        return t.take(t.reshape(made, (self.count, self.blocks * self.block)), 1, 0, self.length)

    def grouped_product(
        self, t: Builder, x: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor | None, groups: Tensor
    ) -> Tensor:
        """x[..., K] by all rows, of which element k belongs to block groups[k]."""
        wide = t.take(t.cast(unpacked(t, packed, self.bits), np.float32), 1, 0, self.length)
        middle = t.constant(1 << (self.bits - 1), np.float32)
        offset = middle if zeros is None else t.op("Gather", t.cast(zeros, np.float32), groups, axis=1)
        values = t.map("(a - b) * c", wide, offset, t.op("Gather", scales, groups, axis=1))
        return matmul(t, x, t.transpose(values, (1, 0)))


# what bitsandbytes' 4 bits stand for: its floats with 2 bits of exponent and 1 of mantissa, as shares of the greatest,
# and quantiles of the normal distribution
_FP4 = [0.0, 0.0052083333, 2 / 3, 1.0, 1 / 3, 0.5, 1 / 6, 0.25]
_FP4 += [-v for v in _FP4]
_NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


@contrib("MatMulBnb4")
def matmul_bnb4(t: Builder, A, B, absmax, *, K, N, block_size, quant_type, training_mode=0, transB=1):
    """A times the transpose of B[N, K], whose elements stand for numbers of a table (quant_type), times their block's scale."""
    if quant_type not in (0, 1) or not transB:
        raise OperatorError(f"quant_type must be 0 or 1, not {quant_type}, and transB must be 1")
    blocks = -(-N * K // block_size)
    if B.size != -(-N * K // 2) or absmax.size != blocks or A.shape[-1] != K:
        raise OperatorError(f"{B.size} bytes and {absmax.size} scales do not fit {N} x {K} values in blocks of {block_size}")
    table = np.array(_NF4 if quant_type else _FP4, np.float32)

    def values(t: Builder, packed: Tensor, scales: Tensor) -> Tensor:
        halves = t.map("(a >> b) & c", t.reshape(packed, (B.size, 1)), t.constant([4, 0], np.uint8), t.constant(15, np.uint8))
        made = t.op("Gather", t.constant(table), t.cast(t.reshape(halves, (2 * B.size,)), np.int32), since=13)
        made = t.pad(t.take(made, 0, 0, N * K), (0,), (blocks * block_size - N * K,))
        made = t.map("a * b", t.reshape(made, (blocks, block_size)), t.reshape(t.cast(scales, np.float32), (blocks, 1)))
        return t.reshape(t.take(t.reshape(made, (blocks * block_size,)), 0, 0, N * K), (N, K))

    weights = _once(t, (B, absmax), (N, K), ("bnb4", N, K, block_size, quant_type), values)
    return t.cast(matmul(t, widened(t, A), t.transpose(weights, (1, 0))), A.dtype)


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
