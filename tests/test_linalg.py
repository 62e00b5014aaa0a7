"""Det and Inverse against float64 and onnxruntime."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest

import jitrt
from jitrt.ops.kernels import target

rng = np.random.default_rng(3)
KINDS = {"float16": "float16", "float32": "float", "float64": "double"}
# sizes around the vectors of every target, one matrix and many
SHAPES = [(1, 1), (2, 2), (3, 3), (5, 5), (4, 4, 4), (2, 3, 7, 7), (3, 9, 9), (1, 16, 16), (2, 17, 17), (64, 64), (700, 3, 3)]
# around panels and chunks of columns, the sizes from which threads share a matrix, and two of those for three threads
LARGE = [(31, 31), (33, 33), (2, 49, 49), (159, 159), (1, 160, 160), (2, 163, 163), (255, 255), (1, 256, 256), (2, 259, 259)]


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_matrices_are_eliminated_by_panels(shape: tuple[int, ...], dtype: str) -> None:
    n = shape[-1]
    x = matrices(shape, dtype)[..., rng.permutation(n), :] + np.eye(n, dtype=dtype)[rng.permutation(n)]
    wide = x.astype(np.float64)
    (det,), (inverse,) = (session(op, KINDS[dtype], 3)[0].run(None, {"x": x}) for op in ("Det", "Inverse"))
    bound = 2e-7 if dtype == "float32" else 1e-9
    sign, size = np.linalg.slogdet(wide)
    assert np.isfinite(det).all()
    np.testing.assert_array_equal(np.sign(det), sign)
    np.testing.assert_allclose(np.log(np.abs(det.astype(np.float64))), size, rtol=10 * bound, atol=10 * bound)
    np.testing.assert_allclose(inverse, np.linalg.inv(wide), rtol=bound, atol=bound)


@pytest.mark.parametrize("n", [17, 40, 130])
def test_a_large_matrix_without_an_inverse_has_the_determinant_0(n: int) -> None:
    x = np.eye(n, dtype=np.float32)
    x[n // 2] = 0
    (det,), (inverse,) = (session(op, "float")[0].run(None, {"x": x}) for op in ("Det", "Inverse"))
    assert det == 0
    assert not np.isfinite(inverse).all()


@pytest.mark.parametrize("n", [18, 130])
def test_one_thread_and_several_invert_the_same_way(n: int) -> None:
    x = np.eye(n, dtype=np.float32)[rng.permutation(n)]
    for threads in (1, 2):
        (y,) = session("Inverse", "float", threads)[0].run(None, {"x": x})
        np.testing.assert_array_equal(y, x.T)
        (d,) = session("Det", "float", threads)[0].run(None, {"x": x})
        assert d == np.rint(np.linalg.det(x))


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


def check_vectors(lanes: int, registers: int) -> None:
    """Tiles of another CPU, which the compiler cuts to the size of this one's registers."""
    found = replace(target.current(), lanes=lanes, registers=registers)
    target.current = lambda: found
    for shape in ((3, 3), (2, 17, 17), (49, 49), (131, 131)):
        x = matrices(shape, "float32") + 2 * np.eye(shape[-1], dtype=np.float32)
        (inverse,), (det,) = (session(op, "float")[0].run(None, {"x": x / 2}) for op in ("Inverse", "Det"))
        np.testing.assert_allclose(inverse, np.linalg.inv(x.astype(np.float64) / 2), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(det, np.linalg.det(x.astype(np.float64) / 2), rtol=1e-6)


@pytest.mark.parametrize(("lanes", "registers"), [(4, 16), (16, 32)])
def test_narrower_and_wider_vectors(lanes: int, registers: int, tmp_path: Path) -> None:
    code = f"import test_linalg; test_linalg.check_vectors({lanes}, {registers})"
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"JITRT_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
