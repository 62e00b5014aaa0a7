"""Where numbers stand in a sorted table: a binary search for each. Task = some of them. Numba-free but for the factory."""

from __future__ import annotations

from collections.abc import Callable

from .image import SIZES, Opaque
from .launch import Launch
from .spec import handwritten

_TASK_ELEMENTS = 2048


def places(dtype: str, x: Opaque, keys: Opaque, out: Opaque, count: int, known: int, nan: int) -> list[Launch]:
    """out[i]: the place of x[i] among the keys, or `known` if it is none of them; int64.

    Args:
        keys: `known` sorted numbers, float64 if x are floats, else int64. nan: the place that NaN has.
    """
    if count == 0:
        return []
    args = (x, keys, out, count, known, nan, _TASK_ELEMENTS)
    kernel = handwritten("lookup", "lookup:factory", dtype=dtype)
    return [Launch(kernel, args, -(-count // _TASK_ELEMENTS), 0, f"{count} among {known}", 0, count * (SIZES[dtype] + 8))]


def factory(dtype: str) -> Callable:
    """The kernel of `places`."""
    from . import simd

    size, wide = SIZES[dtype], "f64" if dtype[0] == "f" else "i64"
    load, load_key, widen, store = simd.load(dtype, 0), simd.load(wide, 0), simd.to(wide), simd.store("i64")
    # the first argument is what scalars are converted to
    choose = simd.lift(lambda no, yes, mask: no.choose(mask.cast("b1"), yes, no), "choose")

    def kernel(args, task, scratch):
        keys, known = args[1], args[4]
        first = task * args[6]
        for i in range(first, min(first + args[6], args[3])):
            value = widen(load(args[0] + i * size))
            # the first key that is not below the value, without a branch, so that the loads of several searches overlap
            at, count = keys, known
            while count > 1:
                half = count >> 1
                at = choose(at, at + 8 * half, load_key(at + 8 * (half - 1)) < value)
                count -= half
            place = known
            if count == 1:
                place = choose(known, (at - keys) >> 3, load_key(at) == value)
            store(args[2] + 8 * i, choose(place, args[5], value != value))

    return kernel
