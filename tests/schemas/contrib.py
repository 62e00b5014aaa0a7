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


@rule("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(n: Node, d: Draw) -> Case:
    from .contractions import images as picture
    from .contractions import window

    kernel, _, least = window(n, d, 2)
    n.set("kernel_shape", kernel)
    n.set("ceil_mode", None, 0, 1)
    return n.case(np.ascontiguousarray(np.moveaxis(n.values("T", picture(d, least, d.integer(1, 5))), 1, -1)))


@rule("NGramRepeatBlock", domain=MICROSOFT)
def ngram_block(n: Node, d: Draw) -> Case:
    batch, length, words = d.integer(1, 3), d.integer(1, 8), d.choice([3, 5])
    n.set("ngram_size", 1, 2, 3)
    return n.case(d.indices((batch, length), words, negative=False), d.values(np.float32, (batch, words), Values.PLAIN))


@rule("ConvTransposeWithDynamicPads", domain=MICROSOFT)
def dynamic_transposed(n: Node, d: Draw) -> Case:
    kernel = [d.integer(1, 3), d.integer(1, 3)]
    n.set("kernel_shape", kernel)
    strides = n.set("strides", None, [d.integer(1, 2), d.integer(1, 2)]) or [1, 1]
    n.set("dilations", None, None, [d.integer(1, 2), d.integer(1, 2)])
    n.set("output_padding", None, [d.integer(0, s - 1) for s in strides])
    n.set("auto_pad", None, "NOTSET")
    group = n.set("group", None, 1, 2) or 1
    x, w = n.values("T", (1, 2 * group, 4, 3), Values.PLAIN), n.values("T", (2 * group, 3, *kernel), Values.PLAIN)
    pads = np.array([d.integer(0, (k - 1) // 2) for k in kernel * 2], INT64)
    bias = n.values("T", (3 * group,), Values.PLAIN) if d.chance(50) else None
    return n.case(x, w, pads, bias, tolerance=Sums.SUMS, constant=(2,))


@rule("CDist", domain=MICROSOFT)
def distances(n: Node, d: Draw) -> Case:
    width = d.size(1)
    n.set("metric", None, "euclidean", "sqeuclidean")
    return n.case(*(n.values("T", (d.size(1), width), Values.PLAIN) for _ in "ab"), tolerance=Sums.SUMS)


@rule("MurmurHash3", domain=MICROSOFT)
def hashes(n: Node, d: Draw) -> Case:
    n.set("seed", None, 7, -3)
    n.set("positive", None, 0, 1)
    return n.case(n.values("T1", d.shape(0, 3)))


@rule("UnfoldTensor", domain=MICROSOFT)
def windows(n: Node, d: Draw) -> Case:
    x = d.values(d.choice([np.float32, np.float64, np.int32, INT64]), d.shape(1, 3, least=1))
    axis = d.axis(x.ndim)
    n.set("dim", *([None, axis] if axis == -1 else [axis]))
    n.set("size", d.integer(1, x.shape[axis]))
    n.set("step", None, 1, 2, 3)
    return n.case(x, tolerance=Sums.EXACT)


@rule("DynamicTimeWarping", domain=MICROSOFT)
def time_warping(n: Node, d: Draw) -> Case:
    cost = d.values(np.float32, (d.size(1), d.size(1)), Values.PLAIN)
    if d.chance(40):
        cost = np.rint(cost)
    return n.case(cost[None] if d.chance(30) else cost)


@rule("BifurcationDetector", domain=MICROSOFT)
def bifurcation(n: Node, d: Draw) -> Case:
    least = n.set("min_ngram_size", 1, 2, 3)
    n.set("max_ngram_size", least, least + 2)
    source, tokens = (d.indices((d.integer(1, 9),), 3, negative=False) for _ in "st")
    since = d.integer(0, len(source))
    right = d.integer(0, len(source) - since)
    predicted = np.concatenate([source[since : since + right], d.indices((len(source) - since - right + 1,), 3, negative=False)])
    return n.case(source, tokens, np.array([since], INT64), predicted if d.chance(70) else None, outputs=2)


@rule("Tokenizer", domain=MICROSOFT)
def tokenizer(n: Node, d: Draw) -> Case:
    n.set("mark", 0, 1)
    n.set("mincharnum", 1, 1, 2)
    n.set("pad_value", "#", "")
    if d.chance(60):
        n.set("separators", [","], [""], [" ", ","], ["a+"])
    else:
        n.set("tokenexp", "[a-zA-Z]+", "[0-9.]+", "..")
    n.set("stopwords", None, [])
    return n.case(d.values(object, d.shape(1, 2, least=1)))


@rule("WordConvEmbedding", domain=MICROSOFT)
def word_embedding(n: Node, d: Draw) -> Case:
    words, letters, filters, window, width = (d.integer(1, 5), d.integer(2, 6), d.integer(1, 4), d.integer(1, 2), d.integer(1, 4))
    n.set("embedding_size", None, filters)
    n.set("conv_window_size", None, window)
    n.set("char_embedding_size", None, width)
    text = d.indices((words, letters), 6, np.int32, negative=False)
    lengths = 1 + d.indices((words, 1), letters, negative=False)
    text = np.where(np.arange(letters) < lengths, np.maximum(text, 1), 0).astype(np.int32)  # a word begins with a letter
    weights = d.values(np.float32, (filters, 1, window, width), Values.PLAIN), d.values(np.float32, (filters,), Values.PLAIN)
    return n.case(text, *weights, d.values(np.float32, (6, width), Values.PLAIN), tolerance=Sums.SUMS, maybe=(1, 2, 3))
