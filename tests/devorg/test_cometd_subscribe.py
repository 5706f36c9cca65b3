"""Subscribing, replaying, limits and refusals of the local org's stream. Spoken by hand."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from tests.devorg.streaming import ALL, ORIGIN, RawClient, create_contact, held, names

CONTACTS = "/data/ContactChangeEvent"


@pytest.fixture
async def client(org: DevOrg) -> AsyncIterator[RawClient]:
    org.ctx.settings.connect_hold_s = 0.3
    async with RawClient(org) as made:
        await made.handshake()
        await made.connect()
        yield made


def invalid(replay_id: object) -> str:
    return (
        f"400::The replayId {{{replay_id}}} you provided was invalid.  Please provide a valid ID, -2 to replay all"
        " events, or -1 to replay only new events."
    )


async def test_subscription_and_envelope(org: DevOrg, client: RawClient) -> None:
    """The documented reply, and the documented members of an event."""
    assert await client.subscribe() == {
        "channel": "/meta/subscribe",
        "id": "3",
        "clientId": client.client_id,
        "successful": True,
        "subscription": ALL,
    }
    contact = create_contact(org.ctx.org, "Berg", FirstName="Ola", MailingCity="Bergen")
    event, _reply = await client.connect()
    assert list(event) == ["channel", "data"]
    assert list(event["data"]) == ["schema", "payload", "event"]
    assert event["data"]["event"] == {"replayId": org.ctx.bus.latest_id()}
    assert event["data"]["schema"] == org.ctx.schema.event_schema_id("Contact")
    payload = event["data"]["payload"]
    assert payload["ChangeEventHeader"]["recordIds"] == [contact]
    assert payload["ChangeEventHeader"]["changeOrigin"] == ORIGIN
    assert payload["Name"] == {"FirstName": "Ola", "LastName": "Berg"}
    assert payload["MailingAddress"] == {"City": "Bergen"}


async def test_event_names_on_order(org: DevOrg, client: RawClient) -> None:
    """The switch for members that are documented for platform events only."""
    org.ctx.event_options.event_uuid = True
    await client.subscribe()
    create_contact(org.ctx.org, "Berg")
    place = (await client.connect())[0]["data"]["event"]
    assert place.keys() == {"replayId", "EventUuid", "EventApiName"}
    assert place["EventApiName"] == "ContactChangeEvent"


async def test_positions(org: DevOrg, client: RawClient) -> None:
    """-1 and nothing give new events, -2 all there are, an id those behind it."""
    for name in ("A", "B", "C"):
        create_contact(org.ctx.org, name)
    await client.subscribe(replay=-2)
    events = await client.connect()
    ids = [event["data"]["event"]["replayId"] for event in events[:-1]]
    assert names(events) == ["A", "B", "C"]
    await client.subscribe(replay=ids[0])
    assert names(await client.connect()) == ["B", "C"]
    for replay in (-1, None, ids[2]):
        await client.subscribe(replay=replay)
        assert names(await client.connect()) == []
    create_contact(org.ctx.org, "D")
    assert names(await client.connect()) == ["D"]


@pytest.mark.parametrize("replay_id", [5, -3, 99_999_999_999, "37904283", 1.5, True, 2**62])
async def test_invalid_replay_id(client: RawClient, replay_id: object) -> None:
    """The exact text; the channel is not subscribed to."""
    answer = await client.subscribe(replay=replay_id)
    assert (answer["successful"], answer["error"], answer["subscription"]) == (False, invalid(replay_id), ALL)
    assert "advice" not in answer


async def test_expired_replay_id(org: DevOrg, client: RawClient) -> None:
    """72 hours by the org's clock, a purge on order and a stream reset all make an id invalid."""
    create_contact(org.ctx.org, "A")
    old = org.ctx.bus.latest_id()
    assert (await client.subscribe(replay=old))["successful"]
    org.ctx.bus.expire_all()
    assert (await client.subscribe(replay=old))["error"] == invalid(old)
    create_contact(org.ctx.org, "B")
    young = org.ctx.bus.latest_id()
    org.ctx.clock.advance(72 * 3600 + 60)
    (answer,) = await client.connect()
    assert not answer["successful"]
    org.ctx.tokens.keep(org.ctx.tokens.default_access_token)
    await client.handshake()
    assert (await client.subscribe(replay=young))["error"] == invalid(young)


