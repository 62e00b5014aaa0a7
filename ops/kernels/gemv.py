"""Products of few rows: C = A B on `gemm`'s panels of B, each element of which is read once, from memory if B is large.

B may lie there in 16 bits, as float16 or bfloat16: half the bytes, widened in registers; sums are float32. Numba-free but for
the factory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from . import ahead, conv, target, ways
from .blocking import panel_width
from .gemm import Panels, matmul
from .image import SIZES, Alloc, Opaque
from .launch import Launch, with_spare
from .matrix import Matrix
from .sizes import is_open
from .spec import KernelSpec, handwritten

if TYPE_CHECKING:
    from .window import Code

_TASK_BYTES = 128 << 10  # of B that a task reads
_AHEAD = 4096  # bytes by which B is asked for: in the next page, before which hardware stops
_LINE = 64  # bytes
_BATCH = 4  # vectors that are no reason to expect many more
_PART = 512  # terms of a sum that is then added to the total: keeps rounding errors of long sums small


def product(
    dtype: str, a: Matrix, panels: Opaque, c: Matrix, *, residual: Matrix | None = None, alloc: Alloc, threads: int = 1,
    label: str = "", **tail: object,
) -> list[Launch]:  # fmt: skip
    """C = clip(A B + bias + residual, low, high), float32, on the kernel that is the fastest for the number of rows.

    Args:
        dtype: of the panels: f32, f16 or bf16.
        tail: bias, low, high and epilogue, as in `gemm.matmul`.
    """
    rows, own = c.shape[1], {"residual": residual, "threads": threads, "label": label, **tail}
    few, held = _kernel(dtype), "" if dtype == "f32" else dtype
    if rows < many(bool(held)) and (residual is None or residual.strides[2] == 4):
        # hundreds of rows may only be expected of those that changed or are some: it is large, and most classifiers do without
        fast = ways.kernels(a.shape[2], c.shape[2]) if is_open(rows) or rows > _BATCH else []
        return with_spare(gemv(dtype, a, panels, c, **own), conv.kernel_of("f32"), *fast)
    return with_spare(matmul("f32", a, Panels(panels, held=held), c, alloc=alloc, **own), few)


def many(halves: bool) -> int:
    """The number of rows from which on `gemm` is faster; panels of 16 bits it has to widen before."""
    return 16 if halves else 12 if target.current().registers > 16 else 5


def _kernel(dtype: str) -> KernelSpec:
    return handwritten("gemv", "gemv:factory", ahead=True, dtype=dtype)


def gemv(
    dtype: str, a: Matrix, panels: Opaque, c: Matrix, *, bias: Opaque = 0, residual: Matrix | None = None,
    low: float = -np.inf, high: float = np.inf, epilogue: tuple[Opaque, Opaque] | None = None, threads: int = 1,
    label: str = "gemv",
) -> list[Launch]:  # fmt: skip
    """C = clip(A B + bias + residual, low, high), float32, of one matrix; the columns of C are neighbours.

    Args:
        dtype: of the panels: f32, f16 or bf16.
        epilogue: as in `conv`; rows are pixels.
    """
    _, rows, n = c.shape
    k = a.shape[2]
    if 0 in c.shape:
        return []
    width = panel_width(4)
    count, each = -(-n // width), max(k, 1) * width * SIZES[dtype]
    tasks = -(-count // max(1, min(_TASK_BYTES // each, -(-count // (2 * threads)))))
    each_thread = -(-tasks // threads)
    per_task = -(-count // (each_thread * threads))
    other = residual or c
    args = (a.address, panels, c.address, bias, residual.address if residual else 0, float(low), float(high), *(epilogue or (0, 0)),
            a.strides[1], a.strides[2], c.strides[1], other.strides[1], rows, k, n, per_task, per_task * each_thread)  # fmt: skip
    moved = count * each + 4 * rows * (k + n)
    return [Launch(_kernel(dtype), args, -(-count // per_task), 64, label, 2 * rows * n * k, moved)]


def factory(dtype: str) -> Callable:
    """The kernel of `gemv`. Task = some panels. Scratch: 64 bytes for the epilogue's block."""
    from . import simd

    width, step, tallest = panel_width(4), panel_width(4) * SIZES[dtype], heights()[0]
    dots, fitting = _dots(dtype), sum(max(h for h in heights() if h <= rows) << 4 * (rows - 1) for rows in range(1, tallest + 1))
    words, call_kernel, bring, asked = simd.block, simd.call_kernel, ahead.bringing(), ahead.ASKED

    def kernel(args, task, scratch):
        rows, k, n, per_task = args[13], args[14], args[15], args[16]
        if task < 0:
            p, each = (-1 - task) % asked * per_task, k * step
            bring(args[1] + p * each, min(args[17], (n + width - 1) // width - p) * each, (-1 - task) // asked)
            return
        p = task * per_task
        end = min(p + per_task, (n + width - 1) // width)
        while p < end:
            c0, panel, m = p * width, args[1] + p * k * step, 0
            cols = min(width, n - c0)
            bias = args[3] + c0 * 4 if args[3] != 0 else 0
            while m < rows:
                a, c = args[0] + m * args[9], args[2] + m * args[11] + c0 * 4
                other = args[4] + m * args[12] + c0 * 4 if args[4] != 0 else 0
                height = fitting >> 4 * (min(rows - m, tallest) - 1) & 15
                dots(args, height, a, panel, c, bias, other, k, cols)
                m += height
            if args[7] != 0:
                where = words(scratch)
                where[0], where[1], where[2], where[3], where[4], where[5] = 0, 0, 0, rows, c0, cols
                call_kernel(args[7], args[8], 0, scratch)
            p += 1

    return kernel


@lru_cache(maxsize=1)
def heights() -> tuple[int, ...]:
    """Of what reads a panel once: as many rows as sums of two vectors each leave registers for, and fewer."""
    return (8, 6, 4, 3, 2, 1) if target.current().registers > 16 else (4, 3, 2, 1)


def _dots(dtype: str) -> Callable:
    """``dots(block, height, a, panel, c, bias, other, k, cols)``: `height` rows of A, one of `heights`, with one panel."""
    from .window import leaf

    def body(code: Code, block, height, *values):
        for rows in heights():
            with code.when(height == rows):
                _dot(code, dtype, rows, block, *values)

    return leaf("height a panel c bias other k cols", "f32", target.current().lanes, body)


def _dot(code: Code, dtype: str, rows: int, block, a, panel, c, bias, other, k, cols) -> None:
    from . import emit

    lanes, vectors = code.lanes, 2
    ways = max(1, 8 // (rows * vectors))  # sums beside each other, so that one need not wait for the other
    step = vectors * lanes * SIZES[dtype]
    nothing = emit.constant(code.builder, "f32", lanes, 0)
    sums = [[[code.variable(nothing) for _ in range(vectors)] for _ in range(rows)] for _ in range(ways)]
    totals = [[code.variable(nothing) for _ in range(vectors)] for _ in range(rows)]
    row_step, column_step, out_step, other_step = (code.argument(block, i) for i in (9, 10, 11, 12))

    def steps(first, count):
        for way in range(count):
            at = panel + (first + way) * step
            for line in range(0, step, _LINE):
                code.prefetch(at + _AHEAD + line, once=True)
            factors = [code.load(at + v * lanes * SIZES[dtype], None, dtype) for v in range(vectors)]
            for m in range(rows):
                x = emit.splat(code.scalar(a + row_step * m + (first + way) * column_step, "f32"), lanes)
                for v, factor in enumerate(factors):
                    total = sums[way][m][v]
                    total.set(factor.fma(x, total.get()))

    def add():
        for m in range(rows):
            for v in range(vectors):
                for way in range(ways):
                    totals[m][v].set(totals[m][v].get() + sums[way][m][v].get())
                    sums[way][m][v].set(nothing)

    turns = k / ways
    with code.loop(k - turns * ways) as rest:
        steps(turns * ways + rest, 1)
    parts = ((turns + (_PART - 1)) / _PART).maximum(1)
    with code.loop(parts) as part:
        with code.loop((turns - part * _PART).minimum(_PART)) as turn:
            steps((part * _PART + turn) * ways, ways)
        add()
    low, high = code.number(code.argument(block, 5)), code.number(code.argument(block, 6))
    for v in range(vectors):
        left = cols - v * lanes
        offset = v * lanes * 4
        with code.when(left > 0):
            initial = code.variable(nothing)
            with code.when(bias != 0):
                initial.set(code.load(bias + offset, left))
            for m in range(rows):
                whole = code.variable(totals[m][v].get() + initial.get())
                with code.when(other != 0):
                    whole.set(whole.get() + code.load(other + other_step * m + offset, left))
                code.store(c + out_step * m + offset, whole.get().at_least(low).at_most(high), left)
