"""How numba compiles a kernel: only the passes that straight code over numbers needs. Imports numba.

numba's own pipeline prepares for arrays, closures, `with` blocks and objects, resolves the type of each `a + b` anew
among all that `+` can mean, and looks for new declarations at every call of an intrinsic. Kernels need none of these, and
their arithmetic repeats, so more than half of the time goes. What a kernel of a user may need beyond (`register_jitable`,
Python's mathematics) is known to numba's own contexts: a kernel that `contexts.lean` is not enough for gets those.
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
from numba.core.cpu import CPUContext
from numba.core.errors import NumbaError
from numba.core.imputils import builtin_registry
from numba.core.typed_passes import NativeLowering, NoPythonBackend, NopythonTypeInference, PreLowerStripPhis
from numba.core.typing.context import BaseContext
from numba.core.typing.templates import _IntrinsicTemplate
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    IRProcessing,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)  # fmt: skip

from . import contexts

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


def compile_function(function: Callable, arguments: tuple[types.Type, ...], context: CPUContext) -> CompileResult:
    """IR of a function of numbers that returns nothing; its library is not optimised (`modules` takes it as it is)."""
    flags = Flags()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    flags.error_model = "numpy"
    library = context.codegen().create_library(function.__name__)
    library._optimize_functions = lambda module: None
    return compile_extra(context.typing_context, context, function, arguments, types.void, flags, {}, library, KernelCompiler)


def compile_kernel_function(function: Callable, parameters: int) -> tuple[llvm.ModuleRef, str]:
    """The module of a kernel with all that it calls, and the kernel's name in it."""
    with global_compiler_lock:
        try:
            result = _compile(function, parameters, contexts.lean())
        except (NumbaError, NotImplementedError):
            result = _compile(function, parameters, contexts.full())
        whole, *called = _modules(result.library, set())
        for module in called:
            whole.link_in(module)
    return whole, result.fndesc.llvm_func_name


def _compile(function: Callable, parameters: int, context: CPUContext) -> CompileResult:
    context.refresh()
    with _looked_up_once(context.typing_context):
        return compile_function(function, (types.CPointer(types.int64), types.int64, types.int64)[:parameters], context)


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
def _looked_up_once(typing: BaseContext) -> Iterator[None]:
    """Within, what an operator gives for numbers of certain types is looked up once a process, intrinsics as they are."""
    resolve, registry = typing.resolve_function_type, _IntrinsicTemplate._get_target_registry

    def resolve_once(function, args, kws):
        if kws or not all(isinstance(a, contexts.NUMBERS) for a in args):
            return resolve(function, args, kws)
        plain = function if function in _OPERATORS else getattr(function, "typing_key", None)
        if plain not in _OPERATORS:
            return resolve(function, args, kws)
        key = (typing, plain, tuple(args))
        if key not in _signatures:
            _signatures[key] = resolve(function, args, kws)
        return _signatures[key]

    typing.resolve_function_type = resolve_once
    _IntrinsicTemplate._get_target_registry = lambda template, reason: builtin_registry
    try:
        yield
    finally:
        _IntrinsicTemplate._get_target_registry = registry
        del typing.resolve_function_type
