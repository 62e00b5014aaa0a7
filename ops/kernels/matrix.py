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
