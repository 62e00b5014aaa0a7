"""Which way a product of many rows with packed panels is computed: directly, by pairs (`pairing`) or Strassen's (`strassen`)."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

from . import pairing, strassen
from .convweights import PackedWeights
from .launch import Launch, with_spare
from .matrix import Matrix
from .sizes import certainly, deferred, is_open, now
from .spec import KernelSpec

VECTORS, SERVED = 16, 55  # rows: fewer are taken for single vectors, as those of a classifier, whose plan serves so many


def instead(
    direct: Launch, a: Matrix, weights: PackedWeights, c: Matrix, residual: Matrix | None, finish: tuple, threads: int
) -> list[Launch]:
    """The launches for C = clip(A B + bias + residual, low, high) of float32: `direct`, or another way if that is faster.

    A plan whose number of rows is open has both, one of which has no tasks, unless it is made for a few vectors and serves few rows
    only; that has the kernel to spare.

    Args:
        a, c, residual: of one matrix each, whose columns are neighbours. weights: a B of constants.
        finish: bias, low, high and the epilogue, as in `conv`.
    """
    (batch, rows, depth), columns = a.shape, c.shape[2]
    way = _of(depth, columns)
    if way is None:
        return [direct]
    made = way.cut(rows, depth, columns, threads)
    if not certainly(batch, 1) or _few(rows) or certainly(made.tasks, 0):
        return with_spare([direct], way.kernel())
    fast = way.launch(a, weights, c, residual, finish, made, direct.label)
    if is_open(made.tasks):
        return [replace(direct, tasks=_unless(made.tasks, direct.tasks)), fast]
    return with_spare([fast], direct.kernel)


def kernels(depth: int, columns: int) -> list[KernelSpec]:
    """The kernels that many rows may need beside `conv`'s."""
    way = _of(depth, columns)
    return [] if way is None else [way.kernel()]


def _of(depth: int, columns: int) -> ModuleType | None:
    """The fastest way that there is on this CPU."""
    return next((way for way in (pairing, strassen) if way.possible(depth, columns)), None)


@deferred()
def _unless(others: int, tasks: int) -> int:
    return 0 if others else tasks


def _few(rows: int) -> bool:
    """Whether there are vectors now, and few rows at all times; an open number is not asked for more rows."""
    return now(rows) < VECTORS and rows <= SERVED
