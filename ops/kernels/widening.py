"""Panels of 16-bit elements as float32 in scratch, before register tiles multiply with them. Imports numba.

Each tile could widen what it loads, but that takes units that multiply and add: 10 to 30 % longer on Zen 4, for every tile again.
"""

from __future__ import annotations

from collections.abc import Callable

from . import window
from .halves import KINDS

_UNROLL = 4  # K steps


def widening(lanes: int, vectors: int) -> Callable:
    """``widen(args, panel, steps, held, wide)``: puts K steps of a panel, of so many vectors each, as float32 at `wide`.

    `held` says the type of its elements: their number in `halves.KINDS`.
    """

    def body(code, block, panel, steps, held, wide):
        def put(half, first, number):
            for v in range(number * vectors):
                at = first * vectors + v
                code.store(wide + at * (4 * lanes), code.load(panel + at * (2 * lanes), None, half))

        turns = steps / _UNROLL
        for number, half in enumerate(KINDS):
            if half:
                with code.when(held == number):
                    with code.loop(turns) as i:
                        put(half, i * _UNROLL, _UNROLL)
                    with code.loop(steps - turns * _UNROLL) as i:
                        put(half, turns * _UNROLL + i, 1)

    return window.leaf("panel steps held wide", "f32", lanes, body)
