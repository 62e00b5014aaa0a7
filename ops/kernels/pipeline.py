"""How numba compiles a kernel: only the passes that straight code over numbers needs. Imports numba.

numba's own pipeline prepares for arrays, closures, `with` blocks and objects, and resolves the type of each `a + b`
anew among all that `+` can mean. Kernels have none of these, and their arithmetic repeats, so half of the time goes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import llvmlite.binding as llvm
from numba.core import types
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult, Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.registry import cpu_target
from numba.core.typed_passes import NativeLowering, NoPythonBackend, NopythonTypeInference, PreLowerStripPhis
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    IRProcessing,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)  # fmt: skip

_SCALARS = (types.Integer, types.Float, types.Boolean)
_OPERATORS = frozenset(value for name, value in vars(operator).items() if not name.startswith("_"))
_signatures: dict[object, object] = {}


class KernelCompiler(CompilerBase):
    """Bytecode to LLVM IR in ten passes. Branches on a factory's parameters are decided before types are."""

    def define_pipelines(self) -> list[PassManager]:
        """The one pipeline."""
        manager = PassManager("kernel")
        for each in (TranslateByteCode, FixupArgs, IRProcessing, RewriteSemanticConstants, DeadBranchPrune, ReconstructSSA,
                     NopythonTypeInference, PreLowerStripPhis, NativeLowering, NoPythonBackend):  # fmt: skip
            manager.add_pass(each, each.__name__)
        manager.finalize()
        return [manager]


def compile_function(function: Callable, arguments: tuple[types.Type, ...]) -> CompileResult:
    """IR of a function of numbers that returns nothing; its library is not optimised (`modules` takes it as it is)."""
    flags = Flags()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    flags.error_model = "numpy"
    typing, context = cpu_target.typing_context, cpu_target.target_context
    library = context.codegen().create_library(function.__name__)
    library._optimize_functions = lambda module: None
    return compile_extra(typing, context, function, arguments, types.void, flags, {}, library, KernelCompiler)


def compile_kernel_function(function: Callable, parameters: int) -> tuple[llvm.ModuleRef, str]:
    """The module of a kernel with all that it calls, and the kernel's name in it."""
    with global_compiler_lock:
        typing, context = cpu_target.typing_context, cpu_target.target_context
        typing.refresh()
        context.refresh()
        with _scalar_signatures_kept(typing):
            result = compile_function(function, (types.CPointer(types.int64), types.int64, types.int64)[:parameters])
        whole, *called = _modules(result.library, set())
        for module in called:
            whole.link_in(module)
    return whole, result.fndesc.llvm_func_name


def _modules(library: CPUCodeLibrary, seen: set[int]) -> Iterator[llvm.ModuleRef]:
    """A library's module and those that it links: numba's optimised, ours as they are (all is optimised as one)."""
    if id(library) in seen:
        return
    seen.add(id(library))
    if library._finalized:
        yield library._get_module_for_linking().clone()
        return
    module = library._final_module.clone()
    for defined in module.functions:
        if len(seen) > 1 and not defined.is_declaration:
            defined.linkage = "linkonce_odr"
    yield module
    for linked in library._linking_libraries:
        yield from _modules(linked, seen)


@contextmanager
def _scalar_signatures_kept(typing) -> Iterator[None]:
    """Within, what an operator gives for numbers of certain types is looked up once a process."""
    resolve = typing.resolve_function_type

    def resolve_once(function, args, kws):
        if kws or not all(isinstance(a, _SCALARS) for a in args):
            return resolve(function, args, kws)
        plain = function if function in _OPERATORS else getattr(function, "typing_key", None)
        if plain not in _OPERATORS:
            return resolve(function, args, kws)
        key = (plain, tuple(args))
        if key not in _signatures:
            _signatures[key] = resolve(function, args, kws)
        return _signatures[key]

    typing.resolve_function_type = resolve_once
    try:
        yield
    finally:
        del typing.resolve_function_type
