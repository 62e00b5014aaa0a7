"""Forests as `kernels/forest` walks them: from the nodes that attributes list to records in one array.

Every comparison becomes ``x <= threshold``: ``x < t`` is ``x <= (the number before t)``, ``>`` and ``>=`` have their
branches swapped, and equality and membership are a few nodes. NaN fails a comparison; where it has to pass (a missing
value that tracks true, or a swapped branch), the node says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .builder import OperatorError
from .kernels import forest as kernels

# modes in the numbering of TreeEnsemble 5
LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF = range(8)
MODES = {"BRANCH_LEQ": LEQ, "BRANCH_LT": LT, "BRANCH_GTE": GTE, "BRANCH_GT": GT, "BRANCH_EQ": EQ, "BRANCH_NEQ": NEQ,
         "BRANCH_MEMBER": MEMBER, "LEAF": LEAF}  # fmt: skip


@dataclass
class Nodes:
    """The nodes of all trees: parallel arrays. `yes` and `no` are indices of nodes, both the node's own for a leaf.

    Attributes:
        modes: see above. missing: whether NaN goes the way of `yes`.
        members: node -> the values that a MEMBER node looks for.
        roots: one node a tree.
    """

    modes: np.ndarray
    features: np.ndarray
    thresholds: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    missing: np.ndarray
    roots: np.ndarray
    members: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass
class Votes:
    """What leaves say, sorted by leaf: leaf `leaves[i]` says `weights[i]` of target `targets[i]`."""

    leaves: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def sorted(self) -> Votes:
        """In the order of the leaves, and for each leaf in the order of before."""
        order = np.argsort(self.leaves, kind="stable")
        return Votes(self.leaves[order], self.targets[order], self.weights[order])


@dataclass(frozen=True)
class Forest:
    """A forest in the kernel's form (see `kernels.forest.walk`).

    Attributes:
        columns: the features that any node compares.
    """

    dtype: np.dtype
    records: np.ndarray
    trees: np.ndarray
    votes: np.ndarray
    columns: np.ndarray
    count: int
    missing: bool
    single: bool


def pack(nodes: Nodes, votes: Votes, dtype: np.dtype, features: int, targets: int) -> Forest:
    """The forest for rows of `features` numbers of a dtype.

    Raises:
        OperatorError: the nodes are no trees, or read what is not there.
    """
    _check(nodes, features)
    nodes = _comparisons(nodes, dtype)
    placed, places, levels = _places(nodes)
    votes = votes.sorted()
    counts = np.bincount(votes.leaves, minlength=len(nodes.modes))
    leaf = nodes.modes == LEAF
    single = bool(targets == 1 and (counts[leaf] == 1).all())
    columns = np.unique(nodes.features[nodes.modes != LEAF])
    records = _records(nodes, placed, places, dtype, columns)
    shown, table = _votes(votes, counts, leaf, single, dtype)
    at_leaf = leaf[placed]
    records["threshold"][at_leaf] = shown[placed[at_leaf]]
    trees = np.zeros((-(-len(nodes.roots) // kernels.LANES) * kernels.LANES, 3), np.int64)
    # walks beyond the last tree go the last one's way
    levels[:, 0] *= records.itemsize
    trees[:] = levels[np.minimum(np.arange(len(trees)), len(nodes.roots) - 1)]
    return Forest(
        np.dtype(dtype), records.view(np.uint8).reshape(-1), trees, table, columns, len(nodes.roots),
        bool(nodes.missing[~leaf].any()), single,
    )  # fmt: skip


def _check(nodes: Nodes, features: int) -> None:
    inner = nodes.modes != LEAF
    if not len(nodes.roots):
        raise OperatorError("the forest has no trees")
    read = nodes.features[inner]
    if read.size and not (read.min() >= 0 and read.max() < features):
        raise OperatorError(f"a node compares feature {read.max() if read.min() >= 0 else read.min()} of rows of {features}")


# -- every comparison as <=
def _comparisons(nodes: Nodes, dtype: np.dtype) -> Nodes:
    """The same forest with LEQ nodes alone; nodes that others stand for come at the end."""
    modes, t = nodes.modes.copy(), nodes.thresholds.astype(dtype)
    yes, no, missing = nodes.yes.copy(), nodes.no.copy(), nodes.missing.copy()
    before = np.nextafter(t, np.array(-np.inf, dtype))
    before[np.isneginf(t)] = np.nan  # nothing lies below minus infinity
    greater = ((modes == GT) | (modes == GTE)) & ~np.isnan(t)
    yes[greater], no[greater], missing[greater] = nodes.no[greater], nodes.yes[greater], ~nodes.missing[greater]
    below = (modes == LT) | (modes == GTE)
    t[below] = before[below]
    modes[modes < EQ] = LEQ
    plain = Nodes(modes, nodes.features, t, yes, no, missing, nodes.roots)
    special = np.flatnonzero((modes == EQ) | (modes == NEQ) | (modes == MEMBER))
    return _with_searches(plain, special, nodes.members) if len(special) else plain


def _with_searches(nodes: Nodes, special: np.ndarray, members: dict[int, np.ndarray]) -> Nodes:
    """EQ, NEQ and MEMBER nodes as searches among the bounds of the values that they look for."""
    parts = {name: list(getattr(nodes, name)) for name in ("modes", "features", "thresholds", "yes", "no", "missing")}
    lowest = np.array(-np.inf, nodes.thresholds.dtype)

    def search(node: int, at: int, bounds: list, first: int, last: int, outside: int, inside: int, passes: bool) -> int:
        """The node (`at`, or a new one) that tells intervals first .. last of the bounds apart; odd ones are inside."""
        if first == last:
            return inside if first % 2 else outside
        middle = (first + last) // 2  # x <= bounds[middle]: interval middle or before
        if at < 0:
            at = len(parts["modes"])
            for values in parts.values():
                values.append(values[node])
        parts["modes"][at], parts["thresholds"][at] = LEQ, bounds[middle]
        # NaN comes to interval 1 if it counts as found, else to the last one
        parts["missing"][at] = passes and middle >= 1
        parts["yes"][at] = search(node, -1, bounds, first, middle, outside, inside, passes)
        parts["no"][at] = search(node, -1, bounds, middle + 1, last, outside, inside, passes)
        return at

    for node in special:
        found, other, passes = int(nodes.yes[node]), int(nodes.no[node]), bool(nodes.missing[node])
        values = members[int(node)] if nodes.modes[node] == MEMBER else nodes.thresholds[node : node + 1]
        if nodes.modes[node] == NEQ:  # NaN is unlike any number
            found, other, passes = other, found, False
        values = np.unique(values[~np.isnan(values)]).astype(nodes.thresholds.dtype)
        if not len(values):
            # nothing is found; NaN may be
            parts["modes"][node], parts["thresholds"][node], parts["missing"][node] = LEQ, np.nan, passes
            parts["yes"][node], parts["no"][node] = found, other
            continue
        below = [np.nan if v == lowest else np.nextafter(v, lowest) for v in values]
        bounds = [bound for pair in zip(below, values) for bound in pair]
        search(int(node), int(node), bounds, 0, len(bounds), other, found, passes)
    made = {name: np.asarray(v, getattr(nodes, name).dtype) for name, v in parts.items()}
    return Nodes(**made, roots=nodes.roots)


# -- where nodes lie
def _places(nodes: Nodes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(node of each record, record of each node's first child, per tree: root's record, nearest and farthest leaf).

    A tree's records are in breadth-first order, children in pairs. A node that several lead to has a record a parent,
    and one pair of children.
    """
    count = len(nodes.roots)
    expanded = nodes.modes == LEAF
    level, owner = nodes.roots, np.arange(count)
    listed, owners, pairs = [level], [owner], [level[:0]]
    while len(level):
        _, first = np.unique(level, return_index=True)
        first.sort()
        new = first[~expanded[level[first]]]
        parents, owner = level[new], np.repeat(owner[new], 2)
        expanded[parents] = True
        level = _children(nodes, parents)
        pairs.append(parents)
        listed.append(level)
        owners.append(owner)
    every, order = np.concatenate(listed), np.argsort(np.concatenate(owners), kind="stable")
    position = np.empty(len(every), np.int64)
    position[order] = np.arange(len(every))
    children = np.full(len(nodes.modes), -1, np.int64)
    children[np.concatenate(pairs)] = position[count::2]
    return every[order], children, np.stack([position[:count], *_depths(nodes)], 1)


