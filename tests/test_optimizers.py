"""Optimizers of the training domain: steps of several tensors at once agree with the formulas of the schemas, natively."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import jitrt

DOMAIN = "ai.onnx.preview.training"
SHAPES = [(), (0, 3), (7,), (3, 17)]


def _adagrad(r, t, x, g, h, decay_factor, epsilon, norm_coefficient):
    g = norm_coefficient * x + g
    h = h + g * g
    return x - r / (1 + t * decay_factor) * g / (np.sqrt(h) + epsilon), h


def _adam(r, t, x, g, v, h, alpha, beta, epsilon, norm_coefficient, norm_coefficient_post):
    g = norm_coefficient * x + g
    v, h = alpha * v + (1 - alpha) * g, beta * h + (1 - beta) * g * g
    r = r * np.sqrt(1 - beta**t) / (1 - alpha**t) if t > 0 else r
    return (1 - norm_coefficient_post) * (x - r * v / (np.sqrt(h) + epsilon)), v, h


def _momentum(r, t, x, g, v, alpha, beta, mode, norm_coefficient):
    g = norm_coefficient * x + g
    v = alpha * v + (beta if t > 0 else 1) * g
    return x - r * (v if mode == b"standard" else g + alpha * v), v


MEANINGS = {
    "Adagrad": (_adagrad, 3, {"decay_factor": 0.25, "epsilon": 1e-3, "norm_coefficient": 0.5}),
    "Adam": (_adam, 4, {"alpha": 0.9, "beta": 0.999, "epsilon": 1e-3, "norm_coefficient": 0.5, "norm_coefficient_post": 0.25}),
    "Momentum": (_momentum, 3, {"alpha": 0.9, "beta": 0.5, "mode": "standard", "norm_coefficient": 0.0}),
    "Nesterov": (_momentum, 3, {"alpha": 0.9, "beta": 0.5, "mode": "nesterov", "norm_coefficient": 0.5}),
}


@pytest.mark.parametrize("step", [0, 1, 500])
@pytest.mark.parametrize("name", MEANINGS)
def test_a_step_of_several_tensors_is_the_schemas(name: str, step: int) -> None:
    meaning, kinds, attributes = MEANINGS[name]
    rng = np.random.default_rng(step)
    values = [[np.abs(rng.standard_normal(shape)).astype(np.float32) for shape in SHAPES] for _ in range(kinds)]
    inputs = [np.float32(0.1), np.int64(step), *(x for kind in values for x in kind)]
    names = [f"x{i}" for i in range(len(inputs))]
    outputs = [f"y{i}" for i in range((kinds - 1) * len(SHAPES))]
    node = helper.make_node("Momentum" if name == "Nesterov" else name, names, outputs, domain=DOMAIN, **attributes)
    infos = [helper.make_tensor_value_info(n, 7 if i == 1 else 1, np.shape(x)) for i, (n, x) in enumerate(zip(names, inputs))]
    graph = helper.make_graph([node], "one", infos, [helper.make_tensor_value_info(n, 1, None) for n in outputs])
    opsets = [helper.make_opsetid(DOMAIN, 1), helper.make_opsetid("", 18)]
    session = jitrt.InferenceSession(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    feeds = {n: np.asarray(x) for n, x in zip(names, inputs)}
    got = session.run(None, feeds)
    said = {n: helper.get_attribute_value(a) for a in node.attribute for n in [a.name]}
    wide = [meaning(0.1, step, *(x.astype(np.float64) for x in mine), **said) for mine in zip(*values, strict=True)]
    for y, wanted in zip(got, [w for kind in zip(*wide, strict=True) for w in kind], strict=True):
        assert (y.dtype, y.shape) == (np.float32, np.shape(wanted))
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    assert session.get_plan(feeds).host_nodes == ()
