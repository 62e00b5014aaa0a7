"""A program: a graph with the plans that its input signatures have led to.

1. A signature is dtype and shape of every input, the contents of those that tracing had to read, and the outputs that
   are asked for. A known one replays its plan.
2. A new one is traced; if tracing needs the contents of inputs, they become part of the signature for good.
3. A signature that differs from a known one only in sizes, or in whole numbers that tracing read, gets a plan in which those
   are open, which then serves every other one that meets its guards (`families`): without tracing, planning or compiling.
4. What had to wait for values (`Traced.rest`) is a program of its own, with its own plans.
5. Plans are bounded in number; the least recently used goes first. All share the session's packed weights.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from . import collector
from .drift import Drift
from .executor import Executor
from .families import Family, OpenSizes, Shapes, is_counted, shapes_of
from .fusion.bindings import Binder, Binding
from .fusion.graph import Graph
from .fusion.guards import Guards, Reader, guards
from .fusion.plan import Buffer, HostStep, Numbers, Plan, Step, Tensor
from .fusion.planner import make_plan
from .fusion.trace import Opened, Specialise, Traced, trace
from .fusion.weights import Weights
from .growth import Growth
from .log import log
from .measure import Measured
from .memory import Arenas, Slabs
from .nest import with_native_loops
from .ops.builder import OperatorError
from .ops.convchoice import Choose, expected
from .ops.iteration import Iteration, Kind, Roles
from .ops.kernels.sizes import is_open
from .ops.kernels.spec import KernelSpec
from .ops.kernels.symbols import Fixed, Symbols
from .pool import Pool, pool
from .progress import ProgressLine
from .repeat import REPEAT
from .store import Store, store
from .turn import Turn, turn_of

MAX_PLANS = 64


@dataclass
class Entry:
    """One signature's plan, ready to run.

    Attributes:
        inputs: names of the plan's inputs; outputs: for each value that the run yields its place in the plan's.
        rest: the program of what needed values first.
        binding: the plan's sizes for this signature.
        fresh: every value is a new array of its own: none lies on memory of the inputs, of a host step or of another value.
        is_of_contents: the plan depends on what some inputs hold.
        in_place: values that are written to the array of an input, and that input, as the program was asked to if possible.
        sizes: what the plan leaves open.
    """

    plan: Plan
    executor: Executor
    binding: Binding
    inputs: list[str]
    outputs: dict[str, int]
    rest: Program | None
    fresh: bool
    is_of_contents: bool
    in_place: Mapping[str, str]
    sizes: OpenSizes | None = None
    growing: dict[tuple[Roles, bool], Turn | None] = field(default_factory=dict, repr=False)  # the same for all of the plan's sizes
    _turns: dict[tuple[Roles, bool], Turn | None] = field(default_factory=dict, init=False, repr=False)

    def turn(self, roles: Roles, counted: bool) -> Turn | None:
        """How the plan of a body is repeated in native code, if it can be; `counted`: tracing has read the iteration's number."""
        key = roles, counted
        if key not in self._turns:
            self._turns[key] = self._turn(roles, counted) or self._growing(roles, counted)
        return self._turns[key]

    def _turn(self, roles: Roles, counted: bool) -> Turn | None:
        """That of states which keep their sizes."""
        drift = Drift.of(self.executor, self.binding, self.sizes, roles.counter) if counted else None
        known = self.rest is None and (drift is not None or not counted)
        return turn_of(self.executor, self.binding, self.inputs, self.outputs, roles, drift) if known else None

    def _growing(self, roles: Roles, counted: bool) -> Turn | None:
        """That of states which grow."""
        key = roles, counted
        if key not in self.growing:
            executor, names = self.executor, (self.inputs, self.outputs)
            growth = Growth.of(executor, self.sizes, *names, roles, counted) if self.rest is None else None
            self.growing[key] = turn_of(executor, self.binding, *names, roles, growth=growth) if growth is not None else None
        return self.growing[key]


