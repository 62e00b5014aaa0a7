"""From grouped units to a plan: places, steps, arena.

1. Each value that a unit leaves for others gets a place: in the memory of a join that reads it, in an output, in the
   memory of an input that dies here (same layout, one pass), else in the arena.
2. Each unit becomes steps: a loop its generated kernel, a call its launches with the tail in registers or as an
   epilogue, a join copies of what was not made in place, a host step itself.
3. Arena buffers are packed by the steps that touch them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..ops import evaluate
from ..ops.kernels.spec import KernelSpec
from ..ops.primitives import (
    Expand,
    Host,
    Join,
    Kernel,
    Layout,
    Map,
    Move,
    Opaque,
    Operand,
    Reshape,
    Slice,
    Tensor,
    Trace,
)  # fmt: skip
from . import loops
from .copies import copy_launches
from .group import Call, Loop, base, group, unit_inputs
from .plan import Address, Arg, Block, Buffer, HostStep, Plan, Ref, Space, Step
from .plan import Tensor as PlanTensor
from .simplify import simplify
from .storage import At, Memory, Orders, Place, assign, placements
from .weights import Weights

if TYPE_CHECKING:
    from ..ops.kernels.launch import Launch

Announce = Callable[[list[KernelSpec]], None]
NUMBER = r"(-?(?:[0-9.]+(?:e[-+]?\d+)?|inf)|\(-?[0-9.e+-]+\))"
_CLIPS = (
    (re.compile(rf"^(?:at_least|maximum)\(a, {NUMBER}\)$"), "low"),
    (re.compile(rf"^(?:at_most|minimum)\(a, {NUMBER}\)$"), "high"),
    (re.compile(rf"^at_most\(at_least\(a, {NUMBER}\), {NUMBER}\)$"), "both"),
)


def make_plan(trace: Trace, threads: int, weights: Weights, announce: Announce = lambda kernels: None) -> Plan:
    """The plan of a trace for a number of threads.

    Args:
        weights: constants are packed into it.
        announce: told of the kernels of each step as soon as they are known, so that they can be compiled meanwhile.
    """
    trace = simplify(trace)
    plan = _Planner(trace, threads, weights, announce).plan()
    weights.complete(threads)
    return plan


@dataclass(eq=False)
class _Draft:
    """A step whose addresses are still `At`."""

    kernel: KernelSpec
    args: tuple[object, ...]
    tasks: int
    nodes: tuple[str, ...]
    shape: str
    flops: int
    bytes: int
    status: int | None = None
    errors: tuple[str, ...] = ()


class _Planner:
    def __init__(self, trace: Trace, threads: int, weights: Weights, announce: Announce) -> None:
        self.trace, self.threads, self.weights, self.announce = trace, threads, weights, announce
        self.units = group(trace)
        self.orders = Orders(trace, self.units)
        self.in_join = placements(self.units, trace)
        self.places: dict[int, Place] = {}
        self.opaque: dict[int, Memory] = {}
        self.drafts: list[_Draft | HostStep] = []
        self.memories: list[Memory] = []
        self.constants: list[np.ndarray] = []
        self.constant_memory: dict[int, Memory] = {}
        self.scratch = 0
        self.host_slots = 0
        self.kept: list[object] = []
        self.last_reader = self._last_readers()

    def plan(self) -> Plan:
        """All units in order, then the arena."""
        self._place_inputs()
        self._place_outputs()
        for i, unit in enumerate(self.units):
            self.now = i
            if isinstance(unit, Loop):
                self._loop(unit)
            elif isinstance(unit, Call):
                self._call(unit)
            elif isinstance(unit.primitive, Join):
                self._join(unit.primitive)
            else:
                self._host(unit.primitive)
        return self._finish()

    # -- places
    def _last_readers(self) -> dict[int, int]:
        """id(stored value) -> the last unit that reads it (outputs: never over)."""
        last: dict[int, int] = {}
        for i, unit in enumerate(self.units):
            for x in unit_inputs(unit):
                last[id(base(x))] = i
        last.update({id(base(x)): 1 << 60 for x in self.trace.outputs})
        last.update({id(x): 1 << 60 for u in self.units for p in u.members for x in p.outputs if id(x) in self.in_join})
        return last

    def _place_inputs(self) -> None:
        for i, x in enumerate(self.trace.inputs):
            if isinstance(x, Opaque):
                self.opaque[id(x)] = Memory(Space.INPUT, 0, i)
            else:
                memory = Memory(Space.INPUT, x.size * x.dtype.itemsize, i)
                self.places[id(x)] = Place(memory, Layout.contiguous(x.shape, x.dtype.itemsize))

    def _place_outputs(self) -> None:
        """Outputs that a unit stores, or reshapes of them, go straight to the caller's array."""
        for i, x in enumerate(self.trace.outputs):
            while isinstance(x.source, Move) and isinstance(x.source.how, Reshape):
                x = x.source.input
            made_here = isinstance(x, Tensor) and x.source is not None and not isinstance(x.source, Move | Host)
            if made_here and x.constant is None and id(x) not in self.places:
                memory = Memory(Space.OUTPUT, x.size * x.dtype.itemsize, i)
                self.places[id(x)] = Place(memory, Layout.contiguous(x.shape, x.dtype.itemsize))
                self.orders.row_major.add(id(x))

    def _arena(self, nbytes: int) -> Memory:
        memory = Memory(Space.ARENA, max(int(nbytes), 1))
        self.memories.append(memory)
        return memory

    def place(self, x: Tensor) -> Place:
        """Where a stored value lies; it gets a place now if it has none."""
        found = self.places.get(id(x))
        if found is None:
            if id(x) in self.in_join:
                join, start = self.in_join[id(x)]
                whole = self.place(join.output)
                box = Slice(start, (1,) * x.rank, x.shape).layout(whole.layout)
                found = Place(whole.memory, box)
            else:
                layout = Layout.contiguous(x.shape, x.dtype.itemsize, self.orders.stored(x))
                found = Place(self._arena(x.size * x.dtype.itemsize), layout)
            self.places[id(x)] = found
            self.kept.append(x)
        return found

    def view(self, x: Tensor) -> Place:
        """Where any value lies: stored, constant, or a view; a view that strides cannot express is copied."""
        if id(x) in self.places:
            return self.places[id(x)]
        if x.constant is not None:
            made = self._constant(x.constant)
        elif isinstance(x.source, Move):
            origin = self.view(x.source.input)
            layout = x.source.how.layout(origin.layout)
            if layout is None:
                made = self._dense(x.source.input, origin, x.source.input.shape, x.source.nodes)
                layout = x.source.how.layout(made.layout)
                made = Place(made.memory, layout)
            else:
                made = Place(origin.memory, layout)
        else:
            return self.place(x)
        self.places[id(x)] = made
        self.kept.append(x)
        return made

    def _constant(self, array: np.ndarray) -> Place:
        if id(array) not in self.constant_memory:
            stored = array
            if any(s < 0 for s in array.strides):
                stored = np.ascontiguousarray(array)
            self.constants.append(stored)
            self.constant_memory[id(array)] = Memory(Space.CONSTANT, stored.nbytes, len(self.constants) - 1)
            self.kept.append(array)
        memory = self.constant_memory[id(array)]
        stored = self.constants[memory.index]
        return Place(memory, Layout(stored.shape, stored.strides))

    # -- steps
    def _emit(self, draft: _Draft) -> None:
        step = len(self.drafts)
        for at in _addresses(draft.args):
            at.memory.touch(step)
        self.drafts.append(draft)
        self.announce([draft.kernel, *_epilogues(draft.args)])

    def _dense(
        self, x: Tensor, source: Place, shape: Sequence[int], nodes: tuple[str, ...], order: Sequence[int] | None = None
    ) -> Place:
        """A copy of `source` spread to `shape`, dense in `order` (default row-major)."""
        shape = tuple(shape)
        target = Place(self._arena(prod(shape) * x.dtype.itemsize), Layout.contiguous(shape, x.dtype.itemsize, order))
        self._copy(x.dtype, source, target, shape, nodes)
        return target

    def _copy(self, dtype: np.dtype, source: Place, target: Place, shape: tuple[int, ...], nodes: tuple[str, ...]) -> None:
        if not prod(shape):
            return
        spread = Expand(shape).layout(source.layout)
        launches = copy_launches(dtype, shape, source.at, spread, target.at, target.layout, self.threads)
        if launches is not None:
            for made in launches:
                self.scratch = max(self.scratch, made.scratch)
                self._emit(_Draft(made.kernel, made.args, made.tasks, nodes, made.label, made.flops, made.bytes))
            return
        read, written = Tensor(dtype, shape), Tensor(dtype, shape)
        kind = evaluate.register_name(dtype)
        work = loops.Body((read,), (written,), (), (loops.Statement("v0", "a", ("x0",), kind),), ("v0",))
        layouts = (spread, target.layout)
        self._emit_loop(loops.launch(work, shape, (), layouts, (source.at, target.at), self.threads), nodes, work)

    def _fill(self, value: object, dtype: np.dtype, target: Place, shape: tuple[int, ...], nodes: tuple[str, ...]) -> None:
        if not prod(shape):
            return
        kind = evaluate.register_name(dtype)
        number = np.asarray(value, dtype).item()
        statement = loops.Statement("v0", "a", ("s0",), kind)
        work = loops.Body((), (Tensor(dtype, shape),), ((kind, number),), (statement,), ("v0",))
        self._emit_loop(loops.launch(work, shape, (), (target.layout,), (target.at,), self.threads), nodes, work)

    def _emit_loop(self, made: loops.LoopLaunch, nodes: tuple[str, ...], work: loops.Body) -> None:
        self.scratch = max(self.scratch, made.scratch)
        moved = sum(x.size * x.dtype.itemsize for x in [*work.reads, *work.writes])
        size = max((x.size for x in [*work.reads, *work.writes]), default=0)
        flops = size * sum(1 for s in work.statements if s.text != "a")
        self._emit(_Draft(made.kernel, made.args, made.tasks, nodes, made.shape, flops, moved))

    # -- loops
    def _loop(self, loop: Loop) -> None:
        writes = self._escaping(loop)
        axes = loop.axes
        row_shape = loop.row_shape if axes else None
        work = loops.body(loop.members, writes, row_shape)
        nodes = _nodes(loop.members)
        places = [self.view(x) for x in work.reads]
        if prod(loop.row_shape) == 0:
            for w in writes:
                self.place(w)
            return
        passes = loop.axes
        reused = set()
        for w in writes:
            if id(w) not in self.places and id(w) not in self.in_join and not passes:
                self._in_place(w, work.reads, places, reused)
        targets = [self.place(w) for w in writes]
        self._run_loop(work, loop.space, axes, places, targets, nodes)

    def _run_loop(self, work, space, axes, places, targets, nodes) -> None:
        """Emit a loop; an operand that cannot be walked is copied before, or written by a copy after."""
        places, targets, after = list(places), list(targets), []
        while True:
            everything = [*places, *targets]
            layouts = [Expand(space).layout(p.layout) if p.layout.shape != space else p.layout for p in places]
            layouts += [_spread(p.layout, space) for p in targets]
            try:
                made = loops.launch(work, space, axes, layouts, [p.at for p in everything], self.threads)
                break
            except loops.NotDense as problem:
                i = problem.index
                order = _foldable(space, axes, layouts[len(places)].strides if targets else Layout.contiguous(space, 1).strides)
                if i < len(places):
                    x = work.reads[i]
                    lead = (1,) * (len(space) - x.rank) + x.shape
                    shape = tuple(n if d in axes else m for d, (n, m) in enumerate(zip(space, lead)))
                    places[i] = self._dense(x, places[i], shape, nodes, order)
                else:
                    w = work.writes[i - len(places)]
                    final = targets[i - len(places)]
                    own = Place(self._arena(w.size * w.dtype.itemsize), Layout.contiguous(w.shape, w.dtype.itemsize, order))
                    targets[i - len(places)] = own
                    after.append((w, own, final))
        self._emit_loop(made, nodes, work)
        for w, own, final in after:
            self._copy(w.dtype, own, final, w.shape, nodes)

    def _in_place(self, w: Tensor, reads: Sequence[Tensor], places: Sequence[Place], reused: set[int]) -> None:
        """Let an output take the memory of an input that nobody reads later."""
        wanted = Layout.contiguous(w.shape, w.dtype.itemsize, self.orders.stored(w))
        for x, place in zip(reads, places):
            origin = base(x)
            free = self.last_reader.get(id(origin), -1) == self.now and id(place.memory) not in reused
            if (
                free and place.memory.space is Space.ARENA and origin is x and x.shape == w.shape
                and x.dtype.itemsize == w.dtype.itemsize and place.layout == wanted
                and place.memory.nbytes == max(w.size * w.dtype.itemsize, 1)
                and sum(1 for p in places if p.memory is place.memory) == 1
            ):  # fmt: skip
                self.places[id(w)] = Place(place.memory, wanted)
                reused.add(id(place.memory))
                self.kept.append(w)
                return

    def _escaping(self, unit: Loop | Call) -> list[Tensor]:
        """Values of a unit that something outside it reads."""
        if not hasattr(self, "_readers"):
            self._readers: dict[int, set[int]] = {}
            for i, other in enumerate(self.units):
                for p in other.members:
                    for x in p.inputs:
                        if x is not None:
                            y = base(x)
                            self._readers.setdefault(id(y), set()).add(i if y is x else -1)
            for x in self.trace.outputs:
                self._readers.setdefault(id(base(x)), set()).add(-1)
        return [out for p in unit.members for out in p.outputs if self._readers.get(id(out), set()) - {self.now}]

    # -- kernels
    def _call(self, call: Call) -> None:
        kernel = call.kernel
        nodes = _nodes(call.members)
        inputs = [
            self._operand(x, kernel.orders[i] if i < len(kernel.orders) else None, nodes) for i, x in enumerate(kernel.inputs)
        ]
        tail = _Tail(self, call)
        outputs = [Operand(p.at, x.dtype, x.shape, p.layout.strides) for x, p in tail.outputs()]
        context = _Context(self, inputs, outputs, tail)
        launches = kernel.launch(context)
        if any(prod(x.shape) for x in kernel.outputs):
            for made in launches:
                self._emit_launch(made, nodes, kernel)
        for w, own, final in tail.after:
            self._copy(w.dtype, own, final, w.shape, nodes)

    def _operand(self, x: Tensor | None, order: tuple[int, ...] | None, nodes: tuple[str, ...]) -> Operand | None:
        if x is None:
            return None
        place = self.view(x)
        if order is not None and not _dense_in(place.layout, order, x.dtype.itemsize):
            place = self._dense(x, place, x.shape, nodes, order)
        return Operand(place.at, x.dtype, x.shape, place.layout.strides)

    def _emit_launch(self, made: Launch, nodes: tuple[str, ...], kernel: Kernel) -> None:
        self.scratch = max(self.scratch, made.scratch)
        status = getattr(made, "status", None)
        label = made.label or kernel.name
        self._emit(_Draft(made.kernel, made.args, made.tasks, nodes, label, made.flops, made.bytes, status, kernel.errors))

    # -- joins
    def _join(self, join: Join) -> None:
        whole = self.place(join.output)
        shape = join.output.shape
        if join.fill is not None:
            boxes = (
                _complement(shape, join.starts[0], join.inputs[0].shape) if len(join.inputs) == 1 else [((0,) * len(shape), shape)]
            )
            for start, sizes in boxes:
                layout = Slice(start, (1,) * len(sizes), sizes).layout(whole.layout)
                self._fill(join.fill, join.output.dtype, Place(whole.memory, layout), sizes, join.nodes)
        for x, start in zip(join.inputs, join.starts):
            source, target = self.view(x), Place(whole.memory, Slice(start, (1,) * x.rank, x.shape).layout(whole.layout))
            if source != target:
                self._copy(x.dtype, source, target, x.shape, join.nodes)

    # -- host steps
    def _host(self, host: Host) -> None:
        step = len(self.drafts)
        inputs = [self._host_input(x, host.nodes) for x in host.inputs]
        outputs = []
        for x in host.outputs:
            if isinstance(x, Opaque) or x.dtype == object:
                outputs.append(self._slot(x))
            else:
                layout = Layout.contiguous(x.shape, x.dtype.itemsize)
                memory = self._arena(x.size * x.dtype.itemsize)
                self.places[id(x)] = Place(memory, layout)
                outputs.append(PlanTensor(x.name, x.dtype, x.shape, At(memory)))
        step = len(self.drafts)
        for value in [*inputs, *outputs]:
            if isinstance(value, PlanTensor):
                value.ref.memory.touch(step)
        self.drafts.append(HostStep(host.call, tuple(inputs), tuple(outputs), host.nodes, host.reason))

    def _slot(self, x: Tensor | Opaque) -> Memory:
        memory = Memory(Space.HOST, 0, self.host_slots)
        self.host_slots += 1
        self.opaque[id(x)] = memory
        return memory

    def _host_input(self, x: Tensor | Opaque | None, nodes: tuple[str, ...]) -> object:
        if x is None:
            return None
        if id(x) in self.opaque:
            return self.opaque[id(x)]
        return self._plan_tensor(x, nodes)

    def _plan_tensor(self, x: Tensor, nodes: tuple[str, ...]) -> PlanTensor:
        """A value as a row-major array, copied if it is not one."""
        place = self.view(x)
        if place.memory.space is Space.CONSTANT and not evaluate.is_native(x.dtype):
            array = np.ascontiguousarray(x.constant)
            place = self._constant(array)
        elif place.layout.strides != Layout.contiguous(x.shape, x.dtype.itemsize).strides and not _trivial(place.layout, x):
            place = self._dense(x, place, x.shape, nodes)
        return PlanTensor(x.name, x.dtype, x.shape, At(place.memory, place.layout.offset))

    # -- the end
    def _finish(self) -> Plan:
        outputs = [self._output(i, x) for i, x in enumerate(self.trace.outputs)]
        end = len(self.drafts)
        for out in outputs:
            if isinstance(out, PlanTensor):
                out.ref.memory.touch(end)
        used = [m for m in self.memories if m.last >= 0]
        total = assign(used)
        final = _Finalise()
        inputs = tuple(
            PlanTensor(x.name, x.dtype, x.shape, Ref(final.buffer(self.places[id(x)].memory)))
            if isinstance(x, Tensor)
            else final.buffer(self.opaque[id(x)])
            for x in self.trace.inputs
        )
        return Plan(
            inputs, tuple(final.value(out) for out in outputs), tuple(final.step(d) for d in self.drafts),
            tuple(self.constants), self.host_slots, total, self.scratch,
        )  # fmt: skip

    def _output(self, i: int, x: Tensor | Opaque) -> PlanTensor | Memory:
        """Output i; one that lies in another output's array is copied."""
        if id(x) in self.opaque:
            return self.opaque[id(x)]
        made = self._plan_tensor(x, ())
        memory = made.ref.memory
        if memory.space is Space.OUTPUT and (memory.index != i or made.ref.offset or memory.nbytes != x.size * x.dtype.itemsize):
            copy = self._dense(x, self.view(x), x.shape, ())
            made = PlanTensor(x.name, x.dtype, x.shape, copy.at)
        return made


