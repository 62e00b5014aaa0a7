"""Matrices in memory, as kernels of products see them. Numba-free."""

from __future__ import annotations

from dataclasses import dataclass

from .image import Opaque


@dataclass(frozen=True)
class Matrix:
    """A batch of matrices in memory: opaque address (bytes may be added), (batch, rows, columns), their byte strides."""

    address: Opaque
    shape: tuple[int, int, int]
    strides: tuple[int, int, int]


def product_words(a: Matrix, panels: Opaque, c: Matrix, residual: Matrix | None, finish: tuple) -> tuple[object, ...]:
    """How argument blocks of products begin: addresses, limits and the epilogue, bytes between rows; see `ways.instead`."""
    bias, low, high, *epilogue = finish
    strides = (x.strides[1] for x in (a, c, residual or c))
    return (a.address, c.address, panels, bias, residual.address if residual else 0, float(low), float(high), *epilogue, *strides)
