"""Vectors inside numba functions: a `Vec` type, its operators, and loads and stores by address.

A kernel handles addresses (int64) and vectors. `namespace(lanes)` gives the names that generated source uses, with
the width of the current target; hand-built kernels import what they need:

    load, store = simd.load("f32", 16), simd.store("f32")
    v = load(address)            # Vec of 16 float32
    store(address, fma(v, 2.0, v))

Element types are those of `emit`; memory types add f16 and bf16 (computed as f32). Every function that takes a `Vec`
also takes a mask or scalars where that has a meaning. Importing this module imports numba.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import cache, lru_cache

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.imputils import lower_builtin, lower_cast
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from . import emit, target
from .emit import E


class Vec(types.Type):
    """The numba type of `lanes` elements of an `emit` element type."""

    def __init__(self, dtype: str, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"{dtype}x{lanes}")


@register_default(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager, kind: Vec) -> None:
        super().__init__(manager, kind, emit.llvm_type(kind.dtype, kind.lanes))


@cache
def vec(dtype: str, lanes: int) -> Vec:
    """The vector type; one object a kind."""
    return Vec(dtype, lanes)


_LINE = 64  # bytes of a cache line
_SCALARS = {
    types.float32: "f32",
    types.float64: "f64",
    types.boolean: "b1",
    **{getattr(types, f"int{n}"): f"i{n}" for n in (8, 16, 32, 64)},
    **{getattr(types, f"uint{n}"): f"u{n}" for n in (8, 16, 32, 64)},
}
_NUMBA = {name: kind for kind, name in _SCALARS.items()}


def _scalar_of(kind: types.Type) -> str | None:
    if isinstance(kind, types.Literal):
        kind = kind.literal_type
    return _SCALARS.get(kind)


def unwrap(builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> E:
    """A numba value as an E."""
    if isinstance(kind, Vec):
        return E(builder, value, kind.dtype, kind.lanes)
    return E(builder, value, _scalar_of(kind), 0)


def numba_type(dtype: str, lanes: int) -> types.Type:
    """The numba type of an E."""
    return vec(dtype, lanes) if lanes else _NUMBA[dtype]


def _fit(e: E, dtype: str, lanes: int) -> E:
    """A scalar converted and spread to the wanted vector type; a vector as it is."""
    e = e.cast(dtype) if e.n == 0 else e
    return emit.splat(e, lanes) if e.n == 0 and lanes else e


# -- operators between vectors, and between a vector and a scalar
_BINARY = {
    operator.add: operator.add, operator.sub: operator.sub, operator.mul: operator.mul,
    operator.truediv: operator.truediv, operator.mod: operator.mod,
    operator.and_: operator.and_, operator.or_: operator.or_, operator.xor: operator.xor,
    operator.lshift: operator.lshift, operator.rshift: operator.rshift,
    operator.lt: operator.lt, operator.le: operator.le, operator.gt: operator.gt, operator.ge: operator.ge,
    operator.eq: operator.eq, operator.ne: operator.ne,
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
}  # fmt: skip
_COMPARE = {operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne}


def _joint(a: types.Type, b: types.Type) -> Vec | None:
    if isinstance(a, Vec) and isinstance(b, Vec):
        return a if a == b else None
    if isinstance(a, Vec) and _scalar_of(b):
        return a
    return b if isinstance(b, Vec) and _scalar_of(a) else None


def _define_binary(function: Callable, meaning: Callable) -> None:
    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) != 2 or kws:
                return None
            joint = _joint(*args)
            if joint is None:
                return None
            result = vec("b1", joint.lanes) if function in _COMPARE else joint
            return signature(result, *args)

    def lower(context, builder, sig, args):
        joint = _joint(*sig.args)
        a, b = (_fit(unwrap(builder, kind, value), joint.dtype, joint.lanes) for kind, value in zip(sig.args, args))
        return meaning(a, b).v

    for left, right in ((Vec, Vec), (Vec, types.Any), (types.Any, Vec)):
        lower_builtin(function, left, right)(lower)


def _define_unary(function: Callable) -> None:
    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 1 and isinstance(args[0], Vec):
                return signature(args[0], args[0])
            return None

    @lower_builtin(function, Vec)
    def lower(context, builder, sig, args):
        return function(unwrap(builder, sig.args[0], args[0])).v


for _function, _meaning in _BINARY.items():
    _define_binary(_function, _meaning)
for _function in (operator.neg, operator.invert):
    _define_unary(_function)


@lower_cast(Vec, Vec)
def _same(context, builder, fromty, toty, value):
    return value


# -- functions of values, written on E
def lift(function: Callable[..., E], name: str | None = None) -> Callable:
    """A numba function from one on E values. All vector arguments have one width; scalars are spread to it.

    The first vector argument (else the first argument) gives the element type that scalar arguments convert to.
    Works on scalars alone too. The function may return any element type.
    """

    def typed(args: tuple[types.Type, ...]) -> tuple[str, int]:
        lead = next((a for a in args if isinstance(a, Vec)), None)
        # a mask that leads (select) is not what the scalars convert to
        lead = next((a for a in args if isinstance(a, Vec) and a.dtype != "b1"), lead)
        if lead is not None:
            return lead.dtype, lead.lanes
        floats = [a for a in args if _scalar_of(a) in ("f32", "f64")]
        return _scalar_of((floats or list(args))[0]), 0

    def arguments(builder, kinds, values) -> list[E]:
        dtype, lanes = typed(kinds)
        return [_fit(unwrap(builder, k, v), dtype, lanes) for k, v in zip(kinds, values)]

    def result_type(args: tuple[types.Type, ...]) -> types.Type:
        scratch = ir.IRBuilder(ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), []), "scratch").append_basic_block())
        values = [
            ir.Constant(emit.llvm_type(a.dtype, a.lanes) if isinstance(a, Vec) else emit.element(_scalar_of(a)),
                        ir.Undefined)
            for a in args
        ]  # fmt: skip
        made = function(*arguments(scratch, args, values))
        return numba_type(made.t, made.n)

    cached = lru_cache(maxsize=None)(result_type)

    def typing(typingctx, *args):
        args = args[0] if len(args) == 1 and isinstance(args[0], tuple) else args
        plain = tuple(a.literal_type if isinstance(a, types.Literal) else a for a in args)

        def generate(context, builder, sig, values):
            return function(*arguments(builder, sig.args, values)).v

        return signature(cached(plain), *plain), generate

    return intrinsic(_with_arity(typing, function, name))


def _with_arity(typing: Callable, function: Callable, name: str | None) -> Callable:
    """numba reads an intrinsic's arity from its signature: give it the one of `function`."""
    parameters = list(function.__code__.co_varnames[: function.__code__.co_argcount])
    scope = {"typing": typing}
    called = name or function.__name__
    exec(f"def {called}(typingctx, {', '.join(parameters)}):\n    return typing(typingctx, {', '.join(parameters)})", scope)
    made = scope[called]
    made.__doc__ = function.__doc__
    return made


