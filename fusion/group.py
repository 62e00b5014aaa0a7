"""Grouping: the primitives of a trace -> units, each of which becomes one kernel, one host step or one placement.

1. A contraction takes the elementwise work that follows it on values of its output's shape, if everything else that
   the work reads exists before the contraction (the last contraction before a residual addition takes it).
2. A map joins the loop that makes one of its inputs if both run over the same index space; loops that a map
   connects become one. A reduction joins likewise, and then its axes are the loop's row; what reads a reduction's
   result over the whole space joins too, so that softmax or layer norm with its surroundings is one loop.
3. No union may close a cycle through a unit outside it.
4. A reduction with too few rows to share among threads keeps its big loop to itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from ..ops.kernels.sizes import alike, now
from ..ops.primitives import Host, Join, Kernel, Map, Move, Opaque, Primitive, Reduce, Shape, Tail, Tensor, Trace

MAX_MEMBERS = 48  # bounds compile time and register pressure of one loop
FEW_ROWS, BIG_ROW_SPACE = 8, 1 << 15


@dataclass(eq=False)
class Loop:
    """Maps and reductions over one index space. `axes`: the dimensions that reductions fold (empty: none)."""

    space: Shape
    axes: tuple[int, ...] = ()
    members: list[Map | Reduce] = field(default_factory=list)

    @property
    def row_shape(self) -> Shape:
        """The shape of a reduction's result."""
        return tuple(1 if d in self.axes else n for d, n in enumerate(self.space))

    @property
    def serial(self) -> bool:
        """Whether the reductions leave too few rows for a big space (rule 4); of two reasons against, one is enough to guard."""
        rows = prod(self.row_shape)
        if not self.axes or (now(rows) >= FEW_ROWS and rows >= FEW_ROWS):
            return False
        return prod(self.space) > BIG_ROW_SPACE and rows < FEW_ROWS


@dataclass(eq=False)
class Call:
    """A kernel with the maps that its epilogue takes over."""

    kernel: Kernel
    tail: list[Map] = field(default_factory=list)

    @property
    def members(self) -> list[Primitive]:
        """Kernel and tail."""
        return [self.kernel, *self.tail]


@dataclass(eq=False)
class Single:
    """A host step or a join."""

    primitive: Host | Join

    @property
    def members(self) -> list[Primitive]:
        """The one primitive."""
        return [self.primitive]


Unit = Loop | Call | Single


def group(trace: Trace) -> list[Unit]:
    """The units of a trace, in an order that can be run."""
    return _Grouping(trace).run()


def base(x: Tensor | Opaque) -> Tensor | Opaque:
    """The stored value that a chain of views looks at."""
    while isinstance(x.source, Move):
        x = x.source.input
    return x


def unit_inputs(unit: Unit) -> list[Tensor | Opaque]:
    """What a unit reads from outside, views as they are, each once."""
    inside = {id(out) for p in unit.members for out in p.outputs}
    found = {id(x): x for p in unit.members for x in p.inputs if x is not None and id(x) not in inside}
    return list(found.values())


def matrix_fits(kernel: Kernel, p: Map) -> bool:
    """Whether each input of a map is whole or constant along each of the contraction's batch, row and column groups."""
    shape = kernel.outputs[0].shape
    for x in p.inputs:
        lead = (1,) * (len(shape) - x.rank) + x.shape
        for dims in kernel.matrix:
            sizes = [(lead[d], shape[d]) for d in dims if shape[d] != 1]
            if any(n == m for n, m in sizes) and any(n != m for n, m in sizes):
                return False
    return True


