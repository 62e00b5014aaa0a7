"""The register tile of `pairing`. Imports numba.

Of three K steps the first two are multiplied together, one multiply-add of two sums, or of two differences, in place of two; see
`pairing`. What is summed up too much that way is taken away before: `pairingpasses` works it out for each row and column. A sum
belongs to one row and one column, so nothing but the totals stays in registers, and both its operands come straight from memory:
those of A as what the instruction broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, window
from . import pairingwords as word
from .emit import E
from .window import WORD, Code, Variable

_VECTORS = range(2)  # of a panel


def tile(lanes: int, heights: tuple[int, ...]) -> Callable:
    """``tile(args, height, x, info, b, pairs, turns, hurried, rest, ahead, end, base, start, ...)``.

    y[i, :] = base[:] + start[i, :] + inverse[i] * sum over k of x[i, k] * b[k, :], for `height` rows, `columns` of one panel.
    K is `turns` of four triples and `rest` steps without pairs. x: rows of ROW_BYTES with INFO_BYTES that belong to them at `info`.
    `pairs`: what takes away that those of the panel's columns add too much. `start` may be 0. `ahead`: what to bring to L2
    meanwhile, up to `end`, LINES lines a turn, and twice as many in the first turns, which are `hurried`.
    """

    def body(code: Code, block: ir.Value, height: E, *values: E) -> None:
        builder = code.builder
        done = builder.append_basic_block("done")
        chosen = builder.switch(height.v, done)
        for rows in heights:
            here = builder.append_basic_block(f"tile{rows}")
            chosen.add_case(ir.Constant(WORD, rows), here)
            builder.position_at_end(here)
            _tile(code, block, rows, *values)
            builder.branch(done)
        builder.position_at_end(done)

    names = "height x info b pairs turns hurried rest ahead end base start start_row y columns clip"
    return window.leaf(names, "f32", lanes, body)


def _tile(
    code: Code, block: ir.Value, rows: int, x: E, info: E, b: E, pairs: E, turns: E, hurried: E, rest: E, ahead: E, end: E,
    base: E, start: E, start_row: E, y: E, columns: E, clip: E,
) -> None:  # fmt: skip
    vector = 4 * code.lanes
    source, panel, far = code.variable(x), code.variable(b), code.variable(ahead)
    sums = _begin(code, rows, info, pairs, turns)

    def broadcast(address: E) -> E:
        return emit.splat(code.scalar(address, "f32"), code.lanes)

    def take(count: E, lines: int) -> None:
        """So many turns, each of which asks for some lines."""
        with code.loop(count):
            code.keep_rolled()
            # The same address for each vector. If LLVM knew that, it would keep what is broadcast in a register, which costs the
            # time of an addition.
            here, at = [code.unrelated(source.get()) for _ in _VECTORS], code.unrelated(panel.get())
            for k in range(0, word.TURN, 3):
                code.keep_order()
                b0, b1, b2 = ([code.load(at + (2 * (k + j) + v) * vector) for v in _VECTORS] for j in range(3))
                for i in range(rows):
                    for v in _VECTORS:
                        x = tuple(broadcast(here[v] + (i * word.ROW_BYTES + (k + j) * 4)) for j in range(3))
                        sums[i, v].set(triple(x, (b0[v], b1[v], b2[v]), sums[i, v].get(), k // 3 % 2 == 1))
            source.set(source.get() + word.TURN * 4)
            panel.set(at + word.TURN * 2 * vector)
            for line in range(lines):
                code.prefetch(far.get() + line * word.LINE, soon=False)
            following = far.get() + lines * word.LINE
            far.set(end.select(following < end, following, far.get()))

    take(hurried, 2 * word.LINES)
    take(turns - hurried, word.LINES)
    with code.loop(rest):
        code.keep_rolled()
        at = panel.get()
        factors = [code.load(at + v * vector) for v in _VECTORS]
        for i in range(rows):
            value = broadcast(source.get() + i * word.ROW_BYTES)
            for v in _VECTORS:
                sums[i, v].set(factors[v].fma(value, sums[i, v].get()))
        source.set(source.get() + 4)
        panel.set(at + 2 * vector)
    _finish(code, block, sums, info, base, start, start_row, y, columns, clip)


def triple(x: tuple[E, ...], b: tuple[E, ...], total: E, differences: bool) -> E:
    """total + x0 b0 + x1 b1 + x2 b2, and what `pair` adds too much."""
    return b[2].fma(x[2], pair(x, b, total, differences))


def pair(x: tuple[E, ...], b: tuple[E, ...], total: E, differences: bool) -> E:
    """total + x0 b0 + x1 b1, and too much: x0 x1 + b0 b1, or with `differences` that with the other sign."""
    first, second = (b[1] - x[0], b[0] - x[1]) if differences else (b[1] + x[0], b[0] + x[1])
    result = (-first if differences else first).fma(second, total)
    # LLVM would put the result where a factor was, of which it then spills some, as totals change their places
    emit.outlive(first, second)
    return result


def _begin(code: Code, rows: int, info: E, pairs: E, turns: E) -> dict[tuple[int, int], Variable]:
    """Sums that begin without what pairs will add too much, if there are any."""
    nothing = emit.constant(code.builder, "f32", code.lanes, 0)
    sums = {(i, v): code.variable(nothing) for i in range(rows) for v in _VECTORS}
    with code.when(turns > 0):
        of_columns = [code.load(pairs + v * 4 * code.lanes) for v in _VECTORS]
        for (i, v), total in sums.items():
            of_row = emit.splat(code.scalar(info + (i * word.INFO_BYTES + word.PAIRS * 4), "f32"), code.lanes)
            total.set(of_columns[v] + of_row)
    return sums


def _finish(
    code: Code, block: ir.Value, sums: dict[tuple[int, int], Variable], info: E, base: E, start: E, start_row: E, y: E,
    columns: E, clip: E,
) -> None:  # fmt: skip
    """Undoes the rows' factors, adds what they start from, clips, stores."""
    vector, y_row = 4 * code.lanes, code.argument(block, word.Y_ROW)
    masks = [code.first(columns - v * code.lanes) for v in _VECTORS]
    common = [code.load(base + v * vector, masks[v]) for v in _VECTORS]
    for (i, v), total in sums.items():
        inverse = emit.splat(code.scalar(info + (i * word.INFO_BYTES + word.INVERSE * 4), "f32"), code.lanes)
        total.set(total.get().fma(inverse, common[v]))
    with code.when(start != 0):
        for (i, v), total in sums.items():
            total.set(total.get() + code.load(start + start_row * i + v * vector, masks[v]))
    with code.when(clip != 0):
        low, high = (code.number(code.argument(block, limit)) for limit in (word.LOW, word.HIGH))
        for total in sums.values():
            total.set(total.get().at_least(low).at_most(high))
    for (i, v), total in sums.items():
        code.store(y + y_row * i + v * vector, total.get(), masks[v])
