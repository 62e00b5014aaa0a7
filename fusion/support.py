"""Which nodes of a graph nobody can run: the operator is published, but nothing here or in onnx computes it."""

from __future__ import annotations

import importlib
from functools import lru_cache

from ..ops import registry
from .graph import Graph

_REFERENCES = {
    "": "onnx.reference.ops",
    "ai.onnx.ml": "onnx.reference.ops.aionnxml",
    "ai.onnx.preview.training": "onnx.reference.ops.aionnx_preview_training",
}


def unsupported(graph: Graph) -> list[str]:
    """One sentence a node, naming node, domain, operator and version, and how to supply it."""
    problems: list[str] = []
    for node in graph.nodes:
        version = node.version or graph.opsets.get(node.domain, 1)
        if registry.find(node.domain, node.op, version) is None and not _is_defined(node.domain, node.op, version):
            problems.append(
                f"{node.label}: nothing computes {node.domain or 'ai.onnx'}::{node.op} (opset {version}). To supply it, "
                f"register what it means: @jitrt.ops.registry.op({node.op!r}, domain={node.domain!r})"
            )
        for body in node.subgraphs():
            problems += unsupported(body.copy(opsets=body.opsets or graph.opsets))
    return problems


@lru_cache(maxsize=1024)
def _is_defined(domain: str, name: str, version: int) -> bool:
    """Whether onnx has a function body or a reference implementation of the operator."""
    from onnx import defs

    try:
        schema = defs.get_schema(name, max_inclusive_version=version, domain=domain)
    except defs.SchemaError:
        return False
    if schema.has_function or schema.has_context_dependent_function:
        return True
    if domain not in _REFERENCES:
        return False
    try:
        return importlib.import_module(_REFERENCES[domain]).load_op(domain, name, version) is not None
    except (ImportError, LookupError, NotImplementedError, ValueError, RuntimeError):
        return False
