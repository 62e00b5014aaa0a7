"""C = A B with a third less to multiply, where additions run beside multiply-adds: pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from . import pairingwords as word
from . import target
from .blocking import panel_width
from .image import Opaque
from .launch import Launch, with_spare
from .matrix import Matrix
from .pairingkernel import rows_cost
from .sizes import certainly, deferred, is_open
from .spec import KernelSpec, handwritten


@dataclass(frozen=True)
class Cut:
    steps: int = 0
    own_rows: int = 0
    own_panels: int = 0
    panel_tasks: int = 0
    tasks: int = 0


def kernel() -> KernelSpec:
    return handwritten("pairing", "pairingkernel:factory", ahead=True)


def launch(a, panels, c, residual, finish, made, label):
    (_, rows, depth), n, other = a.shape, c.shape[2], residual or c
    bias, low, high, *epilogue = finish
    args = (a.address, c.address, panels, bias, residual.address if residual else 0, float(low), float(high), *epilogue,
            a.strides[1], c.strides[1], other.strides[1], rows, n, depth, made.steps, made.own_rows, made.own_panels,
            made.panel_tasks)  # fmt: skip
    assert len(args) == word.WORDS
    flops, moved = 2 * rows * n * depth, 4 * (rows * (depth + n) + n * depth)
    return Launch(kernel(), args, made.tasks, scratch_bytes(made.own_rows), label, flops, moved)


@deferred()
def scratch_bytes(rows: int) -> int:
    row = panel_width(4) * 4
    return 64 + 2 * row + 128 + row + rows * (word.INFO_BYTES + word.ROW_BYTES) + 4096 + 64


@lru_cache(maxsize=4096)
def cut(rows: int, depth: int, columns: int, threads: int) -> Cut:
    blocks = -(-depth // word.MOST_STEPS)
    steps = -(-depth // (blocks * word.TURN)) * word.TURN
    panels = -(-columns // panel_width(4))
    best, made = float("inf"), Cut()
    fewest = -(-rows // 200)
    for down in range(fewest, fewest + 4):
        least = -(-rows // down)
        for own_rows in {least, -(-least // 10) * 10, -(-least // 8) * 8}:
            row_tasks = -(-rows // own_rows)
            for across in range(1, 2 * threads + 1):
                own_panels = -(-panels // across)
                panel_tasks = -(-panels // own_panels)
                tasks = panel_tasks * row_tasks
                task = own_panels * (rows_cost(own_rows) + 3.4) + own_rows * 1.7
                cost = (-(-tasks // threads) + 0.03 * threads) * task
                if cost < best:
                    best, made = cost, Cut(steps, own_rows, own_panels, panel_tasks, tasks)
    return made
