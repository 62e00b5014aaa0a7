"""The progress line: only where somebody looks, and gone at the end."""

import sys

import pytest

from jitrt import progress
from jitrt.progress import ProgressLine


@pytest.fixture(autouse=True)
def _always_at_once(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setenv("JITRT_PROGRESS", "1")


def test_the_line_names_what_is_compiled_and_goes(capsys):
    line = ProgressLine()
    for done, name in enumerate(["conv", "a_longer_name"]):
        line(done, 2, name)
    line(2, 2, "")
    first, second, last = capsys.readouterr().err.split("\r")[1:4]
    assert first == "jitrt: compiling kernel 1 of 2: conv"
    assert second == "jitrt: compiling kernel 2 of 2: a_longer_name"
    assert last == " " * len(second)


def test_quick_work_shows_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 1e6)
    line = ProgressLine()
    line(0, 1, "conv")
    line(1, 1, "")
    assert capsys.readouterr().err == ""


def test_a_file_gets_no_progress(capsys, monkeypatch):
    monkeypatch.delenv("JITRT_PROGRESS")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    ProgressLine()(0, 1, "conv")
    assert capsys.readouterr().err == ""
