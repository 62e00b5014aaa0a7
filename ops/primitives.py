"""The vocabulary that every operator is lowered to: tensors of known shape, and six kinds of primitive.

`Map` computes every element from elements, `Reduce` folds axes, `Move` re-indexes without computing, `Join` places
tensors side by side in one, `Kernel` calls a hand-built kernel, `Host` calls Python. A traced model is a list of them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .kernels.sizes import cached, whole

if TYPE_CHECKING:
    from .builder import Builder
    from .convchoice import ConvLayer
    from .iteration import Body, Nest
    from .kernels.image import Opaque as Address
    from .kernels.launch import Launch
    from .kernels.packing import Packing
    from .weights import Weight

Shape = tuple[int, ...]  # its numbers may be `Size`s


class Tensor:
    """One value of a trace: dtype and shape; `constant` holds its content where that is known.

    `source` is the primitive that makes it, None for inputs and constants. A constant may be given as a `weight`, whose
    array is made only when `constant` is asked for: `is_constant` tells without. Content that depends on open sizes is
    `content`, an array of objects; `constant` fixes them. `codes`: what floats are that a model has dequantised; `rounded`:
    what 8-bit integers are that it has quantised; `resampled`: what images were before; `columns`: how some of a product's
    columns alone are made, ``columns(builder, first, the one after the last)``.
    """

    __slots__ = ("_array", "_sizes", "codes", "columns", "dtype", "name", "resampled", "rounded", "shape", "source", "weight")

    def __init__(
        self,
        dtype: np.dtype,
        shape: Sequence[int],
        constant: np.ndarray | None = None,
        name: str = "",
        weight: Weight | None = None,
    ) -> None:
        self.dtype, self.shape, self._array, self.name = np.dtype(dtype), tuple(map(whole, shape)), constant, name
        self.weight = weight
        self._sizes: np.ndarray | None = None
        self.source: Primitive | None = None
        self.codes: Codes | None = None
        self.rounded: Rounded | None = None
        self.resampled: Resampled | None = None
        self.columns: Callable[[Builder, int, int], Tensor] | None = None

    @property
    def constant(self) -> np.ndarray | None:
        """The content; None: only a run knows it."""
        if self._array is None and self.weight is not None:
            self._array = self.weight.array()
        if self._array is None and self._sizes is not None:
            self._array = np.array([int(n) for n in self._sizes.reshape(-1)], self.dtype).reshape(self.shape)
        return self._array

    @constant.setter
    def constant(self, content: np.ndarray | None) -> None:
        self._array, self.weight = content, None

    @property
    def content(self) -> np.ndarray | None:
        """`constant`, with open sizes as they are, in an array of objects."""
        return self.constant if self._sizes is None else self._sizes

    @content.setter
    def content(self, content: np.ndarray) -> None:
        self._sizes = content

    @property
    def is_open(self) -> bool:
        """Whether the content depends on open sizes."""
        return self._sizes is not None

    @property
    def is_constant(self) -> bool:
        """Whether the content is known."""
        return self._array is not None or self.weight is not None or self._sizes is not None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __repr__(self) -> str:
        kind = "const " if self.is_constant else ""
        return f"{kind}{self.name or '%'}:{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Codes:
    """8-bit integers that stand for floats: (values - zero) * scale, one scale and zero point in all, or one an index of `axis`."""

    values: Tensor
    scale: Tensor
    zero: Tensor | None
    axis: int


@dataclass(frozen=True)
class Rounded:
    """Whole numbers, as floats, that 8-bit integers are: `value` + `zero`."""

    value: Tensor
    zero: Tensor


@dataclass(frozen=True)
class Resampled:
    """An image before its pixels were mixed, in each channel alike; ``make(builder, other)`` does so to one with other channels."""

    image: Tensor
    make: Callable[[Builder, Tensor], Tensor]


class Opaque:
    """A value whose type only the run knows: a sequence, an optional, or a tensor of unknown shape."""

    __slots__ = ("name", "source")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.source: Host | None = None

    def __repr__(self) -> str:
        return f"{self.name or '%'}:opaque"


class _OneOutput:
    """`outputs` of what has a single output."""

    output: Tensor

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The one output."""
        return (self.output,)


