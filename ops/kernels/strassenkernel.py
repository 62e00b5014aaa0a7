"""The kernel of `strassen`: what a task is, and the loops around the passes (`strassenpasses`) and the register tile (`convtile`).

Loop order of a task: K blocks; pairs of panels; blocks of rows; products. Sums of A are made once a K block, those of B once a
pair. Both passes look at what they add, and say where eight direct products have to take the place of the seven. Panels of 16-bit
elements are widened before.
"""

from __future__ import annotations

from collections.abc import Callable

from . import strassenwords as word
from . import target
from .ahead import ASKED, bringing
from .blocking import crosses_rows, heights, single_heights, tallest_tile
from .convwords import PART, PIECE


def factory() -> Callable:
    """The kernel. Task = (blocks of rows, pairs of panels), the pairs running fastest; scratch: `strassen.scratch_bytes`."""
    from . import simd
    from .convkernel import finishing, tables
    from .strassenpasses import combining, summing_columns, summing_rows
    from .widening import widening

    lanes, tallest, crossing = target.current().lanes, tallest_tile(), crosses_rows()
    width, vector, row_bytes, widen = 2 * lanes, 4 * lanes, 8 * lanes, widening(lanes, 2)
    sum_rows, sum_columns, combine = (made(lanes) for made in (summing_rows, summing_columns, combining))
    (cut, lay_out), finish, bring = tables(4), finishing(), bringing()
    list_seven, list_eight = _lists(row_bytes)
    multiply, words, load_word = _multiplying(lanes), simd.block, simd.load("i64", 0)
    store, splat = simd.store("f32"), simd.splat("f32", lanes)

    def kernel(args, task, scratch):
        depth, steps, pair_tasks = args[word.DEPTH], args[word.STEPS], args[word.PAIR_TASKS]
        held, held_row = args[word.HELD], row_bytes if args[word.HELD] == 0 else row_bytes // 2
        panel, panels = depth * held_row, (args[word.COLUMNS] + width - 1) // width
        if task < 0:
            p = (-1 - task) % ASKED % pair_tasks * args[word.OWN_PAIRS] * 2
            bring(args[word.B] + p * panel, min(2 * args[word.OWN_PAIRS], panels - p) * panel, (-1 - task) // ASKED)
            return
        half, stride, x_row, rows = args[word.HALF], args[word.OPERAND_ROW], args[word.X_ROW], args[word.ROWS]
        operand, moved = half * stride, (args[word.COUNT] + args[word.SECONDS]) * vector
        zeros = scratch + 64
        aside = zeros + tallest * row_bytes
        inverse = aside + tallest * row_bytes
        todo = inverse + row_bytes
        own_block = todo + word.TODO_BYTES
        in_place = own_block + (8 * word.WORDS + 63) // 64 * 64
        table = in_place + (8 * word.WORDS + 63) // 64 * 64
        places = table + ((steps + PART - 1) // PART * PIECE + 63) // 64 * 64
        places_in_place = places + (half * 8 + 63) // 64 * 64
        largest = places_in_place + (half * 8 + 63) // 64 * 64
        sums = largest + 2 * steps * 4
        wide = sums
        if held != 0:
            sums += 4 * steps * row_bytes
        # half a page from where B is in its: else what is stored would fall into the sets of L1 that it is read into
        sums += ((args[word.B] if held == 0 else wide) + word.PAGE // 2 - sums) % word.PAGE
        products = sums + word.B_SUMS * steps * row_bytes
        flags = products + word.PRODUCTS * half * row_bytes
        operands = flags + (args[word.OWN_BLOCKS] * 8 + 8 + 63) // 64 * 64
        for v in range(0, tallest * row_bytes, vector):
            store(zeros + v, splat(0.0))
        # tiles read sums and, with a block that says how far those are apart, rows of A in place
        for i in range(word.WORDS):
            words(own_block)[i], words(in_place)[i] = args[i], args[i]
        words(in_place)[word.OPERAND_ROW] = x_row
        if crossing:
            lay_out(places, 0, half, 1, half, 0, 0, stride)
            lay_out(places_in_place, 0, half, 1, half, 0, 0, x_row)
        p0, b0 = task % pair_tasks * args[word.OWN_PAIRS], task // pair_tasks * args[word.OWN_BLOCKS]
        p1, blocks = min(args[word.PAIRS], p0 + args[word.OWN_PAIRS]), min(args[word.OWN_BLOCKS], args[word.BLOCKS] - b0)
        of_pair = flags + args[word.OWN_BLOCKS] * 8
        for kb in range(args[word.K_BLOCKS]):
            k = kb * 2 * steps
            own, last = min(steps, (depth - k) // 2), kb == args[word.K_BLOCKS] - 1
            part, held_part = own * row_bytes, own * held_row
            cut(table, 0, 1, 1, 1, 0, 0, 0, 0, own)
            for v in range(0, 2 * steps * 4, vector):
                store(largest + v, splat(0.0))
            for b in range(blocks):
                row = (b0 + b) * 2 * half
                x, to = args[word.X] + row * x_row + k * 4, operands + b * word.A_OPERANDS * operand
                sum_rows(args, x, to, rows - row, own, largest, flags + b * 8)
            for p in range(p0, p1):
                left, c0 = args[word.B] + 2 * p * panel + k * held_row, 2 * p * width
                cols = min(2 * width, args[word.COLUMNS] - c0)
                # meanwhile those of the next pair come to L2
                following, between = left + 2 * panel, panel
                ahead, end = following, following + 2 * held_part
                if held != 0:
                    for i in range(min(2, panels - 2 * p)):
                        widen(args, left + i * panel, 2 * own, held, wide + 2 * i * part)
                    left, between = wide, 2 * part
                words(of_pair)[0] = 1
                if cols == 2 * width:
                    sum_columns(args, left, left + between, sums, own, largest, inverse, of_pair)
                for b in range(blocks):
                    row = (b0 + b) * 2 * half
                    direct, whole = load_word(of_pair) + load_word(flags + b * 8), rows - row >= 2 * half
                    if direct == 0:
                        list_seven(todo, left, left + between, sums, part)
                    else:
                        list_eight(todo, left, between, part, 2 * p + 1 < panels)
                    for i in range(0, load_word(todo), word.TODO):
                        x, y = load_word(todo + 8 * i + 8), load_word(todo + 8 * i + 16)
                        at, block, place = operands + (b * word.A_OPERANDS + x) * operand, own_block, places
                        if x >= word.A11 and whole:
                            quarter, block, place = x - word.A11, in_place, places_in_place
                            at = args[word.X] + (row + (quarter >> 1) * half) * x_row + (k + (quarter & 1) * own) * 4
                        multiply(block, at, place, load_word(todo + 8 * i + 24), own, load_word(todo + 8 * i + 32),
                                 products + y * half * row_bytes, ahead, end, table, zeros, aside)  # fmt: skip
                        ahead += moved * own
                        if ahead >= end and end <= following + panel:
                            ahead, end = following + panel, end + panel
                    combine(args, products, row, rows - row, c0, cols, inverse, kb, last, direct)
                    if last and args[word.EPILOGUE] != 0:
                        count = min(2 * half, rows - row)
                        finish(args[word.EPILOGUE], args[word.EPILOGUE_BLOCK], scratch, 0, row, count, c0, cols)

    return kernel


def _multiplying(lanes: int) -> Callable:
    """The subroutine ``multiply(block, x, places, factor, own, adds, y, ahead, end, table, zeros, aside)``: one product.

    y = x factor, or y + x factor if it `adds`: args[HALF] rows at x times `own` rows of a panel. What is `ahead`, up to `end`, is
    brought to L2.
    """
    from . import convtile, simd
    from .subroutine import subroutine

    words, width, vector, row_bytes, part, crossing = simd.block, 2 * lanes, 4 * lanes, 8 * lanes, PART, crosses_rows()
    tiles_of = convtile.tiles("f32", lanes, heights(), single_heights(), width)

    @subroutine
    def multiply(block, x, places, factor, own, adds, y, ahead, end, table, zeros, aside):
        args = words(block)
        height, count, start, start_row = args[word.FIRST], args[word.COUNT], 0, 0
        for _ in range(2):
            if adds != 0:
                start, start_row = y, row_bytes
            tiles_of(args, width, height, count, x, places, factor, ahead, end, start, start_row, zeros, y, row_bytes, table,
                     (own + part - 1) // part, 0, zeros, aside)  # fmt: skip
            rows = count * height
            places, y, ahead = places + rows * 8, y + rows * row_bytes, ahead + count * own * vector
            if not crossing:
                x += rows * args[word.OPERAND_ROW]
            height, count = args[word.SECOND], args[word.SECONDS]

    return multiply


def _lists(row_bytes: int) -> tuple[Callable, Callable]:
    """Subroutines that list the products of a pair of panels for a block of rows.

    Four words for each: operand of A, number of the product, address of the operand of B, whether it is added to that product.
    Before them stands how many words there are.
    ``list_seven(todo, left, right, sums, part)``: Strassen's. ``list_eight(todo, left, panel, part, both)``: the direct ones, or
    the four for the first panel if there are not `both`.
    """
    from . import simd
    from .subroutine import subroutine

    words = simd.block

    @subroutine
    def put(todo, number, x, y, factor, adds):
        entry = words(todo + 8 + number * 32)
        entry[0], entry[1], entry[2], entry[3] = x, y, factor, adds

    @subroutine
    def list_seven(todo, left, right, sums, part):
        words(todo)[0] = 7 * word.TODO
        put(todo, 0, word.A11, 0, left, 0)
        put(todo, 1, word.A12, 1, left + part, 0)
        put(todo, 2, word.S4, 2, right + part, 0)
        put(todo, 3, word.A22, 3, sums + word.T4 * part, 0)
        put(todo, 4, word.S1, 4, sums + word.T1 * part, 0)
        put(todo, 5, word.S2, 5, sums + word.T2 * part, 0)
        put(todo, 6, word.S3, 6, sums + word.T3 * part, 0)

    @subroutine
    def list_eight(todo, left, panel, part, both):
        number = 0
        for across in range(2 if both != 0 else 1):
            for down in range(2):
                for k in range(2):
                    put(todo, number, word.A11 + 2 * down + k, 2 * down + across, left + across * panel + k * part, k)
                    number += 1
        words(todo)[0] = number * word.TODO

    return list_seven, list_eight
