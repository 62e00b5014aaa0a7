"""The executor: binds a plan's memory to addresses and replays it.

A `Context` is everything one run needs alone: argument blocks, jobs, thread scratch, and an arena, which is taken from
those of the session. Free contexts wait in a list; a run that finds none makes one, so concurrent runs never share
memory. A context that served other sizes, or had another arena, is bound to those of the run. Native steps between two
host steps are one job, which is one native call (`ops/kernels/replay.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from types import MappingProxyType

import numpy as np

from .fusion.bindings import Binder, Binding
from .fusion.plan import Address, Block, Buffer, HostStep, Numbers, Plan, Space, Spare, Step, Tensor
from .memory import DATA_OFFSET, LARGE, Arena, Arenas, Recycler
from .nest import Chain, Nested, nested_turns
from .ops.builder import OperatorError
from .ops.iteration import dense
from .ops.kernels import replay
from .ops.kernels.spec import KernelSpec
from .ops.pages import aligned
from .pool import HELPER, KERNEL, REPLAY, Pool
from .store import Progress, Store
from .words import Table, Words

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
    """Steps ``first .. end - 1``: one host step, or native steps."""

    first: int
    end: int
    host: HostStep | None = None


class Job:
    """One native segment in one context (see `replay`). `address` is what the native call takes.

    Attributes:
        width: threads that the widest step can use.
    """

    def __init__(self, context: Context, table: Table) -> None:
        self.context, self.table, self.width = context, table, 1
        self.words = words = np.zeros(replay.JOB_WORDS, np.int64)
        self.numbers = memoryview(words)  # the same, read in a tenth of the time
        self.address: int = words.ctypes.data
        base = context.words.ctypes.data
        words[replay.STEPS], words[replay.STEP_COUNT] = base + 8 * table.steps, table.step_count
        words[replay.PATCHES], words[replay.PATCH_COUNT] = base + 8 * table.patches, table.patch_count
        words[replay.STATUSES], words[replay.STATUS_COUNT] = base + 8 * table.statuses, len(table.failing)
        words[replay.BUFFERS], words[replay.DATA_OFFSET] = context.buffers.ctypes.data, DATA_OFFSET
        words[replay.PLACES], words[replay.SELF] = context.executor.pool.threads, self.address

    def bind(self) -> None:
        """Take over the context's words and scratch."""
        context, table, words = self.context, self.table, self.words
        ends = table.steps, table.steps + replay.STEP_WORDS * table.step_count
        tasks = context.words[slice(*ends)][replay.TASKS :: replay.STEP_WORDS]
        self.width = min(context.executor.pool.threads, int(tasks.max()))
        words[replay.WIDTH] = self.width
        words[replay.SCRATCH], words[replay.SCRATCH_SIZE] = context.scratch.ctypes.data, context.scratch_size

    @property
    def fault(self) -> KernelFault | None:
        """What went wrong in the last run."""
        number = int(self.words[replay.FAULT]) - 1
        if not self.table.failing or number < 0:
            return None
        step, words = self.table.failing[number], self.context.words
        status = int(words[self.table.statuses + number]) - words.ctypes.data
        code = int(words[status // 8])
        return KernelFault(step, step.errors[code - 1] if 0 < code <= len(step.errors) else f"error {code}")


class Context:
    """The memory of one run at a time.

    Attributes:
        buffers: the run's input and output arrays, by object address.
        nested: loops among the plan's steps that native code runs. sequence: all segments as one, if they are such loops too.
    """

    def __init__(self, executor: Executor) -> None:
        plan, self.executor = executor.plan, executor
        self.binding: Binding | None = None
        self.arena, self.address = Arena(), 0
        self.scratch = aligned(0)
        self.scratch_size = 0
        self.words = executor.words.empty()
        self.rest = self.words[:0]  # see `Words.fill`
        self.hosts: list[object] = [None] * plan.host_values
        self.buffers = np.zeros(len(plan.inputs) + len(plan.outputs) + 1, np.int64)
        self.jobs = {first: Job(self, table) for first, table in executor.words.tables.items()}
        self.nested = {first: Nested(self, plan.steps[first], turn) for first, turn in executor.turns.items()}
        self.sequence = Chain(self) if executor.is_sequence else None

    def get_ready(self, binding: Binding, arena: Arena) -> None:
        """For a run of these sizes in this arena."""
        self.arena = arena
        if self.binding is not binding or self.address != arena.address or arena.room < binding.arena_bytes:
            self._bind(binding)

    def _bind(self, binding: Binding) -> None:
        """Grow memory, write all words."""
        self.release()
        self.arena.grow(binding.arena_bytes)
        stays = self.binding is not None and self.binding.offsets is binding.offsets and self.address == self.arena.address
        self.address = self.arena.address
        each = -(-max(binding.scratch_bytes, 64) // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT + SCRATCH_ALIGNMENT
        if self.scratch_size < each:
            self.scratch_size, self.scratch = each, aligned(each * self.executor.pool.threads)
        if stays:
            self.executor.words.resize(self.words, self.rest, binding)
        else:
            self.rest = self.executor.words.fill(self.words, self.address, binding)
        for part in (*self.jobs.values(), *self.nested.values()):
            part.bind()
        self.binding = binding

    def release(self) -> None:
        """Wait until no helper looks at the words of an earlier run."""
        for job in self.jobs.values():
            self.executor.pool.release(job.address)

    def __del__(self) -> None:
        if hasattr(self, "jobs"):
            self.release()


@dataclass(frozen=True)
class Fixed:
    """What runs on the same arrays have in common.

    Attributes:
        inputs: arrays. outputs: the caller's arrays, None where each run makes its own.
        objects: their addresses, as in `Context.buffers`.
        made: of each output that a run makes: its index, its place among the objects, shape, dtype and bytes.
    """

    binding: Binding
    inputs: Sequence[object]
    outputs: list[np.ndarray | None]
    objects: np.ndarray
    made: list[tuple[int, int, tuple[int, ...], np.dtype, int]]


class Executor:
    """Runs one plan.

    Args:
        plan: what to run.
        store: where kernels come from.
        pool: helper threads; their number is the plan's number of threads.
        progress: told of each kernel that has to be compiled.
        binder: of the plan.
        arenas: of the session.
    """

    def __init__(
        self, plan: Plan, store: Store, pool: Pool, progress: Progress | None = None, binder: Binder | None = None,
        arenas: Arenas | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.store, self.pool = plan, store, pool
        self.segments = list(_segments(plan))
        kernels, spare = _kernels(plan)
        store.prepare([REPLAY, HELPER, *kernels], progress, spare)
        self.replay = KERNEL(store.address(REPLAY))
        self.words = Words(plan, [(s.first, s.end) for s in self.segments if s.host is None], store)
        self.binder = binder or Binder(plan)
        self.binding = None if plan.is_open else self.binder.bind()
        self.arenas = arenas or Arenas()
        self.turns = nested_turns(plan)
        self.free: list[Context] = []
        self.recycler = Recycler()
        self._copies = not all(isinstance(x, Tensor) and x.ref.buffer.space is Space.OUTPUT for x in plan.outputs)
        self._put_buffers = Struct(f"{len(plan.inputs) + len(plan.outputs)}q").pack_into

    def run(
        self,
        inputs: Sequence[object],
        binding: Binding | None = None,
        timeline: int = 0,
        host_seconds: dict[int, float] | None = None,
        given: Mapping[int, np.ndarray] = MappingProxyType({}),
    ) -> list[object]:
        """Run on arrays (C-contiguous, of the plan's dtypes and shapes) and return new outputs.

        Args:
            binding: the sizes, from `binder`, of a plan with open ones.
            timeline: address of int64[steps, threads, 2] for start and end in cycles, or 0.
            host_seconds: gets the time of each host step.
            given: the caller's arrays for outputs, by number; all that are in place are among them.

        Raises:
            KernelFault: a kernel met data that its operator does not allow.
            HostFault: a host step failed.
        """
        context = self.take(binding or self.binding)
        outputs: list[object] = [None] * len(self.plan.outputs)
        for i, shape, dtype, nbytes in context.binding.made:
            if i not in given:
                outputs[i] = self._output(shape, dtype, nbytes)
        for i, array in given.items():
            outputs[i] = array
        self._put_buffers(context.buffers, 0, *map(id, inputs), *map(id, outputs))
        return self._run(context, inputs, outputs, timeline, host_seconds)

    def fixed(self, inputs: Sequence[object], binding: Binding, given: Mapping[int, np.ndarray]) -> Fixed:
        """What runs of these arguments have in common."""
        outputs = [given.get(i) for i in range(len(self.plan.outputs))]
        objects = np.array([*map(id, inputs), *map(id, outputs), 0], np.int64)
        made = [(i, len(inputs) + i, *how) for i, *how in binding.made if i not in given]
        return Fixed(binding, inputs, outputs, objects, made)

    def run_fixed(self, fixed: Fixed) -> list[object]:
        """`run` of the arguments of `fixed`."""
        context, outputs = self.take(fixed.binding), fixed.outputs.copy()
        context.buffers[:] = fixed.objects
        for i, place, shape, dtype, nbytes in fixed.made:
            outputs[i] = made = self._output(shape, dtype, nbytes)
            context.buffers[place] = id(made)
        return self._run(context, fixed.inputs, outputs)

    def _output(self, shape: tuple[int, ...], dtype: np.dtype, nbytes: int) -> np.ndarray:
        return np.empty(shape, dtype) if nbytes < LARGE else self.recycler.empty(shape, dtype, nbytes)

    def _run(
        self, context: Context, inputs: Sequence[object], outputs: list[object], timeline: int = 0,
        host_seconds: dict[int, float] | None = None,
    ) -> list[object]:  # fmt: skip
        """The steps, in a context that knows the arrays; the outputs, those in other memory copied."""
        try:
            for segment in self.segments:
                if segment.host is None:
                    self._native(context, segment, timeline)
                    continue
                started = time.perf_counter()
                if not self._nested(context, segment, inputs, outputs):
                    self._host(context, segment, inputs, outputs)
                if host_seconds is not None:
                    host_seconds[segment.first] = time.perf_counter() - started
            if self._copies and any(out is None for out in outputs):
                self._copy_out(context, inputs, outputs)
        finally:
            self.give(context)
        return outputs

    @property
    def is_native(self) -> bool:
        """Whether native code can run all steps: none is in Python but loops of which nothing but states remains."""
        loops = [i for i, turn in self.turns.items() if not turn.rows]
        return bool(self.segments) and all(s.host is None or s.first in loops for s in self.segments)

    @property
    def is_sequence(self) -> bool:
        """Whether these are loops and other steps."""
        return bool(self.turns) and self.is_native

    def context(self) -> Context:
        """A new one."""
        return Context(self)

    def take(self, binding: Binding) -> Context:
        """A context for a run of these sizes."""
        try:
            context = self.free.pop()
        except IndexError:
            context = Context(self)
        context.get_ready(binding, self.arenas.take(context.arena))
        return context

    def give(self, context: Context) -> None:
        """Its run has ended."""
        self.arenas.give(context.arena)
        self.free.append(context)

    def helpers(self, job: Job) -> int:
        """The address of the pool if a job can use more than one thread, else 0."""
        return (self.pool.address or self.pool.start(self.store.address(HELPER))) if job.width > 1 else 0

    def _native(self, context: Context, segment: Segment, timeline: int) -> None:
        job = context.jobs[segment.first]
        if timeline:
            # the loop counts its places from its own first step
            timeline += 16 * self.pool.threads * segment.first
        self.replay(job.address, self.helpers(job), timeline)
        if job.table.failing and job.numbers[replay.FAULT]:
            raise job.fault

    def _nested(self, context: Context, segment: Segment, inputs: Sequence[object], outputs: Sequence[object]) -> bool:
        """A loop in native code; False: it is left to Python."""
        nested = context.nested.get(segment.first)
        if nested is None or not nested.turn.rows:
            return nested is not None and nested.run()
        step = nested.step
        stacked = nested.run_with_rows(self._value(context, step.inputs[0], inputs, outputs).item())
        for place, array in zip(step.outputs[-len(stacked) :], stacked):
            context.hosts[place.index] = array
        return bool(stacked)

    def _host(self, context: Context, segment: Segment, inputs: Sequence[object], outputs: list[object]) -> None:
        step = context.binding.hosts[segment.first]
        values = [None if x is None else self._value(context, x, inputs, outputs) for x in step.inputs]
        if step.keeps and any(isinstance(place, Buffer) for place in step.outputs):
            # a sequence may keep what it is given, the arena does not
            values = [np.array(v) if _in_arena(x) else v for x, v in zip(step.inputs, values)]
        results = _call(step, values)
        for place, value in zip(step.outputs, results):
            if isinstance(place, Buffer):
                context.hosts[place.index] = dense(value)
                continue
            array = np.asarray(value)
            if array.shape != place.shape:
                raise RuntimeError(f"{', '.join(step.nodes)}: result has shape {array.shape}, expected {place.shape}")
            self._value(context, place, inputs, outputs)[...] = array

    def _value(
        self, context: Context, x: Tensor | Numbers | Buffer, inputs: Sequence[object], outputs: Sequence[object]
    ) -> object:  # fmt: skip
        """A plan's value as Python sees it, sizes given; arrays are views of the run's memory."""
        if isinstance(x, Numbers):
            return x.array()
        if isinstance(x, Buffer):
            return context.hosts[x.index] if x.space is Space.HOST else inputs[x.index]
        space, index = x.ref.buffer.space, x.ref.buffer.index
        if space is Space.ARENA:
            return np.ndarray(x.shape, x.dtype, context.arena.bytes, index + x.ref.offset)
        whole = (inputs if space is Space.INPUT else outputs if space is Space.OUTPUT else self.plan.constants)[index]
        if space is Space.CONSTANT:
            whole = whole.view()
            whole.flags.writeable = False  # it may come to the caller
        if whole.shape == x.shape and not x.ref.offset:
            return whole
        if x.dtype == object:
            return whole.reshape(x.shape)  # constants have one dimension at least
        flat = whole.reshape(-1).view(np.uint8)
        return np.ndarray(x.shape, x.dtype, flat, x.ref.offset)

    def _copy_out(self, context: Context, inputs: Sequence[object], outputs: list[object]) -> None:
        for i, out in enumerate(context.binding.outputs):
            if outputs[i] is None:
                value = self._value(context, out, inputs, outputs)
                outputs[i] = np.array(value) if isinstance(out, Tensor) else value
        context.hosts = [None] * len(context.hosts)


def _in_arena(x: Tensor | Numbers | Buffer | None) -> bool:
    return isinstance(x, Tensor) and x.ref.buffer.space is Space.ARENA


def _call(step: HostStep, values: list[object]) -> Sequence[object]:
    """What a host step gives; a body's own faults, which name their nodes, pass as they are."""
    try:
        return step.call(values)
    except (HostFault, KernelFault, OperatorError):
        raise
    except Exception as error:
        raise HostFault(step, error) from error


def _kernels(plan: Plan) -> tuple[list[KernelSpec], list[KernelSpec]]:
    """Those that the plan runs, and those that it has to spare."""
    found: list[KernelSpec] = []
    spare: list[KernelSpec] = []

    def visit(args: Sequence[object]) -> None:
        for arg in args:
            if type(arg) is Address:
                found.append(arg.kernel)
            elif type(arg) is Spare:
                spare.append(arg.kernel)
            elif type(arg) is Block:
                visit(arg.args)

    for step in plan.steps:
        if isinstance(step, Step):
            found.append(step.kernel)
            visit(step.args)
    return found, spare


def _segments(plan: Plan) -> Iterator[Segment]:
    """Host steps and the runs of native steps between them. A plan without steps has none."""
    start = 0
    for i, step in enumerate([*plan.steps, None]):
        if isinstance(step, Step):
            continue
        if i > start:
            yield Segment(start, i)
        if step is not None:
            yield Segment(i, i + 1, step)
        start = i + 1
