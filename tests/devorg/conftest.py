from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from connector.devorg.server import DevOrg

Admin = Callable[..., Awaitable[Any]]
"""Calls the admin interface: `await admin(method, path, order)` gives the JSON of a good answer."""


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    """A started local org of the test's own."""
    async with DevOrg() as started:
        yield started


@pytest.fixture
async def web(org: DevOrg) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client without a login."""
    async with aiohttp.ClientSession(org.url) as session:
        yield session


@pytest.fixture
async def api(org: DevOrg) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client of the REST API, logged in."""
    headers = {"Authorization": f"Bearer {org.ctx.tokens.default_access_token}"}
    async with aiohttp.ClientSession(org.url, headers=headers) as session:
        yield session


@pytest.fixture
def admin(web: aiohttp.ClientSession) -> Admin:
    async def call(method: str, path: str, order: Any = None) -> Any:
        body = None if method == "GET" else (order or {})
        async with web.request(method, f"/devorg{path}", json=body) as answer:
            assert answer.ok, await answer.text()
            return await answer.json() if answer.status != 204 else None

    return call
