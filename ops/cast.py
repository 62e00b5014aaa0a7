"""Conversions between the dtypes that kernels compute; the others (strings, float8, int4 ...) are left to the host."""

from __future__ import annotations

import numpy as np

from .builder import Builder, Declined, OperatorError
from .evaluate import is_native, register_name
from .primitives import Tensor
from .registry import Takes, op

# TensorProto.DataType: numbers, and the names that Cast took before opset 6
_NAMES = {
    1: "FLOAT", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FLOAT16",
    11: "DOUBLE", 12: "UINT32", 13: "UINT64", 16: "BFLOAT16",
}  # fmt: skip
_STRING = 8
_PACKED = {21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}
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


def is_packed(dtype: np.dtype) -> bool:
    """Whether a dtype is one of the integers of 4 or 2 bits."""
    return dtype.name in ("int4", "uint4", "int2", "uint2")


def unpacked(t: Builder, x: Tensor) -> Tensor:
    """Integers of 4 or 2 bits as int8 or uint8; others as they are. Of constants nothing is left to do at run time."""
    return as_type(t, x, np.uint8 if x.dtype.name[0] == "u" else np.int8) if is_packed(x.dtype) else x


def as_type(t: Builder, x: Tensor, dtype: np.dtype | type) -> Tensor:
    """A conversion from or to a type that kernels do not know, by numpy."""
    return t.host(
        lambda v: [v[0].astype(dtype)], (x,), [(np.dtype(dtype), x.shape)], "integers of less than 8 bits live on the host"
    )[0]


@op("Cast", takes=Takes.TENSORS)
def cast(t: Builder, x, *, to, saturate=1, round_mode="up"):
    """Every element converted to the type `to`; `saturate` and `round_mode` are about float8 alone."""
    if to in (_STRING, "STRING") and x.dtype.kind != "O":
        return t.host(lambda v: [_texts(v[0])], (x,), [(np.dtype(object), x.shape)], "strings live on the host")[0]
    if x.dtype.kind == "O" and to in _PACKED:
        return t.host(
            lambda v: [v[0].astype(np.int64).astype(_packed(to))], (x,), [(_packed(to), x.shape)], "strings live on the host"
        )[0]
    if not is_native(x.dtype):
        raise Declined
    return t.cast(x, native_dtype(to))


def _packed(element: int) -> np.dtype:
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, _PACKED[element]))


def _texts(x: np.ndarray) -> np.ndarray:
    """Numbers as text, as short as tells them apart."""
    plain = x if x.dtype.isbuiltin else x.astype(np.int64 if "int" in x.dtype.name else np.float32)
    return plain.astype(str).astype(object)


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
