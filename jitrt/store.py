"""The kernel store: object code by key, in memory, on disk, or compiled now.

The directory is ``JITRT_CACHE_DIR``, else the platform's user cache; mode 0700. One file an entry: a JSON line (key,
name, sizes, checksum), the object code, and the compressed optimised IR. Files are written under another name and
renamed. A damaged or foreign entry is ignored and written again; a directory that cannot be used costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import stat
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache

from .log import log
from .ops.kernels import loader
from .ops.kernels.spec import KernelSpec

Progress = Callable[[int, int, str], None]


class Store:
    """Addresses of compiled kernels. `directory` None keeps nothing on disk."""

    def __init__(self, directory: pathlib.Path | None) -> None:
        self.directory = directory
        self.addresses: dict[str, int] = {}
        self.lock = threading.RLock()
        self._usable: bool | None = None

    def address(self, spec: KernelSpec) -> int:
        """The address of a kernel, compiled if it is new."""
        found = self.addresses.get(spec.key)
        if found is None:
            with self.lock:
                found = self.addresses.get(spec.key)
                if found is None:
                    found = self.addresses[spec.key] = self._load(spec) or self._compile(spec)
        return found

    def prepare(self, specs: Iterable[KernelSpec], progress: Progress | None = None) -> None:
        """Make kernels ready; `progress` is told of each one that has to be compiled (done, of how many, name)."""
        wanted = {s.key: s for s in specs if s.key not in self.addresses}
        with self.lock:
            missing = []
            for key, spec in wanted.items():
                if key in self.addresses:
                    continue
                found = self._load(spec)
                if found:
                    self.addresses[key] = found
                else:
                    missing.append(spec)
            for done, spec in enumerate(missing):
                if progress is not None:
                    progress(done, len(missing), spec.name)
                self.addresses[spec.key] = self._compile(spec)
            if progress is not None and missing:
                progress(len(missing), len(missing), "")

    def ir(self, spec: KernelSpec) -> str:
        """Optimised LLVM IR of a kernel."""
        entry = self._read(spec)
        if entry is None:
            from .ops.kernels.compiler import compile_kernel

            return compile_kernel(spec.function()).ir
        return zlib.decompress(entry[1]).decode()

    # -- compiling
    def _compile(self, spec: KernelSpec) -> int:
        from .ops.kernels.compiler import compile_kernel

        log("compile", lambda: f"compiling {spec.name} {spec.key[:12]}")
        made = compile_kernel(spec.function())
        address = loader.load(made.code)
        self._write(spec, made.code, zlib.compress(made.ir.encode(), 1))
        return address

    # -- disk
    def _path(self, spec: KernelSpec) -> pathlib.Path:
        return self.directory / f"{spec.key}.jitrt"

    def _load(self, spec: KernelSpec) -> int | None:
        entry = self._read(spec)
        if entry is None:
            return None
        try:
            return loader.load(entry[0])
        except RuntimeError:
            return None

    def _read(self, spec: KernelSpec) -> tuple[bytes, bytes] | None:
        """(object code, compressed IR) of a sound entry of this user's."""
        if self.directory is None:
            return None
        try:
            with open(self._path(spec), "rb") as file:
                info = os.fstat(file.fileno())
                if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & stat.S_IWOTH):
                    return None
                head = json.loads(file.readline())
                body = file.read()
            sound = head["key"] == spec.key and hashlib.sha256(body).hexdigest() == head["sha256"]
            return (body[: head["code"]], body[head["code"] :]) if sound else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, spec: KernelSpec, code: bytes, ir: bytes) -> None:
        if not self._writable():
            return
        body = code + ir
        head = {"key": spec.key, "name": spec.name, "code": len(code), "sha256": hashlib.sha256(body).hexdigest()}
        try:
            handle, name = tempfile.mkstemp(dir=self.directory, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(json.dumps(head).encode() + b"\n" + body)
                os.replace(name, self._path(spec))
            except OSError:
                os.unlink(name)
        except OSError:
            log("compile", lambda: f"cannot keep {spec.name}: {error}")

    def _writable(self) -> bool:
        if self._usable is None:
            try:
                if self.directory is not None:
                    self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._usable = self.directory is not None
            except OSError:
                self._usable = False
        return self._usable


def default_directory() -> pathlib.Path | None:
    """Where kernels are kept; None if there is no home directory. ``JITRT_CACHE_DIR`` empty: nowhere."""
    chosen = os.environ.get("JITRT_CACHE_DIR")
    if chosen is not None:
        return pathlib.Path(chosen) if chosen else None
    try:
        home = pathlib.Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "jitrt"
    if sys.platform == "win32":
        return pathlib.Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "jitrt" / "cache"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "jitrt"


@lru_cache(maxsize=1)
def store() -> Store:
    """The process's store."""
    return Store(default_directory())
