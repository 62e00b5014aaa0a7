"""Values outside runs: `OrtValue`, `IOBinding`, and runs that call back, beside onnxruntime's."""

from __future__ import annotations

import threading

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from small_model import MODEL, K, X

import jitrt

onnxruntime.set_default_logger_severity(4)


@pytest.fixture(scope="module")
def theirs() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(MODEL)


@pytest.fixture(scope="module")
def ours() -> jitrt.InferenceSession:
    return jitrt.InferenceSession(MODEL)


def test_run_async_calls_back_with_outputs_or_the_error(ours):
    done, got = threading.Event(), []

    def callback(outputs: list[np.ndarray], user_data: object, error: str) -> None:
        got.append((outputs, user_data, error))
        done.set()

    ours.run_async(["z"], {"x": X, "k": K}, callback, "mine")
    assert done.wait(60)
    (outputs, user_data, error), *_ = got
    assert (outputs[0].tolist(), user_data, error) == ([-1, -2], "mine", "")
    with pytest.raises(jitrt.InvalidArgument):
        ours.run_async(["nope"], {"x": X, "k": K}, callback, None)


def test_ort_values_go_in_and_come_out(ours, theirs):
    for module, made in ((onnxruntime, theirs), (jitrt, ours)):
        feeds = {n: module.OrtValue.ortvalue_from_numpy(a) for n, a in (("x", X), ("k", K))}
        y, z = made.run_with_ort_values(None, feeds)
        np.testing.assert_array_equal(y.numpy(), X + np.float32([1, 2, 3]))
        assert (z.data_type(), z.shape(), z.element_type(), z.device_name()) == ("tensor(int64)", [2], TensorProto.INT64, "cpu")
        assert (z.is_tensor(), z.is_tensor_sequence(), z.is_sparse_tensor(), z.has_value()) == (True, False, False, True)
        assert (z.tensor_size_in_bytes(), z.numpy().tolist()) == (16, [-1, -2])
    assert np.asarray(z).tolist() == [-1, -2]  # jitrt's: onnxruntime's were not always arrays


def test_an_ort_value_is_a_window_on_its_arrays_memory():
    array = X.copy()
    value = jitrt.OrtValue.ortvalue_from_numpy(array)
    assert value.data_ptr() == array.ctypes.data
    value.update_inplace(X + 1)
    np.testing.assert_array_equal(array, X + 1)
    value.update_inplace(jitrt.OrtValue.ortvalue_from_numpy(X + 2))
    np.testing.assert_array_equal(np.from_dlpack(value), X + 2)
    for wrong in (X[:1], X.astype(float)):
        with pytest.raises(jitrt.InvalidArgument, match="cannot update"):
            value.update_inplace(wrong)
    with pytest.raises(TypeError):
        value.update_inplace([1.0])


def test_ort_values_are_made_of_shapes_types_and_foreign_tensors():
    assert jitrt.OrtValue.ortvalue_from_shape_and_type([2, 3], TensorProto.BFLOAT16).data_type() == "tensor(bfloat16)"
    assert jitrt.OrtValue.ortvalue_from_shape_and_type([0, 3], np.int8).numpy().shape == (0, 3)
    words = np.array([0x3F80, 0x4000], np.uint16)
    value = jitrt.OrtValue.ortvalue_from_numpy_with_onnx_type(words, TensorProto.BFLOAT16)
    assert value.numpy().astype(np.float32).tolist() == [1, 2]
    np.testing.assert_array_equal(jitrt.OrtValue.from_dlpack(X.copy()).numpy(), X)
    with pytest.raises(jitrt.InvalidArgument, match="cuda"):
        jitrt.OrtValue.ortvalue_from_numpy(X, "cuda", 0)
    with pytest.raises(jitrt.InvalidArgument, match="sizes differ"):
        jitrt.OrtValue.ortvalue_from_numpy_with_onnx_type(X, TensorProto.BFLOAT16)


def test_a_sequence_is_no_tensor():
    value = jitrt.OrtValue([X])
    assert (value.is_tensor_sequence(), value.data_type()) == (True, "seq(tensor(float))")
    with pytest.raises(RuntimeError, match="no tensor"):
        value.numpy()


@pytest.mark.parametrize("module", [onnxruntime, jitrt])
def test_bound_inputs_and_outputs(module, ours, theirs):
    made = ours if module is jitrt else theirs
    x, y = X.copy(), np.zeros_like(X)
    binding = made.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_input("k", "cpu", 0, np.int64, [2], K.ctypes.data)
    binding.bind_output("z")
    binding.bind_output("y", "cpu", 0, np.float32, [2, 3], y.ctypes.data)
    binding.synchronize_inputs()
    made.run_with_iobinding(binding)
    binding.synchronize_outputs()
    np.testing.assert_array_equal(y, X + np.float32([1, 2, 3]))
    assert [v.tolist() for v in binding.copy_outputs_to_cpu()] == [[-1, -2], y.tolist()]
    x[...] = -9  # the next run reads it
    made.run_with_iobinding(binding)
    np.testing.assert_array_equal(y, np.zeros_like(X))
    assert binding.get_outputs()[1].data_ptr() == y.ctypes.data
    value = module.OrtValue.ortvalue_from_numpy(np.ones_like(X))
    binding.clear_binding_outputs()
    binding.clear_binding_inputs()
    binding.bind_ortvalue_input("x", module.OrtValue.ortvalue_from_numpy(X))
    binding.bind_cpu_input("k", K)
    binding.bind_ortvalue_output("y", value)
    made.run_with_iobinding(binding)
    np.testing.assert_array_equal(value.numpy(), X + np.float32([1, 2, 3]))


def test_the_plan_of_a_bound_run_can_be_seen(ours):
    binding = ours.io_binding()
    with pytest.raises(jitrt.InvalidArgument, match="nothing has run"):
        binding.get_plan()
    binding.bind_cpu_input("x", X)
    binding.bind_cpu_input("k", K)
    binding.bind_output("y")
    binding.run()
    assert str(binding.get_plan().outputs[0]) == "y: float32[2,3]"


def test_wrong_bindings_are_refused(ours):
    binding = ours.io_binding()
    with pytest.raises(RuntimeError, match="'q'"):
        binding.bind_cpu_input("q", X)
    with pytest.raises(RuntimeError, match="'q'"):
        binding.bind_output("q")
    with pytest.raises(RuntimeError, match="no output is bound"):
        ours.run_with_iobinding(binding)
    with pytest.raises(ValueError, match="element_type"):
        binding.bind_output("y", buffer_ptr=X.ctypes.data)
    with pytest.raises(RuntimeError, match="gpu"):
        binding.bind_output("y", "gpu")
    small = np.zeros((1, 3), np.float32)
    binding.bind_output("y", "cpu", 0, np.float32, small.shape, small.ctypes.data)
    binding.bind_cpu_input("x", X)
    binding.bind_cpu_input("k", K)
    with pytest.raises(RuntimeError, match=r"output 'y' is float32\[2,3\], the memory bound to it float32\[1,3\]"):
        ours.run_with_iobinding(binding)
    with pytest.raises(ValueError, match="another session"):
        jitrt.InferenceSession(MODEL).run_with_iobinding(binding)
