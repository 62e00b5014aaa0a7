"""The commands that measure how fast kernels read memory (`benchmarks/reads.py`, `benchmarks/halves.py`), without timings."""

from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks import halves, reads
from benchmarks.kernel_driver import Memory


@pytest.mark.parametrize("threads", [1, 2])
def test_every_kernel_is_measured_beside_the_largest_product(threads, monkeypatch):
    monkeypatch.setattr(reads, "READ", 1 << 20)
    monkeypatch.setattr(reads, "PRODUCTS", ((96, 64), (32, 70)))
    monkeypatch.setattr(reads, "ATTENTIONS", ((2, 1, 33),))
    rows = reads.measure(threads, 2)
    assert [name for name, *_ in rows] == ["product 1x96x64", "product 1x32x70", "attention, 2 x 1 queries, 33 keys"]
    assert rows[0][3] == 1
    assert all(np.isfinite(numbers).all() and min(numbers) > 0 for _, *numbers in rows)


def test_bytes_are_those_of_the_matrix_and_of_keys_and_values():
    assert reads.product(96, 64, 1, Memory())[1] == 4 * 96 * 64
    assert reads.attention_of(2, 1, 33, 1, Memory())[1] == 2 * 2 * 33 * 64 * 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPUs cannot be chosen")
def test_a_line_comes_back_and_cpus_are_as_before(monkeypatch):
    monkeypatch.setattr(reads, "ROUNDS", 10)
    cpus = os.sched_getaffinity(0)
    assert len(cpus) < 2 or reads.round_trip() > 0
    assert os.sched_getaffinity(0) == cpus


def test_products_in_16_bits_are_measured_beside_those_in_float32(monkeypatch):
    monkeypatch.setattr(halves, "SIZE", 128)
    monkeypatch.setattr(halves, "COUNT", 2)
    assert halves.chain(3).graph.output[0].name == "x2"
    assert all(np.isfinite(number) and number > 0 for number in halves.measure(3, 1, 2))
