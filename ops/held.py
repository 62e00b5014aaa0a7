"""What Python functions hold: a step in Python is called with arrays of any sizes, but what it was made with stays.

So open sizes among that are fixed: the plan is for these values, and its guards say which node asked. A function that takes them
as an input instead (`Builder.constant` of sizes) leaves them open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import partial
from types import FunctionType, MethodType

from .kernels.sizes import Size
from .primitives import Tensor


def fix_sizes_held_by_python(function: Callable) -> None:
    """Fix all open sizes that a function can reach without its arguments."""
    pending: list[object] = [function]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if isinstance(one, Size):
            int(one)
        elif id(one) not in seen:
            seen.add(id(one))
            pending += _inside(one)


def _inside(one: object) -> Iterable[object]:
    """What an object consists of."""
    if isinstance(one, tuple | list | set | frozenset):
        return one
    if isinstance(one, dict):
        return one.values()
    if isinstance(one, FunctionType):
        return [*map(_content, one.__closure__ or ()), *(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
    if isinstance(one, MethodType):
        return [one.__self__, one.__func__]
    if isinstance(one, partial):
        return [one.func, *one.args, *one.keywords.values()]
    if isinstance(one, Tensor):
        return [*one.shape, *(one.content.reshape(-1) if one.is_open else ())]
    if is_dataclass(one) and not isinstance(one, type):
        return [getattr(one, field.name) for field in fields(one)]
    return vars(one).values() if callable(one) and not isinstance(one, type) and hasattr(one, "__dict__") else ()


def _content(cell: object) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None