async def test_a_reset_stream_knows_no_client(org: DevOrg, client: RawClient) -> None:
    """Positions of another stream mean nothing: everybody starts over, held connects at once."""
    org.ctx.settings.connect_hold_s = 30
    for during in (True, False):
        await client.start()
        poll = asyncio.create_task(client.connect()) if during else None
        if poll is not None:
            await held(org)
        org.ctx.bus.reset()
        (answer,) = await (poll or client.connect())
        assert (answer["error"], answer["advice"]["reconnect"]) == ("403::Unknown client", "handshake")


@pytest.mark.parametrize("replay", [{}, {CONTACTS: -1}, {"/data/changeevents": -1}, {ALL: None}, [], 7])
async def test_replay_map_without_the_channel(client: RawClient, replay: Any) -> None:
    """A replay extension has to name the channel, spelled as in the subscription."""
    answer = await client.one("/meta/subscribe", subscription=ALL, ext={"replay": replay})
    assert answer["error"].startswith(f"400::The replayId for channel {{{ALL}}} wasn't found using the provided replay")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (
            "/data/contactChangeEvent",
            "400::The channel you requested to subscribe to doesn't exist {/data/contactChangeEvent}",
        ),
        ("/data/*", "400::The channel you requested to subscribe to doesn't exist {/data/*}"),
        ("/topic/Contacts", "400::The channel you requested to subscribe to doesn't exist {/topic/Contacts}"),
        ("data/ChangeEvents", "400::Channel name must start with a leading '/'"),
        ("", "400::Channel name not specified"),
        (None, "400::Channel name not specified"),
        ([ALL], "400::Channel name not specified"),
    ],
)
async def test_channels_that_are_not_there(client: RawClient, name: Any, error: str) -> None:
    """Names are case-sensitive, wildcards are names like any other."""
    assert (await client.one("/meta/subscribe", subscription=name))["error"] == error


async def test_subscribing_needs_a_handshake(org: DevOrg) -> None:
    """Without a clientId the order was wrong; with an unknown one the server has forgotten."""
    async with RawClient(org) as client:
        assert (await client.subscribe())["error"] == "403::Client has not completed handshake"
        client.client_id = "x" * 26
        assert (await client.subscribe())["error"] == "403::Unknown client"


async def test_single_object_and_custom_channels(org: DevOrg, client: RawClient) -> None:
    """Each channel gets its part, under its own name; one session carries several."""
    org.ctx.schema.select("Contact", "Account", "Invoice__c")
    org.ctx.bus.define_channel("Books__chn", ["Account"])
    for channel in (CONTACTS, "/data/Invoice__ChangeEvent", "/data/Books__chn"):
        assert (await client.subscribe(channel, -1))["successful"]
    with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as transaction:
        transaction.create("Account", {"Name": "Quay"})
        transaction.create("Contact", {"LastName": "Berg"})
        transaction.create("Invoice__c", {"Amount__c": 5})
    events = (await client.connect())[:-1]
    assert [event["channel"] for event in events] == ["/data/Books__chn", CONTACTS, "/data/Invoice__ChangeEvent"]
    headers = [event["data"]["payload"]["ChangeEventHeader"] for event in events]
    assert [header["sequenceNumber"] for header in headers] == [1, 2, 3]
    assert len({header["transactionKey"] for header in headers}) == 1


