"""Labels, categories and maps, ai.onnx.ml: LabelEncoder, CategoryMapper, DictVectorizer, CastMap, ZipMap.

Numbers are looked up by `kernels/lookup`; strings and maps (Python dictionaries) live on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import evaluate
from .builder import Builder, OperatorError
from .kernels import lookup
from .ml_scores import Places, labelled, ml_op
from .primitives import LaunchContext, Opaque, Tensor
from .registry import Takes

_SMALL_TABLE = 1024
_HOST = "strings and maps live on the host"


def _translated(t: Builder, x: Tensor, keys: np.ndarray, values: np.ndarray, default: object) -> Tensor:
    """Each element's value by its key, or the default. NaN is a key like any other; of equal keys the first counts."""
    if len(keys) != len(values):
        raise OperatorError(f"{len(keys)} keys have {len(values)} values")
    if (x.dtype.kind == "O") != (keys.dtype.kind == "O"):
        raise OperatorError(f"keys of {keys.dtype} do not fit an input of {x.dtype}")
    if x.dtype.kind != "O":
        table = np.append(values, np.array([default], values.dtype))
        return labelled(t, *(_indexed(t, x, keys, table) or _looked_up(t, x, keys, table)))
    found = Places(reversed([*zip(keys.tolist(), values.tolist())]), default)
    return t.host(lambda given: [found.of(given[0], values.dtype)], (x,), [(values.dtype, x.shape)], _HOST)[0]


def _indexed(t: Builder, x: Tensor, keys: np.ndarray, table: np.ndarray) -> tuple[Tensor, np.ndarray] | None:
    """(place of each element, table of the places) where integer keys lie close together; else None."""
    if x.dtype.kind != "i" or not keys.size:
        return None
    low, high = int(keys.min()), int(keys.max())
    if high - low > 4 * keys.size + _SMALL_TABLE or max(-low, high) >= 1 << 53:  # what a text holds exactly
        return None
    spread = np.full(high - low + 2, table[-1], table.dtype)
    spread[keys[::-1].astype(np.int64) - low] = table[-2::-1]  # of equal keys the first counts
    text = f"select((a >= {low}) & (a <= {high}), a - {low}, {high - low + 1})"
    return t.map(text, t.cast(x, np.int64)), spread


