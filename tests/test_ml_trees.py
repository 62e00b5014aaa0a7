"""Tree ensembles of ai.onnx.ml beside onnxruntime: modes, missing values, aggregates, transforms, labels, types."""

from __future__ import annotations

import numpy as np
import pytest
from ml_models import LOGISTIC_IS_LEFT_OUT, MODES, Trees, check, model, rows, run
from onnx import TensorProto, helper, numpy_helper
from reference import skip_where_old

import jitrt
from jitrt.ops import forest

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def _regressor(trees: Trees, x: np.ndarray, version: int = 3, targets: int = 1, **attributes: object):
    return model("TreeEnsembleRegressor", [x], [FLOAT], version, n_targets=targets, **trees.attributes("target"), **attributes)


def _classifier(trees: Trees, x: np.ndarray, labels: list, **attributes: object):
    strings = isinstance(labels[0], str)
    named = {"classlabels_strings" if strings else "classlabels_int64s": labels}
    kinds = [STRING if strings else INT64, FLOAT]
    return model("TreeEnsembleClassifier", [x], kinds, 3, **trees.attributes("class"), **named, **attributes)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("modes", [(mode,) for mode in MODES] + [MODES])
def test_every_comparison_leads_where_onnxruntime_goes(modes: tuple[str, ...], missing: bool) -> None:
    trees = Trees(11, 4, 5, lambda tree: [0], modes, missing=missing)
    x = rows(61, 5)
    check(_regressor(trees, x, 1), [x])


def test_any_number_of_rows_and_trees_is_walked() -> None:
    for count in (1, 8, 19):
        trees = Trees(count, 5, 3, lambda tree: [0])
        for n in (0, 1, 7, 8, 9, 1100):
            x = rows(n, 3)
            check(_regressor(trees, x), [x])


def test_trees_may_compare_few_of_many_features_or_none() -> None:
    x = rows(20, 700)
    check(_regressor(Trees(3, 4, 700, lambda tree: [0], MODES, missing=True), x), [x])
    check(_regressor(Trees(3, 0, 700, lambda tree: [0]), x), [x])


def test_deep_ragged_trees_end_where_all_their_rows_have_ended() -> None:
    trees = Trees(9, 40, 6, lambda tree: [0, 1], ragged=0.47)
    x = rows(100, 6)
    check(_regressor(trees, x, targets=2), [x])


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
def test_aggregates_and_transforms_of_a_regressor(aggregate: str, transform: str) -> None:
    x = rows(33, 4)
    for targets, votes in ((1, lambda tree: [0]), (3, lambda tree: [0, 1, 2]), (4, lambda tree: [tree % 3])):
        trees = Trees(10, 4, 4, votes)
        # what onnxruntime 1.32 makes of the base value of a target that no leaf speaks of is 0
        for base in ([], [0.5, -1.0, 0.25][:targets]) if targets < 4 else ([],):
            attributes = {"aggregate_function": aggregate, "post_transform": transform, "base_values": base}
            check(_regressor(trees, x, targets=targets, **attributes), [x])


def test_probit_is_the_inverse_of_the_normal_distribution() -> None:
    x = rows(40, 4)[7:]
    trees = Trees(4, 4, 4, lambda tree: [0], low=0.05)
    attributes = {"aggregate_function": "AVERAGE"}
    p = run(_regressor(trees, x, **attributes), [x])[0].astype(np.float64)
    got = run(_regressor(trees, x, post_transform="PROBIT", **attributes), [x])[0]
    # the approximation that onnxruntime uses, in float64
    log = np.log(4 * p * (1 - p))
    half = 2 / (np.pi * 0.147) + log / 2
    expected = np.sqrt(2) * np.sign(p - 0.5) * np.sqrt(np.sqrt(half**2 - log / 0.147) - half)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    check(_regressor(trees, x, post_transform="PROBIT", **attributes), [x], rtol=1e-3, atol=2e-3)


VOTES = {
    "of all classes": lambda count: lambda tree: range(count),
    "of the first": lambda count: lambda tree: [0],
    "of one a tree": lambda count: lambda tree: [tree % count],
    "of the last": lambda count: lambda tree: [count - 1],
}


