"""How elementwise operators are drawn: shapes that broadcast, attributes of activations, divisors that do not trap."""

from __future__ import annotations

import numpy as np

from .catalogue import Case, Node, Sums, rule
from .draw import Draw, Values, is_integer, limits

FACTORS = (None, 0.25, 1.7, -0.5)


@rule("Abs", "Neg", "Sign", "Reciprocal", "Sqrt", "Floor", "Ceil", "Round", "Exp", "Log", "Erf", "Asinh", "Acosh", "IsNaN", "Not",
      "BitwiseNot", "Relu", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Identity")  # fmt: skip
def unary(n: Node, d: Draw) -> Case:
    return n.case(n.values(_parameter(n), d.shape()))


@rule("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Atanh")
def angle(n: Node, d: Draw) -> Case:
    return n.case(n.values("T", d.shape(), Values.SPECIAL))


def _parameter(n: Node) -> str:
    return "V" if "V" in n.kernel else next(name for name in n.kernel if name in ("T", "T1", "X"))


@rule("Sigmoid", "LeakyRelu", "Elu", "Celu", "Selu", "ThresholdedRelu", "HardSigmoid", "Swish", "Gelu")
def activation(n: Node, d: Draw) -> Case:
    for name in ("alpha", "beta", "gamma"):
        n.set(name, *FACTORS)
    n.set("approximate", None, "none", "tanh")
    return n.case(n.values("T", d.shape()), tolerance=Sums.UNIT)


@rule("Gelu", "QuickGelu", domain="com.microsoft")
def gelu(n: Node, d: Draw) -> Case:
    n.set("alpha", None, 1.0, 0.3, -2.0)
    return n.case(n.values("T", d.shape(1)), tolerance=Sums.UNIT)


@rule("BiasGelu", "FastGelu", domain="com.microsoft")
def biased_gelu(n: Node, d: Draw) -> Case:
    shape = d.shape(1, least=1)
    bias = n.values("T", shape[-1:], Values.PLAIN) if n.op == "BiasGelu" or d.chance(50) else None
    return n.case(n.values("T", shape, Values.SPECIAL), bias, tolerance=Sums.UNIT)


@rule("Add", "Sub", "Mul", "And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "BitwiseAnd",
      "BitwiseOr", "BitwiseXor")  # fmt: skip
def binary(n: Node, d: Draw) -> Case:
    a, b = d.operand_shapes(2)
    return n.case(n.values("T", a), n.values("T", b), maybe=(1,))


@rule("Div", "Mod")
def division(n: Node, d: Draw) -> Case:
    a, b = d.operand_shapes(2)
    x = n.values("T", a)
    if n.op == "Mod":
        n.set("fmod", *((1,) if x.dtype.kind not in "iu" else (None, 0, 1)))
    # integers: neither a division by zero nor of the least number by -1, on which onnxruntime traps
    return n.case(x, n.values("T", b, Values.NONZERO if x.dtype.kind in "iu" else Values.ANY), maybe=(1,))


@rule("Pow")
def power(n: Node, d: Draw) -> Case:
    a, b = d.operand_shapes(2)
    base = n.values("T", a, d.choice([Values.PLAIN, Values.SPECIAL, Values.POSITIVE]))
    name = "T1" if "T1" in n.kernel else "T"
    exponent = n.values(name, b if d.chance(50) else (), d.choice([Values.PLAIN, Values.POSITIVE, Values.SPECIAL]))
    if exponent.shape == () and d.chance(60):
        exponent = np.array(d.choice([-2, -1, 0, 1, 2, 3, 4, 0.5, -0.5, 1.5]), exponent.dtype)
    if base.dtype.kind in "iu" and exponent.dtype.kind in "iu":
        exponent = np.abs(exponent)  # of a negative power of an integer nothing is said
    return n.case(base, exponent, maybe=(1,))


@rule("BitShift")
def shift(n: Node, d: Draw) -> Case:
    a, b = d.operand_shapes(2)
    n.set("direction", "LEFT", "RIGHT")
    x = n.values("T", a)
    return n.case(x, n.draw.indices(b, 8 * x.dtype.itemsize, x.dtype, negative=False))


@rule("PRelu")
def prelu(n: Node, d: Draw) -> Case:
    shape = d.shape(1)
    return n.case(n.values("T", shape), n.values("T", d.broadcastable(shape), Values.PLAIN), maybe=(1,))


@rule("Sum", "Mean", "Max", "Min")
def variadic(n: Node, d: Draw) -> Case:
    shapes = d.operand_shapes(d.integer(1, 4))
    if n.version < 8:
        shapes = [shapes[0]] * len(shapes)
    kind = Values.ANY if n.op in ("Max", "Min") else Values.SPECIAL
    return n.case(*(n.values("T", shape, kind) for shape in shapes))


@rule("Where")
def where(n: Node, d: Draw) -> Case:
    condition, a, b = d.operand_shapes(3)
    return n.case(d.values(bool, condition), n.values("T", a), n.values("T", b))


@rule("IsInf")
def is_inf(n: Node, d: Draw) -> Case:
    n.set("detect_negative", None, 0, 1)
    n.set("detect_positive", None, 0, 1)
    return n.case(n.values("T1", d.shape(), Values.SPECIAL))


@rule("Clip")
def clip(n: Node, d: Draw) -> Case:
    if n.has("min"):
        n.set("min", None, -1.0, 0.5)
        n.set("max", None, 0.5, 3.0)
        return n.case(n.values("T", d.shape()))
    x = n.values("T", d.shape())
    low, high = (None if d.chance(25) else n.values("T", (), Values.PLAIN) for _ in "lh")
    return n.case(x, low, high, maybe=(1, 2))


@rule("Shrink")
def shrink(n: Node, d: Draw) -> Case:
    n.set("lambd", None, 0.0, 1.5)
    n.set("bias", None, 1.0, -0.25)
    return n.case(n.values("T", d.shape(), Values.SPECIAL))


@rule("Dropout")
def dropout(n: Node, d: Draw) -> Case:
    n.set("ratio", None, 0.0, 0.7)
    inputs = [n.values("T", d.shape())]
    if n.version >= 12 and d.chance(50):
        inputs.append(d.values(n.type("T1"), (), Values.POSITIVE) / 4)
    outputs = 1 if n.version < 10 else d.integer(1, 2)
    return n.case(*(np.asarray(x) for x in inputs), outputs=outputs)


@rule("Cast")
def cast(n: Node, d: Draw) -> Case:
    from onnx import TensorProto, helper

    x, to = n.values("T1", d.shape()), n.type("T2")
    if x.dtype.kind == "O":
        x = d.values(np.int32, x.shape, Values.POSITIVE).astype(str).astype(object)
    elif is_integer(to) and not is_integer(x.dtype) and x.dtype.kind != "b":  # what lies outside the type is not defined
        low, high = (max(-100, limits(to)[0]), min(100, limits(to)[1]))
        with np.errstate(over="ignore"):
            x = np.clip(np.nan_to_num(x.astype(np.float32)), low, high).astype(x.dtype)
    n.set("to", TensorProto.STRING if to.kind == "O" else helper.np_dtype_to_tensor_dtype(to))
    if to.name.startswith("float8"):
        n.set("saturate", None, 0, 1)
    return n.case(x)


@rule("BitCast")
def bit_cast(n: Node, d: Draw) -> Case:
    from onnx import helper

    x, to = n.values("T1", d.shape()), n.type("T2")
    if x.dtype.itemsize != to.itemsize:
        to = x.dtype
    n.set("to", helper.np_dtype_to_tensor_dtype(to))
    return n.case(x)
