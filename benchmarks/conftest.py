"""Options of `pytest benchmarks`, and the table of ratios at its end."""

from __future__ import annotations

import pytest

from benchmarks import machine
from benchmarks.console import table

RATIOS = pytest.StashKey[list[list[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--threads and --seconds."""
    group = parser.getgroup("jitrt beside onnxruntime")
    group.addoption("--threads", type=int, default=min(2, machine.cpu_count()), help="threads of both runtimes")
    group.addoption("--seconds", type=float, default=2.0, help="spent on the later runs of a model")


def pytest_configure(config: pytest.Config) -> None:
    """No ratios so far."""
    config.stash[RATIOS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the ratios."""
    if config.stash[RATIOS]:
        terminalreporter.section("jitrt beside onnxruntime: medians; a ratio above 1: jitrt is faster")
        table(["model", "jitrt", "onnxruntime", "ratio"], config.stash[RATIOS])


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> int:
    """Threads of both runtimes."""
    return request.config.getoption("threads")


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """Seconds spent on the later runs of a model."""
    return request.config.getoption("seconds")


@pytest.fixture
def ratios(request: pytest.FixtureRequest) -> list[list[str]]:
    """Rows of the table that is printed at the end."""
    return request.config.stash[RATIOS]
