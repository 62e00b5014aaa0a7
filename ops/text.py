"""Texts: StringNormalizer, StringConcat. Strings live on the host."""

from __future__ import annotations

import numpy as np

from .builder import Builder, OperatorError, broadcast
from .primitives import Opaque, Tensor
from .registry import Takes, op


@op("StringNormalizer", since=10, takes=Takes.VALUES)
def string_normalizer(
    t: Builder, X: Tensor | Opaque, *, case_change_action="NONE", is_case_sensitive=0, locale="en_US", stopwords=None
) -> Tensor | Opaque:
    """The texts of [C] or [1, C] without stop words, in lower or upper case; one empty text if none is left.

    Case is Unicode's, whatever the locale.
    """
    change = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}.get(case_change_action)
    if change is None:
        raise OperatorError(f"unknown case_change_action {case_change_action!r}")
    same = str if is_case_sensitive else str.lower
    stops = {same(word) for word in stopwords or ()}

    def normalize(given: list[np.ndarray]) -> list[np.ndarray]:
        shape = given[0].shape
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != 1):
            raise OperatorError(f"the input has the shape {list(shape)}, it must be [C] or [1, C]")
        kept = [change(text) for text in given[0].ravel().tolist() if same(text) not in stops] or [""]
        return [np.array(kept, object).reshape(*shape[:-1], len(kept))]

    known = isinstance(X, Tensor) and X.rank > 0 and not stops
    kind = (X.dtype, (*X.shape[:-1], max(X.shape[-1], 1))) if known else None
    return t.host(normalize, (X,), [kind], "strings live on the host")[0]


@op("StringConcat", since=20, takes=Takes.TENSORS, host=True)
def string_concat(t: Builder, X: Tensor, Y: Tensor) -> Tensor:
    """Each text of X followed by that of Y, broadcast."""
    kind = [(np.dtype(object), broadcast(X.shape, Y.shape))]
    return t.host(lambda v: [np.asarray(v[0] + v[1], "O")], (X, Y), kind, "strings live on the host")[0]
