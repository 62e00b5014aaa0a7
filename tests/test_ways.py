"""Products by pairs and Strassen's against float64: any size, any tail, and where operands differ too much to be added up."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from kernel_problems import EPILOGUE, Memory, address_of, block, run
from onnx import numpy_helper, parser

import jitrt
from jitrt.ops.kernels import gemm, halves, pairing, pairingwords, strassen, target, ways
from jitrt.ops.kernels.blocking import most_rows, panel_width, split_row
from jitrt.ops.kernels.convweights import PackedWeights
from jitrt.ops.kernels.matrix import Matrix
from jitrt.ops.kernels.spec import generated

PAIR = 2 * panel_width(4)
# rows, K, columns: remainders of blocks, vectors, K blocks and pairs of panels; fewer than a block, a panel alone
SIZES = [
    (56, 128, PAIR), (57, 130, PAIR + 1), (98, 258, 2 * PAIR), (113, 128, PAIR + PAIR // 2), (128, 768, 96),
    (197, 160, 3 * PAIR - 1), (200, 770, 130), (301, 146, PAIR + PAIR // 2 + 3), (1, 128, PAIR), (29, 770, 5),
]  # fmt: skip


WAYS = {"strassen": strassen, "pairing": pairing}


def cut_of(way: str, rows: int, depth: int, columns: int, own: int, steps: int) -> strassen.Cut | pairing.Cut:
    """A cut that the cost model might not make: `own` rows of half a block, or of a task; `steps` of half a K block, or of one."""
    if way == "pairing":
        panel_tasks = -(-columns // (3 * panel_width(4)))
        return pairing.Cut(steps // pairingwords.TURN * pairingwords.TURN, own, 3, panel_tasks, panel_tasks * -(-rows // own))
    first, count, second, number = split_row(own, min(most_rows(steps * 4 + 64), most_rows(depth * 4)))
    blocks, pairs = -(-rows // (2 * own)), -(-columns // PAIR)
    pair_tasks = -(-pairs // 2)
    return strassen.Cut(own, steps, -(-depth // (2 * steps)), first, count, second, number - count, blocks, 2, 2, pair_tasks,
                        pair_tasks * -(-blocks // 2))  # fmt: skip


def matrix_of(array: np.ndarray) -> Matrix:
    return Matrix(array.ctypes.data, (1, *array.shape), (0, *array.strides))


def product(
    way: str, a: np.ndarray, b: np.ndarray, own: int = 28, steps: int = 64, bias: np.ndarray | None = None,
    residual: np.ndarray | None = None, low: float = -np.inf, high: float = np.inf, epilogue: bool = False, held: str = "",
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
    made = cut_of(way, rows, depth, columns, own, steps)
    other = None if residual is None else matrix_of(residual)
    panels = memory.keep(gemm.packing(b.shape, b.dtype, held).make(b))
    weights = PackedWeights((columns, len(b), 1, 1, 1), 1, panels, held=held)
    run([WAYS[way].launch(matrix_of(a), weights, matrix_of(c), other, finish, made, "product")])
    assert (wide[:, columns:] == 99).all()
    assert (times == epilogue).all()
    return c


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def assert_near(got: np.ndarray, a: np.ndarray, b: np.ndarray, exact: np.ndarray) -> None:
    """Errors are small beside the lengths of the row and the column that are multiplied."""
    scale = np.linalg.norm(a.astype(np.float64), axis=1)[:, None] * np.linalg.norm(b.astype(np.float64), axis=0)
    assert (np.abs(got - exact) <= 1e-6 * scale + 1e-6 * np.abs(exact)).all()


@pytest.fixture(params=list(WAYS))
def way(request) -> str:
    return request.param


@pytest.mark.parametrize("steps", [64, 208])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "x".join(map(str, sizes)))
def test_any_size_is_a_product(way, sizes, steps):
    rows, depth, columns = sizes
    a, b = normal(rows, depth), normal(depth, columns, seed=1)
    for own in (28, 41, 64):
        assert_near(product(way, a, b, own, steps), a, b, a.astype(np.float64) @ b)


@pytest.mark.parametrize("held", ["f16", "bf16"])
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "x".join(map(str, sizes)))
def test_panels_of_16_bits_give_what_those_of_float32_do(way, sizes, held):
    rows, depth, columns = sizes
    a, b = normal(rows, depth), normal(depth, columns, seed=1).astype(halves.numpy_type(held)).astype(np.float32)
    b[:, :1] *= 128  # a column that is no pair's
    for own, steps in ((28, 64), (64, 208)):
        np.testing.assert_array_equal(product(way, a, b, own, steps, held=held), product(way, a, b, own, steps))


@pytest.mark.parametrize("depth", [1, 2, 11, 12, 13, 24, 35, 36, 47, 48, 49, 59, 60, 97])
def test_pairs_take_any_depth_and_any_height_of_tiles(depth):
    b = normal(depth, 70, seed=1)
    for rows in range(1, 2 * pairingwords.HEIGHTS[0] + 2):
        a = normal(rows, depth)
        for steps in (12, 48, 768):
            assert_near(product("pairing", a, b, rows, steps), a, b, a.astype(np.float64) @ b)


@pytest.mark.parametrize("decades", [0, 6])
def test_strassens_errors_are_a_few_times_those_of_parts_added_up(decades):
    """Whatever sizes columns have: neighbours are added up at one scale."""
    a, b = normal(256, 768), normal(768, 256, seed=1)
    b *= 10.0 ** np.random.default_rng(2).uniform(-decades, decades, 256).astype(np.float32)
    assert 3.5e-7 < relative(product("strassen", a, b, 64, 384), a, b) < 7e-7  # direct ones: 2e-7


@pytest.mark.parametrize("mean", [0, 1], ids=["normal", "positive"])
def test_errors_of_pairs_are_little_more_than_those_of_a_plain_sum(mean):
    """Of operands of one sign too, whose pairs would add up if every other one were not of differences."""
    a, b = (normal(256, 768) + 3 * mean) * np.float32(20), normal(768, 256, seed=1) * np.float32(0.05)
    plain = np.zeros((256, 256), np.float32)
    for k in range(768):
        plain += a[:, k, None] * b[k]
    error = relative(product("pairing", a, b, 128, 768), a, b)
    assert 2e-7 < error < (1.4 if target.current().fma else 1.6) * relative(plain, a, b)


def relative(got: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The root mean square of errors by that of columns."""
    exact = a.astype(np.float64) @ b
    return np.sqrt(np.mean(((got - exact) / exact.std(axis=0)) ** 2))


