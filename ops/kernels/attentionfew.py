"""Products for so few queries that lanes along them would stand idle (a decoder's next token). Imports numba.

Lanes run along the channels of a head instead: `dots` multiplies rows of keys with one query, `mixed` adds up rows of values.
Both read a row once, in the order in which it lies in memory, so keys and values come as fast as memory gives them.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from . import emit, window
from .emit import E
from .window import Code

_KEYS = 8  # that `dots` takes together: as many chains as hide the latency of one
_VECTORS = (8, 4, 1)  # of channels that `mixed` takes together, likewise


def dots(dtype: str, lanes: int) -> Callable:
    """``dots(args, rows, x, x_row, q, columns, y)``: the scores of one query, rows of y being as long as two vectors.

    y[i, :] = sum over k of x[i, k] * q[k], in every lane of a vector: the next query's scores may begin one lane further on.
    """

    def body(code, block, rows, x, x_row, q, columns, y):
        pitch = 2 * code.lanes * code.size
        source, out = code.variable(x), code.variable(y)
        groups = rows / _KEYS
        for count, keys in ((groups, _KEYS), (rows - groups * _KEYS, 1)):
            with code.loop(count):
                code.keep_rolled()
                at, to = source.get(), out.get()
                for i, total in enumerate(_dots(code, keys, at, x_row, q, columns)):
                    code.store(to + i * pitch, total)
                source.set(at + x_row * keys)
                out.set(to + keys * pitch)

    return window.leaf("rows x x_row q columns y", dtype, lanes, body)


def _dots(code: Code, keys: int, x: E, x_row: E, q: E, columns: E) -> list[E]:
    """Sums of products of some rows with q, each in every lane."""
    vector = code.lanes * code.size
    zero = emit.constant(code.builder, code.kind, code.lanes, 0)
    sums = [code.variable(zero) for _ in range(keys)]
    whole = columns / code.lanes
    with code.loop(whole) as j:
        code.keep_rolled()
        factor = code.load(q + j * vector)
        for i, each in enumerate(sums):
            each.set(code.load(x + x_row * i + j * vector).fma(factor, each.get()))
    rest = columns - whole * code.lanes
    with code.when(rest > 0):
        factor = code.load(q + whole * vector, rest)
        for i, each in enumerate(sums):
            each.set(code.load(x + x_row * i + whole * vector, rest).fma(factor, each.get()))
    return [_across(each.get()) for each in sums]


def _across(x: E) -> E:
    """The sum of all lanes in every lane."""
    index, width = ir.IntType(32), x.n
    undefined = ir.Constant(x.v.type, ir.Undefined)
    while width > 1:
        width //= 2
        order = ir.Constant(ir.VectorType(index, x.n), [ir.Constant(index, i ^ width) for i in range(x.n)])
        x = x + x.of(x.b.shuffle_vector(x.v, undefined, order))
    return x


def mixed(dtype: str, lanes: int) -> Callable:
    """``mixed(args, rows, p, x, x_row, columns, again, factor, y)``: y[:] = sum over i of p[i] * x[i, :].

    With `again` y[:] times the number at `factor` is added. p is a lane of a panel of two vectors a row.
    """

    def body(code, block, rows, p, x, x_row, columns, again, factor, y):
        vector = code.lanes * code.size
        done, left = code.variable(code.word(0)), code.variable(columns)
        for wide in _VECTORS:
            with code.loop(left.get() / (wide * code.lanes)):
                at = done.get()
                _mix(code, wide, None, rows, p, x + at, x_row, again, factor, y + at)
                done.set(at + wide * vector)
                left.set(left.get() - wide * code.lanes)
        with code.when(left.get() > 0):
            at = done.get()
            _mix(code, 1, left.get(), rows, p, x + at, x_row, again, factor, y + at)

    return window.leaf("rows p x x_row columns again factor y", dtype, lanes, body)


def _mix(code: Code, wide: int, lanes: E | None, rows: E, p: E, x: E, x_row: E, again: E, factor: E, y: E) -> None:
    """Some vectors of channels; of the only one so many `lanes`, if not all."""
    vector = code.lanes * code.size
    zero = emit.constant(code.builder, code.kind, code.lanes, 0)
    sums = [code.variable(zero) for _ in range(wide)]
    share, row = code.variable(p), code.variable(x)
    with code.loop(rows):
        code.keep_rolled()
        weight = emit.splat(code.scalar(share.get(), code.kind), code.lanes)
        for v, each in enumerate(sums):
            each.set(code.load(row.get() + v * vector, lanes).fma(weight, each.get()))
        share.set(share.get() + 2 * vector)
        row.set(row.get() + x_row)
    with code.when(again != 0):
        scale = emit.splat(code.scalar(factor, code.kind), code.lanes)
        for v, each in enumerate(sums):
            each.set(code.load(y + v * vector, lanes).fma(scale, each.get()))
    for v, each in enumerate(sums):
        code.store(y + v * vector, each.get(), lanes)
