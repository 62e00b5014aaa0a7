"""What convolution and pooling kernels work on: strided images with 1, 2 or 3 spatial dimensions.

Kernels see every image as [N, C, D, H, W]; fewer spatial dimensions are leading dimensions of size 1. The native
layout is channels-last: neighbouring channels are neighbouring elements. Numba-free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .sizes import alike, certainly, whole


class Opaque(Protocol):
    """An address that only the executor can turn into a number (a plan's place in memory), or an int64 address."""

    def __add__(self, nbytes: int, /) -> Opaque:
        """The address of what lies `nbytes` further on."""


# alloc(nbytes): workspace that lives as long as the node's launches, 64-byte aligned
Alloc = Callable[[int], Opaque]

# i16x2: two neighbouring int16 that are one element of a product of integers
SIZES = {"b1": 1, "i8": 1, "u8": 1, "f16": 2, "bf16": 2, "i16": 2, "u16": 2, "f32": 4, "i32": 4, "u32": 4, "i16x2": 4,
         "f64": 8, "i64": 8, "u64": 8}  # fmt: skip


@dataclass(frozen=True)
class Image:
    """Activations in memory.

    Attributes:
        address: of element [0, 0, ...]; never looked into.
        shape: (N, C, *spatial).
        strides: bytes between neighbours in each dimension of `shape`.
    """

    address: Opaque
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def volume(self) -> Image:
        """The same image with exactly three spatial dimensions."""
        missing = 5 - len(self.shape)
        if missing == 0 and len(self.strides) == 5:
            return self
        if missing < 0 or len(self.shape) != len(self.strides):
            raise ValueError(f"image of shape {self.shape}, strides {self.strides}: expected 1 to 3 spatial dimensions")
        shape = self.shape[:2] + (1,) * missing + self.shape[2:]
        return Image(self.address, shape, self.strides[:2] + (0,) * missing + self.strides[2:])

    def channels_last(self, itemsize: int) -> bool:
        """Whether neighbouring channels are neighbouring elements."""
        return self.shape[1] == 1 or self.strides[1] == itemsize

    @property
    def pixels(self) -> int:
        """Number of spatial positions."""
        count = 1
        for size in self.shape[2:]:
            count *= size
        return count


def channels_last(address: Opaque, shape: Sequence[int], itemsize: int) -> Image:
    """A dense channels-last image of logical shape (N, C, *spatial) at `address`."""
    _, c, *spatial = shape
    strides: list[int] = []
    step = c * itemsize
    for size in reversed(spatial):
        strides.insert(0, step)
        step *= size
    return Image(address, tuple(shape), (step, itemsize, *strides))


def channels_first(address: Opaque, shape: Sequence[int], itemsize: int) -> Image:
    """A C-contiguous image of logical shape (N, C, *spatial) at `address`."""
    strides: list[int] = []
    step = itemsize
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return Image(address, tuple(shape), tuple(strides))


def triple(values: Sequence[int], fill: int) -> tuple[int, int, int]:
    """Per-dimension parameters of 1 to 3 spatial dimensions as those of (D, H, W)."""
    given = tuple(map(whole, values))
    if not 1 <= len(given) <= 3:
        raise ValueError(f"{len(given)} spatial dimensions: expected 1 to 3")
    d, h, w = (fill,) * (3 - len(given)) + given
    return d, h, w


def merge_rows(*images: Image) -> list[Image]:
    """Merge spatial dimensions of [N, C, D, H, W] images of one spatial shape where the strides of all allow it."""
    sizes = [images[0].shape[4]]
    strides = [[image.strides[4]] for image in images]
    for d in (3, 2):
        size, steps = images[0].shape[d], [image.strides[d] for image in images]
        if certainly(size, 1):
            continue
        if certainly(sizes[0], 1):
            sizes[0] = size
            for own, step in zip(strides, steps):
                own[0] = step
        elif alike(steps, [sizes[0] * own[0] for own in strides]):
            sizes[0] *= size
        else:
            sizes.insert(0, size)
            for own, step in zip(strides, steps):
                own.insert(0, step)
    return [
        Image(image.address, image.shape[:2] + tuple(sizes), image.strides[:2] + tuple(own)).volume()
        for image, own in zip(images, strides)
    ]
