"""Helper threads: Python threads that live inside one native loop, one pool a thread count and process.

A run takes the pool if nobody has it; another run at the same time goes on alone on its caller's thread. Helpers look
for the next run for some 100 us, then sleep in a lock without using CPU. `ops/kernels/replay.py` has the protocol.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import threading
import time

import numpy as np

from .ops.kernels import replay
from .ops.kernels.spec import handwritten

MAX_THREADS = 256
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
REPLAY = handwritten("replay", "replay:make_replay")
HELPER = handwritten("helper", "replay:make_helper")


def _function(library: ctypes.CDLL, name: str) -> int:
    """The address of a C function; 0 if the library has none of that name."""
    found = getattr(library, name, None)
    return 0 if found is None else ctypes.cast(found, ctypes.c_void_p).value or 0


class Pool:
    """`threads` threads: the caller of a run and ``threads - 1`` helpers, started when they are first needed.

    `address` is that of the pool's words once the helpers run, 0 before (and for one thread).
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.reset()

    def reset(self) -> None:
        """A pool without helpers: at first, and in the child of a fork, where none exists."""
        self.address = 0
        self._starting = threading.Lock()
        self._words = np.zeros(replay.pool_words(self.threads) + 8, np.int64)
        self._words = self._words[-self._words.ctypes.data % 64 // 8 :]
        # helpers may look at the words until the process ends, longer than Python keeps objects
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._words))

    def start(self, helper: int) -> int:
        """Start the helpers if they are not there; `helper` is the address of the native loop. Returns `address`."""
        with self._starting:
            if self.address or self.threads == 1:
                return self.address
            words, address = self._words, self._words.ctypes.data
            words[replay.SELF], words[replay.BASE], words[replay.THREADS] = address, replay.CLOSED, self.threads
            words[replay.YIELD] = _function(ctypes.CDLL(None), "sched_yield")
            words[replay.ACQUIRE] = _function(ctypes.pythonapi, "PyThread_acquire_lock")
            words[replay.RELEASE] = _function(ctypes.pythonapi, "PyThread_release_lock")
            for thread in range(1, self.threads):
                words[replay.seat(thread) + replay.LOCK] = _taken_lock()
                threading.Thread(target=KERNEL(helper), args=(address, thread, 0), name=f"jitrt-{thread}", daemon=True).start()
            self.address = address
        return self.address

    def release(self, job: int) -> None:
        """Wait until no helper looks at a job whose memory goes (bounded by one task of a kernel)."""
        if self.address:
            seats = [replay.seat(thread) + replay.BUSY for thread in range(1, self.threads)]
            while any(self._words[seat] == job for seat in seats):
                time.sleep(0)


_allocate_lock = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyThread_allocate_lock", ctypes.pythonapi))
_acquire_lock = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(("PyThread_acquire_lock", ctypes.pythonapi))


def _taken_lock() -> int:
    """The address of a new lock of Python's C interface that is taken; a helper sleeps by taking it once more."""
    lock = _allocate_lock()
    _acquire_lock(lock, 1)
    return lock


_pools: dict[int, Pool] = {}
_guard = threading.Lock()


def pool(threads: int) -> Pool:
    """The process's pool of that size."""
    with _guard:
        if threads not in _pools:
            _pools[threads] = Pool(threads)
        return _pools[threads]


def _after_fork() -> None:
    global _guard
    _guard = threading.Lock()
    for each in _pools.values():
        each.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def default_threads() -> int:
    """What CPU affinity and the container's CPU quota allow, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(count, MAX_THREADS, count if quota is None else -(-quota[0] // quota[1])))


def _cpu_quota() -> tuple[int, int] | None:
    """(microseconds, of a period) that the control group grants, version 2 or 1."""
    root = pathlib.Path("/sys/fs/cgroup")
    try:
        first, period = (root / "cpu.max").read_text().split()[:2]
        return None if first == "max" else (int(first), int(period))
    except (OSError, ValueError):
        pass
    try:
        first, period = (int((root / "cpu" / f"cpu.cfs_{n}_us").read_text()) for n in ("quota", "period"))
        return (first, period) if first > 0 and period > 0 else None
    except (OSError, ValueError):
        return None
