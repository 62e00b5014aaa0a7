"""Gathering rows: more of them than are found at once, across batches, of every length; indices out of range."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

import jitrt

MODEL = """
    <ir_version: 9, opset_import: ["": 18]>
    g (float[N, K, C] x, int64[N, M, 1] i) => (float[N, M, C] y) { y = GatherND <batch_dims = 1> (x, i) }"""


@pytest.mark.parametrize("channels", [1, 3, 16, 150])
@pytest.mark.parametrize("count", [0, 1, 16, 37, 1000])
def test_rows_of_several_batches_are_gathered(count: int, channels: int) -> None:
    rng = np.random.default_rng(count)
    x, i = rng.standard_normal((3, 50, channels)).astype(np.float32), rng.integers(-50, 50, (3, count, 1))
    (y,) = jitrt.InferenceSession(parser.parse_model(MODEL).SerializeToString()).run(None, {"x": x, "i": i})
    np.testing.assert_array_equal(y, np.take_along_axis(x, i % 50, 1))


@pytest.mark.parametrize("place", [0, 15, 16, 36])
def test_an_index_out_of_range_is_an_error_wherever_it_is(place: int) -> None:
    x, i = np.zeros((1, 50, 4), np.float32), np.zeros((1, 37, 1), np.int64)
    i[0, place] = 50
    with pytest.raises(Exception, match="outside the dimension"):
        jitrt.InferenceSession(parser.parse_model(MODEL).SerializeToString()).run(None, {"x": x, "i": i})
