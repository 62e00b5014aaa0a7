"""Matrix products: MatMul, Gemm, MatMulInteger. All run on `kernels/gemm`, those of few rows of floats on `kernels/gemv`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from .builder import Builder, Declined, OperatorError, broadcast
from .integers import centred, kernel_type, paired, single, sum_type
from .kernels import gemm, gemv, halves
from .kernels.image import Alloc, Opaque
from .kernels.matrix import Matrix
from .kernels.packing import Packing
from .kernels.sizes import alike
from .kernels.templates import launches
from .primitives import Expand, LaunchContext, Move, Operand, Permute, Reshape, Tail, Tensor
from .registry import op
from .weights import Weight

_FLOATS = ("float32", "float64")


@op("MatMul", since=1)
def matmul(t: Builder, a: Tensor, b: Tensor) -> Tensor:
    """numpy.matmul: a[..., M, K] b[..., K, N]; one-dimensional operands are a row and a column."""
    return _of_any_rank(t, a, b, product)


def _of_any_rank(t: Builder, a: Tensor, b: Tensor, product: Callable[[Builder, Tensor, Tensor], Tensor]) -> Tensor:
    if a.rank == 0 or b.rank == 0:
        raise OperatorError("MatMul takes no scalars")
    if a.dtype != b.dtype:
        raise OperatorError(f"MatMul of {a.dtype} and {b.dtype}")
    if a.rank == 1 or b.rank == 1:
        wide = product(t, t.unsqueeze(a, [0]) if a.rank == 1 else a, t.unsqueeze(b, [1]) if b.rank == 1 else b)
        return t.squeeze(wide, ([-2] if a.rank == 1 else []) + ([-1] if b.rank == 1 else []))
    return product(t, a, b)


@op("Gemm", since=1)
def gemm_(
    t: Builder, A: Tensor, B: Tensor, C: Tensor | None = None, *, alpha=1.0, beta=1.0, transA=0, transB=0, broadcast=0
) -> Tensor:
    """alpha A' B' + beta C, where ' transposes if transA / transB say so; C broadcasts."""
    a = _transposed(t, A) if transA else A
    b = _transposed(t, B) if transB else B
    y = product(t, a, b)
    if alpha != 1.0:
        y = t.map(f"a * {float(alpha)!r}", y)
    if C is None or beta == 0.0:
        return y
    return t.map("a + b", y, C if beta == 1.0 else t.map(f"a * {float(beta)!r}", C))


def _transposed(t: Builder, x: Tensor) -> Tensor:
    """A matrix's transpose."""
    y, codes = t.transpose(x, (1, 0)), x.codes
    if codes is not None and x.rank == 2:
        y.codes = replace(codes, values=t.transpose(codes.values, (1, 0)), axis=1 - codes.axis)
    return y


@op("MatMulInteger", since=10)
def matmul_integer(
    t: Builder, A: Tensor, B: Tensor, a_zero_point: Tensor | None = None, b_zero_point: Tensor | None = None
) -> Tensor:
    """(A - a_zero_point)(B - b_zero_point) in int32, which wraps.

    Zero points: one in all, or one a row of A, one a column of B.
    """
    zeros = [single(t, z) for z in (a_zero_point, b_zero_point)]
    if zeros[0] is not None and zeros[0].rank == 1:
        zeros[0] = t.unsqueeze(zeros[0], [1])
    return _of_any_rank(t, centred(t, A, zeros[0]), centred(t, B, zeros[1]), int16_product)


def product(t: Builder, a: Tensor, b: Tensor) -> Tensor:
    """a[..., M, K] b[..., K, N] with broadcast leading dimensions.

    float16 and bfloat16 are computed in float32. Integers wrap; narrow ones are computed in int32.
    """
    _check(a, b)
    of_codes = _product_of_codes(t, a, b)
    if of_codes is not None:
        return of_codes
    if a.dtype.name in ("float16", "bfloat16"):
        return t.cast(product(t, t.cast(a, np.float32), t.cast(b, np.float32)), a.dtype)
    if a.dtype.name not in _FLOATS and a.dtype.kind not in "iu":
        raise Declined(f"matrix products of {a.dtype}")
    if a.dtype.itemsize < 4:
        return t.cast(product(t, t.cast(a, np.int32), t.cast(b, np.int32)), a.dtype)
    y = _product(t, a, b)
    if b.is_constant:
        y.columns = lambda other, first, after: product(other, a, other.take(b, b.rank - 1, first, after))
    return y