class _OneInput(_OneOutput):
    """`inputs` too of what has a single input."""

    input: Tensor

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The one input."""
        return (self.input,)


@dataclass(eq=False)
class Map(_OneOutput):
    """``output[i] = text(a[i], b[i], ...)``: inputs broadcast to the output's shape as in numpy.

    `text` is a Python expression over a, b, c ... in input order and the functions of `ops.evaluate`.
    """

    text: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    nodes: tuple[str, ...] = ()


class Fold(enum.Enum):
    """How a reduction combines elements."""

    ADD = "add"
    MUL = "mul"
    MIN = "minimum"
    MAX = "maximum"
    MAXNUM = "maximum_number"  # the largest that is not NaN (IEEE 754 maximumNumber)
    ARGMIN = "argmin"  # int64 index of the first smallest along one axis
    ARGMAX = "argmax"
    ARGMIN_LAST = "argmin_last"
    ARGMAX_LAST = "argmax_last"


@dataclass(eq=False)
class Reduce(_OneInput):
    """Folds `axes` (sorted, kept with size 1). An empty sum is 0, product 1, minimum inf, maximum -inf."""

    fold: Fold
    input: Tensor
    axes: tuple[int, ...]
    output: Tensor
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Where the elements of a tensor lie in a buffer: byte offset and byte strides, one a dimension (0: broadcast)."""

    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0

    @staticmethod
    def contiguous(shape: Shape, itemsize: int, order: Sequence[int] | None = None) -> Layout:
        """Dense strides; `order` lists the dimensions from outermost to innermost (default: as they are)."""
        return Layout(shape, _dense_strides(shape, itemsize, tuple(range(len(shape)) if order is None else order)))


@dataclass(frozen=True)
class Reshape:
    """Same elements in the same (row-major) order under another shape."""

    shape: Shape

    def layout(self, old: Layout) -> Layout | None:
        """The view's layout, or None when no strides express it."""
        strides = _reshape_strides(old.shape, old.strides, self.shape)
        return None if strides is None else Layout(self.shape, strides, old.offset)


@dataclass(frozen=True)
class Permute:
    """Dimension `d` of the result is dimension `axes[d]` of the input."""

    axes: tuple[int, ...]

    def layout(self, old: Layout) -> Layout:
        """The view's layout."""
        return Layout(tuple(old.shape[a] for a in self.axes), tuple(old.strides[a] for a in self.axes), old.offset)


@dataclass(frozen=True)
class Slice:
    """Per dimension: first index, step (may be negative) and number of elements."""

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    sizes: Shape

    def layout(self, old: Layout) -> Layout:
        """The view's layout."""
        offset = 0 if 0 in self.sizes else sum(b * s for b, s in zip(self.starts, old.strides))
        return Layout(self.sizes, tuple(s * k for s, k in zip(old.strides, self.steps)), old.offset + offset)


@dataclass(frozen=True)
class Expand:
    """Dimensions of size 1 repeated; missing leading dimensions added."""

    shape: Shape

    def layout(self, old: Layout) -> Layout:
        """The view's layout."""
        lead = len(self.shape) - len(old.shape)
        strides = [0] * lead + [s if n == m else 0 for s, n, m in zip(old.strides, old.shape, self.shape[lead:])]
        return Layout(self.shape, tuple(strides), old.offset)


Movement = Reshape | Permute | Slice | Expand


@dataclass(eq=False)
class Move(_OneInput):
    """A view of the input: pure index arithmetic."""

    how: Movement
    input: Tensor
    output: Tensor
    nodes: tuple[str, ...] = ()


@dataclass(eq=False)
class Join(_OneOutput):
    """The inputs in boxes of the output (concat, pad, tile): input i fills ``[starts[i], starts[i] + shape)``.

    What no box covers is `fill` (None: everything is covered). The boxes do not overlap.
    """

    inputs: tuple[Tensor, ...]
    starts: tuple[Shape, ...]
    output: Tensor
    fill: float | int | bool | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operand:
    """A tensor as a kernel sees it: opaque address of element 0, dtype, shape and byte strides."""

    address: Address
    dtype: np.dtype
    shape: Shape
    strides: tuple[int, ...]


