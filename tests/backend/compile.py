"""Runs the backend cases from the last to the first, which fills the kernel store for a process that comes the other way."""

from __future__ import annotations

from contextlib import suppress

from backend.cases import cases

for case in reversed(cases()):
    with suppress(Exception):
        list(case.run())
