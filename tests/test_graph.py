"""The graph: what bodies capture, what is read how often, how it prints."""

from __future__ import annotations

import numpy as np

from jitrt.fusion.graph import Graph, Node, OptionalType, SequenceType, TensorType, uses

FLOAT = np.dtype("float32")


def body(nodes: list[Node], outputs: list[str], inputs: list[str] | None = None, **constants: np.ndarray) -> Graph:
    return Graph(inputs or [], outputs, nodes, constants)


def test_a_body_captures_what_it_does_not_define_in_order_of_first_use():
    inner = body([Node("Add", ["b", "a"], ["t"]), Node("Mul", ["t", "w"], ["y"])], ["y"], w=np.ones(1))
    assert inner.captured() == ["b", "a"]


def test_a_body_whose_nodes_are_unsorted_does_not_capture_its_own_values():
    inner = body([Node("Relu", ["t"], ["y"]), Node("Neg", ["a"], ["t"])], ["y"])
    assert inner.captured() == ["a"]


def test_what_a_nested_body_captures_is_captured_by_the_body_around_it_unless_that_defines_it():
    innermost = body([Node("Add", ["far", "near"], ["y"])], ["y"])
    middle = body([Node("Neg", ["i"], ["near"]), Node("If", ["c"], ["z"], {"then_branch": innermost})], ["z"], ["i"])
    assert middle.captured() == ["c", "far"]


def test_an_output_that_a_body_hands_through_is_captured():
    assert body([], ["x"]).captured() == ["x"]
    assert body([], ["x"], ["x"]).captured() == []


def test_absent_optional_inputs_are_not_captured():
    assert body([Node("Clip", ["x", "", "high"], ["y"])], ["y"]).captured() == ["x", "high"]


def test_uses_counts_nodes_bodies_and_outputs():
    inner = body([Node("Neg", ["t"], ["y"])], ["y"])
    graph = Graph(["x"], ["t"], [Node("Add", ["x", "x"], ["t"]), Node("If", ["x"], ["z"], {"then_branch": inner})])
    assert uses(graph) == {"x": 3, "t": 2}


def test_a_copy_has_lists_of_its_own():
    graph = Graph(["x"], ["y"], [Node("Relu", ["x"], ["y"])], {"w": np.ones(2)})
    copy = graph.copy(outputs=["x"])
    copy.nodes.clear()
    copy.constants.clear()
    assert (len(graph.nodes), list(graph.constants), graph.outputs, copy.outputs) == (1, ["w"], ["y"], ["x"])


def test_a_graph_prints_one_line_a_node_with_types_where_they_are_known():
    inner = body([Node("Neg", ["t"], ["u"])], ["u"])
    graph = Graph(
        ["x"], ["y"],
        [
            Node("Add", ["x", "w"], ["t"], name="/add"),
            Node("If", ["c"], ["y", ""], {"then_branch": inner, "k": np.zeros((3, 4), np.float32), "axis": -1}),
            Node("Gelu", ["y"], ["z"], domain="my.domain"),
        ],
        types={"x": TensorType(FLOAT, ("N", None, 3))}, name="g",
    )  # fmt: skip
    assert str(graph).splitlines() == [
        "graph g(x: float32[N,?,3])",
        "  t = Add(x, w)",
        "  y, _ = If(c, then_branch=graph<1 nodes>, k=float32[3,4], axis=-1)",
        "  z = my.domain::Gelu(y)",
        "  return y",
    ]
    assert [n.label for n in graph.nodes] == ["Add '/add'", "If 'y'", "Gelu 'z'"]


def test_types_print_as_in_messages():
    strings = TensorType(np.dtype(object), None)
    assert str(SequenceType(OptionalType(strings))) == "seq(optional(string[...]))"
