"""The optimizers of the training domain: Adagrad, Adam, Momentum. One node steps any number of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .builder import Builder, OperatorError
from .primitives import Tensor
from .registry import FLOATS, check_types, op

DOMAIN = "ai.onnx.preview.training"
Step = Callable[..., Sequence[Tensor]]


def _each(t: Builder, inputs: Sequence[Tensor], kinds: int, step: Step) -> tuple[Tensor, ...]:
    """A step of every tensor: `kinds` of inputs, all tensors first, then all gradients, then states; outputs likewise."""
    if not inputs or len(inputs) % kinds:
        raise OperatorError(f"{len(inputs)} inputs after R and T are no multiple of {kinds}")
    count = len(inputs) // kinds
    made = []
    for i in range(count):
        mine = inputs[i::count]
        check_types(mine, FLOATS)
        if len({x.shape for x in mine}) > 1:
            raise OperatorError(f"a tensor, its gradient and its states must have one shape, not {[list(x.shape) for x in mine]}")
        made.append(step(*mine))
    return tuple(results[kind] for kind in range(len(made[0])) for results in made)


def _number(t: Builder, text: str, *inputs: Tensor) -> Tensor:
    """A scalar of R and T, in float64: powers near 1 are subtracted from 1."""
    return t.map(text, *(t.cast(t.reshape(x, ()), np.float64) for x in inputs))


def _regularised(t: Builder, x: Tensor, gradient: Tensor, norm_coefficient: float) -> Tensor:
    return t.map(f"{norm_coefficient!r} * a + b", x, gradient) if norm_coefficient else gradient


@op("Adagrad", domain=DOMAIN)
def adagrad(t: Builder, R, T, *inputs, decay_factor=0.0, epsilon=1e-6, norm_coefficient=0.0):
    """Tensors less their gradients, by the root of the sum of all squared gradients so far; and those sums."""
    rate = _number(t, f"a / (1.0 + b * {decay_factor!r})", R, T)

    def step(x: Tensor, gradient: Tensor, squares: Tensor) -> Sequence[Tensor]:
        g = _regularised(t, x, gradient, norm_coefficient)
        new = t.map("a + b * b", squares, g)
        return t.map(f"a - d * b / (sqrt(c) + {epsilon!r})", x, g, new, t.cast(rate, x.dtype)), new

    return _each(t, inputs, 3, step)


@op("Adam", domain=DOMAIN)
def adam(
    t: Builder, R, T, *inputs, alpha=0.9, beta=0.999, epsilon=1e-6, norm_coefficient=0.0, norm_coefficient_post=0.0
):  # fmt: skip
    """Tensors less their gradients' moving mean, by the root of their squares' moving mean; and both means."""
    rate = _number(
        t, f"select(b > 0.0, a * sqrt(1.0 - pow(splat_f64({beta!r}), b)) / (1.0 - pow(splat_f64({alpha!r}), b)), a)", R, T
    )

    def step(x: Tensor, gradient: Tensor, mean: Tensor, squares: Tensor) -> Sequence[Tensor]:
        g = _regularised(t, x, gradient, norm_coefficient)
        new = t.map(f"{alpha!r} * a + {1 - alpha!r} * b", mean, g)
        square = t.map(f"{beta!r} * a + {1 - beta!r} * (b * b)", squares, g)
        y = t.map(f"a - d * (b / (sqrt(c) + {epsilon!r}))", x, new, square, t.cast(rate, x.dtype))
        return t.map(f"a * {1 - norm_coefficient_post!r}", y) if norm_coefficient_post else y, new, square

    return _each(t, inputs, 4, step)


@op("Momentum", domain=DOMAIN)
def momentum(t: Builder, R, T, *inputs, alpha, beta, mode, norm_coefficient):
    """Tensors less a running sum of their gradients; `nesterov`: less what that sum will be if the gradient stays."""
    if mode not in ("standard", "nesterov"):
        raise OperatorError(f"mode must be standard or nesterov, not {mode!r}")
    rate, share = _number(t, "a", R), _number(t, f"select(a > 0.0, splat_f64({beta!r}), splat_f64(1.0))", T)

    def step(x: Tensor, gradient: Tensor, sums: Tensor) -> Sequence[Tensor]:
        g = _regularised(t, x, gradient, norm_coefficient)
        new = t.map(f"{alpha!r} * a + c * b", sums, g, t.cast(share, x.dtype))
        ahead = new if mode == "standard" else t.map(f"a + {alpha!r} * b", g, new)
        return t.map("a - b * c", x, ahead, t.cast(rate, x.dtype)), new

    return _each(t, inputs, 3, step)
