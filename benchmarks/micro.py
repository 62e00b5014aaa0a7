"""Models of a single operator or of one pattern: matrix products, convolution layers, normalisation, chains, forests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

from . import layers

Feeds = dict[str, np.ndarray]

PRODUCTS = ((1024, 1024, 1024), (197, 768, 3072), (128, 768, 768), (512, 512, 512), (64, 64, 64), (37, 1000, 53))
VECTORS = ((4096, 4096), (768, 3072), (512, 1000))
CHAIN = (
    "Add (@, b)", "Mul (@, c)", "Sigmoid (@)", "Sub (@, d)", "Abs (@)", "Sqrt (@)", "Mul (@, b)", "Tanh (@)", "Add (@, c)",
    "Neg (@)", "Relu (@)", "Add (@, d)", "Mul (@, @)", "Add (@, c)", "Reciprocal (@)", "Sub (@, b)", "Exp (@)", "Min (@, d)",
    "Div (@, e)", "Max (@, c)",
)  # fmt: skip


def build(body: str, weights: Mapping[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A model written in ONNX's text format, with initializers."""
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> micro {body}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in (weights or {}).items())
    return model


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def product(m: int, k: int, n: int) -> tuple[onnx.ModelProto, Feeds]:
    """float32[m, k] times a constant float32[k, n]."""
    model = build(f"(float[{m},{k}] x) => (float[{m},{n}] y) {{ y = MatMul (x, w) }}", {"w": normal(k, n, seed=1)})
    return model, {"x": normal(m, k)}


def product_of_inputs(m: int, k: int, n: int) -> tuple[onnx.ModelProto, Feeds]:
    """float32[m, k] times float32[k, n], both given to the run."""
    model = build(f"(float[{m},{k}] x, float[{k},{n}] w) => (float[{m},{n}] y) {{ y = MatMul (x, w) }}")
    return model, {"x": normal(m, k), "w": normal(k, n, seed=1)}


def convolution(layer: layers.Layer) -> tuple[onnx.ModelProto, Feeds]:
    """One Conv."""
    rng = np.random.default_rng(0)
    model = layers.conv_model(layer, layers.weights(layer, rng))
    return model, {"x": rng.standard_normal((1, layer.cin, layer.size, layer.size), np.float32)}


def softmax(rows: int, columns: int) -> tuple[onnx.ModelProto, Feeds]:
    """Softmax over the last axis."""
    shape = f"float[{rows},{columns}]"
    return build(f"({shape} x) => ({shape} y) {{ y = Softmax <axis = -1> (x) }}"), {"x": normal(rows, columns)}


def layer_norm(rows: int, columns: int) -> tuple[onnx.ModelProto, Feeds]:
    """LayerNormalization over the last axis."""
    shape = f"float[{rows},{columns}]"
    weights = {"gain": 1 + normal(columns, seed=1) / 10, "shift": normal(columns, seed=2)}
    model = build(f"({shape} x) => ({shape} y) {{ y = LayerNormalization <axis = -1> (x, gain, shift) }}", weights)
    return model, {"x": normal(rows, columns)}


def attention(heads: int, size: int, sequence: int, causal: bool = False) -> tuple[onnx.ModelProto, Feeds]:
    """Attention of one sequence, heads side by side before and after it, as exporters write it; maybe with a causal mask."""
    rows, width = f"float[1,{sequence},{heads * size}]", heads * size
    masked = "Where (seen, b, lowest)" if causal else "Identity (b)"
    body = (
        f"({rows} q, {rows} k, {rows} v) => ({rows} y)"
        f" <int64[4] split = {{0, 0, {heads}, {size}}}, int64[3] merged = {{0, 0, {width}}}>"
        " { r = Reshape (q, split) s = Reshape (k, split) t = Reshape (v, split) f = Transpose <perm = [0, 2, 1, 3]> (r)"
        " g = Transpose <perm = [0, 2, 3, 1]> (s) h = Transpose <perm = [0, 2, 1, 3]> (t) a = MatMul (f, g) b = Mul (a, scale)"
        f" c = {masked} p = Softmax <axis = -1> (c) o = MatMul (p, h) u = Transpose <perm = [0, 2, 1, 3]> (o)"
        " y = Reshape (u, merged) }"
    )
    weights = {"scale": np.array(size**-0.5, np.float32)}
    if causal:
        weights |= {"seen": np.tri(sequence, dtype=bool), "lowest": np.array(np.finfo(np.float32).min)}
    return build(body, weights), {name: normal(1, sequence, width, seed=i) for i, name in enumerate("qkv")}


