"""jitrt: an ONNX runtime for CPUs written in Python on numba, with onnxruntime's session API."""

from __future__ import annotations

import pathlib as _pathlib

# In a source checkout the rooms fusion/ and ops/ lie beside this folder; installed, they lie inside it.
_root = _pathlib.Path(__file__).resolve().parent.parent
if (_root / "fusion" / "plan.py").is_file() and (_root / "ops" / "kernels").is_dir():
    __path__.append(str(_root))

from .binding import IOBinding, OrtDevice, OrtValue  # noqa: E402
from .capi import onnxruntime_pybind11_state as _state  # noqa: E402, F401  # as onnxruntime.capi is there once imported
from .errors import (  # noqa: E402
    DeviceReset,
    EngineError,
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    ModelLoadCanceled,
    ModelLoaded,
    ModelRequiresCompilation,
    NodeFailure,
    NoModel,
    NoSuchFile,
    NotFound,
    NotImplemented,
    RuntimeException,
)
from .options import (  # noqa: E402
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    RunOptions,
    SessionOptions,
)
from .session import InferenceSession, ModelMetadata, NodeArg  # noqa: E402

__version__ = "0.1.0"


def get_available_providers() -> list[str]:
    """The CPU."""
    return ["CPUExecutionProvider"]


def get_all_providers() -> list[str]:
    """The CPU."""
    return ["CPUExecutionProvider"]


def get_device() -> str:
    """The CPU."""
    return "CPU"


def get_version_string() -> str:
    """jitrt's version."""
    return __version__


def get_build_info() -> str:
    """What runs here."""
    return f"jitrt {__version__}: ONNX on CPUs, compiled by numba"


def set_default_logger_severity(level: int) -> None:
    """Accepted; ``JITRT_LOG`` chooses what is logged."""


def set_default_logger_verbosity(level: int) -> None:
    """Accepted; ``JITRT_LOG`` chooses what is logged."""


def enable_telemetry_events() -> None:
    """Accepted; jitrt never reports anything to anybody."""


def disable_telemetry_events() -> None:
    """Accepted; jitrt never reports anything to anybody."""


def set_seed(seed: int) -> None:
    """Seed the random operators that have no seed of their own."""
    from .ops import random

    random.set_seed(seed)


__all__ = [
    "DeviceReset",
    "EPFail",
    "EngineError",
    "ExecutionMode",
    "ExecutionOrder",
    "Fail",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelLoadCanceled",
    "ModelLoaded",
    "ModelMetadata",
    "ModelRequiresCompilation",
    "NoModel",
    "NoSuchFile",
    "NodeArg",
    "NodeFailure",
    "NotFound",
    "NotImplemented",
    "OrtDevice",
    "OrtValue",
    "RunOptions",
    "RuntimeException",
    "SessionOptions",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]
