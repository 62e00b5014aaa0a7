"""Keys and values that lie in their cache as integers of 8 or 4 bits, each head or channel by a scale: GroupQueryAttention's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .builder import Builder, OperatorError
from .cast import widened
from .contrib_blockwise import unpacked
from .primitives import Tensor


@dataclass(frozen=True)
class CacheType:
    """How keys or values [B, N, T, H] are held: as integers of `bits` bits times a scale [1 or N, 1, 1 or H]; 0: as they are."""

    bits: int = 0
    scale: Tensor | None = None

    def stored(self, t: Builder, x: Tensor) -> Tensor:
        """As the cache holds them; of 4 bits two neighbours share a byte, the first the low half."""
        if not self.bits:
            return x
        high = (1 << (self.bits - 1)) - 1
        rounded = t.map(f"at_most(at_least(rint(a / b), {float(-high - 1)}), {float(high)})", widened(t, x), self.scale)
        if self.bits == 8:
            return t.cast(rounded, np.int8)
        halves = t.reshape(t.cast(t.map("a + 8.0", rounded), np.uint8), (*x.shape[:-1], x.shape[-1] // 2, 2))
        low, up = (t.squeeze(t.take(halves, 4, i, i + 1), [4]) for i in (0, 1))
        return t.map("a | (b << 4)", low, up)

    def loaded(self, t: Builder, x: Tensor) -> Tensor:
        """As attention reads them."""
        if not self.bits:
            return x
        if self.bits == 8:
            return t.map("to_f32(a) * b", x, self.scale, dtype=np.float32)
        return t.map("(to_f32(a) - 8.0) * b", unpacked(t, x, 4), self.scale, dtype=np.float32)


def cache_type(t: Builder, kind: str, scale: Tensor | None, bits: int, past: Tensor | None, heads: int, size: int) -> CacheType:
    """What the attributes `k_quant_type` or `v_quant_type` and `kv_cache_bit_width` say, with the scale that they ask for."""
    if kind == "NONE" and scale is None:
        return CacheType()
    shapes = {"PER_TENSOR": (1, 1, 1), "PER_CHANNEL": (heads, 1, size)}
    if kind not in shapes or scale is None or scale.size != np.prod(shapes[kind]):
        shape = None if scale is None else list(scale.shape)
        raise OperatorError(f"a scale {shape} does not fit a cache of type {kind} for {heads} heads of {size}")
    width = bits or (8 if past is None or past.dtype == np.int8 else 4)
    if width not in (4, 8):
        raise OperatorError(f"kv_cache_bit_width must be 4 or 8, not {width}")
    return CacheType(width, t.reshape(t.cast(scale, np.float32), shapes[kind]))
