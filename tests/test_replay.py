"""The replay loop by itself: every task once, and no step before the one before it is done, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from jitrt.ops.kernels import replay
from jitrt.ops.kernels.spec import generated
from jitrt.pool import HELPER, KERNEL, REPLAY, pool
from jitrt.store import store

# words of a step: the one before and its number of tasks, how long tasks take, tasks that came too soon; how often each task ran
BEFORE, COUNT, WORK, EARLY, RAN = range(5)
SOURCE = """def kernel(args, task, scratch):
    before, x = block(args[0]), 1.0
    for i in range(args[1]):
        if before[4 + i] != args[4 + task] + 1:
            args[3] += 1
    for i in range(args[2] * (task % 5)):
        x = 0.5 * x + 1.0
    if x < 3.0:
        args[4 + task] += 1
"""


def steps_of(tasks: list[int], work: int) -> list[np.ndarray]:
    """The words of steps of so many tasks."""
    steps = [np.zeros(RAN + count, np.int64) for count in tasks]
    for step, before in zip(steps[1:], steps):
        step[BEFORE], step[COUNT] = before.ctypes.data, before.size - RAN
    for step in steps:
        step[WORK] = work
    return steps


def job_of(steps: list[np.ndarray], threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A job's words, and the steps and scratch that they refer to."""
    address = store().address(generated("counting", SOURCE, 4))
    table = np.array([[address, step.ctypes.data, step.size - RAN, 0] for step in steps], np.int64)
    scratch, job = np.zeros(64 * threads, np.uint8), np.zeros(replay.JOB_WORDS, np.int64)
    job[replay.STEPS], job[replay.STEP_COUNT] = table.ctypes.data, len(steps)
    job[replay.SCRATCH], job[replay.SCRATCH_SIZE] = scratch.ctypes.data, 64
    job[replay.WIDTH], job[replay.SELF] = threads, job.ctypes.data
    return job, table, scratch


@pytest.mark.parametrize("work", [0, 300])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_task_runs_once_a_run_and_after_the_step_before(threads, work):
    steps = steps_of([1, 2, 3, 1, 1, 5, 8, 33, 100, 7, 64, 1], work)
    job, _table, _scratch = job_of(steps, threads)
    helpers = pool(threads)
    address = helpers.start(store().address(HELPER))
    run = KERNEL(store().address(REPLAY))
    for _ in range(200):
        run(job.ctypes.data, address, 0)
    helpers.release(job.ctypes.data)
    for step in steps:
        np.testing.assert_array_equal(step[RAN:], 200)
        assert not step[EARLY]
