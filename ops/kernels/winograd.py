"""Winograd convolution F(4x4, 3x3): 36 products for 16 outputs where the direct way takes 144 (Lavin & Gray, 2015).

Three launches for each strip of the image: every 6 x 6 patch (they overlap by 2) is transformed, V[36, tiles, C]; 36
matrix products M[i] = V[i] U[i] with the transformed filters run on `conv`'s kernel as a batch; every M[:, tile] is
transformed back to 4 x 4 outputs. All are vectorised over channels. Patches that hang over the border are put together
in scratch. The error is about 1.6 times that of direct summation.

For stride 1, dilation 1, one group, float32, whole vectors of channels; `profitable` says when it wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import target
from .conv import PackedWeights, conv, padded_columns, panel_width
from .depthwise import native_input, native_output
from .image import Alloc, Image, Opaque
from .launch import Launch
from .packing import Packing
from .spec import handwritten

# Values of polynomials at 0, +-_NEAR, +-_FAR and infinity: y = A' [(G g G') * (B' d B)] A. Of the pairs that are few binary
# digits long, products included, one of those with the smallest error; the usual 1 and 2 err twice as much.
_NEAR, _FAR = 5 / 8, 25 / 16
_NEAR2, _FAR2 = _NEAR**2, _FAR**2


def _value_row(point: float, other: float) -> list[float]:
    """The row of G for a point: the filter's value there, by what the Lagrange polynomial of the other points is there."""
    scale = 1 / (2 * point**2 * (point**2 - other**2))
    return [scale, scale * point, scale * point**2]


_G = np.array([[1 / (_NEAR2 * _FAR2), 0, 0], _value_row(_NEAR, _FAR), _value_row(-_NEAR, _FAR), _value_row(_FAR, _NEAR),
               _value_row(-_FAR, _NEAR), [0, 0, 1]])  # fmt: skip
_TILE, _PATCH, _PRODUCTS = 4, 6, 36
_STRIP_BYTES = 2 << 20  # transforms of a strip: V and M together, in the caches of the cores
_PACKED_CHANNELS = 64  # whose filters of a panel are transformed at once: in float64, in L2
_MEMORY = 4  # bytes that a core gets from memory in a cycle while all cores read
_TASK_BYTES = 64 << 10  # a task costs the executor about a microsecond


@dataclass(frozen=True)
class WinogradWeights:
    """Transformed filters.

    Attributes:
        shape: (O, C).
        address: of [36, panels, C, NR]: one set of packed weights for each product.
    """

    shape: tuple[int, int]
    address: Opaque = 0


def pack_winograd(w: np.ndarray) -> np.ndarray:
    """w[O, C, 3, 3] (float32) transformed, in the order of `WinogradWeights`."""
    return winograd_packing(w.shape[:2]).make(w)


