"""Which nodes of a graph nobody can run: neither a registry row nor the installed onnx package knows the operator."""

from __future__ import annotations

from ..ops import fallback, registry
from .graph import Graph


def unknown_operators(graph: Graph) -> list[str]:
    """One sentence a node, naming node, domain, operator and version, and how to supply it."""
    problems: list[str] = []
    for node in graph.nodes:
        version = graph.opsets.get(node.domain, 1)
        if registry.find(node.domain, node.op, version) is None and not fallback.is_known(node.domain, node.op, version):
            problems.append(f"{node.label}: {fallback.UnknownOperator(node.domain, node.op, version)}")
        for body in node.subgraphs():
            problems += unknown_operators(body.copy(opsets=body.opsets or graph.opsets))
    return problems
