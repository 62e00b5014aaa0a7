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
    """The word at an address; what was written before it was stored is seen."""

    def generate(context, builder, sig, args):
        return builder.load_atomic(_at(builder, args[0]), "acquire", 8)

    return signature(types.int64, types.int64), generate


@intrinsic
def store(typingctx, address, value):
    """Write a word after everything before it."""

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
def yield_cpu(typingctx, function):
    """Call ``int sched_yield(void)`` at an address; nothing if the address is 0."""

    def generate(context, builder, sig, args):
        with builder.if_then(builder.icmp_signed("!=", args[0], ir.Constant(_WORD, 0))):
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return signature(types.void, types.int64), generate


@intrinsic
def cycles(typingctx):
    """The CPU's cycle counter."""

    def generate(context, builder, sig, args):
        function = builder.module.declare_intrinsic("llvm.readcyclecounter", (), ir.FunctionType(_WORD, []))
        return builder.call(function, [])

    return signature(types.int64), generate
