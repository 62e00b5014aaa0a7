"""Features, ai.onnx.ml: Scaler, Normalizer, Imputer, Binarizer, FeatureVectorizer, ArrayFeatureExtractor, OneHotEncoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .builder import Builder, OperatorError
from .ml_scores import Places, ml_op
from .primitives import Fold, Tensor
from .registry import Takes, check_types

# what onnxruntime begins a maximum with: a row of minus infinity alone is divided by it
_LOWEST = float(np.finfo(np.float32).min)


def _per_feature(t: Builder, values: Sequence[float], x: Tensor, dtype: np.dtype, what: str) -> Tensor:
    """One value in all, or one for each index of the last dimension."""
    features = x.shape[-1] if x.rank else 1
    if len(values) not in (1, features):
        raise OperatorError(f"{len(values)} values of {what} for {features} features")
    return t.constant(values[0] if len(values) == 1 else values, dtype)


@ml_op("Scaler")
def scaler(t: Builder, X: Tensor, *, offset=(), scale=()) -> Tensor:
    """(X - offset) * scale, as float32; both one number, or one a feature."""
    x = X if X.dtype == np.float64 else t.cast(X, np.float32)
    if offset:
        x = t.map("a - b", x, _per_feature(t, offset, x, x.dtype, "offset"))
    if scale:
        x = t.map("a * b", x, _per_feature(t, scale, x, x.dtype, "scale"))
    return t.cast(x, np.float32)


@ml_op("Normalizer")
def normalizer(t: Builder, X: Tensor, *, norm="MAX") -> Tensor:
    """Each row divided by its greatest element, its sum of magnitudes, or its length; rows of zero as they are."""
    if norm not in ("MAX", "L1", "L2"):
        raise OperatorError(f"unknown norm {norm!r}")
    if not 1 <= X.rank <= 2:
        raise OperatorError(f"the input has {X.rank} dimensions, it must have 1 or 2")
    x = t.cast(X, np.float32)
    if x.size == 0:
        return x
    if norm == "MAX":
        by = t.map(f"at_least(a, {_LOWEST!r})", t.reduce(Fold.MAXNUM, x, [-1]))
    elif norm == "L1":
        by = t.reduce(Fold.ADD, t.map("absolute(a)", x), [-1])
    else:
        by = t.map("sqrt(a)", t.reduce(Fold.ADD, t.map("a * a", x), [-1]))
    return t.map("select(b == 0.0, a, a / b)", x, by)


@ml_op("Imputer")
def imputer(
    t: Builder, X: Tensor, *, imputed_value_floats=(), imputed_value_int64s=(), replaced_value_float=0.0, replaced_value_int64=0
) -> Tensor:
    """X with one value (NaN, say) replaced, by one number in all or one a feature."""
    check_types((X,), "fiu")
    floats = X.dtype.kind == "f"
    values, replaced = (imputed_value_floats, replaced_value_float) if floats else (imputed_value_int64s, replaced_value_int64)
    if not values:
        raise OperatorError(f"imputed_value_{'floats' if floats else 'int64s'} is missing for an input of {X.dtype}")
    new = _per_feature(t, values, X, X.dtype, "imputed values")
    if floats and math.isnan(replaced):
        return t.map("select(isnan(a), b, a)", X, new)
    return t.map("select(a == c, b, a)", X, new, t.constant(replaced, X.dtype))


@ml_op("Binarizer")
def binarizer(t: Builder, X: Tensor, *, threshold=0.0) -> Tensor:
    """1 where an element exceeds the threshold, else 0."""
    check_types((X,), "fiu")
    bound = threshold if X.dtype.kind == "f" else math.floor(threshold)
    return t.cast(t.map("a > b", X, t.constant(bound, X.dtype), dtype=bool), X.dtype)


@ml_op("FeatureVectorizer")
def feature_vectorizer(t: Builder, *X: Tensor, inputdimensions=None) -> Tensor:
    """The inputs side by side as float32, each cut or filled up with zeros to the number of columns stated for it."""
    if inputdimensions and len(inputdimensions) != len(X):
        raise OperatorError(f"{len(inputdimensions)} inputdimensions for {len(X)} inputs")
    parts = []
    for i, x in enumerate(X):
        if not 1 <= x.rank <= 2:
            raise OperatorError(f"input {i} has {x.rank} dimensions, it must have 1 or 2")
        flat = t.cast(t.reshape(x, (1, x.size)) if x.rank == 1 else x, np.float32)
        width = inputdimensions[i] if inputdimensions else flat.shape[1]
        cut = t.take(flat, 1, 0, min(width, flat.shape[1]))
        parts.append(t.pad(cut, (0, 0), (0, width - cut.shape[1])))
    return t.concat(parts, 1)


@ml_op("ArrayFeatureExtractor", takes=Takes.TENSORS)
def array_feature_extractor(t: Builder, X: Tensor, Y: Tensor) -> Tensor:
    """The elements of the last dimension at the indices Y; of a vector, a matrix of one row."""
    if X.rank == 0 or Y.size == 0:
        raise OperatorError("the input is a scalar, or no indices are given")
    x = t.reshape(X, (1, X.size)) if X.rank == 1 and X.dtype.kind != "O" else X
    index = t.reshape(Y, (Y.size,))
    shape = (*(X.shape[:-1] or (1,)), Y.size)
    if X.dtype.kind != "O":
        return t.op("Gather", x, index, since=13, axis=-1)

    def pick(values: list[np.ndarray]) -> list[np.ndarray]:
        return [np.atleast_2d(np.take(values[0], values[1], -1))]

    return t.host(pick, (x, index), [(X.dtype, shape)], "strings live on the host")[0]


@ml_op("OneHotEncoder", takes=Takes.TENSORS)
def one_hot_encoder(t: Builder, X: Tensor, *, cats_int64s=None, cats_strings=None, zeros=1) -> Tensor:
    """A last dimension with 1 at the place of the element's category; an unknown one gives zeros, or an error."""
    strings = X.dtype.kind == "O"
    categories = cats_strings if strings else cats_int64s
    if not categories:
        raise OperatorError(f"there are no categories for an input of {'strings' if strings else X.dtype}")
    x = X if strings else t.cast(X, np.int64)
    if strings or not zeros:
        x, categories = _numbered(t, x, categories, bool(zeros)), range(len(categories))
    marks = t.map("a == b", t.unsqueeze(x, [x.rank]), t.constant(categories, np.int64), dtype=bool)
    return t.cast(marks, np.float32)


def _numbered(t: Builder, x: Tensor, categories: Sequence[object], zeros: bool) -> Tensor:
    """The place of each element among the categories; -1, or an error, for one that is none of them."""
    places = Places(reversed([(category, i) for i, category in enumerate(categories)]), -1)

    def number(given: list[np.ndarray]) -> list[np.ndarray]:
        index = places.of(given[0], np.int64)
        if not zeros and (index < 0).any():
            raise OperatorError(f"{given[0].ravel().tolist()[np.argmin(index)]!r} is none of the categories")
        return [index]

    reason = "strings live on the host" if zeros else "an unknown category is an error"
    return t.host(number, (x,), [(np.dtype(np.int64), x.shape)], reason)[0]
