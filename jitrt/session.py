"""`InferenceSession`: onnxruntime's session, on jitrt's engine.

What costs time to import (onnx, llvmlite, numba) is imported where it is first needed.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import errors
from .binding import IOBinding, OrtValue
from .errors import Fail, InvalidArgument, ModelLoadCanceled, NodeFailure
from .fusion.graph import Graph, OptionalType, TensorType
from .memory import LARGE
from .options import RunOptions, SessionOptions
from .values import feed, type_text

if TYPE_CHECKING:
    from .bound import Again
    from .cache import Caches
    from .engine import Engine
    from .fusion.bindings import Binding
    from .fusion.plan import Plan
    from .profile import Profile
    from .program import Entry
    from .recent import Recent
    from .tracefile import TraceFile

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
        self._provider_options = _provider_options(providers, provider_options)
        self._load()

    def _load(self) -> None:
        from .engine import Engine
        from .loading import load
        from .pool import HELPER, REPLAY, default_threads
        from .store import store

        if self._options._cancelled:
            raise ModelLoadCanceled("the load cancellation flag of the session options is set")
        self._trace_file = self._open_trace_file()
        store().announce([REPLAY, HELPER])  # what every run needs may be compiled while the model is read
        self._model = load(self._source, self._options)
        self.graph: Graph = self._model.graph
        self._names = {*self.graph.inputs, *self.graph.overridable}
        self._required = [n for n in self.graph.inputs if not isinstance(self.graph.types.get(n), OptionalType)]
        self._expected_inputs: dict[frozenset[str], tuple[list[str], list[str]]] = {}
        self._sizes = dict(self._options._dimensions)
        self._threads = self._options.intra_op_num_threads or default_threads()
        self._engine = Engine(self.graph, self._threads, self._options)
        self._kept = _values(self._engine.graph)
        self._other_engines: dict[frozenset[str], Engine] = {}
        self._recent: Recent | None = None
        self._check_operators()
        self._values = _values(self.graph)
        self._state = _file_state(self._source)
        self._dropped = self._share_weights()
        if self._trace_file is not None:
            self._trace_file.add("session_initialization", 0.0)

    def _share_weights(self) -> bool:
        """Hold what the engine holds in its place; forget weights that a rewrite has replaced, and tell whether there are any.

        `_whole_graph` can read them again.
        """
        constants, theirs = self.graph.constants, self._engine.graph.constants
        constants.update((name, theirs[name]) for name in constants.keys() & theirs.keys())
        unused = [n for n, x in constants.items() if x.nbytes >= LARGE and n not in theirs]
        for name in unused:
            del constants[name]
        return bool(unused)

    def _whole_graph(self, outputs: Sequence[str]) -> Graph:
        """The model's graph with all its weights; those among `outputs` exactly.

        Raises:
            Fail: they would have to be read again from a file that is another one now.
        """
        from .loading import load

        if not self._dropped and not self._engine.rounded(outputs):
            return self.graph
        if _file_state(self._source) != self._state:
            raise Fail(f"{self._source!r} has changed since the session was made; inner values can no longer be computed")
        return load(self._source, self._options).graph

    def _open_trace_file(self) -> TraceFile | None:
        if not self._options.enable_profiling:
            return None
        from .tracefile import TraceFile

        return TraceFile(self._options.profile_file_prefix)

    def _check_operators(self) -> None:
        from .fusion.support import unsupported

        problems = unsupported(self.graph)
        if problems:
            raise errors.NotImplemented("; ".join(problems))

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
            NodeFailure: a node failed on its inputs' values.
        """
        if run_options is not None:
            _check_run_options(run_options)
        recent = self._recent
        if recent is not None and recent.is_like(output_names, input_feed):
            try:
                values = recent.run(input_feed)
            except MemoryError:
                raise
            except Exception as error:
                raise _failure(error) from error
        else:
            values = self._checked_run(output_names, input_feed)
        if run_options is not None:
            _check_run_options(run_options)
        return values

    def _checked_run(self, asked: Sequence[str] | None, given: Mapping[str, object]) -> list[object]:
        """A run of which nothing is known yet; the next one may be like it."""
        from .recent import Recent

        outputs = self._output_names(asked)
        feeds = self._feeds(given)
        if self._trace_file is not None:
            return self._traced_run(feeds, outputs)
        values, entry = self._run(feeds, outputs)
        self._recent = Recent.of(asked, given, feeds, outputs, entry)
        return values

    def _run(self, feeds: dict[str, object], outputs: list[str]) -> tuple[list[object], Entry]:
        """The outputs, and the plan that made them."""
        engine = self._engine if outputs is self.graph.outputs else self._engine_for(outputs)
        try:
            return engine.run_and_tell(feeds, outputs)
        except MemoryError:
            raise
        except Exception as error:
            raise _failure(error) from error

    def _run_bound(
        self, inputs: Mapping[str, object], outputs: Mapping[str, np.ndarray | None], caches: Caches, before: Binding | None,
        options: RunOptions | None,
    ) -> tuple[list[object], Binding, Again | None]:  # fmt: skip
        """`run` with outputs and caches in the caller's memory (`IOBinding`), what it ran, and how to do so again."""
        from . import bound

        if options is not None:
            _check_run_options(options)
        twice = [*caches.in_arrays.keys() & outputs.keys(), *caches.pasts & inputs.keys()]
        if twice:
            raise InvalidArgument(f"{twice[0]!r} is bound, and kept by a cache")
        feeds, engine = self._feeds(inputs, caches.pasts), self._engine_for([*outputs, *caches.presents])
        started = self._trace_file.now() if self._trace_file is not None else 0.0
        try:
            values, ran, again = bound.run(engine, feeds, outputs, caches, before)
        except (MemoryError, InvalidArgument):
            raise
        except Exception as error:
            raise _failure(error) from error
        if self._trace_file is not None:
            self._trace_file.add("model_run", started)
        if options is not None:
            _check_run_options(options)
        return values, ran, again if self._trace_file is None else None

    def _run_again(self, again: Again) -> list[object]:
        """The outputs of a bound run that is like the one before."""
        try:
            return again.run()
        except MemoryError:
            raise
        except Exception as error:
            raise _failure(error) from error

    def _engine_for(self, outputs: list[str]) -> Engine:
        """An engine whose rewritten graph still has these values: nearly always the session's own."""
        if outputs == self.graph.outputs or (self._kept.issuperset(outputs) and not self._engine.rounded(outputs)):
            return self._engine
        from .engine import Engine

        wanted = frozenset(outputs)
        if wanted not in self._other_engines:
            graph = self._whole_graph(outputs).copy(outputs=list(dict.fromkeys(outputs)))
            self._other_engines[wanted] = Engine(graph, self._threads, self._options)
        return self._other_engines[wanted]

    def _traced_run(self, feeds: dict[str, object], outputs: list[str]) -> list[object]:
        """A run for the trace file: repeated once with a timeline of its steps."""
        started = self._trace_file.now()
        values, _ = self._run(feeds, outputs)
        self._trace_file.add("model_run", started)
        started = self._trace_file.now()
        self._trace_file.add_steps(self._engine.profile(feeds, 1), started)
        return values

    def _output_names(self, names: Sequence[str] | None) -> list[str]:
        if isinstance(names, str):
            raise TypeError(f"output_names takes a list of names, got the string {names!r}")
        if not names:
            if not self.graph.outputs:
                raise InvalidArgument("the model declares no outputs; name at least one value of the graph")
            return self.graph.outputs
        self._check_output_names(names)
        return list(names)

    def _check_output_names(self, names: Iterable[str]) -> None:
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"an output's name is a string, got {name!r}")
            if name not in self._values:
                raise InvalidArgument(f"invalid output name {name!r}; the model's outputs are {self.graph.outputs}")

    def _check_input_names(self, names: Iterable[str]) -> None:
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"an input's name is a string, got {name!r}")
            if name not in self._names:
                known = [*self.graph.inputs, *self.graph.overridable]
                raise InvalidArgument(f"invalid input name {name!r}; the model's inputs are {known}")

    def _feeds(self, given: Mapping[str, object], without: frozenset[str] = frozenset()) -> dict[str, object]:
        """Validated inputs, in the graph's order, `without` some."""
        kinds, sizes = self.graph.types, self._sizes
        if type(given) is not dict and not isinstance(given, Mapping):
            raise InvalidArgument(f"input_feed takes a dictionary, got {type(given).__name__}")
        required, names = self._expected(without)
        missing = [n for n in required if n not in given]
        if missing:
            raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(given)}).")
        if not self._names.issuperset(given):
            self._check_input_names(given)
        if self.graph.overridable:
            names = [*names, *(n for n in self.graph.overridable if n in given and n not in without)]
        return {n: feed(n, kinds.get(n), given.get(n), sizes) for n in names}

    def _expected(self, without: frozenset[str]) -> tuple[list[str], list[str]]:
        """The inputs that have to be fed, and all but those with defaults, `without` some."""
        found = self._expected_inputs.get(without)
        if found is None:
            required, names = ([n for n in given if n not in without] for given in (self._required, self.graph.inputs))
            found = self._expected_inputs[without] = required, names
        return found

    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_dict_ort_values: Mapping[str, object], run_options: RunOptions | None = None
    ) -> list[OrtValue]:
        """`run` on `OrtValue`s."""
        feeds = {n: v._value if isinstance(v, OrtValue) else v for n, v in input_dict_ort_values.items()}
        return [OrtValue(v) for v in self.run(output_names, feeds, run_options)]

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, object],
        callback: Callable[[list[object], object, str], None],
        user_data: object,
        run_options: RunOptions | None = None,
    ) -> None:
        """`run` on a thread of its own, which then calls ``callback(outputs, user_data, error)``.

        Wrong arguments raise here; what goes wrong in the run is told to the callback as text.
        """
        outputs, feeds = self._output_names(output_names), self._feeds(input_feed)

        def work() -> None:
            try:
                results, error = self.run(outputs, feeds, run_options), ""
            except Exception as problem:
                results, error = [], str(problem)
            callback(results, user_data, error)

        threading.Thread(target=work, name="jitrt-run", daemon=True).start()

    def io_binding(self) -> IOBinding:
        """Inputs and outputs bound to memory, for `run_with_iobinding`."""
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run on what is bound; the outputs are then `IOBinding.get_outputs`'s."""
        if iobinding._session is not self:
            raise ValueError("the IOBinding was made by another session")
        iobinding.run(run_options)

    def end_profiling(self) -> str:
        """Write the trace of the runs so far (`SessionOptions.enable_profiling`) and return the file's name."""
        trace_file, self._trace_file = self._trace_file, None
        return trace_file.write() if trace_file is not None else ""

    def get_profiling_start_time_ns(self) -> int:
        """When profiling started, comparable to `time.monotonic_ns`; 0 without."""
        return self._trace_file.started_ns if self._trace_file is not None else 0

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
        tensor = kind.element if isinstance(kind, OptionalType) else kind
        shape = list(tensor.shape) if isinstance(tensor, TensorType) and tensor.shape is not None else []
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
        """The options that were given for the CPU; none has an effect."""
        return {PROVIDER: dict(self._provider_options)}

    def set_providers(
        self, providers: Sequence[object] | None = None, provider_options: Sequence[Mapping[str, object]] | None = None
    ) -> None:
        """Accepted; everything runs on the CPU."""
        self._provider_options = _provider_options(providers, provider_options)

    def enable_fallback(self) -> None:
        """Accepted; there is one provider."""

    def disable_fallback(self) -> None:
        """Accepted; there is one provider."""

    def get_plan(self, input_feed: Mapping[str, object] | None = None) -> Plan:
        """The plan for these inputs (without: for the declared shapes, 1 for what is not fixed)."""
        return self._engine.plan(self._feeds(self._example() if input_feed is None else input_feed))

    def get_plans(self, input_feed: Mapping[str, object]) -> list[Plan]:
        """The plan for these inputs and, after a run, those of what waited in it for sizes that only a run gives."""
        return self._engine.plans(self._feeds(input_feed))

    def profile(self, input_feed: Mapping[str, object] | None = None, repeat: int = 10) -> Profile:
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
        self._source, self._options = state["source"], state["options"]
        self._provider_arguments = state["providers"]
        self._provider_options = {}
        self._load()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{a.name}: {a.type}{a.shape}" for a in self.get_inputs())
        outputs = ", ".join(f"{a.name}: {a.type}{a.shape}" for a in self.get_outputs())
        return f"<jitrt.InferenceSession {self.graph.name} ({inputs}) -> ({outputs})>"


