"""The indices of the k largest or smallest elements of each row, in order; of equal ones the first comes first.

A row keeps a heap of its k best (key, index) pairs in scratch, the worst on top. Elements of a dense row are compared
with the worst by whole vectors, so that a long row is read at the speed of memory. Keys are int64 words in the order of the
values: NaN above infinity, -0 equal to 0. Task = some rows. Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable

from . import target
from .image import SIZES
from .launch import Launch
from .spec import handwritten

_TASK_ELEMENTS = 8192


def topk(dtype: str, x: object, indices: object, outer: int, count: int, inner: int, k: int, largest: bool) -> list[Launch]:
    """indices[o, j, i]: where in x[o, :, i] the j-th best element lies; both dense, indices int64."""
    rows = outer * inner
    if rows * k == 0:
        return []
    per_task = max(1, min(rows, _TASK_ELEMENTS // max(count, 1)))
    kernel = handwritten("topk", "topk:factory", dtype=dtype, largest=largest, dense=inner == 1)
    args = (x, indices, count, inner, k, rows, per_task)
    moved = rows * (count * SIZES[dtype] + 8 * k)
    return [Launch(kernel, args, -(-rows // per_task), 16 * k + 64, f"{k} of {count}, {rows} rows", 0, moved)]


def factory(dtype: str, largest: bool, dense: bool) -> Callable:
    """The kernel of `topk`; `dense`: inner is 1."""
    from . import simd

    size, words, store = SIZES[dtype], simd.block, simd.store("i64")
    load, key, sink, better = simd.load(dtype, 0), _key(dtype, largest), _sink(), _better(dtype, largest)
    lanes = _lanes(dtype)

    def kernel(args, task, scratch):
        count, inner, k = args[2], args[3], args[4]
        heap, step = words(scratch), inner * size
        first = task * args[6]
        for row in range(first, min(first + args[6], args[5])):
            x = args[0] + (row // inner * count * inner + row % inner) * size
            out = args[1] + (row // inner * k * inner + row % inner) * 8
            for i in range(k):
                heap[2 * i], heap[2 * i + 1] = key(load(x + i * step)), i
            for i in range(k // 2 - 1, -1, -1):
                sink(scratch, i, k)
            i, worst = k, load(x + heap[1] * step)
            while i < count:
                if dense:
                    while i + lanes <= count and not better(x + i * size, worst):
                        i += lanes
                for j in range(i, min(i + lanes, count)):
                    value = key(load(x + j * step))
                    # an equal element that comes later is worse
                    if value > heap[0]:
                        heap[0], heap[1] = value, j
                        sink(scratch, 0, k)
                        worst = load(x + heap[1] * step)
                i += lanes
            for last in range(k - 1, -1, -1):
                store(out + last * inner * 8, heap[1])
                heap[0], heap[1] = heap[2 * last], heap[2 * last + 1]
                sink(scratch, 0, last)

    return kernel


def _lanes(dtype: str) -> int:
    return target.current().lanes * 4 // max(SIZES[dtype], 4 if dtype in ("f16", "bf16") else 1)


def _key(dtype: str, largest: bool) -> Callable:
    """``key(value)``: an int64 that is greater for better values."""
    from . import emit, simd

    register = emit.register(dtype)

    def key(x):
        if emit.is_float(register):
            bits = emit.BITS[register]
            whole = (x + 0.0).bits(f"i{bits}")
            whole = whole ^ ((whole >> (bits - 1)) & ((1 << (bits - 1)) - 1))
            whole = whole.select(x.isnan(), whole.like((1 << (bits - 1)) - 1), whole).cast("i64")
        elif register == "u64":
            whole = x.bits("i64") ^ (-1 << 63)
        else:
            whole = x.cast("i64")
        return whole if largest else ~whole

    return simd.lift(key, "key")


def _better(dtype: str, largest: bool) -> Callable:
    """``better(address, worst)``: whether a vector holds anything that may be better than a value."""
    from numba.core import types
    from numba.core.typing.templates import signature
    from numba.extending import intrinsic

    from . import emit, simd

    lanes, register = _lanes(dtype), emit.register(dtype)

    @intrinsic
    def better(typingctx, address, worst):
        def generate(context, builder, sig, args):
            where = emit.pointer(builder, args[0], emit.stored(dtype, lanes))
            x = emit.from_memory(builder, builder.load(where, align=SIZES[dtype]), dtype, lanes)
            bound = emit.splat(simd.unwrap(builder, sig.args[1], args[1]), lanes)
            # a comparison that NaN fails on either side
            found = ~((x <= bound) if largest else (x >= bound))
            word = emit.ir.IntType(lanes)
            return builder.icmp_unsigned("!=", builder.bitcast(found.v, word), emit.ir.Constant(word, 0))

        return signature(types.boolean, types.int64, simd.numba_type(register, 0)), generate

    return better


def _sink() -> Callable:
    """``sink(heap, at, count)``: let the pair at `at` sink to its place in a heap of (key, index), the worst on top."""
    from . import simd
    from .subroutine import subroutine

    words = simd.block

    @subroutine
    def sink(heap, at, count):
        h = words(heap)
        key, index = h[2 * at], h[2 * at + 1]
        child = 2 * at + 1
        while child < count:
            other = child + 1
            if other < count and (
                h[2 * other] < h[2 * child] or (h[2 * other] == h[2 * child] and h[2 * other + 1] > h[2 * child + 1])
            ):
                child = other
            if h[2 * child] > key or (h[2 * child] == key and h[2 * child + 1] < index):
                break
            h[2 * at], h[2 * at + 1] = h[2 * child], h[2 * child + 1]
            at, child = child, 2 * child + 1
        h[2 * at], h[2 * at + 1] = key, index

    return sink
