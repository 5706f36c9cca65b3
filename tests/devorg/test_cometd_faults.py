"""Faults on order at named points of the stream. Spoken by hand."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from connector.devorg.server import DevOrg
from tests.devorg.streaming import ALL, RawClient, create_contact, held, names

UNKNOWN = "403::Unknown client"
TOO_BUSY = "503::Server is too busy.  Please try your request again later."


@pytest.fixture
async def client(org: DevOrg) -> AsyncIterator[RawClient]:
    org.ctx.settings.connect_hold_s = 0.3
    async with RawClient(org) as made:
        yield made


async def test_unknown_client(org: DevOrg, client: RawClient) -> None:
    """The session is gone; a new handshake works, and the events are still there to be replayed."""
    await client.start()
    position = org.ctx.bus.latest_id()
    create_contact(org.ctx.org, "A")
    place = org.ctx.bus.latest_id()
    assert names(await client.connect()) == ["A"]
    org.ctx.faults.add("cometd:connect", unknown_client=True)
    create_contact(org.ctx.org, "B")
    (answer,) = await client.connect()
    assert (answer["error"], answer["advice"]) == (UNKNOWN, {"reconnect": "handshake", "interval": 0})
    assert (await client.connect())[0]["error"] == UNKNOWN
    assert position < place
    await client.start(replay=place)
    assert names(await client.connect()) == ["B"]


async def test_a_fault_strikes_a_poll_that_is_held(org: DevOrg, client: RawClient) -> None:
    """It need not wait for the next connect."""
    org.ctx.settings.connect_hold_s = 30
    await client.start()
    poll = asyncio.create_task(client.connect())
    await held(org)
    org.ctx.faults.add("cometd:connect", unknown_client=True, reconnect="none", disconnect=True)
    assert await poll == [
        {"channel": "/meta/disconnect"},
        {
            "channel": "/meta/connect",
            "id": "4",
            "clientId": client.client_id,
            "successful": False,
            "error": UNKNOWN,
            "advice": {"reconnect": "none", "interval": 0},
        },
    ]


async def test_unsolicited_disconnect(org: DevOrg, client: RawClient) -> None:
    """As servers since API 64 do: start over, whatever the advice says."""
    await client.start()
    org.ctx.faults.add("cometd:connect", disconnect=True, error="401::Authentication invalid")
    farewell, refused = await client.connect()
    assert farewell == {"channel": "/meta/disconnect"}
    assert (refused["error"], refused["advice"]["reconnect"]) == ("401::Authentication invalid", "none")
    assert (await client.connect())[0]["error"] == UNKNOWN


async def test_too_busy_hides_in_the_failure_reason(org: DevOrg, client: RawClient) -> None:
    """The documented trap: the error speaks of authentication; the session lives on."""
    await client.start()
    org.ctx.faults.add("cometd:connect", failure_reason=TOO_BUSY)
    assert await client.connect() == [
        {
            "channel": "/meta/connect",
            "id": "4",
            "clientId": client.client_id,
            "successful": False,
            "error": "401::Authentication invalid",
            "advice": {"reconnect": "none", "interval": 0},
            "ext": {"sfdc": {"failureReason": TOO_BUSY}},
        }
    ]
    assert (await client.connect())[0]["successful"]
    org.ctx.faults.add("cometd:handshake", failure_reason=TOO_BUSY)
    denied = await client.handshake()
    assert (denied["error"], denied["ext"]["sfdc"]["failureReason"]) == ("403::Handshake denied", TOO_BUSY)


async def test_refused_subscriptions(org: DevOrg, client: RawClient) -> None:
    """Any documented error can be ordered, and an invalid replay id only the second time."""
    await client.handshake()
    await client.connect()
    error = "403::User not allowed to subscribe CDC without View All Data permissions"
    org.ctx.faults.add("cometd:subscribe", error=error, path="Contact")
    assert (await client.subscribe())["successful"]
    refused = await client.subscribe("/data/ContactChangeEvent")
    assert (refused["error"], "advice" in refused) == (error, False)
    org.ctx.faults.add("cometd:subscribe", invalid_replay_id=True, skip=1)
    create_contact(org.ctx.org, "A")
    place = org.ctx.bus.latest_id()
    assert (await client.subscribe(replay=place))["successful"]
    again = await client.subscribe(replay=place)
    assert again["error"].startswith(f"400::The replayId {{{place}}} you provided was invalid.  Please")


async def test_duplicate_delivery(org: DevOrg, client: RawClient) -> None:
    """At least once may be twice."""
    await client.start()
    org.ctx.faults.add("cometd:deliver", duplicate=True)
    create_contact(org.ctx.org, "A")
    assert names(await client.connect()) == ["A", "A"]
    assert names(await client.connect()) == []


async def test_events_lost_on_the_way_can_be_replayed(org: DevOrg, client: RawClient) -> None:
    """The server believes them delivered: only a subscription from the stored id brings them back."""
    await client.start()
    create_contact(org.ctx.org, "A")
    await client.connect()
    place = org.ctx.bus.latest_id()
    org.ctx.faults.add("cometd:deliver", drop_response=True)
    create_contact(org.ctx.org, "B")
    with pytest.raises(aiohttp.ClientError):
        await client.connect()
    assert names(await client.connect()) == []
    await client.subscribe(replay=place)
    assert names(await client.connect()) == ["B"]


async def test_gateway_page_and_closed_connection(org: DevOrg, client: RawClient) -> None:
    """What answers need not be Bayeux, and there need not be an answer."""
    await client.start()
    org.ctx.faults.add("cometd:connect", status=503, html=True, message="Service Unavailable")
    message = client.message("/meta/connect", connectionType="long-polling")
    async with client.http.post(client.url, json=[message], headers=client.headers) as answer:
        assert (answer.status, answer.content_type) == (503, "text/html")
    for fault in ({"kind": "cometd:connect", "close": True}, {"kind": "cometd", "close": True}):
        org.ctx.faults.add(**fault)  # type: ignore[arg-type]  # kind is a text, the rest flags
        with pytest.raises(aiohttp.ClientError):
            await client.connect()
    assert (await client.connect())[0]["successful"]


async def test_half_open_and_delay(org: DevOrg, client: RawClient) -> None:
    """A connection on which nothing comes, and an answer that comes late."""
    await client.start()
    org.ctx.faults.add("cometd:connect", half_open=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await client.connect()
    org.ctx.faults.add("cometd:subscribe", delay_s=0.3)
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert (await client.subscribe(ALL))["successful"]
    assert loop.time() - started >= 0.3


async def test_subscription_whose_answer_is_lost_stands(org: DevOrg, client: RawClient) -> None:
    """The server did what it was asked for; only the client does not know."""
    await client.handshake()
    await client.connect()
    org.ctx.faults.add("cometd:subscribe", drop_response=True)
    with pytest.raises(aiohttp.ClientError):
        await client.subscribe()
    create_contact(org.ctx.org, "A")
    assert names(await client.connect()) == ["A"]
