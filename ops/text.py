"""Texts: StringNormalizer. Strings live on the host."""

from __future__ import annotations

import numpy as np

from .builder import Builder, OperatorError
from .primitives import Tensor
from .registry import Takes, op


@op("StringNormalizer", since=10, takes=Takes.TENSORS)
def string_normalizer(
    t: Builder, X: Tensor, *, case_change_action="NONE", is_case_sensitive=0, locale="en_US", stopwords=None
) -> Tensor:
    """The texts of [C] or [1, C] without stop words, in lower or upper case; one empty text if none is left.

    Case is Unicode's, whatever the locale.
    """
    change = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}.get(case_change_action)
    if change is None:
        raise OperatorError(f"unknown case_change_action {case_change_action!r}")
    if X.rank not in (1, 2) or (X.rank == 2 and X.shape[0] != 1):
        raise OperatorError(f"the input has the shape {list(X.shape)}, it must be [C] or [1, C]")
    same = str if is_case_sensitive else str.lower
    stops = {same(word) for word in stopwords or ()}

    def normalize(given: list[np.ndarray]) -> list[np.ndarray]:
        kept = [change(text) for text in given[0].ravel().tolist() if same(text) not in stops] or [""]
        return [np.array(kept, object).reshape(*X.shape[:-1], len(kept))]

    shape = None if stops else (X.dtype, (*X.shape[:-1], max(X.shape[-1], 1)))
    return t.host(normalize, (X,), [shape], "strings live on the host")[0]
