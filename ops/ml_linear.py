"""Linear models and support vector machines of ai.onnx.ml, as matrix products and what follows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .builder import Builder, OperatorError
from .kernels import coupling
from .ml_scores import labelled, labels_of, ml_op, of_two, rows, second_above, single, transformed, winner
from .primitives import Fold, LaunchContext, Tensor

_KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


def _matrix(values: Sequence[float], count: int, width: int, what: str) -> np.ndarray:
    """An attribute as float32[count, width]."""
    made = np.asarray(values, np.float32)
    if made.size != count * width:
        raise OperatorError(f"{made.size} {what}, expected {count} x {width}")
    return made.reshape(count, width)


def _affine(t: Builder, x: Tensor, factors: np.ndarray, added: np.ndarray | None) -> Tensor:
    """x times the transposed factors, plus a row."""
    y = t.op("MatMul", x, t.constant(np.ascontiguousarray(factors.T)), since=13)
    return y if added is None else t.map("a + b", y, t.constant(added, np.float32))


@ml_op("LinearRegressor")
def linear_regressor(t: Builder, X: Tensor, *, coefficients=(), intercepts=None, post_transform="NONE", targets=1) -> Tensor:
    """X times the coefficients of each target, plus its intercept."""
    x = rows(t, X)
    added = np.asarray(intercepts, np.float32) if intercepts and len(intercepts) == targets else None
    y = _affine(t, x, _matrix(coefficients, targets, x.shape[1], "coefficients"), added)
    return single(t, y, post_transform) if targets == 1 else transformed(t, y, post_transform)


@ml_op("LinearClassifier")
def linear_classifier(
    t: Builder, X: Tensor, *, classlabels_ints=None, classlabels_strings=None, coefficients, intercepts=None, multi_class=0,
    post_transform="NONE",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The class whose score, X times its coefficients plus its intercept, is the greatest; all scores."""
    labels = labels_of(classlabels_ints, classlabels_strings)
    x = rows(t, X)
    count = len(intercepts) if intercepts else len(coefficients) // max(x.shape[1], 1)
    added = np.asarray(intercepts, np.float32) if intercepts else None
    scores = _affine(t, x, _matrix(coefficients, count, x.shape[1], "coefficients"), added)
    if count == 1:
        if len(labels) != 2:
            labels = np.array(["0", "1"], object) if labels.dtype == object else np.array([0, 1])
            shown = single(t, scores, post_transform)
        else:
            shown = of_two(t, scores, post_transform, signed=False)
        return labelled(t, second_above(t, scores, 0.0), labels), shown
    if count > len(labels):
        raise OperatorError(f"{count} classes have {len(labels)} labels")
    return labelled(t, winner(t, scores), labels), transformed(t, scores, post_transform)


# -- support vector machines
def _similarity(t: Builder, x: Tensor, vectors: np.ndarray, kind: str, parameters: Sequence[float]) -> Tensor:
    """[rows, vectors]: the kernel function of each row and each vector."""
    if kind not in _KERNELS:
        raise OperatorError(f"unknown kernel_type {kind!r}")
    if parameters and len(parameters) != 3:
        raise OperatorError(f"kernel_params are gamma, coef0 and degree, not {len(parameters)} numbers")
    gamma, coef0, degree = (float(v) for v in parameters or (0.0, 0.0, 0.0))
    if kind == "RBF":
        # differences, not |x|^2 + |v|^2 - 2 x v, which loses what is small beside the norms
        wide = t.unsqueeze(x, [2])
        squares = t.map("(a - b) * (a - b)", wide, t.constant(np.ascontiguousarray(vectors.T)[None]))
        return t.map(f"exp({-gamma!r} * a)", t.reduce(Fold.ADD, squares, [1], keepdims=False))
    products = _affine(t, x, vectors, None)
    if kind == "LINEAR":
        return products
    inner = t.map(f"a * {gamma!r} + {coef0!r}", products)
    if kind == "SIGMOID":
        return t.map("tanh(a)", inner)
    powers = {2.0: "a * a", 3.0: "a * a * a"}
    return t.map(powers.get(degree, f"pow(a, splat_f32({degree!r}))"), inner)


@ml_op("SVMRegressor")
def svm_regressor(
    t: Builder, X: Tensor, *, coefficients=(), kernel_params=(), kernel_type="LINEAR", n_supports=0, one_class=0,
    post_transform="NONE", rho=(), support_vectors=(),
) -> Tensor:  # fmt: skip
    """Similarities to the support vectors, weighted, plus rho; without vectors, a linear model. `one_class`: its sign."""
    x = rows(t, X)
    added = np.asarray(rho or [0.0], np.float32)[:1]
    if n_supports:
        vectors = _matrix(support_vectors, n_supports, x.shape[1], "numbers in support_vectors")
        similar = _similarity(t, x, vectors, kernel_type, kernel_params)
        y = _affine(t, similar, _matrix(coefficients, 1, n_supports, "coefficients"), added)
    else:
        y = _affine(t, x, _matrix(coefficients, 1, x.shape[1], "coefficients"), added)
    return t.map("2.0 * to_f32(a > 0.0) - 1.0", y) if one_class else y


