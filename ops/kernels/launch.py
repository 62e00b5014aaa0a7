"""A launch: one kernel with its arguments, as a builder of kernel calls hands it to the planner. Numba-free."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .spec import KernelSpec


@dataclass(frozen=True)
class Block:
    """The address of a nested argument block: that of an epilogue, or of a kernel that this one calls."""

    args: tuple[object, ...]


@dataclass(frozen=True)
class Address:
    """The address of a compiled kernel that another one calls."""

    kernel: KernelSpec


@dataclass(frozen=True)
class Spare:
    """A kernel that this one does not call, but the same step of another size: to be compiled when there is time."""

    kernel: KernelSpec


@dataclass(frozen=True)
class Launch:
    """`tasks` calls of a kernel on one argument block.

    Attributes:
        args: ints, floats (as float64 bits), a `Block` or `Address`, or addresses that only the planner looks into.
        scratch: bytes of memory that each thread needs.
        label: for people.
        flops, bytes: arithmetic and compulsory memory traffic.
        status: index of the kernel's status word in `args` (see `fusion.plan.Step`), or None.
    """

    kernel: KernelSpec
    args: tuple[object, ...]
    tasks: int
    scratch: int = 0
    label: str = ""
    flops: int = 0
    bytes: int = 0
    status: int | None = None


def with_spare(launches: list[Launch], *kernels: KernelSpec) -> list[Launch]:
    """The same launches, whose plan also has kernels that other sizes need, so that a new size compiles nothing.

    They are arguments that the first launch's kernel does not read, and that no run waits for.
    """
    if not launches:
        return []
    spare = tuple(Spare(kernel) for kernel in kernels)
    return [replace(launches[0], args=(*launches[0].args, *spare)), *launches[1:]]
