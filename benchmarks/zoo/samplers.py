"""Example inputs: functions `(rng, shape, sizes) -> array`, where `sizes` binds the model's symbolic dimensions."""

import numpy as np

from .builder import Sampler

Shape = tuple[int, ...]
Sizes = dict[str, int]


def normal(rng: np.random.Generator, shape: Shape, sizes: Sizes) -> np.ndarray:
    """Standard normal float32."""
    return rng.standard_normal(shape, dtype=np.float32)


def photo(rng: np.random.Generator, shape: Shape, sizes: Sizes) -> np.ndarray:
    """A normalised picture, float32[N, C, H, W]: noise of equal power at four scales, near the spectrum of photographs.

    White noise would average out in the first pooling layers and leave outputs that hardly depend on the input.
    """
    batch, channels, height, width = shape
    picture = np.zeros(shape, np.float32)
    for cell in (1, 4, 16, 64):
        coarse = rng.standard_normal((batch, channels, -(-height // cell), -(-width // cell)), dtype=np.float32)
        picture += coarse.repeat(cell, axis=2).repeat(cell, axis=3)[:, :, :height, :width]
    return picture / 2


def unit_photo(rng: np.random.Generator, shape: Shape, sizes: Sizes) -> np.ndarray:
    """A picture with values in [0, 1]."""
    return np.clip(0.5 + 0.25 * photo(rng, shape, sizes), 0, 1)


def tokens(vocabulary: int) -> Sampler:
    """Token numbers, int64, below `vocabulary`."""
    return lambda rng, shape, sizes: rng.integers(0, vocabulary, shape)


def zeros(rng: np.random.Generator, shape: Shape, sizes: Sizes) -> np.ndarray:
    """int64 zeros: the segment of a single sentence."""
    return np.zeros(shape, np.int64)


def ones(rng: np.random.Generator, shape: Shape, sizes: Sizes) -> np.ndarray:
    """int64 ones: an attention mask without padding."""
    return np.ones(shape, np.int64)


def padding(rng: np.random.Generator, shape: Shape, sizes: Sizes) -> np.ndarray:
    """An attention mask, int64[N, S]: the first row is full, the others end somewhere in their second half."""
    length = shape[1]
    ends = rng.integers((length + 1) // 2, length + 1, shape[0])
    ends[:1] = length
    return (np.arange(length) < ends[:, None]).astype(np.int64)


def positions(rng: np.random.Generator, shape: Shape, sizes: Sizes) -> np.ndarray:
    """Positions of new tokens, int64[N, S], counted on from the cache's length."""
    return np.broadcast_to(np.arange(shape[1], dtype=np.int64) + sizes["past_sequence"], shape).copy()
