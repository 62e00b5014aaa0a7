"""Repeating a segment of a plan: one native call replays it for many iterations of a loop's body.

Inputs and outputs of the segment are named by a table of addresses, `data`, one word each, in which words of the loop's own
follow. Before the first replay some addresses are fetched from array objects. After each one values are copied (what the body
hands through to another place), states change places (what was written is read next, and the other of two buffers is written
next) and other words move on (slices, rows, the counter), by the same each time or as a table says. Numba-free but for the factory.
"""

from __future__ import annotations

from collections.abc import Callable

# words of its argument block. DONE: how many iterations there were, the one thing that it gives back; GOING: the place in `data`
# of the condition, or -1; OFFSET: where an array object keeps its data's address. Then four tables and their lengths
REPLAY, JOB, POOL, COUNT, DONE, DATA, GOING, OFFSET = range(8)
OBJECTS, OBJECT_COUNT, COPIES, COPY_COUNT, STATES, STATE_COUNT, MOVES, MOVE_COUNT = range(8, 16)
CHANGES, CHANGED, CHANGE_COUNT = range(16, 19)  # rows of numbers, one an iteration; the places to which they are added; how many
BLOCK_WORDS = 19
OBJECT_WORDS = 3  # place in `data`, array object, what is added to its address
COPY_WORDS = 4  # places of the target and of the source, offset into the source, bytes
STATE_WORDS = 3  # places of the input, of the output and of the other buffer
MOVE_WORDS = 2  # place, what is added to it each time


def make_repeat() -> Callable:
    """``repeat(args, 0, 0)``: up to COUNT iterations, fewer if the condition ends them or a step fails."""
    from . import simd
    from .gather import copy_run
    from .replay import FAULT

    block, call, copy, load, to_word = simd.block, simd.call_kernel, copy_run(1, False), simd.load("u8", 0), simd.to("i64")

    def repeat(args, task, scratch):
        data, job, objects = block(args[DATA]), block(args[JOB]), block(args[OBJECTS])
        copies, states, moves = block(args[COPIES]), block(args[STATES]), block(args[MOVES])
        changed = block(args[CHANGED])
        for i in range(args[OBJECT_COUNT]):
            k = OBJECT_WORDS * i
            data[objects[k]] = block(objects[k + 1] + args[OFFSET])[0] + objects[k + 2]
        done, goes_on = 0, 1
        while goes_on != 0 and done < args[COUNT]:
            call(args[REPLAY], args[JOB], args[POOL], 0)
            if job[FAULT] != 0:
                break
            for i in range(args[COPY_COUNT]):
                k = COPY_WORDS * i
                copy(data[copies[k + 1]] + copies[k + 2], data[copies[k]], copies[k + 3])
            for i in range(args[STATE_COUNT]):
                k = STATE_WORDS * i
                written = data[states[k + 1]]
                data[states[k]], data[states[k + 1]] = written, data[states[k + 2]]
                data[states[k + 2]] = written
            for i in range(args[MOVE_COUNT]):
                k = MOVE_WORDS * i
                data[moves[k]] += moves[k + 1]
            changes = block(args[CHANGES] + 8 * args[CHANGE_COUNT] * done)
            for i in range(args[CHANGE_COUNT]):
                data[changed[i]] += changes[i]
            done += 1
            if args[GOING] >= 0:
                goes_on = to_word(load(data[args[GOING]]))
        args[DONE] = done

    return repeat
