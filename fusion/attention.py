"""Attention: a product, elementwise work and a softmax over its rows, and the product with the result -> one kernel.

The pattern is looked for among primitives, so it is the same for whatever an exporter wrote: masks, biases and caps of any
kind are elementwise work on the scores, heads that share keys are rows of one product, windows and batches are dimensions of
heads. The work becomes a generated kernel that `kernels.attention` calls on each block of scores.

Left alone: scores or probabilities that something else reads; types other than float32 and float64; no queries, no keys;
shapes whose heads need more than three dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..ops import evaluate
from ..ops.kernels import attention as kernels
from ..ops.kernels.attentionfew import BLOCK, most
from ..ops.kernels.blocking import panel_width
from ..ops.kernels.launch import Address, Block, Launch, with_spare
from ..ops.kernels.sizes import alike, key
from ..ops.kernels.spec import KernelSpec
from ..ops.primitives import (
    Expand,
    Fold,
    Kernel,
    LaunchContext,
    Layout,
    Map,
    Move,
    Movement,
    Operand,
    Permute,
    Primitive,
    Reduce,
    Reshape,
    Shape,
    Tensor,
    Trace,
)  # fmt: skip
from . import loops
from .attentionband import band_of
from .attentionheads import Heads, Unfit, keeps_last, under_reshapes, under_views
from .copies import copy_launches
from .edit import Editor, literal, readers_of, view
from .scales import scaled
from .tidy import prune

_EXPONENTIALS = [("exp_flushed(a - b)",), ("exp(a - b)",), ("a - b", "exp(a)"), ("a - b", "exp_flushed(a)")]
_REPLACED = re.compile(r"select\(a, (-?[\d.e+]+), b\)")  # a number where a mask says so
_LOW = -1e30  # a score that is replaced by less weighs nothing beside any other
_TURNED = (0, 1, 2, 4, 3)  # keys before queries


def fuse_attention(trace: Trace) -> Trace:
    """Every attention of the trace as one kernel (see the module's text)."""
    search = _Search(trace)
    found = {id(p): match for p in trace.primitives if (match := search.match(p)) is not None}
    if not found:
        return trace
    editor, turned = Editor(trace), {}
    for p in trace.primitives:
        *before, last = _rewritten(found[id(p)], turned) if id(p) in found else (p,)
        for each in before:
            editor.insert(each)
        editor.keep(p, editor.renamed(last))
    return prune(editor.result())


def _rewritten(match: _Match, turned: dict[object, object]) -> list[Primitive]:
    """The primitives in place of the second product; itself if it has to stay."""
    try:
        return _Rewrite(match, turned).run()
    except Unfit:
        return [match.second]


# -- the pattern
@dataclass(frozen=True)
class _Match:
    """A product, `work` on it in order, the softmax of what comes out, views of that, the second product.

    Attributes:
        hidden: says which rows of probabilities are 0, with a last dimension of 1; or which probabilities are, and the scores
            there are replaced by so low a number that this changes nothing but rows that are hidden as a whole.
    """

    first: Kernel
    work: tuple[Map | Move, ...]
    softmax: tuple[Map | Reduce, ...]
    views: tuple[Move | Map, ...]
    hidden: Tensor | None
    second: Kernel

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ONNX nodes that it covers."""
        every = [self.first, *self.work, *self.softmax, *self.views, self.second]
        return tuple(dict.fromkeys(name for p in every for name in p.nodes))

    @property
    def scores(self) -> list[Tensor]:
        """Scores and probabilities in all their shapes."""
        return [self.first.outputs[0], *(p.output for p in (*self.work, self.softmax[-1], *self.views))]


class _Search:
    def __init__(self, trace: Trace) -> None:
        self.readers = readers_of(trace)
        self.index = {id(p): i for i, p in enumerate(trace.primitives)}

    def match(self, second: Primitive) -> _Match | None:
        """The attention that ends with a primitive."""
        if not _is_product(second) or 0 in (second.outputs[0].size, second.inputs[0].size):
            return None
        x, views, zeroed = second.inputs[0], [], None
        while self._read_once(x):
            if keeps_last(x.source, 1):
                views.append(x.source)
                x = x.source.input
            elif zeroed is None and (found := _replaced(x.source)) is not None and found.number == 0:
                views.append(x.source)
                zeroed, x = found, found.value
            else:
                break
        softmax = self._softmax(x.source) if self._read_once(x) else None
        if softmax is None or not (zeroed is None or zeroed.rows or _hides(softmax[0].input, zeroed)):
            return None
        for first in _products_before(softmax[0].input):
            work = self._between(first, softmax)
            if work is not None:
                return _Match(first, work, softmax, tuple(views), zeroed.where if zeroed else None, second)
        return None

    def _read_once(self, x: Tensor) -> bool:
        return len(self.readers[id(x)]) == 1

    def _softmax(self, last: Primitive | None) -> tuple[Map | Reduce, ...] | None:
        """The primitives, maximum and power first, of a softmax over the last axis that `last` ends."""
        if not isinstance(last, Map) or last.text not in ("a * b", "a / b"):
            return None
        grown, total = last.inputs
        inverse: tuple[Map, ...] = ()
        if last.text == "a * b":
            if isinstance(grown.source, Map) and grown.source.text == "1.0 / a":
                grown, total = total, grown
            if not isinstance(total.source, Map) or total.source.text != "1.0 / a":
                return None
            inverse, total = (total.source,), total.source.inputs[0]
        power, sums = grown.source, total.source
        if not isinstance(power, Map) or not _folds(sums, grown, Fold.ADD):
            return None
        steps = (power,)
        if power.text in ("exp(a)", "exp_flushed(a)") and isinstance(power.inputs[0].source, Map):
            steps = (power.inputs[0].source, power)
        if (steps[0].text, *(p.text for p in steps[1:])) not in _EXPONENTIALS:
            return None
        x, top = steps[0].inputs
        if not _folds(top.source, x, Fold.MAX, Fold.MAXNUM):
            return None
        every = (top.source, *steps, sums, *inverse, last)
        inside = {id(p) for p in every}
        return every if all(id(r) in inside for p in every[:-1] for r in self.readers[id(p.output)]) else None

    def _between(self, first: Kernel, softmax: Sequence[Map | Reduce]) -> tuple[Map | Move, ...] | None:
        """The work between a product and a softmax; None if anything else comes of the product."""
        raw, end = first.outputs[0], {id(softmax[0]), id(softmax[1])}
        work: dict[int, Map | Move] = {}
        ahead = [raw]
        while ahead:
            x = ahead.pop()
            for p in self.readers[id(x)]:
                if x is softmax[0].input and id(p) in end:
                    continue
                if p is None or not (isinstance(p, Map) or keeps_last(p, 1)):
                    return None
                if p.output.size != raw.size or p.output.dtype != raw.dtype or p.output.shape[-1] != raw.shape[-1]:
                    return None
                if id(p) not in work:
                    work[id(p)] = p
                    ahead.append(p.output)
        ordered = sorted(work.values(), key=lambda p: self.index[id(p)])
        return tuple(ordered) if softmax[0].input in (raw, *(p.output for p in ordered)) else None


def _is_product(p: Primitive | None) -> bool:
    return isinstance(p, Kernel) and p.name == "matmul" and None not in p.inputs and p.outputs[0].dtype in (np.float32, np.float64)


@dataclass(frozen=True)
class _Replaced:
    """A value with a number where a mask says so."""

    where: Tensor
    number: float
    value: Tensor

    @property
    def rows(self) -> bool:
        """Whether only whole rows are replaced."""
        return self.where.rank == 0 or self.where.shape[-1] == 1


def _replaced(p: Primitive | None) -> _Replaced | None:
    """What p is if it replaces elements of a value of its own shape by a number."""
    if not isinstance(p, Map) or p.inputs[-1].shape != p.output.shape or p.inputs[-1].dtype != p.output.dtype:
        return None
    text = _REPLACED.fullmatch(p.text) if len(p.inputs) == 2 else None
    number = float(text[1]) if text else literal(p.inputs[1]) if p.text == "select(a, b, c)" else None
    return None if number is None else _Replaced(p.inputs[0], number, p.inputs[-1])


def _hides(scores: Tensor, zeroed: _Replaced) -> bool:
    """Whether what is zeroed has weighed nothing, as its scores were replaced, too (unless that is a whole row)."""
    low = _replaced(scores.source)
    return low is not None and low.where is zeroed.where and low.number < _LOW and scores.shape == zeroed.value.shape


def _folds(p: Primitive | None, x: Tensor, *folds: Fold) -> bool:
    return isinstance(p, Reduce) and p.fold in folds and p.input is x and p.axes == (x.rank - 1,)


def _products_before(x: Tensor) -> list[Kernel]:
    """The products that a value is made of by elementwise work on values of its size, the nearest first."""
    found: list[Kernel] = []
    ahead, seen = [x], {id(x)}
    for value in ahead:
        p = value.source
        if _is_product(p):
            found.append(p)
        elif isinstance(p, Map) or keeps_last(p, 1):
            for y in p.inputs:
                if y.size == x.size and id(y) not in seen:
                    seen.add(id(y))
                    ahead.append(y)
    return found


# -- the kernel
class _Rewrite:
    """One attention as a kernel: what has to be in front of it, and the view of its result that stands for the product."""

    def __init__(self, match: _Match, turned: dict[object, object]) -> None:
        self.match, self.turned = match, turned
        self.before: list[Primitive] = []
        self.kept: list[Tensor] = []  # keeps ids unique

    def run(self) -> list[Primitive]:
        """The primitives, the last of which makes what the second product made.

        Raises:
            Unfit: it has to stay as it is.
        """
        match = self.match
        (a, b), (_, c) = match.first.inputs, match.second.inputs
        self.heads = self._heads(a, b, c)
        q = self._first_of([under_reshapes(a), a], lambda x: self._view(x, Reshape((*self.heads.sizes, a.shape[-1]))))
        k = self._matrices(b, a.shape[-2], turned=True)
        v = self._matrices(c, match.second.inputs[0].shape[-2], turned=False)
        scale, work = self._work(k.shape[-2])
        reads = [x for x in work.reads if x is not self.raw] if work else []
        size = q.dtype
        y = Tensor(size, (*self.heads.sizes, v.shape[-1]))
        maps = [p for p in match.work if isinstance(p, Map)]
        band = band_of(maps, {id(x) for x in match.scores}, self.heads.sizes[-1], self.turned)
        call = _Call(self.heads.sizes, scale, work, self.raw, self.maps, band)
        kernel = Kernel(
            "attention", (q, k, v, *reads), (y,), call.launch, matrix=tuple((d,) for d in range(y.rank)),
            flops=2 * prod(y.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]), nodes=match.nodes, reference=call.reference,
        )  # fmt: skip
        rest = self._rest(y)
        return [*self.before, kernel, *rest]

    def _rest(self, y: Tensor) -> list[Primitive]:
        """What follows the kernel: 0 for rows that see nothing, and the product's shape."""
        match, out = self.match, self.match.second.outputs[0]
        if match.hidden is None or (match.hidden.is_constant and not match.hidden.constant.any()):
            return [Move(Reshape(out.shape), y, out, match.nodes)]
        shape = next(p.output.shape for p in match.views if isinstance(p, Map))
        hidden = self._whole_rows(match.hidden)
        rows = self.heads.spread(shape[:-1], hidden.shape[:-1])
        hidden = self._view(hidden, Reshape((*rows, 1) if hidden.rank else ()))
        zeroed = Map("select(a, 0.0, b)", (hidden, y), Tensor(y.dtype, y.shape), match.nodes)
        return [zeroed, Move(Reshape(out.shape), zeroed.output, out, match.nodes)]

    def _whole_rows(self, hidden: Tensor) -> Tensor:
        """Which rows are hidden as a whole, with a last dimension of 1."""
        if hidden.rank == 0 or hidden.shape[-1] == 1:
            return hidden
        wanted = key("rows", id(hidden))
        if wanted not in self.turned:
            rows = Tensor(hidden.dtype, (*hidden.shape[:-1], 1))
            self.before.append(Reduce(Fold.MIN, hidden, (hidden.rank - 1,), rows, self.match.nodes))
            self.turned[wanted] = rows
            self.kept.append(hidden)
        return self.turned[wanted]

    def _heads(self, a: Tensor, b: Tensor, c: Tensor) -> Heads:
        match = self.match
        shared = [p.inputs[0].shape[-2] for p in (match.first, match.second)]
        dimensions = [(x.shape[:-1], 1) for x in [*match.scores, match.second.outputs[0]]]
        own = [(under_views(x)[0].shape[:-2], rows) for x, rows in zip((b, c), shared)]
        try:  # so that neither queries, keys nor values have to be copied
            return Heads.of([*dimensions, *own, (under_reshapes(a).shape[:-1], 1)], shared)
        except Unfit:
            return Heads.of(dimensions, shared)

    # -- queries, keys and values
    def _view(self, x: Tensor, how: Movement) -> Tensor:
        """A view of x.

        Raises:
            Unfit: strides cannot say it.
        """
        if isinstance(how, Reshape) and alike(how.shape, x.shape):
            return x
        made = view(how, x, self.match.nodes)
        if made is None:
            raise Unfit
        if isinstance(made, Move):
            self.before.append(made)
            return made.output
        return made

    def _first_of(self, candidates: Iterable[Tensor], view_of: Callable[[Tensor], Tensor]) -> Tensor:
        for x in candidates:
            known = len(self.before)
            try:
                return view_of(x)
            except Unfit:
                del self.before[known:]
        raise Unfit

    def _matrices(self, x: Tensor, rows: int, turned: bool) -> Tensor:
        """Keys or values as [heads ..., keys, columns] of the second factor of a product (or of its transposition, `turned`)."""
        base, swapped = under_views(x)
        leads = self.heads.shared(rows)

        def of(candidate: Tensor) -> Tensor:
            made = self._view(candidate, Reshape((*leads, *candidate.shape[-2:])))
            return self._view(made, Permute(_TURNED)) if turned != (swapped and candidate is base) else made

        return self._first_of([base, x] if base is not x else [x], of)

    # -- the work on scores
    def _work(self, keys: int) -> tuple[float, loops.Body | None]:
        """What scores are multiplied by, and what else is done to them."""
        match, value = self.match, self.match.first.outputs[0]
        *leads, queries = self.heads.sizes
        self.shape = (*leads, keys, queries)
        self.raw = Tensor(value.dtype, self.shape)
        known = {id(value): self.raw}
        self.maps: list[Map] = []
        scale, first = 1.0, 0
        for p in match.work:
            source = p.inputs[0] if isinstance(p, Move) else (scaled(p) or (None, 0.0))[0]
            if id(source) not in known or sum(x is source for q in match.work for x in q.inputs) != 1:
                break
            scale *= 1.0 if isinstance(p, Move) else scaled(p)[1]
            known[id(p.output)], first = self.raw, first + 1
        for p in match.work[first:]:
            if isinstance(p, Move):
                known[id(p.output)] = known[id(p.input)]
                continue
            inputs = tuple(known[id(x)] if id(x) in known else self._operand(x, p.output.shape) for x in p.inputs)
            made = Map(p.text, inputs, Tensor(p.output.dtype, self.shape), p.nodes)
            self.maps.append(made)
            known[id(p.output)] = made.output
        return scale, loops.body(self.maps, [known[id(match.softmax[0].input)]], None) if self.maps else None

    def _operand(self, x: Tensor, shape: Shape) -> Tensor:
        """What broadcasts with scores of some shape as [heads ..., keys, queries], runs of queries in memory if it has any."""
        while isinstance(x.source, Move) and isinstance(x.source.how, Expand):
            x = x.source.input
        if x.size == 1:
            return self._view(x, Reshape(())) if x.rank else x
        rows = self.heads.spread(shape[:-1], x.shape[:-1])
        target = (*rows, x.shape[-1] if x.rank else 1)
        wanted = key(id(x), target)
        if wanted not in self.turned:
            self.turned[wanted] = self._turned(x, target)
            self.kept.append(x)
        return self.turned[wanted]

    def _turned(self, x: Tensor, target: Shape) -> Tensor:
        made = self._view(self._view(x, Reshape(target)), Permute(_TURNED))
        if 1 in made.shape[-2:] or made.shape[-1] <= most(evaluate.memory_name(self.match.first.outputs[0].dtype)):
            return made
        if made.is_constant:
            return Tensor(made.dtype, made.shape, np.ascontiguousarray(made.constant))
        copy = Kernel("copy", (made,), (Tensor(made.dtype, made.shape),), _copied, nodes=self.match.nodes, reference=list)
        copy.outputs[0].source = copy
        self.before.append(copy)
        return copy.outputs[0]


def _copied(x: LaunchContext) -> list[Launch]:
    (a,), (b,) = x.inputs, x.outputs
    read, written = Layout(a.shape, a.strides), Layout(b.shape, b.strides)
    launches = copy_launches(a.dtype, a.shape, a.address, read, b.address, written, x.threads)
    assert launches is not None  # no dimension is repeated
    return launches


@dataclass(frozen=True)
class _Call:
    """The kernel's launch and meaning: sizes [heads ..., queries], the scale, the work on scores and where it begins."""

    sizes: Shape
    scale: float
    work: loops.Body | None
    raw: Tensor
    maps: Sequence[Map]
    band: kernels.Band | None

    def launch(self, x: LaunchContext) -> list[Launch]:
        """Launches for operands in place."""
        q, k, v = x.inputs[:3]
        *leads, queries = self.sizes
        sizes = kernels.Sizes(tuple(leads), queries, k.shape[-2], q.shape[-1], v.shape[-1])
        launches: list[Launch] = []
        for first, number in kernels.parts(evaluate.memory_name(x.outputs[0].dtype), _matrix(k), _matrix(v), sizes):
            launches += self._part(x, first, replace(sizes, queries=number))
        return launches

    def _part(self, x: LaunchContext, first: int, sizes: kernels.Sizes) -> list[Launch]:
        """Launches for the queries from the `first` one on."""
        q, k, v, *reads = x.inputs
        (y,) = x.outputs
        dtype = evaluate.memory_name(y.dtype)
        few = kernels.is_few(dtype, _matrix(k), _matrix(v), sizes)
        scores, spare = None, ()
        if self.work is not None:
            kernel, args = self._work(reads, sizes, first, few)
            other, _ = self._work([_laid(read, not few) for read in reads], sizes, first, not few)
            scores, spare = (Address(kernel), Block(args)), (other,)
        label = f"{'x'.join(map(str, sizes.leads))}x({sizes.queries}x{sizes.head}x{sizes.keys}x{sizes.value})"
        launches = kernels.attention(
            dtype, _matrix(q).beyond(first), _matrix(k), _matrix(v), _matrix(y).beyond(first), sizes, scale=self.scale,
            scores=scores, band=self.band and self.band.beyond(first), alloc=x.alloc, threads=x.threads, label=label,
        )  # fmt: skip
        return with_spare(launches, *spare)

    def _work(
        self, reads: Sequence[Operand], sizes: kernels.Sizes, first: int, rows: bool
    ) -> tuple[KernelSpec, tuple[object, ...]]:
        """The work on scores of some queries from the `first` one on in rows, or else of all in columns."""
        layouts = [_spread(operand, (*sizes.leads, sizes.keys, self.sizes[-1])) for operand in reads]
        addresses = [operand.address + first * layout.strides[-1] for operand, layout in zip(reads, layouts)]
        if rows:
            layouts = [Permute(_TURNED).layout(layout) for layout in layouts]
        size = self.raw.dtype.itemsize
        pitch = (BLOCK if rows else panel_width(size)) * size
        return loops.scores(self.work, self.raw, layouts, addresses, pitch, rows)

    def reference(self, inputs: list[np.ndarray | None]) -> list[np.ndarray]:
        """The same with numpy."""
        q, k, v, *reads = inputs
        scores = np.matmul(k, q.swapaxes(-1, -2)) * q.dtype.type(self.scale)
        if self.work is not None:
            values = {id(x): array for x, array in zip((x for x in self.work.reads if x is not self.raw), reads)}
            values[id(self.raw)] = scores
            for p in self.maps:
                given = [x.constant if x.is_constant and id(x) not in values else values[id(x)] for x in p.inputs]
                values[id(p.output)] = evaluate.map_(p.text, given, p.output.dtype, scores.shape)
            scores = values[id(self.maps[-1].output)]
        with np.errstate(all="ignore"):
            grown = np.exp(scores - evaluate.reduce(Fold.MAXNUM, scores, (scores.ndim - 2,)))
            return [np.matmul(grown.swapaxes(-1, -2), v) / grown.sum(-2)[..., None]]


def _matrix(x: Operand) -> kernels.Heads:
    *leads, row, column = x.strides
    return kernels.Heads(x.address, tuple(0 if n == 1 else s for n, s in zip(x.shape, leads)), row, column)


def _laid(x: Operand, rows: bool) -> Operand:
    """An operand [heads ..., keys, queries] as it lies where queries are few, runs of keys, or else runs of queries."""
    if not x.shape or 1 in x.shape[-2:]:
        return x
    return replace(x, strides=Layout.contiguous(x.shape, x.dtype.itemsize, _TURNED if rows else None).strides)


def _spread(x: Operand, shape: Shape) -> Layout:
    """An operand over all scores: what has size 1 does not move."""
    still = tuple(0 if n == 1 else s for n, s in zip(x.shape, x.strides))
    return Expand(shape).layout(Layout(x.shape, still))