LABELS = {"two classes": ([0, 1], ["no", "yes"]), "more classes": ([4, 7, 5], ["a", "b", "c", "d"])}


@pytest.mark.parametrize("low", [-1.0, 0.05])
@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("votes", VOTES)
@pytest.mark.parametrize("classes", LABELS)
def test_a_classifier_decides_as_onnxruntime_does(classes: str, votes: str, transform: str, low: float) -> None:
    if (classes, votes, transform) == ("two classes", "of the first", "LOGISTIC") and low > 0:
        skip_where_old(LOGISTIC_IS_LEFT_OUT)
    x = rows(33, 4)
    for labels in LABELS[classes]:
        trees = Trees(8, 4, 4, VOTES[votes](len(labels)), low=low, ragged=0)
        bases: list[list[float]] = [[]]
        if len(labels) > 2:
            bases.append([0.3, -0.5, 0.1, 0.0][: len(labels)])
        elif votes == "of the first":
            bases.append([0.25])
        for base in bases:
            check(_classifier(trees, x, labels, post_transform=transform, base_values=base), [x])


def test_base_values_are_added_to_the_scores_of_two_classes() -> None:
    # the schema's words; onnxruntime 1.32 puts the first class's votes in place of the second one's
    x = rows(20, 4)
    trees = Trees(6, 3, 4, lambda tree: [0, 1], ragged=0)
    plain = run(_classifier(trees, x, [0, 1]), [x])[1]
    labels, scores = run(_classifier(trees, x, [8, 9], base_values=[0.5, -0.25]), [x])
    np.testing.assert_allclose(scores, plain + np.float32([0.5, -0.25]), rtol=1e-6)
    np.testing.assert_array_equal(labels, np.where(scores[:, 1] > 0, 9, 8))


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.int64])
def test_rows_of_every_type_are_compared(dtype: type) -> None:
    x = np.nan_to_num(rows(40, 4), posinf=9, neginf=-9)
    x = (x if dtype is np.float64 else np.rint(2 * x)).astype(dtype)
    trees = Trees(9, 5, 4, lambda tree: [0, 1, 2], MODES)
    check(_classifier(trees, x, ["a", "b", "c"]), [x])
    got = run(_regressor(trees, x, targets=3), [x])[0]
    np.testing.assert_allclose(got, run(_regressor(trees, x.astype(np.float32), targets=3), [x.astype(np.float32)])[0], atol=1e-5)


def test_float64_attributes_are_compared_as_float64() -> None:
    trees = Trees(3, 3, 2, lambda tree: [0], ragged=0)
    step = 2.0**-40
    attributes = trees.attributes("target")
    thresholds, weights = np.array(attributes.pop("nodes_values")) + step, np.array(attributes.pop("target_weights"))
    x = np.random.default_rng(0).integers(-2, 3, (50, 2)) + np.array([0, 2 * step])
    tensors = {
        "nodes_values_as_tensor": numpy_helper.from_array(thresholds), "target_weights_as_tensor": numpy_helper.from_array(weights)
    }  # fmt: skip
    check(model("TreeEnsembleRegressor", [x], [FLOAT], 3, n_targets=1, **attributes, **tensors), [x])


# -- TreeEnsemble 5
def _ensemble(x: np.ndarray, splits: np.ndarray, **changes: object):
    """Two trees over two features: three nodes and four leaves, and one node and two leaves."""
    attributes = {
        "nodes_featureids": [0, 1, 0, 1], "nodes_modes": numpy_helper.from_array(np.array([0, 1, 3, 2], np.uint8)),
        "nodes_splits": numpy_helper.from_array(splits), "nodes_truenodeids": [1, 0, 2, 4], "nodes_trueleafs": [0, 1, 1, 1],
        "nodes_falsenodeids": [2, 1, 3, 5], "nodes_falseleafs": [0, 1, 1, 1], "leaf_targetids": [0, 1, 1, 0, 1, 0],
        "leaf_weights": numpy_helper.from_array(np.arange(1, 7).astype(splits.dtype)), "tree_roots": [0, 3], "n_targets": 2,
    }  # fmt: skip
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    return model("TreeEnsemble", [x], [kind], 5, **{**attributes, **changes})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("aggregate", [0, 1, 2, 3])
def test_tree_ensemble_of_opset_5(aggregate: int, dtype: type) -> None:
    x = rows(30, 2).astype(dtype)
    splits = np.array([0.0, 1.0, -1.0, 0.5], dtype)
    # the schema numbers SOFTMAX 1 and LOGISTIC 2, onnxruntime 1.32 the other way round
    for transform, theirs in enumerate((0, 2, 1, 3)):
        for missing in ({}, {"nodes_missing_value_tracks_true": [1, 0, 1, 1]}):
            ours = _ensemble(x, splits, aggregate_function=aggregate, post_transform=transform, **missing)
            other = _ensemble(x, splits, aggregate_function=aggregate, post_transform=theirs, **missing)
            check(ours, [x], other=other)


