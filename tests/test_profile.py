"""Profiles and what notebooks show: every step is timed, tables are real tables, charts are well-formed drawings."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import onnx
import onnx.parser
import pytest

import jitrt as ort
from jitrt import display
from jitrt.profile import _durations

LONG = "/encoder/layer.0/attention/" + "self/" * 20 + "out<proj>"
MODEL = """
    <ir_version: 10, opset_import: ["": 20]>
    small (float[N, 33] x, float[33, 65] w) => (float[N, 65] y, int64[K, 2] z) {
        h = MatMul (x, w)
        y = Softmax <axis = -1> (h)
        n = NonZero (x)
        z = Transpose <perm = [1, 0]> (n)
    }"""


@pytest.fixture(scope="module")
def session():
    model = onnx.parser.parse_model(MODEL)
    model.graph.node[0].name = LONG
    return ort.InferenceSession(model)


@pytest.fixture(scope="module")
def feeds():
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((7, 33), np.float32), "w": rng.standard_normal((33, 65), np.float32)}


@pytest.fixture(scope="module")
def profile(session, feeds):
    return session.profile(feeds, repeat=3)


def test_every_native_step_is_timed(profile, session, feeds):
    plan = session.get_plan(feeds)
    assert [s.index for s in profile.steps] == list(range(len(plan.steps)))
    assert all(s.seconds > 0 for s in profile.steps)
    assert sum(s.share for s in profile.steps) == pytest.approx(1)
    assert {i for i, *_ in profile.spans} == {i for i, s in enumerate(plan.steps) if not hasattr(s, "reason")}
    assert all(start <= end for _, _, start, end in profile.spans)


def test_a_step_lasts_from_the_first_start_to_the_last_end():
    spans = [(0, 0, 1.0, 2.0), (0, 1, 1.5, 4.0), (2, 0, 5.0, 5.5)]
    assert _durations(spans, 3) == [3.0, 0.0, 0.5]


def test_text_lists_the_slowest_step_first(profile):
    first = str(profile).splitlines()[1]
    assert f"{max(s.seconds for s in profile.steps) * 1e3:9.4f}" in first


def test_trace_for_viewers_has_one_event_a_span(profile):
    events = json.loads(profile.chrome_trace())["traceEvents"]
    assert len(events) == len(profile.spans)
    assert all(e["dur"] >= 0 for e in events)


def test_charts_are_well_formed(profile):
    for chart in (profile.bars(), profile.bars(limit=1), profile.timeline()):
        drawing = ElementTree.fromstring(chart.text)
        assert drawing.tag.endswith("svg")
        assert drawing.findall(".//{*}rect")
    assert "other steps" in profile.bars(limit=1).text


def test_an_empty_chart_is_a_drawing_too():
    assert ElementTree.fromstring(display.bars([], "none").text).findall(".//{*}rect") == []
    assert ElementTree.fromstring(display.timeline([], 1, "none").text).findall(".//{*}rect") == []


def test_notebooks_get_tables_with_one_row_a_node_or_step(session, feeds, profile):
    plan = session.get_plan(feeds)
    for shown, rows in ((session.graph, len(session.graph.nodes)), (plan, len(plan.steps)), (profile, len(plan.steps))):
        page = ElementTree.fromstring(f"<div>{shown._repr_html_().replace('<br>', '<br/>')}</div>")
        assert len(page.findall(".//tbody/tr")) == rows
        assert "<pre>" not in shown._repr_html_()


def test_a_step_shows_its_source(session, feeds):
    for step in session.get_plan(feeds).steps:
        page = step._repr_html_()
        assert page.startswith("<div")
        assert hasattr(step, "reason") or "def " in page


def test_long_names_are_cut_and_kept_as_tooltips(session):
    page = session.graph._repr_html_()
    escaped = LONG.replace("<", "&lt;").replace(">", "&gt;")
    assert f"title='{escaped}'" in page
    assert f">{escaped}<" not in page


@pytest.mark.parametrize("length", [0, 1, 44, 45, 400])
def test_shortened_text_is_never_wider_than_asked(length):
    text = "".join(chr(97 + i % 26) for i in range(length))
    short = display.shorten(text)
    assert len(short) <= display.WIDEST
    assert short == text or (text.startswith(short.split("…")[0]) and text.endswith(short.split("…")[1]))


def test_reprs_fit_a_line(session, feeds, profile):
    plan = session.get_plan(feeds)
    assert "float32[7,33]" in repr(plan)
    for shown in (plan, profile, plan.steps[0]):
        assert len(repr(shown)) < 400
        assert "\n" not in repr(shown)


def test_a_saved_chart_is_the_chart(tmp_path, profile):
    profile.bars().save(tmp_path / "bars.svg")
    assert (tmp_path / "bars.svg").read_text() == profile.bars().text
