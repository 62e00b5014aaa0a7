"""Small models of the kinds that exporters, converters and quantisers write, to see what of them runs on the host.

Detectors with what comes after their network, a tagger, a quantised encoder, encoder-decoders for speech and text, a
pipeline of scikit-learn. Sizes are small, graphs whole.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, compose, parser

from . import zoo
from .zoo.builder import GraphBuilder, Value
from .zoo.encoders import relative_position_bias
from .zoo.samplers import normal, tokens

Feeds = dict[str, np.ndarray]
ENCODER = {"layers": 2, "width": 64, "heads": 4, "inner": 96, "vocabulary": 100}
PICTURE = {"image": 96, "classes": 5}

# predictions [1, 4 + classes, A] -> boxes that stay, as YOLO's exporters with non-maximum suppression write it
SUPPRESSION = """
    <ir_version: 9, opset_import: ["": 19]>
    after (float[1, 9, A] predictions) => (float[K, 4] boxes, float[K] scores, int64[K] labels)
    <int64[2] parts = {4, 5}, int64[1] most = {20}, float[1] overlap = {0.5}, float[1] least = {0.3},
     int64[1] one = {1}, int64[1] two = {2}, int64[1] nothing = {0}>
    {
        raw, classes = Split <axis = 1> (predictions, parts)
        corners = Transpose <perm = [0, 2, 1]> (raw)
        chosen = NonMaxSuppression <center_point_box = 1> (corners, classes, most, overlap, least)
        image, kind, place = Split <axis = 1, num_outputs = 3> (chosen)
        labels = Squeeze (kind, one)
        pairs = Concat <axis = 1> (image, place)
        boxes = GatherND (corners, pairs)
        scores = GatherND (classes, chosen)
    }"""
# logits and boxes of queries -> the best, as RT-DETR's exporters write it
SELECTION = """
    <ir_version: 9, opset_import: ["": 19]>
    after (float[1, 9, A] predictions) => (int64[1, 30] labels, float[1, 30, 4] boxes, float[1, 30] scores)
    <int64[2] parts = {4, 5}, int64[1] k = {30}, int64 five = {5}, int64[2] flat = {1, -1}, int64[1] last = {-1},
     int64[3] repeats = {1, 1, 4}>
    {
        raw, classes = Split <axis = 1> (predictions, parts)
        wide = Transpose <perm = [0, 2, 1]> (raw)
        logits = Transpose <perm = [0, 2, 1]> (classes)
        all = Reshape (logits, flat)
        scores, places = TopK <axis = -1> (all, k)
        labels = Mod (places, five)
        query = Div (places, five)
        column = Unsqueeze (query, last)
        spread = Tile (column, repeats)
        boxes = GatherElements <axis = 1> (wide, spread)
    }"""


def detector(after: str) -> tuple[ModelProto, Feeds]:
    """YOLOv8n's network with what chooses among its boxes."""
    tail = compose.add_prefix(parser.parse_model(after), "after/", rename_inputs=True)
    network = zoo.build("yolov8n", **PICTURE)
    tail.ir_version = network.ir_version
    outputs = [x.name for x in tail.graph.output]
    model = compose.merge_models(network, tail, io_map=[("predictions", "after/predictions")], outputs=outputs)
    return model, zoo.inputs("yolov8n", **PICTURE)


def tagger() -> tuple[ModelProto, Feeds]:
    """A bidirectional LSTM with sequence lengths that tags tokens; the tags of padding are cut out."""
    g = GraphBuilder("tagger", 17)
    ids = g.input("input_ids", np.int64, ("batch", "sequence"), tokens(100))
    kept = g.op("Greater", ids, g.const(0))
    lengths = g.op("ReduceSum", g.op("Cast", kept, to=6), g.const([1]), keepdims=0)
    x = g.transpose(g.embedding(ids, 100, 16), 1, 0, 2)
    weights = [g.weight(name, shape, 0.2) for name, shape in (("w", (2, 96, 16)), ("r", (2, 96, 24)), ("b", (2, 192)))]
    y = g.multi_op("LSTM", x, *weights, lengths, outputs=1, channels=24, hidden_size=24, direction="bidirectional")[0]
    y = g.reshape(g.transpose(y, 2, 0, 1, 3), (0, 0, -1), 48)
    tags = g.op("ArgMax", g.linear(y, 7), axis=-1, keepdims=0)
    flat = g.op("Compress", g.reshape(tags, (-1,)), g.reshape(kept, (-1,)))
    g.output("tags", flat, ("kept",))
    g.output("places", g.op("NonZero", kept), (2, "kept"))
    ids_of = np.random.default_rng(0).integers(1, 100, (3, 11))
    ids_of[1, 7:] = 0
    model = g.model()
    for made in model.graph.output:
        made.type.tensor_type.elem_type = TensorProto.INT64
    return model, {"input_ids": ids_of}


