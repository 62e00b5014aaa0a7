"""Values at the session's edge: what a caller feeds becomes an array of the declared type, or an error that says why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .dlpack import from_dlpack
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
        if hasattr(value, "detach"):
            value = value.detach()
        if not hasattr(value, "__dlpack__"):
            return np.asarray(value)
        try:
            return np.asarray(value) if hasattr(value, "__array__") else from_dlpack(value)
        except TypeError:  # an element type that numpy does not know
            return from_dlpack(value)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise InvalidArgument(f"input {name!r}: cannot make an array of {type(value).__name__}: {error}") from error


def feed(name: str, kind: Type | None, value: object, sizes: Mapping[str, int]) -> object:
    """What the engine gets for an input: a C-contiguous array, or a list, a dictionary or None as declared.

    Args:
        sizes: named dimensions that are fixed.

    Raises:
        InvalidArgument: wrong dtype, rank or size; the message names the input, what was expected, what came.
    """
    if isinstance(kind, TensorType) and type(value) is np.ndarray:
        return _fit(name, kind, value, sizes)
    if isinstance(kind, OptionalType):
        return None if value is None else feed(name, kind.element, value, sizes)
    if isinstance(kind, SequenceType):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise InvalidArgument(f"input {name!r}: expected a list ({type_text(kind)}), got {type(value).__name__}")
        element = TensorType(kind.element.dtype, None) if isinstance(kind.element, TensorType) else kind.element
        return [feed(f"{name}[{i}]", element, v, sizes) for i, v in enumerate(value)]  # elements may differ in shape
    if isinstance(kind, MapType):
        if not isinstance(value, Mapping):
            raise InvalidArgument(f"input {name!r}: expected a dictionary ({type_text(kind)}), got {type(value).__name__}")
        return _map(name, kind, value)
    typed = isinstance(value, np.generic) or hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    array = as_array(value, name)
    if kind is None:
        return _native(array)
    return _fit(name, kind, array if typed else _of_type(name, kind, array, value), sizes)


def _map(name: str, kind: MapType, given: Mapping[object, object]) -> dict[object, object]:
    """A dictionary with keys and values of the declared types."""
    texts = kind.key.kind == "O"
    convert = kind.value.dtype.type if isinstance(kind.value, TensorType) and kind.value.dtype.kind != "O" else str
    made: dict[object, object] = {}
    for key, value in given.items():
        if not isinstance(key, str if texts else int | np.integer) or isinstance(value, str) != (convert is str):
            raise InvalidArgument(f"input {name!r}: expected {type_text(kind)}, got {key!r}: {value!r}")
        made[key if texts else int(key)] = convert(value)
    return made


def _of_type(name: str, kind: TensorType, array: np.ndarray, given: object) -> np.ndarray:
    """Python's numbers and texts have no width of their own: the declared type's, if it can hold them."""
    if array.dtype == kind.dtype or array.dtype.kind in "US":
        return array
    if array.dtype.kind == "O" and kind.dtype.kind != "O":
        what = type(given).__name__ if array.ndim == 0 else f"a list with {type(array.reshape(-1)[0]).__name__}"
        raise InvalidArgument(f"input {name!r}: expected {type_text(kind)}, got {what}")
    floats = kind.dtype.kind not in "iub" and array.dtype.kind in "iufb"
    with np.errstate(all="ignore"):
        made = array.astype(kind.dtype)
    if not floats and not np.array_equal(made, array):
        raise InvalidArgument(f"input {name!r}: expected {type_text(kind)}, which cannot hold the given {array.dtype} values")
    return made


def _fit(name: str, kind: TensorType, array: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    if array.dtype != kind.dtype:
        if array.dtype.kind in "US":
            array = array.astype(object)
        if array.dtype.newbyteorder("=") != kind.dtype:
            raise InvalidArgument(f"input {name!r}: unexpected data type: got {_given(array.dtype)}, expected {type_text(kind)}")
    if array.dtype.kind == "O" and not {str}.issuperset(map(type, array.ravel().tolist())):
        array = np.array([t.decode() if isinstance(t, bytes) else str(t) for t in array.flat], object).reshape(array.shape)
    shape = kind.shape
    if shape is not None and shape != array.shape:
        if len(shape) != array.ndim:
            raise InvalidArgument(
                f"input {name!r}: invalid rank: got {array.ndim} ({_dims(array.shape)}), expected {len(shape)} ({_dims(shape)})"
            )
        wrong = [i for i, (d, n) in enumerate(zip(shape, array.shape)) if isinstance(s := sizes.get(d, d), int) and s != n]
        if wrong:
            raise InvalidArgument(
                f"input {name!r}: invalid dimensions: got {_dims(array.shape)}, expected {_dims([sizes.get(d, d) for d in shape])} "
                f"(index {', '.join(map(str, wrong))})"
            )
    return _native(array)


def _native(array: np.ndarray) -> np.ndarray:
    """Aligned, C-contiguous, in the CPU's byte order, no subclass."""
    if array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative and type(array) is np.ndarray:
        return array
    return np.array(array, array.dtype.newbyteorder("="), order="C", subok=False, ndmin=0)


def _given(dtype: np.dtype) -> str:
    return f"tensor({onnx_name(dtype)})"


def _dims(shape: Sequence[object]) -> str:
    return "[" + ",".join("?" if d is None else str(d) for d in shape) + "]"
