"""Primitives on numpy arrays: the meaning that plans are checked against, and what folds constants.

The functions that a `Map` text may call are the keys of `FUNCTIONS`; `simd.namespace` has the same names. Its
operators mean what they mean in C, as in `emit.E`: integer division truncates, ``%`` has the sign of the dividend.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from .primitives import Expand, Fold, Movement, Permute, Reshape, Shape, Slice

_REGISTERS = {
    "float32": "f32", "float64": "f64", "bool": "b1", "float16": "f32", "bfloat16": "f32",
    **{f"int{n}": f"i{n}" for n in (8, 16, 32, 64)}, **{f"uint{n}": f"u{n}" for n in (8, 16, 32, 64)},
}  # fmt: skip
_MEMORY = {**_REGISTERS, "float16": "f16", "bfloat16": "bf16"}
_NUMPY = {name: np.dtype(dtype) for dtype, name in _REGISTERS.items() if dtype not in ("float16", "bfloat16")}


@lru_cache(maxsize=256)
def register_name(dtype: np.dtype) -> str:
    """The register type that computes a dtype: float16 and bfloat16 are computed as f32.

    Raises:
        KeyError: no native kernel computes the dtype.
    """
    return _REGISTERS[dtype.name]


@lru_cache(maxsize=256)
def memory_name(dtype: np.dtype) -> str:
    """The element type that kernels load and store for a dtype (KeyError as above)."""
    return _MEMORY[dtype.name]


@lru_cache(maxsize=256)
def is_native(dtype: np.dtype) -> bool:
    """Whether native kernels handle the dtype."""
    return dtype.name in _MEMORY


def map_(text: str, inputs: Sequence[np.ndarray], dtype: np.dtype, shape: Shape) -> np.ndarray:
    """`text` over the arrays with numpy; float16 and bfloat16 are computed as float32.

    Raises:
        TypeError: the text gives another register type than `dtype` has, which no generated kernel could store.
    """
    names = {chr(ord("a") + i): _register(x) for i, x in enumerate(inputs)}
    with np.errstate(all="ignore"):
        result = np.asarray(eval(compiled(text), _SCOPE, names))
        if result.dtype != _NUMPY[register_name(dtype)]:
            raise TypeError(f"{text!r} of {', '.join(str(x.dtype) for x in inputs)} gives {result.dtype}, not {dtype}")
        return np.broadcast_to(cast(result, dtype), shape)


@lru_cache(maxsize=4096)
def check(text: str, inputs: tuple[np.dtype, ...], dtype: np.dtype) -> None:
    """Whether `text` of inputs of these types gives `dtype`, with literals as numpy takes them: of the arrays' type if they fit.

    A generated kernel has no type to give to literals alone: ``select(a > 0, splat_f32(1.0), splat_f32(0.0))`` says it.

    Raises:
        TypeError: it does not.
    """
    if is_native(dtype) and all(map(is_native, inputs)):
        map_(text, [np.ones(1, kind) for kind in inputs], dtype, (1,))


class _Operators(ast.NodeTransformer):
    """C's division and remainder in place of Python's."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        call = {ast.Div: "_divide", ast.Mod: "_remainder"}.get(type(node.op))
        return node if call is None else ast.Call(ast.Name(call, ast.Load()), [node.left, node.right], [])


@lru_cache(maxsize=4096)
def compiled(text: str):
    """A text as code, with calls of `_divide` and `_remainder`."""
    tree = ast.fix_missing_locations(_Operators().visit(ast.parse(text, mode="eval")))
    return compile(tree, f"<map {text}>", "eval")


