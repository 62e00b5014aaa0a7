"""The executor: binds a plan's memory to addresses and replays it.

A `Context` is everything one run needs alone: arena, argument blocks, step table, thread scratch. Free contexts wait
in a list; a run that finds none makes one, so concurrent runs never share memory. Native steps between two host steps
are one native call (`ops/kernels/replay.py`).
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np

from .fusion.plan import Address, Block, Buffer, HostStep, Plan, Ref, Space, Step, Tensor
from .ops.kernels.replay import JOB_SCRATCH, stride
from .pool import HELPER, KERNEL, REPLAY, Pool
from .store import Progress, Store

_LARGE = 64 << 10  # outputs from this size on are recycled
_HUGE_PAGE = 2 << 20
_DATA_OFFSET = 2 * ctypes.sizeof(ctypes.c_void_p)  # PyArrayObject: object header, then the data pointer
_word_at = ctypes.c_size_t.from_address


def _read_address(array: np.ndarray) -> int:
    """The address of an array's first element."""
    return _word_at(id(array) + _DATA_OFFSET).value


def _slow_address(array: np.ndarray) -> int:
    return array.ctypes.data


_probe = np.arange(4)
address_of = (
    _read_address if sys.implementation.name == "cpython" and _read_address(_probe) == _probe.ctypes.data else _slow_address
)
try:
    _YIELD = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
except (OSError, AttributeError, TypeError):
    _YIELD = 0


class KernelFault(RuntimeError):
    """A kernel met data that its operator does not allow (an index out of range, say)."""

    def __init__(self, step: Step, message: str) -> None:
        super().__init__(f"{', '.join(step.nodes)}: {message}")
        self.step, self.message = step, message


def aligned(nbytes: int) -> np.ndarray:
    """`nbytes` bytes that start at a multiple of 64; large ones on huge pages where the system has them."""
    if nbytes >= _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory = mmap.mmap(-1, nbytes + _HUGE_PAGE)
        memory.madvise(mmap.MADV_HUGEPAGE)
        raw, unit = np.frombuffer(memory, np.uint8), _HUGE_PAGE
    else:
        raw, unit = np.empty(nbytes + 64, np.uint8), 64
    start = -raw.ctypes.data % unit
    return raw[start : start + nbytes]


