"""Processes of several runtimes that take turns: each runs alone while the others' threads sleep.

Runtimes keep their threads busy for a while after a run (onnxruntime some 55 ms, jitrt, OpenVINO and MNN a few at most),
and such a thread takes a core from whoever runs then. A turn therefore begins when all processes have stopped using
CPU, and what the waiting ones use during it all the same is counted. The first turn begins when what processes have
started beside them has come to rest, too: jitrt compiles there what other sizes would need.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from benchmarks import memory

CHILD = Path(__file__).resolve().parent / "child.py"
TURN = 0.1  # seconds that the timed runs of a turn take, at least
RUNS = 3  # timed runs of a turn, at least
ROUNDS = 3  # turns of each runtime, at least
LOAD_LIMIT = 180.0  # seconds to load a model and run it once
RUN_LIMIT = 60.0  # seconds for a turn
POLL = 0.005  # seconds between two looks at how much CPU a process has used
ASLEEP = 0.02  # of one CPU: what a process whose threads sleep uses less than
QUIET = 2  # such looks in a row; in one, a thread that spins may not have got a CPU
BLIND = 0.1  # seconds to wait where the system does not tell
SLEEP_LIMIT = 2.0  # seconds after which threads that go on spinning are a failure
SETTLE_LIMIT = 60.0  # seconds that other processes than the measured ones may go on


class ChildError(Exception):
    """A process failed, died, hung or answered with an error."""


@dataclass
class Measured:
    """A runtime on a model.

    Attributes:
        first: seconds from importing the runtime to the first result; times: of later runs.
        outputs: of the first run, in the model's order.
        idle: CPU seconds used while others had their turns, which took `waited` seconds.
        peak: most memory, in bytes, of a process that loads the model and runs it a few times; 0 if unknown.
        failure: why there are no figures.
    """

    first: float = 0.0
    times: list[float] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)
    idle: float = 0.0
    waited: float = 0.0
    peak: int = 0
    failure: str = ""


@dataclass(frozen=True)
class Sitting:
    """How a model is measured.

    Attributes:
        runtimes: name: the interpreter that has it.
        threads: of each runtime.
        seconds: that the turns on a model take in all, about.
        environment: additional variables of the processes.
        weighed: those of the runtimes whose memory is measured too.
        load_limit: seconds after which a process that loads a model counts as hung; run_limit: one that runs.
    """

    runtimes: Mapping[str, str]
    threads: int
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)
    weighed: Collection[str] = ()
    load_limit: float = LOAD_LIMIT
    run_limit: float = RUN_LIMIT

    def measure(
        self,
        model: onnx.ModelProto,
        feeds: Mapping[str, np.ndarray],
        entries: Mapping[str, str] | None = None,
        timed: bool = True,
    ) -> dict[str, Measured]:
        """Load a model into every runtime, one after the other, and let them run in turns, unless not `timed`.

        The processes that are weighed come last, when what can be kept on disk has been. `entries` are for jitrt's session.
        """
        found = {name: Measured() for name in self.runtimes}
        children: dict[str, Child] = {}
        with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as folder:
            request = write_request(Path(folder), model, feeds, self.threads, entries)
            try:
                for name in self.runtimes:
                    self._load(name, request, children, found[name])
                if timed:
                    self._take_turns(children, found)
            finally:
                for child in children.values():
                    child.stop()
            for name in self.weighed:
                if name in children:
                    self._weigh(name, request, found[name])
        return found

    def _load(self, name: str, request: dict[str, object], children: dict[str, Child], into: Measured) -> None:
        try:
            child = children[name] = self._start(name, request)
            into.first = child.ask(request, self.load_limit)["seconds"]
        except ChildError as error:
            _give_up(name, error, children, into)
            return
        with np.load(str(request["results"])) as arrays:
            into.outputs = list(arrays.values())

    def _start(self, name: str, request: dict[str, object]) -> Child:
        return Child(name, self.runtimes[name], self.environment, str(Path(str(request["model"])).parent))

    def _weigh(self, name: str, request: dict[str, object], into: Measured) -> None:
        """Load a model into a process of its own, and run it a few times."""
        try:
            with self._start(name, request) as child:
                child.ask(request, self.load_limit)
                child.ask({"do": "run", "seconds": 0.0, "least": 1}, self.run_limit)
                into.peak = child.peak_bytes()
        except ChildError as error:
            into.failure = f"measuring its memory: {error}"

    def _take_turns(self, children: dict[str, Child], found: dict[str, Measured]) -> None:
        for child in children.values():
            child.settle()
        order, rng = list(children), random.Random(0)
        end = time.perf_counter() + self.seconds
        rounds = 0
        while children and (rounds < ROUNDS or time.perf_counter() < end):
            for name in order:
                if name in children:
                    self._turn(name, children, found)
            rng.shuffle(order)  # nobody always follows the same one
            rounds += 1

    def _turn(self, name: str, children: dict[str, Child], found: dict[str, Measured]) -> None:
        for other in list(children):
            if not children[other].falls_asleep():
                _give_up(other, ChildError(f"its threads still spin {SLEEP_LIMIT:g} s after a run"), children, found[other])
        if name not in children:
            return
        waiting = {other: child.cpu_seconds() for other, child in children.items() if other != name}
        start = time.perf_counter()
        try:
            answer = children[name].ask({"do": "run", "seconds": TURN, "least": RUNS}, self.run_limit)
        except ChildError as error:
            _give_up(name, error, children, found[name])
            return
        found[name].times += answer["times"]
        for other, before in waiting.items():
            found[other].idle += children[other].cpu_seconds() - before
            found[other].waited += time.perf_counter() - start


def load_request(
    model: onnx.ModelProto, source: str | bytes, threads: int = 1, entries: Mapping[str, str] | None = None
) -> dict[str, object]:
    """The request to load a model, which `source` has, but for what names files; `entries` are for jitrt's session."""
    outputs = [output.name for output in model.graph.output]
    return {"do": "load", "model": source, "outputs": outputs, "threads": threads, "entries": dict(entries or {})}


