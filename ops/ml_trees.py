"""Tree ensembles of ai.onnx.ml, on `kernels/forest`: TreeEnsemble, TreeEnsembleRegressor, TreeEnsembleClassifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import evaluate, forest
from .builder import Builder, OperatorError
from .forest import Forest, Nodes, Votes
from .kernels import forest as kernels
from .ml_scores import TRANSFORMS, labelled, labels_of, ml_op, of_two, rows, second_above, single, transformed, winner
from .primitives import LaunchContext, Tensor

_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")  # in the numbering of TreeEnsemble 5
_FOLDS = {"AVERAGE": "add", "SUM": "add", "MIN": "minimum", "MAX": "maximum"}


@ml_op("TreeEnsemble", since=5)
def tree_ensemble(
    t: Builder, X: Tensor, *, aggregate_function=1, leaf_targetids, leaf_weights, membership_values=None, n_targets=1,
    nodes_falseleafs, nodes_falsenodeids, nodes_featureids, nodes_hitrates=None, nodes_missing_value_tracks_true=None,
    nodes_modes, nodes_splits, nodes_trueleafs, nodes_truenodeids, post_transform=0, tree_roots,
) -> Tensor:  # fmt: skip
    """The leaves that a row reaches, one a tree, summed up (averaged, least, greatest) by target."""
    if not 0 <= aggregate_function < len(_AGGREGATES) or not 0 <= post_transform < len(TRANSFORMS):
        raise OperatorError(f"unknown aggregate_function {aggregate_function} or post_transform {post_transform}")

    def make(dtype: np.dtype, features: int) -> Forest:
        nodes = _interior(
            nodes_modes, nodes_featureids, nodes_splits, (nodes_truenodeids, nodes_trueleafs),
            (nodes_falsenodeids, nodes_falseleafs), nodes_missing_value_tracks_true, tree_roots, membership_values,
            len(leaf_targetids),
        )  # fmt: skip
        leaves = np.arange(len(leaf_targetids)) + len(nodes.modes) - len(leaf_targetids)
        votes = Votes(leaves, np.asarray(leaf_targetids, np.int64), leaf_weights.astype(dtype))
        return forest.pack(nodes, votes, dtype, features, n_targets)

    wide = np.float64 if X.dtype == np.float64 else np.float32
    scores = _walk(t, rows(t, X, wide), tree_roots, make, n_targets, _AGGREGATES[aggregate_function])
    return t.cast(_finished(t, scores, TRANSFORMS[post_transform]), X.dtype)


def _interior(
    modes: np.ndarray, features: Sequence[int], splits: np.ndarray, yes: tuple, no: tuple, missing: Sequence[int] | None,
    roots: Sequence[int], members: np.ndarray | None, leaves: int,
) -> Nodes:  # fmt: skip
    """The interior nodes, then the leaves, which TreeEnsemble 5 counts by themselves.

    A root both of whose branches lead to the same leaf is how a tree of a single leaf is written.
    """
    count = len(modes)
    if any(len(v) != count for v in (features, splits, *yes, *no)) or (missing and len(missing) != count):
        raise OperatorError("the attributes of the nodes have different lengths")
    ways = []
    for ids, to_leaf in (yes, no):
        to, end = np.asarray(ids, np.int64), np.asarray(to_leaf, bool)
        if (to < 0).any() or (to >= np.where(end, leaves, count)).any():
            raise OperatorError("a branch leads to a node or leaf that is not there")
        ways.append(np.r_[to + count * end, np.arange(count, count + leaves)])
    starts = np.asarray(roots, np.int64)
    if (starts < 0).any() or (starts >= count).any():
        raise OperatorError("a root is not there")
    kinds = np.r_[modes.astype(np.int8), np.full(leaves, forest.LEAF, np.int8)]
    nothing = np.zeros(leaves, np.int64)
    passes = np.r_[np.asarray(missing, bool) if missing else np.zeros(count, bool), nothing.astype(bool)]
    return Nodes(
        kinds, np.r_[np.asarray(features, np.int64), nothing], np.r_[splits.astype(np.float64), nothing], *ways, passes, starts,
        _members(kinds, members),
    )  # fmt: skip


def _members(modes: np.ndarray, values: np.ndarray | None) -> dict[int, np.ndarray]:
    """The sets of the MEMBER nodes, which the attribute lists in their order, each ended by NaN."""
    nodes = np.flatnonzero(modes == forest.MEMBER)
    values = np.zeros(0) if values is None else values.astype(np.float64)
    ends = np.flatnonzero(np.isnan(values))
    if len(ends) != len(nodes):
        raise OperatorError(f"membership_values has {len(ends)} sets for {len(nodes)} nodes")
    return dict(zip(nodes.tolist(), np.split(values, ends + 1)))


@ml_op("TreeEnsembleRegressor", since=1)
def tree_ensemble_regressor(
    t: Builder, X: Tensor, *, aggregate_function="SUM", base_values=None, base_values_as_tensor=None, n_targets=1,
    nodes_falsenodeids=(), nodes_featureids=(), nodes_hitrates=None, nodes_hitrates_as_tensor=None,
    nodes_missing_value_tracks_true=None, nodes_modes=(), nodes_nodeids=(), nodes_treeids=(), nodes_truenodeids=(),
    nodes_values=(), nodes_values_as_tensor=None, post_transform="NONE", target_ids=(), target_nodeids=(), target_treeids=(),
    target_weights=(), target_weights_as_tensor=None,
) -> Tensor:  # fmt: skip
    """The leaves that a row reaches, summed up (averaged, least, greatest) by target."""
    if aggregate_function not in _AGGREGATES:
        raise OperatorError(f"unknown aggregate_function {aggregate_function!r}")
    thresholds = nodes_values if nodes_values_as_tensor is None else nodes_values_as_tensor
    weights = target_weights if target_weights_as_tensor is None else target_weights_as_tensor
    nodes = (nodes_treeids, nodes_nodeids, nodes_modes, nodes_featureids, thresholds, nodes_truenodeids, nodes_falsenodeids,
             nodes_missing_value_tracks_true)  # fmt: skip
    make = _maker(nodes, (target_treeids, target_nodeids, target_ids, weights), n_targets)
    x = rows(t, X, _precision(X, thresholds, weights))
    scores = _walk(t, x, nodes_nodeids, make, n_targets, aggregate_function)
    base = _numbers(base_values if base_values_as_tensor is None else base_values_as_tensor)
    if len(base) == n_targets:
        scores = t.map("a + b", scores, t.constant(base, scores.dtype))
    return t.cast(_finished(t, scores, post_transform), np.float32)


@ml_op("TreeEnsembleClassifier", since=1)
def tree_ensemble_classifier(
    t: Builder, X: Tensor, *, base_values=None, base_values_as_tensor=None, class_ids=(), class_nodeids=(), class_treeids=(),
    class_weights=(), class_weights_as_tensor=None, classlabels_int64s=None, classlabels_strings=None, nodes_falsenodeids=(),
    nodes_featureids=(), nodes_hitrates=None, nodes_hitrates_as_tensor=None, nodes_missing_value_tracks_true=None, nodes_modes=(),
    nodes_nodeids=(), nodes_treeids=(), nodes_truenodeids=(), nodes_values=(), nodes_values_as_tensor=None, post_transform="NONE",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The class with the greatest sum of weights in the leaves that a row reaches, and the sums."""
    labels = labels_of(classlabels_int64s, classlabels_strings)
    thresholds = nodes_values if nodes_values_as_tensor is None else nodes_values_as_tensor
    weights = class_weights if class_weights_as_tensor is None else class_weights_as_tensor
    nodes = (nodes_treeids, nodes_nodeids, nodes_modes, nodes_featureids, thresholds, nodes_truenodeids, nodes_falsenodeids,
             nodes_missing_value_tracks_true)  # fmt: skip
    make = _maker(nodes, (class_treeids, class_nodeids, class_ids, weights), len(labels))
    x = rows(t, X, _precision(X, thresholds, weights))
    scores = _walk(t, x, nodes_nodeids, make, len(labels), "SUM")
    base = _numbers(base_values if base_values_as_tensor is None else base_values_as_tensor)
    voted = np.zeros(len(labels), bool)
    voted[np.unique(np.asarray(class_ids, np.int64))] = True
    if len(labels) == 1:
        # whatever the score says; onnxruntime gives 0 and 1 in place of a number
        labels = np.array([0, 1]) if labels.dtype != object else np.repeat(labels, 2)
    index, scores = _classified(t, scores, base, voted, bool((_numbers(weights) >= 0).all()), post_transform)
    return labelled(t, index, labels), t.cast(scores, np.float32)


