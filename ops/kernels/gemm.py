"""Matrix products as convolutions with a 1 x 1 filter: the rows of A are pixels, the columns of B output channels.

C[b] = A[b] B[b] runs on `conv`'s kernel: A is read in place by scalar broadcasts, B from panels of NR columns. A
constant B is packed once; another one is packed by a copying launch in front. Numba-free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .blocking import panel_width
from .conv import conv
from .convweights import PackedWeights, weights_packing
from .image import SIZES, Alloc, Image, Opaque
from .launch import Launch
from .matrix import Matrix
from .packing import Packing
from .padcopy import pad_copy
from .sizes import certainly, most


@dataclass(frozen=True)
class Panels:
    """A batch of packed matrices (`batch_packing`), or one for all (`packing`).

    Attributes:
        address: opaque.
        stride: bytes from one to the next; 0: one serves the whole batch.
        held: memory type of the elements, if it is not the product's: f16 or bf16 of a product of f32.
    """

    address: Opaque
    stride: int = 0
    held: str = ""


def pack(b: np.ndarray) -> np.ndarray:
    """B[K, N] as panels [ceil(N / NR), K, NR], zeros behind the last column."""
    return packing(b.shape, b.dtype).make(b)


def packing(shape: tuple[int, ...], dtype: np.dtype, half: str = "", rounds: bool = False) -> Packing:
    """`pack` of a B of this shape; of int16 [ceil(N / NR), ceil(K / 2), NR, 2].

    `half`: see `weights_packing`. `rounds`: whether not all values are ones of that type.
    """
    k, n = shape
    filters = weights_packing((n, k, 1), dtype, 1, half)
    back = filters.unpack

    def fill(b: np.ndarray, packed: np.ndarray, part: int) -> None:
        filters.fill(b.T[:, :, None], packed.reshape(filters.shape), part)

    unpack = None if back is None else lambda packed: back(packed.reshape(filters.shape))[:, :, 0].T
    return Packing((filters.shape[0], *filters.shape[4:]), filters.dtype, filters.parts, fill, unpack, rounds)


def batch_packing(shape: tuple[int, ...], dtype: np.dtype) -> Packing:
    """`packing` of each matrix of a B[batch, K, N]."""
    batch, one = shape[0], packing(shape[1:], dtype)
    back = one.unpack

    def fill(b: np.ndarray, packed: np.ndarray, part: int) -> None:
        i, rest = divmod(part, one.parts)
        one.fill(b[i], packed[i], rest)

    unpack = None if back is None else lambda packed: np.stack([back(each) for each in packed])
    return Packing((batch, *one.shape), dtype, batch * one.parts, fill, unpack, one.nearly)


def matmul(
    dtype: str,
    a: Matrix,
    b: Matrix | Panels | Opaque,
    c: Matrix,
    *,
    bias: Opaque = 0,
    residual: Matrix | None = None,
    low: float = -np.inf,
    high: float = np.inf,
    epilogue: tuple[Opaque, Opaque] | None = None,
    alloc: Alloc,
    threads: int = 1,
    label: str = "matmul",
) -> list[Launch]:
    """C = clip(A B + bias + residual, low, high).

    Args:
        dtype: f32, f64, i32 or i64; i16x2: an element of A and B is two int16 that are neighbours along K, C is int32.
        b: the matrix, packed ones, or the opaque address of ``pack(B)`` that serves the whole batch.
        bias: address of N values, or 0.
        epilogue: as in `conv`; rows are pixels, the batch index is the image.

    Any of the sizes may be 0; with K = 0 the product is bias and residual alone.
    """
    batch, _, n = c.shape
    k = a.shape[2]
    if 0 in c.shape:
        return []
    launches: list[Launch] = []
    weights = _weights(dtype, b, k, n, batch, launches, alloc, threads, label)
    return launches + conv(
        dtype, _image(a), weights, _image(c), [1], [1], [0], bias=bias, residual=_image(residual) if residual else None,
        low=low, high=high, epilogue=epilogue, alloc=alloc, threads=threads, label=label,
    )  # fmt: skip


def _image(x: Matrix) -> Image:
    """Rows as pixels, columns as channels."""
    (batch, rows, columns), (sb, sr, sc) = x.shape, x.strides
    return Image(x.address, (batch, columns, rows), (sb, sc, sr))


def _weights(
    dtype: str,
    b: Matrix | Panels | Opaque,
    k: int,
    n: int,
    batch: int,
    launches: list[Launch],
    alloc: Alloc,
    threads: int,
    label: str,
) -> PackedWeights:
    size = SIZES[dtype]
    width = panel_width(size)
    panels = -(-n // width)
    made = PackedWeights((n, k, 1, 1, 1), 1)
    if isinstance(b, Panels):
        return replace(made, address=b.address, image_stride=b.stride, held=b.held)
    if not isinstance(b, Matrix):
        return replace(made, address=b)
    shared = batch == 1 or b.strides[0] == 0
    count, each = 1 if shared else batch, panels * k * width * size
    address = alloc(most(count * each, 64))
    full, rest = n // width, n % width
    sb, sk, sn = b.strides
    for first, number, columns in ((0, full, width), (full, 1, rest)):
        if not certainly(number, 0) and not certainly(columns, 0):
            source = Image(b.address + first * width * sn, (count, columns, number, k), (sb, sn, width * sn, sk))
            target = Image(address + first * k * width * size, (count, columns, number, k),
                           (each, size, k * width * size, width * size))  # fmt: skip
            launches += pad_copy(dtype, source, dtype, target, threads=threads, label=f"{label}: pack")
    return replace(made, address=address, image_stride=0 if shared else each, made=True)
