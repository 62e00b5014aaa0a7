"""How operators are drawn that onnx gave up and onnxruntime kept in its domain."""

from __future__ import annotations

import numpy as np

from .catalogue import Case, Node, Sums, rule
from .draw import Draw, Values


@rule("Affine", "ParametricSoftplus", "ScaledTanh", "Scale")
def scaled(n: Node, d: Draw) -> Case:
    n.set("alpha", 0.5, 2.0)  # onnxruntime wants them, whatever the schema says
    n.set("beta", 0.5, -1.0)
    n.set("scale", None, 0.3)
    return n.case(n.values("T", d.shape(0, 3), Values.PLAIN), tolerance=Sums.UNIT)


@rule("ImageScaler")
def image_scaler(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(4, 4, least=1), Values.PLAIN)
    n.set("scale", None, 0.3)
    n.set("bias", d.values(np.float32, (x.shape[1],), Values.PLAIN).tolist())
    return n.case(x, tolerance=Sums.UNIT)


@rule("Crop")
def crop(n: Node, d: Draw) -> Case:
    left, top, right, bottom = border = [d.integer(0, 2) for _ in range(4)]
    height, width = top + bottom + d.integer(1, 4), left + right + d.integer(1, 4)
    n.set("border", border)
    if d.chance(40):
        n.set("scale", [d.integer(1, height - top), d.integer(1, width - left)])
    return n.case(n.values("T", (d.integer(1, 2), d.integer(1, 3), height, width)), tolerance=Sums.EXACT)


@rule("DynamicSlice")
def dynamic_slice(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, 3, least=1))
    axes = d.axes(x.ndim)
    kind = n.type("Tind")
    starts = [d.integer(-x.shape[a], x.shape[a] - 1) for a in axes]
    ends = [d.integer(-x.shape[a], x.shape[a] + 2) for a in axes]
    if sorted(a % x.ndim for a in axes) == list(range(x.ndim)) and axes == list(range(x.ndim)) and d.chance(40):
        return n.case(x, np.array(starts, kind), np.array(ends, kind), tolerance=Sums.EXACT)
    return n.case(x, *(np.array(v, kind) for v in (starts, ends, axes)), tolerance=Sums.EXACT, maybe=(1, 2, 3))
