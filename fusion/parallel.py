"""Work on memory (reading files, packing) shared among threads; numpy and the system let go of the interpreter for it."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run(count: int, work: Callable[[int], None], threads: int) -> None:
    """``work(0)`` to ``work(count - 1)``, in any order, on this and other threads; over when all have ended.

    Raises:
        BaseException: the first that a piece of work raised; what is left then is not begun.
    """
    numbers, lock = iter(range(count)), threading.Lock()
    errors: list[BaseException] = []

    def take() -> None:
        try:
            while not errors:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                work(number)
        except BaseException as error:
            errors.append(error)

    helpers = [threading.Thread(target=take, daemon=True) for _ in range(min(threads, count) - 1)]
    for helper in helpers:
        helper.start()
    take()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
