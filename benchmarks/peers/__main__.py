"""`python -m benchmarks.peers`: measure jitrt beside onnxruntime, OpenVINO and MNN in one sitting, and write PEERS.md.

`--group transformers` measures transformers instead, and writes PEERS_TRANSFORMERS.md (see `models.GROUPS`). A peer that
is not installed, cannot run a model, crashes or hangs is reported, and the rest goes on. Exits with 1 if jitrt failed or its
outputs differ from onnxruntime's; a promise that is not kept is only reported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import machine
from benchmarks.compare import ATOL, RTOL, Difference, difference, in_new_process
from benchmarks.console import progress
from benchmarks.report import Circumstances, Table, geometric_mean, page, seconds, verdict

from . import batch, decoding, lengths, models
from .driver import Child, ChildError, Measured, Sitting
from .models import Group, Subject

FOLDER = Path(__file__).resolve().parent.parent
OURS, REFERENCE = "jitrt", "onnxruntime"
RUNTIMES = {OURS: "jitrt", REFERENCE: "onnxruntime", "openvino": "OpenVINO", "MNN": "MNN"}
WEIGHED = (OURS, REFERENCE)  # whose memory is measured
WRONG = 1e-2  # of the largest value of an output: a peer that is further off computes something else, and does not count
VERSION_LIMIT = 60.0  # seconds
TITLES = (
    *("model", *RUNTIMES.values(), "ratio", "of shortest", "promised", "kept", "largest difference", "first run"),
    *("peak memory", "of onnxruntime's"),
)
TEXT = (
    "Each runtime has a process of its own with the same model and inputs. They run in turns, alone: a turn begins when the",
    "threads of all others sleep. Times are medians of all timed runs, arrays in and arrays out; inner precision is float32.",
    "The ratio is the time of the fastest peer by jitrt's: above 1, jitrt is ahead of all. Beside it stands the ratio of the",
    "shortest runs, which says more on a busy machine. Ratios compare across machines, times do not. First runs are jitrt's,",
    "with an empty kernel store. Differences are those to onnxruntime's outputs; peers' are mentioned where they exceed rtol",
    f"{RTOL:g} and atol {ATOL:g}, and a peer that is off by more than {WRONG:g} of an output's largest value does not count.",
    "Decoders keep keys and values between runs: jitrt in caches (`bind_cache`), onnxruntime in bound values. Peak memory is the",
    "most that a process ever held which imports the runtime, loads the model and runs it a few times, with a full kernel store.",
)


@dataclass(frozen=True)
class Row:
    """A subject and what every runtime made of it.

    Attributes:
        found: by runtime; those that are absent are left out.
        differences: of outputs to onnxruntime's, by runtime.
        failure: why nothing could be measured.
    """

    subject: Subject
    found: dict[str, Measured] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    failure: str = ""

    def later(self, name: str, summary: Callable[[list[float]], float] = statistics.median) -> float | None:
        """The median, or what else sums up the times, of later runs of a runtime, if it has run."""
        measured = self.found.get(name)
        return summary(measured.times) if measured and measured.times else None

    def ratio(self, summary: Callable[[list[float]], float] = statistics.median) -> float | None:
        """The time of the fastest peer that counts by jitrt's."""
        ours = self.later(OURS, summary)
        right = [name for name in self.found if name != OURS and not self.wrong(name)]
        peers = [time for name in right if (time := self.later(name, summary))]
        return min(peers) / ours if ours and peers else None

    @property
    def share(self) -> float | None:
        """Of onnxruntime's peak memory, what jitrt holds, if both are known."""
        peaks = [self.found[name].peak if name in self.found else 0 for name in (OURS, REFERENCE)]
        return peaks[0] / peaks[1] if all(peaks) else None

    def wrong(self, name: str) -> bool:
        """Whether a runtime computes something else."""
        return name in self.differences and not self.differences[name].relative <= WRONG

    @property
    def problem(self) -> str:
        """What is wrong with jitrt's part; empty if nothing is."""
        ours = self.found.get(OURS)
        if self.failure or ours is None:
            return self.failure or "not installed"
        return ours.failure or ("" if self.agrees else "outputs differ")

    @property
    def agrees(self) -> bool:
        """Whether jitrt's outputs are onnxruntime's, but for what special options allow."""
        exact = self.differences.get(OURS)
        return exact is None or exact.agrees or (self.subject.rounds and not self.wrong(OURS))