def _failure(error: Exception) -> NodeFailure:
    """What a run's error is to the caller."""
    from .executor import HostFault, KernelFault
    from .ops.builder import OperatorError

    named = isinstance(error, OperatorError | KernelFault | HostFault)
    return NodeFailure(str(error) if named else f"a node failed: {type(error).__name__}: {error}")


def _file_state(source: object) -> tuple[int, ...] | None:
    """What tells a file's content from a later one's; None for what is no path."""
    if not isinstance(source, str | os.PathLike):
        return None
    try:
        info = os.stat(source)
    except OSError:
        return ()
    return info.st_size, info.st_mtime_ns, info.st_ino


def _values(graph: Graph) -> set[str]:
    """Every name of the graph that has a value."""
    return {*graph.inputs, *graph.constants, *graph.outputs}.union(*(n.outputs for n in graph.nodes)) - {""}


def _check_run_options(options: RunOptions) -> None:
    if not isinstance(options, RunOptions):
        raise TypeError(f"run_options takes RunOptions, got {type(options).__name__}")
    if options.terminate:
        raise Fail("the run ends because RunOptions.terminate is set")


def _provider_options(providers: object, options: object) -> dict[str, str]:
    """The CPU's options among the providers; other providers are warned of."""
    names = [providers] if isinstance(providers, str) else list(providers or ())
    if options is not None and len(options) != len(names):
        raise ValueError("'providers' and 'provider_options' should be the same length if both are given.")
    found: dict[str, str] = {}
    for i, provider in enumerate(names):
        name, given = provider if isinstance(provider, tuple) and len(provider) == 2 else (provider, options[i] if options else {})
        if not isinstance(name, str) or not isinstance(given, Mapping):
            raise ValueError("'providers' values must be either strings or (string, dict) tuples.")
        if name == PROVIDER:
            found = {str(k): str(v) for k, v in given.items()}
        else:
            warnings.warn(
                f"Specified provider {name!r} is not in available provider names. Available providers: {PROVIDER!r}",
                UserWarning,
                stacklevel=3,
            )
    return found
