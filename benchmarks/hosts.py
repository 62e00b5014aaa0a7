"""`python -m benchmarks.hosts`: which nodes of real and exported models Python computes, and how well the outputs agree.

Models of packages are listed where the package is installed (silero-vad and nudenet: ``pip install --no-deps``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import onnx

import jitrt

from . import hosted, real

Feeds = dict[str, np.ndarray]
Make = Callable[[], tuple[onnx.ModelProto, Feeds]]


def models() -> Iterator[tuple[str, Make]]:
    """Name and maker of every model that is there."""
    for rate in (16000, 8000) if real.silero_path() else ():
        yield f"silero-vad, {rate} Hz", partial(real.silero, rate)
    if real.magika_path():
        yield "magika", real.magika
    for part in (part for part in real.OCR if real.ocr_path(part)):
        yield f"PP-OCRv4 {part}", partial(real.ocr, part)
    if real.nudenet_path():
        yield "nudenet's YOLOv8n", real.nudenet
    yield "YOLOv8n with non-maximum suppression", partial(hosted.detector, hosted.SUPPRESSION)
    yield "YOLOv8n with RT-DETR's selection", partial(hosted.detector, hosted.SELECTION)
    yield "LSTM tagger", hosted.tagger
    if hosted.has_sklearn():
        yield "skl2onnx: imputer, scaler, PCA, forest", hosted.pipeline
    yield "BERT, int8, dynamic", partial(hosted.quantised_encoder, False)
    yield "BERT, int8, QuantizeLinear pairs", partial(hosted.quantised_encoder, True)
    yield "Whisper", hosted.whisper
    yield "T5", hosted.t5


def host_nodes(make: Make) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """The nodes that Python computes, and the outputs of jitrt and of onnxruntime."""
    import onnxruntime

    model, feeds = make()
    content = model.SerializeToString()
    session = jitrt.InferenceSession(content)
    outputs = session.run(None, feeds)
    expected = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feeds)
    kinds = {node.name or node.output[0]: node.op_type for node in model.graph.node}
    nodes = [name for plan in session.get_plans(feeds) for name in plan.host_nodes]
    return [f"{name} ({kinds.get(name, '?')})" for name in nodes], outputs, expected


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest, in order of size: of candidates that are as good, either runtime may take another one first."""
    return float(np.abs(np.sort(a, None).astype(np.float64) - np.sort(b, None)).max(initial=0))


def main() -> int:
    """The command: 1 if Python computes anything."""
    found = 0
    for name, make in models():
        nodes, outputs, expected = host_nodes(make)
        far = max(map(_difference, outputs, expected))
        print(f"{name:40} host nodes: {', '.join(nodes) or 'none':20} largest difference {far:.1e}", flush=True)
        found += len(nodes)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
