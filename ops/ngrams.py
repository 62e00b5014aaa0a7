"""TfIdfVectorizer: counts of the n-grams of a pool. On the host, since most are of texts; by whole arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .builder import Builder, OperatorError
from .primitives import Opaque, Tensor
from .registry import Takes, op


@dataclass(frozen=True)
class _Pool:
    """The n-grams of one length as a trie, a level a token.

    Attributes:
        levels: per token of an n-gram, the sorted keys ``node before * vocabulary + token`` of the nodes.
        columns: the output's column of each node of the last level.
    """

    levels: tuple[np.ndarray, ...]
    columns: np.ndarray

    def found(self, tokens: np.ndarray, vocabulary: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of every n-gram in the rows of token numbers (-1: a token of no n-gram), `stride` tokens apart."""
        starts = max(tokens.shape[1] - (len(self.levels) - 1) * stride, 0)
        rows, at = np.divmod(np.arange(tokens.shape[0] * starts), max(starts, 1))
        node = np.zeros(len(rows), np.int64)
        for depth, keys in enumerate(self.levels):
            token = tokens[rows, at + depth * stride]
            key = node * vocabulary + token
            node = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            known = (keys[node] == key) & (token >= 0)
            rows, at, node = rows[known], at[known], node[known]
        return rows, self.columns[node]


@op("TfIdfVectorizer", since=9, takes=Takes.VALUES)
def tf_idf_vectorizer(
    t: Builder, X: Tensor | Opaque, *, max_gram_length, max_skip_count, min_gram_length, mode, ngram_counts, ngram_indexes,
    pool_int64s=None, pool_strings=None, weights=None,
) -> Tensor | Opaque:  # fmt: skip
    """How often each n-gram of the pool occurs in a row, with up to so many tokens left out between its own."""
    if mode not in ("TF", "IDF", "TFIDF"):
        raise OperatorError(f"unknown mode {mode!r}")
    if bool(pool_int64s) == bool(pool_strings):
        raise OperatorError("the pool must be of numbers or of texts, and not both")
    pool = list(pool_int64s or pool_strings or ())
    numbers = {token: i for i, token in enumerate(dict.fromkeys(pool))}
    tokens = np.array([numbers[token] for token in pool], np.int64)
    pools = dict(_pools(tokens, ngram_counts, np.asarray(ngram_indexes, np.int64), len(numbers)))
    width = max(ngram_indexes) + 1
    scale = np.ones(width, np.float32)
    if weights and mode != "TF":
        if len(weights) != len(ngram_indexes):
            raise OperatorError(f"{len(ngram_indexes)} n-grams have {len(weights)} weights")
        scale[list(ngram_indexes)] = weights

    def count(given: list[np.ndarray]) -> list[np.ndarray]:
        x = given[0]
        if x.ndim not in (1, 2):
            raise OperatorError(f"the input has {x.ndim} dimensions, it must have 1 or 2")
        known = np.fromiter((numbers.get(v, -1) for v in x.ravel().tolist()), np.int64, x.size)
        rows = known.reshape(1, -1) if x.ndim == 1 else known.reshape(x.shape)
        counts = np.zeros(len(rows) * width, np.int64)
        for length, grams in pools.items():
            if min_gram_length <= length <= max_gram_length:
                for stride in range(1, 2 if length == 1 else max_skip_count + 2):
                    row, column = grams.found(rows, len(numbers), stride)
                    counts += np.bincount(row * width + column, minlength=len(counts))
        made = (counts > 0 if mode == "IDF" else counts).astype(np.float32).reshape(len(rows), width) * scale
        return [made.reshape(*x.shape[:-1], width)]

    kind = (np.dtype(np.float32), (*X.shape[:-1], width)) if isinstance(X, Tensor) else None
    return t.host(count, (X,), [kind], "n-grams are counted on the host")[0]


def _pools(tokens: np.ndarray, starts: Sequence[int], columns: np.ndarray, vocabulary: int) -> Iterator[tuple[int, _Pool]]:
    """The n-grams of each length that the pool has any of."""
    done = 0
    for length, (start, end) in enumerate(zip(starts, [*starts[1:], len(tokens)]), 1):
        count = (end - start) // length
        grams = tokens[start : start + count * length].reshape(count, length)
        if done + count > len(columns):
            raise OperatorError(f"{len(columns)} ngram_indexes are too few for the pool")
        levels, node = [], np.zeros(count, np.int64)
        for token in grams.T:
            keys, first, node = np.unique(node * vocabulary + token, return_index=True, return_inverse=True)
            levels.append(keys)
        if count:
            yield length, _Pool(tuple(levels), columns[done : done + count][first])
        done += count