class _Context:
    """`primitives.LaunchContext` for one call."""

    def __init__(self, planner: _Planner, inputs, outputs, tail: _Tail) -> None:
        self._planner = planner
        self.inputs, self.outputs, self.threads = inputs, outputs, planner.threads
        self.bias, self.residual, self.low, self.high, self.epilogue = tail.bias, tail.residual, tail.low, tail.high, tail.epilogue

    def alloc(self, nbytes: int) -> At:
        """Workspace in the arena."""
        return At(self._planner._arena(nbytes))

    def packed(self, tensor: Tensor, key: object, how) -> At:
        """A packed constant, shared by the session's plans."""
        array = self._planner.weights.packed(tensor, key, how)
        return self._planner._constant(array).at


class _Tail:
    """How a call's elementwise tail is carried out: residual and clip in registers, the rest as an epilogue."""

    def __init__(self, planner: _Planner, call: Call) -> None:
        self.planner, self.call = planner, call
        self.bias: Operand | None = None
        self.residual: Operand | None = None
        self.low, self.high, self.epilogue = -math.inf, math.inf, None
        self.after: list[tuple[Tensor, Place, Place]] = []
        kernel, nodes = call.kernel, _nodes(call.members)
        self.escaping = planner._escaping(call)
        self.result = kernel.outputs[0]
        rest = list(call.tail)
        while rest and self._in_registers(rest[0], rest):
            self.result = rest.pop(0).output
        if rest:
            self._epilogue(rest, nodes)

    def outputs(self) -> list[tuple[Tensor, Place]]:
        """The kernel's outputs with their places; the first may be what the tail makes of it."""
        others = [(x, self.planner.place(x)) for x in self.call.kernel.outputs[1:]]
        return [(self.result, self._writable(self.result)), *others]

    def _writable(self, x: Tensor) -> Place:
        """x's place if the kernel can write it (dense along its innermost dimension), else its own, copied after."""
        if hasattr(self, "raw"):
            return self.raw
        place = self.planner.place(x)
        orders = self.call.kernel.output_orders
        order = orders[0] if orders and orders[0] is not None else tuple(range(x.rank))
        dense = not order or x.shape[order[-1]] <= 1 or place.layout.strides[order[-1]] == x.dtype.itemsize
        if dense and any(self.call.kernel.matrix) and _rows_collapse(place.layout, self.call.kernel):
            return place
        if _dense_in(place.layout, order, x.dtype.itemsize):
            return place
        own = Place(self.planner._arena(x.size * x.dtype.itemsize), Layout.contiguous(x.shape, x.dtype.itemsize, order))
        self.after.append((x, own, place))
        return own

    def _in_registers(self, p: Map, rest: list[Map]) -> bool:
        """Take over p if it is a residual addition or a clip of the running result, which nothing else reads."""
        readers = sum(q.inputs.count(self.result) for q in rest)
        if readers != 1 or any(x is self.result for x in self.escaping) or p.output.dtype != self.result.dtype:
            return False
        clipped = (self.low, self.high) != (-math.inf, math.inf)
        others = [x for x in p.inputs if x is not self.result]
        if p.text in ("a + b", "(a + b)") and len(others) == 1 and not clipped:
            return self._add(others[0])
        if p.inputs[0] is not self.result or others or clipped:
            return False
        for pattern, kind in _CLIPS:
            if found := pattern.match(p.text):
                numbers = [float(g.strip("()")) for g in found.groups()]
                self.low = numbers[0] if kind in ("low", "both") else -math.inf
                self.high = numbers[-1] if kind in ("high", "both") else math.inf
                return True
        return False

    def _add(self, other: Tensor) -> bool:
        kernel = self.call.kernel
        column = kernel.matrix[3]
        if other.dtype != self.result.dtype:
            return False
        shape = (1,) * (self.result.rank - other.rank) + other.shape
        is_bias = all(n == 1 or d in column for d, n in enumerate(shape)) and other.size == prod(
            self.result.shape[d] for d in column
        )
        if is_bias and kernel.bias and self.bias is None and self.residual is None:
            place = self.planner.view(other)
            if _dense_in(place.layout, tuple(range(other.rank)), other.dtype.itemsize):
                self.bias = Operand(place.at, other.dtype, other.shape, place.layout.strides)
                return True
            return False
        if other.shape == self.result.shape and self.residual is None and other.constant is None:
            place = self.planner.view(other)
            if not _rows_collapse(place.layout, kernel):
                return False
            self.residual = Operand(place.at, other.dtype, other.shape, place.layout.strides)
            return True
        return False

    def _epilogue(self, maps: list[Map], nodes: tuple[str, ...]) -> None:
        planner, kernel = self.planner, self.call.kernel
        made = {id(p.output) for p in maps}
        writes = [x for x in self.escaping if id(x) in made]
        self._place_raw(writes)
        work = loops.body(maps, writes, None)
        shape = self.result.shape
        places = [self.raw if x is self.result else planner.view(x) for x in work.reads]
        targets = [planner.place(w) for w in writes]
        while True:
            layouts = [Expand(shape).layout(p.layout) if p.layout.shape != shape else p.layout for p in [*places, *targets]]
            try:
                kernel_spec, args = loops.epilogue(work, kernel.matrix, shape, layouts, [p.at for p in [*places, *targets]])
                break
            except loops.NotDense as problem:
                i = problem.index
                order = self._order()
                if i < len(places):
                    places[i] = planner._dense(work.reads[i], places[i], shape, nodes, order)
                else:
                    w = work.writes[i - len(places)]
                    own = Place(planner._arena(w.size * w.dtype.itemsize), Layout.contiguous(w.shape, w.dtype.itemsize, order))
                    self.after.append((w, own, targets[i - len(places)]))
                    targets[i - len(places)] = own
        self.epilogue = (Address(kernel_spec), Block(args))

    def _order(self) -> tuple[int, ...]:
        orders = self.call.kernel.output_orders
        return orders[0] if orders and orders[0] is not None else tuple(range(self.result.rank))

    def _place_raw(self, writes: list[Tensor]) -> None:
        """Where the contraction writes before the epilogue: in the final value's place if that is alike."""
        x = self.result
        if any(y is x for y in self.escaping):
            self.raw = self._writable(x)
            return
        order, kernel = self._order(), self.call.kernel
        if len(writes) == 1 and writes[0].dtype == x.dtype:
            place = self.planner.place(writes[0])
            if x.rank == 0 or (place.layout.strides[order[-1]] == x.dtype.itemsize and _rows_collapse(place.layout, kernel)):
                self.raw = place
                return
        layout = Layout.contiguous(x.shape, x.dtype.itemsize, order)
        self.raw = Place(self.planner._arena(x.size * x.dtype.itemsize), layout)


