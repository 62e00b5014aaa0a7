"""Strassen's products against float64: any size, any tail, and where operands differ too much to be added up."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from kernel_problems import EPILOGUE, Memory, address_of, block, run
from onnx import numpy_helper, parser

import jitrt
from jitrt.ops.kernels import gemm, strassen, target
from jitrt.ops.kernels.blocking import most_rows, panel_width, split_row
from jitrt.ops.kernels.matrix import Matrix
from jitrt.ops.kernels.spec import generated

PAIR = 2 * panel_width(4)
# rows, K, columns: remainders of blocks, vectors, K blocks and pairs of panels; fewer than a block, a panel alone
SIZES = [
    (56, 128, PAIR), (57, 130, PAIR + 1), (98, 258, 2 * PAIR), (113, 128, PAIR + PAIR // 2), (128, 768, 96),
    (197, 160, 3 * PAIR - 1), (200, 770, 130), (301, 146, PAIR + PAIR // 2 + 3), (1, 128, PAIR), (29, 770, 5),
]  # fmt: skip


def cut_of(rows: int, depth: int, columns: int, half: int, steps: int, own_blocks: int = 2, own_pairs: int = 2) -> strassen.Cut:
    """A cut that the cost model might not make."""
    first, count, second, number = split_row(half, min(most_rows(steps * 4 + 64), most_rows(depth * 4)))
    blocks, pairs = -(-rows // (2 * half)), -(-columns // PAIR)
    pair_tasks = -(-pairs // own_pairs)
    return strassen.Cut(half, steps, -(-depth // (2 * steps)), first, count, second, number - count, blocks, own_blocks, own_pairs,
                        pair_tasks, pair_tasks * -(-blocks // own_blocks))  # fmt: skip


def matrix_of(array: np.ndarray) -> Matrix:
    return Matrix(array.ctypes.data, (1, *array.shape), (0, *array.strides))


def product(
    a: np.ndarray, b: np.ndarray, half: int = 28, steps: int = 64, bias: np.ndarray | None = None,
    residual: np.ndarray | None = None, low: float = -np.inf, high: float = np.inf, epilogue: bool = False,
) -> np.ndarray:  # fmt: skip
    """What the kernel makes of A and B, into rows that lie further apart than they are long."""
    memory, (rows, depth), columns = Memory(), a.shape, b.shape[1]
    a, wide = np.ascontiguousarray(a), np.full((rows, columns + 5), 99, np.float32)
    c = wide[:, :columns]
    nested, times = (0, 0), np.zeros((rows, columns), np.int32)
    if epilogue:
        arguments = block((c.ctypes.data, 0, c.strides[0], times.ctypes.data, rows, columns))
        nested = (address_of(generated("epilogue", EPILOGUE, target.current().lanes)), memory.keep(arguments))
    finish = (0 if bias is None else bias.ctypes.data, low, high, *nested)
    made = cut_of(rows, depth, columns, half, steps)
    other = None if residual is None else matrix_of(residual)
    run([strassen.launch(matrix_of(a), memory.keep(gemm.pack(b)), matrix_of(c), other, finish, made, "product")])
    assert (wide[:, columns:] == 99).all()
    assert (times == epilogue).all()
    return c


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def assert_near(got: np.ndarray, a: np.ndarray, b: np.ndarray, exact: np.ndarray) -> None:
    """Errors are small beside the lengths of the row and the column that are multiplied."""
    scale = np.linalg.norm(a.astype(np.float64), axis=1)[:, None] * np.linalg.norm(b.astype(np.float64), axis=0)
    assert (np.abs(got - exact) <= 1e-6 * scale + 1e-6 * np.abs(exact)).all()


@pytest.mark.parametrize("steps", [64, 208])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "x".join(map(str, sizes)))
def test_any_size_is_a_product(sizes, steps):
    rows, depth, columns = sizes
    a, b = normal(rows, depth), normal(depth, columns, seed=1)
    for half in (28, 41, 64):
        assert_near(product(a, b, half, steps), a, b, a.astype(np.float64) @ b)


@pytest.mark.parametrize("decades", [0, 6])
def test_its_errors_are_a_few_times_those_of_parts_added_up(decades):
    """Whatever sizes columns have: neighbours are added up at one scale."""
    a, b = normal(256, 768), normal(768, 256, seed=1)
    b *= 10.0 ** np.random.default_rng(2).uniform(-decades, decades, 256).astype(np.float32)
    exact = a.astype(np.float64) @ b
    error = np.sqrt(np.mean(((product(a, b, 64, 384) - exact) / exact.std(axis=0)) ** 2))
    assert 3.5e-7 < error < 7e-7  # direct ones: 2e-7


def test_bias_residual_limits_and_epilogue():
    a, b, bias, residual = normal(150, 260), normal(260, 100, seed=1), normal(100, seed=2), normal(150, 100, seed=3)
    total = a.astype(np.float64) @ b + bias
    assert_near(product(a, b, bias=bias), a, b, total)
    clipped = product(a, b, bias=bias, residual=residual, low=-3.0, high=5.0)
    assert_near(clipped, a, b, np.clip(total + residual, -3, 5))
    assert_near(product(a, b, bias=bias, epilogue=True), a, b, 2 * total)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_and_infinity_go_where_direct_products_take_them(value):
    for place in ((3, 7), (3, 200), (40, 7), (149, 259)):
        a, b = normal(150, 260), normal(260, 3 * PAIR, seed=1)
        a[place] = value
        b[5, 2] = value
        with np.errstate(invalid="ignore"):
            expected = a @ b
        got = product(a, b)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
        finite = np.isfinite(expected)
        np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-3, atol=1e-4)


def test_small_rows_keep_their_digits_beside_large_ones():
    a, b = normal(168, 260), normal(260, 2 * PAIR, seed=1)
    a *= 10.0 ** np.random.default_rng(2).integers(-12, 12, (168, 1)).astype(np.float32)
    a[5] = 0
    got = product(a, b)
    assert_near(got, a, b, a.astype(np.float64) @ b)
    assert (got[5] == 0).all()


def test_small_columns_keep_their_digits_beside_large_ones():
    a, b = normal(168, 260), normal(260, 2 * PAIR, seed=1)
    b *= 10.0 ** np.random.default_rng(2).integers(-12, 12, 2 * PAIR).astype(np.float32)
    b[:, 9] = 0
    got = product(a, b)
    assert_near(got, a, b, a.astype(np.float64) @ b)
    assert (got[:, 9] == 0).all()


def test_features_whose_scales_the_weights_make_up_for_keep_their_digits():
    scales = 10.0 ** np.random.default_rng(2).integers(-6, 7, 260).astype(np.float32)
    a, b = normal(168, 260) * scales, normal(260, 2 * PAIR, seed=1) / scales[:, None]
    exact = a.astype(np.float64) @ b
    assert np.abs(product(a, b) - exact).max() < 1e-5 * exact.std()


def test_sums_of_operands_do_not_overflow():
    a, b = normal(168, 260) * np.float32(3e37), normal(260, 2 * PAIR, seed=1) * np.float32(1e-3)
    assert_near(product(a, b) / 1e30, a / 1e30, b, a.astype(np.float64) @ b / 1e30)


# -- where it is taken
taken = pytest.mark.skipif(not strassen.possible(1024, 1024), reason="register tiles are too low on this CPU")


def network(rows: str, depth: int = 1024, columns: int = 1024) -> tuple[bytes, onnxruntime.InferenceSession]:
    model = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 17]>
        g (float[{rows},{depth}] x) => (float[{rows},{columns}] y) {{
            p = MatMul (x, w) s = Add (p, b) t = Sigmoid (s) y = Mul (s, t)
        }}""")
    for name, value in (("w", normal(depth, columns)), ("b", normal(columns))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model = model.SerializeToString()
    return model, onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


@taken
def test_products_of_many_rows_are_strassens_and_those_of_few_are_not():
    for rows, names in ((1024, ["strassen"]), (16, ["conv"])):
        model, theirs = network(str(rows))
        ours, feeds = jitrt.InferenceSession(model), {"x": normal(rows, 1024)}
        np.testing.assert_allclose(ours.run(None, feeds)[0], theirs.run(None, feeds)[0], rtol=1e-4, atol=1e-4)
        assert [step.kernel.name for step in ours.get_plan(feeds).steps] == names


@taken
def test_a_plan_for_any_number_of_rows_takes_either_way():
    model, theirs = network("rows")
    ours = jitrt.InferenceSession(model)
    for rows in (40, 900, 1024, 57, 333, 1, 700):
        feeds = {"x": normal(rows, 1024)}
        np.testing.assert_allclose(ours.run(None, feeds)[0], theirs.run(None, feeds)[0], rtol=1e-4, atol=1e-4, err_msg=str(rows))
    steps = ours.get_plan({"x": normal(800, 1024)}).steps
    assert [step.kernel.name for step in steps] == ["conv", "strassen"]


@taken
def test_a_plan_for_some_vectors_does_without():
    model, _ = network("rows")
    ours = jitrt.InferenceSession(model)
    for rows in (7, 9, 55):
        feeds = {"x": normal(rows, 1024)}
        ours.run(None, feeds)
        plan = ours.get_plan(feeds)
        assert [step.kernel.name for step in plan.steps] == ["conv"]
    assert any(str(guard).startswith("rows <= 55: ") for guard in plan.guards)


@taken
def test_the_cost_model_cuts_what_it_takes_without_rest():
    for rows, depth, columns in ((1024, 1024, 1024), (1000, 1030, 768), (3001, 768, 1000), (257, 4096, 4096)):
        made = strassen.cut(rows, depth, columns, 2)
        assert made.tasks == -(-made.blocks // made.own_blocks) * made.pair_tasks > 0
        assert 2 * made.half * made.blocks >= rows > 2 * made.half * (made.blocks - 1)
        assert made.first * made.count + made.second * made.seconds == made.half
        assert 2 * made.steps * made.k_blocks >= depth > 2 * made.steps * (made.k_blocks - 1)
    assert strassen.cut(40, 768, 768, 2) == strassen.Cut()


@taken
def test_a_tasks_memory_does_not_grow_with_the_rows():
    for rows in (10_000, 1_000_003):
        made = strassen.cut(rows, 1024, 1024, 2)
        assert made.tasks > 4
        assert strassen.scratch_bytes(made.half, made.steps, made.own_blocks) < 8 << 20
