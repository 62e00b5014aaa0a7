"""Who compiles which kernel: the threads that wait for kernels, and worker processes that are announced them early.

1. A kernel that is known to be needed waits here (`announce`); a worker takes it while its plan is still being made.
2. A thread that cannot go on without kernels (`finish`) compiles what no worker has taken, and waits for the rest.
3. What promises the most work is taken first. Workers start when enough work waits and CPUs are there for them; they
   end when all that was waited for is made, so that their memory is free before the plan's is taken, or when nothing has
   come for a while.
4. What only other sizes need is compiled by workers that have nothing else to do, and nobody waits for it. It is made of
   CPU time that nobody else wants, as runs of the plan go on meanwhile.
5. A worker is never needed: what it does not finish, because it cannot start, fails, is killed or takes too long, is
   compiled by the thread that waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from .log import log
from .ops.kernels.spec import KernelSpec
from .worker import Worker, WorkerError

Progress = Callable[[int, int, str], None]  # done, of how many, name of what comes next

WORTH = 1.5  # seconds of waiting work that another worker is started for
LINGER = 5.0  # seconds without work after which a worker ends
PATIENCE = 10.0  # seconds that a thread waits for a worker's kernel
MOST_WORKERS = 3


class Compiling:
    """Kernels that are waited for, and the object code of those that are made.

    Args:
        compile_here: object code of a kernel, compiled by the calling thread.
        keep: told of each kernel that is made.
        workers: how many processes may help.
    """

    def __init__(
        self, compile_here: Callable[[KernelSpec], bytes], keep: Callable[[KernelSpec, bytes], None], workers: int
    ) -> None:
        self.compile_here, self.keep, self.limit = compile_here, keep, workers
        self.made: dict[str, bytes] = {}
        self.workers: list[Worker] = []
        self.reset()

    def reset(self) -> None:
        """Nothing waits and nobody works: at first, and in the child of a fork, which has one thread."""
        for worker in self.workers:
            worker.forget()
        self.workers = []
        self.helpers = 0  # threads that have a worker, or start one
        self.waiting: dict[str, KernelSpec] = {}
        self.spare: dict[str, KernelSpec] = {}  # that may be needed one day
        self.taken: set[str] = set()  # by workers
        self.over = False  # nothing more is to be expected soon
        self.changed = threading.Condition()
        self.here = threading.Lock()  # one kernel at a time is compiled in this process

    def announce(self, specs: Iterable[KernelSpec]) -> None:
        """These kernels will be needed."""
        with self.changed:
            self.over = False
            for spec in specs:
                self.spare.pop(spec.key, None)
                if spec.key not in self.taken and spec.key not in self.made:
                    self.waiting.setdefault(spec.key, spec)
            work = sum(_seconds(spec) for spec in self.waiting.values())
            while self.helpers < self.limit and work > WORTH * (self.helpers + 1):
                self._start()
            self.changed.notify_all()

    def announce_spare(self, specs: Iterable[KernelSpec]) -> None:
        """These kernels may be needed one day: workers that are there compile them when nothing else waits."""
        with self.changed:
            for spec in specs:
                if not any(spec.key in known for known in (self.taken, self.made, self.waiting)):
                    self.spare[spec.key] = spec

    def finish(self, specs: Sequence[KernelSpec], progress: Progress | None = None) -> None:
        """Wait for these kernels, and compile those that no worker has taken.

        Raises:
            KernelError: a kernel needs the Python runtime.
            numba.core.errors.NumbaError: numba cannot type or lower a kernel.
        """
        while left := [spec for spec in specs if spec.key not in self.made]:
            self.announce(left)
            spec = self._take(left)
            if progress is not None:
                progress(len(specs) - len(left), len(specs), (spec or left[0]).name)
            if spec is None:
                self._wait(left)
            else:
                self._compile(spec)
        with self.changed:
            self.over = not self.waiting and not self.taken
            self.changed.notify_all()
        if progress is not None and specs:
            progress(len(specs), len(specs), "")

    def _take(self, among: Iterable[KernelSpec]) -> KernelSpec | None:
        """One of the kernels that wait."""
        with self.changed:
            best = max((spec for spec in among if spec.key in self.waiting), key=_seconds, default=None)
            if best is not None:
                del self.waiting[best.key]
                self.taken.add(best.key)
            return best

    def _compile(self, spec: KernelSpec) -> None:
        log("compile", lambda: f"compiling {spec.name} {spec.key[:12]}")
        try:
            with self.here:
                code = self.compile_here(spec)
        except BaseException:
            self._give_back(spec)
            raise
        self._done(spec, code)

    def _wait(self, left: Sequence[KernelSpec]) -> None:
        """Until others have finished with one of these; what they are too long at is no longer theirs (rule 5)."""
        with self.changed:
            if not self.changed.wait_for(lambda: any(spec.key not in self.taken for spec in left), PATIENCE):
                self.taken.difference_update(spec.key for spec in left)

    def _done(self, spec: KernelSpec, code: bytes) -> None:
        with self.changed:
            self.made[spec.key] = code
            self.taken.discard(spec.key)
            self.changed.notify_all()
        self.keep(spec, code)

    def _give_back(self, spec: KernelSpec) -> None:
        with self.changed:
            self.taken.discard(spec.key)
            self.waiting.setdefault(spec.key, spec)
            self.changed.notify_all()

    # -- threads with workers
    def _start(self) -> None:
        self.helpers += 1
        try:
            threading.Thread(target=self._help, name="jitrt-compiling", daemon=True).start()
        except RuntimeError:  # no more threads are allowed, or the interpreter ends
            self.helpers -= 1
            self.limit = self.helpers

    def _help(self) -> None:
        worker = None
        try:
            worker = Worker()
            self.workers.append(worker)
            while spec := self._next(worker):
                self._compile_in(worker, spec)
        except WorkerError as error:
            reason = str(error)
            log("compile", lambda: reason)
            self.limit -= 1  # others would fare no better
        finally:
            with self.changed:
                self.helpers -= 1
            if worker is not None:
                self.workers.remove(worker)
                worker.stop()

    def _next(self, worker: Worker) -> KernelSpec | None:
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.over, LINGER)
            if not self.waiting and self.spare:
                worker.step_back()
                best = max(self.spare.values(), key=_seconds)
                self.waiting[best.key] = self.spare.pop(best.key)
            return self._take(self.waiting.values())

    def _compile_in(self, worker: Worker, spec: KernelSpec) -> None:
        log("compile", lambda: f"compiling {spec.name} {spec.key[:12]} in process {worker.process.pid}")
        try:
            code = worker.compile(spec)
        except WorkerError:
            self._give_back(spec)
            raise
        self._done(spec, code)


def _seconds(spec: KernelSpec) -> float:
    """Roughly how long a kernel compiles: what is written by hand is long, what is generated short."""
    return 1.0 if spec.factory else 0.2
