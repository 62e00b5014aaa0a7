"""Trace: a graph and the shapes (and some values) of its inputs -> primitives of concrete shapes.

1. Every node is lowered by its registry row; a node without one by the function body that ONNX publishes, else it
   runs on the host.
2. What depends on constants and shapes alone is folded by the builder while it is lowered.
3. A node that needs a value to go on: if the value follows from small integer inputs, `Specialise` names them and the
   node (`Reader`), and the caller traces again with their contents; otherwise the node, and all that depend on it, are
   left for `rest`, a graph of their own that is traced when the values exist.
4. An `If` on a constant is replaced by the branch that is taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..ops import evaluate, fallback, openvalues, registry
from ..ops.builder import Builder, Declined, NeedsValue, OperatorError
from ..ops.iteration import Body
from ..ops.kernels.sizes import is_open
from ..ops.kernels.symbols import Symbols
from ..ops.primitives import Opaque, Shape, Tensor, Trace
from ..ops.weights import Weight
from .graph import Graph, Node
from .guards import Reader

Value = Tensor | Opaque
# an integer input up to this many elements may be read while tracing; larger ones are data
SMALL = 256
GraphRunner = Callable[[Graph], Body]


class Specialise(Exception):
    """Tracing needs the contents of these inputs, for what `readers` says."""

    def __init__(self, readers: dict[str, Reader]) -> None:
        super().__init__(f"tracing reads the values of {', '.join(sorted(readers))}")
        self.readers = readers


class _Asked(NeedsValue):
    """`NeedsValue` with a node that is being lowered, and the operator's word for the input that the value comes from."""

    def __init__(self, tensor: Value, node: Node, word: str) -> None:
        super().__init__(tensor)
        self.node, self.word = node, word


@dataclass(frozen=True)
class Opened:
    """Inputs' shapes with open sizes in them; `contents`: the elements of those that are read."""

    symbols: Symbols
    shapes: Mapping[str, Shape]
    contents: Mapping[str, tuple[int, ...]]


@dataclass
class Traced:
    """A trace with the names of its values.

    Attributes:
        values: ONNX name -> traced value, for everything that was lowered.
        rest: nodes that need values of this trace first, or None.
    """

    trace: Trace
    values: dict[str, Value]
    rest: Graph | None = None


def trace(
    graph: Graph,
    inputs: Mapping[str, object],
    outputs: list[str],
    read: Collection[str] = (),
    runner: GraphRunner | None = None,
    opened: Opened | None = None,
) -> Traced:
    """Lower `graph` for these inputs.

    Args:
        inputs: one array (only its dtype and shape count), or any object for sequences and optionals, per input.
        outputs: the values that are wanted.
        read: the inputs whose contents tracing may use.
        runner: how a host step runs a body (control flow).
        opened: the sizes that are to stay open.

    Raises:
        Specialise: trace again with more inputs in `read`.
        OperatorError: a node's inputs do not fit its definition; the message names the node.
    """
    tracer = Tracer(graph, runner, opened.symbols if opened else Symbols())
    shapes, contents = (opened.shapes, opened.contents) if opened else ({}, {})
    for name in [*graph.inputs, *(n for n in graph.overridable if n in inputs)]:
        tracer.feed(name, inputs[name], name in read, shapes.get(name), contents.get(name))
    tracer.lower_nodes(graph.nodes)
    return tracer.finish(outputs)