def _children(nodes: Nodes, parents: np.ndarray) -> np.ndarray:
    """In pairs: where a node leads if its comparison fails, and if it holds."""
    return np.stack([nodes.no[parents], nodes.yes[parents]], 1).reshape(-1)


def _depths(nodes: Nodes) -> tuple[np.ndarray, np.ndarray]:
    """The steps to the nearest and the farthest leaf of each tree.

    Raises:
        OperatorError: a node comes after itself.
    """
    leaf, count = nodes.modes == LEAF, len(nodes.roots)
    near, far, step = np.full(count, -1), np.zeros(count, np.int64), 0
    level, owner = nodes.roots, np.arange(count)
    while len(level):
        if step > len(nodes.modes):
            raise OperatorError("a node of the forest comes after itself")
        ends = owner[leaf[level]]
        near[ends[near[ends] < 0]] = step
        far[owner] = step
        parents, owner = level[~leaf[level]], np.repeat(owner[~leaf[level]], 2)
        # several ways may lead to one node
        key = np.unique(_children(nodes, parents) * count + owner)
        level, owner, step = key // count, key % count, step + 1
    return near, far


# -- the arrays
def _records(nodes: Nodes, placed: np.ndarray, children: np.ndarray, dtype: np.dtype, columns: np.ndarray) -> np.ndarray:
    name, size = f"f{8 * dtype.itemsize}", kernels.record_size(f"f{8 * dtype.itemsize}")
    if len(placed) * size >= 1 << 32:
        raise OperatorError("the forest has more nodes than 32-bit offsets reach")
    records = np.zeros(len(placed), [("threshold", dtype), ("feature", np.uint32), ("child", np.uint32)])
    leaf = (nodes.modes == LEAF)[placed]
    records["threshold"] = nodes.thresholds[placed]
    feature = np.where(leaf, len(columns), np.searchsorted(columns, nodes.features[placed])) * kernels.feature_offset(name, 1)
    records["feature"] = feature + (nodes.missing[placed] & ~leaf)
    records["child"] = np.where(leaf, np.arange(len(placed)), children[placed]) * size
    return records


