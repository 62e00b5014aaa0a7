"""Values too large for the caches are computed part by part: a pass over a simplified trace, before it is grouped.

1. `by_images`: a run of primitives that treat the images of a batch alike is done for a few images after the other.
2. `by_rows`: a run of primitives on one large image is done for bands of its rows. A band computes all rows that its
   windows reach, so neighbours compute some rows twice; a run ends where that would be more than `AGAIN` of its work.
3. Only runs with two kernels or more that move more than a part (`PART`; for bands `LARGE`, as they cost work; `OPEN` of an
   open number of images, as parts double what planning takes): what one writes, the next does not find in the cache, and
   memory that is used for the first time is slow. Bands only of kernels that compute less than `INTENSE` for each byte: the
   others wait little for memory.
4. What is needed outside a run is joined in the end: its parts are written where they belong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..ops.builder import Builder
from ..ops.kernels import target
from ..ops.kernels.sizes import about, deferred, is_open, most
from ..ops.primitives import Join, Kernel, Map, Primitive, Slice, Tensor, Trace
from .edit import readers_of, view
from .loops import FAR

PART = FAR // 2  # bytes that a primitive reads and writes of some images
BAND = max(2 << 20, 2 * target.second_cache())  # bytes of some rows
LARGE = BAND * 7 // 4  # bytes that a primitive reads and writes if rows are cut
OPEN = max(FAR, 16 << 20)  # bytes that a primitive moves for an open number of images
INTENSE = 16  # FLOPs per byte; memory gives a byte in the time of about ten FLOPs
MOST = 32  # parts
AGAIN = 0.1  # of a run's work
IMAGES, ROWS = 0, 2  # dimensions

Span = tuple[int, int]  # first place along the dimension, and the one after the last


def by_images(trace: Trace) -> Trace:
    """Large batches, some images at a time."""
    return _split(trace, IMAGES)


def by_rows(trace: Trace) -> Trace:
    """Large images, some rows at a time."""
    return _split(trace, ROWS)


def _split(trace: Trace, dim: int) -> Trace:
    if not any(_fits(p, dim) and _is_large(p, dim) for p in trace.primitives):
        return trace
    readers = readers_of(trace)
    made: list[Primitive] = []
    at = 0
    while at < len(trace.primitives):
        run = _run(trace.primitives, at, dim, readers)
        made += run.parts() if run else [trace.primitives[at]]
        at += len(run.members) if run else 1
    return Trace(trace.inputs, trace.outputs, made)


def _run(primitives: Sequence[Primitive], at: int, dim: int, readers: dict[int, list[Primitive | None]]) -> _Run | None:
    """The longest run that begins with a certain primitive and is worth while."""
    if not _is_large(primitives[at], dim):
        return None
    members: list[Primitive] = []
    while at < len(primitives) and _fits(primitives[at], dim) and _continues(members, primitives[at], dim):
        members.append(primitives[at])
        at += 1
    for end in range(len(members), 1, -1):
        if _is_large(members[end - 1], dim) and (run := _Run(_with_tail(members, end), dim, readers)).is_possible:
            return run
    return None


def _with_tail(members: list[Primitive], end: int) -> list[Primitive]:
    """The first ones, and the elementwise work that follows them: their last kernel may do it on its way."""
    while end < len(members) and isinstance(members[end], Map):
        end += 1
    return members[:end]


def _fits(p: Primitive, dim: int) -> bool:
    """Whether what a primitive makes at a place of the dimension follows from that place, or a window there, alone."""
    if not isinstance(p, Kernel | Map | Join) or p.outputs[0].rank <= dim or p.outputs[0].shape[dim] < 2:
        return False
    if isinstance(p, Kernel):
        return p.parts is not None and (dim == IMAGES or (p.parts.window is not None and not _is_intense(p)))
    return not isinstance(p, Join) or all(x.shape[dim] == p.output.shape[dim] for x in p.inputs)


def _continues(members: Sequence[Primitive], p: Primitive, dim: int) -> bool:
    return dim != IMAGES or not members or members[0].outputs[0].shape[dim] == p.outputs[0].shape[dim]


def _is_large(p: Primitive, dim: int) -> bool:
    if not isinstance(p, Kernel):
        return False
    limit = LARGE if dim != IMAGES else OPEN if is_open(p.outputs[0].shape[IMAGES]) else PART
    return _moved(p) > limit


def _is_intense(p: Kernel) -> bool:
    return p.flops > INTENSE * _moved(p)


def _moved(p: Primitive) -> int:
    values = {id(x): x for x in (*p.inputs, *p.outputs) if isinstance(x, Tensor) and not x.is_constant}
    return sum(x.size * x.dtype.itemsize for x in values.values())


@deferred()
def _pieces(size: int, moved: int, part: int) -> int:
    """How many parts something of that size is done in, none of them empty, if a kernel moves so many bytes, in each `part`."""
    count = min(size, MOST, -(-moved // part))
    return -(-size // -(-size // count))


class _Run:
    """Consecutive primitives that are done part by part along a dimension.

    The last output is cut into equal spans; those of the other values follow backwards from what reads them.
    """

    def __init__(self, members: list[Primitive], dim: int, readers: dict[int, list[Primitive | None]]) -> None:
        self.members, self.dim = members, dim
        inside = {id(p) for p in members}
        made = [out for p in members for out in p.outputs]
        self.inner = {id(x) for x in made}
        self.visible = [x for x in made if any(id(r) not in inside for r in readers.get(id(x), ()))]
        size = members[-1].outputs[0].shape[dim]
        moved = most(*(_moved(p) for p in members if isinstance(p, Kernel)))
        count = about(_pieces(size, moved, PART if dim == IMAGES else BAND))
        length = -(-size // count)
        self.spans = [self._needed((i * length, min(size, (i + 1) * length))) for i in range(count)]

    def _needed(self, last: Span) -> dict[int, Span]:
        """id(value) -> the span of it that a part needs."""
        if self.dim == IMAGES:
            return {id(p.outputs[0]): last for p in self.members}
        spans = {id(self.members[-1].outputs[0]): last}
        for p in reversed(self.members):
            own = spans.get(id(p.outputs[0]), (0, 0))
            if own[0] >= own[1]:
                continue
            for x in p.inputs:
                if isinstance(x, Tensor) and _has(x, p, self.dim):
                    first, after = self._read(p, own)
                    known = spans.get(id(x), (first, after))
                    spans[id(x)] = min(first, known[0]), max(after, known[1])
        return spans

    def _read(self, p: Primitive, own: Span) -> Span:
        """The span of the inputs that a span of the output follows from."""
        if self.dim == IMAGES or not isinstance(p, Kernel):
            return own
        extent, step, begin = p.parts.window
        return max(0, own[0] * step - begin), min(p.inputs[0].shape[self.dim], (own[1] - 1) * step - begin + extent)

    @property
    def is_possible(self) -> bool:
        """Whether every part has work to do, values that others read need no place twice, and little is done twice."""
        if self.dim == IMAGES:
            return True
        if self.visible != [self.members[-1].outputs[0]] or len(self.spans) < 2:
            return False
        work, done = 0.0, 0.0
        for p in self.members:
            out = p.outputs[0]
            spans = [spans.get(id(out), (0, 0)) for spans in self.spans]
            if any(first >= after for first, after in spans):
                return False
            each = max(p.flops, out.size) if isinstance(p, Kernel) else out.size
            work += each
            done += each * sum(after - first for first, after in spans) / out.shape[self.dim]
        return done <= (1 + AGAIN) * work

    def parts(self) -> list[Primitive]:
        """The primitives of all parts, and the joins of what others read."""
        primitives: list[Primitive] = []
        pieces: dict[int, list[Tensor]] = {id(x): [] for x in self.visible}
        for spans in self.spans:
            part = _Part(self, spans)
            primitives += part.primitives
            for x in self.visible:
                pieces[id(x)].append(part.values[id(x)])
        for x in self.visible:
            nodes = x.source.nodes
            x.source = join = Join(tuple(pieces[id(x)]), tuple(self._starts(x, pieces[id(x)])), x, None, nodes)
            primitives.append(join)
        return primitives

    def _starts(self, x: Tensor, pieces: Sequence[Tensor]) -> list[tuple[int, ...]]:
        ends = [sum(piece.shape[self.dim] for piece in pieces[:i]) for i in range(len(pieces))]
        return [tuple(end if d == self.dim else 0 for d in range(x.rank)) for end in ends]


class _Part:
    """The primitives of one part of a run; `values`: id(value) -> the part of it that is made here."""

    def __init__(self, run: _Run, spans: dict[int, Span]) -> None:
        self.run, self.spans, self.dim = run, spans, run.dim
        self.primitives: list[Primitive] = []
        self.values: dict[int, Tensor] = {}
        for p in run.members:
            self.values[id(p.outputs[0])] = self._made(p, spans[id(p.outputs[0])])

    def _made(self, p: Primitive, own: Span) -> Tensor:
        read = self.run._read(p, own)
        inputs = tuple(self._cut(x, p, read) if isinstance(x, Tensor) else x for x in p.inputs)
        if isinstance(p, Kernel):
            return self._kernel(p, inputs, own, read)
        shape = tuple(own[1] - own[0] if d == self.dim else n for d, n in enumerate(p.output.shape))
        output = Tensor(p.output.dtype, shape)
        output.source = one = replace(p, inputs=inputs, output=output)
        self.primitives.append(one)
        return output

    def _kernel(self, p: Kernel, inputs: tuple[Tensor | None, ...], own: Span, read: Span) -> Tensor:
        builder = Builder()
        _, step, begin = p.parts.window or (0, 0, 0)
        first, rows = begin, p.outputs[0].shape[ROWS]
        if self.dim == ROWS:
            first, rows = begin - own[0] * step + read[0], own[1] - own[0]
        output = p.parts.make(builder, inputs, first, rows)
        for one in builder.primitives:
            one.nodes = p.nodes
        self.primitives += builder.primitives
        return output

    def _cut(self, x: Tensor, p: Primitive, span: Span) -> Tensor:
        """The span of an input; inputs that the dimension is nothing to are whole."""
        if not _has(x, p, self.dim):
            return x
        start, whole = span[0], x
        if id(x) in self.run.inner:
            whole = self.values[id(x)]
            start -= self.spans[id(x)][0]
        axis = self.dim - (p.outputs[0].rank - x.rank)
        if (start, span[1] - span[0]) == (0, whole.shape[axis]):
            return whole
        starts = tuple(start if d == axis else 0 for d in range(x.rank))
        sizes = tuple(span[1] - span[0] if d == axis else n for d, n in enumerate(x.shape))
        made = view(Slice(starts, (1,) * x.rank, sizes), whole, p.nodes)
        if isinstance(made, Tensor):
            return made
        self.primitives.append(made)
        return made.output


def _has(x: Tensor, p: Primitive, dim: int) -> bool:
    """Whether an input goes along the dimension with the output."""
    if isinstance(p, Kernel):
        return x is p.inputs[0]
    axis = dim - (p.outputs[0].rank - x.rank)
    return axis >= 0 and x.shape[axis] > 1
