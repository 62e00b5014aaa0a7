"""When Python's collector of cyclic garbage runs: not while a plan is made, but while kernels are compiled.

Planning makes many objects at once, nearly all of which stay: the collector would look through them, and all others of the
program, again and again. Compiling leaves much garbage in cycles.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """The collector does not run by itself; in the end it looks through what is new."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.collect(0)
            gc.enable()


@contextmanager
def running() -> Iterator[None]:
    """The collector runs, if `paused` or the program has stopped it."""
    stopped = not gc.isenabled()
    gc.enable()
    try:
        yield
    finally:
        if stopped:
            gc.disable()
