"""What is wrong with a model, and which of onnxruntime's errors it raises for it."""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """onnxruntime's error classes for models, by name."""

    FAIL = "Fail"
    GRAPH = "InvalidGraph"
    ARGUMENT = "InvalidArgument"
    PROTOBUF = "InvalidProtobuf"
    NOT_IMPLEMENTED = "NotImplemented"


class InvalidModel(ValueError):
    """The model is no valid ONNX model; the message is a sentence that names what is wrong."""

    def __init__(self, message: str, kind: Kind = Kind.FAIL) -> None:
        super().__init__(message)
        self.kind = kind
