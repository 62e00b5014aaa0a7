"""Which scores a causal mask or a window hides for certain: known when a plan is made, so that blocks of them are left out.

A score is hidden if something very negative is added to it, or chosen in its place, where a constant says so. What a run alone
knows (padding) may hide more, but shows nothing. A finite filler hides nothing in a row that has no other score, so the kernel
looks at what it found (`kernels.attention.Band.level`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import cast

import numpy as np

from ..ops.kernels.attention import Band
from ..ops.kernels.sizes import is_open
from ..ops.primitives import Expand, Map, Move, Reshape, Shape, Tensor
from .edit import literal

_HIDES = -1e9  # what is added to a score hides it from here on
_FILLS = -1e4  # and what takes its place from here on: no score of a network is nearly as low
_FILLED = re.compile(r"select\(b, a, (-[0-9.e+]+)\)")


def band_of(work: Iterable[Map], scores: set[int], queries: int, known: dict[object, object]) -> Band | None:
    """The band that the visible scores of all heads lie in; None: everything may be visible, or their number is open.

    Args:
        work: what is done to scores, in order. scores: ids of their values.
        queries: of a head.
        known: keeps what has been found out about constants.
    """
    found: Band | None = None
    for p in reversed([*work]):
        if is_open(p.output.shape[-2:]):
            return None
        hidden = _hidden_by(p, scores)
        if hidden is not None and p.output.shape[-2] == queries:
            where, level, source = hidden
            reach = _known_reach(where, source, p.output.shape[-2:], known)
            if reach is not None:
                back, ahead = reach
                found = found or Band(back, ahead, -math.inf)
                found = Band(min(found.back, back), min(found.ahead, ahead), max(found.level, level))
        elif p.text != "a + b":
            break  # what was hidden before may have been moved up
    return found


def _known_reach(hidden: np.ndarray, source: Tensor, shape: Shape, known: dict[object, object]) -> tuple[int, int] | None:
    """`_reach`, once for all layers."""
    key = ("band", id(source), shape)
    if key not in known:
        known[key] = (_reach(hidden, *shape), source)  # what identifies it has to stay
    return cast("tuple[tuple[int, int] | None, Tensor]", known[key])[0]


def _reach(hidden: np.ndarray, queries: int, keys: int) -> tuple[int, int] | None:
    """How far before and behind its own place a query sees a key, at most."""
    seen = ~hidden
    while seen.ndim > 2:
        seen = seen.any(0)
    seen = np.broadcast_to(seen, (queries, keys))
    rows = np.flatnonzero(seen.any(1))
    if not rows.size:
        return None
    first, last = seen.argmax(1)[rows], keys - 1 - seen[:, ::-1].argmax(1)[rows]
    return int((rows - first).max()), int((last - rows).max())


Hidden = tuple[np.ndarray, float, Tensor]  # where, what scores there lie far below, and what says so


def _hidden_by(p: Map, scores: set[int]) -> Hidden | None:
    """What one step of the work hides for certain."""
    others = [x for x in p.inputs if id(x) not in scores]
    if p.text == "a + b" and len(others) == 1:
        return _hidden_in(others[0])
    if (filled := _FILLED.fullmatch(p.text)) and len(others) == 1:
        return _chosen(p.inputs[1], False, float(filled.group(1)))
    if p.text == "select(a, b, c)" and len(others) == 2:
        filler = literal(others[1])
        return None if filler is None else _chosen(p.inputs[0], p.inputs[1] is others[1], float(filler))
    return None


def _chosen(condition: Tensor, when: bool, filler: float) -> Hidden | None:
    where = _certain(condition, when) if filler <= _FILLS else None
    return None if where is None else (where, filler / 2, condition)


def _hidden_in(x: Tensor) -> Hidden | None:
    """Where a value that is added hides scores for certain."""
    p = x.source
    if x.is_constant:
        where = x.constant <= _HIDES
        return (where, float(x.constant.max(initial=-np.inf, where=where)) / 2, x) if where.any() else None
    if isinstance(p, Move) and isinstance(p.how, Reshape | Expand):
        found = _hidden_in(p.input)
        return None if found is None else (_moved(found[0], p), *found[1:])
    if isinstance(p, Map) and p.text == "select(a, b, c)":
        for i, when in ((1, True), (2, False)):
            filler = literal(p.inputs[i])
            where = _certain(p.inputs[0], when) if filler is not None and filler <= _HIDES else None
            if where is not None:
                return where, float(filler) / 2, x
    return None


def _certain(condition: Tensor, value: bool) -> np.ndarray | None:
    """Where a condition has a value whatever a run's inputs are; None: perhaps nowhere."""
    p = condition.source
    if condition.is_constant:
        return condition.constant == value
    if isinstance(p, Move) and isinstance(p.how, Reshape | Expand):
        found = _certain(p.input, value)
        return None if found is None else _moved(found, p)
    if isinstance(p, Map) and p.text == ("a | b" if value else "a & b"):
        found = [where for x in p.inputs if (where := _certain(x, value)) is not None]
        return None if not found else found[0] if len(found) == 1 else found[0] | found[1]
    return None


def _moved(x: np.ndarray, move: Move) -> np.ndarray:
    """A move's view of what is known of its input, whose shape may have been left to broadcast."""
    whole = np.broadcast_to(x, move.input.shape)
    return whole.reshape(move.how.shape) if isinstance(move.how, Reshape) else np.broadcast_to(whole, move.how.shape)
