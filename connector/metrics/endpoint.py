"""`GET /metrics`, and the follower that counts changes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import structlog
from aiohttp import web

from connector.errors import QueryTooSlow, TransientError
from connector.listener import serve
from connector.metrics.metrics import Metrics
from connector.ports import Onlooker
from connector.serve.health import Observations

log = structlog.get_logger()

Seen = tuple[Observations, Literal["ok", "degraded", "failing"]]

FOLLOW_EVERY_S = 5.0
# Changes counted in one look; where there are more, the next look comes at once.
MOST_COUNTED = 20_000
# Scrapes closer together than this see the same: however many ask, the database is asked once.
FRESH_S = 1.0
_READ_TIMEOUT_S = 5.0


class ChangeFollower:
    """Counts what the change log gets: each change once, from the version of the first look on."""

    def __init__(self, metrics: Metrics, replica: Onlooker) -> None:
        self._metrics = metrics
        self._replica = replica
        self._since: int | None = None
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            if await self.look() < MOST_COUNTED:
                await asyncio.sleep(FOLLOW_EVERY_S)

    async def look(self) -> int:
        """Count what came since the last look; how many there were.

        Raises:
            StoreBusy: The replica cannot be read now.
        """
        async with self._looking:
            return await self._look(self._since)

    async def _look(self, since: int | None) -> int:
        try:
            if since is None:
                self._since = await self._replica.read(lambda r: r.version(), timeout_s=_READ_TIMEOUT_S)
                return 0
            upto, counts = await self._replica.read(
                lambda r: r.change_counts(since, MOST_COUNTED), timeout_s=_READ_TIMEOUT_S
            )
        except QueryTooSlow as error:
            raise TransientError(str(error)) from error
        self._since = upto
        self._metrics.count_changes(counts)
        return sum(one.count for one in counts)


class MetricsEndpoint:
    """Serves the metrics."""

    def __init__(
        self,
        metrics: Metrics,
        follower: ChangeFollower,
        observe: Callable[[], Awaitable[Seen]],
        address: tuple[str, int],
    ) -> None:
        """`observe` may raise TransientError."""
        self._metrics = metrics
        self._follower = follower
        self._observe = observe
        self._address = address
        self._seen: tuple[float, Seen] | None = None
        self._observing = asyncio.Lock()

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            TransientError: The address cannot be listened on now.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._scrape)
        host, port = self._address
        await serve(
            app,
            self._address,
            setting="metrics.listen",
            listening=lambda: log.info("metrics.listening", host=host, port=port),
        )

    async def _scrape(self, request: web.Request) -> web.Response:
        try:
            seen, state = await self._fresh()
        except TransientError as error:
            return web.Response(status=503, text=f"{error}\n")
        body, content_type = self._metrics.exposition(seen, state, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type, "X-Content-Type-Options": "nosniff"})

    async def _fresh(self) -> Seen:
        loop = asyncio.get_running_loop()
        async with self._observing:
            if self._seen is None or loop.time() - self._seen[0] > FRESH_S:
                await self._follower.look()
                self._seen = (loop.time(), await self._observe())
            return self._seen[1]
