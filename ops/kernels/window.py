"""Register tiles of kernels that slide a window over a channels-last image: depthwise convolution and pooling.

A tile is an LLVM loop nest over the taps of the window (depth, row, column) with its accumulators in registers,
around it a loop over vectors of channels. Importing this imports numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from . import emit, simd
from .emit import E

WORD = ir.IntType(64)


class Code:
    """A builder with the few operations that tiles are written with; integers are i64 values."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int) -> None:
        self.builder, self.dtype, self.lanes = builder, dtype, lanes
        self.kind, self.size = emit.register(dtype), emit.SIZES[dtype]

    def word(self, value: int) -> E:
        """An integer constant."""
        return E(self.builder, ir.Constant(WORD, value), "i64", 0)

    def words(self, values: list[ir.Value]) -> list[E]:
        """int64 arguments."""
        return [E(self.builder, v, "i64", 0) for v in values]

    def argument(self, block: ir.Value, index: int) -> E:
        """Word `index` of an argument block."""
        return E(self.builder, self.builder.load(self.builder.gep(block, [ir.Constant(WORD, index)])), "i64", 0)

    def number(self, word: E) -> E:
        """The float64 with the bits of `word`, in every lane, as the element type."""
        one = E(self.builder, self.builder.bitcast(word.v, ir.DoubleType()), "f64", 0)
        return emit.splat(one.cast(self.kind), self.lanes)

    def of_lanes(self, lanes: int) -> Code:
        """The same builder with vectors of another width."""
        return Code(self.builder, self.dtype, lanes)

    def first(self, count: E) -> E:
        """b1: the first lanes of a vector; `count` may be such a mask."""
        return count if count.t == "b1" else simd._tail_mask(self.builder, count.v, self.lanes)

    def load(self, address: E, count: E | None = None, dtype: str | None = None) -> E:
        """A vector; with `count`, or the mask of it, zeros from that lane on."""
        dtype = dtype or self.dtype
        kind = emit.stored(dtype, self.lanes)
        where = emit.pointer(self.builder, address.v, kind)
        if count is None:
            raw = self.builder.load(where, align=emit.SIZES[dtype])
        else:
            raw = simd.masked_load(self.builder, where, kind, self.first(count).v, emit.SIZES[dtype])
        return emit.from_memory(self.builder, raw, dtype, self.lanes)

    def store(self, address: E, value: E, count: E | None = None, dtype: str | None = None) -> None:
        """A vector; with `count`, or the mask of it, only its first lanes."""
        dtype = dtype or self.dtype
        kind, raw = emit.stored(dtype, self.lanes), emit.to_memory(value, dtype)
        where = emit.pointer(self.builder, address.v, kind)
        if count is None:
            self.builder.store(raw, where, align=emit.SIZES[dtype])
        else:
            simd.masked_store(self.builder, raw, where, kind, self.first(count).v, emit.SIZES[dtype])

    def put(self, address: E, word: E) -> None:
        """Stores an integer."""
        self.builder.store(word.v, emit.pointer(self.builder, address.v, WORD))

    def scalar(self, address: E, dtype: str) -> E:
        """One element of a register type."""
        where = emit.pointer(self.builder, address.v, emit.element(dtype))
        return E(self.builder, self.builder.load(where, align=emit.SIZES[dtype]), dtype, 0)

    def prefetch(self, address: E, soon: bool = True, once: bool = False) -> None:
        """Asks for the cache line at an address that need not exist: in L1 if needed `soon`, or `once` only, else in L2."""
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        where = self.builder.inttoptr(address.v, byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = emit._declare(self.builder, "llvm.prefetch.p0", kind)
        self.builder.call(function, [where, *(ir.Constant(flag, value) for value in (0, 0 if once else 3 if soon else 2, 1))])

    def unrelated(self, word: E) -> E:
        """The same word, whose origin LLVM forgets: addresses from it are not rebuilt from those of others."""
        kind = ir.FunctionType(WORD, [WORD])
        return word.of(self.builder.asm(kind, "", "=r,0", [word.v], False))

    def keep_rolled(self) -> None:
        """Stops LLVM from unrolling the loop around this place, which only costs compile time in a wide body."""
        nothing = ir.FunctionType(ir.VoidType(), [])
        call = self.builder.asm(nothing, "", "", [], True)
        call.attributes.add("convergent")

    def keep_order(self) -> None:
        """Stops LLVM from moving what reads or writes memory across this place, which takes registers that it then has to spill."""
        nothing = ir.FunctionType(ir.VoidType(), [])
        self.builder.asm(nothing, "", "~{memory}", [], True)

    def variable(self, initial: E) -> Variable:
        """A value that loops may change."""
        return Variable(initial)

    @contextmanager
    def loop(self, count: E) -> Iterator[E]:
        """The body runs with 0, 1 .. count - 1."""
        with cgutils.for_range(self.builder, count.v, intp=WORD) as loop:
            yield E(self.builder, loop.index, "i64", 0)

    @contextmanager
    def when(self, condition: E) -> Iterator[None]:
        """The body runs if the condition holds."""
        with self.builder.if_then(condition.v):
            yield

    @contextmanager
    def taps(self, counts: list[E], steps: list[tuple[E, ...]], start: tuple[E, ...]) -> Iterator[tuple[E, ...]]:
        """The body runs for every tap of a nest of loops, outermost first, with positions that move by `steps`."""
        if not counts:
            yield start
            return
        places = [self.variable(at) for at in start]
        with self.loop(counts[0]):
            with self.taps(counts[1:], steps[1:], tuple(place.get() for place in places)) as at:
                yield at
            for place, step in zip(places, steps[0]):
                place.set(place.get() + step)


class Variable:
    """A register that is assigned more than once: stack memory until LLVM promotes it."""

    def __init__(self, initial: E) -> None:
        self._like = initial
        self._slot = cgutils.alloca_once(initial.b, initial.v.type)
        self.set(initial)

    def get(self) -> E:
        """The present value."""
        return self._like.of(self._like.b.load(self._slot))

    def set(self, value: E) -> None:
        """Replace the value."""
        self._like.b.store(value.v, self._slot)


def leaf(names: str, dtype: str, lanes: int, body: Callable) -> Callable:
    """A numba intrinsic ``f(args, a, b, ...)`` of the argument block and int64 values.

    `body(code, block, *values)` emits it with a `Code`; `names` lists the int64 parameters.
    """
    listed = ", ".join(["block", *names.split()])

    def typing(typingctx, *given):
        given = given[0] if len(given) == 1 and isinstance(given[0], tuple) else given
        plain = signature(types.void, given[0], *[types.int64] * (len(given) - 1))

        def generate(context, builder, sig, values):
            code = Code(builder, dtype, lanes)
            body(code, values[0], *code.words(values[1:]))
            return context.get_dummy_value()

        return plain, generate

    scope = {"typing": typing}
    exec(f"def tile(typingctx, {listed}):\n    return typing(typingctx, {listed})", scope)
    return intrinsic(scope["tile"])


def over_channels(code: Code, count: E, body: Callable[[E, int, E | None], None], wide: int = 1) -> None:
    """`body(byte offset, vectors, lanes left or None)` over `count` channels, most of them `wide` vectors at a time.

    Single vectors follow, then the rest of the lanes.
    """
    step, done = code.lanes * code.size, code.word(0)
    rest = count
    if wide > 1:
        groups = count / (wide * code.lanes)
        with code.loop(groups) as i:
            body(i * (wide * step), wide, None)
        done, rest = groups * (wide * step), count - groups * (wide * code.lanes)
    vectors = rest / code.lanes
    with code.loop(vectors) as i:
        body(done + i * step, 1, None)
    left = rest - vectors * code.lanes
    with code.when(left > 0):
        body(done + vectors * step, 1, left)