@ml_op("SVMClassifier")
def svm_classifier(
    t: Builder, X: Tensor, *, classlabels_ints=None, classlabels_strings=None, coefficients=(), kernel_params=(),
    kernel_type="LINEAR", post_transform="NONE", prob_a=None, prob_b=None, rho=(), support_vectors=(), vectors_per_class=None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Each pair of classes votes by its support vectors; without vectors, a linear model of all classes."""
    labels = labels_of(classlabels_ints, classlabels_strings)
    x, count = rows(t, X), len(labels)
    if not vectors_per_class:
        scores = _affine(t, x, _matrix(coefficients, count, x.shape[1], "coefficients"), np.asarray(rho, np.float32)[:1])
        index = _linear_choice(t, scores, bool(prob_a), min(coefficients) >= 0)
        return labelled(t, index, labels), transformed(t, scores, post_transform) if count > 1 else scores
    if len(vectors_per_class) != count:
        raise OperatorError(f"{count} classes have {len(vectors_per_class)} numbers of support vectors")
    vectors = _matrix(support_vectors, sum(vectors_per_class), x.shape[1], "numbers in support_vectors")
    weights = _matrix(coefficients, count - 1, len(vectors), "coefficients")
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    if len(rho) < len(pairs):
        raise OperatorError(f"{len(pairs)} pairs of classes have {len(rho)} rho")
    factors, added = _pair_factors(weights, vectors_per_class, pairs), np.asarray(rho, np.float32)[: len(pairs)]
    margins = _affine(t, _similarity(t, x, vectors, kernel_type, kernel_params), factors, added)
    index = winner(t, _counted(t, margins, pairs, count))
    if prob_a:
        if len(prob_a) < len(pairs) or len(prob_b or ()) < len(pairs):
            raise OperatorError(f"{len(pairs)} pairs of classes have {len(prob_a)} prob_a and {len(prob_b or ())} prob_b")
        a, b = (t.constant(np.asarray(v, np.float32)[: len(pairs)]) for v in (prob_a, prob_b))
        shown = transformed(t, _coupled(t, t.map("sigmoid(-(a * b + c))", margins, a, b), count), post_transform)
    elif count == 2:
        shown = of_two(t, margins, post_transform, signed=post_transform == "NONE")
    else:
        shown = transformed(t, margins, post_transform)
    return labelled(t, index, labels), shown


def _linear_choice(t: Builder, scores: Tensor, calibrated: bool, positive: bool) -> Tensor:
    """The class of a linear machine; of two classes the second one wins as soon as a score exceeds the bound."""
    index = winner(t, scores)
    if scores.shape[1] != 2 or calibrated:
        return index
    most = t.reduce(Fold.MAX, scores, [1], keepdims=False)
    reached = "b >= 0.5" if positive else "b > 0.0"
    return t.map(f"select({reached}, to_i64(1.0), a)", index, most)


def _pair_factors(weights: np.ndarray, counts: Sequence[int], pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """[pairs, vectors]: pair (i, j) weighs the vectors of class i by row j - 1 of the coefficients, those of j by row i."""
    ends = np.cumsum(counts)
    made = np.zeros((len(pairs), weights.shape[1]), np.float32)
    for row, (i, j) in zip(made, pairs):
        for own, other in ((i, j - 1), (j, i)):
            row[ends[own] - counts[own] : ends[own]] = weights[other, ends[own] - counts[own] : ends[own]]
    return made


def _counted(t: Builder, margins: Tensor, pairs: Sequence[tuple[int, int]], count: int) -> Tensor:
    """[rows, classes]: how many pairs chose the class, the first of a pair if the margin is positive."""
    won = t.map("to_f32(a > 0.0)", margins)
    change, start = np.zeros((count, len(pairs)), np.float32), np.zeros(count, np.float32)
    for pair, (i, j) in enumerate(pairs):
        change[i, pair], change[j, pair] = 1, -1
        start[j] += 1
    return _affine(t, won, change, start)


def _coupled(t: Builder, first: Tensor, count: int) -> Tensor:
    """[rows, classes]: probabilities that fit those of the pairs best; `first` is that of each pair's first class."""

    def launch(c: LaunchContext) -> list:
        return coupling.couple(c.inputs[0].address, c.outputs[0].address, first.shape[0], count)

    return t.kernel("coupling", (first,), [(first.dtype, (first.shape[0], count))], launch, orders=((0, 1),))[0]
