"""Determinants and inverses of square matrices: elimination with partial pivoting, in float64, some columns at a time.

A task takes some matrices, one after the other; a large one that is alone is shared out: the columns of a panel are eliminated
by one thread, all others are brought up to date by all (`elimination` has the arithmetic). What has no inverse gives infinities or
NaN, as the division by its pivot does. Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable

from . import target
from .image import SIZES, Alloc, Opaque
from .launch import Launch
from .spec import handwritten

PANEL = 16  # columns that are eliminated together: a multiple of every tile's
CHUNK = 32  # columns of a task, a multiple likewise
# words of the argument block: arrays, matrices of a task and in all, rows and columns of one; of a matrix that is worked on where
# its rows begin, and bytes of a row. Then, in stages, its place, the first column of the panel, and the first one for the tasks
X, Y, PER_TASK, COUNT, N, HEAD, ROW, WORK, FIRST, COLUMN = range(10)
_TASK_WORK = 20000  # multiplications of a task, at least
# Rows from which on several threads work on one matrix. They wait for each other twice a panel, which took three times as long in
# some processes as in others: below, that costs more than it can gain.
_SHARED = {"determinant": 256, "inverse": 160}
_ROWS = 32  # of a task that copies


def lanes() -> int:
    """Numbers of a vector."""
    return max(1, target.current().lanes // 2)


def tile() -> tuple[int, int]:
    """Rows and columns that are held in registers."""
    return (12 if target.current().registers > 16 else 6), 2 * lanes()


def determinants(dtype: str, x: Opaque, y: Opaque, count: int, n: int, alloc: Alloc, threads: int) -> list[Launch]:
    """y[i] = det(x[i]), x[count, n, n] dense."""
    return _launches("determinant", dtype, x, y, count, n, n**3 // 3, 1, alloc, threads)


def inverses(dtype: str, x: Opaque, y: Opaque, count: int, n: int, alloc: Alloc, threads: int) -> list[Launch]:
    """y[i] = the inverse of x[i], both [count, n, n] and dense."""
    return _launches("inverse", dtype, x, y, count, n, n**3, n * n, alloc, threads)


def _launches(
    result: str, dtype: str, x: Opaque, y: Opaque, count: int, n: int, work: int, made: int, alloc: Alloc, threads: int
) -> list[Launch]:  # fmt: skip
    if count * made == 0:
        return []
    if n >= _SHARED[result] and count < threads:
        size = SIZES[dtype]
        room = alloc(working_bytes(n))
        places = [(x + i * n * n * size, y + i * made * size) for i in range(count)]
        return [launch for at, to in places for launch in _shared(result, dtype, at, to, n, room)]
    per_task = max(1, _TASK_WORK // max(work, 1))
    kernel = handwritten(result, "linalg:make_alone", dtype=dtype, result=result)
    moved = count * (n * n + made) * SIZES[dtype]
    args = (x, y, per_task, count, n, _head(n), _row(n))
    scratch = working_bytes(n) + own_bytes(n)
    return [Launch(kernel, args, -(-count // per_task), scratch, f"{count} of {n}x{n}", 2 * count * work, moved)]


def _shared(result: str, dtype: str, x: Opaque, y: Opaque, n: int, work: Opaque) -> list[Launch]:
    """One matrix, in stages."""
    below, label, whole = result == "determinant", f"{n}x{n}", n * n * (8 + SIZES[dtype])
    bring = handwritten("matrix_in", "linalg:make_bring", dtype=dtype)
    panel, update = (handwritten(f"matrix_{what}", f"linalg:make_{what}", below=below) for what in ("panel", "update"))
    end = handwritten(result, "linalg:make_end", dtype=dtype, result=result)
    args = (x, y, 1, 1, n, _head(n), _row(n), work)
    launches = [Launch(bring, args, -(-n // _ROWS), 0, label, 0, whole)]
    for first in range(0, n, PANEL):
        after = min(first + PANEL, n)
        rows, columns = n - first if below else n, after - first
        left = after // CHUNK * CHUNK if below else 0  # nobody needs what is left of it
        others = n - after if below else n - columns
        launches.append(Launch(panel, (*args, first, 0), 1, 0, label, 2 * rows * columns**2, 16 * rows * columns))
        chunks = -(-(n - left) // CHUNK) if others else 0
        flops, moved = 2 * rows * columns * others, 16 * rows * others
        launches.append(Launch(update, (*args, first, left), chunks, own_bytes(n), label, flops, moved))
    return [*launches, Launch(end, args, 1 if below else -(-n // _ROWS), own_bytes(n), label, 0, whole)]


def _head(n: int) -> int:
    """Bytes before the rows: three words for each row, the one that it changed places with, its pivot, its factor."""
    return -(-24 * n // 64) * 64


def _row(n: int) -> int:
    """Bytes from one row of a working matrix to the next: an odd number of cache lines, so that a column lies in many sets."""
    columns = tile()[1]
    lines = (-(-n // columns) * columns + 7) // 8
    return 64 * (lines + 1 - lines % 2)


def working_bytes(n: int) -> int:
    """Of a matrix that is worked on, with the rows of a tile after the last one."""
    return _head(n) + (n + tile()[0]) * _row(n)


def own_bytes(n: int) -> int:
    """Of a thread: the rows of a panel in its chunk, or the order of columns."""
    return max(8 * PANEL * CHUNK, 8 * n)


def make_alone(dtype: str, result: str) -> Callable:
    """All of some matrices."""
    from . import elimination

    below, size, height = result == "determinant", SIZES[dtype], tile()[0]
    panel, update = elimination.panel(below), elimination.update(below)
    bring, end = elimination.bring(dtype), elimination.end(dtype, result)

    def kernel(args, task, scratch):
        n, a, row, first = args[N], scratch + args[HEAD], args[ROW], task * args[PER_TASK]
        own = a + (n + height) * row
        for i in range(first, min(first + args[PER_TASK], args[COUNT])):
            bring(args[X] + i * n * n * size, a, n, row, 0, n)
            for k in range(0, n, PANEL):
                panel(scratch, a, n, row, k)
                for column in range((k + PANEL) // CHUNK * CHUNK if below else 0, n, CHUNK):
                    update(scratch, a, n, row, k, column, own)
            end(scratch, a, args[Y] + (i if below else i * n * n) * size, n, row, 0, n, own)

    return kernel


def make_bring(dtype: str) -> Callable:
    """Some rows to where they are worked on."""
    from . import elimination

    bring = elimination.bring(dtype)

    def kernel(args, task, scratch):
        first, n = task * _ROWS, args[N]
        bring(args[X], args[WORK] + args[HEAD], n, args[ROW], first, min(first + _ROWS, n))

    return kernel


def make_panel(below: bool) -> Callable:
    """The elimination of a panel's columns."""
    from . import elimination

    panel = elimination.panel(below)

    def kernel(args, task, scratch):
        panel(args[WORK], args[WORK] + args[HEAD], args[N], args[ROW], args[FIRST])

    return kernel


def make_update(below: bool) -> Callable:
    """What that does to a chunk of the other columns."""
    from . import elimination

    update = elimination.update(below)

    def kernel(args, task, scratch):
        update(args[WORK], args[WORK] + args[HEAD], args[N], args[ROW], args[FIRST], args[COLUMN] + task * CHUNK, scratch)

    return kernel


def make_end(dtype: str, result: str) -> Callable:
    """The determinant, or some rows of the inverse."""
    from . import elimination

    end = elimination.end(dtype, result)

    def kernel(args, task, scratch):
        first, n = task * _ROWS, args[N]
        end(args[WORK], args[WORK] + args[HEAD], args[Y], n, args[ROW], first, min(first + _ROWS, n), scratch)

    return kernel
