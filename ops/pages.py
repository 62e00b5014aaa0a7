"""Memory from the system: aligned blocks, on huge pages where there are any."""

from __future__ import annotations

import mmap

import numpy as np

HUGE_PAGE = 2 << 20
_OWN = 128 << 10  # bytes from which a lasting block has pages of its own


def allocate(nbytes: int) -> tuple[np.ndarray, int]:
    """(owner, offset): `nbytes` uninitialised bytes from the offset on, which is a multiple of 64 in memory.

    Large blocks lie on huge pages where the system has them: a page fault every 2 MB, not every 4 KB.
    """
    if nbytes >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory = _map(nbytes + HUGE_PAGE)
        owner = np.frombuffer(memory, np.uint8)
        start = -owner.ctypes.data % HUGE_PAGE
        # the part of a huge page behind the end would be memory for nothing
        memory.madvise(mmap.MADV_HUGEPAGE, start, nbytes // HUGE_PAGE * HUGE_PAGE)
        return owner, start
    owner = np.empty(nbytes + 64, np.uint8)
    return owner, -owner.ctypes.data % 64


class Growing:
    """Memory that grows where it is: addresses for more than is needed now, whose pages come when they are first written.

    Raises:
        OSError: the system does not give the addresses.
    """

    def __init__(self, room: int) -> None:
        self.room, self._huge = room, 0
        self._map = _map(room + HUGE_PAGE) if room >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE") else None
        owner = np.empty(room + 64, np.uint8) if self._map is None else np.frombuffer(self._map, np.uint8)
        self._start = -owner.ctypes.data % (64 if self._map is None else HUGE_PAGE)
        self.bytes = owner[self._start : self._start + room]

    def use(self, nbytes: int) -> None:
        """So many bytes, at most `room`, will be written: on huge pages, the last of which may lie in room that is not used.

        Small pages would do for its part, but loops over many places of an arena wait for their addresses (1 % of a network).
        """
        huge = min(-(-nbytes // HUGE_PAGE), self.room // HUGE_PAGE) * HUGE_PAGE
        if self._map is not None and huge > self._huge:
            self._map.madvise(mmap.MADV_HUGEPAGE, self._start + self._huge, huge - self._huge)
            self._huge = huge


def aligned(nbytes: int) -> np.ndarray:
    """uint8[nbytes], uninitialised, at a multiple of 64."""
    owner, offset = allocate(nbytes)
    return owner[offset : offset + nbytes]


def lasting(nbytes: int) -> np.ndarray:
    """As `aligned`, for what is kept until it is replaced, such as weights: its memory goes back to the system then.

    The heap would keep what is freed between other things that are alive.
    """
    if _OWN <= nbytes < HUGE_PAGE and hasattr(mmap, "MAP_PRIVATE"):
        return np.frombuffer(_map(nbytes), np.uint8)
    return aligned(nbytes)


def give_back(x: np.ndarray) -> bool:
    """Give back the pages of an array in a mapped file, which is read again if need be; False: it is in no such file."""
    owner = x
    while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
        owner = owner.base
    if not isinstance(owner, np.memmap):
        return False
    if isinstance(owner.base, mmap.mmap) and x.size and hasattr(mmap, "MADV_DONTNEED"):
        spans = [(n - 1) * step for n, step in zip(x.shape, x.strides)]
        first = x.ctypes.data - owner.ctypes.data + sum(span for span in spans if span < 0)
        start = first // mmap.PAGESIZE * mmap.PAGESIZE
        owner.base.madvise(mmap.MADV_DONTNEED, start, first + sum(map(abs, spans)) + x.itemsize - start)
    return True


def _map(nbytes: int) -> mmap.mmap:
    """Zeroed pages. Private: shared ones, Python's default, are no huge pages, and a forked child would write into them."""
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
