"""The page: inside the daemon, and as a process of its own beside it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from connector.app.clock import wall_clock_ms
from connector.app.supervise import Stop
from connector.errors import TransientError
from connector.mesh.topics import Topics
from connector.mesh.visitor import address_of
from connector.overview.board import Board, BoardRules
from connector.overview.opened import OpenedReplica
from connector.overview.told import DaemonWatch, Told
from connector.settings import Settings
from connector.web.page import Page

# Reads at once: the look of every second, and those of the records.
READERS = 3
# Health is put together on the thread that writes: not with every look.
HEALTH_EVERY_S = 5.0


async def run_page(settings: Settings, told: Callable[[], Awaitable[Told]]) -> None:
    """Serve the page until cancelled; `told` is what the daemon says of itself.

    Raises:
        TransientError: `web.listen` cannot be listened on now.
    """
    async with OpenedReplica(settings.storage.path, READERS) as replica:
        board = Board(replica, told, BoardRules.of(settings), now_ms=wall_clock_ms)
        timeout_s = settings.query.timeout.total_seconds()
        await Page(board, replica, settings.web.address, timeout_s=timeout_s, now_ms=wall_clock_ms).run()


async def run_page_beside(settings: Settings, stop: Stop) -> None:
    """Serve the page from a process of its own, until told to stop.

    Raises:
        TransientError: `web.listen` cannot be listened on.
    """
    with DaemonWatch(address_of(settings.mqtt, settings.secrets), Topics(root=settings.mqtt.root)) as watch:

        async def told() -> Told:
            return watch.told()

        serving = asyncio.create_task(run_page(settings, told), name="web.page")
        stopping = asyncio.create_task(stop.asked.wait(), name="app.stop")
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (serving, stopping):
            task.cancel()
        await asyncio.wait((serving, stopping))
        if not serving.cancelled() and (error := serving.exception()) is not None:
            raise error


def own_word(
    document: Callable[[], Awaitable[Mapping[str, Any]]], *, node: str, version: str, since: str
) -> Callable[[], Awaitable[Told]]:
    """What a daemon tells to the page inside of it, asked anew every few seconds."""
    status = {"state": "online", "node": node, "version": version, "since": since}
    told: Told | None = None
    asked_s = 0.0

    async def tell() -> Told:
        nonlocal told, asked_s
        now_s = asyncio.get_running_loop().time()
        if told is None or now_s - asked_s >= HEALTH_EVERY_S:
            with contextlib.suppress(TransientError):  # the store is busy: the next look asks again
                told, asked_s = Told(state="online", status=status, health=await document()), now_s
        return told or Told(state="online", status=status)

    return tell
