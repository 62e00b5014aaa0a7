"""Steps while a plan is made: their addresses are places in memories (`At`), whose lives the steps extend.

`Drafts` takes steps in order and makes the small ones that move values; `finish` packs the arena and turns addresses
into references to buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..ops import evaluate
from ..ops.kernels.sizes import deferred, key, most, now, whole
from ..ops.kernels.spec import KernelSpec
from ..ops.primitives import Expand, Layout, Tensor
from . import loops
from .copies import copy_launches
from .plan import Address, Arg, Block, Buffer, HostStep, Ref, Space, Step
from .plan import Tensor as PlanTensor
from .storage import At, Memory, Place, assign

if TYPE_CHECKING:
    from ..ops.kernels.launch import Launch

_largest = deferred()(max)  # of many sizes: to compare each with each would take long
Announce = Callable[[list[KernelSpec]], None]
Nodes = tuple[str, ...]


@dataclass(eq=False)
class Draft:
    """A step whose addresses are still `At`."""

    kernel: KernelSpec
    args: tuple[object, ...]
    tasks: int
    nodes: Nodes
    shape: str
    flops: int
    bytes: int
    status: int | None = None
    errors: tuple[str, ...] = ()


class Drafts:
    """The steps so far and the arena's memories. `announce` is told of the kernels of each step at once."""

    def __init__(self, threads: int, announce: Announce) -> None:
        self.threads, self.announce = threads, announce
        self.steps: list[Draft | HostStep] = []
        self.memories: list[Memory] = []
        self._scratch: dict[object, int] = {}  # what steps need, each number once

    def arena(self, nbytes: int) -> Memory:
        """New memory in the arena."""
        memory = Memory(Space.ARENA, most(whole(nbytes), 1))
        self.memories.append(memory)
        return memory

    @property
    def scratch(self) -> int:
        """Bytes of each thread's scratch."""
        return _largest(0, 0, *self._scratch.values())

    # -- steps
    def loop(self, made: Launch, nodes: Nodes, work: loops.Body) -> None:
        """A generated loop."""
        moved = sum(x.size * x.dtype.itemsize for x in [*work.reads, *work.writes])
        size = max((x.size for x in [*work.reads, *work.writes]), key=now, default=0)  # for people only
        flops = size * sum(1 for s in work.statements if s.text != "a")
        self._add(Draft(made.kernel, made.args, made.tasks, nodes, made.label, flops, moved), made.scratch)

    def launch(self, made: Launch, nodes: Nodes, label: str, errors: tuple[str, ...] = ()) -> None:
        """A launch of a hand-built kernel; `label` if it has none of its own."""
        status = getattr(made, "status", None)
        text = made.label or label
        self._add(Draft(made.kernel, made.args, made.tasks, nodes, text, made.flops, made.bytes, status, errors), made.scratch)

    def host(self, made: HostStep) -> None:
        """A step in Python; its values are still at `At`."""
        for value in [*made.inputs, *made.outputs]:
            self.touch(value)
        self.steps.append(made)

    def touch(self, value: object) -> None:
        """The next step uses a value."""
        if isinstance(value, PlanTensor):
            value.ref.memory.touch(len(self.steps))

    def _add(self, draft: Draft, scratch: int) -> None:
        self._scratch.setdefault(key(scratch), scratch)
        kernels = [draft.kernel]
        self._visit(draft.args, len(self.steps), kernels)
        self.steps.append(draft)
        self.announce(kernels)

    def _visit(self, args: Sequence[object], step: int, kernels: list[KernelSpec]) -> None:
        """Note the memories that a step touches, and the kernels that it calls."""
        for a in args:
            kind = type(a)  # most are integers
            if kind is At:
                a.memory.touch(step)
            elif kind is Block:
                self._visit(a.args, step, kernels)
            elif kind is Address:
                kernels.append(a.kernel)

    # -- moving values
    def dense(self, x: Tensor, source: Place, shape: Sequence[int], nodes: Nodes, order: Sequence[int] | None = None) -> Place:
        """A copy of `source` spread to `shape`, dense in `order` (default row-major)."""
        shape, size = tuple(shape), x.dtype.itemsize
        target = Place(self.arena(prod(shape) * size), Layout.contiguous(shape, size, order))
        self.copy(x.dtype, source, target, shape, nodes)
        return target

    def copy(self, dtype: np.dtype, source: Place, target: Place, shape: tuple[int, ...], nodes: Nodes) -> None:
        """Write `source`, spread to `shape`, to `target`."""
        if not prod(shape):
            return
        spread = Expand(shape).layout(source.layout)
        launches = copy_launches(dtype, shape, source.at, spread, target.at, target.layout, self.threads)
        if launches is not None:
            for made in launches:
                self.launch(made, nodes, "copy")
            return
        read, written = Tensor(dtype, shape), Tensor(dtype, shape)
        statement = loops.Statement("v0", "a", ("x0",), evaluate.register_name(dtype))
        work = loops.Body((read,), (written,), (), (statement,), ("v0",))
        self.loop(loops.launch(work, shape, (), (spread, target.layout), (source.at, target.at), self.threads), nodes, work)

    def fill(self, value: object, dtype: np.dtype, target: Place, shape: tuple[int, ...], nodes: Nodes) -> None:
        """Write one value everywhere."""
        if not prod(shape):
            return
        kind = evaluate.register_name(dtype)
        number = np.asarray(value, dtype).item()
        work = loops.Body((), (Tensor(dtype, shape),), ((kind, number),), (loops.Statement("v0", "a", ("s0",), kind),), ("v0",))
        self.loop(loops.launch(work, shape, (), (target.layout,), (target.at,), self.threads), nodes, work)

    # -- the end
    def finish(self, is_open: bool) -> tuple[tuple[Step | HostStep, ...], int, Final]:
        """The steps, the arena's size, and what turns other values of the plan into final ones.

        A plan with open sizes gets numbered memories instead of places in the arena.
        """
        self.memories = [m for m in self.memories if m.last >= 0]
        size = 0
        if is_open:
            for i, memory in enumerate(self.memories):
                memory.index = i
        else:
            size = assign(self.memories)
        final = Final()
        return tuple(final.step(draft) for draft in self.steps), size, final


