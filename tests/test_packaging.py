"""What pyproject.toml says of the package agrees with the folders."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = SETTINGS["tool"]["setuptools"]["packages"]


def _folder(package: str) -> str:
    """The folder of a package, through the longest prefix that package-dir maps."""
    parts, mapped = package.split("."), SETTINGS["tool"]["setuptools"]["package-dir"]
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in mapped:
            return "/".join([mapped[".".join(parts[:end])], *parts[end:]])
    raise AssertionError(f"{package} is not mapped to a folder")


def test_every_folder_with_code_is_packaged():
    rooms = ("jitrt", "fusion", "ops")
    folders = {str(path.parent.relative_to(ROOT).as_posix()) for room in rooms for path in (ROOT / room).rglob("*.py")}
    assert folders == {_folder(package) for package in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_comes_from_its_folder(package):
    module = importlib.import_module(package)
    assert Path(module.__file__).parent == ROOT / _folder(package)


def test_only_the_four_runtime_dependencies():
    names = {requirement.split(">")[0] for requirement in SETTINGS["project"]["dependencies"]}
    assert names == {"llvmlite", "numba", "numpy", "onnx"}


def test_folders_of_the_user_do_not_shadow_ours(tmp_path):
    for name in ("ops", "fusion"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('this is not of jitrt')")
    code = "import sys; sys.path.append(sys.argv[1]); import jitrt.ops, jitrt.fusion; print(jitrt.ops.__file__)"
    result = subprocess.run([sys.executable, "-c", code, ROOT], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(result.stdout.strip()) == ROOT / "ops" / "__init__.py"


def test_import_loads_neither_numba_nor_onnx():
    code = "import sys, jitrt; print([name for name in ('numba', 'onnx', 'onnxruntime') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
