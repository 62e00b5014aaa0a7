"""Square matrices: Det, and Inverse of com.microsoft."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from . import evaluate
from .builder import Builder, OperatorError
from .kernels import linalg as kernels
from .primitives import LaunchContext, Tensor
from .registry import FLOATS, check_types, contrib, op


@op("Det", since=11)
def det(t: Builder, x: Tensor) -> Tensor:
    """The determinant of each matrix."""
    return _each(t, x, "determinant", kernels.determinants, x.shape[:-2], np.linalg.det)


@contrib("Inverse")
def inverse(t: Builder, x: Tensor) -> Tensor:
    """The inverse of each matrix; infinities or NaN where there is none."""
    return _each(t, x, "inverse", kernels.inverses, x.shape, _inverse)


def _inverse(x: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.inv(x)
    except np.linalg.LinAlgError:
        singular = np.linalg.det(x)[..., None, None] == 0
        return np.where(singular, np.inf, np.linalg.inv(np.where(singular, np.eye(x.shape[-1]), x)))


def _each(t: Builder, x: Tensor, name: str, launch: Callable, shape: tuple[int, ...], reference: Callable) -> Tensor:
    """A kernel of each matrix of x, in float32 or float64."""
    check_types((x,), FLOATS)
    if x.rank < 2 or x.shape[-1] != x.shape[-2]:
        raise OperatorError(f"the input must hold square matrices, not {list(x.shape)}")
    if x.dtype not in (np.float32, np.float64):
        return t.cast(_each(t, t.cast(x, np.float32), name, launch, shape, reference), x.dtype)
    dtype = evaluate.memory_name(x.dtype)

    def launches(c: LaunchContext) -> list:
        return launch(dtype, c.inputs[0].address, c.outputs[0].address, prod(x.shape[:-2]), x.shape[-1], c.alloc, c.threads)

    (y,) = t.kernel(
        name, (x,), [(x.dtype, shape)], launches, orders=(tuple(range(x.rank)),),
        reference=lambda v: [np.asarray(reference(v[0].astype(np.float64)), x.dtype)],
    )  # fmt: skip
    return y
