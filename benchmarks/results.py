"""`python -m benchmarks.results`: measure everything beside onnxruntime in one sitting, and write RESULTS.md.

Each model has a process of its own, in which both runtimes take turns. A line is printed as soon as a figure is known.
Exits with 1 if outputs differ or something failed; a promise that is not kept is only reported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import cases, conformance, machine, processes, quantised
from .compare import ATOL, RTOL, Comparison, compare, in_new_process
from .console import progress
from .report import Circumstances, Table, geometric_mean, page, seconds, verdict

FILE = Path(__file__).resolve().parent / "RESULTS.md"
TITLES = ("model", "jitrt", "onnxruntime", "ratio", "largest difference")
TEXT = (
    "Times are medians of runs that both runtimes make in turns, in one process a model. The ratio is onnxruntime's time by",
    "jitrt's: above 1, jitrt is faster. Ratios compare across machines, times do not. The largest difference is that of the",
    f"outputs, which agree within rtol {RTOL:g} and atol {ATOL:g} unless it says otherwise. [PEERS.md](PEERS.md) and",
    "[PEERS_TRANSFORMERS.md](PEERS_TRANSFORMERS.md) have networks beside OpenVINO and MNN, and decoders beside memory's speed.",
)


@dataclass(frozen=True)
class Row:
    """A case and what was found, or why nothing was."""

    case: cases.Case
    found: Comparison | None
    failure: str = ""


def main() -> int:
    """Run the command; 0 if every output agreed and nothing failed."""
    arguments = _arguments()
    load, start = machine.load(), time.perf_counter()
    selected = cases.chosen(arguments.k)
    rows = [_row(case, f"[{i}/{len(selected)}] {case}", arguments) for i, case in enumerate(selected, 1)]
    figures, failures = _processes(arguments)
    figures += _backend(arguments, failures)
    narrow = _quantised(arguments, failures)
    tables = [*_promises(rows, [*figures, *map(_kept, narrow)]), *_groups(rows), *([quantised.table(narrow)] if narrow else [])]
    for each in tables:
        each.show()
    minutes = (time.perf_counter() - start) / 60
    output = arguments.output or (None if arguments.k else FILE)
    if output is not None:
        how = Circumstances(_command(), load, minutes, machine.versions(), arguments.threads)
        output.write_text(page("jitrt beside onnxruntime", how, TEXT, tables))
    print(f"\n{minutes:.1f} minutes{'' if output is None else f'; written to {output}'}")
    failures += [
        f"{row.case}: {row.failure or 'outputs differ'}" for row in rows if not (row.found and row.found.difference.agrees)
    ]
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def _command() -> list[str]:
    return ["python", "-m", "benchmarks.results", *sys.argv[1:]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description="Measure jitrt beside onnxruntime.")
    parser.add_argument("-k", default="", metavar="WORDS", help="only what has all these words in its name; no file is written")
    parser.add_argument("--threads", type=int, default=min(2, machine.cpu_count()), help="of both runtimes")
    parser.add_argument("--seconds", type=float, default=4.0, help="spent on the later runs of a model")
    parser.add_argument("--output", type=Path, help=f"default: {FILE.name} beside this program, if everything is measured")
    return parser.parse_args()


def _row(case: cases.Case, text: str, arguments: argparse.Namespace) -> Row:
    try:
        with progress(text):
            found = in_new_process(measure, str(case), arguments.threads, arguments.seconds)
    except Exception as error:
        print(f"    failed: {error}", flush=True)
        return Row(case, None, f"{type(error).__name__}: {error}")
    print("    " + "  ".join(_cells(Row(case, found))[1:]), flush=True)
    return Row(case, found)


def measure(name: str, threads: int, seconds: float) -> Comparison:
    """Compare the runtimes on the case of that name (for a process of its own)."""
    runtime, reference = (importlib.import_module(name) for name in ("jitrt", "onnxruntime"))
    model, feeds = cases.find(name).make()
    with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        del model
        return compare(runtime, reference, path, feeds, threads, seconds)


def _processes(arguments: argparse.Namespace) -> tuple[list[processes.Figure], list[str]]:
    """The figures of whole processes, and what failed."""
    figures: list[processes.Figure] = []
    failures = []
    for subject in processes.chosen(arguments.k):
        try:
            found = processes.measure(subject, arguments.threads, progress)
        except RuntimeError as error:
            failures.append(f"{subject.title}: {error}")
            continue
        for figure in found:
            print(f"    {figure.what}: {figure.ours}, onnxruntime {figure.theirs}", flush=True)
        figures += found
    return figures, failures


def _backend(arguments: argparse.Namespace, failures: list[str]) -> list[processes.Figure]:
    """How many of ONNX's backend tests pass; if they do not run, `failures` says so."""
    if not all(word in "backend tests" for word in arguments.k.lower().split()):
        return []
    try:
        with progress("backend tests"):
            found = conformance.figure()
    except RuntimeError as error:
        failures.append(f"backend tests: {error}")
        return []
    print(f"    {found.ours}", flush=True)
    return [found]


