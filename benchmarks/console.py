"""Printing: headings, aligned tables, and a line that shows that work goes on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_TICK = 0.5  # seconds between updates on a terminal
_QUIET_TICK = 10.0  # seconds between lines in a log file


def heading(text: str) -> None:
    """Print a section's title."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show what is being done and for how long: in place on a terminal, a line every few seconds elsewhere."""
    live = sys.stdout.isatty()
    start, done = time.perf_counter(), threading.Event()

    before, after = ("\r", "") if live else ("", "\n")

    def tick() -> None:
        while not done.wait(_TICK if live else _QUIET_TICK):
            print(f"{before}{text} ... {time.perf_counter() - start:.0f} s", end=after, flush=True)

    print(f"{text} ...", end=after, flush=True)
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        if live:
            print(f"\r{text}: {time.perf_counter() - start:.1f} s", flush=True)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under titles; the first column is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for line in (titles, ["-" * width for width in widths], *rows):
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *others]), flush=True)
