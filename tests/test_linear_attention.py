"""LinearAttention against its recurrence in float64: every rule, sizes around a vector's, states that go on."""

from __future__ import annotations

import numpy as np
import pytest
from contrib_nodes import MICROSOFT, f32, node_model

import jitrt
from jitrt.store import Store

RULES = ("linear", "gated", "delta", "gated_delta")


def recurrence(q, k, v, state, decay, beta, scale) -> tuple[np.ndarray, np.ndarray]:
    """All [B, T, heads, size]; the decay is [B, T, heads, 1 or size]."""
    made, state = [], state.astype(np.float64)
    for i in range(q.shape[1]):
        state = state * np.exp(decay[:, i].astype(np.float64))[..., None] if decay is not None else state
        new = v[:, i].astype(np.float64)
        if beta is not None:
            new = (new - np.einsum("bhk,bhkv->bhv", k[:, i], state)) * beta[:, i][..., None]
        state = state + k[:, i][..., None] * new[:, :, None]
        made.append(scale * np.einsum("bhk,bhkv->bhv", q[:, i], state))
    return np.stack(made, 1) if made else np.zeros(v.shape), state


def inputs(rule: str, batch: int, tokens: int, heads: int, size: int, width: int, per_key: bool = False) -> list:
    """query, key, value, past, decay, beta."""
    flat = [f32(batch, tokens, heads * n) / 2 for n in (size, size, width)]
    decay = -abs(f32(batch, tokens, heads * (size if per_key else 1))) if "gated" in rule else None
    beta = abs(f32(batch, tokens, heads)) / 3 if "delta" in rule else None
    return [*flat, f32(batch, heads, size, width), decay, beta]


def expected(given: list, heads: int) -> tuple[np.ndarray, np.ndarray]:
    q, k, v, past, decay, beta = given
    parts = [x.reshape(*x.shape[:2], heads, x.shape[2] // heads) for x in (q, k, v)]
    decays = None if decay is None else decay.reshape(*decay.shape[:2], heads, decay.shape[2] // heads)
    y, state = recurrence(*parts, past, decays, beta, 1 / np.sqrt(parts[0].shape[-1]))
    return y.reshape(v.shape), state


def session(given: list, rule: str, heads: int, domain: str = MICROSOFT) -> jitrt.InferenceSession:
    how = {"q_num_heads": heads, "kv_num_heads": heads, "update_rule": rule}
    model = node_model("LinearAttention", given, [np.float32] * 2, domain=domain, onnx_opset=27, attributes=how)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = f"{value.name}_1"
    model.ir_version = 13
    return jitrt.InferenceSession(model.SerializeToString())


def feeds(given: list) -> dict[str, np.ndarray]:
    return {f"x{i}": x for i, x in enumerate(given) if x is not None}


@pytest.mark.parametrize("domain", ["", MICROSOFT])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_its_recurrence(rule: str, domain: str) -> None:
    made = None
    for batch, tokens, size, width, per_key in ((2, 5, 3, 4, False), (1, 1, 8, 17, True), (1, 9, 1, 1, True), (2, 0, 4, 8, False)):
        given = inputs(rule, batch, tokens, 3, size, width, per_key)
        made = session(given, rule, 3, domain)
        for got, wanted in zip(made.run(None, feeds(given)), expected(given, 3), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        assert made.get_plan(feeds(given)).host_nodes == ()


def test_a_state_goes_on_where_it_was_and_new_lengths_need_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs("gated_delta", 1, 11, 2, 8, 9)
    made = session(given, "gated_delta", 2)
    whole, last = made.run(None, feeds(given))

    def part(first: int, end: int, state: np.ndarray) -> list:
        return [x[:, first:end] for x in given[:3]] + [state] + [x[:, first:end] for x in given[4:]]

    made.run(None, feeds(part(0, 3, given[3])))  # a second length: the plan with an open one
    monkeypatch.setattr(Store, "_compile", None)
    state, rows = given[3], []
    for first, end in ((0, 4), (4, 5), (5, 11)):
        y, state = made.run(None, feeds(part(first, end, state)))
        rows.append(y)
    np.testing.assert_allclose(np.concatenate(rows, 1), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state, last, rtol=1e-5, atol=1e-6)


def test_nan_and_infinity_stay_in_their_column_and_head() -> None:
    given = inputs("gated", 1, 4, 2, 3, 5)
    given[2][0, 1, 2], given[2][0, 2, 7] = np.nan, np.inf
    y, state = session(given, "gated", 2).run(None, feeds(given))
    wanted, last = expected(given, 2)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    np.testing.assert_array_equal(np.isfinite(state), np.isfinite(last))
