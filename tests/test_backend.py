"""The backend tests of the installed onnx, each as a test: `pytest tests/test_backend.py -k softmax`.

Those that are known to fail are listed, each with its reason, in backend/known_failures.txt; one that is listed but
passes is an error, so that the list only gets shorter.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from backend.cases import Case, Value, cases

import jitrt

LIST = pathlib.Path(__file__).parent / "backend" / "known_failures.txt"


def _known_failures() -> dict[str, str]:
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in (line.partition(":") for line in lines)}


def _parameters() -> list[object]:
    known = _known_failures()
    marks = {name: [pytest.mark.xfail(reason=reason, strict=True)] for name, reason in known.items()}
    return [pytest.param(case, id=case.name, marks=marks.get(case.name, ())) for case in cases()]


def test_the_list_of_known_failures_names_existing_cases_and_gives_reasons():
    known = _known_failures()
    assert known.keys() <= {case.name for case in cases()}
    assert all(known.values())


@pytest.fixture(scope="module", autouse=True)
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Most of a run's time goes into compiling: where many cases are chosen, a process compiles from the last one on."""
    if sum(item.module is request.module for item in request.session.items) < 500:
        yield
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-m", "backend.compile"], env=environment, stderr=subprocess.DEVNULL)
    yield
    process.kill()
    process.wait()


@pytest.mark.parametrize("case", _parameters())
def test_backend(case: Case):
    jitrt.set_seed(0)  # what depends on unseeded draws fails in every run, or in none
    for outputs, expected in case.run():
        assert len(outputs) == len(expected)
        for i, (output, wanted) in enumerate(zip(outputs, expected)):
            check(output, wanted, *case.tolerance, f"output {i}")


def check(output: object, expected: Value, rtol: float, atol: float, where: str) -> None:
    """Same structure, dtype, shape, and values within the tolerances."""
    if expected is None:
        assert output is None, f"{where}: expected an empty optional, got {type(output).__name__}"
    elif isinstance(expected, list):
        assert isinstance(output, list), f"{where}: expected a sequence, got {type(output).__name__}"
        assert len(output) == len(expected), where
        for i, (x, y) in enumerate(zip(output, expected)):
            check(x, y, rtol, atol, f"{where}[{i}]")
    else:
        assert isinstance(output, np.ndarray), f"{where}: expected a tensor, got {type(output).__name__}"
        _check_tensor(output, expected, rtol, atol, where)


def _check_tensor(output: np.ndarray, expected: np.ndarray, rtol: float, atol: float, where: str) -> None:
    assert output.shape == expected.shape, where
    if expected.dtype.kind in "OUS":
        assert output.dtype.kind in "OUS", where
        assert [_text(x) for x in output.ravel()] == [_text(x) for x in expected.ravel()], where
        return
    assert output.dtype == expected.dtype, where
    if expected.dtype.isbuiltin == 2:  # ml_dtypes: numpy's tolerances do not know them, float32 holds all their values
        # two units in the last place of bfloat16, as in onnx's own runner
        rtol = max(rtol, 2**-6) if expected.dtype.name == "bfloat16" else rtol
        output, expected = output.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_allclose(output, expected, rtol=rtol, atol=atol, err_msg=where)


def _text(x: object) -> str:
    return x.decode() if isinstance(x, bytes) else str(x)