def quantised_encoder(static: bool) -> tuple[ModelProto, Feeds]:
    """BERT by onnxruntime's quantiser: ranges of activations found while it runs, or by calibration, as QuantizeLinear pairs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

    feeds = zoo.inputs("bert_base", batch=2, sequence=9, **ENCODER)

    class Once(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [feeds]

        def get_next(self) -> Feeds | None:
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder:
        plain, made = Path(folder, "plain.onnx"), Path(folder, "bytes.onnx")
        onnx.save(zoo.build("bert_base", **ENCODER), plain)
        if static:
            quantize_static(plain, made, Once(), quant_format=QuantFormat.QDQ, reduce_range=True)
        else:
            quantize_dynamic(plain, made, weight_type=QuantType.QInt8, reduce_range=True)
        return onnx.load(made), feeds


def _layer(g: GraphBuilder, x: Value, other: Value, heads: int, mask: Value | None, normalised) -> Value:
    """x + attention of x to another sequence."""
    size = x.channels // heads
    y = normalised(x)
    source = y if other is x else other
    query, value = g.heads(g.linear(y, x.channels), heads), g.heads(g.linear(source, x.channels), heads)
    key = g.heads(g.linear(source, x.channels), heads, 0, 2, 3, 1)
    return g.add(x, g.linear(g.attention(query, key, value, heads=heads, mask=mask, scale=size**-0.5), x.channels))


def _causal(g: GraphBuilder, ids: Value) -> Value:
    """float32[S, S]: 0 up to the diagonal, and far below it after."""
    count = g.dim(ids, 1)
    places = g.op("Range", g.const(0), count, g.const(1))
    seen = g.op("LessOrEqual", g.unsqueeze(places, 0), g.unsqueeze(places, 1))
    return g.op("Where", seen, g.scalar(0), g.scalar(-1e9))


def whisper(width: int = 32, heads: int = 4) -> tuple[ModelProto, Feeds]:
    """Speech to text: convolutions over a spectrogram and an encoder layer, a decoder layer with cross-attention."""
    g = GraphBuilder("whisper", 17)
    sound = g.input("input_features", np.float32, ("batch", 20, "frames"), normal, channels=20)
    x = g.act(g.op("Conv", sound, g.weight("c1", (width, 20, 3), 0.1), channels=width, kernel_shape=[3], pads=[1, 1]), "gelu")
    x = g.op("Conv", x, g.weight("c2", (width, width, 3), 0.1), channels=width, kernel_shape=[3], pads=[1, 1], strides=[2])
    x = g.transpose(g.act(x, "gelu"), 0, 2, 1)
    length = g.op("Shape", x, start=1, end=2)
    table = g.op("Slice", g.weight("positions", (1, 100, width), 0.1), g.const([0]), length, g.const([1]))
    x = g.add(x, table)
    x = _layer(g, x, x, heads, None, g.layer_norm)
    sound_of = g.layer_norm(g.add(x, g.linear(g.act(g.linear(g.layer_norm(x), 64), "gelu"), width)))
    ids = g.input("decoder_input_ids", np.int64, ("batch", "sequence"), tokens(100))
    y = g.embedding(ids, 100, width)
    places = g.op("Range", g.const(0), g.dim(ids, 1), g.const(1))
    y = g.add(y, g.embedding(places, 50, width, 0.1))
    y = _layer(g, y, y, heads, _causal(g, ids), g.layer_norm)
    y = _layer(g, y, sound_of, heads, None, g.layer_norm)
    y = g.add(y, g.linear(g.act(g.linear(g.layer_norm(y), 64), "gelu"), width))
    g.output("logits", g.linear(g.layer_norm(y), 100), ("batch", "sequence", 100))
    rng = np.random.default_rng(0)
    return g.model(), {"input_features": normal(rng, (1, 20, 36), {}), "decoder_input_ids": rng.integers(0, 100, (1, 5))}


def t5(width: int = 32, heads: int = 4) -> tuple[ModelProto, Feeds]:
    """Text to text: relative positions in buckets, RMS normalisation, encoder and decoder."""
    g = GraphBuilder("t5", 17)
    ids = g.input("input_ids", np.int64, ("batch", "sequence"), tokens(100))
    x = g.embedding(ids, 100, width)
    x = _layer(g, x, x, heads, relative_position_bias(g, ids, heads), g.rms_norm)
    text = g.rms_norm(g.add(x, g.linear(g.act(g.linear(g.rms_norm(x), 64, bias=False), "relu"), width, bias=False)))
    new = g.input("decoder_input_ids", np.int64, ("batch", "new"), tokens(100))
    y = g.embedding(new, 100, width)
    y = _layer(g, y, y, heads, g.op("Add", relative_position_bias(g, new, heads), _causal(g, new)), g.rms_norm)
    y = _layer(g, y, text, heads, None, g.rms_norm)
    g.output("logits", g.op("Mul", g.linear(g.rms_norm(y), 100), g.scalar(1 / math.sqrt(width))), ("batch", "new", 100))
    rng = np.random.default_rng(0)
    return g.model(), {"input_ids": rng.integers(0, 100, (2, 9)), "decoder_input_ids": rng.integers(0, 100, (2, 4))}


def has_sklearn() -> bool:
    """Whether scikit-learn's converter is installed."""
    return importlib.util.find_spec("skl2onnx") is not None


def pipeline() -> tuple[ModelProto, Feeds]:
    """What skl2onnx writes of a scaler, principal components and a forest."""
    from skl2onnx import to_onnx
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 8)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] > 1)
    steps = make_pipeline(SimpleImputer(), StandardScaler(), PCA(5), RandomForestClassifier(20, max_depth=5, random_state=0))
    model = to_onnx(steps.fit(x, y), x[:1], options={"zipmap": False}, target_opset=17)
    return model, {model.graph.input[0].name: x[:33]}
