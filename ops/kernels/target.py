"""The CPU that kernels are compiled for; `blocking` has the parameters that follow from it.

Importable without numba and llvmlite: a process that only loads finished objects needs the name and features for the
store's key and for planning. `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` override the host's, as in numba.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_SYSTEM = Path("/sys/devices/system/cpu")
_HALVES = ("AuthenticAMD-25-", "znver4")  # CPUs that compute vectors of 512 bits as two halves


@dataclass(frozen=True)
class Target:
    """Name, LLVM feature string and vector geometry of one CPU.

    Attributes:
        lanes: float32 values in one vector register.
        registers: number of vector registers.
        fma: whether a fused multiply-add is one instruction.
        half: whether float16 converts in hardware (F16C).
        units: vectors that are multiplied and added in a cycle.
        adders: vectors that are added meanwhile, in units of their own that keep up with an operand from memory each.
    """

    name: str
    features: str
    lanes: int
    registers: int
    fma: bool
    half: bool
    units: int = 2
    adders: int = 0

    def has(self, feature: str) -> bool:
        """Whether an LLVM feature such as ``avx2`` is switched on."""
        return f"+{feature}" in self.features.split(",")

    @property
    def masks(self) -> bool:
        """Whether loads and stores of some lanes cost what whole ones do: AVX-512's; AVX2's stores take AMD's CPUs 12 cycles."""
        return _is_x86() and self.lanes == 16

    @property
    def pairs(self) -> bool:
        """Whether products by pairs pay, see `pairing`: additions beside multiply-adds cost nothing, and masks neither."""
        return self.masks and self.adders >= self.units

    @property
    def pair_sums(self) -> int:
        """How many sums of two int16 products one instruction makes (x86's pmaddwd); 0: there is no such instruction."""
        if not _is_x86():
            return 0
        return 16 if self.has("avx512bw") else 8 if self.has("avx2") else 4


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686", "x86")


@lru_cache(maxsize=1)
def initialize() -> None:
    """Make LLVM's native code generator ready; safe to call often."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@lru_cache(maxsize=1)
def current() -> Target:
    """The target of this process."""
    name, features = _asked_for() or _of_system() or _of_llvm()
    on = set(features.split(","))
    if _is_x86():
        wide, medium = "+avx512f" in on and "+avx512vl" in on, "+avx" in on
        lanes = 16 if wide else 8 if medium else 4
        units, adders = (1, 1) if wide and name.startswith(_HALVES) else (2, 0)
        return Target(name, features, lanes, 32 if wide else 16, "+fma" in on or wide, "+f16c" in on or wide, units, adders)
    return Target(name, features, 4, 32, True, True)


@lru_cache(maxsize=1)
def machine():
    """The LLVM target machine (`llvmlite.binding.TargetMachine`) that object code is emitted with."""
    import llvmlite.binding as llvm

    initialize()
    name, features = _asked_for() or _of_llvm()
    if "+avx512vnni" in features.split(","):
        # Intel's CPUs are said to add int16 products faster in two instructions, which is so if few sums wait for each other
        features += ",+fast-dpwssd"
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return triple.create_target_machine(cpu=name, features=features, opt=3, reloc="pic", codemodel="small", jit=True)


@lru_cache(maxsize=1)
def last_cache(system: Path = _SYSTEM) -> int:
    """Bytes of the last cache before memory of a CPU that this process may use, as Linux says; 0: it names none behind L1."""
    sizes = _caches(system)
    return sizes[max(sizes)] if sizes and max(sizes) > 1 else 0


@lru_cache(maxsize=1)
def second_cache(system: Path = _SYSTEM) -> int:
    """Bytes of the second cache (L2) of such a CPU; 0: Linux names none."""
    return _caches(system).get(2, 0)


def _caches(system: Path) -> dict[int, int]:
    """Bytes of caches by level; of the first one, which are two, those of either."""
    try:
        mine = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        places = list((system / f"cpu{mine}" / "cache").glob("index*"))
        sizes = {int((place / "level").read_text()): (place / "size").read_text().strip() for place in places}
        return {level: int(size.removesuffix("K")) << 10 for level, size in sizes.items()}
    except (OSError, ValueError):
        return {}


def _asked_for() -> tuple[str, str] | None:
    """What the environment says instead of the CPU; features of the host's only if it names the host."""
    name, features = os.environ.get("NUMBA_CPU_NAME") or None, os.environ.get("NUMBA_CPU_FEATURES")
    if name is None and features is None:
        return None
    host, own = _of_llvm()
    return name or host, features if features is not None else own if name == host else ""


def _of_system() -> tuple[str, str] | None:
    """The CPU as Linux describes it on x86, with LLVM's signs before the features: the same without importing LLVM."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        parts = [said[key] for key in ("vendor_id", "cpu family", "model", "stepping")]
        return "-".join(parts), ",".join(f"+{flag}" for flag in sorted(said["flags"].split()))
    except (OSError, KeyError):
        return None


def _of_llvm() -> tuple[str, str]:
    import llvmlite.binding as llvm

    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