def write_request(
    folder: Path,
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    threads: int = 1,
    entries: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """The whole request to load a model that is written, with its inputs, to a folder. `results` lie there, too."""
    model_file, feeds_file, results = (str(folder / name) for name in ("model.onnx", "feeds.npz", "results.npz"))
    Path(model_file).write_bytes(model.SerializeToString())
    np.savez(feeds_file, **feeds)
    return load_request(model, model_file, threads, entries) | {"feeds": feeds_file, "results": results}


def _give_up(name: str, error: ChildError, children: dict[str, Child], into: Measured) -> None:
    into.failure = str(error)
    into.times = []
    if name in children:
        children.pop(name).stop()


class Child:
    """A process that runs `child.py`; as a context, it is stopped in the end.

    Args:
        runtime: a name that `child.py` knows.
        python: the interpreter that runs it.
        environment: additional variables.
        folder: where it runs, and may leave files.

    Raises:
        ChildError: the interpreter cannot be started.
    """

    def __init__(
        self,
        runtime: str,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> None:
        variables = {**os.environ, **(environment or {})}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        try:
            self._process = subprocess.Popen(
                [python, str(CHILD), runtime],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=variables,
                cwd=folder,
            )
        except OSError as error:
            self._errors.close()
            raise ChildError(f"cannot be started: {error}") from error

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, request: Mapping[str, object], limit: float) -> dict:
        """The answer to a request.

        Raises:
            ChildError: there is none within `limit` seconds, the process ends instead, or it answers with an error.
        """
        try:
            self._process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
            self._process.stdin.flush()
            answer = json.loads(self._line(limit))
        except (BrokenPipeError, ValueError, EOFError) as error:
            raise ChildError(self._end()) from error
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer

    def _line(self, limit: float) -> bytes:
        end = time.perf_counter() + limit
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.perf_counter()))
            if not ready:
                raise ChildError(f"no answer within {limit:g} s")
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise EOFError
            line += piece
        return line

    def _end(self) -> str:
        """How the process ended, and the last line that it printed."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "its answer is no answer"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-code}" if code < 0 else f"ended with {code}"
        return f"{how}: {said[-1]}" if said else how

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        with contextlib.suppress(BrokenPipeError):  # a request that it did not read
            self._process.stdin.close()

    def cpu_seconds(self) -> float:
        """CPU time of all its threads, as far as the system tells; 0 once it has ended."""
        return _cpu_seconds(self._process.pid)

    def peak_bytes(self) -> int:
        """Most memory that it has held so far; 0 if the system does not tell."""
        return memory.peak(self._process.pid)

    def falls_asleep(self) -> bool:
        """Wait until its threads use no CPU; False if they still do after `SLEEP_LIMIT` seconds."""
        if _cpu_clock(self._process.pid) is None:
            time.sleep(BLIND)
            return True
        return _rests(self.cpu_seconds, SLEEP_LIMIT)

    def settle(self) -> None:
        """Wait until the processes that it has started use no CPU, for `SETTLE_LIMIT` seconds at most."""
        _rests(lambda: sum(map(_cpu_seconds, memory.family(self._process.pid)[1:])), SETTLE_LIMIT)


def _rests(cpu_seconds: Callable[[], float], limit: float) -> bool:
    """Wait until CPU time does not grow any more; False if it still does after `limit` seconds."""
    end = time.perf_counter() + limit
    before, start, quiet = cpu_seconds(), time.perf_counter(), 0
    while quiet < QUIET and time.perf_counter() < end:
        time.sleep(POLL)
        now, moment = cpu_seconds(), time.perf_counter()
        quiet = quiet + 1 if now - before < ASLEEP * (moment - start) else 0
        before, start = now, moment
    return quiet == QUIET


def _cpu_seconds(process: int) -> float:
    """CPU time of all threads of a process, as far as the system tells; 0 once it has ended."""
    clock = _cpu_clock(process)
    try:
        return 0.0 if clock is None else time.clock_gettime(clock)
    except OSError:
        return 0.0


def _cpu_clock(process: int) -> int | None:
    """The clock of the CPU time of another process (POSIX's clock_getcpuclockid); None where there is none."""
    clock = ctypes.c_int()
    find = getattr(ctypes.CDLL(None), "clock_getcpuclockid", None)
    return clock.value if find is not None and find(process, ctypes.byref(clock)) == 0 else None
