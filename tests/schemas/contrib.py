"""How the other operators of com.microsoft are drawn."""

from __future__ import annotations

import numpy as np

from . import images, indexing, movement
from .catalogue import MICROSOFT, RULES, Case, Node, Sums, rule
from .draw import Draw, Values

INT64 = np.int64

RULES[MICROSOFT, "Trilu"] = movement.trilu
RULES[MICROSOFT, "Range"] = movement.arange
RULES[MICROSOFT, "GatherND"] = indexing.gather_nd
RULES[MICROSOFT, "GridSample"] = images.grid_sample


@rule("ExpandDims", domain=MICROSOFT)
def expand_dims(n: Node, d: Draw) -> Case:
    x = d.values(d.choice([np.float32, np.int64]), d.shape(0, 3))
    return n.case(x, np.array(d.integer(-x.ndim - 1, x.ndim), np.int32), maybe=(1,))


@rule("Pad", domain=MICROSOFT)
def pad(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, least=1), Values.PLAIN)
    mode = n.set("mode", None, "constant", "edge", "reflect")
    most = [size - 1 if mode == "reflect" else 3 for size in x.shape]
    amounts = [d.integer(0, high) for high in most * 2]
    return n.case(x, np.array(amounts, INT64), n.values("T", (1,), Values.PLAIN) if d.chance(50) else None, maybe=(1,))


@rule("Unique", domain=MICROSOFT)
def unique(n: Node, d: Draw) -> Case:
    return n.case(np.rint(d.values(np.float32, d.shape(1, 1, least=1), Values.PLAIN)), outputs=3)


@rule("CropAndResize", domain=MICROSOFT)
def crop(n: Node, d: Draw) -> Case:
    batch, boxes = d.integer(1, 2), d.integer(1, 3)
    n.set("mode", None, "bilinear", "nearest")
    n.set("extrapolation_value", None, 2.5)
    x = n.values("T1", (batch, d.integer(1, 3), d.integer(2, 6), d.integer(2, 6)), Values.PLAIN)
    corner = d.values(x.dtype, (boxes, 2), Values.POSITIVE) / 3
    region = np.concatenate([corner, corner + 0.3], -1).astype(x.dtype)
    size = np.array([d.integer(1, 4), d.integer(1, 4)], np.int32)
    return n.case(x, region, d.indices((boxes,), batch, np.int32, negative=False), size, tolerance=Sums.SUMS, maybe=(3,))


@rule("RotaryEmbedding", domain=MICROSOFT)
def rotary(n: Node, d: Draw) -> Case:
    batch, heads, length, half = d.integer(1, 2), d.integer(1, 3), d.integer(1, 5), d.choice([4, 8])
    n.set("interleaved", None, 0, 1)
    x = n.values("T", (batch, length, heads * 2 * half), Values.PLAIN)
    positions = d.indices((batch, length), 9, negative=False) if d.chance(60) else np.array([d.integer(0, 4)], INT64)
    return n.case(x, positions, *(n.values("T", (9, half), Values.PLAIN) for _ in "cs"), tolerance=Sums.SUMS)


@rule("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(n: Node, d: Draw) -> Case:
    from .contractions import images as picture
    from .contractions import window

    kernel, _, least = window(n, d, 2)
    n.set("kernel_shape", kernel)
    n.set("ceil_mode", None, 0, 1)
    return n.case(np.ascontiguousarray(np.moveaxis(n.values("T", picture(d, least, d.integer(1, 5))), 1, -1)))


@rule("Attention", domain=MICROSOFT)
def attention(n: Node, d: Draw) -> Case:
    batch, length, heads, width = d.integer(1, 3), d.integer(1, 7), d.integer(1, 3), d.choice([4, 8])
    n.set("num_heads", heads)
    n.set("unidirectional", None, 0, 1)
    n.set("scale", None, 0.4)
    x, hidden = n.values("T", (batch, length, 6), Values.PLAIN), heads * width
    kept = d.choice(
        [None, 1 + d.indices((batch,), length, np.int32, negative=False), d.values(np.int32, (batch, length), Values.POSITIVE) % 2]
    )
    return n.case(
        x,
        n.values("T", (6, 3 * hidden), Values.PLAIN),
        n.values("T", (3 * hidden,), Values.PLAIN),
        kept,
        tolerance=Sums.SUMS,
        maybe=(1, 2),
    )


@rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head(n: Node, d: Draw) -> Case:
    batch, queries, keys, heads, width = d.integer(1, 2), d.integer(1, 6), d.integer(1, 6), d.integer(1, 3), d.choice([4, 8])
    n.set("num_heads", heads)
    n.set("scale", None, 0.4)
    size = heads * width
    q, k, v = (n.values("T", (batch, length, size), Values.PLAIN) for length in (queries, keys, keys))
    bias = n.values("T", (3 * size,), Values.PLAIN) if d.chance(40) else None
    mask = d.choice([None, d.values(np.int32, (batch, keys), Values.POSITIVE) % 2])
    extra = n.values("T", (d.choice([1, batch]), d.choice([1, heads]), queries, keys), Values.PLAIN) if d.chance(30) else None
    return n.case(q, k, v, bias, mask, extra, tolerance=Sums.SUMS)


@rule("MatMulNBits", domain=MICROSOFT)
def matmul_bits(n: Node, d: Draw) -> Case:
    rows, blocks, columns, block = d.size(1), d.integer(1, 3), d.size(1), d.choice([16, 32])
    inner = blocks * block - d.choice([0, 0, 5])
    width = n.set("bits", 4, 4, 8)
    n.set("K", inner)
    n.set("N", columns)
    n.set("block_size", block)
    a = n.values("T1", (rows, inner), Values.PLAIN)
    b = d.indices((columns, blocks, block * width // 8), 256, np.uint8, negative=False)
    steps = (d.values(np.float32, (columns * blocks,), Values.POSITIVE) / 25).astype(a.dtype)
    zero = d.indices((columns * ((blocks * width + 7) // 8),), 256, np.uint8, negative=False) if d.chance(40) else None
    return n.case(a, b, steps, zero, tolerance=Sums.SUMS, constant=(1, 2, 3))


@rule("NGramRepeatBlock", domain=MICROSOFT)
def ngram_block(n: Node, d: Draw) -> Case:
    batch, length, words = d.integer(1, 3), d.integer(1, 8), d.choice([3, 5])
    n.set("ngram_size", 1, 2, 3)
    return n.case(d.indices((batch, length), words, negative=False), d.values(np.float32, (batch, words), Values.PLAIN))


@rule("ConvTransposeWithDynamicPads", domain=MICROSOFT)
def dynamic_transposed(n: Node, d: Draw) -> Case:
    kernel = [d.integer(1, 3), d.integer(1, 3)]
    n.set("kernel_shape", kernel)
    n.set("strides", None, [d.integer(1, 2), d.integer(1, 2)])
    x, w = n.values("T", (1, 2, 4, 3), Values.PLAIN), n.values("T", (2, 3, *kernel), Values.PLAIN)
    return n.case(x, w, np.array([d.integer(0, (k - 1) // 2) for k in kernel * 2], INT64), tolerance=Sums.SUMS, constant=(2,))
