"""The benchmark of whole processes: whose memory it counts, and how it says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks import probe, processes

MEMORY = 60_000_000
HOLDS = f"block = b'x' * {MEMORY}; del block; print('ready', flush=True); input()"


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells of other processes")
def test_the_peaks_of_processes_that_this_one_has_started_are_counted_while_they_live():
    command = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        found = probe.worker_peaks()
        child.communicate("\n")
    assert any(MEMORY < peak < 3 * MEMORY for peak in found)
    assert not any(MEMORY < peak < 3 * MEMORY for peak in probe.worker_peaks())


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([170_000_000], "470 MB (2.35), 170 MB of it in 1 process that compiles"),
        ([170_000_000, 30_000_000], "500 MB (2.50), 200 MB of it in 2 processes that compile"),
        ([], "300 MB (1.50), 0 MB of it in 0 processes that compile"),
        (None, None),
    ],
)
def test_the_table_tells_the_memory_of_workers_apart(workers, expected):
    ours, theirs = {"peak": 300_000_000, "workers": workers, "idle": 0.0}, {"peak": 200_000_000, "idle": 0.0}
    figures = list(processes._costs(processes.SUBJECTS[0], ours, (ours,), (theirs,)))
    alone, together = ([f for f in figures if words in f.what] for words in ("process alone", "with processes"))
    assert [f.ours for f in alone] == ["300 MB (1.50)"]
    assert [(f.ours, f.theirs, f.kept) for f in together] == ([] if expected is None else [(expected, "200 MB", None)])
