"""Convolution, dense or grouped, as products of image rows with packed weights; nothing is unrolled into columns.

Loop order of a task: K blocks; groups of tiles; panels of output channels; tiles of the group. A tile is a register
block (`convtile`) of T neighbouring output pixels times a panel of two vectors of channels, or of one if each of several
groups has no more. If the task's panels fit in L2, groups are small: their image rows stay in L1 while all panels pass by.
Otherwise all tiles are one group: its image rows stay in L2, each panel is read once. K runs over the filter's taps; the taps
of a row and their channels are consecutive in memory, one segment, if dilation is 1. Tiles take a segment in pieces
(`convtile`). A 1 x 1 convolution of stride 1 takes the whole image as one row, which makes it a GEMM.

The image must be channels-last and padded; if it is not, a copying launch is put in front, or tasks copy what they need
(`convfetch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from . import convfetch, ways
from .blocking import blocking, crosses_rows, panel_width, tallest_tile
from .convweights import PackedWeights
from .convwords import PART, PIECE, WORDS
from .depthwise import native_input, native_output
from .halves import KINDS
from .image import SIZES, Alloc, Image, Opaque, channels_last, merge_rows, triple
from .launch import Launch
from .matrix import Matrix
from .padcopy import pad_copy
from .sizes import certainly, least, most
from .spec import KernelSpec, handwritten


def conv(
    dtype: str,
    x: Image,
    weights: PackedWeights,
    y: Image,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    *,
    bias: Opaque = 0,
    residual: Image | None = None,
    low: float = -np.inf,
    high: float = np.inf,
    epilogue: tuple[Opaque, Opaque] | None = None,
    alloc: Alloc,
    threads: int = 1,
    label: str = "conv",
) -> list[Launch]:
    """y = clip(convolution of x + bias + residual, low, high) (ONNX Conv).

    Args:
        dtype: memory type of x, y and residual: f32, f64, i32, i64; f16 and bf16 are converted to f32 and back by copies.
            Weights and bias are of that type, f32 for f16 and bf16; weights of f32 may be `held` in less. i16x2: channels of x
            and weights are pairs of int16, all else is int32.
        pads: borders before the first element of each spatial dimension (those behind the last one may follow); what
            lies behind the last element follows from the shape of y.
        bias: address of one value per output channel, or 0.
        residual: an image of y's shape that is added; it may be y itself.
        low, high: of floats.
        epilogue: (kernel address, argument block address). The kernel is called once for each block of finished
            outputs with [n, 0, first pixel, pixels, first channel, channels] as int64 at the start of the scratch;
            pixels count through the flattened output image. It needs channels-last output, not f16 or bf16.
        alloc: workspace that lives as long as the launches.

    Raises:
        ValueError: shapes do not fit, or an epilogue is given with an output that it cannot see.
    """
    o, c, *kernel = weights.shape
    if x.shape[1] != c * weights.groups or y.shape[1] != o or x.shape[0] != y.shape[0]:
        raise ValueError(f"{label}: input {x.shape}, weights {weights.shape}, groups {weights.groups}, output {y.shape}")
    if 0 in y.shape:
        return []
    work = "f32" if dtype in ("f16", "bf16") else dtype
    steps, dils, begin = triple(strides, 1), triple(dilations, 1), triple(pads[: len(x.shape) - 2], 0)
    before: list[Launch] = []
    window = convfetch.Window(tuple(kernel), steps, dils, begin)
    fetch = convfetch.of_groups(x, y, weights.groups, window, work) if dtype == work else None
    if weights.folded:
        copy = convfetch.padded(dtype, work, x, y, window, before, alloc, threads, label, behind=64)
        fetch = convfetch.of_rows(copy, y.shape[2], window, work)
        weights = replace(weights, shape=(o, kernel[1] * c, 1, 1, kernel[2]))
        steps, dils = (1, 1, steps[2]), (1, 1, dils[2])
    image = fetch.image if fetch else convfetch.padded(dtype, work, x, y, window, before, alloc, threads, label)
    if dtype != work:
        if epilogue is not None:
            raise ValueError(f"{label}: an epilogue needs output of the type that is computed, given {dtype}")
        out = channels_last(alloc(prod(y.shape) * 4), y.shape, 4)
        after = pad_copy(work, out, dtype, y, threads=threads, label=f"{label}: layout")
        if residual is not None:
            wide = channels_last(alloc(prod(y.shape) * 4), y.shape, 4)
            before += pad_copy(dtype, residual, work, wide, threads=threads, label=f"{label}: layout")
            residual = wide
    else:
        out, after = native_output(dtype, y, epilogue, alloc, threads, label)
        residual = residual and native_input(dtype, residual, before, alloc, threads, label)
    finish, out, residual = (bias, float(low), float(high), *(epilogue or (0, 0))), out.volume(), residual and residual.volume()
    main = [product(work, image, weights, out, residual, steps, dils, threads, finish, label, fetch=fetch)]
    if work == "f32" and fetch is None and weights.is_matrix and steps == (1, 1, 1):
        main = _matrix_product(main[0], image, weights, out, residual, finish, threads)
    return [*before, *main, *after]


def _matrix_product(
    direct: Launch, x: Image, weights: PackedWeights, y: Image, residual: Image | None, finish: tuple, threads: int
) -> list[Launch]:
    """The same product in the fastest way, if the pixels of an image are rows of a matrix, or those of all images."""
    images = [x, y, residual or y]
    if finish[3:] == (0, 0) and certainly(y.shape[2], 1):  # an epilogue would be told of one image only
        images = [Image(i.address, (1, i.shape[1], i.shape[0], *i.shape[3:]), (0, i.strides[1], i.strides[0], *i.strides[3:]))
                  for i in images]  # fmt: skip
    images = merge_rows(*images)
    if not certainly(images[0].shape[2] * images[0].shape[3], 1):
        return [direct]
    a, c, other = (Matrix(i.address, (i.shape[0], i.shape[4], i.shape[1]), (0, i.strides[4], 4)) for i in images)
    return ways.instead(direct, a, weights, c, other if residual else None, finish, threads)


def kernel_of(work: str, narrow: bool = False) -> KernelSpec:
    """The kernel of all convolutions and matrix products of that type, on panels of two vectors or `narrow` ones of one."""
    return handwritten("conv", "convkernel:factory", ahead=True, dtype=work, narrow=narrow)


def product(
    work: str, x: Image, weights: PackedWeights, y: Image, residual: Image | None, steps: tuple[int, ...],
    dils: tuple[int, ...], threads: int, finish: tuple, label: str, offsets: tuple[int, int, int, int] = (0, 0, 0, 0),
    fetch: convfetch.Fetch | None = None,
) -> Launch:  # fmt: skip
    """The launch of one product; `offsets` are bytes to add to the addresses of x, y, weights and residual."""
    size, held_size, groups = SIZES[work], SIZES[weights.held or work], weights.groups
    o, c, *kernel = weights.shape
    flops = 2 * y.shape[0] * y.pixels * o * c * prod(kernel) * (2 if work == "i16x2" else 1)
    moved = size * (x.shape[0] * x.shape[1] * x.pixels + y.shape[0] * o * y.pixels) + held_size * o * c * prod(kernel)
    taps = tuple(s * d for s, d in zip(x.strides[2:], dils))
    # the image as the tiles' rows see it: one pixel per output pixel
    seen = Image(x.address, (*y.shape[:1], x.shape[1], *y.shape[2:]),
                 (*x.strides[:2], *(s * t for s, t in zip(x.strides[2:], steps))))  # fmt: skip
    other = residual or y
    if kernel == [1, 1, 1] and fetch is None:  # what a task fetches is counted in rows
        seen, y, other = merge_rows(seen, y, other)
    lines = y.shape[3:]  # of the image; tiles may go on from one to the next
    if crosses_rows():
        y, other = merge_rows(y, other)
    segments = (kernel[0], kernel[1], kernel[2], c)
    if kernel[2] == 1 or (dils[2] == 1 and x.strides[4] == c * size):
        segments = (kernel[0], kernel[1], 1, kernel[2] * c)
    n, _, od, oh, ow = y.shape
    b = blocking(work, od * oh, ow, segments, groups, o // groups, flops, n, threads, seen.strides[4])
    width = panel_width(size, groups, o // groups)
    per_group, panel = -(-o // groups // width), width * c * prod(kernel) * held_size
    args = (x.address, y.address, weights.address, finish[0], residual.address if residual else 0, *finish[1:],
            seen.strides[0], *seen.strides[2:], y.strides[0], *y.strides[2:], other.strides[0], *other.strides[2:],
            od, oh, *taps, ow, *segments, b.first, b.count, b.second, b.per_row, b.segments, b.length,
            groups, per_group, o // groups, c * size, panel, b.tiles, b.row_blocks, b.panels, b.panel_blocks, *offsets,
            weights.image_stride, b.tile_group, *(fetch.arguments() if fetch else convfetch.NO_FETCH), *lines,
            KINDS.index(weights.held))  # fmt: skip
    assert len(args) == WORDS
    scratch = 64 + 3 * tallest_tile() * width * size + -(-PIECE * b.segments * -(-b.length // PART) // 64) * 64
    pixels = b.tiles * most(b.first, b.second)
    if crosses_rows():
        scratch += -(-8 * pixels // 64) * 64
    if weights.held:
        scratch += b.segments * b.length * width * size
    if fetch:
        scratch += fetch.scratch(least(lines[0], (pixels - 2) // lines[1] + 2))
    return Launch(kernel_of(work, width < panel_width(size)), args, n * b.row_blocks * b.panel_blocks, scratch, label, flops, moved)
