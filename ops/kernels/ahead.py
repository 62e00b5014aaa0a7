"""What a thread that waits for a step does meanwhile: it asks the step's kernel for what its first tasks will read.

Only for what no step of the run has to write first, such as weights, and piece by piece, as the wait may be short. A kernel
that can be asked (`KernelSpec.ahead`) gets a negative number in place of a task's: -1 - task - ASKED * piece.
"""

from __future__ import annotations

from collections.abc import Callable

from . import target

ASKED = 1 << 40
PIECE_BYTES = 4 << 10
PIECES = (target.second_cache() or 512 << 10) // 2 // PIECE_BYTES  # half of L2
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
