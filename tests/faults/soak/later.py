"""What a step begins and a later moment ends."""

import asyncio
from collections.abc import Awaitable, Callable


class Later:
    """Tasks that outlive the step that began them; `all_done` waits for the last."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None

    def soon(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do it in so many seconds."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            await work()

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def all_done(self) -> None:
        """Return once nothing is left; what one of them raised is raised here."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._broken is not None:
            raise self._broken

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._broken = self._broken or task.exception()
