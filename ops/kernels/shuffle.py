"""Rearranging small blocks of elements in registers: transposition and interleaving. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from llvmlite import ir
from numba.core import cgutils, types
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
        low = [j if not j & width else lanes + (j ^ width) for j in range(lanes)]
        high = [j ^ width if not j & width else lanes + j for j in range(lanes)]
        for i in range(lanes):
            if not i & width:
                rows[i], rows[i + width] = (
                    _shuffle(rows[i], rows[i + width], low),
                    _shuffle(rows[i], rows[i + width], high),
                )
        width *= 2
    return rows


def _words(builder, kinds, values) -> list[E]:
    return [simd.unwrap(builder, k, v).cast("i64") for k, v in zip(kinds, values)]


def _load(builder, address: E, dtype: str, lanes: int, count: E | None) -> E:
    kind = emit.stored(dtype, lanes)
    where = emit.pointer(builder, address.v, kind)
    if count is None:
        raw = builder.load(where, align=emit.SIZES[dtype])
    else:
        raw = simd.masked_load(builder, where, kind, simd._tail_mask(builder, count.v, lanes).v, emit.SIZES[dtype])
    return emit.from_memory(builder, raw, dtype, lanes)


def _store(builder, address: E, value: E, dtype: str, count: E | None) -> None:
    kind = emit.stored(dtype, value.n)
    where, raw = emit.pointer(builder, address.v, kind), emit.to_memory(value, dtype)
    if count is None:
        builder.store(raw, where, align=emit.SIZES[dtype])
    else:
        mask = simd._tail_mask(builder, count.v, value.n).v
        simd.masked_store(builder, raw, where, kind, mask, emit.SIZES[dtype])


@lru_cache(maxsize=None)
def transpose(source: str, target: str, lanes: int) -> Callable:
    """``transpose(source, target, lanes)(x, x_stride, y, y_stride)``: y[j, i] = x[i, j] for a lanes x lanes block.

    Strides are bytes between rows; elements of a row are neighbours; `source` converts to `target`.
    """

    def typing(typingctx, x, x_stride, y, y_stride):
        def generate(context, builder, sig, args):
            x_, xs, y_, ys = _words(builder, sig.args, args)
            rows = [_load(builder, x_ + xs * i, source, lanes, None) for i in range(lanes)]
            for j, row in enumerate(_transposed([r.cast(emit.register(target)) for r in rows])):
                _store(builder, y_ + ys * j, row, target, None)
            return context.get_dummy_value()

        return signature(types.void, x, x_stride, y, y_stride), generate

    typing.__name__ = "transpose"
    return intrinsic(typing)


@lru_cache(maxsize=None)
def transpose_part(source: str, target: str, lanes: int) -> Callable:
    """``transpose_part(...)(x, x_stride, y, y_stride, rows, cols)``: as `transpose` for a rows x cols corner of x."""

    def typing(typingctx, x, x_stride, y, y_stride, rows, cols):
        def generate(context, builder, sig, args):
            x_, xs, y_, ys, rows_, cols_ = _words(builder, sig.args, args)
            block = []
            for i in range(lanes):
                # a row that is not there is read as the last one that is
                here = rows_.like(i)
                last = here.select(here < rows_, here, rows_ - 1)
                block.append(_load(builder, x_ + xs * last, source, lanes, cols_).cast(emit.register(target)))
            for j, row in enumerate(_transposed(block)):
                with cgutils.if_likely(builder, (cols_.like(j) < cols_).v):
                    _store(builder, y_ + ys * j, row, target, rows_)
            return context.get_dummy_value()

        return signature(types.void, x, x_stride, y, y_stride, rows, cols), generate

    typing.__name__ = "transpose_part"
    return intrinsic(typing)


@lru_cache(maxsize=None)
def interleave(source: str, target: str, lanes: int, count: int) -> Callable:
    """``interleave(..., count)(x, x_stride, y)``: y[j * count + i] = x[i, j] for count rows of `lanes` elements."""

    def typing(typingctx, x, x_stride, y):
        def generate(context, builder, sig, args):
            x_, xs, y_ = _words(builder, sig.args, args)
            rows = [
                _load(builder, x_ + xs * i, source, lanes, None).cast(emit.register(target)) for i in range(count)
            ]
            step = lanes * emit.SIZES[target]
            for k in range(count):
                places = [divmod(k * lanes + j, count) for j in range(lanes)]
                merged = _shuffle(rows[0], rows[0], [at for at, _ in places])
                for c in range(1, count):
                    merged = _shuffle(merged, rows[c], [lanes + at if row == c else j for j, (at, row) in enumerate(places)])
                _store(builder, y_ + step * k, merged, target, None)
            return context.get_dummy_value()

        return signature(types.void, x, x_stride, y), generate

    typing.__name__ = "interleave"
    return intrinsic(typing)
