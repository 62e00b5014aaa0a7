"""The plan: what one input signature of a model runs, step by step. Nothing here knows operators or LLVM.

A plan is immutable and shared by every run. Memory is named, not addressed: a `Ref` is a buffer and a byte offset,
and the executor binds buffers to addresses.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..ops.kernels.launch import Address, Block, Spare
from .guards import NO_GUARDS, Guards

if TYPE_CHECKING:
    from ..ops.iteration import Body, Nest
    from ..ops.kernels.sizes import Size
    from ..ops.kernels.spec import KernelSpec
    from ..ops.kernels.symbols import Symbols
    from .storage import Memory


class Space(enum.Enum):
    """Who owns a buffer's memory."""

    CONSTANT = "constant"  # Plan.constants[index]
    INPUT = "input"  # the caller's array for Plan.inputs[index]
    OUTPUT = "output"  # allocated by the run for Plan.outputs[index]
    ARENA = "arena"  # byte `index` of the plan's arena
    HOST = "host"  # Plan.host_values[index]: made by a host step, an array of the shape that the plan states


@dataclass(frozen=True)
class Buffer:
    """A piece of memory of `nbytes` bytes; `index` is explained by its space."""

    space: Space
    index: int
    nbytes: int


@dataclass(frozen=True)
class Ref:
    """The address `offset` bytes into a buffer."""

    buffer: Buffer
    offset: int = 0


# a float becomes the bits of a float64; everything else an int64
Arg = int | float | Ref | Block | Address | Spare


@dataclass(frozen=True)
class Step:
    """One native step: `tasks` calls of a kernel on one argument block.

    Attributes:
        kernel: what is called as ``kernel(args, task, scratch)`` for task = 0 .. tasks - 1, in any order.
        args: the argument block, 8 bytes an entry.
        nodes: names of the ONNX nodes that the step covers.
        shape: text for people: the shapes and the algorithm.
        flops, bytes: arithmetic and compulsory memory traffic of the step.
        status: index into `args` of the kernel's status word, or None if the kernel cannot fail. The executor sets
            it to 0; a kernel stores a nonzero code there, and `errors` maps the code to a message.
    """

    kernel: KernelSpec
    args: tuple[Arg, ...]
    tasks: int
    nodes: tuple[str, ...] = ()
    shape: str = ""
    flops: int = 0
    bytes: int = 0
    status: int | None = None
    errors: tuple[str, ...] = ()

    def __repr__(self) -> str:
        work = f"{self.tasks} tasks, {self.bytes / 1024:.1f} KB, {self.flops / 1e6:.2f} MFLOP"
        return f"<Step {self.kernel.name} {self.shape}: {work}: {_shorten(self.nodes)}>"

    @property
    def source(self) -> str:
        """Python source of the kernel, headed by the nodes that the step covers."""
        return f"# {', '.join(self.nodes)}\n{self.kernel.source}"

    @property
    def asm(self) -> str:
        """Machine code of the kernel on this CPU as assembler text (compiles it again)."""
        from ..ops.kernels.compiler import assembly, compile_kernel

        return assembly(compile_kernel(self.kernel.function()).ir)


