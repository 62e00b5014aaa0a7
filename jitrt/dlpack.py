"""DLPack: arrays of other libraries without a copy, also of element types that numpy itself does not know (bfloat16)."""

from __future__ import annotations

import ctypes

import numpy as np

_CPU = 1
_KINDS = {(0, b): f"int{b}" for b in (8, 16, 32, 64)} | {(1, b): f"uint{b}" for b in (8, 16, 32, 64)}
_KINDS |= {(2, b): f"float{b}" for b in (16, 32, 64)} | {(5, 64): "complex64", (5, 128): "complex128", (6, 8): "bool"}
_EXTENDED = {
    (4, 16): "bfloat16", (10, 8): "float8_e4m3fn", (11, 8): "float8_e4m3fnuz", (12, 8): "float8_e5m2",
    (13, 8): "float8_e5m2fnuz", (14, 8): "float8_e8m0fnu",
}  # fmt: skip


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h, the first member of DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def from_dlpack(source: object) -> np.ndarray:
    """An object with ``__dlpack__`` as an array: a view where numpy knows the element type, a copy elsewhere.

    Raises:
        TypeError, ValueError, BufferError, RuntimeError: it is not in the CPU's memory, or of no known element type.
    """
    try:
        return np.from_dlpack(source)
    except (BufferError, RuntimeError, TypeError):
        return _copied(source.__dlpack__())


def _copied(capsule: object) -> np.ndarray:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    if tensor.device_type != _CPU:
        raise BufferError(f"the tensor lies on a device of type {tensor.device_type}, not in the CPU's memory")
    dtype = _dtype(tensor)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if 0 in shape:
        return np.empty(shape, dtype)
    dense = np.empty(shape, np.int8).strides
    steps = [tensor.strides[i] for i in range(tensor.ndim)] if tensor.strides else dense
    low = sum(min(0, s * (n - 1)) for s, n in zip(steps, shape)) * dtype.itemsize
    high = sum(max(0, s * (n - 1)) for s, n in zip(steps, shape)) * dtype.itemsize + dtype.itemsize
    memory = (ctypes.c_uint8 * (high - low)).from_address(tensor.data + tensor.byte_offset + low)
    return np.ndarray(shape, dtype, memory, -low, tuple(s * dtype.itemsize for s in steps)).copy()


def _dtype(tensor: _Tensor) -> np.dtype:
    key = (tensor.code, tensor.bits)
    if tensor.lanes == 1 and key in _KINDS:
        return np.dtype(_KINDS[key])
    if tensor.lanes == 1 and key in _EXTENDED:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _EXTENDED[key]))
    raise TypeError(f"DLPack type code {tensor.code} of {tensor.bits} bits and {tensor.lanes} lanes is not known")
