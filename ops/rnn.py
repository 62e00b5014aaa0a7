"""Recurrent layers: LSTM, GRU, RNN. The input's part of all steps is one matrix product; `kernels/rnn` runs the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import evaluate
from .builder import Builder, Declined, OperatorError
from .kernels import rnn as kernels
from .matmul import product
from .primitives import LaunchContext, Operand, Tensor
from .registry import op

# activation -> defaults of its alpha and beta (None: it takes none)
_ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0), "elu": (1.0, None), "hardsigmoid": (0.2, 0.5), "leakyrelu": (0.01, None), "relu": (None, None),
    "scaledtanh": (1.0, 1.0), "sigmoid": (None, None), "softplus": (None, None), "softsign": (None, None),
    "tanh": (None, None), "thresholdedrelu": (1.0, None),
}  # fmt: skip
_DEFAULTS = {"lstm": ("Sigmoid", "Tanh", "Tanh"), "gru": ("Sigmoid", "Tanh"), "gru_linear": ("Sigmoid", "Tanh"), "rnn": ("Tanh",)}


@op("LSTM", since=1)
def lstm(
    t: Builder, X, W, R, B=None, sequence_lens=None, initial_h=None, initial_c=None, P=None, *,
    activation_alpha=None, activation_beta=None, activations=None, clip=None, direction="forward", hidden_size=None,
    input_forget=0, layout=0, output_sequence=0,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Long short-term memory: gates i, o, f and the new value c."""
    functions = _functions("lstm", direction, activations, activation_alpha, activation_beta)
    layer = _Layer(t, "lstm", X, W, R, B, sequence_lens, direction, layout, functions, clip, bool(input_forget))
    return layer.run(initial_h, initial_c, P)


