"""Path, bytes or ModelProto -> ModelProto whose large weights stay where they are.

protobuf would copy every weight twice (into the message, and out of it). So the serialized model is scanned first, and
in what protobuf parses, the raw data of every large initializer of the graph is replaced by a note of where it lies,
in the form of external data: location `OWN`, offset, length. `tensors.Folder` then reads it from there once. What the
scan does not understand is left to protobuf.
"""

from __future__ import annotations

import mmap
import os
import pathlib
from collections.abc import Iterator

from .invalid import InvalidModel, Kind
from .tensors import OWN, Folder

_LARGE = 4096  # bytes from which an initializer is left in place
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = 7  # field numbers: of ModelProto
_INITIALIZER = 5  # of GraphProto
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14  # of TensorProto
_Buffer = bytes | mmap.mmap


def read(
    source: str | os.PathLike | bytes | object, external: str | os.PathLike | None = None, threads: int = 1
) -> tuple[object, Folder]:
    """The ModelProto of a path, of bytes or of a ModelProto, and where its external data is.

    Args:
        external: the folder of the external data; None: the model's own, or the working directory.
        threads: how many read large weights.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidModel: it is not an ONNX model.
        TypeError: the source is none of these.
    """
    from onnx import onnx_ml_pb2

    folder = pathlib.Path(external) if external is not None else None
    if isinstance(source, onnx_ml_pb2.ModelProto):
        proto, place = source, Folder(folder or pathlib.Path())
    elif isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        proto, place = _parse(without_weights(data)), Folder(folder or pathlib.Path(), own=data)
    elif isinstance(source, str | os.PathLike):
        path = pathlib.Path(source)
        proto, place = _parse(_read_file(path)), Folder(folder or path.parent, path.resolve().parent, path, threads)
    else:
        raise TypeError(f"Unable to load from type '{type(source)}'")
    if not proto.HasField("graph"):
        raise InvalidModel("No graph was found in the protobuf.", Kind.ARGUMENT)
    return proto, place


def _read_file(path: pathlib.Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError("File doesn't exist")
    if path.is_dir():
        raise InvalidModel("it is a folder, not a model file", Kind.PROTOBUF)
    if path.stat().st_size < 16 * _LARGE:
        return path.read_bytes()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return without_weights(data)


def _parse(data: bytes) -> object:
    from google.protobuf.message import DecodeError
    from onnx import onnx_ml_pb2

    proto = onnx_ml_pb2.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise InvalidModel("Protobuf parsing failed: the bytes are not a serialized ONNX model", Kind.PROTOBUF) from error
    return proto


# -- the wire format
def without_weights(data: _Buffer) -> bytes:
    """A serialized ModelProto without its large weights; unchanged if it is not well-formed."""
    try:
        made = bytearray()
        for number, kind, start, value, end in _fields(data, 0, len(data)):
            if number == _GRAPH and kind == _BYTES:
                made += _message(_GRAPH, _graph(data, value, end))
            else:
                made += data[start:end]
        return bytes(made)
    except (ValueError, IndexError):
        return data[:]


def _graph(data: _Buffer, start: int, end: int) -> bytes:
    made = bytearray()
    for number, kind, first, value, last in _fields(data, start, end):
        if number == _INITIALIZER and kind == _BYTES and last - value >= _LARGE:
            made += _message(_INITIALIZER, _tensor(data, value, last))
        else:
            made += data[first:last]
    return bytes(made)


def _tensor(data: _Buffer, start: int, end: int) -> bytes:
    made, raw = bytearray(), None
    for number, kind, first, value, last in _fields(data, start, end):
        if number == _DATA_LOCATION or (number == _RAW_DATA and raw is not None):
            return data[start:end]
        if number == _RAW_DATA and kind == _BYTES:
            raw = (value, last)
        else:
            made += data[first:last]
    if raw is None or raw[1] - raw[0] < _LARGE:
        return data[start:end]
    for key, text in (("location", OWN), ("offset", str(raw[0])), ("length", str(raw[1] - raw[0]))):
        made += _message(_EXTERNAL_DATA, _message(1, key.encode()) + _message(2, text.encode()))
    return bytes(made + _varint(_DATA_LOCATION << 3) + b"\x01")


def _fields(data: _Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start, start of the value, end) of each field of a message.

    Raises:
        ValueError, IndexError: the message is not well-formed.
    """
    at = start
    while at < end:
        first = at
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _read_varint(data, at)
            value, at = at, at + size
        elif kind == _VARINT:
            value = at
            _, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            value, at = at, at + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if at > end:
            raise ValueError("a field ends behind its message")
        yield tag >> 3, kind, first, value, at


def _read_varint(data: _Buffer, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content
