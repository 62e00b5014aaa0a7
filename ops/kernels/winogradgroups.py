"""Winograd convolution of small groups: a task takes a group's filters, patches, products and outputs, all in its core's cache.

As three launches (`winograd`) the transforms of all groups would go from core to core twice, and products of a few channels
are over before a tile of the dense kernel is set up. Here a task transforms the group's filters, which come from memory in a
quarter of the bytes; copies the argument blocks of the kernels for patches and outputs, and says in them what is its own; and
calls these kernels before and after its products.

Task = (image, group, strip of the picture), strips running fastest: a thread's next task finds the filters in its cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd, prod

from . import target
from . import winogradwords as word
from .blocking import panel_width
from .image import Image, Opaque
from .launch import Address, Block, Launch
from .sizes import deferred, most
from .spec import handwritten
from .winogradforms import Form, matrices

_STRIP_BYTES = 256 << 10  # transforms of a task, V and M together, in L2
_LARGEST = 192 << 10  # bytes of a group's transformed filters, beside them
_TASKS = 8  # of a thread, if there are as many rows of tiles
_TILES = 8  # of a register block: so many sums hide a multiply-add's latency
_BEGINNING = 20  # cycles that a block costs beside its multiply-adds
_TRANSFORM = 3  # cycles for a vector of transformed filters
_BYTES = {32: 8, 16: 4}  # of transformed patches and outputs in a cycle, by the number of registers: 16 do not hold a patch
_LINE = 64  # bytes


def pays(outputs: int, channels: int, groups: int, products: int) -> bool:
    """Whether groups of that many channels are small: one launch takes all steps, of float32."""
    return groups > 1 and not (outputs % 4 or channels % 4) and products * outputs * channels * 4 <= _LARGEST


def vector_lanes(channels: int, itemsize: int = 4) -> int:
    """Of the longest vectors that so many channels fill, of those that the target has and shorter ones."""
    return gcd(channels, target.current().lanes * 4 // itemsize)


def group_cycles(outputs: int, channels: int, products: int, tiles: int) -> float:
    """Of one core, for all that is done for a group of a picture, but to get its filters from memory."""
    cpu, half = target.current(), _TILES // 2
    product = -(-tiles // half) * half * channels / cpu.units + -(-tiles // _TILES) * _BEGINNING
    filters = outputs // vector_lanes(outputs) * (product + channels * _TRANSFORM)
    return products * (filters + tiles * (channels + outputs) * 4 / _BYTES[cpu.registers])


@dataclass(frozen=True)
class Strips:
    """How the tiles of a picture are cut.

    Attributes:
        down, across: how many strips. rows, cols: tiles of each but the last ones.
    """

    down: int
    across: int
    rows: int
    cols: int

    @staticmethod
    def of(rows: int, cols: int, together: int, tile: int, others: int, threads: int) -> Strips:
        """Strips of tiles whose transforms take so many bytes each, beside `others` that are tasks as well.

        Columns stay `together`.
        """
        return Strips(*_strips(rows, cols, together, tile, others, threads))

    def planes(self, products: int, channels: int) -> Image:
        """Matrices [tiles, channels] at no address: whole register blocks, an odd number of lines apart for the caches' sets."""
        tiles = self.rows * self.cols
        return Image(0, (products, channels, tiles), (_plane(tiles, channels), 4, channels * 4))


