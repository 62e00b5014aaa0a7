"""The operators of ai.onnx.ml but tree ensembles, beside onnxruntime: attributes, types, odd rows, labels, maps, text."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from ml_models import LOGISTIC_IS_LEFT_OUT, check, element, model, of_map, rows, run
from onnx import TensorProto, helper, numpy_helper
from reference import skip_where_old

import jitrt

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
TYPES = (np.float32, np.float64, np.int64, np.int32)
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")


def _typed(x: np.ndarray, dtype: type) -> np.ndarray:
    return x.astype(dtype) if np.dtype(dtype).kind == "f" else np.nan_to_num(2 * x, posinf=9, neginf=-9).astype(dtype)


def _numbers(*shape: int, seed: int = 1) -> list[float]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).ravel().tolist()


# -- features
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("count", [0, 1, 11])
def test_scaler_and_normalizer(count: int, dtype: type) -> None:
    x = _typed(rows(count, 5), dtype)
    for width in (1, 5):
        check(model("Scaler", [x], [FLOAT], 1, offset=_numbers(width), scale=_numbers(width, seed=2)), [x])
    for norm in ("MAX", "L1", "L2"):
        check(model("Normalizer", [x], [FLOAT], 1, norm=norm), [x])
        check(model("Normalizer", [x.ravel()], [FLOAT], 1, norm=norm), [x.ravel()])


def test_imputer_replaces_one_value() -> None:
    for shape in ((0, 5), (9, 5), (5,)):
        x = rows(9, 5)[: shape[0]].reshape(shape) if len(shape) == 2 else rows(9, 5)[4]
        for width, value in itertools.product((1, 5), (float("nan"), 1.0)):
            floats = {"imputed_value_floats": _numbers(width), "replaced_value_float": value}
            check(model("Imputer", [x], [FLOAT], 1, **floats), [x])
            got = run(model("Imputer", [x.astype(np.float64)], [TensorProto.DOUBLE], 1, **floats), [x.astype(np.float64)])[0]
            assert got.dtype == np.float64
            np.testing.assert_array_equal(got.astype(np.float32), run(model("Imputer", [x], [FLOAT], 1, **floats), [x])[0])
            integers = {"imputed_value_int64s": [7, 8, 9, 10, 11][:width], "replaced_value_int64": 1}
            check(model("Imputer", [_typed(x, np.int64)], [INT64], 1, **integers), [_typed(x, np.int64)])


def test_binarizer_compares_with_a_threshold() -> None:
    x = np.float32([[-1, -0.5, 0, 0.5, 1, 2, np.inf, -np.inf, np.nan]])
    for threshold in (0.0, 0.5, -0.5):
        check(model("Binarizer", [x[:, :-1]], [FLOAT], 1, threshold=threshold), [x[:, :-1]])
        for dtype in (np.float64, np.int32, np.int64):
            y = _typed(x, dtype)
            expected = (y > threshold).astype(dtype)
            np.testing.assert_array_equal(run(model("Binarizer", [y], [element(y)], 1, threshold=threshold), [y])[0], expected)


def test_feature_vectorizer_cuts_and_fills_up() -> None:
    x, y, z = (np.random.default_rng(0).integers(0, 9, (4, n)) for n in (3, 2, 1))
    got = run(model("FeatureVectorizer", [x, y, z], [FLOAT], 1, inputdimensions=[2, 2, 3]), [x, y, z])[0]
    expected = np.concatenate([x[:, :2], y, z, np.zeros((4, 2))], 1).astype(np.float32)
    np.testing.assert_array_equal(got, expected)
    check(model("FeatureVectorizer", [x, x], [FLOAT], 1, inputdimensions=[3, 3]), [x, x])


@pytest.mark.parametrize("dtype", [*TYPES, object])
def test_array_feature_extractor_picks_along_the_last_dimension(dtype: type) -> None:
    for shape in ((2, 3, 4), (5, 4), (4,), (0, 4)):
        x = np.arange(np.prod(shape)).reshape(shape).astype(str if dtype is object else dtype).astype(dtype)
        for indices in ([3], [0, 2, 2]):
            y = np.array(indices)
            check(model("ArrayFeatureExtractor", [x, y], [element(x)], 1), [x, y])


def test_one_hot_encoder_of_numbers_and_texts() -> None:
    for shape in ((3, 4), (0, 4), (4,)):
        texts = np.random.default_rng(0).choice(np.array(["a", "bb", "é"], object), shape)
        check(model("OneHotEncoder", [texts], [FLOAT], 1, cats_strings=["bb", "é"]), [texts])
        whole = np.random.default_rng(1).integers(-2, 3, shape)
        for dtype in TYPES:
            x = whole.astype(dtype)
            got = run(model("OneHotEncoder", [x], [FLOAT], 1, cats_int64s=[1, -2, 0, 7]), [x])[0]
            np.testing.assert_array_equal(got, whole[..., None] == [1, -2, 0, 7])
        check(model("OneHotEncoder", [whole], [FLOAT], 1, cats_int64s=[1, -2, 0, 7]), [whole])


def test_an_unknown_category_may_be_an_error() -> None:
    x = np.array([1, 5])
    made = model("OneHotEncoder", [x], [FLOAT], 1, cats_int64s=[1, 2], zeros=0)
    np.testing.assert_array_equal(run(made, [np.array([2, 1])])[0], [[0, 1], [1, 0]])
    with pytest.raises(jitrt.RuntimeException, match="5 is none of the categories"):
        run(made, [x])


# -- labels
KEYS = {
    "strings": (STRING, ["a", "", "ü"], np.array([["a", "b"], ["", "ü"]], object)),
    "int64s": (INT64, [3, -1, 2**60], np.array([[3, 0], [2**60, -1]])),
    "floats": (FLOAT, [0.5, float("inf"), 0.0], np.float32([[0.5, 2], [np.inf, -0.0]])),
}


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize(("keys", "values"), [*itertools.product(KEYS, KEYS)])
def test_label_encoder_of_every_key_and_value(keys: str, values: str, version: int) -> None:
    (_, known, x), (kind, made, _) = KEYS[keys], KEYS[values]
    tables = {f"keys_{keys}": known, f"values_{values}": made}
    check(model("LabelEncoder", [x], [kind], version, **tables), [x])
    default = {"default_string": "?", "default_int64": 5, "default_float": 2.5}
    check(model("LabelEncoder", [x[:0]], [kind], version, **tables, **default), [x[:0]])
    check(model("LabelEncoder", [x], [kind], version, **tables, **default), [x])


def test_label_encoder_finds_nan_and_of_equal_keys_the_last() -> None:
    x = np.float32([1, np.nan, 2])
    tables = {"keys_floats": [1.0, float("nan"), 1.0], "values_int64s": [7, 8, 9], "default_int64": -3}
    # the schema's words; onnxruntime 1.32 finds no NaN in version 2, and in version 4 the first of equal keys
    assert run(model("LabelEncoder", [x], [INT64], 2, **tables), [x])[0].tolist() == [7, 8, -3]
    assert run(model("LabelEncoder", [x], [INT64], 4, **tables), [x])[0].tolist() == [9, 8, -3]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float64])
def test_label_encoder_takes_tensors(dtype: type) -> None:
    x = np.array([4, 1, 9, 4], dtype)
    tensors = {"keys": np.array([1, 4], dtype), "values": np.array([1.5, 2.5]), "default": np.array([-1.0])}
    made = model(
        "LabelEncoder", [x], [TensorProto.DOUBLE], 4, keys_tensor=numpy_helper.from_array(tensors["keys"]),
        values_tensor=numpy_helper.from_array(tensors["values"]), default_tensor=numpy_helper.from_array(tensors["default"]),
    )  # fmt: skip
    np.testing.assert_array_equal(run(made, [x])[0], [2.5, 1.5, -1, 2.5])


def test_labels_and_categories_go_both_ways() -> None:
    texts, numbers = np.array(["b", "x", "a"], object), np.array([1, 9, 0, -1])
    check(model("LabelEncoder", [texts], [INT64], 1, classes_strings=["a", "b"], default_int64=-4), [texts])
    check(model("LabelEncoder", [numbers], [STRING], 1, classes_strings=["a", "b"], default_string="?"), [numbers])
    pairs = {"cats_strings": ["a", "b"], "cats_int64s": [9, 0]}
    check(model("CategoryMapper", [texts], [INT64], 1, default_int64=-4, **pairs), [texts])
    check(model("CategoryMapper", [numbers], [STRING], 1, default_string="?", **pairs), [numbers])


@pytest.mark.parametrize("step", [1, 3, 10**7])
@pytest.mark.parametrize("count", [1, 2, 63, 3000])
def test_long_tables_are_looked_up_whether_their_keys_are_close_or_far(count: int, step: int) -> None:
    rng = np.random.default_rng(count)
    keys = (rng.permutation(count) - count // 2) * step
    x = (rng.integers(-count, count + 1, (70, 31))) * step
    x[0, :9] = [2**62, -(2**62), 2**63 - 1, -(2**63), 1, -1, 0, keys.min() - 1, keys.max() + 1]
    tables = {"values_int64s": list(range(count)), "default_int64": -5}
    check(model("LabelEncoder", [x], [INT64], 2, keys_int64s=keys.tolist(), **tables), [x])
    floats = x.astype(np.float32)
    check(model("LabelEncoder", [floats], [INT64], 2, keys_floats=keys.astype(np.float32).tolist(), **tables), [floats])


# -- maps
def test_dict_vectorizer_puts_values_where_their_keys_stand() -> None:
    check(of_map("DictVectorizer", STRING, FLOAT, FLOAT, string_vocabulary=["a", "b", "c"]), [{"c": 1.5, "a": -2.0, "z": 9.0}])
    check(of_map("DictVectorizer", INT64, FLOAT, FLOAT, int64_vocabulary=[5, 2]), [{2: 0.5}])
    # onnxruntime's Python takes no maps of these
    by_number, by_text = (INT64, {"int64_vocabulary": [5, 2]}, 2), (STRING, {"string_vocabulary": ["b", "a"]}, "a")
    for (key, vocabulary, place), kind, value, dtype in (
        (by_number, TensorProto.DOUBLE, 0.1, np.float64),
        (by_text, INT64, 2**60, np.int64),
        (by_number, STRING, "two", object),
    ):
        got = run(of_map("DictVectorizer", key, kind, kind, **vocabulary), [{place: value}])[0]
        assert got.dtype == dtype
        assert got.tolist() == [["" if kind == STRING else 0, value]]


def test_cast_map_is_dense_or_sparse() -> None:
    for cast, kind in (("TO_FLOAT", FLOAT), ("TO_INT64", INT64), ("TO_STRING", STRING)):
        for form in ("DENSE", "SPARSE"):
            made = of_map("CastMap", INT64, FLOAT, kind, cast_to=cast, map_form=form, max_map=4)
            check(made, [{3: 1.5, 0: -2.0, 9: 4.0}])
    made = of_map("CastMap", INT64, STRING, INT64, cast_to="TO_INT64", map_form="SPARSE", max_map=3)
    assert run(made, [{2: "15", 0: "-2"}])[0].tolist() == [[-2, 0, 15]]
    with pytest.raises(jitrt.RuntimeException, match="sparse map is -1"):
        run(made, [{-1: "1"}])


@pytest.mark.parametrize("labels", [{"classlabels_int64s": [4, 2]}, {"classlabels_strings": ["b", "a"]}])
def test_zip_map_gives_a_map_a_row(labels: dict) -> None:
    out = onnx.ValueInfoProto(name="z")
    out.type.sequence_type.elem_type.map_type.key_type = INT64 if "classlabels_int64s" in labels else STRING
    out.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = FLOAT
    node = helper.make_node("ZipMap", ["x0"], ["z"], domain="ai.onnx.ml", **labels)
    graph = helper.make_graph([node], "zip", [helper.make_tensor_value_info("x0", FLOAT, [None, None])], [out])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    for x in (rows(3, 2), rows(0, 2)):
        assert str(run(made, [x])[0]) == str(run(made, [x], onnxruntime)[0])
    with pytest.raises(jitrt.RuntimeException, match="3 columns have 2 labels"):
        run(made, [rows(2, 3)])


# -- linear models
def _finite(count: int) -> np.ndarray:
    x = rows(count, 4)
    x[np.isinf(x)] = -2
    return x


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("count", [0, 1, 12])
def test_linear_regressors(count: int, transform: str) -> None:
    x = _finite(count)
    for targets, intercepts in itertools.product((1, 2, 3), (False, True)):
        attributes = {"coefficients": _numbers(targets, 4), "intercepts": _numbers(targets, seed=3) if intercepts else []}
        check(model("LinearRegressor", [x], [FLOAT], 1, targets=targets, post_transform=transform, **attributes), [x])


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("scores", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 12])
def test_linear_classifiers(count: int, scores: int, transform: str) -> None:
    if count and scores == 1 and transform == "LOGISTIC":
        skip_where_old(LOGISTIC_IS_LEFT_OUT)
    x = _finite(count)
    attributes = {"coefficients": _numbers(scores, 4), "intercepts": _numbers(scores, seed=3), "post_transform": transform}
    for labels in ([5, 4, 7], ["a", "b", "c"]):
        named = {"classlabels_strings" if labels[0] == "a" else "classlabels_ints": labels[: max(scores, 2)]}
        kind = STRING if labels[0] == "a" else INT64
        check(model("LinearClassifier", [x], [kind, FLOAT], 1, **named, **attributes), [x])


@pytest.mark.parametrize("dtype", TYPES)
def test_linear_models_take_rows_of_every_type(dtype: type) -> None:
    x = np.nan_to_num(_typed(rows(7, 3), dtype), posinf=4, neginf=-4)
    attributes = {"coefficients": _numbers(2, 3), "intercepts": _numbers(2, seed=3)}
    check(model("LinearClassifier", [x], [INT64, FLOAT], 1, classlabels_ints=[0, 1], **attributes), [x])
    got = run(model("LinearRegressor", [x], [FLOAT], 1, targets=2, **attributes), [x])[0]
    expected = x.astype(np.float64) @ np.array(attributes["coefficients"]).reshape(2, 3).T + attributes["intercepts"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


# -- support vector machines
KERNELS = [
    ("LINEAR", [0.3, 0.1, 2.0]), ("RBF", [0.3, 0.1, 2.0]), ("SIGMOID", [0.3, 0.1, 2.0]), ("POLY", [0.3, 0.1, 3.0]),
    ("POLY", [0.2, 3.0, 4.0]), ("POLY", [0.3, 0.1, 2.0]),
]  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
def test_support_vector_regressors(kernel: tuple[str, list[float]]) -> None:
    x, (kind, parameters) = _finite(9), kernel
    machine = {"coefficients": _numbers(6), "support_vectors": _numbers(6, 4), "n_supports": 6, "rho": [0.2]}
    for one_class in (0, 1):
        how = {"one_class": one_class, "kernel_type": kind, "kernel_params": parameters}
        check(model("SVMRegressor", [x], [FLOAT], 1, **machine, **how), [x])


@pytest.mark.parametrize("proba", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_support_vector_classifiers(kernel: tuple[str, list[float]], transform: str, classes: int, proba: bool) -> None:
    if classes == 2 and transform == "LOGISTIC" and not proba:
        skip_where_old(LOGISTIC_IS_LEFT_OUT)
    x, (kind, parameters) = _finite(9), kernel
    counts, pairs = [2, 3, 1, 4][:classes], classes * (classes - 1) // 2
    calibration = {"prob_a": [-0.7, -1.0, -0.5, -1.2, -0.6, -0.9][:pairs], "prob_b": _numbers(pairs)} if proba else {}
    attributes = {
        "coefficients": _numbers(classes - 1, sum(counts)), "support_vectors": _numbers(sum(counts), 4, seed=2),
        "vectors_per_class": counts, "rho": _numbers(pairs, seed=5), "post_transform": transform,
        "classlabels_strings": ["a", "b", "c", "d"][:classes], "kernel_type": kind, "kernel_params": parameters, **calibration,
    }  # fmt: skip
    check(model("SVMClassifier", [x], [STRING, FLOAT], 1, **attributes), [x])


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_machines_without_vectors_are_linear(transform: str) -> None:
    x = _finite(12)
    for classes, positive in itertools.product((2, 3), (True, False)):
        factors = _numbers(classes, 4)
        attributes = {
            "coefficients": [abs(v) for v in factors] if positive else factors,
            "kernel_params": [0.0, 0.0, 0.0], "rho": [0.1], "classlabels_ints": [3, 5, 4][:classes], "post_transform": transform,
        }  # fmt: skip
        check(model("SVMClassifier", [x], [INT64, FLOAT], 1, **attributes), [x])
    regressor = {"coefficients": _numbers(4), "kernel_params": [0.0, 0.0, 0.0], "rho": [0.2]}
    check(model("SVMRegressor", [x], [FLOAT], 1, n_supports=0, **regressor), [x])


# -- text
def _texts(op: str, domain: str, x: np.ndarray, **attributes: object) -> onnx.ModelProto:
    node = helper.make_node(op, ["x0"], ["y"], domain=domain, **attributes)
    info = helper.make_tensor_value_info("x0", STRING, x.shape)
    graph = helper.make_graph([node], op, [info], [helper.make_tensor_value_info("y", STRING, None)])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


TOKENIZERS = [{"separators": [" "]}, {"separators": [""]}, {"separators": ["l+", " "]}, {"tokenexp": "[a-zA-Z0-9_]+"}]


@pytest.mark.parametrize("how", TOKENIZERS)
def test_tokenizer_splits_texts(how: dict) -> None:
    texts = np.array(["Hello World", "I love  computer science !", "", "é à"], object)
    for x in (texts, texts[:0], texts.reshape(2, 2), texts[2:3], np.array(["  "], object)):
        for mark in (0, 1):
            made = _texts("Tokenizer", "com.microsoft", x, mark=mark, mincharnum=1, pad_value="#", **how)
            check(made, [x])


def test_string_normalizer_keeps_empty_texts_and_accents() -> None:
    texts = np.array(["Mon", "é", "TUE", "", "mon"], object)
    for x, change, case in itertools.product((texts, texts[None, :], texts[:1]), ("NONE", "LOWER"), (0, 1)):
        for stops in ({}, {"stopwords": ["mon"]}, {"stopwords": ["MON", ""]}):
            attributes = {"case_change_action": change, "is_case_sensitive": case, "locale": "C", **stops}
            check(_texts("StringNormalizer", "", x, **attributes), [x])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, object])
@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
def test_n_grams_are_counted_with_and_without_gaps(mode: str, dtype: type, weighted: bool) -> None:
    if weighted and mode != "TF":
        skip_where_old("takes the weights of n-grams by their places in the output (microsoft/onnxruntime#31700)")
    pool = [2, 3, 5, 4, 5, 6, 7, 8, 6, 7, 2, 3, 5, 6, 7, 2, 2, 2]
    pools = {"pool_strings": [str(v) for v in pool]} if dtype is object else {"pool_int64s": pool}
    fixed = {"ngram_counts": [0, 4, 12], "ngram_indexes": [3, 1, 0, 2, 6, 5, 4, 7, 9, 8], "mode": mode, **pools}
    fixed |= {"weights": _numbers(10)} if weighted else {}
    for shape in ((12,), (3, 40), (2, 1)):
        x = np.random.default_rng(0).integers(1, 9, shape).astype(str if dtype is object else dtype).astype(dtype)
        for skip, (least, most) in itertools.product((0, 3), ((1, 1), (1, 2), (2, 3))):
            lengths = {"max_skip_count": skip, "min_gram_length": least, "max_gram_length": most}
            node = helper.make_node("TfIdfVectorizer", ["x0"], ["y"], **fixed, **lengths)
            info = helper.make_tensor_value_info("x0", element(x), shape)
            graph = helper.make_graph([node], "grams", [info], [helper.make_tensor_value_info("y", FLOAT, None)])
            made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
            check(made, [x])


# -- a pipeline, as skl2onnx writes it
def test_a_pipeline_of_mixed_columns_runs_natively_but_for_its_texts() -> None:
    ml, nan = {"domain": "ai.onnx.ml"}, float("nan")
    nodes = [
        helper.make_node("Concat", ["age", "fare"], ["numbers"], axis=1),
        helper.make_node("Imputer", ["numbers"], ["full"], **ml, imputed_value_floats=[3.0, 4.0], replaced_value_float=nan),
        helper.make_node("Scaler", ["full"], ["scaled"], **ml, offset=[1.0, 2.0], scale=[0.5, 0.25]),
        helper.make_node("OneHotEncoder", ["port"], ["hot"], **ml, cats_strings=["C", "Q", "S"]),
        helper.make_node("Reshape", ["hot", "flat"], ["ports"]),
        helper.make_node("Concat", ["scaled", "ports"], ["features"], axis=1),
        helper.make_node(
            "LinearClassifier", ["features"], ["label", "raw"], **ml, classlabels_ints=[0, 1], coefficients=_numbers(2, 5),
            intercepts=[0.1, -0.1], post_transform="LOGISTIC", multi_class=1,
        ),
        helper.make_node("Normalizer", ["raw"], ["probability"], **ml, norm="L1"),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info(n, k, [None, 1]) for n, k in (("age", FLOAT), ("fare", FLOAT), ("port", STRING))]
    outputs = [helper.make_tensor_value_info("label", INT64, [None]), helper.make_tensor_value_info("probability", FLOAT, None)]
    graph = helper.make_graph(nodes, "pipeline", inputs, outputs, [numpy_helper.from_array(np.array([-1, 3]), "flat")])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session, peer = jitrt.InferenceSession(made), onnxruntime.InferenceSession(made.SerializeToString())
    for count in (1, 40):
        ages, ports = rows(count, 1), np.random.default_rng(count).choice(np.array(["C", "S", "?"], object), (count, 1))
        feeds = {"age": np.where(np.isinf(ages), 1, ages), "fare": np.abs(np.nan_to_num(ages[::-1])).clip(0, 9), "port": ports}
        for got, expected in zip(session.run(None, feeds), peer.run(None, feeds), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert session.get_plan(feeds).host_nodes == ("hot",)