def _classified(
    t: Builder, scores: Tensor, base: np.ndarray, voted: np.ndarray, positive: bool, transform: str
) -> tuple[Tensor, Tensor]:
    """(class of each row, scores) from sums of votes; `voted` are the classes that any leaf votes for."""
    count = len(voted)
    scores = _based(t, scores, base, voted)
    if count == 1:
        return second_above(t, scores, 0.0), single(t, scores, transform)
    if count > 2:
        # a class that nothing speaks of does not win with its zero
        silent = ~voted if len(base) != count else np.zeros(count, bool)
        shown = t.map("a + b", scores, t.constant(np.where(silent, -np.inf, 0.0), scores.dtype)) if silent.any() else scores
        return winner(t, shown), transformed(t, scores, transform)
    bound = 0.5 if positive and not voted.all() else 0.0
    if voted[1] or len(base) == 2:
        return second_above(t, t.take(scores, 1, 1, 2), bound), transformed(t, scores, transform)
    only = t.take(scores, 1, 0, 1)
    return second_above(t, only, bound), of_two(t, only, transform, not positive)


def _based(t: Builder, scores: Tensor, base: np.ndarray, voted: np.ndarray) -> Tensor:
    """Scores with the base values: one a class, or, of two classes, one for the first if anything speaks of it."""
    if len(base) == 1 and len(voted) == 2:
        base = np.array([base[0] * voted[0], 0.0])
    return t.map("a + b", scores, t.constant(base, scores.dtype)) if len(base) == len(voted) else scores


