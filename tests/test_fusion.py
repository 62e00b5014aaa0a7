"""Compiled plans against the same trace run unfused with numpy, over random graphs (see `fusion_graphs`)."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_graphs import Problem, problems
from hypothesis import HealthCheck, given, settings
from kernel_problems import convolution

from jitrt.engine import Engine
from jitrt.fusion.graph import Graph
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


def assert_agrees(problem: Problem, threads: int) -> None:
    """Every output of the compiled plan is what numpy computes node by node."""
    graph = problem.graph
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
