"""An event loop whose clock jumps over the time in which nothing happens: a day of waiting takes seconds."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# What is sent within the process arrives at once; only after so long without it is nothing under way.
_QUIET_S = 0.002


class WarpLoop(asyncio.SelectorEventLoop):
    """Real sockets and threads, a clock that jumps. Time passes as usual while a thread works."""

    def __init__(self) -> None:
        self._skipped_s = 0.0
        self._working = 0
        super().__init__(_Selector(self._skip))

    def time(self) -> float:
        """The loop's clock."""
        return super().time() + self._skipped_s

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]  # typeshed's signature is of TypeVarTuples
        """As the base, noting that a thread works."""
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._working += 1
        future.add_done_callback(self._done)
        return future

    def _done(self, _future: "asyncio.Future[Any]") -> None:
        self._working -= 1

    def _skip(self, seconds: float) -> bool:
        """Jump, unless a thread works."""
        if self._working:
            return False
        self._skipped_s += seconds
        return True


class _Selector(selectors.DefaultSelector):
    """Waits for real, shortly; then the loop's clock does."""

    def __init__(self, skip: Callable[[float], bool]) -> None:
        super().__init__()
        self._skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector`."""
        if timeout is None or timeout <= _QUIET_S:
            return super().select(timeout)
        ready = super().select(_QUIET_S)
        if ready or self._skip(timeout - _QUIET_S):
            return ready
        return super().select(timeout)


def run_warped(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on such a loop."""
    with asyncio.Runner(loop_factory=WarpLoop) as runner:
        return runner.run(main)
