"""Runs in the caller's memory: outputs are written where they were bound, caches grow in place.

1. An output that is bound to the very memory of an input of its shape (a buffer of keys and values that is past and present) is
   asked to be in place; so is a `Cache`. `fusion.sharing` says when that can be done.
2. Any other output whose memory is C-contiguous and overlaps nothing that the run reads or writes is written there by the plan.
3. What is left is made in new memory, and copied when the run is over. So no binding changes a result.
4. A run on the same arrays, of the same sizes, as the one before needs no checks and no search (`Again`), if nothing was copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import is_

import numpy as np

from .cache import NO_CACHES, Caches
from .engine import Engine, owned
from .errors import InvalidArgument
from .executor import Executor, Fixed
from .fusion.bindings import Binding
from .fusion.graph import TensorType
from .fusion.plan import Space, Tensor
from .memory import DATA_OFFSET
from .program import Entry, Program

Arrays = dict[str, np.ndarray]
Spans = list[tuple[int, int, str]]  # addresses of an array's first byte and of the one after the last, and its name


@dataclass(frozen=True)
class Again:
    """A run that can be made once more.

    Attributes:
        feeds, outputs, caches: what was bound, and how each input lay in memory.
        fixed: the arrays of the plan. made: the numbers of the plan's outputs, as they were asked for.
        buffers: of the caches. before, after: their rows.
    """

    feeds: Mapping[str, tuple[np.ndarray, tuple[object, ...]]]
    outputs: Mapping[str, np.ndarray | None]
    caches: Caches
    executor: Executor
    fixed: Fixed
    made: list[int]
    buffers: list[np.ndarray]
    before: list[int]
    after: list[int]

    def is_like(self, feeds: Mapping[str, object], outputs: Mapping[str, np.ndarray | None], caches: Caches) -> bool:
        """Whether a run of these would be the same on other numbers."""
        if caches is not self.caches or caches.rows != self.before or not all(map(is_, caches.buffers, self.buffers)):
            return False
        if len(feeds) != len(self.feeds) or [*outputs] != [*self.outputs]:
            return False
        for name, (x, layout) in self.feeds.items():
            if feeds.get(name) is not x or (x.shape, x.strides, x.dtype) != layout:
                return False
        return all(map(is_, outputs.values(), self.outputs.values()))

    def run(self) -> list[object]:
        """The outputs; the caches have grown."""
        results = self.executor.run_fixed(self.fixed)
        self.caches.rows[:] = self.after
        return [results[i] for i in self.made]


def run(
    engine: Engine, feeds: Mapping[str, object], outputs: Mapping[str, np.ndarray | None], caches: Caches = NO_CACHES,
    before: Binding | None = None,
) -> tuple[list[object], Binding, Again | None]:  # fmt: skip
    """The outputs of a run, each in its memory (None: new memory), what it ran, and how to do so again; the caches have grown.

    Args:
        feeds: checked inputs, without those that caches stand for.
        before: what the run before ran: if that was the same this one may come again.

    Raises:
        InvalidArgument: an output does not fit its memory, or a cache is full.
    """
    counts = caches.counts()
    known, shared = _inputs(feeds, outputs, caches, counts)
    names = [*outputs, *caches.presents]
    entry = _program(engine, caches, shared, counts).entry(known, names)
    placed: Arrays = {}
    again = None
    if entry.rest is None:
        where = entry.outputs
        placed = {name: known[source] for name, source in entry.in_place.items()}
        placed |= _direct(entry, known, outputs, placed)
        shapes = [entry.binding.shapes[where[name]] for name in caches.presents]
        for cache, shape in zip(caches, shapes):
            cache.check(shape)
        given = {where[name]: memory for name, memory in placed.items()}
        inputs = [known[name] for name in entry.inputs]
        again = _again(feeds, outputs, caches, entry, inputs, given) if entry.binding is before else None
        results = entry.executor.run(inputs, entry.binding, given=given)
        values = {name: results[where[name]] for name in names if name not in placed} | placed
    else:  # part of it is planned when its values exist
        values = dict(zip(names, _program(engine, caches, {}, counts).run(known, names)))
    if not entry.fresh:
        rest = [name for name in names if name not in placed]
        values |= zip(rest, owned([values[name] for name in rest], known | placed))
    for i, cache in enumerate(caches):
        if cache.present in placed:
            cache.grow(shapes[i][cache.axis])
        else:
            cache.replace(values[cache.present])
    made = [values[n] if n in placed or memory is None else _stored(n, values[n], memory) for n, memory in outputs.items()]
    return made, entry.binding, again


def _again(
    feeds: Mapping[str, object], outputs: Mapping[str, np.ndarray | None], caches: Caches, entry: Entry, inputs: list[object],
    given: Mapping[int, np.ndarray],
) -> Again | None:  # fmt: skip
    """What is about to run, if it can be made again: nothing is copied, and no contents decide the plan."""
    where = entry.outputs
    stored = [name for name, memory in outputs.items() if memory is not None]
    if not entry.fresh or entry.is_of_contents or any(where[name] not in given for name in [*stored, *caches.presents]):
        return None
    if not all(_is_plain(x) and any(x is one for one in inputs) for x in feeds.values()):
        return None
    fixed, made = entry.executor.fixed(inputs, entry.binding, given), [where[name] for name in outputs]
    held = {name: (x, (x.shape, x.strides, x.dtype)) for name, x in feeds.items()}
    after = [entry.binding.shapes[where[cache.present]][cache.axis] for cache in caches]
    return Again(held, dict(outputs), caches, entry.executor, fixed, made, caches.buffers.copy(), caches.rows.copy(), after)


def _inputs(
    feeds: Mapping[str, object], outputs: Mapping[str, np.ndarray | None], caches: Caches, counts: Mapping[int, str]
) -> tuple[dict[str, object], dict[str, str]]:
    """All inputs of the program, and the outputs that are asked to be in the array of one of them."""
    known = dict(feeds)
    known.update([(cache.array_name, cache.buffer) for cache in caches])
    known.update([(name, np.empty((count, 0), np.bool_)) for count, name in counts.items()])
    spans, same = _spans(feeds), _same_memory(feeds, outputs)
    shared = same | caches.in_arrays
    # caches have arrays of their own
    if not same and not any(start < e and s < end for s, e, _ in spans for start, end, _ in [cache.span for cache in caches]):
        return known, shared
    return _separate(known, [*spans, *[cache.span for cache in caches]], shared), shared


def _program(engine: Engine, caches: Caches, shared: Mapping[str, str], counts: Mapping[int, str]) -> Program:
    """The engine's program for runs with these caches, in which these outputs are asked to be in the array of an input."""
    if not caches and not shared:
        return engine.program
    key = caches.layout(counts), tuple(shared.items())
    found = engine.bound.get(key)
    if found is None:
        found = engine.bound[key] = Program(caches.changed(engine.graph), engine.shared, shared)
    return found


