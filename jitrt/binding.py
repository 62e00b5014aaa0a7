"""`OrtValue` and `IOBinding`: values that live outside a run, as onnxruntime wraps them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .cache import NO_CACHES, Cache
from .dlpack import from_dlpack
from .errors import InvalidArgument
from .fusion.graph import SequenceType, TensorType, Type
from .fusion.tensors import element_type, numpy_dtype
from .values import feed, type_text

if TYPE_CHECKING:
    from .bound import Again
    from .fusion.bindings import Binding
    from .fusion.plan import Plan
    from .session import InferenceSession


class OrtDevice:
    """Where memory is: always the CPU's."""

    @staticmethod
    def make(device_type: str, device_id: int = 0, vendor_id: int = -1) -> OrtDevice:
        """The CPU.

        Raises:
            InvalidArgument: another device is asked for.
        """
        _check_device(device_type)
        return OrtDevice()

    def device_type(self) -> int:
        """0, the CPU's number."""
        return 0

    def device_id(self) -> int:
        """0: there is one."""
        return 0


class OrtValue:
    """A value that a run takes or gives: an array, a list of arrays, or nothing (an optional that is not set)."""

    def __init__(self, value: object) -> None:
        self._value = value

    @classmethod
    def ortvalue_from_numpy(cls, array: np.ndarray, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1) -> OrtValue:
        """Wrap an array without a copy (one that is not C-contiguous is copied)."""
        _check_device(device_type)
        if not isinstance(array, np.ndarray):
            raise InvalidArgument(f"an OrtValue is made of a numpy array, got {type(array).__name__}")
        return cls(array if array.flags.c_contiguous else np.ascontiguousarray(array))

    @classmethod
    def ortvalue_from_numpy_with_onnx_type(cls, data: np.ndarray, onnx_element_type: int) -> OrtValue:
        """Wrap an array's memory as elements of an ONNX type of the same size."""
        dtype = numpy_dtype(onnx_element_type)
        if dtype.itemsize != data.dtype.itemsize:
            raise InvalidArgument(f"elements of {data.dtype} cannot be read as {dtype}: their sizes differ")
        return cls.ortvalue_from_numpy(data.view(dtype))

    @classmethod
    def ortvalue_from_shape_and_type(
        cls,
        shape: Sequence[int],
        element_type: object = np.float32,
        device_type: str = "cpu",
        device_id: int = 0,
        vendor_id: int = -1,
    ) -> OrtValue:
        """An uninitialised array; `element_type` is numpy's or ONNX's number."""
        _check_device(device_type)
        return cls(np.empty(tuple(shape), _dtype_of(element_type)))

    @classmethod
    def from_dlpack(cls, data: object) -> OrtValue:
        """Wrap a tensor of another library."""
        return cls(from_dlpack(data))

    def numpy(self) -> np.ndarray:
        """The array.

        Raises:
            InvalidArgument: the value is none.
        """
        if not self.is_tensor():
            raise InvalidArgument(f"the value is no tensor but {self.data_type()}")
        return self._value

    def update_inplace(self, data: np.ndarray | OrtValue) -> None:
        """Overwrite the array's content; its memory stays where it is."""
        new, own = data.numpy() if isinstance(data, OrtValue) else data, self.numpy()
        if not isinstance(new, np.ndarray):
            raise TypeError("data must be a numpy.ndarray or an OrtValue.")
        if new.shape != own.shape or new.dtype != own.dtype:
            raise InvalidArgument(f"cannot update {own.dtype}{list(own.shape)} with {new.dtype}{list(new.shape)}")
        own[...] = new

    def shape(self) -> list[int]:
        """The array's shape."""
        return list(self.numpy().shape)

    def data_type(self) -> str:
        """``tensor(float)`` and the like."""
        return type_text(_type_of(self._value))

    def element_type(self) -> int:
        """The array's ONNX element type."""
        return element_type(self.numpy().dtype)

    def tensor_size_in_bytes(self) -> int:
        """Bytes of the array."""
        return self.numpy().nbytes

    def data_ptr(self) -> int:
        """The address of the array's first element."""
        return self.numpy().ctypes.data

    def device_name(self) -> str:
        """Always the CPU."""
        return "cpu"

    def is_tensor(self) -> bool:
        """Whether it holds an array."""
        return isinstance(self._value, np.ndarray)

    def is_tensor_sequence(self) -> bool:
        """Whether it holds a list of arrays."""
        return isinstance(self._value, list)

    def is_sparse_tensor(self) -> bool:
        """Never: sparse tensors are kept dense."""
        return False

    def has_value(self) -> bool:
        """Whether an optional is set."""
        return self._value is not None

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if copy:
            return np.array(array, dtype)
        return np.asarray(array, dtype)

    def __dlpack__(self, **options: object) -> object:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.numpy().__dlpack_device__()

    def __repr__(self) -> str:
        return f"<OrtValue {self.data_type()}{self.shape() if self.is_tensor() else ''}>"