class Tracer(Builder):
    """The builder with an environment of named values."""

    def __init__(self, graph: Graph, runner: GraphRunner | None, symbols: Symbols) -> None:
        super().__init__()
        self.graph, self.runner, self.symbols = graph, runner, symbols
        self.opsets, self.memo = graph.opsets, graph.memo
        self.values: MutableMapping[str, Value] = {}
        self.constants: MutableMapping[str, np.ndarray | Weight] = dict(graph.constants)
        self.input_tensors: dict[int, str] = {}
        self.trace_inputs: list[Value] = []
        self.deferred: list[Node] = []
        self.late: set[str] = set()

    # -- the environment
    def feed(
        self, name: str, value: object, read: bool, shape: Shape | None = None, content: tuple[int, ...] | None = None
    ) -> None:  # fmt: skip
        """Bind an input; `shape` and `content` if there are open sizes."""
        if content is not None and is_open(content):
            tensor: Value = openvalues.whole(content, value.shape, value.dtype)
            tensor.name = name
        elif isinstance(value, np.ndarray):
            tensor = Tensor(value.dtype, shape or value.shape, np.array(value) if read else None, name)
        else:
            tensor = Opaque(name)
        self.values[name] = tensor
        self.trace_inputs.append(tensor)
        self.input_tensors[id(tensor)] = name

    def lookup(self, name: str) -> Value | None:
        """The value of a name; None for the empty name.

        Raises:
            OperatorError: nothing has that name.
        """
        if not name:
            return None
        found = self.values.get(name)
        if found is None:
            if name not in self.constants:
                raise OperatorError(f"input {name!r} is produced by no node")
            known = self.constants[name]
            array, weight = (None, known) if isinstance(known, Weight) else (known, None)
            found = self.values[name] = Tensor(known.dtype, known.shape, array, name, weight)
        return found

    # -- nodes
    def lower_nodes(self, nodes: list[Node]) -> None:
        """Lower nodes in order; those that need values first are deferred."""
        for node in nodes:
            used = [*node.inputs, *(name for body in node.subgraphs() for name in body.captured())]
            if not self.late.isdisjoint(used):
                self._defer(node)
                continue
            mark = len(self.primitives)
            try:
                self.lower_node(node)
            except _Asked as need:
                del self.primitives[mark:]
                if isinstance(need.tensor, Opaque) and need.tensor.source is None:
                    raise OperatorError(f"{node.label}: input {need.tensor.name!r} is no tensor") from None
                leaves = self._leaves(need.tensor)
                if leaves:
                    raise Specialise(dict.fromkeys(leaves, self._reader(node, need))) from None
                self._defer(node)

    def lower_node(self, node: Node) -> None:
        """Lower one node and bind its outputs."""
        inputs = [self.lookup(name) for name in node.inputs]
        previous = self.node_name, self.output_names
        self.node_name, self.output_names = _name(node), node.outputs
        self.symbols.node = self.node_name
        try:
            made = self._lower(node, inputs)
        except NeedsValue as need:
            raise self._asked(need, node, inputs) from None
        except OperatorError as error:
            if getattr(error, "located", False):
                raise
            located = OperatorError(f"{node.label}: {error}")
            located.located = True  # type: ignore[attr-defined]
            raise located from error
        finally:
            self.node_name, self.output_names = previous
        for name, value in zip(node.outputs, made):
            if name:
                self.values[name] = value
                if not value.name:
                    value.name = name

    def _lower(self, node: Node, inputs: list[Value | None]) -> tuple[Value, ...]:
        version = node.version or self.opsets.get(node.domain, 1)
        row = registry.find(node.domain, node.op, version)
        native = all(not isinstance(x, Tensor) or evaluate.is_native(x.dtype) for x in inputs)
        mark = len(self.primitives)
        if row is not None and (native or row.takes is not registry.Takes.NATIVE):
            if row.takes is not registry.Takes.VALUES:
                self._need_tensors(inputs)
            try:
                made = row.lower(self, *inputs, **self._attributes(row.lower, node))
                return made if isinstance(made, tuple) else (made,)
            except TypeError as error:
                problem = _misfit(row.lower, inputs, node.attributes)
                if problem is None:
                    raise
                raise OperatorError(problem) from error
            except Declined:
                del self.primitives[mark:]
        body = fallback.function_body(node, inputs, {**self.opsets, node.domain: version}) if native and row is None else None
        made = self.try_inline(body, dict(zip(body.inputs, inputs))) if body is not None else None
        return made if made is not None else fallback.lower(self, node, inputs, version)

    def _need_tensors(self, inputs: list[Value | None]) -> None:
        for x in inputs:
            if isinstance(x, Opaque):
                raise NeedsValue(x)

    def _attributes(self, function: Callable, node: Node) -> dict[str, object]:
        """The node's attributes that the lowering takes (a misspelt or foreign one is an error, as in the schema)."""
        parameters = _parameters(function)
        unknown = [a for a in node.attributes if a not in parameters] if parameters is not None else None
        if unknown:
            raise OperatorError(f"unknown attribute {unknown[0]!r}")
        return node.attributes

    def inline(self, body: Graph, inputs: Mapping[str, Value | None]) -> tuple[Value, ...]:
        """Lower a body's nodes here: its names are its own, names it does not define are the surrounding graph's.

        Raises:
            NeedsValue: the body cannot be lowered at once.
        """
        outer = self.values, self.constants, self.opsets
        self.values = {**self.values, **{k: v for k, v in inputs.items() if v is not None}}
        for name in body.constants:
            self.values.pop(name, None)
        self.constants = {**self.constants, **body.constants}
        self.opsets = body.opsets or self.opsets
        try:
            for node in body.nodes:
                self.lower_node(node)
            return tuple(self.lookup(name) for name in body.outputs)
        finally:
            self.values, self.constants, self.opsets = outer

    def try_inline(self, body: Graph, inputs: Mapping[str, Value | None]) -> tuple[Value, ...] | None:
        """`inline`; None if the body needs values that only a run gives."""
        mark = len(self.primitives)
        try:
            return self.inline(body, inputs)
        except NeedsValue as need:
            if self._leaves(need.tensor):
                raise
            del self.primitives[mark:]
            return None

    def run_graph(self, body: Graph) -> Body:
        """How a host step runs a body, whose inputs then are also the values that it captures."""
        if self.runner is None:
            raise OperatorError("control flow needs a runner of bodies")
        constants = {**{n: self.constants[n] for n in body.captured() if n in self.constants}, **body.constants}
        outer = [n for n in body.captured() if n not in constants]
        return self.runner(body.copy(inputs=[*body.inputs, *outer], constants=constants, opsets=body.opsets or self.opsets))

    def _defer(self, node: Node) -> None:
        self.deferred.append(node)
        self.late.update(name for name in node.outputs if name)

    def _leaves(self, value: Value) -> list[str] | None:
        """The small integer inputs that alone decide a value; None if anything else does."""
        names = []
        for one in _behind(value):
            if id(one) in self.input_tensors:
                direct = one is value  # an input that is asked for itself may be of any type and size
                if isinstance(one, Opaque) or (not direct and (one.size > SMALL or one.dtype.kind not in "iub")):
                    return None
                names.append(self.input_tensors[id(one)])
            elif one.source is None or isinstance(one, Opaque):
                return None
        return names

    def _asked(self, need: NeedsValue, node: Node, inputs: list[Value | None]) -> _Asked:
        """Named after the outermost node that has the value from an input: those inside are what it is lowered to."""
        at = next((i for one in _behind(need.tensor) for i, x in enumerate(inputs) if x is one), None)
        if at is None:
            return need if isinstance(need, _Asked) else _Asked(need.tensor, node, "a value")
        words = _input_names(node.domain, node.op, node.version or self.opsets.get(node.domain, 1))
        return _Asked(need.tensor, node, words[at] if at < len(words) else f"input {at}")

    def _reader(self, node: Node, need: _Asked) -> Reader:
        """How the graph's node came to ask."""
        role = need.word if need.node is node else f"{need.word} of its {need.node.label}"
        names = {_name(one) for one in self.graph.nodes if one is not node}
        sources = [one.source for one in _behind(need.tensor) if one.source is not None]
        through = dict.fromkeys(name for source in reversed(sources) for name in source.nodes if name in names)
        return Reader(node.label, role, tuple(through))

    # -- the result
    def finish(self, outputs: list[str]) -> Traced:
        """The trace with the graph of what was deferred."""
        now = [name for name in outputs if name not in self.late]
        rest = None
        if self.deferred:
            rest = self._rest([name for name in outputs if name in self.late])
            now += [name for name in rest.inputs if name not in now]
        result = Trace(self.trace_inputs, [self.lookup(name) for name in now], self.primitives)
        return Traced(result, dict(self.values), rest)

    def _rest(self, outputs: list[str]) -> Graph:
        used = [n for node in self.deferred for n in [*node.inputs, *(c for b in node.subgraphs() for c in b.captured())]]
        needed = [n for n in dict.fromkeys([*used, *outputs]) if n and n not in self.late]
        values = [(n, v) for n in needed if isinstance(v := self.lookup(n), Tensor) and not v.is_open]
        folded = {n: known for n, v in values if (known := v.weight or v.constant) is not None}
        return Graph(
            [n for n in needed if n not in folded], outputs, list(self.deferred), {**self.graph.constants, **folded},
            dict(self.graph.types), dict(self.graph.opsets), name=self.graph.name, memo=self.memo,
        )  # fmt: skip


