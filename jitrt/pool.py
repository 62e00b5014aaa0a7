"""Helper threads: Python threads that live inside a native loop, one pool a thread count and process.

A run that has parallel work tries to get the pool; another run at the same time goes on alone on its caller's
thread. Helpers look for the next run for about 200 us, then sleep in a lock without using CPU.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import threading
import time
import weakref

import numpy as np

from .ops.kernels.replay import POOL_BUSY
from .ops.kernels.spec import handwritten

_SEEN = 256  # pool word where helper t leaves the sequence number that it saw last
_WORDS = 1024
MAX_THREADS = 256
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
REPLAY = handwritten("replay", "replay:make_replay")
HELPER = handwritten("helper", "replay:make_helper")


class Pool:
    """`threads` threads: the caller of a run and ``threads - 1`` helpers, started when they are first needed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._reset()

    def _reset(self) -> None:
        """A fresh pool: at first, and in the child of a fork, where no helper exists."""
        self.lock = threading.Lock()
        self.words = np.zeros(_WORDS, np.int64)
        self.address = self.words.ctypes.data
        self.words[2] = self.address
        self.asleep: list[bool] = [False] * self.threads
        self.alarms: list[threading.Lock] = []

    def start(self, helper: int) -> None:
        """Start the helpers; `helper` is the address of the native loop."""
        function = KERNEL(helper)
        for t in range(1, self.threads):
            alarm = threading.Lock()
            alarm.acquire()
            self.alarms.append(alarm)
            arguments = (weakref.ref(self), function, t, alarm, self.words)
            threading.Thread(target=_serve, args=arguments, name=f"jitrt-{t}", daemon=True).start()

    def wake(self) -> None:
        """Wake the helpers that sleep; a run is about to begin."""
        for t in range(1, self.threads):
            if self.asleep[t]:
                self.asleep[t] = False
                self.alarms[t - 1].release()

    def release(self, job: int) -> None:
        """Wait until no helper looks at a job whose memory goes (bounded by one task of a kernel)."""
        if self.words[1] == job:
            self.words[1] = 0
        while job in self.words[POOL_BUSY : POOL_BUSY + self.threads]:
            time.sleep(0)


def _serve(owner: weakref.ref[Pool], function, thread: int, alarm: threading.Lock, words: np.ndarray) -> None:
    seen = 0
    address = words.ctypes.data
    while True:
        function(address, thread, seen)
        seen = int(words[_SEEN + thread])
        pool = owner()
        if pool is None:
            return
        pool.asleep[thread] = True
        if words[0] != seen:
            pool.asleep[thread] = False
            continue
        del pool
        # a pool that is dropped leaves its helpers here for good: they look up from time to time
        while not alarm.acquire(timeout=60):
            if owner() is None:
                return


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
        each._reset()


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
