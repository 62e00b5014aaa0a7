"""Texts in com.microsoft: what scikit-learn's vectorizers and hashers are exported with. Strings live on the host."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .builder import Builder, OperatorError
from .primitives import Opaque, Tensor
from .registry import MICROSOFT, Takes, check_types, op

_START, _END = "\x02", "\x03"
_NO_SCORE = -2.0  # below any hyperbolic tangent


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


# -- letters
@op("WordConvEmbedding", domain=MICROSOFT)
def word_conv_embedding(
    t: Builder, words, W, B, C, *, embedding_size=-1, conv_window_size=-1, char_embedding_size=-1
) -> Tensor:  # fmt: skip
    """Words [words, letters], filled up with 0, as the greatest tanh of each filter over their letters' embeddings C."""
    filters, _, window, width = W.shape
    stated = (embedding_size, conv_window_size, char_embedding_size)
    if any(size not in (-1, found) for size, found in zip(stated, (filters, window, width))) or C.shape[1] != width:
        raise OperatorError(f"sizes {list(stated)} do not fit filters {list(W.shape)} and letters {list(C.shape)}")
    letters = t.unsqueeze(t.op("Gather", C, words, since=13), [1])
    scores = t.map("tanh(a)", t.op("Conv", letters, W, B, since=11))  # [words, filters, places, 1]
    length = t.reduce("add", t.cast(t.map("a > 0", words, dtype="bool"), np.int32), [1])
    places = t.cast(t.numbers(scores.shape[2]), np.int32)
    inside = t.map(f"(a == 0) | (a <= b - {window})", places, length, dtype="bool")
    shown = t.map(f"select(b, a, {_NO_SCORE})", scores, t.reshape(inside, (words.shape[0], 1, scores.shape[2], 1)))
    return t.reduce("maximum", shown, [2, 3], keepdims=False)


# -- hashes
_WORD, _FIRST, _SECOND = 0xFFFFFFFF, 0xCC9E2D51, 0x1B873593


@op("MurmurHash3", domain=MICROSOFT, takes=Takes.TENSORS)
def murmur_hash(t: Builder, X: Tensor, *, seed=0, positive=1) -> Tensor:
    """The 32-bit MurmurHash3 of each element's bytes, of a text's in UTF-8, as uint32 or, if not `positive`, int32."""
    dtype, seed = np.dtype(np.uint32 if positive else np.int32), seed & _WORD
    if X.dtype.kind == "O":
        return t.host(lambda v: [_hashes(v[0], seed).view(dtype)], (X,), [(dtype, X.shape)], "strings live on the host")[0]
    check_types((X,), "iuf")
    if X.dtype.itemsize not in (4, 8):
        raise OperatorError(f"the operator is not defined for {X.dtype}")
    bits = f"u{8 * X.dtype.itemsize}"
    whole = t.map(f"bits_{bits}(a)", X, dtype=f"uint{bits[1:]}")
    words = [whole] if bits == "u32" else [t.cast(part, np.uint32) for part in (whole, t.map("a >> 32", whole))]
    made = t.constant(seed, np.uint32)
    for word in words:
        made = t.map("a ^ b", made, _scrambled(t, word))
        made = t.map(f"((a << 13) | (a >> 19)) * 5 + {0xE6546B64}", made)
    made = t.map(f"a ^ {X.dtype.itemsize}", made)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        made = t.map(f"(a ^ (a >> {shift})) * {factor}", made)
    return t.cast(t.map("a ^ (a >> 16)", made), dtype)


def _scrambled(t: Builder, word: Tensor) -> Tensor:
    word = t.map(f"a * {_FIRST}", word)
    return t.map(f"((a << 15) | (a >> 17)) * {_SECOND}", word)


def _hashes(texts: np.ndarray, seed: int) -> np.ndarray:
    return np.array([_hash(text.encode(), seed) for text in texts.ravel().tolist()], np.uint32).reshape(texts.shape)


def _hash(data: bytes, seed: int) -> int:
    """`murmur_hash` of bytes of any number; the last ones may be no whole word."""
    made, whole = seed, len(data) // 4 * 4
    for at in range(0, len(data), 4):
        word = int.from_bytes(data[at : at + 4], "little") * _FIRST & _WORD
        made ^= (word << 15 | word >> 17) * _SECOND & _WORD
        if at < whole:
            made = ((made << 13 | made >> 19) & _WORD) * 5 + 0xE6546B64 & _WORD
    made ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        made = (made ^ made >> shift) * factor & _WORD
    return made ^ made >> 16
