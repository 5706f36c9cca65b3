"""Waiting for a condition with a deadline."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

DEADLINE_S = 20.0


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = DEADLINE_S) -> None:
    """Return once `condition()` holds; TimeoutError if it never does."""
    async with asyncio.timeout(timeout_s):
        while not await _holds(condition):  # noqa: ASYNC110 - what is waited for knows no event
            await asyncio.sleep(0.01)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    answer = condition()
    return await answer if inspect.isawaitable(answer) else bool(answer)
