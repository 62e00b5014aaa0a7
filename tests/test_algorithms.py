"""Algorithms of convolutions: as the session's options say, or as measured and kept."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper, parser

import jitrt
from jitrt import measure, progress, timings
from jitrt.measure import Measured
from jitrt.ops.convchoice import ConvLayer, winograd_by_cost, winograd_forms
from jitrt.ops.kernels import spec
from jitrt.store import Store, store

RNG = np.random.default_rng(0)
LAYER = ConvLayer("float32", (16, 9, 10), (16, 16, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1)
NAMES = ["winograd 4x4", "direct", "winograd 2x2", "winograd 6x6"]
TIMES = {"winograd 4x4": 3e-3, "direct": 2e-3, "winograd 2x2": 1.5e-3, "winograd 6x6": 1e-3}


def model(filters: tuple[int, ...] = (64, 64, 3, 3), attributes: str = "pads = [1, 1, 1, 1]") -> ModelProto:
    """A convolution with an activation; filters are scaled so that outputs are of order one."""
    made = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 20]>
        layer (float[N, C, H, W] x) => (float[N, {filters[0]}, P, Q] y) {{
            c = Conv <{attributes}> (x, w)
            y = Relu (c)
        }}""")
    w = RNG.standard_normal(filters, np.float32) / np.float32(np.prod(filters[1:]) ** 0.5)
    made.graph.initializer.append(numpy_helper.from_array(w, "w"))
    return made


def session(made: ModelProto, **entries: str) -> jitrt.InferenceSession:
    """A session of two threads with configuration entries ``jitrt.<name>``."""
    options = jitrt.SessionOptions(intra_op_num_threads=2)
    for name, value in entries.items():
        options.add_session_config_entry(f"jitrt.{name}", value)
    return jitrt.InferenceSession(made, options)


def algorithms(made: jitrt.InferenceSession, x: np.ndarray) -> set[str]:
    """The algorithms that a plan names."""
    shapes = [step.shape for step in made.get_plan({"x": x}).steps]
    return {name for name in (*NAMES, "direct, rows folded", "depthwise") if any(s.startswith(f"{name} 6") for s in shapes)}


