"""How gathering, scattering, sorting and selecting are drawn."""

from __future__ import annotations

import numpy as np

from .catalogue import Case, Node, Sums, rule
from .draw import Draw, Values

INT64 = np.int64


@rule("Gather")
def gather(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, 3, least=1))
    axis = d.axis(x.ndim)
    n.set("axis", None if x.shape[0] > 0 and d.chance(30) else axis if n.version >= 11 else axis % x.ndim)
    size = x.shape[n.attributes.get("axis", 0)]
    indices = d.indices(d.shape(0, 2), size, n.type("Tind", "int32 int64"), negative=n.version >= 11)
    return n.case(x, indices, maybe=(1,))


@rule("GatherElements")
def gather_elements(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, least=1))
    axis = n.set("axis", None, d.axis(x.ndim))
    axis = (0 if axis is None else axis) % x.ndim
    shape = [d.size() if i == axis else d.integer(1, size) for i, size in enumerate(x.shape)]
    return n.case(x, d.indices(shape, x.shape[axis], n.type("Tind", "int32 int64")))


@rule("GatherND")
def gather_nd(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, least=1))
    batch = d.integer(0, min(2, x.ndim - 1)) if n.has("batch_dims") else 0
    n.set("batch_dims", batch or None)
    depth = d.integer(1, x.ndim - batch)
    return n.case(x, _tuples(d, (*x.shape[:batch], *d.shape(0, 2)), x.shape[batch : batch + depth]))


def _tuples(d: Draw, shape: tuple[int, ...], sizes: tuple[int, ...]) -> np.ndarray:
    """Index tuples: `shape` of them, into dimensions of the given sizes."""
    return np.stack([d.indices(shape, size) for size in sizes], -1)


def _distinct(d: Draw, count: int, size: int) -> list[int]:
    return d.shuffled(range(size))[:count]


@rule("ScatterElements", "Scatter")
def scatter_elements(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, 3, least=1), Values.PLAIN)
    axis = n.set("axis", None, d.axis(x.ndim))
    axis = (0 if axis is None else axis) % x.ndim
    reduction = n.set("reduction", None, "none", *_reductions(n, x))
    repeated = reduction not in (None, "none")
    shape = [d.integer(0, size) for size in x.shape]
    indices = d.indices(shape, x.shape[axis], n.type("Tind", "int32 int64"))
    if not repeated:  # which of several writes remains is not said
        order = np.array(d.shuffled(range(x.shape[axis]))[: shape[axis]], indices.dtype)
        along = [1] * x.ndim
        along[axis] = shape[axis]
        indices = np.broadcast_to(order.reshape(along), shape).copy()
    return n.case(x, indices, n.values("T", shape, Values.PLAIN), tolerance=Sums.SUMS, maybe=(1,))


def _reductions(n: Node, x: np.ndarray) -> list[str]:
    if x.dtype.kind not in "fiu":
        return []
    return ["add", "mul", *(["max", "min"] if n.version >= 18 else [])]


@rule("ScatterND")
def scatter_nd(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, 3, least=1), Values.PLAIN)
    depth = d.integer(1, x.ndim)
    reduction = n.set("reduction", None, "none", *_reductions(n, x)) if n.has("reduction") else None
    count = d.integer(0, 5)
    if reduction in (None, "none"):
        cells = np.array([np.unravel_index(i, x.shape[:depth]) for i in range(int(np.prod(x.shape[:depth])))], INT64)
        indices = cells[_distinct(d, count, len(cells))].reshape(-1, depth)
    else:
        indices = _tuples(d, (count,), x.shape[:depth])
    updates = n.values("T", (*indices.shape[:-1], *x.shape[depth:]), Values.PLAIN)
    return n.case(x, indices, updates, tolerance=Sums.SUMS, maybe=(1,))


@rule("TopK")
def top_k(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, 3, least=1), Values.PLAIN)
    axis = d.axis(x.ndim)
    axis = axis if n.version >= 10 else axis % x.ndim
    n.set("axis", None if axis in (-1, x.ndim - 1) else axis, axis)
    n.set("largest", None, 0, 1)
    n.set("sorted", None, 1)  # the order of unsorted ones is open
    if d.chance(60) and x.size:  # many equal ones
        x = (np.rint(x.astype(np.float64)) if x.dtype.kind == "f" else x).astype(x.dtype)
    k = d.integer(0, x.shape[axis])
    if n.has("k"):
        n.set("k", max(k, 1))
        return n.case(x, outputs=2)
    return n.case(x, np.array([k], INT64), outputs=2, maybe=(1,))


@rule("Compress")
def compress(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1))
    axis = n.set("axis", None, d.axis(x.ndim) if n.version >= 11 else d.below(x.ndim))
    size = x.size if axis is None else x.shape[axis]
    return n.case(x, d.values(bool, (d.integer(0, size),)))


@rule("NonZero")
def non_zero(n: Node, d: Draw) -> Case:
    return n.case(n.values("T", d.shape(), Values.SPECIAL))


@rule("Unique")
def unique(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, 3, least=1), Values.PLAIN)
    x = (np.rint(x.astype(np.float64)) if x.dtype.kind == "f" else x).astype(x.dtype)
    n.set("axis", None, d.axis(x.ndim))
    n.set("sorted", None, 0, 1)
    return n.case(x, outputs=d.integer(1, 4))


@rule("TensorScatter")
def tensor_scatter(n: Node, d: Draw) -> Case:
    batch, heads, most, width = d.integer(1, 3), d.integer(1, 3), d.integer(2, 8), d.integer(1, 5)
    new = d.integer(1, most)
    mode = n.set("mode", None, "linear", "circular")
    starts = d.indices((batch,), most if mode == "circular" else most - new + 1, negative=False)
    cache, update = n.values("T", (batch, heads, most, width)), n.values("T", (batch, heads, new, width))
    return n.case(cache, update, None if mode != "circular" and d.chance(30) else starts)


@rule("NonMaxSuppression")
def suppression(n: Node, d: Draw) -> Case:
    batch, boxes, classes = d.integer(1, 2), d.choice([1, 2, 5, 12]), d.integer(1, 3)
    n.set("center_point_box", None, 0, 1)
    corners = d.values(np.float32, (batch, boxes, 2), Values.PLAIN)
    sizes = d.values(np.float32, (batch, boxes, 2), Values.POSITIVE)
    box = np.concatenate([corners, sizes if n.attributes.get("center_point_box") else corners + sizes], -1)
    scores = d.values(np.float32, (batch, classes, boxes), Values.PLAIN)
    limits = [
        np.array(d.choice([0, 1, 3, 20]), INT64),
        np.float32(d.choice([0.0, 0.3, 0.7, 1.0])),
        np.float32(d.choice([-9, 0, 0.5])),
    ]
    return n.case(box, scores, *(np.asarray(v) for v in limits[: d.integer(0, 3)]))
