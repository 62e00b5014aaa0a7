"""Models of real packages agree with onnxruntime: PP-OCRv4 and its pipeline, magika's, the onnx wheel's light models."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import jitrt
from benchmarks import real
from benchmarks.compare import ATOL, RTOL
from demo import filetypes, ocr
from demo.picture import Line, draw

THREADS = 2
# Neither square nor a power of two; detection halves its picture five times.
ODD_SHAPES = {
    "detection": [(1, 3, 96, 224), (2, 3, 160, 64)],
    "direction": [(1, 3, 48, 192), (5, 3, 48, 187)],
    "recognition": [(1, 3, 48, 77), (3, 3, 48, 211)],
}


def _assert_agree(model, *feeds):
    """One session, several sizes."""
    options = jitrt.SessionOptions()
    options.intra_op_num_threads = THREADS
    ours = jitrt.InferenceSession(model.SerializeToString(), options)
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for each in feeds:
        for output, expected in zip(ours.run(None, each), theirs.run(None, each), strict=True):
            assert output.dtype == expected.dtype
            np.testing.assert_allclose(output, expected, RTOL, ATOL)
        assert ours.get_plan(each).host_nodes == ()


@pytest.mark.parametrize("part", real.OCR)
def test_text_models_agree_on_odd_picture_sizes(part):
    model, _ = real.ocr(part)
    _assert_agree(model, *(real.ocr(part, shape)[1] for shape in ODD_SHAPES[part]))


def test_a_picture_of_odd_size_is_read_as_on_onnxruntime():
    lines = (Line("Odd sizes", 31, 17, 34), Line("read 3.14159 twice", 31, 87, 27, angle=-3.0))
    image = np.asarray(draw(lines))[:183, :437]
    ours, theirs = (ocr.read(runtime, image, THREADS) for runtime in (jitrt, onnxruntime))
    assert ours.texts == theirs.texts
    assert [text.replace(" ", "") for text in ours.texts] == [line.text.replace(" ", "") for line in lines]
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)


def test_files_are_classified_as_on_onnxruntime():
    files = filetypes.samples()
    (ours, _), (theirs, _) = (filetypes.classify(runtime, files) for runtime in (jitrt, onnxruntime))
    assert [label for label, _ in ours] == [label for label, _ in theirs] == list(files)
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], atol=1e-4)


def test_file_type_model_agrees_for_two_batch_sizes():
    model, feeds = real.magika(1)
    _assert_agree(model, feeds, real.magika(3)[1])


@pytest.mark.parametrize("name", real.light_paths())
def test_light_model_agrees(name):
    _assert_agree(*real.light(name))
