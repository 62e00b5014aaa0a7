"""Open sizes: whatever code asks of them, the recorded guards hold exactly where its answers do.

A random program computes with sizes and branches on them. For other values of the symbols either a guard fails, or the program
run on plain numbers takes the same branches and gives the numbers that the solver gives.
"""

from __future__ import annotations

import dataclasses
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitrt.ops.kernels.sizes import (
    Size,
    about,
    alike,
    cached,
    certainly,
    deferred,
    fixed,
    is_open,
    key,
    least,
    most,
    now,
    opened,
    whole,
)
from jitrt.ops.kernels.solver import solver
from jitrt.ops.kernels.symbols import Fixed, Symbols


@deferred()
def share(total: int, parts: tuple[int, ...]) -> tuple[int, int]:
    each = total // max(1, sum(parts) % 7)
    return each if each > 0 else 0, max(total, 0)


@dataclasses.dataclass(frozen=True)
class Cut:
    whole: int
    rest: int


@deferred()
def cut(number: int, by: int) -> Cut:
    return Cut(abs(number) // by, abs(number) % by)


@deferred(least=None)
def below(number: int) -> int:
    return number - 100


ARITHMETIC = (
    operator.add, operator.sub, operator.mul, most, least, max, min, lambda a, b: share(a, (b, 2))[0], lambda a, b: abs(a - b),
    lambda a, b: cut(a + b, 5).rest, lambda a, b: a // 3 if b < a else -(-b // 4), lambda a, b: a % 8 + below(b),
    lambda a, b: a // b if b > 0 else a, lambda a, b: (a * b) // b if b else b,
)  # fmt: skip
QUESTIONS = (
    operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne, lambda a, b: bool(a), lambda a, b: a in (1, 8, b),
    lambda a, b: (a, 3) == (b, 3), lambda a, b: 0 <= a - b < 5,
)  # fmt: skip
step = st.tuples(
    st.sampled_from(range(len(ARITHMETIC))), st.integers(0, 30), st.integers(0, 30), st.sampled_from(range(len(QUESTIONS)))
)


def run(steps, numbers: list) -> tuple[list, list[bool]]:
    """The numbers that a program makes, and what it was told."""
    numbers, answers = list(numbers), []
    for what, i, j, question in steps:
        a, b = numbers[i % len(numbers)], numbers[j % len(numbers)]
        made = ARITHMETIC[what](a, b)
        numbers.append(made if abs(now(made)) < 1 << 24 else 3)
        answers += [abs(now(made)) < 1 << 24, QUESTIONS[question](a, b)]
    return numbers, answers


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(step, max_size=12), st.lists(st.integers(2, 40), min_size=3, max_size=3), st.data())
def test_guards_hold_only_where_every_answer_does(steps, values: list[int], data) -> None:
    symbols = Symbols()
    try:
        numbers, answers = run(steps, [*(opened(symbols, f"s{i}", n) for i, n in enumerate(values)), 5])
    except Fixed:
        return
    assert [now(n) for n in numbers] == run(steps, [*values, 5])[0]
    solve = solver(symbols, [n.terms if isinstance(n, Size) else n for n in numbers])
    assert solve(*values) == tuple(map(now, numbers))
    for _ in range(6):
        others = data.draw(st.lists(st.integers(2, 40), min_size=3, max_size=3))
        solved = solve(*others)
        if solved is not None and all(abs(n) < 1 << 24 for n in solved):
            expected, told = run(steps, [*others, 5])
            assert (list(solved), answers) == (expected, told)


def sizes(*values: int) -> tuple[Symbols, list[Size]]:
    symbols = Symbols()
    return symbols, [opened(symbols, "nms"[i], n) for i, n in enumerate(values)]


