"""Vectorised mathematics on `emit.E`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache


@lru_cache(maxsize=1)
def functions() -> dict[str, Callable]:
    """Name -> numba function, for `simd.namespace`."""
    return {}
