"""Functions that kernels share in source: cheaper to compile than numba's dispatchers. Importing this imports numba.

`register_jitable` compiles a helper to machine code of its own, with wrappers, once for every combination of literal
arguments (about 50 ms each); a subroutine is only typed and lowered, and LLVM inlines it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache

from numba.core import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from .pipeline import compile_function


def subroutine(function: Callable) -> Callable:
    """A function of int64 arguments that returns nothing, callable from kernels and other subroutines."""
    names = list(inspect.signature(function).parameters)
    integers = (types.int64,) * len(names)
    compiled = lru_cache(maxsize=2)(lambda context: compile_function(function, integers, context))

    def typing(typingctx, *given):
        plain = signature(types.void, *integers)

        def generate(context, builder, sig, values):
            made = compiled(context)
            if made.library not in context.active_code_library._linking_libraries:
                context.active_code_library._linking_libraries.append(made.library)
            return context.call_internal(builder, made.fndesc, plain, values)

        return plain, generate

    scope = {"typing": typing}
    listed = ", ".join(names)
    exec(f"def {function.__name__}(typingctx, {listed}):\n    return typing(typingctx, {listed})", scope)
    return intrinsic(scope[function.__name__])
