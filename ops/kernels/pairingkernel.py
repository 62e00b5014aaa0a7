"""The kernel of `pairing`: what a task is, and the loops around `pairingpasses` and the register tile (`pairingtile`).

Loop order of a task: K blocks; panels; tiles. Rows of A stand in scratch for a K block, multiplied by powers of 2, and stay in L2.
A panel is looked at before the first tile takes it, which brings it to L2 for all others; the first tiles bring the next one.
One of 16-bit elements is widened then: additions leave no unit free that could do it beside them, for each tile again.

Pairs err by what is in a row and a column, not by what is in their products. So a panel goes without if a column's length is more
than `pairingpasses.LIMIT` times another than the average, or if the terms that a column is sampled for, those of the largest
features, show that it is small where those are large. A tile goes without if one of its rows is nearly one element.
"""

from __future__ import annotations

from collections.abc import Callable

from . import pairingwords as word
from . import target
from .ahead import ASKED, bringing
from .pairing import first_tile

SMALLEST = 32  # times less than the lengths of row and column let expect may terms be, by samples of a sixteenth of them


def factory() -> Callable:
    """The kernel. Task = (block of rows, block of panels), the panels running fastest; scratch: `pairing.scratch_bytes`."""
    from . import pairingpasses, simd
    from .convkernel import finishing

    lanes = target.current().lanes
    width, row_bytes, turn = 2 * lanes, 8 * lanes, word.TURN
    take, measure, compare = pairingpasses.taking(lanes), pairingpasses.measuring(lanes), pairingpasses.comparing(lanes)
    multiply, average, (clear, choose) = _multiplying(lanes), _averaging(lanes), _sampling(lanes)
    finish, bring = finishing(), bringing()
    words, load_word, store, splat = simd.block, simd.load("i64", 0), simd.store("f32"), simd.splat("f32", lanes)
    infinity = 0x7FF << 52

    def kernel(args, task, scratch):
        depth, steps, panel_tasks = args[word.DEPTH], args[word.STEPS], args[word.PANEL_TASKS]
        held, held_row = args[word.HELD], row_bytes if args[word.HELD] == 0 else row_bytes // 2
        panel, panels = depth * held_row, (args[word.COLUMNS] + width - 1) // width
        if task < 0:
            p = (-1 - task) % ASKED % panel_tasks * args[word.OWN_PANELS]
            bring(args[word.B] + p * panel, min(args[word.OWN_PANELS], panels - p) * panel, (-1 - task) // ASKED)
            return
        p0, row = task % panel_tasks * args[word.OWN_PANELS], task // panel_tasks * args[word.OWN_ROWS]
        p1, rows = min(panels, p0 + args[word.OWN_PANELS]), min(args[word.OWN_ROWS], args[word.ROWS] - row)
        clips = args[word.LOW] != infinity - (1 << 63) or args[word.HIGH] != infinity
        zeros, pairs, squares, reference = (
            scratch + word.ZEROS_AT, scratch + word.PAIRS_AT, scratch + word.SQUARES_AT, scratch + word.REFERENCE_AT,
        )  # fmt: skip
        sound, alike, least = scratch + word.SOUND_AT, scratch + word.ALIKE_AT, scratch + word.LEAST_AT
        features, samples, info = scratch + word.FEATURES_AT, scratch + word.SAMPLES_AT, scratch + word.INFO_AT
        copy = info + args[word.OWN_ROWS] * word.INFO_BYTES
        wide = copy
        if held != 0:
            copy += word.WIDE_BYTES
        # half a page from where B is in its: else what is stored would fall into the sets of L1 that it is read into
        copy += ((args[word.B] if held == 0 else wide) + word.PAGE // 2 - copy) % word.PAGE
        for i in range(word.WORDS):
            words(scratch + word.BLOCK_AT)[i] = args[i]
        store(zeros, splat(0.0))
        store(zeros + 4 * lanes, splat(0.0))
        for k in range(0, depth, steps):
            own = min(steps, depth - k)
            clip = 1 if k + own == depth and clips else 0
            for p in range(p0, p1):
                b, c0 = args[word.B] + p * panel + k * held_row, p * width
                cols = min(width, args[word.COLUMNS] - c0)
                # the next panel, or the first one of the next K block, comes to L2 meanwhile
                following, end = b + panel, b + panel + own * held_row
                if p == p1 - 1 and k + own < depth:
                    following = args[word.B] + p0 * panel + (k + own) * held_row
                    end = following + min(steps, depth - k - own) * held_row
                measure(args, b, own // turn, own % turn, cols, held, wide, pairs, squares, sound)
                if held != 0:
                    b = wide
                if p == p0:
                    average(squares, cols, load_word(sound), reference)
                    clear(features, own)
                    take(args, args[word.X] + row * args[word.X_ROW] + k * 4, rows, own, reference, copy, info, features)
                    choose(features, own, samples, least)
                compare(args, b, squares, reference, samples, (own + lanes - 1) // lanes, least, cols, alike)
                base, start, start_row = zeros, args[word.RESIDUAL], args[word.R_ROW]
                if k > 0:
                    start, start_row = args[word.Y], args[word.Y_ROW]
                elif args[word.BIAS] != 0:
                    base = args[word.BIAS] + c0 * 4
                if start != 0:
                    start += row * start_row + c0 * 4
                paired, y = load_word(sound) & load_word(alike), args[word.Y] + row * args[word.Y_ROW] + c0 * 4
                multiply(
                    scratch + word.BLOCK_AT, rows, copy, info, b, pairs, own, paired, following, end, base, start,
                    start_row, y, cols, clip,
                )  # fmt: skip
                if k + own == depth and args[word.EPILOGUE] != 0:
                    finish(args[word.EPILOGUE], args[word.EPILOGUE_BLOCK], scratch, 0, row, rows, c0, cols)

    return kernel


def _averaging(lanes: int) -> Callable:
    """The subroutine ``average(squares, columns, sound, reference)``: the mean of a panel's squares, or 1 if it is not `sound`."""
    from . import simd
    from .subroutine import subroutine

    load, store, splat, total = simd.load("f32", lanes), simd.store("f32"), simd.splat("f32", lanes), simd.reduce_add
    select, first = simd.select, simd.first_lanes(lanes)

    @subroutine
    def average(squares, columns, sound, reference):
        mean = splat(1.0)
        if sound != 0:
            low = select(first(columns), load(squares), splat(0.0))
            high = select(first(columns - lanes), load(squares + 4 * lanes), splat(0.0))
            mean = total(low + high) / splat(columns)
        store(reference, mean)

    return average


def _sampling(lanes: int) -> tuple[Callable, Callable]:
    """Subroutines around the sums of squares of A's columns, its `features`.

    ``clear(features, own)``: zeros for `own` of them. ``choose(features, own, samples, least)``: of every vector the largest one
    becomes a sample with its weight; what those have to come to for a column of B of length 1 is put at `least`.
    """
    from . import simd
    from .subroutine import subroutine

    load, store, splat, words = simd.load("f32", 0), simd.store("f32"), simd.splat("f32", lanes), simd.block
    one, row_bytes, share = simd.to("f32"), 8 * lanes, 1 / SMALLEST**2

    @subroutine
    def clear(features, own):
        for k in range(0, own, lanes):
            store(features + 4 * k, splat(0.0))

    @subroutine
    def choose(features, own, samples, least):
        total = 0.0
        for first in range(0, own, lanes):
            largest, found = load(features + 4 * first), first
            for k in range(first, min(own, first + lanes)):
                square = load(features + 4 * k)
                total += square
                if square > largest:
                    largest, found = square, k
            words(samples)[0] = found * row_bytes
            store(samples + 8, one(largest))
            samples += word.SAMPLE_BYTES
        store(least, one(total / own * share))

    return clear, choose


def _multiplying(lanes: int) -> Callable:
    """The subroutine ``multiply(block, rows, x, info, b, pairs, own, paired, ahead, end, base, start, ...)``.

    The tiles of a panel's K block at b, of `own` steps: by pairs if it may be `paired`, but for those with an odd row. Half of
    them ask for all that is `ahead` if they are more than a few, which is none too early and no burst. What else: see
    `pairingtile.tile`.
    """
    from . import pairingtile, simd
    from .subroutine import subroutine

    tile, number, words = pairingtile.tile(lanes, word.HEIGHTS), simd.load("i32", 0), simd.block
    tallest, turn, turn_ahead = word.HEIGHTS[0], word.TURN, word.LINES * word.LINE
    heights = sum(first_tile(rows) << 4 * (rows - 1) for rows in range(1, 2 * tallest))

    @subroutine
    def multiply(block, rows, x, info, b, pairs, own, paired, ahead, end, base, start, start_row, y, columns, clip):
        args, left = words(block), rows
        scarce = (rows + tallest - 1) // tallest * turn_ahead * (own // turn) <= end - ahead
        while left > 0:
            height, odd, turns, hurried = tallest, 1 - paired, 0, 0
            if left < 2 * tallest:
                height = heights >> 4 * (left - 1) & 15
            for i in range(height):
                odd += number(info + i * word.INFO_BYTES + 4 * word.ODD)
            if odd == 0:
                turns = own // turn
            if scarce:
                hurried = turns
            tile(args, height, x, info, b, pairs, turns, hurried, own - turns * turn, ahead, end, base, start, start_row, y,
                 columns, clip)  # fmt: skip
            ahead = min(ahead + (turns + hurried) * turn_ahead, end)
            left, x, info, y = (
                left - height,
                x + height * word.ROW_BYTES,
                info + height * word.INFO_BYTES,
                y + height * args[word.Y_ROW],
            )
            if start != 0:
                start += height * start_row

    return multiply
