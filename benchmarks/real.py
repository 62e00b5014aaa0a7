"""Models that come with packages: PP-OCRv4 (rapidocr-onnxruntime), magika's, and the onnx wheel's light models.

The light models have the nodes of well-known networks; their weights are made by nodes of the graph, so that a file is
a few kilobytes.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx

from .zoo import samplers

Feeds = dict[str, np.ndarray]

OCR = {"detection": "ch_PP-OCRv4_det_infer", "direction": "ch_ppocr_mobile_v2.0_cls_infer", "recognition": "ch_PP-OCRv4_rec_infer"}
OCR_SHAPES = {"detection": (1, 3, 480, 640), "direction": (6, 3, 48, 192), "recognition": (6, 3, 48, 320)}
MAGIKA_BYTES = 2048  # what magika reads of a file: pieces of its beginning and end
MAGIKA_PADDING = 256


def package_folder(package: str) -> Path | None:
    """Where an installed package lies; None if it is missing. It is not imported."""
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def ocr_path(part: str) -> Path | None:
    """The file of a part of PP-OCRv4: detection, direction or recognition."""
    folder = package_folder("rapidocr_onnxruntime")
    return None if folder is None else folder / "models" / f"{OCR[part]}.onnx"


def ocr(part: str, shape: tuple[int, ...] | None = None) -> tuple[onnx.ModelProto, Feeds]:
    """A part of PP-OCRv4 and a picture of `shape`, float32[N, 3, H, W] with values about -1 to 1."""
    picture = samplers.photo(np.random.default_rng(0), shape or OCR_SHAPES[part], {}) / 2
    return onnx.load(ocr_path(part)), {"x": picture}


def magika_path() -> Path | None:
    """The file of magika's newest standard model."""
    folder = package_folder("magika")
    found = sorted((folder / "models").glob("standard_*/model.onnx")) if folder is not None else []
    return found[-1] if found else None


def magika(batch: int = 1) -> tuple[onnx.ModelProto, Feeds]:
    """magika's model and `batch` files of random bytes, the last quarter padding."""
    content = np.random.default_rng(0).integers(0, MAGIKA_PADDING, (batch, MAGIKA_BYTES)).astype(np.int32)
    content[:, -MAGIKA_BYTES // 4 :] = MAGIKA_PADDING
    return onnx.load(magika_path()), {"bytes": content}


def silero_path() -> Path | None:
    """The file of silero-vad's model."""
    folder = package_folder("silero_vad")
    return None if folder is None else folder / "data" / "silero_vad.onnx"


def silero(rate: int) -> tuple[onnx.ModelProto, Feeds]:
    """silero-vad's model, its state and one window of noise at a sample rate of 16000 or 8000."""
    samples = {16000: 576, 8000: 288}[rate]
    sound = np.random.default_rng(0).standard_normal((1, samples), np.float32) / 10
    return onnx.load(silero_path()), {"input": sound, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(rate)}


def nudenet_path() -> Path | None:
    """The file of nudenet's YOLOv8n."""
    folder = package_folder("nudenet")
    return None if folder is None else folder / "320n.onnx"


def nudenet() -> tuple[onnx.ModelProto, Feeds]:
    """nudenet's detector and a picture."""
    return onnx.load(nudenet_path()), {"images": samplers.unit_photo(np.random.default_rng(0), (1, 3, 320, 320), {})}


def light_paths() -> dict[str, Path]:
    """The onnx wheel's light models by name (``resnet50``, ``vgg19`` ...)."""
    folder = package_folder("onnx") / "backend" / "test" / "data" / "light"
    return {path.stem.removeprefix("light_"): path for path in sorted(folder.glob("light_*.onnx"))}


def light(name: str) -> tuple[onnx.ModelProto, Feeds]:
    """A light model and a picture for it."""
    model = onnx.load(light_paths()[name])
    constants = {tensor.name for tensor in model.graph.initializer}
    (given,) = (value for value in model.graph.input if value.name not in constants)
    shape = tuple(dim.dim_value for dim in given.type.tensor_type.shape.dim)
    return model, {given.name: samplers.photo(np.random.default_rng(0), shape, {})}
