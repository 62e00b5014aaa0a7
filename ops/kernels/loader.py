"""Object code to a callable address, through llvmlite alone (numba is not needed)."""

from __future__ import annotations

import threading

import llvmlite.binding as llvm

from . import target
from .compiler import SYMBOL

_lock = threading.Lock()
_engines: list[llvm.ExecutionEngine] = []


def load(code: bytes) -> int:
    """Link `code` into the process and return the address of its kernel. The memory is kept until the process ends.

    Raises:
        RuntimeError: the bytes are not an object file of this machine, or have no kernel symbol.
    """
    target.initialize()
    with _lock:
        module = llvm.parse_assembly("")
        machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        address = engine.get_function_address(SYMBOL)
        if not address:
            raise RuntimeError(f"object file without the symbol {SYMBOL!r}")
        _engines.append(engine)
        return address