class _Finalise:
    """Drafts to steps: addresses become references to buffers."""

    def __init__(self) -> None:
        self.buffers: dict[int, Buffer] = {}

    def buffer(self, memory: Memory) -> Buffer:
        if id(memory) not in self.buffers:
            self.buffers[id(memory)] = Buffer(memory.space, memory.index, memory.nbytes)
        return self.buffers[id(memory)]

    def arg(self, value: object) -> Arg:
        if isinstance(value, At):
            return Ref(self.buffer(value.memory), value.offset)
        if isinstance(value, Block):
            return Block(tuple(self.arg(v) for v in value.args))
        if isinstance(value, KernelSpec):
            return Address(value)
        return value

    def value(self, value: object) -> object:
        if isinstance(value, PlanTensor):
            return PlanTensor(value.name, value.dtype, value.shape, self.arg(value.ref))
        if isinstance(value, Memory):
            return self.buffer(value)
        return value

    def step(self, draft: _Draft | HostStep) -> Step | HostStep:
        if isinstance(draft, HostStep):
            inputs = tuple(self.value(x) for x in draft.inputs)
            return HostStep(draft.call, inputs, tuple(self.value(x) for x in draft.outputs), draft.nodes, draft.reason)
        args = tuple(self.arg(a) for a in draft.args)
        return Step(draft.kernel, args, draft.tasks, draft.nodes, draft.shape, draft.flops, draft.bytes, draft.status, draft.errors)


