"""Sequences and optionals: host steps on Python lists (an empty optional is None)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .builder import Builder, OperatorError, axis_index
from .primitives import Opaque
from .registry import Takes, op


def _step(t: Builder, call: Callable, *inputs, kind: tuple | None = None) -> Opaque:
    """A host step of one result: ``call`` of the inputs' values."""
    return t.host(lambda values: [call(*values)], inputs, [kind], "sequences and optionals live on the host")[0]


def _position(sequence: list, position: np.ndarray | None, count: int) -> int:
    """A possibly negative index below `count`.

    Raises:
        OperatorError: it lies outside.
    """
    index = int(position.item())
    if not -len(sequence) <= index < count:
        raise OperatorError(f"position {index} is outside a sequence of {len(sequence)}")
    return index + len(sequence) if index < 0 else index


@op("SequenceConstruct", since=11, takes=Takes.VALUES)
def sequence_construct(t: Builder, *inputs):
    """A sequence of the inputs."""
    return _step(t, lambda *values: list(values), *inputs)


@op("SequenceEmpty", since=11, takes=Takes.VALUES)
def sequence_empty(t: Builder, *, dtype=1):
    """A sequence of nothing."""
    return _step(t, lambda: [])


@op("SequenceInsert", since=11, takes=Takes.VALUES)
def sequence_insert(t: Builder, input_sequence, tensor, position=None):
    """The sequence with the tensor at `position` (default: at its end)."""

    def insert(sequence, value, place):
        at = len(sequence) if place is None else _position(sequence, place, len(sequence) + 1)
        return [*sequence[:at], value, *sequence[at:]]

    return _step(t, insert, input_sequence, tensor, position)


@op("SequenceErase", since=11, takes=Takes.VALUES)
def sequence_erase(t: Builder, input_sequence, position=None):
    """The sequence without the element at `position` (default: the last)."""

    def erase(sequence, place):
        at = len(sequence) - 1 if place is None else _position(sequence, place, len(sequence))
        return [*sequence[:at], *sequence[at + 1 :]]

    return _step(t, erase, input_sequence, position)


@op("SequenceAt", since=11, takes=Takes.VALUES)
def sequence_at(t: Builder, input_sequence, position):
    """The element at `position`."""
    return _step(t, lambda sequence, place: sequence[_position(sequence, place, len(sequence))], input_sequence, position)


@op("SequenceLength", since=11, takes=Takes.VALUES)
def sequence_length(t: Builder, input_sequence):
    """The number of elements."""
    return _step(t, lambda sequence: np.asarray(len(sequence), np.int64), input_sequence, kind=(np.dtype(np.int64), ()))


@op("ConcatFromSequence", since=11, takes=Takes.VALUES)
def concat_from_sequence(t: Builder, input_sequence, *, axis, new_axis=0):
    """The elements one after the other along an axis, or along a new one."""
    return _step(t, lambda sequence: (np.stack if new_axis else np.concatenate)(sequence, axis), input_sequence)


@op("SplitToSequence", since=11, takes=Takes.VALUES)
def split_to_sequence(t: Builder, x, split=None, *, axis=0, keepdims=1):
    """Parts along an axis: of the given sizes, of one size (the last may be smaller), or of size 1."""

    def parts(value, sizes):
        d = axis_index(axis, value.ndim)
        n = value.shape[d]
        if sizes is None:
            ends = range(1, n)
        elif sizes.ndim == 0:
            ends = range(int(sizes), n, int(sizes))
        else:
            if sizes.sum() != n:
                raise OperatorError(f"cannot split {n} elements of axis {axis} into parts of {sizes.tolist()}")
            ends = np.cumsum(sizes)[:-1]
        made = np.split(value, list(ends), d)
        return [np.squeeze(p, d) for p in made] if sizes is None and not keepdims else made

    return _step(t, parts, x, split)


@op("Optional", since=15, takes=Takes.VALUES)
def optional(t: Builder, value=None, *, type=None):
    """The value as an optional, or an empty one."""
    return value if value is not None else _step(t, lambda: None)


@op("OptionalHasElement", since=15, takes=Takes.VALUES)
def optional_has_element(t: Builder, value=None):
    """Whether the optional is not empty."""
    return _step(
        t,
        lambda *v: np.asarray(bool(v) and v[0] is not None),
        *([] if value is None else [value]),
        kind=(np.dtype(bool), ()),
    )


@op("OptionalGetElement", since=15, takes=Takes.VALUES)
def optional_get_element(t: Builder, value):
    """The optional's value.

    Raises:
        OperatorError: it is empty.
    """

    def get(v):
        if v is None:
            raise OperatorError("the optional is empty")
        return v

    return value if not isinstance(value, Opaque) else _step(t, get, value)