def winograd_packing(shape: Sequence[int]) -> Packing:
    """`pack_winograd` of filters with this (O, C). They cannot be had back exactly."""
    o, c = shape
    width, both = panel_width(4), np.kron(_G, _G)
    panels = -(-o // width)

    def fill(w: np.ndarray, packed: np.ndarray, panel: int) -> None:
        filters = w[panel * width : (panel + 1) * width]
        count = len(filters)
        for first in range(0, c, _PACKED_CHANNELS):
            block = filters[:, first : first + _PACKED_CHANNELS].transpose(2, 3, 1, 0).astype(np.float64)
            target = packed[:, panel, first : first + _PACKED_CHANNELS]
            target[..., :count] = (both @ block.reshape(9, -1)).reshape(_PRODUCTS, -1, count)
            target[..., count:] = 0

    return Packing((_PRODUCTS, panels, c, width), np.dtype(np.float32), panels, fill)


def profitable(batch: int, channels: int, outputs: int, height: int, width: int, threads: int = 1) -> bool:
    """Whether Winograd is expected to be faster than `conv` for a 3 x 3 convolution with this output size.

    In cycles of one core: the products at the register tile's speed or at that of reading the transformed filters from
    memory, whichever is slower, and the transforms at the speed of the caches; against the direct products, likewise.
    """
    lanes = target.current().lanes
    if channels % lanes or outputs % lanes or min(batch, channels, outputs, height, width) == 0:
        return False
    tiles = batch * -(-height // _TILE) * -(-width // _TILE)
    per_step = 2 * lanes  # multiply-adds in a cycle
    direct = max(9 * batch * height * width * channels * outputs / per_step, 9 * channels * outputs * 4 / _MEMORY)
    products = _PRODUCTS * max(tiles, 7) * channels * outputs / per_step
    filters = _PRODUCTS * channels * outputs * 4 / _MEMORY
    transforms = _PRODUCTS * tiles * (channels + outputs) * 4 / 8
    return max(products, filters) + transforms + 20_000 * threads < 0.9 * direct


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
    cols, each = -(-width // _TILE), _strip_rows(n, c, o, height, width)
    v, m = (_planes(alloc, n * each * cols, channels) for channels in (c, o))
    finish = (bias, float(low), float(high), *(epilogue or (0, 0)))
    for first in range(0, -(-height // _TILE), each):
        strip = _Strip(first, min(each, -(-height // _TILE) - first), cols)
        tiles = n * strip.rows * cols
        launches.append(_input_launch(source, v, strip, pads, threads, label))
        packed = PackedWeights((o, c, 1, 1, 1), 1, weights.address, padded_columns(o, 4) * c * 4)
        launches += conv(
            "f32",
            _first(v, tiles),
            packed,
            _first(m, tiles),
            [1],
            [1],
            [0],
            alloc=alloc,
            threads=threads,
            label=f"{label}: products",
        )
        launches.append(_output_launch(m, out, other, strip, finish, threads, label))
    return launches + after


@dataclass(frozen=True)
class _Strip:
    """Some rows of tiles of every image; `cols` tiles make a row."""

    first: int
    rows: int
    cols: int


def _strip_rows(n: int, c: int, o: int, height: int, width: int) -> int:
    """Rows of tiles whose transforms go through memory at once.

    Few, so that the transforms stay in cache; but each strip reads all filters again, so they may take twice as much.
    """
    rows, row_bytes = -(-height // _TILE), _PRODUCTS * n * -(-width // _TILE) * (c + o) * 4
    most = max(1, max(_STRIP_BYTES, 2 * _PRODUCTS * c * o * 4) // row_bytes)
    return -(-rows // -(-rows // most))


def _first(planes: Image, tiles: int) -> Image:
    """The first tiles of every plane."""
    return replace(planes, shape=(*planes.shape[:2], tiles))


def _planes(alloc: Alloc, tiles: int, channels: int) -> Image:
    """36 matrices [tiles, channels] as images, an odd number of cache lines apart lest they fall into one cache set."""
    lines = -(-tiles * channels * 4 // 64)
    step = (lines + 1 - lines % 2) * 64
    return Image(alloc(_PRODUCTS * step), (_PRODUCTS, channels, tiles), (step, 4, channels * 4))


def _chunk(channels: int, strips: int, tiles: int, threads: int) -> tuple[int, int]:
    """Channels of one task and how many chunks there are; a strip (a row of tiles) is not divided."""
    lanes = target.current().lanes
    vectors = channels // lanes
    wanted = max(1, min(4 * threads, tiles * channels * _PRODUCTS * 4 // _TASK_BYTES))
    pieces = max(1, min(vectors, -(-wanted // strips)))
    each = -(-vectors // pieces)
    return each * lanes, -(-vectors // each)


def _input_launch(x: Image, v: Image, strip: _Strip, pads: Sequence[int], threads: int, label: str) -> Launch:
    n, c, height, width = x.shape
    rows, cols, tiles = strip.rows, strip.cols, n * strip.rows * strip.cols
    chunk, chunks = _chunk(c, n * rows, tiles, threads)
    args = (x.address, v.address, x.strides[0], x.strides[2], x.strides[3], v.strides[0], v.strides[2], c, height, width,
            int(pads[0]) - _TILE * strip.first, int(pads[1]), rows, cols, chunk, chunks)  # fmt: skip
    kernel = handwritten("winograd_input", "winograd:input_factory")
    moved = 4 * n * c * min(_TILE * rows + 2, height) * width + _PRODUCTS * tiles * c * 4
    return Launch(kernel, args, n * rows * chunks, 64 + _PRODUCTS * 64, f"{label}: patches", 0, moved)


def _output_launch(m: Image, y: Image, residual: Image | None, strip: _Strip, finish: tuple, threads: int, label: str) -> Launch:
    n, o, height, width = y.shape
    rows, cols, tiles = strip.rows, strip.cols, n * strip.rows * strip.cols
    other = residual or y
    chunk, chunks = _chunk(o, n * rows, tiles, threads)
    args = (m.address, y.address, residual.address if residual else 0, *finish, m.strides[0], m.strides[2], y.strides[0],
            *y.strides[2:], other.strides[0], *other.strides[2:], o, height, width, rows, cols, chunk, chunks,
            strip.first)  # fmt: skip
    kernel = handwritten("winograd_output", "winograd:output_factory")
    moved = 4 * n * o * min(_TILE * rows, height) * width + _PRODUCTS * tiles * o * 4
    return Launch(kernel, args, n * rows * chunks, 64 + _TILE * _TILE * 64, f"{label}: outputs", 0, moved)


def input_factory() -> Callable:
    """The kernel that transforms patches. Task = (image, row of tiles, chunk of channels)."""
    from . import simd, window

    lanes = target.current().lanes
    load, store, zero = simd.load("f32", lanes), simd.store("f32"), simd.splat("f32", lanes)

    def body(code, block, x, row, pixel, v, plane):
        grid = [[code.load(x + row * i + pixel * j) for j in range(_PATCH)] for i in range(_PATCH)]
        grid = list(zip(*[_patch(line) for line in grid]))
        for j, column in enumerate(grid):
            for i, value in enumerate(_patch(list(column))):
                code.store(v + plane * (i * _PATCH + j), value)

    transform = window.leaf("x row pixel v plane", "f32", lanes, body)

    def kernel(args, task, scratch):
        c, h, w, rows, cols, chunk, chunks = args[7], args[8], args[9], args[12], args[13], args[14], args[15]
        c0, outer = task % chunks * chunk, task // chunks
        top, n = outer % rows * 4 - args[10], outer // rows
        patch = scratch + 64
        for tile in range(cols):
            left = tile * 4 - args[11]
            x = args[0] + n * args[2] + top * args[3] + left * args[4]
            v = args[1] + (outer * cols + tile) * args[6]
            inside = top >= 0 and left >= 0 and top + 6 <= h and left + 6 <= w
            for first in range(c0, min(c, c0 + chunk), lanes):
                at, row, pixel = x + first * 4, args[3], args[4]
                if not inside:
                    for i in range(6):
                        for j in range(6):
                            value = zero(0.0)
                            if top + i >= 0 and top + i < h and left + j >= 0 and left + j < w:
                                value = load(at + i * row + j * pixel)
                            store(patch + (i * 6 + j) * lanes * 4, value)
                    at, row, pixel = patch, 6 * lanes * 4, lanes * 4
                transform(args, at, row, pixel, v + first * 4, args[5])

    return kernel


def output_factory() -> Callable:
    """The kernel that makes outputs. Task = (image, row of tiles, chunk of channels)."""
    from . import simd, window

    lanes = target.current().lanes
    load, store, splat = simd.load("f32", lanes), simd.store("f32"), simd.splat("f32", lanes)
    at_least, at_most, number = simd.at_least, simd.at_most, simd.float_argument
    words, call_kernel = simd.block, simd.call_kernel

    def body(code, block, m, plane, y):
        # columns of the patch first: 6 values become 4
        columns = [_outputs([code.load(m + plane * (i * _PATCH + j)) for i in range(_PATCH)]) for j in range(_PATCH)]
        for i, line in enumerate(zip(*columns)):
            for j, value in enumerate(_outputs(list(line))):
                code.store(y + (i * _TILE + j) * lanes * 4, value)

    transform = window.leaf("m plane y", "f32", lanes, body)

    def kernel(args, task, scratch):
        o, height, width, rows, cols, chunk, chunks = args[16], args[17], args[18], args[19], args[20], args[21], args[22]
        c0, outer = task % chunks * chunk, task // chunks
        top, n = (args[23] + outer % rows) * 4, outer // rows
        block = scratch + 64
        low, high = splat(number(args[4])), splat(number(args[5]))
        for tile in range(cols):
            left = tile * 4
            m = args[0] + (outer * cols + tile) * args[9]
            for first in range(c0, min(o, c0 + chunk), lanes):
                transform(args, m + first * 4, args[8], block)
                y = args[1] + n * args[10] + top * args[11] + left * args[12] + first * 4
                r = args[2] + n * args[13] + top * args[14] + left * args[15] + first * 4
                bias = splat(0.0)
                if args[3] != 0:
                    bias = load(args[3] + first * 4)
                for i in range(min(4, height - top)):
                    for j in range(min(4, width - left)):
                        value = load(block + (i * 4 + j) * lanes * 4) + bias
                        if args[2] != 0:
                            value = value + load(r + i * args[14] + j * args[15])
                        store(y + i * args[11] + j * args[12], at_most(at_least(value, low), high))
        if args[6] != 0:
            where = words(scratch)
            where[0], where[1], where[2] = n, 0, top * width
            where[3], where[4], where[5] = min(4, height - top) * width, c0, min(chunk, o - c0)
            call_kernel(args[6], args[7], 0, scratch)

    return kernel


def _patch(d: list) -> list:
    """B' d for six vectors: products of the polynomial d with those that vanish at all points but one."""
    even, odd = d[2].fma(-_FAR2, d[4]), d[1].fma(-_FAR2, d[3])
    even2, odd2 = d[2].fma(-_NEAR2, d[4]), d[1].fma(-_NEAR2, d[3])
    ends = [d[i].fma(_NEAR2 * _FAR2, d[i + 2].fma(-(_NEAR2 + _FAR2), d[i + 4])) for i in (0, 1)]
    return [
        ends[0],
        odd.fma(_NEAR, even),
        odd.fma(-_NEAR, even),
        odd2.fma(_FAR, even2),
        odd2.fma(-_FAR, even2),
        ends[1],
    ]


def _outputs(m: list) -> list:
    """A' m for six vectors: coefficients from values."""
    plus, minus = m[1] + m[2], m[1] - m[2]
    plus2, minus2 = m[3] + m[4], m[3] - m[4]
    return [
        m[0] + plus + plus2,
        minus.fma(_NEAR, minus2 * _FAR),
        plus.fma(_NEAR2, plus2 * _FAR2),
        minus.fma(_NEAR**3, minus2.fma(_FAR**3, m[5])),
    ]
