"""Models written as text, mostly of loops, on jitrt and on onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx.parser
import onnxruntime

import jitrt as ort

HEAD = '<ir_version: 10, opset_import: ["": 20]>'


def session(text: str, threads: int = 2) -> ort.InferenceSession:
    """jitrt's session of a graph's text."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(onnx.parser.parse_model(HEAD + text), options)


def expected(text: str, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs that onnxruntime gives."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = onnx.parser.parse_model(HEAD + text).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def check(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
    """Types and shapes are the same, values within rounding."""
    for one, other in zip(got, wanted, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
