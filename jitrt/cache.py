"""Caches: rows that a model takes as past and gives back, with new ones behind them, as present; kept where they are.

A decoder's keys and values grow by a row a token. A `Cache` has them in one array with room for more. The model is changed so
that it takes the array and the number of its rows; the present then begins where the array does (`fusion.sharing`), so that a
run writes the new rows and moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from .errors import InvalidArgument
from .fusion.graph import Graph, Node, TensorType
from .ops.pages import aligned


class Cache:
    """The past of a model in an array with room (see `IOBinding.bind_cache`).

    Attributes:
        past, present: the model's input and output. axis: the dimension that grows.
        buffer: the array, of which the first `rows` are in use.
    """

    def __init__(self, past: str, present: str, first: np.ndarray, axis: int, capacity: int) -> None:
        self.past, self.present, self.axis, self._rows = past, present, axis, first.shape[axis]
        self.buffer = _with_room(first, axis, capacity)

    @property
    def rows(self) -> int:
        """How many rows are in use; fewer may be set, which forgets the last ones."""
        return self._rows

    @rows.setter
    def rows(self, count: int) -> None:
        if not 0 <= count <= self._rows:
            raise InvalidArgument(f"the cache of {self.past!r} has {self._rows} rows: it cannot go back to {count}")
        self._rows = int(count)

    @property
    def capacity(self) -> int:
        """How many rows there is room for."""
        return self.buffer.shape[self.axis]

    def reserve(self, capacity: int) -> None:
        """Make room for so many rows, which copies those that there are."""
        if capacity > self.capacity:
            self.buffer = _with_room(self.numpy(), self.axis, capacity)

    def numpy(self) -> np.ndarray:
        """The rows in use: a view, which later runs write behind."""
        return self.buffer[self._used()]

    def check(self, shape: Sequence[int] | None) -> None:
        """Refuse a present of a shape that does not fit.

        Raises:
            InvalidArgument: there are too many rows, or they are other ones.
        """
        held, axis = self.buffer.shape, self.axis
        if shape is None or (*shape[:axis], held[axis], *shape[axis + 1 :]) != held:
            raise InvalidArgument(f"{self.present!r} has shape {list(shape or ())}, which is no longer {self.past!r} {list(held)}")
        if shape[axis] > held[axis]:
            raise InvalidArgument(
                f"the cache of {self.past!r} has room for {held[axis]} rows, the run makes {shape[axis]}: `reserve` more"
            )

    def grow(self, rows: int) -> None:
        """A run has written rows behind the old ones: there are so many now."""
        self._rows = rows

    def replace(self, present: object) -> None:
        """Take over a present that a run has made elsewhere."""
        if not isinstance(present, np.ndarray) or present.dtype != self.buffer.dtype:
            raise InvalidArgument(f"{self.present!r} is not of the type of {self.past!r}")
        self.check(present.shape)
        self._rows = present.shape[self.axis]
        self.numpy()[...] = present

    def _used(self) -> tuple[slice, ...]:
        return (*[slice(None)] * self.axis, slice(self._rows))

    @property
    def array_name(self) -> str:
        """The input of the changed model that takes the array."""
        return f"{self.past} (array)"

    def __repr__(self) -> str:
        return f"<Cache {self.past!r}: {self._rows} of {self.capacity} rows>"


def _with_room(rows: np.ndarray, axis: int, capacity: int) -> np.ndarray:
    """A new array that begins with these rows."""
    count = rows.shape[axis]
    shape = (*rows.shape[:axis], max(int(capacity), count), *rows.shape[axis + 1 :])
    made = np.ndarray(shape, rows.dtype, aligned(max(prod(shape), 1) * rows.dtype.itemsize))
    made[(*[slice(None)] * axis, slice(count))] = rows
    return made


def counts(caches: Sequence[Cache]) -> dict[int, str]:
    """Numbers of rows -> the input of the changed model whose first size is this number (sizes can be open)."""
    return {cache.rows: f"{cache.past} (rows)" for cache in reversed(caches)}


def with_caches(graph: Graph, caches: Sequence[Cache]) -> Graph:
    """The graph with caches' arrays, and numbers of rows, for its pasts; those that are equal now are one."""
    if not caches:
        return graph
    arrays = {cache.past: cache.array_name for cache in caches}
    constants, types, nodes, names = dict(graph.constants), dict(graph.types), [], counts(caches)
    for cache in caches:
        count = names[cache.rows]
        declared = types.get(cache.past)
        shape = list(declared.shape) if isinstance(declared, TensorType) and declared.shape else [None] * cache.buffer.ndim
        types[count] = TensorType(np.dtype(bool), (shape[cache.axis], 0))
        shape[cache.axis] = "capacity"
        types[cache.array_name] = TensorType(cache.buffer.dtype, tuple(shape))
        zero, axis, size = (f"{cache.past} ({part})" for part in ("start", "axis", "size"))
        constants |= {zero: np.zeros(1, np.int64), axis: np.array([cache.axis])}
        nodes.append(Node("Shape", [count], [size], {"start": 0, "end": 1}, size, version=15))
        nodes.append(Node("Slice", [cache.array_name, zero, size, axis], [cache.past], name=cache.past, version=13))
    inputs = [*(arrays.get(name, name) for name in graph.inputs), *names.values()]
    return graph.copy(inputs=inputs, nodes=[*nodes, *graph.nodes], constants=constants, types=types)
