"""What a task of a convolution copies to its scratch before it multiplies, so that the taps of a filter are consecutive there.

Grouped convolution: the padded rows of the group whose panel comes next. Images of few channels: each row of the output
gets the rows of its window side by side in every pixel, so that all taps of the filter are one segment of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from .blocking import K_STEPS
from .image import SIZES, Alloc, Image, channels_last
from .launch import Launch
from .padcopy import pad_copy

FEW = 4  # channels that one small vector holds


@dataclass(frozen=True)
class Window:
    """A filter's place on the image; each for (D, H, W)."""

    kernel: tuple[int, ...]
    steps: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]

    def extent(self, d: int) -> int:
        """Elements of dimension d from the first tap to the last."""
        return (self.kernel[d] - 1) * self.dilations[d] + 1

    def needed(self, outputs: Sequence[int]) -> tuple[int, ...]:
        """The size of a padded image that every tap of every output lies in."""
        return tuple((n - 1) * self.steps[d] + self.extent(d) for d, n in enumerate(outputs))

    def inside(self, x: Image, y: Image) -> bool:
        """Whether every tap of every output lies in the image as it is."""
        return not any(self.begin) and all(n <= have for n, have in zip(self.needed(y.shape[2:]), x.shape[2:]))


def padded(
    dtype: str, work: str, x: Image, y: Image, window: Window, launches: list[Launch], alloc: Alloc, threads: int, label: str,
    behind: int = 0,
) -> Image:  # fmt: skip
    """x as a channels-last [N, C, D, H, W] image of `work` that every tap of every output lies in.

    x itself if it is one and nothing is asked for, else a copy with room for `behind` bytes after it.
    """
    size = SIZES[work]
    x3, y3 = x.volume(), y.volume()
    if not behind and window.inside(x3, y3) and dtype == work and x.channels_last(size):
        return x3
    shape = (*x3.shape[:2], *window.needed(y3.shape[2:]))
    copy = channels_last(alloc(prod(shape) * size + behind), shape, size)
    launches += pad_copy(dtype, x3, work, copy, window.begin, threads=threads, label=f"{label}: pad")
    return copy


@dataclass(frozen=True)
class Fetch:
    """What the tasks of a product copy.

    Attributes:
        image: x with the strides of the copy.
        words: what the kernel is told (see `copiers`), the first one 1 for groups, 2 for folded rows.
        extent, step: rows of the copy that one row of the output needs, and from one to the next.
    """

    image: Image
    words: tuple[int, ...]
    extent: int = 1
    step: int = 1

    def arguments(self) -> tuple[int, ...]:
        """The words of the kernel's argument block."""
        return (*self.words, self.image.shape[4], self.extent, self.step)

    def scratch(self, rows: int) -> int:
        """Bytes of the copy for `rows` output rows."""
        return ((rows - 1) * self.step + self.extent) * self.image.strides[3] + 64


NO_FETCH = (0,) * 11


def of_groups(x: Image, y: Image, groups: int, window: Window, work: str) -> Fetch | None:
    """For a grouped convolution of padded planes, channels-last, whose sums are one K block; None: it is no such."""
    if groups == 1:
        return None
    size, x3, y3 = SIZES[work], x.volume(), y.volume()
    each = x.shape[1] // groups
    planes = x3.shape[2] == y3.shape[2] == window.kernel[0] == 1 and not window.begin[0]
    short = each * prod(window.kernel) <= K_STEPS
    if not planes or not short or not x.channels_last(size) or window.inside(x3, y3):
        return None
    needed = window.needed(y3.shape[2:])
    image = Image(x.address, (*x3.shape[:2], *needed), channels_last(0, (1, each, *needed), size).strides)
    words = (1, x3.strides[0], *x3.strides[3:], *x3.shape[3:], *window.begin[1:])
    return Fetch(image, words, window.extent(1), window.steps[1])


def of_rows(x: Image, outputs: int, window: Window, work: str) -> Fetch:
    """For a padded image x of at most FEW channels, channels-last, with FEW elements behind it, and `outputs` rows."""
    size, (n, c, _, _, width) = SIZES[work], x.shape
    rows = window.kernel[1]
    shape = (n, rows * c, 1, outputs, width)
    image = Image(x.address, shape, channels_last(0, shape, size).strides)
    line, row = window.steps[1] * x.strides[3], window.dilations[1] * x.strides[3]
    return Fetch(image, (2, x.strides[0], line, x.strides[4], rows, row, 0, 0))


def copiers(dtype: str, lanes: int) -> tuple[Callable, Callable]:
    """The subroutines (group, fold) of the kernel; imports numba.

    ``group(x, y, first, rows, row_step, col_step, h, w, left, width, pixel)``: y[i, j, :] = x[first + i, j - left, :],
    `pixel` bytes each, 0 outside the image.
    ``fold(x, y, lines, line_step, col_step, rows, row_step, width)``: y[i, j, r, :] = x[i + r, j, :], `col_step` bytes each.
    """
    from . import simd
    from .subroutine import subroutine

    size = SIZES[dtype]
    load, load_one, load_few, store = simd.load(dtype, lanes), simd.load(dtype, 0), simd.load(dtype, FEW), simd.store(dtype)
    ahead = simd.prefetch(dtype, lanes)

    @subroutine
    def group(x, y, first, rows, row_step, col_step, h, w, left, width, pixel):
        step = lanes * size
        whole = pixel // step * step
        for i in range(first, first + rows):
            begin, end = left, min(width, left + w)
            if i < 0 or i >= h:
                begin = end = width
            at = x + i * row_step
            for j in range(width):
                if begin <= j < end:
                    for v in range(0, whole, step):
                        ahead(at + row_step + v)
                        store(y + v, load(at + v))
                    for v in range(whole, pixel, size):
                        store(y + v, load_one(at + v))
                    at += col_step
                else:
                    for v in range(0, pixel, size):
                        store(y + v, 0.0)
                y += pixel

    @subroutine
    def fold(x, y, lines, line_step, col_step, rows, row_step, width):
        for i in range(lines):
            for j in range(width):
                at = x + i * line_step + j * col_step
                for _ in range(rows):
                    # what lies behind the channels is written over by the next
                    store(y, load_few(at))
                    at += row_step
                    y += col_step

    return group, fold
