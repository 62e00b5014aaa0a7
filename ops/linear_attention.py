"""LinearAttention of ai.onnx and com.microsoft, on `kernels/linearattention`."""

from __future__ import annotations

from math import prod, sqrt

import numpy as np

from .builder import Builder, OperatorError
from .cast import widened
from .kernels import linearattention as kernels
from .kernels.linearattention import Heads
from .primitives import LaunchContext, Tensor
from .registry import contrib, op

_RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}


@contrib("LinearAttention")
@op("LinearAttention", since=27)
def linear_attention(
    t: Builder, query, key, value, past_state=None, decay=None, beta=None, *,
    q_num_heads, kv_num_heads, update_rule="gated_delta", scale=0.0, chunk_size=64, state_window=0,
):  # fmt: skip
    """A state for each head to which tokens add their keys and values, and which their queries ask; and the state after the last.

    The rules say whether the state decays before (by exp of `decay`), and whether a value is corrected by what the state knows
    of its key (by the rate `beta`).
    """
    if update_rule not in _RULES or state_window:
        raise OperatorError(f"update_rule {update_rule!r} is unknown, or state_window is {state_window}, which GPUs alone have")
    decays, learns = _RULES[update_rule]
    if (decays and decay is None) or (learns and beta is None):
        raise OperatorError(f"update_rule {update_rule!r} needs decay or beta")
    heads = _heads(query, key, value, q_num_heads, kv_num_heads)
    factor = float(scale) or 1.0 / sqrt(max(heads.key_size, 1))
    asked = t.map(f"a * {factor!r}", widened(t, query))
    factors = t.map("exp(a)", widened(t, decay)) if decays else None
    rates = widened(t, beta) if learns else None
    given = [None if x is None else widened(t, x) for x in (key, value, past_state)]
    y, present = _walked(t, asked, given[0], given[1], factors, rates, given[2], heads)
    return t.cast(y, query.dtype), t.cast(present, query.dtype if past_state is None else past_state.dtype)


def _heads(query: Tensor, key: Tensor, value: Tensor, queries: int, values: int) -> Heads:
    size = query.shape[2] // queries
    made = Heads(queries, key.shape[2] // max(size, 1), values, size, value.shape[2] // values)
    whole = (made.queries * size, made.keys * size, values * made.value_size) == (query.shape[2], key.shape[2], value.shape[2])
    if not whole or (queries % values and values % queries) or made.keys < 1 or values % made.keys:
        raise OperatorError(
            f"{list(query.shape)}, {list(key.shape)} and {list(value.shape)} do not fit {queries} and {values} heads"
        )
    return made


def _walked(
    t: Builder, query: Tensor, key: Tensor, value: Tensor, decay: Tensor | None, beta: Tensor | None, past: Tensor | None,
    heads: Heads,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, tokens, _ = query.shape
    per_key = decay is not None and decay.shape[2] == heads.values * heads.key_size and heads.key_size > 1
    per_head = beta is not None and beta.shape[2] == heads.values
    state = (batch, heads.values, heads.key_size, heads.value_size)

    def launch(c: LaunchContext) -> list:
        places = [0 if x is None else x.address for x in (*c.inputs, *c.outputs)]
        return kernels.walk(*places, batch, tokens, heads, per_key, per_head)

    def reference(values: list[np.ndarray | None]) -> list[np.ndarray]:
        return _reference(*values, heads, per_key)

    inputs = (query, key, value, decay, beta, past)
    f32, rows = np.dtype(np.float32), (batch, tokens, max(heads.queries, heads.values) * heads.value_size)
    orders = tuple(None if x is None else tuple(range(x.rank)) for x in inputs)
    return t.kernel(
        "linear attention", inputs, [(f32, rows), (f32, state)], launch, orders=orders, output_orders=((0, 1, 2), (0, 1, 2, 3)),
        flops=4 * tokens * prod(state), reference=reference,
    )  # fmt: skip


def _reference(query, key, value, decay, beta, past, heads: Heads, per_key: bool) -> list[np.ndarray]:
    """The same in numpy, for constants."""
    batch, tokens, _ = query.shape
    q = query.reshape(batch, tokens, heads.queries, heads.key_size)
    k = key.reshape(batch, tokens, heads.keys, heads.key_size).repeat(heads.values // heads.keys, 2)
    v = value.reshape(batch, tokens, heads.values, heads.value_size)
    shape = (batch, heads.values, heads.key_size, heads.value_size)
    state = np.zeros(shape, np.float32) if past is None else past.copy()
    out_heads = max(heads.queries, heads.values)
    made = np.empty((batch, tokens, out_heads, heads.value_size), np.float32)
    for i in range(tokens):
        new = v[:, i]
        if decay is not None:
            state *= decay[:, i].reshape(*shape[:2], heads.key_size if per_key else 1, 1)
        if beta is not None:
            new = (new - np.einsum("bhk,bhkv->bhv", k[:, i], state)) * beta[:, i][..., None]
        state = state + k[:, i][..., None] * new[:, :, None]
        asked, known = (x.repeat(out_heads // x.shape[1], 1) for x in (q[:, i], state))
        made[:, i] = np.einsum("bhk,bhkv->bhv", asked, known)
    return [made.reshape(batch, tokens, -1), state]
