"""Running launches of kernels without the executor: for tests and micro-benchmarks of `jitrt.ops.kernels`.

Two or more Python threads replay a list of launches inside one compiled loop (the GIL is released), with a barrier
after every launch; tasks are divided in equal contiguous shares. At first they ask kernels for what their tasks begin with.
"""

from __future__ import annotations

import ctypes
import threading
import time
from functools import cache, lru_cache

import numpy as np

from jitrt.ops.kernels import compiler, loader
from jitrt.ops.kernels.ahead import ASKED
from jitrt.ops.kernels.launch import Address, Block, Spare
from jitrt.ops.kernels.spec import KernelSpec

_ABI = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_SCRATCH = 1 << 20


@cache
def address_of(kernel: KernelSpec) -> int:
    """The address of the compiled kernel; compiled once a process."""
    return loader.load(compiler.compile_kernel(kernel.function()).code)


class Memory:
    """Workspace for tests: `alloc` hands out 64-byte aligned addresses that live as long as this object."""

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []

    def alloc(self, nbytes: int) -> int:
        """The address of `nbytes` bytes filled with 0xFF (NaN as float), so that unwritten bytes show."""
        block = np.full(nbytes + 128, 0xFF, np.uint8)
        self._kept.append(block)
        return -(-block.ctypes.data // 64) * 64

    def array(self, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
        """A 64-byte aligned array, as arena and constants are in a plan."""
        count = int(np.prod(shape))
        block = np.zeros(count * np.dtype(dtype).itemsize + 64, np.uint8)
        self._kept.append(block)
        skip = -block.ctypes.data % 64
        return block[skip : skip + count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

    def keep(self, array: np.ndarray) -> int:
        """The address of an array's first element; the array stays alive."""
        self._kept.append(array)
        return array.ctypes.data


def block(args: tuple, nested: list[np.ndarray] | None = None) -> np.ndarray:
    """An argument block: floats as the bits of a float64, everything else as int64; `nested` keeps the blocks in it."""
    words = np.zeros(max(1, len(args)), np.int64)
    for i, value in enumerate(args):
        if isinstance(value, Block):
            nested.append(block(value.args, nested))
            words[i] = nested[-1].ctypes.data
        elif isinstance(value, Address):
            words[i] = address_of(value.kernel)
        elif isinstance(value, Spare):
            words[i] = 0
        else:
            words[i] = np.float64(value).view(np.int64) if isinstance(value, float) else int(value)
    return words


class Replay:
    """Launches made ready to run: kernels compiled, argument blocks built."""

    def __init__(self, launches: list, threads: int = 2) -> None:
        self.threads = threads
        self._nested: list[np.ndarray] = []
        self._blocks = [block(launch.args, self._nested) for launch in launches]
        steps = zip(launches, self._blocks)
        table = [[address_of(one.kernel), words.ctypes.data, one.tasks, one.kernel.ahead] for one, words in steps]
        self._table = np.array(table or [[0, 0, 0, 0]], np.int64)
        self._count = len(table)
        self._scratch = np.zeros((threads, max([_SCRATCH, *(launch.scratch + 4096 for launch in launches)])), np.uint8)
        self._loop = _ABI(_replay_address())

    def run(self, repeat: int = 1) -> float:
        """Replay everything `repeat` times; seconds for one replay."""
        counter = np.zeros(8, np.int64)
        blocks = [
            block((self._table.ctypes.data, self._count, t, self.threads, counter.ctypes.data, repeat)) for t in range(self.threads)
        ]

        def work(t: int) -> None:
            scratch = -(-self._scratch[t].ctypes.data // 64) * 64
            self._loop(blocks[t].ctypes.data, 0, scratch)

        helpers = [threading.Thread(target=work, args=(t,)) for t in range(1, self.threads)]
        for helper in helpers:
            helper.start()
        start = time.perf_counter()
        work(0)
        elapsed = time.perf_counter() - start
        for helper in helpers:
            helper.join()
        return elapsed / repeat


@lru_cache(maxsize=1)
def _replay_address() -> int:
    from llvmlite import ir
    from numba.core import types
    from numba.core.typing.templates import signature
    from numba.extending import intrinsic

    from jitrt.ops.kernels import simd

    word = ir.IntType(64)

    @intrinsic
    def add(typingctx, address, value):
        def generate(context, builder, sig, args):
            where = builder.inttoptr(args[0], word.as_pointer())
            return builder.atomic_rmw("add", where, args[1], "seq_cst")

        return signature(types.int64, types.int64, types.int64), generate

    call_kernel, words = simd.call_kernel, simd.block

    def replay(args, task, scratch):
        table, count, me, threads, counter, repeat = words(args[0]), args[1], args[2], args[3], args[4], args[5]
        arrived = 0
        add(counter, 1)
        arrived += threads
        while add(counter, 0) < arrived:
            pass
        for i in range(count):
            for piece in range(table[4 * i + 3]):
                call_kernel(table[4 * i], table[4 * i + 1], -1 - (table[4 * i + 2] * me // threads) - piece * ASKED, scratch)
        for _ in range(repeat):
            for i in range(count):
                tasks = table[4 * i + 2]
                for t in range(tasks * me // threads, tasks * (me + 1) // threads):
                    call_kernel(table[4 * i], table[4 * i + 1], t, scratch)
                arrived += threads
                add(counter, 1)
                while add(counter, 0) < arrived:
                    pass

    return loader.load(compiler.compile_kernel(replay).code)


def run(launches: list, threads: int = 2) -> None:
    """Run the launches once."""
    Replay(launches, threads).run()
