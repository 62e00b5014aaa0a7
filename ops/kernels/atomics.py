"""Atomic operations on int64 words by address, and the few instructions that waiting needs. Imports numba."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

_WORD = ir.IntType(64)


def _at(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, _WORD.as_pointer())


@intrinsic
def load(typingctx, address):
    """The word at an address, in one total order with all stores (x86: a plain load)."""

    def generate(context, builder, sig, args):
        return builder.load_atomic(_at(builder, args[0]), "seq_cst", 8)

    return signature(types.int64, types.int64), generate


@intrinsic
def store(typingctx, address, value):
    """Write a word; no later load is done before it."""

    def generate(context, builder, sig, args):
        builder.store_atomic(args[1], _at(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return signature(types.void, types.int64, types.int64), generate


@intrinsic
def add(typingctx, address, value):
    """Add to a word; gives what it was."""

    def generate(context, builder, sig, args):
        return builder.atomic_rmw("add", _at(builder, args[0]), args[1], "seq_cst")

    return signature(types.int64, types.int64, types.int64), generate


@intrinsic
def compare_and_swap(typingctx, address, old, new):
    """Write `new` if the word is `old`; whether it was."""

    def generate(context, builder, sig, args):
        pair = builder.cmpxchg(_at(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return signature(types.boolean, types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typingctx):
    """Tell the CPU that this is a waiting loop (x86: pause; nothing elsewhere)."""

    def generate(context, builder, sig, args):
        if "x86" in str(builder.module.triple):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
        return context.get_dummy_value()

    return signature(types.void), generate


@intrinsic
def call_c(typingctx, function, pointer, number):
    """Call the C function ``f(void *, int)`` at an address; one with fewer parameters ignores the rest. Nothing at 0."""

    def generate(context, builder, sig, args):
        with builder.if_then(builder.icmp_signed("!=", args[0], ir.Constant(_WORD, 0))):
            kind = ir.FunctionType(ir.VoidType(), [_WORD, ir.IntType(32)])
            called = builder.inttoptr(args[0], kind.as_pointer())
            builder.call(called, [args[1], builder.trunc(args[2], ir.IntType(32))])
        return context.get_dummy_value()

    return signature(types.void, types.int64, types.int64, types.int64), generate


@intrinsic
def cycles(typingctx):
    """A counter that runs at a steady rate (x86: the time stamp; the cycle counter of ARM is not open to programs)."""

    def generate(context, builder, sig, args):
        name = "llvm.readcyclecounter" if "x86" in str(builder.module.triple) else "llvm.readsteadycounter"
        return builder.call(builder.module.declare_intrinsic(name, (), ir.FunctionType(_WORD, [])), [])

    return signature(types.int64), generate
