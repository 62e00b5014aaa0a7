"""How the operators of ai.onnx.ml are drawn."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .catalogue import Case, Node, Sums, rule
from .draw import Draw, Values

ML = "ai.onnx.ml"
TRANSFORMS = (None, "NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
F32, INT64 = np.float32, np.int64


def _rows(d: Draw) -> tuple[int, int]:
    return d.choice([1, 2, 3, 8, 17]), d.integer(1, 6)


def _features(n: Node, d: Draw, parameter: str, shape: tuple[int, ...]) -> np.ndarray:
    """Plain numbers in most cases, in the others infinities and NaN among them."""
    return n.values(parameter, shape, Values.SPECIAL if d.chance(25) else Values.PLAIN)


def _numbers(d: Draw, count: int) -> list[float]:
    return d.values(F32, (count,), Values.PLAIN).tolist()


@rule("ArrayFeatureExtractor", domain=ML)
def extractor(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, 3, least=1))
    return n.case(x, d.indices((1, d.integer(1, 5)), x.shape[-1], negative=False))


@rule("Binarizer", domain=ML)
def binarizer(n: Node, d: Draw) -> Case:
    n.set("threshold", None, 0.5, -1.0)
    return n.case(n.values("T", d.shape(1), Values.SPECIAL))


@rule("CategoryMapper", domain=ML)
def mapper(n: Node, d: Draw) -> Case:
    n.set("cats_strings", ["a", "B", "ab"])
    n.set("cats_int64s", [1, 2, 30])
    n.set("default_int64", None, 7)
    n.set("default_string", None, "?")
    shape = d.shape(1, 3)
    return n.case(d.values(object, shape) if d.chance(50) else d.values(INT64, shape, Values.POSITIVE))


@rule("FeatureVectorizer", domain=ML)
def feature_vectorizer(n: Node, d: Draw) -> Case:
    rows, counts = d.size(1), [d.integer(1, 4) for _ in range(d.integer(1, 3))]
    n.set("inputdimensions", counts)
    return n.case(*(n.values("T1", (rows, count), Values.PLAIN) for count in counts))


@rule("Imputer", domain=ML)
def imputer(n: Node, d: Draw) -> Case:
    rows, features = _rows(d)
    count = d.choice([1, features])
    if d.chance(60):
        n.set("imputed_value_floats", _numbers(d, count))
        n.set("replaced_value_float", float("nan"), 1.0, 0.0)
        return n.case(d.values(F32, (rows, features), Values.SPECIAL))
    n.set("imputed_value_int64s", list(range(count)))
    n.set("replaced_value_int64", 1, 3)
    return n.case(d.values(INT64, (rows, features), Values.POSITIVE))


_KEYS = {"strings": ["a", "B", "ab"], "int64s": [1, 2, 30], "floats": [1.0, -0.5, float("nan")]}
_SINGULAR = {"strings": "string", "int64s": "int64", "floats": "float"}
_KINDS = {"strings": object, "int64s": INT64, "floats": F32}


@rule("LabelEncoder", domain=ML)
def label_encoder(n: Node, d: Draw) -> Case:
    if n.version == 1:
        n.set("classes_strings", ["a", "B", "ab"])
        n.set("default_int64", None, 9)
        n.set("default_string", None, "?")
        return n.case(d.values(object, d.shape(1)) if d.chance(50) else d.indices(d.shape(1), 5, negative=False))
    kinds = {np.dtype(object): "strings", np.dtype(INT64): "int64s", np.dtype(F32): "floats"}
    if n.version >= 4 and d.chance(40):
        return _encoder_of_tensors(n, d)
    keys, values = (kinds.get(n.type(t, "string int64 float"), "") for t in ("T1", "T2"))
    n.set(f"keys_{keys}", _KEYS[keys])
    n.set(f"values_{values}", _KEYS[values][::-1])
    n.set(f"default_{_SINGULAR[values]}", None, _KEYS[values][0])
    shape = d.shape(1, 3)
    x = {"strings": d.values(object, shape), "int64s": d.values(INT64, shape, Values.POSITIVE)}.get(keys)
    return n.case(np.rint(d.values(F32, shape, Values.SPECIAL)) / 2 if x is None else x)


def _encoder_of_tensors(n: Node, d: Draw) -> Case:
    """Keys and values of any type that the kernel has."""
    made = {}
    for name, parameter, options in (("keys", "T1", [1, 2, 30]), ("values", "T2", [5, -3, 7]), ("default", "T2", [9])):
        kind = n.type(parameter)
        text = [f"t{v}" for v in options]
        made[name] = (TensorProto.STRING, [v.encode() for v in text]) if kind.kind == "O" else (
            helper.np_dtype_to_tensor_dtype(kind), options)  # fmt: skip
        n.set(f"{name}_tensor", helper.make_tensor(name, made[name][0], [len(options)], made[name][1]))
    shape, kind = d.shape(1, 2, least=1), n.type("T1")
    index = d.indices(shape, 4, negative=False)
    known = np.array(["t1", "t2", "t30", "t4"], object) if kind.kind == "O" else np.array([1, 2, 30, 4])
    return n.case(known[index].astype(kind))


@rule("LinearClassifier", domain=ML)
def linear_classifier(n: Node, d: Draw) -> Case:
    (rows, features), classes = _rows(d), d.integer(2, 4)
    scores = 1 if classes == 2 and d.chance(50) else classes
    n.set("coefficients", _numbers(d, scores * features))
    n.set("intercepts", _numbers(d, scores), None)
    n.set("multi_class", None, 0, 1)
    n.set("post_transform", *TRANSFORMS)
    labels = d.choice(["classlabels_ints", "classlabels_strings"])
    n.set(labels, [3, 1, 7, 2][:classes] if labels.endswith("ints") else ["z", "a", "m", "b"][:classes])
    return n.case(_features(n, d, "T1", (rows, features)), outputs=2, tolerance=Sums.SUMS)


@rule("LinearRegressor", domain=ML)
def linear_regressor(n: Node, d: Draw) -> Case:
    (rows, features), targets = _rows(d), d.integer(1, 3)
    n.set("coefficients", _numbers(d, targets * features))
    n.set("intercepts", None, _numbers(d, targets))
    n.set("targets", targets)
    n.set("post_transform", *TRANSFORMS)
    return n.case(_features(n, d, "T", (rows, features)), tolerance=Sums.SUMS)


@rule("Normalizer", domain=ML)
def normalizer(n: Node, d: Draw) -> Case:
    n.set("norm", None, "MAX", "L1", "L2")
    x = _features(n, d, "T", d.choice([(d.integer(1, 6),), _rows(d)]))
    return n.case(x, tolerance=Sums.SUMS)


@rule("OneHotEncoder", domain=ML)
def one_hot(n: Node, d: Draw) -> Case:
    n.set("zeros", None, 1)
    x = n.values("T", d.shape(1, 2), Values.POSITIVE)
    if x.dtype.kind == "O":
        n.set("cats_strings", ["a", "B", "ab", "ABC"])
        return n.case(x)
    n.set("cats_int64s", [1, 2, 3, 4, 5, 0])
    return n.case(np.rint(x).astype(x.dtype))


@rule("Scaler", domain=ML)
def scaler(n: Node, d: Draw) -> Case:
    rows, features = _rows(d)
    count = d.choice([1, features])
    n.set("offset", _numbers(d, count))
    n.set("scale", _numbers(d, count))
    return n.case(_features(n, d, "T", (rows, features)), tolerance=Sums.SUMS)


def _kernel(n: Node, d: Draw) -> None:
    n.set("kernel_type", None, "LINEAR", "POLY", "RBF", "SIGMOID")
    n.set("kernel_params", [0.3, 0.5, 2.0], [0.1, -0.2, 3.0])


@rule("SVMRegressor", domain=ML)
def svm_regressor(n: Node, d: Draw) -> Case:
    (rows, features), vectors = _rows(d), d.integer(0, 5)
    _kernel(n, d)
    if vectors:
        n.set("n_supports", vectors)
        n.set("support_vectors", _numbers(d, vectors * features))
    n.set("coefficients", _numbers(d, vectors or features))
    n.set("rho", _numbers(d, 1))
    n.set("one_class", None, 0, 1)
    n.set("post_transform", None, "NONE")
    return n.case(_features(n, d, "T", (rows, features)), tolerance=Sums.SUMS)


@rule("SVMClassifier", domain=ML)
def svm_classifier(n: Node, d: Draw) -> Case:
    (rows, features), classes = _rows(d), d.integer(2, 3)
    per = [d.integer(1, 3) for _ in range(classes)]
    pairs = classes * (classes - 1) // 2
    _kernel(n, d)
    n.set("vectors_per_class", per)
    n.set("support_vectors", _numbers(d, sum(per) * features))
    n.set("coefficients", _numbers(d, sum(per) * (classes - 1)))
    n.set("rho", _numbers(d, pairs))
    labels = d.choice(["classlabels_ints", "classlabels_strings"])
    n.set(labels, [3, 1, 7][:classes] if labels.endswith("ints") else ["z", "a", "m"][:classes])
    n.set("post_transform", *TRANSFORMS)
    if d.chance(40):
        n.set("prob_a", _numbers(d, pairs))
        n.set("prob_b", _numbers(d, pairs))
    return n.case(_features(n, d, "T1", (rows, features)), outputs=2, tolerance=Sums.SUMS)


def _trees(n: Node, d: Draw, features: int, said: str, count: int) -> bool:
    """Full trees of depth 1 or 2, whose leaves vote for one id each; whether numbers are given as tensors."""
    trees, depth = d.integer(1, 3), d.integer(1, 2)
    inner, nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    modes = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
    mode = d.choice(modes) if d.chance(60) else ""
    whole = range(trees * nodes)
    n.set("nodes_treeids", [i // nodes for i in whole])
    n.set("nodes_nodeids", [i % nodes for i in whole])
    n.set("nodes_modes", [(mode or d.choice(modes)) if i % nodes < inner else "LEAF" for i in whole])
    n.set("nodes_featureids", [d.below(features) for _ in whole])
    thresholds = [float(d.integer(-2, 2)) for _ in whole]
    tensors = n.has("nodes_values_as_tensor") and n.type("T" if said == "target" else "T1") == np.float64
    if tensors and d.chance(50):
        n.set("nodes_hitrates_as_tensor", numpy_helper.from_array(np.ones(len(whole))))
    else:
        n.set("nodes_hitrates", None, [1.0] * len(whole))
    n.set("nodes_truenodeids", [2 * (i % nodes) + 1 if i % nodes < inner else 0 for i in whole])
    n.set("nodes_falsenodeids", [2 * (i % nodes) + 2 if i % nodes < inner else 0 for i in whole])
    n.set("nodes_missing_value_tracks_true", None, [d.below(2) for _ in whole])
    leaves = [(t, leaf) for t in range(trees) for leaf in range(inner, nodes)]
    n.set(f"{said}_treeids", [t for t, _ in leaves])
    n.set(f"{said}_nodeids", [leaf for _, leaf in leaves])
    n.set(f"{said}_ids", [d.below(count) for _ in leaves])
    for name, values in (("nodes_values", thresholds), (f"{said}_weights", _numbers(d, len(leaves)))):
        _list_or_tensor(n, name, values, tensors)
    return tensors


def _list_or_tensor(n: Node, name: str, values: list[float], tensor: bool) -> None:
    """float64 attributes are tensors, which onnxruntime takes for float64 rows alone."""
    if tensor:
        n.set(f"{name}_as_tensor", numpy_helper.from_array(np.array(values, np.float64)))
    else:
        n.set(name, values)


@rule("TreeEnsembleRegressor", domain=ML)
def tree_regressor(n: Node, d: Draw) -> Case:
    (rows, features), targets = _rows(d), d.integer(1, 3)
    tensors = _trees(n, d, features, "target", targets)
    n.set("n_targets", targets)
    n.set("aggregate_function", None, "SUM", "AVERAGE", "MIN", "MAX")
    if d.chance(50):
        _list_or_tensor(n, "base_values", _numbers(d, targets), tensors)
    n.set("post_transform", *TRANSFORMS)
    x = np.rint(n.values("T", (rows, features), Values.SPECIAL))
    return n.case(x, tolerance=Sums.SUMS)


@rule("TreeEnsembleClassifier", domain=ML)
def tree_classifier(n: Node, d: Draw) -> Case:
    (rows, features), classes = _rows(d), d.integer(2, 4)
    tensors = _trees(n, d, features, "class", classes)
    labels = d.choice(["classlabels_int64s", "classlabels_strings"])
    n.set(labels, [3, 1, 7, 2][:classes] if labels.endswith("int64s") else ["z", "a", "m", "b"][:classes])
    if d.chance(50):
        _list_or_tensor(n, "base_values", _numbers(d, classes), tensors)
    n.set("post_transform", *TRANSFORMS)
    x = n.values("T1", (rows, features), Values.SPECIAL if n.type("T1").kind == "f" else Values.PLAIN)
    return n.case(np.rint(x).astype(x.dtype), outputs=2, tolerance=Sums.SUMS)


@rule("TreeEnsemble", domain=ML)
def tree_ensemble(n: Node, d: Draw) -> Case:
    """Trees of two or three nodes: the second one, if there is any, follows where the first does not hold."""
    (rows, features), kind = _rows(d), n.type("T")
    trees = [d.integer(1, 2) for _ in range(d.integer(1, 3))]
    count, leaves = sum(trees), sum(trees) + len(trees)
    modes = [d.below(7) if d.chance(50) else 0 for _ in range(count)]
    n.set("n_targets", 2)
    n.set("aggregate_function", None, 0, 1, 2, 3)
    n.set("post_transform", None, 0, 1, 2, 3)
    n.set("tree_roots", [sum(trees[:i]) for i in range(len(trees))])
    n.set("nodes_featureids", [d.below(features) for _ in range(count)])
    n.set("nodes_splits", numpy_helper.from_array(np.array([d.integer(-2, 2) for _ in range(count)], kind)))
    n.set("nodes_modes", numpy_helper.from_array(np.array(modes, np.uint8)))
    n.set("nodes_missing_value_tracks_true", None, [d.below(2) for _ in range(count)])
    if 6 in modes:
        members = [v for mode in modes if mode == 6 for v in [*range(-2, d.integer(-1, 3)), np.nan]]
        n.set("membership_values", numpy_helper.from_array(np.array(members, kind)))
    yes, no, ends, leaf = [], [], [], 0
    for i, size in enumerate(trees):
        for place in range(size):
            last = place == size - 1
            yes.append(leaf)
            no.append(leaf + 1 if last else sum(trees[:i]) + place + 1)
            ends.append(int(last))
            leaf += 2 if last else 1
    n.set("nodes_truenodeids", yes)
    n.set("nodes_trueleafs", [1] * count)
    n.set("nodes_falsenodeids", no)
    n.set("nodes_falseleafs", ends)
    n.set("leaf_targetids", [d.below(2) for _ in range(leaves)])
    n.set("leaf_weights", numpy_helper.from_array(d.values(kind, (leaves,), Values.PLAIN)))
    return n.case(np.rint(n.values("T", (rows, features), Values.SPECIAL)), tolerance=Sums.SUMS)


@rule("ZipMap", domain=ML)
def zip_map(n: Node, d: Draw) -> Case:
    columns = d.integer(1, 4)
    labels = d.choice(["classlabels_int64s", "classlabels_strings"])
    n.set(labels, [3, 1, 7, 2][:columns] if labels.endswith("int64s") else ["z", "a", "m", "b"][:columns])
    return n.case(d.values(F32, (d.size(1), columns), Values.SPECIAL))
