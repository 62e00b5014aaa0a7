"""Compiled plans against the same trace run unfused with numpy, over random graphs (see `fusion_graphs`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from fusion_graphs import Problem, problems
from hypothesis import HealthCheck, given, settings
from kernel_problems import convolution

from jitrt.engine import Engine
from jitrt.fusion.graph import Graph, Node
from jitrt.fusion.interpret import Interpreter


def reference(graph: Graph, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs, node by node with numpy: nothing is folded, shared or fused across nodes."""
    values = {**graph.constants, **feeds}
    for node in graph.nodes:
        inputs = {name: values[name] for name in node.inputs}
        if node.op == "Conv":
            results = [_conv(*inputs.values(), **node.attributes)]
        else:
            results = Interpreter(Graph(list(inputs), node.outputs, [node], opsets=graph.opsets)).run(inputs)
        values.update(zip(node.outputs, results))
    return [values[name] for name in graph.outputs]


def _conv(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *, strides, pads, group) -> np.ndarray:
    spatial = len(strides)
    before, after = pads[:spatial], pads[spatial:]
    made = convolution(x, w, strides, [1] * spatial, before, after, group)
    return (made if b is None else made + b.reshape(-1, *[1] * spatial)).astype(x.dtype)


@contextmanager
def guarded_memory() -> Iterator[None]:
    """Workspace of runs lies between bytes that no kernel may change."""
    blocks: list[tuple[np.ndarray, int, int]] = []

    def aligned(nbytes: int) -> np.ndarray:
        owner = np.full(nbytes + 3 * 64, 0xA5, np.uint8)
        at = 64 + -owner.ctypes.data % 64
        blocks.append((owner, at, at + nbytes))
        return owner[at : at + nbytes]

    with mock.patch("jitrt.executor.aligned", aligned):
        yield
    for owner, first, last in blocks:
        assert (owner[:first] == 0xA5).all(), "written before the workspace"
        assert (owner[last:] == 0xA5).all(), "written after the workspace"


def assert_agrees(problem: Problem, threads: int) -> None:
    """Every output of the compiled plan is what numpy computes node by node."""
    graph = problem.graph
    with guarded_memory():
        got = Engine(graph, threads).run(problem.feeds, graph.outputs)
    for name, g, e in zip(graph.outputs, got, reference(graph, problem.feeds), strict=True):
        x = problem.known[name]
        assert (g.dtype, g.shape) == (e.dtype, e.shape) == (x.dtype, x.shape), name
        if x.dtype.kind != "f":
            np.testing.assert_array_equal(g, e, err_msg=name)
            continue
        g, e = g.astype(np.float64), e.astype(np.float64)
        largest = max(np.abs(e[np.isfinite(e)]).max(initial=0), 1)
        limit = 3e-2 if x.coarse else 1e-3
        np.testing.assert_allclose(g, e, rtol=limit, atol=limit * min(x.scale, largest), err_msg=name)


@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(problems())
@pytest.mark.parametrize("threads", [1, 2])
def test_fused_graphs_agree_with_numpy(threads: int, problem: Problem) -> None:
    assert_agrees(problem, threads)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(2, 7, 3), (1, 16, 3), (5, 8, 9), (16, 4, 1)])
def test_products_with_transposed_weights_stay_within_their_workspace(rows: int, inner: int, columns: int, dtype: type) -> None:
    nodes = [Node("Transpose", ["b"], ["t"], {"perm": [1, 0]}), Node("MatMul", ["a", "t"], ["y"])]
    with guarded_memory():
        engine = Engine(Graph(["a", "b"], ["y"], nodes, opsets={"": 20}), 1)
        (y,) = engine.run({"a": np.ones((rows, inner), dtype), "b": np.ones((columns, inner), dtype)}, ["y"])
    np.testing.assert_array_equal(y, np.full((rows, columns), inner, dtype))
