"""Transposed convolution as one ordinary convolution for each phase of the stride.

Output position p (counted from the start of the uncropped output) receives x[i] * w[k] where p = i * stride + k *
dilation. Positions with one remainder f = p mod stride, a phase, see the same taps: every stride / gcd(stride,
dilation)-th, starting with the first k whose k * dilation leaves f. With p = q * stride + f and m = (k * dilation -
f) / stride, i = q - m: a convolution of stride 1 of x with those taps in reverse order, whose outputs lie `stride`
pixels apart. Phases without a tap are written by a filter of zeros.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from .blocking import panel_width
from .conv import product
from .convweights import PackedWeights, pack_weights
from .depthwise import native_input, native_output
from .image import SIZES, Alloc, Image, Opaque, channels_last, triple
from .launch import Launch
from .padcopy import pad_copy


@dataclass(frozen=True)
class Phase:
    """One remainder of the output position in every dimension (D, H, W).

    Attributes:
        remainder: f.
        taps: filter taps that the phase sees, at least 1 (of zeros, if there is none).
        shift: m of the first tap.
        dilation: between the taps, in input pixels.
        offset: bytes from the start of the packed weights.
    """

    remainder: tuple[int, ...]
    taps: tuple[int, ...]
    shift: tuple[int, ...]
    dilation: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class TransposedWeights:
    """Packed filters of all phases, one behind the other.

    Attributes:
        shape: (O, C / groups, kD, kH, kW) of the whole filter.
        strides: that it was packed for.
        address: of what `pack_transposed` gives.
    """

    shape: tuple[int, ...]
    groups: int
    strides: tuple[int, int, int]
    phases: tuple[Phase, ...]
    address: Opaque = 0

    @staticmethod
    def of(
        shape: Sequence[int], itemsize: int, groups: int, strides: Sequence[int], dilations: Sequence[int], address: Opaque = 0
    ) -> TransposedWeights:
        """The packed weights at an address that were w[C, O / groups, *kernel] of elements of `itemsize` bytes."""
        kernel, steps = triple(shape[2:], 1), triple(strides, 1)
        each, out = shape[0] // groups, shape[1]
        phases, offset = [], 0
        for remainder, found in _phases(kernel, steps, triple(dilations, 1)):
            taps = tuple(max(1, len(chosen)) for chosen, _, _ in found)
            shift, dilation = tuple(f[1] for f in found), tuple(f[2] for f in found)
            phases.append(Phase(remainder, taps, shift, dilation, offset))
            width = panel_width(itemsize, groups, out)
            offset += groups * -(-out // width) * width * each * math.prod(taps) * itemsize
        return TransposedWeights((groups * out, each, *kernel), groups, steps, tuple(phases), address)


def _phases(kernel: tuple[int, ...], steps: tuple[int, ...], dils: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], list]]:
    """Each remainder with what `_taps` gives for its dimensions; all empty if one of them is."""
    for remainder in itertools.product(*map(range, steps)):
        found = [_taps(*values) for values in zip(kernel, steps, dils, remainder)]
        yield remainder, found if all(taps for taps, _, _ in found) else [([], 0, 1)] * 3


def _taps(kernel: int, stride: int, dilation: int, remainder: int) -> tuple[list[int], int, int]:
    """(taps k in ascending order, shift of the first one, distance of their shifts) of a phase in one dimension."""
    chosen = [k for k in range(kernel) if k * dilation % stride == remainder]
    shift = (chosen[0] * dilation - remainder) // stride if chosen else 0
    return chosen, shift, dilation // math.gcd(stride, dilation)


def pack_transposed(w: np.ndarray, groups: int, strides: Sequence[int], dilations: Sequence[int]) -> np.ndarray:
    """w[C, O / groups, *kernel] (float32 or float64) of ONNX ConvTranspose as packed filters of all phases in a row.

    Raises:
        ValueError: C is not a multiple of groups.
    """
    if groups < 1 or w.shape[0] % groups:
        raise ValueError(f"transposed convolution weights {w.shape}: {w.shape[0]} input channels in {groups} groups")
    kernel, steps, dils = triple(w.shape[2:], 1), triple(strides, 1), triple(dilations, 1)
    each, out = w.shape[0] // groups, w.shape[1]
    # [groups, C / groups, O / groups, ...] to [O, C / groups, ...]
    filters = w.reshape(groups, each, out, *kernel).swapaxes(1, 2).reshape(groups * out, each, *kernel)
    parts = []
    for _, found in _phases(kernel, steps, dils):
        chosen = filters[np.ix_(range(groups * out), range(each), *[taps[::-1] for taps, _, _ in found])]
        chosen = chosen if chosen.size else np.zeros((groups * out, each, 1, 1, 1), w.dtype)
        parts.append(pack_weights(chosen, groups).ravel())
    return np.concatenate(parts)


def conv_transpose(
    dtype: str,
    x: Image,
    weights: TransposedWeights,
    y: Image,
    pads: Sequence[int],
    *,
    bias: Opaque = 0,
    residual: Image | None = None,
    low: float = -np.inf,
    high: float = np.inf,
    alloc: Alloc,
    threads: int = 1,
    label: str = "conv_transpose",
) -> list[Launch]:
    """y = clip(transposed convolution of x + bias + residual, low, high) (ONNX ConvTranspose).

    Args:
        dtype: memory type of x, y and residual, as for `conv`.
        pads: cropped before the first element of each spatial dimension; the shape of y says what is left behind the
            last one, output padding included.

    Raises:
        ValueError: shapes do not fit.
    """
    o, c = weights.shape[:2]
    if x.shape[1] != c * weights.groups or y.shape[1] != o or x.shape[0] != y.shape[0]:
        raise ValueError(f"{label}: input {x.shape}, weights {weights.shape}, groups {weights.groups}, output {y.shape}")
    if 0 in y.shape:
        return []
    work = "f64" if dtype == "f64" else "f32"
    size, crop = SIZES[work], triple(pads[: len(x.shape) - 2], 0)
    before: list[Launch] = []
    if dtype != work:
        out = channels_last(alloc(prod(y.shape) * size), y.shape, size)
        after = pad_copy(work, out, dtype, y, threads=threads, label=f"{label}: layout")
        if residual is not None:
            wide = channels_last(alloc(prod(y.shape) * size), y.shape, size)
            before += pad_copy(dtype, residual, work, wide, threads=threads, label=f"{label}: layout")
            residual = wide
    else:
        out, after = native_output(dtype, y, None, alloc, threads, label)
        residual = residual and native_input(dtype, residual, before, alloc, threads, label)
    out, other = out.volume(), residual.volume() if residual else None
    parts = [part for part in (_part(phase, weights, out, crop) for phase in weights.phases) if part]
    image, begin = _padded(dtype, work, x.volume(), parts, before, alloc, threads, label)
    launches = [
        _phase(work, image, begin, weights, out, other, part, threads, (bias, float(low), float(high), 0, 0), label)
        for part in parts
    ]
    return [*before, *launches, *after]


@dataclass(frozen=True)
class _Part:
    """The outputs of one phase: where they begin, how many there are, and the first input pixel of the first one."""

    phase: Phase
    first: tuple[int, ...]
    count: tuple[int, ...]
    source: tuple[int, ...]


def _part(phase: Phase, weights: TransposedWeights, y: Image, crop: tuple[int, ...]) -> _Part | None:
    first, count, source = [], [], []
    for d in range(3):
        stride, remainder = weights.strides[d], phase.remainder[d]
        q = -(-(crop[d] - remainder) // stride)
        last = (crop[d] + y.shape[2 + d] - 1 - remainder) // stride
        if last < q:
            return None
        first.append(q * stride + remainder - crop[d])
        count.append(last - q + 1)
        source.append(q - phase.shift[d] - (phase.taps[d] - 1) * phase.dilation[d])
    return _Part(phase, tuple(first), tuple(count), tuple(source))


def _padded(
    dtype: str, work: str, x: Image, parts: list[_Part], launches: list[Launch], alloc: Alloc, threads: int, label: str
) -> tuple[Image, tuple[int, ...]]:
    """x as a channels-last image that every tap of every phase lies in, and how far x is moved in it."""
    begin, shape = [], []
    for d in range(3):
        lowest = min(part.source[d] for part in parts)
        ends = [p.source[d] + p.count[d] + (p.phase.taps[d] - 1) * p.phase.dilation[d] for p in parts]
        begin.append(max(0, -lowest))
        shape.append(begin[d] + max(x.shape[2 + d], *ends))
    if tuple(shape) == x.shape[2:] and dtype == work and x.channels_last(SIZES[work]):
        return x, tuple(begin)
    whole = (*x.shape[:2], *shape)
    copy = channels_last(alloc(prod(whole) * SIZES[work]), whole, SIZES[work])
    launches += pad_copy(dtype, x, work, copy, begin, threads=threads, label=f"{label}: pad")
    return copy, tuple(begin)


def _phase(
    work: str, x: Image, begin: tuple[int, ...], weights: TransposedWeights, y: Image, residual: Image | None,
    part: _Part, threads: int, finish: tuple, label: str,
) -> Launch:  # fmt: skip
    def outputs(image: Image) -> tuple[Image, int]:
        steps = tuple(s * stride for s, stride in zip(image.strides[2:], weights.strides))
        skip = sum(at * s for at, s in zip(part.first, image.strides[2:]))
        return replace(image, shape=(*image.shape[:2], *part.count), strides=(*image.strides[:2], *steps)), skip

    phase, groups = part.phase, weights.groups
    o, c = weights.shape[:2]
    out, y_skip = outputs(y)
    other, r_skip = outputs(residual) if residual else (None, 0)
    x_skip = sum((at + b) * s for at, b, s in zip(part.source, begin, x.strides[2:]))
    packed = PackedWeights((o, c, *phase.taps), groups, weights.address)
    return product(work, x, packed, out, other, (1, 1, 1), phase.dilation, threads, finish, label,
                   (x_skip, y_skip, phase.offset, r_skip))  # fmt: skip
