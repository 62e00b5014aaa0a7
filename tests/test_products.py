"""Einsum and the quantised products, judged by their primitives on numpy (no kernel is compiled)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from jitrt.fusion.importer import load
from jitrt.fusion.interpret import Interpreter
from jitrt.ops.builder import OperatorError

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 1}
EQUATIONS = (
    "ab,bc->ac", "ab,bc", "ba", "ab->", "aa->a", "aa", "aab->ba", "dab,dbc->dac", "dbac,deac->dbea", "abcd,ebcd->abce", "a,b->ab",
    "a,a->", "ab,ab->b", "ab,ab->", "ab,c->abc", "abc,bad->cd", "dab,bc,ce->dae", "a,ab,b->", "ab,bc,ca->", "ab, bc -> ca",
)  # fmt: skip
rng = np.random.default_rng(0)


def _run(name: str, inputs: list[np.ndarray], **attributes: object) -> np.ndarray:
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(name, names, ["y"], **attributes)
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in zip(names, inputs)]
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return Interpreter(load(model).graph).run(dict(zip(names, inputs)))[0]


def _codes(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_agrees_with_numpy(equation):
    terms = equation.partition("->")[0].replace(" ", "").split(",")
    inputs = [rng.standard_normal([SIZES[c] for c in term]) for term in terms]
    np.testing.assert_allclose(_run("Einsum", inputs, equation=equation), np.einsum(equation, *inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...ab,...bc->...ac", [(3, 1, 2, 4), (5, 4, 6)]),
        ("a...,...b->ab...", [(2, 3, 1), (4, 5)]),
        ("...a->...", [(2, 3, 4)]),
        ("a...b", [(2, 3, 4)]),
        ("ab,bc->ac", [(2, 0), (0, 3)]),
        ("ab,bc->ac", [(0, 2), (2, 3)]),
    ],
)
def test_einsum_broadcasts_the_ellipsis_and_sums_nothing_to_zero(equation, shapes):
    inputs = [rng.standard_normal(shape) for shape in shapes]
    np.testing.assert_allclose(_run("Einsum", inputs, equation=equation), np.einsum(equation, *inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("equation", ["ab,bc->ac", "ab->az", "abc->a", "ab->aa", "a1->a", "ab->a,b"])
def test_an_equation_that_does_not_fit_is_an_error(equation):
    with pytest.raises(OperatorError, match="equation"):
        _run("Einsum", [np.ones((2, 3))], equation=equation)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("columns", [(), (1,), (5,)])
def test_quantised_matrix_products_are_exact_up_to_the_one_rounding(dtype, columns):
    a, b = _codes(np.uint8, 2, 3, 40), _codes(dtype, 40, 5)
    b_scale, b_zero = rng.uniform(0.01, 0.02, columns).astype(np.float32), _codes(dtype, *columns)
    scale, zero = np.float32(0.05), np.uint8(130)
    y_scale, y_zero = np.float32(1.5), np.uint8(120)
    y = _run("QLinearMatMul", [a, np.asarray(scale), np.asarray(zero), b, b_scale, b_zero, np.asarray(y_scale), np.asarray(y_zero)])
    total = (a.astype(np.int64) - int(zero)) @ (b.astype(np.int64) - b_zero)
    exact = total * (float(scale) * b_scale.astype(np.float64) / float(y_scale))
    expected = np.clip(np.rint(exact) + y_zero, 0, 255)
    assert y.dtype == np.uint8
    # a tie may fall to either side: the factor is a float32
    assert np.abs(y - expected)[np.abs(exact % 1 - 0.5) > 1e-4].max() == 0


def test_quantised_rows_may_have_scales_of_their_own():
    a, b = _codes(np.uint8, 3, 7), _codes(np.int8, 7, 4)
    scales, zeros = np.array([0.01, 0.02, 0.03], np.float32), np.array([100, 128, 150], np.uint8)
    one, none = np.asarray(np.float32(0.1)), np.asarray(np.int8(0))
    y = _run("QLinearMatMul", [a, scales, zeros, b, one, none, one, none])
    for i in range(3):
        row = [a[i : i + 1], scales[i : i + 1], zeros[i : i + 1], b, one, none, one, none]
        np.testing.assert_array_equal(y[i : i + 1], _run("QLinearMatMul", row))
