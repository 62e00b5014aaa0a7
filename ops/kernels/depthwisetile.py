"""Unrolled tiles of depthwise convolution: a kernel for one window and stride, which `depthwise` calls inside the image.

A tile is 2 rows of 4 outputs, or 8 outputs of a row for a window of one row, of one vector of channels after the other:
eight sums in registers hide the latency of multiply-adds, and the rows and columns that they share are loaded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import target
from .image import SIZES
from .spec import KernelSpec, handwritten

if TYPE_CHECKING:
    from .emit import E
    from .window import Code

_SIZES, _STRIDES = (1, 3, 5, 7), (1, 2)  # of windows that have a kernel; a column of taps has none


def shape(window: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a tile's outputs for a window of (rows, columns)."""
    return (1, 8) if window[0] == 1 else (2, 4)


def spec(dtype: str, window: Sequence[int], strides: Sequence[int]) -> KernelSpec | None:
    """The kernel for a window of (rows, columns) moved by strides; None if there is none."""
    (rows, columns), (down, across) = window, strides
    if rows not in _SIZES or columns not in _SIZES or columns == 1 or across not in _STRIDES or (rows > 1 and down not in _STRIDES):
        return None
    return handwritten("depthwise_tile", "depthwisetile:factory", dtype=dtype, rows=rows, columns=columns, down=down, across=across)


def _multiple(code: Code, odd: list[E | None], j: int) -> E:
    """j times the step of which `odd` has the odd multiples."""
    twos = (j & -j).bit_length() - 1
    return odd[j >> twos] << twos if j else code.word(0)


def factory(dtype: str, rows: int, columns: int, down: int, across: int) -> Callable:
    """The kernel for a window of rows x columns moved `down` and `across`; task = how many whole vectors of channels.

    Arguments: bytes between rows and between columns of the image, the output and the residual; lower and upper clip.
    Scratch, from byte 64: addresses of the first tap of the first output, filters, bias, output, residual (0: none) and the
    number of lanes that are left after the whole vectors.
    """
    from . import simd, window

    lanes = target.current().lanes * (4 if dtype == "f64" else 8) // 8
    tile, weight = shape((rows, columns)), "f64" if dtype == "f64" else "f32"
    size, tap, words = SIZES[dtype], lanes * SIZES[weight], simd.block

    def body(code, block, x, filters, bias, y, residual, count, left):
        steps = [code.argument(block, i) for i in range(6)]
        clip = code.number(code.argument(block, 6)), code.number(code.argument(block, 7))
        lines = [code.variable(code.unrelated(x + steps[0] * i)) for i in range((tile[0] - 1) * down + rows)]
        # an address takes a register and 1, 2, 4 or 8 times another one, so odd multiples of the step are all it needs
        odd = [code.unrelated(steps[1] * j) if j % 2 else None for j in range((tile[1] - 1) * across + columns)]
        along = [_multiple(code, odd, j) for j in range(len(odd))]
        taps, start = code.variable(filters), code.variable(bias)
        outs, others = (code.variable(code.unrelated(z)) for z in (y, residual))

        def multiply(sums: list, pixels: list[E], at: E) -> None:
            for k in range(columns):
                factor = code.load(at + k * tap, None, weight)
                for j, total in enumerate(sums):
                    total.set(pixels[j * across + k].fma(factor, total.get()))

        def vector(lanes_left: E | None) -> None:
            initial = code.variable(clip[0].like(0))
            with code.when(bias != 0):
                initial.set(code.load(start.get(), lanes_left, weight))
            sums = [[code.variable(initial.get()) for _ in range(tile[1])] for _ in range(tile[0])]
            for i, at in enumerate(lines):
                line = code.unrelated(at.get())
                pixels = [code.load(line + along[j], lanes_left) for j in range((tile[1] - 1) * across + columns)]
                for r in range(tile[0]):
                    if 0 <= i - r * down < rows:
                        multiply(sums[r], pixels, taps.get() + (i - r * down) * columns * tap)
            for r, line in enumerate(sums):
                for j, total in enumerate(line):
                    with code.when(residual != 0):
                        total.set(total.get() + code.load(others.get() + steps[4] * r + steps[5] * j, lanes_left))
                    code.store(outs.get() + steps[2] * r + steps[3] * j, total.get().at_least(clip[0]).at_most(clip[1]), lanes_left)

        with code.loop(count):
            vector(None)
            taps.set(taps.get() + rows * columns * tap)
            start.set(start.get() + tap)
            for each in (*lines, outs, others):
                each.set(each.get() + lanes * size)
        with code.when(left > 0):
            vector(left)

    run = window.leaf("x filters bias y residual count left", dtype, lanes, body)

    def kernel(args, task, scratch):
        given = words(scratch + 64)
        run(args, given[0], given[1], given[2], given[3], given[4], task, given[5])

    return kernel
