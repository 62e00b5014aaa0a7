"""Error classes, named as onnxruntime names them, so that programs that catch its errors catch ours."""

from __future__ import annotations


class Fail(RuntimeError):
    """Something failed that no other class describes."""


class InvalidArgument(ValueError, RuntimeError):
    """An argument of a call is wrong: a name, a dtype, a rank, a size."""


class NoSuchFile(FileNotFoundError, RuntimeError):
    """There is no such model file."""


class NoModel(RuntimeError):
    """The file holds no model."""


class EngineError(RuntimeError):
    """The engine failed."""


class RuntimeException(RuntimeError):
    """A node failed while it ran."""


class InvalidProtobuf(RuntimeError):
    """The bytes are not a serialized model."""


class ModelLoaded(RuntimeError):
    """A model is loaded already."""


class NotImplemented(RuntimeError):
    """No implementation of an operator was found."""


class InvalidGraph(RuntimeError):
    """The graph is not valid."""


class EPFail(RuntimeError):
    """An execution provider failed."""


class NodeFailure(RuntimeException, InvalidArgument, Fail):
    """A node failed on the values that it was given.

    onnxruntime raises one of the three, depending on how the operator is written; who catches any of them catches this.
    """


class ModelLoadCanceled(RuntimeError):
    """Loading was cancelled through the session options."""


class ModelRequiresCompilation(RuntimeError):
    """A model has to be compiled ahead of time."""


class NotFound(RuntimeError):
    """Something that was asked for by name does not exist."""


class DeviceReset(RuntimeError):
    """A device was reset."""


__all__ = [
    "DeviceReset",
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelLoadCanceled",
    "ModelLoaded",
    "ModelRequiresCompilation",
    "NoModel",
    "NoSuchFile",
    "NodeFailure",
    "NotFound",
    "NotImplemented",
    "RuntimeException",
]
