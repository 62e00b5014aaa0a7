"""Winograd convolution: fewer products for the same outputs, between two transforms; `winogradforms` has the algebra.

Three launches for each strip of the image: every patch (they overlap by what the filters are longer than a tap) is
transformed, V[products, tiles, C]; as many matrix products M[i] = V[i] U[i] with the transformed filters run on `conv`'s
kernel as a batch; every M[:, tile] is transformed back to a tile of outputs. All are vectorised over channels
(`winogradtransform`).

For stride 1, constant filters, float32, one or two dimensions, and channels that fill vectors of at least 4, be they shorter
than the target's; with a whole form for int16 that are differences of bytes, exactly: products are those of pairs, results
int32. Groups are the matrix product's own. Of dilated filters the tiles of the interleaved images take turns.
`ops/convchoice.py` says when which form wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from . import target, winogradgroups
from .blocking import panel_width
from .conv import conv
from .convweights import PackedWeights, counted, padded_columns, weights_packing
from .depthwise import native_input, native_output
from .image import Alloc, Image, Opaque
from .launch import Launch
from .packing import Packing
from .sizes import about, deferred, least, whole
from .spec import handwritten
from .winogradforms import Form, Matrix

_STRIP_BYTES = 2 << 20  # transforms of a strip: V and M together, in the caches of the cores
_ROW_BYTES = 8 << 20  # those of a row of tiles that is not cut: of a long sequence a strip is a piece
_PACKED_CHANNELS = 64  # whose filters of a panel are transformed, there or back, at once: in float64, in L2
_LEAST_LANES = 4  # of a vector of 4-byte numbers
_TASK_BYTES = 32 << 10  # a task costs the executor about a microsecond


@dataclass(frozen=True)
class WinogradWeights:
    """Transformed filters.

    Attributes:
        shape: (O, C / groups).
        form: along rows and columns.
        groups: of the convolution.
        address: of [products, groups * panels, C / groups, NR]: one set of packed weights for each product. Of whole forms an
            element is a pair of int16 that are neighbours along C. Filters of small groups (`winogradgroups`) are not
            transformed before: they are in the order of `PackedWeights`.
    """

    shape: tuple[int, int]
    form: Form
    groups: int = 1
    address: Opaque = 0

    @property
    def product(self) -> PackedWeights:
        """The filters of the matrix products; where vectors have no masks, a single group's fill them with a panel's zeros."""
        o, c = self.shape[0], counted(self.shape[1], self.form.dtype)
        each = self.groups * padded_columns(o // self.groups, 4, self.groups) * c * 4
        lanes = 1 if target.current().masks or self.groups > 1 else target.current().lanes
        return PackedWeights((-(-o // lanes) * lanes, c, 1, 1, 1), self.groups, self.address, each)


def pack_winograd(w: np.ndarray, form: Form, groups: int = 1) -> np.ndarray:
    """w[O, C / groups, *taps] of the form's type, transformed, in the order of `WinogradWeights`."""
    return winograd_packing(w.shape, form, groups).make(w)


