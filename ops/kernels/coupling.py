"""Class probabilities from those of pairs of classes: the second method of Wu, Lin and Weng (2004).

p minimises the sum over pairs of (r[j, i] p[i] - r[i, j] p[j])^2, which is p' Q p; its fixed-point iteration goes on until every
component of Q p is within 0.005 / classes of p' Q p, and a hundred times at most. Task = some rows. Numba-free but for the
factory.
"""

from __future__ import annotations

from collections.abc import Callable

from .image import Opaque
from .launch import Launch
from .spec import handwritten

_TASK_ROWS = 64


def couple(first: Opaque, out: Opaque, rows: int, classes: int) -> list[Launch]:
    """out[i, c]: probability of class c. first[i, pair]: of the pair's first class against its second; float32, dense."""
    if rows * classes == 0:
        return []
    args = (first, out, rows, classes, _TASK_ROWS)
    scratch = 4 * (classes * classes + classes + 1)
    kernel = handwritten("coupling", "coupling:factory")
    moved = 4 * rows * (classes * (classes - 1) // 2 + classes)
    return [Launch(kernel, args, -(-rows // _TASK_ROWS), scratch, f"{rows} rows of {classes}", 0, moved)]


def factory() -> Callable:
    """The kernel of `couple`."""
    from . import simd

    load, store, single, absolute = simd.load("f32", 0), simd.store("f32"), simd.to("f32"), simd.absolute
    fill, multiply, improve = _fill(), _multiply(), _improve()

    def kernel(args, task, scratch):
        n = args[3]
        q, qp, total = scratch, scratch + 4 * n * n, scratch + 4 * (n * n + n)
        limit, pairs = single(0.005) / single(n), n * (n - 1) // 2
        for row in range(task * args[4], min((task + 1) * args[4], args[2])):
            p = args[1] + 4 * row * n
            fill(args[0] + 4 * row * pairs, q, n)
            for i in range(n):
                store(p + 4 * i, single(1.0) / single(n))
            going = 100
            while going > 0:
                multiply(q, p, qp, total, n)
                worst = single(0.0)
                for i in range(n):
                    worst = max(worst, absolute(load(qp + 4 * i) - load(total)))
                if worst < limit:
                    going = 0
                else:
                    improve(q, p, qp, total, n)
                    going -= 1

    return kernel


def _fill() -> Callable:
    """``fill(first, q, n)``: Q from the probabilities of pairs."""
    from . import simd
    from .subroutine import subroutine

    load, store, single = simd.load("f32", 0), simd.store("f32"), simd.to("f32")
    low, high = 1e-7, 1 - 1e-7

    @subroutine
    def fill(first, q, n):
        for i in range(n * n):
            store(q + 4 * i, single(0.0))
        pair = 0
        for i in range(n):
            for j in range(i + 1, n):
                own = min(max(load(first + 4 * pair), single(low)), single(high))
                other = single(1.0) - own
                at, of_own, of_other = q + 4 * (i * n + j), q + 4 * (i * n + i), q + 4 * (j * n + j)
                store(at, -own * other)
                store(q + 4 * (j * n + i), -own * other)
                store(of_own, load(of_own) + other * other)
                store(of_other, load(of_other) + own * own)
                pair += 1

    return fill


def _multiply() -> Callable:
    """``multiply(q, p, qp, total, n)``: Q p and p' Q p."""
    from . import simd
    from .subroutine import subroutine

    load, store, single = simd.load("f32", 0), simd.store("f32"), simd.to("f32")

    @subroutine
    def multiply(q, p, qp, total, n):
        both = single(0.0)
        for i in range(n):
            one = single(0.0)
            for j in range(n):
                one += load(q + 4 * (i * n + j)) * load(p + 4 * j)
            store(qp + 4 * i, one)
            both += load(p + 4 * i) * one
        store(total, both)

    return multiply


def _improve() -> Callable:
    """``improve(q, p, qp, total, n)``: each component of p in turn set to where it is stationary, and p scaled to sum 1."""
    from . import simd
    from .subroutine import subroutine

    load, store, single = simd.load("f32", 0), simd.store("f32"), simd.to("f32")

    @subroutine
    def improve(q, p, qp, total, n):
        for i in range(n):
            own, mean, mine = load(q + 4 * (i * n + i)), load(total), load(qp + 4 * i)
            change = (mean - mine) / own
            scale = single(1.0) / (single(1.0) + change)
            store(p + 4 * i, load(p + 4 * i) + change)
            store(total, (mean + change * (change * own + single(2.0) * mine)) * scale * scale)
            for j in range(n):
                store(qp + 4 * j, (load(qp + 4 * j) + change * load(q + 4 * (i * n + j))) * scale)
                store(p + 4 * j, load(p + 4 * j) * scale)

    return improve
