"""How reductions, normalisations over axes and scans are drawn."""

from __future__ import annotations

import numpy as np

from .catalogue import Case, Node, Sums, rule
from .draw import Draw, Values


@rule("ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum",
      "ReduceLogSumExp")  # fmt: skip
def reduction(n: Node, d: Draw) -> Case:
    extremes = n.op in ("ReduceMax", "ReduceMin")
    x = n.values(
        "T", d.shape(0 if n.version >= 11 else 1), d.choice([Values.PLAIN, Values.SPECIAL if not extremes else Values.ANY])
    )
    if n.op == "ReduceLogSum":
        x = (np.abs(x) + (x.dtype.kind == "i")).astype(x.dtype)  # the logarithm of 0 is no integer
    if n.op == "ReduceProd" and x.dtype.kind == "i":
        x = np.clip(x, -1, 1)
    n.set("keepdims", None, 0, 1)
    n.set("noop_with_empty_axes", None, 0, 1)
    axes = d.axes(x.ndim) if x.ndim and d.chance(75) else []
    if n.version < 11:
        axes = [a % x.ndim for a in axes]
    if n.has("axes"):
        n.set("axes", axes or None)
        return n.case(x, tolerance=Sums.SUMS)
    given = np.array(axes, np.int64) if axes or d.chance(30) else None
    return n.case(x, given, tolerance=Sums.SUMS, maybe=(1,))


@rule("ArgMax", "ArgMin")
def arg(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1, least=1), d.choice([Values.PLAIN, Values.ANY]))
    if x.dtype.kind == "f":
        x = np.where(np.isnan(x), 3, x).astype(x.dtype)  # where NaN stands among the others is not said
    axis = d.axis(x.ndim)
    n.set("axis", None if x.shape[0] else axis, axis if n.version >= 11 else axis % x.ndim)
    n.set("keepdims", None, 0, 1)
    n.set("select_last_index", None, 0, 1)
    return n.case(x)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(2), d.choice([Values.PLAIN, Values.ANY]) if n.op != "Hardmax" else Values.PLAIN)
    x = np.where(np.isfinite(x), x, 1).astype(x.dtype)
    axis = d.axis(x.ndim)
    n.set("axis", None, axis if n.version >= 11 else axis % x.ndim)
    return n.case(x, tolerance=Sums.SUMS)


@rule("LpNormalization")
def lp_normalization(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1), Values.PLAIN)
    n.set("axis", None, d.axis(x.ndim))
    n.set("p", None, 1, 2)
    return n.case(x, tolerance=Sums.SUMS)


@rule("CumSum", "CumProd")
def cumulative(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(1), d.choice([Values.PLAIN, Values.SPECIAL]))
    n.set("exclusive", None, 0, 1)
    n.set("reverse", None, 0, 1)
    return n.case(x, np.array(d.axis(x.ndim), d.choice([np.int32, np.int64])), tolerance=Sums.SUMS, maybe=(1,))


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(n: Node, d: Draw) -> Case:
    shape = d.shape(1, least=1)
    x = n.values("T", shape, Values.PLAIN)
    axis = n.set("axis", None, d.axis(x.ndim))
    axis = -1 if axis is None else axis
    n.set("epsilon", None, 1e-2)
    parameter = (
        "U" if "U" in n.kernel and n.signature.op == "LayerNormalization" and n.version == 1 else "V" if "V" in n.kernel else "T"
    )
    weights = [n.values(parameter, shape[axis:], Values.PLAIN) for _ in range(d.integer(1, 2) if n.op[0] == "L" else 1)]
    outputs = d.integer(1, 3) if n.op == "LayerNormalization" else 1
    return n.case(x, *weights, outputs=outputs, tolerance=Sums.SUMS, maybe=(1, 2))


@rule("BatchNormalization")
def batch_normalization(n: Node, d: Draw) -> Case:
    shape = d.shape(2, least=1)
    x = n.values("T", shape, Values.PLAIN)
    second = "T1" if "T1" in n.kernel else "T"
    third = "T2" if "T2" in n.kernel else "U" if "U" in n.kernel else second
    n.bind(second, x.dtype)
    n.bind(third, x.dtype)
    n.set("epsilon", None, 1e-2)
    weights = [n.values("T", shape[1:2], kind) for kind in (Values.PLAIN, Values.PLAIN, Values.PLAIN, Values.POSITIVE)]
    return n.case(x, *weights, tolerance=Sums.SUMS, maybe=(1, 2, 3, 4))


@rule("InstanceNormalization")
def instance_normalization(n: Node, d: Draw) -> Case:
    shape = d.shape(3, least=1)
    n.set("epsilon", None, 1e-2)
    weights = [n.values("T", shape[1:2], Values.PLAIN) for _ in "sb"]
    return n.case(n.values("T", shape, Values.PLAIN), *weights, tolerance=Sums.SUMS, maybe=(1, 2))


@rule("MeanVarianceNormalization")
def mean_variance_normalization(n: Node, d: Draw) -> Case:
    x = n.values("T", d.shape(4, 4, least=1), Values.PLAIN)
    n.set("axes", None, [0, 2, 3], [1, 2, 3], [2, 3])
    n.set("across_channels", 0, 1)
    n.set("normalize_variance", 0, 1)
    return n.case(x, tolerance=Sums.SUMS)


@rule("LRN")
def local_response(n: Node, d: Draw) -> Case:
    n.set("size", 1, 3, 5)
    n.set("alpha", None, 0.1, 2.0)
    n.set("beta", None, 0.5, 0.75, 1.3)
    n.set("bias", None, 1.5)
    return n.case(n.values("T", d.shape(4, 4, least=1), Values.PLAIN), tolerance=Sums.SUMS)


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_normalization(n: Node, d: Draw) -> Case:
    shape = d.shape(3, 3, least=1)
    n.set("epsilon", 1e-2, 1e-5)
    n.type("T", "float float16")
    simplified = n.op != "SkipLayerNormalization"
    vectors = [n.values("T", shape[-1:], Values.PLAIN) for _ in range(2 if simplified else 3)]
    vectors = vectors[: d.integer(1, len(vectors))]
    whole = n.values("T", shape, Values.PLAIN), n.values("T", shape, Values.PLAIN)
    return n.case(*whole, *vectors, outputs=(True, False, False, d.chance(50)), tolerance=Sums.SUMS, maybe=(2, 3, 4))
