"""Compiling beside the process that waits: the same kernels, whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from jitrt import compiling as compilings
from jitrt import worker as workers
from jitrt.compiling import Compiling
from jitrt.ops.kernels import compiler
from jitrt.ops.kernels.spec import KernelSpec, handwritten
from jitrt.pool import HELPER, KERNEL, REPLAY
from jitrt.store import Store
from jitrt.worker import Worker, WorkerError

TEXT = "def kernel(args, task, scratch):\n    args[0] = {} + args[0] * 0\n"
KERNELS = [KernelSpec(f"answer{n}", TEXT.format(n)) for n in range(20)]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks")


def answer(store: Store, spec: KernelSpec) -> int:
    word = np.zeros(1, np.int64)
    KERNEL(store.address(spec))(word.ctypes.data, 0, 0)
    return int(word[0])


def until(true, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true())


class Record:
    """Who compiled which kernel in a `Compiling` whose object code is the kernel's name."""

    def __init__(self, monkeypatch, workers: int = 1, worker=None, seconds: float = 0.0) -> None:
        self.here, self.there, self.kept = [], [], []
        self.seconds, self.stopped = seconds, 0
        self.back = []  # what was compiled by a worker that had stepped back
        monkeypatch.setattr(compilings, "Worker", worker or (lambda: _Worker(self)))
        monkeypatch.setattr(compilings, "LINGER", 0.2)
        self.compiling = Compiling(self._here, lambda spec, code: self.kept.append(spec.name), workers)

    def _here(self, spec: KernelSpec) -> bytes:
        time.sleep(self.seconds)
        self.here.append(spec.name)
        return spec.name.encode()

    def finish(self, specs=KERNELS, progress=None) -> None:
        self.compiling.finish(specs, progress)
        assert {spec.key: spec.name.encode() for spec in specs}.items() <= self.compiling.made.items()


class _Worker:
    """A worker that is a thread of this process."""

    process = subprocess.CompletedProcess([], 0)

    def __init__(self, record: Record) -> None:
        self.record, self.process.pid, self.is_back = record, 0, False

    def compile(self, spec: KernelSpec) -> bytes:
        time.sleep(self.record.seconds)
        self.record.there.append(spec.name)
        if self.is_back:
            self.record.back.append(spec.name)
        return spec.name.encode()

    def step_back(self) -> None:
        self.is_back = True

    def stop(self) -> None:
        self.record.stopped += 1


NAMES = sorted(spec.name for spec in KERNELS)


def test_a_worker_and_the_thread_that_waits_share_the_kernels(monkeypatch):
    record = Record(monkeypatch, seconds=0.02)
    record.finish()
    assert sorted(record.here + record.there) == sorted(record.kept) == NAMES
    assert record.here
    assert record.there


def test_what_is_announced_early_is_made_before_it_is_waited_for(monkeypatch):
    record = Record(monkeypatch)
    record.compiling.announce(KERNELS)
    assert until(lambda: len(record.there) == len(KERNELS))
    record.finish()
    assert record.here == []


def test_spare_kernels_are_made_last_by_workers_and_nobody_waits_for_them(monkeypatch):
    record = Record(monkeypatch, seconds=0.01)
    spare, needed = [REPLAY, HELPER, KERNELS[0]], KERNELS
    record.compiling.announce_spare(spare)
    record.finish(needed)
    assert not {"replay", "helper"} & set(record.here)
    assert until(lambda: len(record.kept) == len(KERNELS) + 2)
    assert set(record.there[-2:]) == {"replay", "helper"}
    assert record.back == record.there[-2:]
    record.finish(spare)
    assert len(record.kept) == len(KERNELS) + 2


def test_spare_kernels_start_no_worker_and_are_made_when_they_are_needed(monkeypatch):
    record = Record(monkeypatch)
    record.compiling.announce_spare([REPLAY, *KERNELS])
    assert record.compiling.helpers == 0
    record.finish([REPLAY, KERNELS[0]])
    assert record.here == ["replay", "answer0"]


def test_little_work_starts_no_worker(monkeypatch):
    record = Record(monkeypatch)
    record.compiling.announce(KERNELS[:3])
    assert record.compiling.helpers == 0
    record.finish(KERNELS[:3])
    assert record.there == []


