"""The two kernels of Winograd convolution (see `winograd`): patches of the image to points, points to tiles of outputs.

A patch has the form's points along each dimension of several taps, and is one pixel along the others. What is compiled in
is the number of points and whether they are a square or a line; which way a line runs, how long the filters are, dilation
and sizes are arguments, so that all filters with as many points share the kernel that makes patches.

Dilated filters see as many interleaved images; the tiles of these take turns, along rows and along columns.

Whole forms make int16 of int16 patches, and int32 of the sums of their products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise, product
from typing import TYPE_CHECKING

from . import winogradwords as word
from .image import SIZES
from .winogradforms import Matrix, divisor, matrices

if TYPE_CHECKING:
    from .emit import E

_LINE = 64  # bytes


def input_factory(points: int, square: bool, whole: bool, lanes: int) -> Callable:
    """The kernel that transforms patches, for all forms of as many points. Task = (image, row of tiles, chunk of its columns).

    Scratch: 64 bytes, and a patch that hangs over the border, put together.
    """
    from . import simd, window

    dtype = "i16" if whole else "f32"
    size = SIZES[dtype]
    vector = lanes * size
    # a patch's pixels lie too far apart for the core to foresee those of the next one: the vectors of a cache line ask for them
    turns = max(1, _LINE // vector)
    asked = -(-(points - 2) // turns)
    load, store, zero = simd.load(dtype, lanes), simd.store(dtype), simd.splat(dtype, lanes)

    def body(code, block, x, row, pixel, v, plane, ahead):
        for i, j in product(range(points if square else 1), range(asked)):
            code.prefetch(ahead + row * i + pixel * j)
        lines = [[code.load(x + row * i + pixel * j) for j in range(points)] for i in range(points if square else 1)]
        lines = [_patch(line, whole) for line in lines]
        if square:
            lines = zip(*[_patch(list(column), whole) for column in zip(*lines)])
        for i, value in enumerate(value for line in lines for value in line):
            code.store(v + plane * i, value)

    transform = window.leaf("x row pixel v plane ahead", dtype, lanes, body)

    def kernel(args, task, scratch):
        c, h, w, high, wide = args[word.P_NUMBERS], args[word.P_HEIGHT], args[word.P_WIDTH], args[word.P_HIGH], args[word.P_WIDE]
        rows, cols, chunk, chunks = args[word.P_ROWS], args[word.P_COLS], args[word.P_CHUNK], args[word.P_CHUNKS]
        across, down, right = args[word.P_ACROSS], args[word.P_DILATED_DOWN], args[word.P_DILATED_ACROSS]
        first_col, outer = task % chunks * chunk, task // chunks
        line, n = args[word.P_TOP] + outer % rows, outer // rows
        top = line // down * down * args[word.P_DOWN] + line % down - args[word.P_ABOVE]
        left = (args[word.P_LEFT] + first_col) * across - args[word.P_BEFORE]
        row, pixel = args[word.P_ROW] * down, args[word.P_PIXEL] * right
        patch, turn = scratch + 64, 0
        for col in range(first_col, min(cols, first_col + chunk)):
            x = args[word.P_X] + n * args[word.P_IMAGE] + top * args[word.P_ROW] + left * args[word.P_PIXEL]
            v = args[word.P_V] + (outer * cols + col) * args[word.P_TILE]
            inside = top >= 0 and left >= 0 and top + (high - 1) * down < h and left + (wide - 1) * right < w
            for first in range(0, c, lanes):
                at, at_row, at_pixel = x + first * size, row, pixel
                if not inside:
                    for i in range(high):
                        for j in range(wide):
                            value, y, x_at = zero(0.0), top + i * down, left + j * right
                            if y >= 0 and y < h and x_at >= 0 and x_at < w:
                                value = load(at + i * row + j * pixel)
                            store(patch + (i * wide + j) * vector, value)
                    at, at_row, at_pixel = patch, wide * vector, vector
                if not square and high > 1:
                    at_pixel = at_row
                ahead = at + at_pixel * (points + first // lanes % turns * asked)
                transform(args, at, at_row, at_pixel, v + first * size, args[word.P_PLANE], ahead)
            turn, left = turn + 1, left + 1
            if turn == right:
                turn, left = 0, left + right * across - right

    return kernel


def output_factory(points: int, rows: int, cols: int, whole: bool, lanes: int) -> Callable:
    """The kernel that makes tiles of rows x cols outputs, or of `cols` in a line either way (`rows` = 0).

    Task = (image, row of tiles, chunk of its columns). Scratch: 64 bytes for the epilogue's block, and a tile.
    """
    from . import simd, window

    dtype = "i32" if whole else "f32"
    load, store, splat = simd.load(dtype, lanes), simd.store(dtype), simd.splat(dtype, lanes)
    at_least, at_most, number = simd.at_least, simd.at_most, simd.float_argument
    words, call_kernel, clips = simd.block, simd.call_kernel, not whole
    vector = lanes * 4
    along_row = matrices(cols, points - cols + 1, whole)
    along_column = matrices(rows, points - rows + 1, whole) if rows else matrices(1, 1)
    factor, shift = divisor(along_row.divisor * along_column.divisor)

    def body(code, block, m, plane, y):
        lines = [[code.load(m + plane * (i * points + j)) for j in range(points)] for i in range(points if rows else 1)]
        if rows:
            lines = zip(*[_outputs(list(column), along_column.outputs) for column in zip(*lines)])
        for i, value in enumerate(value for line in lines for value in _outputs(list(line), along_row.outputs)):
            code.store(y + i * vector, (value * factor) >> shift if whole else value)

    transform = window.leaf("m plane y", dtype, lanes, body)

    def kernel(args, task, scratch):
        o, height, width = args[word.O_CHANNELS], args[word.O_HEIGHT], args[word.O_WIDTH]
        lines, cols, chunk, chunks = args[word.O_ROWS], args[word.O_COLS], args[word.O_CHUNK], args[word.O_CHUNKS]
        high, wide, down, right = args[word.O_DOWN], args[word.O_ACROSS], args[word.O_DILATED_DOWN], args[word.O_DILATED_ACROSS]
        first_col, outer = task % chunks * chunk, task // chunks
        line, n = args[word.O_TOP] + outer % lines, outer // lines
        top, begin, turn = line // down * down * high + line % down, (args[word.O_LEFT] + first_col) * wide, 0
        left = begin
        tile = scratch + 64
        low, above = splat(number(args[word.O_LOW])), splat(number(args[word.O_ABOVE]))
        after = min(cols, first_col + chunk)
        row, pixel = down * args[word.O_ROW], right * args[word.O_PIXEL]
        r_row, r_pixel = down * args[word.O_R_ROW], right * args[word.O_R_PIXEL]
        below = min(high, (height - top + down - 1) // down)  # of the tile, what lies in the image; none if it is negative
        for col in range(first_col, after):
            beside = min(wide, (width - left + right - 1) // right)
            m = args[word.O_M] + (outer * cols + col) * args[word.O_TILE]
            for first in range(0, o, lanes):
                transform(args, m + first * 4, args[word.O_PLANE], tile)
                y = args[word.O_Y] + n * args[word.O_IMAGE] + top * args[word.O_ROW] + left * args[word.O_PIXEL] + first * 4
                r = args[word.O_RESIDUAL] + n * args[word.O_R_IMAGE] + first * 4
                r += top * args[word.O_R_ROW] + left * args[word.O_R_PIXEL]
                bias = splat(0.0)
                if args[word.O_BIAS] != 0:
                    bias = load(args[word.O_BIAS] + first * 4)
                for i in range(below):
                    for j in range(beside):
                        value = load(tile + (i * wide + j) * vector) + bias
                        if args[word.O_RESIDUAL] != 0:
                            value = value + load(r + i * r_row + j * r_pixel)
                        if clips:
                            value = at_most(at_least(value, low), above)
                        store(y + i * row + j * pixel, value)
            turn, left = turn + 1, left + 1
            if turn == right:
                turn, left = 0, left + right * wide - right
        if args[word.O_EPILOGUE] != 0:
            where, end = words(scratch), min(width, (args[word.O_LEFT] + after) * wide)
            for i in range(below):
                where[0], where[1], where[2] = args[word.O_FIRST_IMAGE] + n, 0, (top + i * down) * width + begin
                where[3], where[4], where[5] = end - begin, args[word.O_FIRST_CHANNEL], o
                call_kernel(args[word.O_EPILOGUE], args[word.O_EPILOGUE_BLOCK], 0, scratch)

    return kernel


def _sum(terms: Sequence[tuple[E, Fraction]]) -> E:
    """Vectors times numbers."""
    last, scale = terms[-1]
    total = last if scale == 1 else last * float(scale)
    for value, factor in reversed(terms[:-1]):
        total = value.fma(float(factor), total)
    return total


def weighted(values: Sequence[E], factors: Sequence[Fraction]) -> E:
    """The sum of vectors times numbers, not all of which are 0."""
    return _sum([(value, factor) for value, factor in zip(values, factors) if factor])


def _patch(d: list[E], whole: bool) -> list[E]:
    """B' d. Points +p and -p have the same terms of even powers, and of odd ones but for the sign."""
    zero, *middle, infinity = [[(value, factor) for value, factor in zip(d, row) if factor] for row in _data(len(d), whole)]
    values = [_sum(zero)]
    for terms in middle[::2]:
        even, odd = _sum(terms[1::2]), terms[::2]
        scale = odd[-1][1]
        total = _sum([(value, factor / scale) for value, factor in odd])
        values += [total.fma(float(scale), even), total.fma(-float(scale), even)]
    return [*values, _sum(infinity)]


