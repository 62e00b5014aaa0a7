"""GraphBuilder: writes ONNX graphs layer by layer, the way exporters write them, with random but well-scaled weights.

Every layer scales its weights by the estimated mean square of what it reads (`Value.power`), so that its output has
mean square one at any depth (He et al. 2015, applied to sums, concatenations and gates as well as to ReLU). Shapes and
scalars are `Constant` nodes and weights are initializers, as in what torch.onnx writes. Models live in the other files.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto, TensorProto, helper

IR_VERSION = 10
Dim = int | str
Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[str] | TensorProto
Sampler = Callable[[np.random.Generator, tuple[int, ...], dict[str, int]], np.ndarray]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph under construction.

    Attributes:
        name: its name in the graph.
        channels: size of the axis that the next layer contracts (axis 1 of images, the last axis of sequences).
        power: estimated mean square of its elements.
    """

    name: str
    channels: int = 0
    power: float = 1.0


@dataclass(frozen=True)
class Input:
    """A declared graph input: shape with symbolic dimensions, and how to draw an example of it."""

    name: str
    dtype: np.dtype
    shape: tuple[Dim, ...]
    sample: Sampler


class GraphBuilder:
    """Appends nodes and weights to one model.

    Args:
        name: the graph's name.
        opset: version of the default operator domain.
        seed: of the generator that draws the weights.
        weights: False leaves the weights' data out (dimensions and types stay). Such an outline has the inputs, nodes
            and parameter count of the real model and costs milliseconds, but is not a valid model.
        published: the type of which matrices and filters have values, in float32: that in which the real model's were published.
    """

    def __init__(self, name: str, opset: int, seed: int = 0, weights: bool = True, published: type = np.float32) -> None:
        self.opset, self.published = opset, published
        self.inputs: list[Input] = []
        self.parameters = 0
        self._model = helper.make_model(
            helper.make_graph([], name, [], []),
            producer_name="jitrt.benchmarks.zoo",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", opset)],
        )
        self._graph = self._model.graph
        self._rng = np.random.default_rng(seed)
        self._with_weights = weights
        self._scope: list[str] = []
        self._uses: Counter[str] = Counter()
        self._renamed: dict[str, str] = {}

    # ---- graph ----

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefixes the names of nodes and weights made inside with `name`, as modules do in an exporter."""
        self._scope.append(name)
        yield
        self._scope.pop()

    def _unique(self, name: str, separator: str) -> str:
        full = separator.join([*self._scope, name])
        self._uses[full] += 1
        return full if self._uses[full] == 1 else f"{full}_{self._uses[full] - 1}"

    def op(
        self,
        kind: str,
        *operands: Value | None,
        channels: int | None = None,
        power: float | None = None,
        **attributes: Attribute,
    ) -> Value:
        """Appends a node with one output; `None` leaves an optional operand out.

        `channels` and `power` of the result are those of the first operand unless given.
        """
        return self.multi_op(kind, *operands, outputs=1, channels=channels, power=power, **attributes)[0]

    def multi_op(
        self,
        kind: str,
        *operands: Value | None,
        outputs: int,
        channels: int | None = None,
        power: float | None = None,
        **attributes: Attribute,
    ) -> list[Value]:
        """Appends a node with several outputs, which all get the same `channels` and `power`."""
        like = operands[0] if operands and operands[0] is not None else Value("")
        name = "/" + self._unique(kind, "/")
        names = [f"{name}_output_{i}" for i in range(outputs)]
        feeds = [operand.name if operand else "" for operand in operands]
        self._graph.node.append(helper.make_node(kind, feeds, names, name=name, **attributes))
        made = replace(
            like,
            channels=like.channels if channels is None else channels,
            power=like.power if power is None else power,
        )
        return [replace(made, name=output) for output in names]

    def input(
        self, name: str, dtype: type, shape: Sequence[Dim], sample: Sampler, *, channels: int = 0, power: float = 1.0
    ) -> Value:
        """Declares a graph input; strings in `shape` are symbolic dimensions, "a + b" is the sum of two."""
        kind = np.dtype(dtype)
        self.inputs.append(Input(name, kind, tuple(shape), sample))
        element = helper.np_dtype_to_tensor_dtype(kind)
        self._graph.input.append(helper.make_tensor_value_info(name, element, list(shape)))
        return Value(name, channels, power)

    def output(self, name: str, value: Value, shape: Sequence[Dim]) -> None:
        """Declares `value` (float32) a graph output called `name`."""
        self._renamed[value.name] = name
        self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def model(self) -> ModelProto:
        """Returns the model, with the values that are outputs under their public names."""
        for node in self._graph.node:
            for names in (node.input, node.output):
                names[:] = [self._renamed.get(name, name) for name in names]
        return self._model

    # ---- constants and weights ----

    def const(self, value: object, dtype: type = np.int64) -> Value:
        """A `Constant` node that holds `value`: int64 (shapes, axes, indices) unless `dtype` says otherwise."""
        array = np.asarray(value, dtype)
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = helper.make_tensor("value", element, array.shape, array.tobytes(), raw=True)
        return self.op("Constant", value=tensor)

    def scalar(self, value: float) -> Value:
        """A float32 scalar constant."""
        return self.const(value, np.float32)

    def _initializer(self, name: str, shape: Sequence[int], draw: Callable[[], np.ndarray]) -> Value:
        name = self._unique(name, ".")
        if self._with_weights:
            tensor = helper.make_tensor(name, TensorProto.FLOAT, shape, draw().tobytes(), raw=True)
        else:
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        self._graph.initializer.append(tensor)
        return Value(name, shape[-1] if shape else 0)

    def weight(self, name: str, shape: Sequence[int], std: float) -> Value:
        """A trainable parameter drawn from N(0, std^2)."""

        def draw() -> np.ndarray:
            values = self._rng.standard_normal(tuple(shape), dtype=np.float32)
            values *= np.float32(std)
            return values.astype(self.published).astype(np.float32) if len(shape) > 1 else values

        self.parameters += math.prod(shape)
        return self._initializer(name, shape, draw)

    def positive(self, name: str, size: int, mean: float, trained: bool = True) -> Value:
        """A vector drawn uniformly from [0.8, 1.2] times `mean`: gains and variances."""
        self.parameters += size if trained else 0
        return self._initializer(
            name, [size], lambda: ((0.8 + 0.4 * self._rng.random(size, dtype=np.float32)) * mean).astype(np.float32)
        )

    def fixed(self, name: str, values: np.ndarray) -> Value:
        """An initializer with given float32 values (rotary frequencies, anchors, and the like)."""
        return self._initializer(name, values.shape, lambda: values.astype(np.float32))

    def parameter(self, name: str, values: np.ndarray) -> Value:
        """A trainable parameter of given values, such as positions that training begins with."""
        self.parameters += values.size
        return self.fixed(name, values)

    # ---- convolutional layers ----

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int,
        stride: int = 1,
        *,
        pad: int | None = None,
        groups: int = 1,
        bias: bool = True,
        gain: float = 1.0,
    ) -> Value:
        """Conv over `x: float32[N, C, H, W]`; `pad` defaults to kernel // 2, `gain` is the output's mean square."""
        fan_in = x.channels // groups * kernel * kernel
        pad = kernel // 2 if pad is None else pad
        weight = self.weight("weight", (channels, x.channels // groups, kernel, kernel), math.sqrt(gain / (fan_in * x.power)))
        operands = [x, weight, *([self.weight("bias", (channels,), 0.05)] if bias else [])]
        return self.op(
            "Conv",
            *operands,
            channels=channels,
            power=gain,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            dilations=[1, 1],
            group=groups,
        )

    def batch_norm(self, x: Value, gain: float = 1.0, epsilon: float = 1e-5) -> Value:
        """BatchNormalization in inference form, with statistics near those of `x`; output mean square is gain^2."""
        size = x.channels
        scale, shift = self.positive("gamma", size, gain), self.weight("beta", (size,), 0.1 * gain)
        mean = self._initializer(
            "running_mean",
            [size],
            lambda: self._rng.standard_normal(size, dtype=np.float32) * np.float32(0.1 * math.sqrt(x.power)),
        )
        variance = self.positive("running_var", size, x.power, trained=False)
        return self.op("BatchNormalization", x, scale, shift, mean, variance, power=gain * gain, epsilon=epsilon)

    def act(self, x: Value, kind: str | None) -> Value:
        """Activation by name: relu, relu6 (Clip), silu (Sigmoid and Mul), hardswish, gelu (with Erf before opset 20) or None.

        The factors are E[f(z)^2] of a standard normal z.
        """
        if kind is None:
            return x
        if kind == "relu":
            return self.op("Relu", x, power=0.5 * x.power)
        if kind == "relu6":
            return self.op("Clip", x, self.scalar(0), self.scalar(6), power=0.5 * x.power)
        if kind == "silu":
            return self.op("Mul", x, self.op("Sigmoid", x), power=0.356 * x.power)
        if kind == "hardswish":
            return self.op("HardSwish", x, power=0.33 * x.power)
        if kind == "gelu":
            return self._gelu(x)
        raise ValueError(f"unknown activation {kind!r}: expected relu, relu6, silu, hardswish, gelu or None")

    def _gelu(self, x: Value) -> Value:
        power = 0.425 * x.power
        if self.opset >= 20:
            return self.op("Gelu", x, power=power)
        erf = self.op("Erf", self.op("Div", x, self.scalar(math.sqrt(2))))
        product = self.op("Mul", x, self.op("Add", erf, self.scalar(1)))
        return self.op("Mul", product, self.scalar(0.5), power=power)

    def conv_bn_act(
        self,
        x: Value,
        channels: int,
        kernel: int,
        stride: int = 1,
        act: str | None = "relu",
        *,
        groups: int = 1,
        gain: float = 1.0,
        epsilon: float = 1e-5,
    ) -> Value:
        """Conv without bias, BatchNormalization and activation as separate nodes; folding is the runtime's job."""
        x = self.conv(x, channels, kernel, stride, groups=groups, bias=False)
        return self.act(self.batch_norm(x, gain, epsilon), act)

    def max_pool(self, x: Value, kernel: int, stride: int, pad: int = 0, ceil: bool = False) -> Value:
        """MaxPool over square windows. The maximum of a window of rectified values is about half as large again."""
        return self.op(
            "MaxPool",
            x,
            power=1.5 * x.power,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            ceil_mode=int(ceil),
        )

    def add(self, x: Value, y: Value) -> Value:
        """Sum of two independent activations."""
        return self.op("Add", x, y, power=x.power + y.power)

    def concat(self, values: Sequence[Value], axis: int = 1) -> Value:
        """Concat along the channel axis."""
        channels = sum(value.channels for value in values)
        power = sum(value.power * value.channels for value in values) / channels
        return self.op("Concat", *values, channels=channels, power=power, axis=axis)

    def split(self, x: Value, parts: int, axis: int = 1) -> list[Value]:
        """Equal parts of the channel axis, their sizes given as a tensor."""
        size = x.channels // parts
        return self.multi_op("Split", x, self.const([size] * parts), outputs=parts, channels=size, axis=axis)

    def pooled_classifier(self, x: Value, classes: int) -> Value:
        """GlobalAveragePool, Flatten and Gemm: float32[N, C, H, W] to float32[N, classes]."""
        pooled = self.op("GlobalAveragePool", x)
        return self.gemm(self.op("Flatten", pooled, axis=1), classes)

    # ---- dense layers and normalisation ----

    def gemm(self, x: Value, features: int, gain: float = 1.0) -> Value:
        """torch.nn.Linear on a matrix: Gemm with a transposed weight."""
        weight = self.weight("weight", (features, x.channels), math.sqrt(gain / (x.channels * x.power)))
        bias = self.weight("bias", (features,), 0.05)
        return self.op("Gemm", x, weight, bias, channels=features, power=gain, transB=1)

    def linear(self, x: Value, features: int, gain: float = 1.0, bias: bool = True) -> Value:
        """torch.nn.Linear on a batch of sequences: MatMul and Add."""
        weight = self.weight("weight", (x.channels, features), math.sqrt(gain / (x.channels * x.power)))
        y = self.op("MatMul", x, weight, channels=features, power=gain)
        return self.op("Add", self.weight("bias", (features,), 0.05), y, channels=features, power=gain) if bias else y

    def shared_linear(self, features: int, gain: float = 1.0) -> Callable[[Value], Value]:
        """A torch.nn.Linear that is called more than once, on what has as many channels as it gives, of mean square one."""
        weight, bias = (
            self.weight("weight", (features, features), math.sqrt(gain / features)),
            self.weight("bias", (features,), 0.05),
        )
        return lambda x: self.op("Add", bias, self.op("MatMul", x, weight), channels=features, power=gain)

    def layer_norm(self, x: Value, gain: float = 1.0, epsilon: float = 1e-5) -> Value:
        """LayerNormalization over the last axis; output mean square is gain^2."""
        scale, shift = self.positive("gamma", x.channels, gain), self.weight("beta", (x.channels,), 0.1 * gain)
        return self.op("LayerNormalization", x, scale, shift, power=gain * gain, axis=-1, epsilon=epsilon)

    def rms_norm(self, x: Value, gain: float = 1.0, epsilon: float = 1e-6) -> Value:
        """Root mean square normalisation (Zhang and Sennrich 2019), decomposed as exporters before opset 23 do."""
        square = self.op("Pow", x, self.scalar(2))
        mean = self.reduce_mean(square, -1)
        root = self.op("Sqrt", self.op("Add", mean, self.scalar(epsilon)))
        normal = self.op("Mul", x, self.op("Div", self.scalar(1), root), power=1.0)
        return self.op("Mul", self.positive("gamma", x.channels, gain), normal, power=gain * gain)

    def reduce_mean(self, x: Value, axis: int) -> Value:
        """ReduceMean that keeps the axis; axes became an operand in opset 18."""
        if self.opset < 18:
            return self.op("ReduceMean", x, axes=[axis], keepdims=1)
        return self.op("ReduceMean", x, self.const([axis]), keepdims=1)

    # ---- shapes ----

    def reshape(self, x: Value, shape: Sequence[int], channels: int | None = None) -> Value:
        """Reshape to a constant shape; 0 copies a dimension, -1 takes what is left."""
        return self.op("Reshape", x, self.const(shape), channels=channels)

    def transpose(self, x: Value, *order: int) -> Value:
        """Transpose to the given order of axes."""
        return self.op("Transpose", x, perm=order)

    def unsqueeze(self, x: Value, *axes: int) -> Value:
        """Unsqueeze with the axes as a tensor."""
        return self.op("Unsqueeze", x, self.const(axes))

    def slice(self, x: Value, start: int, end: int, axis: int) -> Value:
        """Slice of one axis; `end` may be past it."""
        return self.op("Slice", x, self.const([start]), self.const([end]), self.const([axis]))

    def dim(self, x: Value, axis: int) -> Value:
        """A dimension as an int64 scalar: Shape and Gather."""
        return self.op("Gather", self.op("Shape", x), self.const(axis), axis=0)

    def sizes(self, *parts: Value | int) -> Value:
        """A shape made of sizes (scalars, see `dim`) and numbers: Unsqueeze and Concat."""
        return self.op("Concat", *(self.const([p]) if isinstance(p, int) else self.unsqueeze(p, 0) for p in parts), axis=0)

    # ---- attention ----

    def embedding(self, ids: Value, entries: int, width: int, std: float = 1.0) -> Value:
        """Gather of rows of a float32[entries, width] table."""
        return self.op("Gather", self.weight("weight", (entries, width), std), ids, channels=width, power=std * std, axis=0)

    def heads(self, x: Value, count: int, *order: int) -> Value:
        """Splits [N, S, count * D] into heads and transposes [N, S, count, D], to [N, count, S, D] by default."""
        size = x.channels // count
        return self.transpose(self.reshape(x, (0, 0, count, size), size), *(order or (0, 2, 1, 3)))

    def attention(
        self, query: Value, key: Value, value: Value, *, heads: int, mask: Value | None = None, scale: float = 1.0
    ) -> Value:
        """Softmax attention, heads merged again.

        Args:
            query: float32[N, heads, S, D].
            key: float32[N, heads, D, T], transposed already.
            value: float32[N, heads, T, D].
            heads: number of heads.
            mask: added to the scores; broadcasts to [N, heads, S, T].
            scale: of the scores; no node for 1.

        Returns:
            float32[N, S, heads * D]. Its power supposes that some three keys carry most of a row's weight.
        """
        scores = self.op("MatMul", query, key)
        if scale != 1.0:
            scores = self.op("Mul", scores, self.scalar(scale))
        if mask is not None:
            scores = self.op("Add", scores, mask)
        shares = self.op("Softmax", scores, axis=-1)
        mixed = self.op("MatMul", shares, value, channels=value.channels, power=0.3 * value.power)
        width = heads * value.channels
        return self.reshape(self.transpose(mixed, 0, 2, 1, 3), (0, 0, width), width)
