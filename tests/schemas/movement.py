"""How operators that only move elements are drawn."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import helper

from .catalogue import Case, Node, Undrawable, rule
from .draw import Draw, Shape, Values

INT64 = np.int64


@rule("Reshape")
def reshape(n: Node, d: Draw) -> Case:
    shape = d.shape()
    new = list(_regrouped(d, shape))
    if prod(shape):
        if new and d.chance(40):
            new[d.below(len(new))] = -1
        new = [0 if i < len(shape) and size == shape[i] and d.chance(30) else size for i, size in enumerate(new)]
    elif 0 in new:
        new = list(shape)
        n.set("allowzero", 1)
        if not n.has("allowzero"):
            raise Undrawable
    if n.has("shape"):
        n.set("shape", new)
        return n.case(n.values("T", shape))
    return n.case(n.values("T", shape), np.array(new, INT64), maybe=(1,))


def _regrouped(d: Draw, shape: Shape) -> Shape:
    """Another shape of as many elements."""
    sizes = d.shuffled(shape)
    while len(sizes) > 1 and d.chance(50):
        sizes = [sizes[0] * sizes[1], *sizes[2:]]
    for _ in range(d.integer(0, 2)):
        sizes.insert(d.integer(0, len(sizes)), 1)
    return tuple(sizes)


@rule("Transpose")
def transpose(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape())
    n.set("perm", None, d.shuffled(range(x.ndim)))
    return n.case(x)


@rule("Flatten")
def flatten(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1))
    n.set("axis", None, d.integer(-x.ndim if n.version >= 11 else 0, x.ndim))
    return n.case(x)


@rule("Squeeze", "Unsqueeze")
def squeeze(n: Node, d: Draw) -> Case:
    shape, count = d.shape(0, 3), d.integer(1, 2)
    rank = len(shape) + count
    places = sorted(d.shuffled(range(rank))[:count])
    left = iter(shape)
    wide = tuple(1 if i in places else next(left) for i in range(rank))
    axes: list[int] | None = d.shuffled([p - rank if n.version >= 11 and d.chance(40) else p for p in places])
    if n.op == "Squeeze" and d.chance(20):
        axes = None
    x = n.values("T", wide if n.op == "Squeeze" else shape)
    if n.has("axes"):
        n.set("axes", axes)
        return n.case(x)
    return n.case(x, None if axes is None else np.array(axes, INT64), maybe=(1,))


@rule("Expand")
def expand(n: Node, d: Draw) -> Case:
    shape, target = d.operand_shapes(2)
    return n.case(n.values("T", shape), np.array(target, INT64), maybe=(1,))


@rule("Tile")
def tile(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1))
    return n.case(x, np.array([d.choice([0, 1, 1, 2, 3]) for _ in x.shape], INT64), maybe=(1,))


@rule("Concat")
def concat(n: Node, d: Draw) -> Case:
    shape = d.shape(1)
    axis = d.axis(len(shape))
    n.set("axis", axis if n.version >= 11 else axis % len(shape))
    shapes = [_resized(shape, axis, d.size()) for _ in range(d.integer(1, 4))]
    return n.case(*(n.values("T", s) for s in shapes))


def _resized(shape: Shape, axis: int, size: int) -> Shape:
    sizes = list(shape)
    sizes[axis] = size
    return tuple(sizes)


@rule("Split")
def split(n: Node, d: Draw) -> Case:
    shape, count = d.shape(1), d.integer(1, 4)
    axis = d.axis(len(shape))
    axis = axis if n.version >= 11 else axis % len(shape)
    n.set("axis", axis)
    if d.chance(40):
        even = d.integer(1, 5)
        x = n.values("T", _resized(shape, axis, even * count - (d.integer(0, 1) if n.version >= 18 and even > count else 0)))
        n.set("num_outputs", count)
        return n.case(x, outputs=count)
    sizes = [d.size() for _ in range(count)]
    x = n.values("T", _resized(shape, axis, sum(sizes)))
    if n.has("split"):
        n.set("split", sizes)
        return n.case(x, outputs=count)
    return n.case(x, np.array(sizes, INT64), outputs=count, maybe=(1,))


@rule("Slice")
def cut(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1))
    axes = d.axes(x.ndim) if d.chance(75) else list(range(x.ndim))
    if n.version < 10:
        axes = [a % x.ndim for a in axes]
    bounds = [(_bound(d, x.shape[a]), _bound(d, x.shape[a])) for a in axes]
    starts, ends = [b[0] for b in bounds], [b[1] for b in bounds]
    implied = axes == list(range(x.ndim)) and d.chance(50)
    if n.version < 10:
        n.set("starts", starts)
        n.set("ends", ends)
        n.set("axes", None if implied else axes)
        return n.case(x)
    kind = n.type("Tind", "int32 int64")
    steps = [d.choice([1, 1, 2, 3, -1, -2]) for _ in axes] if d.chance(70) else None
    given = [starts, ends, None if implied and steps is None else axes, steps]
    maybe = (1, 2, 3, 4) if d.chance(50) else ()
    return n.case(x, *(None if v is None else np.array(v, kind) for v in given), maybe=maybe)


def _bound(d: Draw, size: int) -> int:
    return d.choice([0, 1, size, -1, -size, size - 1, size + 3, -size - 2, 2**31 - 1, -(2**31)])


@rule("Pad")
def pad(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, least=1))
    mode = n.set("mode", None, "constant", "reflect", "edge", *(["wrap"] if n.version >= 19 else []))
    plain = mode in (None, "constant")
    axes = d.axes(x.ndim) if n.version >= 18 and d.chance(40) else None
    sizes = [x.shape[a] for a in (range(x.ndim) if axes is None else axes)]
    least = [-(size // 2) if plain and d.chance(30) else 0 for size in sizes]
    most = [size - 1 if mode == "reflect" else size if mode == "wrap" else 3 for size in sizes]
    before, after = ([d.integer(low, max(low, high)) for low, high in zip(least, most)] for _ in "ba")
    if n.has("pads") or n.has("paddings"):
        n.set("pads", before + after)
        n.set("value", None, 1.5)
        return n.case(x)
    fill = n.values("T", (), Values.PLAIN) if plain and d.chance(60) else None
    given = None if axes is None else np.array(axes, d.choice([np.int32, INT64]))
    return n.case(x, np.array(before + after, INT64), fill, given, maybe=(1, 2, 3))


@rule("DepthToSpace", "SpaceToDepth")
def blocks(n: Node, d: Draw) -> Case:
    block = d.integer(1, 3)
    images, channels, height, width = d.integer(1, 2), d.integer(1, 3), d.integer(1, 4), d.integer(1, 4)
    n.set("blocksize", block)
    n.set("mode", None, "DCR", "CRD")
    deep, wide = (images, channels * block**2, height, width), (images, channels, height * block, width * block)
    return n.case(n.values("T", deep if n.op == "DepthToSpace" else wide))


@rule("Trilu")
def trilu(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(2))
    n.set("upper", None, 0, 1)
    return n.case(x, None if d.chance(30) else np.array(d.integer(-5, 5), INT64), maybe=(1,))


@rule("Shape", "Size")
def shape_of(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape())
    n.set("start", None, d.integer(-5, 5))
    n.set("end", None, d.integer(-5, 5))
    return n.case(x)


@rule("EyeLike")
def eye_like(n: Node, d: Draw) -> Case:
    x = n.values("T1", d.shape(2, 2))
    n.set("k", None, d.integer(-4, 4))
    n.set("dtype", None, helper.np_dtype_to_tensor_dtype(n.type("T2")))
    return n.case(x)


@rule("ConstantOfShape")
def constant_of_shape(n: Node, d: Draw) -> Case:
    value = n.values("T2", (1,))
    if value.dtype.kind == "O":
        raise Undrawable
    from onnx import numpy_helper

    n.set("value", None, numpy_helper.from_array(value))
    return n.case(np.array(d.shape(), INT64), maybe=(0,))


@rule("Range")
def arange(n: Node, d: Draw) -> Case:
    start, limit, step = d.integer(-9, 9), d.integer(-9, 9), d.choice([1, 2, -1, -3])
    kind = n.type("T")
    scale = d.choice([1, 0.3]) if kind.kind == "f" else 1
    return n.case(*(np.array(v * scale, kind) for v in (start, limit, step)))


@rule("ReverseSequence")
def reverse_sequence(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(2, least=1))
    batch_first = d.chance(50)
    n.set("batch_axis", 0 if batch_first else 1)
    n.set("time_axis", 1 if batch_first else 0)
    batch, time = x.shape[0 if batch_first else 1], x.shape[1 if batch_first else 0]
    return n.case(x, 1 + d.indices((batch,), time, negative=False))


@rule("OneHot")
def one_hot(n: Node, d: Draw) -> Case:
    shape, depth = d.shape(0, 3), d.integer(1, 6)
    indices = n.draw.indices(shape, depth + 2, n.type("T1"), negative=n.version >= 11 and n.type("T1").kind != "u")
    n.set("axis", None, d.integer(-len(shape) - 1, len(shape)))
    return n.case(indices, np.array(depth, n.type("T2")), n.values("T3", (2,)), maybe=(1,))
