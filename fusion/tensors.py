"""TensorProto -> array. Raw data is not copied; external data is memory-mapped, never outside the model's folder."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ..ops.pages import lasting
from ..ops.weights import Weight
from .invalid import InvalidModel, Kind
from .parallel import run

_NUMPY = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "object", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128",
}  # fmt: skip
_EXTENDED = {
    16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4",
    22: "int4", 23: "float4_e2m1fn", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2",
}  # fmt: skip
# element types whose elements are narrower than a byte -> bits
_PACKED = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}
_EXTERNAL = 1
LARGE = 64 << 10  # bytes from which a constant is a weight
_PART = 4 << 20  # bytes that a thread reads at once


def numpy_dtype(element: int) -> np.dtype:
    """The numpy dtype of an ONNX element type; strings are `object`.

    Raises:
        InvalidModel: no such element type.
    """
    if element in _NUMPY:
        return np.dtype(_NUMPY[element])
    if element in _EXTENDED:
        import ml_dtypes

        if hasattr(ml_dtypes, _EXTENDED[element]):
            return np.dtype(getattr(ml_dtypes, _EXTENDED[element]))
    raise InvalidModel(f"{element} is no known tensor element type", Kind.ARGUMENT)


def element_type(dtype: np.dtype) -> int:
    """The ONNX element type of a numpy dtype (KeyError: there is none)."""
    return _ELEMENTS[dtype.name]


_ELEMENTS = {name: element for table in (_NUMPY, _EXTENDED) for element, name in table.items()}


# the location of what lies in the model's own file or bytes, never that of a file: no path contains it
OWN = "\0"


class Folder:
    """The folder that a model's external data lies in. Each of its files is mapped once.

    A file must lie in the folder, or in that of the file that the model's path links to (`linked`), after all links on
    the way are followed. `own` is the model's own file, or its bytes: what it holds is read, not mapped, because the
    file may be written again while the model is in use. `complete` does that, by `threads` threads.
    """

    def __init__(
        self, path: pathlib.Path, linked: pathlib.Path | None = None, own: pathlib.Path | bytes = b"", threads: int = 1
    ) -> None:
        self.path, self.own, self.threads = path, own, threads
        self._roots = {path.resolve(), *([linked] if linked is not None else [])}
        self._mapped: dict[str, np.ndarray] = {}
        self._looked = np.empty(0, np.uint8)
        self._unread: list[tuple[str, int, memoryview]] = []

    def hold(self, where: str, content: bytes | memoryview) -> None:
        """Take a file's content from memory."""
        self._mapped[where] = np.frombuffer(content, np.uint8)

    def read(self, name: str, where: str, offset: int, size: int) -> np.ndarray:
        """`size` bytes of the file `where` from `offset` on; `name` is whose they are. Those of `OWN` come with `complete`.

        Raises:
            InvalidModel: the file is not in the folder, or too short.
        """
        if where == OWN and isinstance(self.own, bytes):
            data = np.frombuffer(self.own, np.uint8)
        elif where == OWN:
            return self._promise(name, offset, size)
        elif where in self._mapped:
            data = self._mapped[where]
        else:
            data = self._mapped[where] = self._map(name, where)
        if offset < 0 or offset + size > len(data):
            raise InvalidModel(
                f"initializer {name!r}: external data {where!r} has {len(data)} bytes, {size} from byte {offset} on are needed"
            )
        return data[offset : offset + size]

    def _promise(self, name: str, offset: int, size: int) -> np.ndarray:
        """Memory that `complete` fills."""
        data = lasting(size)
        starts = range(0, size, _PART)
        self._unread += [(name, offset + start, memoryview(data)[start : start + _PART]) for start in starts]
        return data

    def complete(self) -> None:
        """Read what was promised of the model's own file.

        Raises:
            InvalidModel: the file is too short.
        """
        pieces, self._unread = self._unread, []
        run(len(pieces), lambda i: self._fill(*pieces[i]), self.threads)

    def read_now(self, name: str, offset: int, size: int) -> np.ndarray:
        """A part of the model's own file or bytes.

        Raises:
            InvalidModel: the file is too short.
        """
        if isinstance(self.own, bytes):
            return self.look(name, offset, size).copy()
        data = lasting(size)
        self._fill(name, offset, memoryview(data))
        return data

    def look(self, name: str, offset: int, size: int) -> np.ndarray:
        """As `read_now`, but in the mapped file: only for reading at once, as the file may be written again."""
        if not self._looked.size:
            held = isinstance(self.own, bytes)
            self._looked = np.frombuffer(self.own, np.uint8) if held else np.memmap(self.own, np.uint8, "r").view(np.ndarray)
        if offset + size > len(self._looked):
            raise InvalidModel(f"initializer {name!r}: the model's file has become shorter while it was read")
        return self._looked[offset : offset + size]

    def _fill(self, name: str, offset: int, piece: memoryview) -> None:
        with open(self.own, "rb", buffering=0) as file:
            file.seek(offset)
            while piece:
                count = file.readinto(piece)
                if not count:
                    raise InvalidModel(f"initializer {name!r}: the model's file has become shorter while it was read")
                piece = piece[count:]

    def _map(self, name: str, where: str) -> np.ndarray:
        if not where:
            raise InvalidModel(f"initializer {name!r}: the location of its external data is missing")
        path = (self.path / where.replace("\0", "?")).resolve()
        if os.path.isabs(where) or not self._roots.intersection(path.parents):
            raise InvalidModel(f"initializer {name!r}: external data {where!r} lies outside the model's folder")
        if not path.is_file():
            raise InvalidModel(f"initializer {name!r}: external data file {where!r} does not exist")
        if not path.stat().st_size:
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, "r").view(np.ndarray)


