"""AVX-512 instructions that take a float apart and put it together, on `emit.E` of any width they divide.

One instruction each for what other targets do with integer arithmetic and special cases: `scale` (VSCALEF), `exponent`
(VGETEXP) and `mantissa` (VGETMANT). Use them only where `usable` says so.
"""

from __future__ import annotations

from llvmlite import ir

from . import emit, target
from .emit import E

_REGISTER = 512
# VGETMANT: mantissa in [1, 2), NaN for negative arguments, sign of zero ignored
_MANTISSA_CONTROL = 0b1100
_CURRENT_ROUNDING = 4


def usable(x: E) -> bool:
    """Whether the CPU has the instructions and x is a vector that fills whole registers."""
    cpu = target.current()
    bits = x.n * emit.BITS[x.t]
    return cpu.has("avx512f") and cpu.has("avx512vl") and (bits in (128, 256) or (bits > 0 and bits % _REGISTER == 0))


def scale(x: E, n: E) -> E:
    """x * 2^n for integral n, rounded once, also where the result overflows or is subnormal."""
    return _each("scalef", (x, n))


def exponent(x: E) -> E:
    """floor(log2 |x|) as a float, exact for subnormals too; -inf for zero, inf for infinities, NaN for NaN."""
    return _each("getexp", (x,))


def mantissa(x: E) -> E:
    """x / 2^exponent(x) in [1, 2); 1 for zero and +inf, NaN for NaN and negative x."""
    return _each("getmant", (x,), ir.Constant(ir.IntType(32), _MANTISSA_CONTROL))


def _each(name: str, values: tuple[E, ...], control: ir.Constant | None = None) -> E:
    """The instruction on each 512-bit part (or on the whole of a narrower vector)."""
    x = values[0]
    lanes = min(x.n, _REGISTER // emit.BITS[x.t])
    parts = [_one(name, [_part(v, at, lanes) for v in values], control) for at in range(0, x.n, lanes)]
    while len(parts) > 1:
        parts = [_join(low, high) for low, high in zip(parts[::2], parts[1::2])]
    return parts[0]


def _one(name: str, values: list[E], control: ir.Constant | None) -> E:
    x = values[0]
    bits = x.n * emit.BITS[x.t]
    kind, mask = emit.llvm_type(x.t, x.n), ir.IntType(max(8, x.n))
    arguments = [v.v for v in values] + ([control] if control is not None else [])
    arguments += [ir.Constant(kind, None), ir.Constant(mask, -1)]
    if bits == _REGISTER:
        arguments.append(ir.Constant(ir.IntType(32), _CURRENT_ROUNDING))
    signature = ir.FunctionType(kind, [a.type for a in arguments])
    full = f"llvm.x86.avx512.mask.{name}.{'ps' if x.t == 'f32' else 'pd'}.{bits}"
    return x.of(x.b.call(emit._declare(x.b, full, signature), arguments))


def _part(x: E, at: int, lanes: int) -> E:
    return x if lanes == x.n else _shuffle(x, x, range(at, at + lanes))


def _join(low: E, high: E) -> E:
    return _shuffle(low, high, range(2 * low.n))


def _shuffle(x: E, y: E, order: range) -> E:
    index = ir.IntType(32)
    picks = ir.Constant(ir.VectorType(index, len(order)), [ir.Constant(index, i) for i in order])
    return E(x.b, x.b.shuffle_vector(x.v, y.v, picks), x.t, len(order))
