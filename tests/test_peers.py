"""The peers' benchmark: processes take turns, and one that is absent, fails, dies, hangs or spins stops no other."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest

from benchmarks import cases, memory, zoo
from benchmarks.compare import Difference
from benchmarks.peers import __main__ as command
from benchmarks.peers import child, decoding, driver, lengths, models
from benchmarks.peers.driver import ROUNDS, RUNS, Child, ChildError, Measured, Sitting

MODEL = """
    <ir_version: 10, opset_import: ["": 20]>
    small (float[3, 5] x, int64[3, 5] y) => (float[3, 5] s, int64[3, 5] t) { s = Relu (x)  t = Add (y, y) }"""
# A runtime that loads anything, and then does what `{}` says.
LOADS = """
import json, sys, threading, numpy
def answer(**given): print(json.dumps(given), flush=True)
numpy.savez(json.loads(sys.stdin.readline())["results"], numpy.zeros(1))
answer(seconds=1.0)
{}
sys.stdin.readline()
"""
SPINS = """
def spin():
    while True: pass
threading.Thread(target=spin, daemon=True).start()"""
DIES = "sys.stdin.readline(); print('out of luck', file=sys.stderr, flush=True); import os; os.abort()"


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(MODEL)


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    values = np.arange(-7, 8).reshape(3, 5)
    return {"x": values.astype(np.float32), "y": values}


@pytest.fixture
def interpreter(tmp_path):
    """Writes a program that can stand in for a runtime's interpreter."""

    def write(text: str) -> str:
        path: Path = tmp_path / f"interpreter{len(list(tmp_path.iterdir()))}"
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return write


def _loads_and(what: str) -> str:
    return f"#!{sys.executable}\n{LOADS.format(what)}"


def test_runtimes_take_turns_and_give_their_outputs(model, feeds, tmp_path):
    runtimes = dict.fromkeys(("jitrt", "onnxruntime"), sys.executable)
    found = Sitting(runtimes, 2, 0.0, {"JITRT_CACHE_DIR": str(tmp_path)}).measure(model, feeds)
    for name, measured in found.items():
        assert not measured.failure, name
        assert len(measured.times) >= RUNS * ROUNDS
        assert measured.first > min(measured.times) > 0
        assert measured.waited > 0
        np.testing.assert_array_equal(measured.outputs[0], np.maximum(feeds["x"], 0))
        np.testing.assert_array_equal(measured.outputs[1], 2 * feeds["y"])
    assert any(tmp_path.iterdir())  # the store that the environment names


@pytest.mark.skipif(not memory.available(), reason="only Linux tells of other processes")
def test_memory_is_that_of_processes_of_their_own_and_may_be_all_that_is_measured(model, feeds, tmp_path):
    runtimes = dict.fromkeys(("jitrt", "onnxruntime"), sys.executable)
    sitting = Sitting(runtimes, 1, 60.0, {"JITRT_CACHE_DIR": str(tmp_path)}, weighed=("jitrt",))
    ours, theirs = sitting.measure(model, feeds, timed=False).values()
    assert 20e6 < ours.peak < 200e6  # a process that compiles holds more
    assert theirs.peak == 0
    for measured in (ours, theirs):
        assert (measured.times, measured.failure) == ([], "")
        np.testing.assert_array_equal(measured.outputs[1], 2 * feeds["y"])


def test_a_runtime_that_fails_when_it_is_weighed_is_reported_with_its_times(model, feeds, interpreter, tmp_path):
    mark = tmp_path / "was here"  # the second process finds it
    start = f"#!/bin/sh\nif [ -e '{mark}' ]; then echo out of memory >&2; exit 3; fi\ntouch '{mark}'\n"
    found = Sitting({"jitrt": interpreter(f"{start}exec {sys.executable} $*\n")}, 1, 0.0, weighed=("jitrt",)).measure(model, feeds)
    assert found["jitrt"].failure == "measuring its memory: ended with 3: out of memory"
    assert found["jitrt"].times
    assert not found["jitrt"].peak


def test_runtimes_that_die_or_spin_are_reported_and_the_others_are_measured(model, feeds, interpreter, monkeypatch):
    monkeypatch.setattr(driver, "SLEEP_LIMIT", 0.5)
    monkeypatch.setattr(driver, "POLL", 0.05)  # long enough for one that spins to get a CPU on a busy machine
    runtimes = {
        "openvino": interpreter("#!/bin/sh\necho no such library >&2; exit 3\n"),
        "MNN": interpreter(_loads_and(DIES)),
        "jitrt": interpreter(_loads_and(SPINS)),
        "onnxruntime": sys.executable,
    }
    found = Sitting(runtimes, 1, 0.0).measure(model, feeds)
    failures = {name: measured.failure for name, measured in found.items()}
    assert failures == {
        "openvino": "ended with 3: no such library",
        "MNN": "killed by signal 6: out of luck",
        "jitrt": "its threads still spin 0.5 s after a run",
        "onnxruntime": "",
    }
    assert found["onnxruntime"].times
    assert not found["jitrt"].times


