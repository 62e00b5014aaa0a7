"""From a trace to a plan: units become steps, in order.

A loop becomes its generated kernel, a call its launches with the tail in registers or as an epilogue (`tail`), a join
copies of what was not made in place, a host step itself. `places` says where values lie, `drafts` takes the steps and
packs the arena.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from ..ops.convchoice import Choose, expected
from ..ops.kernels.sizes import alike
from ..ops.kernels.symbols import Symbols
from ..ops.primitives import Expand, Host, Join, Kernel, Layout, Slice, Tensor, Trace
from . import loops
from .drafts import Announce, Drafts
from .group import Call, Loop, Unit, base, group
from .openplan import opened
from .partials import partials
from .parts import by_images, by_rows
from .places import Places
from .plan import HostStep, Plan, Ref
from .plan import Tensor as PlanTensor
from .simplify import simplify
from .storage import Place
from .tail import CallContext, Tail
from .weights import Weights

Nodes = tuple[str, ...]


def make_plan(
    trace: Trace,
    threads: int,
    weights: Weights,
    announce: Announce = lambda kernels: None,
    choose: Choose = expected,
    symbols: Symbols | None = None,
    shared: Mapping[int, int] | None = None,
) -> Plan:
    """The plan of a trace for a number of threads.

    Args:
        weights: has the places of packed constants; they are to be filled (`Weights.complete`) before the plan runs.
        announce: told of the kernels of each step as soon as they are known, so that they can be compiled meanwhile.
        choose: the algorithm of each convolution.
        symbols: the open sizes that the trace was made with.
        shared: outputs that the caller would like in the array of an input, by number (`sharing`).
    """
    symbols = symbols or Symbols()
    symbols.node = "the passes over the trace"
    trace = by_rows(by_images(simplify(trace)))
    drafts, units = Drafts(threads, announce), group(trace)
    return _Planner(trace, units, drafts, Places(trace, units, drafts, shared), weights, choose, symbols).plan()


class _Planner:
    def __init__(
        self, trace: Trace, units: Sequence[Unit], drafts: Drafts, places: Places, weights: Weights, choose: Choose,
        symbols: Symbols,
    ) -> None:  # fmt: skip
        self.trace, self.units, self.drafts, self.places = trace, units, drafts, places
        self.weights, self.choose, self.symbols = weights, choose, symbols
        self.readers = _readers(trace, units)

    def plan(self) -> Plan:
        """All units in order, then the arena."""
        for i, unit in enumerate(self.units):
            self.symbols.node = next(iter(_nodes(unit)), "")
            if isinstance(unit, Loop):
                self._loop(i, unit)
            elif isinstance(unit, Call):
                self._call(i, unit)
            elif isinstance(unit.primitive, Join):
                self._join(unit.primitive)
            else:
                self._host(unit.primitive)
        return self._finish()

    def _escaping(self, i: int) -> list[Tensor]:
        """Values of unit i that something outside it reads."""
        nobody: set[int] = set()
        return [out for p in self.units[i].members for out in p.outputs if self.readers.get(id(out), nobody) - {i}]

    # -- loops
    def _loop(self, i: int, loop: Loop) -> None:
        writes = self._escaping(i)
        work = loops.body(loop.members, writes, loop.row_shape if loop.axes else None)
        nodes = _nodes(loop)
        places = [self.places.view(x) for x in work.reads]
        if prod(loop.row_shape) == 0:
            for w in writes:
                self.places.place(w)
            return
        if not loop.axes:  # what passes over its row once
            taken: set[int] = set()
            for w in writes:
                self.places.reuse(w, work.reads, places, i, taken)
        elif (two := partials(loop, work, [p.layout for p in places], self.drafts.threads)) is not None:
            sums = self.places.own(two.sums, two.order)
            first = loops.body(two.first.members, [two.sums], two.first.row_shape)
            self._run_loop(first, two.first, [replace(p, layout=x) for p, x in zip(places, two.read)], [sums], nodes)
            loop, work = two.second, loops.body(two.second.members, writes, two.second.row_shape)
            places = [sums if x is two.sums else self.places.view(x) for x in work.reads]
        self._run_loop(work, loop, places, [self.places.place(w) for w in writes], nodes)

    def _run_loop(self, work: loops.Body, loop: Loop, places: list[Place], targets: list[Place], nodes: Nodes) -> None:
        """Emit a loop; an operand that cannot be walked is copied before, or written by a copy after."""
        space, axes, after = loop.space, loop.axes, []
        while True:
            layouts = [Expand(space).layout(p.layout) if not alike(p.layout.shape, space) else p.layout for p in places]
            layouts += [_spread(p.layout, space) if axes else p.layout for p in targets]
            addresses = [p.at for p in [*places, *targets]]
            try:
                made = loops.launch(work, space, axes, layouts, addresses, self.drafts.threads)
                break
            except loops.NotDense as problem:
                i = problem.index
                order = _foldable(space, axes, layouts[len(places)].strides if targets else Layout.contiguous(space, 1).strides)
                if i < len(places):
                    x = work.reads[i]
                    lead = (1,) * (len(space) - x.rank) + x.shape
                    shape = tuple(n if d in axes else m for d, (n, m) in enumerate(zip(space, lead)))
                    places[i] = self.drafts.dense(x, places[i], shape, nodes, order)
                else:
                    w = work.writes[i - len(places)]
                    own = self.places.own(w, order)
                    after.append((w, own, targets[i - len(places)]))
                    targets[i - len(places)] = own
        self.drafts.loop(made, nodes, work)
        for w, own, final in after:
            self.drafts.copy(w.dtype, own, final, w.shape, nodes)

    # -- kernels
    def _call(self, i: int, call: Call) -> None:
        kernel, nodes = call.kernel, _nodes(call)
        orders = [*kernel.orders, *[None] * (len(kernel.inputs) - len(kernel.orders))]
        read = (None if i == kernel.packs else x for i, x in enumerate(kernel.inputs))
        inputs = [self.places.operand(x, order, nodes) for x, order in zip(read, orders)]
        self._change(kernel, i)
        tail = Tail(call, i, self._escaping(i), self.places, nodes)
        launches = kernel.launch(CallContext(tail, inputs, self.weights, self.choose))
        if any(prod(x.shape) for x in kernel.outputs):
            for made in launches:
                self.drafts.launch(made, nodes, kernel.name, kernel.errors)
        tail.finish()

    def _change(self, kernel: Kernel, i: int) -> None:
        """Let a kernel of unit i that changes an input do so where that lies, if nobody reads it later."""
        if kernel.changes is not None:
            changed = kernel.inputs[kernel.changes]
            others = [self.places.view(x) for x in kernel.inputs if x is not None and x is not changed]
            if sum(x is changed for x in kernel.inputs) == 1:
                self.places.reuse(kernel.outputs[0], [changed], [self.places.view(changed)], i, set(), others)

    # -- joins
    def _join(self, join: Join) -> None:
        whole = self.places.place(join.output)
        shape = join.output.shape
        if join.fill is not None:
            single = len(join.inputs) == 1
            boxes = _complement(shape, join.starts[0], join.inputs[0].shape) if single else [((0,) * len(shape), shape)]
            for start, sizes in boxes:
                self.drafts.fill(join.fill, join.output.dtype, _box(whole, start, sizes), sizes, join.nodes)
        for x, start in zip(join.inputs, join.starts):
            source, target = self.places.view(x), _box(whole, start, x.shape)
            if source != target:
                self.drafts.copy(x.dtype, source, target, x.shape, join.nodes)

    # -- host steps
    def _host(self, host: Host) -> None:
        inputs = tuple(self.places.host_input(x, host.nodes) for x in host.inputs)
        outputs = tuple(self.places.host_output(x) for x in host.outputs)
        step = HostStep(host.call, inputs, outputs, host.nodes, host.reason, host.cuts, host.keeps, host.nest, host.body)
        self.drafts.host(step)

    # -- the end
    def _finish(self) -> Plan:
        outputs = [self.places.output(i, x) for i, x in enumerate(self.trace.outputs)]
        for out in outputs:
            self.drafts.touch(out)
        is_open = bool(self.symbols.parts)
        steps, arena, final = self.drafts.finish(is_open)
        inputs = tuple(
            PlanTensor(x.name, x.dtype, x.shape, Ref(final.buffer(self.places.known[id(x)].memory)))
            if isinstance(x, Tensor)
            else final.buffer(self.places.opaque[id(x)])
            for x in self.trace.inputs
        )
        plan = Plan(
            inputs, tuple(final.value(out) for out in outputs), steps, tuple(self.places.constants),
            self.places.host_slots, arena, self.drafts.scratch,
        )  # fmt: skip
        return opened(plan, self.symbols, self.drafts.memories) if is_open else plan


def _readers(trace: Trace, units: Sequence[Unit]) -> dict[int, set[int]]:
    """id(value) -> the units that read it; -1 for outputs and for views, which are read from memory."""
    readers: dict[int, set[int]] = {}
    for i, unit in enumerate(units):
        for p in unit.members:
            for x in p.inputs:
                if x is not None:
                    y = base(x)
                    readers.setdefault(id(y), set()).add(i if y is x else -1)
    for x in trace.outputs:
        readers.setdefault(id(base(x)), set()).add(-1)
    return readers


def _nodes(unit: Unit) -> Nodes:
    return tuple(dict.fromkeys(name for p in unit.members for name in p.nodes if name))


def _foldable(space: Sequence[int], axes: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The order of dimensions that the strides have; the folded ones last if others lie between them."""
    order = sorted(range(len(space)), key=lambda d: -abs(strides[d]))
    folded = [i for i, d in enumerate(d for d in order if space[d] != 1) if d in axes]
    if folded and folded[-1] - folded[0] >= len(folded):
        order.sort(key=lambda d: d in axes)
    return order


def _spread(layout: Layout, space: tuple[int, ...]) -> Layout:
    """An output's layout over the space: where it has size 1 (a reduction's result) it does not move."""
    strides = tuple(0 if n == 1 else s for n, s in zip(layout.shape, layout.strides))
    return Layout(space, strides, layout.offset)


def _box(whole: Place, start: tuple[int, ...], sizes: tuple[int, ...]) -> Place:
    return Place(whole.memory, Slice(start, (1,) * len(sizes), sizes).layout(whole.layout))


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
