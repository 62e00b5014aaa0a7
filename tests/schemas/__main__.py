"""Draw cases, run them on jitrt and onnxruntime, and say how they compare: ``python -m tests.schemas --count 10000``."""

from __future__ import annotations

import argparse
import faulthandler
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from .catalogue import Case, draw_case, named, signatures
from .compare import Verdict, compare
from .explained import EXPLANATIONS, Explanation, explanation


def cases(words: list[str]) -> Iterator[Case]:
    """Distinct cases without end: in every round one of each signature, as long as new ones come."""
    chosen = [s for s in signatures() if not words or s.op in words or s.name in words]
    seen: set[tuple] = set()
    for number in range(1 << 30):
        fresh = False
        for signature in chosen:
            case = draw_case(signature, number)
            if case is not None and (key := case.key()) not in seen:
                seen.add(key)
                fresh = True
                yield case
        if not fresh and number > 50:
            return


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "operators", nargs="*", help="names, with a version or without: Add, Add-14, Add-14#3 for one case; default all"
    )
    parser.add_argument("--count", type=int, default=10_000, help="cases that both runtimes run")
    parser.add_argument("--skip", type=int, default=0, help="cases that are drawn first and left out: an earlier run had them")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="of the cases only each N-th, from the I-th on")
    parser.add_argument("--quiet", action="store_true", help="no table by operator")
    parser.add_argument("--json", type=Path, help="a file for the counts too")
    arguments = parser.parse_args()
    faulthandler.enable()
    single = [name for name in arguments.operators if "#" in name]
    part, parts = map(int, arguments.part.split("/"))
    drawn = islice(cases(arguments.operators), arguments.skip + part - 1, None, parts)
    source = map(named, single) if single else drawn
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    needed: Counter[Explanation] = Counter()
    counted = 0
    for case in source:
        outcome = compare(case)
        kind = outcome.verdict.value
        reason = explanation(case) if outcome.verdict is Verdict.DIFFERENT else None
        if reason is not None:
            needed[reason] += 1
            kind = "explained"
        elif outcome.verdict is Verdict.DIFFERENT:
            print(f"{case}\n    {outcome.why}", flush=True)
        elif single:
            print(f"{case}\n    {kind} {outcome.why}")
        verdicts[f"{case.domain}::{case.op}" if case.domain else case.op][kind] += 1
        counted += outcome.verdict is not Verdict.NOT_RUN
        if counted >= arguments.count:
            break
        if counted % 500 == 0:
            print(f"{counted} cases", file=sys.stderr, flush=True)
    print(f"{arguments.skip + parts * sum(v.total() for v in verdicts.values())} were drawn (--skip goes on after them)")
    if arguments.json:
        reasons = {f"{reason.operators}: {reason.why}": count for reason, count in needed.items()}
        arguments.json.write_text(json.dumps({"ran": counted, "verdicts": verdicts, "explained": reasons}))
    return _report(verdicts, needed, arguments.quiet)


def _report(verdicts: dict[str, Counter[str]], needed: Counter[Explanation], quiet: bool) -> int:
    columns = [v.value for v in Verdict if v is not Verdict.DIFFERENT] + ["explained", Verdict.DIFFERENT.value]
    total: Counter[str] = Counter()
    for name in sorted(verdicts):
        total += verdicts[name]
        if not quiet:
            print(f"{name:40}", *(f"{column} {verdicts[name][column]:4}" for column in columns if verdicts[name][column]), sep="  ")
    for reason in filter(needed.get, EXPLANATIONS):
        print(f"explained {needed[reason]:4}: {reason.operators}: {reason.why}")
    ran = total.total() - total[Verdict.NOT_RUN.value]
    print(f"{ran} distinct cases of {len(verdicts)} operators:", ", ".join(f"{total[column]} {column}" for column in columns))
    return 1 if total[Verdict.DIFFERENT.value] else 0


if __name__ == "__main__":
    sys.exit(main())
