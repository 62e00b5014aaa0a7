"""One node of com.microsoft on jitrt and on onnxruntime: what the tests of that domain share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from onnx import ModelProto, helper, numpy_helper

import jitrt

Array = np.ndarray
MICROSOFT = "com.microsoft"


class Numbers:
    """Arrays of random numbers.

    Tests share one generator, which begins anew with each. What a module draws as it is imported comes from one of its own:
    else it would depend on what was imported before.
    """

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def f32(self, *shape: int) -> Array:
        """Normally distributed numbers."""
        return self.rng.standard_normal(shape).astype(np.float32)

    def bits(self, dtype: type, *shape: int) -> Array:
        """Integers over the whole range of a type; of int8 half of it, so that sums of pairs do not saturate on any CPU."""
        low, high = (-64, 64) if dtype is np.int8 else (0, np.iinfo(dtype).max + 1)
        return self.rng.integers(low, high, shape).astype(dtype)

    def kept(self, *shape: int) -> Array:
        """A mask of zeros and ones."""
        return self.rng.integers(0, 2, shape).astype(np.int32)


_shared = Numbers()
rng, f32, bits, kept = _shared.rng, _shared.f32, _shared.bits, _shared.kept


def i32(*values: int) -> Array:
    """A vector."""
    return np.array(values, np.int32)


def node_model(
    name: str, inputs: Sequence[Array | None], outputs: Sequence[type | None], constant: Sequence[int] = (),
    domain: str = MICROSOFT, onnx_opset: int = 17, attributes: dict[str, object] | None = None,
) -> ModelProto:  # fmt: skip
    """A model of one node. Inputs: None is absent. Outputs: a type each, None is absent."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    made = [f"y{i}" if kind is not None else "" for i, kind in enumerate(outputs)]
    node = helper.make_node(name, names, made, domain=domain, **(attributes or {}))
    infos, weights = [], []
    for i, (x, label) in enumerate(zip(inputs, names)):
        if i in constant:
            weights.append(numpy_helper.from_array(x, label))
        elif label:
            infos.append(helper.make_tensor_value_info(label, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape))
    results = [
        helper.make_tensor_value_info(label, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
        for label, kind in zip(made, outputs)
        if label
    ]
    graph = helper.make_graph([node], "one", infos, results, weights)
    imports = [helper.make_opsetid("", onnx_opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def run(
    name: str, inputs: Sequence[Array | None], outputs: Sequence[type | None] = (np.float32,), constant: Sequence[int] = (),
    domain: str = MICROSOFT, onnx_opset: int = 17, **attributes: object,
) -> list[Array]:  # fmt: skip
    """The node's outputs on jitrt."""
    model = node_model(name, inputs, outputs, constant, domain, onnx_opset, attributes)
    return jitrt.InferenceSession(model.SerializeToString()).run(None, _feeds(inputs, constant))


def run_both(
    name: str, inputs: Sequence[Array | None], outputs: Sequence[type | None] = (np.float32,), constant: Sequence[int] = (),
    domain: str = MICROSOFT, onnx_opset: int = 17, **attributes: object,
) -> tuple[list[Array], list[Array]]:  # fmt: skip
    """The node's outputs on jitrt and on onnxruntime."""
    content = node_model(name, inputs, outputs, constant, domain, onnx_opset, attributes).SerializeToString()
    feeds = _feeds(inputs, constant)
    return jitrt.InferenceSession(content).run(None, feeds), peer(content).run(None, feeds)


def peer(model: bytes) -> onnxruntime.InferenceSession:
    """onnxruntime with the nodes as they are."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _feeds(inputs: Sequence[Array | None], constant: Sequence[int]) -> dict[str, Array]:
    return {f"x{i}": x for i, x in enumerate(inputs) if x is not None and i not in constant}


def assert_close(got: Sequence[Array], expected: Sequence[Array], rtol: float = 1e-5, atol: float = 1e-5) -> None:
    """Same types and shapes, values within the tolerance, which float16 makes wider."""
    assert len(got) == len(expected)
    for g, e in zip(got, expected):
        assert (g.dtype, g.shape) == (e.dtype, e.shape)
        wide = 2e-3 if g.dtype == np.float16 else 0.0
        np.testing.assert_allclose(g.astype(np.float64), e.astype(np.float64), max(rtol, wide), max(atol, wide))


def assert_same_node(*node: object, rtol: float = 1e-5, atol: float = 1e-5, **attributes: object) -> None:
    """`run_both`, and `assert_close` of what comes out."""
    assert_close(*run_both(*node, **attributes), rtol, atol)