def _product_of_codes(t: Builder, a: Tensor, b: Tensor) -> Tensor | None:
    """The product of two dequantised tensors as the scaled product of their 8-bit integers, if b is constant."""
    left, right = a.codes, b.codes
    if left is None or right is None or a.dtype != np.float32 or left.scale.size != 1 or not right.values.is_constant:
        return None
    if right.scale.size != 1 and right.axis != b.rank - 1:
        return None
    total = int16_product(t, *(centred(t, x.values, single(t, x.zero)) for x in (left, right)))
    factor = t.map("a * b", *(single(t, x.scale) for x in (left, right)))
    return t.map("to_f32(a) * b", total, factor, dtype=np.float32)


def int16_product(t: Builder, a: Tensor, b: Tensor) -> Tensor:
    """`product` of int16 in int32."""
    _check(a, b)
    if a.shape[-1] % 2:  # elements of K are multiplied two at a time; packing completes a constant
        a = t.pad(a, (0,) * a.rank, (0,) * (a.rank - 1) + (1,))
        b = b if b.is_constant and prod(b.shape[:-2]) == 1 else t.pad(b, (0,) * b.rank, (0,) * (b.rank - 2) + (1, 0))
    return _product(t, a, b)


def _check(a: Tensor, b: Tensor) -> None:
    if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2]:
        raise OperatorError(f"cannot multiply [{_dims(a.shape)}] by [{_dims(b.shape)}]: the inner sizes differ")


def _product(t: Builder, a: Tensor, b: Tensor) -> Tensor:
    """`product` of types that kernels have; of int16 in int32."""
    lead = broadcast(a.shape[:-2], b.shape[:-2])
    shape = (*lead, a.shape[-2], b.shape[-1])
    once = _once(t, b) if a.shape[:-2] == lead else None
    if once is not None:
        rows = a.shape[-3] // once.shape[-3] * a.shape[-2]
        return t.reshape(_product(t, t.reshape(a, (*once.shape[:-2], rows, a.shape[-1])), once), shape)
    if prod(b.shape[:-2]) == 1:
        return _shared(t, a, t.reshape(b, b.shape[-2:]), shape)
    batch = prod(lead)
    a3 = t.reshape(t.expand(a, (*lead, *a.shape[-2:])), (batch, *a.shape[-2:]))
    b3 = t.reshape(t.expand(b, (*lead, *b.shape[-2:])), (batch, *b.shape[-2:]))
    return t.reshape(_batched(t, a3, b3, repeated=not alike((prod(b.shape[:-2]),), (batch,))), shape)


def _once(t: Builder, b: Tensor) -> Tensor | None:
    """b[..., G h, K, N] made by repeating each of h matrices for G neighbours (grouped queries): the h matrices.

    All rows that meet one matrix are then the rows of one product, and nothing is repeated in memory.
    """
    swapped = (*range(b.rank - 2), b.rank - 1, b.rank - 2)
    swaps = isinstance(b.source, Move) and b.source.how == Permute(swapped)
    merged = b.source.input if swaps else b
    grouped = merged.source.input if isinstance(merged.source, Move) and isinstance(merged.source.how, Reshape) else None
    if grouped is None or grouped.rank != b.rank + 1 or grouped.shape[-2:] != merged.shape[-2:] or b.rank < 3:
        return None
    single = grouped.source.input if isinstance(grouped.source, Move) and isinstance(grouped.source.how, Expand) else None
    if single is None or grouped.shape[:-4] != merged.shape[:-3] or 0 in b.shape:
        return None
    if single.shape != (*grouped.shape[:-3], 1, *grouped.shape[-2:]):
        return None
    once = t.reshape(single, (*single.shape[:-3], *single.shape[-2:]))
    return t.transpose(once, swapped) if swaps else once


