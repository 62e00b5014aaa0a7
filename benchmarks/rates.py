"""`python -m benchmarks.rates`: what share of a core's multiply-add rate kernels reach, beside a loop of nothing else.

One thread stays on one CPU. The kernels take turns of a millisecond, so that all of them, and the loop, meet the same phases
of the machine; shares are medians over turns. FLOPs are those of the definition: none are counted for exponentials.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import numpy as np

from jitrt.ops.kernels import attention, gemm, target
from jitrt.ops.kernels.launch import Launch
from jitrt.ops.kernels.matrix import Matrix
from jitrt.ops.kernels.spec import generated

from . import console
from .kernel_driver import Memory, Replay
from .layers import Layer, weights
from .micro_conv import our_conv

TURN = 1e-3  # seconds
LAYERS = (
    Layer(16, 96, 56, 1), Layer(24, 144, 56, 1), Layer(32, 192, 28, 1), Layer(64, 384, 14, 1), Layer(144, 24, 56, 1),
    Layer(256, 256, 14, 1), Layer(512, 2048, 7, 1), Layer(128, 128, 28, 3, 2), Layer(3, 64, 224, 7, 2),
    Layer(96, 96, 112, 3, 2, 96), Layer(144, 144, 56, 3, 1, 144), Layer(384, 384, 14, 3, 1, 384), Layer(240, 240, 28, 5, 1, 240),
    Layer(96, 96, 56, 7, 1, 96),
)  # fmt: skip
PRODUCTS = ((32, 384, 1536), (128, 768, 768), (128, 3072, 768), (197, 768, 3072), (1500, 384, 384))  # rows, K, columns
HEADS, HEAD, SEQUENCES = 12, 64, (128, 512, 1024)
CHAINS, ROUNDS = 12, 20_000  # of the loop: sums that do not wait for each other, turns


def multiply_adds(memory: Memory) -> tuple[Replay, int]:
    """The loop of multiply-adds on registers, and its FLOPs."""
    lanes = target.current().lanes
    sums = [f"s{i}" for i in range(CHAINS)]
    lines = [
        "def kernel(args, task, scratch):", "    x, y = load_f32(args[1]), load_f32(args[1])", f"    {' = '.join(sums)} = x",
        "    for _ in range(args[0]):", *(f"        {s} = fma(x, y, {s})" for s in sums),
        f"    store_f32(args[1], {' + '.join(sums)})",
    ]  # fmt: skip
    data = memory.array((lanes,))
    kernel = generated("multiply_adds", "\n".join(lines) + "\n", lanes)
    return Replay([Launch(kernel, (ROUNDS, memory.keep(data)), 1)], 1), 2 * lanes * CHAINS * ROUNDS


def convolution(layer: Layer, memory: Memory) -> tuple[Replay, int]:
    """A layer on channels-last images, and its FLOPs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, layer.cin, layer.size, layer.size), np.float32)
    return our_conv(layer, x, weights(layer, rng), memory, threads=1)[0], layer.flops


def product(rows: int, depth: int, columns: int, memory: Memory) -> tuple[Replay, int]:
    """A product with a constant matrix, and its FLOPs."""
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> tuple[np.ndarray, int]:
        data = memory.array(shape)
        data[...] = rng.standard_normal(shape, np.float32)
        return data, memory.keep(data)

    (a, left), (b, _), (c, out) = matrix(rows, depth), matrix(depth, columns), matrix(rows, columns)
    packed = gemm.pack(b)
    panels = memory.array(packed.shape)
    panels[...] = packed
    one, result = (Matrix(at, (1, *x.shape), (0, *x.strides)) for x, at in ((a, left), (c, out)))
    return Replay(gemm.matmul("f32", one, memory.keep(panels), result, alloc=memory.alloc), 1), 2 * rows * depth * columns


def attentions(sequence: int, memory: Memory) -> tuple[Replay, int]:
    """Attention of heads that lie one behind the other, and its FLOPs."""
    shape, rng = (HEADS, sequence, HEAD), np.random.default_rng(0)

    def heads(values: np.ndarray) -> attention.Heads:
        data = memory.array(shape)
        data[...] = values
        return attention.Heads(memory.keep(data), (0, 0, sequence * HEAD * 4), HEAD * 4, 4)

    q, k, v = (heads(rng.standard_normal(shape, np.float32)) for _ in range(3))
    sizes = attention.Sizes((1, 1, HEADS), sequence, sequence, HEAD, HEAD)
    launches = attention.attention("f32", q, k, v, heads(np.zeros(shape)), sizes, scale=HEAD**-0.5, alloc=memory.alloc)
    return Replay(launches, 1), sizes.flops


def cases() -> dict[str, Callable[[Memory], tuple[Replay, int]]]:
    """Names, and what makes the kernels; the loop first."""
    made: dict[str, Callable[[Memory], tuple[Replay, int]]] = {"multiply-adds alone": multiply_adds}
    made |= {f"product {'x'.join(map(str, sizes))}": lambda memory, sizes=sizes: product(*sizes, memory) for sizes in PRODUCTS}
    made |= {str(layer): lambda memory, layer=layer: convolution(layer, memory) for layer in LAYERS}
    return made | {f"attention, {n} tokens": lambda memory, n=n: attentions(n, memory) for n in SEQUENCES}


def measure(turns: int) -> list[tuple[str, float, float]]:
    """Name, FLOP/s and share of the loop's rate of every case."""
    memory = Memory()
    replays = {name: make(memory) for name, make in cases().items()}
    repeats = {}
    for name, (replay, _) in replays.items():
        replay.run(3)
        repeats[name] = max(1, round(TURN / replay.run(2)))

    def rate(name: str) -> float:
        replay, flops = replays[name]
        replay.run()  # brings its data back to the cache
        return flops / replay.run(repeats[name])

    rates = np.array([[rate(name) for name in replays] for _ in range(turns)])
    shares = np.median(rates / rates[:, :1], axis=0)
    return list(zip(replays, np.median(rates, axis=0).tolist(), shares.tolist()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=__doc__.split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=100, help="of each kernel (default: 100, half a minute)")
    parser.add_argument("--cpu", type=int, default=0, help="which CPU to stay on (default: 0)")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.cpu})
    rows = [[name, f"{rate / 1e9:.1f}", f"{share:.2f}"] for name, rate, share in measure(arguments.turns)]
    console.table(("kernel, one core", "GFLOP/s", "share of the loop's"), rows)


if __name__ == "__main__":
    main()
