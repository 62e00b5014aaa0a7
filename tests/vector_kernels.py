"""Expressions over vectors compiled to kernels and applied to arrays: for the tests of `simd` and `vmath`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from jitrt.ops.kernels import compiler, loader, simd

CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
NAMES = ["f16", "f32", "f64", *(f"{sign}{bits}" for sign in "iu" for bits in (8, 16, 32, 64))]
DTYPES = {name: np.dtype(f"{name[0]}{int(name[1:]) // 8}") for name in NAMES} | {"b1": np.dtype("bool")}
_SHORT = {dtype: name for name, dtype in DTYPES.items()}
# CPUs beside the one at hand: AVX2 with FMA, and x86-64 with neither FMA nor more than four lanes
OTHER_TARGETS = [("haswell", "+avx2,+fma,+f16c,+avx,+sse4.2,+bmi2"), ("x86-64", "")]


@cache
def build(expressions: tuple[str, ...], inputs: tuple[str, ...], outputs: tuple[str, ...], lanes: int) -> compiler.Compiled:
    """One kernel that stores every expression of the inputs a, b, c ...; `lanes` = 0 means scalars."""
    scope = dict(simd.namespace(lanes or 4))
    scope.update({f"get_{t}": simd.load(t, lanes) for t in inputs} | {f"put_{t}": simd.store(t) for t in outputs})
    first = len(inputs) + 1
    text = ["def kernel(args, task, scratch):", f"    for i in range(0, args[0], {lanes or 1}):"]
    text += [f"        {'abc'[i]} = get_{t}(args[{i + 1}] + i * {DTYPES[t].itemsize})" for i, t in enumerate(inputs)]
    text += [
        f"        put_{t}(args[{first + i}] + i * {DTYPES[t].itemsize}, {expression})"
        for i, (expression, t) in enumerate(zip(expressions, outputs))
    ]
    exec("\n".join(text), scope)
    return compiler.compile_kernel(scope["kernel"])


def address(function: Callable) -> int:
    """The address of a kernel function, compiled."""
    return loader.load(compiler.compile_kernel(function).code)


def call(kernel: Callable | int, *args: int | np.ndarray) -> None:
    """Call a kernel (a function, or its address) on an argument block of numbers and addresses of arrays."""
    words = [value.ctypes.data if isinstance(value, np.ndarray) else value for value in args]
    block = np.array(words, np.int64)
    CALL(kernel if isinstance(kernel, int) else address(kernel))(block.ctypes.data, 0, 0)


@cache
def _built(*what: object) -> int:
    return loader.load(build(*what).code)


def evaluate(expressions: Sequence[str], *arrays: np.ndarray, lanes: int, outputs: Sequence[str] = ()) -> list[np.ndarray]:
    """Each expression of the arrays a, b, c; results have the type of `a` unless `outputs` names others."""
    kinds = tuple(_SHORT[x.dtype] for x in arrays)
    outputs = tuple(outputs) or kinds[:1] * len(expressions)
    count = arrays[0].size
    padded = -(-count // 64) * 64
    kept = [np.resize(x, padded) for x in arrays]
    results = [np.zeros(padded, DTYPES[t]) for t in outputs]
    call(_built(tuple(expressions), kinds, outputs, lanes), count, *kept, *results)
    return [y[:count].reshape(arrays[0].shape) for y in results]


def run_on(target: tuple[str, str], module: str) -> None:
    """Call ``check_target()`` of a test module in a process that compiles for another CPU."""
    name, features = target
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {module}; {module}.check_target()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
