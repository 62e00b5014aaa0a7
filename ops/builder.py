"""The builder that operators are written with: each method adds one primitive and returns its tensor.

Whatever depends on constants alone is computed at once (`ops.evaluate`), so shape arithmetic never reaches a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from math import prod
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from . import evaluate, openvalues
from .held import fix_sizes_held_by_python
from .kernels.sizes import alike, cached, is_open, now, whole
from .kernels.symbols import Symbols
from .primitives import (
    Expand,
    Fold,
    Host,
    Join,
    Kernel,
    LaunchContext,
    Map,
    Move,
    Movement,
    Opaque,
    Parts,
    Permute,
    Primitive,
    Reduce,
    Reshape,
    Shape,
    Slice,
    Tail,
    Tensor,
)  # fmt: skip

if TYPE_CHECKING:
    from .iteration import Body, Nest

Made = TypeVar("Made")
_TABLE = 4096  # numbers that a table of them has at least
_ODD = "a type that kernels do not know"  # why Python moves it


class NeedsValue(Exception):
    """Tracing cannot go on without the content of `tensor`."""

    def __init__(self, tensor: Tensor | Opaque) -> None:
        super().__init__(f"the value of {tensor!r} decides a shape")
        self.tensor = tensor


class OperatorError(ValueError):
    """An operator's inputs or attributes do not fit its definition. The tracer adds the node's name."""


class Declined(Exception):
    """A lowering leaves this use of its operator to `ops.fallback`."""


class Builder:
    """Appends primitives to a trace. `node` is the ONNX node that is being lowered; `outputs` its output names."""

    def __init__(self) -> None:
        self.primitives: list[Primitive] = []
        self.node_name = ""
        self.output_names: Sequence[str] = ("",)
        self.opsets: dict[str, int] = {}
        self.memo: dict[object, tuple[object, object]] = {}
        self.symbols = Symbols()

    # -- constants
    def constant(self, value: object, dtype: np.dtype | type | None = None) -> Tensor:
        """A tensor of known content: an array, a number, or a list or tuple, in which open sizes may be."""
        if is_open(value):
            listed = isinstance(value, tuple | list)
            return openvalues.whole(value if listed else [value], (len(value),) if listed else (), np.dtype(dtype or np.int64))
        array = np.asarray(value, dtype)
        return Tensor(array.dtype, array.shape, array)

    def numbers(self, count: int, first: int = 0) -> Tensor:
        """first, first + 1, ... as int64; of open sizes a part of a table that is long enough."""
        if not is_open(count, first):
            return self.constant(np.arange(first, first + count, dtype=np.int64))
        room = _room(first + count)
        return self.take(self.constant(np.arange(room, dtype=np.int64)), 0, first, first + count)

    def value(self, x: Tensor | Opaque) -> np.ndarray:
        """The content of a tensor that decides shapes.

        Raises:
            NeedsValue: it is not constant; the tracer then specialises the plan on it or starts a new segment.
        """
        if isinstance(x, Opaque) or not x.is_constant:
            raise NeedsValue(x)
        return x.constant

    def ints(self, x: Tensor | Opaque) -> tuple[int, ...]:
        """The content of an integer tensor as Python numbers and open sizes, flattened."""
        if isinstance(x, Tensor) and x.is_open:
            return tuple(x.content.reshape(-1))
        return tuple(int(v) for v in self.value(x).reshape(-1))

    # -- computing
    def map(self, text: str, *inputs: Tensor, dtype: np.dtype | str | None = None) -> Tensor:
        """Elementwise `text` over the inputs, broadcast as in numpy; `dtype` defaults to the first input's."""
        inputs = tuple(self._tensor(x) for x in inputs)
        shape = broadcast(*(x.shape for x in inputs))
        output = Tensor(np.dtype(dtype) if dtype is not None else inputs[0].dtype, shape)
        if all(x.is_constant for x in inputs):
            made = openvalues.map_(text, inputs, output.dtype, shape) if any(x.is_open for x in inputs) else None
            if made is not None:
                return made
            output.constant = evaluate.map_(text, [x.constant for x in inputs], output.dtype, shape)
            return output
        evaluate.check(text, tuple(x.dtype for x in inputs), output.dtype)
        return self._add(Map(text, inputs, output, (self.node_name,)))

    def reduce(self, fold: Fold | str, x: Tensor, axes: Sequence[int] | None = None, keepdims: bool = True) -> Tensor:
        """Fold `axes` (None: all). Without `keepdims` the axes disappear."""
        x = self._tensor(x)
        fold = Fold(fold)
        axes = tuple(sorted(axis_index(a, x.rank) for a in (range(x.rank) if axes is None else axes)))
        shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
        output = Tensor(np.dtype(np.int64) if fold.value.startswith("arg") else x.dtype, shape)
        made = openvalues.reduce(fold, x, axes) if x.is_open else None
        if made is not None:
            output = made
        elif x.is_constant:
            output.constant = evaluate.reduce(fold, x.constant, axes)
        elif not axes and not fold.value.startswith("arg"):
            output = x
        else:
            self._add(Reduce(fold, x, axes, output, (self.node_name,)))
        return output if keepdims else self.reshape(output, [n for d, n in enumerate(x.shape) if d not in axes])

    def cast(self, x: Tensor, dtype: np.dtype | type | str) -> Tensor:
        """Convert every element (C semantics; to bool: unequal zero)."""
        dtype = np.dtype(dtype)
        if x.dtype == dtype:
            return x
        if x.weight is not None:
            return Tensor(dtype, x.shape, weight=x.weight.cast(dtype))
        if x.is_open:
            return openvalues.tensor(x.content, dtype)
        if x.is_constant:
            return self.constant(evaluate.cast(x.constant, dtype))
        return self.map(f"to_{evaluate.register_name(dtype)}(a)", x, dtype=dtype)

    # -- moving
    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The same elements under another shape (all sizes given)."""
        shape = tuple(map(whole, shape))
        if prod(shape) != x.size:
            raise OperatorError(f"cannot reshape [{_dims(x.shape)}] ({x.size} elements) to [{_dims(shape)}]")
        return x if alike(shape, x.shape) else self._move(Reshape(shape), x, shape)

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Dimension d of the result is dimension axes[d] of x."""
        axes = tuple(axis_index(a, x.rank) for a in axes)
        if sorted(axes) != list(range(x.rank)):
            raise OperatorError(f"perm {list(axes)} is no permutation of the {x.rank} dimensions of [{_dims(x.shape)}]")
        return x if axes == tuple(range(x.rank)) else self._move(Permute(axes), x, tuple(x.shape[a] for a in axes))

    def slice(self, x: Tensor, starts: Sequence[int], steps: Sequence[int], sizes: Sequence[int]) -> Tensor:
        """Per dimension: first index, step and number of elements, all within x."""
        how = Slice(tuple(map(whole, starts)), tuple(map(int, steps)), tuple(map(whole, sizes)))
        if alike(how.sizes, x.shape) and all(k == 1 or n <= 1 for k, n in zip(how.steps, how.sizes)):
            return x
        return self._move(how, x, how.sizes)

    def take(self, x: Tensor, axis: int, start: int, stop: int) -> Tensor:
        """Elements start .. stop - 1 along one axis."""
        starts, sizes = [0] * x.rank, list(x.shape)
        starts[axis], sizes[axis] = start, stop - start
        return self.slice(x, starts, [1] * x.rank, sizes)

    def expand(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Broadcast to exactly `shape`."""
        shape = tuple(map(whole, shape))
        if broadcast(x.shape, shape) != shape:
            raise OperatorError(f"cannot broadcast [{_dims(x.shape)}] to [{_dims(shape)}]")
        return x if alike(shape, x.shape) else self._move(Expand(shape), x, shape)

    def squeeze(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Without the given dimensions, which have size 1."""
        gone = {axis_index(a, x.rank) for a in axes}
        return self.reshape(x, [n for d, n in enumerate(x.shape) if d not in gone])

    def unsqueeze(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """With dimensions of size 1 at the given places of the result."""
        rank = x.rank + len(axes)
        new, old = {axis_index(a, rank) for a in axes}, iter(x.shape)
        return self.reshape(x, [1 if d in new else next(old) for d in range(rank)])

    def join(self, inputs: Sequence[Tensor], starts: Sequence[Shape], shape: Shape, fill: float | None = None) -> Tensor:
        """A tensor of `shape` with the inputs in boxes at `starts` and `fill` elsewhere."""
        inputs = tuple(self._tensor(x) for x in inputs)
        output = Tensor(inputs[0].dtype, shape)
        if any(x.is_open for x in inputs) and all(x.is_constant for x in inputs) and not is_open(shape, *starts):
            content = np.full(shape, 0 if fill is None else fill, object)
            for x, start in zip(inputs, starts):
                content[tuple(slice(s, s + n) for s, n in zip(start, x.shape))] = x.content
            return openvalues.tensor(content, output.dtype)
        if all(x.is_constant for x in inputs) and not is_open(shape, *starts):
            output.constant = evaluate.join([x.constant for x in inputs], starts, output.dtype, shape, fill)
            return output
        if not evaluate.is_native(output.dtype):
            return self._join_on_host(inputs, starts, output, fill)
        return self._add(Join(inputs, tuple(map(tuple, starts)), output, fill, (self.node_name,)))

    def concat(self, inputs: Sequence[Tensor], axis: int) -> Tensor:
        """The inputs one after the other along an axis; other sizes must agree."""
        axis = axis_index(axis, inputs[0].rank)
        rest = [x.shape[:axis] + x.shape[axis + 1 :] for x in inputs]
        if any(r != rest[0] for r in rest):
            shapes = " and ".join(f"[{_dims(x.shape)}]" for x in inputs)
            raise OperatorError(f"cannot join {shapes} along axis {axis}: the other dimensions differ")
        if len(inputs) == 1:
            return inputs[0]
        starts, at = [], 0
        for x in inputs:
            starts.append(tuple(at if d == axis else 0 for d in range(x.rank)))
            at += x.shape[axis]
        return self.join(inputs, starts, tuple(at if d == axis else n for d, n in enumerate(inputs[0].shape)))

    def pad(self, x: Tensor, before: Sequence[int], after: Sequence[int], fill: float = 0) -> Tensor:
        """x with `fill` around it (counts may not be negative)."""
        if not any(before) and not any(after):
            return x
        shape = tuple(n + b + e for n, b, e in zip(x.shape, before, after))
        return self.join([x], [tuple(before)], shape, fill)

    # -- calling
    def kernel(
        self,
        name: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[tuple[np.dtype, Shape]],
        launch: Callable[[LaunchContext], list],
        *,
        orders: Sequence[tuple[int, ...] | None] = (),
        output_orders: Sequence[tuple[int, ...] | None] = (),
        tail: Tail = Tail.NONE,
        bias: bool = False,
        in_place: bool = False,
        matrix: tuple = ((), (), (), ()),
        flops: int = 0,
        errors: Sequence[str] = (),
        reference: Callable[[list[np.ndarray | None]], Sequence[np.ndarray]] | None = None,
        linear: bool = False,
        parts: Parts | None = None,
        changes: int | None = None,
        packs: int | None = None,
    ) -> tuple[Tensor, ...]:
        """A hand-built kernel (see `primitives.Kernel`); gives its output tensors.

        If every input is constant and there is a reference, that is called at once; on types that kernels do not know
        (strings, float8 ...) it is a host step.
        """
        if reference is not None and not all(evaluate.is_native(x.dtype) for x in inputs if isinstance(x, Tensor)):
            return self.host(reference, inputs, outputs, _ODD)
        if reference is not None and all(x is None or (isinstance(x, Tensor) and x.is_constant) for x in inputs):
            return tuple(self.constant(v) for v in reference([None if x is None else x.constant for x in inputs]))
        made = tuple(Tensor(dtype, shape) for dtype, shape in outputs)
        inputs = tuple(None if x is None else self._tensor(x) for x in inputs)
        kernel = Kernel(
            name, inputs, made, launch, tuple(orders), tuple(output_orders), tail, bias, in_place, matrix, flops, tuple(errors),
            (self.node_name,), reference, linear, parts, changes, packs,
        )  # fmt: skip
        for tensor in made:
            tensor.source = kernel
        self.primitives.append(kernel)
        return made

    def host(
        self,
        call: Callable[[list[object]], Sequence[object]],
        inputs: Sequence[Tensor | Opaque | None],
        outputs: Sequence[tuple[np.dtype, Shape] | None],
        reason: str,
        fold: bool = True,
        keeps: bool = True,
        nest: Nest | None = None,
        body: Body | None = None,
    ) -> tuple[Tensor | Opaque, ...]:
        """A Python function; an output of None is opaque (shape or kind known only at run time).

        If every input is constant it is called at once, unless `fold` is False (random numbers). Open sizes are open for it only
        in its inputs (`held`). `keeps`: it may keep arrays that it is given, or hand them on. `nest`: the loop that it is. `body`:
        what it runs.
        """
        if fold and all(x is None or (isinstance(x, Tensor) and x.is_constant and not x.is_open) for x in inputs):
            values = call([None if x is None else x.constant for x in inputs])
            if all(isinstance(v, (np.ndarray, np.generic)) for v in values):
                return tuple(self.constant(v) for v in values)
        if self.symbols.parts:
            fix_sizes_held_by_python(call)
        made = tuple(Opaque() if kind is None else Tensor(*kind) for kind in outputs)
        step = Host(call, tuple(inputs), made, reason, (self.node_name,), keeps=keeps, nest=nest, body=body)
        for value in made:
            value.source = step
        self.primitives.append(step)
        return made

    def cut(self, x: Tensor, count: Tensor, axis: int) -> Tensor | Opaque:
        """The first count[0] slices of x along an axis: how much of it a kernel has filled is known when it has run.

        Python reads the size and takes that part, but computes nothing.
        """
        before = (slice(None),) * axis
        if x.is_constant and count.is_constant:
            return self.constant(x.constant[(*before, slice(int(count.constant[0])))])
        step = Host(
            lambda v: [v[0][(*before, slice(int(v[1][0])))].copy()], (x, count), (Opaque(),), "the size is known when it is filled",
            (self.node_name,), cuts=True, keeps=False,
        )  # fmt: skip
        step.outputs[0].source = step
        self.primitives.append(step)
        return step.outputs[0]

    def op(self, name: str, *inputs: Tensor | None, since: int | None = None, domain: str = "", **attributes: object):
        """Lower another operator in place, at the model's opset or at `since`."""
        from . import registry

        row = registry.find(domain, name, since or self.opsets.get(domain, 1 << 30))
        return row.lower(self, *inputs, **attributes)

    def once(self, about: object, kind: object, make: Callable[[], Made]) -> Made:
        """What ``make()`` gives: made in the first trace of a graph, and kept for its later ones.

        Args:
            about: an attribute of the node, by identity; kind: what else decides the result.
        """
        key = (id(about), kind)
        if key not in self.memo:
            self.memo[key] = (about, make())  # what identifies it has to stay
        return self.memo[key][1]

    # -- inside
    def _tensor(self, x: Tensor | Opaque) -> Tensor:
        if isinstance(x, Opaque):
            raise NeedsValue(x)
        return x

    def _move(self, how: Movement, x: Tensor, shape: Shape) -> Tensor:
        x = self._tensor(x)
        output = Tensor(x.dtype, shape)
        if x.is_constant and not is_open(shape, how.starts if isinstance(how, Slice) else ()):
            if x.weight is not None:
                return Tensor(x.dtype, shape, weight=x.weight.view(how, shape))
            if x.is_open:
                return openvalues.tensor(evaluate.move(how, x.content), x.dtype)
            output.constant = evaluate.move(how, x.constant)
            return output
        if not evaluate.is_native(x.dtype):
            return self._move_on_host(how, x, shape)
        return self._add(Move(how, x, output, (self.node_name,)))

    def _move_on_host(self, how: Movement, x: Tensor, shape: Shape) -> Tensor:
        """A view of a type that kernels do not know; what may be open of it is an input."""
        kind, count = type(how), len(fields(how))
        numbers = self.constant(tuple(n for field in fields(how) for n in getattr(how, field.name)), np.int64)

        def call(values: list[np.ndarray]) -> list[np.ndarray]:
            parts = values[1].reshape(count, -1).tolist()
            made = evaluate.move(kind(*map(tuple, parts)), values[0])
            return [np.ascontiguousarray(made).reshape(made.shape)]

        return self.host(call, (x, numbers), [(x.dtype, shape)], _ODD)[0]

    def _join_on_host(self, inputs: Sequence[Tensor], starts: Sequence[Shape], output: Tensor, fill: float | None) -> Tensor:
        """A join of a type that kernels do not know, likewise."""
        count, dtype = len(starts), output.dtype
        numbers = self.constant(tuple(n for row in (*starts, output.shape) for n in row), np.int64)

        def call(values: list[np.ndarray]) -> list[np.ndarray]:
            *boxes, shape = values[-1].reshape(count + 1, -1).tolist()
            return [evaluate.join(values[:-1], boxes, dtype, tuple(shape), fill)]

        return self.host(call, (*inputs, numbers), [(dtype, output.shape)], _ODD)[0]

    def _add(self, primitive: Map | Reduce | Move | Join) -> Tensor:
        primitive.output.source = primitive
        self.primitives.append(primitive)
        return primitive.output


def axis_index(axis: int, rank: int) -> int:
    """A possibly negative axis as an index.

    Raises:
        OperatorError: it lies outside the rank.
    """
    if not -rank <= axis < max(rank, 1):
        raise OperatorError(f"axis {axis} is outside the {rank} dimensions of the input")
    return axis + rank if axis < 0 else int(axis)


@cached(maxsize=4096)
def broadcast(*shapes: Shape) -> Shape:
    """The common shape under numpy's rules.

    Raises:
        OperatorError: the shapes disagree.
    """
    result: list[int] = []
    for shape in shapes:
        if len(shape) > len(result):
            result = [1] * (len(shape) - len(result)) + result
        lead = len(result) - len(shape)
        for d, n in enumerate(shape, lead):
            if n != 1 and result[d] != 1 and n != result[d]:
                raise OperatorError("cannot broadcast " + " with ".join(f"[{_dims(s)}]" for s in shapes))
            result[d] = n if result[d] == 1 else result[d]
    return tuple(result)


def _room(end: int) -> int:
    """The length of a table that has to hold an open size of numbers: a power of two, which guards the size."""
    room = max(1 << now(end).bit_length() + 1, _TABLE)
    if not 0 <= end <= room:
        raise Declined("a range that begins below 0")
    return room


def _dims(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))