@deferred()
def _plane(tiles: int, channels: int) -> int:
    half = _TILES // 2
    lines = -(-(-(-tiles // half) * half) * channels * 4 // _LINE)
    return (lines + 1 - lines % 2) * _LINE


@deferred(least=1)
def _strips(rows: int, cols: int, together: int, tile: int, others: int, threads: int) -> tuple[int, int, int, int]:
    pieces, fitting = cols // together, max(1, _STRIP_BYTES // tile)
    across = -(-pieces // max(1, fitting // together))
    columns = -(-pieces // across) * together
    high = max(1, min(fitting // columns, -(-rows * others // (_TASKS * threads))))
    down = -(-rows // high)
    return down, -(-cols // columns), -(-rows // down), columns


def launch(
    patches: Launch, outputs: Launch, x: Image, y: Image, residual: Image | None, v: Image, m: Image, filters: Opaque,
    form: Form, groups: int, tiles: tuple[int, int], strips: Strips, moved: int, label: str,
) -> Launch:  # fmt: skip
    """The launch for those of the patches and outputs of one strip of a group, and the products between them.

    Args:
        v, m: images of one strip's transforms, at no address. filters: address of [groups, panels, taps, C / groups, NR].
        moved: bytes.
    """
    (products, c, _), each, images = v.shape, m.shape[1], x.shape[0]
    width = panel_width(4, groups, each)
    filter_bytes, transformed = -(-each // width) * width * prod(form.taps) * c * 4, form.patch[1] * each * c * 4
    own = -(-most(patches.scratch, outputs.scratch) // _LINE) * _LINE
    blocks = [nested for one in (patches, outputs) for nested in (Address(one.kernel), Block(one.args))]
    args = (*blocks, groups, filters, filter_bytes, own, v.strides[0], m.strides[0], *tiles, strips.rows, strips.cols,
            strips.down, strips.across, x.strides[0], y.strides[0], residual.strides[0] if residual else 0)  # fmt: skip
    assert (len(patches.args), len(outputs.args), len(args)) == (word.P_WORDS, word.O_WORDS, word.G_WORDS)
    kernel = handwritten("winograd_groups", "winogradgroups:factory", channels=c, outputs=each, width=width,
                         points=form.points, rows=form.taps[0], cols=form.taps[1])  # fmt: skip
    scratch = own + -(-8 * (word.P_WORDS + word.O_WORDS) // _LINE) * _LINE + transformed + products * (v.strides[0] + m.strides[0])
    tasks, flops = images * groups * strips.down * strips.across, 2 * images * groups * products * tiles[0] * tiles[1] * each * c
    return Launch(kernel, args, tasks, scratch, f"{label}: groups", flops, moved + groups * filter_bytes)


def factory(channels: int, outputs: int, width: int, points: int, rows: int, cols: int) -> Callable:
    """The kernel for groups of so many channels, and filters of rows x cols taps in panels of `width`.

    Scratch: that of the nested kernels, copies of their blocks, U, V and M.
    """
    from . import simd
    from .gather import copy_run

    block, call, copy = simd.block, simd.call_kernel, copy_run(1, False)
    down, across = (points if taps > 1 else 1 for taps in (rows, cols))
    products, high, half = down * across, _TILES, _TILES // 2
    multiply = _products(channels, outputs, width, (down, across), (rows, cols))

    def kernel(args, task, scratch):
        strips = args[word.G_DOWN] * args[word.G_ACROSS]
        strip, outer = task % strips, task // strips
        group, image = outer % args[word.G_GROUPS], outer // args[word.G_GROUPS]
        top, left = strip // args[word.G_ACROSS] * args[word.G_STRIP_ROWS], strip % args[word.G_ACROSS] * args[word.G_STRIP_COLS]
        lines = min(args[word.G_STRIP_ROWS], args[word.G_ROWS] - top)
        columns = min(args[word.G_STRIP_COLS], args[word.G_COLS] - left)
        before, after = scratch + args[word.G_OWN], scratch + args[word.G_OWN] + 8 * word.P_WORDS
        u = scratch + args[word.G_OWN] + (8 * (word.P_WORDS + word.O_WORDS) + 63) // 64 * 64
        v = u + across * channels * outputs * 4
        m = v + products * args[word.G_V_PLANE]
        copy(args[word.G_PATCHES_BLOCK], before, 8 * word.P_WORDS)
        ours = block(before)
        ours[word.P_X] += image * args[word.G_X_IMAGE] + group * channels * 4
        ours[word.P_V], ours[word.P_ROWS], ours[word.P_COLS] = v, lines, columns
        ours[word.P_CHUNK], ours[word.P_CHUNKS], ours[word.P_TOP], ours[word.P_LEFT] = columns, 1, top, left
        for row in range(lines):
            call(args[word.G_PATCHES], before, row, scratch)
        tiles = lines * columns
        whole, rest = tiles // high, tiles % high
        if rest > half:
            whole, rest = whole + 1, 0
        filters = args[word.G_FILTERS] + group * args[word.G_FILTERS_GROUP]
        multiply(args, filters, u, v, m, args[word.G_V_PLANE], args[word.G_M_PLANE], whole, min(rest, 1))
        copy(args[word.G_OUTPUTS_BLOCK], after, 8 * word.O_WORDS)
        ours = block(after)
        ours[word.O_Y] += image * args[word.G_Y_IMAGE] + group * outputs * 4
        if ours[word.O_RESIDUAL] != 0:
            ours[word.O_RESIDUAL] += image * args[word.G_R_IMAGE] + group * outputs * 4
        if ours[word.O_BIAS] != 0:
            ours[word.O_BIAS] += group * outputs * 4
        ours[word.O_M], ours[word.O_ROWS], ours[word.O_COLS] = m, lines, columns
        ours[word.O_CHUNK], ours[word.O_CHUNKS], ours[word.O_TOP], ours[word.O_LEFT] = columns, 1, top, left
        ours[word.O_FIRST_IMAGE], ours[word.O_FIRST_CHANNEL] = image, group * outputs
        for row in range(lines):
            call(args[word.G_OUTPUTS], after, row, scratch)

    return kernel


def _products(channels: int, outputs: int, width: int, points: tuple[int, int], taps: tuple[int, int]) -> Callable:
    """``multiply(args, filters, u, v, m, v_plane, m_plane, blocks, rest)``: M[i] = V[i] U[i] for each product i.

    In `blocks` of tiles, and half of one if there is a `rest`; a row of products after the other, so that their U, made of
    filters[panel, tap, channel, width], stay in L1. Meanwhile the filters that follow come to L2.
    """
    from . import emit, window
    from .winogradtransform import transformed_taps, weighted

    lanes = vector_lanes(outputs)
    vectors, factors, plane = outputs // lanes, channels * lanes * 4, width * channels * 4
    filter_bytes = -(-outputs // width) * plane * prod(taps)
    asked = -(-filter_bytes // (_LINE * prod(points)))  # lines a product
    of_rows, of_cols = (matrices(n - r + 1, r).filters for n, r in zip(points, taps))

    def transform(code, filters, u, row):
        """U[vector, column, channel, lane] of a row of products."""
        with code.loop(code.word(channels)) as k:
            for vector in range(vectors):
                panel, column = divmod(vector * lanes, width)
                at = filters + k * (width * 4) + (panel * prod(taps) * plane + column * 4)
                lines = [[code.load(at + (i * taps[1] + j) * plane) for i in range(taps[0])] for j in range(taps[1])]
                for j, value in enumerate(transformed_taps([weighted(line, of_rows[row]) for line in lines], of_cols)):
                    code.store(u + k * (lanes * 4) + (vector * points[1] + j) * factors, value)

    def body(code, block, filters, u, v, m, v_plane, m_plane, blocks, rest):
        with code.loop(code.word(points[0])) as i:
            for row in range(points[0]):
                with code.when(i == row):
                    transform(code, filters, u, row)
            with code.loop(code.word(points[1])) as j:
                product = i * points[1] + j
                for line in range(asked):
                    code.prefetch(filters + filter_bytes + (product * asked + line) * _LINE, soon=False)
                for vector in range(vectors):
                    from_v, to_m = v + product * v_plane, m + product * m_plane + vector * lanes * 4
                    from_u = u + (j + vector * points[1]) * factors
                    with code.loop(blocks) as b:
                        tiles(code, _TILES, from_v + b * (_TILES * channels * 4), from_u, to_m + b * (_TILES * outputs * 4))
                    with code.when(rest > 0):
                        done = blocks * _TILES
                        tiles(code, _TILES // 2, from_v + done * (channels * 4), from_u, to_m + done * (outputs * 4))

    def tiles(code, count, v, u, m):
        sums = [None] * count
        for k in range(channels):
            factor = code.load(u + k * lanes * 4)
            for t in range(count):
                x = emit.splat(code.scalar(v + (t * channels + k) * 4, "f32"), lanes)
                sums[t] = x * factor if k == 0 else x.fma(factor, sums[t])
        for t, total in enumerate(sums):
            code.store(m + t * outputs * 4, total)

    return window.leaf("filters u v m v_plane m_plane blocks rest", "f32", lanes, body)