class Recycler:
    """Memory of large outputs, used again once the caller has dropped every array on it."""

    def __init__(self, keep: int = 3) -> None:
        self.keep, self.lock = keep, threading.Lock()
        self.blocks: dict[int, list[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> np.ndarray:
        """An uninitialised array."""
        with self.lock:
            kept = self.blocks.setdefault(nbytes, [])
            for i in range(len(kept)):
                if sys.getrefcount(kept[i]) == 2:  # the list's and the call's own
                    return np.ndarray(shape, dtype, kept[i])
            block = np.empty(nbytes + 64, np.uint8) if nbytes < _HUGE_PAGE else None
            memory = aligned(nbytes) if block is None else block
            if block is None:
                block = memory
            if len(kept) < self.keep:
                kept.append(block)
            offset = -block.ctypes.data % 64 if block.nbytes > nbytes else 0
        return np.ndarray(shape, dtype, block, offset)


class Context:
    """The memory of one run at a time."""

    def __init__(self, executor: Executor) -> None:
        plan, self.executor = executor.plan, executor
        self.arena = aligned(plan.arena_bytes)
        threads = executor.pool.threads
        size = -(-max(plan.scratch_bytes, 64) // 4096) * 4096 + 4096
        self.scratch = aligned(size * threads)
        self.blocks: list[np.ndarray] = []
        self.patches: list[tuple[int, int, int]] = []
        self.status: list[tuple[np.ndarray, int, Step]] = []
        self.hosts: list[object] = [None] * plan.host_values
        count = len(plan.inputs) + len(plan.outputs)
        self.buffers = np.zeros(max(count, 1), np.int64)
        self.table = np.zeros((max(len(plan.steps), 1), stride(threads)), np.int64)
        for i, step in enumerate(plan.steps):
            if isinstance(step, Step):
                block = self._block(step.args)
                self.table[i, :3] = executor.store.address(step.kernel), block.ctypes.data, step.tasks
                if step.status is not None:
                    self.status.append((block, i, step))
        self.patch_table = np.array(self.patches or [(0, 0, 0)], np.int64)
        self.job = np.zeros(JOB_SCRATCH + threads, np.int64)
        self.job[5] = _YIELD
        self.job[8:11] = self.patch_table.ctypes.data, self.buffers.ctypes.data, self.job.ctypes.data
        self.job[JOB_SCRATCH:] = self.scratch.ctypes.data + size * np.arange(threads)
        self.job_address = self.job.ctypes.data
        self.solo = self._solo_job()
        self.epoch = 0

    def _solo_job(self) -> np.ndarray:
        """The job of a run without helpers: its own table, laid out for one thread."""
        self.solo_table = np.zeros((len(self.table), stride(1)), np.int64)
        self.solo_table[:, :3] = self.table[:, :3]
        job = self.job.copy()
        job[0], job[3], job[10] = self.solo_table.ctypes.data, 1, job.ctypes.data
        self.job[0], self.job[3] = self.table.ctypes.data, self.executor.pool.threads
        return job

    def _block(self, args: Sequence[object]) -> np.ndarray:
        """An argument block; addresses that each run brings are noted as patches."""
        words = np.zeros(max(len(args), 1), np.int64)
        base = words.ctypes.data
        for i, arg in enumerate(args):
            if isinstance(arg, Ref):
                space, index = arg.buffer.space, arg.buffer.index
                if space is Space.ARENA:
                    words[i] = self.arena.ctypes.data + index + arg.offset
                elif space is Space.CONSTANT:
                    words[i] = self.executor.constant_addresses[index] + arg.offset
                else:
                    slot = index if space is Space.INPUT else len(self.executor.plan.inputs) + index
                    self.patches.append((base + 8 * i, slot, arg.offset))
            elif isinstance(arg, Block):
                words[i] = self._block(arg.args).ctypes.data
            elif isinstance(arg, Address):
                words[i] = self.executor.store.address(arg.kernel)
            elif isinstance(arg, float):
                words[i : i + 1].view(np.float64)[0] = arg
            else:
                words[i] = arg
        self.blocks.append(words)
        return words

    def __del__(self) -> None:
        if hasattr(self, "job_address"):
            self.executor.pool.release(self.job_address)


class Executor:
    """Runs one plan.

    Args:
        plan: what to run.
        store: where kernels come from.
        pool: helper threads; their number is the plan's number of threads.
    """

    def __init__(self, plan: Plan, store: Store, pool: Pool, progress: Progress | None = None) -> None:
        self.plan, self.store, self.pool = plan, store, pool
        self.constant_addresses = [c.ctypes.data for c in plan.constants]
        kernels = [REPLAY, *([HELPER] if pool.threads > 1 else []), *_kernels(plan)]
        store.prepare(kernels, progress)
        self.replay = KERNEL(store.address(REPLAY))
        self.free: list[Context] = []
        self.recycler = Recycler()
        self.segments = _segments(plan)
        self.output_kinds = [
            (o.shape, o.dtype, o.ref.buffer.nbytes, i)
            for i, o in enumerate(plan.outputs)
            if isinstance(o, Tensor) and o.ref.buffer.space is Space.OUTPUT
        ]
        self.simple = len(self.output_kinds) == len(plan.outputs)

    def run(self, inputs: Sequence[object], timeline: int = 0, host_seconds: dict[int, float] | None = None) -> list[object]:
        """Run on arrays (C-contiguous, of the plan's dtypes and shapes) and return new outputs.

        Args:
            timeline: address of int64[steps, threads, 2] for start and end in cycles, or 0.
            host_seconds: gets the time of each host step.

        Raises:
            KernelFault: a kernel met data that its operator does not allow.
        """
        try:
            context = self.free.pop()
        except IndexError:
            context = Context(self)
        outputs: list[object] = [None] * len(self.plan.outputs)
        buffers, count = context.buffers, len(inputs)
        for i, value in enumerate(inputs):
            if type(value) is np.ndarray:
                buffers[i] = address_of(value)
        for shape, dtype, nbytes, i in self.output_kinds:
            made = np.empty(shape, dtype) if nbytes < _LARGE else self.recycler.empty(shape, dtype, nbytes)
            outputs[i] = made
            buffers[count + i] = address_of(made)
        patches = len(context.patches)
        for first, end, parallel in self.segments:
            if parallel is None:
                started = time.perf_counter()
                self._host(context, self.plan.steps[first], inputs, outputs)
                if host_seconds is not None:
                    host_seconds[first] = time.perf_counter() - started
                continue
            self._native(context, first, end, parallel, patches, timeline)
            patches = 0
            if context.status:
                self._check(context, first, end)
        if not self.simple:
            self._copy_out(context, inputs, outputs)
        self.free.append(context)
        return outputs

    def _native(self, context: Context, first: int, end: int, parallel: bool, patches: int, timeline: int) -> None:
        pool = self.pool
        if parallel and pool.lock.acquire(blocking=False):
            try:
                if not pool.alarms:
                    pool.start(self.store.address(HELPER))
                job = context.job
                context.epoch = (context.epoch + 1) & 0x3FFFFFFF
                job[1], job[2], job[4], job[6], job[7] = first, end, context.epoch, timeline, patches
                if True in pool.asleep:
                    pool.wake()
                self.replay(context.job_address, pool.address, 0)
            finally:
                pool.lock.release()
            return
        job = context.solo
        job[1], job[2], job[6], job[7] = first, end, timeline, patches
        self.replay(address_of(job), 0, 0)

    def _host(self, context: Context, step: HostStep, inputs: Sequence[object], outputs: list[object]) -> None:
        values = [None if x is None else self._value(context, x, inputs, outputs) for x in step.inputs]
        results = step.call(values)
        for place, value in zip(step.outputs, results):
            if isinstance(place, Buffer):
                context.hosts[place.index] = value
                continue
            array = np.asarray(value)
            if array.shape != place.shape:
                raise RuntimeError(f"{', '.join(step.nodes)}: result has shape {array.shape}, expected {place.shape}")
            self._value(context, place, inputs, outputs)[...] = array

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

    def _check(self, context: Context, first: int, end: int) -> None:
        for block, i, step in context.status:
            if first <= i < end and block[step.status]:
                code = int(block[step.status])
                block[step.status] = 0
                self.free.append(context)
                message = step.errors[code - 1] if 0 < code <= len(step.errors) else f"error {code}"
                raise KernelFault(step, message)


def _kernels(plan: Plan) -> list:
    found = []

    def visit(args: Sequence[object]) -> None:
        for arg in args:
            if isinstance(arg, Address):
                found.append(arg.kernel)
            elif isinstance(arg, Block):
                visit(arg.args)

    for step in plan.steps:
        if isinstance(step, Step):
            found.append(step.kernel)
            visit(step.args)
    return found


def _segments(plan: Plan) -> list[tuple[int, int, bool | None]]:
    """(first, end, whether helpers pay) of native runs; (i, i + 1, None) for a host step. A plan without steps has none."""
    result: list[tuple[int, int, bool | None]] = []
    start = 0
    for i, step in enumerate([*plan.steps, None]):
        if isinstance(step, Step):
            continue
        if i > start:
            result.append((start, i, any(s.tasks > 1 for s in plan.steps[start:i])))
        if step is not None:
            result.append((i, i + 1, None))
        start = i + 1
    return result
