"""What kernels are typed and lowered with: numba's contexts, and ones without all that kernels do not use.

numba's own know arrays, strings, lists and dictionaries, and overloads of operators and functions for them, some of
them in Python source that is compiled before a call of it is. Loading these takes longer than compiling a kernel does, and
every `a + b` is looked up among them. Kernels have numbers, vectors, ranges, tuples and pointers. Imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

from numba.core import types
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target
from numba.core.typing import templates
from numba.core.typing.context import BaseContext

NUMBERS = (types.Integer, types.Float, types.Boolean)


@lru_cache(maxsize=1)
def lean() -> CPUContext:
    """Numbers, vectors, ranges, tuples and pointers."""
    return _Lowering(_Typing())


def full() -> CPUContext:
    """All of numba."""
    return cpu_target.target_context


class _Typing(BaseContext):
    def _load_builtins(self) -> None:
        from numba.core.typing import builtins  # noqa: F401  registers its declarations

        self.install_registry(templates.builtin_registry)

    def install_registry(self, registry: templates.Registry) -> None:
        """Take up declarations, but for overloads: to look at one loads the full contexts."""
        loader = self._registries.get(registry) or self._registries.setdefault(registry, templates.RegistryLoader(registry))
        for kind, insert in (("functions", self.insert_function), ("attributes", self.insert_attributes)):
            for declaration in loader.new_registrations(kind):
                if not issubclass(declaration, templates._TemplateTargetHelperMixin):
                    insert(declaration(self))
        for value, kind in loader.new_registrations("globals"):
            if known := _without_overloads(value, kind):
                if before := self._lookup_global(value):
                    known = before.augment(known)
                    self._remove_global(value)
                self._insert_global(value, known)


def _without_overloads(value: object, kind: types.Type) -> types.Type | None:
    """A global's type; None if it is known by overloads alone."""
    if value is min or value is max:
        return _extremum(value)
    if not isinstance(kind, types.Function):
        return kind
    kept = [each for each in kind.templates if not issubclass(each, templates._OverloadFunctionTemplate)]
    return types.Function(kept) if kept else None


class _Lowering(CPUContext):
    def init(self) -> None:
        """Add what numba has in Python source only."""
        super().init()
        for function in (min, max):
            self.insert_func_defn([(_lower_extremum(function), function, (types.VarArg(types.Any),))])

    def load_additional_registries(self) -> None:
        """Importing registers; `refresh` takes up what is registered."""
        from numba.cpython import builtins, numbers, rangeobj, tupleobj  # noqa: F401

    def post_lowering(self, mod: object, library: object) -> None:
        """Kernels count no references: no run-time library."""


@cache
def _extremum(function: Callable) -> types.Function:
    """The type of min or max: of numbers, that which all convert to."""

    class Extremum(templates.AbstractTemplate):
        key = function

        def generic(self, args, kws):
            if len(args) < 2 or kws or not all(isinstance(a, NUMBERS) for a in args):
                return None
            joint = self.context.unify_types(*args)
            return templates.signature(joint, *[joint] * len(args))

    return types.Function(Extremum)


def _lower_extremum(function: Callable) -> Callable:
    """Python's rule: the first of those than which none is smaller (larger)."""
    operator = "<" if function is min else ">"

    def lower(context, builder, signature, values):
        kind, best = signature.return_type, values[0]
        compare = (
            builder.fcmp_ordered if isinstance(kind, types.Float)
            else builder.icmp_signed if isinstance(kind, types.Integer) and kind.signed
            else builder.icmp_unsigned
        )  # fmt: skip
        for value in values[1:]:
            best = builder.select(compare(operator, value, best), value, best)
        return best

    return lower
