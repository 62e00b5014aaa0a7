"""Det and Inverse against float64 and onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime
import pytest

import jitrt

rng = np.random.default_rng(3)
KINDS = {"float16": "float16", "float32": "float", "float64": "double"}
# sizes around the vectors of every target, one matrix and many
SHAPES = [(1, 1), (2, 2), (3, 3), (5, 5), (4, 4, 4), (2, 3, 7, 7), (3, 9, 9), (1, 16, 16), (2, 17, 17), (64, 64), (700, 3, 3)]


def session(op: str, kind: str, threads: int = 2) -> tuple[jitrt.InferenceSession, bytes]:
    domain = "com.microsoft." if op == "Inverse" else ""
    text = f"""<ir_version: 9, opset_import: ["": 20, "com.microsoft": 1]>
        g ({kind}[] x) => ({kind}[] y) {{ y = {domain}{op} (x) }}"""
    model = onnx.parser.parse_model(text).SerializeToString()
    options = jitrt.SessionOptions()
    options.intra_op_num_threads = threads
    return jitrt.InferenceSession(model, options), model


def matrices(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_determinants_are_those_of_float64(shape: tuple[int, ...], dtype: str) -> None:
    x = matrices(shape, dtype)
    ours, _ = session("Det", KINDS[dtype])
    (y,) = ours.run(None, {"x": x})
    expected = np.linalg.det(x.astype(np.float64))
    assert (y.dtype, y.shape) == (x.dtype, x.shape[:-2])
    np.testing.assert_allclose(y, expected, rtol=1e-6 if dtype == "float32" else 1e-9, atol=1e-30)
    assert ours.get_plan({"x": x}).host_nodes == ()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inverses_are_those_of_float64(shape: tuple[int, ...], dtype: str) -> None:
    x = matrices(shape, dtype) + 2 * np.eye(shape[-1], dtype=dtype)
    ours, model = session("Inverse", KINDS[dtype])
    (y,) = ours.run(None, {"x": x})
    expected = np.linalg.inv(x.astype(np.float64))
    bound = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-11}[dtype]
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    np.testing.assert_allclose(y, expected, rtol=bound, atol=bound)
    (other,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
    np.testing.assert_allclose(y, other, rtol=100 * bound, atol=100 * bound)
    assert ours.get_plan({"x": x}).host_nodes == ()


def test_rows_change_places_where_a_pivot_is_small_or_zero() -> None:
    x = np.array([[0, 2, 1], [1e-20, 1, 0], [3, 0, 0]], np.float32)
    (det,), (inverse,) = (session(op, "float")[0].run(None, {"x": x}) for op in ("Det", "Inverse"))
    np.testing.assert_allclose(det, np.linalg.det(x.astype(np.float64)), rtol=1e-6)
    np.testing.assert_allclose(inverse, np.linalg.inv(x.astype(np.float64)), rtol=1e-6, atol=1e-6)


def test_every_order_of_rows_is_inverted() -> None:
    x = np.stack([np.eye(6, dtype=np.float32)[rng.permutation(6)] for _ in range(40)])
    (y,) = session("Inverse", "float")[0].run(None, {"x": x})
    np.testing.assert_array_equal(y, x.transpose(0, 2, 1))
    (d,) = session("Det", "float")[0].run(None, {"x": x})
    np.testing.assert_array_equal(d, np.rint(np.linalg.det(x)))


def test_a_singular_matrix_has_no_finite_inverse_and_leaves_its_neighbours_alone() -> None:
    x = np.stack([np.eye(3), np.ones((3, 3)), np.zeros((3, 3)), 2 * np.eye(3)]).astype(np.float32)
    ours, model = session("Inverse", "float")
    (y,) = ours.run(None, {"x": x})
    (other,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
    assert [bool(np.isfinite(m).all()) for m in y] == [bool(np.isfinite(m).all()) for m in other] == [True, False, False, True]
    np.testing.assert_array_equal(y[3], np.eye(3) / 2)
    (d,) = session("Det", "float")[0].run(None, {"x": x})
    np.testing.assert_array_equal(d, [1, 0, 0, 8])


def test_nan_and_infinity_go_into_the_result() -> None:
    x = np.stack([np.eye(4)] * 3).astype(np.float32)
    x[0, 1, 2], x[1, 1, 1] = np.nan, np.inf
    (y,) = session("Inverse", "float")[0].run(None, {"x": x})
    assert np.isnan(y[0]).any()
    np.testing.assert_array_equal(y[2], np.eye(4))
    (d,) = session("Det", "float")[0].run(None, {"x": x})
    assert np.isinf(d[1])
    assert d[2] == 1


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3, 3), (0, 0), (2, 0, 0)], ids=str)
def test_there_may_be_no_matrix_or_no_element(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    (y,) = session("Inverse", "float")[0].run(None, {"x": x})
    (d,) = session("Det", "float")[0].run(None, {"x": x})
    assert y.shape == shape
    np.testing.assert_array_equal(d, np.ones(shape[:-2], np.float32))


@pytest.mark.parametrize("op", ["Det", "Inverse"])
def test_matrices_must_be_square(op: str) -> None:
    with pytest.raises(RuntimeError, match="square"):
        session(op, "float")[0].run(None, {"x": np.zeros((2, 3), np.float32)})
