"""Elementwise operators: most are one scalar expression, which is documentation, fused code and numpy meaning at once.

Here: arithmetic, comparison, logic, bits, rounding, transcendental functions, activations, selection. Not here:
conversions (`cast`), quantisation (`quant`).
"""

from __future__ import annotations

import math

import numpy as np

from .builder import Builder, OperatorError, broadcast
from .primitives import Tensor
from .registry import ANY, FLOATS, INTEGERS, NUMBERS, Takes, check_types, elementwise, op

# -- one input
elementwise("Abs", "absolute(a)", kinds=NUMBERS)
elementwise("Neg", "-a", kinds=NUMBERS)
elementwise("Sign", "sign(a)", since=9, kinds=NUMBERS)
elementwise("Reciprocal", "1.0 / a")
elementwise("Sqrt", "sqrt(a)")
elementwise("Floor", "floor(a)")
elementwise("Ceil", "ceil(a)")
elementwise("Round", "rint(a)", since=11)
elementwise("Exp", "exp(a)")
elementwise("Log", "log(a)")
elementwise("Erf", "erf(a)", since=9)
elementwise("Sin", "sin(a)", since=7)
elementwise("Cos", "cos(a)", since=7)
elementwise("Tan", "tan(a)", since=7)
elementwise("Asin", "asin(a)", since=7)
elementwise("Acos", "acos(a)", since=7)
elementwise("Atan", "atan(a)", since=7)
elementwise("Sinh", "sinh(a)", since=9)
elementwise("Cosh", "cosh(a)", since=9)
elementwise("Asinh", "asinh(a)", since=9)
elementwise("Acosh", "acosh(a)", since=9)
elementwise("Atanh", "atanh(a)", since=9)
elementwise("IsNaN", "isnan(a)", since=9, dtype="bool")
elementwise("Not", "~a", kinds="b")
elementwise("BitwiseNot", "~a", since=18, kinds=INTEGERS)

# -- activations
elementwise("Relu", "at_least(a, 0)", kinds=NUMBERS)
elementwise("Sigmoid", "sigmoid(a)")
elementwise("Tanh", "tanh(a)")
elementwise("Softplus", "softplus(a)")
elementwise("Softsign", "a / (1.0 + absolute(a))")
elementwise("LeakyRelu", "select(a < 0, a * {alpha=0.01}, a)")
elementwise("Elu", "select(a < 0, {alpha=1} * expm1(a), a)")
elementwise("Celu", "at_least(a, 0) + at_most({alpha=1} * expm1(a / {alpha=1}), 0)", since=12)
elementwise("Selu", "{gamma=1.0507} * select(a > 0, a, {alpha=1.6732} * expm1(a))")
elementwise("Selu", "{gamma=1.0507009873554805} * select(a > 0, a, {alpha=1.6732632423543772} * expm1(a))", since=6)
elementwise("ThresholdedRelu", "select(a > {alpha=1}, a, 0)")
elementwise("HardSigmoid", "at_most(at_least({alpha=0.2} * a + {beta=0.5}, 0), 1)")
elementwise("HardSwish", "a * at_most(at_least(a * 0.16666666666666666 + 0.5, 0), 1)", since=14)
elementwise("Mish", "a * tanh(softplus(a))", since=18)
elementwise("Swish", "a * sigmoid({alpha=1} * a)", since=24)
elementwise("SwiGLU", "a * sigmoid({alpha=1} * a) * b", since=28)

# -- two inputs of one type, broadcast
elementwise("Add", "a + b", since=7, kinds=NUMBERS)
elementwise("Sub", "a - b", since=7, kinds=NUMBERS)
elementwise("Mul", "a * b", since=7, kinds=NUMBERS)
elementwise("And", "a & b", since=7, kinds="b")
elementwise("Or", "a | b", since=7, kinds="b")
elementwise("Xor", "a ^ b", since=7, kinds="b")
elementwise("Equal", "a == b", since=7, dtype="bool", kinds=ANY)
elementwise("Less", "a < b", since=7, dtype="bool", kinds=NUMBERS)
elementwise("Greater", "a > b", since=7, dtype="bool", kinds=NUMBERS)
elementwise("LessOrEqual", "a <= b", since=12, dtype="bool", kinds=NUMBERS)
elementwise("GreaterOrEqual", "a >= b", since=12, dtype="bool", kinds=NUMBERS)
elementwise("BitwiseAnd", "a & b", since=18, kinds=INTEGERS)
elementwise("BitwiseOr", "a | b", since=18, kinds=INTEGERS)
elementwise("BitwiseXor", "a ^ b", since=18, kinds=INTEGERS)
elementwise("PRelu", "select(a < 0, a * b, a)", since=7, kinds=NUMBERS)


