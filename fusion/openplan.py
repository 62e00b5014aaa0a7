"""A plan with open sizes: all numbers in it that depend on them, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..ops.kernels.launch import Block
from ..ops.kernels.sizes import Size
from ..ops.kernels.symbols import Symbols
from .plan import HostStep, Numbers, Plan, Ref, Step, Tensor
from .storage import Memory


def opened(plan: Plan, symbols: Symbols, memories: Sequence[Memory]) -> Plan:
    """The plan with its sizes listed."""
    places: dict[object, int] = {}
    sizes: list[Size] = []
    for number in _numbers(plan, memories):
        if type(number) is Size and number.frozen not in places:
            places[number.frozen] = len(sizes)
            sizes.append(number)
    return replace(plan, symbols=symbols, sizes=tuple(sizes), memories=tuple(memories), places=places)


def _numbers(plan: Plan, memories: Sequence[Memory]) -> Iterator[object]:
    yield plan.scratch_bytes
    yield from (memory.nbytes for memory in memories)
    yield from _of_values((*plan.inputs, *plan.outputs))
    for step in plan.steps:
        if isinstance(step, HostStep):
            yield from _of_values((*step.inputs, *step.outputs))
        else:
            yield step.tasks
            yield from _arguments(step)


def _of_values(values: Sequence[object]) -> Iterator[object]:
    """The numbers in arrays that Python and the caller see."""
    for x in values:
        if isinstance(x, Tensor):
            yield from (*x.shape, x.ref.offset, x.ref.buffer.nbytes)
        elif isinstance(x, Numbers):
            yield from x.elements


def _arguments(step: Step | Block) -> Iterator[object]:
    for arg in step.args:
        if isinstance(arg, Size):
            yield arg
        elif isinstance(arg, Ref):
            yield arg.offset
        elif isinstance(arg, Block):
            yield from _arguments(arg)
