"""Pow by constants: what is computed as products and roots has pow's special cases and errors of a few ulp, compiled."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from test_vmath import SLACK, sample, ulps

import jitrt
from jitrt.fusion.graph import Graph, Node
from jitrt.fusion.interpret import Interpreter
from jitrt.fusion.trace import trace

EXPONENTS = [-2, -1.5, -1, -0.5, -0.25, 0.25, 0.5, 0.75, 1.25, 1.5, 2, 2.25, 2.5, 3, 4]
BOUND = 2.5  # ulp
WIDE = {"f16": np.float64, "f32": np.float64, "f64": np.longdouble}


def _powers(x: np.ndarray, exponents: list[float]) -> list[np.ndarray]:
    """x to each of the exponents, by one model with constants."""
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    names = [f"y{i}" for i in range(len(exponents))]
    graph = helper.make_graph(
        [helper.make_node("Pow", ["x", f"e{i}"], [name]) for i, name in enumerate(names)], "powers",
        [helper.make_tensor_value_info("x", kind, ["N"])], [helper.make_tensor_value_info(name, kind, ["N"]) for name in names],
        [numpy_helper.from_array(np.array(e, x.dtype), f"e{i}") for i, e in enumerate(exponents)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=10)
    return jitrt.InferenceSession(model).run(None, {"x": x})


@pytest.mark.parametrize("kind", ["f16", "f32", "f64"])
def test_constant_powers_stay_within_the_bound_and_keep_the_special_cases(kind):
    # every half; else zeros, infinities, NaNs, subnormals, the whole range of bits, and numbers of usual sizes
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16) if kind == "f16" else sample(kind, 20001)
    bound = {"f16": 0.501, "f32": BOUND, "f64": BOUND + SLACK}[kind]
    for power, got in zip(EXPONENTS, _powers(x, EXPONENTS), strict=True):
        with np.errstate(all="ignore"):
            exact = np.power(x.astype(WIDE[kind]), np.full(x.shape, power, WIDE[kind]))
        error = ulps(got, exact)
        worst = int(np.argmax(error))
        assert error[worst] <= bound, f"{x[worst]!r} ** {power} = {got[worst]!r}: {error[worst]:.3f} ulp"
        known = ~np.isnan(exact)
        np.testing.assert_array_equal(np.signbit(got[known]), np.signbit(exact[known]), str(power))


def _lowered(exponent: float, opset: int, **attributes: int) -> str:
    node = Node("Pow", ["x", "e"], ["y"], attributes)
    graph = Graph(["x"], ["y"], [node], {"e": np.array(exponent, np.float32)}, opsets={"": opset})
    return " ".join(p.text for p in trace(graph, {"x": np.zeros(3, np.float32)}, ["y"]).trace.primitives)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_no_listed_power_calls_pow_at_any_opset(exponent):
    assert "pow" not in _lowered(exponent, 15)
    assert "pow" not in _lowered(exponent, 6, broadcast=1)


@pytest.mark.parametrize("exponent", [-0.75, 1.75, 2.75, 0.3, 5, 0])
def test_other_powers_are_left_to_pow(exponent):
    assert "pow" in _lowered(exponent, 15)


@pytest.mark.parametrize("beta", [0.75, 0.5, 0.6])
def test_lrn_divides_by_the_power_of_the_sum(beta):
    x = np.random.default_rng(1).standard_normal((2, 5, 3, 3)).astype(np.float32)
    node = Node("LRN", ["x"], ["y"], {"size": 3, "alpha": 0.5, "beta": beta, "bias": 1.5})
    (got,) = Interpreter(Graph(["x"], ["y"], [node], {}, opsets={"": 1})).run({"x": x})
    padded = np.pad(x.astype(np.float64) ** 2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    np.testing.assert_allclose(got, x / (1.5 + 0.5 / 3 * total) ** beta, rtol=1e-6)
