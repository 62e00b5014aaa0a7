"""com.microsoft: what programs that generate or align tokens are made of: DynamicTimeWarping, BifurcationDetector, UnfoldTensor."""

from __future__ import annotations

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .primitives import Opaque, Tensor
from .registry import Takes, contrib


@contrib("UnfoldTensor", takes=Takes.TENSORS)
def unfold_tensor(t: Builder, x: Tensor, *, size, dim=-1, step=1) -> Tensor:
    """Windows of `size` elements, `step` apart, along a dimension; a window's elements are a new last dimension."""
    axis = axis_index(dim, x.rank)
    if size < 1 or step < 1 or x.shape[axis] < size:
        raise OperatorError(f"windows of {size} elements, {step} apart, do not fit a dimension of {x.shape[axis]}")
    count = (x.shape[axis] - size) // step + 1
    starts, steps, sizes = [0] * x.rank, [1] * x.rank, list(x.shape)
    steps[axis], sizes[axis] = step, count
    parts = []
    for i in range(size):
        starts[axis] = i
        parts.append(t.unsqueeze(t.slice(x, starts, steps, sizes), [x.rank]))
    return t.concat(parts, x.rank)


@contrib("DynamicTimeWarping", host=True)
def dynamic_time_warping(t: Builder, cost: Tensor) -> Opaque:
    """The path from the first to the last element of a matrix along which the sum is the least: rows, then columns."""
    if cost.rank != 2 and not (cost.rank == 3 and cost.shape[0] == 1):
        raise OperatorError(f"the costs {list(cost.shape)} are no matrix")
    matrix = t.reshape(cost, cost.shape[-2:])
    return t.host(lambda v: [_warped(v[0])], (matrix,), [None], "the length of the path is known when it is found")[0]


def _warped(cost: np.ndarray) -> np.ndarray:
    """One diagonal after the other. Among equal sums the step along the columns is taken, as in onnxruntime."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float32)
    came = np.zeros((rows + 1, columns + 1), np.int8)
    total[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, down, along = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        way = np.where((both < down) & (both < along), 0, np.where((down < both) & (down < along), 1, 2))
        came[i, j] = way
        total[i, j] = cost[i - 1, j - 1] + np.choose(way, (both, down, along))
    path, i, j = [], rows, columns
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        i, j = i - (came[i, j] != 2), j - (came[i, j] != 1)
    return np.array(path[::-1], np.int32).reshape(-1, 2).T.copy()


@contrib("BifurcationDetector", takes=Takes.VALUES)
def bifurcation_detector(
    t: Builder, src_tokens, cur_tokens, prev_suffix_match_idx, pred_tokens=None, *, min_ngram_size, max_ngram_size
) -> tuple[Tensor | Opaque, ...]:
    """The tokens so far with the predicted ones up to the first that the source does not have, and where in it to go on.

    That place is behind the longest n-gram at the end of the tokens that the source has once; -1: there is none.
    """
    if not 0 < min_ngram_size <= max_ngram_size:
        raise OperatorError(f"n-grams of {min_ngram_size} to {max_ngram_size} tokens")

    def call(values: list[np.ndarray]) -> list[np.ndarray]:
        source, tokens, since, predicted = values
        if predicted is not None:
            tokens = np.concatenate([tokens, _accepted(source[int(since[0]) :], predicted)])
        place = _place(source.tolist(), tokens.tolist(), min_ngram_size, max_ngram_size)
        return [tokens, np.full(since.shape, place, np.int64)]

    inputs = (src_tokens, cur_tokens, prev_suffix_match_idx, pred_tokens)
    return t.host(call, inputs, [None, None], "the number of tokens is known when they are compared")


def _accepted(expected: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Predictions as long as they are what was expected, and the next one."""
    if len(predicted) != len(expected) + 1:
        raise OperatorError(f"{len(predicted)} predictions for {len(expected)} tokens of the source")
    wrong = np.flatnonzero(predicted[:-1] != expected)
    return predicted[: (int(wrong[0]) if wrong.size else len(expected)) + 1]


def _place(source: list[int], tokens: list[int], least: int, most: int) -> int:
    place = -1
    for size in range(least, min(most, len(tokens)) + 1):
        found = [i for i in range(len(source) - size + 1) if source[i : i + size] == tokens[-size:]]
        if not found:
            break
        place = found[0] + size
        if place >= len(source):
            break
        if len(found) > 1:
            place = -1
    return place
