"""The change stream over the Pub/Sub API against the local org: positions, flow control, every kind of end."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from connector.devorg.pubsub.subscription import Subscription
from connector.devorg.server import DevOrg
from connector.errors import (
    ConnectorError,
    LinkDown,
    LoginRefused,
    OrgThrottled,
    OrgUnavailable,
    ReplayWindowLost,
    StreamRefused,
)
from connector.model.change import OLDEST_KEPT, Reached, ReceivedEvent, ReplayId, Subscribed
from connector.salesforce.login import Session
from connector.salesforce.pubsub import PubSubSource
from connector.salesforce.pubsub_client import PubSubLimits
from connector.salesforce.streaming import EventsSpent
from tests.copies import copied
from tests.faults.soak.link import PlainWire
from tests.orgs import now_ms, org_session
from tests.waiting import until

CHANNEL = "/data/ChangeEvents"
QUICK = PubSubLimits(hold_s=2, margin_s=0.5, request_s=2, settle_s=0.5, reached_every_s=0.0, healthy_s=0.0)
Events = AsyncGenerator[Subscribed | Reached | Sequence[ReceivedEvent], None]


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg(pubsub_port=0) as started:
        yield started


@pytest.fixture
async def session(org: DevOrg) -> AsyncIterator[Session]:
    async with org_session(org) as opened:
        yield opened


def _source(org: DevOrg, session: Session, limits: PubSubLimits = QUICK, channel: str = CHANNEL) -> PubSubSource:
    return PubSubSource(session, url=org.ctx.pubsub_url, channel=channel, now_ms=now_ms, limits=limits)


@asynccontextmanager
async def _events(source: PubSubSource, after: ReplayId | None = None) -> AsyncIterator[Events]:
    """A subscribed stream."""
    async with aclosing(cast("Events", source.events(after))) as events:
        assert await anext(events) == Subscribed(after)
        yield events


async def _batch(events: Events) -> Sequence[ReceivedEvent]:
    async with asyncio.timeout(10):
        while isinstance(batch := await anext(events), Reached):
            pass
    assert not isinstance(batch, Subscribed)
    return batch


async def _names(events: Events, count: int) -> tuple[list[str], ReplayId]:
    """Last names of the next events, and the position behind the last one."""
    names: list[str] = []
    while len(names) < count:
        batch = await _batch(events)
        names += [event.payload["Name"]["LastName"] for event in batch]
    return names, batch[-1].replay_id


async def _until_the_end(events: Events) -> tuple[ConnectorError, list[ReceivedEvent]]:
    """Take events until the stream ends: its error, and what came before."""
    found: list[ReceivedEvent] = []
    try:
        async with asyncio.timeout(10):
            async for batch in events:
                if not isinstance(batch, Subscribed | Reached):
                    found += batch
    except ConnectorError as error:
        return error, found
    raise AssertionError("a stream does not end without an error")


def _make(org: DevOrg, *names: str) -> list[str]:
    """A transaction per name."""
    ids = []
    for name in names:
        with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
            ids.append(work.create("Contact", {"LastName": name}))
    return ids


# Positions


async def test_a_stored_position_resumes_just_behind_itself(org: DevOrg, session: Session) -> None:
    """Nothing lost, nothing twice, whatever came meanwhile; the position used is logged."""
    source = _source(org, session)
    async with _events(source) as events:
        _make(org, "A", "B")
        batch = [*await _batch(events)]
        while len(batch) < 2:
            batch += await _batch(events)
    _make(org, "C")
    with capture_logs() as logs:
        async with _events(source, batch[0].replay_id) as events:
            _make(org, "D")
            assert (await _names(events, 3))[0] == ["B", "C", "D"]
    [subscribed] = [entry for entry in logs if entry["event"] == "source.subscribed"]
    assert subscribed["position"] == batch[0].replay_id.hex()


async def test_new_events_only_and_all_that_is_kept(org: DevOrg, session: Session) -> None:
    """Without a position, and with the word for the oldest."""
    _make(org, "A")
    async with _events(_source(org, session)) as events:
        _make(org, "B")
        assert (await _names(events, 1))[0] == ["B"]
    async with _events(_source(org, session), OLDEST_KEPT) as events:
        assert (await _names(events, 2))[0] == ["A", "B"]


async def test_a_position_without_an_event_is_told(org: DevOrg, session: Session) -> None:
    """An idle channel moves on over what it does not carry; resumed from there nothing is missed."""
    org.ctx.settings.pubsub_keepalive_s = 0.1
    source = _source(org, session, channel="/data/LeadChangeEvent")
    async with _events(source) as events:
        _make(org, "A")
        position = ReplayId(b"")
        async with asyncio.timeout(5):
            while int.from_bytes(position) < org.ctx.bus.latest_id():
                reached = await anext(events)
                assert isinstance(reached, Reached)
                position = reached.position
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        work.create("Lead", {"LastName": "B", "Company": "B"})
    async with _events(source, position) as events:
        assert (await _names(events, 1))[0] == ["B"]


async def test_positions_without_events_are_told_at_their_pace(org: DevOrg, session: Session) -> None:
    """Each is written to disk."""
    org.ctx.settings.pubsub_keepalive_s = 0.0
    async with _events(_source(org, session, replace(QUICK, reached_every_s=60))) as events:
        assert isinstance(await anext(events), Reached)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await anext(events)


@pytest.mark.parametrize("broken", [b"", b"12345678", b"{", b"\xff" * 8, b"1" * 100])
async def test_a_position_that_is_none(org: DevOrg, session: Session, broken: bytes) -> None:
    """One of another transport too: the caller must know that there is a hole."""
    with pytest.raises(ReplayWindowLost):
        async with _events(_source(org, session), ReplayId(broken)):
            pass


async def test_a_position_outside_the_retention_window(org: DevOrg, session: Session) -> None:
    """The org's word for it."""
    async with _events(_source(org, session)) as events:
        _make(org, "A")
        _, position = await _names(events, 1)
    org.ctx.bus.expire_all()
    with pytest.raises(ReplayWindowLost):
        async with _events(_source(org, session), position):
            pass