def _select(mask: E, yes: E, no: E) -> E:
    """`yes` where the mask is set, else `no`."""
    # where all are scalars, or only the mask is one, `lift` has converted it as it does every scalar
    return yes.select(mask.cast("b1"), yes, no)


fma = lift(lambda a, b, c: a.fma(b, c), "fma")
select = lift(_select, "select")
minimum = lift(E.minimum, "minimum")
maximum = lift(E.maximum, "maximum")
at_least = lift(E.at_least, "at_least")
at_most = lift(E.at_most, "at_most")
absolute = lift(E.abs, "absolute")
sqrt = lift(E.sqrt, "sqrt")
floor = lift(E.floor, "floor")
ceil = lift(E.ceil, "ceil")
trunc = lift(E.trunc, "trunc")
rint = lift(E.rint, "rint")
rounded_f16 = lift(lambda x: emit.rounded(x, "f16"), "rounded_f16")
copysign = lift(E.copysign, "copysign")
isnan = lift(E.isnan, "isnan")


@cache
def to(dtype: str) -> Callable:
    """``to("f32")(x)``: x converted lane by lane, as C converts."""
    return lift(lambda x: x.cast(dtype), f"to_{dtype}")


@cache
def bits(dtype: str) -> Callable:
    """``bits("u32")(x)``: the same bits as another type of the same size."""
    return lift(lambda x: x.bits(dtype), f"bits_{dtype}")