def _addresses(args: Sequence[object]) -> list[At]:
    found: list[At] = []
    for a in args:
        if isinstance(a, At):
            found.append(a)
        elif isinstance(a, Block):
            found += _addresses(a.args)
    return found


def _epilogues(args: Sequence[object]) -> list[KernelSpec]:
    """Kernels whose addresses are arguments."""
    return [a.kernel for a in args if isinstance(a, Address)]


def _nodes(members: Sequence[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for p in members for name in p.nodes if name))


def _foldable(space: Sequence[int], axes: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The order of dimensions that the strides have; the folded ones last if others lie between them."""
    order = sorted(range(len(space)), key=lambda d: -abs(strides[d]))
    folded = [i for i, d in enumerate(d for d in order if space[d] != 1) if d in axes]
    if folded and folded[-1] - folded[0] >= len(folded):
        order.sort(key=lambda d: d in axes)
    return order


def _dense_in(layout: Layout, order: Sequence[int], itemsize: int) -> bool:
    dense = Layout.contiguous(layout.shape, itemsize, order).strides
    return all(n <= 1 or a == b for n, a, b in zip(layout.shape, layout.strides, dense)) or 0 in layout.shape


def _rows_collapse(layout: Layout, kernel: Kernel) -> bool:
    """Whether each group of a contraction's dimensions is walked with one stride."""
    return all(loops.one_stride(layout, layout.shape, dims) is not None for dims in kernel.matrix)


def _trivial(layout: Layout, x: Tensor) -> bool:
    return _dense_in(layout, range(x.rank), x.dtype.itemsize)


def _spread(layout: Layout, space: tuple[int, ...]) -> Layout:
    """An output's layout over the space: where it has size 1 (a reduction's result) it does not move."""
    strides = tuple(0 if n == 1 else s for n, s in zip(layout.shape, layout.strides))
    return Layout(space, strides, layout.offset)


def _complement(
    shape: tuple[int, ...], start: tuple[int, ...], box: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Boxes (start, sizes) that cover `shape` outside one box: for each dimension what lies before and after it."""
    result = []
    for d in range(len(shape)):
        for lo, hi in ((0, start[d]), (start[d] + box[d], shape[d])):
            if hi > lo:
                begins = (*start[:d], lo, *(0,) * (len(shape) - d - 1))
                result.append((begins, (*box[:d], hi - lo, *shape[d + 1 :])))
    return result
