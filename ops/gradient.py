"""Gradient of the training domain: reverse-mode differentiation of what a part of the graph is lowered to.

1. The nodes between `xs`, `zs` and `y` are lowered once more, on the node's inputs; so every operator that is lowered to
   elementwise expressions, sums, products, extrema, views, joins and matrix products can be differentiated.
2. The primitives are walked backwards; each passes the gradient of its output on to its inputs. An elementwise text
   is differentiated symbolically, from its root down to its names.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .builder import Builder, OperatorError
from .evaluate import register_name
from .matmul import product
from .primitives import Expand, Fold, Join, Kernel, Map, Move, Opaque, Permute, Primitive, Reduce, Reshape, Slice, Tensor
from .registry import FLOATS, op

if TYPE_CHECKING:
    from ..fusion.graph import Node
    from ..fusion.trace import Tracer


@op("Gradient", domain="ai.onnx.preview.training")
def gradient(t: Tracer, *inputs, xs, y, zs=None):
    """The derivatives of the sum of y by each of `xs`, at the inputs, which stand for `xs` and then `zs`."""
    names = [*xs, *(zs or [])]
    if len(names) != len(inputs):
        raise OperatorError(f"{len(inputs)} inputs stand for the {len(names)} values in xs and zs")
    nodes = _between(t, names, y)
    constants = {n for node in nodes for n in node.inputs if n in t.constants and n not in names}
    weights = [n for n in constants if t.constants[n].dtype.kind in FLOATS]
    values = [_leaf(t, x) for x in [*inputs, *(t.lookup(n) for n in weights)]]
    kept = {n: t.constants[n] for n in constants.difference(weights)}
    body = t.graph.copy(inputs=[*names, *weights], outputs=[y], nodes=nodes, constants=kept)
    mark = len(t.primitives)
    (result,) = t.inline(body, dict(zip(body.inputs, values)))
    wanted = values[: len(xs)]
    found = _backwards(t, t.primitives[mark:], result, wanted)
    return tuple(found.get(id(x)) or t.expand(t.constant(0, x.dtype), x.shape) for x in wanted)


def _between(t: Tracer, names: Sequence[str], y: str) -> list[Node]:
    """The nodes that make y from the named values, in order."""
    needed, nodes = {y}, []
    for node in reversed(t.graph.nodes):
        if needed.difference(names).intersection(node.outputs):
            nodes.append(node)
            needed.update(node.inputs)
    return nodes[::-1]


def _leaf(t: Builder, x: Tensor | Opaque) -> Tensor:
    """A value of its own, which nothing folds: the same tensor may stand for two variables, or be a constant."""
    if isinstance(x, Opaque):
        return t.value(x)
    leaf = Tensor(x.dtype, x.shape)
    leaf.source = Map("a", (x,), leaf, (t.node_name,))
    t.primitives.append(leaf.source)
    return leaf


# -- backwards through primitives
def _backwards(t: Builder, primitives: list[Primitive], result: Tensor, wanted: list[Tensor]) -> dict[int, Tensor]:
    """id(value) -> gradient, for all values between."""
    live = {id(x) for x in wanted}
    for p in primitives:
        if any(id(x) in live for x in p.inputs):
            live.update(id(out) for out in p.outputs)
    gradients = {id(result): t.expand(t.constant(1, result.dtype), result.shape)}
    for p in reversed(primitives):
        upstream = gradients.get(id(p.outputs[0]))
        if upstream is None or id(p.outputs[0]) not in live:
            continue
        for x, part in zip(p.inputs, _parts(t, p, upstream)):
            if part is not None and id(x) in live:
                part = t.cast(part, x.dtype)
                known = gradients.get(id(x))
                gradients[id(x)] = part if known is None else t.map("a + b", known, part)
    return gradients


def _parts(t: Builder, p: Primitive, upstream: Tensor) -> list[Tensor | None]:
    """The gradient of each input of a primitive (None: it does not depend on it)."""
    if isinstance(p, Map):
        return _through_map(t, p, upstream)
    if isinstance(p, Reduce):
        return [_through_fold(t, p, upstream)]
    if isinstance(p, Move):
        return [_through_view(t, p, upstream)]
    if isinstance(p, Join):
        return [t.slice(upstream, start, [1] * x.rank, x.shape) for x, start in zip(p.inputs, p.starts)]
    if isinstance(p, Kernel) and p.name == "matmul":
        a, b = p.inputs
        g = t.reshape(upstream, [*a.shape[:-1], b.shape[-1]])
        return [product(t, g, _transposed(t, b)), product(t, _transposed(t, a), g)]
    what = p.name if isinstance(p, Kernel) else p.reason
    raise OperatorError(f"{', '.join(p.nodes)}: no derivative of {what!r} is known")


def _transposed(t: Builder, x: Tensor) -> Tensor:
    return t.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


def _through_fold(t: Builder, p: Reduce, upstream: Tensor) -> Tensor | None:
    x = p.input
    if p.fold is Fold.ADD:
        return t.expand(upstream, x.shape)
    if p.fold is Fold.MUL:
        # of the others: with one zero only that one has a gradient, with two none has
        zero = t.map("a == 0", x, dtype="bool")
        count = t.reduce(Fold.ADD, t.cast(zero, x.dtype), p.axes)
        others = t.reduce(Fold.MUL, t.map("select(a, 1, b)", zero, x, dtype=x.dtype), p.axes)
        text = "c * select(d == 0, e / b, select((d == 1) & a, e, 0))"
        return t.map(text, zero, x, upstream, count, others, dtype=x.dtype)
    if p.fold in (Fold.MIN, Fold.MAX):
        best = t.cast(t.map("a == b", x, p.output, dtype="bool"), x.dtype)
        return t.map("a * b / c", best, upstream, t.reduce(Fold.ADD, best, p.axes))
    return None


def _through_view(t: Builder, p: Move, upstream: Tensor) -> Tensor:
    x, how = p.input, p.how
    if isinstance(how, Reshape):
        return t.reshape(upstream, x.shape)
    if isinstance(how, Permute):
        return t.transpose(upstream, [int(d) for d in np.argsort(how.axes)])
    if isinstance(how, Expand):
        return _summed_to(t, upstream, x)
    return _unsliced(t, upstream, how, x)


def _unsliced(t: Builder, g: Tensor, how: Slice, x: Tensor) -> Tensor:
    """Each element where the slice took it from, zeros elsewhere."""
    starts = list(how.starts)
    for d, (step, size) in enumerate(zip(how.steps, how.sizes)):
        if size == 0:
            return t.expand(t.constant(0, g.dtype), x.shape)
        if step < 0:
            first, steps = [0] * g.rank, [1] * g.rank
            first[d], steps[d], starts[d] = size - 1, -1, starts[d] + step * (size - 1)
            g = t.slice(g, first, steps, g.shape)
        if abs(step) > 1 and size > 1:
            spread = t.unsqueeze(g, [d + 1])
            after = [abs(step) - 1 if i == d + 1 else 0 for i in range(spread.rank)]
            wide = t.pad(spread, [0] * spread.rank, after)
            g = t.reshape(wide, [n * abs(step) if i == d else n for i, n in enumerate(g.shape)])
            g = t.take(g, d, 0, (size - 1) * abs(step) + 1)
    return t.pad(g, starts, [n - b - m for n, b, m in zip(x.shape, starts, g.shape)])


def _summed_to(t: Builder, g: Tensor, x: Tensor) -> Tensor:
    """The sum over what was broadcast."""
    lead = g.rank - x.rank
    axes = [d for d, n in enumerate(g.shape) if d < lead or (x.shape[d - lead] == 1 and n != 1)]
    return t.reshape(t.reduce(Fold.ADD, g, axes) if axes else g, x.shape)


# -- elementwise texts
def _through_map(t: Builder, p: Map, upstream: Tensor) -> list[Tensor | None]:
    letter = chr(ord("a") + len(p.inputs))
    chain = _Chain({chr(ord("a") + i): x.dtype for i, x in enumerate(p.inputs)})
    chain.push(ast.parse(p.text, mode="eval").body, letter)
    made: list[Tensor | None] = []
    for i, x in enumerate(p.inputs):
        terms = chain.terms.get(chr(ord("a") + i))
        if not terms or x.dtype.kind not in FLOATS:
            made.append(None)
            continue
        made.append(_summed_to(t, t.map(" + ".join(terms), *p.inputs, upstream, dtype=x.dtype), x))
    return made


class _Chain:
    """The chain rule from the root of an expression down: `terms` of each name's gradient, given the root's."""

    def __init__(self, dtypes: dict[str, np.dtype]) -> None:
        self.dtypes, self.terms = dtypes, {}

    def push(self, node: ast.expr, up: str) -> None:
        """Pass `up`, the text of the gradient of a subexpression, on to its parts."""
        if isinstance(node, ast.Name):
            if node.id in self.dtypes:
                self.terms.setdefault(node.id, []).append(f"({up})")
        elif isinstance(node, ast.UnaryOp):
            self.push(node.operand, f"-({up})" if isinstance(node.op, ast.USub) else up)
        elif isinstance(node, ast.BinOp):
            self._apply(type(node.op).__name__, [node.left, node.right], up)
        elif isinstance(node, ast.Call):
            self._call(node.func.id, node.args, up)
        elif not isinstance(node, ast.Constant | ast.Compare):
            raise OperatorError(f"no derivative of {ast.unparse(node)!r} is known")

    def _call(self, name: str, args: list[ast.expr], up: str) -> None:
        if not name.startswith(("to_", "splat_")):
            self._apply(name, args, up)
        elif isinstance(args[0], ast.Name) and self.dtypes[args[0].id].kind in FLOATS:
            self.push(args[0], f"to_{register_name(self.dtypes[args[0].id])}({up})")

    def _apply(self, name: str, args: list[ast.expr], up: str) -> None:
        if name not in _DERIVATIVES:
            raise OperatorError(f"no derivative of {name!r} is known")
        texts = [f"({ast.unparse(arg)})" for arg in args]
        for arg, rule in zip(args, _DERIVATIVES[name]):
            if rule:
                self.push(arg, rule.format(*texts, u=f"({up})"))


_TANH_GELU = "tanh(0.7978845608028654 * ({0} + 0.044715 * {0} * {0} * {0}))"
# per argument {0}, {1} ...: the gradient of it from that of the result {u}; empty: none
_DERIVATIVES: dict[str, tuple[str, ...]] = {
    "Add": ("{u}", "{u}"), "Sub": ("{u}", "-{u}"), "Mult": ("{u} * {1}", "{u} * {0}"),
    "Div": ("{u} / {1}", "-{u} * {0} / ({1} * {1})"), "Mod": ("{u}", "-{u} * trunc({0} / {1})"),
    "BitAnd": ("", ""), "BitOr": ("", ""), "BitXor": ("", ""),
    "fma": ("{u} * {1}", "{u} * {0}", "{u}"), "fmod": ("{u}", "-{u} * trunc({0} / {1})"),
    "floor_mod": ("{u}", "-{u} * floor({0} / {1})"),
    "pow": ("{u} * {1} * pow({0}, {1} - 1.0)", "select({0} > 0, {u} * pow({0}, {1}) * log({0}), 0)"),
    "select": ("", "select({0}, {u}, 0)", "select({0}, 0, {u})"),
    **dict.fromkeys(("maximum", "at_least"), ("select({0} > {1}, {u}, 0)", "select({0} > {1}, 0, {u})")),
    **dict.fromkeys(("minimum", "at_most"), ("select({0} < {1}, {u}, 0)", "select({0} < {1}, 0, {u})")),
    **dict.fromkeys(("floor", "ceil", "trunc", "rint", "sign", "isnan"), ("",)),
    "absolute": ("{u} * sign({0})",), "sqrt": ("{u} * 0.5 / sqrt({0})",),
    **dict.fromkeys(("exp", "exp_flushed", "expm1"), ("{u} * exp({0})",)), "exp2": ("{u} * exp2({0}) * 0.6931471805599453",),
    "log": ("{u} / {0}",), "log1p": ("{u} / (1.0 + {0})",), "log2": ("{u} * 1.4426950408889634 / {0}",),
    "log10": ("{u} * 0.4342944819032518 / {0}",),
    "sin": ("{u} * cos({0})",), "cos": ("-{u} * sin({0})",), "tan": ("{u} / (cos({0}) * cos({0}))",),
    "asin": ("{u} / sqrt(1.0 - {0} * {0})",), "acos": ("-{u} / sqrt(1.0 - {0} * {0})",), "atan": ("{u} / (1.0 + {0} * {0})",),
    "sinh": ("{u} * cosh({0})",), "cosh": ("{u} * sinh({0})",), "tanh": ("{u} * (1.0 - tanh({0}) * tanh({0}))",),
    "asinh": ("{u} / sqrt({0} * {0} + 1.0)",), "acosh": ("{u} / sqrt({0} * {0} - 1.0)",), "atanh": ("{u} / (1.0 - {0} * {0})",),
    "sigmoid": ("{u} * sigmoid({0}) * (1.0 - sigmoid({0}))",), "softplus": ("{u} * sigmoid({0})",),
    "erf": ("{u} * 1.1283791670955126 * exp(-{0} * {0})",),
    "gelu": ("{u} * (0.5 * (1.0 + erf({0} * 0.7071067811865476)) + {0} * 0.3989422804014327 * exp(-0.5 * {0} * {0}))",),
    "gelu_tanh": (
        f"{{u}} * (0.5 * (1.0 + {_TANH_GELU}) + {{0}} * (1.0 - {_TANH_GELU} * {_TANH_GELU}) * 0.3989422804014327"
        " * (1.0 + 0.134145 * {0} * {0}))",
    ),
}  # fmt: skip
