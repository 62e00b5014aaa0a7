"""Control flow: If, Loop, Scan, SequenceMap.

The branch that an If takes is lowered in its place: the plan is specialised on the condition. Where a node computes the condition
and both branches are little work, both are lowered, and it selects (`_selected`). Loops are host steps that run their body, which
has plans of its own, once an iteration (`iteration`). Bodies may use values from around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import evaluate
from .builder import NeedsValue, OperatorError
from .fallback import draws_random
from .iteration import ENDLESS, Body, Iteration, Kind, Nest, Roles, Rows, dense, locate
from .kernels.sizes import alike, is_open, now
from .primitives import Host, Kernel, Move, Opaque, Primitive, Tensor
from .registry import Takes, op

if TYPE_CHECKING:
    from ..fusion.graph import Graph
    from ..fusion.trace import Tracer

_LITTLE = 1 << 16  # elements that both branches of an If read and write at most, if both are computed

# the body, the values that it captures by name, the node's inputs -> the node's outputs
HostLoop = Callable[[Body, Mapping[str, object], list], Sequence[object]]


def _run_body(
    t: Tracer, body: Graph, loop: HostLoop, inputs: Sequence[Tensor | Opaque | None], keeps: bool = False,
    roles: Roles | None = None,
) -> tuple[Tensor | Opaque, ...]:  # fmt: skip
    """A host step that calls ``loop(body, captured values, values of the inputs)``.

    Args:
        roles: of a Loop's body; its inputs are the trip count, the condition and the other states.
    """
    captured = [name for name in body.captured() if name not in t.constants]
    runner, count = t.run_graph(body), len(inputs)

    def call(values: list[object]) -> Sequence[object]:
        return loop(runner, dict(zip(captured, values[count:])), values[:count])

    outer = [t.lookup(name) for name in captured]
    nest = None if roles is None else _nest(runner, body, roles, inputs[1:], dict(zip(captured, outer)))
    kept = [] if nest is None else [nest.kinds[name] for name, _ in roles.states[1:]]
    kinds = [*kept, *[None] * (len(t.output_names) - len(kept))]
    known = nest if _is_one_number(inputs[0]) else None
    return t.host(call, [*inputs, *outer], kinds, "a loop runs its body", not draws_random(body), keeps, known, runner)


def _is_one_number(x: Tensor | Opaque | None) -> bool:
    return isinstance(x, Tensor) and x.dtype == np.int64 and alike(x.shape, (1,) * x.rank)


def _nest(
    runner: Body, body: Graph, roles: Roles, states: Sequence[Tensor | Opaque | None], outer: Mapping[str, Tensor | Opaque]
) -> Nest | None:
    """A Loop as native code sees it, if its body leaves the states in the types and shapes that it finds them in."""
    names = [name for name, _ in roles.states]
    first = [Tensor(np.dtype(bool), ()) if x is None else x for x in states]
    counter = Tensor(np.dtype(np.int64), _counter_shape(body))
    given = {**outer, roles.counter: counter, **dict(zip(names, first))}
    if any(isinstance(x, Opaque) or is_open(x.shape) or not evaluate.is_native(x.dtype) for x in given.values()):
        return None
    kinds: dict[str, Kind] = {name: (x.dtype, x.shape) for name, x in given.items()}
    if runner.kinds(kinds)[: len(names)] != [kinds[name] for name in names]:
        return None
    return Nest(roles, ("", *names, *outer), kinds)


def _counter_shape(body: Graph) -> tuple[int, ...]:
    """The shape in which a Loop's body wants the number of the iteration."""
    return (1,) if getattr(body.types.get(body.inputs[0]), "shape", None) == (1,) else ()


@op("If", takes=Takes.VALUES)
def if_(t: Tracer, cond, *, then_branch, else_branch):
    """The outputs of the branch that the condition chooses."""
    made = _selected(t, cond, then_branch, else_branch)
    if made is not None:
        return made
    branch = then_branch if t.value(cond).item() else else_branch
    made = t.try_inline(branch, {})
    return made if made is not None else _run_body(t, branch, lambda body, outer, _: body.run(outer, branch.outputs), [], True)


def _selected(t: Tracer, cond: Tensor | Opaque, *branches: Graph) -> tuple[Tensor, ...] | None:
    """Of both branches' outputs the right ones, chosen when the plan runs.

    None: the condition is known or an input, which plans are made for; or not both branches can and should be computed: they are
    too much work, fail for some data, run in Python, draw random numbers, or their outputs have different shapes.
    """
    if isinstance(cond, Opaque) or cond.is_constant or cond.source is None or cond.size != 1 or any(map(draws_random, branches)):
        return None
    mark = len(t.primitives)
    try:
        pairs = [*zip(*(t.inline(branch, {}) for branch in branches))]
        fits = all(_is_little(p) for p in t.primitives[mark:]) and sum(map(_work, t.primitives[mark:])) <= _LITTLE
        if fits and all(_is_one_kind(*pair) for pair in pairs):
            condition = t.reshape(cond, ())
            return tuple(x if x is y else t.op("Where", condition, x, y) for x, y in pairs)
    except (NeedsValue, OperatorError):  # maybe of the branch that is not taken
        pass
    del t.primitives[mark:]
    return None


def _is_little(p: Primitive) -> bool:
    """Whether a primitive can be computed for nothing."""
    return not isinstance(p, Host) and not (isinstance(p, Kernel) and p.errors)


def _work(p: Primitive) -> int:
    """Elements that a primitive reads and writes."""
    return 0 if isinstance(p, Move) else sum(now(x.size) for x in (*p.inputs, *p.outputs) if isinstance(x, Tensor))


