"""Winograd convolution F(m x m, 3 x 3): (m + 2)^2 products for m^2 outputs where the direct way takes 9 m^2 (Lavin & Gray, 2015).

Three launches for each strip of the image: every patch of m + 2 x m + 2 (they overlap by 2) is transformed, V[products,
tiles, C]; as many matrix products M[i] = V[i] U[i] with the transformed filters run on `conv`'s kernel as a batch; every
M[:, tile] is transformed back to m x m outputs. All are vectorised over channels. Patches that hang over the border are
put together in scratch.

m = 4 takes a quarter of the multiplications, at two to five times the error of direct summation, more with more channels;
m = 2 takes 4 / 9, with filters half as large and up to twice the error, for images of few pixels; m = 6 takes a fifth, at
10 to 20 times the error, and is never chosen by itself. `python -m benchmarks.errors` gives these figures.

For stride 1, dilation 1, one group, float32, whole vectors of channels; `best_tile` says when which one wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from . import target
from .conv import PackedWeights, conv, padded_columns, panel_width
from .depthwise import native_input, native_output
from .image import Alloc, Image, Opaque
from .launch import Launch
from .packing import Packing
from .spec import handwritten

if TYPE_CHECKING:
    from .emit import E

# y = A' [(G g G') * (B' d B)] A: values of polynomials at 0, at +- each of these, and at infinity. Of the points that are
# few binary digits long, products included, some with the smallest error: the usual 1 and 2 for m = 4 err twice as much.
_POINTS = {2: (1.0,), 4: (5 / 8, 25 / 16), 6: (1 / 2, 1.0, 2.0)}
_STRIP_BYTES = 2 << 20  # transforms of a strip: V and M together, in the caches of the cores
_PACKED_CHANNELS = 64  # whose filters of a panel are transformed at once: in float64, in L2
_MEMORY = 4  # bytes that a core gets from memory in a cycle while all cores read
_TASK_BYTES = 32 << 10  # a task costs the executor about a microsecond


@dataclass(frozen=True)
class WinogradWeights:
    """Transformed filters.

    Attributes:
        shape: (O, C).
        tile: m.
        address: of [products, panels, C, NR]: one set of packed weights for each product.
    """

    shape: tuple[int, int]
    tile: int
    address: Opaque = 0

    @property
    def products(self) -> int:
        """Matrix products: elements of a transformed patch."""
        return (self.tile + 2) ** 2


def pack_winograd(w: np.ndarray, tile: int) -> np.ndarray:
    """w[O, C, 3, 3] (float32) transformed, in the order of `WinogradWeights`."""
    return winograd_packing(w.shape[:2], tile).make(w)


def winograd_packing(shape: Sequence[int], tile: int) -> Packing:
    """`pack_winograd` of filters with this (O, C). They cannot be had back exactly."""
    o, c = shape
    one = _filter_values(tile)
    width, both, products = panel_width(4), np.kron(one, one), (tile + 2) ** 2
    panels = -(-o // width)

    def fill(w: np.ndarray, packed: np.ndarray, panel: int) -> None:
        filters = w[panel * width : (panel + 1) * width]
        count = len(filters)
        for first in range(0, c, _PACKED_CHANNELS):
            block = filters[:, first : first + _PACKED_CHANNELS].transpose(2, 3, 1, 0).astype(np.float64)
            target = packed[:, panel, first : first + _PACKED_CHANNELS]
            target[..., :count] = (both @ block.reshape(9, -1)).reshape(products, -1, count)
            target[..., count:] = 0

    return Packing((products, panels, c, width), np.dtype(np.float32), panels, fill)


def _filter_values(tile: int) -> np.ndarray:
    """G: a filter's values at the points, by what the other points' Lagrange polynomials are there."""
    points = [0.0, *(sign * p for p in _POINTS[tile] for sign in (1, -1))]
    rows = [np.array([1, p, p * p]) / np.prod([p - q for q in points if q != p]) for p in points]
    return np.array([*rows, [0, 0, 1]])


TILES = (2, 4, 6)


def fits(channels: int, outputs: int, height: int, width: int) -> bool:
    """Whether `winograd` computes a 3 x 3 convolution with this output size: for whole vectors of channels."""
    lanes = target.current().lanes
    return not (channels % lanes or outputs % lanes) and min(channels, outputs, height, width) > 0


def best_tile(channels: int, outputs: int, height: int, width: int, threads: int = 1) -> int:
    """m of the Winograd form expected to be faster than `conv` for a 3 x 3 convolution with this output size; 0 for none.

    In cycles of one core: the products at the register tile's speed or at that of reading the transformed filters from
    memory, whichever is slower, and the transforms at the speed of the caches; against the direct products, likewise.
    """
    if not fits(channels, outputs, height, width):
        return 0
    per_step, pairs = 2 * target.current().lanes, channels * outputs  # multiply-adds in a cycle
    best, cost = 0, 0.9 * max(9 * height * width * pairs / per_step, 9 * pairs * 4 / _MEMORY)
    for tile in (4, 2):
        products, tiles = (tile + 2) ** 2, -(-height // tile) * -(-width // tile)
        work = max(products * max(tiles, 7) * pairs / per_step, products * pairs * 4 / _MEMORY)
        work += products * tiles * (channels + outputs) * 4 / 8 + 20_000 * threads
        if work < cost:
            best, cost = tile, work
    return best


def winograd(
    x: Image,
    weights: WinogradWeights,
    y: Image,
    pads: Sequence[int],
    *,
    bias: Opaque = 0,
    residual: Image | None = None,
    low: float = -np.inf,
    high: float = np.inf,
    epilogue: tuple[Opaque, Opaque] | None = None,
    alloc: Alloc,
    threads: int = 1,
    label: str = "winograd",
) -> list[Launch]:
    """y = clip(3 x 3 convolution of x + bias + residual, low, high), float32; arguments as for `conv`.

    Raises:
        ValueError: channels are not whole vectors, or shapes do not fit.
    """
    o, c = weights.shape
    lanes = target.current().lanes
    if c % lanes or o % lanes or len(x.shape) != 4 or x.shape[1] != c or y.shape[1] != o or x.shape[0] != y.shape[0]:
        raise ValueError(f"{label}: input {x.shape}, output {y.shape}, weights {weights.shape}, vectors of {lanes}")
    if 0 in y.shape:
        return []
    launches: list[Launch] = []
    source = native_input("f32", x, launches, alloc, threads, label)
    other = residual and native_input("f32", residual, launches, alloc, threads, label)
    out, after = native_output("f32", y, epilogue, alloc, threads, label)
    n, _, height, width = y.shape
    rows, cols = -(-height // weights.tile), -(-width // weights.tile)
    each = _strip_rows(weights, n, rows, cols)
    v, m = (_planes(alloc, weights.products, n * each * cols, channels) for channels in (c, o))
    packed = PackedWeights((o, c, 1, 1, 1), 1, weights.address, padded_columns(o, 4) * c * 4)
    finish = (bias, float(low), float(high), *(epilogue or (0, 0)))
    for first in range(0, rows, each):
        strip = _Strip(weights.tile, first, min(each, rows - first), cols)
        tiles = n * strip.rows * cols
        launches.append(_input_launch(source, v, strip, pads, threads, label))
        launches += conv(
            "f32", _first(v, tiles), packed, _first(m, tiles), [1], [1], [0], alloc=alloc, threads=threads,
            label=f"{label}: products",
        )  # fmt: skip
        launches.append(_output_launch(m, out, other, strip, finish, threads, label))
    return launches + after


@dataclass(frozen=True)
class _Strip:
    """Some rows of tiles of every image; `cols` tiles of `tile` pixels make a row."""

    tile: int
    first: int
    rows: int
    cols: int

    @property
    def products(self) -> int:
        return (self.tile + 2) ** 2


def _strip_rows(weights: WinogradWeights, n: int, rows: int, cols: int) -> int:
    """Rows of tiles whose transforms go through memory at once.

    Few, so that the transforms stay in cache; but each strip reads all filters again, so they may take twice as much.
    """
    o, c = weights.shape
    row_bytes = weights.products * n * cols * (c + o) * 4
    most = max(1, max(_STRIP_BYTES, 2 * weights.products * c * o * 4) // row_bytes)
    return -(-rows // -(-rows // most))


def _first(planes: Image, tiles: int) -> Image:
    """The first tiles of every plane."""
    return replace(planes, shape=(*planes.shape[:2], tiles))


def _planes(alloc: Alloc, products: int, tiles: int, channels: int) -> Image:
    """Matrices [tiles, channels] as images, an odd number of cache lines apart lest they fall into one cache set."""
    lines = -(-tiles * channels * 4 // 64)
    step = (lines + 1 - lines % 2) * 64
    return Image(alloc(products * step), (products, channels, tiles), (step, 4, channels * 4))


def _chunk(channels: int, strip: _Strip, images: int, threads: int) -> tuple[int, int]:
    """Columns of tiles of one task and how many chunks a row of tiles has; a task takes all channels, which lie in a row."""
    rows = images * strip.rows
    wanted = max(1, min(8 * threads, rows * strip.cols * channels * strip.products * 4 // _TASK_BYTES))
    each = -(-strip.cols // min(strip.cols, -(-wanted // rows)))
    return each, -(-strip.cols // each)


def _input_launch(x: Image, v: Image, strip: _Strip, pads: Sequence[int], threads: int, label: str) -> Launch:
    n, c, height, width = x.shape
    rows, cols, tile = strip.rows, strip.cols, strip.tile
    chunk, chunks = _chunk(c, strip, n, threads)
    args = (x.address, v.address, x.strides[0], x.strides[2], x.strides[3], v.strides[0], v.strides[2], c, height, width,
            int(pads[0]) - tile * strip.first, int(pads[1]), rows, cols, chunk, chunks)  # fmt: skip
    kernel = handwritten("winograd_input", "winograd:input_factory", tile=tile)
    moved = 4 * n * c * min(tile * rows + 2, height) * width + strip.products * n * rows * cols * c * 4
    return Launch(kernel, args, n * rows * chunks, 64 + strip.products * 64, f"{label}: patches", 0, moved)


def _output_launch(m: Image, y: Image, residual: Image | None, strip: _Strip, finish: tuple, threads: int, label: str) -> Launch:
    n, o, height, width = y.shape
    rows, cols, tile = strip.rows, strip.cols, strip.tile
    other = residual or y
    chunk, chunks = _chunk(o, strip, n, threads)
    args = (m.address, y.address, residual.address if residual else 0, *finish, m.strides[0], m.strides[2], y.strides[0],
            *y.strides[2:], other.strides[0], *other.strides[2:], o, height, width, rows, cols, chunk, chunks,
            strip.first)  # fmt: skip
    kernel = handwritten("winograd_output", "winograd:output_factory", tile=tile)
    moved = 4 * n * o * min(tile * rows, height) * width + strip.products * n * rows * cols * o * 4
    return Launch(kernel, args, n * rows * chunks, 64 + tile * tile * 64, f"{label}: outputs", 0, moved)


def input_factory(tile: int) -> Callable:
    """The kernel that transforms patches. Task = (image, row of tiles, chunk of its columns)."""
    from . import simd, window

    lanes, patch_size = target.current().lanes, tile + 2
    load, store, zero = simd.load("f32", lanes), simd.store("f32"), simd.splat("f32", lanes)

    def body(code, block, x, row, pixel, v, plane):
        grid = [[code.load(x + row * i + pixel * j) for j in range(patch_size)] for i in range(patch_size)]
        grid = list(zip(*[_patch(line, tile) for line in grid]))
        for j, column in enumerate(grid):
            for i, value in enumerate(_patch(list(column), tile)):
                code.store(v + plane * (i * patch_size + j), value)

    transform = window.leaf("x row pixel v plane", "f32", lanes, body)

    def kernel(args, task, scratch):
        c, h, w, rows, cols, chunk, chunks = args[7], args[8], args[9], args[12], args[13], args[14], args[15]
        first_col, outer = task % chunks * chunk, task // chunks
        top, n = outer % rows * tile - args[10], outer // rows
        patch = scratch + 64
        for col in range(first_col, min(cols, first_col + chunk)):
            left = col * tile - args[11]
            x = args[0] + n * args[2] + top * args[3] + left * args[4]
            v = args[1] + (outer * cols + col) * args[6]
            inside = top >= 0 and left >= 0 and top + patch_size <= h and left + patch_size <= w
            for first in range(0, c, lanes):
                at, row, pixel = x + first * 4, args[3], args[4]
                if not inside:
                    for i in range(patch_size):
                        for j in range(patch_size):
                            value = zero(0.0)
                            if top + i >= 0 and top + i < h and left + j >= 0 and left + j < w:
                                value = load(at + i * row + j * pixel)
                            store(patch + (i * patch_size + j) * lanes * 4, value)
                    at, row, pixel = patch, patch_size * lanes * 4, lanes * 4
                transform(args, at, row, pixel, v + first * 4, args[5])

    return kernel


def output_factory(tile: int) -> Callable:
    """The kernel that makes outputs. Task = (image, row of tiles, chunk of its columns)."""
    from . import simd, window

    lanes = target.current().lanes
    load, store, splat = simd.load("f32", lanes), simd.store("f32"), simd.splat("f32", lanes)
    at_least, at_most, number = simd.at_least, simd.at_most, simd.float_argument
    words, call_kernel = simd.block, simd.call_kernel

    def body(code, block, m, plane, y):
        # columns of the patch first: m + 2 values become m
        size = tile + 2
        columns = [_outputs([code.load(m + plane * (i * size + j)) for i in range(size)], tile) for j in range(size)]
        for i, line in enumerate(zip(*columns)):
            for j, value in enumerate(_outputs(list(line), tile)):
                code.store(y + (i * tile + j) * lanes * 4, value)

    transform = window.leaf("m plane y", "f32", lanes, body)

    def kernel(args, task, scratch):
        o, height, width, rows, cols, chunk, chunks = args[16], args[17], args[18], args[19], args[20], args[21], args[22]
        first_col, outer = task % chunks * chunk, task // chunks
        top, n = (args[23] + outer % rows) * tile, outer // rows
        block = scratch + 64
        low, high = splat(number(args[4])), splat(number(args[5]))
        after = min(cols, first_col + chunk)
        for col in range(first_col, after):
            left = col * tile
            m = args[0] + (outer * cols + col) * args[9]
            for first in range(0, o, lanes):
                transform(args, m + first * 4, args[8], block)
                y = args[1] + n * args[10] + top * args[11] + left * args[12] + first * 4
                r = args[2] + n * args[13] + top * args[14] + left * args[15] + first * 4
                bias = splat(0.0)
                if args[3] != 0:
                    bias = load(args[3] + first * 4)
                for i in range(min(tile, height - top)):
                    for j in range(min(tile, width - left)):
                        value = load(block + (i * tile + j) * lanes * 4) + bias
                        if args[2] != 0:
                            value = value + load(r + i * args[14] + j * args[15])
                        store(y + i * args[11] + j * args[12], at_most(at_least(value, low), high))
        for i in range(min(tile, height - top) if args[6] != 0 else 0):
            where, begin = words(scratch), first_col * tile
            where[0], where[1], where[2] = n, 0, (top + i) * width + begin
            where[3], where[4], where[5] = min(width, after * tile) - begin, 0, o
            call_kernel(args[6], args[7], 0, scratch)

    return kernel


def _product(roots: Sequence[float]) -> list[float]:
    """Coefficients of the product of (z - r^2) over the roots, lowest first."""
    total = [1.0]
    for r in roots:
        total = [b - r * r * a for a, b in zip([*total, 0.0], [0.0, *total])]
    return total


def _sum(terms: Sequence[tuple[E, float]]) -> E:
    """Vectors times numbers, the last of which is 1."""
    total = terms[-1][0]
    for value, factor in reversed(terms[:-1]):
        total = value.fma(factor, total)
    return total


def _patch(d: list[E], tile: int) -> list[E]:
    """B' d: for each point the product of the polynomial d with the one that vanishes at all other points."""
    points = _POINTS[tile]
    middle = []
    for p in points:
        others = _product([q for q in points if q != p])
        even = _sum([(d[2 * k + 2], factor) for k, factor in enumerate(others)])
        odd = _sum([(d[2 * k + 1], factor) for k, factor in enumerate(others)])
        middle += [odd.fma(p, even), odd.fma(-p, even)]
    every = _product(points)
    ends = [_sum([(d[2 * k + first], factor) for k, factor in enumerate(every)]) for first in (0, 1)]
    return [ends[0], *middle, ends[1]]


def _outputs(m: list[E], tile: int) -> list[E]:
    """A' m: coefficients of the polynomial with these values."""
    pairs = [(p, m[2 * i + 1] + m[2 * i + 2], m[2 * i + 1] - m[2 * i + 2]) for i, p in enumerate(_POINTS[tile])]
    ends, results = {0: m[0], tile - 1: m[-1]}, []
    for power in range(tile):
        (value, factor), *others = [(minus if power % 2 else plus, p**power) for p, plus, minus in pairs]
        total = value.fma(factor, ends[power]) if power in ends else value * factor
        for value, factor in others:
            total = value.fma(factor, total)
        results.append(total)
    return results
