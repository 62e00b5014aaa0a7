"""A process that compiles kernels beside this one: both ends of its two pipes.

numba's work holds the interpreter's lock and llvmlite's calls hold another one, so that threads of one process do not
compile side by side. A worker is a fresh interpreter (nothing of the program that started it runs again); it gets
specifications as lines of JSON, and answers each with a line of JSON and object code. It ends when its input does,
in the middle of a kernel too: when its owner closes the pipe, exits or is killed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import PurePath

from .ops.kernels.spec import KernelSpec

# The keyboard's interrupts are for the owner: a worker leaves its group of processes. It stays in the session, as Linux shares
# CPU time among sessions first, so that a worker in one of its own would never step back.
# Modules are looked for where the owner looks; nothing is imported before that is settled.
_PROGRAM = (
    "import os, sys; getattr(os, 'setpgrp', int)(); sys.path[:] = sys.argv[1:]; "  # Windows has no such groups
    f"from {__name__} import serve; serve()"
)
_GRACE = 5.0  # seconds that a worker may take to end
_IDLE = 60.0  # seconds without a request after which it ends by itself


class WorkerError(RuntimeError):
    """A worker cannot be started, is gone, or did not compile a kernel."""


class Worker:
    """A worker process, seen from its owner.

    Raises:
        WorkerError: it cannot be started.
    """

    def __init__(self) -> None:
        if not _is_python(sys.executable):
            raise WorkerError(f"{sys.executable!r} is no Python interpreter")
        command = [sys.executable, "-c", _PROGRAM, *sys.path]
        pipe, hidden = subprocess.PIPE, getattr(subprocess, "CREATE_NO_WINDOW", 0)
        try:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, creationflags=hidden)
        except (OSError, ValueError) as error:
            raise WorkerError(f"cannot start a worker: {error}") from error

    def compile(self, spec: KernelSpec) -> bytes:
        """The object code of a kernel.

        Raises:
            WorkerError: the worker is gone, is other software than its owner, or cannot compile the kernel.
        """
        try:
            self.process.stdin.write(_request(spec))
            self.process.stdin.flush()
            head = json.loads(self.process.stdout.readline())
            code = self.process.stdout.read(head["size"])
        except (OSError, ValueError) as error:
            raise WorkerError(f"the worker is gone: {error}") from error
        if not code or len(code) != head["size"] or head["key"] != spec.key:
            raise WorkerError(f"no object code from the worker: {head['error'] or 'another version, or cut short'}")
        return code

    def step_back(self) -> None:
        """From now on it gets what CPU time others leave. There may be no way back: systems let nobody raise a priority."""
        if self.process.poll() is not None:
            return  # its number may be another process's by now
        with contextlib.suppress(OSError):  # it ends just now, or has not the right
            if hasattr(os, "SCHED_IDLE"):
                os.sched_setscheduler(self.process.pid, os.SCHED_IDLE, os.sched_param(0))
            elif hasattr(os, "setpriority"):
                os.setpriority(os.PRIO_PROCESS, self.process.pid, 19)

    def stop(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):  # it is gone, and what was to be written is not
            self.process.stdin.close()
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def forget(self) -> None:
        """In the child of a fork: the worker is the parent's. An open copy of the pipe would keep it from ending."""
        # the raw files, as a thread that is not here may hold the locks of the others
        self.process.stdin.raw.close()
        self.process.stdout.raw.close()
        self.process.returncode = 0


def _is_python(executable: str | None) -> bool:
    """Whether a program is an interpreter, not an application that Python is embedded in."""
    return bool(executable) and PurePath(executable).name.lower().startswith("python") and not getattr(sys, "frozen", False)


def _request(spec: KernelSpec) -> bytes:
    fields = {"name": spec.name, "text": spec.text, "factory": spec.factory, "parameters": spec.parameters}
    return json.dumps(fields).encode() + b"\n"


def _specification(line: bytes) -> KernelSpec:
    fields = json.loads(line)
    parameters = tuple((name, value) for name, value in fields["parameters"])
    return KernelSpec(fields["name"], fields["text"], fields["factory"], parameters)


# -- the worker's side
def serve() -> None:
    """Answer requests from standard input until it ends."""
    gc.disable()  # a tenth of numba's time: see `_collect`
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whatever a kernel's factory prints is no answer
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        while True:
            answers.write(_answer(_specification(requests.get(timeout=_IDLE))))
            answers.flush()
            _collect()


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _collect() -> None:
    """Free what a kernel's compilation left, without looking through numba's own objects: those are frozen at first."""
    if not gc.get_freeze_count():
        gc.freeze()
    gc.collect()


def _answer(spec: KernelSpec) -> bytes:
    from .ops.kernels.compiler import compile_kernel

    code, error = b"", ""
    try:
        code = compile_kernel(spec.function()).code
    except Exception as problem:  # the owner meets it again, with all that it says
        error = repr(problem)
    return json.dumps({"key": spec.key, "size": len(code), "error": error}).encode() + b"\n" + code
