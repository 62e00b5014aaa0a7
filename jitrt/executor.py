"""The executor: binds a plan's memory to addresses and replays it.

A `Context` is everything one run needs alone: arena, argument blocks, jobs, thread scratch. Free contexts wait in a
list; a run that finds none makes one, so concurrent runs never share memory. Native steps between two host steps are
one job, which is one native call (`ops/kernels/replay.py`).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .fusion.plan import Address, Block, Buffer, HostStep, Plan, Ref, Space, Step, Tensor
from .memory import DATA_OFFSET, LARGE, Recycler
from .ops.builder import OperatorError
from .ops.kernels import replay
from .ops.kernels.spec import KernelSpec
from .ops.pages import aligned
from .pool import HELPER, KERNEL, REPLAY, Pool
from .store import Progress, Store

_DOUBLE, _WORD = struct.Struct("d"), struct.Struct("q")  # a number's bits as a word
SCRATCH_ALIGNMENT = 4096  # bytes; threads never write the same page


class KernelFault(RuntimeError):
    """A kernel met data that its operator does not allow (an index out of range, say)."""

    def __init__(self, step: Step, message: str) -> None:
        super().__init__(f"{', '.join(step.nodes)}: {message}")
        self.step, self.message = step, message


class HostFault(RuntimeError):
    """A host step failed; the cause is the exception that it raised."""

    def __init__(self, step: HostStep, error: Exception) -> None:
        super().__init__(f"{', '.join(step.nodes)}: {type(error).__name__}: {error}")
        self.step = step


@dataclass(frozen=True)
class Segment:
    """Steps ``first .. end - 1``: one host step, or native steps. `width`: threads that the widest step can use."""

    first: int
    end: int
    width: int
    host: HostStep | None = None


class Job:
    """One native segment in one context (see `replay`). `address` is what the native call takes."""

    def __init__(self, context: Context, segment: Segment) -> None:
        self.context, self.patches = context, []
        self.statuses: list[tuple[int, Step]] = []
        steps = context.executor.plan.steps[segment.first : segment.end]
        self.table = np.array([self._step(step) for step in steps], np.int64)
        self.patch_table = np.array(self.patches, np.int64)
        self.status_table = np.array([address for address, _ in self.statuses], np.int64)
        self.words = words = np.zeros(replay.JOB_WORDS, np.int64)
        self.address = words.ctypes.data
        words[replay.STEPS], words[replay.STEP_COUNT] = self.table.ctypes.data, len(steps)
        words[replay.PATCHES], words[replay.PATCH_COUNT] = self.patch_table.ctypes.data, len(self.patches)
        words[replay.STATUSES], words[replay.STATUS_COUNT] = self.status_table.ctypes.data, len(self.statuses)
        words[replay.BUFFERS], words[replay.DATA_OFFSET] = context.buffers.ctypes.data, DATA_OFFSET
        words[replay.SCRATCH], words[replay.SCRATCH_SIZE] = context.scratch.ctypes.data, context.scratch_size
        words[replay.WIDTH], words[replay.PLACES] = segment.width, context.executor.pool.threads
        words[replay.SELF] = self.address

    def _step(self, step: Step) -> tuple[int, int, int]:
        block = self._block(step.args)
        if step.status is not None:
            self.statuses.append((block + 8 * step.status, step))
        return self.context.executor.store.address(step.kernel), block, step.tasks

    def _block(self, args: Sequence[object]) -> int:
        """The address of an argument block; addresses that each run brings are noted as patches."""
        words = np.array([arg if type(arg) is int else self._word(arg) for arg in args] or [0], np.int64)
        base = words.ctypes.data
        for i, arg in enumerate(args):
            if type(arg) is Ref and arg.buffer.space in (Space.INPUT, Space.OUTPUT):
                slot = arg.buffer.index + (0 if arg.buffer.space is Space.INPUT else len(self.context.executor.plan.inputs))
                self.patches.append((base + 8 * i, slot, arg.offset))
        self.context.blocks.append(words)
        return base

    def _word(self, arg: object) -> int:
        """What stands for an argument that is no integer; 0 where a run's address will be."""
        executor = self.context.executor
        if isinstance(arg, Ref):
            space, index = arg.buffer.space, arg.buffer.index
            if space is Space.ARENA:
                return self.context.arena_address + index + arg.offset
            return executor.constant_addresses[index] + arg.offset if space is Space.CONSTANT else 0
        if isinstance(arg, Block):
            return self._block(arg.args)
        if isinstance(arg, Address):
            return executor.store.address(arg.kernel)
        return _WORD.unpack(_DOUBLE.pack(arg))[0] if isinstance(arg, float) else int(arg)


