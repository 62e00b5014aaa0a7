"""`python -m demo`: a picture is read, files are classified, models are measured; exits with 1 if anything is wrong."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

OUTPUT = Path("build") / "demo"


def main() -> int:
    """Run the demonstration.

    Returns:
        0 if everything was read, told and computed as it should be, else 1.
    """
    arguments = _arguments()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="jitrt-demo-") as store:
        # An empty kernel store, so that first readings are really first on every repetition.
        os.environ["JITRT_CACHE_DIR"] = store
        results = _run(arguments)
    wrong = [part for part, right in results.items() if not right]
    seconds = time.perf_counter() - start
    print(f"\n{'All is well' if not wrong else 'WRONG: ' + ', '.join(wrong)}. This took {seconds:.0f} s.")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--runtime", default="jitrt", help="module that takes onnxruntime's place (default: jitrt)")
    parser.add_argument("--threads", type=int, default=min(2, _available()), help="threads of both runtimes")
    parser.add_argument("--only", choices=["ocr", "filetypes", "models"], help="run one part")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> dict[str, bool]:
    from . import filetypes, models, ocr

    runtime, reference = importlib.import_module(arguments.runtime), importlib.import_module("onnxruntime")
    threads = arguments.threads
    print(f"{runtime.__name__} {runtime.__version__} beside {reference.__name__} {reference.__version__}, ", end="")
    print(f"Python {platform.python_version()}, {platform.machine()}, {threads} threads")
    parts = {
        "ocr": lambda: ocr.run(runtime, reference, threads, OUTPUT),
        "filetypes": lambda: filetypes.run(runtime, reference),
        "models": lambda: models.run(runtime, reference, threads),
    }
    return {name: part() for name, part in parts.items() if arguments.only in (None, name)}


def _available() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
