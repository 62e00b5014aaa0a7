"""Constants that are held once: packed, released, unpacked when somebody asks; memory that they lie in."""

from __future__ import annotations

import os
import pickle
import threading
import weakref

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import jitrt as ort
from jitrt.engine import Engine
from jitrt.fusion import importer, parallel
from jitrt.fusion.weights import Weights
from jitrt.ops.kernels import gemm
from jitrt.ops.kernels.convweights import pack_weights, weights_packing
from jitrt.ops.kernels.packing import Packing
from jitrt.ops.kernels.winograd import in_groups, pack_winograd, winograd_packing
from jitrt.ops.kernels.winogradforms import Form, forms
from jitrt.ops.pages import HUGE_PAGE, aligned, give_back, lasting
from jitrt.ops.primitives import Permute, Reshape, Slice, Tensor
from jitrt.ops.weights import Weight

RNG = np.random.default_rng(5)


def numbers(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def model(nodes: list, inputs: dict, outputs: list[str], constants: dict, also_inputs: tuple[str, ...] = ()) -> onnx.ModelProto:
    declared = {**inputs, **{n: constants[n].shape for n in also_inputs}}
    infos = [
        helper.make_tensor_value_info(n, TensorProto.INT64 if n == "ids" else TensorProto.FLOAT, s) for n, s in declared.items()
    ]
    graph = helper.make_graph(
        nodes, "g", infos, [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(x, n) for n, x in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def product_model() -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    w, x = numbers(130, 301), numbers(7, 130)
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 130]}, ["y"], {"w": w}), w, x


# -- layouts
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 3, 1), (33, 5, 3, 3), (130, 70, 1, 1), (12, 2, 3, 1, 2), (8, 0, 3)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_packed_filters_hold_all_values(shape, groups, dtype):
    shape = (shape[0] * groups, *shape[1:])
    w = (100 * numbers(*shape)).astype(dtype)
    how = weights_packing(shape, w.dtype, groups)
    packed = pack_weights(w, groups)
    assert packed.shape == how.shape
    np.testing.assert_array_equal(how.unpack(packed), w)


@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (0, 5), (5, 0), (300, 1031), (2000, 16)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_packed_matrices_hold_all_values(shape, order, dtype):
    b = np.asarray(100 * numbers(*shape), dtype, order=order)
    how = gemm.packing(shape, b.dtype)
    packed = how.make(b)
    np.testing.assert_array_equal(how.unpack(packed), b)
    width = packed.shape[2]
    assert not packed[-1:, :, shape[1] - (packed.shape[0] - 1) * width :].any()