def main() -> int:
    """Run the command; 0 if jitrt ran everything and agreed."""
    arguments = _arguments()
    load, start = machine.load(), time.perf_counter()
    versions = {name: _version(name, python) for name, python in arguments.python.items()}
    present = {name: python for name, python in arguments.python.items() if versions[name]}
    group = Group("", {}) if arguments.k else models.GROUPS[arguments.group]
    selected = models.chosen(arguments.k) if arguments.k else group.subjects()
    rows = [_row(subject, f"[{i}/{len(selected)}] {subject}", present, arguments) for i, subject in enumerate(selected, 1)]
    tables = [
        _table(rows),
        *_promises(rows, group, arguments),
        *_decoding(group, arguments),
        *_lengths(group, arguments),
        *_failures(rows),
    ]
    for each in tables:
        each.show()
    idle = _idle(rows)
    print(*idle)
    minutes = (time.perf_counter() - start) / 60
    output = arguments.output or (None if arguments.k else FOLDER / group.file)
    if output is not None:
        command = ["python", "-m", "benchmarks.peers", *sys.argv[1:]]
        text = ", ".join(f"{RUNTIMES[name]} {version or 'absent'}" for name, version in versions.items())
        how = Circumstances(command, load, minutes, text, arguments.threads)
        output.write_text(page("jitrt beside its peers", how, [*TEXT, *idle], tables))
    print(f"\n{minutes:.1f} minutes{'' if output is None else f'; written to {output}'}")
    problems = [f"{row.subject}: {row.problem}" for row in rows if row.problem]
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Measure jitrt beside its peers.")
    words = "any models of the catalogue with all these words in their names; no file is written"
    interpreter = f"the interpreter that has one of {', '.join(RUNTIMES)}"
    parser.add_argument("-k", default="", metavar="WORDS", help=words)
    parser.add_argument("--group", choices=models.GROUPS, default=next(iter(models.GROUPS)), help="what is measured without words")
    parser.add_argument("--threads", type=int, default=min(2, machine.cpu_count()), help="of each runtime")
    parser.add_argument("--seconds", type=float, default=8.0, help="spent on the turns of a model")
    parser.add_argument("--python", action="append", default=[], metavar="RUNTIME=PATH", help=interpreter)
    parser.add_argument("--warm", action="store_true", help="keep the kernel store; default: an empty one for each model")
    parser.add_argument("--output", type=Path, help="default: the group's page among the benchmarks, if no words are given")
    arguments = parser.parse_args()
    given = dict(text.partition("=")[::2] for text in arguments.python)
    if not given.keys() <= RUNTIMES.keys():
        parser.error(f"--python: expected RUNTIME=PATH with one of {', '.join(RUNTIMES)}")
    arguments.python = {name: os.path.abspath(given.get(name, sys.executable)) for name in RUNTIMES}
    return arguments


def _version(name: str, python: str) -> str:
    """The version of a runtime; empty if it is not installed."""
    try:
        child = Child(name, python)
    except ChildError as error:
        print(f"{RUNTIMES[name]}: {error}")
        return ""
    try:
        version = child.ask({"do": "version"}, VERSION_LIMIT)["version"] or ""
    except ChildError as error:
        print(f"{RUNTIMES[name]}: {error}")
        version = ""
    finally:
        child.stop()
    print(f"{RUNTIMES[name]} {version or 'is absent'}", flush=True)
    return version


