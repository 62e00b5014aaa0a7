"""Session and run options, with onnxruntime's names."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import Fail, InvalidArgument

if TYPE_CHECKING:
    from .binding import OrtValue


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


_MAX_KEY, _MAX_VALUE = 1024, 8192
CONV_ALGORITHM, CONV_WINOGRAD6, WEIGHTS = "jitrt.conv_algorithm", "jitrt.conv_winograd6", "jitrt.weights"
# configuration entries that are jitrt's own: their values, the default first
ENTRIES = {
    CONV_ALGORITHM: ("auto", "direct", "winograd2", "winograd4", "winograd6", "measure"),
    CONV_WINOGRAD6: ("0", "1"),
    WEIGHTS: ("exact", "float32", "bfloat16"),
}


class _Options:
    """Attributes of fixed names and types, and configuration entries (two strings each)."""

    _defaults: Mapping[str, object] = {}

    def __init__(self, **values: object) -> None:
        object.__setattr__(self, "_entries", {})
        for name, value in {**self._defaults, **values}.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        owner = type(self).__name__
        if name not in self._defaults:
            raise AttributeError(f"{owner} has no attribute {name!r}; it has {', '.join(self._defaults)}")
        object.__setattr__(self, name, _converted(f"{owner}.{name}", type(self._defaults[name]), value))

    def __repr__(self) -> str:
        changed = [f"{n}={getattr(self, n)!r}" for n, default in self._defaults.items() if getattr(self, n) != default]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _add(self, key: str, value: str) -> None:
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"a configuration entry needs two strings, got {key!r} and {value!r}")
        if not 0 < len(key) <= _MAX_KEY or len(value) > _MAX_VALUE:
            raise Fail(f"the key of a configuration entry has 1 to {_MAX_KEY} characters, its value at most {_MAX_VALUE}")
        self._entries[key] = value

    def _get(self, key: str) -> str:
        if key not in self._entries:
            raise Fail(f"{type(self).__name__} does not have configuration with key: {key}")
        return self._entries[key]


def _converted(name: str, kind: type, value: object) -> object:
    """`value` as an attribute of that type: integers stand for booleans and enumerations, never the other way round."""
    if kind is bool and isinstance(value, bool | int | np.bool_):
        return bool(value)
    if issubclass(kind, enum.IntEnum) and isinstance(value, int):
        return kind(value)
    if kind is int and isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if kind is str and isinstance(value, str):
        return value
    raise TypeError(f"{name} takes {kind.__name__}, got {value!r}")


class SessionOptions(_Options):
    """How a session is made and run.

    Attributes:
        intra_op_num_threads: threads of a run; 0: what affinity and the container's CPU quota allow.
        enable_profiling, profile_file_prefix: write a Chrome trace of every run; `InferenceSession.end_profiling`
            closes it and returns its name.

    The others are accepted as in onnxruntime. Configuration entries that mean something:

    - ``session.model_external_initializers_file_folder_path``: the folder of external data.
    - ``jitrt.conv_algorithm``: how convolutions are computed. ``auto``: as a cost model expects to be fastest. ``direct``,
      ``winograd2``, ``winograd4``, ``winograd6``: by tiles of so many outputs a side, or directly where there are none.
      ``measure``: what is possible for a layer is timed when its shape is first met, and kept beside the compiled kernels.
    - ``jitrt.conv_winograd6``: ``1`` allows forms with larger errors too, F(6x6, 3x3) and others (docs/performance.md),
      where they are measured or asked for.
    - ``jitrt.weights``: how the constant float32 factors of matrix products are held; sums are float32 in any case. ``exact``:
      in half the memory where all values of a constant are ones of bfloat16 or float16, as in models that were trained or
      published in these. ``float32``: as they are. ``bfloat16``: all in half the memory, those that ``exact`` would not hold so
      rounded to 8 significant bits (2^-9 of each). That is faster where products wait for memory: decoding, small batches.
    """

    _defaults: Mapping[str, object] = {
        "intra_op_num_threads": 0,
        "inter_op_num_threads": 0,
        "graph_optimization_level": GraphOptimizationLevel.ORT_ENABLE_ALL,
        "execution_mode": ExecutionMode.ORT_SEQUENTIAL,
        "execution_order": ExecutionOrder.DEFAULT,
        "enable_cpu_mem_arena": True,
        "enable_mem_pattern": True,
        "enable_mem_reuse": True,
        "enable_profiling": False,
        "profile_file_prefix": "jitrt_profile_",
        "optimized_model_filepath": "",
        "log_severity_level": -1,
        "log_verbosity_level": 0,
        "logid": "",
        "use_deterministic_compute": False,
        "use_per_session_threads": True,
    }

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        hidden = {"_dimensions": {}, "_denotations": {}, "_initializers": {}, "_files": {}, "_providers": [], "_cancelled": False}
        self.__dict__.update(hidden)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in ("intra_op_num_threads", "inter_op_num_threads") and getattr(self, name) < 0:
            object.__setattr__(self, name, 0)
            raise InvalidArgument(f"SessionOptions.{name} must not be negative, got {value}")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {name: bytes(content) for name, content in self._files.items()}}

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set a configuration entry. Keys that are nobody's are kept and mean nothing, as in onnxruntime.

        Raises:
            InvalidArgument: the key begins with ``jitrt.`` and is unknown, or does not take the value.
        """
        if isinstance(key, str) and key.startswith("jitrt."):
            if key not in ENTRIES:
                raise InvalidArgument(f"there is no configuration entry {key!r}; there are {', '.join(ENTRIES)}")
            if value not in ENTRIES[key]:
                raise InvalidArgument(f"the configuration entry {key!r} takes {', '.join(ENTRIES[key])}, got {value!r}")
        self._add(key, value)

    def _own(self, key: str) -> str:
        """The value of one of `ENTRIES`."""
        return self._entries.get(key, ENTRIES[key][0])

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
        """Fix the dimensions of the inputs that have a denotation."""
        self._denotations[denotation] = int(size)

    def add_initializer(self, name: str, value: OrtValue) -> None:
        """Give an initializer in place of the model's."""
        self._initializers[name] = np.asarray(value)

    def add_external_initializers(self, names: Sequence[str], values: Sequence[OrtValue]) -> None:
        """Give the values of initializers whose external data is not to be read."""
        if len(names) != len(values):
            raise InvalidArgument(f"{len(names)} names of external initializers, {len(values)} values")
        for name, value in zip(names, values):
            self.add_initializer(name, value)

    def add_external_initializers_from_files_in_memory(
        self, names: Sequence[str], contents: Sequence[bytes], lengths: Sequence[int] | None = None
    ) -> None:
        """Give the content of external data files."""
        if len(names) != len(contents) or (lengths is not None and len(lengths) != len(names)):
            raise InvalidArgument("as many contents and lengths as names of files are needed")
        for i, (name, content) in enumerate(zip(names, contents)):
            self._files[name] = memoryview(content)[: None if lengths is None else lengths[i]]

    def add_provider(self, name: str, options: Mapping[str, str] | None = None) -> None:
        """Accepted; everything runs on the CPU."""
        self._providers.append((name, dict(options or {})))

    def has_providers(self) -> bool:
        """Whether `add_provider` was called."""
        return bool(self._providers)

    def set_load_cancellation_flag(self, cancel: bool) -> None:
        """A session that is made with the flag set raises `ModelLoadCanceled`."""
        self.__dict__["_cancelled"] = bool(cancel)

    def register_custom_ops_library(self, path: str) -> None:
        """Native operator libraries cannot be loaded.

        Raises:
            Fail: always; register a Python operator with `jitrt.ops.registry.op` instead.
        """
        raise Fail(f"cannot load {path!r}: operators are added in Python, with jitrt.ops.registry.op")


class RunOptions(_Options):
    """Options of one run, accepted as in onnxruntime. A run whose `terminate` is set fails."""

    _defaults: Mapping[str, object] = {
        "log_severity_level": -1,
        "log_verbosity_level": 0,
        "logid": "",
        "only_execute_path_to_fetches": False,
        "terminate": False,
    }

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Set a configuration entry."""
        self._add(key, value)

    def get_run_config_entry(self, key: str) -> str:
        """Get a configuration entry."""
        return self._get(key)