# -- parts
def _numbers(values: object) -> np.ndarray:
    return np.zeros(0) if values is None else np.asarray(values, np.float64)


def _precision(x: Tensor, *values: object) -> type:
    """float64 for float64 rows or attributes, float32 for all others."""
    wide = x.dtype == np.float64 or any(isinstance(v, np.ndarray) and v.dtype == np.float64 for v in values)
    return np.float64 if wide else np.float32


def _maker(nodes: tuple, votes: tuple, targets: int) -> Callable[[np.dtype, int], Forest]:
    """What packs the forest of the attributes that TreeEnsembleRegressor and -Classifier share."""

    def make(dtype: np.dtype, features: int) -> Forest:
        treeids, nodeids, modes, featureids, thresholds, yes, no, missing = nodes
        values = np.asarray(thresholds, np.float64)
        made, names = forest.of_tables(treeids, nodeids, modes, featureids, values, yes, no, missing)
        trees, ids, targetids, weights = (np.asarray(v, k) for v, k in zip(votes, (np.int64, np.int64, np.int64, dtype)))
        if not len(trees) == len(ids) == len(targetids) == len(weights):
            raise OperatorError("the attributes of the leaves have different lengths")
        leaves = names.find(trees, ids, "a weight is of")
        kept = made.modes[leaves] == forest.LEAF
        return forest.pack(made, Votes(leaves[kept], targetids[kept], weights[kept]), dtype, features, targets)

    return make


def _walk(t: Builder, x: Tensor, about: object, make: Callable, targets: int, aggregate: str) -> Tensor:
    """[rows, targets]: what the trees say together; 0 where they say nothing.

    Args:
        about: the attribute that stands for the forest (`Builder.once`).
    """
    features = x.shape[1]
    made: Forest = t.once(about, (x.dtype, features, targets), lambda: make(x.dtype, features))
    fold, name = _FOLDS[aggregate], evaluate.memory_name(x.dtype)

    def launch(c: LaunchContext) -> list:
        places = [v.address for v in (c.inputs[0], c.outputs[0], *c.inputs[1:])]
        return kernels.walk(
            name, *places, x.shape[0], features, len(made.columns), made.count, targets, fold, made.missing, made.single, c.threads
        )  # fmt: skip

    inputs = (x, *(t.constant(v) for v in (made.records, made.trees, made.votes, made.columns)))
    (scores,) = t.kernel(
        "forest", inputs, [(x.dtype, (x.shape[0], targets))], launch, orders=((0, 1), (0,), (0, 1), (0,), (0,)),
    )  # fmt: skip
    if aggregate == "AVERAGE":
        return t.map(f"a / {float(made.count)!r}", scores)
    return scores if fold == "add" else t.map("select(isnan(a), 0.0, a)", scores)


def _finished(t: Builder, scores: Tensor, transform: str) -> Tensor:
    return single(t, scores, transform) if scores.shape[1] == 1 else transformed(t, scores, transform)