def _votes(votes: Votes, counts: np.ndarray, leaf: np.ndarray, single: bool, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """(what the threshold of each node's records holds if it is a leaf, the table of votes)."""
    shown = np.zeros(len(counts), dtype)
    if single:
        shown[votes.leaves] = votes.weights
        return shown, np.zeros(2 * dtype.itemsize, np.uint8)
    starts = np.cumsum(counts + leaf) - counts - leaf
    table = np.zeros(int((counts + leaf).sum()), [("target", np.int32), ("pad", f"V{dtype.itemsize - 4}"), ("weight", dtype)])
    if table.nbytes >= 1 << 31:
        raise OperatorError("the forest's leaves say more than 31-bit offsets reach")
    table["target"][starts[leaf]] = counts[leaf]
    within = np.arange(len(votes.leaves)) - (np.cumsum(counts) - counts)[votes.leaves]
    at = starts[votes.leaves] + 1 + within
    table["target"][at], table["weight"][at] = votes.targets, votes.weights
    shown.view(np.int32)[:: dtype.itemsize // 4] = starts * table.itemsize
    return shown, table.view(np.uint8).reshape(-1)


# -- from attributes
def of_tables(
    trees: Sequence[int], ids: Sequence[int], modes: Sequence[str], features: Sequence[int], thresholds: np.ndarray,
    yes: Sequence[int], no: Sequence[int], missing: Sequence[int] | None,
) -> tuple[Nodes, _Names]:  # fmt: skip
    """The nodes of TreeEnsembleRegressor and -Classifier, named by tree and number; a tree's root is listed first.

    Raises:
        OperatorError: a branch leads nowhere, or an attribute misses nodes.
    """
    count = len(ids)
    tree = np.asarray(trees, np.int64)
    if any(len(v) != count for v in (tree, modes, features, thresholds, yes, no)) or (missing and len(missing) != count):
        raise OperatorError("the attributes of the nodes have different lengths")
    unknown = set(modes) - MODES.keys()
    if unknown:
        raise OperatorError(f"unknown mode {min(unknown)!r} of a node")
    names = _Names(tree, np.asarray(ids, np.int64))
    kind = np.array([MODES[m] for m in modes], np.int8)
    leaf, own = kind == LEAF, np.arange(count)
    ways = []
    for targets in (yes, no):
        way = own.copy()
        way[~leaf] = names.find(tree[~leaf], np.asarray(targets, np.int64)[~leaf], "a branch leads to")
        ways.append(way)
    passes = np.asarray(missing, bool) if missing else np.zeros(count, bool)
    roots = np.sort(np.unique(tree, return_index=True)[1])
    return Nodes(kind, np.asarray(features, np.int64), thresholds, *ways, passes, roots), names


class _Names:
    """Nodes by (tree, number)."""

    def __init__(self, trees: np.ndarray, ids: np.ndarray) -> None:
        self.order = np.lexsort((ids, trees))
        self.trees, self.ids = trees[self.order], ids[self.order]
        self.keys = self._key(self.trees, self.ids)
        if (self.keys[1:] == self.keys[:-1]).any():
            raise OperatorError("two nodes of a tree have the same number")

    def _key(self, trees: np.ndarray, ids: np.ndarray) -> np.ndarray:
        most = int(self.ids.max(initial=0)) + 2
        return trees * most + np.clip(ids, -1, most - 1) + 1

    def find(self, trees: np.ndarray, ids: np.ndarray, what: str) -> np.ndarray:
        """The indices of nodes.

        Raises:
            OperatorError: there is no such node.
        """
        at = np.searchsorted(self.keys, keys := self._key(trees, ids))
        found = self.keys[np.minimum(at, len(self.keys) - 1)] == keys if len(self.keys) else np.zeros(len(keys), bool)
        if not found.all():
            i = int(np.argmin(found))
            raise OperatorError(f"{what} node {ids[i]} of tree {trees[i]}, which is not there")
        return self.order[at]
