"""A trace run with numpy, primitive by primitive: the meaning that compiled plans are checked against.

`Interpreter` runs a graph as the engine does (values that decide shapes, parts that wait for values, bodies of control
flow), but compiles nothing and plans nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..ops import evaluate
from ..ops.iteration import Iteration, Kind, Roles
from ..ops.primitives import Host, Join, Kernel, Map, Move, Opaque, Primitive, Reduce, Tensor, Trace
from .graph import Graph
from .trace import Specialise, trace


class NoReference(TypeError):
    """A kernel states no meaning in numpy."""


def interpret(trace_: Trace, feeds: Sequence[object]) -> list[object]:
    """The outputs of a trace for one value per input.

    Raises:
        TypeError: a primitive gave another dtype or shape than its output states.
        NoReference: a kernel states no meaning in numpy.
    """
    values: dict[int, object] = {id(x): value for x, value in zip(trace_.inputs, feeds)}

    def value(x: Tensor | Opaque | None) -> object:
        if x is None:
            return None
        return x.constant if isinstance(x, Tensor) and x.constant is not None else values[id(x)]

    for primitive in trace_.primitives:
        results = _run(primitive, [value(x) for x in primitive.inputs])
        for out, result in zip(primitive.outputs, results):
            values[id(out)] = _checked(primitive, out, result)
    return [value(x) for x in trace_.outputs]


def _run(p: Primitive, inputs: list[object]) -> Sequence[object]:
    if isinstance(p, Map):
        return (evaluate.map_(p.text, inputs, p.output.dtype, p.output.shape),)
    if isinstance(p, Reduce):
        return (evaluate.reduce(p.fold, inputs[0], p.axes),)
    if isinstance(p, Move):
        return (evaluate.move(p.how, inputs[0]),)
    if isinstance(p, Join):
        return (evaluate.join(inputs, p.starts, p.output.dtype, p.output.shape, p.fill),)
    if isinstance(p, Host):
        return p.call(inputs)
    assert isinstance(p, Kernel)
    if p.reference is None:
        raise NoReference(f"kernel {p.name} has no reference")
    return p.reference(inputs)


def _checked(p: Primitive, out: Tensor | Opaque, result: object) -> object:
    if isinstance(out, Opaque):
        return result
    array = np.asarray(result)
    if array.dtype != out.dtype or array.shape != out.shape:
        what = f"{type(p).__name__} {getattr(p, 'text', getattr(p, 'name', getattr(p, 'reason', '')))!r} of {p.nodes}"
        raise TypeError(f"{what} gave {array.dtype}{list(array.shape)} where {out!r} is stated")
    return array


class Interpreter:
    """A graph, run on numpy alone."""

    is_repeated = False  # nothing is native

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(self, feeds: Mapping[str, object], outputs: Sequence[str] | None = None) -> list[object]:
        """The named values (default: the graph's outputs)."""
        wanted = list(self.graph.outputs if outputs is None else outputs)
        read: frozenset[str] = frozenset()
        while True:
            try:
                traced = trace(self.graph, feeds, wanted, read, Interpreter)
                break
            except Specialise as need:
                read |= {*need.readers}
        rest = traced.rest
        late = set(rest.outputs) if rest else set()
        now = [name for name in wanted if name not in late]
        now += [name for name in rest.inputs if name not in now] if rest else []
        names = [*self.graph.inputs, *(n for n in self.graph.overridable if n in feeds)]
        values = dict(zip(now, interpret(traced.trace, [feeds[name] for name in names])))
        if rest is not None:
            known = {name: values[name] for name in rest.inputs}
            values.update(zip(rest.outputs, Interpreter(rest).run(known, rest.outputs)))
        return [values[name] for name in wanted]

    def kinds(self, inputs: Mapping[str, Kind]) -> list[Kind | None]:
        """Nothing is known before a run."""
        return [None] * len(self.graph.outputs)

    def turn(self, roles: Roles, inputs: Mapping[str, Kind]) -> None:
        """Nothing is native."""

    def advance(self, iteration: Iteration) -> None:
        """One iteration of the graph as a body."""
        iteration.take(self.run(iteration.feeds()))
