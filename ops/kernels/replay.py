"""The replay loop: one native call walks a segment of a plan with every thread that helps.

Every task of a parallel run has a number that no other task of the pool's life has: the run's `base` plus its place
in the segment. Two kinds of counters follow from that, and neither is ever reset:

* `next` of thread t: all tasks of t's shares below it are taken. A share is a block of a step's tasks that stays with
  one thread from step to step, so that its data stays in that core's cache. Whoever raises `next` by compare-and-swap runs
  the tasks between: half of those that are left, as nothing is read ahead of such an instruction (guided self-scheduling,
  Polychronopoulos and Kuck 1987). Each thread empties its own share first, then helps with the others.
* `done`: how many tasks are finished. A step may begin once `done` has reached its first number.

A helper that wakes up late, in a run that is over, finds every ticket of that run taken: it can neither take a task
of a later run nor wait for anything. The caller (thread 0) can finish alone. It runs the steps of one task itself.

A thread that waits for a step asks its kernel for what the thread's first tasks will read, if it can be asked (`ahead`).

A job is one segment of one context. Its steps have four words each: kernel, arguments, tasks, pieces that the kernel may be
asked for ahead. A patch (destination, buffer, offset) writes an array's data address plus an offset into an argument block;
buffers are array objects.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from .ahead import ASKED

# int64 words of a job; WIDTH: the largest number of threads that a step can use; PLACES: spans of a step in a timeline;
# SELF: its own address
STEPS, STEP_COUNT, PATCHES, PATCH_COUNT, STATUSES, STATUS_COUNT, FAULT, BUFFERS = range(8)
DATA_OFFSET, SCRATCH, SCRATCH_SIZE, WIDTH, PLACES, SELF = range(8, 14)
JOB_WORDS = 14
KERNEL, ARGUMENTS, TASKS, PIECES = range(4)
STEP_WORDS = 4

# words of a pool (SELF as in a job); what different threads write lies on different cache lines
DONE, BASE, JOB, TIMELINE, OWNER = 0, 8, 9, 10, 16
THREADS, YIELD, ACQUIRE, RELEASE = range(24, 28)
SEATS, SEAT_WORDS = 32, 16
NEXT, BUSY, ASLEEP, LOCK = 0, 8, 9, 10  # words of a thread's seat
CLOSED = -1  # `base` between runs

SPINS = 2000  # a thread that has waited so long for others offers them its core
IDLE_SPINS = 8000  # a helper looks so often for the next run before it sleeps


def seat(thread: int) -> int:
    """Index of the first word of a thread's seat in the pool's words."""
    return SEATS + SEAT_WORDS * thread


def pool_words(threads: int) -> int:
    """Size of a pool in words."""
    return seat(threads)


def make_replay() -> Callable:
    """``replay(job, pool, timeline)``: run a segment, with the pool's helpers if nobody else uses them.

    `pool` is the address of a pool's words or 0; `timeline` that of 2 words a step and thread, or 0.
    """
    from .atomics import call_c, compare_and_swap, load, store
    from .simd import block

    alone, walk, wake = _alone(), _walk(), _wake(call_c, compare_and_swap, load)

    def replay(job, pool, timeline):
        buffers = block(job[BUFFERS])
        patches = block(job[PATCHES])
        for i in range(job[PATCH_COUNT]):
            data = block(buffers[patches[3 * i + 1]] + job[DATA_OFFSET])
            block(patches[3 * i])[0] = data[0] + patches[3 * i + 2]
        statuses = block(job[STATUSES])
        for i in range(job[STATUS_COUNT]):
            block(statuses[i])[0] = 0

        if pool != 0 and compare_and_swap(pool + 8 * OWNER, 0, 1):
            base = load(pool + 8 * DONE)
            store(pool + 8 * JOB, job[SELF])
            store(pool + 8 * TIMELINE, timeline)
            store(pool + 8 * BASE, base)
            wake(pool, job[WIDTH])
            walk(job[SELF], pool, 0, base, timeline)
            store(pool + 8 * BASE, CLOSED)
            store(pool + 8 * OWNER, 0)
        else:
            alone(job[SELF], timeline)

        job[FAULT] = 0
        for i in range(job[STATUS_COUNT]):
            if job[FAULT] == 0 and block(statuses[i])[0] != 0:
                job[FAULT] = i + 1

    return replay


def make_helper() -> Callable:
    """``helper(pool, thread, 0)``: take part in runs for ever; sleep when none comes for a while."""
    from .atomics import call_c, compare_and_swap, load, pause, store
    from .simd import block

    walk = _walk()

    def helper(words, thread, unused):
        pool = words[SELF]
        seat = pool + 8 * (SEATS + SEAT_WORDS * thread)
        seen = CLOSED
        spins = 0
        while True:
            base = load(pool + 8 * BASE)
            if base != CLOSED and base != seen:
                seen = base
                job = load(pool + 8 * JOB)
                timeline = load(pool + 8 * TIMELINE)
                # the seat keeps the job's memory from being freed; an open run after that means it was not before
                store(seat + 8 * BUSY, job)
                if load(pool + 8 * BASE) == base:
                    walk(job, pool, thread, base, timeline)
                store(seat + 8 * BUSY, 0)
                spins = 0
            elif spins < IDLE_SPINS:
                pause()
                spins += 1
            else:
                store(seat + 8 * ASLEEP, 1)
                base = load(pool + 8 * BASE)
                fresh = base != CLOSED and base != seen
                # who finds no flag to take back was woken already, and the lock's release is on its way
                if not fresh or not compare_and_swap(seat + 8 * ASLEEP, 1, 0):
                    call_c(block(pool)[ACQUIRE], block(seat)[LOCK], 1)
                spins = 0

    return helper


def make_clock() -> Callable:
    """``clock(args, 0, 0)``: what the timeline's counter shows now, to ``args[0]``."""
    from .atomics import cycles

    def clock(args, task, scratch):
        args[0] = cycles()

    return clock


