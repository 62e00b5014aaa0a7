"""The kernel store: damaged, foreign and unusable entries, several processes, size, and starting without numba."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from jitrt import store as stores
from jitrt.ops.kernels import elf, target
from jitrt.ops.kernels import spec as specs
from jitrt.ops.kernels.spec import KernelSpec
from jitrt.pool import KERNEL
from jitrt.store import Store

TEXT = "def kernel(args, task, scratch):\n    args[0] = {}\n"


def kernel(number: int = 7) -> KernelSpec:
    return KernelSpec(f"answer{number}", TEXT.format(number))


def answer(store: Store, spec: KernelSpec) -> int:
    """What a kernel of the store writes."""
    word = np.zeros(1, np.int64)
    KERNEL(store.address(spec))(word.ctypes.data, 0, 0)
    return int(word[0])


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The names of the kernels that are compiled during the test."""
    names: list[str] = []
    compile_ = Store._compile

    def noted(self: Store, spec: KernelSpec) -> bytes:
        names.append(spec.name)
        return compile_(self, spec)

    monkeypatch.setattr(Store, "_compile", noted)
    return names


@pytest.fixture
def filled(tmp_path) -> pathlib.Path:
    """The file of a stored kernel."""
    store = Store(tmp_path / "cache")
    assert answer(store, kernel()) == 7
    (entry,) = store.directory.iterdir()
    return entry


def test_a_stored_kernel_is_loaded_not_compiled(filled, compiled):
    assert answer(Store(filled.parent), kernel()) == 7
    assert compiled == []


def test_an_entry_is_private_and_says_what_it_is(filled):
    assert filled.stat().st_mode & 0o077 == 0
    assert filled.parent.stat().st_mode & 0o077 == 0
    head = json.loads(filled.read_bytes().split(b"\n", 1)[0])
    assert (head["name"], head["key"]) == ("answer7", kernel().key)


def _edit_head(entry: pathlib.Path, **changes: object) -> None:
    head, body = entry.read_bytes().split(b"\n", 1)
    entry.write_bytes(json.dumps({**json.loads(head), **changes}).encode() + b"\n" + body)


def _flip(entry: pathlib.Path, at: int) -> None:
    data = bytearray(entry.read_bytes())
    data[at] ^= 0x40
    entry.write_bytes(bytes(data))


def _foreign(entry: pathlib.Path) -> None:
    other = Store(entry.parent)
    assert answer(other, kernel(8)) == 8
    other._path(kernel(8)).replace(entry)


def _link(entry: pathlib.Path) -> None:
    entry.rename(entry.with_suffix(".elsewhere"))
    entry.symlink_to(entry.with_suffix(".elsewhere"))


