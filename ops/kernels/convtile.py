"""The register tile of convolution: T output pixels times one or two vectors of output channels. Imports numba.

The tile multiplies T rows of the image, a constant number of bytes apart, with a panel of packed weights. K runs over
segments (depth, row, column of the filter) of consecutive elements. Accumulators stay in registers over all segments
of one K block; between blocks they stand in the output. Per K step: the vectors of the panel are loaded once, every
row's element is broadcast from memory, T times the vectors are multiplied and added.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, window
from .emit import E
from .window import WORD, Code

_AHEAD = 64  # K steps by which the panel is prefetched: it may come from L3
# the bits of float64 infinities
_INFINITY, _MINUS_INFINITY = 0x7FF0000000000000, -0x10000000000000


def tiles(dtype: str, lanes: int, pairs: tuple[int, ...], singles: tuple[int, ...]) -> Callable:
    """``tile(args, vectors, height, x, b, start, start_row, base, y, y_row, table, segments, length, last)``.

    y[i, :] = start[i, :] + base[:] + sum of x[i, k] * b[k, :] for `height` rows (one of `pairs` or `singles`) of
    `vectors` (2 or 1) whole vectors.

    args is the block of `conv`; x, b, start, base and y are addresses; `table` is the address of the segments'
    offsets from x, `length` elements each. `last`: clip what is stored.
    """

    def body(code, block, vectors, height, *values):
        builder = code.builder
        done = builder.append_basic_block("done")
        chosen = builder.switch((height * 4 + vectors).v, done)
        for wide, heights in ((1, singles), (2, pairs)):
            for rows in heights:
                here = builder.append_basic_block(f"tile{rows}x{wide}")
                chosen.add_case(ir.Constant(WORD, rows * 4 + wide), here)
                builder.position_at_end(here)
                _tile(code, block, wide, rows, *values)
                builder.branch(done)
        builder.position_at_end(done)

    names = "vectors height x b start start_row base y y_row table segments length last"
    return window.leaf(names, dtype, lanes, body)


def _tile(
    code: Code, block: ir.Value, wide: int, rows: int, x: E, b: E, start: E, start_row: E, base: E, y: E, y_row: E,
    table: E, segments: E, length: E, last: E,
) -> None:  # fmt: skip
    vector = code.lanes * code.size
    common = [code.load(base + v * vector) for v in range(wide)]
    sums = {}
    for i in range(rows):
        for v in range(wide):
            sums[i, v] = code.variable(code.load(start + v * vector) + common[v])
        start = start + start_row
    x_row, panel = code.argument(block, 12), code.variable(b)
    with code.loop(segments) as s:
        at = x + code.scalar(table + s * 8, "i64")
        with code.loop(length) as k:
            code.keep_rolled()
            factors = [code.load(panel.get() + v * vector) for v in range(wide)]
            for v in range(wide if rows >= 4 else 0):
                code.prefetch(panel.get() + _AHEAD * 2 * vector + v * vector)
            panel.set(panel.get() + 2 * vector)
            here = at + k * code.size
            for i in range(rows):
                value = emit.splat(code.scalar(here, code.kind), code.lanes)
                here = here + x_row
                for v in range(wide):
                    sums[i, v].set(value.fma(factors[v], sums[i, v].get()))
    low, high = (
        code.number(code.argument(block, at).select(last != 0, code.argument(block, at), code.word(free)))
        for at, free in ((5, _MINUS_INFINITY), (6, _INFINITY))
    )
    for i in range(rows):
        for v in range(wide):
            code.store(y + v * vector, sums[i, v].get().at_least(low).at_most(high))
        y = y + y_row
