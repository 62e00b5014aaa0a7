"""The small model, its inputs, wrong ones, and the question for an error that tests of sessions, options and binding share."""

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

# what is wrong: inputs, names of outputs, what the error says
WRONG = {
    "unknown input": ({"x": X, "k": K, "q": X}, None, "'q'"),
    "input named by the empty string": ({"x": X, "k": K, "": X}, None, "''"),
    "input missing": ({"x": X}, None, "['k']"),
    "input misspelt": ({"X": X, "k": K}, None, "['x']"),
    "input's name no string": ({"x": X, "k": K, 1: X}, None, "1"),
    "double for float": ({"x": X.astype(float), "k": K}, None, "input 'x': unexpected data type: got tensor(double)"),
    "half for float": ({"x": X.astype(np.float16), "k": K}, None, "got tensor(float16), expected tensor(float)"),
    "bool for float": ({"x": X > 1, "k": K}, None, "got tensor(bool)"),
    "int32 for int64": ({"x": X, "k": K.astype(np.int32)}, None, "input 'k': unexpected data type: got tensor(int32)"),
    "strings for floats": ({"x": np.array([["a", "b", "c"]], object), "k": K}, None, "got tensor(string)"),
    "rank too small": ({"x": X[0], "k": K}, None, "input 'x': invalid rank: got 1 ([3]), expected 2 ([N,3])"),
    "rank too large": ({"x": X[None], "k": K}, None, "got 3 ([1,2,3]), expected 2 ([N,3])"),
    "size": ({"x": X[:, :2], "k": K}, None, "input 'x': invalid dimensions: got [2,2], expected [N,3] (index 1)"),
    "size of the other input": ({"x": X, "k": np.arange(3)}, None, "input 'k': invalid dimensions: got [3], expected [2]"),
    "type of an initializer": ({"x": X, "k": K, "w": np.zeros(3)}, None, "input 'w': unexpected data type"),
    "size of an initializer": ({"x": X, "k": K, "w": np.zeros(4, np.float32)}, None, "input 'w': invalid dimensions"),
    "unknown output": ({"x": X, "k": K}, ["nope"], "'nope'"),
    "output named by the empty string": ({"x": X, "k": K}, [""], "''"),
    "output's name no string": ({"x": X, "k": K}, [None], "None"),
    "outputs as one string": ({"x": X, "k": K}, "y", "'y'"),
}  # fmt: skip


def raised(call: Callable[[], object]) -> Exception | None:
    """What a call raises."""
    try:
        call()
    except Exception as error:
        return error
    return None
