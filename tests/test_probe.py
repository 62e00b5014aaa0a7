"""The benchmark of whole processes: whose memory it counts, what it says, and how it counts tests."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from benchmarks import conformance, memory, processes

MEMORY = 60_000_000
HOLDS = f"block = b'x' * {MEMORY}; del block; print('ready', flush=True); input()"
STARTS = f"import subprocess, sys; block = b'x' * {MEMORY}; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"


@pytest.mark.skipif(not memory.available(), reason="only Linux tells of other processes")
def test_memory_of_a_program_is_that_of_all_it_has_started():
    command, pipe = [sys.executable, "-c", STARTS, HOLDS], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as program:
        peaks = []
        watcher = threading.Thread(target=lambda: peaks.append(memory.watch(program)))
        watcher.start()
        assert program.stdout.readline() == "ready\n"
        assert len(memory.family(program.pid)) == 2
        assert MEMORY < sum(map(memory.held, memory.family(program.pid))) < 3 * MEMORY
        program.stdin.write("\n")
        program.stdin.flush()
        watcher.join()
    assert MEMORY < peaks[0] < 4 * MEMORY
    assert memory.held(program.pid) == 0
    assert memory.family(program.pid) == [program.pid]


@pytest.mark.parametrize(
    ("together", "expected"),
    [(300_000_000, [("300 MB (1.50)", "200 MB", False)]), (250_000_000, [("250 MB (1.25)", "200 MB", True)]), (None, [])],
)
def test_the_table_tells_the_memory_of_the_program_from_that_of_all_processes(together, expected):
    ours, theirs = {"peak": 210_000_000, "idle": 0.0}, {"peak": 200_000_000, "idle": 0.0}
    figures = list(processes._costs(processes.SUBJECTS[0], ours, (ours,), (theirs,), together))
    assert [f.ours for f in figures if "program's process" in f.what] == ["210 MB (1.05)"]
    assert [(f.ours, f.theirs, f.kept) for f in figures if "beside it" in f.what] == expected


@pytest.mark.parametrize(("limit", "kept"), [(0.1, [True, False, False]), (None, [None, None, None])])
def test_a_new_size_has_a_verdict_if_its_model_has_a_limit(limit, kept):
    subject = processes.Subject("mlp", "MLP", new={"batch 2": {}, "batch 3 after it": {}, "batch 4": {}}, new_limit=limit)
    ours = [{"first": 0.2, "extra": extra, "compiled": compiled} for extra, compiled in ((0.05, 0), (0.15, 0), (0.05, 1))]
    figures = list(processes._sizes(subject, ours, [{"first": 0.3}] * 3))
    assert [f.kept for f in figures] == kept
    assert all(bool(f.promised) == (limit is not None) for f in figures)
    assert figures[1].what == "MLP: first run of batch 3 after it"
    assert figures[1].ours == "200 ms (150 ms more than later), 0 compiled"


def test_backend_tests_are_counted_by_name_and_outcome(tmp_path):
    report = tmp_path / "report.xml"
    cases = '<testcase name="test_backend[a]"/><testcase name="test_backend[b]"><failure/></testcase>'
    cases += '<testcase name="test_backend[c]"><skipped/></testcase><testcase name="test_other"/>'
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert conformance.count_passed(report) == (1, 3)


def test_results_need_neither_runtime_to_be_imported():
    """So that neither has taken a thread, a page or a core when processes are measured."""
    code = "import sys, benchmarks.results; assert not {'jitrt', 'onnxruntime', 'numba'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=processes.ROOT)
