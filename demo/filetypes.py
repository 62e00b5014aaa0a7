"""Telling file types with the model and the `Magika` class of the package magika."""

from __future__ import annotations

import io
import json
import time
import wave
import zipfile
from types import ModuleType

from PIL import Image

from benchmarks.console import heading, progress, table

from .substitute import import_on

_PYTHON = '''
import argparse
from pathlib import Path


def count_words(path: Path) -> dict[str, int]:
    """Count the words of a file."""
    counts: dict[str, int] = {}
    for word in path.read_text().split():
        counts[word] = counts.get(word, 0) + 1
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    print(count_words(parser.parse_args().path))
'''

_C = """
#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

int main(int argc, char **argv) {
    int values[64], n = 0;
    while (n < 64 && scanf("%d", &values[n]) == 1) n++;
    qsort(values, n, sizeof(int), compare);
    for (int i = 0; i < n; i++) printf("%d\\n", values[i]);
    return EXIT_SUCCESS;
}
"""

_HTML = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Kernels</title><link rel="stylesheet" href="style.css"></head>
<body><h1>Kernels</h1><ul><li><a href="/gemm">GEMM</a></li><li><a href="/conv">Convolution</a></li></ul>
<script>document.querySelector("h1").addEventListener("click", () => alert("compiled"));</script></body>
</html>
"""

_SQL = """
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, placed DATE, total NUMERIC(10, 2));
INSERT INTO orders (customer, placed, total) VALUES ('Ada', '2024-03-01', 13.50), ('Alan', '2024-03-02', 99.95);
SELECT customer, SUM(total) AS spent FROM orders WHERE placed >= '2024-01-01' GROUP BY customer HAVING SUM(total) > 10;
"""


def samples() -> dict[str, bytes]:
    """Files made here, keyed by the label that magika gives to their type."""
    return {
        "python": _PYTHON.encode(),
        "c": _C.encode(),
        "html": _HTML.encode(),
        "sql": _SQL.encode(),
        "json": json.dumps([{"id": i, "name": f"item {i}", "tags": ["a", "b"]} for i in range(20)], indent=2).encode(),
        "png": _png(),
        "wav": _wav(),
        "zip": _zip(),
    }


def _png() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "PNG")
    return file.getvalue()


def _wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"".join((i * 997 % 20001 - 10000).to_bytes(2, "little", signed=True) for i in range(2000)))
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(8):
            archive.writestr(zipfile.ZipInfo(f"notes/{i}.txt"), f"note {i}\n" * 50, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def classify(runtime: ModuleType, files: dict[str, bytes]) -> tuple[list[tuple[str, float]], float]:
    """(label, score) of each file, with magika running on `runtime`, and the seconds of a second pass."""
    magika = import_on("magika", runtime).Magika()
    for _ in range(2):
        start = time.perf_counter()
        results = [magika.identify_bytes(content) for content in files.values()]
        seconds = time.perf_counter() - start
    return [(str(r.dl.label), r.score) for r in results], seconds


def run(runtime: ModuleType, reference: ModuleType) -> bool:
    """Classify the samples on both runtimes and print the labels; whether all are right and equal."""
    heading("Telling file types: the unmodified magika package")
    files = samples()
    with progress(f"classifying {len(files)} files on {runtime.__name__}"):
        ours, seconds = classify(runtime, files)
    with progress(f"classifying them on {reference.__name__}"):
        theirs, other_seconds = classify(reference, files)
    rows = [
        [kind, label, f"{score:.4f}", f"{other:.4f}", "yes" if kind == label == other_label else "NO"]
        for kind, (label, score), (other_label, other) in zip(files, ours, theirs, strict=True)
    ]
    table(["file", runtime.__name__, "score", f"{reference.__name__}'s", "right and equal"], rows)
    difference = max(abs(a[1] - b[1]) for a, b in zip(ours, theirs, strict=True))
    print(f"largest difference of a score {difference:.1e}")
    for title, total in ((runtime.__name__, seconds), (reference.__name__, other_seconds)):
        print(f"{title:>12}: {total / len(files) * 1e3:.2f} ms a file, once warm")
    return [label for label, _ in ours] == [label for label, _ in theirs] == list(files)
