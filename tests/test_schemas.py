"""Cases drawn from the schemas agree with onnxruntime: one of every operator, some of hypothesis' choice, all explanations."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference import IS_NEW, skip_where_old
from schemas import catalogue, explained, undrawn
from schemas.catalogue import Case, Signature
from schemas.compare import Verdict, compare
from schemas.draw import Draw

ROUND = 1  # the draw of every operator that is run here; the command runs them all
TRIES = 400  # draws that are looked through for a case of an explanation
OLD_OPSETS = 23  # the last operator set that an old onnxruntime takes
FAULTS = {  # what it does with the drawn case of an operator
    "AffineGrid": "computes AffineGrid of float64 as float32",
    "Col2Im": "reads past the columns of Col2Im",
    "ExpandDims": "crashes at ExpandDims of a scalar",
    "LayerNormalization": "refuses LayerNormalization of one element",
    "LinearClassifier": "crashes at LinearClassifier without intercepts",
    "PRelu": "has NaN where PRelu has infinity",
    "Resize": "refuses Resize along axes counted from the end",
}

NEWEST: dict[tuple[str, str], Signature] = {(s.domain, s.op): s for s in catalogue.signatures()}


def check(case: Case) -> None:
    outcome = compare(case)
    assert outcome.verdict is not Verdict.DIFFERENT or explained.explanation(case), f"{case}\n{outcome.why}"


@pytest.mark.parametrize("signature", NEWEST.values(), ids=lambda s: f"{s.domain}:{s.op}" if s.domain else s.op)
def test_an_operator_agrees_with_onnxruntime(signature: Signature) -> None:
    if not signature.domain and signature.opset > OLD_OPSETS:
        skip_where_old(f"takes no operator sets after {OLD_OPSETS}")
    if signature.op in FAULTS:
        skip_where_old(FAULTS[signature.op])
    check(next(case for number in range(ROUND, TRIES) if (case := catalogue.draw_case(signature, number)) is not None))


@settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_operator_of_any_version_agrees_with_onnxruntime(data: st.DataObject) -> None:
    skip_where_old("crashes at some cases of operators of old versions")
    draw = Draw(lambda n: data.draw(st.integers(0, n - 1)))
    case = catalogue.drawn(draw.choice(catalogue.signatures()), draw, "drawn")
    assume(case is not None)
    check(case)


@pytest.mark.parametrize("reason", explained.EXPLANATIONS, ids=lambda e: e.operators.split()[0])
def test_an_explanation_is_needed(reason: explained.Explanation) -> None:
    if reason.operators == "LinearClassifier":
        skip_where_old(FAULTS[reason.operators])
    if reason.operators == "MultiHeadAttention":
        skip_where_old("rounds the scores of masked keys as jitrt does")
    mine = [s for s in catalogue.signatures() if s.op in reason.operators.split()]
    cases = (case for number in range(TRIES) for s in mine if (case := catalogue.draw_case(s, number)) is not None)
    about = islice((case for case in cases if explained.explanation(case) is reason), 60)
    assert any(compare(case).verdict is Verdict.DIFFERENT for case in about)


def test_a_draw_is_the_same_every_time_and_others_are_other_cases() -> None:
    signature = NEWEST["", "Conv"]
    keys = [catalogue.draw_case(signature, number).key() for number in range(20)]
    assert keys == [catalogue.draw_case(signature, number).key() for number in range(20)]
    assert len(set(keys)) == 20


def test_most_operators_that_onnxruntime_has_are_drawn() -> None:
    assert len(NEWEST) >= 230
    assert sum(s.domain == "" for s in catalogue.signatures()) > 430


# -- what is drawn of the domains that onnx does not test
OWN = [s for s in NEWEST.values() if s.domain]


def test_every_operator_of_onnxruntimes_that_exported_models_have_is_drawn() -> None:
    kernels = {k.op_name for k in catalogue.kernels() if k.domain in ("com.microsoft", "ai.onnx.ml")}
    without = set(undrawn.OPERATORS)
    assert kernels - {s.op for s in OWN} == (without if IS_NEW else without & kernels)


@pytest.mark.parametrize("signature", OWN, ids=lambda s: f"{s.domain}:{s.op}")
def test_every_attribute_input_and_output_is_drawn(signature: Signature) -> None:
    wanted = signature.domain, signature.op, signature.version
    (schema,) = (s for s, _ in catalogue.schemas() if (s.domain, s.name, s.since_version) == wanted)
    cases = list(filter(None, (catalogue.draw_case(signature, number) for number in range(TRIES // 2))))
    seen = {name for case in cases for name, value in case.attributes.items() if value is not None}
    for formal, side in ((schema.inputs, "inputs"), (schema.outputs, "outputs")):
        places = {i for case in cases for i, x in enumerate(getattr(case, side)) if x is not None and x is not False}
        seen.update(one.name for i, one in enumerate(formal) if i in places)
    every = {*signature.attributes, *(one.name for one in [*schema.inputs, *schema.outputs])}
    without = set(undrawn.PARTS.get(signature.op, ()))
    assert every - seen == (without if IS_NEW else without & every)
