"""What each room may import (docs/architecture.md), read from the sources: jitrt > fusion > ops > ops/kernels."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "jitrt.ops.kernels": ROOT / "ops" / "kernels",
    "jitrt.ops": ROOT / "ops",
    "jitrt.fusion": ROOT / "fusion",
    "jitrt": ROOT / "jitrt",
}
ORDER = {"jitrt.ops.kernels": 0, "jitrt.ops": 1, "jitrt.fusion": 2, "jitrt": 3}
# imports upwards that are meant: a published function body is nodes, and the importer makes nodes
ALLOWED = {("jitrt.ops.fallback", "jitrt.fusion.importer")}
HEAVY = {"numba", "onnx", "onnxruntime"}


def _modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for package, folder in ROOMS.items():
        for path in folder.glob("*.py"):
            found[package if path.stem == "__init__" else f"{package}.{path.stem}"] = path
        found |= {f"{package}.{sub.name}": sub / "__init__.py" for sub in folder.iterdir() if (sub / "__init__.py").is_file()}
    return found


MODULES = _modules()


def _room(module: str) -> str:
    return next(room for room in ROOMS if module == room or module.startswith(room + "."))


def _imports(module: str, late: bool) -> Iterator[str]:
    """Modules that a module imports when it is imported, or (`late`) at any time; types alone do not count."""
    path = MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not late:
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])]) if node.level else node.module
            yield from (inner if (inner := f"{base}.{alias.name}") in MODULES else base for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


@cache
def _reached(module: str) -> frozenset[str]:
    """Heavy packages that importing a module imports."""
    seen, pending, heavy = set(), [module], set()
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        for name in _imports(one, late=False):
            if name in MODULES:
                pending.append(name)
            elif name.partition(".")[0] in HEAVY:
                heavy.add(name.partition(".")[0])
    return frozenset(heavy)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_above_it(room):
    mine = [module for module in MODULES if _room(module) == room]
    assert len(mine) > 3
    upward = {
        (module, name)
        for module in mine
        for name in _imports(module, late=True)
        if (name == "jitrt" or name.startswith("jitrt.")) and ORDER[_room(name)] > ORDER[room]
    }
    assert upward - ALLOWED == set()


def test_the_exceptions_exist():
    assert {(module, name) for module, _ in ALLOWED for name in _imports(module, late=True)} >= ALLOWED


@pytest.mark.parametrize("room", ["jitrt.ops", "jitrt.fusion", "jitrt"])
def test_importing_a_room_loads_neither_numba_nor_onnx(room):
    """onnx is imported to read a model, numba to compile a kernel: both inside functions."""
    loaded = {module: sorted(_reached(module)) for module in MODULES if _room(module) == room and _reached(module)}
    assert loaded == {}


def test_only_kernels_know_numba():
    direct = {m for m in MODULES if any(n.partition(".")[0] in ("numba", "llvmlite") for n in _imports(m, late=True))}
    assert {_room(module) for module in direct} == {"jitrt.ops.kernels"}


def test_what_is_imported_is_seen_through_other_modules():
    assert _reached("jitrt.ops.kernels.vmath_exp") | _reached("jitrt.ops.kernels.window") == {"numba"}
