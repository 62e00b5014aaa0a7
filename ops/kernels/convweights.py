"""Filters of a dense or grouped convolution, and factors of matrix products, in the order in which the kernel reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from . import convfetch
from .blocking import panel_width
from .image import Opaque, triple
from .packing import Packing, slices


@dataclass(frozen=True)
class PackedWeights:
    """Filters in the order in which the kernel reads them.

    Attributes:
        shape: (O, C / groups, kD, kH, kW).
        groups: of the convolution.
        address: of [groups * panels, kD, kH, kW, C / groups, NR], NR = two vectors; zeros behind the last channel.
        image_stride: bytes between the filters of neighbouring images (0: one set for all; a batched matrix product).
        folded: the rows of the window are read side by side (see `convfetch`): the order is [panels, kW, kH, C, NR].
    """

    shape: tuple[int, ...]
    groups: int
    address: Opaque = 0
    image_stride: int = 0
    folded: bool = False

    @staticmethod
    def of(shape: Sequence[int], groups: int, address: Opaque = 0) -> PackedWeights:
        """The packed weights at an address that were w[O, C / groups, *kernel]."""
        return PackedWeights((*shape[:2], *triple(shape[2:], 1)), groups, address)


def padded_columns(outputs: int, itemsize: int) -> int:
    """Output channels rounded up to whole panels."""
    return -(-outputs // panel_width(itemsize)) * panel_width(itemsize)


def pack_weights(w: np.ndarray, groups: int) -> np.ndarray:
    """w[O, C / groups, *kernel] (float32 or float64; 1 to 3 kernel dimensions) in the order of `PackedWeights`.

    Raises:
        ValueError: O is not a multiple of groups.
    """
    return weights_packing(w.shape, w.dtype, groups).make(w)


def weights_packing(shape: Sequence[int], dtype: np.dtype, groups: int) -> Packing:
    """`pack_weights` of a w of this shape.

    Raises:
        ValueError: O is not a multiple of groups.
    """
    if groups < 1 or shape[0] % groups:
        raise ValueError(f"convolution weights {tuple(shape)}: {shape[0]} output channels in {groups} groups")
    kernel, inputs, each = triple(shape[2:], 1), shape[1], shape[0] // groups
    width = panel_width(dtype.itemsize)
    whole, rest, panels = each // width, each % width, -(-each // width)
    packed_shape = (groups * panels, *kernel, inputs, width)
    step, parts = slices(panels, panels * inputs * prod(kernel) * width * dtype.itemsize)

    def fill(w: np.ndarray, packed: np.ndarray, part: int) -> None:
        group, first = part // parts, part % parts * step
        filters = w.reshape(groups, each, inputs, *kernel)[group]
        target = packed[group * panels : (group + 1) * panels]
        last = min(whole, first + step)
        if first < last:
            source = filters[first * width : last * width].reshape(last - first, width, inputs, *kernel)
            target[first:last] = source.transpose(0, 3, 4, 5, 2, 1)
        if rest and first <= whole < first + step:
            target[whole, ..., :rest] = filters[whole * width :].transpose(2, 3, 4, 1, 0)
            target[whole, ..., rest:] = 0

    def unpack(packed: np.ndarray) -> np.ndarray:
        filters = packed.transpose(0, 5, 4, 1, 2, 3).reshape(groups, panels * width, inputs, *kernel)
        return filters[:, :each].reshape(shape)

    return Packing(packed_shape, dtype, groups * parts, fill, unpack)


def foldable(shape: Sequence[int], groups: int) -> bool:
    """Whether filters w[O, C, kH, kW] are for images of so few channels that the rows of their window are read side by side."""
    return len(shape) == 4 and groups == 1 and 0 < shape[1] <= convfetch.FEW and shape[2] > 1


def folded_packing(shape: Sequence[int], dtype: np.dtype) -> Packing:
    """The packing of `foldable` filters of this shape in the order of folded `PackedWeights`."""
    o, c, rows, columns = shape
    turned = weights_packing((o, c, columns, rows), dtype, 1)
    fill, unpack = turned.fill, turned.unpack
    assert unpack is not None
    return Packing(
        turned.shape, dtype, turned.parts, lambda w, packed, part: fill(w.swapaxes(2, 3), packed, part),
        lambda packed: unpack(packed).swapaxes(2, 3),
    )  # fmt: skip
