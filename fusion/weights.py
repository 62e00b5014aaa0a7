"""The constants of a session: packed once for all of its plans, and held once.

1. `with_weights` makes a `Weight` of every large constant of a graph. The importer makes those that only products read,
   whose content is still in the file; `pack_ahead` packs them from there.
2. `Weights.packed` gives the place of a packed constant while a plan is made; `Weights.complete` fills all such places
   before the plan runs, by all threads.
3. A weight whose packed form holds all its values is then released: its array is gone unless a plan reads it as it is.
   What asks for it later (a value by name, another algorithm for another shape) unpacks it. If that rounds them, a value by
   name is read from the model again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import numpy as np

from ..ops import matmul
from ..ops.kernels.packing import Packing
from ..ops.pages import HUGE_PAGE, aligned, give_back
from ..ops.primitives import Tensor
from ..ops.weights import Weight
from .graph import Graph, Node, uses
from .parallel import run
from .tensors import LARGE

_LARGE_PLACE = 4 * HUGE_PAGE


def with_weights(graph: Graph) -> Graph:
    """The graph with `Weight`s for its large constants."""

    def held(x: np.ndarray | Weight) -> np.ndarray | Weight:
        return Weight(x) if isinstance(x, np.ndarray) and x.nbytes >= LARGE and x.dtype != object else x

    return graph.copy(constants={name: held(x) for name, x in graph.constants.items()})


def derived(
    make: Callable[[], np.ndarray], dtype: np.dtype, shape: tuple[int, ...], parts: Sequence[np.ndarray | Weight] = ()
) -> np.ndarray | Weight:
    """A constant that ``make()`` computes of others: a large one when it is asked for. `parts`: see `Weight.made_by`."""
    return Weight.made_by(make, dtype, shape, parts=parts) if prod(shape) * dtype.itemsize >= LARGE else make()


def pack_ahead(graph: Graph, weights: Weights, threads: int) -> None:
    """Pack what is packed the same way whatever the shapes are, and hold in memory what else is still to be read."""
    found: list[tuple[Node, Weight]] = []
    readers = uses(graph)
    for node in graph.nodes:
        weight = graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if not node.domain and isinstance(weight, Weight) and node.inputs[1] not in graph.overridable:
            found.append((node, weight))
    asked: list[tuple[Tensor, str, Packing] | None] = [None] * len(found)

    def ask(i: int) -> None:
        node, weight = found[i]
        asked[i] = matmul.packed_ahead(node.op, node.attributes, weight, weights.mode)

    run(len(found), ask, threads)
    for (node, _), each in zip(found, asked):
        if each is not None and not (each[2].nearly and readers[node.inputs[1]] > 1):  # who reads it as it is comes first
            weights.packed(*each)
    weights.complete(threads)
    left = [x for x in graph.constants.values() if isinstance(x, Weight)]
    run(len(left), lambda i: left[i].keep(), threads)


class _Open:
    """A place that has to be filled with a packed constant, part by part."""

    def __init__(self, tensor: Tensor, how: Packing, place: np.ndarray) -> None:
        self.tensor, self.how, self.place = tensor, how, place
        self._source: np.ndarray | None = None
        self._left = how.parts
        self._lock = threading.Lock()

    def fill(self, part: int) -> None:
        """Make a part; the last one releases what is packed now."""
        with self._lock:
            if self._source is None:
                weight = self.tensor.weight
                self._source = self.tensor.constant if weight is None else weight.source()
        self.how.fill(self._source, self.place, part)
        with self._lock:
            self._left -= 1
            if not self._left:
                self._release()

    def _release(self) -> None:
        weight, source, self._source = self.tensor.weight, self._source, None
        again = give_back(source) and weight is not None and not weight.passes  # can be read again from a file, exactly
        if weight is not None and self.how.unpack is not None and not (again and self.how.nearly):
            weight.release(partial(self.how.unpack, self.place), self.how.nearly)

    def again(self) -> _Open:
        """The same with all parts to be made."""
        return _Open(self.tensor, self.how, self.place)


class Weights:
    """Packed constants.

    Args:
        allocate: gives uint8[n]; the session's puts small ones together on huge pages.
        mode: how constant float32 factors of matrix products are held: `jitrt.weights` of the session's options.
    """

    def __init__(self, allocate: Callable[[int], np.ndarray] = aligned, mode: str = "exact") -> None:
        self.allocate, self.mode = allocate, mode
        self._places: dict[object, tuple[object, np.ndarray]] = {}
        self._open: list[_Open] = []
        self._lock = threading.RLock()  # programs of a session make plans at the same time

    def packed(self, tensor: Tensor, key: object, how: Packing | Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The array of the packed constant, made once for the same constant and key; it is filled by `complete`.

        Constants are the same if they are the same views of one weight, or look at the same memory.
        """
        weight = tensor.weight
        where = (key, *(weight.key if weight is not None else _memory_of(tensor.constant)))
        with self._lock:
            found = self._places.get(where)
            if found is None:
                # what identifies the constant has to stay
                found = self._places[where] = (tensor.constant if weight is None else weight.root, self._place(tensor, how))
            return found[1]

    def _place(self, tensor: Tensor, how: Packing | Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        if isinstance(how, Packing):
            place = self._empty(how.shape, how.dtype)
            self._open.append(_Open(tensor, how, place))
            return place
        made = how(tensor.constant)
        place = self._empty(made.shape, made.dtype)
        place[...] = made
        return place

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        return self.allocate(count * dtype.itemsize).view(dtype).reshape(shape)

    def complete(self, threads: int) -> None:
        """Fill every place that was given out. If that fails, the next call fills them."""
        with self._lock:
            self._open.sort(key=lambda one: _turn(one.place))
            parts = [(one, part) for one in self._open for part in range(one.how.parts)]
            self._open = [one.again() for one in self._open]
            run(len(parts), lambda i: parts[i][0].fill(parts[i][1]), threads)
            self._open = []


def _turn(place: np.ndarray) -> tuple[int, int]:
    """The order in which places are filled: by size as long as they are large, then as they lie in memory.

    The largest is filled while there is least beside it. The small ones share huge pages, which are there as a whole as soon as
    one of them is: these begin one after the other, as arrays make room for them.
    """
    return (-place.nbytes, 0) if place.nbytes >= _LARGE_PLACE else (0, place.ctypes.data)


def _memory_of(x: np.ndarray) -> tuple[object, ...]:
    return x.__array_interface__["data"][0], x.shape, x.strides, x.dtype.str
