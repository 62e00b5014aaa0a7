"""Products with weights of few bits, as they are: y[m, n] = sum over k of x[m, k] (w[n, k] - zero) * scale.

A row of weights is `blocks` blocks of `block` elements, each with a scale and a zero point, packed with the first element
in the lowest bits of a byte. The rows of x lie phase by phase: what is multiplied by the lowest bits of bytes, then what is
multiplied by the next ones. So a vector of bytes meets vectors of x, and nothing is permuted. Importing this loads no numba.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import target
from .blocking import panel_width
from .gemm import matmul
from .image import Alloc, Opaque
from .launch import Launch
from .matrix import Matrix
from .spec import handwritten

if TYPE_CHECKING:
    from .emit import E
    from .window import Code

TASK_BYTES = 64 << 10  # of weights that one task reads
PANEL_BYTES = 4 << 20  # of columns that are unpacked at a time
MANY_ROWS = 16  # from which on unpacking all weights first is faster
_TILE = 4  # rows that share what was unpacked


@dataclass(frozen=True)
class Weights:
    """[columns, blocks * block] elements of `bits` bits, with float32 scales; `zero`: u8, f32, or none (the middle).

    The addresses are those of the packed bytes, of the scales and of the zero points (any for none).
    """

    bits: int
    block: int
    blocks: int
    columns: int
    zero: str
    packed: Opaque
    scales: Opaque
    zeros: Opaque

    @property
    def row_bytes(self) -> int:
        """Packed bytes of a row of weights."""
        return self.blocks * self.block * self.bits // 8


def multiply(x: Opaque, w: Weights, y: Opaque, rows: int, threads: int, label: str = "") -> list[Launch]:
    """Launches that write y[rows, columns], float32, of x[rows, 8 / bits, row_bytes], float32; both dense."""
    if rows * w.columns == 0:
        return []
    per_task = max(1, min(TASK_BYTES // max(w.row_bytes, 1), -(-w.columns // (4 * threads))))
    args = (x, w.packed, w.scales, w.zeros, y, rows, w.columns, w.blocks, per_task)
    kernel = handwritten("nbits", "nbits:columns", bits=w.bits, block=w.block, zero=w.zero)
    elements = w.columns * w.blocks * w.block
    moved = w.columns * w.row_bytes + 4 * rows * (w.columns + w.blocks * w.block)
    return [Launch(kernel, args, -(-w.columns // per_task), 0, label, 2 * rows * elements, moved)]


def unpack(w: Weights, first: int, count: int, panels: Opaque, label: str = "") -> list[Launch]:
    """Launches that write the columns first .. first + count - 1 as the panels that `gemm.matmul` reads, float32."""
    width = panel_width(4)
    kernel = handwritten("nbits_unpack", "nbits:panel", bits=w.bits, block=w.block, zero=w.zero, width=width)
    args = (w.packed, w.scales, w.zeros, panels, first, w.columns, w.blocks)
    tasks = -(-count // width)
    return [Launch(kernel, args, tasks, 0, label, 0, count * (w.row_bytes + 4 * w.blocks * w.block))]


def unpacked_product(x: Matrix, w: Weights, y: Matrix, alloc: Alloc, threads: int, label: str = "") -> list[Launch]:
    """As `multiply`, for many rows: some columns at a time become panels that fit in the caches, and are multiplied.

    x is [1, rows, blocks * block] in any strides.
    """
    k = w.blocks * w.block
    width = panel_width(4)
    step = max(1, PANEL_BYTES // (4 * k * width)) * width
    room = -(-min(step, w.columns) // width) * width
    panels = alloc(4 * k * room)
    launches: list[Launch] = []
    for first in range(0, w.columns, step):
        count = min(step, w.columns - first)
        part = Matrix(y.address + 4 * first, (1, y.shape[1], count), y.strides)
        launches += unpack(w, first, count, panels, f"{label}: unpack")
        launches += matmul("f32", x, panels, part, alloc=alloc, threads=threads, label=label)
    return launches


def columns(bits: int, block: int, zero: str) -> Callable:
    """The kernel of `multiply`. Task = some columns of y."""
    many, one = (_dot(bits, block, zero, count) for count in (_TILE, 1))

    blob, phases, zero_bytes = block * bits // 8, 8 // bits, {"u8": 1, "f32": 4, "none": 0}[zero]

    def kernel(args, task, scratch):
        rows, columns, blocks = args[5], args[6], args[7]
        first = task * args[8]
        for n in range(first, min(first + args[8], columns)):
            packed = args[1] + n * blocks * blob
            scales, zeros = args[2] + n * blocks * 4, args[3] + n * blocks * zero_bytes
            m = 0
            while m < rows:
                x, y = args[0] + m * blocks * blob * phases * 4, args[4] + (m * columns + n) * 4
                if rows - m >= _TILE:
                    many(args, x, packed, scales, zeros, y, blocks, columns)
                    m += _TILE
                else:
                    one(args, x, packed, scales, zeros, y, blocks, columns)
                    m += 1

    return kernel


def _dot(bits: int, block: int, zero: str, rows: int) -> Callable:
    """``dot(block, x, packed, scales, zeros, y, blocks, columns)``: `rows` rows of x with one row of weights."""
    from . import emit, simd
    from .window import leaf

    phases, blob = 8 // bits, block * bits // 8
    lanes = min(target.current().lanes, blob)
    vectors = blob // lanes
    unrolled = min(vectors, 4)
    ways = max(1, 8 // (rows * phases))

    def body(code: Code, args, x, packed, scales, zeros, y, blocks, columns):
        nothing = emit.constant(code.builder, "f32", lanes, 0)
        totals = [[[code.variable(nothing) for _ in range(rows)] for _ in range(phases)] for _ in range(ways)]
        phase_bytes = blocks * (blob * 4)
        heads = [[code.unrelated(x + phase_bytes * (m * phases + p)) for m in range(rows)] for p in range(phases)]

        def unpack(at, way, scale, shift):
            raw = code.load(packed + at, dtype="u8").cast("i32")
            for p in range(phases):
                low = raw >> (p * bits) if p else raw
                values = (low & ((1 << bits) - 1) if p < phases - 1 else low).cast("f32").fma(scale, shift)
                for m in range(rows):
                    total = totals[way][p][m]
                    total.set(values.fma(code.load(heads[p][m] + at * 4), total.get()))

        with code.loop(blocks) as i:
            one = code.scalar(scales + i * 4, "f32")
            offset = _offset(code, zero, bits, lambda dtype, size: code.scalar(zeros + i * size, dtype), 0)
            scale, shift = emit.splat(one, lanes), emit.splat(one * offset, lanes)
            with code.loop(code.word(vectors // unrolled)) as turn:
                for v in range(unrolled):
                    unpack(i * blob + turn * (unrolled * lanes) + v * lanes, v % ways, scale, shift)

        for m in range(rows):
            parts = [totals[way][p][m].get() for way in range(ways) for p in range(phases)]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            whole = simd.across(lambda a, b: a + b)(total)
            code.store(y + columns * (4 * m), whole, code.word(1))

    return leaf("x packed scales zeros y blocks columns", "f32", lanes, body)


def _offset(code: Code, zero: str, bits: int, word: Callable[[str, int], E], lanes: int) -> E:
    """Minus the zero points, of which `word(dtype, size)` reads one or a vector."""
    from . import emit

    if zero == "none":
        return emit.constant(code.builder, "f32", lanes, -float(1 << (bits - 1)))
    return -word("u8", 1).cast("i32").cast("f32") if zero == "u8" else -word("f32", 4)


def panel(bits: int, block: int, zero: str, width: int) -> Callable:
    """The kernel of `unpack`. Task = one panel of `width` columns; those behind the last column repeat it."""
    lanes = target.current().lanes
    vector = _unpacked_vector(bits, block, zero, width, lanes)
    length = block * 4 * width

    def kernel(args, task, scratch):
        blocks = args[6]
        to = args[3] + task * blocks * length
        for v in range(0, width, lanes):
            vector(args, args[4] + task * width + v, args[5] - 1, blocks, to + v * 4)

    return kernel


def _unpacked_vector(bits: int, block: int, zero: str, width: int, lanes: int) -> Callable:
    """``vector(args, column, last, blocks, to)``: a vector of columns, not beyond the last, down all k."""
    from . import emit, simd
    from .window import leaf

    words, each = block * bits // 32, 32 // bits

    def body(code: Code, args, column, last, blocks, to):
        packed, scales, zeros = (code.argument(args, i) for i in range(3))
        lane = emit.iota(code.builder, "i64", lanes)
        own = emit.splat(column, lanes) + lane
        end = emit.splat(last, lanes)
        rows = own.select(own > end, end, own) * emit.splat(blocks, lanes)
        everywhere = lane >= 0

        def read(base, places, dtype):
            return lane.of(simd._gather(code.builder, places + emit.splat(base, lanes), dtype, everywhere), dtype)

        with code.loop(blocks) as i:
            at = rows + emit.splat(i, lanes)
            scale = read(scales, at * 4, "f32")
            shift = scale * _offset(code, zero, bits, lambda dtype, size: read(zeros, at * size, dtype), lanes)
            with code.loop(code.word(words)) as w:
                raw = read(packed, at * (words * 4) + emit.splat(w * 4, lanes), "i32")
                target_row = to + (i * block + w * each) * (4 * width)
                for e in range(each):
                    value = (raw.bits("u32") >> (e * bits)).bits("i32") & ((1 << bits) - 1)
                    code.store(target_row + e * (4 * width), value.cast("f32").fma(scale, shift))

    return leaf("column last blocks to", "f32", lanes, body)
