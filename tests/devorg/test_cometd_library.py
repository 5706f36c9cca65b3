"""The local org's stream as aiosfstream-ng sees it, and how fast it is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiocometd_ng.constants import ConnectionType
from aiosfstream_ng.client import Client
from aiosfstream_ng.exceptions import ServerError
from aiosfstream_ng.replay import ReplayMarker, ReplayOption

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from tests.devorg.streaming import (
    ALL,
    ORIGIN,
    RawClient,
    TokenAuthenticator,
    create_contact,
    held,
    library_client,
    until,
)

CONTACTS = "/data/ContactChangeEvent"


@asynccontextmanager
async def opened(org: DevOrg, **options: Any) -> AsyncIterator[Client]:
    """An open client; closing it makes the library's done-callback fail, which is no failure of the org."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: logging.getLogger(__name__).debug(context["message"]))
    client = library_client(org, **options)
    await client.open()
    try:
        yield client
    finally:
        await client.close()


async def received(client: Client) -> str:
    """Last name in the next event."""
    async with asyncio.timeout(10):
        message = await client.receive()
    return str(message["data"]["payload"]["Name"]["LastName"])


async def test_subscribe_and_receive(org: DevOrg) -> None:
    """The client as it comes: handshake, long polling, cookies, subscription, events in order."""
    async with opened(org) as client:
        assert client.connection_type is ConnectionType.LONG_POLLING
        await client.subscribe(ALL)
        for name in ("A", "B", "C"):
            create_contact(org.ctx.org, name)
        assert [await received(client) for _ in range(3)] == ["A", "B", "C"]


async def test_replay_options(org: DevOrg) -> None:
    """All events, and those behind a stored marker."""
    create_contact(org.ctx.org, "A")
    markers: dict[str, ReplayMarker] = {}
    async with opened(org, replay=ReplayOption.ALL_EVENTS) as client:
        await client.subscribe(CONTACTS)
        assert await received(client) == "A"
    async with opened(org, replay=markers) as client:
        await client.subscribe(CONTACTS)
        create_contact(org.ctx.org, "B")
        assert await received(client) == "B"
    assert markers[CONTACTS].replay_id == org.ctx.bus.latest_id()
    create_contact(org.ctx.org, "C")
    async with opened(org, replay=markers) as client:
        await client.subscribe(CONTACTS)
        assert await received(client) == "C"


async def test_expired_marker_is_refused_and_the_fallback_works(org: DevOrg) -> None:
    """The library sees the documented 400, with and without its fallback."""
    create_contact(org.ctx.org, "A")
    markers = {ALL: ReplayMarker(date="", replay_id=org.ctx.bus.latest_id())}
    org.ctx.bus.expire_all()
    async with opened(org, replay=dict(markers)) as client:
        with pytest.raises(ServerError) as refused:
            await client.subscribe(ALL)
        assert refused.value.error_code == 400
    async with opened(org, replay=dict(markers), replay_fallback=ReplayOption.NEW_EVENTS) as client:
        await client.subscribe(ALL)
        create_contact(org.ctx.org, "B")
        assert await received(client) == "B"


async def test_channel_that_is_not_there(org: DevOrg) -> None:
    """A refused subscription raises in the client."""
    async with opened(org) as client:
        with pytest.raises(ServerError, match="Subscribe request failed"):
            await client.subscribe("/data/NothingChangeEvent")
        assert client.subscriptions == set()


async def test_a_session_forgotten_by_the_server(org: DevOrg) -> None:
    """As far as the library goes: it takes the refusal for a lost login and asks for a token.

    Whether it then shakes hands depends on the advice left from before; a client of its own that opens anew from the
    last replay id gets what was missed, which is what the connector does.
    """
    markers: dict[str, ReplayMarker] = {}
    async with opened(org, replay=markers) as client:
        await client.subscribe(ALL)
        create_contact(org.ctx.org, "A")
        assert await received(client) == "A"
        login = client.auth
        assert isinstance(login, TokenAuthenticator)
        assert login.calls == 1
        org.ctx.faults.add("cometd:connect", unknown_client=True)
        await until(lambda: login.calls > 1)
    create_contact(org.ctx.org, "B")
    async with opened(org, replay=markers) as client:
        await client.subscribe(ALL)
        assert await received(client) == "B"


async def test_connection_dropped_in_the_middle_of_a_poll(org: DevOrg) -> None:
    """A new client from the stored marker misses nothing."""
    markers: dict[str, ReplayMarker] = {}
    async with opened(org, replay=markers) as client:
        await client.subscribe(ALL)
        create_contact(org.ctx.org, "A")
        assert await received(client) == "A"
        org.drop_connections("/cometd/")
        create_contact(org.ctx.org, "B")
    async with opened(org, replay=markers) as client:
        await client.subscribe(ALL)
        assert await received(client) == "B"


async def test_a_burst_arrives_whole_and_in_order(org: DevOrg) -> None:
    """More events than fit into one response or the library's queue."""
    org.ctx.settings.max_events_per_response = 50
    async with opened(org) as client:
        await client.subscribe(ALL)
        with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as transaction:
            for number in range(200):
                transaction.create("Contact", {"LastName": f"Berg {number:03}"})
        assert [await received(client) for _ in range(200)] == [f"Berg {number:03}" for number in range(200)]


async def test_an_event_is_there_within_milliseconds(org: DevOrg) -> None:
    """A commit wakes the poll: nothing on the way waits for a timer."""
    loop = asyncio.get_running_loop()
    delays = []
    async with RawClient(org) as client:
        await client.start()
        for number in range(40):
            poll = asyncio.create_task(client.connect())
            await held(org)
            started = loop.time()
            create_contact(org.ctx.org, f"Berg {number}")
            assert len(await poll) == 2
            delays.append(loop.time() - started)
    # Far from a claim: a busy machine may be slow, but any timer on the way would show in every one of them.
    assert sorted(delays)[len(delays) // 2] < 0.1, delays
