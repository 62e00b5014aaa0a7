"""When Python's collector runs: not while plans are made."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from small_model import MODEL, K

import jitrt as ort
from jitrt import collector

LIMIT = 150  # a plan of this model is worth several hundred collections while nothing pauses them


@pytest.fixture
def collections():
    """Of which generations the collector has looked, as often as it can."""
    seen: list[int] = []

    def note(phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            seen.append(about["generation"])

    before = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(1, 1, 1)
    yield seen
    gc.set_threshold(*before)
    gc.callbacks.remove(note)


def test_paused_inside_and_as_before_outside():
    for enabled in (True, False):
        (gc.enable if enabled else gc.disable)()
        try:
            with collector.paused():
                assert not gc.isenabled()
                with collector.running():
                    assert gc.isenabled()
                with collector.paused():
                    assert not gc.isenabled()
                assert not gc.isenabled()
            assert gc.isenabled() == enabled
        finally:
            gc.enable()


def test_an_error_ends_the_pause():
    with pytest.raises(ZeroDivisionError), collector.paused():
        _ = 1 // 0
    assert gc.isenabled()


def test_the_collector_does_not_look_while_a_plan_is_made(collections):
    session = ort.InferenceSession(MODEL)
    for rows in (1, 3):  # the first run compiles, with the collector running
        collections.clear()
        session.run(None, {"x": np.ones((rows, 3), np.float32), "k": K})
    assert len(collections) < LIMIT