class LaunchContext(Protocol):
    """What a kernel's `launch` may ask for."""

    inputs: Sequence[Operand | None]
    outputs: Sequence[Operand]
    threads: int
    # the contraction's tail: bias is per output channel, residual of the output's shape, low and high clip, epilogue is
    # an opaque (kernel address, argument block) pair or None
    bias: Operand | None
    residual: Operand | None
    low: float
    high: float
    epilogue: tuple[Address, Address] | None
    weights_mode: str  # how constant float32 factors of matrix products are held: `SessionOptions`' jitrt.weights

    def alloc(self, nbytes: int) -> Address:
        """Address of workspace that lives while the kernel's launches run."""

    def packed(self, tensor: Tensor, key: object, how: Packing | Callable[[np.ndarray], np.ndarray]) -> Address:
        """Address of a constant packed; made once a session for the same constant and key, shared by its plans.

        A `Packing` is made when the plan is complete, by all threads; a function at once.
        """

    def choose(self, layer: ConvLayer, names: Sequence[str]) -> str:
        """Which of several algorithms computes a convolution; the first one is expected to be the fastest."""


class Tail(enum.Enum):
    """What elementwise work a kernel takes over after its own (see LaunchContext)."""

    NONE = "none"
    EPILOGUE = "epilogue"  # residual, clip, and a generated kernel on each output tile


@dataclass(frozen=True)
class Parts:
    """How images (first dimension), or rows (third dimension), of a kernel's output follow from those of its first input.

    Attributes:
        make: ``make(builder, inputs, begin, rows)`` is the kernel for a first input of some images only, and for `rows`
            output rows whose first window begins `begin` rows before that input.
        window: (rows of a window, rows from one window to the next, rows before the input where the first one begins);
            None: only images can be apart.
    """

    make: Callable[[Builder, Sequence[Tensor | None], int, int], Tensor]
    window: tuple[int, int, int] | None


@dataclass(eq=False)
class Kernel:
    """A hand-built kernel: `launch` turns operands into launches when the plan is laid out.

    Attributes:
        name: for people.
        orders: per input, the order of dimensions (outermost first) that it must be dense in, or None for any strides.
        output_orders: per output, the order of dimensions in memory (None: as they are).
        tail: whether later elementwise operators may be fused.
        matrix: how the first output's dimensions split into groups, the last of them contiguous: four (batch..., rows,
            columns) for the epilogue. A kernel that states it writes any layout in which each group has one stride.
        bias: whether a vector added to the rows may become the launch context's `bias`.
        in_place: whether the residual may lie where the first output does: no element of it is read after it is written.
        changes: the number of the input of which the first output is a changed copy, if it is one: `launch` copies nothing
            where both lie at one address.
        packs: the number of the input of which `launch` asks for a packed constant: it is no operand.
        flops: arithmetic operations.
        linear: whether a factor of any input is one of the (only) output.
        parts: how to compute some images or rows alone, None if that is not possible.
        errors: what the kernel's status codes 1, 2 ... mean.
        reference: the same on numpy arrays, for checking.
    """

    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    launch: Callable[[LaunchContext], list[Launch]]
    orders: tuple[tuple[int, ...] | None, ...] = ()
    output_orders: tuple[tuple[int, ...] | None, ...] = ()
    tail: Tail = Tail.NONE
    bias: bool = False
    in_place: bool = False
    matrix: tuple[tuple[int, ...], ...] = ((), (), (), ())
    flops: int = 0
    errors: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    reference: Callable[[list[np.ndarray | None]], Sequence[np.ndarray]] | None = None
    linear: bool = False
    parts: Parts | None = None
    changes: int | None = None
    packs: int | None = None