class Shared:
    """What all programs of a session have in common."""

    def __init__(self, threads: int, choose: Choose = expected, weights_mode: str = "exact") -> None:
        self.threads, self.choose = threads, choose
        self.weights = Weights(allocate=Slabs().allocate, mode=weights_mode)
        self.arenas = Arenas()
        self.pool: Pool = pool(threads)
        self.store: Store = store()

    def announce(self, kernels: list[KernelSpec]) -> None:
        """These kernels will be needed; while algorithms are measured, nothing else is to compile."""
        if not isinstance(self.choose, Measured):
            self.store.announce(kernels)


class Program:
    """A graph and its plans.

    Attributes:
        in_place: outputs that runs would like to be in the array of an input, by name.
        growing: how plans of it as a body are repeated whose states grow.
        is_repeated: whether native code has repeated it as a body when it was last run as one.
    """

    def __init__(self, graph: Graph, shared: Shared, in_place: Mapping[str, str] | None = None) -> None:
        self.graph, self.shared, self.in_place = graph, shared, in_place or {}
        self.read: dict[str, Reader] = {}
        self.entries: OrderedDict[object, Entry] = OrderedDict()
        self.families: OrderedDict[object, Family] = OrderedDict()
        self.growing: list[Turn] = []
        self.is_repeated = False
        self.lock = threading.Lock()

    def run(self, feeds: Mapping[str, object], outputs: list[str]) -> list[object]:
        """Run for these inputs and return the named values.

        Raises:
            OperatorError: a node's inputs do not fit its definition.
            KernelFault: a kernel met data that its operator does not allow.
            HostFault: a host step failed.
        """
        return self.run_entry(self.entry(feeds, outputs), feeds, outputs)

    def run_entry(self, entry: Entry, feeds: Mapping[str, object], outputs: list[str]) -> list[object]:
        """`run` with the plan of these inputs."""
        results = entry.executor.run([feeds[name] for name in entry.inputs], entry.binding)
        where = entry.outputs
        if entry.rest is None:
            return [results[where[name]] for name in outputs]
        values = {name: results[i] for name, i in where.items()}
        late = [name for name in outputs if name not in values]
        known = {name: values[name] for name in entry.rest.graph.inputs}
        values.update(zip(late, entry.rest.run(known, late)))
        return [values[name] for name in outputs]

    def advance(self, iteration: Iteration) -> None:
        """The iterations of the graph as a body that are left, if its plan allows it; else one of them."""
        feeds = iteration.feeds()
        entry = self.entry(feeds, self.graph.outputs)
        roles = iteration.roles
        asked = roles.changing.intersection(self.read)
        turn = entry.turn(roles, bool(asked)) if asked <= {roles.counter} else None
        if turn is not None and turn.growth is not None and turn not in self.growing:
            self._serve_earlier(entry, turn)
        self.is_repeated = turn is not None and turn.run(iteration, feeds, entry.binding)
        if not self.is_repeated:
            if turn is not None or not iteration.owns:
                iteration.own()
                feeds = iteration.feeds()
            iteration.take(self.run_entry(entry, feeds, self.graph.outputs))

    def kinds(self, inputs: Mapping[str, Kind]) -> list[Kind | None]:
        """What the outputs are for such inputs, in the order of feeds, if the plan for these says so; it is made if need be."""
        outputs = self.graph.outputs
        entry = self._entry_for(inputs)
        if entry is None:
            return [None] * len(outputs)
        made = [entry.plan.outputs[entry.outputs[name]] if name in entry.outputs else None for name in outputs]
        return [(x.dtype, x.shape) if isinstance(x, Tensor | Numbers) else None for x in made]

    def turn(self, roles: Roles, inputs: Mapping[str, Kind]) -> Turn | None:
        """How the graph as a body is repeated in native code for such inputs, in the order of feeds, if it can be."""
        entry = self._entry_for(inputs)
        return None if entry is None else entry.turn(roles, False)

    def _entry_for(self, inputs: Mapping[str, Kind]) -> Entry | None:
        """The plan of all inputs of these kinds; None: there is none, or contents decide it too."""
        feeds = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, (dtype, shape) in inputs.items()}
        try:
            entry = self.entry(feeds, self.graph.outputs)
        except Exception:  # when it runs, it says in which iteration
            return None
        return None if self.read or entry.sizes is not None else entry

    def _serve_earlier(self, entry: Entry, turn: Turn) -> None:
        """Let a plan whose states grow serve the sizes too that had plans of their own before there was one with open sizes."""
        with self.lock:
            self.growing.append(turn)
            for key, one in self.entries.items():
                if one.sizes is None and not self.read and all(isinstance(x, Tensor) for x in one.plan.inputs):
                    values = entry.sizes.values({name: x.shape for name, x in zip(one.inputs, one.plan.inputs)})
                    binding = None if values is None else entry.executor.binder.bind(values)
                    self.entries[key] = one if binding is None else replace(entry, binding=binding)

    def entry(self, feeds: Mapping[str, object], outputs: list[str]) -> Entry:
        """The plan of these inputs; made now if the signature is new."""
        read = self.read
        key = self.signature(feeds, outputs)
        found = self.entries.get(key)
        if found is None:
            with self.lock, collector.paused():
                found = self.entries.get(key) or self._known(feeds, outputs) or self._make(feeds, outputs)
                self.entries[key if read is self.read else self.signature(feeds, outputs)] = found
                while len(self.entries) > MAX_PLANS:
                    self.entries.popitem(last=False)
        elif len(self.entries) > 1:
            with self.lock:
                if key in self.entries:
                    self.entries.move_to_end(key)
        return found

    def signature(self, feeds: Mapping[str, object], outputs: list[str], ranks: bool = False) -> object:
        """What decides the plan (rule 1); with `ranks` instead of shapes, what a family has in common."""
        parts: list[object] = [tuple(outputs)]
        for name, value in feeds.items():
            if isinstance(value, np.ndarray):
                content = value.tobytes() if name in self.read and value.dtype != object else None
                if ranks and content is not None and is_counted(value):
                    parts.append((name, value.dtype, value.shape, True))
                else:
                    parts.append((name, value.dtype, value.ndim if ranks else value.shape, content))
            else:
                parts.append((name, type(value)))
        return tuple(parts)

    # -- open sizes (rule 3)
    def _known(self, feeds: Mapping[str, object], outputs: list[str]) -> Entry | None:
        """The entry of a new signature of a known family; None: it needs a plan of its own."""
        family = self.families.get(self.signature(feeds, outputs, ranks=True))
        if family is None:
            return None
        shapes = shapes_of(feeds, self.read)
        for sizes, entry in family.plans:
            values = sizes.values(shapes)
            binding = None if values is None else entry.executor.binder.bind(values)
            if binding is not None:
                return replace(entry, binding=binding)
        family.see(shapes)
        return self._open(family, shapes, feeds, outputs)

    def _open(self, family: Family, shapes: Shapes, feeds: Mapping[str, object], outputs: list[str]) -> Entry | None:
        """An entry with all sizes open that may be; None: there are none."""
        while (sizes := family.open_sizes(self.graph, shapes)) is not None:
            made = self._with_open(sizes, family, feeds, outputs)
            if not isinstance(made, Fixed):
                return made
            family.close(sizes, made)
        return None

    def _with_open(
        self, sizes: OpenSizes, family: Family, feeds: Mapping[str, object], outputs: list[str]
    ) -> Entry | Fixed | None:  # fmt: skip
        """An entry with these sizes open; None: they cannot be, or what says that one of them cannot."""
        try:
            entry = self._make(feeds, outputs, sizes)
        except Fixed as problem:
            log("plan", lambda problem=problem: str(problem))
            return problem
        except OperatorError:  # the inputs are to blame, which the plan for these sizes alone says in numbers
            return None
        except Exception:  # what cannot be done with open sizes is done without
            log("plan", lambda: f"sizes stay closed: {traceback.format_exc()}")
            family.can_open = False
            return None
        family.plans.insert(0, (sizes, entry))
        return entry

    def _make(self, feeds: Mapping[str, object], outputs: list[str], sizes: OpenSizes | None = None) -> Entry:
        """An entry with these sizes open; without any, one of a new family.

        Raises:
            Fixed: a size cannot be open.
        """
        started = time.perf_counter()
        symbols = None if sizes is None else Symbols()
        opened = None if sizes is None else sizes.opened(symbols)
        plan, traced, where = self._plan(feeds, outputs, opened)
        shapes, opening = shapes_of(feeds, self.read), [] if sizes is None else sizes.guards(symbols)
        family = self.families.setdefault(self.signature(feeds, outputs, ranks=True), Family(shapes))
        plan = with_native_loops(replace(plan, guards=Guards((*plan.guards, *opening, *family.closed_sizes(shapes)))))
        binder = Binder(plan)
        binding = binder.bind(() if sizes is None else sizes.values(sizes.shapes))
        log("plan", lambda: str(binding.concrete()))
        kernels = [s.kernel for s in plan.steps if isinstance(s, Step)]
        log("source", lambda: "\n".join(dict.fromkeys(k.source for k in kernels)))
        for step in plan.steps:
            if isinstance(step, HostStep) and not step.is_native:
                log("plan", lambda step=step: f"host step: {', '.join(step.nodes)}: {step.reason}")
        executor = Executor(plan, self.shared.store, self.shared.pool, ProgressLine(), binder, self.shared.arenas)
        self.shared.weights.complete(self.shared.threads)  # only now, as the memory that compiling took is free again
        log("compile", lambda: f"{self.graph.name or 'graph'}: planned in {time.perf_counter() - started:.3f} s")
        rest = Program(traced.rest, self.shared) if traced.rest is not None else None
        inputs = self._taken(feeds)
        shared = any(isinstance(out, Buffer) for out in plan.outputs) or len(set(where.values())) < len(outputs)
        fresh = rest is None and not shared
        while len(self.families) > MAX_PLANS:
            self.families.popitem(last=False)
        in_place = {
            name: source for name, source in self.in_place.items() if name in where and _lies_in(plan, where[name], inputs, source)
        }
        return Entry(plan, executor, binding, inputs, where, rest, fresh, bool(self.read), in_place, sizes)

    def _plan(self, feeds: Mapping[str, object], outputs: list[str], opened: Opened | None) -> tuple[Plan, Traced, dict[str, int]]:
        """The plan, the trace that it is of, and which of the plan's outputs each output and later input is."""
        bodies: dict[object, Program] = {}  # of control flow, which are the same when it is traced again
        while True:
            try:
                traced = trace(self.graph, feeds, outputs, self.read, lambda body: self._runner(body, bodies), opened)
                break
            except Specialise as need:
                self.read = self.read | need.readers
        late = set(traced.rest.outputs) if traced.rest else set()
        names = [name for name in outputs if name not in late]
        names += [n for n in traced.rest.inputs if n not in names] if traced.rest else []
        unique: dict[int, int] = {}
        where = {}
        for name, value in zip(names, traced.trace.outputs):
            where[name] = unique.setdefault(id(value), len(unique))
        distinct = {id(v): v for v in traced.trace.outputs}
        traced.trace.outputs = list(distinct.values())
        shared = self.shared
        symbols = opened.symbols if opened is not None else None
        taken = self._taken(feeds)
        pairs = {where[out]: taken.index(name) for out, name in self.in_place.items() if out in where}
        plan = make_plan(traced.trace, shared.threads, shared.weights, shared.announce, shared.choose, symbols, pairs)
        return replace(plan, guards=guards(self.read, feeds if opened is None else _fixed_contents(feeds, opened))), traced, where

    def _taken(self, feeds: Mapping[str, object]) -> list[str]:
        """The inputs of a plan."""
        return [*self.graph.inputs, *(n for n in self.graph.overridable if n in feeds)]

    def _runner(self, body: Graph, bodies: dict[object, Program]) -> Program:
        self.shared.announce([REPEAT])
        key = (*map(id, body.nodes), *body.inputs, *body.outputs, *((name, id(x)) for name, x in body.constants.items()))
        return bodies.setdefault(key, Program(body, self.shared))


def _lies_in(plan: Plan, output: int, inputs: Sequence[str], source: str) -> bool:
    """Whether a plan's output is in the array of an input."""
    made = plan.outputs[output]
    return isinstance(made, Tensor) and made.in_place and inputs[made.ref.buffer.index] == source


def _fixed_contents(feeds: Mapping[str, object], opened: Opened) -> dict[str, object]:
    """Inputs with names in place of elements that are open, without those all of whose elements are."""
    shown = dict(feeds)
    for name, content in opened.contents.items():
        if is_open(content):
            shown[name] = np.empty(len(content), object)
            shown[name][:] = content
        if all(map(is_open, content)):
            del shown[name]
    return shown
