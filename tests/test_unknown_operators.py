"""Operators that nobody knows: the error when the session is made, wherever the node stands, and the ways to supply them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
from model_cases import BOOL, ELSE, INT64, body, branch, call, function, model, node, value
from onnx import helper

import jitrt
from jitrt.ops import registry

MYSTERY = ("Mystery", "my")


def mystery(source: str = "x", target: str = "y", op: str = "Mystery", domain: str = "my") -> onnx.NodeProto:
    return node(op, [source], [target], name="riddle", domain=domain)


def in_a_loop(made: onnx.NodeProto) -> onnx.ModelProto:
    going = helper.make_tensor_value_info("going", BOOL, [])
    inputs = [helper.make_tensor_value_info("i", INT64, []), going, value("state")]
    turn = helper.make_graph([node("Identity", ["going"], ["on"]), made], "turn", inputs, [value("on", (), BOOL), value("t")])
    return model([node("Loop", ["n", "", "x"], ["y"], body=turn)], ["x", value("n", (), INT64)])


def in_two_branches(made: onnx.NodeProto) -> onnx.ModelProto:
    inner = node("If", ["c"], ["outer"], then_branch=body([made], "t"), else_branch=ELSE)
    return branch(body([inner], "outer"))


# where the node is -> the model, with it alone of an unknown operator
PLACES: dict[str, Callable[[str, str], onnx.ModelProto]] = {
    "the graph": lambda op, domain: model([mystery("x", "y", op, domain)]),
    "a branch": lambda op, domain: branch(body([mystery("x", "t", op, domain)], "t")),
    "a branch of a branch": lambda op, domain: in_two_branches(mystery("x", "t", op, domain)),
    "a loop": lambda op, domain: in_a_loop(mystery("state", "t", op, domain)),
    "a function": lambda op, domain: call([function([mystery("a", "b", op, domain)])]),
    "a function of a function": lambda op, domain: call(
        [function([node("G", ["a"], ["b"], domain="my")]), function([mystery("a", "b", op, domain)], name="G")]
    ),
    "a branch in a function": lambda op, domain: call(
        [function([
            node("ReduceMax", ["a"], ["m"], keepdims=0), node("IsNaN", ["m"], ["c"]),
            node("If", ["c"], ["b"], then_branch=body([mystery("a", "t", op, domain)], "t"),
                 else_branch=body([node("Abs", ["a"], ["e"])], "e")),
        ])]
    ),
}  # fmt: skip


def said(made: onnx.ModelProto, error: type[Exception] = Exception) -> str:
    """What is said when the session is made."""
    if "my" not in {o.domain for o in made.opset_import}:
        made.opset_import.append(helper.make_opsetid("my", 1))
    with pytest.raises(error) as caught:
        jitrt.InferenceSession(made.SerializeToString())
    return str(caught.value)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows that a test registers are gone after it."""
    registry.load()
    monkeypatch.setattr(registry, "_rows", {key: list(rows) for key, rows in registry._rows.items()})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("op", "domain", "version"), [("Mystery", "my", 1), ("Mystery", "", 20), ("Mystery", "com.microsoft", 1)])
def test_the_error_names_node_domain_operator_and_version_and_how_to_supply_it(
    place: str, op: str, domain: str, version: int
) -> None:
    message = said(PLACES[place](op, domain))
    assert "'riddle'" in message
    assert f"{domain or 'ai.onnx'}::Mystery is known (opset {version})" in message
    assert "local function" in message
    assert f"@jitrt.ops.registry.op('Mystery'{f', domain={domain!r}' if domain else ''})" in message


@pytest.mark.parametrize("place", PLACES)
def test_what_the_error_tells_to_register_makes_the_model_run(place: str, own_registry: None) -> None:
    @registry.op("Mystery", domain="my")
    def tripled(t, x):
        return t.map("a * 3.0", x)

    made = PLACES[place](*MYSTERY)
    if "my" not in {o.domain for o in made.opset_import}:
        made.opset_import.append(helper.make_opsetid("my", 1))
    session = jitrt.InferenceSession(made.SerializeToString())
    x = np.array([1, np.nan, -2], np.float32)
    every = {"x": x, "c": np.array(True), "n": np.array(1)}
    (y,) = session.run(None, {i.name: every[i.name] for i in session.get_inputs()})
    np.testing.assert_array_equal(y, 3 * x)


@pytest.mark.parametrize("place", ["the graph", "a branch", "a loop", "a function"])
def test_an_operator_of_later_opsets_is_told_apart_from_one_that_never_was(place: str) -> None:
    made = PLACES[place]("Mish", "")
    for owner in (made, *made.functions):
        owner.opset_import[0].version = 17
    message = said(made)
    assert "ai.onnx::Mish is known (opset 17); it exists since opset 18" in message
    assert "riddle" in message


@pytest.mark.parametrize("place", ["the graph", "a branch", "a loop", "a function"])
def test_an_operator_that_onnx_gave_up_may_be_supplied_from_then_on(place: str, own_registry: None) -> None:
    message = said(PLACES[place]("Upsample", ""), jitrt.InvalidGraph if place == "the graph" else Exception)
    assert "'riddle'" in message
    assert "ai.onnx::Upsample is deprecated since opset 10, the model imports opset 20" in message
    assert "@jitrt.ops.registry.op('Upsample', since=10)" in message

    @registry.op("Upsample", since=10)
    def doubled(t, x):
        return t.map("a * 2.0", x)

    session = jitrt.InferenceSession(PLACES[place]("Upsample", "").SerializeToString())
    every = {"x": np.array([1, -2], np.float32), "c": np.array(True), "n": np.array(1)}
    (y,) = session.run(None, {i.name: every[i.name] for i in session.get_inputs()})
    np.testing.assert_array_equal(y, [2, -4])


def test_an_operator_set_that_is_newer_than_the_installed_onnx_is_an_error_with_both_versions() -> None:
    newest = onnx.defs.onnx_opset_version()
    message = said(model([node("Relu", ["x"], ["y"])], opset=newest + 1))
    assert f"version {newest + 1}" in message
    assert f"versions up to {newest}" in message
