"""What skl2onnx writes of scikit-learn's models and pipelines, beside onnxruntime: fitted on a few rows, run on others."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest

import jitrt

pytest.importorskip("skl2onnx")
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn import (
    calibration,
    cluster,
    compose,
    cross_decomposition,
    decomposition,
    ensemble,
    feature_extraction,
    feature_selection,
    gaussian_process,
    impute,
    linear_model,
    mixture,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 5)).astype(np.float32)
COUNTS = RNG.integers(0, 5, (60, 5))
NUMBER = X @ np.array([1.0, -2, 0.5, 0, 1]) + X[:, 0] * X[:, 1]
TWO = (NUMBER > 0).astype(int)
THREE = np.digitize(NUMBER, [-1, 1])
TEXT = np.array(["low", "mid", "high"])[THREE]
SENTENCES = np.array(["the cat sat", "A dog, a cat!", "dogs do not sit", "", "the the cat"] * 4)
small = {"random_state": 0}

CLASSIFIERS = {
    "logistic": linear_model.LogisticRegression(),
    "forest": ensemble.RandomForestClassifier(8, max_depth=4, **small),
    "boosted trees": ensemble.GradientBoostingClassifier(n_estimators=6, **small),
    "AdaBoost": ensemble.AdaBoostClassifier(n_estimators=4, **small),
    "SVC": svm.SVC(),
    "neighbours": neighbors.KNeighborsClassifier(3),
    "Gaussian naive Bayes": naive_bayes.GaussianNB(),
    "MLP": neural_network.MLPClassifier(hidden_layer_sizes=(7,), max_iter=60, **small),
    "one against the rest": multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "calibrated": calibration.CalibratedClassifierCV(linear_model.LogisticRegression(), cv=2),
    "votes": ensemble.VotingClassifier(
        [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=3, **small))],
        voting="soft",
        flatten_transform=False,
    ),
    "stack": ensemble.StackingClassifier(
        [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=3, **small))], cv=2
    ),
}
REGRESSORS = {
    "linear": linear_model.LinearRegression(),
    "lasso": linear_model.Lasso(0.1),
    "tree": tree.DecisionTreeRegressor(max_depth=4, **small),
    "forest": ensemble.RandomForestRegressor(8, max_depth=4, **small),
    "boosted trees": ensemble.GradientBoostingRegressor(n_estimators=6, **small),
    "SVR": svm.SVR(),
    "SVR of polynomials": svm.SVR(kernel="poly", degree=2),
    "neighbours": neighbors.KNeighborsRegressor(3),
    "neighbours by distance": neighbors.KNeighborsRegressor(3, weights="distance"),
    "Gaussian process": gaussian_process.GaussianProcessRegressor(),
    "MLP": neural_network.MLPRegressor(hidden_layer_sizes=(7,), max_iter=60, **small),
    "two targets": multioutput.MultiOutputRegressor(linear_model.Ridge()),
    "partial least squares": cross_decomposition.PLSRegression(2),
}
TRANSFORMERS = {
    "standard": preprocessing.StandardScaler(),
    "robust": preprocessing.RobustScaler(),
    "range": preprocessing.MinMaxScaler(clip=True),
    "largest": preprocessing.MaxAbsScaler(),
    "norm": preprocessing.Normalizer("l1"),
    "threshold": preprocessing.Binarizer(threshold=0.2),
    "polynomials": preprocessing.PolynomialFeatures(2),
    "bins": preprocessing.KBinsDiscretizer(3, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
    "mean": impute.SimpleImputer(),
    "PCA": decomposition.PCA(3, svd_solver="full"),
    "SVD": decomposition.TruncatedSVD(2, **small),
    "best": feature_selection.SelectKBest(feature_selection.f_classif, k=2),
    "k means": cluster.KMeans(3, n_init=1, **small),
}
OUTLIERS = {
    "isolation": ensemble.IsolationForest(n_estimators=5, **small),
    "one class": svm.OneClassSVM(),
    "mixture": mixture.GaussianMixture(2, **small),
}


def converted(fitted: object, kind: object, **options: object) -> bytes:
    """The model that skl2onnx writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = kind if isinstance(kind, list) else [("x", kind)]
        target = {"": 19, "ai.onnx.ml": 3, "com.microsoft": 1}
        return to_onnx(fitted, initial_types=given, target_opset=target, options=options or None).SerializeToString()


