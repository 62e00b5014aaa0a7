"""Models of one node of ai.onnx.ml, and forests, built by hand; runs of them beside onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper

import jitrt

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
LOGISTIC_IS_LEFT_OUT = "leaves out LOGISTIC where two classes have one score (microsoft/onnxruntime#27533)"


def element(array: np.ndarray) -> int:
    """The ONNX element type of an array."""
    return onnx.TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)


def model(op: str, inputs: Sequence[np.ndarray], outputs: Sequence[int], version: int, **attributes: object) -> onnx.ModelProto:
    """One node; `outputs` are element types; empty lists are left out."""
    names, results = [f"x{i}" for i in range(len(inputs))], [f"y{i}" for i in range(len(outputs))]
    given = {name: value for name, value in attributes.items() if not isinstance(value, list) or value}
    node = helper.make_node(op, names, results, domain="ai.onnx.ml", **given)
    infos = [helper.make_tensor_value_info(n, element(x), [None] * x.ndim) for n, x in zip(names, inputs)]
    made = [helper.make_tensor_value_info(n, kind, None) for n, kind in zip(results, outputs)]
    graph = helper.make_graph([node], op, infos, made)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def of_map(op: str, key: int, value: int, kind: int, **attributes: object) -> onnx.ModelProto:
    """One node whose input is a map; `kind` is the output's element type."""
    info = onnx.ValueInfoProto(name="x0")
    info.type.map_type.key_type = key
    info.type.map_type.value_type.tensor_type.elem_type = value
    node = helper.make_node(op, ["x0"], ["y"], domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph([node], op, [info], [helper.make_tensor_value_info("y", kind, None)])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def run(made: onnx.ModelProto, inputs: Sequence[np.ndarray], runtime=jitrt) -> list[object]:
    """The outputs of a runtime."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    session = runtime.InferenceSession(made.SerializeToString(), options)
    return session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})


def check(
    made: onnx.ModelProto,
    inputs: Sequence[np.ndarray],
    rtol: float = 1e-4,
    atol: float = 1e-5,
    other: onnx.ModelProto | None = None,
) -> None:
    """onnxruntime, running the same model (or `other`), agrees: labels exactly, numbers within tolerances."""
    for got, expected in zip(run(made, inputs), run(other or made, inputs, onnxruntime), strict=True):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(got, expected, rtol, atol)
        else:
            np.testing.assert_array_equal(got, expected)


def rows(count: int, features: int, seed: int = 0) -> np.ndarray:
    """float32 rows in which numbers recur, with NaN and infinities where there is room."""
    x = np.random.default_rng(seed).standard_normal((count, features)).astype(np.float32)
    x[1::2] = np.rint(x[1::2])
    if count > 6:
        x[0], x[2], x[4, ::2], x[5], x[6] = np.nan, np.inf, np.nan, -np.inf, -0.0
    return x


class Trees:
    """Random trees in the tables of TreeEnsembleRegressor.

    Args:
        depth: of the deepest leaves; a node is a leaf before that with the probability `ragged`.
        votes: the targets that a leaf speaks of, from the number of the tree.
    """

    def __init__(
        self, trees: int, depth: int, features: int, votes: Callable[[int], Sequence[int]], modes: Sequence[str] = ("BRANCH_LEQ",),
        ragged: float = 0.2, missing: bool = False, low: float = -1.0,
    ) -> None:  # fmt: skip
        self.rng = np.random.default_rng(trees * 100 + depth)
        self.nodes: dict[str, list] = {
            name: []
            for name in ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
        }  # fmt: skip
        self.votes: dict[str, list] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
        for tree in range(trees):
            waiting, count = [(0, 0)], 1
            for node, level in waiting:  # grows meanwhile
                leaf = level == depth or self.rng.random() < ragged
                mode = "LEAF" if leaf else modes[self.rng.integers(len(modes))]
                value = np.rint(self.rng.standard_normal())
                place = (tree, node, mode, int(self.rng.integers(features)), float(value), count, count + 1)
                for values, one in zip(self.nodes.values(), place):
                    values.append(one)
                if not leaf:
                    waiting += [(count, level + 1), (count + 1, level + 1)]
                    count += 2
                for target in votes(tree) if leaf else ():
                    weight = float(np.float32(self.rng.uniform(low, 1.0)))
                    for values, one in zip(self.votes.values(), (tree, node, target, weight)):
                        values.append(one)
        if missing:
            self.nodes["missing_value_tracks_true"] = self.rng.integers(0, 2, len(self.nodes["modes"])).tolist()

    def attributes(self, votes: str) -> dict[str, list]:
        """The attributes of a node; `votes` is target or class."""
        return {
            **{f"nodes_{name}": values for name, values in self.nodes.items()},
            **{f"{votes}_{name}": values for name, values in self.votes.items()},
        }
