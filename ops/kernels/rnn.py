"""The recurrence of LSTM, GRU and RNN: h[t] from h[t - 1] and the input's projection, which a GEMM has made before.

The recurrent weights are packed in panels [hidden / lanes, hidden, gates, lanes]: one register of hidden units for every
gate. A step goes over panels (which stay in L1 for all rows of the batch), in a panel over tiles of rows: `dot` keeps
rows x gates sums in registers and streams the panel, `cell` then applies the gates' functions to one row of sums.

Task = (direction, block of the batch, block of panels). With one block of panels a launch runs the whole sequence; where
that would leave threads idle, there is a launch a step, and the blocks of panels share it. Numba-free but for factories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from . import target
from .image import SIZES, Alloc, Opaque
from .launch import Launch
from .sizes import is_open, least, most, now
from .spec import handwritten

GATES = {"lstm": (4,), "gru_linear": (3,), "gru": (2, 1), "rnn": (1,)}
_STEPWISE = 512  # steps above which there is never a launch for each
_STEP_FLOPS = 100_000  # of a step that is worth sharing: a launch costs the executor about a microsecond
# words of a row's entry in the table that a step begins with
_P, _Y, _ACTIVE, _H, _NEXT_H, _C, _NEXT_C, _ROW = 0, 1, 2, 3, 4, 5, 6, 64
_HEAD = 8192  # scratch for sums, in front of the table


@dataclass(frozen=True)
class States:
    """Rows of hidden units: address and bytes between directions and between rows of the batch."""

    address: Opaque
    direction: int
    row: int


@dataclass(frozen=True)
class Series:
    """A row of values for every step, direction and row of the batch, with the bytes between them."""

    address: Opaque
    step: int
    direction: int
    row: int


@dataclass(frozen=True)
class Problem:
    """What is to be run.

    Attributes:
        kind: a key of `GATES`: "gru_linear" applies the recurrent weights before the reset gate, "gru" after it.
        activations: one text a direction: "Name,alpha,beta" of f, g and h, joined by ";".
        reverse: whether the first direction runs from the last element to the first (the second always does).
        clip: bound of what the activations take.
    """

    kind: str
    dtype: str
    activations: Sequence[str]
    steps: int
    batch: int
    hidden: int
    reverse: bool = False
    clip: float = np.inf
    input_forget: bool = False

    @property
    def directions(self) -> int:
        """1 or 2."""
        return len(self.activations)

    @property
    def lanes(self) -> int:
        """Hidden units of a panel."""
        return target.current().lanes * 4 // SIZES[self.dtype]

    @property
    def panels(self) -> int:
        """Panels of hidden units."""
        return -(-self.hidden // self.lanes)


def pack(r: np.ndarray, gates: int) -> np.ndarray:
    """r[directions, gates * hidden, hidden] as panels [directions, hidden / lanes, hidden, gates, lanes], zeros behind."""
    directions, _, hidden = r.shape
    lanes = target.current().lanes * 4 // r.dtype.itemsize
    panels = -(-hidden // lanes)
    wide = np.zeros((directions, gates, panels * lanes, hidden), r.dtype)
    wide[:, :, :hidden] = r.reshape(directions, gates, hidden, hidden)
    return np.ascontiguousarray(wide.reshape(directions, gates, panels, lanes, hidden).transpose(0, 2, 4, 1, 3))


def recurrence(
    problem: Problem, projected: Series, weights: Sequence[Opaque], h: States, c: States | None, y: Series, last_h: States,
    last_c: States | None, *, extra: Opaque = 0, lengths: Opaque = 0, alloc: Alloc, threads: int = 1, label: str = "rnn",
) -> list[Launch]:  # fmt: skip
    """All steps of all directions.

    Args:
        projected: gates x hidden values for each step, direction and row, biases included.
        weights: packed recurrent weights, for each number in ``GATES[kind]``.
        h, c: initial states (c for LSTM). y: every h. last_h, last_c: the states after the last step of each row.
        extra: address of the peephole weights [directions, 3, hidden] (i, o, f) of LSTM or 0, or of the bias
            [directions, hidden] that "gru_linear" adds to the recurrent part of its new value.
        lengths: address of the number of steps of each row (int32), or 0.
    """
    p, size = problem, SIZES[problem.dtype]
    states = 4 if p.kind in ("gru", "lstm") else 2
    memory = alloc(max(p.directions * states * p.batch * p.hidden * size, 64))
    c, last_c = c or States(0, 0, 0), last_c or States(0, 0, 0)
    launches: list[Launch] = []
    batches, blocks = _share(p, threads)
    rows, panels = -(-p.batch // batches), -(-p.panels // blocks)
    batches, blocks = -(-p.batch // rows), -(-p.panels // panels)
    rounds = [(0, p.steps, 1)] if blocks == 1 else list(_stepwise(p.steps))
    groups = [(0, p.directions)] if len(set(p.activations)) == 1 else [(d, 1) for d in range(p.directions)]
    flops = 2 * p.batch * p.hidden * p.hidden * sum(GATES[p.kind])
    for first, end, used in rounds:
        for direction, count in groups:
            args = (
                projected.address, projected.step, projected.direction, projected.row, y.address, y.step, y.direction, y.row,
                h.address, h.direction, h.row, c.address, c.direction, c.row, last_h.address, last_h.direction, last_h.row,
                last_c.address, last_c.direction, last_c.row, memory, states, lengths, extra, float(p.clip), first,
                end, p.steps, p.batch, p.hidden, direction, int(p.reverse), rows, batches, panels, blocks, p.panels,
                weights[0], weights[-1],
            )  # fmt: skip
            kernel = handwritten(
                p.kind, "rnn:factory", kind=p.kind, dtype=p.dtype, activations=p.activations[direction],
                peephole=p.kind == "lstm" and extra != 0, input_forget=p.input_forget,
                tail=p.hidden % p.lanes != 0,
            )  # fmt: skip
            moved = size * count * (end - first) * (p.hidden * p.hidden + 2 * p.batch * p.hidden) * sum(GATES[p.kind])
            tasks, work = count * batches * blocks * used, count * (end - first) * flops
            launches.append(Launch(kernel, args, tasks, _HEAD + rows * _ROW, label, work, moved))
    return launches


def _stepwise(steps: int) -> Iterator[tuple[int, int, int]]:
    """First step, the one after the last, and 1 or, behind the end, 0, of a launch a step; of open steps there are more."""
    count = 1 << now(steps).bit_length() if is_open(steps) else steps
    if steps > count:
        raise AssertionError("a number is below the next power of 2")
    for first in range(count):
        yield first, first + 1, least(1, most(0, steps - first))


def _share(p: Problem, threads: int) -> tuple[int, int]:
    """(blocks of the batch, blocks of panels): whole sequences where there are enough, else shared steps."""
    wanted = -(-threads // p.directions)
    batches = max(1, min(wanted, p.batch // _tile_rows(GATES[p.kind][0])))
    if batches >= wanted or p.kind == "gru" or p.steps > _STEPWISE:
        return batches, 1
    if 2 * p.batch * p.hidden * p.hidden * sum(GATES[p.kind]) < _STEP_FLOPS:
        return batches, 1
    return batches, max(1, min(-(-wanted // batches), p.panels))


def _tile_rows(gates: int) -> int:
    """Rows of a register tile: their sums, one row's broadcasts and the gates' weights fit in the registers."""
    return min(8, (target.current().registers - 4) // gates)


def factory(kind: str, dtype: str, activations: str, peephole: bool, input_forget: bool, tail: bool) -> Callable:
    """The kernel of `recurrence`; `tail`: the last panel is not full."""
    from . import rnn_cell, simd

    size, gates, double = SIZES[dtype], GATES[kind], kind == "gru"
    lanes = target.current().lanes * 4 // size
    cells = [
        rnn_cell.cell(k, dtype, activations, peephole, input_forget, tail)
        for k in (("gru_gates", "gru_new") if double else (kind,))
    ]
    first_stage = rnn_cell.stage(dtype, gates[0], _tile_rows(gates[0]), _H, cells[0])
    # the new value of "gru" is made of the reset state, which the gates' stage leaves in the place of the next c
    second_stage = rnn_cell.stage(dtype, gates[-1], _tile_rows(gates[-1]), _NEXT_C, cells[-1])
    words, length = simd.block, simd.load("i32", 0)
    panel, panel2 = gates[0] * lanes * size, gates[-1] * lanes * size
    to_word = simd.to("i64")

    def kernel(args, task, scratch):
        steps, batch, hidden = args[27], args[28], args[29]
        block, task = task % args[35], task // args[35]
        d = args[30] + task // args[33]
        b0 = task % args[33] * args[32]
        rows = min(args[32], batch - b0)
        low = block * args[34]
        high = min(args[36], low + args[34])
        reverse = d + args[31] > 0
        run = hidden * size
        each = batch * run
        state = args[20] + d * args[21] * each + b0 * run
        weights = args[37] + d * args[36] * hidden * panel
        weights2 = args[38] + d * args[36] * hidden * panel2
        extra = args[23]
        if extra != 0:
            extra += d * run * (3 if peephole else 1)
        table = scratch + _HEAD
        for s in range(args[25], args[26]):
            for i in range(rows):
                b = b0 + i
                count = steps
                if args[22] != 0:
                    count = to_word(length(args[22] + 4 * b))
                t = count - 1 - s if reverse and s < count else s
                row = words(table + _ROW * i)
                row[0] = args[0] + t * args[1] + d * args[2] + b * args[3]
                row[1] = args[4] + t * args[5] + d * args[6] + b * args[7]
                row[2] = 1 if s < count else 0
                row[3] = state + (s + 1) % 2 * each + i * run
                row[4] = state + s % 2 * each + i * run
                row[5] = state + 2 * each + i * run
                row[6] = row[5]
                if s == 0:
                    row[3] = args[8] + d * args[9] + b * args[10]
                    row[5] = args[11] + d * args[12] + b * args[13]
                if s == steps - 1:
                    row[4] = args[14] + d * args[15] + b * args[16]
                    row[6] = args[17] + d * args[18] + b * args[19]
                if double:
                    row[5] = state + 2 * each + i * run
                    row[6] = state + 3 * each + i * run
            first_stage(table, rows, weights, low, high, hidden, scratch, extra, args[24])
            if double:
                second_stage(table, rows, weights2, low, high, hidden, scratch, extra, args[24])

    return kernel