# -- who shares
def _same_memory(feeds: Mapping[str, object], outputs: Mapping[str, np.ndarray | None]) -> dict[str, str]:
    """Outputs that are bound to the memory of an input of their shape -> that input."""
    bound = {name: memory for name, memory in outputs.items() if _is_target(memory)}
    if not bound:
        return {}
    at = {_about(x): name for name, x in feeds.items() if _is_plain(x)}
    return {name: at[_about(memory)] for name, memory in bound.items() if _about(memory) in at}


def _separate(known: dict[str, object], spans: Spans, shared: dict[str, str]) -> dict[str, object]:
    """Inputs of which none lies where another is written; where that takes a copy, the copy is not shared any more."""
    written = set(shared.values())
    for one, other in _overlaps(spans) if written else ():
        if one in written or other in written:
            moved = other if one in written else one
            known = known | {moved: known[moved].copy()}
            for name in [name for name, source in shared.items() if source == moved]:
                del shared[name]
    return known


# -- what the plan writes where
def _direct(entry: Entry, known: Mapping[str, object], outputs: Mapping[str, np.ndarray | None], placed: Arrays) -> Arrays:
    """Outputs that the plan can write to their memory."""
    found: dict[int, str] = {}
    for name, memory in outputs.items():
        i = entry.outputs[name]
        out = entry.plan.outputs[i]
        made_there = isinstance(out, Tensor) and out.ref.buffer.space is Space.OUTPUT and i not in found and name not in placed
        if made_there and _is_target(memory) and (entry.binding.shapes[i], out.dtype) == (memory.shape, memory.dtype):
            found[i] = name
    bound = {f"output {name}": outputs[name] for name in found.values()}
    taken = {name for pair in _overlaps(_spans(known | bound)) for name in pair} if bound else set()
    return {name: outputs[name] for name in found.values() if f"output {name}" not in taken}


# -- memory
def _is_plain(x: object) -> bool:
    """Whether it is an array that plans can use as it is, and not empty."""
    return type(x) is np.ndarray and (f := x.flags).c_contiguous and f.aligned and x.dtype.kind != "O" and x.nbytes > 0


def _is_target(x: np.ndarray | None) -> bool:
    """Whether plans can write to it."""
    return _is_plain(x) and x.flags.writeable


def _address(x: np.ndarray) -> int:
    return ctypes.c_size_t.from_address(id(x) + DATA_OFFSET).value  # as `x.ctypes.data`, in a tenth of the time


def _about(x: np.ndarray) -> tuple[object, ...]:
    return _address(x), x.shape, x.dtype


def _spans(arrays: Mapping[str, object]) -> Spans:
    return [(at := _address(x), at + x.nbytes, name) for name, x in arrays.items() if _is_plain(x)]


def _overlaps(spans: Spans) -> Iterator[tuple[str, str]]:
    """Pairs of arrays that have memory in common."""
    behind: Spans = []  # those that end after the present one begins
    for start, end, name in sorted(spans):
        if behind:
            behind = [other for other in behind if other[1] > start]
            yield from ((other[2], name) for other in behind)
        behind.append((start, end, name))


def _stored(name: str, value: object, memory: np.ndarray) -> np.ndarray:
    """A run's output, copied to where the caller wants it."""
    if not isinstance(value, np.ndarray):
        raise InvalidArgument(f"output {name!r} is no tensor; it cannot be written to bound memory")
    if value.dtype != memory.dtype or value.shape != memory.shape:
        bound, made = TensorType(memory.dtype, memory.shape), TensorType(value.dtype, value.shape)
        raise InvalidArgument(f"output {name!r} is {made}, the memory bound to it {bound}")
    memory[...] = value
    return memory
