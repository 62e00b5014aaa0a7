"""Convolution layers of ResNet-50, VGG-19 and MobileNetV2 beside onnxruntime, same threads, alternating.

    python -m benchmarks.micro_conv [resnet|vgg|mobilenet ...]

onnxruntime's time is the node's own (its profiler's kernel time, without the reordering of its blocked layout), ours
the replay of the launches on channels-last images, padding copies included. Prints one line a layer: GFLOP/s of both
and the ratio of speeds.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime

from jitrt.ops.kernels import image

from .kernel_driver import Memory, Replay
from .layers import MOBILENET, RESNET, VGG, Layer, conv_model, weights

THREADS = 2
ROUNDS = 12


class Peer:
    """The layer in onnxruntime, timed by its own profiler."""

    def __init__(self, model: onnx.ModelProto, feed: dict[str, np.ndarray], op: str = "Conv") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(tempfile.mkdtemp(), "profile")
        self._prefix = options.profile_file_prefix
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        self._feed, self._op = feed, op

    def run(self, repeat: int) -> None:
        """Run the model `repeat` times."""
        for _ in range(repeat):
            self._session.run(None, self._feed)

    def kernel_times(self) -> list[float]:
        """Seconds of every call of the node so far; ends profiling."""
        self._session.end_profiling()
        with open(glob.glob(self._prefix + "*")[0]) as file:
            events = json.load(file)
        return [
            e["dur"] * 1e-6 for e in events if e.get("args", {}).get("op_name") == self._op and e["name"].endswith("kernel_time")
        ]


def our_conv(layer: Layer, x: np.ndarray, w: np.ndarray, memory: Memory, threads: int = THREADS) -> tuple[Replay, np.ndarray]:
    """The layer's launches ready to run, and its output as [1, cout, out, out]."""
    from jitrt.ops.kernels import conv, convweights, depthwise

    native = memory.array((1, layer.size, layer.size, layer.cin))
    native[...] = np.moveaxis(x, 1, -1)
    out = memory.array((1, layer.out, layer.out, layer.cout))
    source = image.channels_last(memory.keep(native), x.shape, 4)
    result = image.channels_last(memory.keep(out), (1, layer.cout, layer.out, layer.out), 4)
    separate = layer.groups == layer.cin
    pack, weights_of = (
        (depthwise.pack_depthwise, depthwise.DepthwiseWeights.of)
        if separate
        else (convweights.pack_weights, convweights.PackedWeights.of)
    )
    data = pack(w, layer.groups)
    address = memory.array(data.shape)
    address[...] = data
    packed = weights_of(w.shape, layer.groups, memory.keep(address))
    build = depthwise.depthwise if separate else conv.conv
    launches = build("f32", source, packed, result, [layer.stride] * 2, [1, 1], [layer.pad] * 4,
                     alloc=memory.alloc, threads=threads)  # fmt: skip
    return Replay(launches, threads), np.moveaxis(out, -1, 1)


def measure(layer: Layer) -> tuple[float, float, float]:
    """Seconds of ours and of onnxruntime's, and the largest difference relative to the largest output."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, layer.cin, layer.size, layer.size), np.float32)
    w = weights(layer, rng)
    memory = Memory()
    replay, out = our_conv(layer, x, w, memory)
    model = conv_model(layer, w)
    peer = Peer(model, {"x": x})
    repeat = max(3, int(1e9 / layer.flops))
    ours = []
    for _ in range(ROUNDS):
        # the peer's threads spin for a while after a run
        time.sleep(0.03)
        replay.run(repeat)
        ours.append(replay.run(repeat))
        peer.run(repeat)
    expected = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    times = peer.kernel_times()
    groups = [np.mean(times[i : i + repeat]) for i in range(0, len(times), repeat)]
    return min(ours), float(min(groups)), float(np.abs(out - expected).max() / np.abs(expected).max())


def main(names: list[str]) -> None:
    """Print the table of the named networks."""
    tables = {"resnet": RESNET, "vgg": VGG, "mobilenet": MOBILENET}
    print(f"{'network':10} {'layer':38} {'ours':>9} {'ort':>9} GFLOP/s  {'ratio':>5}  error")
    for name in names or tables:
        start, ratios = time.time(), []
        for layer in tables[name]:
            ours, theirs, error = measure(layer)
            ratios.append(theirs / ours)
            print(f"{name:10} {layer!s:38} {layer.flops / ours / 1e9:9.1f} {layer.flops / theirs / 1e9:9.1f} "
                  f"         {theirs / ours:5.2f}  {error:.1e}  {ours * 1e6:8.1f} us", flush=True)  # fmt: skip
        print(f"{name:10} geometric mean {np.exp(np.mean(np.log(ratios))):.3f} ({time.time() - start:.0f} s)")


if __name__ == "__main__":
    main(sys.argv[1:])