def test_bias_residual_limits_and_epilogue(way):
    a, b, bias, residual = normal(150, 260), normal(260, 100, seed=1), normal(100, seed=2), normal(150, 100, seed=3)
    total = a.astype(np.float64) @ b + bias
    assert_near(product(way, a, b, bias=bias), a, b, total)
    clipped = product(way, a, b, bias=bias, residual=residual, low=-3.0, high=5.0)
    assert_near(clipped, a, b, np.clip(total + residual, -3, 5))
    assert_near(product(way, a, b, bias=bias, epilogue=True), a, b, 2 * total)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_and_infinity_go_where_direct_products_take_them(way, value):
    for place in ((3, 7), (3, 200), (40, 7), (149, 259)):
        a, b = normal(150, 260), normal(260, 3 * PAIR, seed=1)
        a[place] = value
        b[5, 2] = value
        with np.errstate(invalid="ignore"):
            expected = a @ b
        got = product(way, a, b)
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))
        finite = np.isfinite(expected)
        np.testing.assert_allclose(got[finite], expected[finite], rtol=1e-3, atol=1e-4)


def test_small_rows_keep_their_digits_beside_large_ones(way):
    a, b = normal(168, 260), normal(260, 2 * PAIR, seed=1)
    a *= 10.0 ** np.random.default_rng(2).integers(-12, 12, (168, 1)).astype(np.float32)
    a[5] = 0
    got = product(way, a, b)
    assert_near(got, a, b, a.astype(np.float64) @ b)
    assert (got[5] == 0).all()


def test_small_columns_keep_their_digits_beside_large_ones(way):
    a, b = normal(168, 260), normal(260, 2 * PAIR, seed=1)
    b *= 10.0 ** np.random.default_rng(2).integers(-12, 12, 2 * PAIR).astype(np.float32)
    b[:, 9] = 0
    got = product(way, a, b)
    assert_near(got, a, b, a.astype(np.float64) @ b)
    assert (got[:, 9] == 0).all()


def test_features_whose_scales_the_weights_make_up_for_keep_their_digits(way):
    scales = 10.0 ** np.random.default_rng(2).integers(-6, 7, 260).astype(np.float32)
    a, b = normal(168, 260) * scales, normal(260, 2 * PAIR, seed=1) / scales[:, None]
    exact = a.astype(np.float64) @ b
    assert np.abs(product(way, a, b) - exact).max() < 1e-5 * exact.std()


def test_rows_beside_one_that_is_not_a_number_go_without_pairs():
    tallest = pairingwords.HEIGHTS[0]
    a, b = normal(3 * tallest, 768), normal(768, PAIR, seed=1)
    paired = product("pairing", a, b, 3 * tallest, 768)
    a[0, 5] = np.nan
    got = product("pairing", a, b, 3 * tallest, 768)
    assert (got[tallest:] == paired[tallest:]).all()
    assert (got[1:tallest] != paired[1:tallest]).any()
    assert_near(got[1:], a[1:], b, a[1:].astype(np.float64) @ b)


def test_sums_of_operands_do_not_overflow(way):
    a, b = normal(168, 260) * np.float32(3e37), normal(260, 2 * PAIR, seed=1) * np.float32(1e-3)
    assert_near(product(way, a, b) / 1e30, a / 1e30, b, a.astype(np.float64) @ b / 1e30)


