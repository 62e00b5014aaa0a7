"""From what a session is given to a checked graph, with onnxruntime's errors."""

from __future__ import annotations

import os
import warnings

from . import errors
from .fusion import check, importer
from .fusion.graph import TensorType, Type
from .fusion.importer import Model, value_type
from .fusion.invalid import InvalidModel, Kind
from .options import SessionOptions
from .pool import default_threads

_FOLDER = "session.model_external_initializers_file_folder_path"


def load(source: object, options: SessionOptions) -> Model:
    """Read, check and import a model.

    Raises:
        NoSuchFile, InvalidProtobuf, InvalidGraph, InvalidArgument, NotImplemented, Fail: as onnxruntime does.
        TypeError: the source is no path, bytes or ModelProto.
    """
    named = f"Load model from {os.fspath(source)} failed" if isinstance(source, str | os.PathLike) else "Load model failed"
    try:
        return _load(source, options)
    except FileNotFoundError as error:
        raise errors.NoSuchFile(f"{named}: {error}") from error
    except OSError as error:
        raise errors.Fail(f"{named}: {error}") from error
    except InvalidModel as error:
        head = f"{named}: This is an invalid model" if error.kind is Kind.GRAPH else named
        raise getattr(errors, error.kind.value)(f"{head}: {error}") from error


def _load(source: object, options: SessionOptions) -> Model:
    proto, folder = importer.read(source, options._entries.get(_FOLDER), options.intra_op_num_threads or default_threads())
    for name, content in options._files.items():
        folder.hold(name, content)
    check.check_nodes(proto)
    model = importer.build(proto, folder, options._initializers)
    inferred = check.check_types(proto)
    graph = model.graph
    for name in graph.outputs:
        graph.types[name] = _merged(graph.types.get(name), value_type(inferred[name]) if name in inferred else None)
    _fix_sizes(proto, graph.types, options)
    if options.optimized_model_filepath:
        warnings.warn(
            "SessionOptions.optimized_model_filepath: jitrt compiles plans, it writes no models", UserWarning, stacklevel=5
        )
    return model


def _merged(stated: Type | None, inferred: Type | None) -> Type | None:
    """What the model states of an output, and what follows from its nodes where it states nothing."""
    if not isinstance(stated, TensorType) or not isinstance(inferred, TensorType):
        return stated or inferred
    if inferred.shape is None:
        return stated
    known = tuple(d if not isinstance(d, str) or not d.startswith("unk__") else None for d in inferred.shape)
    if stated.shape is None:
        return TensorType(stated.dtype, known)
    if len(stated.shape) != len(known):
        return TensorType(stated.dtype, None)
    return TensorType(stated.dtype, tuple(_dim(s, i) for s, i in zip(stated.shape, known)))


def _dim(stated: int | str | None, inferred: int | str | None) -> int | str | None:
    if isinstance(stated, int) and isinstance(inferred, int):
        return stated if stated == inferred else None
    return inferred if isinstance(inferred, int) or stated is None else stated


def _fix_sizes(proto, types: dict[str, Type], options: SessionOptions) -> None:
    """`SessionOptions.add_free_dimension_override_by_denotation`."""
    if not options._denotations:
        return
    for value in proto.graph.input:
        kind = types.get(value.name)
        if isinstance(kind, TensorType) and kind.shape is not None:
            dims = value.type.tensor_type.shape.dim
            sizes = [options._denotations.get(d.denotation, n) if d.denotation else n for d, n in zip(dims, kind.shape)]
            types[value.name] = TensorType(kind.dtype, tuple(sizes))