async def test_bulk_subscription_is_answered_one_by_one(client: RawClient) -> None:
    """Several subscriptions in one array; a refused one does not stop the others."""
    channels = [CONTACTS, "/data/NothingChangeEvent", "/data/LeadChangeEvent"]
    answers = await client.post(*(client.message("/meta/subscribe", subscription=name) for name in channels))
    assert [(answer["subscription"], answer["successful"]) for answer in answers] == list(
        zip(channels, (True, False, True), strict=True)
    )


async def test_unsubscribe(org: DevOrg, client: RawClient) -> None:
    """Nothing comes any more."""
    await client.subscribe()
    answer = await client.one("/meta/unsubscribe", subscription=ALL)
    assert (answer["successful"], answer["subscription"]) == (True, ALL)
    create_contact(org.ctx.org, "Berg")
    assert names(await client.connect()) == []
    assert (await client.one("/meta/unsubscribe"))["error"] == "400::Channel name not specified"


async def test_delivered_events_are_counted_per_subscriber(org: DevOrg, client: RawClient) -> None:
    """Two subscribers use up the day twice as fast; then connects and subscriptions are refused."""
    org.ctx.settings.delivered_event_limit = 3
    error = "403::Organization total events daily limit exceeded"
    async with RawClient(org) as second:
        await second.start()
        await client.subscribe()
        for name in ("A", "B"):
            create_contact(org.ctx.org, name)
        assert names(await client.connect()) == ["A", "B"]
        assert names(await second.connect()) == ["A"]
        assert org.ctx.usage.delivered.used() == 3
        (refused,) = await second.connect()
        assert (refused["error"], refused["advice"]["reconnect"]) == (error, "none")
        assert refused["ext"]["sfdc"]["failureReason"] == error
        assert (await second.subscribe(CONTACTS))["error"] == error
        assert (await client.connect())[-1]["successful"]
        org.ctx.clock.advance(24 * 3600 + 60)
        org.ctx.tokens.keep(org.ctx.tokens.default_access_token)
        await second.start(replay=-2)
        assert names(await second.connect()) == ["A", "B"]


async def test_delayed_and_stalled_delivery(org: DevOrg, client: RawClient) -> None:
    """A stalled stream is healthy and silent; a delayed one tells late, and nothing is lost."""
    await client.subscribe()
    org.ctx.settings.stream_stalled = True
    create_contact(org.ctx.org, "A")
    (silent,) = await client.connect()
    assert silent["successful"]
    org.ctx.settings.stream_stalled = False
    assert names(await client.connect()) == ["A"]
    org.ctx.settings.stream_delay_s, org.ctx.settings.connect_hold_s = 0.5, 20
    create_contact(org.ctx.org, "B")
    logged_ms = org.ctx.clock.now_ms()
    assert names(await client.connect()) == ["B"]
    assert org.ctx.clock.now_ms() - logged_ms >= 450


async def test_events_on_order_reach_their_channel(org: DevOrg, client: RawClient) -> None:
    """Gap, overflow and undecodable events come as they were ordered."""
    await client.subscribe(CONTACTS)
    org.ctx.bus.emit_without_body("Contact", "GAP_DELETE", ["0035f00002KmQ7aAAF"])
    org.ctx.bus.emit("nonsense", entity="Contact")
    org.ctx.bus.emit_without_body("Lead", "GAP_OVERFLOW")
    gap, nonsense, _reply = await client.connect()
    assert gap["data"]["payload"]["ChangeEventHeader"]["changeType"] == "GAP_DELETE"
    assert nonsense["data"]["payload"] == "nonsense"


async def test_a_restarted_org_replays(tmp_path: Path) -> None:
    """Sessions are lost with the process, events are not."""
    async with DevOrg(tmp_path) as first, RawClient(first) as client:
        await client.start()
        create_contact(first.ctx.org, "A")
        (event, _reply) = await client.connect()
        create_contact(first.ctx.org, "B")
    seen = event["data"]["event"]["replayId"]
    async with DevOrg(tmp_path) as second, RawClient(second) as client:
        await client.start(replay=seen)
        assert names(await client.connect()) == ["B"]
