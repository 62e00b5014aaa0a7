"""Values at the session's edge: what a caller feeds becomes an array of the declared type, or an error that says why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .errors import InvalidArgument
from .fusion.graph import MapType, OptionalType, SequenceType, TensorType, Type

_ONNX_NAMES = {
    "float32": "float", "float64": "double", "object": "string", "float8_e4m3fn": "float8e4m3fn",
    "float8_e4m3fnuz": "float8e4m3fnuz", "float8_e5m2": "float8e5m2", "float8_e5m2fnuz": "float8e5m2fnuz",
    "float4_e2m1fn": "float4e2m1", "float8_e8m0fnu": "float8e8m0",
}  # fmt: skip


def onnx_name(dtype: np.dtype) -> str:
    """The ONNX name of an element type: float, double, int64, string ..."""
    return _ONNX_NAMES.get(dtype.name, dtype.name)


def type_text(kind: Type | None) -> str:
    """A type as onnxruntime writes it: ``tensor(float)``, ``seq(tensor(int64))``."""
    if isinstance(kind, TensorType):
        return f"tensor({onnx_name(kind.dtype)})"
    if isinstance(kind, SequenceType):
        return f"seq({type_text(kind.element)})"
    if isinstance(kind, OptionalType):
        return f"optional({type_text(kind.element)})"
    if isinstance(kind, MapType):
        return f"map({onnx_name(kind.key)},{type_text(kind.value)})"
    return "tensor(undefined)"


def as_array(value: object, name: str) -> np.ndarray:
    """Anything with ``__array__`` or DLPack, a scalar or a nested list, as an array.

    Raises:
        InvalidArgument: it is none of these.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        if hasattr(value, "detach"):
            value = value.detach()
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise InvalidArgument(f"input {name!r}: cannot make an array of {type(value).__name__}: {error}") from error


def feed(name: str, kind: Type | None, value: object, sizes: Mapping[str, int]) -> object:
    """What the engine gets for an input: a C-contiguous array, or a list, a dictionary or None as declared.

    Args:
        sizes: named dimensions that are fixed.

    Raises:
        InvalidArgument: wrong dtype, rank or size; the message names the input, what was expected, what came.
    """
    if isinstance(kind, OptionalType):
        if value is None:
            return None
        return feed(name, kind.element, value, sizes)
    if isinstance(kind, SequenceType):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise InvalidArgument(f"input {name!r}: expected a list ({type_text(kind)}), got {type(value).__name__}")
        return [feed(f"{name}[{i}]", kind.element, v, sizes) for i, v in enumerate(value)]
    if isinstance(kind, MapType):
        if not isinstance(value, Mapping):
            raise InvalidArgument(f"input {name!r}: expected a dictionary ({type_text(kind)}), got {type(value).__name__}")
        return dict(value)
    plain = not isinstance(value, np.ndarray | np.generic) and not hasattr(value, "__array__") and not hasattr(value, "__dlpack__")
    array = as_array(value, name)
    if kind is None:
        return np.ascontiguousarray(array).reshape(array.shape)
    return _fit(name, kind, array, plain, sizes)


def _fit(name: str, kind: TensorType, array: np.ndarray, plain: bool, sizes: Mapping[str, int]) -> np.ndarray:
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype != kind.dtype:
        if plain and (np.can_cast(array.dtype, kind.dtype, "same_kind") or array.size == 0):
            array = array.astype(kind.dtype)  # Python numbers have no width of their own
        else:
            raise InvalidArgument(
                f"input {name!r}: unexpected data type: got tensor({onnx_name(array.dtype)}), expected {type_text(kind)}"
            )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    shape = kind.shape
    if shape is not None:
        if len(shape) != array.ndim:
            raise InvalidArgument(
                f"input {name!r}: invalid rank: got {array.ndim} ({_dims(array.shape)}), expected {len(shape)} ({_dims(shape)})"
            )
        wrong = [i for i, (d, n) in enumerate(zip(shape, array.shape)) if isinstance(s := sizes.get(d, d), int) and s != n]
        if wrong:
            raise InvalidArgument(
                f"input {name!r}: invalid dimensions: got {_dims(array.shape)}, expected {_dims(shape)} "
                f"(index {', '.join(map(str, wrong))})"
            )
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.ascontiguousarray(array).reshape(array.shape)


def _dims(shape: Sequence[object]) -> str:
    return "[" + ",".join("?" if d is None else str(d) for d in shape) + "]"
