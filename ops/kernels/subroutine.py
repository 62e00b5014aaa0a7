"""Functions that kernels share in source: cheaper to compile than numba's dispatchers. Importing this imports numba.

`register_jitable` compiles a helper to machine code of its own, with wrappers, once for every combination of literal
arguments (about 50 ms each); a subroutine is only typed, and LLVM inlines it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from numba.core import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic


def subroutine(function: Callable) -> Callable:
    """A function of int64 arguments that returns nothing, callable from kernels and other subroutines."""
    names = list(inspect.signature(function).parameters)

    def typing(typingctx, *given):
        given = given[0] if len(given) == 1 and isinstance(given[0], tuple) else given
        plain = signature(types.void, *[types.int64] * len(given))

        def generate(context, builder, sig, values):
            return context.compile_internal(builder, function, plain, values)

        return plain, generate

    scope = {"typing": typing}
    listed = ", ".join(names)
    exec(f"def {function.__name__}(typingctx, {listed}):\n    return typing(typingctx, {listed})", scope)
    return intrinsic(scope[function.__name__])