@dataclass(frozen=True)
class Tensor:
    """A C-contiguous array in a buffer, as a host step or an output sees it. `dtype` is a numpy dtype.

    `in_place`: an output that begins where an input does and has its strides, as the caller asked for.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    ref: Ref
    in_place: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.name}: {'string' if self.dtype == object else self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Numbers:
    """A small array of integers in which open sizes are: what shape arithmetic gives to Python and to the caller."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    elements: tuple[int | Size, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """A new array of them; no size is open any more."""
        return np.array(self.elements, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class HostStep:
    """A step that Python runs on numpy arrays.

    `call` takes the inputs (None for an absent optional one) and returns one value per output. An output that is a
    `Tensor` is copied to its place, after its shape is checked; one that is a `Buffer` in HOST space is kept as the
    object it is (a sequence, strings, an array whose shape only the run knows). A step that `cuts` only takes the part
    of an array that a kernel has filled. One that `keeps` may keep arrays that it is given, or hand them on. One that is a loop
    (`nest`) may be run by native code instead, and is begun there if its `body` has a `turn` for it (a `jitrt.turn.Turn`).
    """

    call: Callable[[list[object]], Sequence[object]]
    inputs: tuple[Tensor | Numbers | Buffer | None, ...]
    outputs: tuple[Tensor | Buffer, ...]
    nodes: tuple[str, ...] = ()
    reason: str = ""
    cuts: bool = False
    keeps: bool = True
    nest: Nest | None = None
    body: Body | None = None
    turn: object | None = None

    @property
    def is_native(self) -> bool:
        """Whether it is a loop in native code: one that is begun there, or whose last iterations so far were repeated there."""
        return self.turn is not None or (self.body is not None and self.body.is_repeated)

    @property
    def kind(self) -> str:
        """What tables show in place of a kernel."""
        return "(loop)" if self.is_native else "(host)"

    def __repr__(self) -> str:
        return f"<HostStep {_shorten(self.nodes)}: {self.reason}>"


@dataclass(frozen=True)
class Plan:
    """Steps in order with the memory they need.

    Attributes:
        inputs: the arrays a run is given, in order.
        outputs: what a run returns, in order: a `Tensor` (in OUTPUT space: written by a step; in CONSTANT, INPUT or
            ARENA space: copied out at the end), `Numbers`, or a HOST buffer.
        constants: weights, packed or not; addresses stay valid while the plan lives.
        host_values: number of HOST slots.
        arena_bytes: size of the intermediate memory. scratch_bytes: size of each thread's scratch.
        guards: the inputs whose values the plan is made for, and why; other values have other plans.
        symbols: the open sizes, if there are any: then numbers in the plan may be `Size`s.
        sizes: all of these, each once. memories: the arena's, which has no places before the sizes have values.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor | Numbers | Buffer, ...]
    steps: tuple[Step | HostStep, ...]
    constants: tuple[np.ndarray, ...] = ()
    host_values: int = 0
    arena_bytes: int = 0
    scratch_bytes: int = 0
    guards: Guards = NO_GUARDS
    symbols: Symbols | None = None
    sizes: tuple[Size, ...] = ()
    memories: tuple[Memory, ...] = ()
    places: Mapping[object, int] = field(default_factory=dict, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether the plan holds for more than one set of sizes."""
        return self.symbols is not None

    def place(self, size: Size) -> int:
        """The index of a size in `sizes`."""
        return self.places[size.frozen]

    @property
    def host_nodes(self) -> tuple[str, ...]:
        """The ONNX nodes that Python computes; a loop whose iterations are native code is none."""
        return tuple(name for s in self.steps if isinstance(s, HostStep) and not (s.cuts or s.is_native) for name in s.nodes)

    def __str__(self) -> str:
        """A table: step, nodes it covers, kernel, shapes, tasks, bytes moved, FLOPs; the values that it is made for."""
        rows = [("#", "kernel", "shape", "tasks", "KB", "MFLOP", "nodes")]
        for i, s in enumerate(self.steps):
            if isinstance(s, HostStep):
                rows.append((str(i), s.kind, s.reason, "", "", "", _shorten(s.nodes)))
            else:
                size, work = f"{s.bytes / 1024:.1f}", f"{s.flops / 1e6:.2f}"
                rows.append((str(i), s.kernel.name, s.shape, str(s.tasks), size, work, _shorten(s.nodes)))
        widths = [max(len(r[c]) for r in rows) for c in range(6)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(r, widths)), r[6]]).rstrip() for r in rows]
        return "\n".join([*lines, self.summary, *(f"for {guard}" for guard in self.guards)])

    def __repr__(self) -> str:
        return f"<Plan for {self.signature}: {self.summary}>"

    @property
    def signature(self) -> str:
        """Names, dtypes and shapes of the inputs that the plan is for."""
        return ", ".join(str(x) if isinstance(x, Tensor) else x.space.value for x in self.inputs) or "no inputs"

    @property
    def summary(self) -> str:
        """Number of steps and sizes of memory, in one line."""
        constants = sum(c.nbytes for c in self.constants)
        return f"{len(self.steps)} steps, arena {self.arena_bytes / 1e6:.2f} MB, constants {constants / 1e6:.2f} MB"


def _shorten(nodes: tuple[str, ...]) -> str:
    shown = ", ".join(nodes[:4])
    return shown if len(nodes) <= 4 else f"{shown} and {len(nodes) - 4} more"