def chain(*shape: int) -> tuple[onnx.ModelProto, Feeds]:
    """Twenty elementwise operators in a row; their second operands are scalars, a row, and a channel's values."""
    channel = np.full((shape[-2], 1), 1.25, np.float32)
    row = 1 + np.abs(normal(shape[-1], seed=1))
    weights = {"b": np.float32(0.5), "c": row, "d": channel, "e": np.float32(0.5)}
    lines = [f"v{i + 1} = {text.replace('@', f'v{i}')}" for i, text in enumerate(CHAIN)]
    lines[-1] = lines[-1].replace(f"v{len(CHAIN)} =", "y =")
    body = " ".join(lines)
    size = ",".join(map(str, shape))
    model = build(f"(float[{size}] v0) => (float[{size}] y) {{ {body} }}", {k: np.asarray(v) for k, v in weights.items()})
    return model, {"v0": normal(*shape)}


def tiny_nodes(count: int) -> tuple[onnx.ModelProto, Feeds]:
    """`count` nodes on a few numbers each: transposed products, sums, reductions and shuffles that no loop can fuse whole."""
    kinds = ("MatMul (@, w)", "Add (@, b)", "Transpose <perm = [1, 0]> (@)", "Softmax <axis = -1> (@)", "Mul (@, b)", "Tanh (@)")
    lines = [f"v{i + 1} = {kinds[i % len(kinds)].replace('@', f'v{i}')}" for i in range(count)]
    model = build(
        f"(float[8,8] v0) => (float[8,8] v{count}) {{ {' '.join(lines)} }}", {"w": normal(8, 8, seed=1), "b": normal(8, seed=2)}
    )
    return model, {"v0": normal(8, 8)}


def one_node() -> tuple[onnx.ModelProto, Feeds]:
    """A single Add on four numbers: what is left is the overhead of `run`."""
    return build("(float[4] x) => (float[4] y) { y = Add (x, x) }"), {"x": normal(4)}


def lstm(steps: int, batch: int, width: int, hidden: int) -> tuple[onnx.ModelProto, Feeds]:
    """A bidirectional LSTM over float32[steps, batch, width]."""
    weights = {
        "w": normal(2, 4 * hidden, width, seed=1) / width**0.5,
        "r": normal(2, 4 * hidden, hidden, seed=2) / hidden**0.5,
        "b": normal(2, 8 * hidden, seed=3) / 10,
    }
    model = build(
        f"(float[{steps},{batch},{width}] x) => (float[{steps},2,{batch},{hidden}] y)"
        f' {{ y = LSTM <direction = "bidirectional", hidden_size = {hidden}> (x, w, r, b) }}',
        weights,
    )
    return model, {"x": normal(steps, batch, width)}


_TURN = "h = MatMul (s, w) b = Add (h, u) t = Tanh (b) m = Mul (t, gain) next = Add (m, s)"  # next: of states s and inputs u


def loop(iterations: int, width: int) -> tuple[onnx.ModelProto, Feeds]:
    """A Loop over float32[1, width] with a product and a few elementwise operators, whose states are an output too."""
    state = f"float[1,{width}]"
    model = build(
        f"(int64 n, {state} x, {state} u) => ({state} y, float[N,1,{width}] all) {{ y, all = Loop (n, , x) <body = b (int64 i,"
        f" bool c, {state} s) => (bool on, {state} next, {state} row) {{ {_TURN} row = Identity (next) on = Identity (c) }}> }}",
        _turn_weights(width),
    )
    return model, {"n": np.array(iterations), "x": normal(1, width), "u": normal(1, width, seed=3)}


def scan(iterations: int, width: int) -> tuple[onnx.ModelProto, Feeds]:
    """The same as a Scan over float32[iterations, 1, width]."""
    state, stacked = f"float[1,{width}]", f"float[{iterations},1,{width}]"
    model = build(
        f"({state} x, {stacked} v) => ({state} y, {stacked} all) {{ y, all = Scan <num_scan_inputs = 1, body = b"
        f" ({state} s, {state} u) => ({state} next, {state} row) {{ {_TURN} row = Identity (next) }}> (x, v) }}",
        _turn_weights(width),
    )
    return model, {"x": normal(1, width), "v": normal(iterations, 1, width, seed=3)}


