"""The 16-bit types that constants of float32 may be held in: which one has every value of a constant, and the way there.

Many models were trained or published in one and exported as float32 (Whisper and CLIP in float16, Llama in bfloat16): half of
each of their weights' bytes says nothing, and products that wait for memory need not read it.
"""

from __future__ import annotations

import numpy as np

from . import target

TYPES = {"float16": "f16", "bfloat16": "bf16"}  # numpy's name -> memory type
KINDS = ("", *TYPES.values())  # how panels of float32 may be held, by the number that argument blocks have for it; "": as they are
_FIRST, _MOST = 1 << 10, 1 << 17  # elements that are looked at together, in the caches: few at first, then more and more


def holding(x: np.ndarray) -> tuple[str, ...]:
    """The memory types that hold all values of x, if it is float32, and that this CPU widens fast: ``bf16``, ``f16``.

    Of most constants a look at the first elements says that there is none.
    """
    flat, left = x.ravel("K"), {half: _ARE[half] for half in _ARE if is_fast(half)}
    first, count = 0, _FIRST
    while first < flat.size and left and x.dtype == np.float32:
        piece = flat[first : first + count]
        left = {name: hold for name, hold in left.items() if hold(piece)}
        first, count = first + count, min(2 * count, _MOST)
    return tuple(left) if flat.size and x.dtype == np.float32 else ()


def is_fast(half: str) -> bool:
    """Whether this CPU has instructions that widen the type."""
    return half == "bf16" or target.current().half


def numpy_type(half: str) -> np.dtype:
    """That of a memory type."""
    import ml_dtypes

    return np.dtype({"f16": np.float16, "bf16": ml_dtypes.bfloat16}[half])


def narrowed(x: np.ndarray, half: str) -> np.ndarray:
    """x, float32, in a 16-bit type: rounded if it is bf16, values of float16 if it is f16."""
    if half == "bf16":
        with np.errstate(all="ignore"):  # NaN
            return x.astype(numpy_type(half))
    # numpy's conversion takes three times as long; at 2^-112 times its size the exponent has float16's bias, in subnormals too
    bits = (x * np.float32(2**-112)).view(np.uint32)
    sign = (bits >> 16) & 0x8000
    bits >>= 13
    bits &= 0x7FFF
    bits |= sign
    return bits.astype(np.uint16).view(np.float16)


def _are_bfloat16(x: np.ndarray) -> bool:
    return not np.bitwise_or.reduce(x.view(np.uint32)) & 0xFFFF


def _are_float16(x: np.ndarray) -> bool:
    """Finite, of 11 significant bits, and multiples of 2^-24, the least that there is beside zero."""
    if np.bitwise_or.reduce(x.view(np.uint32)) & 0x1FFF or not np.abs(x).max() < 65536:
        return False
    units = x * np.float32(2**24)
    return bool((np.rint(units) == units).all())


_ARE = {"bf16": _are_bfloat16, "f16": _are_float16}
