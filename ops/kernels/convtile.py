"""The register tile of convolution: T output pixels times two vectors of output channels. Importing this imports numba.

The tile multiplies T rows of the image, a constant number of bytes apart, with a panel of packed weights. K runs over
segments (depth, row, column of the filter) of consecutive elements. Accumulators stay in registers over all segments
of one K block; between blocks they stand in the output.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import window
from .emit import E, splat
from .window import WORD, Code


def tiles(dtype: str, lanes: int, heights: tuple[int, ...]) -> Callable:
    """``tile(args, height, x, b, bias, y, residual, nd, nh, nw, length, first, last, cols)``.

    y[i, j] = start + sum of x[i, k] * b[k, j] for `height` rows i and `cols` <= 2 * lanes columns j.

    args is the block of `conv`; x, b, y and residual are addresses, nd x nh x nw segments of `length` elements each.
    `first`: start from bias and residual (each unless its address is 0), else from y. `last`: clip what is stored.
    """

    def body(code, block, height, x, b, bias, y, residual, nd, nh, nw, length, first, last, cols):
        builder = code.builder
        done = builder.append_basic_block("done")
        chosen = builder.switch(height.v, done)
        for rows in heights:
            here = builder.append_basic_block(f"rows{rows}")
            chosen.add_case(ir.Constant(WORD, rows), here)
            builder.position_at_end(here)
            _tile(code, block, rows, x, b, bias, y, residual, (nd, nh, nw), length, first, last, cols)
            builder.branch(done)
        builder.position_at_end(done)

    return window.leaf("height x b bias y residual nd nh nw length first last cols", dtype, lanes, body)


def _tile(
    code: Code, block: ir.Value, rows: int, x: E, b: E, bias: E, y: E, residual: E, counts: tuple[E, E, E],
    length: E, first: E, last: E, cols: E,
) -> None:  # fmt: skip
    lanes, size = code.lanes, code.size
    panel = 2 * lanes * size
    x_row, y_row, r_row = (code.argument(block, i) for i in (12, 16, 20))
    step_b = (code.argument(block, 30) * panel, code.argument(block, 29), code.argument(block, 28))
    steps = [
        (code.argument(block, 23), step_b[0] * step_b[1] * step_b[2]),
        (code.argument(block, 24), step_b[0] * step_b[1]),
        (code.argument(block, 25), step_b[0]),
    ]
    low, high = code.number(code.argument(block, 5)), code.number(code.argument(block, 6))
    full = cols.like(2 * lanes) == cols
    sums = [[code.variable(low.like(0)) for _ in range(2)] for _ in range(rows)]
    left = [cols, cols - lanes]

    def each(action: Callable[[int, int, E | None], None]) -> None:
        """action(row, vector, lanes or None) in code for whole panels and in code for the last one."""
        with code.builder.if_else(full.v) as (whole, part):
            with whole:
                for i in range(rows):
                    for v in range(2):
                        action(i, v, None)
            with part:
                for i in range(rows):
                    for v in range(2):
                        action(i, v, left[v])

    def add(address: E, stride: E) -> None:
        def action(i, v, count):
            sums[i][v].set(sums[i][v].get() + code.load(address + stride * i + v * lanes * size, count))

        with code.when(address != 0):
            each(action)

    with code.builder.if_else((first != 0).v) as (begins, goes_on):
        with begins:
            add(bias, y_row.like(0))
            add(residual, r_row)
        with goes_on:
            add(y, y_row)
    _multiply(code, rows, x, b, x_row, counts, steps, length, sums)

    with code.when(last != 0):
        for row in sums:
            for total in row:
                total.set(total.get().at_least(low).at_most(high))
    each(lambda i, v, count: code.store(y + y_row * i + v * lanes * size, sums[i][v].get(), count))


def _multiply(code: Code, rows: int, x: E, b: E, x_row: E, counts: tuple, steps: list, length: E, sums: list) -> None:
    lanes, size = code.lanes, code.size
    with code.taps(list(counts), steps, (x, b)) as (at, panel):
        with code.loop(length) as k:
            pair = [code.load(panel + k * (2 * lanes * size) + v * lanes * size) for v in range(2)]
            for i in range(rows):
                factor = splat(_scalar(code, at + k * size + x_row * i), lanes)
                for v in range(2):
                    sums[i][v].set(factor.fma(pair[v], sums[i][v].get()))


def _scalar(code: Code, address: E) -> E:
    from . import emit

    where = emit.pointer(code.builder, address.v, emit.element(code.kind))
    return E(code.builder, code.builder.load(where, align=code.size), code.kind, 0)