def _quantised(arguments: argparse.Namespace, failures: list[str]) -> list[quantised.Found]:
    """8-bit models beside their float32 ones; what fails is added to `failures`."""
    return [found for model in quantised.chosen(arguments.k) for found in _ways(model, arguments, failures)]


def _ways(model: quantised.Quantised, arguments: argparse.Namespace, failures: list[str]) -> list[quantised.Found]:
    try:
        with progress(f"quantised: {model.title}"):
            found = quantised.measure(model, arguments.threads, arguments.seconds)
    except Exception as error:
        failures.append(f"quantised: {model.title}: {type(error).__name__}: {error}")
        return []
    for each in found:
        print("    " + "  ".join(each.cells()), flush=True)
    return found


def _kept(found: quantised.Found) -> processes.Figure:
    """The promise that 8 bits are not slower than float32."""
    ours = f"{seconds(found.bytes)} ({found.ratio:.2f} of float32's speed)"
    promised = f"{quantised.LEAST:g} of float32's speed"
    return processes.Figure(f"{found.title}, 8 bits", ours, seconds(found.other), promised, found.ratio >= quantised.LEAST)


# ---- tables


def _cells(row: Row) -> list[str]:
    if row.found is None:
        return [row.case.name, "failed", "", "", ""]
    found, exact = row.found, row.found.difference
    error = f"{exact.absolute:.1e}" if exact.agrees else f"{exact.absolute:.1e}, TOO LARGE"
    return [row.case.name, seconds(found.later), seconds(found.other_later), f"{found.ratio:.2f}", error]


def _groups(rows: list[Row]) -> list[Table]:
    """A table for each group of models, the geometric mean of its ratios below."""
    tables = []
    for group, title in cases.GROUPS.items():
        inside = [row for row in rows if row.case.group == group]
        ratios = [row.found.ratio for row in inside if row.found]
        if inside:
            mean = f"geometric mean of the ratios: {geometric_mean(ratios):.2f}" if ratios else ""
            tables.append(Table(title, TITLES, [_cells(row) for row in inside], mean))
    return tables


def _promises(rows: list[Row], figures: list[processes.Figure]) -> list[Table]:
    """Everything of which a figure has been promised."""
    kept = [*(figure for row in rows if row.found for figure in _promised(row.case, row.found)), *figures]
    cells = [[f.what, f.ours, f.theirs, f.promised, verdict(f.kept)] for f in kept]
    return [Table("Promises", ("what", "jitrt", "onnxruntime", "promised", "kept"), cells)] if cells else []


def _promised(case: cases.Case, found: Comparison) -> list[processes.Figure]:
    ours, theirs = seconds(found.later), seconds(found.other_later)
    figures = []
    if case.least is not None:
        text = f"{case.least:g} of its speed"
        figures.append(processes.Figure(case.name, f"{ours} ({found.ratio:.2f})", theirs, text, found.ratio >= case.least))
    if case.longest is not None:
        figures.append(processes.Figure(case.name, ours, theirs, seconds(case.longest), found.later <= case.longest))
    return figures


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="jitrt-bench-") as store:
        os.environ["JITRT_CACHE_DIR"] = store  # figures of compiled kernels, whatever earlier versions have left
        status = main()
    sys.exit(status)
