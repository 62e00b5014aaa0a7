"""What the commands that measure write: tables as text and Markdown, and a page that says how it came about."""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from . import console, machine

BUSY = 0.7  # a load above this, before anything is measured, makes the figures doubtful


@dataclass(frozen=True)
class Table:
    """A table under a title."""

    title: str
    titles: Sequence[str]
    rows: list[list[str]]
    note: str = ""

    def show(self) -> None:
        """Print it."""
        print(f"\n{self.title}\n")
        console.table(self.titles, self.rows)
        print(self.note)

    def markdown(self) -> list[str]:
        """Its lines, an empty one first."""
        lines = ["", f"## {self.title}", "", _line(self.titles), _line(["---", *["---:"] * (len(self.titles) - 1)])]
        lines += [_line(row) for row in self.rows]
        return [*lines, *(["", self.note] if self.note else [])]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Circumstances:
    """What figures depend on besides the code: the command, the load before it and threads (of times), versions, how long."""

    command: Sequence[str]
    load: float | None
    minutes: float
    versions: str
    threads: int | None = None

    def lines(self) -> list[str]:
        """A list in Markdown."""
        busy = ""
        if self.load is not None:
            busy = f", load before the start {self.load:.2f}{' (BUSY: doubtful)' if self.load > BUSY else ''}"
        numbers = [] if self.threads is None else [f"- {self.threads} threads each, float32"]
        today = datetime.datetime.now(datetime.timezone.utc)
        return [
            f"- {today:%Y-%m-%d}, `{shlex.join(self.command)}`, {self.minutes:.0f} minutes",
            f"- {machine.processor()}; {machine.cpu_count()} CPUs{busy}",
            f"- {self.versions}",
            *numbers,
        ]


def page(title: str, circumstances: Circumstances, text: Sequence[str], tables: Sequence[Table]) -> str:
    """A page in Markdown."""
    head = [f"# {title}", "", *circumstances.lines(), "", *text]
    return "\n".join([*head, *(line for each in tables for line in each.markdown())]) + "\n"


def seconds(value: float) -> str:
    """A time of a run."""
    return f"{value * 1e3:.2f} ms" if value >= 1e-3 else f"{value * 1e6:.1f} us"


def verdict(kept: bool | None) -> str:
    """Whether a promise is kept; empty if there is none."""
    return {True: "yes", False: "NO", None: ""}[kept]


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive values, at least one."""
    return math.exp(sum(map(math.log, values)) / len(values))
