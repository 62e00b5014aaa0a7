"""The kernel store: object code by key, in memory, on disk, or compiled now.

The directory is ``JITRT_CACHE_DIR``, else the platform's user cache; mode 0700. One file an entry: a JSON line (key,
name, checksum) and the object code; what else is worth keeping (`Store.read`, `Store.write`) lies beside them. Files are
written under another name and renamed. A damaged or foreign entry is ignored and written again; a directory that cannot
be used costs time only. What was not used for longest goes when the directory outgrows its limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache

from . import collector
from .compiling import MOST_WORKERS, Compiling, Progress
from .log import log
from .ops.kernels import loader
from .ops.kernels.digest import digest
from .ops.kernels.spec import KernelSpec
from .pool import default_threads

_SUFFIX, _PART = ".jitrt", ".part"
_LIMIT = 1 << 30


class Store:
    """Addresses of compiled kernels.

    Args:
        directory: where they are kept; None for nowhere.
        limit: of the directory's size, in bytes.
        workers: how many processes may compile beside this one.
    """

    def __init__(self, directory: pathlib.Path | None, limit: int = _LIMIT, workers: int = 0) -> None:
        self.directory, self.limit = directory, limit
        self.addresses: dict[str, int] = {}
        self.compiling = Compiling(self._compile, self._write, workers)
        self._spare: set[str] = set()  # keys of what plans have had to spare so far
        self._usable: bool | None = None
        self._size: int | None = None

    def address(self, spec: KernelSpec) -> int:
        """The address of a kernel, compiled if it is new."""
        if spec.key not in self.addresses:
            self.prepare([spec])
        return self.addresses[spec.key]

    def announce(self, specs: Iterable[KernelSpec]) -> None:
        """These kernels will be needed: those that are new may be compiled from now on."""
        if missing := self._missing(specs):
            self.compiling.announce(missing)

    def prepare(self, specs: Iterable[KernelSpec], progress: Progress | None = None, spare: Iterable[KernelSpec] = ()) -> None:
        """Make kernels ready; `progress` is told of each one that has to be compiled (done, of how many, name).

        Those to spare are compiled by workers when these are done, if there are workers; else now. Workers are told of each once.
        """
        if self.compiling.limit:
            new = [spec for spec in spare if spec.key not in self._spare]
            self._spare.update(spec.key for spec in new)
            self.compiling.announce_spare(self._missing(new))
        else:
            specs = [*specs, *spare]
        missing = self._missing(specs)
        self.compiling.finish(missing, progress)
        for spec in missing:
            self.addresses[spec.key] = loader.load(self.compiling.made[spec.key], spec.label)

    def reset(self) -> None:
        """In the child of a fork: threads that compile, or hold a lock, do not exist there."""
        self.compiling.reset()
        self._spare.clear()

    def _missing(self, specs: Iterable[KernelSpec]) -> list[KernelSpec]:
        """Those of the kernels that are neither in memory nor on disk."""
        unknown = {spec.key: spec for spec in specs if spec.key not in self.addresses}
        for key, spec in list(unknown.items()):
            found = None if key in self.compiling.made else self._load(spec)
            if found:
                self.addresses[key] = found
                del unknown[key]
        return list(unknown.values())

    def _compile(self, spec: KernelSpec) -> bytes:
        from .ops.kernels.compiler import compile_kernel

        with collector.running():
            return compile_kernel(spec.function()).code

    # -- disk
    def _path(self, spec: KernelSpec) -> pathlib.Path:
        return self.directory / f"{spec.key}{_SUFFIX}"

    def _load(self, spec: KernelSpec) -> int | None:
        entry = self._read(spec)
        if entry is None:
            return None
        try:
            return loader.load(entry, spec.label)
        except RuntimeError:
            return None

    def _read(self, spec: KernelSpec) -> bytes | None:
        """The object code of a sound entry of this user's."""
        try:
            line, _, code = (self.read(self._path(spec).name) or b"").partition(b"\n")
            head = json.loads(line)
            if head["digest"] != _checksum(head, code) or head["key"] != spec.key:
                return None
            self._note_use(spec)
            return code
        except (ValueError, KeyError, TypeError):
            return None

    def _note_use(self, spec: KernelSpec) -> None:
        """An entry's modification time says when it was last used, to the hour."""
        with contextlib.suppress(OSError):
            if time.time() - self._path(spec).stat().st_mtime > 3600:
                os.utime(self._path(spec))

    def _write(self, spec: KernelSpec, code: bytes) -> None:
        head: dict[str, object] = {"key": spec.key, "name": spec.name}
        head["digest"] = _checksum(head, code)
        content = json.dumps(head).encode() + b"\n" + code
        if self.directory is not None and self.write(f"{spec.key}{_SUFFIX}", content, spec.name):
            self._bound(len(content))

    def read(self, name: str) -> bytes | None:
        """What a file of the directory holds; None if it is not there, or not this user's alone to write."""
        if self.directory is None:
            return None
        try:
            with open(self.directory / name, "rb", opener=_open_regular) as file:
                return file.read() if _is_private(os.fstat(file.fileno())) else None
        except OSError:
            return None

    def write(self, name: str, content: bytes, title: str = "") -> bool:
        """Make or replace a file of the directory, whole or not at all; whether it is there now. `title`: for people."""
        if not self._writable():
            return False
        try:
            handle, part = tempfile.mkstemp(dir=self.directory, suffix=_PART)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(part, self.directory / name)
            except OSError:
                os.unlink(part)
                raise
        except OSError as error:
            reason = str(error)
            log("compile", lambda: f"cannot keep {title or name}: {reason}")
            return False
        return True

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


def _checksum(head: Mapping[str, object], code: bytes) -> str:
    """Of everything in an entry but the checksum itself."""
    return digest(json.dumps([head["key"], head["name"]]).encode() + b"\n" + code)


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
    return Store(default_directory(), workers=_allowed_workers())


def _allowed_workers() -> int:
    """``JITRT_WORKERS``, else one for each further CPU that this process may use, up to a few."""
    chosen = os.environ.get("JITRT_WORKERS", "")
    return int(chosen) if chosen.isdecimal() else min(default_threads() - 1, MOST_WORKERS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: store().reset())