class Final:
    """Addresses become references to buffers."""

    def __init__(self) -> None:
        self.buffers: dict[int, Buffer] = {}

    def buffer(self, memory: Memory) -> Buffer:
        """The buffer of a memory."""
        found = self.buffers.get(id(memory))
        if found is None:
            found = self.buffers[id(memory)] = Buffer(memory.space, memory.index, memory.nbytes)
        return found

    def value(self, value: object) -> object:
        """An input or output of a host step or of the plan."""
        if isinstance(value, PlanTensor):
            return PlanTensor(value.name, value.dtype, value.shape, self._arg(value.ref), value.in_place)
        return self.buffer(value) if isinstance(value, Memory) else value

    def step(self, draft: Draft | HostStep) -> Step | HostStep:
        """A step as the plan holds it."""
        if isinstance(draft, HostStep):
            inputs = tuple(self.value(x) for x in draft.inputs)
            return replace(draft, inputs=inputs, outputs=tuple(self.value(x) for x in draft.outputs))
        args = tuple([a if type(a) is int else self._arg(a) for a in draft.args])
        return Step(draft.kernel, args, draft.tasks, draft.nodes, draft.shape, draft.flops, draft.bytes, draft.status, draft.errors)

    def _arg(self, value: object) -> Arg:
        if isinstance(value, At):
            return Ref(self.buffer(value.memory), value.offset)
        if isinstance(value, Block):
            return Block(tuple(self._arg(v) for v in value.args))
        return Address(value) if isinstance(value, KernelSpec) else value
