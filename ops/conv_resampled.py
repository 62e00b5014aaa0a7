"""Convolutions 1 x 1 of images that were enlarged before, and maybe joined, as decoders of segmentation networks have them.

Such a convolution mixes channels, and resampling mixes pixels: either may come first. So each part of the filters is applied
to the image before it is enlarged, which is as much less work; what is enlarged then is added up, and nothing is joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .builder import Builder
from .convolve import convolve
from .kernels.sizes import alike, now
from .primitives import Join, Tensor

_LEAST = 64  # channels of a part: its products take longer than to add up what they make


def conv_of_resampled(
    t: Builder, X: Tensor, W: Tensor, B: Tensor | None, steps: Sequence[int], dils: Sequence[int], begin: Sequence[int],
    group: int, size: tuple[int, ...],
) -> Tensor | None:  # fmt: skip
    """The convolution, arguments as for `convolve`; None if it is none of these.

    It is one if a part of the image has `_LEAST` channels and had half the pixels at the most.
    """
    plain = group == 1 and set(steps) == {1} and set(W.shape[2:]) == {1} and not any(begin) and alike(size, X.shape[2:])
    if not plain or not W.is_constant:
        return None
    parts, places = _parts(X)
    apart = [_was_enlarged(x) for x in parts]
    if not any(apart):
        return None
    ones, still = (1,) * len(size), (0,) * len(size)

    def product(x: Tensor, channels: Sequence[tuple[int, int]], bias: Tensor | None) -> Tensor:
        return convolve(t, x, _of_channels(t, W, tuple(channels)), bias, ones, ones, still, 1, x.shape[2:])

    total = None
    if not all(apart):
        rest = [(x, place) for x, place, own in zip(parts, places, apart) if not own]
        total, B = product(t.concat([x for x, _ in rest], 1), [place for _, place in rest], B), None
    for x, place, own in zip(parts, places, apart):
        if own:
            y = x.resampled.make(t, product(x.resampled.image, [place], None))
            total = y if total is None else t.map("a + b", total, y)
    return total if B is None else t.map("a + b", total, t.reshape(B, (1, B.size, *ones)))


def _parts(X: Tensor) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """The images that X was joined of along its channels, and the first channel and number of channels of each."""
    join = X.source
    if isinstance(join, Join) and join.fill is None and all(alike(x.shape[2:], X.shape[2:]) for x in join.inputs):
        places = [(start[1], x.shape[1]) for start, x in zip(join.starts, join.inputs)]
        if all(type(n) is int for place in places for n in place) and not any(any(start[:1]) for start in join.starts):
            return list(join.inputs), places
    return [X], [(0, X.shape[1])]


def _was_enlarged(x: Tensor) -> bool:
    return x.resampled is not None and now(x.shape[1]) >= _LEAST and 2 * now(x.resampled.image.size) <= now(x.size)


def _of_channels(t: Builder, W: Tensor, places: tuple[tuple[int, int], ...]) -> Tensor:
    """Filters of some of the input's channels: of large ones the same constant for all plans."""

    def compute(filters: np.ndarray) -> np.ndarray:
        return np.concatenate([filters[:, first : first + count] for first, count in places], 1)

    shape, weight = (W.shape[0], sum(count for _, count in places), *W.shape[2:]), W.weight
    if weight is None:
        return t.constant(compute(W.constant))
    made = weight.computed(("channels", places), lambda: compute(weight.array()), W.dtype, shape)
    return Tensor(W.dtype, shape, weight=made)