def check(content: bytes, feeds: dict[str, np.ndarray], rtol: float = 1e-4, atol: float = 1e-5) -> tuple[str, ...]:
    """onnxruntime agrees; the nodes that Python computes."""
    session = jitrt.InferenceSession(content)
    peer = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for got, expected in zip(session.run(None, feeds), peer.run(None, feeds), strict=True):
        if isinstance(expected, list):  # a map a row
            assert [list(row) for row in got] == [list(row) for row in expected]
            got, expected = (np.array([list(row.values()) for row in rows]) for rows in (got, expected))
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(got, expected, rtol, atol)
        else:
            np.testing.assert_array_equal(got, expected)
    return tuple(node for node in session.get_plan(feeds).host_nodes if "Scan" not in node)  # loops have plans of their own


def fit(model: object, x: np.ndarray, y: np.ndarray | None) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x, y)


# -- models
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_gives_onnxruntimes_labels_and_probabilities(name: str) -> None:
    for labels in (TWO, THREE):
        fitted = fit(CLASSIFIERS[name], X, labels)
        made = converted(fitted, FloatTensorType([None, 5]), **{"zipmap": False})
        assert check(made, {"x": X[:33]}) == ()
        check(made, {"x": X[:1]})


@pytest.mark.parametrize("name", ["logistic", "forest", "SVC", "neighbours", "MLP"])
def test_labels_may_be_texts_and_probabilities_maps(name: str) -> None:
    fitted = fit(CLASSIFIERS[name], X, TEXT)
    for zipmap in (True, False, "columns"):
        check(converted(fitted, FloatTensorType([None, 5]), **{"zipmap": zipmap}), {"x": X[:9]})


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_gives_onnxruntimes_numbers(name: str) -> None:
    fitted = fit(REGRESSORS[name], X, NUMBER if name != "two targets" else np.stack([NUMBER, X[:, 0]], 1))
    assert check(converted(fitted, FloatTensorType([None, 5])), {"x": X[:33]}, rtol=1e-3, atol=1e-4) == ()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_gives_onnxruntimes_features(name: str) -> None:
    fitted = fit(TRANSFORMERS[name], X, TWO)
    rows = X[:33].copy()
    if name == "mean":
        rows[::3, 1] = np.nan
    assert check(converted(fitted, FloatTensorType([None, 5])), {"x": rows}) == ()


@pytest.mark.parametrize("name", OUTLIERS)
def test_what_finds_outliers_gives_onnxruntimes_scores(name: str) -> None:
    fitted = fit(OUTLIERS[name], X, None)
    assert check(converted(fitted, FloatTensorType([None, 5])), {"x": X[:33]}, rtol=1e-3, atol=1e-4) == ()


# -- types of the rows
@pytest.mark.parametrize("name", ["logistic", "forest", "SVC", "Gaussian naive Bayes", "MLP"])
def test_rows_may_be_float64_or_int64(name: str) -> None:
    for x, kind in ((X.astype(np.float64), DoubleTensorType), (COUNTS, Int64TensorType)):
        fitted = fit(CLASSIFIERS[name], x, TWO)
        check(converted(fitted, kind([None, 5]), **{"zipmap": False}), {"x": x[:17]})


def test_regressors_of_float64_rows_keep_float64s_precision() -> None:
    x = X.astype(np.float64)
    for name in ("linear", "Gaussian process", "neighbours"):
        fitted = fit(REGRESSORS[name], x, NUMBER)
        check(converted(fitted, DoubleTensorType([None, 5])), {"x": x[:17]}, rtol=1e-9, atol=1e-9)


