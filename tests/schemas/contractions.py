"""How matrix products, convolutions, pooling and recurrent layers are drawn."""

from __future__ import annotations

import numpy as np

from .catalogue import Case, Node, Sums, rule
from .draw import Draw, Values

EQUATIONS = (
    "ij,jk->ik", "ij,jk", "ij->ji", "ii->i", "ii", "ij,ij->", "bij,bjk->bik", "...ij,...jk->...ik", "i,j->ij", "ijk->k",
    "ij,kj->ik",
    "abc,cd,de->abe", "i,i", "ij,j->i", "...i->...", "bhid,bhjd->bhij", "i...,i...->...", "iji->j",
)  # fmt: skip


@rule("MatMul")
@rule("FusedMatMul", "TransposeMatMul", domain="com.microsoft")
def matmul(n: Node, d: Draw) -> Case:
    rows, inner, columns = d.size(), d.size(1), d.size()
    batch_a, batch_b = d.operand_shapes(2, 2) if d.chance(60) else ((), ())
    a, b = (*batch_a, rows, inner), (*batch_b, inner, columns)
    if n.signature.domain:
        flip_a, flip_b = n.set("transA", None, 0, 1), n.set("transB", None, 0, 1)
        n.set("alpha", None, 0.5, -2.0)
        a, b = ((*s[:-2], s[-1], s[-2]) if flip else s for s, flip in ((a, flip_a), (b, flip_b)))
        if len(a) > 2 and len(b) > 2 and d.chance(40):
            moved_a, moved_b = n.set("transBatchA", 0, 1), n.set("transBatchB", 0, 1)
            a, b = ((s[-2], *s[:-2], s[-1]) if moved else s for s, moved in ((a, moved_a), (b, moved_b)))
    elif d.chance(15):
        a = (inner,)
    elif d.chance(15):
        b = (inner,)
    parameter = "T" if "T" in n.kernel else "T1"
    return n.case(n.values(parameter, a, Values.PLAIN), n.values(parameter, b, Values.PLAIN), tolerance=Sums.SUMS, maybe=(1,))


# activations of fused nodes -> values of their parameters
ACTIVATIONS = {
    "Relu": {}, "Tanh": {}, "LeakyRelu": {"alpha": 0.2}, "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "Selu": {"alpha": 1.5, "gamma": 0.7},
}  # fmt: skip


def activated(n: Node, d: Draw) -> dict[str, float]:
    """Names an activation of a fused node; its parameters, where they are given."""
    if not n.has("activation"):
        return {}
    known = [name for name in ACTIVATIONS if n.op == "FusedGemm" or name != "Selu"]
    return ACTIVATIONS[n.set("activation", *known)]


@rule("Gemm")
@rule("FusedGemm", domain="com.microsoft")
def gemm(n: Node, d: Draw) -> Case:
    rows, inner, columns = d.size(1), d.size(1), d.size(1)
    flip_a, flip_b = n.set("transA", None, 0, 1), n.set("transB", None, 0, 1)
    n.set("alpha", None, 0.5, -2.0)
    n.set("beta", None, 0.5, 0.0)
    for name, value in activated(n, d).items():
        n.set(f"activation_{name}", value)
    c = d.choice([(rows, columns), (columns,), (1, columns), (rows, 1), (1,), ()])
    bias = None if n.version >= 11 and d.chance(25) else n.values("T", c, Values.PLAIN)
    a = n.values("T", (inner, rows) if flip_a else (rows, inner), Values.PLAIN)
    b = n.values("T", (columns, inner) if flip_b else (inner, columns), Values.PLAIN)
    return n.case(a, b, bias, tolerance=Sums.SUMS, maybe=(1, 2))


@rule("Einsum")
def einsum(n: Node, d: Draw) -> Case:
    equation = d.choice(EQUATIONS)
    sizes, dots = {c: d.integer(1, 5) for c in "abcdehijk"}, d.shape(0, 2, least=1)
    n.set("equation", equation)
    operands = [
        tuple(x for c in term.replace("...", ".") for x in (dots if c == "." else (sizes[c],)))
        for term in equation.partition("->")[0].split(",")
    ]
    return n.case(*(n.values("T", shape, Values.PLAIN) for shape in operands), tolerance=Sums.SUMS)


def window(n: Node, d: Draw, rank: int, auto: bool = True) -> tuple[list[int], list[int], list[int]]:
    """Kernel shape, dilations and the least image sizes; sets the attributes of a window."""
    kernel = [d.integer(1, 4) for _ in range(rank)]
    dilations = [d.choice([1, 1, 1, 2]) for _ in range(rank)] if n.has("dilations") and d.chance(40) else None
    n.set("dilations", dilations)
    n.set("strides", None, [d.integer(1, 3) for _ in range(rank)])
    how = n.set("auto_pad", *([None, None, None, "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"] if auto else [None]))
    if how in (None, "NOTSET") and d.chance(60):
        n.set("pads", [d.integer(0, k - 1) for k in kernel * 2])
    steps = dilations or [1] * rank
    return kernel, steps, [(k - 1) * s + 1 for k, s in zip(kernel, steps)]