@pytest.mark.parametrize("shape", [(1, 3, 17), (3, 130, 40), (4, 0, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_packed_batch_holds_all_values(shape, dtype):
    b = (100 * numbers(*shape)).astype(dtype)
    how = gemm.batch_packing(shape, b.dtype)
    packed = how.make(b)
    np.testing.assert_array_equal(packed, [gemm.pack(each) for each in b])
    np.testing.assert_array_equal(how.unpack(packed), b)


@pytest.mark.parametrize("shape", [(16, 8), (20, 65), (3, 130)])
def test_parts_of_a_layout_may_be_made_in_any_order(shape):
    w = numbers(*shape, 3, 3)
    for how, made in (
        (winograd_packing(w.shape, Form((3, 3), 6)), pack_winograd(w, Form((3, 3), 6))),
        (weights_packing(w.shape, w.dtype, 1), pack_weights(w, 1)),
    ):
        packed = np.full(how.shape, np.nan, how.dtype)
        for part in reversed(range(how.parts)):
            how.fill(w, packed, part)
        np.testing.assert_array_equal(packed, made)


FILTERS = [(16, 8, 3, 3), (20, 65, 3), (33, 7, 5, 5), (6, 130, 1, 7), (0, 4, 3, 3), (8, 2, 7, 7)]


@pytest.mark.parametrize("shape", FILTERS)
@pytest.mark.parametrize("groups", [1, 3])
def test_transformed_filters_hold_all_values_but_for_rounding(shape, groups):
    shape = (shape[0] * groups, *shape[1:])
    w = numbers(*shape) * np.exp(3 * numbers(*shape))
    made = forms((1, *shape[2:])[-2:])
    assert made
    for form in made:
        how = winograd_packing(shape, form, groups)
        found = how.unpack(how.make(w))
        assert how.nearly != in_groups(shape, form, groups)  # those of small groups are not transformed yet
        assert found.dtype == np.float32
        assert found.shape == shape
        largest = np.abs(w).max(axis=tuple(range(2, len(shape))), keepdims=True, initial=0)
        assert (np.abs(found - w) <= (1e-7 if shape[2:] == (3, 3) else 1e-6) * largest).all()


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (20, 66, 3, 3), (33, 130, 1, 3), (16, 8, 3, 1)])
@pytest.mark.parametrize("groups", [1, 3])
def test_transformed_integers_hold_all_values(shape, groups):
    w = RNG.integers(-255, 256, (shape[0] * groups, *shape[1:])).astype(np.int16)
    made = forms(shape[2:], whole=True)
    assert made
    for form in made:
        how = winograd_packing(w.shape, form, groups)
        assert not how.nearly
        np.testing.assert_array_equal(how.unpack(how.make(w)), w)


# -- weights
def test_a_released_weight_is_what_its_views_say():
    array = numbers(6, 4, 5)
    weight = Weight(array.copy())
    view = weight.view(Permute((2, 0, 1)), (5, 6, 4)).view(Reshape((5, 24)), (5, 24))
    kept = view.array().copy()
    view.release(lambda: kept)
    np.testing.assert_array_equal(weight.array(), array)
    np.testing.assert_array_equal(view.array(), kept)


def test_a_weight_in_use_is_not_made_again():
    weight = Weight(numbers(50, 3))
    used = weight.array()
    weight.release(lambda: pytest.fail("the array is alive"))
    assert weight.array() is used


def test_what_holds_all_values_is_not_replaced_by_what_has_rounded_them():
    array = numbers(6, 4)
    for releases, exact in (([True, False], True), ([False, True], True), ([True], False), ([False], True)):
        weight = Weight(array.copy())
        for nearly in releases:
            weight.view(Permute((1, 0)), (4, 6)).release(lambda nearly=nearly: array.T + nearly, nearly)
        np.testing.assert_array_equal(weight.array(), array if exact else array + 1)
        assert weight.rounded == (releases[0] is True)  # what was packed later may come from rounded values


def test_released_bytes_are_what_wider_integers_say():
    array = np.arange(-128, 127, 3, np.int8)
    weight = Weight(array.copy())
    wide = weight.cast(np.int16)
    kept = wide.array()
    wide.release(lambda: kept)
    np.testing.assert_array_equal(weight.array(), array)
    assert weight.array().dtype == np.int8


def test_a_part_or_a_conversion_does_not_stand_for_the_whole():
    array = numbers(8, 3)
    weight = Weight(array)
    for derived in (weight.view(Slice((2, 0), (1, 1), (4, 3)), (4, 3)), weight.cast(np.float16)):
        derived.release(lambda: pytest.fail("this does not hold the weight"))
    assert weight.array() is array


def test_a_place_whose_filling_fails_is_filled_later():
    failures = [True]

    def fill(source, packed, part):
        if failures:
            raise MemoryError(failures.pop())
        packed[part] = source[part]

    weights, x = Weights(), numbers(4)
    place = weights.packed(Tensor(x.dtype, x.shape, x), "copy", Packing((4,), x.dtype, 4, fill))
    with pytest.raises(MemoryError):
        weights.complete(2)
    weights.complete(2)
    np.testing.assert_array_equal(place, x)


def test_large_places_are_filled_by_size_and_small_ones_as_they_lie_in_memory():
    sizes = [100, 8 * HUGE_PAGE, 70, 4 * HUGE_PAGE, 9 * HUGE_PAGE, 90, 0]
    memory, filled = np.empty(sum(sizes), np.uint8), []
    ends = iter(np.cumsum(sizes[::-1])[::-1])  # later places lie before earlier ones
    weights = Weights(allocate=lambda n: memory[(end := next(ends)) - n : end])
    for size in sizes:
        x = np.zeros(max(size, 1), np.uint8)[:size]
        how = Packing((size,), x.dtype, 1, lambda source, packed, part: filled.append(packed.nbytes))
        weights.packed(Tensor(x.dtype, x.shape, x), size, how)
    weights.complete(1)
    assert filled == [9 * HUGE_PAGE, 8 * HUGE_PAGE, 4 * HUGE_PAGE, 90, 0, 70, 100]


@pytest.mark.parametrize(("count", "threads"), [(0, 2), (1, 4), (100, 1), (1000, 3)])
def test_shared_work_is_done_once(count, threads):
    done: list[int] = []
    parallel.run(count, done.append, threads)
    assert sorted(done) == list(range(count))


def test_an_error_in_shared_work_is_raised_when_all_threads_have_ended():
    def work(number):
        if number == 5:
            raise KeyError(number)

    with pytest.raises(KeyError):
        parallel.run(100, work, 3)
    assert not [t for t in threading.enumerate() if t.daemon and "take" in t.name]


# -- sessions
def test_a_packed_weight_is_not_kept_beside_its_packed_form():
    made, w, x = product_model()
    graph = importer.load(made).graph
    plain = weakref.ref(graph.constants["w"].array())
    assert plain() is not None
    engine = Engine(graph, 2)
    assert plain() is None
    np.testing.assert_allclose(engine.run({"x": x}, ["y"])[0], x @ w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 20, 33), (1, 3, 20, 33), (3, 200, 70)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_constant_batch_of_matrices_is_packed_once_and_read_by_every_run(shape, turned):
    w, x = numbers(*shape), numbers(*shape[:-1])[..., None, :] + numbers(5, 1)
    swapped = (*range(w.ndim - 2), w.ndim - 1, w.ndim - 2)
    nodes = [helper.make_node("MatMul", ["x", "b"], ["y"])]
    if turned:
        nodes.insert(0, helper.make_node("Transpose", ["w"], ["b"], perm=swapped))
    given = {"w": np.ascontiguousarray(w.transpose(swapped))} if turned else {"b": w}
    session = ort.InferenceSession(model(nodes, {"x": list(x.shape)}, ["y"], given).SerializeToString())
    plan = session.get_plan({"x": x})
    assert [step.kernel.name for step in plan.steps] == ["conv"]
    for factor in (1, -2):
        np.testing.assert_allclose(session.run(None, {"x": factor * x})[0], factor * x @ w, rtol=1e-4, atol=1e-5)


def test_a_constant_batch_that_repeats_is_not_packed_for_each_repetition():
    w, x = numbers(3, 20, 33), numbers(2, 3, 5, 20)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    session = ort.InferenceSession(model(nodes, {"x": ["n", 3, 5, 20]}, ["y"], {"w": w}).SerializeToString())
    for n in (2, 1, 3, 4):
        some = np.resize(x, (n, *x.shape[1:]))
        np.testing.assert_allclose(session.run(None, {"x": some})[0], some @ w, rtol=1e-4, atol=1e-5)


def test_weights_can_be_asked_for_by_name_before_and_after_packing():
    filters, w = numbers(24, 65, 1, 1), numbers(50, 24 * 25)
    nodes = [
        helper.make_node("Conv", ["x", "filters"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    w = np.concatenate([w] * 2)
    one = ort.InferenceSession(model(nodes, {"x": [1, 65, 5, 5]}, ["y"], {"filters": filters, "w": w}).SerializeToString())
    x = numbers(1, 65, 5, 5)
    for _ in range(2):
        for name, array in (("w", w), ("filters", filters)):
            np.testing.assert_array_equal(one.run([name], {"x": x})[0], array)
        expected = np.einsum("nchw,oc->nohw", x, filters[:, :, 0, 0]).reshape(1, -1) @ w.T
        np.testing.assert_allclose(one.run(None, {"x": x})[0], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(one.graph.constants["w"]), w)


def test_a_new_size_finds_released_weights_packed_or_packs_them_otherwise():
    w, b = numbers(64, 64, 3, 3), numbers(64)
    made = model([helper.make_node("Conv", ["x", "w", "b"], ["y"])], {"x": ["n", 64, "h", "h"]}, ["y"], {"w": w, "b": b})
    one = ort.InferenceSession(made.SerializeToString())
    for batch, size in ((1, 4), (1, 40), (2, 4), (1, 7), (1, 40)):
        x = numbers(batch, 64, size, size)
        windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), (2, 3))
        expected = np.einsum("nchwij,ocij->nohw", windows, w, optimize=True) + b[:, None, None]
        np.testing.assert_allclose(one.run(None, {"x": x})[0], expected, rtol=1e-3, atol=1e-3)


def _winograd_model() -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    w, v = numbers(64, 64, 3, 3), numbers(64, 64, 3, 3)
    scale = {"scale": numbers(64), "shift": numbers(64), "mean": numbers(64), "variance": np.abs(numbers(64)) + 1}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "v"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", *scale], ["y"]),
    ]
    return model(nodes, {"x": ["n", 64, "h", "h"]}, ["y"], {"w": w, "v": v, **scale}), w, v


def test_filters_are_not_kept_beside_transformed_ones():
    made, w, _ = _winograd_model()
    graph = importer.load(made).graph
    plain = [weakref.ref(graph.constants[name]) for name in ("w", "v")]
    engine = Engine(graph, 2)
    del graph
    x = numbers(1, 64, 32, 32)
    engine.run({"x": x}, ["y"])
    assert {"winograd_input"} <= {step.kernel.name for step in engine.plan({"x": x}).steps}
    assert [weight() is None for weight in plain] == [True, True]
    assert engine.graph.constants["w"].rounded
    largest = np.abs(w).max((2, 3), keepdims=True)
    assert (np.abs(np.asarray(engine.graph.constants["w"]) - w) <= 1e-7 * largest).all()


@pytest.mark.parametrize("source", ["path", "mapped", "bytes", "message"])
def test_filters_asked_for_by_name_are_the_models(tmp_path, source):
    made, w, v = _winograd_model()
    path = tmp_path / "m.onnx"
    content = made.SerializeToString()
    onnx.save(made, path, save_as_external_data=source == "mapped", location="w.bin", size_threshold=100_000)
    made = onnx.load_from_string(content)
    one = ort.InferenceSession({"path": path, "mapped": path, "bytes": content, "message": made}[source])
    x = numbers(1, 64, 32, 32)
    expected = one.run(["a", "y"], {"x": x})
    assert one.graph.constants["w"].rounded == (source != "mapped")
    for _ in range(2):
        np.testing.assert_array_equal(one.run(["w"], {"x": x})[0], w)
        np.testing.assert_array_equal(one.run(["v"], {"x": x})[0], v)
        np.testing.assert_array_equal(one.run(["y"], {"x": x})[0], expected[1])
    if source == "path":
        path.write_bytes(b"something else")
        other = ort.InferenceSession(made).run(None, {"x": x[:, :, :5, :5]})[0]
        np.testing.assert_allclose(one.run(None, {"x": x[:, :, :5, :5]})[0], other, rtol=1e-4, atol=1e-3)


def test_a_table_that_is_also_a_matrix_is_read_as_both():
    table = numbers(401, 48)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["rows", "turned"], ["y"]),
    ]
    one = ort.InferenceSession(model(nodes, {"ids": ["n"]}, ["y"], {"table": table}).SerializeToString())
    for count in (3, 8):
        ids = np.arange(count) * 7
        np.testing.assert_allclose(one.run(None, {"ids": ids})[0], table[ids] @ table.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(one.run(["turned"], {"ids": ids})[0], table.T)


def test_a_batch_norm_is_in_the_weights_once_they_are_needed_and_the_originals_can_be_asked_for():
    w, parts = numbers(64, 70, 2, 2), {n: np.abs(numbers(64)) + 0.5 for n in ("scale", "shift", "mean", "variance")}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", *parts], ["n"], epsilon=0.5),
        helper.make_node("Mul", ["n", "half"], ["y"]),
    ]
    made = model(nodes, {"x": ["b", 70, 4, 4]}, ["y"], {"w": w, "half": np.float32(0.5), **parts})
    one = ort.InferenceSession(made.SerializeToString())
    for batch in (1, 3):
        x = numbers(batch, 70, 4, 4)
        windows = x.astype(np.float64).reshape(batch, 70, 2, 2, 2, 2)
        products = np.einsum("nchiwj,ocij->nohw", windows, w, optimize=True)
        scale, shift, mean, variance = (p[:, None, None] for p in parts.values())
        expected = ((products - mean) / np.sqrt(variance + 0.5) * scale + shift) / 2
        np.testing.assert_allclose(one.run(None, {"x": x})[0], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(one.run(["c"], {"x": x})[0], products, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(one.run(["w"], {"x": x})[0], w)
    assert {step.kernel.name for step in one.get_plan({"x": x}).steps} <= {"conv", "pad_copy"}


def test_an_overridable_weight_is_the_models_again_after_another_one():
    w, x = numbers(130, 301), numbers(7, 130)
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [7, 130]}, ["y"], {"w": w}, also_inputs=("w",))
    one = ort.InferenceSession(made.SerializeToString())
    for other in (None, w + 1, None, 2 * w):
        feeds = {"x": x} if other is None else {"x": x, "w": other}
        np.testing.assert_allclose(one.run(None, feeds)[0], x @ (w if other is None else other), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("external", [False, True])
def test_weights_of_a_file_outlive_it(tmp_path, external):
    made, w, x = product_model()
    path = tmp_path / "m.onnx"
    onnx.save(made, path, save_as_external_data=external, location="w.bin", size_threshold=0)
    one = ort.InferenceSession(path)
    if not external:
        path.write_bytes(b"something else")
    for rows in (7, 2):
        np.testing.assert_allclose(one.run(None, {"x": x[:rows]})[0], x[:rows] @ w, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one.run(["w"], {"x": x})[0], w)


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("source", ["path", "bytes", "message"])
def test_products_ask_for_what_was_packed_ahead(tmp_path, trans, source):
    w, v, x = numbers(301, 130) if trans else numbers(130, 301), numbers(301, 70), numbers(7, 130)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["a"], transB=trans, alpha=0.5), helper.make_node("MatMul", ["a", "v"], ["y"])]
    path = tmp_path / "m.onnx"
    onnx.save(model(nodes, {"x": ["n", 130]}, ["y"], {"w": w, "v": v}), path)
    graph = importer.load(path if source == "path" else path.read_bytes() if source == "bytes" else onnx.load(path)).graph
    assert all(isinstance(graph.constants[name], Weight) for name in ("w", "v"))
    engine = Engine(graph, 2)
    path.write_bytes(b"")
    packed = dict(engine.shared.weights._places)
    for rows in (7, 3):
        expected = x[:rows] @ (w.T if trans else w) @ v / 2
        np.testing.assert_allclose(engine.run({"x": x[:rows]}, ["y"])[0], expected, rtol=1e-3, atol=1e-4)
    assert engine.shared.weights._places.keys() == packed.keys()
    np.testing.assert_array_equal(graph.constants["v"].array(), v)