def _name(node: Node) -> str:
    """What primitives call the node that they come from."""
    return node.name or (node.outputs[0] if node.outputs else node.op)


def _behind(value: Value) -> Iterator[Value]:
    """The value, and all that it is computed from and that is not constant, each once."""
    pending, seen = [value], set()
    while pending:
        one = pending.pop()
        if id(one) in seen or (isinstance(one, Tensor) and one.is_constant):
            continue
        seen.add(id(one))
        yield one
        if one.source is not None:
            pending.extend(x for x in one.source.inputs if x is not None)


def _input_names(domain: str, op: str, version: int) -> tuple[str, ...]:
    row = registry.find(domain, op, version)
    if row is None:
        return fallback.input_names(domain, op, version)
    _builder, *taken = inspect.signature(row.lower).parameters.values()
    return tuple(p.name for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD)


@lru_cache(maxsize=4096)
def _parameters(function: Callable) -> frozenset[str] | None:
    """The names of a function's parameters; None if it takes any."""
    parameters = inspect.signature(function).parameters
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else frozenset(parameters)


def _misfit(function: Callable, inputs: list[Value | None], attributes: Mapping[str, object]) -> str | None:
    """Why a lowering cannot be called with these (an operator without a schema is not checked before); None: it can."""
    try:
        inspect.signature(function).bind(None, *inputs, **attributes)
    except TypeError as error:
        return str(error)
    return None