def _wake(call_c, compare_and_swap, load) -> Callable:
    from .simd import block
    from .subroutine import subroutine

    @subroutine
    def wake(pool, width):
        for thread in range(1, min(width, block(pool)[THREADS])):
            seat = pool + 8 * (SEATS + SEAT_WORDS * thread)
            if load(seat + 8 * ASLEEP) == 1 and compare_and_swap(seat + 8 * ASLEEP, 1, 0):
                call_c(block(pool)[RELEASE], block(seat)[LOCK], 0)

    return wake


@lru_cache(maxsize=1)
def _record() -> Callable:
    from .atomics import cycles
    from .simd import block
    from .subroutine import subroutine

    @subroutine
    def record(timeline, place, started):
        block(timeline)[2 * place] = started
        block(timeline)[2 * place + 1] = cycles()

    return record


@lru_cache(maxsize=1)
def _wait() -> Callable:
    from .atomics import call_c, load, pause
    from .simd import block, call_kernel
    from .subroutine import subroutine

    @subroutine
    def wait(pool, base, number, step_address, pieces, task, scratch):
        """Return when `number` tasks are done, or the run with this base is over; meanwhile bring what `task` will read."""
        spins, piece, step = 0, 0, block(step_address)
        while load(pool + 8 * DONE) < number and load(pool + 8 * BASE) == base:
            if piece < pieces:
                call_kernel(step[KERNEL], step[ARGUMENTS], -1 - task - piece * ASKED, scratch)
                piece += 1
            elif spins < SPINS:
                pause()
                spins += 1
            else:
                call_c(block(pool)[YIELD], 0, 0)

    return wait


def _alone() -> Callable:
    from .atomics import cycles
    from .simd import block, call_kernel
    from .subroutine import subroutine

    record = _record()

    @subroutine
    def alone(job_address, timeline):
        job = block(job_address)
        scratch = job[SCRATCH]
        for s in range(job[STEP_COUNT]):
            step = block(job[STEPS] + 8 * STEP_WORDS * s)
            started = 0
            if timeline != 0:
                started = cycles()
            for task in range(step[TASKS]):
                call_kernel(step[KERNEL], step[ARGUMENTS], task, scratch)
            if timeline != 0:
                record(timeline, s * job[PLACES], started)

    return alone


@lru_cache(maxsize=1)
def _walk() -> Callable:
    from .atomics import add, compare_and_swap, cycles, load
    from .simd import block, call_kernel
    from .subroutine import subroutine

    record, wait = _record(), _wait()

    @subroutine
    def walk(job_address, pool, thread, base, timeline):
        """One thread's part of the run with this base."""
        job = block(job_address)
        scratch = job[SCRATCH] + thread * job[SCRATCH_SIZE]
        end = base
        untold = 0  # tasks that the caller has finished and not yet added to `done`
        for s in range(job[STEP_COUNT]):
            step_address = job[STEPS] + 8 * STEP_WORDS * s
            step = block(step_address)
            tasks = step[TASKS]
            first, end = end, end + tasks
            parts = min(block(pool)[THREADS], tasks)
            if thread >= max(parts, 1):
                continue
            if tasks > 1 and untold > 0:
                add(pool + 8 * DONE, untold)
                untold = 0
            if tasks > 1 or thread == 0:
                begin = thread * tasks // max(parts, 1)
                wait(pool, base, first - untold, step_address, step[PIECES], begin, scratch)
                if load(pool + 8 * BASE) != base:
                    return
            started = 0
            if timeline != 0:
                started = cycles()
            taken = tasks
            if tasks <= 1:
                for task in range(tasks):
                    call_kernel(step[KERNEL], step[ARGUMENTS], task, scratch)
                untold += tasks
            else:
                taken = 0
                for k in range(parts):
                    share = thread + k
                    if share >= parts:
                        share -= parts
                    counter = pool + 8 * (SEATS + SEAT_WORDS * share + NEXT)
                    low, high = first + share * tasks // parts, first + (share + 1) * tasks // parts
                    before = taken
                    while True:
                        ticket = load(counter)
                        number = max(ticket, low)
                        if number >= high:
                            break
                        some = max(1, (high - number) // 2)
                        if compare_and_swap(counter, ticket, number + some):
                            for task in range(number - first, number - first + some):
                                call_kernel(step[KERNEL], step[ARGUMENTS], task, scratch)
                            taken += some
                    if taken > before and add(pool + 8 * DONE, taken - before) + taken - before == end:
                        break
            if timeline != 0 and taken > 0:
                record(timeline, s * job[PLACES] + thread, started)
        if untold > 0:
            add(pool + 8 * DONE, untold)
        if thread == 0:
            wait(pool, base, end, job[STEPS], 0, 0, scratch)

    return walk
