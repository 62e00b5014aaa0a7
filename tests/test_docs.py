"""The documents are true: their examples run, their links lead somewhere, the table of operators is up to date."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import onnxruntime
import operator_table
import pytest
from reference import ABSENT

from jitrt.ops import coverage, registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def own_registry(monkeypatch):
    """Rows that a test registers are gone after it."""
    registry.load()
    monkeypatch.setattr(registry, "_rows", {key: list(rows) for key, rows in registry._rows.items()})


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name != "README.md" and EXAMPLES.search(p.read_text())], ids=lambda p: p.stem
)
def test_examples_run_one_after_another(page, own_registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # they may write files
    names: dict[str, object] = {}
    for example in EXAMPLES.finditer(page.read_text()):
        line = page.read_text()[: example.start(1)].count("\n")
        exec(compile("\n" * line + example[1], str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_named_files_exist(page):
    """`ops/conv.py` and the like: under the repository, or as Python names the rooms, under jitrt/."""
    named = re.findall(r"`((?:jitrt|fusion|ops|tests|benchmarks|docs|notebooks|demo)/[\w./-]*)`", page.read_text())
    missing = [n for n in named if not (ROOT / n).exists() and not (ROOT / n.removeprefix("jitrt/")).exists()]
    assert missing == []


@pytest.fixture(scope="module")
def table():
    """The page made anew."""
    return operator_table.page()


def test_the_table_of_operators_is_up_to_date(table):
    page = (ROOT / "docs" / "operators.md").read_text()
    if f"onnx {onnx.__version__} and the schemas of onnxruntime {onnxruntime.__version__};" not in page:
        pytest.skip("the table is of another onnx or onnxruntime")
    assert page == table, "run `make docs`"


def test_the_table_says_of_every_operator_what_it_runs_on_and_what_tests_it(table):
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if len(row) == 6 and row[0] not in ("| operator", "| ---")]
    assert len(rows) > 300
    # Gradient runs on whatever the derivatives of its graph run on
    assert {row[0].removeprefix("| ") for row in rows if not row[3]} == {"Gradient", *ABSENT}
    assert {row[0].removeprefix("| ") for row in rows if not row[4]} <= ABSENT


def test_every_operator_and_version_of_onnx_is_in_the_table():
    known = {(s.domain, s.name, s.since_version) for s in onnx.defs.get_all_schemas_with_history() if not s.deprecated}
    listed = {(one.domain, one.name, version) for one in coverage.operators() for version, _ in one.ways}
    assert known <= listed


def _ways(name: str) -> set[coverage.Way]:
    return {way for one in coverage.operators() if one.name == name for _, way in one.ways}


def test_the_table_tells_the_ways_apart(own_registry):
    assert _ways("Add") == {coverage.Way.NATIVE}
    assert _ways("If") == {coverage.Way.PYTHON}
    registry._rows.clear()
    assert _ways("Add") == {coverage.Way.HOST}
    assert _ways("AffineGrid") == {coverage.Way.BODY}
    assert _ways("Gradient") == {coverage.Way.NONE}


def test_the_table_has_operators_that_only_the_registry_knows(own_registry):
    registry.elementwise("Twice", "a + a", since=3, domain="my.ops")
    (one,) = [one for one in coverage.operators() if one.domain == "my.ops"]
    assert (one.versions, one.meaning) == ("native 3", "`a + a`")


def test_the_table_tells_the_types_that_kernels_compute_from_those_that_python_moves():
    types = {one.name: one.types for one in coverage.operators() if one.domain == ""}
    assert types["MatMul"] == "f16 bf16 f32 f64 i32 i64 u32 u64"
    assert types["Equal"] == "f16 bf16 f32 f64 i8-64 u8-64 bool (string)"
    assert types["StringConcat"] == "string"
