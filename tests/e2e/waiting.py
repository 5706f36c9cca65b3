"""Waiting for a condition with a deadline, in tests that run no event loop."""

import time
from collections.abc import Callable

DEADLINE_S = 15.0


def until(
    condition: Callable[[], object], timeout_s: float = DEADLINE_S, *, say: Callable[[], str] | None = None
) -> None:
    """Return once `condition()` is true.

    Raises:
        AssertionError: It never was; with the words of `say`.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s} s" + (f": {say()}" if say else ""))
        time.sleep(0.02)
