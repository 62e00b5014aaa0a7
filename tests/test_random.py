"""Random operators: repeatable where a seed says so, different otherwise, and of the right distribution."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import jitrt


def _session(op: str, inputs: dict[str, np.ndarray | None] | None = None, opset: int = 22, outputs: int = 1, **attributes: object):
    names = [name if value is not None else "" for name, value in (inputs or {}).items()]
    results = [f"y{i}" for i in range(outputs)]
    weights = [numpy_helper.from_array(v, n) for n, v in (inputs or {}).items() if v is not None]
    infos = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in results]
    graph = helper.make_graph([helper.make_node(op, names, results, **attributes)], "random", [], infos, weights)
    return jitrt.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))


HALF = np.full((3, 50), 0.5, np.float32)
CASES = [
    ("RandomNormal", None, {"shape": [4, 25]}),
    ("RandomUniform", None, {"shape": [100]}),
    ("RandomNormalLike", {"x": HALF}, {}),
    ("RandomUniformLike", {"x": HALF}, {"dtype": TensorProto.DOUBLE}),
    ("Bernoulli", {"x": HALF}, {}),
    ("Multinomial", {"x": HALF}, {"sample_size": 40}),
    ("Dropout", {"x": HALF, "ratio": None, "training": np.array(True)}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=[c[0] for c in CASES])
def test_a_seed_makes_a_node_repeatable_and_none_makes_every_run_different(op: str, inputs: dict | None, attributes: dict) -> None:
    seed = 7 if op == "Dropout" else 7.0
    seeded = _session(op, inputs, seed=seed, **attributes)
    again, free = _session(op, inputs, seed=seed, **attributes), _session(op, inputs, **attributes)
    first = seeded.run(None, {})[0]
    np.testing.assert_array_equal(seeded.run(None, {})[0], first)
    np.testing.assert_array_equal(again.run(None, {})[0], first)
    assert not np.array_equal(free.run(None, {})[0], free.run(None, {})[0])


def test_set_seed_makes_nodes_without_a_seed_repeatable() -> None:
    session = _session("RandomNormal", shape=[20])
    jitrt.set_seed(3)
    first = [session.run(None, {})[0] for _ in range(2)]
    jitrt.set_seed(3)
    second = [session.run(None, {})[0] for _ in range(2)]
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(*first)


def test_normal_and_uniform_numbers_have_their_moments() -> None:
    (normal,) = _session("RandomNormal", shape=[40000], mean=2.0, scale=3.0, seed=1.0).run(None, {})
    assert normal.dtype == np.float32
    assert abs(normal.mean() - 2) < 0.1
    assert abs(normal.std() - 3) < 0.1
    (uniform,) = _session("RandomUniform", shape=[40000], low=-1.0, high=5.0, seed=1.0, dtype=TensorProto.DOUBLE).run(None, {})
    assert uniform.dtype == np.float64
    assert uniform.min() >= -1
    assert uniform.max() < 5
    np.testing.assert_allclose(np.histogram(uniform, 6, (-1, 5))[0] / 40000, 1 / 6, atol=0.01)


@pytest.mark.parametrize("dtype", [TensorProto.BOOL, TensorProto.INT32, TensorProto.FLOAT16])
def test_bernoulli_draws_ones_as_often_as_it_is_told(dtype: int) -> None:
    p = np.repeat(np.array([0.0, 0.1, 0.5, 1.0]), 20000).reshape(4, -1)
    (got,) = _session("Bernoulli", {"p": p}, dtype=dtype, seed=2.0).run(None, {})
    assert got.dtype == helper.tensor_dtype_to_np_dtype(dtype)
    np.testing.assert_allclose(got.astype(float).mean(1), [0, 0.1, 0.5, 1], atol=0.02)
    assert set(np.unique(got)) == {0, 1}


def test_multinomial_takes_classes_by_their_weights() -> None:
    weights = np.array([[0.1, 0.2, 0.7], [1.0, 0.0, 0.0]])
    with np.errstate(divide="ignore"):
        logits = (np.log(weights) + 5).astype(np.float32)
    (got,) = _session("Multinomial", {"x": logits}, sample_size=30000, dtype=TensorProto.INT64, seed=5.0).run(None, {})
    assert got.dtype == np.int64
    assert got.shape == (2, 30000)
    counts = np.stack([np.bincount(row, minlength=3) for row in got]) / 30000
    np.testing.assert_allclose(counts, weights, atol=0.02)


def test_dropout_in_training_scales_what_it_keeps() -> None:
    x = np.arange(1, 20001, dtype=np.float32)
    inputs = {"x": x, "ratio": np.array(0.25, np.float32), "training": np.array(True)}
    y, mask = _session("Dropout", inputs, outputs=2).run(None, {})
    assert mask.dtype == bool
    assert abs(mask.mean() - 0.75) < 0.02
    np.testing.assert_allclose(y, np.where(mask, x / 0.75, 0), rtol=1e-6)
    with pytest.raises(jitrt.RuntimeException, match="ratio must be"):
        _session("Dropout", inputs | {"ratio": np.array(1.0, np.float32)}).run(None, {})