@pytest.mark.parametrize(
    ("asked", "taken"),
    [("direct", "direct"), ("winograd2", "winograd 2x2"), ("winograd4", "winograd 4x4"), ("winograd6", "winograd 6x6")],
)
def test_an_algorithm_that_is_asked_for_is_taken(asked, taken):
    made, x = model(), RNG.standard_normal((1, 64, 30, 29), np.float32)
    ours = session(made, conv_algorithm=asked)
    (expected,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(ours.run(None, {"x": x})[0], expected, rtol=1e-4, atol=2e-5 if taken != "winograd 6x6" else 1e-4)
    assert algorithms(ours, x) == {taken}


@pytest.mark.parametrize(
    ("filters", "attributes", "taken"),
    [
        ((64, 64, 3, 3), "strides = [2, 2]", "direct"),
        ((63, 64, 3, 3), "group = 1", "direct"),
        ((64, 64, 1, 1), "group = 1", "direct"),
        ((64, 64, 9, 9), "pads = [4, 4, 4, 4]", "direct"),
        ((64, 64, 7, 7), "pads = [3, 3, 3, 3]", "direct"),
        ((64, 1, 3, 3), "group = 64", "depthwise"),
    ],
)
def test_layers_without_winograd_are_computed_directly(filters, attributes, taken):
    x = RNG.standard_normal((1, 64, 12, 13), np.float32)
    assert algorithms(session(model(filters, attributes), conv_algorithm="winograd4"), x) == {taken}


@pytest.mark.parametrize(
    ("filters", "attributes", "form"),
    [
        ((64, 64, 3, 3), "dilations = [2, 3]", "4x4"),
        ((64, 32, 3, 3), "group = 2", "4x4"),
        ((64, 64, 1, 3), "pads = [0, 1, 0, 1]", "1x4"),
        ((64, 32, 5, 1), "group = 2, dilations = [2, 2]", "4x1"),
    ],
)
def test_forms_of_winograd_have_the_tile_that_is_asked_for(filters, attributes, form):
    made, x = model(filters, attributes), RNG.standard_normal((2, 64, 14, 13), np.float32)
    ours = session(made, conv_algorithm="winograd4")
    (expected,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(ours.run(None, {"x": x})[0], expected, rtol=1e-4, atol=5e-5)
    assert any(step.shape.startswith(f"winograd {form} 64->64") for step in ours.get_plan({"x": x}).steps)


@pytest.mark.parametrize(
    ("entries", "taken"),
    [({"conv_algorithm": "winograd4"}, "direct"), ({"conv_algorithm": "winograd4", "conv_winograd6": "1"}, "winograd 4x4"),
     ({"conv_algorithm": "winograd2"}, "winograd 2x2"), ({"conv_algorithm": "winograd6"}, "direct")],
    ids=str,
)  # fmt: skip
def test_forms_with_large_errors_are_allowed_by_an_entry_of_their_own(entries, taken):
    made, x = model((64, 64, 5, 5), "pads = [2, 2, 1, 0]"), RNG.standard_normal((2, 64, 14, 13), np.float32)
    ours = session(made, **entries)
    (expected,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(ours.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-4)
    assert algorithms(ours, x) == {taken}


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (((96, 27, 27), (256, 48, 5, 5), 1, 2), "2x2"),  # AlexNet
        (((384, 13, 13), (256, 192, 3, 3), 1, 2), "4x4"),
        (((32, 28, 28), (96, 32, 5, 5), 1, 1), "2x2"),  # Inception
        (((192, 17, 17), (192, 192, 1, 7), 1, 1), "1x2"),
        (((384, 8, 8), (384, 384, 3, 1), 1, 1), "4x1"),
        (((256, 28, 28), (256, 256, 3, 3), 2, 1), "4x4"),  # DeepLab
        (((512, 1500), (512, 512, 3), 1, 1), "6"),  # speech
        (((128, 56, 56), (128, 4, 3, 3), 1, 32), "4x4"),  # ResNeXt
        (((320, 14, 14), (320, 16, 3, 3), 1, 20), "4x4"),  # RegNet
        (((16, 2000), (16, 16, 7), 1, 1), None),
        (((512, 7, 7), (512, 512, 3, 3), 6, 1), None),  # of a tile one pixel
    ],
    ids=str,
)  # fmt: skip
def test_the_cost_model_takes_what_was_measured_to_be_faster(layer, form):
    image, filters, dilation, groups = layer
    ones = (1,) * (len(image) - 1)
    pads = tuple(k // 2 * dilation for k in filters[2:]) * 2
    described = ConvLayer("float32", image, filters, ones, tuple(dilation * n for n in ones), pads, groups)
    chosen = winograd_by_cost(described, image[1:], 2)
    assert chosen == (f"winograd {form}" if form else "")


@pytest.mark.parametrize(
    ("image", "filters", "bits", "form"),
    [
        ((64, 56, 56), (64, 64, 3, 3), 24, "4x4"), ((256, 14, 14), (256, 256, 3, 3), 26, "4x4"),
        ((256, 14, 14), (256, 256, 3, 3), 27, "2x2"), ((512, 7, 7), (512, 512, 3, 3), 27, "2x2"),
        ((256, 14, 14), (256, 256, 3, 3), 31, None), ((4, 56, 56), (64, 4, 3, 3), 20, None),
        ((64, 28, 28), (64, 64, 5, 5), 24, None),
    ],
    ids=str,
)  # fmt: skip
def test_the_cost_model_takes_forms_for_integers_that_have_the_bits_of_sums(image, filters, bits, form):
    layer = ConvLayer("int16", image, filters, (1, 1), (1, 1), (1, 1, 1, 1), 1)
    assert winograd_by_cost(layer, image[1:], 2, bits) == (f"winograd {form}" if form else "")


def test_forms_with_large_errors_are_never_taken_unasked():
    for kernel in ((3, 3), (5, 5), (7, 7), (5, 7)):
        layer = ConvLayer("float32", (512, 96, 96), (512, 512, *kernel), (1, 1), (1, 1), (3, 3, 3, 3), 1)
        chosen = winograd_by_cost(layer, (96, 96), 2)
        assert not chosen or not winograd_forms(layer)[chosen].coarse
        assert any(form.coarse for form in winograd_forms(layer).values())


def test_without_a_choice_the_cost_model_chooses():
    made, x = model(), RNG.standard_normal((1, 64, 30, 29), np.float32)
    plans = [session(made, **entries).get_plan({"x": x}) for entries in ({}, {"conv_algorithm": "auto"})]
    assert str(plans[0]) == str(plans[1])
    assert any("winograd 4x4" in step.shape for step in plans[0].steps)


@pytest.fixture
def measured(tmp_path, monkeypatch) -> list[tuple[ConvLayer, list[str]]]:
    """Sessions keep times in a folder of the test's; nothing is timed: what would have been is in this list."""
    asked: list[tuple[ConvLayer, list[str]]] = []

    def times(layer, names, store, threads, progress):
        asked.append((layer, list(names)))
        return {name: TIMES[name] for name in names}

    monkeypatch.setattr(measure, "measure", times)
    monkeypatch.setattr(measure, "store", lambda: Store(tmp_path))
    return asked


def test_a_layer_is_measured_once_and_other_sessions_and_batches_take_the_same(measured):
    made, x = model(), RNG.standard_normal((3, 64, 20, 20), np.float32)
    for _ in range(2):
        ours = session(made, conv_algorithm="measure")
        (expected,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})
        np.testing.assert_allclose(ours.run(None, {"x": x})[0], expected, rtol=1e-4, atol=2e-5)
        assert algorithms(ours, x) == algorithms(ours, x[:1]) == {"winograd 2x2"}
        assert len(ours._engine.shared.weights._places) == 1
    ((layer, names),) = measured
    assert layer.image == (64, 20, 20)
    assert sorted(names) == ["direct", "winograd 2x2", "winograd 4x4"]
    session(made, conv_algorithm="measure").run(None, {"x": x[:, :, :9]})
    assert len(measured) == 2


def test_the_largest_tile_is_measured_only_if_it_is_allowed(measured):
    made, x = model(), RNG.standard_normal((1, 64, 20, 20), np.float32)
    assert algorithms(session(made, conv_algorithm="measure", conv_winograd6="1"), x) == {"winograd 6x6"}
    assert algorithms(session(made, conv_algorithm="measure", conv_winograd6="0"), x) == {"winograd 2x2"}
    assert len(measured) == 1  # the others' times were known


def test_of_times_that_hardly_differ_the_cost_models_favourite_is_taken(measured, monkeypatch, tmp_path):
    monkeypatch.setitem(TIMES, "winograd 4x4", 1.02 * TIMES["winograd 2x2"])
    assert Measured(Store(tmp_path), 2)(LAYER, NAMES) == "winograd 4x4"
    assert Measured(Store(tmp_path), 2)(LAYER, NAMES[::-1]) == "winograd 2x2"


def test_layers_of_one_algorithm_are_not_measured(measured):
    made, x = model((64, 64, 1, 1), "strides = [2, 2]"), RNG.standard_normal((1, 64, 12, 13), np.float32)
    assert algorithms(session(made, conv_algorithm="measure"), x) == {"direct"}
    assert measured == []


def test_every_algorithm_is_timed_and_the_line_shows_how_far(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setenv("JITRT_PROGRESS", "1")
    monkeypatch.setattr(measure, "_SWEEP", (2, 8))
    times = measure.measure(LAYER, NAMES, store(), 2, progress.ProgressLine("measuring run"))
    assert times.keys() == set(NAMES)
    assert all(0 < seconds < 1 for seconds in times.values())
    shown = capsys.readouterr().err
    assert "jitrt: measuring run 1 of 44: winograd 4x4, float32 16x9x10" in shown
    assert "jitrt: measuring run 44 of 44" in shown
    assert shown.endswith("\r")


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_the_trial_is_the_layer_alone(dtype):
    """Nothing but the layer is between its input and its output: no step changes the order of an image."""
    graph, feeds = measure.trial_model(replace(LAYER, dtype=dtype))
    trial = measure._Trial.of(graph, feeds, "direct", store(), 1)
    nodes = [step.nodes for step in trial.executor.plan.steps]
    assert (nodes[0], nodes[1][0]) == (("sweep",), "before")
    assert set(nodes[2:]) == {("convolution",)}
    assert len(trial.steps) == len(nodes) - 2


@pytest.fixture
def kept(measured, tmp_path):
    """The file of one layer's times."""
    assert Measured(Store(tmp_path), 2)(LAYER, NAMES) == "winograd 2x2"
    return tmp_path / timings.FILE


def test_times_are_kept_for_the_layer_the_threads_and_the_machine(kept, measured, monkeypatch):
    assert kept.stat().st_mode & 0o077 == 0
    assert Measured(Store(kept.parent), 2)(LAYER, NAMES) == "winograd 2x2"
    assert len(measured) == 1
    Measured(Store(kept.parent), 1)(LAYER, NAMES)
    assert len(measured) == 2
    monkeypatch.setattr(timings, "environment", lambda: spec.environment() + "another compiler")
    Measured(Store(kept.parent), 2)(LAYER, NAMES)
    assert len(measured) == 3
    machines = json.loads(kept.read_bytes())
    assert [len(layers) for layers in machines.values()] == [2, 1]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[1]", b'{"a": 1}', b'{"a": {"b": 1}}', b'{"a": {"b": {"direct": "fast"}}}', b'{"a": {"b": {"c": NaN}}}',
     b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_file_is_measured_again_and_replaced(kept, measured, content):
    kept.write_bytes(content)
    assert Measured(Store(kept.parent), 2)(LAYER, NAMES) == "winograd 2x2"
    assert len(measured) == 2
    assert Measured(Store(kept.parent), 2)(LAYER, NAMES) == "winograd 2x2"
    assert len(measured) == 2


def test_a_file_that_others_may_write_is_not_believed(kept, measured):
    kept.chmod(0o666)
    Measured(Store(kept.parent), 2)(LAYER, NAMES)
    assert len(measured) == 2


def test_without_a_folder_times_are_the_sessions_own(measured):
    rule = Measured(Store(None), 2)
    assert rule(LAYER, NAMES) == rule(LAYER, NAMES) == "winograd 2x2"
    assert len(measured) == 1


def test_two_processes_times_are_both_kept(kept):
    others = Measured(Store(kept.parent), 2)
    others(LAYER, NAMES)
    new = [ConvLayer("float32", (16, 9, n), LAYER.filters, (1, 1), (1, 1), LAYER.pads, 1) for n in (3, 4)]
    Measured(Store(kept.parent), 2)(new[0], NAMES)
    others(new[1], NAMES)
    (layers,) = json.loads(kept.read_bytes()).values()
    assert len(layers) == 3


def test_the_file_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(timings, "_MOST_LAYERS", 3)
    for i in range(5):
        timings.Timings(Store(tmp_path)).add(f"layer {i}", {"direct": 1.0})
    (layers,) = json.loads((tmp_path / timings.FILE).read_bytes()).values()
    assert list(layers) == ["layer 2", "layer 3", "layer 4"]
