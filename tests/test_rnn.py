"""LSTM, GRU and RNN against onnxruntime: directions, gates' variants, lengths, states, batches that leave remainders."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import jitrt

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# kind, steps, batch, input, hidden, what else
CASES = [
    ("LSTM", 1, 1, 3, 5, {}),
    ("LSTM", 7, 3, 4, 8, {"direction": "bidirectional", "lengths": (7, 1, 4), "initial": True}),
    ("LSTM", 5, 6, 2, 13, {"direction": "reverse", "peephole": True, "lengths": (0, 5, 2, 1, 3, 5)}),
    ("LSTM", 4, 2, 3, 19, {"clip": 0.4, "peephole": True, "initial": True, "bias": False}),
    ("LSTM", 3, 2, 3, 6, {"input_forget": 1, "activations": ["HardSigmoid", "Softsign", "Relu"]}),
    ("LSTM", 9, 1, 8, 160, {"direction": "forward"}),  # steps are shared among threads
    ("LSTM", 2, 50, 3, 149, {"initial": True}),  # several groups of rows, several chunks of a panel
    ("GRU", 6, 5, 4, 11, {"direction": "bidirectional", "initial": True, "lengths": (6, 2, 3, 1, 1)}),
    ("GRU", 6, 3, 4, 16, {"direction": "bidirectional", "linear_before_reset": 1, "initial": True}),
    ("GRU", 3, 2, 3, 7, {"direction": "reverse", "linear_before_reset": 1, "bias": False}),
    ("GRU", 5, 1, 4, 200, {"linear_before_reset": 1}),
    ("GRU", 4, 9, 3, 10, {"clip": 0.3}),
    ("RNN", 5, 4, 3, 9, {"direction": "bidirectional", "activations": ["Relu", "Tanh"], "lengths": (5, 1, 2, 3)}),
    ("RNN", 3, 17, 2, 24, {"activations": ["Sigmoid"], "initial": True}),
    ("RNN", 4, 2, 3, 5, {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}),
]  # fmt: skip


def _model(op: str, feeds: dict[str, np.ndarray | None], constant: set[str], **attributes: object):
    names = [name if value is not None else "" for name, value in feeds.items()]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(op, names, outputs, **attributes)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in feeds.items()
        if v is not None and n not in constant
    ]
    weights = [numpy_helper.from_array(v, n) for n, v in feeds.items() if v is not None and n in constant]
    dtype = helper.np_dtype_to_tensor_dtype(feeds["X"].dtype)
    results = [helper.make_tensor_value_info(n, dtype, None) for n in outputs]
    graph = helper.make_graph([node], "layer", infos, results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def _feeds(op: str, steps: int, batch: int, width: int, hidden: int, how: dict, seed: int = 0) -> dict[str, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    directions = 2 if how.get("direction") == "bidirectional" else 1
    gates = GATES[op] * hidden

    def normal(*shape: int) -> np.ndarray:
        return (0.5 * rng.standard_normal(shape)).astype(np.float32)

    state = (directions, batch, hidden)
    feeds = {
        "X": normal(steps, batch, width),
        "W": normal(directions, gates, width),
        "R": normal(directions, gates, hidden) / np.float32(max(hidden / 8, 1) ** 0.5),
        "B": normal(directions, 2 * gates) if how.get("bias", True) else None,
        "lengths": np.array(how["lengths"], np.int32) if "lengths" in how else None,
        "h": normal(*state) if how.get("initial") else None,
    }
    if op == "LSTM":
        feeds["c"] = normal(*state) if how.get("initial") else None
        feeds["P"] = normal(directions, 3 * hidden) if how.get("peephole") else None
    return feeds


def _attributes(hidden: int, how: dict) -> dict[str, object]:
    return {"hidden_size": hidden} | {k: v for k, v in how.items() if k not in ("lengths", "initial", "peephole", "bias")}


def _run(session, model_feeds: dict[str, np.ndarray | None], constant: set[str]) -> list[np.ndarray]:
    return session.run(None, {k: v for k, v in model_feeds.items() if v is not None and k not in constant})


@pytest.mark.parametrize(("op", "steps", "batch", "width", "hidden", "how"), CASES)
def test_a_layer_agrees_with_onnxruntime(op: str, steps: int, batch: int, width: int, hidden: int, how: dict) -> None:
    feeds, constant = _feeds(op, steps, batch, width, hidden, how), {"W", "R", "B", "P"}
    model = _model(op, feeds, constant, **_attributes(hidden, how))
    session = jitrt.InferenceSession(model)
    expected = _run(onnxruntime.InferenceSession(model.SerializeToString()), feeds, constant)
    for got, want in zip(_run(session, feeds, constant), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    plan = session.get_plan({k: v for k, v in feeds.items() if v is not None and k not in constant})
    assert not plan.host_nodes


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_weights_that_are_inputs_give_the_same_as_constant_ones(op: str) -> None:
    how = {"direction": "bidirectional", "bias": True}
    feeds = _feeds(op, 4, 3, 5, 9, how)
    results = []
    for constant in ({"W", "R", "B", "P"}, set()):
        model = _model(op, feeds, constant, **_attributes(9, how))
        results.append(_run(jitrt.InferenceSession(model), feeds, constant))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_layout_1_is_layout_0_with_the_batch_in_front(op: str) -> None:
    how = {"direction": "bidirectional", "initial": True}
    feeds = _feeds(op, 5, 3, 4, 6, how)
    first = _run(jitrt.InferenceSession(_model(op, feeds, set(), **_attributes(6, how))), feeds, set())
    turned = {k: v.swapaxes(0, 1).copy() if k in ("X", "h", "c") and v is not None else v for k, v in feeds.items()}
    second = _run(jitrt.InferenceSession(_model(op, turned, set(), layout=1, **_attributes(6, how))), turned, set())
    np.testing.assert_allclose(second[0], first[0].transpose(2, 0, 1, 3), rtol=1e-6, atol=1e-7)
    for a, b in zip(second[1:], first[1:], strict=True):
        np.testing.assert_allclose(a, b.swapaxes(0, 1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_a_gru_in_other_types_agrees_with_float64_arithmetic(dtype: type) -> None:
    feeds = {k: v if v is None else v.astype(dtype) for k, v in _feeds("GRU", 6, 2, 3, 5, {}).items()}
    y, last = _run(jitrt.InferenceSession(_model("GRU", feeds, set(), hidden_size=5)), feeds, set())
    x, w, r, b = (feeds[k].astype(np.float64) for k in "XWRB")
    h, states = np.zeros((2, 5)), []

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    for row in x:
        a, c = row @ w[0].T + b[0, :15], b[0, 15:]
        z, reset = (sigmoid(a[:, i : i + 5] + h @ r[0, i : i + 5].T + c[i : i + 5]) for i in (0, 5))
        new = np.tanh(a[:, 10:] + (reset * h) @ r[0, 10:].T + c[10:])
        h = (1 - z) * new + z * h
        states.append(h)
    tolerance = 1e-13 if dtype is np.float64 else 2e-3
    np.testing.assert_allclose(y[:, 0].astype(np.float64), np.stack(states), rtol=tolerance, atol=tolerance)
    assert y.dtype == last.dtype == dtype


def test_a_sequence_of_no_steps_gives_back_its_states() -> None:
    feeds = _feeds("LSTM", 0, 2, 3, 4, {"initial": True})
    y, h, c = _run(jitrt.InferenceSession(_model("LSTM", feeds, set(), hidden_size=4)), feeds, set())
    assert y.shape == (0, 1, 2, 4)
    np.testing.assert_array_equal(h, feeds["h"])
    np.testing.assert_array_equal(c, feeds["c"])
