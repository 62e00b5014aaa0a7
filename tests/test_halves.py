"""Constants of which a 16-bit type has every value: which those are, and that products with them lose nothing."""

from __future__ import annotations

from unittest import mock

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import jitrt
from benchmarks import zoo
from jitrt.ops import weights as module
from jitrt.ops.kernels import gemv, halves, target
from jitrt.ops.weights import Weight

FLOAT16 = ("f16",) if target.current().half else ()
every = np.arange(1 << 16, dtype=np.uint16)
# all finite values of the types, in no order in which the first ones say it all
values = {
    "f16": np.random.default_rng(0).permutation(every.view(np.float16)[np.isfinite(every.view(np.float16))].astype(np.float32)),
    "bf16": np.random.default_rng(0).permutation(every.view(ml_dtypes.bfloat16).astype(np.float32)),
}


def test_all_values_of_the_types_are_held_and_come_back():
    assert halves.holding(values["f16"]) == FLOAT16
    assert halves.holding(values["bf16"]) == ("bf16",)
    for half, x in values.items():
        held = halves.narrowed(x, half)
        assert held.dtype == halves.numpy_type(half)
        back = held.astype(np.float32)
        assert ((back.view(np.uint32) == x.view(np.uint32)) | np.isnan(x)).all()
        assert (np.isnan(back) == np.isnan(x)).all()


@pytest.mark.parametrize("value", [65520.0, 65536.0, -1e6, np.inf, -np.inf, np.nan, 2.0**-25, 1.5 * 2.0**-24, 1 + 2.0**-11, 1e-40])
@pytest.mark.parametrize("place", [0, 1, 5000, 200_000, -1])
def test_one_value_that_float16_does_not_have_is_found_wherever_it_is(value, place):
    x = np.resize(values["f16"], 300_000)
    x[place] = value
    assert halves.holding(x) == ()


def test_one_value_that_bfloat16_does_not_have_is_found():
    x = np.resize(values["bf16"], 300_000)
    x[-1] = 1 + 2.0**-8
    assert halves.holding(x) == ()


def test_views_are_looked_at_too_and_nothing_needs_no_type():
    x = values["f16"].copy()[:60_000].reshape(200, 300)
    assert halves.holding(x.T) == halves.holding(x[:, ::2]) == FLOAT16
    assert halves.holding(np.zeros((0, 3), np.float32)) == halves.holding(np.ones(5)) == ()
    assert halves.holding(np.zeros(5, np.float32)) == ("bf16", *FLOAT16)


def test_a_weight_knows_by_its_type_or_its_content():
    x = values["f16"][:4096].reshape(64, 64)
    rng = np.random.default_rng(1)
    assert Weight(x).fitting == Weight(x).view(None, (4096,)).fitting == FLOAT16
    assert Weight(x.astype(np.float16)).cast(np.dtype(np.float32)).fitting == FLOAT16
    assert Weight(x.astype(np.float64)).cast(np.dtype(np.float32)).fitting == ()
    assert Weight(rng.standard_normal(4096).astype(np.float32)).fitting == ()
    for parts, expected in (([Weight(x), x, np.zeros((2, 64), np.float32)], FLOAT16), ([x, rng.random((3, 64), np.float32)], ())):
        whole = Weight.made_by(
            lambda parts=parts: np.concatenate(parts), x.dtype, (sum(part.shape[0] for part in parts), 64), parts=parts
        )
        assert whole.fitting == expected
    assert (Weight(x).half, Weight(np.ones(9)).half) == (FLOAT16[0] if FLOAT16 else "", "")


def test_a_file_is_looked_at_without_its_pages_staying(tmp_path):
    np.full((256, 1024), 0.5, np.float32).tofile(tmp_path / "w")
    mapped = np.memmap(tmp_path / "w", np.float32, "r", shape=(256, 1024))
    with mock.patch.object(module, "give_back", wraps=module.give_back) as given_back:
        assert Weight(mapped).half == "bf16"
    assert given_back.call_args.args[0] is mapped


def product(w: np.ndarray, entry: str = "exact", dtype: str = "float", rows: int | str = "N") -> jitrt.InferenceSession:
    signature = f"({dtype}[{rows},{len(w)}] x) => ({dtype}[{rows},{w.shape[1]}] y)"
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> g {signature} {{ y = MatMul (x, w) }}')
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    options = jitrt.SessionOptions()
    options.add_session_config_entry("jitrt.weights", entry)
    return jitrt.InferenceSession(model.SerializeToString(), options)


def types_held(session: jitrt.InferenceSession) -> list[str]:
    return [place.dtype.name for _, place in session._engine.shared.weights._places.values()]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 11, 12, 13, 15, 16, 40, 200])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_are_bit_for_bit_those_with_float32(dtype, rows):
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((260, 150)).astype(dtype).astype(np.float32), rng.standard_normal((rows, 260)).astype(np.float32)
    found, expected = (product(w, entry, rows=rows).run(None, {"x": x})[0] for entry in ("exact", "float32"))
    if gemv.many(False) <= rows < gemv.many(True):  # by another kernel, in another order
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_matrices_are_held_once_and_come_back_as_they_were(dtype):
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((260, 150)).astype(dtype).astype(np.float32), rng.standard_normal((3, 260)).astype(np.float32)
    ours = product(w)
    ours.run(None, {"x": x})
    held = dtype if dtype == "bfloat16" or FLOAT16 else "float32"
    assert types_held(ours) == [held]
    assert types_held(product(w, "float32")) == ["float32"]
    suffix = f" {halves.TYPES[held]}" if held in halves.TYPES else ""
    assert all(step.shape.endswith(f"x260x150{suffix}") for step in ours.get_plan({"x": x}).steps)
    weight = ours._engine.graph.constants["w"]
    assert weight._array is None
    np.testing.assert_array_equal(weight.array(), w)
    np.testing.assert_array_equal(ours.run(["w"], {"x": x})[0], w)
    assert not ours._engine.rounded(["w"])


