"""How products and tables with weights of few bits are drawn, com.microsoft."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from .catalogue import MICROSOFT, Case, Node, Sums, Undrawable, rule
from .draw import Draw, Values

UINT8, F32 = np.uint8, np.float32


def _bytes(d: Draw, *shape: int) -> np.ndarray:
    return d.indices(shape, 256, UINT8, negative=False)


@rule("MatMulNBits", domain=MICROSOFT)
def matmul_bits(n: Node, d: Draw) -> Case:
    rows, blocks, columns, block = d.size(1), d.integer(1, 3), d.size(1), d.choice([16, 32, 64])
    inner = blocks * block - d.choice([0, 0, 5])
    width = n.set("bits", None, 2, 4, 8) or 4
    n.set("K", inner)
    n.set("N", columns)
    n.set("block_size", block)
    n.set("accuracy_level", None, 0, 1, 4)
    a = n.values("T1", d.choice([(rows, inner), (2, rows, inner)]), Values.PLAIN)
    b = _bytes(d, columns, blocks, block * width // 8)
    steps = (d.values(F32, d.choice([(columns * blocks,), (columns, blocks)]), Values.POSITIVE) / 25).astype(a.dtype)
    zero = None
    if d.chance(50):
        zero = _bytes(d, columns * ((blocks * width + 7) // 8))
        if d.chance(30):
            zero = d.values(a.dtype, (columns * blocks,), Values.POSITIVE) * 4
    bias = n.values("T1", (columns,), Values.PLAIN) if d.chance(40) else None
    groups = None
    if width == 4 and d.chance(20):
        groups = d.indices((inner,), blocks, np.int32, negative=False)
    n.set("weight_prepacked", None, 0)
    return n.case(a, b, steps, zero, groups, bias, tolerance=Sums.SUMS, constant=(1, 2, 3, 4, 5))


@rule("MatMulBnb4", domain=MICROSOFT)
def matmul_bitsandbytes(n: Node, d: Draw) -> Case:
    rows, inner, columns, block = d.size(1), d.choice([16, 32, 48]), d.size(1), d.choice([16, 32, 64])
    n.set("K", inner)
    n.set("N", columns)
    n.set("block_size", block)
    n.set("quant_type", 0, 1)
    n.set("training_mode", None, 0)
    n.set("transB", None, 1)
    a = n.values("T1", d.choice([(rows, inner), (2, rows, inner), (inner,)]), Values.PLAIN)
    largest = d.values(F32, (-(-inner * columns // block),), Values.POSITIVE)
    return n.case(a, _bytes(d, (inner * columns + 1) // 2), largest, tolerance=Sums.SUMS, maybe=(1, 2))


@rule("GatherBlockQuantized", domain=MICROSOFT)
def table(n: Node, d: Draw) -> Case:
    block, rank = d.choice([16, 32]), d.choice([2, 2, 3])
    kind = n.type("T1", "uint8 int4 uint4")
    width = n.set("bits", None, 4, 8, 2) or 4
    if kind != UINT8 and width != 4:
        raise Undrawable
    shape = [d.integer(1, 5) for _ in range(rank)]
    gathered = 0 if kind == UINT8 else d.integer(0, rank - 1)
    along = rank - 1 if kind == UINT8 else d.integer(0, rank - 1)
    if gathered == along and rank == 1:
        raise Undrawable
    shape[along] = block * d.integer(1, 3) - (d.choice([0, 0, 4]) if kind != UINT8 else 0)
    blocks = [-(-s // block) if i == along else s for i, s in enumerate(shape)]
    n.set("block_size", block)
    n.set("quantize_axis", *([along] if along != 1 else [None, along]))
    n.set("gather_axis", gathered, gathered - rank)
    scales = (n.values("T2", blocks, Values.POSITIVE) / 8).astype(n.type("T2", "float float16"))
    zeros = None
    if kind == UINT8:
        data = _bytes(d, *shape[:-1], shape[-1] * width // 8)
        if d.chance(50):
            zeros = _bytes(d, *blocks[:-1], -(-blocks[-1] * width // 8))
    else:
        name = {"int4": ml_dtypes.int4, "uint4": ml_dtypes.uint4}[kind.name]
        data = d.values(name, shape)
        if d.chance(50):
            zeros = d.values(name, blocks)
    indices = d.indices(d.shape(0, 2, least=1), shape[gathered], n.type("Tind"))
    return n.case(data, indices, scales, zeros, constant=(0, 2, 3))