class IOBinding:
    """Inputs and outputs of a session's runs, bound to memory once."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, object] = {}
        self._outputs: dict[str, np.ndarray | None] = {}
        self._caches = NO_CACHES
        self._results: list[object] = []
        self._ran: Binding | None = None
        self._again: Again | None = None

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        """Bind an array; a run reads what it holds then."""
        self._inputs[self._known_input(name)] = array

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: object, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Bind memory by its address; it must stay alive and hold the shape's elements."""
        _check_device(device_type)
        self._inputs[self._known_input(name)] = _at(buffer_ptr, _dtype_of(element_type), shape)

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Bind an `OrtValue`."""
        self._inputs[self._known_input(name)] = ortvalue._value

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: object = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Ask for an output: in memory of the caller's if its address is given, else in new memory."""
        _check_device(device_type)
        if buffer_ptr is not None and (element_type is None or shape is None):
            raise ValueError("`element_type` and `shape` are to be provided if pre-allocated memory is provided")
        memory = None if buffer_ptr is None else _at(buffer_ptr, _dtype_of(element_type), shape or ())
        self._outputs[self._known_output(name)] = memory

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Ask for an output in an `OrtValue`'s memory."""
        self._outputs[self._known_output(name)] = ortvalue.numpy()

    def bind_cache(self, past: str, present: str, first: np.ndarray | OrtValue, capacity: int = 0, axis: int = -2) -> Cache:
        """Bind an input and the longer output that is this input in the next run: a decoder's keys or values.

        Their rows stay in one array between runs. A run writes new ones behind them, and copies nothing if the model makes the
        output by `Concat`; else the output is copied to the array. `clear_binding_inputs` forgets caches too.

        Args:
            first: what is past now; it may have no rows, and is copied.
            capacity: how many rows there is to be room for; `Cache.reserve` makes more.
            axis: the dimension that grows.
        """
        array = first.numpy() if isinstance(first, OrtValue) else np.asarray(first)
        kind = self._session.graph.types.get(self._known_input(past))
        feed(past, kind, array, {})
        if not -array.ndim <= axis < array.ndim:
            raise InvalidArgument(f"{past!r} has {array.ndim} dimensions, none of them is {axis}")
        if self._known_output(present) in {cache.present for cache in self._caches if cache.past != past}:
            raise InvalidArgument(f"{present!r} is another cache's")
        made = Cache(past, present, array, axis % array.ndim, capacity)
        self._caches = self._caches.with_cache(made)
        return made

    def get_outputs(self) -> list[OrtValue]:
        """The outputs of the last run, in the order in which they were bound."""
        return [OrtValue(value) for value in self._results]

    def copy_outputs_to_cpu(self) -> list[object]:
        """Copies of the outputs of the last run."""
        return [np.array(v) if isinstance(v, np.ndarray) else v for v in self._results]

    def clear_binding_inputs(self) -> None:
        """Forget the inputs and the caches."""
        self._inputs.clear()
        self._caches = NO_CACHES

    def clear_binding_outputs(self) -> None:
        """Forget the outputs."""
        self._outputs.clear()

    def synchronize_inputs(self) -> None:
        """Nothing to wait for on a CPU."""

    def synchronize_outputs(self) -> None:
        """Nothing to wait for on a CPU."""

    def run(self, run_options: object = None) -> None:
        """What `InferenceSession.run_with_iobinding` does."""
        if not self._outputs and not self._caches:
            raise InvalidArgument("no output is bound")
        bound, again = (self._inputs, self._outputs, self._caches), self._again
        if again is not None and run_options is None and again.is_like(*bound):
            self._results = self._session._run_again(again)
        else:
            self._results, self._ran, self._again = self._session._run_bound(*bound, self._ran, run_options)

    def get_plan(self) -> Plan:
        """The plan of the last run."""
        if self._ran is None:
            raise InvalidArgument("nothing has run yet")
        return self._ran.concrete()

    def _known_input(self, name: str) -> str:
        self._session._check_input_names([name])
        return name

    def _known_output(self, name: str) -> str:
        self._session._check_output_names([name])
        return name


def _at(address: int, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """The caller's memory as an array."""
    shape = tuple(int(n) for n in shape)
    size = dtype.itemsize
    for n in shape:
        size *= n
    if not size:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, (ctypes.c_uint8 * size).from_address(address))


def _dtype_of(element_type: object) -> np.dtype:
    return numpy_dtype(element_type) if isinstance(element_type, int) else np.dtype(element_type)


def _type_of(value: object) -> Type | None:
    if isinstance(value, np.ndarray):
        return TensorType(value.dtype, value.shape)
    if isinstance(value, list):
        return SequenceType(_type_of(value[0]) if value else None)
    return None


def _check_device(device_type: str) -> None:
    if device_type.lower() != "cpu":
        raise InvalidArgument(f"memory can be on the CPU only, {device_type!r} asked for")