def images(d: Draw, least: list[int], channels: int) -> tuple[int, ...]:
    """A shape [N, C, ...] of images that hold a window."""
    return (d.integer(1, 2), channels, *(size + d.choice([0, 1, 2, 5, 9]) for size in least))


@rule("Conv")
@rule("FusedConv", domain="com.microsoft")
def convolution(n: Node, d: Draw) -> Case:
    kernel, _, least = window(n, d, d.choice([1, 2, 2, 3]))
    group = d.choice([1, 1, 2, 3])
    inner, outer = d.choice([1, 2, 3, 5]), d.choice([1, 2, 3, 8])
    n.set("group", None if group == 1 else group, group)
    n.set("kernel_shape", None, kernel)
    parameters = list(activated(n, d).values())
    n.set("activation_params", parameters or None)
    x = n.values("T", images(d, least, inner * group), Values.PLAIN)
    w = n.values("T", (outer * group, inner, *kernel), Values.PLAIN)
    bias = n.values("T", (outer * group,), Values.PLAIN) if d.chance(50) else None
    if n.has("activation") and not n.attributes.keys() & {"pads", "strides", "dilations", "auto_pad"} and d.chance(60):
        whole = [size - k + 1 for size, k in zip(x.shape[2:], kernel)]
        return n.case(x, w, bias, n.values("T", (x.shape[0], outer * group, *whole), Values.PLAIN), tolerance=Sums.SUMS)
    return n.case(x, w, bias, tolerance=Sums.SUMS, maybe=(1, 2))