def _row(subject: Subject, text: str, runtimes: dict[str, str], arguments: argparse.Namespace) -> Row:
    folder = nullcontext(None) if arguments.warm else tempfile.TemporaryDirectory(prefix="jitrt-bench-")
    with progress(text), folder as store:
        environment = {} if store is None else {"JITRT_CACHE_DIR": store}
        try:
            model, feeds = subject.case.make()
        except Exception as error:
            return Row(subject, failure=f"cannot be made: {type(error).__name__}: {error}")
        if not subject.timed:
            runtimes = {name: python for name, python in runtimes.items() if name in WEIGHED}
        sitting = Sitting(runtimes, arguments.threads, arguments.seconds, environment, WEIGHED)
        found = sitting.measure(model, feeds, subject.entries, subject.timed)
    row = Row(subject, found, _differences(found))
    print("    " + "  ".join(_cells(row)[1:]), flush=True)
    return row


def _differences(found: dict[str, Measured]) -> dict[str, Difference]:
    reference = found.get(REFERENCE)
    if reference is None or reference.failure:
        return {}
    return {
        name: _difference(measured.outputs, reference.outputs)
        for name, measured in found.items()
        if name != REFERENCE and measured.outputs and not measured.failure
    }


def _difference(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Difference:
    """As `compare.difference`; integers may be narrower than onnxruntime's, outputs may be missing."""
    if len(outputs) != len(expected):
        return Difference(np.inf, np.inf, False)
    pairs = zip(outputs, expected, strict=True)
    same = [a.astype(b.dtype) if a.dtype.kind == b.dtype.kind == "i" else a for a, b in pairs]
    return difference(same, expected)


# ---- tables


def _table(rows: list[Row]) -> Table:
    return Table("Models", TITLES, [_cells(row) for row in rows], _mean(rows))


def _cells(row: Row) -> list[str]:
    least, ratio, shortest = row.subject.least, row.ratio(), row.ratio(min)
    kept = None if least is None else ratio is not None and ratio >= least
    ours = row.found.get(OURS)
    return [
        row.subject.name,
        *(_time(row, name) for name in RUNTIMES),
        *("" if r is None else f"{r:.2f}" for r in (ratio, shortest)),
        "" if least is None else f"{least:g}",
        verdict(kept),
        _exactness(row),
        f"{ours.first:.1f} s" if ours and ours.first else "",
        f"{ours.peak / 1e6:.0f} MB" if ours and ours.peak else "",
        f"{row.share:.2f}" if row.share else "",
    ]


def _time(row: Row, name: str) -> str:
    if row.failure:
        return "failed"
    if name not in row.found:
        return "absent" if row.subject.timed else ""
    later, exact = row.later(name), row.differences.get(name)
    if later is None:
        return "" if not row.subject.timed and not row.found[name].failure else "failed"
    if name == OURS or exact is None or exact.agrees:
        return seconds(later)
    return f"{seconds(later)} ({'WRONG' if row.wrong(name) else 'differs'}: {exact.absolute:.0e})"


def _exactness(row: Row) -> str:
    exact = row.differences.get(OURS)
    if exact is None:
        return ""
    share = f" ({exact.relative:.1%} of the largest)" if row.subject.rounds else ""
    return f"{exact.absolute:.1e}{share}{'' if row.agrees else ', TOO LARGE'}"


def _mean(rows: list[Row]) -> str:
    ratios = [ratio for row in rows if (ratio := row.ratio())]
    return f"geometric mean of the ratios: {geometric_mean(ratios):.2f}" if ratios else ""


def _promises(rows: list[Row], group: Group, arguments: argparse.Namespace) -> list[Table]:
    """What has been promised of all models together."""
    firsts = [] if arguments.warm else _firsts(rows, group)
    lines = [*_ratios(rows, group), *_batches(rows, group, arguments), *firsts, *_shares(rows, group)]
    return [Table("Promises", ("what", "jitrt", "promised", "kept"), lines)] if lines else []


def _ratios(rows: list[Row], group: Group) -> list[list[str]]:
    """The geometric mean and the least of the ratios that have a promise."""
    promised = {row.subject.name: ratio for row in rows if row.subject.least and (ratio := row.ratio())}
    lines = []
    if promised and group.mean is not None:
        mean = geometric_mean(list(promised.values()))
        lines.append(["geometric mean of those with a promise", f"{mean:.2f}", f"{group.mean:g}", verdict(mean >= group.mean)])
    if promised and group.worst is not None:
        name, least = min(promised.items(), key=lambda item: item[1])
        lines.append([f"the slowest of them ({name})", f"{least:.2f}", f"{group.worst:g}", verdict(least >= group.worst)])
    return lines


def _batches(rows: list[Row], group: Group, arguments: argparse.Namespace) -> list[list[str]]:
    """The time of an image in a batch, not above that of an image alone."""
    if not group.batches or not any(OURS in row.found for row in rows):
        return []
    alone, batched = batch.image_times(arguments.threads, 2 * arguments.seconds)
    what = f"{batch.MODEL}, batch {batch.BATCH}: time of an image, in turns with {batch.BATCH} runs on one"
    return [[what, seconds(batched), seconds(alone), verdict(batched <= alone)]]


def _firsts(rows: list[Row], group: Group) -> list[list[str]]:
    """The longest first run with an empty store."""
    timed = [row for row in rows if row.subject.timed and OURS in row.found]
    firsts = {row.subject.name: row.found[OURS].first for row in timed if row.found[OURS].first}
    if not firsts or group.cold is None:
        return []
    longest, first = max(firsts.items(), key=lambda item: item[1])
    what = f"the longest first run, store empty ({longest})"
    return [[what, f"{first:.1f} s", f"{group.cold:g} s", verdict(first <= group.cold)]]


def _shares(rows: list[Row], group: Group) -> list[list[str]]:
    """The largest share of onnxruntime's peak memory."""
    shares = {row.subject.name: row.share for row in rows if row.share}
    if not shares or group.memory is None:
        return []
    name, share = max(shares.items(), key=lambda item: item[1])
    what = f"the largest share of onnxruntime's peak memory ({name})"
    return [[what, f"{share:.2f}", f"{group.memory:g}", verdict(share <= group.memory)]]


def _decoding(group: Group, arguments: argparse.Namespace) -> list[Table]:
    """How fast steps of decoders read memory, and how fast it can be read."""
    lines = []
    for name, past in group.decoding.items():
        with progress(f"{name}, past of {past}: bytes a second"):
            lines.append(
                decoding.cells(name, past, in_new_process(decoding.measure, name, past, arguments.threads, arguments.seconds))
            )
    return [Table("Reading memory", decoding.TITLES, lines, decoding.NOTE)] if lines else []


def _lengths(group: Group, arguments: argparse.Namespace) -> list[Table]:
    """What new lengths cost, in jitrt and in onnxruntime."""
    lines = []
    for name, (dimension, limit) in group.lengths.items():
        with progress(f"{name}: up to {limit} lengths"):
            found = [in_new_process(lengths.measure, each, name, dimension, limit, arguments.threads) for each in WEIGHED]
        lines.append(lengths.cells(name, dimension, limit, *found))
    return [Table("New lengths", lengths.TITLES, lines, lengths.NOTE)] if lines else []


def _failures(rows: list[Row]) -> list[Table]:
    """What could not be measured, and why."""
    lines = [[row.subject.name, "", row.failure] for row in rows if row.failure]
    lines += [[row.subject.name, RUNTIMES[n], m.failure] for row in rows for n, m in row.found.items() if m.failure]
    return [Table("Failures", ("model", "runtime", "what"), lines)] if lines else []


def _idle(rows: list[Row]) -> list[str]:
    """How much of a CPU waiting processes used."""
    shares = {}
    for name in RUNTIMES:
        measured = [row.found[name] for row in rows if name in row.found]
        waited = sum(m.waited for m in measured)
        if waited:
            shares[RUNTIMES[name]] = sum(m.idle for m in measured) / waited
    each = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    return [f"Of a CPU, waiting processes used meanwhile: {each}."] if shares else []


if __name__ == "__main__":
    sys.exit(main())
