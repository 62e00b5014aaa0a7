"""What the classifiers and regressors of ai.onnx.ml share: rows of features, what becomes of scores, labels.

Where ONNX says little (which label wins, what a single score becomes), onnxruntime's behaviour is what models rely on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from .builder import Builder, OperatorError
from .primitives import Fold, Tensor
from .registry import op

DOMAIN = "ai.onnx.ml"
ml_op = partial(op, domain=DOMAIN)
# POST_TRANSFORM in the numbering of TreeEnsemble 5
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_SMALL = 1e-7  # what SOFTMAX_ZERO takes for zero


def rows(t: Builder, x: Tensor, dtype: type = np.float32) -> Tensor:
    """x as a matrix of one row a sample; a vector is one sample."""
    if x.rank not in (1, 2):
        raise OperatorError(f"the input has {x.rank} dimensions, it must have 1 or 2")
    return t.cast(t.reshape(x, (1, x.size)) if x.rank == 1 else x, dtype)


def transformed(t: Builder, scores: Tensor, transform: str) -> Tensor:
    """Scores [rows, several] after `post_transform`."""
    if transform == "NONE":
        return scores
    if transform == "LOGISTIC":
        return t.map("sigmoid(a)", scores)
    if transform == "PROBIT":
        return _probit(t, scores)
    if transform not in ("SOFTMAX", "SOFTMAX_ZERO"):
        raise OperatorError(f"unknown post_transform {transform!r}")
    if scores.size == 0:
        return scores
    most = t.reduce(Fold.MAX, scores, [1])
    if transform == "SOFTMAX":
        powers = t.map("exp(a - b)", scores, most)
        return t.map("a / b", powers, t.reduce(Fold.ADD, powers, [1]))
    powers = t.map(f"select(absolute(a) > {_SMALL}, exp(a - b), 0.0)", scores, most)
    kept = t.map(f"select(absolute(a) > {_SMALL}, exp(a - b), a * exp(-b))", scores, most)
    return t.map("a / b", kept, t.reduce(Fold.ADD, powers, [1]))


def single(t: Builder, score: Tensor, transform: str) -> Tensor:
    """A regressor's one score [rows, 1]: of the transforms only PROBIT means anything for it."""
    if transform not in TRANSFORMS:
        raise OperatorError(f"unknown post_transform {transform!r}")
    return _probit(t, score) if transform == "PROBIT" else score


def of_two(t: Builder, score: Tensor, transform: str, signed: bool) -> Tensor:
    """The scores of two classes from the second one's [rows, 1].

    Args:
        signed: whether the other's is minus the score (a margin), or what is missing from 1 (a probability).
    """
    if transform == "PROBIT":
        score = _probit(t, score)
        return t.concat([t.map("1.0 - a", score), score], 1)
    if transform == "LOGISTIC":
        return t.concat([t.map("sigmoid(-a)", score), t.map("sigmoid(a)", score)], 1)
    return t.concat([t.map("-a" if signed else "1.0 - a", score), score], 1)


def _probit(t: Builder, p: Tensor) -> Tensor:
    """sqrt(2) erfinv(2 p - 1), with Winitzki's approximation of the inverse error function (relative error 4e-3)."""
    log = t.map("log(4.0 * a * (1.0 - a))", p)
    half = t.map("4.330752 + 0.5 * a", log)  # 2 / (pi 0.147)
    square = t.map("sqrt(b * b - a / 0.147)", log, half)
    # c - b, where that cancels in another form
    root = t.map("sqrt(select(b > 0.0, -a / (0.147 * (c + b)), c - b))", log, half, square)
    return t.map("1.41421356 * select(2.0 * a < 1.0, -b, b)", p, root)


def winner(t: Builder, scores: Tensor) -> Tensor:
    """int64[rows]: the class with the greatest score, the first of equal ones."""
    if scores.shape[1] == 2:
        first, second = (t.reshape(t.take(scores, 1, i, i + 1), (scores.shape[0],)) for i in range(2))
        return t.map("to_i64(b > a)", first, second, dtype=np.int64)
    return t.reduce(Fold.ARGMAX, scores, [1], keepdims=False)


def second_above(t: Builder, score: Tensor, bound: float) -> Tensor:
    """int64[rows]: class 1 where a score [rows, 1] exceeds the bound, else class 0."""
    return t.reshape(t.map(f"to_i64(a > {bound!r})", score, dtype=np.int64), (score.shape[0],))


def labels_of(ints: Sequence[int] | None, strings: Sequence[str] | None) -> np.ndarray:
    """A classifier's labels: int64, or texts as objects.

    Raises:
        OperatorError: there are none.
    """
    if strings:
        return np.array(strings, object)
    if not ints:
        raise OperatorError("the classifier has no labels")
    return np.array(ints, np.int64)


class Places(dict):
    """What stands for each key of a table, and for all other keys."""

    def __init__(self, pairs: Iterable[tuple[object, object]], default: object) -> None:
        super().__init__(pairs)
        self.default = default

    def __missing__(self, key: object) -> object:
        return self.default

    def of(self, x: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
        """An array of what stands for the elements of x."""
        found = map(self.__getitem__, x.ravel().tolist())
        if np.dtype(dtype).kind == "O":
            return np.array(list(found), object).reshape(x.shape)
        return np.fromiter(found, dtype, x.size).reshape(x.shape)


def labelled(t: Builder, index: Tensor, labels: np.ndarray) -> Tensor:
    """The labels of classes by number."""
    if labels.dtype == object:
        kind = [(labels.dtype, index.shape)]
        return t.host(lambda values: [labels[values[0]]], (index,), kind, "strings live on the host")[0]
    if np.array_equal(labels, np.arange(len(labels))):
        return index
    return t.op("Gather", t.constant(labels), index, since=13)
