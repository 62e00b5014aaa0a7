"""Determinants and inverses of square matrices: elimination with partial pivoting, in float64.

A task takes some matrices to its scratch, one after the other. What has no inverse gives infinities or NaN, as the division
by its pivot does. Numba-free but for the factories.
"""

from __future__ import annotations

from collections.abc import Callable

from . import target
from .image import SIZES, Opaque
from .launch import Launch
from .spec import handwritten

_TASK_WORK = 20000  # multiplications of a task, at least


def determinants(dtype: str, x: Opaque, y: Opaque, count: int, n: int) -> list[Launch]:
    """y[i] = det(x[i]), x[count, n, n] dense."""
    return _launch("determinant", dtype, x, y, count, n, n**3 // 3, 1)


def inverses(dtype: str, x: Opaque, y: Opaque, count: int, n: int) -> list[Launch]:
    """y[i] = the inverse of x[i], both [count, n, n] and dense."""
    return _launch("inverse", dtype, x, y, count, n, n**3, n * n)


def _launch(name: str, dtype: str, x: Opaque, y: Opaque, count: int, n: int, work: int, made: int) -> list[Launch]:
    if count * made == 0:
        return []
    per_task = max(1, _TASK_WORK // max(work, 1))
    kernel = handwritten(name, f"linalg:make_{name}", dtype=dtype)
    moved = count * (n * n + made) * SIZES[dtype]
    args = (x, y, count, n, per_task)
    return [Launch(kernel, args, -(-count // per_task), 8 * (n * n + n + 1), f"{count} of {n}x{n}", 2 * count * work, moved)]


def make_determinant(dtype: str) -> Callable:
    """The kernel of `determinants`: the product of the pivots, with the sign of the exchanges of rows."""
    from . import simd

    load, store, fetch, pivot = simd.load("f64", 0), simd.store(dtype), _fetch(dtype), _pivot()
    put, subtract, exchange, narrow = simd.store("f64"), _subtract(), _exchange(), simd.to(dtype)
    size = SIZES[dtype]

    def kernel(args, task, scratch):
        n, first, words = args[3], task * args[4], simd.block(scratch)
        a, row = scratch + 8, 8 * args[3]
        for i in range(first, min(first + args[4], args[2])):
            fetch(args[0] + i * n * n * size, a, n * n)
            product = 1.0
            for k in range(n):
                pivot(a, n, k, scratch)
                chosen = words[0]
                if chosen != k:
                    exchange(a + chosen * row, a + k * row, n)
                    product = -product
                value = load(a + k * row + 8 * k)
                product *= value
                if value != 0.0:
                    for j in range(k + 1, n):
                        put(scratch, load(a + j * row + 8 * k) / value)
                        subtract(a + j * row + 8 * k, a + k * row + 8 * k, scratch, n - k)
            store(args[1] + i * size, narrow(product))

    return kernel


def make_inverse(dtype: str) -> Callable:
    """The kernel of `inverses`: Gauss and Jordan's elimination in place, then the columns in the order of the rows' exchanges."""
    from . import simd

    load, store, fetch, pivot = simd.load("f64", 0), simd.store(dtype), _fetch(dtype), _pivot()
    put, subtract, exchange, narrow = simd.store("f64"), _subtract(), _exchange(), simd.to(dtype)
    size = SIZES[dtype]

    def kernel(args, task, scratch):
        n, first, words = args[3], task * args[4], simd.block(scratch)
        exchanges = simd.block(scratch + 8)
        a, row = scratch + 8 + 8 * args[3], 8 * args[3]
        for i in range(first, min(first + args[4], args[2])):
            fetch(args[0] + i * n * n * size, a, n * n)
            for k in range(n):
                pivot(a, n, k, scratch)
                chosen = words[0]
                exchanges[k] = chosen
                own = a + k * row
                if chosen != k:
                    exchange(a + chosen * row, own, n)
                value = load(own + 8 * k)
                put(own + 8 * k, 1.0)
                for j in range(n):
                    put(own + 8 * j, load(own + 8 * j) / value)
                for j in range(n):
                    if j != k:
                        put(scratch, load(a + j * row + 8 * k))
                        put(a + j * row + 8 * k, 0.0)
                        subtract(a + j * row, own, scratch, n)
            for k in range(n - 1, -1, -1):
                chosen = exchanges[k]
                if chosen != k:
                    for j in range(n):
                        one, other = a + j * row + 8 * k, a + j * row + 8 * chosen
                        kept = load(one)
                        put(one, load(other))
                        put(other, kept)
            for j in range(n * n):
                store(args[1] + (i * n * n + j) * size, narrow(load(a + 8 * j)))

    return kernel


def _fetch(dtype: str) -> Callable:
    """``fetch(source, to, count)``: elements as float64."""
    from . import simd
    from .subroutine import subroutine

    load, wide, put, size = simd.load(dtype, 0), simd.to("f64"), simd.store("f64"), SIZES[dtype]

    @subroutine
    def fetch(source, to, count):
        for i in range(count):
            put(to + 8 * i, wide(load(source + i * size)))

    return fetch


def _pivot() -> Callable:
    """``pivot(a, n, k, chosen)``: the row from k on with the largest element in column k, as a word at `chosen`."""
    from . import simd
    from .subroutine import subroutine

    load, absolute, words = simd.load("f64", 0), simd.absolute, simd.block

    @subroutine
    def pivot(a, n, k, chosen):
        best, largest = k, absolute(load(a + 8 * (k * n + k)))
        for i in range(k + 1, n):
            value = absolute(load(a + 8 * (i * n + k)))
            if value > largest:
                best, largest = i, value
        words(chosen)[0] = best

    return pivot


def _subtract() -> Callable:
    """``subtract(row, other, factor, count)``: row -= other times the number at `factor`."""
    from . import simd
    from .subroutine import subroutine

    lanes = max(1, target.current().lanes // 2)
    load, store, load_one, splat = simd.load("f64", lanes), simd.store("f64"), simd.load("f64", 0), simd.splat("f64", lanes)

    @subroutine
    def subtract(row, other, factor, count):
        number = load_one(factor)
        by = splat(number)
        whole = count - count % lanes
        for j in range(0, whole, lanes):
            store(row + 8 * j, load(row + 8 * j) - by * load(other + 8 * j))
        for j in range(whole, count):
            store(row + 8 * j, load_one(row + 8 * j) - number * load_one(other + 8 * j))

    return subtract


def _exchange() -> Callable:
    """``exchange(row, other, count)``: of two rows the elements change places."""
    from . import simd
    from .subroutine import subroutine

    words = simd.block

    @subroutine
    def exchange(row, other, count):
        one, two = words(row), words(other)
        for j in range(count):
            one[j], two[j] = two[j], one[j]

    return exchange
