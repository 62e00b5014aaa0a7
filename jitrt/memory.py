"""Memory of runs: slabs for what is kept long, arenas for what a run needs itself, and large outputs used again."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict, deque

import numpy as np

from .ops.pages import Growing, aligned, allocate

LARGE = 64 << 10  # bytes from which an output is recycled: below, allocating costs less
DATA_OFFSET = object.__basicsize__  # where an array object keeps its data address (PyArrayObject: right after the head)
_AHEAD = 8  # addresses of an arena: times what was asked for first
_SCAN = 8  # blocks of one size that an allocation looks at
_KEEP = 64  # blocks of one size that are remembered


class Slabs:
    """Memory that is kept long, such as weights: pieces of large blocks, so that all of it lies on huge pages."""

    def __init__(self, size: int = 64 << 20) -> None:
        self.size = size
        self._rest = np.empty(0, np.uint8)
        self._lock = threading.Lock()

    def allocate(self, nbytes: int) -> np.ndarray:
        """uint8[nbytes], uninitialised, at a multiple of 64; it lives as long as anything refers to it."""
        if nbytes < LARGE or nbytes > self.size:
            return aligned(nbytes)
        with self._lock:
            if self._rest.nbytes < nbytes:
                self._rest = aligned(self.size)
            piece, self._rest = self._rest[:nbytes], self._rest[-(-nbytes // 64) * 64 :]
            return piece


class Arena:
    """The values between the steps of one run at a time. `room`: bytes from `address` on; growing may change both."""

    def __init__(self) -> None:
        self._memory = Growing(0)
        self.address = self.room = 0

    @property
    def bytes(self) -> np.ndarray:
        """uint8[room]."""
        return self._memory.bytes

    def grow(self, nbytes: int) -> None:
        """Have room for that many bytes; what was in them is lost."""
        if nbytes > self.room:
            try:
                self._memory = Growing(_AHEAD * nbytes)
            except OSError:  # a limit on addresses
                self._memory = Growing(nbytes)
            self.room, self.address = self._memory.room, self._memory.bytes.ctypes.data
        self._memory.use(nbytes)


class Arenas:
    """The arenas of a session: all its plans run in the same ones, so memory grows with runs at a time, not with plans.

    Pages that are there already are also what makes the first run of a new plan fast.
    """

    def __init__(self) -> None:
        self._free: list[Arena] = []

    def take(self, last: Arena) -> Arena:
        """An arena for a run; the one of the context's last run if nobody else has it."""
        free = self._free
        try:  # single operations of a list, so that no lock is needed
            free.remove(last)
            return last
        except ValueError:
            pass
        try:
            return free.pop()
        except IndexError:
            return Arena()

    def give(self, arena: Arena) -> None:
        """A run has ended."""
        self._free.append(arena)


def _references(kept: deque[tuple[np.ndarray, int]]) -> int:
    return sys.getrefcount(kept[0][0])


_UNUSED = _references(deque([(np.empty(1), 0)]))  # references to a block that no array of the caller lies on


def _room(nbytes: int) -> int:
    """The bytes of a block for an output: one of eight sizes between powers of two, so that outputs that grow share blocks."""
    step = 1 << max(nbytes.bit_length() - 4, 0)
    return -(-nbytes // step) * step


class Recycler:
    """Memory of large outputs, used again once the caller has dropped every array on it.

    Every view of an output, and everything that borrows its buffer, holds a reference to the block's owner in the
    end; so a block that only the recycler refers to is free. It serves outputs of half its size and more, and one that is
    made takes the place of a free one that it can serve for: outputs of many sizes share few blocks, whose pages the system
    has given long ago. Remembered blocks are bounded: `limit` bytes in all, those of the least recently wanted sizes go first.
    """

    def __init__(self, limit: int = 256 << 20) -> None:
        self.limit, self.held = limit, 0
        self._lock = threading.Lock()
        self._sizes: OrderedDict[int, deque[tuple[np.ndarray, int]]] = OrderedDict()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> np.ndarray:
        """An uninitialised array of `nbytes` bytes."""
        room = _room(nbytes)
        with self._lock:
            size = room if self._has_free(room) else self._free_size(room + 1, 2 * room)
            if size is None:
                self._forget(self._free_size(-(-room // 2), room - 1))
                block = allocate(room)
                made = np.ndarray(shape, dtype, *block)
                self._remember(room, block)
                return made
            self._sizes.move_to_end(size)
            return np.ndarray(shape, dtype, *self._sizes[size][-1])

    def _free_size(self, least: int, most: int) -> int | None:
        """The smallest size between these of which a block is free, if there is one."""
        return next(filter(self._has_free, sorted(n for n in self._sizes if least <= n <= most)), None)

    def _has_free(self, size: int) -> bool:
        """Whether a block of that size is free, which is the last one then."""
        kept = self._sizes.get(size) or deque()
        for _ in range(min(len(kept), _SCAN)):
            is_free = _references(kept) == _UNUSED
            kept.rotate(-1)
            if is_free:
                return True
        return False

    def _forget(self, size: int | None) -> None:
        """Forget the last block of a size."""
        if size is not None:
            self._sizes[size].pop()
            self.held -= size

    def _remember(self, nbytes: int, block: tuple[np.ndarray, int]) -> None:
        if nbytes > self.limit:
            return
        kept = self._sizes.setdefault(nbytes, deque())
        self._sizes.move_to_end(nbytes)
        kept.append(block)
        self.held += nbytes
        if len(kept) > _KEEP:
            kept.popleft()
            self.held -= nbytes
        while self.held > self.limit:
            size, oldest = next(iter(self._sizes.items()))
            if oldest:
                oldest.popleft()
                self.held -= size
            else:
                del self._sizes[size]
