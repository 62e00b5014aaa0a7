"""The small model, its inputs, and the question for an error that tests of sessions, options and binding share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx.parser import parse_model

MODEL = parse_model("""
    <ir_version: 10, opset_import: ["": 20], producer_name: "maker", domain: "its.domain", model_version: 7,
     doc_string: "about the model", metadata_props: ["key": "value"]>
    g (float[N, 3] x, int64[2] k, float[3] w = {1, 2, 3}) => (float[N, 3] y, int64[2] z)
    { t = Add (x, w) y = Relu (t) z = Neg (k) }""").SerializeToString()
X, K = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2])


def raised(call: Callable[[], object]) -> Exception | None:
    """What a call raises."""
    try:
        call()
    except Exception as error:
        return error
    return None
