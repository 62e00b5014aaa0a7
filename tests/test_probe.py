"""The benchmark of whole processes: whose memory it counts, and how it says so."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from benchmarks import memory, processes

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