def _is_one_kind(x: Tensor | Opaque, y: Tensor | Opaque) -> bool:
    both = isinstance(x, Tensor) and isinstance(y, Tensor)
    return both and x.dtype == y.dtype and alike(x.shape, y.shape) and evaluate.is_native(x.dtype)


@op("Loop", takes=Takes.VALUES)
def loop(t: Tracer, trip_count, condition, *states, body):
    """The body up to `trip_count` times while the condition holds; then the states and the stacked scan outputs."""
    counter, *taken = body.inputs
    roles = Roles((*zip(taken, body.outputs),), rows=(*body.outputs[1 + len(states) :],), counter=counter, conditional=True)
    shape = _counter_shape(body)
    where = f"Loop {t.node_name!r}"

    def run_loop(run: Body, outer: Mapping[str, object], values: list) -> list[object]:
        limit, going, *carried = values
        if limit is not None and limit.size != 1:
            raise OperatorError(f"{where}: the trip count must be one number, not {limit.dtype}{list(limit.shape)}")
        count = ENDLESS if limit is None else max(int(limit.item()), 0)
        going = np.asarray(True) if going is None else going
        rows = [Rows(name, count) for name in roles.rows]
        turns = Iteration(roles, outer, [going, *carried], count, rows, counter_shape=shape)
        turns.run(run, where)
        return [*turns.results[1:], *(one.stacked(turns.done, body) for one in rows)]

    return _run_body(t, body, run_loop, [trip_count, condition, *states], roles=roles)


@op("Scan", since=9, takes=Takes.VALUES)
def scan(
    t: Tracer, *inputs, body, num_scan_inputs, scan_input_axes=None, scan_output_axes=None, scan_input_directions=None,
    scan_output_directions=None,
):  # fmt: skip
    """The body for each slice of the scan inputs; then the states and the stacked scan outputs."""
    along = [*zip(scan_input_axes or [0] * num_scan_inputs, scan_input_directions or [0] * num_scan_inputs)]
    state_count = len(inputs) - num_scan_inputs
    produced = len(body.outputs) - state_count
    placed = [*zip(scan_output_axes or [0] * produced, scan_output_directions or [0] * produced)]
    where = f"Scan {t.node_name!r}"

    def run_scan(run: Body, outer: Mapping[str, object], values: list) -> list[object]:
        return _scan(run, outer, values[:state_count], values[state_count:], along, placed, body, where)

    return _run_body(t, body, run_scan, inputs)


def _scan(
    run: Body, outer: Mapping[str, object], states: list, scans: list, along: Sequence, placed: Sequence, body: Graph, where: str
) -> list[object]:
    slices = [np.moveaxis(x, axis, 0) for x, (axis, _) in zip(scans, along)]
    lengths = [*map(len, slices)]
    if len({*lengths}) > 1:
        raise OperatorError(f"{where}: the scan inputs have different lengths: {lengths}")
    count = len(states)
    backward = tuple(bool(direction) for _, direction in along)
    states_of = (*zip(body.inputs[:count], body.outputs),)
    roles = Roles(states_of, (*body.inputs[count:],), (*body.outputs[count:],), backward=backward)
    rows = [Rows(name, lengths[0]) for name in roles.rows]
    turns = Iteration(roles, outer, states, lengths[0], rows, slices)
    turns.run(run, where)
    stacked = [one.stacked(turns.done, body, axis, bool(backward)) for one, (axis, backward) in zip(rows, placed)]
    return [*turns.results, *stacked]


@op("Scan", since=8, takes=Takes.VALUES)
def scan_batched(t: Tracer, sequence_lens, *inputs, body, num_scan_inputs, directions=None):
    """Opset 8: every input and output has a batch in front; each member has a length of its own."""
    along = [(0, d) for d in directions or [0] * num_scan_inputs]
    state_count = len(inputs) - num_scan_inputs
    placed = [(0, 0)] * (len(body.outputs) - state_count)
    where = f"Scan {t.node_name!r}"

    def run_scan(run: Body, outer: Mapping[str, object], values: list) -> list[object]:
        lengths, *batch = values
        longest = batch[state_count].shape[1]
        members = []
        for i in range(len(batch[0])):
            length = longest if lengths is None else int(lengths[i])
            scans = [x[i][:length] for x in batch[state_count:]]
            results = _scan(run, outer, [x[i] for x in batch[:state_count]], scans, along, placed, body, f"{where}, sequence {i}")
            padded = [np.concatenate([y, np.zeros((longest - length, *y.shape[1:]), y.dtype)]) for y in results[state_count:]]
            members.append([*results[:state_count], *padded])
        return [np.stack(parts) for parts in zip(*members)]

    return _run_body(t, body, run_scan, [sequence_lens, *inputs])


@op("SequenceMap", since=17, takes=Takes.VALUES)
def sequence_map(t: Tracer, input_sequence, *more, body):
    """The body for each element of a sequence; sequences among the other inputs go along, tensors stay."""
    where = f"SequenceMap {t.node_name!r}"

    def run_map(run: Body, outer: Mapping[str, object], values: list) -> list[list[object]]:
        rows = []
        for i in range(len(values[0])):
            given = [dense(v[i]) if isinstance(v, list) else v for v in values]
            try:
                rows.append(run.run({**outer, **dict(zip(body.inputs, given))}, body.outputs))
            except Exception as error:
                locate(error, f"{where}, iteration {i}")
                raise
        return [[row[i] for row in rows] for i in range(len(body.outputs))]

    return _run_body(t, body, run_map, [input_sequence, *more], keeps=True)
