"""LLVM IR written as Python expressions: `E` is an IR vector (or scalar) that knows its element type.

`simd` and `vmath` are written with it, once for every width. Element types: f32 f64, i8 i16 i32 i64, u8 u16 u32 u64, b1
(a lane mask). Arithmetic is IEEE 754 for floats and wraps for integers, as ONNX and numpy define; integer division
and shifts never trap. f16 and bf16 exist in memory only and are computed as f32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from . import target

BITS = {"b1": 1, "f32": 32, "f64": 64, **{f"{s}{n}": n for s in "iu" for n in (8, 16, 32, 64)}}
# bytes of one element in memory
SIZES = {"b1": 1, "f16": 2, "bf16": 2, **{t: n // 8 for t, n in BITS.items() if n > 1}}


def is_float(dtype: str) -> bool:
    """Whether the element type is a floating-point register type."""
    return dtype in ("f32", "f64")


def is_signed(dtype: str) -> bool:
    """Whether the element type is a signed integer."""
    return dtype[0] == "i"


def element(dtype: str) -> ir.Type:
    """The LLVM type of one element in a register."""
    if is_float(dtype):
        return ir.FloatType() if dtype == "f32" else ir.DoubleType()
    return ir.IntType(BITS[dtype])


def llvm_type(dtype: str, lanes: int) -> ir.Type:
    """The LLVM type of `lanes` elements; `lanes` = 0 means a scalar."""
    return ir.VectorType(element(dtype), lanes) if lanes else element(dtype)


@dataclass(frozen=True, eq=False)
class E:
    """An IR value `v` of `n` lanes (0: scalar) of element type `t`, and the builder `b` that adds to it."""

    b: ir.IRBuilder
    v: ir.Value
    t: str
    n: int

    # -- making values
    def like(self, value: float | int) -> E:
        """A constant of this value's type in every lane."""
        if is_float(self.t):
            one = ir.Constant(element(self.t), float(value))
        else:
            one = ir.Constant(element(self.t), int(value))
        return self.of(ir.Constant(llvm_type(self.t, self.n), [one] * self.n) if self.n else one)

    def of(self, value: ir.Value, dtype: str | None = None) -> E:
        """The IR value as an E of the same builder and width."""
        return E(self.b, value, dtype or self.t, self.n)

    def _pair(self, other: E | float | int) -> E:
        return other if isinstance(other, E) else self.like(other)

    def call(self, name: str, *args: E | float | int) -> E:
        """A call of the LLVM intrinsic ``llvm.<name>.<type>``, arguments and result of this value's type."""
        return self._call(name, args, ())

    def _call(self, name: str, args: Sequence[E | float | int], flags: tuple[str, ...]) -> E:
        kind = llvm_type(self.t, self.n)
        suffix = (f"v{self.n}" if self.n else "") + self.t.replace("u", "i")
        function = _declare(self.b, f"llvm.{name}.{suffix}", ir.FunctionType(kind, [kind] * (1 + len(args))))
        return self.of(self.b.call(function, [self.v, *(self._pair(a).v for a in args)], fastmath=flags))

    # -- arithmetic
    def __add__(self, other: E | float) -> E:
        o = self._pair(other)
        return self.of((self.b.fadd if is_float(self.t) else self.b.add)(self.v, o.v))

    def __sub__(self, other: E | float) -> E:
        o = self._pair(other)
        return self.of((self.b.fsub if is_float(self.t) else self.b.sub)(self.v, o.v))

    def __mul__(self, other: E | float) -> E:
        o = self._pair(other)
        return self.of((self.b.fmul if is_float(self.t) else self.b.mul)(self.v, o.v))

    def __truediv__(self, other: E | float) -> E:
        o = self._pair(other)
        if is_float(self.t):
            return self.of(self.b.fdiv(self.v, o.v))
        return self._divide(o)[0]

    def __mod__(self, other: E | float) -> E:
        """Remainder with the sign of the dividend (C's fmod and %)."""
        o = self._pair(other)
        if is_float(self.t):
            return self.of(self.b.frem(self.v, o.v))
        return self._divide(o)[1]

    def _divide(self, o: E) -> tuple[E, E]:
        """Quotient (towards zero) and remainder; x / 0 = 0 and lowest / -1 wraps, because the instruction traps."""
        zero = o == 0
        safe = o.select(zero, o.like(1), o)
        if not is_signed(self.t):
            q, r = self.of(self.b.udiv(self.v, safe.v)), self.of(self.b.urem(self.v, safe.v))
            return self.select(zero, self.like(0), q), self.select(zero, self.like(0), r)
        negative = safe == -1
        safe = safe.select(negative, safe.like(1), safe)
        q, r = self.of(self.b.sdiv(self.v, safe.v)), self.of(self.b.srem(self.v, safe.v))
        q = self.select(negative, -self, q)
        return self.select(zero, self.like(0), q), self.select(zero, self.like(0), r)

    def __radd__(self, other: float) -> E:
        return self.like(other) + self

    def __rsub__(self, other: float) -> E:
        return self.like(other) - self

    def __rmul__(self, other: float) -> E:
        return self.like(other) * self

    def __rtruediv__(self, other: float) -> E:
        return self.like(other) / self

    def __neg__(self) -> E:
        return self.of(self.b.fneg(self.v) if is_float(self.t) else self.b.neg(self.v))

    def fma(self, factor: E | float, addend: E | float) -> E:
        """self * factor + addend, rounded once where the CPU can; of integers it wraps."""
        if is_float(self.t) and target.current().fma:
            return self.call("fma", factor, addend)
        return self * factor + addend

    # -- bits
    def __and__(self, other: E | int) -> E:
        return self.of(self.b.and_(self.v, self._pair(other).v))

    def __or__(self, other: E | int) -> E:
        return self.of(self.b.or_(self.v, self._pair(other).v))

    def __xor__(self, other: E | int) -> E:
        return self.of(self.b.xor(self.v, self._pair(other).v))

    def __invert__(self) -> E:
        return self.of(self.b.not_(self.v))

    def __lshift__(self, other: E | int) -> E:
        return self._shift(other, self.b.shl)

    def __rshift__(self, other: E | int) -> E:
        """Arithmetic for signed, logical for unsigned types."""
        return self._shift(other, self.b.ashr if is_signed(self.t) else self.b.lshr)

    def _shift(self, other: E | int, operation) -> E:
        bits = BITS[self.t]
        if not isinstance(other, E):
            return self.of(operation(self.v, self.like(other).v))
        inside = other.cast("u64") < bits if bits == 64 else other.cast("u" + self.t[1:]) < bits
        safe = other.select(inside, other, other.like(0))
        shifted = self.of(operation(self.v, safe.v))
        rest = self >> (bits - 1) if is_signed(self.t) and operation == self.b.ashr else self.like(0)
        return self.select(inside, shifted, rest)

    # -- comparison: a b1 of the same width; false for NaN, but for !=
    def _compare(self, operator: str, other: E | float) -> E:
        o = self._pair(other)
        if is_float(self.t):
            compare = self.b.fcmp_unordered if operator == "!=" else self.b.fcmp_ordered
        else:
            compare = self.b.icmp_signed if is_signed(self.t) else self.b.icmp_unsigned
        return self.of(compare(operator, self.v, o.v), "b1")

    def __lt__(self, other: E | float) -> E:
        return self._compare("<", other)

    def __le__(self, other: E | float) -> E:
        return self._compare("<=", other)

    def __gt__(self, other: E | float) -> E:
        return self._compare(">", other)

    def __ge__(self, other: E | float) -> E:
        return self._compare(">=", other)

    def __eq__(self, other: E | float) -> E:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: E | float) -> E:  # type: ignore[override]
        return self._compare("!=", other)

    __hash__ = None  # type: ignore[assignment]

    def select(self, mask: E, yes: E | float, no: E | float) -> E:
        """`yes` where the mask is set, else `no`, both of this value's type."""
        return self.of(self.b.select(mask.v, self._pair(yes).v, self._pair(no).v))

    def choose(self, mask: E, yes: E, no: E) -> E:
        """`select` that is never made a branch, as LLVM makes of one whose mask compares what was just loaded."""
        chosen = self.b.select(mask.v, yes.v, no.v)
        chosen.set_metadata("unpredictable", self.b.module.add_metadata([]))
        return self.of(chosen)

    def isnan(self) -> E:
        """b1: whether each lane is NaN (never for integers)."""
        return self.of(self.b.fcmp_unordered("uno", self.v, self.v), "b1") if is_float(self.t) else self.cast("b1").like(0)

    # -- minimum and maximum
    def minimum(self, other: E | float) -> E:
        """The smaller; NaN if either is NaN (numpy.minimum, ONNX Min)."""
        o = self._pair(other)
        return self._nan_aware("minimum", o) if is_float(self.t) else self.select(self < o, self, o)

    def maximum(self, other: E | float) -> E:
        """The larger; NaN if either is NaN (numpy.maximum, ONNX Max)."""
        o = self._pair(other)
        return self._nan_aware("maximum", o) if is_float(self.t) else self.select(self > o, self, o)

    def _nan_aware(self, name: str, other: E) -> E:
        """IEEE 754's minimum or maximum but for the sign of zero: one instruction less than with it or with selects."""
        return self._call(name, (other,), ("nsz",))

    def at_least(self, bound: E | float) -> E:
        """max(self, bound) where the bound is not NaN: one instruction; NaN stays NaN."""
        o = self._pair(bound)
        return self.select(self < o, o, self)

    def at_most(self, bound: E | float) -> E:
        """min(self, bound) where the bound is not NaN: one instruction; NaN stays NaN."""
        o = self._pair(bound)
        return self.select(self > o, o, self)

    # -- one-argument functions that are instructions
    def abs(self) -> E:
        """Absolute value; the lowest integer wraps to itself."""
        if is_float(self.t):
            return self.call("fabs")
        return self.select(self < 0, -self, self) if is_signed(self.t) else self

    def sqrt(self) -> E:
        """Correctly rounded square root."""
        return self.call("sqrt")

    def floor(self) -> E:
        """Largest integral value not above."""
        return self.call("floor")

    def ceil(self) -> E:
        """Smallest integral value not below."""
        return self.call("ceil")

    def trunc(self) -> E:
        """Integral part."""
        return self.call("trunc")

    def rint(self) -> E:
        """Nearest integral value, halves to even."""
        return self.call("rint")

    def copysign(self, other: E | float) -> E:
        """This magnitude with the other's sign."""
        return self.call("copysign", other)

    # -- conversion
    def bits(self, dtype: str) -> E:
        """The same bits as another element type of the same size."""
        return self.of(self.b.bitcast(self.v, llvm_type(dtype, self.n)), dtype)

    def cast(self, dtype: str) -> E:
        """Conversion of each lane as C does it; to b1: unequal to zero."""
        if dtype == self.t:
            return self
        if dtype == "b1":
            return self != 0
        kind = llvm_type(dtype, self.n)
        if self.t == "b1":
            wide = "i32" if is_float(dtype) else dtype
            one = self.of(self.b.zext(self.v, llvm_type(wide, self.n)), wide)
            return one.cast(dtype) if is_float(dtype) else one
        return self.of(self._convert(dtype, kind), dtype)

    def _convert(self, dtype: str, kind: ir.Type) -> ir.Value:
        if is_float(self.t) and is_float(dtype):
            return (self.b.fpext if dtype == "f64" else self.b.fptrunc)(self.v, kind)
        if is_float(self.t):
            # through a wider integer, so that an out-of-range value wraps as numpy's does
            through = dtype if BITS[dtype] == 64 else "i64" if BITS[dtype] == 32 and dtype[0] == "u" else "i32"
            if BITS[dtype] == 32 and dtype[0] == "i":
                through = "i32"
            convert = self.b.fptosi if is_signed(through) else self.b.fptoui
            whole = self.of(convert(self.v, llvm_type(through, self.n)), through)
            return whole.cast(dtype).v
        if is_float(dtype):
            return (self.b.sitofp if is_signed(self.t) else self.b.uitofp)(self.v, kind)
        if BITS[dtype] < BITS[self.t]:
            return self.b.trunc(self.v, kind)
        if BITS[dtype] == BITS[self.t]:
            return self.v
        return (self.b.sext if is_signed(self.t) else self.b.zext)(self.v, kind)