# Flow control


async def test_no_more_is_asked_for_than_was_taken(
    org: DevOrg, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that applies nothing holds the org back, however much it takes."""
    pending: list[int] = []
    take = Subscription._take

    def watched(self: Subscription, request: Any) -> None:
        take(self, request)
        pending.append(self._credit.pending)

    monkeypatch.setattr(Subscription, "_take", watched)
    source = _source(org, session, replace(QUICK, window=10))
    async with _events(source) as events:
        _make(org, *(f"{n:02d}" for n in range(40)))
        names, _ = await _names(events, 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.3)
        assert org.ctx.usage.delivered.used() == 10
    assert names == [f"{n:02d}" for n in range(10)]
    assert pending == [10]


async def test_more_is_asked_for_as_it_is_applied(org: DevOrg, session: Session) -> None:
    """The last event that was asked for says that it is: what follows may be of its transaction."""
    source = _source(org, session, replace(QUICK, window=10))
    async with _events(source) as events:
        _make(org, *(f"{n:02d}" for n in range(40)))
        found: list[ReceivedEvent] = []
        while len(found) < 40:
            batch = await _batch(events)
            found += batch
            source.more(len(batch))
    assert [event.payload["Name"]["LastName"] for event in found] == [f"{n:02d}" for n in range(40)]
    assert next(number for number, event in enumerate(found) if event.held_back) == 9


# What cannot be read


async def test_an_event_that_cannot_be_read_says_why(org: DevOrg, session: Session) -> None:
    """Its header is saved where that can be read; the stream goes on."""
    [contact] = _make(org, "A")
    async with _events(_source(org, session)) as events:
        org.ctx.faults.add("pubsub:deliver", truncate=True)
        with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
            work.update("Contact", contact, {"Description": "x" * 900})
        [cut] = await _batch(events)
        assert cut.error is not None
        assert cut.error.startswith("not written by its schema")
        assert cut.payload["ChangeEventHeader"]["recordIds"] == [contact]
        org.ctx.bus.emit("nothing", entity="Contact")
        [nothing] = await _batch(events)
        assert (nothing.payload, nothing.error is None) == (None, False)
        _make(org, "B")
        assert (await _names(events, 1))[0] == ["B"]


async def test_a_schema_that_is_refused_concerns_its_events_alone(org: DevOrg, session: Session) -> None:
    """They are set aside; those of other objects come."""
    async with _events(_source(org, session)) as events:
        org.ctx.faults.add("pubsub:schema", code="schema.meta.permission", count=None)
        _make(org, "A")
        [refused] = await _batch(events)
        assert refused.payload is None
        assert "schema.meta.permission" in (refused.error or "")
        org.ctx.faults.clear()
        with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
            work.create("Lead", {"LastName": "B", "Company": "B"})
        assert (await _names(events, 1))[0] == ["B"]


async def test_a_schema_is_asked_for_once(org: DevOrg, session: Session) -> None:
    """Over sessions too; another set of fields is another schema."""
    source = _source(org, session)
    with capture_logs() as logs:
        for _ in range(2):
            async with _events(source) as events:
                _make(org, "A", "B")
                await _names(events, 2)
        org.ctx.schema.add_field("Contact", {"name": "Region__c", "type": "string", "length": 40})
        async with _events(source) as events:
            _make(org, "C")
            await _names(events, 1)
    assert len([entry for entry in logs if entry["event"] == "source.schema_read"]) == 2


# Ends of a session


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "pubsub:fetch", "code": "service.unavailable"}, OrgUnavailable),
        ({"kind": "pubsub:fetch", "code": "subscription.internal.error"}, LinkDown),
        ({"kind": "pubsub:fetch", "code": "service.auth.error"}, LinkDown),
        ({"kind": "pubsub:fetch", "code": "subscription.limit.exceeded"}, EventsSpent),
        ({"kind": "pubsub:fetch", "code": "service.protection.triggered"}, OrgThrottled),
        ({"kind": "pubsub:fetch", "code": "subscription.topic.cannot.subscribe"}, StreamRefused),
        ({"kind": "pubsub:fetch", "code": "something.new"}, StreamRefused),
        ({"kind": "pubsub:fetch", "close": True}, LinkDown),
        ({"kind": "pubsub:fetch", "half_open": True}, LinkDown),
        ({"kind": "pubsub:deliver", "drop_response": True}, LinkDown),
        ({"kind": "pubsub:deliver", "half_open": True}, LinkDown),
    ],
)
async def test_every_end_of_a_live_session_is_told_and_resumed_from(
    org: DevOrg, session: Session, fault: dict[str, Any], expected: type[ConnectorError]
) -> None:
    """One event is taken before, one is made after: the next session has exactly that one."""
    source = _source(org, session, replace(QUICK, hold_s=1, margin_s=0.3))
    async with _events(source) as events:
        _make(org, "A")
        _, position = await _names(events, 1)
        org.ctx.faults.add(**fault)
        _make(org, "B")
        error, found = await _until_the_end(events)
        assert type(error) is expected
    org.ctx.faults.clear()
    _make(org, "C")
    async with _events(source, found[-1].replay_id if found else position) as events:
        names, _ = await _names(events, 2 - len(found))
    assert [*(event.payload["Name"]["LastName"] for event in found), *names] == ["B", "C"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "pubsub", "code": "service.unavailable"}, OrgUnavailable),
        ({"kind": "pubsub", "half_open": True}, LinkDown),
        ({"kind": "pubsub:topic", "code": "topic.meta.permission"}, StreamRefused),
        ({"kind": "pubsub:topic", "code": "topic.api.unavailable"}, OrgUnavailable),
        ({"kind": "pubsub:subscribe", "code": "concurrent.client.limit.exceeded"}, OrgThrottled),
        ({"kind": "pubsub:subscribe", "code": "service.tenant.license"}, StreamRefused),
        ({"kind": "pubsub:subscribe", "invalid_replay_id": True}, ReplayWindowLost),
        ({"kind": "pubsub:subscribe", "close": True}, LinkDown),
        ({"kind": "pubsub:schema", "code": "schema.api.unavailable"}, OrgUnavailable),
        ({"kind": "pubsub:schema", "half_open": True}, LinkDown),
    ],
)
async def test_every_refusal_of_a_new_session_is_told(
    org: DevOrg, session: Session, fault: dict[str, Any], expected: type[ConnectorError]
) -> None:
    """In bounded time, and the next try is clean."""
    limits = replace(QUICK, request_s=0.5)
    _make(org, "A")
    org.ctx.faults.add(**fault)
    error, found = await _until_the_end(cast("Events", _source(org, session, limits).events(OLDEST_KEPT)))
    assert type(error) is expected
    assert not found
    org.ctx.faults.clear()
    async with _events(_source(org, session, limits), OLDEST_KEPT) as events:
        assert (await _names(events, 1))[0] == ["A"]


async def test_silence_is_no_proof_of_life(org: DevOrg, session: Session) -> None:
    """The org sends something within its time, be it empty: then the stream lives; else it is dead."""
    org.ctx.settings.pubsub_keepalive_s = 0.2
    source = _source(org, session, replace(QUICK, hold_s=0.3, margin_s=0.7))
    async with _events(source) as events:
        first_ms = source.status.last_frame_ms or 0
        await anext(events)
        while (source.status.last_frame_ms or 0) < first_ms + 2_000:
            await anext(events)
        org.ctx.settings.pubsub_keepalive_s = 60
        error, _ = await _until_the_end(events)
    assert str(error) == "the stream fell silent"


async def test_a_half_open_connection_is_found_by_its_pings(org: DevOrg, session: Session) -> None:
    """It stands and nothing passes: long before the org's next sign of life is due, the session is over."""
    port = int(org.ctx.pubsub_url.rpartition(":")[2])
    wire = PlainWire("127.0.0.1", port)
    await wire.start()
    try:
        url = f"http://127.0.0.1:{wire.port}"
        limits = replace(QUICK, hold_s=60, ping_s=0.5)
        source = PubSubSource(session, url=url, channel=CHANNEL, now_ms=now_ms, limits=limits)
        async with _events(source) as events:
            _make(org, "A")
            _, position = await _names(events, 1)
            wire.silence()
            _make(org, "B")
            error, found = await _until_the_end(events)
            assert isinstance(error, LinkDown)
            assert not found
        wire.restore()
        async with _events(source, position) as events:
            assert (await _names(events, 1))[0] == ["B"]
    finally:
        await wire.stop()


async def test_an_org_that_is_gone_and_back(org: DevOrg, session: Session) -> None:
    """The connection breaks at once; nothing of the failure is left for the next session."""
    source = _source(org, session)
    async with _events(source) as events:
        _make(org, "A")
        _, position = await _names(events, 1)
        await org.hang_up()
        error, _ = await _until_the_end(events)
        assert isinstance(error, LinkDown)
    for _ in range(3):
        error, _ = await _until_the_end(cast("Events", source.events(position)))
        assert isinstance(error, LinkDown)
    await org.listen()
    _make(org, "B")
    async with _events(source, position) as events:
        assert (await _names(events, 1))[0] == ["B"]


async def test_a_subscription_stands_without_early_headers(org: DevOrg, session: Session) -> None:
    """Not refused for a while, or answered: nobody knows when the org's headers come."""
    org.ctx.settings.pubsub_early_headers = False
    started_s = asyncio.get_running_loop().time()
    async with _events(_source(org, session)) as events:
        assert asyncio.get_running_loop().time() - started_s >= QUICK.settle_s
        _make(org, "A")
        _, position = await _names(events, 1)
    _make(org, "B")
    started_s = asyncio.get_running_loop().time()
    async with _events(_source(org, session, replace(QUICK, settle_s=30)), position) as events:
        assert asyncio.get_running_loop().time() - started_s < 20
        assert (await _names(events, 1))[0] == ["B"]


# The session behind it


async def test_a_dead_token_is_renewed_and_the_stream_goes_on(org: DevOrg, session: Session) -> None:
    """UNAUTHENTICATED renews once; REST and streaming share the new one."""
    source = _source(org, session)
    stale = await session.token()
    org.ctx.tokens.expire("access")
    with pytest.raises(LinkDown) as caught:
        async with _events(source):
            pass
    assert caught.value.retry_after_s == 0
    assert (await session.token()).value != stale.value
    async with _events(source) as events:
        _make(org, "A")
        await _names(events, 1)


async def test_a_refused_login_ends_it(org: DevOrg) -> None:
    """No stream, no retry."""
    async with org_session(org, "access_token") as session:
        source = _source(org, session)
        org.ctx.tokens.expire("access")
        with pytest.raises(LoginRefused):
            async with _events(source):
                pass


async def test_sessions_that_keep_breaking_leave_the_wait_to_the_caller(org: DevOrg, session: Session) -> None:
    """The first may be followed at once, the second in a row not."""
    source = _source(org, session, replace(QUICK, healthy_s=60))
    waits = []
    for _ in range(3):
        org.ctx.faults.add("pubsub:fetch", close=True)
        error, _ = await _until_the_end(cast("Events", source.events(None)))
        assert isinstance(error, LinkDown)
        waits.append(error.retry_after_s)
    assert waits == [0.0, None, None]


async def test_streaming_costs_no_api_call(org: DevOrg, session: Session) -> None:
    """It has its own allocation."""
    async with _events(_source(org, session)) as events:
        _make(org, "A")
        await _batch(events)
    assert org.ctx.usage.api.used() == 0


async def test_a_channel_that_is_not_there(org: DevOrg, session: Session) -> None:
    """A person must change something; it is no broken link to be tried again and again."""
    with pytest.raises(StreamRefused, match=r"topic\.not\.found"):
        async with _events(_source(org, session, channel="/data/Nothing__chn")):
            pass


# A replica that was kept over the other transport


@pytest.mark.parametrize(("before", "after"), [("cometd", "pubsub"), ("pubsub", "cometd")])
async def test_a_change_of_transport_is_a_hole_that_is_caught_up(
    org: DevOrg, tmp_path: Path, before: str, after: str
) -> None:
    """What was done between the two is found by query; the hole is told, and closed with what it swallowed."""
    first, second = _make(org, "A", "B")
    wanted = {"Contact": ("LastName", "Phone")}
    async with copied(org, tmp_path / "r.db", transport=before, wanted=wanted) as made:
        made.update("Contact", first, {"Phone": "1"})
        await made.until_value("Contact", first, "Phone", "1")
    made.update("Contact", first, {"Phone": "2"})
    made.write(lambda t: t.delete("Contact", second))
    async with copied(org, tmp_path / "r.db", transport=after, wanted=wanted) as made:
        told = await made.until_told("Contact closed")
        assert told == ["Contact open transport_changed 0", "Contact closed transport_changed 2"]
        await made.settled()
        made.update("Contact", first, {"Phone": "3"})
        await made.until_value("Contact", first, "Phone", "3")
    async with copied(org, tmp_path / "r.db", transport=after, wanted=wanted) as made:
        await made.until_live()
        assert await made.holes() == []
        assert await made.hole_messages() == told


async def test_the_position_of_an_idle_channel_is_kept(org: DevOrg, tmp_path: Path) -> None:
    """It moves on without an event, so that it never grows older than what the org keeps."""
    org.ctx.settings.pubsub_keepalive_s = 0.1
    wanted = {"Lead": ("LastName", "Phone")}
    channel = "/data/LeadChangeEvent"
    async with copied(org, tmp_path / "r.db", transport="pubsub", channel=channel, wanted=wanted) as made:
        _make(org, "A")

        async def kept() -> bool:
            text = await made.database.run(lambda unit: unit.cursor(f"stream:pubsub:{channel}"))
            position = b64decode(json.loads(text)["replay_id"]) if text else b""
            return int.from_bytes(position) == org.ctx.bus.latest_id()

        await until(kept, 10)
