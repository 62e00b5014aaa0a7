"""The backend tests of the installed onnx: models with inputs and the outputs that are expected of them."""

from __future__ import annotations

import functools
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import loader
from onnx.backend.test.runner import Runner

import jitrt

# a tensor, a sequence, or None for an empty optional
Value = np.ndarray | list | None
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
PACKAGES = pathlib.Path(onnx.__file__).parent.parent


@dataclass(frozen=True)
class Case:
    """One backend test. `source` is the loader's, whose model and data are read when they are needed."""

    name: str
    source: object

    @property
    def model(self) -> bytes:
        """The serialised model."""
        if self.source.model is not None:
            return self.source.model.SerializeToString()
        return self._file.read_bytes()

    @property
    def tolerance(self) -> tuple[float, float]:
        """Relative and absolute."""
        return self.source.rtol, self.source.atol

    def data(self) -> Iterator[tuple[list[Value], list[Value]]]:
        """Inputs (in the graph's order) and expected outputs, one pair a data set."""
        if self.source.data_sets is not None:
            for inputs, outputs in self.source.data_sets:
                yield [value(x) for x in inputs], [value(x) for x in outputs]
        elif self.source.model_dir is not None:
            yield from _data_sets(self._file)
        else:
            yield _light_data(self._file)

    def run(self) -> Iterator[tuple[list[object], list[Value]]]:
        """The outputs of a session, and what is expected, for each data set."""
        options = jitrt.SessionOptions()
        options.intra_op_num_threads = 1
        session = jitrt.InferenceSession(self.model, options)
        names = [x.name for x in session.get_inputs()]
        for inputs, expected in self.data():
            if len(inputs) > len(names):
                names = [*names, *(x.name for x in session.get_overridable_initializers())]
            yield session.run(None, dict(zip(names, inputs))), expected

    @property
    def _file(self) -> pathlib.Path:
        folder = self.source.model_dir
        return PACKAGES / self.source.url if folder is None else pathlib.Path(folder, "model.onnx")


@functools.lru_cache(maxsize=1)
def cases() -> list[Case]:
    """Every case, in a stable order. Node cases are generated, with numpy's random numbers, when onnx loads them."""
    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [(kind, case) for kind in KINDS for case in loader.load_model_tests(kind=kind)]
    return sorted((Case(f"{kind}/{case.name}", case) for kind, case in found), key=lambda case: case.name)


def value(x: object) -> Value:
    """What a session takes or gives for an item of a data set."""
    if isinstance(x, onnx.TensorProto):
        return numpy_helper.to_array(x)
    if isinstance(x, list | tuple):
        return [value(v) for v in x]
    return None if x is None else np.asarray(x)


def _data_sets(file: pathlib.Path) -> Iterator[tuple[list[Value], list[Value]]]:
    graph = onnx.load(file).graph
    for folder in sorted(file.parent.glob("test_data_set*")):
        yield _values(folder, "input", graph.input), _values(folder, "output", graph.output)


def _values(folder: pathlib.Path, role: str, declared: Sequence[onnx.ValueInfoProto]) -> list[Value]:
    paths = [folder / f"{role}_{i}.pb" for i in range(len(declared))]
    return [_read(path, info.type) for path, info in zip(paths, declared) if path.exists()]


def _read(path: pathlib.Path, kind: onnx.TypeProto) -> Value:
    raw = path.read_bytes()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(raw))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(raw))
    return numpy_helper.to_array(onnx.TensorProto.FromString(raw))


def _light_data(file: pathlib.Path) -> tuple[list[Value], list[Value]]:
    """Of the models without weights: a ramp as input; the outputs lie beside the model."""
    graph = onnx.load(file).graph
    weights = {x.name for x in graph.initializer}
    inputs = [Runner.generate_dummy_data(x) for x in graph.input if x.name not in weights]
    paths = [file.with_name(f"{file.stem}_output_{i}.pb") for i in range(len(graph.output))]
    return inputs, [numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in paths]
