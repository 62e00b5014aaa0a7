"""Session and run options, with onnxruntime's names."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .errors import Fail, InvalidArgument


class GraphOptimizationLevel(enum.IntEnum):
    """Accepted for compatibility; the plan is always optimised."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(enum.IntEnum):
    """Accepted for compatibility; every step is parallel in itself."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(enum.IntEnum):
    """Accepted for compatibility."""

    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


class _ConfigEntries:
    """Key-value settings."""

    def __init__(self) -> None:
        self._entries: dict[str, str] = {}

    def _add(self, key: str, value: str) -> None:
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"a configuration entry needs two strings, got {key!r} and {value!r}")
        self._entries[key] = value

    def _get(self, key: str) -> str:
        if key not in self._entries:
            raise Fail(f"no configuration entry {key!r}")
        return self._entries[key]


@dataclass
class SessionOptions(_ConfigEntries):
    """How a session is made and run.

    Attributes:
        intra_op_num_threads: threads of a run; 0: what affinity and the container's CPU quota allow.
        enable_profiling, profile_file_prefix: write a Chrome trace of every run; `end_profiling` closes it.

    The others are accepted as in onnxruntime.
    """

    intra_op_num_threads: int = 0
    inter_op_num_threads: int = 0
    graph_optimization_level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL
    execution_mode: ExecutionMode = ExecutionMode.ORT_SEQUENTIAL
    execution_order: ExecutionOrder = ExecutionOrder.DEFAULT
    enable_cpu_mem_arena: bool = True
    enable_mem_pattern: bool = True
    enable_mem_reuse: bool = True
    enable_profiling: bool = False
    profile_file_prefix: str = "jitrt_profile_"
    optimized_model_filepath: str = ""
    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    use_deterministic_compute: bool = False
    use_per_session_threads: bool = True

    def __post_init__(self) -> None:
        _ConfigEntries.__init__(self)
        self._dimensions: dict[str, int] = {}
        self._denotations: dict[str, int] = {}

    def __setattr__(self, name: str, value: object) -> None:
        expected = _INTEGERS.get(name)
        if expected and (not isinstance(value, int) or isinstance(value, bool)):
            raise TypeError(f"SessionOptions.{name} takes an integer, got {value!r}")
        if name in ("intra_op_num_threads", "inter_op_num_threads") and value < 0:
            raise InvalidArgument(f"SessionOptions.{name} must not be negative, got {value}")
        object.__setattr__(self, name, value)

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set a configuration entry."""
        self._add(key, value)

    def get_session_config_entry(self, key: str) -> str:
        """Get a configuration entry.

        Raises:
            Fail: it was not set.
        """
        return self._get(key)

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Fix a named dimension of the inputs."""
        self._dimensions[name] = int(size)

    def add_free_dimension_override_by_denotation(self, denotation: str, size: int) -> None:
        """Accepted; denotations are not used by any known exporter."""
        self._denotations[denotation] = int(size)

    def register_custom_ops_library(self, path: str) -> None:
        """Native operator libraries cannot be loaded.

        Raises:
            Fail: always; register a Python operator with `jitrt.ops.registry.op` instead.
        """
        raise Fail(f"cannot load {path!r}: operators are added in Python, with jitrt.ops.registry.op")


_INTEGERS = dict.fromkeys(("intra_op_num_threads", "inter_op_num_threads", "log_severity_level", "log_verbosity_level"), int)


@dataclass
class RunOptions(_ConfigEntries):
    """Options of one run; accepted as in onnxruntime. `terminate` set before a run makes it fail."""

    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    tag: str = ""
    only_execute_path_to_fetches: bool = False
    terminate: bool = False
    training_mode: bool = False

    def __post_init__(self) -> None:
        _ConfigEntries.__init__(self)

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Set a configuration entry."""
        self._add(key, value)

    def get_run_config_entry(self, key: str) -> str:
        """Get a configuration entry."""
        return self._get(key)