def _pipe(entry: pathlib.Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


DAMAGE = {
    "emptied": lambda entry: entry.write_bytes(b""),
    "cut short": lambda entry: entry.write_bytes(entry.read_bytes()[:-5]),
    "longer": lambda entry: entry.write_bytes(entry.read_bytes() + b"\0"),
    "a changed byte of code": lambda entry: _flip(entry, 600),
    "a changed last byte": lambda entry: _flip(entry, -1),
    "no JSON": lambda entry: entry.write_bytes(b"\xff\xfe" + entry.read_bytes()),
    "JSON of another kind": lambda entry: entry.write_bytes(b"[1]\n"),
    "another name": lambda entry: _edit_head(entry, name="answer8"),
    "a checksum that is no text": lambda entry: _edit_head(entry, digest=16),
    "another kernel's": _foreign,
    "writable by everybody": lambda entry: entry.chmod(0o666),
    "writable by the group": lambda entry: entry.chmod(0o660),
    "a link": _link,
    "a pipe": _pipe,
}


@pytest.mark.skipif(os.name != "posix", reason="modes, links and pipes")
@pytest.mark.parametrize("case", DAMAGE)
def test_an_entry_that_cannot_be_trusted_is_made_again(case, filled, compiled):
    DAMAGE[case](filled)
    compiled.clear()
    assert answer(Store(filled.parent), kernel()) == 7
    assert compiled == ["answer7"]
    compiled.clear()
    assert answer(Store(filled.parent), kernel()) == 7  # it was written again
    assert compiled == []


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners")
def test_an_entry_of_another_user_is_not_loaded(filled, compiled, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert answer(Store(filled.parent), kernel()) == 7
    assert compiled == ["answer7"]


def test_code_that_cannot_be_linked_is_compiled_again(filled, compiled):
    store = Store(filled.parent)
    store._write(kernel(), b"no object file")
    assert answer(Store(filled.parent), kernel()) == 7
    assert compiled == ["answer7"]


def test_without_a_directory_kernels_are_compiled_and_kept_in_memory(compiled):
    store = Store(None)
    assert [answer(store, kernel()) for _ in range(2)] == [7, 7]
    assert compiled == ["answer7"]


@pytest.mark.parametrize("case", ["a file is in the way", "it vanishes", "it cannot be written"])
def test_a_directory_that_cannot_be_used_costs_time_only(case, tmp_path, compiled, monkeypatch, capsys):
    monkeypatch.setenv("JITRT_LOG", "compile")
    directory = tmp_path / "cache"
    store = Store(directory)
    if case == "a file is in the way":
        directory.write_text("")
    elif case == "it vanishes":
        assert store._writable()
        directory.rmdir()
    else:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(stores.tempfile, "mkstemp", refuse)
    assert [answer(store, kernel(n)) for n in (1, 2)] == [1, 2]
    assert compiled == ["answer1", "answer2"]
    assert ("cannot keep answer1" in capsys.readouterr().err) == (case != "a file is in the way")


def test_a_full_disk_leaves_no_unfinished_files(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stores.os, "replace", refuse)
    assert answer(store, kernel()) == 7
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_bounded_and_what_was_not_used_for_longest_goes(tmp_path, compiled):
    store = Store(tmp_path)
    size = 0
    for n in range(6):
        assert answer(store, kernel(n)) == n
        size = store._path(kernel(n)).stat().st_size
        os.utime(store._path(kernel(n)), (time.time() - 9e4 + n,) * 2)
    assert answer(Store(tmp_path), kernel(0)) == 0  # the oldest is used again
    small = Store(tmp_path, limit=5 * size)
    assert answer(small, kernel(6)) == 6
    kept = {n for n in range(7) if store._path(kernel(n)).exists()}
    assert kept == {0, 5, 6}
    assert sum(e.stat().st_size for e in tmp_path.iterdir()) <= small.limit


def test_files_that_nobody_finished_are_cleared_away_and_other_files_are_left(tmp_path):
    old, new, other = tmp_path / "a.part", tmp_path / "b.part", tmp_path / "notes.txt"
    for file in (old, new, other):
        file.touch()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    answer(Store(tmp_path, limit=1), kernel())
    assert {e.name for e in tmp_path.iterdir()} == {"b.part", "notes.txt"}


def test_the_key_covers_source_parameters_cpu_and_versions(monkeypatch):
    made = KernelSpec("x", factory="a:b"), KernelSpec("x", factory="a:b", parameters=(("n", 1),)), kernel(1), kernel(2)
    keys = {spec.key for spec in made}
    assert len(keys) == 4
    assert kernel().key == KernelSpec("another name", TEXT.format(7)).key
    text, cpu = specs.environment(), target.current()
    for part in (cpu.name, cpu.features, "numba=", "llvmlite="):
        assert part in text
    before = kernel().key
    monkeypatch.setattr(specs, "environment", lambda: text + "|other")
    assert kernel().key != before


def test_progress_is_told_of_what_is_compiled_only(filled):
    told: list[tuple[int, int, str]] = []
    Store(filled.parent).prepare([kernel(), kernel(1), kernel(2), kernel(1)], lambda *step: told.append(step))
    assert told == [(0, 2, "answer1"), (1, 2, "answer2"), (2, 2, "")]


def test_kernels_to_spare_are_looked_for_on_disk_once_and_found_when_they_are_needed(filled, compiled, monkeypatch):
    store, looked, read = Store(filled.parent, workers=1), [], Store._read

    def noted(self: Store, spec: KernelSpec) -> bytes | None:
        looked.append(spec.name)
        return read(self, spec)

    monkeypatch.setattr(Store, "_read", noted)
    for _ in range(3):
        store.prepare([], spare=[kernel(7), kernel(8)])
    assert looked == ["answer7", "answer8"]
    store.prepare([], spare=[kernel(8), kernel(9)])
    assert looked == ["answer7", "answer8", "answer9"]
    assert compiled == []
    assert [answer(store, kernel(n)) for n in (7, 8, 9)] == [7, 8, 9]
    assert compiled == ["answer8", "answer9"]
    store.reset()
    store.prepare([], spare=[kernel(9), kernel(10)])
    assert looked[-1] == "answer10"


PROGRAM = textwrap.dedent("""
    import sys, jitrt, numpy as np, onnx.parser
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 20]> g (float[N, 40] x) => (float[N, 40] y)'
                                    '{ h = Add (x, x) y = Mul (h, x) }')
    session = jitrt.InferenceSession(model, jitrt.SessionOptions(intra_op_num_threads=2))
    x = np.linspace(-3, 3, 280, dtype=np.float32).reshape(7, 40)
    print(float(session.run(None, {"x": x})[0].sum()))
    print([name for name in ("numba", "llvmlite") if name in sys.modules])
""")


def _start(directory: pathlib.Path) -> subprocess.Popen:
    environment = {**os.environ, "JITRT_CACHE_DIR": str(directory)}
    command, pipe = [sys.executable, "-c", PROGRAM], subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def _finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    total, imported = out.splitlines()
    return total, imported


def test_two_processes_compile_at_once_and_a_third_starts_without_a_compiler(tmp_path):
    both = [_start(tmp_path), _start(tmp_path)]
    first, second = (_finish(process) for process in both)
    assert first == second
    assert first[1] == "['numba', 'llvmlite']"
    assert not list(tmp_path.glob("*.part"))
    third = _finish(_start(tmp_path))
    assert third == (first[0], "[]" if elf.is_supported() else "['llvmlite']")