class Context:
    """The memory of one run at a time. `buffers`: the run's input and output arrays, by object address."""

    def __init__(self, executor: Executor) -> None:
        plan, self.executor = executor.plan, executor
        self.arena = aligned(plan.arena_bytes)
        self.arena_address = self.arena.ctypes.data
        self.scratch_size = -(-max(plan.scratch_bytes, 64) // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT + SCRATCH_ALIGNMENT
        self.scratch = aligned(self.scratch_size * executor.pool.threads)
        self.blocks: list[np.ndarray] = []
        self.hosts: list[object] = [None] * plan.host_values
        self.buffers = np.zeros(len(plan.inputs) + len(plan.outputs) + 1, np.int64)
        self.jobs = {s.first: Job(self, s) for s in executor.segments if s.host is None}

    def __del__(self) -> None:
        for job in getattr(self, "jobs", {}).values():
            self.executor.pool.release(job.address)


class Executor:
    """Runs one plan.

    Args:
        plan: what to run.
        store: where kernels come from.
        pool: helper threads; their number is the plan's number of threads.
        progress: told of each kernel that has to be compiled.
    """

    def __init__(self, plan: Plan, store: Store, pool: Pool, progress: Progress | None = None) -> None:
        self.plan, self.store, self.pool = plan, store, pool
        self.constant_addresses = [c.ctypes.data for c in plan.constants]
        self.segments = list(_segments(plan, pool.threads))
        store.prepare([REPLAY, HELPER, *_kernels(plan)], progress)
        self.replay = KERNEL(store.address(REPLAY))
        self.free: list[Context] = []
        self.recycler = Recycler()
        self.made = [
            (i, o.shape, o.dtype, o.ref.buffer.nbytes)
            for i, o in enumerate(plan.outputs)
            if isinstance(o, Tensor) and o.ref.buffer.space is Space.OUTPUT
        ]

    def run(self, inputs: Sequence[object], timeline: int = 0, host_seconds: dict[int, float] | None = None) -> list[object]:
        """Run on arrays (C-contiguous, of the plan's dtypes and shapes) and return new outputs.

        Args:
            timeline: address of int64[steps, threads, 2] for start and end in cycles, or 0.
            host_seconds: gets the time of each host step.

        Raises:
            KernelFault: a kernel met data that its operator does not allow.
            HostFault: a host step failed.
        """
        try:
            context = self.free.pop()
        except IndexError:
            context = Context(self)
        outputs: list[object] = [None] * len(self.plan.outputs)
        buffers, count = context.buffers, len(inputs)
        for i in range(count):
            buffers[i] = id(inputs[i])
        for i, shape, dtype, nbytes in self.made:
            outputs[i] = array = np.empty(shape, dtype) if nbytes < LARGE else self.recycler.empty(shape, dtype, nbytes)
            buffers[count + i] = id(array)
        try:
            for segment in self.segments:
                if segment.host is None:
                    self._native(context, segment, timeline)
                else:
                    self._host(context, segment, inputs, outputs, host_seconds)
            if len(self.made) < len(outputs):
                self._copy_out(context, inputs, outputs)
        finally:
            self.free.append(context)
        return outputs

    def _native(self, context: Context, segment: Segment, timeline: int) -> None:
        job, pool = context.jobs[segment.first], 0
        if segment.width > 1:
            pool = self.pool.address or self.pool.start(self.store.address(HELPER))
        if timeline:
            # the loop counts its places from its own first step
            timeline += 16 * self.pool.threads * segment.first
        self.replay(job.address, pool, timeline)
        if job.statuses and job.words[replay.FAULT]:
            self._raise(job)

    def _raise(self, job: Job) -> None:
        number = int(job.words[replay.FAULT]) - 1
        step = job.statuses[number][1]
        block = next(words for words in job.context.blocks if words.ctypes.data == job.status_table[number] - 8 * step.status)
        code = int(block[step.status])
        raise KernelFault(step, step.errors[code - 1] if 0 < code <= len(step.errors) else f"error {code}")

    def _host(
        self, context: Context, segment: Segment, inputs: Sequence[object], outputs: list[object], seconds: dict[int, float] | None
    ) -> None:
        started, step = time.perf_counter(), segment.host
        values = [None if x is None else self._value(context, x, inputs, outputs) for x in step.inputs]
        if any(isinstance(place, Buffer) for place in step.outputs):
            # a sequence may keep what it is given, the arena does not
            values = [np.array(v) if _in_arena(x) else v for x, v in zip(step.inputs, values)]
        results = _call(step, values)
        for place, value in zip(step.outputs, results):
            if isinstance(place, Buffer):
                context.hosts[place.index] = value
                continue
            array = np.asarray(value)
            if array.shape != place.shape:
                raise RuntimeError(f"{', '.join(step.nodes)}: result has shape {array.shape}, expected {place.shape}")
            self._value(context, place, inputs, outputs)[...] = array
        if seconds is not None:
            seconds[segment.first] = time.perf_counter() - started

    def _value(self, context: Context, x: Tensor | Buffer, inputs: Sequence[object], outputs: Sequence[object]) -> object:
        """A plan's value as Python sees it; arrays are views of the run's memory."""
        if isinstance(x, Buffer):
            return context.hosts[x.index] if x.space is Space.HOST else inputs[x.index]
        space, index = x.ref.buffer.space, x.ref.buffer.index
        if space is Space.ARENA:
            return np.ndarray(x.shape, x.dtype, context.arena, index + x.ref.offset)
        whole = {Space.CONSTANT: self.plan.constants, Space.INPUT: inputs, Space.OUTPUT: outputs}[space][index]
        if x.dtype == object or (whole.shape == x.shape and not x.ref.offset):
            return whole
        flat = whole.reshape(-1).view(np.uint8)
        return np.ndarray(x.shape, x.dtype, flat, x.ref.offset)

    def _copy_out(self, context: Context, inputs: Sequence[object], outputs: list[object]) -> None:
        for i, out in enumerate(self.plan.outputs):
            if outputs[i] is None:
                value = self._value(context, out, inputs, outputs)
                outputs[i] = np.array(value) if isinstance(out, Tensor) else value
        context.hosts = [None] * len(context.hosts)


def _in_arena(x: Tensor | Buffer | None) -> bool:
    return isinstance(x, Tensor) and x.ref.buffer.space is Space.ARENA


def _call(step: HostStep, values: list[object]) -> Sequence[object]:
    """What a host step gives; a body's own faults, which name their nodes, pass as they are."""
    try:
        return step.call(values)
    except (HostFault, KernelFault, OperatorError):
        raise
    except Exception as error:
        raise HostFault(step, error) from error


def _kernels(plan: Plan) -> list[KernelSpec]:
    found: list[KernelSpec] = []

    def visit(args: Sequence[object]) -> None:
        for arg in args:
            if type(arg) is Address:
                found.append(arg.kernel)
            elif type(arg) is Block:
                visit(arg.args)

    for step in plan.steps:
        if isinstance(step, Step):
            found.append(step.kernel)
            visit(step.args)
    return found


def _segments(plan: Plan, threads: int) -> Iterator[Segment]:
    """Host steps and the runs of native steps between them. A plan without steps has none."""
    start = 0
    for i, step in enumerate([*plan.steps, None]):
        if isinstance(step, Step):
            continue
        if i > start:
            yield Segment(start, i, min(threads, max(s.tasks for s in plan.steps[start:i])))
        if step is not None:
            yield Segment(i, i + 1, 1, step)
        start = i + 1