def winograd_packing(shape: Sequence[int], form: Form, groups: int = 1) -> Packing:
    """`pack_winograd` of filters of this shape.

    Of small groups they are only put in order.
    Unpacked, integers are exact; others are off by 1e-7 of the largest of a filter where these are 3 x 3, by 1e-6 at most.
    """
    o, c = shape[:2]
    if in_groups(shape, form, groups):
        return weights_packing(shape, form.dtype, groups)
    each, width, products = o // groups, panel_width(4, groups, o // groups), form.products
    panels, both = -(-each // width), np.ones((1, 1))
    for of in form.matrices:
        both = np.kron(both, _numbers(of.filters))
    # numbers of an element: pairs lie side by side
    apart = np.dtype(np.float32).itemsize // form.dtype.itemsize

    def fill(w: np.ndarray, packed: np.ndarray, part: int) -> None:
        group, panel = divmod(part, panels)
        filters = w[group * each : (group + 1) * each][panel * width : (panel + 1) * width].reshape(-1, c, prod(form.taps))
        count = len(filters)
        for first in range(0, c, _PACKED_CHANNELS):
            block = filters[:, first : first + _PACKED_CHANNELS].transpose(2, 1, 0).astype(np.float64)
            target = packed[:, part, first // apart : (first + _PACKED_CHANNELS) // apart].swapaxes(2, 3)
            target[..., :count] = (both @ block.reshape(len(block), -1)).reshape(products, -1, apart, count)
            target[..., count:] = 0

    def unpack(packed: np.ndarray) -> np.ndarray:
        scales = np.linalg.norm(both, axis=1)  # rounding errors are in proportion to values
        back = np.linalg.pinv(both / scales[:, None]) / scales
        filters = np.empty((groups, panels * width, c, prod(form.taps)), form.dtype)
        for part in range(groups * panels):
            group, panel = divmod(part, panels)
            target = filters[group, panel * width : (panel + 1) * width]
            for first in range(0, c, _PACKED_CHANNELS):
                block = packed[:, part, first // apart : (first + _PACKED_CHANNELS) // apart].swapaxes(2, 3).astype(np.float64)
                made = (back @ block.reshape(products, -1)).reshape(prod(form.taps), -1, width).transpose(2, 1, 0)
                target[:, first : first + _PACKED_CHANNELS] = np.rint(made) if form.whole else made
        return filters[:, :each].reshape(shape)

    packed_shape = (products, groups * panels, c // apart, width, apart)
    return Packing(packed_shape, form.dtype, groups * panels, fill, unpack, nearly=not form.whole)


def in_groups(shape: Sequence[int], form: Form, groups: int) -> bool:
    """Whether groups of filters [O, C / groups, ...] are so small that one launch takes all steps."""
    return not form.whole and winogradgroups.pays(shape[0] // groups, shape[1], groups, form.products)


def _numbers(matrix: Matrix) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in matrix])


def fits(channels: int, outputs: int, groups: int, dtype: np.dtype) -> bool:
    """Whether these fill vectors; of int16 whole pairs in each group, too."""
    pair = 4 // dtype.itemsize
    rest = channels % (_LEAST_LANES * pair), outputs % _LEAST_LANES, channels // groups % pair
    return not any(rest) and min(channels, outputs) > 0


def winograd(
    x: Image,
    weights: WinogradWeights,
    y: Image,
    pads: Sequence[int],
    dilations: Sequence[int] = (1, 1),
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
    """y = clip(convolution of x + bias + residual, low, high); arguments as for `conv`, pads of rows and columns.

    All is float32; if the form is a whole one, x is of pairs of int16, the rest int32, and there are no limits.

    Raises:
        ValueError: channels are not whole vectors, or shapes do not fit.
    """
    (o, c), groups, form = weights.shape, weights.groups, weights.form
    inputs = counted(c, form.dtype) * groups
    if not fits(c * groups, o, groups, form.dtype) or o % groups or x.shape[:2] != (y.shape[0], inputs) or y.shape[1] != o:
        raise ValueError(f"{label}: input {x.shape}, output {y.shape}, weights {weights.shape} x {groups}")
    if 0 in y.shape:
        return []
    launches: list[Launch] = []
    taken, made = ("i16x2", "i32") if form.whole else ("f32", "f32")
    source = _plane(native_input(taken, x, launches, alloc, threads, label), label)
    other = residual and _plane(native_input(made, residual, launches, alloc, threads, label), label)
    out, after = native_output(made, y, epilogue, alloc, threads, label)
    out = _plane(out, label)
    n, _, height, width = out.shape
    (rows, cols), (down, right) = form.tiles((height, width), dilations), form.interleaved(dilations)
    grid = _Grid(form, rows, cols, (down, right))
    finish = (bias, float(low), float(high), *(epilogue or (0, 0)))
    if in_groups(weights.shape, form, groups):
        return [*launches, _group_launch(source, weights, out, other, pads, grid, finish, threads, label), *after]
    strips = _strips(weights, n, grid)
    most = n * strips[0].rows * strips[0].cols
    v, m = (_products(alloc, form.products, most, channels) for channels in (inputs, weights.product.shape[0]))
    for strip in strips:
        tiles = n * strip.rows * strip.cols
        launches.append(_input_launch(source, v, strip, pads, threads, label))
        launches += conv(
            taken, _first(v, tiles), weights.product, _first(m, tiles), [1], [1], [0], alloc=alloc, threads=threads,
            label=f"{label}: products",
        )  # fmt: skip
        launches.append(_output_launch(m, out, other, strip, finish, threads, label))
    return launches + after


@dataclass(frozen=True)
class _Grid:
    """The tiles of a picture, or of a strip of it.

    Attributes:
        rows, cols: how many.
        dilations: how many interleaved pictures take turns, along rows of tiles and along columns.
        top, left: the first row and the first column, the latter a multiple of the dilation.
    """

    form: Form
    rows: int
    cols: int
    dilations: tuple[int, int]
    top: int = 0
    left: int = 0

    def moved(self, image: Image, beside: int) -> int:
        """Bytes of the image under the strip, and of its transform; `beside`: whether patches overlap (1) or not (0)."""
        n, channels, *size = image.shape
        spans = (
            least(m * tiles + beside * (r - 1), have)
            for m, r, tiles, have in zip(self.form.outputs, self.form.taps, (self.rows, self.cols), size)
        )
        return 4 * n * channels * (prod(spans) + self.form.products * self.rows * self.cols)


def _group_launch(
    x: Image, weights: WinogradWeights, y: Image, residual: Image | None, pads: Sequence[int], grid: _Grid, finish: tuple,
    threads: int, label: str,
) -> Launch:  # fmt: skip
    """The launch of small groups, made of those of a strip of one group."""
    (o, c), form, groups, size = weights.shape, weights.form, weights.groups, (grid.rows, grid.cols)
    each = o // groups
    strips = winogradgroups.Strips.of(*size, grid.dilations[1], form.products * (c + each) * 4, x.shape[0] * groups, threads)
    strip = replace(grid, rows=strips.rows, cols=strips.cols)
    v, m = (strips.planes(form.products, channels) for channels in (c, each))
    patches = _input_launch(_of_group(x, c), v, strip, pads, 1, label)
    outputs = _output_launch(m, _of_group(y, each), residual and _of_group(residual, each), strip, finish, 1, label)
    moved = grid.moved(x, 1) + grid.moved(y, 0)
    return winogradgroups.launch(patches, outputs, x, y, residual, v, m, weights.address, form, groups, size, strips, moved, label)


def _of_group(x: Image, channels: int) -> Image:
    """The first group of the first image."""
    return replace(x, shape=(1, channels, *x.shape[2:]))


def _plane(x: Image, label: str) -> Image:
    """The image with just rows and columns."""
    volume = x.volume()
    if volume.shape[2] != 1:
        raise ValueError(f"{label}: an image of shape {x.shape} has three dimensions")
    return Image(x.address, (*volume.shape[:2], *volume.shape[3:]), (*volume.strides[:2], *volume.strides[3:]))


def _strips(weights: WinogradWeights, n: int, grid: _Grid) -> list[_Grid]:
    """Rows of tiles, or pieces of a very long one, whose transforms go through memory at once; the first is the largest.

    Of few rows, so that their transforms stay in cache; but each strip reads all filters again, so they may take twice as much.
    """
    together = grid.dilations[1]
    o, c = weights.shape
    parts = _parts(o, counted(c, grid.form.dtype), weights.groups, grid.form.products, n, grid.rows, grid.cols, together)
    down, across = map(about, parts)
    rows, cols = -(-grid.rows // down), -(-(grid.cols // together) // across) * together
    return [
        replace(grid, top=i * rows, left=j * cols, rows=least(rows, grid.rows - i * rows), cols=least(cols, grid.cols - j * cols))
        for i in range(down)
        for j in range(across)
    ]


@deferred(least=1)
def _parts(o: int, c: int, groups: int, products: int, n: int, rows: int, cols: int, together: int) -> tuple[int, int]:
    """How many strips there are down the picture, and across it, of o and c `counted` channels."""
    tile = products * n * (c * groups + o) * 4
    most = max(_STRIP_BYTES, 2 * products * c * o * 4)
    if cols * tile <= max(most, _ROW_BYTES):
        return -(-rows // _even(rows, most // (cols * tile))), 1
    pieces = cols // together
    return rows, -(-pieces // _even(pieces, most // (together * tile)))


def _even(count: int, most: int) -> int:
    """The size of the fewest parts of `count` that are not larger than `most`, or than 1, and much alike."""
    parts = -(-count // max(1, most))
    return -(-count // parts)


def _first(planes: Image, tiles: int) -> Image:
    """The first tiles of every plane."""
    return replace(planes, shape=(*planes.shape[:2], tiles))


def _products(alloc: Alloc, products: int, tiles: int, channels: int) -> Image:
    """Matrices [tiles, counted channels] as images, an odd number of cache lines apart lest they fall into one cache set."""
    lines = -(-tiles * channels * 4 // 64)
    step = (lines + 1 - lines % 2) * 64
    return Image(alloc(products * step), (products, channels, tiles), (step, 4, channels * 4))


@deferred()
def _chunk(channels: int, rows: int, cols: int, together: int, products: int, images: int, threads: int) -> tuple[int, int]:
    """Columns of tiles of one task and how many chunks a row of tiles has; a task takes all channels, which lie in a row.

    Interleaved columns stay `together`: their pixels are neighbours.
    """
    wanted = max(1, min(8 * threads, images * rows * cols * channels * products * 4 // _TASK_BYTES))
    cols //= together
    each = -(-cols // min(cols, -(-wanted // (images * rows))))
    return each * together, -(-cols // each)


def _input_launch(x: Image, v: Image, strip: _Grid, pads: Sequence[int], threads: int, label: str) -> Launch:
    n, c, height, width = x.shape
    form = strip.form
    numbers = c * (4 // form.dtype.itemsize)
    chunk, chunks = _chunk(c, strip.rows, strip.cols, strip.dilations[1], form.products, n, threads)
    args = (x.address, v.address, x.strides[0], x.strides[2], x.strides[3], v.strides[0], v.strides[2], numbers, height, width,
            whole(pads[0]), whole(pads[1]), strip.rows, strip.cols, chunk, chunks, strip.top, strip.left,
            *form.outputs, *strip.dilations, *form.patch)  # fmt: skip
    square = min(form.patch) > 1
    kernel = handwritten(
        "winograd_input", "winogradtransform:input_factory",
        points=form.points, square=square, whole=form.whole, lanes=winogradgroups.vector_lanes(numbers, form.dtype.itemsize),
    )  # fmt: skip
    scratch = 64 + form.products * 64
    return Launch(kernel, args, n * strip.rows * chunks, scratch, f"{label}: patches", 0, strip.moved(x, 1))


def _output_launch(m: Image, y: Image, residual: Image | None, strip: _Grid, finish: tuple, threads: int, label: str) -> Launch:
    n, o, height, width = y.shape
    form, other = strip.form, residual or y
    chunk, chunks = _chunk(o, strip.rows, strip.cols, strip.dilations[1], form.products, n, threads)
    args = (m.address, y.address, residual.address if residual else 0, *finish, m.strides[0], m.strides[2], y.strides[0],
            *y.strides[2:], other.strides[0], *other.strides[2:], o, height, width, strip.rows, strip.cols, chunk, chunks,
            strip.top, strip.left, *form.outputs, *strip.dilations, 0, 0)  # fmt: skip
    rows, cols = form.outputs if min(form.patch) > 1 else (0, max(form.outputs))
    kernel = handwritten(
        "winograd_output", "winogradtransform:output_factory",
        points=form.points, rows=rows, cols=cols, whole=form.whole, lanes=winogradgroups.vector_lanes(o, 4),
    )  # fmt: skip
    scratch = 64 + prod(form.outputs) * 64
    return Launch(kernel, args, n * strip.rows * chunks, scratch, f"{label}: outputs", 0, strip.moved(y, 0))
