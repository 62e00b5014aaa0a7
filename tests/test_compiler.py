"""Compilation of kernels: code that stands alone, keys that follow what a kernel depends on, errors that name the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from vector_kernels import call

from jitrt.ops.kernels import compiler, loader, simd, target
from jitrt.ops.kernels.spec import KernelSpec, handwritten
from jitrt.ops.kernels.subroutine import subroutine

DOUBLE = """
def kernel(args, task, scratch):
    for i in range(0, args[0], LANES):
        store_f32(args[2] + 4 * i, load_f32(args[1] + 4 * i) * 2.0 + task)
"""


def run(address: int, count: int = 64) -> np.ndarray:
    x, y = np.arange(count, dtype=np.float32), np.zeros(count, np.float32)
    call(address, count, x, y)
    return y


def test_generated_source_becomes_a_kernel():
    code = compiler.compile_kernel(KernelSpec("double", text=DOUBLE).function()).code
    np.testing.assert_array_equal(run(loader.load(code)), np.arange(64, dtype=np.float32) * 2)


def test_objects_load_in_a_process_without_numba(tmp_path):
    path = tmp_path / "double.o"
    path.write_bytes(compiler.compile_kernel(KernelSpec("double", text=DOUBLE).function()).code)
    program = f"""
import ctypes, sys
from pathlib import Path
from jitrt.ops.kernels import loader
kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(loader.load(Path({str(path)!r}).read_bytes()))
x, y = (ctypes.c_float * 64)(*range(64)), (ctypes.c_float * 64)()
kernel((ctypes.c_int64 * 3)(64, ctypes.addressof(x), ctypes.addressof(y)), 5, 0)
assert list(y) == [2.0 * i + 5 for i in range(64)]
assert "numba" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_kernels_of_one_name_do_not_clash():
    texts = (DOUBLE, DOUBLE.replace("2.0", "3.0"))
    first, second = (loader.load(compiler.compile_kernel(KernelSpec("same", text=t).function()).code) for t in texts)
    assert run(first)[1] == 2
    assert run(second)[1] == 3


def test_damaged_objects_are_refused():
    with pytest.raises(RuntimeError):
        loader.load(b"this is no object file")


def test_a_kernel_exports_one_symbol_and_needs_none():
    module = compiler.compile_kernel(KernelSpec("double", text=DOUBLE).function()).ir
    defined = [line for line in module.splitlines() if line.startswith("define ")]
    assert len(defined) == 1
    assert "@kernel(" in defined[0]
    assert "call" not in compiler.assembly(module)


def test_what_needs_the_python_runtime_is_refused_by_name():
    def prints(args, task, scratch):
        print(task)

    with pytest.raises(compiler.KernelError, match="prints"):
        compiler.compile_kernel(prints)


def test_kernels_may_have_fewer_parameters():
    def only_block(args):
        args[0] = args[0] + 1

    words = np.array([41], np.int64)
    address = loader.load(compiler.compile_kernel(only_block, parameters=1).code)
    loop = simd.call_kernel

    def caller(args, task, scratch):
        loop(args[0], args[1], 0, 0)

    call(caller, address, words)
    assert words[0] == 42


def test_subroutines_are_inlined():
    @subroutine
    def bump(where, by):
        simd_block(where)[0] += by

    simd_block = simd.block

    def kernel(args, task, scratch):
        bump(args[0], 5)
        bump(args[0], task)

    words = np.array([1], np.int64)
    made = compiler.compile_kernel(kernel)
    call(loader.load(made.code), words)
    assert words[0] == 6
    assert "call" not in compiler.assembly(made.ir)


def test_keys_follow_source_parameters_and_cpu():
    spec = KernelSpec("double", text=DOUBLE)
    assert spec.key == KernelSpec("double", text=DOUBLE).key
    assert spec.key != KernelSpec("double", text=DOUBLE + "\n").key
    made = handwritten("gemm", "gemm:make", rows=6, cols=16)
    assert made.key == handwritten("gemm", "gemm:make", cols=16, rows=6).key
    assert made.key != handwritten("gemm", "gemm:make", rows=4, cols=16).key
    program = f"from jitrt.ops.kernels.spec import KernelSpec; print(KernelSpec('double', text={DOUBLE!r}).key)"
    keys = {spec.key}
    for name, features in (("haswell", "+avx2,+fma"), ("haswell", "+avx2")):
        environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
        keys.add(
            subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
        )
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("features", "lanes", "registers", "fma"),
    [("", 4, 16, False), ("+avx", 8, 16, False), ("+avx,+avx2,+fma", 8, 16, True), ("+avx512f,+avx512vl,+avx,+fma", 16, 32, True)],
)
def test_vector_geometry_follows_the_features(monkeypatch, features, lanes, registers, fma):
    if not target.llvm.get_process_triple().startswith("x86_64"):
        pytest.skip("x86 features")
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    found = target.current.__wrapped__()
    assert (found.lanes, found.registers, found.fma) == (lanes, registers, fma)


def test_printed_source_is_what_was_compiled():
    assert KernelSpec("double", text=DOUBLE).source == DOUBLE
    assert "def " in handwritten("padding", "padcopy:pad_copy").source
