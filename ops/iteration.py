"""Iterations of a body: what goes round (states), what each one takes (slices) and leaves (rows), and how long it goes on.

Loop and Scan are both this. Who runs the body (`Body`) moves an `Iteration` on, by one turn or by many.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .builder import OperatorError

if TYPE_CHECKING:
    from ..fusion.graph import Graph

Kind = tuple[np.dtype, tuple[int, ...]]  # dtype and shape
ENDLESS = sys.maxsize  # the number of iterations that only a condition ends
AT_ONCE = 1 << 28  # bytes of rows that are taken before it is known whether they are needed
_FIRST = 16  # rows that there is room for at first, otherwise


class Body(Protocol):
    """How a host step runs a body.

    Attributes:
        is_repeated: whether the last iterations that it was moved on by were repeated in native code.
    """

    is_repeated: bool

    def run(self, feeds: Mapping[str, object], outputs: list[str]) -> list[object]:
        """The named values; feeds include the values that the body captures."""

    def advance(self, iteration: Iteration) -> None:
        """Run at least one of the iterations that are left."""

    def kinds(self, inputs: Mapping[str, Kind]) -> list[Kind | None]:
        """What the outputs are for such inputs, in the order of feeds; None: only a run says it."""

    def turn(self, roles: Roles, inputs: Mapping[str, Kind]) -> object | None:
        """How iterations are repeated in native code for such inputs, if they can be."""


@dataclass(frozen=True)
class Roles:
    """What the inputs and outputs of a body are to its iterations.

    Attributes:
        counter: the input that gets the iteration's number.
        states: pairs of the input and the output that is that input of the next iteration.
        slices: inputs that get one slice of an array each time; `backward`: whether the last one comes first.
        rows: outputs that are stacked.
        conditional: whether the first state says if there is another iteration.
    """

    states: tuple[tuple[str, str], ...]
    slices: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    counter: str = ""
    conditional: bool = False
    backward: tuple[bool, ...] = ()

    @cached_property
    def changing(self) -> frozenset[str]:
        """The inputs that are another value each time."""
        return frozenset((*(name for name, _ in self.states), *self.slices, self.counter))


@dataclass(frozen=True)
class Nest:
    """A loop that is a host step: what native code needs to know to run its body. The step's outputs are states, then rows.

    Attributes:
        inputs: what the step's inputs are to the body; the first one is the trip count, and has no name.
        kinds: what the body's inputs are, in the order of feeds.
    """

    roles: Roles
    inputs: tuple[str, ...]
    kinds: Mapping[str, Kind]


class Rows:
    """What an output of a body gave, one row an iteration.

    Attributes:
        expected: the most rows that there can be.
        array: the rows so far, and room for more; None before the first one.
    """

    def __init__(self, name: str, expected: int) -> None:
        self.name, self.expected = name, expected
        self.array: np.ndarray | None = None

    def reserve(self, shape: tuple[int, ...], dtype: np.dtype, count: int) -> np.ndarray:
        """The array, with room for `count` rows.

        Raises:
            OperatorError: rows had another shape before.
        """
        if self.array is None:
            fits = self.expected * max(prod(shape) * dtype.itemsize, 1) <= AT_ONCE
            self.array = np.empty((self.expected if fits else max(count, _FIRST), *shape), dtype)
        elif self.array.shape[1:] != shape or self.array.dtype != dtype:
            before = f"{self.array.dtype}{list(self.array.shape[1:])}"
            raise OperatorError(f"scan output {self.name!r} is {dtype}{list(shape)}, in the iterations before it was {before}")
        elif len(self.array) < count:
            self.array.resize((max(count, 2 * len(self.array)), *shape), refcheck=False)
        return self.array

    def put(self, i: int, row: np.ndarray) -> None:
        """Row i, after all before it."""
        self.reserve(row.shape, row.dtype, i + 1)[i] = row

    def stacked(self, count: int, body: Graph, axis: int = 0, backward: bool = False) -> np.ndarray:
        """`count` rows along a new axis, the last one first if `backward`; without any what the body declares of them."""
        made = self.array
        if made is None:
            return _nothing(body, self.name, axis)
        if len(made) > count:
            made.resize((count, *made.shape[1:]), refcheck=False)
        made = made[::-1] if backward else made
        return np.ascontiguousarray(made if axis == 0 else np.moveaxis(made, 0, axis))


def _nothing(body: Graph, name: str, axis: int) -> np.ndarray:
    """No rows of an output."""
    declared = body.types.get(name)
    if declared is None:
        return np.zeros(0, np.float32)
    dims = [d if isinstance(d, int) else 0 for d in declared.shape or ()]
    dims.insert(axis if axis >= 0 else axis + len(dims) + 1, 0)
    return np.zeros(dims, declared.dtype)


class Iteration:
    """How far the iterations of a body have come.

    Attributes:
        fixed: what the body gets every time, by name.
        states: as the next iteration gets them. done: how many iterations there were.
        slices: arrays along whose first axis the slices lie.
    """

    def __init__(
        self, roles: Roles, fixed: Mapping[str, object], states: Sequence[object], limit: int, rows: Sequence[Rows] = (),
        slices: Sequence[np.ndarray] = (), counter_shape: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        self.roles, self.fixed, self.limit, self.rows = roles, fixed, limit, rows
        self.states = [dense(x) for x in states]
        self.given = tuple(self.states)
        self.slices, self.done = [dense(array) for array in slices], 0
        self.counter_shape, self.owns = counter_shape, False

    @property
    def results(self) -> list[object]:
        """The states, none of which is an array that was given."""
        return [x.copy() if x is y and isinstance(x, np.ndarray) else x for x, y in zip(self.states, self.given)]

    def own(self) -> None:
        """Have arrays of its own, as a body that Python runs may keep what it is given, and they may lie in an arena."""
        if not self.owns:
            self.owns = True
            self.fixed = {name: _owned(x) for name, x in self.fixed.items()}
            self.states, self.slices = [*map(_owned, self.states)], [*map(_owned, self.slices)]

    @property
    def goes_on(self) -> bool:
        """Whether there is another iteration.

        Raises:
            OperatorError: the condition is not one truth value.
        """
        if self.done >= self.limit:
            return False
        if not self.roles.conditional:
            return True
        condition = np.asarray(self.states[0])
        if condition.size != 1:
            raise OperatorError(f"the condition must be one truth value, not {condition.dtype}{list(condition.shape)}")
        return bool(condition.item())

    def feeds(self) -> dict[str, object]:
        """The body's inputs."""
        feeds = dict(self.fixed)
        if self.roles.counter:
            feeds[self.roles.counter] = np.array(self.done, np.int64).reshape(self.counter_shape)
        feeds.update((name, x) for (name, _), x in zip(self.roles.states, self.states))
        for name, array, backward in zip(self.roles.slices, self.slices, self.roles.backward):
            feeds[name] = np.asarray(array[-1 - self.done if backward else self.done])
        return feeds

    def take(self, results: Sequence[object]) -> None:
        """The body's outputs of one iteration: states, then rows."""
        count = len(self.states)
        for rows, row in zip(self.rows, results[count:]):
            rows.put(self.done, np.asarray(row))
        self.states = [dense(x) for x in results[:count]]
        self.done += 1

    def run(self, body: Body, where: str) -> None:
        """All iterations; errors say which one they are of, `where`."""
        try:
            while self.goes_on:
                body.advance(self)
        except Exception as error:
            locate(error, f"{where}, iteration {self.done}")
            raise


def locate(error: Exception, where: str) -> None:
    """Let an error's text begin with where it happened."""
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{where}: {error.args[0]}",)


def dense(x: object) -> object:
    """Arrays as plans take them: row-major; what Python functions give may be a view of something."""
    return np.asarray(x, order="C") if isinstance(x, np.ndarray | np.generic) else x


def _owned(x: object) -> object:
    """A copy of an array that may lie in another's memory."""
    return x.copy() if isinstance(x, np.ndarray) and not x.flags.owndata else x