@pytest.mark.skipif(not memory.available(), reason="the system does not tell")
def test_the_first_turn_begins_when_processes_started_beside_have_come_to_rest(model, feeds, interpreter, tmp_path):
    ended = tmp_path / "ended"
    works = f"import time, pathlib; end = time.time() + 1\nwhile time.time() < end: pass\npathlib.Path({str(ended)!r}).touch()"
    answers = f"import subprocess, os; subprocess.Popen([sys.executable, '-c', {works!r}])"
    answers += (
        f"\nsys.stdin.readline(); answer(times=[os.path.exists({str(ended)!r})])"
        + ROUNDS * "\nsys.stdin.readline(); answer(times=[])"
    )
    starts = interpreter(_loads_and(answers))
    found = Sitting({"openvino": starts}, 1, 0.0).measure(model, feeds)
    assert found["openvino"].failure == ""
    assert found["openvino"].times == [True]


def test_a_runtime_that_hangs_or_cannot_be_started_is_reported(model, feeds, interpreter):
    runtimes = {"openvino": interpreter("#!/bin/sh\nexec sleep 60\n"), "MNN": "/no/such/interpreter"}
    found = Sitting(runtimes, 1, 0.0, load_limit=0.2).measure(model, feeds)
    assert found["openvino"].failure == "no answer within 0.2 s"
    assert found["MNN"].failure.startswith("cannot be started")


def test_a_model_that_a_runtime_refuses_is_an_error_with_its_reason(model, feeds, tmp_path):
    request = driver.write_request(tmp_path, model, feeds)
    (tmp_path / "model.onnx").write_bytes(b"this is no model")
    with Child("onnxruntime") as child:
        with pytest.raises(ChildError, match=r"(?i)protobuf"):
            child.ask(request, 60)
        assert child.ask({"do": "version"}, 60)["version"]  # it lives on


def _row(peers: dict[str, float], wrong: str = "", entries: dict[str, str] | None = None) -> command.Row:
    found = {name: Measured(times=[time]) for name, time in peers.items()}
    differences = {name: Difference(0.5, 0.1, False) if name == wrong else Difference(0.0, 0.0, True) for name in peers}
    subject = models.Subject(cases.Case("squeezenet1_1", "zoo", lambda: None), 1.1, entries or {})
    return command.Row(subject, found | {"openvino": Measured(failure="no")}, differences)


def test_the_ratio_is_to_the_fastest_peer_that_is_right():
    times = {"jitrt": 0.010, "onnxruntime": 0.015, "MNN": 0.012}
    assert _row(times).ratio() == pytest.approx(1.2)
    assert _row(times, wrong="MNN").ratio() == pytest.approx(1.5)
    assert command._cells(_row(times, wrong="MNN"))[1:9] == [
        *("10.00 ms", "15.00 ms", "failed", "12.00 ms (WRONG: 5e-01)", "1.50", "1.50", "1.1", "yes")
    ]
    assert command._cells(_row({"jitrt": 0.010}))[1:9] == ["10.00 ms", "absent", "failed", "absent", "", "", "1.1", "NO"]


def test_a_page_tells_the_largest_share_of_the_memory_of_the_reference():
    light, heavy = _row({"jitrt": 0.010, "onnxruntime": 0.018}), _row({"jitrt": 0.010})
    light.found["jitrt"].peak, light.found["onnxruntime"].peak = 90_000_000, 100_000_000
    assert command._cells(light)[-2:] == ["90 MB", "0.90"]
    assert command._cells(heavy)[-2:] == ["", ""]
    group = models.GROUPS["convolutions"]
    what = "the largest share of onnxruntime's peak memory (squeezenet1_1)"
    assert command._shares([light, heavy], group) == [[what, "0.90", "1", "yes"]]
    light.found["jitrt"].peak = 101_000_000
    assert command._shares([heavy, light], group) == [[what, "1.01", "1", "NO"]]
    assert command._shares([heavy], group) == []
    assert command._shares([light], models.GROUPS["transformers"]) == []


def test_a_model_without_times_shows_what_else_is_known_of_it():
    subject = models.Subject(cases.Case("unet", "zoo", lambda: None), timed=False)
    found = {"jitrt": Measured(first=4.0, peak=80_000_000), "onnxruntime": Measured(first=1.0, peak=100_000_000)}
    cells = command._cells(command.Row(subject, found, {"jitrt": Difference(0.0, 0.0, True)}))
    assert cells == ["unet", *[""] * 8, "0.0e+00", "4.0 s", "80 MB", "0.80"]
    found["jitrt"] = Measured(failure="killed")
    assert command._cells(command.Row(subject, found))[1:3] == ["failed", ""]


