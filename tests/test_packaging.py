"""What pyproject.toml says of the package agrees with the folders."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("jitrt", "fusion", "ops")
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
    folders = {str(path.parent.relative_to(ROOT).as_posix()) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, source archive) of a copy of the tree, so that nothing left in build/ gets in."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    code = "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_sdist(out); b.build_wheel(out)"
    subprocess.run([sys.executable, "-c", code, out], cwd=tree, capture_output=True, check=True)
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def _sources() -> set[str]:
    """Every file of the rooms that a user needs, by its path in the repository."""
    paths = (path for room in ROOMS for pattern in ("*.py", "py.typed") for path in (ROOT / room).rglob(pattern))
    return {path.relative_to(ROOT).as_posix() for path in paths}


def test_wheel_installs_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (top,) = (wheel.read(name).decode().split() for name in wheel.namelist() if name.endswith("top_level.txt"))
    assert top == ["jitrt"]
    assert names == {name if name.startswith("jitrt/") else f"jitrt/{name}" for name in _sources()}


def test_source_archive_has_what_a_wheel_is_made_of(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"pyproject.toml", "README.md", "LICENSE", *_sources()}


def test_installed_package_runs_a_model(built, tmp_path):
    with zipfile.ZipFile(built[0]) as wheel:
        wheel.extractall(tmp_path / "site")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnx.parser, jitrt
model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 20]> m (float[3] x) => (float[3] y) { y = Relu (x) }')
print(jitrt.InferenceSession(model).run(None, {"x": np.float32([-1, 0, 2])})[0].tolist(), jitrt.ops.__file__)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "site"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.split("] ") == ["[0.0, 0.0, 2.0", f"{tmp_path / 'site' / 'jitrt' / 'ops' / '__init__.py'}\n"]
