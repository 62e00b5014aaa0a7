"""Object files linked into the process: ELF, x86-64. Sections are copied to memory, and addresses filled in where code asks.

LLVM's linker does it for every machine and is what `loader` falls back to, but to import it takes 45 MB of memory and a
tenth of a second. A process that finds its kernels in the store needs nothing else of it.

Source: System V ABI, AMD64 supplement, chapters 4 (object files) and 4.4 (relocation).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from . import perfmap

_X86_64 = 62
_ALLOCATED, _WRITABLE = 2, 1  # flags of sections
_BITS, _SYMBOLS, _RELOCATIONS, _UNWIND = 1, 2, 4, 0x70000001  # types of sections
_ABSOLUTE, _RELATIVE, _CALL, _FAR = 1, 2, 4, 24  # types of relocations: R_X86_64_64, _PC32, _PLT32, _PC64
_FUNCTION = 2  # a type of symbols
_JUMP = b"\xff\x25\x00\x00\x00\x00"  # jmp through the address that follows
_STUB = 16  # bytes of a jump to another library, which may be too far away for a call
_mapped: list[mmap.mmap] = []  # what is linked stays until the process ends


class Unsupported(Exception):
    """The bytes are no object file that this linker knows how to link."""


def is_supported() -> bool:
    """Whether this process runs such code."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and hasattr(mmap, "PROT_EXEC")


def link(code: bytes, symbol: str, name: str = "") -> int:
    """The address of a global symbol of an object file, linked against the libraries of the process.

    `name`: what profilers are told that the symbol is called, see `perfmap`.

    Raises:
        Unsupported: it has sections or relocations of other kinds, or asks for what the process does not have.
    """
    try:
        made = _Object(code)
        address = made.link(symbol)
    except (struct.error, IndexError, ValueError, OSError) as error:
        raise Unsupported(str(error)) from error
    if perfmap.is_wanted():
        perfmap.note((at, size, name if own == symbol else f"{name} {own}") for at, size, own in made.functions())
    return address


@dataclass
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    place: int = -1  # from the start of the memory; -1: not there


class _Object:
    """The tables of an object file."""

    def __init__(self, code: bytes) -> None:
        if code[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<HH", code, 16) != (1, _X86_64):
            raise Unsupported("not a relocatable file for x86-64")
        self.code = code
        (start,) = struct.unpack_from("<Q", code, 40)
        size, count, names = struct.unpack_from("<HHH", code, 58)
        heads = [struct.unpack_from("<IIQQQQIIQQ", code, start + i * size) for i in range(count)]
        self.sections = [_Section(self._text(heads[names][4] + h[0]), h[1], h[2], *h[4:9]) for h in heads]
        (table,) = (s for s in self.sections if s.kind == _SYMBOLS)
        self.symbols = [struct.unpack_from("<IBBHQQ", code, at) for at in range(table.offset, table.offset + table.size, 24)]
        self.names = [self._text(self.sections[table.link].offset + s[0]) for s in self.symbols]
        self.base = 0  # of the memory that it is linked into

    def _text(self, at: int) -> str:
        return self.code[at : self.code.index(b"\0", at)].decode()

    def link(self, symbol: str) -> int:
        """Lay out, copy, relocate, make executable."""
        size = self._lay_out()
        foreign = [i for i, s in enumerate(self.symbols) if i and s[3] == 0]
        stubs = {i: -(-size // _STUB) * _STUB + n * _STUB for n, i in enumerate(foreign)}
        memory = mmap.mmap(-1, max(1, size + _STUB * (len(stubs) + 1)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = self.base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for s in self.sections:
            if s.place >= 0:
                memory[s.place : s.place + s.size] = self.code[s.offset : s.offset + s.size]
        for i, at in stubs.items():
            memory[at : at + _STUB] = (_JUMP + struct.pack("<Q", _address(self.names[i]))).ljust(_STUB, b"\0")
        for s in self.sections:
            if s.kind == _RELOCATIONS and self.sections[s.info].place >= 0:
                self._relocate(memory, base, s, stubs)
        _make_executable(base, len(memory))
        _mapped.append(memory)
        return base + self._place(self.names.index(symbol), stubs)

    def functions(self) -> Iterator[tuple[int, int, str]]:
        """Address, size and name of each function, once it is linked."""
        for (_, kind, _, section, value, size), name in zip(self.symbols, self.names):
            if kind & 15 == _FUNCTION and 0 < section < len(self.sections):
                yield self.base + self.sections[section].place + value, size, name

    def _lay_out(self) -> int:
        """Give a place to each section that is needed at run time; the size of all."""
        end = 0
        for s in self.sections:
            if not s.flags & _ALLOCATED or s.kind == _UNWIND:
                continue
            if s.kind != _BITS or (s.flags & _WRITABLE and not s.name.startswith(".data.rel.ro")):
                raise Unsupported(f"section {s.name}")
            s.place = -(-end // max(1, s.alignment)) * max(1, s.alignment)
            end = s.place + s.size
        return end

    def _place(self, i: int, stubs: dict[int, int]) -> int:
        """Where a symbol lies, from the start of the memory."""
        section, value = self.symbols[i][3:5]
        if i in stubs:
            return stubs[i]
        if section >= len(self.sections) or self.sections[section].place < 0:
            raise Unsupported(f"symbol {self.names[i]!r}")
        return self.sections[section].place + value

    def _relocate(self, memory: mmap.mmap, base: int, table: _Section, stubs: dict[int, int]) -> None:
        start = self.sections[table.info].place
        for at in range(table.offset, table.offset + table.size, 24):
            offset, info, addend = struct.unpack_from("<QQq", self.code, at)
            kind, place = info & 0xFFFFFFFF, start + offset
            target = self._place(info >> 32, stubs) + addend
            if kind in (_RELATIVE, _CALL):
                struct.pack_into("<i", memory, place, target - place)
            elif kind == _FAR:
                struct.pack_into("<q", memory, place, target - place)
            elif kind == _ABSOLUTE:
                struct.pack_into("<Q", memory, place, base + target)
            else:
                raise Unsupported(f"relocation of type {kind}")


def _address(name: str) -> int:
    """Of a function that the process has."""
    try:
        found = getattr(_process(), name)
    except AttributeError:
        raise Unsupported(f"the process has no {name!r}") from None
    address = ctypes.cast(found, ctypes.c_void_p).value
    assert address is not None
    return address


@lru_cache(maxsize=1)
def _process() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _make_executable(address: int, size: int) -> None:
    protect = _process().mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(address, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")
