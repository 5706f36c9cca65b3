"""The overview as server-sent events: one look a second for all who watch, none while nobody does.

Each event is the whole document, so that whoever comes, comes back or is slow needs nothing of what was before: a slow
client leaves looks out instead of keeping them waiting here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import orjson
import structlog
from aiohttp import web

log = structlog.get_logger()

MAX_CLIENTS = 16
LOOK_EVERY_S = 1.0
# What stands still is told again after so many looks: it moves the chart and shows that we are there.
TELL_EVERY = 5
RETRY_MS = 2000
_WRITE_TIMEOUT_S = 10.0
# Members that change though nothing happens.
_TICKING = ("as_of", "trend")


class Feed:
    """Those who watch, and what they are told."""

    def __init__(self, look: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        self._look = look
        self._clients = 0
        self._watched = asyncio.Event()
        self._news = asyncio.Condition()
        self._latest = b""
        self._number = 0
        self._newcomer = False

    async def run(self) -> None:
        """Look until cancelled."""
        essence, unchanged = b"", 0
        while True:
            await self._watched.wait()
            try:
                board = await self._look()
            except Exception:
                # A fault of the page must not end the daemon that it is part of.
                log.exception("web.look_failed")
            else:
                now = orjson.dumps({name: value for name, value in board.items() if name not in _TICKING})
                unchanged = unchanged + 1 if now == essence else 0
                if unchanged % TELL_EVERY == 0 or self._newcomer:
                    await self._tell(board)
                essence = now
            await asyncio.sleep(LOOK_EVERY_S)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/feed`."""
        if self._clients >= MAX_CLIENTS:
            return web.Response(status=503, text=f"{MAX_CLIENTS} pages are open already\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        # What was seen last is told at once while others watch; else it is as old as their visit.
        seen = self._number - 1 if self._clients else self._number
        self._newcomer = True
        self._clients += 1
        self._watched.set()
        try:
            await response.prepare(request)
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            with contextlib.suppress(TimeoutError, ConnectionError):
                await self._follow(response, seen)
        finally:
            self._clients -= 1
            if not self._clients:
                self._watched.clear()
        return response

    async def _follow(self, response: web.StreamResponse, seen: int) -> None:
        while True:
            async with self._news:
                await self._news.wait_for(partial(self._is_newer, seen))
                seen, event = self._number, self._latest
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await response.write(event)

    def _is_newer(self, seen: int) -> bool:
        return self._number > seen

    async def _tell(self, board: Mapping[str, Any]) -> None:
        async with self._news:
            self._number += 1
            self._newcomer = False
            self._latest = b"event: board\ndata: " + orjson.dumps(board) + b"\n\n"
            self._news.notify_all()