def _looked_up(t: Builder, x: Tensor, keys: np.ndarray, table: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """(place of each element in the table returned, the table in the order of the keys)."""
    floats = x.dtype.kind == "f"
    unique, first = np.unique(keys.astype(np.float64 if floats else np.int64), return_index=True)
    known = int((~np.isnan(unique)).sum()) if floats else len(unique)
    # sorted keys, NaN if there is one, the default
    ordered = np.append(table[first], table[-1:])
    if known < len(unique):
        ordered = np.concatenate([table[first[:known]], table[-1:], table[first[known:]]])
    nan = known + 1 if known < len(unique) else known

    def launch(c: LaunchContext) -> list:
        places = (v.address for v in (*c.inputs, c.outputs[0]))
        return lookup.places(evaluate.memory_name(x.dtype), *places, x.size, known, nan)

    order = tuple(range(x.rank))
    (places,) = t.kernel("lookup", (x, t.constant(unique[:known])), [(np.dtype(np.int64), x.shape)], launch, orders=(order, (0,)))
    return places, ordered


def _exactly_one(what: str, numbers: Sequence[int] | None, strings: Sequence[str] | None) -> Sequence:
    if bool(numbers) == bool(strings):
        raise OperatorError(f"the {what} must be numbers or texts, and not both")
    return numbers or strings or ()


@ml_op("LabelEncoder", since=1, takes=Takes.TENSORS)
def label_encoder_of_classes(t: Builder, X: Tensor, *, classes_strings, default_int64=-1, default_string="_Unused") -> Tensor:
    """Version 1: texts as their places in a list, or places as texts."""
    texts, places = np.array(classes_strings, object), np.arange(len(classes_strings))
    keys, values, default = (texts, places, default_int64) if X.dtype.kind == "O" else (places, texts, default_string)
    return _translated(t, X, keys, values, default)


@ml_op("LabelEncoder", since=2, takes=Takes.TENSORS)
def label_encoder(
    t: Builder, X: Tensor, *, default_float=-0.0, default_int64=-1, default_string="_Unused", default_tensor=None,
    keys_floats=None, keys_int64s=None, keys_strings=None, keys_tensor=None, values_floats=None, values_int64s=None,
    values_strings=None, values_tensor=None,
) -> Tensor:  # fmt: skip
    """Each element's value in a table of keys and values, or the default."""
    keys = _listed("keys", keys_tensor, keys_strings, keys_int64s, keys_floats)
    values = _listed("values", values_tensor, values_strings, values_int64s, values_floats)
    if default_tensor is not None:
        default = default_tensor.reshape(-1)[0]
    else:
        default = {"O": default_string, "f": default_float}.get(values.dtype.kind, default_int64)
    return _translated(t, X, keys, values, default)


@ml_op("LabelEncoder", since=4, takes=Takes.TENSORS)
def label_encoder_of_last_keys(
    t: Builder, X: Tensor, *, default_float=-0.0, default_int64=-1, default_string="_Unused", default_tensor=None,
    keys_floats=None, keys_int64s=None, keys_strings=None, keys_tensor=None, values_floats=None, values_int64s=None,
    values_strings=None, values_tensor=None,
) -> Tensor:  # fmt: skip
    """Each element's value in a table of keys and values, or the default; of equal keys the last counts."""
    keys = _listed("keys", keys_tensor, keys_strings, keys_int64s, keys_floats)
    values = _listed("values", values_tensor, values_strings, values_int64s, values_floats)
    return label_encoder(
        t, X, default_float=default_float, default_int64=default_int64, default_string=default_string,
        default_tensor=default_tensor, keys_tensor=keys[::-1], values_tensor=values[::-1],
    )  # fmt: skip


def _listed(what: str, tensor: object, strings: object, int64s: object, floats: object) -> np.ndarray:
    """Keys or values, from the one attribute that gives them."""
    forms = ((tensor, None), (strings, object), (int64s, np.int64), (floats, np.float32))
    there = [np.asarray(given, kind).reshape(-1) for given, kind in forms if given is not None and len(given)]
    if len(there) != 1:
        raise OperatorError(f"exactly one attribute gives the {what}, not {len(there)}")
    return there[0]


@ml_op("CategoryMapper", takes=Takes.TENSORS)
def category_mapper(
    t: Builder, X: Tensor, *, cats_int64s=(), cats_strings=(), default_int64=-1, default_string="_Unused"
) -> Tensor:
    """Texts as numbers or numbers as texts, by two lists of equal length."""
    texts, numbers = np.array(cats_strings, object), np.array(cats_int64s, np.int64)
    keys, values, default = (texts, numbers, default_int64) if X.dtype.kind == "O" else (numbers, texts, default_string)
    return _translated(t, X, keys, values, default)


# -- maps
@ml_op("DictVectorizer", takes=Takes.VALUES)
def dict_vectorizer(t: Builder, X: Tensor | Opaque, *, int64_vocabulary=None, string_vocabulary=None) -> Tensor | Opaque:
    """A row with a map's values at the places of their keys in the vocabulary, zero (or no text) elsewhere."""
    vocabulary = _exactly_one("vocabulary", int64_vocabulary, string_vocabulary)

    def vectorize(given: list[object]) -> list[np.ndarray]:
        maps = given[0] if isinstance(given[0], list) else [given[0]]
        return [_table(maps, vocabulary)]

    return t.host(vectorize, (X,), [None], _HOST)[0]


def _table(maps: Sequence[dict], columns: Sequence[object]) -> np.ndarray:
    """One row a map, one column a key."""
    kind = _value_type(value for one in maps for value in one.values())
    nothing = "" if kind.kind == "O" else 0
    return np.array([[one.get(key, nothing) for key in columns] for one in maps], kind).reshape(len(maps), len(columns))


def _value_type(values) -> np.dtype:
    first = next(iter(values), np.float32(0))
    if isinstance(first, str):
        return np.dtype(object)
    return np.dtype(np.float32) if type(first) is float else np.asarray(first).dtype


@ml_op("CastMap", takes=Takes.VALUES)
def cast_map(t: Builder, X: Opaque, *, cast_to="TO_FLOAT", map_form="DENSE", max_map=1) -> Opaque:
    """A map's values in the order of its keys as a row; in sparse form a key is its value's place."""
    kinds = {"TO_FLOAT": (np.float32, 0), "TO_INT64": (np.int64, 0), "TO_STRING": (object, "0.f")}
    if cast_to not in kinds or map_form not in ("DENSE", "SPARSE"):
        raise OperatorError(f"unknown cast_to {cast_to!r} or map_form {map_form!r}")
    dtype, nothing = kinds[cast_to]

    def convert(value: object) -> object:
        if cast_to == "TO_STRING":
            return value if isinstance(value, str) else f"{value:f}"
        return float(value) if cast_to == "TO_FLOAT" else int(float(value))

    def cast(given: list[dict]) -> list[np.ndarray]:
        keys = sorted(given[0]) if map_form == "DENSE" else range(max_map)
        if map_form == "SPARSE" and min(given[0], default=0) < 0:
            raise OperatorError(f"a key of a sparse map is {min(given[0])}")
        return [np.array([[convert(given[0][k]) if k in given[0] else nothing for k in keys]], dtype).reshape(1, len(keys))]

    return t.host(cast, (X,), [None], _HOST)[0]


@ml_op("ZipMap", takes=Takes.VALUES)
def zip_map(t: Builder, X: Tensor, *, classlabels_int64s=None, classlabels_strings=None) -> Opaque:
    """One map a row: its elements by the labels of their columns, in the order of the labels."""
    labels = _exactly_one("labels", classlabels_int64s, classlabels_strings)
    keys, order = sorted(labels), sorted(range(len(labels)), key=labels.__getitem__)

    def zipped(given: list[np.ndarray]) -> list[list[dict]]:
        x = np.atleast_2d(given[0])
        if x.shape[-1] != len(labels):
            raise OperatorError(f"{x.shape[-1]} columns have {len(labels)} labels")
        return [[dict(zip(keys, row)) for row in x[:, order].tolist()]]

    return t.host(zipped, (X,), [None], _HOST)[0]
