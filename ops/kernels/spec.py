"""What a kernel is before it is compiled: its name and the Python source or factory that makes it.

A specification is cheap, hashable and needs no numba; equal specifications are one kernel. `key` names the kernel's
object code in the store: it covers the generated source or the factory's parameters, every file under
`ops/kernels/`, the CPU, and the versions that compile it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import linecache
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from . import target
from .digest import digest
from .sizes import fixed

Parameter = int | float | str | bool


@dataclass(frozen=True)
class KernelSpec:
    """One kernel: either generated `text` that defines ``kernel(args, task, scratch)``, or a `factory`.

    Attributes:
        name: for people; shown in plans and profiles.
        text: Python source of a generated kernel; it sees the names of `simd.namespace()` and `vmath`.
        factory: ``"module:function"`` under ``jitrt.ops.kernels``; called with `parameters`, returns the function.
        parameters: keyword arguments of the factory, or of `simd.namespace` (lanes).
        ahead: whether it can be asked for what a task will read (see `ahead.py`).
    """

    name: str
    text: str = ""
    factory: str = ""
    parameters: tuple[tuple[str, Parameter], ...] = ()
    ahead: bool = False

    @cached_property
    def key(self) -> str:
        """Hexadecimal digest that names the kernel's object code."""
        parts = (self.text, self.factory, repr(self.parameters), environment())
        return digest("\0".join(parts).encode())

    @property
    def label(self) -> str:
        """The name and the beginning of the key, by which profilers tell kernels of one name apart."""
        return f"{self.name}:{self.key[:8]}"

    def function(self) -> Callable:
        """The Python function to compile (imports numba)."""
        if self.factory:
            module, name = self.factory.split(":")
            make = getattr(importlib.import_module(f"{__package__}.{module}"), name)
            return make(**dict(self.parameters))
        from . import simd

        filename = f"<jitrt {self.name} {self.key[:12]}>"
        linecache.cache[filename] = (len(self.text), None, self.text.splitlines(True), filename)
        scope: dict = dict(simd.namespace(**dict(self.parameters)))
        exec(compile(self.text, filename, "exec"), scope)
        return scope["kernel"]

    @property
    def source(self) -> str:
        """Readable source of the kernel."""
        if self.text:
            return self.text
        module, name = self.factory.split(":")
        given = ", ".join(f"{k}={v!r}" for k, v in self.parameters)
        made = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        return f"# {module}.{name}({given})\n{inspect.getsource(made)}"


def generated(name: str, text: str, lanes: int) -> KernelSpec:
    """The specification of a kernel in generated source, over vectors of `lanes` elements."""
    return KernelSpec(name, text, parameters=(("lanes", lanes),))


def handwritten(name: str, factory: str, ahead: bool = False, **parameters: Parameter) -> KernelSpec:
    """The specification of a kernel that a factory in ``ops/kernels/`` makes."""
    given = tuple((name, fixed(value)) for name, value in sorted(parameters.items()))
    return KernelSpec(name, factory=factory, parameters=given, ahead=ahead)


@lru_cache(maxsize=1)
def environment() -> str:
    """Everything outside a kernel's own source that its object code depends on."""
    sources = b"".join(path.read_bytes() for path in sorted(pathlib.Path(__file__).parent.glob("*.py")))
    cpu = target.current()
    versions = [f"{name}={importlib.metadata.version(name)}" for name in ("numba", "llvmlite")]
    return "|".join([digest(sources), cpu.name, cpu.features, *versions])
