"""Control flow: If, Loop, Scan, SequenceMap.

The branch that an If takes is lowered in its place: the plan is specialised on the condition. Loops are host steps
that run their body, which has plans of its own, once an iteration. Bodies may use values from around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .builder import OperatorError
from .fallback import draws_random
from .primitives import Opaque, Tensor
from .registry import Takes, op

if TYPE_CHECKING:
    from ..fusion.graph import Graph
    from ..fusion.trace import Tracer

# body inputs in order -> body outputs in order
Body = Callable[[Sequence[object]], list[object]]
HostLoop = Callable[[Body, list[object]], Sequence[object]]


def _run_body(t: Tracer, body: Graph, loop: HostLoop, inputs: Sequence[Tensor | Opaque | None]) -> tuple[Opaque, ...]:
    """A host step that calls ``loop(run, values of the inputs)``."""
    captured = [name for name in body.captured() if name not in t.constants]
    run, count = t.run_graph(body), len(inputs)

    def call(values: list[object]) -> Sequence[object]:
        outer = dict(zip(captured, values[count:]))
        return loop(lambda args: run({**outer, **dict(zip(body.inputs, args))}, body.outputs), values[:count])

    values = [*inputs, *(t.lookup(name) for name in captured)]
    return t.host(call, values, [None] * len(t.output_names), "a loop runs its body", fold=not draws_random(body))


@op("If", takes=Takes.VALUES)
def if_(t: Tracer, cond, *, then_branch, else_branch):
    """The outputs of the branch that the condition chooses."""
    branch = then_branch if t.value(cond).item() else else_branch
    made = t.try_inline(branch, {})
    return made if made is not None else _run_body(t, branch, lambda run, _: run([]), [])


@op("Loop", takes=Takes.VALUES)
def loop(t: Tracer, trip_count, condition, *states, body):
    """The body up to `trip_count` times while the condition holds; then the states and the stacked scan outputs."""
    state_count = len(states)

    def run_loop(run: Body, values: list[object]) -> list[object]:
        limit, going, *carried = values
        limit = np.inf if limit is None else int(np.asarray(limit).item())
        rows: list[list[object]] = []
        count = 0
        while count < limit and (going is None or np.asarray(going).item()):
            going, *results = run([np.asarray(count, np.int64), np.asarray(True if going is None else going), *carried])
            carried = results[:state_count]
            rows.append(results[state_count:])
            count += 1
        scans = body.outputs[1 + state_count :]
        return [*carried, *(_stacked([row[i] for row in rows], body, name) for i, name in enumerate(scans))]

    return _run_body(t, body, run_loop, [trip_count, condition, *states])


def _stacked(parts: list[np.ndarray], body: Graph, name: str, axis: int = 0) -> np.ndarray:
    """Scan outputs along a new axis; without an iteration what the body declares of them."""
    if parts:
        return np.stack(parts, axis)
    declared = body.types.get(name)
    if declared is None:
        return np.zeros(0, np.float32)
    dims = [d if isinstance(d, int) else 0 for d in declared.shape or ()]
    dims.insert(axis if axis >= 0 else axis + len(dims) + 1, 0)
    return np.zeros(dims, declared.dtype)


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

    def run_scan(run: Body, values: list[object]) -> list[object]:
        return _scan(run, values[:state_count], values[state_count:], along, placed, body)

    return _run_body(t, body, run_scan, inputs)


def _scan(run: Body, states: list, scans: list, along: Sequence, placed: Sequence, body: Graph) -> list[object]:
    slices = [np.moveaxis(x, axis, 0)[:: -1 if backward else 1] for x, (axis, backward) in zip(scans, along)]
    if len({len(x) for x in slices}) > 1:
        raise OperatorError(f"the scan inputs have different lengths: {[len(x) for x in slices]}")
    rows, count = [], len(states)
    for now in zip(*slices):
        results = run([*states, *map(np.asarray, now)])
        states = results[:count]
        rows.append(results[count:])
    outputs = []
    for i, (axis, backward) in enumerate(placed):
        parts = [row[i] for row in rows]
        outputs.append(_stacked(parts[::-1] if backward else parts, body, body.outputs[count + i], axis))
    return [*states, *outputs]


@op("Scan", since=8, takes=Takes.VALUES)
def scan_batched(t: Tracer, sequence_lens, *inputs, body, num_scan_inputs, directions=None):
    """Opset 8: every input and output has a batch in front; each member has a length of its own."""
    along = [(0, d) for d in directions or [0] * num_scan_inputs]
    state_count = len(inputs) - num_scan_inputs
    placed = [(0, 0)] * (len(body.outputs) - state_count)

    def run_scan(run: Body, values: list[object]) -> list[object]:
        lengths, *batch = values
        longest = batch[state_count].shape[1]
        members = []
        for i in range(len(batch[0])):
            length = longest if lengths is None else int(lengths[i])
            scans = [x[i][:length] for x in batch[state_count:]]
            results = _scan(run, [x[i] for x in batch[:state_count]], scans, along, placed, body)
            padded = [np.concatenate([y, np.zeros((longest - length, *y.shape[1:]), y.dtype)]) for y in results[state_count:]]
            members.append([*results[:state_count], *padded])
        return [np.stack(parts) for parts in zip(*members)]

    return _run_body(t, body, run_scan, [sequence_lens, *inputs])


@op("SequenceMap", since=17, takes=Takes.VALUES)
def sequence_map(t: Tracer, input_sequence, *more, body):
    """The body for each element of a sequence; sequences among the other inputs go along, tensors stay."""

    def run_map(run: Body, values: list[object]) -> list[list[object]]:
        rows = [run([v[i] if isinstance(v, list) else v for v in values]) for i in range(len(values[0]))]
        return [[row[i] for row in rows] for i in range(len(body.outputs))]

    return _run_body(t, body, run_map, [input_sequence, *more])
