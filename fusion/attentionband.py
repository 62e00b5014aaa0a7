"""Which scores a causal mask or a window hides for certain: known when a plan is made, so that blocks of them are left out.

A score is hidden if something very negative is added to it, or chosen in its place, where constants or places (the number of a
query, of a key) say so. What a run alone knows (padding) may hide more, but shows nothing. A finite filler hides nothing in a row
that has no other score, so the kernel looks at what it found (`kernels.attention.Band.level`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import cast

import numpy as np

from ..ops.kernels.attention import Band
from ..ops.kernels.sizes import alike, certainly, is_open, least, whole
from ..ops.primitives import Expand, Map, Move, Reshape, Slice, Tensor
from .edit import literal

_HIDES = -1e9  # what is added to a score hides it from here on
_FILLS = -1e4  # and what takes its place from here on: no score of a network is nearly as low
_FILLED = re.compile(r"select\(b, a, (-[0-9.e+]+)\)")
_CASTS = "a", "to_i32(a)", "to_i64(a)"
_COMPARED = {"a <= b": (False, 0), "a < b": (False, 1), "a >= b": (True, 0), "a > b": (True, 1)}  # turned round; by how much more

Shape = tuple[int, ...]  # queries and keys
Reach = tuple[int, int]  # how far before and behind its own place a query sees a key, at most
Hidden = tuple[Reach, float]  # and what all scores beyond are far below


def band_of(work: Iterable[Map], scores: set[int], queries: int, known: dict[object, object]) -> Band | None:
    """The band that the visible scores of all heads lie in; None: everything may be visible.

    Args:
        work: what is done to scores, in order. scores: ids of their values.
        queries: of a head.
        known: keeps what has been found out about constants.
    """
    found: Band | None = None
    for p in reversed([*work]):
        hidden = _Masks(known).hidden_by(p, scores)
        if hidden is not None and alike(p.output.shape[-2:-1], (queries,)):
            (back, ahead), level = hidden
            found = found or Band(back, ahead, -math.inf)
            found = Band(least(found.back, back), least(found.ahead, ahead), max(found.level, level))
        elif p.text != "a + b":
            break  # what was hidden before may have been moved up
    return found


class _Masks:
    """Looks into what is done to scores. A value is broadcast to a `shape` of queries and keys."""

    def __init__(self, known: dict[object, object]) -> None:
        self.known = known

    def hidden_by(self, p: Map, scores: set[int]) -> Hidden | None:
        """What one step of the work hides for certain."""
        others, shape = [x for x in p.inputs if id(x) not in scores], p.output.shape[-2:]
        if p.text == "a + b" and len(others) == 1:
            return self._added(others[0], shape)
        if (filled := _FILLED.fullmatch(p.text)) and len(others) == 1:
            return self._filled(p.inputs[1], False, float(filled.group(1)), shape)
        if p.text == "select(a, b, c)" and len(others) == 2:
            filler = literal(others[1])
            return None if filler is None else self._filled(p.inputs[0], p.inputs[1] is others[1], float(filler), shape)
        return None

    def _filled(self, condition: Tensor, when: bool, filler: float, shape: Shape) -> Hidden | None:
        reach = self._certain(condition, when, shape) if filler <= _FILLS else None
        return None if reach is None else (reach, filler / 2)

    def _added(self, x: Tensor, shape: Shape) -> Hidden | None:
        """Where a value that is added hides scores for certain."""
        p = x.source
        if x.is_constant:
            reach = self._reach(x, None, shape)
            if reach is None:
                return None
            return reach, float(x.constant.max(initial=-np.inf, where=x.constant <= _HIDES)) / 2
        if isinstance(p, Move):
            inner = _before(p, shape)
            found = None if inner is None else self._added(p.input, inner)
            return None if found is None else (_moved(found[0], p), found[1])
        if isinstance(p, Map) and p.text == "select(a, b, c)":
            for i, when in ((1, True), (2, False)):
                filler = literal(p.inputs[i])
                reach = self._certain(p.inputs[0], when, shape) if filler is not None and filler <= _HIDES else None
                if reach is not None:
                    return reach, float(filler) / 2
        if isinstance(p, Map) and p.text == "a * b":  # a filler times a condition
            for condition, filler in ((p.inputs[0], _repeated(p.inputs[1])), (p.inputs[1], _repeated(p.inputs[0]))):
                made = condition.source
                if filler is not None and filler <= _HIDES and isinstance(made, Map) and made.text == "to_f32(a)":
                    reach = self._certain(made.inputs[0], True, shape) if made.inputs[0].dtype == bool else None
                    return None if reach is None else (reach, float(filler) / 2)
        return None

    def _certain(self, condition: Tensor, value: bool, shape: Shape) -> Reach | None:
        """The band outside of which a condition has a value whatever a run's inputs are; None: none is known."""
        p = condition.source
        if condition.is_constant:
            return self._reach(condition, value, shape)
        if isinstance(p, Move):
            inner = _before(p, shape)
            found = None if inner is None else self._certain(p.input, value, inner)
            return None if found is None else _moved(found, p)
        if isinstance(p, Map) and p.text == ("a | b" if value else "a & b"):
            reaches = [reach for x in p.inputs if (reach := self._certain(x, value, shape)) is not None]
            return (least(*(back for back, _ in reaches)), least(*(ahead for _, ahead in reaches))) if reaches else None
        if isinstance(p, Map) and p.text == "~a" and condition.dtype == bool:
            return self._certain(p.inputs[0], not value, shape)
        if isinstance(p, Map) and p.text in _COMPARED:
            return _compared(p, value, shape)
        return None

    def _reach(self, x: Tensor, hides: bool | None, shape: Shape) -> Reach | None:
        """How far the elements of a constant that do not hide (None: very negative ones do) are from the diagonal.

        That is found out once for all layers.
        """
        if is_open(shape) or x.is_open:
            return None
        key = ("band", id(x), hides, shape)
        if key not in self.known:
            hidden = x.constant <= _HIDES if hides is None else x.constant == hides
            self.known[key] = (_seen(hidden, *shape), x)  # what identifies it has to stay
        return cast("tuple[Reach | None, Tensor]", self.known[key])[0]


