"""Discrete Fourier transforms as matrix products: DFT, STFT; MelWeightMatrix. A complex number is a last dimension of two.

For lengths of a few hundred a product with the matrix of the transform is as fast as the fast transform, and fuses with
what is before it; longer ones are left to numpy's.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .builder import Builder, Declined, OperatorError, axis_index
from .cast import native_dtype, widened
from .primitives import Tensor
from .registry import FLOATS, check_types, op

_LONGEST = 2048


@lru_cache(maxsize=16)
def _matrix(length: int, bins: int, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin [length, bins] of exp(-+2 pi i j k / length), the inverse one divided by the length."""
    turns = np.outer(np.arange(length), np.arange(bins)) % length * (2 * np.pi / length)
    scale, sign = (1 / length, 1) if inverse else (1, -1)
    return np.cos(turns) * scale, sign * np.sin(turns) * scale


def _transformed(t: Builder, x: Tensor, bins: int) -> Tensor:
    """x[..., length, 1 or 2] -> [..., bins, 2]."""
    length, parts = x.shape[-2:]
    cos, sin = _matrix(length, bins, False)
    # (a + bi)(cos + i sin): rows are a and b side by side, columns the real and imaginary parts
    rows = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)][:parts], 1).reshape(length * parts, 2 * bins)
    flat = t.reshape(x, [*x.shape[:-2], length * parts])
    return t.reshape(t.op("MatMul", flat, t.constant(rows, x.dtype), since=13), [*x.shape[:-2], bins, 2])


def _real_inverse(t: Builder, x: Tensor, length: int) -> Tensor:
    """One-sided spectra [..., bins, 2] -> real signals [..., length, 1]."""
    bins = length // 2 + 1
    x = _fitted(t, x, x.rank - 2, bins)
    cos, sin = _matrix(length, bins, True)
    twice = np.where((np.arange(bins) == 0) | (2 * np.arange(bins) == length), 1.0, 2.0)[:, None]
    rows = np.stack([(cos * twice.T).T, -(sin * twice.T).T], 1).reshape(2 * bins, length)
    flat = t.reshape(x, [*x.shape[:-2], 2 * bins])
    return t.reshape(t.op("MatMul", flat, t.constant(rows, x.dtype), since=13), [*x.shape[:-2], length, 1])


def _fitted(t: Builder, x: Tensor, axis: int, length: int) -> Tensor:
    """Cut off, or filled up with zeros, to a length."""
    x = t.take(x, axis, 0, min(length, x.shape[axis]))
    return t.pad(x, [0] * x.rank, [length - n if d == axis else 0 for d, n in enumerate(x.shape)])


@op("DFT", since=17)
def dft_by_attribute(t: Builder, input, dft_length=None, *, axis=1, inverse=0, onesided=0):
    """Before opset 20 the axis is an attribute."""
    return _dft(t, input, dft_length, axis, bool(inverse), bool(onesided))


@op("DFT", since=20)
def dft(t: Builder, input, dft_length=None, axis=None, *, inverse=0, onesided=0):
    """The transform along an axis of signals [..., 1 or 2]; `onesided`: the half that decides the rest of a real one's."""
    return _dft(t, input, dft_length, -2 if axis is None else t.ints(axis)[0], bool(inverse), bool(onesided))


def _dft(t: Builder, x: Tensor, dft_length: Tensor | None, axis: int, inverse: bool, onesided: bool) -> Tensor:
    check_types((x,), FLOATS)
    if x.rank < 2 or x.shape[-1] not in (1, 2):
        raise OperatorError(f"the last dimension of {list(x.shape)} must be 1 (real) or 2 (complex)")
    d = axis_index(axis, x.rank)
    if d == x.rank - 1:
        raise OperatorError(f"axis {axis} is that of real and imaginary parts")
    own = 2 * (x.shape[d] - 1) if inverse and onesided else x.shape[d]
    length = own if dft_length is None else t.ints(dft_length)[0]
    if length < 1:
        raise OperatorError(f"a transform of length {length}")
    if length > _LONGEST or 0 in x.shape or (inverse and not onesided):
        raise Declined  # of the last kind onnx's tests expect the very rounding errors of numpy's transform
    order = [*(e for e in range(x.rank) if e not in (d, x.rank - 1)), d, x.rank - 1]
    signals = t.transpose(widened(t, x), order)
    if inverse:
        both = t.pad(signals, [0] * x.rank, [*[0] * (x.rank - 1), 2 - x.shape[-1]])
        y = _real_inverse(t, both, length)
    else:
        bins = length // 2 + 1 if onesided else length
        y = _transformed(t, _fitted(t, signals, x.rank - 2, length), bins)
    return t.cast(t.transpose(y, np.argsort(order).tolist()), x.dtype)


@op("STFT", since=17)
def stft(t: Builder, signal, frame_step, window=None, frame_length=None, *, onesided=1):
    """[N, length, 1 or 2] -> [N, frames, bins, 2]: the transform of each frame times the window."""
    check_types((signal,) if window is None else (signal, window), FLOATS)
    n, total, _parts = signal.shape
    whole = total if window is None else window.size
    length, step = whole if frame_length is None else t.ints(frame_length)[0], t.ints(frame_step)[0]
    if step < 1 or not 1 <= length <= total or (window is not None and window.size != length):
        raise OperatorError(f"frames of {length} every {step} from {total} samples, with a window of {whole}")
    frames = 1 + (total - length) // step
    if length > _LONGEST or n == 0:
        raise Declined
    x = widened(t, signal)
    places = np.arange(frames)[:, None] * step + np.arange(length)
    cut = t.op("Gather", x, t.constant(places), axis=1, since=13)
    if window is not None:
        cut = t.map("a * b", cut, t.reshape(t.cast(window, x.dtype), (length, 1)))
    return t.cast(_transformed(t, cut, length // 2 + 1 if onesided else length), signal.dtype)


@op("MelWeightMatrix", since=17)
def mel_weight_matrix(
    t: Builder, num_mel_bins, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz, *, output_datatype=1
) -> Tensor:  # fmt: skip
    """[bins of a spectrum, mel bins]: triangles, each from its left neighbour's peak to its right neighbour's."""
    bands, length, rate = (t.ints(x)[0] for x in (num_mel_bins, dft_length, sample_rate))
    low, high = (2595 * np.log1p(t.value(x).reshape(()) / 700) / np.log(10) for x in (lower_edge_hertz, upper_edge_hertz))
    mels = np.arange(bands + 2) * ((high - low) / (bands + 2)) + low
    peaks = ((length + 1) * 700 * np.expm1(mels / 2595 * np.log(10)) // rate).astype(np.int64)
    left, peak, right = peaks[:-2], peaks[1:-1], peaks[2:]
    place = np.arange(length // 2 + 1)[:, None]
    up = np.where(peak > left, (place - left) / np.maximum(peak - left, 1), 1.0)
    down = (right - place) / np.maximum(right - peak, 1)
    weights = np.where((place >= peak) & (place < right), down, np.where((place >= left) & (place <= peak), up, 0.0))
    return t.constant(weights, native_dtype(output_datatype))
