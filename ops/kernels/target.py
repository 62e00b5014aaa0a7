"""The CPU that kernels are compiled for; `blocking` has the parameters that follow from it.

Importable without numba: a process that only loads finished objects needs the name and features for the store's
key and for planning. `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` override the host's, as in numba.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Target:
    """Name, LLVM feature string and vector geometry of one CPU.

    Attributes:
        lanes: float32 values in one vector register.
        registers: number of vector registers.
        fma: whether a fused multiply-add is one instruction.
        half: whether float16 converts in hardware (F16C).
    """

    name: str
    features: str
    lanes: int
    registers: int
    fma: bool
    half: bool

    def has(self, feature: str) -> bool:
        """Whether an LLVM feature such as ``avx2`` is switched on."""
        return f"+{feature}" in self.features.split(",")


@lru_cache(maxsize=1)
def initialize() -> None:
    """Make LLVM's native code generator ready; safe to call often."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@lru_cache(maxsize=1)
def current() -> Target:
    """The target of this process."""
    name = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = llvm.get_host_cpu_features().flatten() if name == llvm.get_host_cpu_name() else ""
    on = set(features.split(","))
    x86 = llvm.get_process_triple().startswith(("x86_64", "i386", "i686"))
    if x86:
        wide, medium = "+avx512f" in on and "+avx512vl" in on, "+avx" in on
        lanes = 16 if wide else 8 if medium else 4
        return Target(name, features, lanes, 32 if wide else 16, "+fma" in on or wide, "+f16c" in on or wide)
    return Target(name, features, 4, 32, True, True)


@lru_cache(maxsize=1)
def machine() -> llvm.TargetMachine:
    """The LLVM target machine that object code is emitted with."""
    initialize()
    target = current()
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return triple.create_target_machine(cpu=target.name, features=target.features, opt=3, reloc="pic", codemodel="small", jit=True)
