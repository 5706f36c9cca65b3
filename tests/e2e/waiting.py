"""Waiting for a condition with a deadline, in tests that run no event loop."""

import time
from collections.abc import Callable

DEADLINE_S = 15.0
PAUSE_S = 0.02


def until(
    condition: Callable[[], object], timeout_s: float = DEADLINE_S, *, say: Callable[[], str] | None = None
) -> None:
    """Return once `condition()` is true.

    Raises:
        AssertionError: It never was; with the words of `say`.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        looked_s = time.monotonic()
        if condition():
            return
        now_s = time.monotonic()
        if now_s > deadline_s:
            raise AssertionError(f"not within {timeout_s} s" + (f": {say()}" if say else ""))
        # Looking must not take the time of those who are waited for.
        time.sleep(max(PAUSE_S, 2 * (now_s - looked_s)))