def test_sets_of_members_are_looked_up() -> None:
    x = rows(40, 2)
    members = np.array([-1, 0, 2, np.nan, np.inf, np.nan, np.nan], np.float32)
    modes = numpy_helper.from_array(np.array([6, 6, 0, 6], np.uint8))
    splits = np.zeros(4, np.float32)
    for missing in ([0, 0, 0, 0], [1, 1, 1, 1]):
        changes = {"nodes_modes": modes, "membership_values": numpy_helper.from_array(members)}
        got = run(_ensemble(x, splits, nodes_missing_value_tracks_true=missing, **changes), [x])[0]
        sets = [{-1.0, 0.0, 2.0}, {np.inf}, None, set()]
        lost = np.isnan(x)
        holds = [np.isin(x[:, f], [*s]) if s is not None else x[:, f] <= 0 for f, s in zip((0, 1, 0, 1), sets)]
        holds = [np.where(lost[:, f], m, h) for h, m, f in zip(holds, missing, (0, 1, 0, 1))]
        first = np.where(holds[0], np.where(holds[1], 0, 1), np.where(holds[2], 2, 3))
        expected = np.zeros((40, 2))
        for leaf in (first, np.where(holds[3], 4, 5)):
            expected[np.arange(40), np.array([0, 1, 1, 0, 1, 0])[leaf]] += leaf + 1
        np.testing.assert_array_equal(got, expected)


def test_float16_rows_give_float16_scores() -> None:
    x = rows(20, 2)
    splits = np.array([0.0, 1.0, -1.0, 0.5])
    got = run(_ensemble(x.astype(np.float16), splits.astype(np.float16)), [x.astype(np.float16)])[0]
    assert got.dtype == np.float16
    rounded = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(got, run(_ensemble(rounded, splits.astype(np.float32)), [rounded])[0])


# -- how
def test_a_forest_is_packed_once_for_all_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(30, 4)
    packed = []
    original = forest.pack
    monkeypatch.setattr(forest, "pack", lambda *args: packed.append(1) or original(*args))
    session = jitrt.InferenceSession(_regressor(Trees(5, 3, 4, lambda tree: [0]), x))
    for n in (1, 5, 30):
        session.run(None, {"x0": x[:n]})
    assert packed == [1]
    assert not session.get_plan({"x0": x}).host_nodes


def test_what_is_no_forest_is_an_error_with_the_node_named() -> None:
    x = rows(3, 4)
    for spoil, message in (
        (lambda a: a["nodes_truenodeids"].__setitem__(0, 99), "a branch leads to node 99 of tree 0"),
        (lambda a: a["nodes_featureids"].__setitem__(0, 4), "feature 4 of rows of 4"),
        (lambda a: a["nodes_falsenodeids"].__setitem__(0, 0), "comes after itself"),
        (lambda a: a["nodes_nodeids"].__setitem__(1, 0), "the same number"),
        (lambda a: a["target_nodeids"].__setitem__(0, 77), "a weight is of node 77"),
        (lambda a: a["nodes_modes"].pop(), "different lengths"),
    ):
        attributes = Trees(2, 2, 4, lambda tree: [0], ragged=0).attributes("target")
        spoil(attributes)
        made = model("TreeEnsembleRegressor", [x], [FLOAT], 3, n_targets=1, **attributes)
        with pytest.raises(jitrt.RuntimeException, match=message):
            run(made, [x])
