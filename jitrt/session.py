"""`InferenceSession`: onnxruntime's session, on jitrt's engine."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, RuntimeException
from .fusion.graph import Graph, TensorType
from .options import RunOptions, SessionOptions
from .pool import default_threads
from .values import feed, type_text

PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class NodeArg:
    """An input or output: name, shape (sizes, names or None) and type as onnxruntime writes it."""

    name: str
    shape: list[int | str | None]
    type: str

    def __str__(self) -> str:
        return f"NodeArg(name={self.name!r}, type={self.type!r}, shape={self.shape})"


@dataclass(frozen=True)
class ModelMetadata:
    """What the model's file says of itself."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]


class InferenceSession:
    """A model, ready to run.

    Args:
        path_or_bytes: path of an .onnx file, its bytes, or a ModelProto.
        sess_options: see `SessionOptions`.
        providers, provider_options: accepted; everything runs on the CPU.

    Raises:
        NoSuchFile, InvalidProtobuf, InvalidGraph, NotImplemented, Fail: as onnxruntime does.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike | bytes | object,
        sess_options: SessionOptions | None = None,
        providers: Sequence[object] | None = None,
        provider_options: Sequence[Mapping[str, object]] | None = None,
        **kwargs: object,
    ) -> None:
        self._source, self._options = path_or_bytes, sess_options if sess_options is not None else SessionOptions()
        if not isinstance(self._options, SessionOptions):
            raise TypeError(f"sess_options takes SessionOptions, got {type(sess_options).__name__}")
        self._provider_arguments = providers, provider_options
        _check_providers(providers)
        self._load()

    def _load(self) -> None:
        from .engine import Engine

        self._model = _import(self._source)
        self.graph: Graph = self._model.graph
        threads = self._options.intra_op_num_threads or default_threads()
        self._names = {*self.graph.inputs, *self.graph.overridable}
        self._sizes = dict(self._options._dimensions)
        self._engine = Engine(self.graph, threads, self._options)
        self._check_operators()
        self._values = self._all_values()

    def _check_operators(self) -> None:
        from .fusion.support import unknown_operators

        problems = unknown_operators(self.graph)
        if problems:
            raise NotImplementedError("; ".join(problems))

    def _all_values(self) -> set[str]:
        names = {*self.graph.inputs, *self.graph.constants, *self.graph.outputs}
        return names.union(*(n.outputs for n in self.graph.nodes)) - {""}

    # -- running
    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, object],
        run_options: RunOptions | None = None,
    ) -> list[object]:
        """Run the model.

        Args:
            output_names: any values of the graph by name; None or empty: the declared outputs.
            input_feed: input name -> array (or anything that becomes one).

        Raises:
            InvalidArgument: a name, dtype, rank or size does not fit; ValueError for missing inputs.
            RuntimeException: a node failed; the message names it.
        """
        if run_options is not None and run_options.terminate:
            raise Fail("the run was terminated by RunOptions.terminate")
        outputs = list(output_names) if output_names else self.graph.outputs
        feeds = self._feeds(input_feed)
        for name in outputs:
            if name not in self._values:
                raise InvalidArgument(f"invalid output name {name!r}; the model's outputs are {self.graph.outputs}")
        return self._run(feeds, outputs)

    def _run(self, feeds: dict[str, object], outputs: list[str]) -> list[object]:
        from .executor import KernelFault
        from .ops.builder import OperatorError

        try:
            return self._engine.run(feeds, outputs)
        except KernelFault as error:
            raise InvalidArgument(str(error)) from error
        except OperatorError as error:
            raise RuntimeException(str(error)) from error

    def _feeds(self, given: Mapping[str, object]) -> dict[str, object]:
        """Validated inputs, in the graph's order."""
        graph = self.graph
        if not isinstance(given, Mapping):
            raise InvalidArgument(f"input_feed takes a dictionary, got {type(given).__name__}")
        missing = [n for n in graph.inputs if n not in given]
        if missing:
            raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(given)}).")
        extra = [n for n in given if n not in self._names]
        if extra:
            raise InvalidArgument(f"invalid input name {extra[0]!r}; the model's inputs are {sorted(self._names)}")
        names = [*graph.inputs, *(n for n in graph.overridable if n in given)]
        return {n: feed(n, graph.types.get(n), given[n], self._sizes) for n in names}

    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_dict_ort_values: Mapping[str, object], run_options: RunOptions | None = None
    ) -> list[OrtValue]:
        """`run` on `OrtValue`s."""
        feeds = {n: v.numpy() if isinstance(v, OrtValue) else v for n, v in input_dict_ort_values.items()}
        return [OrtValue(v) for v in self.run(output_names, feeds, run_options)]

    # -- looking
    def get_inputs(self) -> list[NodeArg]:
        """The inputs that a run must give."""
        return [self._node_arg(n) for n in self.graph.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The declared outputs."""
        return [self._node_arg(n) for n in self.graph.outputs]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Initializers that a run may give instead."""
        return [self._node_arg(n) for n in self.graph.overridable]

    def _node_arg(self, name: str) -> NodeArg:
        kind = self.graph.types.get(name)
        shape = list(kind.shape) if isinstance(kind, TensorType) and kind.shape is not None else []
        return NodeArg(name, [self._sizes.get(d, d) if isinstance(d, str) else d for d in shape], type_text(kind))

    def get_modelmeta(self) -> ModelMetadata:
        """What the file says of itself."""
        m = self._model
        return ModelMetadata(m.producer, m.graph.name, m.domain, m.description, m.graph_description, m.version, dict(m.metadata))

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._options

    def get_providers(self) -> list[str]:
        """Always the CPU."""
        return [PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """No options."""
        return {PROVIDER: {}}

    def set_providers(self, providers: Sequence[object] | None = None, provider_options: object = None) -> None:
        """Accepted; everything runs on the CPU."""
        _check_providers(providers)

    def enable_fallback(self) -> None:
        """Accepted; there is one provider."""

    def disable_fallback(self) -> None:
        """Accepted; there is one provider."""

    def get_plan(self, input_feed: Mapping[str, object] | None = None):
        """The plan for these inputs (without: for the declared shapes, 1 for what is not fixed)."""
        return self._engine.plan(self._feeds(self._example() if input_feed is None else input_feed))

    def profile(self, input_feed: Mapping[str, object] | None = None, repeat: int = 10):
        """Time per step over `repeat` runs."""
        return self._engine.profile(self._feeds(self._example() if input_feed is None else input_feed), repeat)

    def _example(self) -> dict[str, np.ndarray]:
        feeds = {}
        for name in self.graph.inputs:
            kind = self.graph.types.get(name)
            if not isinstance(kind, TensorType) or kind.shape is None:
                raise InvalidArgument(f"input {name!r} has no declared tensor shape; give an example input")
            shape = [d if isinstance(d, int) else self._sizes.get(d, 1) for d in kind.shape]
            feeds[name] = np.zeros(shape, kind.dtype)
        return feeds

    # -- copying
    def __getstate__(self) -> dict[str, object]:
        source = self._source
        if hasattr(source, "SerializeToString"):
            source = source.SerializeToString()
        return {"source": source, "options": self._options, "providers": self._provider_arguments}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._source, self._options = state["source"], copy.copy(state["options"])
        self._provider_arguments = state["providers"]
        self._load()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{a.name}: {a.type}{a.shape}" for a in self.get_inputs())
        outputs = ", ".join(f"{a.name}: {a.type}{a.shape}" for a in self.get_outputs())
        return f"<jitrt.InferenceSession {self.graph.name} ({inputs}) -> ({outputs})>"


class OrtValue:
    """A value that a run takes or gives, as onnxruntime wraps it."""

    def __init__(self, value: object) -> None:
        self._value = value

    @staticmethod
    def ortvalue_from_numpy(array: np.ndarray, device_type: str = "cpu", device_id: int = 0) -> OrtValue:
        """Wrap an array."""
        return OrtValue(np.ascontiguousarray(array))

    @staticmethod
    def ortvalue_from_shape_and_type(shape: Sequence[int], element_type: object = np.float32, *device: object) -> OrtValue:
        """An uninitialised array."""
        return OrtValue(np.empty(shape, element_type))

    def numpy(self) -> np.ndarray:
        """The array."""
        return self._value

    def shape(self) -> list[int]:
        """The array's shape."""
        return list(np.shape(self._value))

    def data_type(self) -> str:
        """``tensor(float)`` and the like."""
        return type_text(TensorType(self._value.dtype, None)) if self.is_tensor() else "seq(tensor)"

    def device_name(self) -> str:
        """Always the CPU."""
        return "cpu"

    def is_tensor(self) -> bool:
        """Whether it holds an array."""
        return isinstance(self._value, np.ndarray)

    def has_value(self) -> bool:
        """Whether an optional is set."""
        return self._value is not None


def _import(source: object):
    from .fusion import importer

    try:
        return importer.load(source)
    except FileNotFoundError as error:
        raise NoSuchFile(str(error)) from error
    except importer.BadFile as error:
        raise InvalidProtobuf(f"{_shown(source)}: {error}") from error
    except importer.InvalidModel as error:
        raise InvalidGraph(f"{_shown(source)}: This is an invalid model. {error}") from error
    except TypeError as error:
        raise TypeError(f"Unable to load from type {type(source)!r}") from error


def _shown(source: object) -> str:
    return f"Load model from {source} failed" if isinstance(source, str | os.PathLike) else "Load model from bytes failed"


def _check_providers(providers: Sequence[object] | None) -> None:
    for provider in providers or ():
        name = provider[0] if isinstance(provider, tuple) else provider
        if not isinstance(name, str):
            raise ValueError(f"providers takes names or (name, options) pairs, got {provider!r}")
        if name != PROVIDER:
            warnings.warn(f"provider {name!r} is not available; {PROVIDER!r} is used", UserWarning, stacklevel=3)
