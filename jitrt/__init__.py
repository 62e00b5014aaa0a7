import pathlib as _pathlib
_root = _pathlib.Path(__file__).resolve().parent.parent
if (_root / "fusion").is_dir() and (_root / "ops" / "kernels").is_dir():
    __path__.append(str(_root))