class _Grouping:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.units: list[Unit | None] = []
        self.unit_of: dict[int, int] = {}  # id(primitive) -> unit
        self.before: list[int] = []  # bit set of the units that a unit depends on, transitively
        self.absorbed: dict[int, Kernel] = {}

    def run(self) -> list[Unit]:
        self._absorb_tails()
        for p in self._bundled():
            if isinstance(p, Kernel):
                tail = self.tails.get(id(p), [])
                self._new_unit(Call(p, tail), [p, *tail])
            elif isinstance(p, Map | Reduce):
                self._place_in_loop(p)
            else:
                self._new_unit(Single(p), [p])
        return self._ordered()

    # -- rule 1
    def _absorb_tails(self) -> None:
        """Assign maps to contractions, last contraction first."""
        primitives = self.trace.primitives
        self.index = {id(p): i for i, p in enumerate(primitives)}
        self.ancestors: list[int] = []
        for p in primitives:
            self.ancestors.append(self._ancestry(p.inputs))
        self.tails: dict[int, list[Map]] = {}
        self.maps_of: dict[int, list[int]] = {}  # id(value) -> the maps that read it, by index
        for i, p in enumerate(primitives):
            if isinstance(p, Map):
                for x in p.inputs:
                    self.maps_of.setdefault(id(x), []).append(i)
        for kernel in reversed(primitives):
            if isinstance(kernel, Kernel) and kernel.tail is Tail.EPILOGUE:
                self.tails[id(kernel)] = self._tail(kernel)

    def _ancestry(self, values: Iterable[Tensor | Opaque | None]) -> int:
        mask = 0
        for x in values:
            if x is not None and x.source is not None:
                i = self.index[id(x.source)]
                mask |= self.ancestors[i] | (1 << i)
        return mask

    def _tail(self, kernel: Kernel) -> list[Map]:
        shape, inside, tail = kernel.outputs[0].shape, {id(kernel.outputs[0])}, []
        at = self.index[id(kernel)]
        # the maps that read what is inside, in the trace's order
        ahead = list(self.maps_of.get(id(kernel.outputs[0]), ()))
        seen = -1
        while ahead and len(tail) < MAX_MEMBERS:
            i = heapq.heappop(ahead)
            p = self.trace.primitives[i]
            if i == seen or not alike(p.output.shape, shape) or id(p) in self.absorbed:
                continue
            seen = i
            others = self._ancestry(x for x in p.inputs if id(x) not in inside)
            if not (others >> at) & 1 and matrix_fits(kernel, p):
                inside.add(id(p.output))
                self.absorbed[id(p)] = kernel
                tail.append(p)
                self._inherit(at, others)
                for j in self.maps_of.get(id(p.output), ()):
                    heapq.heappush(ahead, j)
        return tail

    def _inherit(self, at: int, more: int) -> None:
        """What a tail reads comes before the kernel, so before everything that depends on the kernel."""
        if more & ~self.ancestors[at]:
            for j in range(len(self.ancestors)):
                if j == at or (self.ancestors[j] >> at) & 1:
                    self.ancestors[j] |= more

    def _bundled(self) -> list[Primitive]:
        """Primitives but views and absorbed maps, each after what it and its tail read."""
        done: set[int] = set()
        result: list[Primitive] = []
        for start in self.trace.primitives:
            stack: list[tuple[Primitive, bool]] = [(start, False)]
            while stack:
                p, ready = stack.pop()
                p = self.absorbed.get(id(p), p)
                if id(p) in done:
                    continue
                if ready:
                    done.add(id(p))
                    if not isinstance(p, Move):
                        result.append(p)
                    continue
                stack.append((p, True))
                bundle = [p, *self.tails.get(id(p), ())]
                needs = [x.source for q in bundle for x in q.inputs if x is not None and x.source is not None]
                done.update(map(id, bundle[1:]))  # what is inside is not needed from outside
                stack.extend([(q, False) for q in reversed(needs) if id(q) not in done and q is not p])
        return result

    # -- rules 2 to 4
    def _place_in_loop(self, p: Map | Reduce) -> None:
        for g in self._candidates(p):
            unit = self.units[g]
            assert isinstance(unit, Loop)
            if not self._fits(p, unit) or not self._acyclic(p, g):
                continue
            self._join(p, g)
            self._merge_others(p, g)
            return
        if isinstance(p, Reduce):
            self._new_unit(Loop(p.input.shape, p.axes, [p]), [p])
        else:
            self._new_unit(Loop(p.output.shape, (), [p]), [p])

    def _candidates(self, p: Map | Reduce) -> list[int]:
        found = {}
        for x in p.inputs:
            if isinstance(x.source, Map | Reduce) and id(x.source) in self.unit_of:
                g = self.unit_of[id(x.source)]
                if isinstance(self.units[g], Loop):
                    found[g] = None
        return sorted(found, reverse=True)

    def _fits(self, p: Map | Reduce, loop: Loop) -> bool:
        if len(loop.members) >= MAX_MEMBERS:
            return False
        if isinstance(p, Reduce):
            trial = Loop(loop.space, p.axes)
            return alike(p.input.shape, loop.space) and loop.axes in ((), p.axes) and not trial.serial
        if alike(p.output.shape, loop.space) and not loop.serial:
            return True
        return bool(loop.axes) and alike(p.output.shape, loop.row_shape)

    def _dependencies(self, values: Iterable[Tensor | Opaque | None]) -> set[int]:
        found = set()
        for x in values:
            if x is not None and (source := base(x).source) is not None:
                found.add(self.unit_of[id(source)])
        return found

    def _acyclic(self, p: Map | Reduce, g: int) -> bool:
        """Nothing that p reads from outside g may depend on g; a view of a value of g is from outside."""
        return not any(self._waits_for(x, g, (g,)) for x in p.inputs)

    def _waits_for(self, x: Tensor | Opaque, g: int, inside: tuple[int, ...]) -> bool:
        """Whether x can be read only after g has ended: by one of the units `inside`, g among them, that is a cycle."""
        source = base(x).source
        if source is None:
            return False
        h = self.unit_of[id(source)]
        if h == g:
            return x.source is not source
        return h not in inside and bool((self.before[h] >> g) & 1)

    def _join(self, p: Map | Reduce, g: int) -> None:
        unit = self.units[g]
        unit.members.append(p)
        if isinstance(p, Reduce):
            unit.axes = p.axes
        self.unit_of[id(p)] = g
        self._depend(g, self._dependencies(p.inputs) - {g})

    def _depend(self, g: int, others: set[int]) -> None:
        mask = 0
        for h in others:
            mask |= self.before[h] | (1 << h)
        if mask | self.before[g] == self.before[g]:
            return
        self.before[g] |= mask
        for h in range(len(self.before)):
            if (self.before[h] >> g) & 1:
                self.before[h] |= mask

    def _merge_others(self, p: Map | Reduce, g: int) -> None:
        for h in self._candidates(p):
            if h != g and self._can_merge(g, h):
                self._merge(g, h)

    def _can_merge(self, g: int, h: int) -> bool:
        a, b = self.units[g], self.units[h]
        if not alike(a.space, b.space) or len(a.members) + len(b.members) > MAX_MEMBERS:
            return False
        if a.axes and b.axes and a.axes != b.axes:
            return False
        if Loop(a.space, a.axes or b.axes).serial:
            return False
        # a path between them through a third unit, or a view of one inside the other, would become a cycle
        pairs = ((g, h), (h, g))
        return not any(self._waits_for(x, two, (g, h)) for one, two in pairs for x in unit_inputs(self.units[one]))

    def _merge(self, g: int, h: int) -> None:
        a, b = self.units[g], self.units[h]
        order = {id(p): i for i, p in enumerate(self.trace.primitives)}
        a.members = sorted(a.members + b.members, key=lambda p: order[id(p)])
        a.axes = a.axes or b.axes
        for p in b.members:
            self.unit_of[id(p)] = g
        self.units[h] = None
        own = ~((1 << g) | (1 << h))
        mask = (self.before[g] | self.before[h]) & own
        for k in range(len(self.before)):
            if (self.before[k] >> h) & 1 or (self.before[k] >> g) & 1:
                self.before[k] |= mask | (1 << g)
        self.before[g] = mask

    def _new_unit(self, unit: Unit, members: list[Primitive]) -> None:
        g = len(self.units)
        inside = {id(p) for p in members}
        for p in members:
            self.unit_of[id(p)] = g
        self.units.append(unit)
        self.before.append(0)
        outside = [x for p in members for x in p.inputs if x is not None and id(base(x).source) not in inside]
        self._depend(g, self._dependencies(outside))

    # -- the order to run in
    def _ordered(self) -> list[Unit]:
        """Depth first from the first unit on: what is needed comes right before its reader."""
        done: set[int] = set()
        result: list[Unit] = []
        for g, unit in enumerate(self.units):
            if unit is None or g in done:
                continue
            stack = [(g, False)]
            while stack:
                h, ready = stack.pop()
                if h in done:
                    continue
                if ready:
                    done.add(h)
                    result.append(self.units[h])
                    continue
                stack.append((h, True))
                needs = self._dependencies(unit_inputs(self.units[h])) - {h}
                stack.extend((k, False) for k in sorted(needs, reverse=True) if k not in done)
        return result