def growing_loop(iterations: int, width: int) -> tuple[onnx.ModelProto, Feeds]:
    """A Loop that adds a row to a state each time."""
    state = f"float[1,{width}]"
    model = build(
        f"(int64 n, {state} x) => (float[N,{width}] y) <int64[1] zero = {{0}}, int64[1] one = {{1}}> {{ y = Loop (n, , x) <body = b"
        f" (int64 i, bool c, float[R,{width}] s) => (bool on, float[Q,{width}] more) {{ on = Identity (c)"
        f" first = Slice (s, zero, one, zero) t = Tanh (first) more = Concat <axis = 0> (s, t) }}> }}"
    )
    return model, {"n": np.array(iterations), "x": normal(1, width)}


def branching_loop(iterations: int, width: int) -> tuple[onnx.ModelProto, Feeds]:
    """A Loop whose body chooses between two ways to go on by what it has computed."""
    state = f"float[1,{width}]"
    model = build(
        f"(int64 n, {state} x, {state} u) => ({state} y) <float zero = {{0}}> {{ y = Loop (n, , x) <body = b (int64 i,"
        f" bool c, {state} s) => (bool on, {state} last) {{ on = Identity (c) {_TURN} sum = ReduceSum <keepdims = 0> (next)"
        f" up = Greater (sum, zero)"
        f" last = If (up) <then_branch = t () => ({state} v) {{ v = Neg (next) }},"
        f" else_branch = e () => ({state} v) {{ k = MatMul (next, w) v = Sigmoid (k) }}> }}> }}",
        _turn_weights(width),
    )
    return model, {"n": np.array(iterations), "x": normal(1, width), "u": normal(1, width, seed=3)}


def nested_loops(outer: int, inner: int, width: int) -> tuple[onnx.ModelProto, Feeds]:
    """Loops of few iterations in a Loop."""
    state = f"float[1,{width}]"
    model = build(
        f"(int64 n, int64 few, {state} x, {state} u) => ({state} y) {{ y = Loop (n, , x) <body = b (int64 j, bool d, {state} r)"
        f" => (bool od, {state} last) {{ od = Identity (d) half = Tanh (r) last = Loop (few, , half) <body = q (int64 i, bool c,"
        f" {state} s) => (bool on, {state} next) {{ on = Identity (c) {_TURN} }}> }}> }}",
        _turn_weights(width),
    )
    feeds = {"x": normal(1, width), "u": normal(1, width, seed=3)}
    return model, {"n": np.array(outer), "few": np.array(inner), **feeds}


def _turn_weights(width: int) -> dict[str, np.ndarray]:
    return {"w": normal(width, width, seed=1) / width, "gain": normal(width, seed=2) / 2}


def top_k(rows: int, columns: int, k: int) -> tuple[onnx.ModelProto, Feeds]:
    """The k largest of each row."""
    text = f"(float[{rows},{columns}] x) => (float[{rows},{k}] y, int64[{rows},{k}] i) {{ y, i = TopK (x, k) }}"
    return build(text, {"k": np.array([k])}), {"x": normal(rows, columns)}


def gather_nd(images: int, places: int, channels: int, size: int) -> tuple[onnx.ModelProto, Feeds]:
    """Vectors of `channels` at places of images [images, size, size, channels]."""
    rng = np.random.default_rng(0)
    shapes = f"(float[{images},{size},{size},{channels}] x, int64[{places},3] i) => (float[{places},{channels}] y)"
    indices = np.stack([rng.integers(0, n, places) for n in (images, size, size)], -1)
    return build(f"{shapes} {{ y = GatherND (x, i) }}"), {"x": normal(images, size, size, channels), "i": indices}


def resize(channels: int, size: int, scale: float, mode: str) -> tuple[onnx.ModelProto, Feeds]:
    """An image of `channels`, larger by `scale`."""
    made = int(size * scale)
    text = (
        f"(float[1,{channels},{size},{size}] x) => (float[1,{channels},{made},{made}] y)"
        f' {{ y = Resize <mode = "{mode}"> (x, , scales) }}'
    )
    return build(text, {"scales": np.array([1, 1, scale, scale], np.float32)}), {"x": normal(1, channels, size, size)}