def test_a_weight_that_is_still_to_be_read_is_looked_at_once_and_then_held():
    array, looks = numbers(9, 9), []
    weight = Weight.made_by(array.copy, array.dtype, array.shape, lambda: looks.append(1) or array)
    view = weight.view(Permute((1, 0)), (9, 9))
    np.testing.assert_array_equal(view.source(), array.T)
    weight.keep()
    np.testing.assert_array_equal(view.source(), array.T)
    assert looks == [1]
    assert weight.array() is weight.array()


def test_a_session_can_be_pickled_after_its_weights_are_packed():
    made, w, x = product_model()
    one = ort.InferenceSession(made.SerializeToString())
    one.run(None, {"x": x})
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_allclose(again.run(None, {"x": x})[0], x @ w, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(again.run(["w"], {"x": x})[0], w)


def test_two_sessions_of_one_message_pack_its_weights_each():
    made, w, x = product_model()
    first, second = ort.InferenceSession(made), ort.InferenceSession(made)
    for one in (first, second, first):
        np.testing.assert_allclose(one.run(None, {"x": x})[0], x @ w, rtol=1e-4, atol=1e-5)


def test_a_body_reads_a_weight_of_the_graph_around_it():
    w, x = numbers(130, 130), numbers(3, 130)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["v", "w"], ["u"]), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [3, 130]),
        ],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), helper.make_tensor_value_info("u", TensorProto.FLOAT, [3, 130])],
    )
    count = np.array(2)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Loop", ["count", "", "a"], ["y"], body=body)]
    one = ort.InferenceSession(model(nodes, {"x": [3, 130]}, ["y"], {"w": w / 8, "count": count}).SerializeToString())
    for _ in range(2):
        np.testing.assert_allclose(one.run(None, {"x": x})[0], x @ (w / 8) @ (w / 8) @ (w / 8), rtol=1e-3, atol=1e-4)