def test_without_workers_all_is_compiled_in_order_of_what_promises_to_last(monkeypatch):
    record, told = Record(monkeypatch, workers=0), []
    record.finish([*KERNELS[:2], REPLAY], lambda *step: told.append(step))
    assert record.here == ["replay", "answer0", "answer1"]
    assert told == [(0, 3, "replay"), (1, 3, "answer0"), (2, 3, "answer1"), (3, 3, "")]


def test_progress_counts_what_workers_have_made(monkeypatch):
    record, told = Record(monkeypatch, seconds=0.01), []
    record.finish(KERNELS, lambda *step: told.append(step))
    done = [step[0] for step in told]
    assert done == sorted(done)
    assert told[-1] == (20, 20, "")
    assert {step[1] for step in told} == {20}


def test_workers_end_when_nothing_comes_and_start_again(monkeypatch):
    record = Record(monkeypatch, workers=2)
    for rounds in (1, 2):
        record.compiling.made.clear()
        record.finish()
        assert until(lambda: record.compiling.helpers == 0)
        assert until(lambda rounds=rounds: record.stopped == 2 * rounds)
        assert record.compiling.workers == []


def test_workers_end_as_soon_as_all_that_was_waited_for_is_made(monkeypatch):
    record = Record(monkeypatch, seconds=0.01)
    monkeypatch.setattr(compilings, "LINGER", 600.0)
    record.compiling.announce(KERNELS[:10])
    assert until(lambda: len(record.there) == 10)  # announced, not waited for: more may come
    assert record.compiling.helpers == 1
    record.finish()
    assert until(lambda: record.compiling.helpers == 0)
    assert record.stopped == 1


def _gone() -> Worker:
    raise WorkerError("no processes today")


class _Dying(_Worker):
    def compile(self, spec: KernelSpec) -> bytes:
        if len(self.record.there) == 2:
            raise WorkerError("killed")
        return super().compile(spec)


@pytest.mark.parametrize("case", ["it cannot start", "it dies"])
def test_what_a_worker_does_not_finish_is_compiled_here(case, monkeypatch):
    record = Record(monkeypatch, worker=_gone if case == "it cannot start" else lambda: _Dying(record), seconds=0.01)
    record.finish()
    assert sorted(record.here + record.there) == NAMES
    assert until(lambda: record.compiling.helpers == 0)
    assert record.compiling.limit == 0  # no other is started


def test_a_worker_that_hangs_is_not_waited_for(monkeypatch):
    released, record = threading.Event(), None

    class Hanging(_Worker):
        def compile(self, spec: KernelSpec) -> bytes:
            assert released.wait(60)
            return super().compile(spec)

    monkeypatch.setattr(compilings, "PATIENCE", 0.1)
    record = Record(monkeypatch, worker=lambda: Hanging(record))
    record.finish()
    assert sorted(record.here) == NAMES
    released.set()
    assert until(lambda: record.compiling.helpers == 0)
    record.finish()