def einsum(equation: str, *shapes: tuple[int, ...]) -> tuple[onnx.ModelProto, Feeds]:
    """Einsum of two inputs."""
    a, b = (",".join(map(str, shape)) for shape in shapes)
    text = f'(float[{a}] a, float[{b}] b) => (float y) {{ y = Einsum <equation = "{equation}"> (a, b) }}'
    model = build(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model, {"a": normal(*shapes[0]), "b": normal(*shapes[1], seed=1)}


def suppression(boxes: int, classes: int, most: int) -> tuple[onnx.ModelProto, Feeds]:
    """Non-maximum suppression, boxes of 20 to 60 pixels in an image of 640."""
    rng = np.random.default_rng(0)
    corner = rng.random((1, boxes, 2), np.float32) * 600
    corners = np.concatenate([corner, corner + 20 + 40 * rng.random((1, boxes, 2), np.float32)], -1)
    text = (
        f"(float[1,{boxes},4] boxes, float[1,{classes},{boxes}] scores) => (int64[n,3] y)"
        " { y = NonMaxSuppression (boxes, scores, most, overlap, least) }"
    )
    limits = {"most": np.array([most]), "overlap": np.array([0.5], np.float32), "least": np.array([0.5], np.float32)}
    return build(text, limits), {"boxes": corners, "scores": rng.random((1, classes, boxes), np.float32)}


def square(op: str, n: int) -> tuple[onnx.ModelProto, Feeds]:
    """Det, or Inverse of com.microsoft, of float32[n, n]."""
    shape, domain = ("", "") if op == "Det" else (f"[{n},{n}]", "com.microsoft.")
    model = build(f"(float[{n},{n}] x) => (float{shape} y) {{ y = {domain}{op} (x) }}")
    model.opset_import.add(domain="com.microsoft", version=1)
    return model, {"x": normal(n, n) / np.float32(n**0.5) + np.eye(n, dtype=np.float32)}


def roi_align(channels: int, size: int, boxes: int, cells: int) -> tuple[onnx.ModelProto, Feeds]:
    """Boxes of an image of `channels` resampled to cells x cells, two samples a side."""
    rng = np.random.default_rng(0)
    corner = rng.random((boxes, 2), np.float32) * size / 2
    text = (
        f"(float[1,{channels},{size},{size}] x, float[{boxes},4] b, int64[{boxes}] i)"
        f" => (float[{boxes},{channels},{cells},{cells}] y)"
        f" {{ y = RoiAlign <output_height = {cells}, output_width = {cells}, sampling_ratio = 2> (x, b, i) }}"
    )
    regions = np.concatenate([corner, corner + 4 + rng.random((boxes, 2), np.float32) * size / 2], -1)
    return build(text), {"x": normal(1, channels, size, size), "b": regions, "i": np.zeros(boxes, np.int64)}


def forest(trees: int, depth: int, rows: int, features: int, classes: int = 0) -> tuple[onnx.ModelProto, Feeds]:
    """Full trees of random thresholds: a regressor's, or a classifier's whose leaves speak of every class."""
    rng, inner, nodes = np.random.default_rng(0), 2**depth - 1, 2 ** (depth + 1) - 1
    number = np.arange(nodes)
    branches = number < inner
    attributes = {
        "nodes_treeids": np.repeat(np.arange(trees), nodes).tolist(),
        "nodes_nodeids": np.tile(number, trees).tolist(),
        "nodes_modes": ["BRANCH_LEQ" if branch else "LEAF" for branch in branches] * trees,
        "nodes_featureids": rng.integers(0, features, trees * nodes).tolist(),
        "nodes_values": rng.standard_normal(trees * nodes).astype(np.float32).tolist(),
        "nodes_truenodeids": np.tile(np.where(branches, 2 * number + 1, 0), trees).tolist(),
        "nodes_falsenodeids": np.tile(np.where(branches, 2 * number + 2, 0), trees).tolist(),
    }
    said = max(classes, 1)
    leaves = np.repeat(number[inner:], said)
    votes = {
        "treeids": np.repeat(np.arange(trees), len(leaves)).tolist(),
        "nodeids": np.tile(leaves, trees).tolist(),
        "ids": np.tile(np.arange(said), trees * (nodes - inner)).tolist(),
        "weights": (rng.random(trees * len(leaves)) / trees).astype(np.float32).tolist(),
    }
    kind, votes_of, names = ("Classifier", "class", ["label", "y"]) if classes else ("Regressor", "target", ["y"])
    sizes = {"classlabels_int64s": list(range(classes))} if classes else {"n_targets": 1}
    attributes |= {f"{votes_of}_{name}": values for name, values in votes.items()} | sizes
    node = helper.make_node(f"TreeEnsemble{kind}", ["x"], names, domain="ai.onnx.ml", **attributes)
    types = {"label": TensorProto.INT64, "y": TensorProto.FLOAT}
    outputs = [helper.make_tensor_value_info(name, types[name], None) for name in names]
    graph = helper.make_graph([node], "forest", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, features])], outputs)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), {"x": normal(rows, features)}
