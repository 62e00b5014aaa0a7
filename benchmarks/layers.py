"""The convolution layers of ResNet-50, VGG-19 and MobileNetV2 (and a few larger depthwise ones), by shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.helper as oh


@dataclass(frozen=True)
class Layer:
    """A convolution: input [1, cin, size, size], cout filters of kernel x kernel."""

    cin: int
    cout: int
    size: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def pad(self) -> int:
        """Border that keeps the size at stride 1."""
        return self.kernel // 2

    @property
    def out(self) -> int:
        """Output size."""
        return (self.size + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.out**2 * self.cout * self.cin // self.groups * self.kernel**2

    def __str__(self) -> str:
        name = "depthwise " if self.groups > 1 else ""
        return f"{name}{self.cin}x{self.size}x{self.size} -> {self.cout}, {self.kernel}x{self.kernel}/{self.stride}"


RESNET = [
    Layer(3, 64, 224, 7, 2),
    Layer(64, 64, 56, 1), Layer(64, 64, 56, 3), Layer(64, 256, 56, 1), Layer(256, 64, 56, 1),
    Layer(256, 128, 56, 1), Layer(128, 128, 56, 3, 2), Layer(128, 512, 28, 1), Layer(256, 512, 56, 1, 2),
    Layer(512, 128, 28, 1), Layer(128, 128, 28, 3),
    Layer(512, 256, 28, 1), Layer(256, 256, 28, 3, 2), Layer(256, 1024, 14, 1), Layer(512, 1024, 28, 1, 2),
    Layer(1024, 256, 14, 1), Layer(256, 256, 14, 3),
    Layer(1024, 512, 14, 1), Layer(512, 512, 14, 3, 2), Layer(512, 2048, 7, 1), Layer(1024, 2048, 14, 1, 2),
    Layer(2048, 512, 7, 1), Layer(512, 512, 7, 3),
]  # fmt: skip
VGG = [
    Layer(3, 64, 224, 3), Layer(64, 64, 224, 3), Layer(64, 128, 112, 3), Layer(128, 128, 112, 3),
    Layer(128, 256, 56, 3), Layer(256, 256, 56, 3), Layer(256, 512, 28, 3), Layer(512, 512, 28, 3), Layer(512, 512, 14, 3),
]  # fmt: skip
MOBILENET = [
    Layer(32, 32, 112, 3, 1, 32), Layer(96, 96, 112, 3, 2, 96), Layer(144, 144, 56, 3, 1, 144),
    Layer(144, 144, 56, 3, 2, 144), Layer(192, 192, 28, 3, 1, 192), Layer(192, 192, 28, 3, 2, 192),
    Layer(384, 384, 14, 3, 1, 384), Layer(576, 576, 14, 3, 1, 576), Layer(576, 576, 14, 3, 2, 576),
    Layer(960, 960, 7, 3, 1, 960), Layer(240, 240, 28, 5, 1, 240), Layer(672, 672, 14, 5, 1, 672),
    Layer(1152, 1152, 7, 5, 1, 1152), Layer(96, 96, 56, 7, 1, 96),
]  # fmt: skip


def weights(layer: Layer, rng: np.random.Generator) -> np.ndarray:
    """float32[cout, cin / groups, kernel, kernel], scaled so that outputs are of order one."""
    shape = (layer.cout, layer.cin // layer.groups, layer.kernel, layer.kernel)
    return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))


def conv_model(layer: Layer, w: np.ndarray) -> onnx.ModelProto:
    """A model of one Conv node."""
    pads = [layer.pad] * 4
    node = oh.make_node("Conv", ["x", "w"], ["y"], strides=[layer.stride] * 2, pads=pads, group=layer.groups)
    float_ = onnx.TensorProto.FLOAT
    x = oh.make_tensor_value_info("x", float_, [1, layer.cin, layer.size, layer.size])
    y = oh.make_tensor_value_info("y", float_, [1, layer.cout, layer.out, layer.out])
    graph = oh.make_graph([node], "conv", [x], [y], [onnx.numpy_helper.from_array(w, "w")])
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=9)