def test_threads_that_wait_for_the_same_kernels_compile_each_once(monkeypatch):
    record = Record(monkeypatch, seconds=0.005)
    threads = [threading.Thread(target=record.finish, args=(KERNELS[n:],)) for n in (0, 5, 0)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sorted(record.here + record.there) == NAMES


def test_a_kernel_that_cannot_be_compiled_is_an_error_for_each_who_waits(tmp_path, monkeypatch):
    record = Record(monkeypatch)

    def refuse(spec: KernelSpec) -> bytes:
        raise compiler.KernelError(f"{spec.name} needs more")

    monkeypatch.setattr(record.compiling, "compile_here", refuse)
    for _ in range(2):
        with pytest.raises(compiler.KernelError, match="answer0 needs more"):
            record.compiling.finish(KERNELS[:1])


# -- real processes
SPECIFICATIONS = [
    KERNELS[3],
    HELPER,
    KernelSpec(
        "triple", "def kernel(args, task, scratch):\n    store_f32(args[0], load_f32(args[0]) * 3.0)\n", "", (("lanes", 4),)
    ),
    handwritten("pad_copy", "padcopy:factory", source="f16", destination="f32"),
]


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.stop()


def test_a_worker_makes_the_kernels_that_this_process_makes(worker):
    for spec in SPECIFICATIONS:
        assert worker.compile(spec) == compiler.compile_kernel(spec.function()).code


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux's scheduling")
def test_a_worker_that_stepped_back_is_idle_in_its_owners_session_and_still_compiles(worker):
    worker.compile(KERNELS[0])
    pid = worker.process.pid
    assert os.sched_getscheduler(pid) == os.sched_getscheduler(0)
    worker.step_back()
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    assert os.getsid(pid) == os.getsid(0)
    assert os.getpgid(pid) == pid  # a keyboard's interrupt goes to another group
    assert worker.compile(KERNELS[1]) == compiler.compile_kernel(KERNELS[1].function()).code


def test_a_worker_that_is_gone_can_be_told_to_step_back(worker):
    worker.process.kill()
    worker.process.wait()
    worker.step_back()


def test_a_store_with_a_worker_and_one_without_give_the_same_kernels(tmp_path):
    with_worker, alone = Store(tmp_path / "a", workers=1), Store(tmp_path / "b")
    for store in (with_worker, alone):
        store.announce([REPLAY, HELPER])
        assert store.compiling.helpers == store.compiling.limit
        store.prepare([REPLAY, HELPER, *KERNELS])
        assert [answer(store, spec) for spec in KERNELS] == list(range(20))
    a, b = ({path.name for path in store.directory.iterdir()} for store in (with_worker, alone))
    assert a == b == {f"{spec.key}.jitrt" for spec in [REPLAY, HELPER, *KERNELS]}


def test_a_worker_refuses_what_cannot_be_compiled_and_goes_on(worker):
    with pytest.raises(WorkerError, match="no_such_name"):
        worker.compile(KernelSpec("broken", "def kernel(args, task, scratch):\n    no_such_name()\n"))
    assert worker.compile(KERNELS[1])


def test_what_a_factory_prints_is_no_answer(worker):
    assert worker.compile(KernelSpec("talks", "print('{}')\n" + TEXT.format(1)))


def test_an_answer_of_another_version_is_refused(worker, monkeypatch):
    spec = KernelSpec("answer", TEXT.format(1))
    monkeypatch.setitem(spec.__dict__, "key", "of another version")
    with pytest.raises(WorkerError, match="another version"):
        worker.compile(spec)


@posix
def test_a_killed_worker_loses_nothing(tmp_path):
    store = Store(tmp_path, workers=1)
    store.announce([REPLAY, HELPER])
    assert until(lambda: store.compiling.workers)
    store.compiling.workers[0].process.kill()
    assert [answer(store, spec) for spec in KERNELS[:3]] == [0, 1, 2]
    store.prepare([REPLAY, HELPER])
    assert until(lambda: store.compiling.helpers == 0)


@pytest.mark.parametrize("executable", [None, "", "/opt/editor/bin/editor", "/nonexistent/python3"])
def test_only_a_python_interpreter_is_started(executable, monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", executable)
    with pytest.raises(WorkerError):
        Worker()


OWNER = textwrap.dedent("""
    import os, sys, time
    from jitrt.pool import HELPER, REPLAY
    from jitrt.store import store
    store().announce([REPLAY, HELPER])
    while not store().compiling.workers:
        time.sleep(0.01)
    worker = store().compiling.workers[0]
    print(worker.process.pid, flush=True)
    if sys.argv[1] == "fork" and os.fork() == 0:
        store().prepare([REPLAY, HELPER])
        os._exit(worker in store().compiling.workers)
    if sys.argv[1] == "fork":
        assert os.wait()[1] == 0
        store().prepare([REPLAY, HELPER])
    elif sys.argv[1] == "killed":
        time.sleep(60)
""")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@posix
@pytest.mark.parametrize("case", ["killed", "ends", "fork"])
def test_no_worker_outlives_its_owner(case, tmp_path):
    environment = {**os.environ, "JITRT_CACHE_DIR": str(tmp_path / "store"), "JITRT_WORKERS": "1"}
    with subprocess.Popen([sys.executable, "-c", OWNER, case], stdout=subprocess.PIPE, env=environment) as owner:
        process = int(owner.stdout.readline())
        assert _runs(process)
        if case == "killed":
            owner.send_signal(signal.SIGKILL)
        assert owner.wait(120) == (-signal.SIGKILL if case == "killed" else 0)
    assert until(lambda: not _runs(process), 10)
