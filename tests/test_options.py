"""Session and run options: onnxruntime's names, defaults and errors."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from small_model import MODEL, K, X, raised

import jitrt

onnxruntime.set_default_logger_severity(4)


def test_options_have_onnxruntimes_attributes_with_its_defaults():
    for name in ("SessionOptions", "RunOptions"):
        expected, found = getattr(onnxruntime, name)(), getattr(jitrt, name)()
        for attribute in (n for n in dir(expected) if not n.startswith("_") and not callable(getattr(expected, n))):
            value, given = getattr(expected, attribute), getattr(found, attribute)
            if attribute != "profile_file_prefix":
                assert getattr(value, "name", value) == getattr(given, "name", given), attribute
    for name in ("GraphOptimizationLevel", "ExecutionMode", "ExecutionOrder"):
        expected, found = (getattr(m, name).__members__ for m in (onnxruntime, jitrt))
        assert {k: int(v) for k, v in found.items()} == {k: int(v) for k, v in expected.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [("intra_op_num_threads", "2"), ("intra_op_num_threads", 2.0), ("logid", 5), ("enable_profiling", "yes"), ("nonsense", 1),
     ("profile_file_prefix", None), ("execution_mode", "fast")],
)  # fmt: skip
def test_an_option_of_the_wrong_name_or_type_raises_what_onnxruntime_raises(name, value):
    expected, found = (raised(lambda m=m: setattr(m.SessionOptions(), name, value)) for m in (onnxruntime, jitrt))
    assert type(found) is type(expected)
    assert name in str(found)


def test_options_are_converted_checked_and_shown():
    options = jitrt.SessionOptions()
    options.graph_optimization_level = 1
    options.enable_profiling = 1
    assert options.graph_optimization_level is jitrt.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.enable_profiling is True
    assert "enable_profiling=True" in repr(options)
    with pytest.raises(jitrt.InvalidArgument, match="must not be negative"):
        options.intra_op_num_threads = -1


def test_configuration_entries_are_two_short_strings():
    for options, add, get in (
        (jitrt.SessionOptions(), "add_session_config_entry", "get_session_config_entry"),
        (jitrt.RunOptions(), "add_run_config_entry", "get_run_config_entry"),
    ):
        getattr(options, add)("key", "value")
        assert getattr(options, get)("key") == "value"
        with pytest.raises(RuntimeError, match="other"):
            getattr(options, get)("other")
        with pytest.raises(RuntimeError, match="1 to 1024"):
            getattr(options, add)("", "value")
        with pytest.raises(TypeError):
            getattr(options, add)("key", 1)


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [("jitrt.conv_algorithm", "fast", "auto, direct"), ("jitrt.conv_algorithm", "", "auto, direct"),
     ("jitrt.conv_winograd6", "yes", "0, 1"), ("jitrt.conv_algoritm", "auto", "jitrt.conv_algorithm")],
)  # fmt: skip
def test_own_configuration_entries_are_checked(key, value, hint):
    options = jitrt.SessionOptions()
    with pytest.raises(jitrt.InvalidArgument, match=hint):
        options.add_session_config_entry(key, value)
    options.add_session_config_entry("jitrt.conv_algorithm", "measure")
    assert options.get_session_config_entry("jitrt.conv_algorithm") == "measure"


def test_free_dimensions_are_fixed_by_name_and_by_denotation():
    made = onnx.ModelProto.FromString(MODEL)
    made.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    for module in (onnxruntime, jitrt):
        for method, key in (
            ("add_free_dimension_override_by_name", "N"),
            ("add_free_dimension_override_by_denotation", "DATA_BATCH"),
        ):
            options = module.SessionOptions()
            getattr(options, method)(key, 2)
            fixed = module.InferenceSession(made.SerializeToString(), options)
            assert fixed.get_inputs()[0].shape == [2, 3]
            assert fixed.run(["y"], {"x": X, "k": K})[0].shape == (2, 3)
            error = raised(lambda fixed=fixed: fixed.run(None, {"x": X[:1], "k": K}))
            assert type(error).__name__ == "InvalidArgument"


def test_unknown_providers_are_warned_of_and_malformed_ones_refused():
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        made = jitrt.InferenceSession(MODEL, providers=["CUDAExecutionProvider", ("CPUExecutionProvider", {"a": 1})])
    assert made.get_providers() == ["CPUExecutionProvider"]
    assert made.get_provider_options() == {"CPUExecutionProvider": {"a": "1"}}
    for providers, options in (([3], None), ([("CPUExecutionProvider", 1)], None), (["CPUExecutionProvider"], [{}, {}])):
        with pytest.raises(ValueError, match="provider"):
            jitrt.InferenceSession(MODEL, providers=providers, provider_options=options)
    with pytest.raises(TypeError, match="SessionOptions"):
        jitrt.InferenceSession(MODEL, 3)


def test_loading_is_cancelled_by_the_options():
    options = jitrt.SessionOptions()
    options.set_load_cancellation_flag(True)
    with pytest.raises(jitrt.ModelLoadCanceled):
        jitrt.InferenceSession(MODEL, options)
