"""The kernel store: object code by key, in memory, on disk, or compiled now.

The directory is ``JITRT_CACHE_DIR``, else the platform's user cache; mode 0700. One file an entry: a JSON line (key,
name, sizes, checksum), the object code, and the compressed optimised IR. Files are written under another name and
renamed. A damaged or foreign entry is ignored and written again; a directory that cannot be used costs time only. What
was not used for longest goes when the directory outgrows its limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import stat
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from .log import log
from .ops.kernels import loader
from .ops.kernels.spec import KernelSpec

Progress = Callable[[int, int, str], None]


_SUFFIX, _PART = ".jitrt", ".part"
_LIMIT = 1 << 30


class Store:
    """Addresses of compiled kernels. `directory` None keeps nothing on disk; `limit` bounds its size in bytes."""

    def __init__(self, directory: pathlib.Path | None, limit: int = _LIMIT) -> None:
        self.directory, self.limit = directory, limit
        self.addresses: dict[str, int] = {}
        self.lock = threading.RLock()
        self._usable: bool | None = None
        self._size: int | None = None

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
        return self.directory / f"{spec.key}{_SUFFIX}"

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
            with open(self._path(spec), "rb", opener=_open_regular) as file:
                info = os.fstat(file.fileno())
                if not _is_private(info):
                    return None
                head = json.loads(file.readline())
                body = file.read()
            if head["sha256"] != _checksum(head, body) or head["key"] != spec.key:
                return None
            self._note_use(spec, info)
            return body[: head["code"]], body[head["code"] :]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _note_use(self, spec: KernelSpec, info: os.stat_result) -> None:
        """An entry's modification time says when it was last used, to the hour."""
        if time.time() - info.st_mtime > 3600:
            with contextlib.suppress(OSError):
                os.utime(self._path(spec))

    def _write(self, spec: KernelSpec, code: bytes, ir: bytes) -> None:
        if not self._writable():
            return
        body = code + ir
        head: dict[str, object] = {"key": spec.key, "name": spec.name, "code": len(code)}
        head["sha256"] = _checksum(head, body)
        content = json.dumps(head).encode() + b"\n" + body
        try:
            handle, name = tempfile.mkstemp(dir=self.directory, suffix=_PART)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(name, self._path(spec))
            except OSError:
                os.unlink(name)
                raise
        except OSError as error:
            reason = str(error)
            log("compile", lambda: f"cannot keep {spec.name}: {reason}")
            return
        self._bound(len(content))

    def _writable(self) -> bool:
        if self._usable is None:
            try:
                if self.directory is not None:
                    self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._usable = self.directory is not None
            except OSError:
                self._usable = False
        return self._usable

    def _bound(self, added: int) -> None:
        """Keep the directory below `limit`; it is looked through once a process, and when it is full."""
        self._size = None if self._size is None else self._size + added
        if self._size is None or self._size > self.limit:
            self._size = _prune(self.directory, self.limit)


def _prune(directory: pathlib.Path, limit: int) -> int:
    """Delete what was not used for longest until three quarters of `limit` are left, and files that nobody finished.

    Returns:
        Bytes that are left.
    """
    entries: list[tuple[float, int, str]] = []
    try:
        with os.scandir(directory) as found:
            for each in found:
                with contextlib.suppress(OSError):
                    info = each.stat(follow_symlinks=False)
                    if each.name.endswith(_SUFFIX):
                        entries.append((info.st_mtime, info.st_size, each.path))
                    elif each.name.endswith(_PART) and time.time() - info.st_mtime > 3600:
                        os.unlink(each.path)
    except OSError:
        return 0
    total = sum(size for _, size, _ in entries)
    if total <= limit:
        return total
    for _, size, path in sorted(entries):
        if total <= limit * 3 // 4:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size
    return total


def _checksum(head: Mapping[str, object], body: bytes) -> str:
    """Of everything in an entry but the checksum itself."""
    stated = json.dumps([head["key"], head["name"], head["code"]])
    return hashlib.sha256(stated.encode() + b"\n" + body).hexdigest()


def _open_regular(path: str, flags: int) -> int:
    """Open without following a link and without waiting for a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _is_private(info: os.stat_result) -> bool:
    """A regular file of this user's that nobody else may write."""
    if not stat.S_ISREG(info.st_mode):
        return False
    return not hasattr(os, "getuid") or (info.st_uid == os.getuid() and not info.st_mode & (stat.S_IWOTH | stat.S_IWGRP))


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


def _after_fork() -> None:
    """A thread that held the lock does not exist in the child."""
    store().lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