def _shared(t: Builder, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One B for all rows: the leading dimensions of A are rows too."""
    rows, k, n = prod(shape[:-1]), a.shape[-1], b.shape[-1]
    a2, result = t.reshape(a, (rows, k)), sum_type(a.dtype)
    flops = 2 * rows * n * k

    def launch(x: LaunchContext) -> list:
        return _shared_launches(x, b, rows, k, n)

    def reference(values: list[np.ndarray | None]) -> list[np.ndarray]:
        left, right = values[0].astype(result), (b.constant if values[1] is None else values[1]).astype(result)
        return [np.matmul(left[:, : len(right)], right).reshape(shape)]

    matrix = ((), (), tuple(range(len(shape) - 1)), (len(shape) - 1,))
    return t.kernel(
        "matmul", (a2, None if b.is_constant else b), [(result, shape)], launch, orders=_orders(a.dtype, (0, 1), (1, 0)),
        tail=Tail.EPILOGUE, bias=True, in_place=True, matrix=matrix, flops=flops, reference=reference, linear=not b.is_constant,
    )[0]  # fmt: skip


def _orders(dtype: np.dtype, *orders: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """How factors have to lie: pairs of int16 along K together, others anyhow."""
    return orders if dtype == np.int16 else ()


def _shared_launches(x: LaunchContext, b: Tensor, rows: int, k: int, n: int) -> list:
    """Few rows on `gemv`, which reads a constant factor as fast as memory gives it; else on `gemm`."""
    c = x.outputs[0]
    size = c.dtype.itemsize
    a, out = _matrix(x.inputs[0], 2), Matrix(c.address, (1, rows, n), (0, _row_stride(c), size))
    residual = x.residual and Matrix(x.residual.address, (1, rows, n), (0, _row_stride(x.residual), x.residual.strides[-1] or size))
    label = lambda: f"{rows}x{k}x{n}"  # noqa: E731
    if not b.is_constant:
        return _launches(x, gemm.matmul, kernel_type(b.dtype), a, _matrix(x.inputs[1], 1), out, residual, label)
    kind, packing = _held(b.dtype, b.shape, b.weight, x.weights_mode)
    held = lambda: f"{label()} {kind}" if kind in halves.KINDS else label()  # noqa: E731
    product = gemv.product if b.dtype == np.float32 else gemm.matmul
    return _launches(x, product, kind, a, x.packed(b, kind, packing), out, residual, held)


def _launches(
    x: LaunchContext, product: Callable[..., list], kind: str, a: Matrix, b: Matrix | gemm.Panels | Opaque, c: Matrix,
    residual: Matrix | None, label: Callable[[], str],
) -> list:  # fmt: skip
    """A product's, with the tail that the context has; `label` is asked if they are made."""
    tail = [x.bias.address] if x.bias else []
    tail += x.epilogue or ()

    def make(at: Sequence[Opaque], alloc: Alloc) -> list:
        rest = list(at)
        first, second, result, *others = (_placed(one, rest.pop(0)) for one in operands)
        return product(
            kind, first, second, result, residual=others[0] if others else None, bias=rest.pop(0) if x.bias else 0,
            epilogue=tuple(rest) if rest else None, low=x.low, high=x.high, alloc=alloc, threads=x.threads, label=label(),
        )  # fmt: skip

    operands = [a, b, c, *([residual] if residual else [])]
    key = (product, kind, bool(x.bias), bool(x.epilogue), x.low, x.high, x.threads, *map(_geometry, operands))
    return launches(make, key, [*map(_address, operands), *tail], x.alloc)


def _address(x: Matrix | gemm.Panels | Opaque) -> Opaque:
    return x.address if isinstance(x, Matrix | gemm.Panels) else x


def _placed(x: Matrix | gemm.Panels | Opaque, address: Opaque) -> Matrix | gemm.Panels | Opaque:
    return replace(x, address=address) if isinstance(x, Matrix | gemm.Panels) else address


def _geometry(x: Matrix | gemm.Panels | Opaque) -> object:
    """What there is besides the address."""
    if isinstance(x, Matrix):
        return x.shape, x.strides
    return (x.stride, x.held) if isinstance(x, gemm.Panels) else None


def _held(dtype: np.dtype, shape: tuple[int, ...], weight: Weight | None, mode: str) -> tuple[str, Packing]:
    """How a constant factor is held: the type of its panels, and their packing. `mode`: `LaunchContext.weights_mode`."""
    exact = "" if dtype != np.float32 or weight is None or mode == "float32" else weight.half
    half = exact or ("bf16" if dtype == np.float32 and mode == "bfloat16" else "")
    return half or kernel_type(dtype), gemm.packing(shape, dtype, half, rounds=half != exact)


def packed_ahead(name: str, attributes: Mapping[str, object], b: Weight, mode: str) -> tuple[Tensor, str, Packing] | None:
    """What `_shared` asks of `LaunchContext.packed` if an operator `name` has this second input, whatever the first one is.

    None: that depends, or nothing is asked.
    """
    if name not in ("MatMul", "Gemm") or b.dtype.name not in _FLOATS or b.ndim != 2:
        return None
    if name == "Gemm" and attributes.get("transB", 0):
        b = b.view(Permute((1, 0)), b.shape[::-1])
    return Tensor(b.dtype, b.shape, weight=b), *_held(b.dtype, b.shape, b, mode)


def _batched(t: Builder, a: Tensor, b: Tensor, repeated: bool) -> Tensor:
    """a[batch, M, K] b[batch, K, N]; a constant b is packed once, unless its matrices are `repeated` and would be packed so."""
    batch, m, k = a.shape
    n = b.shape[2]
    packing = gemm.batch_packing(b.shape, b.dtype) if b.is_constant and not repeated else None

    def launch(x: LaunchContext) -> list:
        c = x.outputs[0]
        residual = x.residual and Matrix(x.residual.address, x.residual.shape, x.residual.strides)
        kind = kernel_type(a.dtype)
        if packing is None:
            factor = _matrix(x.inputs[1], 1)
        else:
            factor = gemm.Panels(x.packed(b, kind, packing), prod(packing.shape[1:]) * packing.dtype.itemsize)
        out, label = Matrix(c.address, c.shape, c.strides), lambda: f"{batch}x({m}x{k}x{n})"
        return _launches(x, gemm.matmul, kind, _matrix(x.inputs[0], 2), factor, out, residual, label)

    result = sum_type(a.dtype)

    reference = lambda v: [np.matmul(v[0].astype(result), v[1].astype(result))]  # noqa: E731
    return t.kernel(
        "matmul", (a, b), [(result, (batch, m, n))], launch, orders=_orders(a.dtype, (0, 1, 2), (0, 2, 1)),
        tail=Tail.EPILOGUE, bias=True, in_place=True,
        matrix=((0,), (), (1,), (2,)),
        flops=2 * batch * m * n * k, reference=reference, linear=True, packs=1 if packing else None,
    )[0]  # fmt: skip


def _matrix(x: Operand, inner: int) -> Matrix:
    """An operand of two or three dimensions as a batch of matrices; `inner`: the dimension that is summed over."""
    shape, strides = (x.shape, x.strides) if len(x.shape) == 3 else ((1, *x.shape), (0, *x.strides))
    return Matrix(x.address, *paired(x.dtype, shape, strides, inner))


def _row_stride(x: Operand) -> int:
    """The stride of all leading dimensions taken as one (the planner hands in outputs and residuals that allow it)."""
    for n, s in zip(reversed(x.shape[:-1]), reversed(x.strides[:-1])):
        if n != 1:
            return s
    return x.strides[-1] * x.shape[-1]


def _dims(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape))
