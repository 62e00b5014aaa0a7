"""How many of ONNX's backend tests pass, as `tests/test_backend.py` runs them: in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from .processes import ROOT, Figure

TESTS = ROOT / "tests" / "test_backend.py"
LEAST_PASSED = 2027  # of 2,033; the others expect numbers drawn without a seed


def figure() -> Figure:
    """The tests that pass, beside how many should.

    Raises:
        RuntimeError: the tests did not run.
    """
    with tempfile.TemporaryDirectory(prefix="jitrt-backend-") as folder:
        report = Path(folder) / "report.xml"
        ran = start(["-m", "pytest", "-q", f"--junitxml={report}", TESTS], stdout=subprocess.PIPE)
        said, _ = ran.communicate()
        if not report.exists():
            raise RuntimeError(f"the backend tests did not run: {said.strip().splitlines()[-1:]}")
        passed, count = count_passed(report)
    return Figure("ONNX's backend tests", f"{passed:,} of {count:,} pass", "", f"{LEAST_PASSED:,}", passed >= LEAST_PASSED)


def count_passed(report: Path) -> tuple[int, int]:
    """How many backend tests passed by pytest's JUnit report, and how many there are."""
    tests = [test for test in ElementTree.parse(report).iter("testcase") if test.get("name", "").startswith("test_backend[")]
    return sum(not any(child.tag in ("skipped", "failure", "error") for child in test) for test in tests), len(tests)


def start(arguments: list[object], **how: object) -> subprocess.Popen:
    """Start Python with these arguments where `tests` can be imported; it compiles alone."""
    environment = os.environ | {"JITRT_WORKERS": "0", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, text=True, **how)