def test_threads_that_meet_new_sizes_at_once_share_one_packed_weight():
    made, w, _ = product_model()
    one = ort.InferenceSession(made.SerializeToString())
    wrong: list[int] = []

    def work(rows: int) -> None:
        x = np.random.default_rng(rows).uniform(-1, 1, (rows, 130)).astype(np.float32)
        if not np.allclose(one.run(None, {"x": x})[0], x @ w, rtol=1e-3, atol=1e-4):
            wrong.append(rows)

    threads = [threading.Thread(target=work, args=(rows,)) for rows in range(1, 9)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


# -- memory
def test_a_mapped_file_is_read_again_after_its_pages_are_given_back(tmp_path):
    content = np.arange(100_000, dtype=np.int32)
    content.tofile(tmp_path / "data")
    mapped = np.memmap(tmp_path / "data", np.uint8, "r").view(np.ndarray)
    part = mapped[4_000:300_004].view(np.int32).reshape(1, -1)
    assert part.sum()
    assert give_back(part)
    np.testing.assert_array_equal(part[0], content[1_000:75_001])
    assert not give_back(content)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("allocate", [aligned, lasting])
@pytest.mark.parametrize("nbytes", [1000, 200_000, HUGE_PAGE + 100])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_writes_into_memory_of_its_own(allocate, nbytes):
    block = allocate(nbytes)
    block[:] = 1
    child = os.fork()
    if not child:
        block[:] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert (block == 1).all()