# -- where they are taken
FAST = ways._of(1024, 1024)
taken = pytest.mark.skipif(FAST is None, reason="no way is faster than the direct one on this CPU")


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
def test_products_of_many_rows_go_the_fast_way_and_those_of_few_the_direct_one():
    for rows, names in ((1024, [FAST.kernel().name]), (ways.VECTORS - 1, ["conv"])):
        model, theirs = network(str(rows))
        ours, feeds = jitrt.InferenceSession(model), {"x": normal(rows, 1024)}
        np.testing.assert_allclose(ours.run(None, feeds)[0], theirs.run(None, feeds)[0], rtol=1e-4, atol=1e-4)
        assert [step.kernel.name for step in ours.get_plan(feeds).steps] == names


@taken
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("tail", ["Relu (s)", "Erf (s)"])  # in registers, and by an epilogue
def test_a_1x1_convolution_is_a_product_of_all_pixels(images, tail):
    weights, bias = normal(130, 96, 1, 1, seed=1) / 10, normal(130, seed=2)
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
        g (float[{images},96,21,13] x, float[{images},130,21,13] r) => (float[{images},130,21,13] y) {{
            c = Conv (x, w, b)  s = Add (c, r)  y = {tail} }}"""
    model = parser.parse_model(text)
    model.graph.initializer.extend([numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")])
    feeds = {"x": normal(images, 96, 21, 13), "r": normal(images, 130, 21, 13, seed=3)}
    raw = model.SerializeToString()
    session, other = jitrt.InferenceSession(raw), onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feeds)[0], other.run(None, feeds)[0], 2e-5, 2e-5)
    kernels = {step.kernel.name for step in session.get_plan().steps}
    fast = target.current().pairs and (images == 1 or tail == "Relu (s)")
    assert ("pairing" if fast else "conv") in kernels


def test_a_plan_for_any_number_of_rows_takes_either_way():
    model, theirs = network("rows")
    ours = jitrt.InferenceSession(model)
    for rows in (40, 900, 1024, 57, 333, 1, 700):
        feeds = {"x": normal(rows, 1024)}
        np.testing.assert_allclose(ours.run(None, feeds)[0], theirs.run(None, feeds)[0], rtol=1e-4, atol=1e-4, err_msg=str(rows))
    steps = ours.get_plan({"x": normal(800, 1024)}).steps
    assert [step.kernel.name for step in steps] == ["conv", *([FAST.kernel().name] if FAST else [])]


@taken
def test_a_plan_for_some_vectors_does_without():
    model, _ = network("rows")
    ours = jitrt.InferenceSession(model)
    for rows in (13, 14, ways.SERVED):
        feeds = {"x": normal(rows, 1024)}
        ours.run(None, feeds)
        plan = ours.get_plan(feeds)
        assert [step.kernel.name for step in plan.steps] == ["conv"]
    assert any(str(guard).startswith(f"rows <= {ways.SERVED}: ") for guard in plan.guards)


@pytest.mark.skipif(not strassen.possible(1024, 1024), reason="register tiles are too low on this CPU")
def test_strassens_cost_model_cuts_what_it_takes_without_rest():
    for rows, depth, columns in ((1024, 1024, 1024), (1000, 1030, 768), (3001, 768, 1000), (257, 4096, 4096)):
        made = strassen.cut(rows, depth, columns, 2)
        assert made.tasks == -(-made.blocks // made.own_blocks) * made.pair_tasks > 0
        assert 2 * made.half * made.blocks >= rows > 2 * made.half * (made.blocks - 1)
        assert made.first * made.count + made.second * made.seconds == made.half
        assert 2 * made.steps * made.k_blocks >= depth > 2 * made.steps * (made.k_blocks - 1)
    assert strassen.cut(40, 768, 768, 2) == strassen.Cut()


@pytest.mark.skipif(FAST is not pairing, reason="additions do not run beside multiply-adds on this CPU")
def test_the_cost_model_of_pairs_cuts_what_it_takes_without_rest():
    for rows, depth, columns in ((1024, 1024, 1024), (17, 384, 384), (1000, 1030, 768), (3001, 96, 1000), (257, 4099, 4096)):
        made = pairing.cut(rows, depth, columns, 2)
        panels = -(-columns // panel_width(4))
        assert made.tasks == -(-rows // made.own_rows) * made.panel_tasks > 0
        assert made.own_panels * made.panel_tasks >= panels > made.own_panels * (made.panel_tasks - 1)
        assert 0 < made.steps <= pairingwords.MOST_STEPS
        assert made.steps % pairingwords.TURN == 0
    assert pairing.cut(15, 768, 768, 2) == pairing.Cut()


@taken
def test_a_tasks_memory_does_not_grow_with_the_rows():
    for rows in (10_000, 1_000_003):
        made = FAST.cut(rows, 1024, 1024, 2)
        assert made.tasks > 4
        room, weights = Matrix(0, (1, rows, 1024), (0, 4096, 4)), PackedWeights((1024, 1024, 1, 1, 1), 1)
        assert FAST.launch(room, weights, room, None, (0, -np.inf, np.inf, 0, 0), made, "").scratch < 8 << 20
