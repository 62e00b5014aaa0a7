"""The register tile of convolution: T output pixels times up to two vectors of output channels. Imports numba.

The tile multiplies T rows, each a pixel's window in the image, with a panel of packed weights. K runs over pieces of
consecutive elements. Accumulators stay in registers over all pieces of one K block; between blocks they stand in the output.
Per K step: the vectors of the panel are loaded once, every row's element is broadcast from memory, T times the vectors are
multiplied and added. What is done once a tile is kept short: with 16 channels it took a third of the time.
Of integers an element may be a pair of int16 (i16x2), whose two products with a pair of the panel are added to an int32:
exact, and two steps in one.

Where masks cost nothing (`Target.masks`), the last vector may be partly beyond the last channel. If half of it is, the highest
tiles leave that half out: AVX-512's multiply-adds of half a vector take half the time on CPUs that have units of 256 bits.

Sums of floats are added up in parts, whose roundings are smaller than those of one long chain: the error grows with the root
of the part's length, not with that of K (Higham, Accuracy and Stability of Numerical Algorithms, 4.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from . import emit, target, window
from .blocking import crosses_rows
from .convwords import HIGH, LOW, PIECE, X_PIXEL
from .emit import E
from .window import WORD, Code, Variable

_LINE = 64  # bytes of a cache line
# K steps of one turn of the loop, and multiply-adds, at the most. Where a core is shared by two hardware threads, each gets
# half of the instruction slots: what is not a multiply-add or its operand costs time. The loop itself does not, after so many
# multiply-adds, which it took longer to compile if there were more.
_UNROLL, _TURN = 8, 112
Multiply = Callable[[E, E, E], E]  # x * y + total


def tiles(dtype: str, lanes: int, pairs: tuple[int, ...], singles: tuple[int, ...], width: int) -> Callable:
    """``tiles(args, columns, height, count, x, places, b, ahead, end, start, start_row, base, y, y_row, table, ...)``.

    y[i, :] = base[:] + sum of x[i, k] * b[k, :] + start[i, :] for `count` tiles of `height` rows of `columns` channels: two
    vectors, if the height is one of `pairs`, or one, if it is of `singles`. Without masks they are whole in memory, whatever
    `columns` says. Each tile begins where the last one ended. `width`: columns of a panel.

    args is the block of `conv`; x, b, start, base and y are addresses. Row i is at x and the bytes that word i at `places`
    holds, counted on from tile to tile; at x and i times args[X_PIXEL] if tiles are too high for so many addresses in registers
    (see `crosses_rows`). `table` is the address of the pieces: where each begins, counted from there, and twice its elements,
    plus 1 if the sum so far is to be put aside before. `start` may be 0 for no values; `clip`: clip what is stored. `ahead`:
    what to bring to L2 meanwhile, a vector for every K step, up to `end`. `blank` and `aside`: as
    many vectors as the highest tile has, zeros and room.
    """
    half, masks, row = lanes // 2, target.current().masks, width * emit.SIZES[memory_type(dtype)]

    def body(code, block, columns, height, *values):
        builder = code.builder
        done = builder.append_basic_block("done")
        chosen = builder.switch((height * 4 + (columns - 1) / half).v, done)
        for vectors, heights in ((1, singles), (2, pairs)):
            for rows in heights:
                halves = [2 * vectors - 1, 2 * vectors]
                for alike in [halves[:1], halves[1:]] if masks and rows == heights[0] else [halves]:
                    here = builder.append_basic_block(f"tile{rows}x{alike[-1]}")
                    for number in alike:
                        chosen.add_case(ir.Constant(WORD, rows * 4 + number - 1), here)
                    builder.position_at_end(here)
                    _run(code, block, _vectors(code, alike[-1] * half, columns if masks else None), rows, multiply, row, *values)
                    builder.branch(done)
        builder.position_at_end(done)

    multiply = emit.add_pairs if dtype == "i16x2" else E.fma
    names = "columns height count x places b ahead end start start_row base y y_row table pieces clip blank aside"
    return window.leaf(names, memory_type(dtype), lanes, body)


def memory_type(dtype: str) -> str:
    """The element type that stands for `dtype` where elements are only moved and added."""
    return "i32" if dtype == "i16x2" else dtype


@dataclass(frozen=True)
class _Vector:
    """One of the vectors that a row of a tile consists of.

    Attributes:
        code: writes with its lanes.
        offset: bytes from the first channel of the row.
        mask: its lanes that are channels, if some may be none.
    """

    code: Code
    offset: int
    mask: E | None

    def load(self, row: E) -> E:
        """The vector of a row of channels in memory."""
        return self.code.load(row + self.offset, self.mask)

    def store(self, row: E, value: E) -> None:
        """Put it there."""
        self.code.store(row + self.offset, value, self.mask)


def _vectors(code: Code, width: int, columns: E | None) -> list[_Vector]:
    """Vectors of `width` lanes together, the last one as short as that makes it, masked if `columns` says how many channels."""
    vectors = []
    for first in range(0, width, code.lanes):
        own, last = code.of_lanes(min(code.lanes, width - first)), first + code.lanes >= width
        vectors.append(_Vector(own, first * code.size, own.first(columns - first) if last and columns is not None else None))
    return vectors


def _run(
    code: Code, block: ir.Value, vectors: list[_Vector], rows: int, multiply: Multiply, row: int, count: E, x: E, places: E, b: E,
    ahead: E, end: E, start: E, start_row: E, base: E, y: E, y_row: E, table: E, pieces: E, clip: E, blank: E, aside: E,
) -> None:  # fmt: skip
    """Tiles side by side. What all share is worked out once: a tile of few K steps is short."""
    far = code.variable(ahead)
    lines = _Lines(code, rows, x, places, code.argument(block, X_PIXEL))
    moving = [(code.variable(start), start_row * rows), (code.variable(y), y_row * rows)]
    limits = [code.argument(block, word) for word in (LOW, HIGH)]
    with code.loop(count):
        begin, out = (place.get() for place, _ in moving)
        with code.when(begin != 0):
            for i in range(rows):
                code.prefetch(begin + start_row * i)
        sums = _sums(code, vectors, rows, multiply, row, lines, b, far, end, base, table, pieces, blank, aside)
        _finish(code, vectors, sums, begin, start_row, out, y_row, clip, limits)
        lines.forward()
        for place, step in moving:
            place.set(place.get() + step)


class _Lines:
    """The addresses of a tile's rows of the image, in as few registers as its height asks for.

    A low tile has one for each row, so that rows may lie anywhere: it goes on from one line of the image to the next. A high
    one has one for three rows, which the instruction can address.
    """

    def __init__(self, code: Code, rows: int, x: E, places: E, x_row: E) -> None:
        self.code, self.rows, self.x_row = code, rows, x_row
        self.each = 1 if crosses_rows() else 3
        self.x, self.places = code.variable(x), code.variable(places)
        self.leads = [code.variable(x_row * (self.each * j)) for j in range(-(-rows // self.each))]
        self.passed = code.variable(x)

    def arrive(self) -> None:
        """At a tile: looks up where its rows are."""
        if self.each == 1:
            for j, lead in enumerate(self.leads):
                lead.set(self.code.scalar(self.places.get() + 8 * j, "i64"))

    def begin(self, offset: E) -> None:
        """A piece that begins `offset` bytes behind the pixels."""
        self.passed.set(self.x.get() + offset)

    def turn(self, number: int) -> E:
        """How far the rows were read before a turn of the loop, which reads `number` elements of each.

        One register counts for all rows; LLVM, if it knew how it moves, would rather move each row's address.
        """
        here = self.code.unrelated(self.passed.get())
        self.passed.set(here + number * self.code.size)
        return here

    def address(self, row: int, here: E, number: int) -> E:
        """Where element `number` of the turn is in a row."""
        within = self.x_row * (row % self.each) if self.each > 1 else 0
        return self.leads[row // self.each].get() + here + within + number * self.code.size

    def forward(self) -> None:
        """Go on to the next tile."""
        if self.each == 1:
            self.places.set(self.places.get() + 8 * self.rows)
        else:
            self.x.set(self.x.get() + self.x_row * self.rows)


def _sums(
    code: Code, vectors: list[_Vector], rows: int, multiply: Multiply, row: int, lines: _Lines, b: E, far: Variable, end: E,
    base: E, table: E, pieces: E, blank: E, aside: E,
) -> dict[tuple[int, int], Variable]:  # fmt: skip
    """The tile's products, each added up from `base`; by row and number of the vector."""
    vector = code.lanes * code.size
    common = [one.load(base) for one in vectors]
    sums = {(i, v): code.variable(each) for i in range(rows) for v, each in enumerate(common)}
    panel = code.variable(b)
    lines.arrive()

    def step(number: int, at: E, own: list[E]) -> None:
        """K step `number` of a turn that begins at this place of the panel and at these of the rows, one for each vector."""
        factors = [one.code.load(at + (number * row + one.offset)) for one in vectors]
        for i in range(rows):
            for v, factor in enumerate(factors):
                value = code.scalar(lines.address(i, own[v], number), code.kind)
                sums[i, v].set(multiply(emit.splat(value, factor.n), factor, sums[i, v].get()))

    def steps(count: E, number: int) -> None:
        with code.loop(count):
            code.keep_rolled()
            at, here = code.unrelated(panel.get()), lines.turn(number)
            # Half a vector reads the rows at addresses of its own. If LLVM knew that they are the same, it would make its factor
            # of the other vector's, in whose register it then adds up, and soon have none left.
            first = vectors[0].code.lanes
            own = [here if one.code.lanes == first else code.unrelated(here) for one in vectors]
            panel.set(at + number * row)
            for one in range(number):
                step(one, at, own)
            if number > 1:
                with code.when(far.get() < end):
                    for line in range(0, number * vector, _LINE):
                        code.prefetch(far.get() + line, soon=False)
                    far.set(far.get() + number * vector)

    unroll = 1 if len(sums) < 6 else min(_UNROLL, 1 << (_TURN // len(sums)).bit_length() - 1)
    parts = _Parts(code, vectors, sums, blank, aside) if emit.is_float(code.kind) else None
    with code.loop(pieces) as i:
        lines.begin(code.scalar(table + i * PIECE, "i64"))
        piece = code.scalar(table + i * PIECE + 8, "i64")
        if parts is not None:
            with code.when((piece & 1) != 0):
                parts.put_aside()
        steps(piece >> unroll.bit_length(), unroll)
        if unroll > 1:
            steps((piece >> 1) & (unroll - 1), 1)
    if parts is not None:
        parts.end()
    return sums


def _finish(
    code: Code, vectors: list[_Vector], sums: dict[tuple[int, int], Variable], start: E, start_row: E, y: E, y_row: E, clip: E,
    limits: list[E],
) -> None:  # fmt: skip
    """Adds what the rows start from, clips, stores."""
    with code.when(start != 0):
        for (i, v), each in sums.items():
            each.set(each.get() + vectors[v].load(start + start_row * i))
    with code.when(clip != 0):
        bounds = [[one.code.number(limit) for limit in limits] for one in vectors]
        for (_, v), each in sums.items():
            low, high = bounds[v]
            each.set(each.get().at_least(low).at_most(high))
    for (i, v), each in sums.items():
        vectors[v].store(y + y_row * i, each.get())


class _Parts:
    """Adds up parts of a sum; `sums` holds the present part's. A single part costs nothing.

    What was put aside is in memory at `aside`: as variables it would double what LLVM has to keep track of.
    """

    def __init__(
        self, code: Code, vectors: list[_Vector], sums: dict[tuple[int, int], Variable], blank: E, aside: E
    ) -> None:  # fmt: skip
        self.code, self.aside, step = code, aside, code.lanes * code.size
        self.sums = [(vectors[v].code, each, i * step) for i, ((_, v), each) in enumerate(sums.items())]
        self.source, self.blank = code.variable(blank), blank

    def put_aside(self) -> None:
        """The part so far ends."""
        source = self.source.get()
        for code, each, offset in self.sums:
            code.store(self.aside + offset, each.get() + code.load(source + offset))
            each.set(each.get().like(0))
        self.source.set(self.aside)

    def end(self) -> None:
        """The last part comes to those put aside."""
        with self.code.when(self.source.get() != self.blank):
            for code, each, offset in self.sums:
                each.set(each.get() + code.load(self.aside + offset))
