"""Caches: rows that a model takes as past and gives back, with new ones behind them, as present; kept where they are.

A decoder's keys and values grow by a row a token. A `Cache` has them in one array with room for more. The model is changed so
that it takes the array and the number of its rows; the present then begins where the array does (`fusion.sharing`), so that a
run writes the new rows and moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod

import numpy as np

from .errors import InvalidArgument
from .fusion.graph import Graph, Node, TensorType
from .ops.pages import aligned


class Cache:
    """The past of a model in an array with room (see `IOBinding.bind_cache`).

    Attributes:
        past, present: the model's input and output. axis: the dimension that grows.
        array_name: the input of the changed model that takes the array.
        span: the addresses of its first byte and of the one after the last, and `array_name`.
    """

    # a step looks at many of these when they are in no cache of the CPU any more: each is to be one or two lines of memory
    __slots__ = ("_buffers", "_counts", "_place", "array_name", "axis", "past", "present", "span")

    def __init__(self, past: str, present: str, first: np.ndarray, axis: int, capacity: int) -> None:
        self.past, self.present, self.axis = past, present, axis
        self.array_name = f"{past} (array)"
        self._counts, self._buffers, self._place = [first.shape[axis]], [first], 0  # shared with others, see `Caches`
        self._hold(first, capacity)

    def _hold(self, rows: np.ndarray, capacity: int) -> None:
        """These rows, in a new array."""
        self._buffers[self._place] = _with_room(rows, self.axis, capacity)
        start = self.buffer.ctypes.data
        self.span = start, start + self.buffer.nbytes, self.array_name

    @property
    def buffer(self) -> np.ndarray:
        """The array."""
        return self._buffers[self._place]

    @property
    def rows(self) -> int:
        """How many rows are in use; fewer may be set, which forgets the last ones."""
        return self._counts[self._place]

    @rows.setter
    def rows(self, count: int) -> None:
        counts, place = self._counts, self._place
        if not 0 <= count <= counts[place]:
            raise InvalidArgument(f"the cache of {self.past!r} has {self.rows} rows: it cannot go back to {count}")
        counts[place] = int(count)

    @property
    def capacity(self) -> int:
        """How many rows there is room for."""
        return self.buffer.shape[self.axis]

    def reserve(self, capacity: int) -> None:
        """Make room for so many rows, which copies those that there are."""
        if capacity > self.capacity:
            self._hold(self.numpy(), capacity)

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
        self._counts[self._place] = rows

    def replace(self, present: object) -> None:
        """Take over a present that a run has made elsewhere."""
        if not isinstance(present, np.ndarray) or present.dtype != self.buffer.dtype:
            raise InvalidArgument(f"{self.present!r} is not of the type of {self.past!r}")
        self.check(present.shape)
        self.grow(present.shape[self.axis])
        self.numpy()[...] = present

    def _used(self) -> tuple[slice, ...]:
        return (*[slice(None)] * self.axis, slice(self.rows))

    def __repr__(self) -> str:
        return f"<Cache {self.past!r}: {self.rows} of {self.capacity} rows>"


def _with_room(rows: np.ndarray, axis: int, capacity: int) -> np.ndarray:
    """A new array that begins with these rows."""
    count = rows.shape[axis]
    shape = (*rows.shape[:axis], max(int(capacity), count), *rows.shape[axis + 1 :])
    made = np.ndarray(shape, rows.dtype, aligned(max(prod(shape), 1) * rows.dtype.itemsize))
    made[(*[slice(None)] * axis, slice(count))] = rows
    return made


class Caches:
    """Those of a binding, of which each run has all.

    Attributes:
        pasts, presents: the inputs and outputs that they stand for.
        in_arrays: of each present the input of the changed model in whose array it is to be.
        rows, buffers: of each cache, which keeps them here: a look at a list is short, one at many objects is long.
    """

    def __init__(self, caches: Iterable[Cache] = ()) -> None:
        self._all = tuple(caches)
        self.rows, self.buffers = [cache.rows for cache in self._all], [cache.buffer for cache in self._all]
        for place, cache in enumerate(self._all):
            cache._counts, cache._buffers, cache._place = self.rows, self.buffers, place
        self.pasts = frozenset(cache.past for cache in self._all)
        self.presents = tuple(cache.present for cache in self._all)
        self.in_arrays = {cache.present: cache.array_name for cache in self._all}
        self._kinds = tuple((cache.past, cache.present, cache.axis) for cache in self._all)

    def __iter__(self) -> Iterator[Cache]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def with_cache(self, cache: Cache) -> Caches:
        """These and another one, which takes the place of that of the same past."""
        return Caches(({each.past: each for each in self._all} | {cache.past: cache}).values())

    def counts(self) -> dict[int, str]:
        """Numbers of rows -> the input of the changed model whose first size is this number (sizes can be open)."""
        return {cache.rows: f"{cache.past} (rows)" for cache in reversed(self._all)}

    def layout(self, counts: Mapping[int, str]) -> tuple[object, ...]:
        """What decides the changed model: which inputs and outputs they are, and which of them have equally many rows."""
        return self._kinds, tuple([counts[cache.rows] for cache in self._all])

    def changed(self, graph: Graph) -> Graph:
        """The graph with arrays, and numbers of rows, for the pasts; those that are equal now are one."""
        if not self._all:
            return graph
        arrays = {cache.past: cache.array_name for cache in self._all}
        constants, types, nodes, names = dict(graph.constants), dict(graph.types), [], self.counts()
        for cache in self._all:
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


NO_CACHES = Caches()