def to_array(t, folder: Folder) -> np.ndarray:
    """A TensorProto as an array, which may have its content only after `Folder.complete`.

    Raises:
        InvalidModel: an unknown element type, a negative size, or data that does not fit the shape.
    """
    try:
        dtype, shape = numpy_dtype(t.data_type), tuple(t.dims)
    except InvalidModel as error:
        raise InvalidModel(f"initializer {t.name!r}: {error}") from error
    if any(d < 0 for d in shape):
        raise InvalidModel(f"initializer {t.name!r} has the shape {list(shape)}")
    count = math.prod(shape)
    if t.data_location == _EXTERNAL:
        return _shaped(_external(t, folder, dtype, count), t, dtype, shape, folder)
    if dtype.kind == "O":
        return _fitted(np.array([text(s) for s in t.string_data], object), t, shape)
    if t.HasField("raw_data"):
        return _shaped(np.frombuffer(t.raw_data, np.uint8), t, dtype, shape, folder)
    from onnx import numpy_helper

    try:
        return _fitted(np.ascontiguousarray(numpy_helper.to_array(t)), t, shape)
    except (ValueError, TypeError) as error:
        raise InvalidModel(f"initializer {t.name!r}: its data does not fit its shape {list(shape)}: {error}") from error


def to_weight(t, folder: Folder) -> Weight | None:
    """A large TensorProto of the model's own file or bytes as a weight that is still to be read; None: it is no such tensor."""
    if t.data_location != _EXTERNAL or t.data_type in _PACKED:
        return None
    info = {e.key: e.value for e in t.external_data}
    dtype, shape = numpy_dtype(t.data_type), tuple(t.dims)
    size = math.prod(shape) * dtype.itemsize
    if info.get("location") != OWN or int(info["length"]) != size or size < LARGE:
        return None
    offset, name = int(info["offset"]), t.name

    def read() -> np.ndarray:
        return folder.read_now(name, offset, size).view(dtype).reshape(shape)

    def look() -> np.ndarray:
        return folder.look(name, offset, size).view(dtype).reshape(shape)

    return Weight.made_by(read, dtype, shape, look)


def sparse_to_array(s, folder: Folder) -> np.ndarray:
    """A SparseTensorProto as a dense array."""
    shape = tuple(s.dims)
    values, indices = to_array(s.values, folder), to_array(s.indices, folder)
    dense = np.zeros(shape, values.dtype)
    try:
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        elif len(indices):
            dense[tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise InvalidModel(f"sparse initializer {s.values.name!r} of shape {list(shape)}: {error}") from error
    return dense


def text(raw: bytes) -> str | bytes:
    """A protobuf byte string as text; bytes that are no text stay bytes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _external(t, folder: Folder, dtype: np.dtype, count: int) -> np.ndarray:
    info = {e.key: e.value for e in t.external_data}
    size = _bytes(t.data_type, dtype, count)
    try:
        offset, length = int(info.get("offset", 0)), int(info.get("length", size))
    except ValueError as error:
        raise InvalidModel(f"initializer {t.name!r}: offset and length of its external data must be integers: {error}") from error
    if length != size:
        raise InvalidModel(f"initializer {t.name!r}: {length} bytes of external data, its shape {list(t.dims)} needs {size}")
    if dtype.kind == "O":
        raise InvalidModel(f"initializer {t.name!r}: strings cannot be external data")
    return folder.read(t.name, info.get("location", ""), offset, size)


def _bytes(element: int, dtype: np.dtype, count: int) -> int:
    return -(-count * _PACKED[element] // 8) if element in _PACKED else count * dtype.itemsize


def _shaped(raw: np.ndarray, t, dtype: np.dtype, shape: Sequence[int], folder: Folder) -> np.ndarray:
    count = math.prod(shape)
    size = _bytes(t.data_type, dtype, count)
    if len(raw) != size:
        raise InvalidModel(f"initializer {t.name!r} has {len(raw)} bytes, its shape {list(shape)} of {dtype} needs {size}")
    if t.data_type in _PACKED:
        folder.complete()
        return _unpacked(raw, _PACKED[t.data_type], count).view(dtype).reshape(shape)
    if raw.ctypes.data % dtype.alignment:
        raw = raw.copy()
    return raw.view(dtype).reshape(shape)


def _unpacked(raw: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The elements of a packed tensor, the first one in the lowest bits, one a byte."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((raw[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count].astype(np.uint8)


def _fitted(array: np.ndarray, t, shape: Sequence[int]) -> np.ndarray:
    if array.size != math.prod(shape):
        raise InvalidModel(f"initializer {t.name!r} has {array.size} elements, its shape {list(shape)} needs {math.prod(shape)}")
    return array.reshape(shape)