def _register(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else x


def cast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Conversion of elements as C does it; to bool: unequal zero."""
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def reduce(fold: Fold, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Fold axes and keep them with size 1."""
    dtype, x = x.dtype, _register(x)
    if fold.value.startswith("arg"):
        (axis,) = axes
        pick = np.argmax if fold in (Fold.ARGMAX, Fold.ARGMAX_LAST) else np.argmin
        if fold in (Fold.ARGMAX, Fold.ARGMIN):
            return np.expand_dims(pick(x, axis), axis).astype(np.int64)
        flipped = np.flip(x, axis)
        return np.expand_dims(x.shape[axis] - 1 - pick(flipped, axis), axis).astype(np.int64)
    with np.errstate(all="ignore"):
        if fold is Fold.ADD:
            result = x.sum(axes, dtype=x.dtype, keepdims=True)
        elif fold is Fold.MUL:
            result = x.prod(axes, dtype=x.dtype, keepdims=True)
        elif fold is Fold.MAXNUM:
            result = np.fmax.reduce(x, axes, keepdims=True, initial=_identity(fold, x.dtype))
        else:
            result = (x.min if fold is Fold.MIN else x.max)(axes, keepdims=True, initial=_identity(fold, x.dtype))
        return np.asarray(result.astype(dtype))


def _identity(fold: Fold, dtype: np.dtype) -> object:
    if dtype.kind == "b":
        return fold is Fold.MIN
    low, high = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return high if fold is Fold.MIN else low


def move(how: Movement, x: np.ndarray) -> np.ndarray:
    """The view as numpy gives it."""
    if isinstance(how, Reshape):
        return x.reshape(how.shape)
    if isinstance(how, Permute):
        return x.transpose(how.axes)
    if isinstance(how, Expand):
        return np.broadcast_to(x, how.shape)
    assert isinstance(how, Slice)
    picks = []
    for start, step, size in zip(how.starts, how.steps, how.sizes):
        stop = start + step * size
        picks.append(slice(start, None if stop < 0 else stop, step) if size else slice(0, 0))
    return x[tuple(picks)]


def join(inputs: Sequence[np.ndarray], starts: Sequence[Shape], dtype: np.dtype, shape: Shape, fill) -> np.ndarray:
    """Arrays in boxes of one array."""
    result = np.full(shape, 0 if fill is None else fill, dtype)
    for x, start in zip(inputs, starts):
        result[tuple(slice(s, s + n) for s, n in zip(start, x.shape))] = x
    return result


def _divide(x, y):
    """C division: towards zero for integers, and x / 0 = 0 for them (kernels must not trap)."""
    dtype = np.result_type(x, y)
    if dtype.kind == "f":
        return np.true_divide(x, y)
    x, y = np.asarray(x, dtype), np.asarray(y, dtype)
    divisor = np.where(y == 0, y.dtype.type(1), y)
    quotient = np.floor_divide(x, divisor)
    inexact = (quotient * divisor != x) & ((x < 0) != (divisor < 0))
    return np.where(y == 0, y, quotient + inexact)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(np.asarray(x).dtype)


def _sigmoid(x):
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + decay), decay / (1 + decay))


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _constant_like(name: str) -> Callable:
    dtype = _NUMPY[name]
    return lambda x: np.asarray(x).astype(dtype)


def _bits(name: str) -> Callable:
    dtype = _NUMPY[name]
    return lambda x: np.asarray(x).view(dtype)


FUNCTIONS: dict[str, object] = {
    "inf": math.inf, "nan": math.nan, "select": np.where, "minimum": np.minimum, "maximum": np.maximum,
    "at_least": np.maximum, "at_most": np.minimum, "absolute": np.abs, "fma": lambda a, b, c: a * b + c,
    "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "rint": np.rint, "copysign": np.copysign,
    "rounded_f16": lambda x: x.astype(np.float16).astype(x.dtype),
    "isnan": np.isnan, "exp": np.exp, "exp_flushed": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log,
    "log2": np.log2, "log10": np.log10,
    "log1p": np.log1p, "tanh": np.tanh, "sigmoid": _sigmoid, "erf": _erf, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "pow": np.power, "fmod": np.fmod, "floor_mod": np.mod, "sign": np.sign,
    "softplus": _softplus, "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    **{f"to_{name}": _constant_like(name) for name in _NUMPY},
    **{f"splat_{name}": _constant_like(name) for name in _NUMPY},
    **{f"bits_{name}": _bits(name) for name in _NUMPY if name != "b1"},
}  # fmt: skip
_SCOPE = {**FUNCTIONS, "_divide": _divide, "_remainder": np.fmod, "__builtins__": {}}
