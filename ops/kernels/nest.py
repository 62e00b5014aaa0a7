"""A loop between native steps, and the sequence of such loops and steps: no Python in a loop within a loop.

`nest` makes a repetition (`repeat`) ready, runs it and brings the states to where they are wanted. What it cannot do is left to
Python: a loop of very many iterations, which nobody could interrupt, and one in which a step fails. Numba-free but for the
factories.
"""

from __future__ import annotations

from collections.abc import Callable

from .replay import FAULT

MOST = 1 << 16  # iterations at most
# words of a nest's argument block; FAULT, where a job has it too: whether it is left to Python. COUNT: the trip count's address;
# MOST_COUNT: of so many iterations at most. WRITTEN: words that are set first; RESULTS: what is copied last
REPEAT, LOOP, COUNT, OFFSET, WRITTEN, WRITTEN_COUNT = range(6)
RESULTS, RESULT_COUNT, MOST_COUNT, NEST_WORDS = range(7, 11)
WRITTEN_WORDS = 3  # address of the word; address of an array object's address, or 0; what is added to the address of its data
RESULT_WORDS = 4  # address of the word with the source's address; the target as above; bytes
# words of a sequence's argument block, with FAULT: the number of the part that failed, from 1
PARTS, PART_COUNT, SEQUENCE_WORDS = 0, 1, 7
PART_WORDS = 3  # kernel, argument block, pool


def make_nest() -> Callable:
    """``nest(args, 0, 0)``: a loop, unless it is left to Python."""
    from . import repeat, simd
    from .gather import copy_run

    block, call, copy, load, to_word = simd.block, simd.call_kernel, copy_run(1, False), simd.load("u8", 0), simd.to("i64")
    going_word, count_word, data_word, job_word = repeat.GOING, repeat.COUNT, repeat.DATA, repeat.JOB

    def nest(args, task, scratch):
        written, results, loop = block(args[WRITTEN]), block(args[RESULTS]), block(args[LOOP])
        for i in range(args[WRITTEN_COUNT]):
            k, at = WRITTEN_WORDS * i, 0
            if written[k + 1] != 0:
                at = block(block(written[k + 1])[0] + args[OFFSET])[0]
            block(written[k])[0] = at + written[k + 2]
        count = block(args[COUNT])[0]
        args[FAULT] = 1 if count > args[MOST_COUNT] else 0
        if loop[going_word] >= 0 and to_word(load(block(loop[data_word])[loop[going_word]])) == 0:
            count = 0
        if count > 0 and args[FAULT] == 0:
            loop[count_word] = count
            call(args[REPEAT], args[LOOP], 0, 0)
            args[FAULT] = block(loop[job_word])[FAULT]
        if args[FAULT] == 0:
            for i in range(args[RESULT_COUNT]):
                k, at = RESULT_WORDS * i, 0
                if results[k + 1] != 0:
                    at = block(block(results[k + 1])[0] + args[OFFSET])[0]
                copy(block(results[k])[0], at + results[k + 2], results[k + 3])

    return nest


def make_sequence() -> Callable:
    """``sequence(args, 0, 0)``: native segments and nests one after the other, until one fails."""
    from . import simd

    block, call = simd.block, simd.call_kernel

    def sequence(args, task, scratch):
        parts, i = block(args[PARTS]), 0
        args[FAULT] = 0
        while i < args[PART_COUNT] and args[FAULT] == 0:
            k = PART_WORDS * i
            i += 1
            call(parts[k], parts[k + 1], parts[k + 2], 0)
            if block(parts[k + 1])[FAULT] != 0:
                args[FAULT] = i

    return sequence
