"""The page put together, and served."""

import asyncio
from collections.abc import Callable

import structlog
from aiohttp import web

from connector.listener import serve
from connector.overview.board import Board
from connector.ports import Onlooker
from connector.web.feed import Feed
from connector.web.guard import add_headers, guarded
from connector.web.records import RecordPages
from connector.web.static_files import add_static

log = structlog.get_logger()


class Page:
    """Serves the page on one loopback address."""

    def __init__(
        self, board: Board, replica: Onlooker, address: tuple[str, int], *, timeout_s: float, now_ms: Callable[[], int]
    ) -> None:
        """`timeout_s` is that of one query."""
        self._feed = Feed(board.look)
        self._records = RecordPages(replica, timeout_s=timeout_s, now_ms=now_ms)
        self._address = address

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            TransientError: The address cannot be listened on now.
        """
        app = web.Application(middlewares=[guarded])
        app.on_response_prepare.append(add_headers)
        app.router.add_get("/api/feed", self._feed.handle, allow_head=False)  # a HEAD would never end
        self._records.add_routes(app)
        add_static(app)
        host, port = self._address
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        feeding = asyncio.create_task(self._feed.run(), name="web.feed")
        try:
            await serve(
                app,
                self._address,
                setting="web.listen",
                listening=lambda: log.info("web.listening", url=url),
            )
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])