@rule("ConvTranspose")
def transposed_convolution(n: Node, d: Draw) -> Case:
    rank = d.choice([1, 2, 2])
    kernel = [d.integer(1, 4) for _ in range(rank)]
    strides = n.set("strides", None, [d.integer(1, 3) for _ in range(rank)]) or [1] * rank
    n.set("dilations", None, None, [d.integer(1, 2) for _ in range(rank)])
    if d.chance(40):
        n.set("pads", [d.integer(0, (k - 1) // 2) for k in kernel * 2])
    if d.chance(40):
        n.set("output_padding", [d.integer(0, s - 1) for s in strides])
    group, inner, outer = d.choice([1, 1, 2]), d.choice([1, 2, 3]), d.choice([1, 2, 5])
    n.set("group", None if group == 1 else group, group)
    n.set("kernel_shape", None, kernel)
    x = n.values("T", images(d, [2] * rank, inner * group), Values.PLAIN)
    bias = n.values("T", (outer * group,), Values.PLAIN) if d.chance(50) else None
    return n.case(x, n.values("T", (inner * group, outer, *kernel), Values.PLAIN), bias, tolerance=Sums.SUMS, maybe=(1, 2))


@rule("MaxPool", "AveragePool", "LpPool")
def pool(n: Node, d: Draw) -> Case:
    kernel, _, least = window(n, d, d.choice([1, 2, 2, 3]))
    n.set("kernel_shape", kernel)
    n.set("ceil_mode", None, 0, 1)
    n.set("count_include_pad", None, 0, 1)
    n.set("p", None, 1, 2, 3)
    x = n.values("T", images(d, least, d.integer(1, 4)), Values.PLAIN)
    if n.op == "MaxPool" and n.has("storage_order"):
        n.set("storage_order", None, 0)
        return n.case(x, outputs=d.integer(1, 2) if x.dtype.kind == "f" else 1)
    return n.case(x, tolerance=Sums.SUMS)


@rule("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")
def global_pool(n: Node, d: Draw) -> Case:
    n.set("p", None, 1, 2, 3)
    return n.case(n.values("T", images(d, [1] * d.integer(1, 3), d.integer(1, 5)), Values.PLAIN), tolerance=Sums.SUMS)


@rule("MaxUnpool")
def max_unpool(n: Node, d: Draw) -> Case:
    rank = d.integer(1, 3)
    images_, channels = d.integer(1, 2), d.integer(1, 3)
    small, kernel = [d.integer(1, 4) for _ in range(rank)], [d.integer(1, 3) for _ in range(rank)]
    n.set("kernel_shape", kernel)
    n.set("strides", kernel)
    large = [(s - 1) * k + k for s, k in zip(small, kernel)]
    per = int(np.prod(large))
    count = int(np.prod(small))
    places = np.stack([np.array(d.shuffled(range(per))[:count]) + per * i for i in range(images_ * channels)])
    indices = places.reshape(images_, channels, *small).astype(np.int64)
    given = np.array([images_, channels, *large], np.int64) if d.chance(30) else None
    return n.case(n.values("T1", indices.shape), indices, given)


_FUNCTIONS = (
    "Sigmoid",
    "Tanh",
    "Relu",
    "LeakyRelu",
    "Softsign",
    "HardSigmoid",
    "Elu",
    "Softplus",
    "Affine",
    "ScaledTanh",
    "ThresholdedRelu",
)


@rule("RNN", "GRU", "LSTM")
def recurrent(n: Node, d: Draw) -> Case:
    gates, states = {"RNN": (1, 1), "GRU": (3, 1), "LSTM": (4, 2)}[n.op]
    steps, batch, width, hidden = d.integer(1, 5), d.integer(1, 4), d.choice([1, 3, 8]), d.choice([1, 2, 5, 8, 17])
    directions = 2 if n.set("direction", None, "forward", "reverse", "bidirectional") == "bidirectional" else 1
    n.set("hidden_size", hidden)
    n.set("clip", None, None, 0.7)
    n.set("linear_before_reset", None, 0, 1)
    if d.chance(30):
        count = {"RNN": 1, "GRU": 2, "LSTM": 3}[n.op]
        n.set(
            "activations",
            [d.choice(_FUNCTIONS[:2] if d.chance(50) else ("Relu", "Softsign", "Tanh")) for _ in range(count * directions)],
        )
    x = n.values("T", (steps, batch, width), Values.PLAIN)

    def array(*shape: int) -> np.ndarray:
        return n.values("T", (directions, *shape), Values.PLAIN)

    weights = [array(gates * hidden, width), array(gates * hidden, hidden), array(2 * gates * hidden) if d.chance(60) else None]
    lengths = (1 + d.indices((batch,), steps, np.int32, negative=False)) if d.chance(40) else None
    rest = [array(batch, hidden) if d.chance(40) else None for _ in range(states)]
    peepholes = array(3 * hidden) if n.op == "LSTM" and d.chance(30) else None
    outputs = [d.chance(70) for _ in range(1 + states)]
    if not any(outputs):
        outputs[0] = True
    return n.case(x, *weights, lengths, *rest, peepholes, outputs=outputs, tolerance=Sums.SUMS, maybe=(1, 2, 3))


@rule("Attention")
def attention(n: Node, d: Draw) -> Case:
    batch, heads, queries, keys, width, value_width = (d.integer(1, 2), d.integer(1, 3), *(d.integer(1, 6) for _ in "qkwv"))
    groups = heads * d.choice([1, 1, 2])
    parameters = ("T1", "T2") if "T2" in n.kernel else ("T1", "T1")
    n.bind(parameters[1], n.type("T1"))
    flat = d.chance(40)

    def array(parameter: str, count: int, length: int, size: int) -> np.ndarray:
        return n.values(parameter, (batch, length, count * size) if flat else (batch, count, length, size), Values.PLAIN)

    if flat:
        n.set("q_num_heads", groups)
        n.set("kv_num_heads", heads)
    n.set("is_causal", None, 0, 1)
    n.set("scale", None, 0.3)
    n.set("softcap", None, None, 2.0)
    mask = None
    if d.chance(40):
        mask_shape = d.choice([(queries, keys), (batch, 1, queries, keys), (1, 1, queries, keys), (batch, groups, queries, keys)])
        mask = d.values(n.type("T1"), mask_shape, Values.PLAIN)
    q, k, v = (
        array("T1", groups, queries, width),
        array(parameters[0], heads, keys, width),
        array(parameters[1], heads, keys, value_width),
    )
    return n.case(q, k, v, mask, tolerance=Sums.SUMS)


@rule("RotaryEmbedding")
def rotary(n: Node, d: Draw) -> Case:
    batch, heads, length, half = d.integer(1, 2), d.integer(1, 3), d.integer(1, 5), d.choice([1, 2, 4, 8])
    flat = d.chance(50)
    n.set("interleaved", None, 0, 1)
    if flat:
        n.set("num_heads", heads)
    x = n.values("T", (batch, length, heads * 2 * half) if flat else (batch, heads, length, 2 * half), Values.PLAIN)
    if d.chance(50):
        tables = [n.values("T", (9, half), Values.PLAIN) for _ in "cs"]
        return n.case(x, *tables, d.indices((batch, length), 9, negative=False), tolerance=Sums.SUMS)
    return n.case(x, *(n.values("T", (batch, length, half), Values.PLAIN) for _ in "cs"), tolerance=Sums.SUMS)
