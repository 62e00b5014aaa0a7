"""Conversions between the dtypes that kernels compute; the others (strings, float8, int4 ...) are left to the host."""

from __future__ import annotations

import numpy as np

from .builder import Builder, Declined, OperatorError
from .evaluate import register_name
from .primitives import Tensor
from .registry import op

# TensorProto.DataType: numbers, and the names that Cast took before opset 6
_NAMES = {
    1: "FLOAT", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FLOAT16",
    11: "DOUBLE", 12: "UINT32", 13: "UINT64", 16: "BFLOAT16",
}  # fmt: skip
_NUMPY = {"FLOAT": "float32", "DOUBLE": "float64"}


def native_dtype(element: int | str) -> np.dtype:
    """The numpy dtype of an ONNX element type that kernels compute.

    Raises:
        Declined: another element type.
    """
    name = element if isinstance(element, str) else _NAMES.get(element)
    if name not in _NAMES.values():
        raise Declined
    if name == "BFLOAT16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(_NUMPY.get(name, name.lower()))


def widened(t: Builder, x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, so that a composition of primitives rounds once, at its end."""
    return t.cast(x, np.float32) if x.dtype.name in ("float16", "bfloat16") else x


@op("Cast")
def cast(t: Builder, x, *, to, saturate=1, round_mode="up"):
    """Every element converted to the type `to`; `saturate` and `round_mode` are about float8 alone."""
    return t.cast(x, native_dtype(to))


@op("CastLike", since=15)
def cast_like(t: Builder, x, target, *, saturate=1, round_mode="up"):
    """Every element converted to the second input's type."""
    return t.cast(x, target.dtype)


@op("BitCast", since=26)
def bit_cast(t: Builder, x, *, to):
    """The same bits as another type of the same width."""
    dtype = native_dtype(to)
    if dtype == x.dtype or "b" in (dtype.kind, x.dtype.kind) or {dtype.name, x.dtype.name} & {"float16", "bfloat16"}:
        raise Declined  # computed in other registers than they are stored in
    if dtype.itemsize != x.dtype.itemsize:
        raise OperatorError(f"{x.dtype} and {dtype} have different widths")
    return t.map(f"bits_{register_name(dtype)}(a)", x, dtype=dtype)
