"""Object code to a callable address, through llvmlite alone (numba is not needed)."""

from __future__ import annotations

import itertools
import threading
from functools import lru_cache

import llvmlite.binding as llvm

from . import target
from .compiler import SYMBOL

_lock = threading.Lock()
_numbers = itertools.count()


@lru_cache(maxsize=1)
def _linker() -> llvm.orcjit.LLJIT:
    """The linker of all kernels: each object becomes a library of its own, so that equal symbols do not clash.

    An execution engine per object, the other way to separate them, takes eight times as long to make.
    """
    target.initialize()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(reloc="pic", jit=True)
    return llvm.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)


def load(code: bytes) -> int:
    """Link `code` into the process and return the address of its kernel. The memory is kept until the process ends.

    Raises:
        RuntimeError: the bytes are not an object file of this machine, or have no kernel symbol.
    """
    with _lock:
        library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(SYMBOL)
        linked = library.link(_linker(), f"kernel{next(_numbers)}")
        address = linked[SYMBOL]
        linked.detach()  # its end would unload the code
    if not address:
        raise RuntimeError(f"object file without the symbol {SYMBOL!r}")
    return address
