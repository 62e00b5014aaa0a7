"""From a Python function with the kernel ABI to object code that stands alone.

`kernel(args: int64*, task: int64, scratch: int64) -> void`, C calling convention: `args` is the step's argument
block, `task` the index of the piece of work, `scratch` the address of memory that belongs to the calling thread.
The function is typed and lowered by numba without reference counting, wrappers or exceptions; LLVM then sees one
module with one exported symbol, so the object can be kept on disk and loaded by a process that never imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.binding as llvm

from . import target
from .loader import SYMBOL

# what a finished object may still ask the process for: the C library's memory functions and its mathematics
_ALLOWED = frozenset(
    [
        "memset",
        "memcpy",
        "memmove",
        "sched_yield",
        "fmaf",
        "fma",
        "floorf",
        "floor",
        "ceilf",
        "ceil",
        "truncf",
        "trunc",
        "rintf",
        "rint",
        "roundevenf",
        "roundeven",
        "nearbyintf",
        "nearbyint",
        "fmodf",
        "fmod",
        "sinf",
        "sin",
        "cosf",
        "cos",
        "pow",
    ]
)


class KernelError(RuntimeError):
    """A kernel function cannot be compiled to stand-alone object code."""


@dataclass(frozen=True)
class Compiled:
    """Object code of one kernel with the optimised LLVM IR that it came from."""

    code: bytes
    ir: str


def compile_kernel(function: Callable, parameters: int = 3) -> Compiled:
    """Compile `function` (ABI above, `parameters` of the three arguments) for the current target.

    Raises:
        KernelError: the function uses something that needs the Python runtime.
        numba.core.errors.NumbaError: numba cannot type or lower the function.
    """
    from .pipeline import compile_kernel_function

    module, inner = compile_kernel_function(function, parameters)
    module.link_in(llvm.parse_assembly(_wrapper(inner, parameters, str(module.triple), str(module.data_layout))))
    for number, defined in enumerate((*module.functions, *module.global_variables)):
        if not defined.is_declaration and defined.name != SYMBOL:
            defined.linkage = "internal"
            defined.name = f"part{number}"  # numba's names count what was compiled before
    _optimise(module)
    foreign = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.") and f.name not in _ALLOWED]
    if foreign:
        raise KernelError(f"kernel {function.__name__!r} needs the Python runtime: it calls {', '.join(foreign)}")
    return Compiled(target.machine().emit_object(module), str(module))


def assembly(ir: str) -> str:
    """The machine code of a compiled kernel's IR as assembler text."""
    target.initialize()
    return target.machine().emit_assembly(llvm.parse_assembly(ir))


def _wrapper(inner: str, parameters: int, triple: str, layout: str) -> str:
    """IR of the exported function: numba's own convention passes a return slot and an exception slot first."""
    types = ("ptr", "i64", "i64")
    taken = ", ".join(f"{t} %a{i}" for i, t in enumerate(types))
    passed = "".join(f", {t} %a{i}" for i, t in enumerate(types[:parameters]))
    declared = "".join(f", {t}" for t in types[:parameters])
    return (
        f'target triple = "{triple}"\ntarget datalayout = "{layout}"\n'
        f'declare i32 @"{inner}"(ptr, ptr{declared})\n'
        f"define void @{SYMBOL}({taken}) {{\n  %slot = alloca ptr\n  %exc = alloca ptr\n"
        f'  %status = call i32 @"{inner}"(ptr %slot, ptr %exc{passed})\n  ret void\n}}\n'
    )


def _optimise(module: llvm.ModuleRef) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = False
    options.loop_unrolling = False  # kernels are unrolled where that pays; the rest would compile half as long again
    builder = llvm.create_pass_builder(target.machine(), options)
    builder.getModulePassManager().run(module, builder)
    module.verify()