def _before_broadcasting(name: str) -> None:
    """Before opset 7 the second input was aligned at `axis`, and only where `broadcast` said so."""

    def lower(t, a, b, *, broadcast=0, axis=None, consumed_inputs=None):
        check_types((a, b))
        if broadcast and axis is not None and b.rank:
            axis += a.rank if axis < 0 else 0
            b = t.reshape(b, [*b.shape, *[1] * (a.rank - axis - b.rank)])
        if not broadcast and a.shape != b.shape:
            raise OperatorError(f"without broadcast=1 the shapes {list(a.shape)} and {list(b.shape)} must be equal")
        return t.op(name, a, b, since=7)

    op(name)(lower)


for _name in ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Less", "Greater"):
    _before_broadcasting(_name)


@op("PRelu")
def prelu_per_channel(t: Builder, x, slope, *, consumed_inputs=None):
    """Before opset 7: one slope, or one a channel (dimension 1)."""
    if slope.size != 1 and x.rank > 1:
        slope = t.reshape(slope, [slope.size, *[1] * (x.rank - 2)])
    return t.map("select(a < 0, a * b, a)", x, slope)


@op("Div", since=7)
def div(t: Builder, a, b):
    """a / b; integers round towards zero. By a constant power of two it is an exact product, which costs less."""
    check_types((a, b), NUMBERS)
    if a.dtype.kind == "f" and b.is_constant and not b.is_open and b.size == 1:
        fraction, exponent = np.frexp(np.float64(b.constant.item()))
        if abs(fraction) == 0.5 and abs(exponent) <= _PLAIN_EXPONENTS:
            return t.map("a * b", a, t.constant(1 / b.constant.astype(np.float64), a.dtype))
    return t.map("a / b", a, b)


@op("Pow", since=7)
def pow_(t: Builder, x, y):
    """The result has the base's type. Integers go through float64, as in onnxruntime. Some constant powers are products."""
    check_types((x,), NUMBERS)
    check_types((y,), NUMBERS)
    if x.dtype.kind in FLOATS:
        known = y.constant.item() if y.is_constant and not y.is_open and y.size == 1 else None
        if known in _PRODUCTS or known in _ROOTS:
            return t.reshape(_known_power(t, x, known), broadcast(x.shape, y.shape))
        return t.map("pow(a, b)", x, t.cast(y, np.float64 if x.dtype == np.float64 else np.float32), dtype=x.dtype)
    power = t.map("pow(a, b)", t.cast(x, np.float64), t.cast(y, np.float64))
    return t.cast(power, x.dtype)


_PLAIN_EXPONENTS = 13  # of powers of two whose inverse is a normal number in every float type
# Powers that are a few products and roots, for a quarter of what pow costs and less; the comment is the largest error in
# ulp over all float32 numbers. No step over- or underflows where the result does not. Roots are for bases above -0. Other
# quarters are less exact: -1.25, -0.75, 1.75 and 2.75 (2.5 to 3.8 ulp) are left to pow, as is what lies outside.
_PRODUCTS = {
    -2: "1.0 / a / a",  # 1.3
    -1: "1.0 / a",  # 0.5
    2: "a * a",  # 0.5
    3: "a * a * a",  # 1.3
    4: "(a * a) * (a * a)",  # 1.9
}
_ROOTS = {
    -1.5: "1.0 / a / sqrt(a)",  # 2.1
    -0.5: "1.0 / sqrt(a)",  # 1.5
    -0.25: "1.0 / sqrt(sqrt(a))",  # 2
    0.25: "sqrt(sqrt(a))",  # 0.9
    0.5: "sqrt(a)",  # 0.5
    0.75: "sqrt(a) * sqrt(sqrt(a))",  # 2.4
    1.25: "a * sqrt(sqrt(a))",  # 1.8
    1.5: "a * sqrt(a)",  # 1.3
    2.25: "a * a * sqrt(sqrt(a))",  # 2.3
    2.5: "a * a * sqrt(a)",  # 2
}


def _known_power(t: Builder, x: Tensor, power: float) -> Tensor:
    """x to a power of the tables. A root is NaN below 0, as pow is, but at -0 and -inf pow takes the base for positive."""
    if power in _PRODUCTS:
        return t.map(_PRODUCTS[power], x)
    return t.map(_ROOTS[power], t.map("select(a == -inf, inf, a + 0.0)", x))


@op("Mod", since=10)
def mod(t: Builder, a, b, *, fmod=0):
    """The remainder with the divisor's sign (as Python's %); with fmod=1 with the dividend's (as C's)."""
    check_types((a, b), NUMBERS)
    return t.map("fmod(a, b)" if fmod else "floor_mod(a, b)", a, b)


