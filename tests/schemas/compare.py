"""A case on both runtimes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnxruntime

import jitrt

from .catalogue import Case, Sums

# per output type: relative tolerance of one rounded operation, and of sums
_ROUNDING = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
_SUMS = {"float64": 1e-8, "float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
_MISSING = (
    "NOT_IMPLEMENTED", "NotImplemented", "Could not find an implementation", "not implemented", "not supported", "does not support",
    "nsupported", "Failed to construct locale",
)  # fmt: skip


class Verdict(enum.Enum):
    """How the runtimes compare."""

    SAME = "same"
    BOTH_REFUSE = "both refuse"
    DIFFERENT = "different"
    NOT_RUN = "not run by onnxruntime"


@dataclass(frozen=True)
class Outcome:
    """A verdict, and why."""

    verdict: Verdict
    why: str = ""


def compare(case: Case) -> Outcome:
    """Run a case on both."""
    expected = _outputs_of_onnxruntime(case)
    if isinstance(expected, str) and any(text in expected for text in _MISSING):
        return Outcome(Verdict.NOT_RUN, expected)
    got = _outputs_of_jitrt(case, frozenset(expected[1]) if isinstance(expected, tuple) else frozenset())
    if isinstance(expected, str):
        if isinstance(got, str):
            return Outcome(Verdict.BOTH_REFUSE, f"{expected}\n    jitrt: {got}")
        return Outcome(Verdict.DIFFERENT, f"only onnxruntime refuses: {expected[-300:]}")
    if isinstance(got, str):
        return Outcome(Verdict.DIFFERENT, f"only jitrt refuses: {got}")
    asked = [i for i, wanted in enumerate(case.outputs) if wanted]
    for i, ours, theirs in zip(asked, got, expected[0], strict=True):
        why = difference(ours, theirs, case.tolerance, i in expected[1])
        if why:
            return Outcome(Verdict.DIFFERENT, f"output {i}: {why}")
    return Outcome(Verdict.SAME)


def _outputs_of_jitrt(case: Case, widened: frozenset[int]) -> list | str:
    options = jitrt.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = jitrt.InferenceSession(case.model(widened=widened).SerializeToString(), options)
        feeds = {f"x{i}": x for i, x in enumerate(case.inputs) if x is not None and i not in case.constant}
        return session.run(None, feeds)
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]


def _outputs_of_onnxruntime(case: Case) -> tuple[list, list[int]] | str:
    """The outputs and which of them were widened, or why there are none. Types that numpy lacks go in as initializers."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    constant = case.constant | {i for i, x in enumerate(case.inputs) if isinstance(x, np.ndarray) and x.dtype.isbuiltin == 2}

    def session(widened: frozenset[int]) -> onnxruntime.InferenceSession:
        content = case.model(constant, widened).SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    try:
        made = session(frozenset())
        asked = [i for i, wanted in enumerate(case.outputs) if wanted]
        odd = [
            i for i, x in zip(asked, made.get_outputs()) if any(name in x.type for name in ("bfloat16", "float8", "int4", "int2"))
        ]
        if odd:
            made = session(frozenset(odd))
        feeds = {f"x{i}": x for i, x in enumerate(case.inputs) if x is not None and i not in constant}
        return made.run(None, feeds), odd
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")


def difference(got: object, expected: object, tolerance: str, widened: bool = False) -> str:
    """What distinguishes two outputs; empty if nothing does."""
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            return f"{type(got).__name__} instead of {len(expected)} elements"
        return next((why for g, e in zip(got, expected) if (why := difference(g, e, tolerance))), "")
    if isinstance(expected, dict):
        if not isinstance(got, dict) or list(got) != list(expected):
            return f"{got} instead of {expected}"
        return difference(np.array(list(got.values())), np.array(list(expected.values())), tolerance)
    if isinstance(expected, str | float | int):
        return "" if got == expected else f"{got!r} instead of {expected!r}"
    if not isinstance(got, np.ndarray):
        return f"{type(got).__name__} instead of an array"
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"{got.dtype}{list(got.shape)} instead of {expected.dtype}{list(expected.shape)}"
    if got.dtype.kind not in "fc":
        step = 1 if tolerance == Sums.STEP and got.dtype.kind in "iu" else 0
        wrong = np.abs(got.astype(np.float64) - expected.astype(np.float64)) > step if step else got != expected
    else:
        wrong = _far(got, expected, tolerance, widened)
    if not np.any(wrong):
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{np.count_nonzero(wrong)} of {got.size} differ, at {list(at)} {got[at]!r} instead of {expected[at]!r}"


def _far(got: np.ndarray, expected: np.ndarray, tolerance: str, widened: bool) -> np.ndarray:
    table = _SUMS if tolerance == Sums.SUMS else _ROUNDING
    relative = table["bfloat16" if widened else got.dtype.name] if tolerance != Sums.EXACT else 0.0
    finite = np.isfinite(expected)
    largest = float(np.abs(expected[finite].astype(np.float64)).max(initial=0)) if finite.any() else 0.0
    smallest = float(ml_dtypes.finfo(got.dtype).smallest_normal) if tolerance != Sums.EXACT else 0.0
    absolute = max({Sums.SUMS: relative * largest, Sums.UNIT: relative}.get(tolerance, 0.0), smallest)
    with np.errstate(all="ignore"):
        ours, theirs = got.astype(np.float64), expected.astype(np.float64)
        near = np.abs(ours - theirs) <= absolute + relative * np.abs(theirs)
    return ~(near | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