def _seen(hidden: np.ndarray, queries: int, keys: int) -> Reach | None:
    seen = ~hidden
    while seen.ndim > 2:
        seen = seen.any(0)
    seen = np.broadcast_to(seen, (queries, keys))
    rows = np.flatnonzero(seen.any(1))
    if not rows.size or not hidden.any():
        return None
    first, last = seen.argmax(1)[rows], keys - 1 - seen[:, ::-1].argmax(1)[rows]
    return int((rows - first).max()), int((last - rows).max())


def _repeated(x: Tensor) -> float | None:
    """The number that all elements of a tensor are, if it is known."""
    while isinstance(x.source, Move):
        x = x.source.input
    return literal(x)


# -- views
def _before(move: Move, shape: Shape) -> Shape | None:
    """The shape that a view's input is broadcast to; None: the view mixes queries and keys with other dimensions."""
    how, x = move.how, move.input
    if isinstance(how, Expand):
        return shape
    if x.rank < 2:
        return None
    if isinstance(how, Slice):
        return x.shape[-2:] if how.steps[-2:] == (1, 1) and alike(how.sizes[-2:], shape) else None
    return shape if isinstance(how, Reshape) and alike(how.shape[-2:], x.shape[-2:]) else None


def _moved(reach: Reach, move: Move) -> Reach:
    """The reach in a view of what has a reach."""
    if not isinstance(move.how, Slice):
        return reach
    further = move.how.starts[-2] - move.how.starts[-1]  # the view's first query is so much further than its first key
    return reach[0] - further, reach[1] + further


# -- places
def _compared(p: Map, value: bool, shape: Shape) -> Reach | None:
    """The band outside of which a comparison of numbers of queries with numbers of keys has a value."""
    turned, more = _COMPARED[p.text]
    a, b = p.inputs[::-1] if turned else p.inputs
    if value:  # where it is false, that is where b < a or b <= a
        a, b, more = b, a, 1 - more
    first, second = _numbers(a), _numbers(b)
    if first is None or second is None or {first[1], second[1]} != {-2, -1}:
        return None
    between = second[0] - first[0] - more
    return (shape[0], between) if first[1] == -1 else (between, shape[1])


def _numbers(x: Tensor) -> tuple[int, int] | None:
    """The first of consecutive numbers, and the dimension, from the end, along which they are; None: it is something else."""
    p = x.source
    if x.is_constant:
        return None if x.is_open else _consecutive(x.constant)
    if isinstance(p, Map) and p.text in _CASTS:
        return _numbers(p.inputs[0])
    if isinstance(p, Map) and p.text in ("a + b", "a - b"):
        sign = 1 if p.text == "a + b" else -1
        for numbers, other in (p.inputs, p.inputs[::-1])[: 1 + (sign == 1)]:
            if other.is_constant and other.size == 1 and (found := _numbers(numbers)) is not None:
                return found[0] + sign * whole(other.content.reshape(-1)[0]), found[1]
        return None
    found = _numbers(p.input) if isinstance(p, Move) else None
    if found is None:
        return None
    first, axis = found
    if isinstance(p.how, Slice):
        return (first + p.how.starts[axis], axis) if p.how.steps[axis] == 1 else None
    if isinstance(p.how, Expand):
        return found
    if isinstance(p.how, Reshape):
        varying = [d - x.rank for d, n in enumerate(x.shape) if not certainly(n, 1)]
        return (first, varying[0]) if len(varying) == 1 else None
    return None


def _consecutive(array: np.ndarray) -> tuple[int, int] | None:
    varying = [d - array.ndim for d, n in enumerate(array.shape) if n != 1]
    flat = array.reshape(-1)
    if len(varying) != 1 or array.dtype.kind != "i" or not np.array_equal(flat, np.arange(flat[0], flat[0] + len(flat))):
        return None
    return int(flat[0]), varying[0]
