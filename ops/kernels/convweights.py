"""Filters of a dense or grouped convolution, and factors of matrix products, in the order in which the kernel reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from . import convfetch, halves
from .blocking import panel_width
from .image import Opaque, triple
from .packing import Packing, slices


@dataclass(frozen=True)
class PackedWeights:
    """Filters in the order in which the kernel reads them.

    Attributes:
        shape: (O, C / groups, kD, kH, kW); of int16 C counts pairs.
        groups: of the convolution.
        address: of [groups * panels, kD, kH, kW, C / groups, NR], NR of `panel_width`; zeros behind the last channel.
            An element of int16 is a pair of neighbouring channels; what is missing to a pair is zero.
        image_stride: bytes between the filters of neighbouring images (0: one set for all; a batched matrix product).
        folded: the rows of the window are read side by side (see `convfetch`): the order is [panels, kW, kH, C, NR].
        made: by the run itself, so that their sizes may change from run to run.
        held: memory type of the elements, if it is not the product's: f16 or bf16 of a product of f32.
    """

    shape: tuple[int, ...]
    groups: int
    address: Opaque = 0
    image_stride: int = 0
    folded: bool = False
    made: bool = False
    held: str = ""

    @property
    def is_matrix(self) -> bool:
        """Whether they are one matrix [C, O], given before the run."""
        return self.shape[2:] == (1, 1, 1) and self.groups == 1 and self.image_stride == 0 and not self.made

    @staticmethod
    def of(shape: Sequence[int], groups: int, address: Opaque = 0) -> PackedWeights:
        """The packed weights at an address that were w[O, C / groups, *kernel], in `counted` channels."""
        return PackedWeights((*shape[:2], *triple(shape[2:], 1)), groups, address)


def counted(channels: int, dtype: np.dtype) -> int:
    """Channels as the kernel counts them: int16 in pairs."""
    return -(-channels // 2) if dtype == np.int16 else channels


def padded_columns(outputs: int, itemsize: int, groups: int = 1) -> int:
    """Output channels, of one of the groups, rounded up to whole panels."""
    width = panel_width(itemsize, groups, outputs)
    return -(-outputs // width) * width


def pack_weights(w: np.ndarray, groups: int) -> np.ndarray:
    """w[O, C / groups, *kernel] (1 to 3 kernel dimensions) in the order of `PackedWeights`.

    Raises:
        ValueError: O is not a multiple of groups.
    """
    return weights_packing(w.shape, w.dtype, groups).make(w)


def weights_packing(shape: Sequence[int], dtype: np.dtype, groups: int, half: str = "") -> Packing:
    """`pack_weights` of a w of this shape.

    `half`: the 16-bit type, f16 or bf16, that elements of float32 are held in; unpacked they are float32, rounded to that.

    Raises:
        ValueError: O is not a multiple of groups.
    """
    if groups < 1 or shape[0] % groups:
        raise ValueError(f"convolution weights {tuple(shape)}: {shape[0]} output channels in {groups} groups")
    kernel, inputs, each = triple(shape[2:], 1), counted(shape[1], dtype), shape[0] // groups
    pairs = dtype == np.int16
    width = panel_width(4 if pairs else dtype.itemsize, groups, each)
    whole, rest, panels = each // width, each % width, -(-each // width)
    packed_shape = (groups * panels, *kernel, inputs, width, *([2] if pairs else []))
    held_type = halves.numpy_type(half) if half else dtype
    step, parts = slices(panels, prod(packed_shape) // groups * held_type.itemsize)

    def narrowed(source: np.ndarray) -> np.ndarray:
        return halves.narrowed(source, half) if half else source

    def put(w: np.ndarray, packed: np.ndarray, part: int) -> None:
        group, first = part // parts, part % parts * step
        last, have = min(whole, first + step), w.shape[1]
        filters = w.reshape(groups, each, have, *kernel)[group]
        target = packed[group * panels : (group + 1) * panels, ..., :have, :]
        if first < last:
            source = filters[first * width : last * width].reshape(last - first, width, have, *kernel)
            target[first:last] = narrowed(source).transpose(0, 3, 4, 5, 2, 1)
        if rest and first <= whole < first + step:
            target[whole, ..., :rest] = narrowed(filters[whole * width :]).transpose(2, 3, 4, 1, 0)
            target[whole, ..., rest:] = 0
        if have < inputs:
            packed[group * panels + first : min(group * panels + first + step, (group + 1) * panels), ..., have:, :] = 0

    def fill(w: np.ndarray, packed: np.ndarray, part: int) -> None:
        if pairs:
            put(w[:, 0::2], packed[..., 0], part)
            put(w[:, 1::2], packed[..., 1], part)
        else:
            put(w, packed, part)

    def unpack(packed: np.ndarray) -> np.ndarray:
        if pairs:
            packed = packed.swapaxes(-1, -2).reshape(*packed.shape[:-3], 2 * inputs, width)[..., : shape[1], :]
        filters = packed.transpose(0, 5, 4, 1, 2, 3).reshape(groups, panels * width, shape[1], *kernel)
        return filters[:, :each].reshape(shape).astype(dtype, copy=False)

    return Packing(packed_shape, held_type, groups * parts, fill, unpack)


def foldable(shape: Sequence[int], groups: int) -> bool:
    """Whether filters w[O, C, kH, kW] are for images of so few channels that the rows of their window are read side by side.

    C in `counted` channels.
    """
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