def test_neighbours_and_processes_may_be_written_with_distances_of_onnxruntimes() -> None:
    for model, kind in ((neighbors.KNeighborsRegressor(3), "regressor"), (gaussian_process.GaussianProcessRegressor(), "process")):
        fitted = fit(model, X, NUMBER)
        made = converted(fitted, FloatTensorType([None, 5]), **{"optim": "cdist"})
        assert b"CDist" in made, kind
        assert check(made, {"x": X[:17]}, rtol=1e-3, atol=1e-4) == ()


# -- texts
VECTORIZERS: dict[str, Callable[[], object]] = {
    "counts": lambda: feature_extraction.text.CountVectorizer(),
    "pairs": lambda: feature_extraction.text.CountVectorizer(ngram_range=(1, 2), binary=True),
    "characters": lambda: feature_extraction.text.CountVectorizer(analyzer="char", ngram_range=(1, 2)),
    "frequencies": lambda: feature_extraction.text.TfidfVectorizer(token_pattern="[a-zA-Z]+"),
    "frequencies of all cases": lambda: feature_extraction.text.TfidfVectorizer(
        lowercase=False, sublinear_tf=True, stop_words=["a"]
    ),
}


@pytest.mark.parametrize("name", VECTORIZERS)
def test_a_vectorizer_of_texts_counts_what_onnxruntime_counts(name: str) -> None:
    fitted = fit(VECTORIZERS[name](), SENTENCES, None)
    check(converted(fitted, StringTensorType([None]), **{"locale": "C"}), {"x": SENTENCES.astype(object)})


def test_a_hasher_of_texts_gives_onnxruntimes_buckets() -> None:
    texts = np.array([["cat", "dog"], ["dog", "x"], ["", "é"]], object)
    hasher = feature_extraction.FeatureHasher(n_features=8, input_type="string", dtype=np.float32)
    check(converted(fit(hasher, texts, None), StringTensorType([None, 2])), {"x": texts})


# -- pipelines
def test_columns_of_several_types_go_through_a_pipeline() -> None:
    kinds = np.array(["red", "green", "blue"], object)[RNG.integers(0, 3, 60)][:, None]
    numbers = X.copy()
    numbers[::7, 2] = np.nan
    import pandas

    table = pandas.DataFrame(numbers, columns=list("abcde")).assign(kind=kinds[:, 0], count=COUNTS[:, 0])
    steps = compose.ColumnTransformer([
        ("numbers", pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), preprocessing.StandardScaler()), list("abcde")),
        ("kinds", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["kind"]),
        ("counts", preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["count"]),
    ])  # fmt: skip
    given = [(name, FloatTensorType([None, 1])) for name in "abcde"]
    given += [("kind", StringTensorType([None, 1])), ("count", Int64TensorType([None, 1]))]
    feeds = {name: numbers[:, i : i + 1] for i, name in enumerate("abcde")} | {"kind": kinds, "count": COUNTS[:, :1]}
    feeds["kind"] = np.where(np.arange(60)[:, None] % 9 == 0, "unknown", kinds).astype(object)
    for last in (linear_model.LogisticRegression(max_iter=500), ensemble.RandomForestClassifier(6, max_depth=4, **small)):
        fitted = fit(pipeline.make_pipeline(steps, last), table, TEXT)
        check(converted(fitted, given, **{"zipmap": False}), feeds)


def test_rows_go_through_a_pipeline_without_python() -> None:
    steps = pipeline.make_pipeline(
        impute.SimpleImputer(), preprocessing.StandardScaler(), decomposition.PCA(3, svd_solver="full"),
        ensemble.RandomForestClassifier(9, max_depth=4, **small),
    )  # fmt: skip
    made = converted(fit(steps, X, THREE), FloatTensorType([None, 5]), **{"zipmap": False})
    for count in (1, 2, 50):
        assert check(made, {"x": X[:count]}) == ()
