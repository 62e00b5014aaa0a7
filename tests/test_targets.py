"""The benchmark of CPU targets: what it measures is the layer alone, on every target that this CPU can run."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import jitrt
from benchmarks import micro, targets
from benchmarks.layers import Layer
from benchmarks.peers.driver import Child


@pytest.mark.parametrize("layer", [Layer(16, 24, 9, 3), Layer(16, 8, 8, 1), Layer(24, 24, 11, 5, 2, 24)], ids=str)
def test_a_layers_model_changes_no_order_of_an_image(layer):
    model, feeds = targets.channels_last(layer)
    ours, theirs = jitrt.InferenceSession(model), onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(ours.run(None, feeds)[0], theirs.run(None, feeds)[0], rtol=1e-4, atol=1e-5)
    names = [step.kernel.name for step in ours.get_plan(feeds).steps]
    assert names.count("pad_copy") <= 1
    assert set(names) <= {"pad_copy", "conv", "depthwise", "winograd_input", "winograd_output"}


def test_targets_are_measured_in_processes_of_their_own(monkeypatch):
    monkeypatch.setattr(targets, "TURN", 0.0)
    case = targets.Case("small", *micro.softmax(3, 37), 5 * 3 * 37)
    possible = targets.possible()
    names = dict.fromkeys((next(iter(possible)), list(possible)[-1]))
    children = {name: Child("jitrt", environment=possible[name]) for name in names}
    try:
        found = targets.measure(case, children, 2)
    finally:
        for child in children.values():
            child.stop()
    assert next(iter(found)) == "native"
    assert all(len(turns) == targets.TURNS and min(turns) > 0 for turns in found.values())


def test_a_row_has_the_best_rates_and_the_usual_ratios():
    case = targets.Case("any", *micro.one_node(), 10**9)
    found = {"native": [1.0, 2.0, 4.0], "half as fast": [2.0, 4.0, 0.5]}
    assert targets._cells(case, found) == ["any", "1.0", "2.0", "0.50"]
