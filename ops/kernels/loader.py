"""Object code to a callable address, without numba; on x86-64 Linux without llvmlite too (`elf`)."""

from __future__ import annotations

import itertools
import threading
from functools import lru_cache

from . import elf

SYMBOL = "kernel"
_lock = threading.Lock()
_numbers = itertools.count()


def load(code: bytes, name: str = SYMBOL) -> int:
    """Link `code` into the process and return the address of its kernel. The memory is kept until the process ends.

    `name`: what profilers are told that the kernel is called, on x86-64 Linux (`perfmap`).

    Raises:
        RuntimeError: the bytes are not an object file of this machine, or have no kernel symbol.
    """
    with _lock:
        try:
            if elf.is_supported():
                return elf.link(code, SYMBOL, name)
        except elf.Unsupported:  # LLVM can, or says why not
            pass
        return link_with_llvm(code)


def link_with_llvm(code: bytes) -> int:
    """`load` on any machine."""
    import llvmlite.binding as llvm

    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(SYMBOL)
    linked = library.link(_linker(), f"kernel{next(_numbers)}")
    address = linked[SYMBOL]
    linked.detach()  # its end would unload the code
    if not address:
        raise RuntimeError(f"object file without the symbol {SYMBOL!r}")
    return address


@lru_cache(maxsize=1)
def _linker():
    """The linker of all kernels: each object becomes a library of its own, so that equal symbols do not clash.

    An execution engine per object, the other way to separate them, takes eight times as long to make.
    """
    import llvmlite.binding as llvm

    from . import target

    target.initialize()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(reloc="pic", jit=True)
    return llvm.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)
