"""`python -m benchmarks.agreement`: count what agrees with ONNX's own tests and with onnxruntime, and write AGREEMENT.md.

1. The backend tests of the installed onnx (`conformance.py`).
2. Models of one node, drawn from the operators' schemas (`tests/schemas`), on both runtimes: an hour with an empty store.
3. Nodes that Python computes in real and exported models (`hosts.py`).

Needs the tests' extra. Exits with 1 if something disagrees that nothing explains, or a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import conformance, hosts, machine
from .console import progress
from .processes import Figure
from .report import Circumstances, Table, page, verdict

FILE = Path(__file__).resolve().parent / "AGREEMENT.md"
LEAST_CASES = 10_000
TEXT = (
    "A backend test passes if every output has the expected type, shape and, within the tolerances of onnx's own runner, values;",
    "those that do not are listed with reasons in `tests/backend/known_failures.txt`. A drawn case is one operator with",
    "attributes, types, shapes and values that its schema allows, and differs from all others; `tests/schemas/explained.py` says",
    "where onnxruntime computes something else and why jitrt is right.",
)


@dataclass
class Drawn:
    """What became of drawn cases.

    Attributes:
        ran: how many both runtimes ran.
        verdicts: how many had each verdict, by operator. explained: for how many each explanation was needed.
    """

    ran: int = 0
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    explained: Counter[str] = field(default_factory=Counter)

    def add(self, found: dict) -> None:
        """Count what another process found."""
        self.ran += found["ran"]
        for name, counts in found["verdicts"].items():
            self.verdicts.setdefault(name, Counter()).update(counts)
        self.explained.update(found["explained"])

    def total(self) -> Counter[str]:
        """How many cases had each verdict."""
        return sum(self.verdicts.values(), Counter())


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description="Count what agrees.")
    parser.add_argument("--cases", type=int, default=LEAST_CASES, help="drawn cases that both runtimes run")
    parser.add_argument("--processes", type=int, default=machine.cpu_count(), help="that run the drawn cases")
    parser.add_argument("--output", type=Path, default=FILE, help=f"default: {FILE.name} beside this program")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with progress("backend tests"):
        figures = [conformance.figure()]
    with tempfile.TemporaryDirectory(prefix="jitrt-cases-") as folder:
        found = drawn(arguments.cases, arguments.processes, Path(folder))
    figures += [_cases(found), *_hosts()]
    tables = [_promises(figures), _by_verdict(found), _explanations(found)]
    for each in tables:
        each.show()
    minutes = (time.perf_counter() - start) / 60
    how = Circumstances(["python", "-m", "benchmarks.agreement", *sys.argv[1:]], None, minutes, machine.versions())
    arguments.output.write_text(page("What agrees", how, TEXT, tables))
    print(f"\n{minutes:.1f} minutes; written to {arguments.output}")
    return 0 if all(figure.kept for figure in figures) else 1


def drawn(count: int, processes: int, folder: Path) -> Drawn:
    """Run `count` drawn cases in that many processes, each of which writes a file into the folder; progress is printed.

    Raises:
        RuntimeError: a process broke off.
    """
    files = [folder / f"{i}.json" for i in range(1, processes + 1)]
    each = -(-count // processes)
    running = [
        conformance.start(["-m", "tests.schemas", "--quiet", f"--count={each}", f"--part={i}/{processes}", f"--json={file}"])
        for i, file in enumerate(files, 1)
    ]
    for process in running:
        process.wait()
    found = Drawn()
    for file, process in zip(files, running, strict=True):
        if not file.exists():
            raise RuntimeError(f"a process of drawn cases broke off with {process.returncode}")
        found.add(json.loads(file.read_text()))
    return found


def _cases(found: Drawn) -> Figure:
    different = found.total()["different"]
    text = f"{found.ran:,} of {len(found.verdicts)} operators, {different} unexplained differences"
    kept = found.ran >= LEAST_CASES and not different
    return Figure("distinct drawn cases on both runtimes", text, "", f"{LEAST_CASES:,}, none", kept)


def _hosts() -> Iterator[Figure]:
    for name, make in hosts.models():
        with progress(f"host nodes: {name}"):
            nodes, _, _ = hosts.host_nodes(make)
        yield Figure(f"{name}: nodes computed by Python", ", ".join(nodes) or "none", "", "none", not nodes)


def _promises(figures: list[Figure]) -> Table:
    return Table(
        "Promises", ("what", "found", "promised", "kept"), [[f.what, f.ours, f.promised, verdict(f.kept)] for f in figures]
    )


def _by_verdict(found: Drawn) -> Table:
    return Table("Drawn cases", ("verdict", "cases"), [[name, f"{count:,}"] for name, count in found.total().most_common()])


def _explanations(found: Drawn) -> Table:
    return Table("Explained differences", ("why", "cases"), [[why, str(n)] for why, n in sorted(found.explained.items())])


if __name__ == "__main__":
    sys.exit(main())