def _declare(b: ir.IRBuilder, name: str, kind: ir.FunctionType) -> ir.Function:
    module = b.module
    return module.globals[name] if name in module.globals else ir.Function(module, kind, name)


def constant(b: ir.IRBuilder, dtype: str, lanes: int, value: float | int) -> E:
    """`value` in every lane."""
    return E(b, ir.Constant(ir.IntType(1), 0), dtype, lanes).like(value)


def iota(b: ir.IRBuilder, dtype: str, lanes: int) -> E:
    """0, 1, 2 ... in the lanes."""
    kind = element(dtype)
    return E(b, ir.Constant(llvm_type(dtype, lanes), [ir.Constant(kind, i) for i in range(lanes)]), dtype, lanes)


def first_lane(x: E) -> E:
    """The first lane as a scalar."""
    return E(x.b, x.b.extract_element(x.v, ir.Constant(ir.IntType(32), 0)), x.t, 0)


def splat(one: E, lanes: int) -> E:
    """A scalar in every lane."""
    kind = llvm_type(one.t, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = one.b.insert_element(undefined, one.v, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [ir.Constant(ir.IntType(32), 0)] * lanes)
    return E(one.b, one.b.shuffle_vector(first, undefined, zeros), one.t, lanes)


def outlive(*values: E) -> None:
    """Keeps vectors of x86 in their registers up to this place, so that nothing that comes before takes one over."""
    kind = ir.FunctionType(ir.VoidType(), [value.v.type for value in values])
    values[0].b.asm(kind, "", ",".join("v" * len(values)), [value.v for value in values], True)


def add_pairs(x: E, y: E, total: E) -> E:
    """total + x0 y0 + x1 y1 in each lane of i32, where x and y hold two int16 each; it wraps."""
    step = min(target.current().pair_sums, x.n)
    if not step:
        low = ((x << 16) >> 16) * ((y << 16) >> 16)
        return total + low + (x >> 16) * (y >> 16)
    firsts = range(0, x.n, step)
    parts = [_add_pairs(x.b, *(part(one, first, step).v for one in (x, y, total))) for first in firsts]
    while len(parts) > 1:
        parts = [_side_by_side(x.b, *parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return x.of(parts[0])


def _add_pairs(b: ir.IRBuilder, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
    """`add_pairs` of as many lanes as an instruction has: one with VNNI, else two.

    The additions of the two stay in their order: LLVM, which knows that it does not matter, adds products first and runs out of
    registers.
    """
    count, whole, cpu = x.type.count, x.type, target.current()
    halves = ir.VectorType(ir.IntType(16), 2 * count)
    factors = [b.bitcast(one, halves) for one in (x, y)]
    if cpu.has("avx512vnni"):
        kind = ir.FunctionType(whole, [whole, halves, halves])
        return b.call(_declare(b, f"llvm.x86.avx512.vpdpwssd.{32 * count}", kind), [total, *factors])
    name = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}[count]
    products = b.call(_declare(b, f"llvm.x86.{name}", ir.FunctionType(whole, [halves, halves])), factors)
    constraint = "=v,0" if cpu.has("avx512vl") else "=x,0"  # any register
    return b.asm(ir.FunctionType(whole, [whole]), "", constraint, [b.add(total, products)], False)


def part(x: E, first: int, count: int) -> E:
    """Some lanes of a vector."""
    return x if count == x.n else E(x.b, x.b.shuffle_vector(x.v, x.v, _numbers(first, count)), x.t, count)


def _side_by_side(b: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    return b.shuffle_vector(left, right, _numbers(0, 2 * left.type.count))


def _numbers(first: int, count: int, period: int | None = None) -> ir.Constant:
    index = ir.IntType(32)
    return ir.Constant(ir.VectorType(index, count), [ir.Constant(index, first + i % (period or count)) for i in range(count)])


def lookup(index: E, table: Sequence[float]) -> E:
    """Of a table of 16 float32 numbers, those that the last four bits of i32 lanes say; for CPUs with AVX-512."""
    b = index.b
    if index.n > 16:
        half = index.n // 2
        parts = (part(index, first, half) for first in (0, half))
        return E(b, _side_by_side(b, *(lookup(one, table).v for one in parts)), "f32", index.n)
    lanes = splat(index, 16) if not index.n else index.of(b.shuffle_vector(index.v, index.v, _numbers(0, 16, index.n)))
    kind = llvm_type("f32", 16)
    permute = _declare(b, "llvm.x86.avx512.permvar.sf.512", ir.FunctionType(kind, [kind, lanes.v.type]))
    numbers = ir.Constant(kind, [ir.Constant(ir.FloatType(), number) for number in table])
    found = b.call(permute, [numbers, lanes.v])
    if not index.n:
        return E(b, b.extract_element(found, ir.Constant(ir.IntType(32), 0)), "f32", 0)
    return E(b, b.shuffle_vector(found, found, _numbers(0, index.n)), "f32", index.n)


def pointer(b: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    """An int64 address as a pointer to `kind`."""
    return b.inttoptr(address, kind.as_pointer())


# -- memory: what a type is stored as, and the way between memory and register
def stored(dtype: str, lanes: int) -> ir.Type:
    """The LLVM type in memory: b1 is a byte; f16 and bf16 are 16 bits."""
    bits = {"b1": 8, "f16": 16, "bf16": 16}.get(dtype)
    if bits is None:
        return llvm_type(dtype, lanes)
    return ir.VectorType(ir.IntType(bits), lanes) if lanes else ir.IntType(bits)


def register(dtype: str) -> str:
    """The element type that computes a memory type."""
    return "f32" if dtype in ("f16", "bf16") else dtype


def from_memory(b: ir.IRBuilder, raw: ir.Value, dtype: str, lanes: int) -> E:
    """The register value of what was read as `stored(dtype, lanes)`."""
    if dtype == "b1":
        return E(b, raw, "u8", lanes) != 0
    if dtype == "bf16":
        return (E(b, raw, "u16", lanes).cast("u32") << 16).bits("f32")
    if dtype == "f16":
        return _half_to_float(E(b, raw, "u16", lanes))
    return E(b, raw, dtype, lanes)


def to_memory(value: E, dtype: str) -> ir.Value:
    """What is written for a register value, of type `stored(dtype, lanes)`."""
    if dtype == "b1":
        return value.cast("u8").v
    if dtype == "bf16":
        bits = value.bits("u32")
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        quiet = (bits >> 16) | 0x40
        return bits.select(value.isnan(), quiet, rounded).cast("u16").v
    if dtype == "f16":
        return _float_to_half(value).v
    return value.v


def rounded(value: E, dtype: str) -> E:
    """A register value as it is after it has been stored as `dtype` and read again."""
    return from_memory(value.b, to_memory(value, dtype), dtype, value.n)


def _half_to_float(h: E) -> E:
    if target.current().half:
        half = h.b.bitcast(h.v, ir.VectorType(ir.HalfType(), h.n) if h.n else ir.HalfType())
        return h.of(h.b.fpext(half, llvm_type("f32", h.n)), "f32")
    w = h.cast("u32")
    magnitude, sign = w & 0x7FFF, (w & 0x8000) << 16
    normal = (magnitude << 13) + (112 << 23)
    special = (magnitude << 13) | (255 << 23)
    small = (magnitude.cast("f32") * 2.0**-24).bits("u32")
    bits = w.select(magnitude < 0x400, small, w.select(magnitude >= 0x7C00, special, normal))
    return (bits | sign).bits("f32")


def _float_to_half(x: E) -> E:
    if target.current().half:
        kind = ir.VectorType(ir.HalfType(), x.n) if x.n else ir.HalfType()
        integer = ir.VectorType(ir.IntType(16), x.n) if x.n else ir.IntType(16)
        return x.of(x.b.bitcast(x.b.fptrunc(x.v, kind), integer), "u16")
    w = x.bits("u32")
    sign, magnitude = (w >> 16) & 0x8000, w & 0x7FFFFFFF
    # adding 0.5 aligns a subnormal half's last bit with float's, so the addition rounds it to nearest even
    small = (magnitude.bits("f32") + 0.5).bits("u32") - 0x3F000000
    normal = (magnitude - (112 << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13
    special = w.select(magnitude > 0x7F800000, 0x7E00, 0x7C00)
    bits = w.select(magnitude >= 0x477FF000, special, w.select(magnitude < 0x38800000, small, normal))
    return (bits | sign).cast("u16")