# -- reductions over lanes
def across(combine: Callable[[E, E], E]) -> Callable[[E], E]:
    """A function that makes of a vector what `combine` makes of all its lanes, in every lane."""

    def reduce(x: E) -> E:
        lanes, width = x.n, x.n
        undefined = ir.Constant(emit.llvm_type(x.t, lanes), ir.Undefined)
        index = ir.IntType(32)
        while width > 1:
            width //= 2
            order = ir.Constant(ir.VectorType(index, lanes), [ir.Constant(index, i ^ width) for i in range(lanes)])
            x = combine(x, x.of(x.b.shuffle_vector(x.v, undefined, order)))
        # LLVM does not see that all lanes are equal, and would keep as many registers as the vector has
        one = x.b.extract_element(x.v, ir.Constant(index, 0))
        return emit.splat(E(x.b, one, x.t, 0), lanes) if lanes else x

    return reduce


reduce_add = lift(lambda x: across(operator.add)(x), "reduce_add")
reduce_mul = lift(lambda x: across(operator.mul)(x), "reduce_mul")
reduce_minimum = lift(lambda x: across(E.minimum)(x), "reduce_minimum")
reduce_maximum = lift(lambda x: across(E.maximum)(x), "reduce_maximum")
reduce_maximum_number = lift(lambda x: across(E.at_least)(x), "reduce_maximum_number")
reduce_and = lift(lambda x: across(operator.and_)(x), "reduce_and")
reduce_or = lift(lambda x: across(operator.or_)(x), "reduce_or")


@intrinsic
def first(typingctx, x):
    """Lane 0 of a vector as a scalar."""

    def generate(context, builder, sig, args):
        return builder.extract_element(args[0], ir.Constant(ir.IntType(32), 0))

    return signature(_NUMBA[x.dtype], x), generate


