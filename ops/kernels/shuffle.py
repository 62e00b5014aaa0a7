"""Rearranging small blocks of elements in registers: transposition and interleaving. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from . import emit, simd
from .emit import E

_INDEX = ir.IntType(32)


def _shuffle(a: E, b: E, order: list[int]) -> E:
    """Lanes of a (0 .. n - 1) and b (n .. 2n - 1) in the given order."""
    return a.of(a.b.shuffle_vector(a.v, b.v, ir.Constant(ir.VectorType(_INDEX, a.n), [ir.Constant(_INDEX, i) for i in order])))


def _transposed(rows: list[E]) -> list[E]:
    """The transposed square block in log2(lanes) rounds of exchanges between rows i and i + w."""
    lanes, width = len(rows), 1
    while width < lanes:
        for i in range(lanes):
            if not i & width:
                rows[i], rows[i + width] = _exchanged(rows[i], rows[i + width], width)
        width *= 2
    return rows


def _exchanged(a: E, b: E, width: int) -> tuple[E, E]:
    """Two vectors, every other `width` lanes of which have changed places."""
    low = [j if not j & width else a.n + (j ^ width) for j in range(a.n)]
    high = [j ^ width if not j & width else a.n + j for j in range(a.n)]
    return _shuffle(a, b, low), _shuffle(a, b, high)


def added(rows: list[E]) -> E:
    """Lane j is the sum of all lanes of row j; of fewer rows than lanes, a power of 2, it has as many lanes as there are rows."""
    while rows[0].n > len(rows):
        half = rows[0].n // 2
        rows = [emit.part(row, 0, half) + emit.part(row, half, half) for row in rows]
    width = 1
    while len(rows) > 1:
        pairs = [_exchanged(a, b, width) for a, b in zip(rows[::2], rows[1::2])]
        rows, width = [low + high for low, high in pairs], 2 * width
    return rows[0]


def _words(builder, kinds, values) -> list[E]:
    return [simd.unwrap(builder, k, v).cast("i64") for k, v in zip(kinds, values)]


def _load(builder, address: E, dtype: str, lanes: int) -> E:
    where = emit.pointer(builder, address.v, emit.stored(dtype, lanes))
    return emit.from_memory(builder, builder.load(where, align=emit.SIZES[dtype]), dtype, lanes)


def _store(builder, address: E, value: E, dtype: str) -> None:
    where = emit.pointer(builder, address.v, emit.stored(dtype, value.n))
    builder.store(emit.to_memory(value, dtype), where, align=emit.SIZES[dtype])


@cache
def transpose(source: str, target: str, lanes: int) -> Callable:
    """``transpose(source, target, lanes)(x, x_stride, y, y_stride)``: y[j, i] = x[i, j] for a lanes x lanes block.

    Strides are bytes between rows; elements of a row are neighbours; `source` converts to `target`.
    """

    def typing(typingctx, x, x_stride, y, y_stride):
        def generate(context, builder, sig, args):
            x_, xs, y_, ys = _words(builder, sig.args, args)
            rows = [_load(builder, x_ + xs * i, source, lanes) for i in range(lanes)]
            for j, row in enumerate(_transposed([r.cast(emit.register(target)) for r in rows])):
                _store(builder, y_ + ys * j, row, target)
            return context.get_dummy_value()

        return signature(types.void, x, x_stride, y, y_stride), generate

    typing.__name__ = "transpose"
    return intrinsic(typing)


@cache
def interleave(source: str, target: str, lanes: int, count: int) -> Callable:
    """``interleave(..., count)(x, x_stride, y)``: y[j * count + i] = x[i, j] for count rows of `lanes` elements."""

    def typing(typingctx, x, x_stride, y):
        def generate(context, builder, sig, args):
            x_, xs, y_ = _words(builder, sig.args, args)
            rows = [_load(builder, x_ + xs * i, source, lanes).cast(emit.register(target)) for i in range(count)]
            step = lanes * emit.SIZES[target]
            for k in range(count):
                places = [divmod(k * lanes + j, count) for j in range(lanes)]
                merged = _shuffle(rows[0], rows[0], [at for at, _ in places])
                for c in range(1, count):
                    merged = _shuffle(merged, rows[c], [lanes + at if row == c else j for j, (at, row) in enumerate(places)])
                _store(builder, y_ + step * k, merged, target)
            return context.get_dummy_value()

        return signature(types.void, x, x_stride, y), generate

    typing.__name__ = "interleave"
    return intrinsic(typing)
