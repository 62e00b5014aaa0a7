"""Texts in com.microsoft: Tokenizer, which scikit-learn's vectorizers are exported with. Strings live on the host."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .builder import Builder, OperatorError
from .primitives import Opaque, Tensor
from .registry import MICROSOFT, Takes, op

_START, _END = "\x02", "\x03"


@op("Tokenizer", domain=MICROSOFT, takes=Takes.VALUES)
def tokenizer(
    t: Builder, X: Tensor | Opaque, *, mark, mincharnum, pad_value, separators=None, stopwords=None, tokenexp=None
) -> Tensor | Opaque:
    """Each text as its tokens along a new last dimension, filled up with `pad_value`.

    Tokens are what matches an expression, what separators (expressions too, applied one after the other) leave, or, with
    an empty separator, characters.
    """
    if bool(tokenexp) == bool(separators):
        raise OperatorError("a tokenizer has either separators or an expression for tokens")
    expressions = [_compiled(text) for text in (separators or [tokenexp])]

    def tokens(text: str) -> list[str]:
        if tokenexp:
            found = [m.group() for m in expressions[0].finditer(text)]
        elif list(separators) == [""]:
            found = list(text)
        else:
            found = _split([text], expressions)
        return [token for token in found if len(token) >= max(mincharnum, 1)]

    def call(given: list[np.ndarray]) -> list[np.ndarray]:
        x = given[0]
        if x.ndim not in (1, 2):
            raise OperatorError(f"the input has {x.ndim} dimensions, it must have 1 or 2")
        return [_padded(x, [tokens(text) for text in x.ravel().tolist()], bool(mark), pad_value)]

    return t.host(call, (X,), [None], "strings live on the host")[0]


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise OperatorError(f"{text!r} is no regular expression: {error}") from error


def _split(texts: Sequence[str], separators: Sequence[re.Pattern[str]]) -> list[str]:
    """What is left between the separators."""
    for separator in separators:
        parts: list[str] = []
        for text in texts:
            at = 0
            for m in separator.finditer(text):
                if m.end() > m.start():
                    parts.append(text[at : m.start()])
                    at = m.end()
            parts.append(text[at:])
        texts = parts
    return list(texts)


def _padded(x: np.ndarray, rows: Sequence[list[str]], mark: bool, pad_value: str) -> np.ndarray:
    """Rows of tokens, of one length."""
    if x.size == 0:
        return np.zeros(x.shape, object)
    if mark and any(rows):
        rows = [[_START, *row, _END] for row in rows]
    width = max(map(len, rows))
    made = np.full((len(rows), width), pad_value, object)
    for to, row in zip(made, rows):
        to[: len(row)] = row
    return made.reshape(*x.shape, width)