def test_weights_in_less_memory_may_differ_by_a_hundredth_and_say_so():
    row = _row({"jitrt": 0.010, "onnxruntime": 0.018}, entries={"jitrt.weights": "bfloat16"})
    row.differences["jitrt"] = Difference(0.05, 0.005, False)
    assert not row.problem
    assert command._cells(row)[0] == "squeezenet1_1, bfloat16 weights"
    assert command._cells(row)[9] == "5.0e-02 (0.5% of the largest)"
    row.differences["jitrt"] = Difference(0.5, 0.05, False)
    assert row.problem == "outputs differ"
    assert command._cells(row)[9].endswith("TOO LARGE")


def test_every_promised_model_is_in_the_catalogue():
    for group in models.GROUPS.values():
        names = [str(subject) for subject in group.subjects()]
        assert {name for name in group.promised if not name.startswith("real: ")} <= set(names)
        assert len(set(names)) == len(names)


def test_words_choose_from_the_catalogue_and_the_strictest_promise_counts():
    def promised(words: str) -> dict[str, float | None]:
        return {str(subject): subject.least for subject in models.chosen(words)}

    assert promised("zoo bert_base") == {"zoo: bert_base": 1.08, "zoo: bert_base, batch 8": 1.08}
    assert promised("convnext") == {"zoo: convnext_tiny": 1.2}
    assert promised("gpt2 BFLOAT16") == {"zoo: gpt2, past of 256, bfloat16 weights": 1.7}
    assert promised("zoo: mlp") == {"zoo: mlp": None}


SIZES = {"layers": 2, "width": 64, "heads": 4, "vocabulary": 50, "context": 32}


@pytest.mark.parametrize("runtime", ["jitrt", "onnxruntime"])
def test_a_step_of_a_decoder_can_be_repeated_on_its_cache(runtime):
    model, feeds = zoo.build("gpt2", **SIZES), zoo.inputs("gpt2", past_sequence=7, **SIZES)
    content = model.SerializeToString()
    run = child.LOADERS[runtime](driver.load_request(model, content), feeds)
    wanted = onnxruntime.InferenceSession(content).run(None, feeds)
    for _ in range(3):
        for found, expected in zip(run(), wanted, strict=True):
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_a_step_reads_its_weights_and_its_cache_but_no_tables():
    model, feeds = zoo.build("gpt2", **SIZES), zoo.inputs("gpt2", past_sequence=7, **SIZES)
    weights = zoo.outline("gpt2", **SIZES)[1] - 32 * 64  # positions; the table of tokens gives the logits, too
    assert decoding.bytes_read(model, feeds) == 4 * (weights + 2 * 2 * 7 * 64)
    reading = decoding.Reading([0.02, 0.016, 0.03], 9 * 10**8, [5e10, 6e10, 6e10])
    assert reading.share == pytest.approx(0.75)
    assert decoding.cells("gpt2", 7, reading)[1:] == [*("20.00 ms", "900 MB", "45.0 GB/s", "60.0 GB/s", "75%", "94%", "90%", "NO")]


def test_inputs_of_all_lengths_are_parts_of_the_longest():
    cut = lengths.inputs("gpt2", "past_sequence", 9)
    for past in (2, 5, 9):
        expected = zoo.inputs("gpt2", sequence=1, past_sequence=past)
        found = cut(past)
        assert {key: x.shape for key, x in found.items()} == {key: x.shape for key, x in expected.items()}
        assert all(x.flags.c_contiguous for x in found.values())


def test_every_length_runs_once_and_some_again():
    seen: list[int] = []
    limit = lengths.SETTLED + 2 * lengths.EVERY
    found = lengths.grow(lambda feeds: seen.append(feeds["x"]), lambda length: {"x": length}, limit)
    assert sorted(set(seen)) == list(range(lengths.FIRST, limit + 1))
    assert len(seen) == limit - 1 + lengths.AGAIN * len(found.extra)
    assert len(found.extra) == 1
    assert found.compiled == 0
    assert (found.settled > 0) == (found.most > 0) == memory.available()


def test_a_new_length_keeps_its_promise_if_it_is_quick_and_compiles_nothing():
    others = lengths.Growth([0.0], 0, 10**9, 10**9)
    cases = {
        ((0.0, 9e-4, 5e-3), 0, 104): ["900.0 us", "yes", "yes"],
        ((0.0, 2e-3, 1e-3), 0, 106): ["1.00 ms", "NO", "NO"],
        ((0.0, 9e-4, 5e-3), 1, 100): ["900.0 us", "NO", "yes"],
    }
    for (extra, compiled, most), expected in cases.items():
        ours = lengths.Growth(list(extra), compiled, 100 * 10**6, most * 10**6)
        line = dict(zip(lengths.TITLES, lengths.cells("gpt2", "past_sequence", 7, ours, others)))
        assert [line["first run, more than later"], line["kept"], line["flat"]] == expected
        assert line["model"] == "gpt2, past"
        assert len(line) == len(lengths.TITLES)
