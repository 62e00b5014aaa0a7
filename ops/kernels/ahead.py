"""What a thread that waits for a step does meanwhile: it asks the step's kernel for what its first tasks will read.

Only for what no step of the run writes first, such as weights, or little of it, such as cached keys (asking early for what is
written later costs time, never a result), and piece by piece, as the wait may be short. A kernel that can be asked
(`KernelSpec.ahead`) gets a negative number in place of a task's: -1 - task - ASKED * piece.
"""

from __future__ import annotations

from collections.abc import Callable

from .blocking import SECOND_CACHE

ASKED = 1 << 40
PIECE_BYTES = 4 << 10
PIECES = SECOND_CACHE // 2 // PIECE_BYTES
_LINE = 64  # bytes


def bringing() -> Callable:
    """The subroutine ``bring(begin, nbytes, piece)``: ask for a piece of what lies at an address, in L2."""
    from . import simd
    from .subroutine import subroutine

    prefetch = simd.prefetch("u8", 1, soon=False)

    @subroutine
    def bring(begin, nbytes, piece):
        for at in range(piece * PIECE_BYTES, min(nbytes, (piece + 1) * PIECE_BYTES), _LINE):
            prefetch(begin + at)

    return bring