@op("BitShift", since=11)
def bit_shift(t: Builder, x, y, *, direction):
    """x << y or x >> y; a count beyond the width gives 0."""
    check_types((x, y), INTEGERS)
    if direction not in ("LEFT", "RIGHT"):
        raise OperatorError(f"direction must be LEFT or RIGHT, not {direction!r}")
    return t.map("a << b" if direction == "LEFT" else "a >> b", x, y)


# -- any number of inputs
def _variadic(name: str, text: str, kinds: str) -> None:
    def lower(t, *inputs, consumed_inputs=None):
        check_types(inputs, kinds)
        total = inputs[0]
        for x in inputs[1:]:
            total = t.map(text, total, x)
        return total

    op(name)(lower)


_variadic("Sum", "a + b", FLOATS)
_variadic("Max", "maximum(a, b)", NUMBERS)
_variadic("Min", "minimum(a, b)", NUMBERS)


@op("Mean")
def mean(t: Builder, *inputs, consumed_inputs=None):
    """The sum over the inputs, divided by their number."""
    total = t.op("Sum", *inputs)
    return t.map(f"a / {float(len(inputs))}", total)


# -- the rest
@op("IsInf", since=10)
def is_inf(t: Builder, x, *, detect_negative=1, detect_positive=1):
    """Whether an element is one of the chosen infinities."""
    check_types((x,), FLOATS)
    text = {(1, 1): "absolute(a) == inf", (1, 0): "a == -inf", (0, 1): "a == inf", (0, 0): "(a == inf) & (a != inf)"}
    return t.map(text[bool(detect_negative), bool(detect_positive)], x, dtype="bool")


@op("Where", since=9)
def where(t: Builder, condition, x, y):
    """x where the condition holds, else y."""
    check_types((condition,), "b")
    check_types((x, y))
    return t.map("select(a, b, c)", condition, x, y, dtype=x.dtype)


@op("Clip")
def clip_by_attributes(t: Builder, x, *, min=-math.inf, max=math.inf, consumed_inputs=None):
    """Before opset 11 the bounds are attributes."""
    return _clip(t, x, *(t.constant(bound, np.float32) if math.isfinite(bound) else None for bound in (min, max)))


_LARGEST = float(np.finfo(np.float32).max)


@op("Clip", since=6)
def clip_by_attributes_with_defaults(t: Builder, x, *, min=-_LARGEST, max=_LARGEST):
    """From opset 6 on the bounds default to float32's, so infinities are cut off too."""
    return clip_by_attributes(t, x, min=min, max=max)


@op("Clip", since=11)
def clip(t: Builder, x, min=None, max=None):
    """min(max(x, low), high); the bounds are scalars or absent."""
    bounds = [b for b in (min, max) if b is not None]
    check_types((x, *bounds), NUMBERS)
    if any(b.size != 1 for b in bounds):
        raise OperatorError(f"min and max must be scalars, not of shape {list(bounds[0].shape)}")
    return _clip(t, x, min, max)


def _clip(t: Builder, x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    texts = {
        (True, True): "at_most(at_least(a, b), c)",
        (True, False): "at_least(a, b)",
        (False, True): "at_most(a, b)",
    }
    bounds = [t.cast(t.reshape(b, ()), x.dtype) for b in (low, high) if b is not None]
    return t.map(texts[low is not None, high is not None], x, *bounds) if bounds else x


@op("Gelu", since=20)
def gelu(t: Builder, x, *, approximate="none"):
    """x times the normal distribution function of x, or its tanh approximation."""
    check_types((x,), FLOATS)
    return t.map("gelu_tanh(a)" if approximate == "tanh" else "gelu(a)", x)


@op("Shrink", since=9)
def shrink(t: Builder, x, *, lambd=0.5, bias=0.0):
    """x + bias below -lambd, x - bias above lambd, else 0."""
    check_types((x,), NUMBERS)
    wide = x if x.dtype.kind in FLOATS else t.cast(x, np.float64)
    text = f"select(a < -({lambd!r}), a + ({bias!r}), select(a > ({lambd!r}), a - ({bias!r}), 0))"
    return t.cast(t.map(text, wide), x.dtype)


@op("Identity", takes=Takes.VALUES)
def identity(t: Builder, x):
    """The input."""
    return x


@op("Dropout")
def dropout_by_attributes(t: Builder, x, *, ratio=0.5, is_test=0, consumed_inputs=None):
    """At inference the input; the mask keeps everything (of the input's type before opset 10)."""
    kept = t.expand(t.constant(1, x.dtype if t.opsets.get("", 1) < 10 else bool), x.shape)
    return x, kept