# -- memory
def _index(builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> ir.Value:
    e = unwrap(builder, kind, value)
    return e.cast("i64").v


def _tail_mask(builder: ir.IRBuilder, count: ir.Value, lanes: int) -> E:
    """b1: lane index below `count`."""
    here = emit.iota(builder, "i64", lanes)
    return here < emit.splat(E(builder, count, "i64", 0), lanes)


@cache
def load(dtype: str, lanes: int) -> Callable:
    """``load(dtype, lanes)(address)``: `lanes` consecutive elements; lanes = 0 gives a scalar. No alignment needed."""

    def typing(typingctx, address):
        def generate(context, builder, sig, args):
            where = emit.pointer(builder, _index(builder, sig.args[0], args[0]), emit.stored(dtype, lanes))
            raw = builder.load(where, align=emit.SIZES[dtype])
            return emit.from_memory(builder, raw, dtype, lanes).v

        return signature(numba_type(emit.register(dtype), lanes), address), generate

    typing.__name__ = f"load_{dtype}"
    return intrinsic(typing)


@cache
def load_first(dtype: str, lanes: int) -> Callable:
    """``load_first(dtype, lanes)(address, count)``: the first `count` elements, zero in the other lanes."""

    def typing(typingctx, address, count):
        def generate(context, builder, sig, args):
            raw_type = emit.stored(dtype, lanes)
            where = emit.pointer(builder, _index(builder, sig.args[0], args[0]), raw_type)
            mask = _tail_mask(builder, _index(builder, sig.args[1], args[1]), lanes)
            raw = masked_load(builder, where, raw_type, mask.v, emit.SIZES[dtype])
            return emit.from_memory(builder, raw, dtype, lanes).v

        return signature(vec(emit.register(dtype), lanes), address, count), generate

    typing.__name__ = f"load_first_{dtype}"
    return intrinsic(typing)


@cache
def load_strided(dtype: str, lanes: int) -> Callable:
    """``load_strided(dtype, lanes)(address, stride, count)``: elements `stride` bytes apart, zero from `count` on."""

    def typing(typingctx, address, stride, count):
        def generate(context, builder, sig, args):
            base, step, count_ = (_index(builder, k, v) for k, v in zip(sig.args, args))
            offsets = emit.iota(builder, "i64", lanes) * emit.splat(E(builder, step, "i64", 0), lanes)
            places = offsets + emit.splat(E(builder, base, "i64", 0), lanes)
            raw = _gather(builder, places, dtype, _tail_mask(builder, count_, lanes))
            return emit.from_memory(builder, raw, dtype, lanes).v

        return signature(vec(emit.register(dtype), lanes), address, stride, count), generate

    typing.__name__ = f"load_strided_{dtype}"
    return intrinsic(typing)


@cache
def gather(dtype: str) -> Callable:
    """``gather(dtype)(addresses, mask)``: one element from each int64 address, zero where the mask is not set."""

    def typing(typingctx, addresses, mask):
        def generate(context, builder, sig, args):
            places, chosen = (unwrap(builder, k, v) for k, v in zip(sig.args, args))
            raw = _gather(builder, places, dtype, chosen)
            return emit.from_memory(builder, raw, dtype, places.n).v

        return signature(vec(emit.register(dtype), addresses.lanes), addresses, mask), generate

    typing.__name__ = f"gather_{dtype}"
    return intrinsic(typing)


def _gather(builder: ir.IRBuilder, places: E, dtype: str, mask: E) -> ir.Value:
    lanes, raw_type, one = places.n, emit.stored(dtype, places.n), emit.stored(dtype, 0)
    pointers = builder.inttoptr(places.v, ir.VectorType(one.as_pointer(), lanes))
    name = f"llvm.masked.gather.v{lanes}{_suffix(one)}.v{lanes}p0"
    return _masked_call(builder, name, raw_type, pointers, mask.v, emit.SIZES[dtype])


def _suffix(one: ir.Type) -> str:
    return {"float": "f32", "double": "f64"}.get(str(one)) or str(one)


def masked_load(builder: ir.IRBuilder, where: ir.Value, raw_type: ir.Type, mask: ir.Value, align: int) -> ir.Value:
    """llvm.masked.load with zero in the lanes that are off."""
    name = f"llvm.masked.load.v{raw_type.count}{_suffix(raw_type.element)}.p0"
    return _masked_call(builder, name, raw_type, where, mask, align)


def _masked_call(builder, name: str, raw_type: ir.Type, where: ir.Value, mask: ir.Value, align: int) -> ir.Value:
    index = ir.IntType(32)
    zero = ir.Constant(raw_type, None)
    kind = ir.FunctionType(raw_type, [where.type, index, mask.type, raw_type])
    function = emit._declare(builder, name, kind)
    return builder.call(function, [where, ir.Constant(index, align), mask, zero])


@cache
def store(dtype: str) -> Callable:
    """``store(dtype)(address, value)``: a vector or scalar, converted to `dtype` if it differs, to memory."""

    def typing(typingctx, address, value):
        def generate(context, builder, sig, args):
            e = unwrap(builder, sig.args[1], args[1]).cast(emit.register(dtype))
            where = emit.pointer(builder, _index(builder, sig.args[0], args[0]), emit.stored(dtype, e.n))
            builder.store(emit.to_memory(e, dtype), where, align=emit.SIZES[dtype])
            return context.get_dummy_value()

        return signature(types.void, address, value), generate

    typing.__name__ = f"store_{dtype}"
    return intrinsic(typing)


@cache
def stream(dtype: str) -> Callable:
    """``stream(dtype)(address, value, far)``: `store`; past the caches if `far` is not 0, for places that are multiples of a line.

    Other threads see what is stored past the caches after a `fence`.
    """

    def typing(typingctx, address, value, far):
        def generate(context, builder, sig, args):
            e = unwrap(builder, sig.args[1], args[1]).cast(emit.register(dtype))
            where = emit.pointer(builder, _index(builder, sig.args[0], args[0]), emit.stored(dtype, e.n))
            raw, far = emit.to_memory(e, dtype), _index(builder, sig.args[2], args[2])
            with builder.if_else(builder.icmp_signed("!=", far, ir.Constant(far.type, 0))) as (past, plain):
                with past:
                    made = builder.store(raw, where, align=min(_LINE, emit.SIZES[dtype] * e.n))
                    made.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
                with plain:
                    builder.store(raw, where, align=emit.SIZES[dtype])
            return context.get_dummy_value()

        return signature(types.void, address, value, far), generate

    typing.__name__ = f"stream_{dtype}"
    return intrinsic(typing)


@intrinsic
def fence(typingctx):
    """What was stored before, past the caches too, is seen by other threads before what is stored afterwards."""

    def generate(context, builder, sig, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return signature(types.void), generate


@cache
def prefetch(dtype: str, lanes: int, soon: bool = True) -> Callable:
    """``prefetch(dtype, lanes)(address)``: ask for the cache lines of a vector's elements, in L1 if needed `soon`, else in L2."""
    size = emit.SIZES[dtype] * lanes

    def typing(typingctx, address):
        def generate(context, builder, sig, args):
            base = _index(builder, sig.args[0], args[0])
            index, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            function = emit._declare(builder, "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [byte, index, index, index]))
            for line in range(0, size, _LINE):
                where = builder.inttoptr(builder.add(base, ir.Constant(base.type, line)), byte)
                builder.call(function, [where, *(ir.Constant(index, v) for v in (0, 3 if soon else 2, 1))])
            return context.get_dummy_value()

        return signature(types.void, address), generate

    typing.__name__ = f"prefetch_{dtype}"
    return intrinsic(typing)


@cache
def store_first(dtype: str) -> Callable:
    """``store_first(dtype)(address, value, count)``: the first `count` lanes."""

    def typing(typingctx, address, value, count):
        def generate(context, builder, sig, args):
            e = unwrap(builder, sig.args[1], args[1]).cast(emit.register(dtype))
            raw_type = emit.stored(dtype, e.n)
            where = emit.pointer(builder, _index(builder, sig.args[0], args[0]), raw_type)
            mask = _tail_mask(builder, _index(builder, sig.args[2], args[2]), e.n)
            masked_store(builder, emit.to_memory(e, dtype), where, raw_type, mask.v, emit.SIZES[dtype])
            return context.get_dummy_value()

        return signature(types.void, address, value, count), generate

    typing.__name__ = f"store_first_{dtype}"
    return intrinsic(typing)


def masked_store(builder, value: ir.Value, where: ir.Value, raw_type: ir.Type, mask: ir.Value, align: int) -> None:
    """llvm.masked.store: lanes that are off keep what memory holds."""
    index = ir.IntType(32)
    name = f"llvm.masked.store.v{raw_type.count}{_suffix(raw_type.element)}.p0"
    kind = ir.FunctionType(ir.VoidType(), [raw_type, where.type, index, mask.type])
    builder.call(emit._declare(builder, name, kind), [value, where, ir.Constant(index, align), mask])


@cache
def store_strided(dtype: str) -> Callable:
    """``store_strided(dtype)(address, stride, value, count)``: the first `count` lanes, `stride` bytes apart."""

    def typing(typingctx, address, stride, value, count):
        def generate(context, builder, sig, args):
            e = unwrap(builder, sig.args[2], args[2]).cast(emit.register(dtype))
            base, step, count_ = (_index(builder, sig.args[i], args[i]) for i in (0, 1, 3))
            offsets = emit.iota(builder, "i64", e.n) * emit.splat(E(builder, step, "i64", 0), e.n)
            places = offsets + emit.splat(E(builder, base, "i64", 0), e.n)
            one, raw_type, index = emit.stored(dtype, 0), emit.stored(dtype, e.n), ir.IntType(32)
            pointers = builder.inttoptr(places.v, ir.VectorType(one.as_pointer(), e.n))
            mask = _tail_mask(builder, count_, e.n)
            name = f"llvm.masked.scatter.v{e.n}{_suffix(one)}.v{e.n}p0"
            kind = ir.FunctionType(ir.VoidType(), [raw_type, pointers.type, index, mask.v.type])
            align = ir.Constant(index, emit.SIZES[dtype])
            builder.call(emit._declare(builder, name, kind), [emit.to_memory(e, dtype), pointers, align, mask.v])
            return context.get_dummy_value()

        return signature(types.void, address, stride, value, count), generate

    typing.__name__ = f"store_strided_{dtype}"
    return intrinsic(typing)


@cache
def splat(dtype: str, lanes: int) -> Callable:
    """``splat(dtype, lanes)(x)``: a scalar in every lane, converted to `dtype`."""

    def typing(typingctx, x):
        def generate(context, builder, sig, args):
            return emit.splat(unwrap(builder, sig.args[0], args[0]).cast(dtype), lanes).v

        return signature(vec(dtype, lanes), x), generate

    typing.__name__ = f"splat_{dtype}"
    return intrinsic(typing)


@cache
def iota(dtype: str, lanes: int) -> Callable:
    """``iota(dtype, lanes)()``: 0, 1, 2 ... in the lanes."""

    def typing(typingctx):
        def generate(context, builder, sig, args):
            return emit.iota(builder, dtype, lanes).v

        return signature(vec(dtype, lanes)), generate

    typing.__name__ = f"iota_{dtype}"
    return intrinsic(typing)


@cache
def first_lanes(lanes: int) -> Callable:
    """``first_lanes(lanes)(count)``: the mask of lanes below `count`."""

    def typing(typingctx, count):
        def generate(context, builder, sig, args):
            return _tail_mask(builder, _index(builder, sig.args[0], args[0]), lanes).v

        return signature(vec("b1", lanes), count), generate

    typing.__name__ = "first_lanes"
    return intrinsic(typing)


@intrinsic
def float_argument(typingctx, word):
    """The float64 whose bits are an int64 word of an argument block."""

    def generate(context, builder, sig, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return signature(types.float64, types.int64), generate


@intrinsic
def block(typingctx, address):
    """An address as an argument block: a pointer to int64 that can be indexed."""

    def generate(context, builder, sig, args):
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return signature(types.CPointer(types.int64), types.int64), generate


@intrinsic
def address(typingctx, block):
    """The address of an argument block."""

    def generate(context, builder, sig, args):
        return builder.ptrtoint(args[0], ir.IntType(64))

    return signature(types.int64, block), generate


@intrinsic
def call_kernel(typingctx, kernel, args, task, scratch):
    """Call the kernel at address `kernel` on the block at address `args`."""
    word = ir.IntType(64)

    def generate(context, builder, sig, values):
        kind = ir.FunctionType(ir.VoidType(), [word.as_pointer(), word, word])
        function = builder.inttoptr(values[0], kind.as_pointer())
        arguments = builder.inttoptr(values[1], word.as_pointer())
        builder.call(function, [arguments, values[2], values[3]])
        return context.get_dummy_value()

    return signature(types.void, types.int64, types.int64, types.int64, types.int64), generate


@cache
def namespace(lanes: int | None = None) -> dict[str, object]:
    """The names that generated source sees, for vectors of `lanes` (default: the target's float32 width)."""
    from . import vmath, walk

    width = lanes or target.current().lanes
    names: dict[str, object] = {"inf": math.inf, "nan": math.nan, "LANES": width, "first_lanes": first_lanes(width)}
    for dtype in emit.SIZES:
        names[f"load_{dtype}"] = load(dtype, width)
        names[f"load_first_{dtype}"] = load_first(dtype, width)
        names[f"load_strided_{dtype}"] = load_strided(dtype, width)
        names[f"load_one_{dtype}"] = load(dtype, 0)
        names[f"store_{dtype}"] = store(dtype)
        names[f"stream_{dtype}"] = stream(dtype)
        names[f"prefetch_{dtype}"] = prefetch(dtype, width)
        names[f"store_first_{dtype}"] = store_first(dtype)
        names[f"store_strided_{dtype}"] = store_strided(dtype)
        names[f"gather_{dtype}"] = gather(dtype)
    for dtype in emit.BITS:
        names[f"to_{dtype}"] = to(dtype)
        names[f"splat_{dtype}"] = splat(dtype, width)
        if dtype != "b1":
            names[f"iota_{dtype}"] = iota(dtype, width)
            names[f"bits_{dtype}"] = bits(dtype)
    values = (
        fma, select, minimum, maximum, at_least, at_most, absolute, sqrt, floor, ceil, trunc, rint, copysign, isnan,
        rounded_f16, reduce_add, reduce_mul, reduce_minimum, reduce_maximum, reduce_maximum_number, reduce_and, reduce_or, first,
        float_argument, fence, block, call_kernel, walk.walk_from, walk.walk_on,
    )  # fmt: skip
    names.update({value._name: value for value in values})
    names.update(vmath.functions())
    return names