@op("GRU", since=1)
def gru(
    t: Builder, X, W, R, B=None, sequence_lens=None, initial_h=None, *, activation_alpha=None, activation_beta=None,
    activations=None, clip=None, direction="forward", hidden_size=None, layout=0, linear_before_reset=0, output_sequence=0,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gated recurrent unit: gates z, r and the new value h."""
    kind = "gru_linear" if linear_before_reset else "gru"
    functions = _functions(kind, direction, activations, activation_alpha, activation_beta)
    return _Layer(t, kind, X, W, R, B, sequence_lens, direction, layout, functions, clip).run(initial_h)


@op("RNN", since=1)
def rnn(
    t: Builder, X, W, R, B=None, sequence_lens=None, initial_h=None, *, activation_alpha=None, activation_beta=None,
    activations=None, clip=None, direction="forward", hidden_size=None, layout=0, output_sequence=0,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The plain recurrent layer: h = f(W x + R h + b)."""
    functions = _functions("rnn", direction, activations, activation_alpha, activation_beta)
    return _Layer(t, "rnn", X, W, R, B, sequence_lens, direction, layout, functions, clip).run(initial_h)


def _functions(
    kind: str, direction: str, names: Sequence[str] | None, alphas: Sequence[float] | None, betas: Sequence[float] | None
) -> list[str]:
    """One text a direction, as `kernels.Problem` has it; alphas and betas go to the activations that take one, in order."""
    if direction not in ("forward", "reverse", "bidirectional"):
        raise OperatorError(f"direction must be forward, reverse or bidirectional, not {direction!r}")
    each, count = len(_DEFAULTS[kind]), 2 if direction == "bidirectional" else 1
    names = list(names or _DEFAULTS[kind] * count)
    if len(names) != each * count:
        raise OperatorError(f"{len(names)} activations for {count} directions of {each}")
    unknown = [name for name in names if name.lower() not in _ACTIVATIONS]
    if unknown:
        raise OperatorError(f"unknown activation {unknown[0]!r}")
    left, right = iter(alphas or ()), iter(betas or ())
    texts = []
    for name in names:
        alpha, beta = _ACTIVATIONS[name.lower()]
        first = 0.0 if alpha is None else next(left, alpha)
        second = 0.0 if beta is None else next(right, beta)
        texts.append(f"{name},{float(first)!r},{float(second)!r}")
    return [";".join(texts[i : i + each]) for i in range(0, len(texts), each)]


class _Layer:
    """One recurrent layer: its sizes and its inputs, computed in float32 or float64."""

    def __init__(
        self, t: Builder, kind: str, X: Tensor, W: Tensor, R: Tensor, B: Tensor | None, lengths: Tensor | None, direction: str,
        layout: int, functions: list[str], clip: float | None, input_forget: bool = False,
    ) -> None:  # fmt: skip
        if X.dtype.name not in ("float32", "float64", "float16", "bfloat16"):
            raise Declined("recurrent layers of integers")
        self.t, self.kind, self.layout, self.lengths = t, kind, layout, lengths
        self.dtype, self.wide = X.dtype, np.dtype(np.float64 if X.dtype == np.float64 else np.float32)
        gates, directions = sum(kernels.GATES[kind]), len(functions)
        if X.rank != 3 or R.rank != 3 or W.rank != 3:
            raise OperatorError("input and weights must have 3 dimensions")
        self.hidden = hidden = R.shape[2]
        if R.shape[:2] != (directions, gates * hidden) or W.shape != (directions, gates * hidden, X.shape[2]):
            raise OperatorError(
                f"weights {list(W.shape)} and {list(R.shape)} do not fit {directions} directions of {gates} gates and an "
                f"input {list(X.shape)}"
            )
        self.steps, self.batch = (X.shape[1], X.shape[0]) if layout else X.shape[:2]
        self.X, self.W, self.R = (t.cast(x, self.wide) for x in (X, W, R))
        self.B = None if B is None else t.cast(B, self.wide)
        self.problem = kernels.Problem(
            kind, evaluate.memory_name(self.wide), functions, self.steps, self.batch, hidden, direction == "reverse",
            float(clip) if clip else np.inf, input_forget,
        )  # fmt: skip

    def run(self, initial_h: Tensor | None, initial_c: Tensor | None = None, peephole: Tensor | None = None) -> tuple[Tensor, ...]:
        """(Y, Y_h) or (Y, Y_h, Y_c)."""
        t, p, count = self.t, self.problem, 3 if self.kind == "lstm" else 2
        d = p.directions
        every, last = (self.steps, d, self.batch, self.hidden), (d, self.batch, self.hidden)
        order, turned = (0, 2, 1, 3), (0, 1, 2)
        if self.layout:
            every, last = (self.batch, self.steps, d, self.hidden), (self.batch, d, self.hidden)
            order, turned = (0, 1, 2, 3), (1, 0, 2)
        states = [self._state(x, last) for x in (initial_h, initial_c)[: count - 1]]
        if self.steps == 0:
            return tuple(t.cast(x, self.dtype) for x in (t.constant(np.zeros(every, self.wide)), *states))
        projected, extra = self._projected(), self._extra(peephole)
        packed = [None, None] if self.R.is_constant else self._packed()
        lengths = None if self.lengths is None else t.cast(self.lengths, np.int32)
        inputs = (projected, states[0], states[1] if count == 3 else None, lengths, extra, *packed)

        def launch(c: LaunchContext) -> list:
            made = [_states(out, turned) for out in c.outputs[1:]]
            weights = self._weights(c)
            y = c.outputs[0].strides if not self.layout else tuple(c.outputs[0].strides[i] for i in (1, 2, 0, 3))
            row = projected.shape[1] * self.wide.itemsize
            steps = (row, self.steps * row) if self.layout else (self.batch * row, row)
            series = kernels.Series(c.inputs[0].address, steps[0], row // d, steps[1])
            others = [x.address if x else 0 for x in c.inputs[3:5]]
            return kernels.recurrence(
                p, series, weights, _states(c.inputs[1], turned), c.inputs[2] and _states(c.inputs[2], turned),
                kernels.Series(c.outputs[0].address, *y[:3]), made[0], made[1] if count == 3 else None, lengths=others[0],
                extra=others[1], alloc=c.alloc, threads=c.threads,
                label=f"{d}x{self.steps} steps of {self.batch}x{self.hidden}",
            )  # fmt: skip

        made = t.kernel(
            self.kind, inputs, [(self.wide, every), *[(self.wide, last)] * (count - 1)], launch,
            orders=tuple(None if x is None else tuple(range(x.rank)) for x in inputs), output_orders=(order,),
            matrix=((0,), (1,), (2,), (3,)), flops=2 * d * self.steps * self.batch * self.hidden * self.R.shape[1],
        )  # fmt: skip
        return tuple(t.cast(x, self.dtype) for x in made)

    def _projected(self) -> Tensor:
        """W x + biases for all steps: [rows, directions * gates * hidden], rows in the order of X."""
        t, hidden = self.t, self.hidden
        width = self.W.shape[0] * self.W.shape[1]
        x = t.reshape(self.X, (self.steps * self.batch, self.X.shape[2]))
        y = product(t, x, t.transpose(t.reshape(self.W, (width, self.X.shape[2])), (1, 0)))
        if self.B is None:
            return y
        gates = self.W.shape[1]
        bias, recurrent = t.take(self.B, 1, 0, gates), t.take(self.B, 1, gates, 2 * gates)
        if self.kind == "gru_linear":
            # the new value's recurrent bias is added before the reset gate
            recurrent = t.pad(t.take(recurrent, 1, 0, 2 * hidden), (0, 0), (0, hidden))
        return t.map("a + b", y, t.reshape(t.map("a + b", bias, recurrent), (width,)))

    def _extra(self, peephole: Tensor | None) -> Tensor | None:
        """Peephole weights, or the recurrent bias of a linear GRU's new value."""
        t = self.t
        if self.kind == "gru_linear":
            if self.B is None:
                return t.constant(np.zeros((self.R.shape[0], self.hidden), self.wide))
            return t.reshape(t.take(self.B, 1, 5 * self.hidden, 6 * self.hidden), (self.R.shape[0], self.hidden))
        return None if peephole is None else t.cast(peephole, self.wide)

    def _state(self, x: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        if x is None:
            return self.t.constant(np.zeros(shape, self.wide))
        if x.shape != shape:
            raise OperatorError(f"an initial state of {list(x.shape)} instead of {list(shape)}")
        return self.t.cast(x, self.wide)

    # -- recurrent weights
    def _parts(self) -> list[tuple[int, int]]:
        """First gate and number of gates of each packed part."""
        counts = kernels.GATES[self.kind]
        return [(sum(counts[:i]), n) for i, n in enumerate(counts)]

    def _weights(self, c: LaunchContext) -> list[object]:
        """Addresses of the packed parts: packed once from a constant, or by the steps before this one."""
        if not self.R.is_constant:
            return [x.address for x in c.inputs[5:] if x is not None]
        hidden = self.hidden
        return [
            c.packed(
                self.R,
                ("rnn", first, count),
                lambda r, a=first, n=count: kernels.pack(r[:, a * hidden : (a + n) * hidden], n),
            )
            for first, count in self._parts()
        ]

    def _packed(self) -> list[Tensor | None]:
        """`kernels.pack` made of moves, for weights that only the run knows."""
        t, p, hidden, made = self.t, self.problem, self.hidden, []
        for first, count in self._parts():
            r = t.take(self.R, 1, first * hidden, (first + count) * hidden)
            r = t.reshape(r, (p.directions, count, hidden, hidden))
            r = t.pad(r, (0, 0, 0, 0), (0, 0, p.panels * p.lanes - hidden, 0))
            r = t.reshape(r, (p.directions, count, p.panels, p.lanes, hidden))
            made.append(t.transpose(r, (0, 2, 4, 1, 3)))
        return [*made, None][:2]


def _states(x: Operand, turned: Sequence[int]) -> kernels.States:
    strides = [x.strides[d] for d in turned]
    return kernels.States(x.address, strides[0], strides[1])
