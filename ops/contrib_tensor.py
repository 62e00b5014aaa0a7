"""com.microsoft: operators that onnx later took in, in the form that they had before, and a few that it did not take."""

from __future__ import annotations

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .conv import conv_transpose
from .detection import grid_sample
from .gather import gather_nd
from .movement import pad, trilu
from .primitives import Tensor
from .registry import FLOATS, INTEGERS, Takes, check_types, contrib
from .shape import range_

contrib("Trilu")(trilu)
contrib("GatherND", takes=Takes.TENSORS)(gather_nd)


# -- shapes
@contrib("ExpandDims", takes=Takes.TENSORS)
def expand_dims(t: Builder, x, axis):
    """x with a dimension of size 1 at `axis` of the result."""
    return t.unsqueeze(x, [axis_index(t.ints(axis)[0], x.rank + 1)])


@contrib("Range")
def contrib_range(t: Builder, start, limit, delta=None):
    """start, start + delta (1), ... up to, not including, limit."""
    return range_(t, start, limit, t.constant(1, start.dtype) if delta is None else delta)


@contrib("Pad")
def contrib_pad(t: Builder, data, pads, value=None, *, mode="constant"):
    """Pad; the amounts are a vector or a matrix of one row."""
    return pad(t, data, t.reshape(pads, (pads.size,)), value, mode=mode)


@contrib("CDist")
def cdist(t: Builder, A, B, *, metric="sqeuclidean"):
    """The distance of each row of A from each row of B."""
    check_types((A, B), FLOATS)
    if metric not in ("euclidean", "sqeuclidean"):
        raise OperatorError(f"metric must be euclidean or sqeuclidean, not {metric!r}")
    if A.rank != 2 or B.rank != 2 or A.shape[1] != B.shape[1]:
        raise OperatorError(f"{list(A.shape)} and {list(B.shape)} are no rows of equal length")
    # differences, not |a|^2 + |b|^2 - 2 a b, which loses what is small beside the norms
    wide = t.map("a - b", t.unsqueeze(A, [2]), t.unsqueeze(t.transpose(B, (1, 0)), [0]))
    squares = t.reduce("add", t.map("a * a", wide), [1], keepdims=False)
    return t.map("sqrt(a)", squares) if metric == "euclidean" else squares


# -- images
@contrib("ConvTransposeWithDynamicPads")
def conv_transpose_with_dynamic_pads(t: Builder, X, W, Pads=None, B=None, **attributes):
    """ConvTranspose whose pads are an input."""
    return conv_transpose(t, X, W, B, pads=None if Pads is None else t.ints(Pads), **attributes)


@contrib("GridSample")
def contrib_grid_sample(t: Builder, x, grid, *, mode="bilinear", padding_mode="zeros", align_corners=0):
    """GridSample of images."""
    return grid_sample(t, x, grid, mode=mode, padding_mode=padding_mode, align_corners=align_corners)


@contrib("CropAndResize")
def crop_and_resize(t: Builder, X, rois, batch_indices, crop_size, *, mode="bilinear", extrapolation_value=0.0):
    """Boxes (y1, x1, y2, x2) of images, in units of their size, resized to crop_size; corners meet corners."""
    if mode not in ("bilinear", "nearest"):
        raise OperatorError(f"mode must be bilinear or nearest, not {mode!r}")
    sizes, count = t.ints(crop_size), rois.shape[0]
    places, inside = [], []
    for axis, (size, edge) in enumerate(zip(sizes, X.shape[2:])):
        first, last = (t.take(rois, 1, axis + side, axis + side + 1) for side in (0, 2))
        at = _positions(t, first, last, size, edge - 1)
        inside.append(t.map(f"(a >= 0.0) & (a <= {float(edge - 1)!r})", at, dtype="bool"))
        if mode == "nearest":
            at = t.map("floor(a + 0.5)", at)
        places.append(t.map(f"a * {2.0 / max(edge - 1, 1)!r} - 1.0", at))
    shape = (count, *sizes)
    axes = [(count, sizes[0], 1), (count, 1, sizes[1])]
    y, x = (t.expand(t.reshape(p, a), shape) for p, a in zip(places, axes))
    grid = t.concat([t.unsqueeze(x, [3]), t.unsqueeze(y, [3])], 3)
    images = t.op("Gather", X, batch_indices, axis=0)
    sampled = grid_sample(t, images, grid, mode="bilinear", padding_mode="border", align_corners=1)
    kept = t.map("a & b", *(t.reshape(i, a) for i, a in zip(inside, axes)))
    return t.map(f"select(b, a, {float(extrapolation_value)!r})", sampled, t.unsqueeze(kept, [1]))


def _positions(t: Builder, first: Tensor, last: Tensor, size: int, edge: int) -> Tensor:
    """Where `size` samples of [first, last] lie, in pixels; a single one lies in the middle."""
    if size == 1:
        return t.map(f"(a + b) * {0.5 * edge!r}", first, last)
    steps = t.constant(np.arange(size, dtype=np.float32).reshape(1, size), first.dtype)
    return t.map(f"a * {float(edge)!r} + c * ((b - a) * {edge / (size - 1)!r})", first, last, steps)


# -- text
@contrib("NGramRepeatBlock")
def ngram_repeat_block(t: Builder, input_ids, scores, *, ngram_size):
    """Scores, but -inf for each token that would end an n-gram that the sequence already has."""
    check_types((input_ids,), INTEGERS)
    batch, sequence = input_ids.shape
    count, vocabulary = sequence - ngram_size + 1, scores.shape[1]
    if ngram_size < 1 or input_ids.shape[0] != scores.shape[0]:
        raise OperatorError(f"n-grams of {ngram_size} in {list(input_ids.shape)} do not fit scores {list(scores.shape)}")
    if count < 1:
        return scores
    ends = t.take(input_ids, 1, ngram_size - 1, sequence)
    for i in range(ngram_size - 1):
        now, then = t.take(input_ids, 1, count + i, count + i + 1), t.take(input_ids, 1, i, i + count)
        # a column beside the vocabulary takes what is not blocked
        ends = t.map(f"select(a == b, c, {vocabulary})", now, then, ends, dtype=ends.dtype)
    wide = t.pad(scores, (0, 0), (0, 1))
    blocked = t.expand(t.constant(-np.inf, scores.dtype), (batch, count))
    return t.take(t.op("ScatterElements", wide, ends, blocked, axis=1), 1, 0, vocabulary)