@dataclass(eq=False)
class Host:
    """A Python function of numpy arrays (None for an absent input); gives one value an output.

    `cuts`: it only takes the part of an array that a kernel has filled. `keeps`: it may keep arrays that it is given, or hand
    them on. `nest`: the loop that it is. `body`: what it runs.
    """

    call: Callable[[list[object]], Sequence[object]]
    inputs: tuple[Tensor | Opaque | None, ...]
    outputs: tuple[Tensor | Opaque, ...]
    reason: str = ""
    nodes: tuple[str, ...] = ()
    cuts: bool = False
    keeps: bool = True
    nest: Nest | None = None
    body: Body | None = None


Primitive = Map | Reduce | Move | Join | Kernel | Host


@dataclass
class Trace:
    """The primitives of a model for one signature, in an order that can be run."""

    inputs: list[Tensor | Opaque] = field(default_factory=list)
    outputs: list[Tensor | Opaque] = field(default_factory=list)
    primitives: list[Primitive] = field(default_factory=list)

    def __str__(self) -> str:
        """One line a primitive; values without a name are numbered."""
        names: dict[int, str] = {}

        def name(x: Tensor | Opaque | None) -> str:
            if isinstance(x, Tensor) and x.is_constant:
                number = x.constant if x.size == 1 else None
                return x.name or f"const[{','.join(map(str, x.shape))}]" if number is None else str(number.reshape(-1)[0])
            return "_" if x is None else names.setdefault(id(x), x.name or f"%{len(names)}")

        def typed(x: Tensor | Opaque) -> str:
            return f"{name(x)}: {x.dtype}[{','.join(map(str, x.shape))}]" if isinstance(x, Tensor) else name(x)

        lines = [f"trace({', '.join(map(typed, self.inputs))})"]
        for p in self.primitives:
            inputs = [name(x) for x in p.inputs]
            lines.append(f"  {', '.join(map(typed, p.outputs))} = {_described(p, inputs)}")
        return "\n".join([*lines, f"  return {', '.join(map(name, self.outputs))}"])


def _described(p: Primitive, inputs: list[str]) -> str:
    """What a primitive does to named inputs."""
    if isinstance(p, Map):
        return re.sub(r"\b[a-z]\b", lambda m: inputs[ord(m.group()) - ord("a")], p.text)
    if isinstance(p, Move):
        detail = ", ".join(f"{getattr(p.how, field.name)}" for field in fields(p.how))
        return f"{type(p.how).__name__.lower()}({inputs[0]}, {detail})"
    if isinstance(p, Reduce):
        return f"{p.fold.value}({inputs[0]}, axes={p.axes})"
    if isinstance(p, Join):
        pieces = ", ".join(f"{x} at {start}" for x, start in zip(inputs, p.starts))
        return f"join({pieces}{'' if p.fill is None else f', fill={p.fill}'})"
    return f"{p.name if isinstance(p, Kernel) else f'host {p.reason}'}({', '.join(inputs)})"


@cached(maxsize=4096)
def _dense_strides(shape: Shape, itemsize: int, order: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [0] * len(shape), itemsize
    for d in reversed(order):
        strides[d] = step
        step *= max(shape[d], 1)
    return tuple(strides)


@cached(maxsize=4096)
def _reshape_strides(old: Shape, strides: tuple[int, ...], new: Shape) -> tuple[int, ...] | None:
    """Strides of `new` over the same memory: runs of old dimensions that are dense among themselves may regroup."""
    if prod(old) == 0:
        return Layout.contiguous(new, 1).strides
    if prod(old) == 1:
        return (strides[-1] if strides else 0,) * len(new)
    source = [(n, s) for n, s in zip(old, strides) if n != 1]
    result, i = [0] * len(new), 0
    j = 0
    while j < len(new):
        if new[j] == 1:
            j += 1
            continue
        # one run: take whole dimensions from both sides until their sizes agree
        have, want, first_old, first_new = source[i][0], new[j], i, j
        while have != want:
            if have < want:
                i += 1
                have *= source[i][0]
            else:
                j += 1
                want *= new[j]
        if any(source[k][1] != source[k + 1][0] * source[k + 1][1] for k in range(first_old, i)):
            return None
        step = source[i][1]
        for k in range(j, first_new - 1, -1):
            if new[k] != 1:
                result[k] = step
                step *= new[k]
        i, j = i + 1, j + 1
    return tuple(result)
