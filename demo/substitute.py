"""Running a package that was written for onnxruntime on another runtime, without changing the package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_STANDARD = "onnxruntime"


def import_on(package: str, runtime: ModuleType) -> ModuleType:
    """Import a fresh copy of a package in which ``import onnxruntime`` gives `runtime`.

    Afterwards `sys.modules` is as it was before, so that copies for several runtimes live side by side and everybody
    else still gets the real onnxruntime.

    Raises:
        ImportError: the package is missing, or asks for a name that the runtime does not have.
    """
    with _hidden(package), _hidden(_STANDARD):
        sys.modules[_STANDARD] = runtime
        return importlib.import_module(package)


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Forget a package and its submodules within the block; restore them after it."""
    before = _take(package)
    try:
        yield
    finally:
        _take(package)
        sys.modules.update(before)


def _take(package: str) -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}
