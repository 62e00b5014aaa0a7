"""Rewrites of the imported graph, made once per session without shapes; applied in the order of `PASSES`.

1. `fold_batch_norm`: Conv / ConvTranspose / Gemm followed by BatchNormalization on constants -> scaled weights, new bias.
2. `prune`: nodes that no output needs go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .graph import Graph, Node, uses

Pass = Callable[[Graph], Graph]


def rewrite(graph: Graph) -> Graph:
    """All passes in order."""
    for each in PASSES:
        graph = each(graph)
    return graph


def fold_batch_norm(graph: Graph) -> Graph:
    """y = (conv(x, W) + b - mean) * s + beta, s = scale / sqrt(var + eps)  ->  conv(x, W * s) + (b - mean) * s + beta.

    Left alone: training mode, weights that another node reads, outputs of the graph, weights a run may override.
    """
    counts = uses(graph)
    makers = {out: node for node in graph.nodes for out in node.outputs}
    fixed = {name for name in graph.constants if name not in graph.overridable}
    constants, replaced, gone = dict(graph.constants), {}, set()
    for norm in graph.nodes:
        conv = makers.get(norm.inputs[0]) if norm.op == "BatchNormalization" and norm.domain == "" else None
        if conv is None or conv.op not in ("Conv", "ConvTranspose") or conv.domain or counts[norm.inputs[0]] != 1:
            continue
        if not fixed.issuperset([*norm.inputs[1:], *(n for n in conv.inputs[1:] if n)]) or not _is_inference(norm):
            continue
        folded = _folded(conv, norm, constants)
        if folded is not None:
            weight, bias = f"{norm.outputs[0]}/weight", f"{norm.outputs[0]}/bias"
            constants[weight], constants[bias] = folded
            name = conv.name or norm.name
            replaced[id(norm)] = Node(conv.op, [conv.inputs[0], weight, bias], norm.outputs[:1], conv.attributes, name)
            gone.add(id(conv))
    nodes = [replaced.get(id(n), n) for n in graph.nodes if id(n) not in gone]
    return graph.copy(nodes=nodes, constants=constants)


def _is_inference(norm: Node) -> bool:
    extra = [out for out in norm.outputs[1:] if out]
    return not norm.attributes.get("training_mode", 0) and not extra and norm.attributes.get("spatial", 1) == 1


def _folded(conv: Node, norm: Node, constants: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    scale, shift, mean, variance = (constants[n].astype(np.float64) for n in norm.inputs[1:5])
    weight = constants[conv.inputs[1]]
    group = conv.attributes.get("group", 1)
    axis = 0 if conv.op == "Conv" else 1
    if weight.dtype not in (np.float32, np.float64) or (axis == 1 and group != 1) or weight.shape[axis] != scale.size:
        return None
    bias = constants[conv.inputs[2]].astype(np.float64) if len(conv.inputs) > 2 and conv.inputs[2] else 0.0
    factor = scale / np.sqrt(variance + norm.attributes.get("epsilon", 1e-5))
    along = [1] * weight.ndim
    along[axis] = -1
    scaled = weight * factor.reshape(along).astype(weight.dtype)
    return scaled, ((bias - mean) * factor + shift).astype(weight.dtype)


def prune(graph: Graph) -> Graph:
    """Only what the outputs need."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(n for n in node.inputs if n)
            for body in node.subgraphs():
                needed.update(body.captured())
    return graph.copy(nodes=kept[::-1])


PASSES: tuple[Pass, ...] = (fold_batch_norm, prune)
