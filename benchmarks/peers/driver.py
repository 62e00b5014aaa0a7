"""Processes of several runtimes that take turns: each runs alone while the others' threads sleep.

Runtimes keep their threads busy for a while after a run (onnxruntime some 55 ms, jitrt, OpenVINO and MNN a few at most),
and such a thread takes a core from whoever runs then. A turn therefore begins when all processes have stopped using
CPU, and what the waiting ones use during it all the same is counted.
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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

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


class ChildError(Exception):
    """A process failed, died, hung or answered with an error."""


@dataclass
class Measured:
    """A runtime on a model.

    Attributes:
        first: seconds from importing the runtime to the first result; times: of later runs.
        outputs: of the first run, in the model's order.
        idle: CPU seconds used while others had their turns, which took `waited` seconds.
        failure: why there are no times.
    """

    first: float = 0.0
    times: list[float] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)
    idle: float = 0.0
    waited: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class Sitting:
    """How a model is measured.

    Attributes:
        runtimes: name: the interpreter that has it.
        threads: of each runtime.
        seconds: that the turns on a model take in all, about.
        environment: additional variables of the processes.
        load_limit: seconds after which a process that loads a model counts as hung; run_limit: one that runs.
    """

    runtimes: Mapping[str, str]
    threads: int
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)
    load_limit: float = LOAD_LIMIT
    run_limit: float = RUN_LIMIT

    def measure(
        self, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], entries: Mapping[str, str] | None = None
    ) -> dict[str, Measured]:
        """Load a model into every runtime, one after the other, and let them run in turns; `entries` are for jitrt's session."""
        found = {name: Measured() for name in self.runtimes}
        children: dict[str, Child] = {}
        with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as folder:
            request = write_request(Path(folder), model, feeds) | {"threads": self.threads, "entries": dict(entries or {})}
            try:
                for name, python in self.runtimes.items():
                    self._load(name, python, request, children, found[name])
                self._take_turns(children, found)
            finally:
                for child in children.values():
                    child.stop()
        return found

    def _load(self, name: str, python: str, request: dict[str, object], children: dict[str, Child], into: Measured) -> None:
        results = Path(str(request["model"])).with_name(f"{name}.npz")
        try:
            child = children[name] = Child(name, python, self.environment, str(results.parent))
            into.first = child.ask(request | {"do": "load", "results": str(results)}, self.load_limit)["seconds"]
        except ChildError as error:
            _give_up(name, error, children, into)
            return
        with np.load(results) as arrays:
            into.outputs = list(arrays.values())

    def _take_turns(self, children: dict[str, Child], found: dict[str, Measured]) -> None:
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


def write_request(folder: Path, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, object]:
    """A model and its inputs as files, and what a request says of them."""
    paths = {"model": str(folder / "model.onnx"), "feeds": str(folder / "feeds.npz")}
    Path(paths["model"]).write_bytes(model.SerializeToString())
    np.savez(paths["feeds"], **feeds)
    return paths | {"outputs": [output.name for output in model.graph.output]}


def _give_up(name: str, error: ChildError, children: dict[str, Child], into: Measured) -> None:
    into.failure = str(error)
    into.times = []
    if name in children:
        children.pop(name).stop()


class Child:
    """A process that runs `child.py`.

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
        self._clock = _cpu_clock(self._process.pid)

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
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:
            return 0.0

    def falls_asleep(self) -> bool:
        """Wait until its threads use no CPU; False if they still do after `SLEEP_LIMIT` seconds."""
        if self._clock is None:
            time.sleep(BLIND)
            return True
        end = time.perf_counter() + SLEEP_LIMIT
        before, start, quiet = self.cpu_seconds(), time.perf_counter(), 0
        while quiet < QUIET and time.perf_counter() < end:
            time.sleep(POLL)
            now, moment = self.cpu_seconds(), time.perf_counter()
            quiet = quiet + 1 if now - before < ASLEEP * (moment - start) else 0
            before, start = now, moment
        return quiet == QUIET


def _cpu_clock(process: int) -> int | None:
    """The clock of the CPU time of another process (POSIX's clock_getcpuclockid); None where there is none."""
    clock = ctypes.c_int()
    find = getattr(ctypes.CDLL(None), "clock_getcpuclockid", None)
    return clock.value if find is not None and find(process, ctypes.byref(clock)) == 0 else None