def _data(points: int, whole: bool) -> Matrix:
    return matrices(points - 1, 2, whole).data  # the same for all filters of fewer points


def _outputs(m: list[E], matrix: Matrix) -> list[E]:
    """A' m, a row for each power of the points; values at +p and -p are added for even powers, subtracted for odd ones."""
    pairs = [(plus + minus, plus - minus) for plus, minus in list(pairwise(m[1:-1]))[::2]]
    results = []
    for power, row in enumerate(matrix):
        terms = [(pair[power % 2], factor) for pair, factor in zip(pairs, row[1:-1:2])]
        first = (m[0], row[0]) if row[0] else (m[-1], row[-1]) if row[-1] else terms.pop(0)
        total = first[0] if first[1] == 1 else first[0] * float(first[1])
        for value, factor in terms:
            total = value.fma(float(factor), total)
        results.append(total)
    return results


def transformed_taps(taps: list[E], matrix: Matrix) -> list[E]:
    """G g, a row for each point; those of +p and -p have the same terms of even powers, and of odd ones but for the sign."""
    if len(taps) == 1:
        return taps
    zero, *middle, _ = matrix
    results = [weighted(taps, zero)]
    for row in middle[::2]:
        even, odd = (weighted(taps[first::2], row[first::2]) for first in (0, 1))
        results += [even + odd, even - odd]
    return [*results, taps[-1]]