def test_what_follows_from_expressions_and_bounds_needs_no_guard() -> None:
    symbols, (n, m) = sizes(5, 6)
    assert n * m * 12 == 12 * m * n
    assert n * m != n
    assert not n * m < n
    assert n > 0
    assert n != 1
    assert 4 * n % 2 == 0
    assert (n * 64) // 64 is not None
    assert ((n + 1) // 2 + 1) // 2 == (n + 3) // 4
    assert (n * m * 8) // (n * 8) == m
    assert most(n, 1) == n
    assert least(n * m, n) == n
    assert 2 * (n // 2) <= n
    assert alike((n, m, 4), (n, m, 4))
    assert not alike((n, m), (m, n))
    assert not certainly(n, 5)
    assert symbols.conditions == []


def test_guards_say_what_was_asked_and_where() -> None:
    symbols, (n, m) = sizes(5, 6)
    symbols.node = "Concat_3"
    assert n + m <= 11
    assert n != 9
    assert n % 2 != 0
    texts = [c.text for c in symbols.conditions]
    assert texts == ["n + m <= 11", "n != 9", "n != 2*(n // 2)"]
    assert symbols.conditions[0].reason == "asked for Concat_3 in test_sizes.py: test_guards_say_what_was_asked_and_where"


def test_a_question_is_guarded_once() -> None:
    symbols, (n, m) = sizes(5, 6)
    assert n < m
    assert m > n
    assert not m <= n
    assert 3 * n < 3 * m
    assert n + 1 <= m
    assert len(symbols.conditions) == 1


def test_what_equals_a_sum_is_that_sum_from_then_on() -> None:
    symbols, (n, m, s) = sizes(5, 6, 11)
    assert s == n + m
    assert s * 64 == 64 * (n + m)
    assert s * n - n * n == n * m
    assert s > n
    assert [c.text for c in symbols.conditions] == ["n + m == s"]


@pytest.mark.parametrize(
    "use",
    [int, float, range, lambda n: [0] * n, lambda n: np.zeros(n), lambda n: n / 2, lambda n: 1.5 * n, lambda n: n == 5, fixed],
)
def test_uses_as_an_ordinary_number_fix_a_symbol(use) -> None:
    _, (n,) = sizes(5)
    with pytest.raises((Fixed, TypeError)):
        use(n)


def test_parts_of_symbols_are_fixed_by_a_guard() -> None:
    symbols, (n,) = sizes(5)
    assert int(n // 2) == 2
    assert list(range(n // 2)) == [0, 1]
    solve = solver(symbols, [n.terms])
    assert [solve(v) for v in (3, 4, 5, 6)] == [None, (4,), (5,), None]


def test_sizes_are_in_no_dictionary_and_no_source() -> None:
    _, (n,) = sizes(5)
    with pytest.raises(TypeError):
        hash((1, n))
    with pytest.raises(SyntaxError):
        compile(f"x + {n}", "source", "eval")
    assert key(n, (n, 1)) == key(n, (n, 1))
    assert key(n, 1) != key(n + 1, 1)
    calls = []

    @cached(8)
    def twice(shape):
        calls.append(shape)
        return shape[0] * 2

    assert twice((3,)) == twice((3,)) == 6
    assert len(calls) == 1
    assert twice((n,)) == 2 * n
    assert twice((n * 1 + 0,)) == 2 * n
    assert len(calls) == 2
    assert twice((n + 1,)) == 2 * n + 2
    _, (other,) = sizes(now(n))
    assert twice((other,)) == 2 * other
    assert len(calls) == 4  # an expression of sizes has its result in each plan
    assert twice([3]) == twice([3]) == 6
    assert len(calls) == 6  # a list has no hash for another reason


def test_after_a_plan_is_made_its_sizes_answer_no_new_question() -> None:
    symbols, (n,) = sizes(5)
    solver(symbols, [n.terms])
    with pytest.raises(RuntimeError):
        bool(n < 7)


def test_a_choice_that_fits_roughly_is_kept_for_sizes_of_its_magnitude() -> None:
    symbols, (n,) = sizes(12)
    assert about((n + 3) // 4) == 3
    solve = solver(symbols, [])
    assert [v for v in range(2, 40) if solve(v) is not None] == list(range(5, 13))


def test_numbers_stay_numbers() -> None:
    assert (most(3, 5), least(3, 5), whole(np.int64(4)), now(4), about(4), fixed((2, [3]))) == (5, 3, 4, 4, 4, (2, [3]))
    assert share(20, (3, 2)) == (4, 20)
    assert cut(13, 5) == Cut(2, 3)
    assert alike((1, 2), (1, 2))
    assert not alike((1, 2), (1, 2, 3))
    assert is_open((1, 2), [3]) is False
