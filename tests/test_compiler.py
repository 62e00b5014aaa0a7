"""Compilation of kernels: code that stands alone, keys that follow what a kernel depends on, errors that name the kernel."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from numba.core.errors import NumbaError
from numba.extending import register_jitable
from vector_kernels import call

from jitrt.ops.kernels import compiler, elf, loader, perfmap, simd, target
from jitrt.ops.kernels.spec import KernelSpec, handwritten
from jitrt.ops.kernels.subroutine import subroutine
from jitrt.pool import KERNEL

DOUBLE = """
def kernel(args, task, scratch):
    for i in range(0, args[0], LANES):
        store_f32(args[2] + 4 * i, load_f32(args[1] + 4 * i) * 2.0 + task)
"""


def run(address: int, count: int = 64) -> np.ndarray:
    x, y = np.arange(count, dtype=np.float32), np.zeros(count, np.float32)
    call(address, count, x, y)
    return y


# far functions, constants of vectors, a table of jumps
VARIED = """
def kernel(args, task, scratch):
    for i in range(args[0]):
        x = load_one_f32(args[1] + 4 * i)
        if i % 8 == 0:
            x = sin(x * 1e6)
        elif i % 8 == 1:
            x = fmod(x, 7.5)
        elif i % 8 == 2:
            x = exp(-x)
        elif i % 8 == 3:
            x = x + 0.125
        store_f32(args[2] + 4 * i, x)
"""
ELF = pytest.mark.skipif(not elf.is_supported(), reason="x86-64 Linux")


def code_of(text: str) -> bytes:
    return compiler.compile_kernel(KernelSpec("made", text=text).function()).code


@pytest.mark.parametrize("link", [loader.load, loader.link_with_llvm])
def test_generated_source_becomes_a_kernel(link):
    np.testing.assert_array_equal(run(link(code_of(DOUBLE))), np.arange(64, dtype=np.float32) * 2)


@ELF
def test_both_linkers_give_the_same_kernel():
    code = code_of(VARIED)
    expected = run(loader.link_with_llvm(code))
    assert expected.std() > 1
    np.testing.assert_array_equal(run(elf.link(code, loader.SYMBOL)), expected)


@ELF
def test_what_is_cut_off_or_of_another_kind_is_not_linked():
    code = code_of(VARIED)
    for length in range(0, len(code), 97):
        with pytest.raises(elf.Unsupported):
            elf.link(code[:length], loader.SYMBOL)
    with pytest.raises(elf.Unsupported):
        elf.link(code, "another")
    with pytest.raises(elf.Unsupported, match="fmodg"):  # a function that the process does not have
        elf.link(code.replace(b"fmodf\0", b"fmodg\0"), loader.SYMBOL)


@ELF
def test_what_one_linker_does_not_know_the_other_links(monkeypatch):
    def refuse(code, symbol, name):
        raise elf.Unsupported("relocation")

    monkeypatch.setattr(elf, "link", refuse)
    np.testing.assert_array_equal(run(loader.load(code_of(DOUBLE))), np.arange(64, dtype=np.float32) * 2)


@ELF
def test_profilers_are_told_the_names_of_kernels(monkeypatch, tmp_path):
    monkeypatch.setattr(perfmap, "path", lambda: tmp_path / "perf.map")
    loader.load(code_of(DOUBLE), "double")
    assert not (tmp_path / "perf.map").exists(), "nobody asked"
    monkeypatch.setenv("JITRT_PERF_MAP", "1")
    addresses = {loader.load(code_of(text), name): name for text, name in ((DOUBLE, "double:1"), (VARIED, "varied:2"))}
    lines = [line.split(" ", 2) for line in (tmp_path / "perf.map").read_text().splitlines()]
    assert {int(at, 16): name for at, _, name in lines if " " not in name} == addresses
    assert all(0 < int(size, 16) < 1 << 20 for _, size, _ in lines)


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
assert "llvmlite" not in sys.modules or not {elf.is_supported()}
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


def run_block(kernel, words: np.ndarray) -> None:
    KERNEL(loader.load(compiler.compile_kernel(kernel).code))(words.ctypes.data, 0, 0)


def _words(kernel, *given: int) -> list[int]:
    """What a kernel leaves in its block, compiled and as Python runs it."""
    compiled, plain = np.zeros(16, np.int64), [*given, *(0,) * (16 - len(given))]
    compiled[: len(given)] = given
    run_block(kernel, compiled)
    kernel(plain, 0, 0)
    assert compiled.tolist() == plain
    return plain


def test_arithmetic_means_what_python_means():
    def kernel(args, task, scratch):
        x, y, number = args[0], args[1], args[0] / 3.0
        args[2], args[3] = min(x, y, 4), max(x, y, -4)
        args[4] = int(max(number, x) * 100) + int(min(2.5, number, y) * 100)
        args[5], args[6], args[7] = x // 3, x % 3, abs(x) + (x << 2) + (x >> 1) + (x & 3) + (x | 8) + (x ^ 1)
        for step in (1, 2, 3):
            args[8] += step * (1 if (x == 7 and y != 3) or not x else -1)
        while x > 0:
            x -= 2
        args[9] = x + int(number) + bool(y)

    for x, y in ((7, -2), (-7, 3), (0, 9), (100, 100)):
        _words(kernel, x, y)


def test_minima_of_numbers_that_are_none_are_the_first():
    nan = float("nan")

    def kernel(args, task, scratch):
        args[1] = int(max(1.5, nan, 2.5) * 10) + int(min(3.5, nan) * 10) + (1000 if min(nan, 1.0) == 1.0 else 0)

    assert _words(kernel, 0)[1] == 60


def test_a_kernel_may_use_what_numbas_full_contexts_know():
    @register_jitable
    def larger(pair, than):
        return max(pair[0], pair[1], than)

    @subroutine
    def put(where, value):
        simd_block(where)[0] = larger((value, 3), 5)

    simd_block = simd.block

    def kernel(args, task, scratch):
        put(args[0], args[1])
        args[1] = larger((args[1], 2), 4)

    words, other = np.array([0, 9], np.int64), np.zeros(1, np.int64)
    words[0] = other.ctypes.data
    run_block(kernel, words)
    assert (words[1], other[0]) == (9, 9)


def test_the_same_kernel_is_the_same_code_whatever_was_compiled_before():
    first, again = (compiler.compile_kernel(KernelSpec("double", text=DOUBLE).function()).code for _ in range(2))
    assert first == again


def test_what_a_kernel_misses_is_named():
    def kernel(args, task, scratch):
        args[0] = no_such_name(task)  # noqa: F821

    with pytest.raises(NumbaError, match="no_such_name"):
        compiler.compile_kernel(kernel)


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
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("x86 features")
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    found = target.current.__wrapped__()
    assert (found.lanes, found.registers, found.fma) == (lanes, registers, fma)


def test_printed_source_is_what_was_compiled():
    assert KernelSpec("double", text=DOUBLE).source == DOUBLE
    assert "def " in handwritten("padding", "padcopy:pad_copy").source
