"""The replay loop: one native call walks a range of a plan's steps with every thread that helps.

Memory, in int64 words. Job (what a run hands to its helpers):

    0 steps table   1 first step   2 end step   3 threads   4 epoch   5 sched_yield   6 timeline or 0
    7 patch count   8 patch table   9 buffer addresses   16 + t: scratch of thread t

Step i lies at ``steps + i * stride(threads) * 8``: 0 kernel, 1 arguments, 2 tasks, 3 tasks done, 8 + t: the next task
of thread t's share, tagged with the epoch in its upper half. A ticket is taken by compare-and-swap on that word, so a
thread that wakes up late finds another epoch or nothing left, and leaves. Thread 0, the caller, runs every step that
has one task, and can finish alone. Pool: 0 sequence number, 1 job, 16 + t: the job that thread t looks at.

A patch (destination, buffer, offset) writes a buffer's address into an argument block before the first step.
"""

from __future__ import annotations

from collections.abc import Callable

JOB_SCRATCH = 16  # first word of the scratch addresses in a job
POOL_BUSY = 16
SPINS = 4000  # waits that long before giving the CPU to another thread
IDLE_SPINS = 6000  # a helper looks that often for the next run before it sleeps: about 200 us


def stride(threads: int) -> int:
    """Words a step."""
    return 8 + -(-threads // 8) * 8


def make_replay() -> Callable:
    """``replay(job, 0, 0)``: the calling thread's part of a run."""
    from .atomics import add, compare_and_swap, load, pause, store, yield_cpu
    from .simd import block, call_kernel

    walk = _make_walk(add, compare_and_swap, load, pause, yield_cpu, block, call_kernel)

    def replay(job, task, scratch):
        patches = block(job[8])
        buffers = block(job[9])
        for i in range(job[7]):
            place = block(patches[3 * i])
            place[0] = buffers[patches[3 * i + 1]] + patches[3 * i + 2]
        threads = job[3]
        if threads > 1:
            words = 8 + (threads + 7) // 8 * 8
            for s in range(job[1], job[2]):
                step = job[0] + s * words * 8
                tasks = load(step + 16)
                for t in range(threads):
                    store(step + 64 + t * 8, (job[4] << 32) | (t * tasks // threads))
                store(step + 24, 0)
            if task:  # the pool's address: the job is published
                store(task + 8, job[10])
                store(task, load(task) + 1)
        walk(job, 0)

    return replay


def make_helper() -> Callable:
    """``helper(pool, thread, 0)``: take part in runs until none has come for a while."""
    from .atomics import add, compare_and_swap, load, pause, store, yield_cpu
    from .simd import block, call_kernel

    walk = _make_walk(add, compare_and_swap, load, pause, yield_cpu, block, call_kernel)

    def helper(pool_words, thread, last):
        pool = pool_words[2]
        mine = pool + (16 + thread) * 8
        seen = last
        spins = 0
        while spins < IDLE_SPINS:
            now = load(pool)
            if now == seen:
                pause()
                spins += 1
                continue
            job = load(pool + 8)
            store(mine, job)
            if load(pool + 8) == job and job != 0:
                walk(block(job), thread)
            store(mine, 0)
            seen = now
            spins = 0
        store(pool + (256 + thread) * 8, seen)

    return helper


def make_cycles() -> Callable:
    """``cycles(word, 0, 0)``: the cycle counter, for calibration."""
    from .atomics import cycles

    def read(word, task, scratch):
        word[0] = cycles()

    return read


def _make_walk(add, compare_and_swap, load, pause, yield_cpu, block, call_kernel) -> Callable:
    from numba import njit

    from .atomics import cycles

    @njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
    def walk(job, thread):
        threads, epoch = job[3], job[4]
        words = 8 + (threads + 7) // 8 * 8
        scratch = job[16 + thread]
        timeline = job[6]
        for s in range(job[1], job[2]):
            address = job[0] + s * words * 8
            step = block(address)
            kernel, args, tasks = step[0], step[1], step[2]
            started = 0
            if timeline != 0:
                started = cycles()
            if threads == 1:
                for task in range(tasks):
                    call_kernel(kernel, args, task, scratch)
            elif tasks == 1:
                if thread == 0:
                    call_kernel(kernel, args, 0, scratch)
                    add(address + 24, 1)
            else:
                for k in range(threads):
                    share = (thread + k) % threads
                    counter = address + 64 + share * 8
                    end = (share + 1) * tasks // threads
                    while True:
                        ticket = load(counter)
                        if ticket >> 32 != epoch:
                            return
                        task = ticket & 0xFFFFFFFF
                        if task >= end:
                            break
                        if compare_and_swap(counter, ticket, ticket + 1):
                            call_kernel(kernel, args, task, scratch)
                            add(address + 24, 1)
            if timeline != 0:
                record = block(timeline + (s * threads + thread) * 16)
                record[0] = started
                record[1] = cycles()
            if threads > 1:
                spins = 0
                while load(address + 24) < tasks:
                    if thread != 0 and job[4] != epoch:
                        return
                    pause()
                    spins += 1
                    if spins > SPINS:
                        yield_cpu(job[5])

    return walk