def test_a_single_value_keeps_a_constant_as_it_is():
    w = np.random.default_rng(0).standard_normal((260, 150)).astype(np.float16).astype(np.float32)
    w[259, 149] += np.float32(1e-7)
    assert types_held(product(w)) == ["float32"]


def test_rounded_only_where_there_is_no_other_way_and_exact_by_name():
    """With `bfloat16`: values of float16 are held as these; others come back as they were when they are asked for by name."""
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((260, 150)).astype(np.float32), rng.standard_normal((3, 260)).astype(np.float32)
    for values, held in ((w, "bfloat16"), (w.astype(np.float16).astype(np.float32), "float16" if FLOAT16 else "bfloat16")):
        ours = product(values, "bfloat16")
        assert types_held(ours) == [held]
        found, by_name = ours.run(["y", "w"], {"x": x})
        np.testing.assert_allclose(found, x @ values.astype(held).astype(np.float32), rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(by_name, values)
        assert ours._engine.graph.constants["w"]._array is None


def test_who_reads_a_rounded_constant_as_it_is_gets_it_so():
    text = "v = Gather (w, i) y = MatMul (x, w)"
    signature = "(float[3,260] x, int64[2] i) => (float[3,150] y, float[2,150] v)"
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> g {signature} {{ {text} }}')
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((260, 150)).astype(np.float32), rng.standard_normal((3, 260)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    options = jitrt.SessionOptions()
    options.add_session_config_entry("jitrt.weights", "bfloat16")
    ours = jitrt.InferenceSession(model.SerializeToString(), options)
    for i in ([0, 259], [7, 8]):
        y, rows = ours.run(None, {"x": x, "i": np.array(i)})
        np.testing.assert_array_equal(rows, w[i])
        np.testing.assert_allclose(y, x @ w.astype("bfloat16").astype(np.float32), rtol=1e-5, atol=1e-4)


def test_integers_that_are_converted_are_held_once():
    w, x = np.arange(-100, 100, dtype=np.int8).repeat(400).reshape(400, 200), np.ones((2, 400), np.float32)
    text = "f = Cast <to = 1> (w) y = MatMul (x, f)"
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> g (float[2,400] x) => (float[2,200] y) {{ {text} }}')
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    ours = jitrt.InferenceSession(model.SerializeToString())
    found, by_name = ours.run(["y", "w"], {"x": x})
    np.testing.assert_array_equal(found, x @ w.astype(np.float32))
    np.testing.assert_array_equal(by_name, w)
    assert ours._engine.graph.constants["w"]._array is None


def test_constants_of_float16_stay_that_and_are_held_once():
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((260, 150)).astype(np.float16), rng.standard_normal((3, 260)).astype(np.float16)
    ours = product(w, dtype="float16")
    np.testing.assert_allclose(ours.run(None, {"x": x})[0], x.astype(np.float64) @ w.astype(np.float64), rtol=2e-3, atol=2e-2)
    assert types_held(ours) == ["float16" if FLOAT16 else "float32"]
    assert ours._engine.graph.constants["w"]._array is None
    np.testing.assert_array_equal(ours.run(["w"], {"x": x})[0], w)


def test_queries_that_are_multiplied_by_a_number_keep_their_matrix():
    """As in Whisper: what is multiplied is scores, so that matrices stay, and those for queries, keys and values are one."""
    sizes = {"layers": 1, "width": 128, "heads": 2, "vocabulary": 300}
    model, feeds = zoo.build("whisper_tiny_decoder", **sizes), zoo.inputs("whisper_tiny_decoder", **sizes)
    ours = jitrt.InferenceSession(model.SerializeToString())
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for got, expected in zip(ours.run(None, feeds), theirs.run(None, feeds), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert set(types_held(ours)) == {"float16" if FLOAT16 else "float32"}
    names = [step.kernel.name for step in ours.get_plan(feeds).steps]
    assert names.count("attention") == 2
    assert names.count("gemv") == 7  # of one layer, and logits
    assert "mul" not in names


def test_one_constant_serves_a_table_and_a_product():
    """As the tied embeddings of a decoder do: a table is read as it is."""
    w = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float16).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["x"]), helper.make_node("Transpose", ["w"], ["v"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("i", TensorProto.INT64, [2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 300])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    ours = jitrt.InferenceSession(model.SerializeToString())
    i = np.array([7, 299])
    np.testing.assert_allclose(ours.run(None, {"i": i})[0], w[i].astype(np.float64) @ w.T, rtol=1e-5, atol=1e-5)
    assert types_held(ours) == ["float16" if FLOAT16 else "float32"]
