"""`python -m benchmarks.reads`: how fast kernels that memory bounds read what is in no cache, beside the largest product.

The kernels take turns, so that all meet the same phases of the machine; each reads as much as no cache holds, in products or
layers one after the other. Rates are medians over turns, shares medians of those of a turn. How long a cache line takes to
another CPU and back tells whether two of them have a last cache in common, on which the rates depend.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable

import numba
import numpy as np

from jitrt.memory import Slabs
from jitrt.ops.kernels import atomics, attention, gemv
from jitrt.ops.kernels.launch import Launch
from jitrt.ops.kernels.matrix import Matrix

from . import console
from .kernel_driver import Memory, Replay

READ = 96 << 20  # bytes of a replay
PRODUCTS = ((8192, 3072), (3072, 768), (2048, 768), (768, 3072), (768, 768))  # K, columns; the largest first
ATTENTIONS = ((12, 1, 257), (4, 3, 257), (4, 3, 513), (4, 3, 2049))  # heads of keys, queries of each, keys
HEAD = 64
ROUNDS, TRIES = 20_000, 5  # of a line between CPUs; the shortest try counts
SLABS = Slabs()  # weights of a session lie so


def filled(memory: Memory, *shape: int) -> int:
    """The address of ones."""
    data = SLABS.allocate(4 * int(np.prod(shape))).view(np.float32)
    data[...] = 1
    return memory.keep(data)


def product(depth: int, columns: int, threads: int, memory: Memory) -> tuple[list[Launch], int]:
    """A row times a matrix, and the bytes that it reads."""
    a, c = (Matrix(filled(memory, n), (1, 1, n), (0, 4 * n, 4)) for n in (depth, columns))
    return gemv.gemv("f32", a, filled(memory, depth, columns), c, threads=threads), 4 * depth * columns


def attention_of(heads: int, queries: int, keys: int, threads: int, memory: Memory) -> tuple[list[Launch], int]:
    """Attention of a few queries, and the bytes of keys and values."""

    def rows(count: int) -> attention.Heads:
        return attention.Heads(filled(memory, heads, count, HEAD), (0, 0, count * HEAD * 4), HEAD * 4, 4)

    sizes = attention.Sizes((1, 1, heads), queries, keys, HEAD, HEAD)
    given = (rows(queries), rows(keys), rows(keys), rows(queries), sizes)
    launches = attention.attention("f32", *given, scale=HEAD**-0.5, alloc=memory.alloc, threads=threads)
    return launches, 2 * heads * keys * HEAD * 4


def replay(make: Callable[[], tuple[list[Launch], int]], threads: int) -> tuple[Replay, int, int]:
    """As many of them as read `READ` bytes; the bytes, and how many they are."""
    launches, size = make()
    count = -(-READ // size)
    for _ in range(count - 1):
        launches += make()[0]
    return Replay(launches, threads), count * size, count


def measure(threads: int, turns: int) -> list[tuple[str, float, float, float]]:
    """Name, seconds of one, bytes a second, and share of the first one's rate."""
    memory = Memory()
    made = {f"product 1x{k}x{n}": replay(lambda k=k, n=n: product(k, n, threads, memory), threads) for k, n in PRODUCTS}
    for sizes in ATTENTIONS:
        heads, queries, keys = sizes
        name = f"attention, {heads} x {queries} queries, {keys} keys"
        made[name] = replay(lambda sizes=sizes: attention_of(*sizes, threads, memory), threads)
    for one, _, _ in made.values():
        one.run()
    rates = np.array([[size / one.run() for one, size, _ in made.values()] for _ in range(turns)])
    shares, medians = np.median(rates / rates[:, :1], axis=0), np.median(rates, axis=0)
    each = [size / count / rate for (_, size, count), rate in zip(made.values(), medians)]
    return list(zip(made, each, medians.tolist(), shares.tolist()))


def round_trip() -> float:
    """Seconds that two cache lines take to another CPU and back, whose thread waits for one and writes the other."""
    words = np.zeros(64, np.int64)
    mine, other = words.ctypes.data, words.ctypes.data + 256
    cpus = sorted(os.sched_getaffinity(0))

    @numba.njit(nogil=True)
    def bounce(write, read, first):
        for i in range(1, ROUNDS + 1):
            if first:
                atomics.store(write, i)
            while atomics.load(read) != i:
                atomics.pause()
            if not first:
                atomics.store(write, i)

    def second() -> None:
        os.sched_setaffinity(0, {cpus[-1]})
        for _ in range(TRIES):
            bounce(other, mine, False)

    def timed() -> float:
        start = time.perf_counter()
        bounce(mine, other, True)
        return time.perf_counter() - start

    bounce.compile("void(int64, int64, boolean)")
    thread = threading.Thread(target=second)
    os.sched_setaffinity(0, {cpus[0]})
    thread.start()
    seconds = min([timed() for _ in range(TRIES)])
    thread.join()
    os.sched_setaffinity(0, cpus)
    return seconds / ROUNDS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reads", description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="that read together (default: 1)")
    parser.add_argument("--turns", type=int, default=50, help="of each kernel (default: 50, half a minute)")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
        print(f"a cache line goes to another CPU and another one comes back in {round_trip() * 1e6:.2f} us")
    rows = [
        [name, f"{seconds * 1e6:.1f} us", f"{rate / 1e9:.1f}", f"{share:.2f}"]
        for name, seconds, rate, share in measure(arguments.threads, arguments.turns)
    ]
    console.table((f"kernel, threads: {arguments.threads}", "time", "GB/s", "share of the first"), rows)


if __name__ == "__main__":
    main()
