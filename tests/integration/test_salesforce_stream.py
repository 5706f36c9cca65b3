"""The change stream against the local org: positions, the disposable session, every kind of end."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

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
from connector.model.change import ReceivedEvent, ReplayId, Subscribed
from connector.salesforce.cometd import CometdSource
from connector.salesforce.cometd_watch import CometdLimits
from connector.salesforce.login import Session
from connector.salesforce.streaming import EventsSpent
from tests.orgs import VERSION, now_ms, org_session
from tests.waiting import until

CHANNEL = "/data/ChangeEvents"
QUICK = CometdLimits(hold_s=2, margin_s=0.5, request_s=2, close_s=1, healthy_s=0.0)
Events = AsyncGenerator[Subscribed | Sequence[ReceivedEvent], None]


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        yield started


@pytest.fixture
async def session(org: DevOrg) -> AsyncIterator[Session]:
    async with org_session(org) as opened:
        yield opened


def _source(session: Session, limits: CometdLimits = QUICK, channel: str = CHANNEL) -> CometdSource:
    return CometdSource(session, channel=channel, api_version=VERSION, now_ms=now_ms, limits=limits)


@asynccontextmanager
async def _events(source: CometdSource, after: ReplayId | None = None) -> AsyncIterator[Events]:
    """A subscribed stream."""
    async with aclosing(cast("Events", source.events(after))) as events:
        assert await anext(events) == Subscribed(after)
        yield events


async def _batch(events: Events) -> Sequence[ReceivedEvent]:
    async with asyncio.timeout(10):
        batch = await anext(events)
    assert not isinstance(batch, Subscribed)
    return batch


async def _names(events: Events, count: int) -> tuple[list[str], ReplayId]:
    """Last names of the next events, and the position behind the last one."""
    names: list[str] = []
    while len(names) < count:
        batch = await _batch(events)
        names += [event.payload["Name"]["LastName"] for event in batch]
    return names, batch[-1].replay_id


async def _until_the_end(events: Events) -> tuple[ConnectorError, list[Sequence[ReceivedEvent]]]:
    """Take events until the stream ends: its error, and what came before."""
    batches: list[Sequence[ReceivedEvent]] = []
    try:
        async with asyncio.timeout(10):
            async for batch in events:
                if not isinstance(batch, Subscribed):
                    batches.append(batch)  # noqa: PERF401 - what came before the error is kept
    except ConnectorError as error:
        return error, batches
    raise AssertionError("a stream does not end without an error")


def _make(org: DevOrg, *names: str) -> list[str]:
    """A transaction per name."""
    ids = []
    for name in names:
        with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
            ids.append(work.create("Contact", {"LastName": name}))
    return ids


async def test_events_come_in_order_and_together(org: DevOrg, session: Session) -> None:
    """Those of one transaction arrive in one answer."""
    async with _events(_source(session)) as events:
        with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
            for name in ("A", "B", "C"):
                work.create("Contact", {"LastName": name})
        batch = await _batch(events)
        assert [event.payload["Name"]["LastName"] for event in batch] == ["A", "B", "C"]
        assert [event.payload["ChangeEventHeader"]["sequenceNumber"] for event in batch] == [1, 2, 3]
        _make(org, "D")
        assert (await _names(events, 1))[0] == ["D"]


async def test_a_stored_position_resumes_just_behind_itself(org: DevOrg, session: Session) -> None:
    """Nothing lost, nothing twice, whatever came meanwhile; the position used is logged."""
    source = _source(session)
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
    assert subscribed["position"] == batch[0].replay_id.decode()


async def test_new_events_only_without_a_position(org: DevOrg, session: Session) -> None:
    """What was before is not replayed."""
    _make(org, "A")
    async with _events(_source(session)) as events:
        _make(org, "B")
        assert (await _names(events, 1))[0] == ["B"]


async def test_idle_polls_keep_the_session_alive(org: DevOrg, session: Session) -> None:
    """Several holds long, with the server's times."""
    org.ctx.settings.connect_hold_s = 0.2
    source = _source(session, CometdLimits(hold_s=0.2, margin_s=0.4, request_s=2, close_s=1))
    async with _events(source) as events:
        waiting = asyncio.ensure_future(anext(events))
        first_ms = source.status.last_frame_ms or 0
        await until(lambda: (source.status.last_frame_ms or 0) > first_ms + 1_000)
        assert not waiting.done()
        _make(org, "A")
        async with asyncio.timeout(5):
            batch = await waiting
    assert not isinstance(batch, Subscribed)


async def test_state_and_times_for_health(org: DevOrg, session: Session) -> None:
    """Told at each change."""
    states: list[str] = []
    source = CometdSource(
        session,
        channel=CHANNEL,
        api_version=VERSION,
        now_ms=now_ms,
        limits=QUICK,
        on_state=lambda: states.append(source.status.state),
    )
    assert states == []
    async with _events(source) as events:
        assert states == ["connecting", "live"]
        assert source.status.last_event_ms is None
        _make(org, "A")
        await _batch(events)
        assert source.status.last_event_ms is not None
    assert states == ["connecting", "live", "down"]


async def test_streaming_costs_no_api_call(org: DevOrg, session: Session) -> None:
    """It has its own allocation."""
    async with _events(_source(session)) as events:
        _make(org, "A")
        await _batch(events)
    assert org.ctx.usage.api.used() == 0


# Ends of a session


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "cometd:connect", "unknown_client": True}, LinkDown),
        ({"kind": "cometd:connect", "unknown_client": True, "reconnect": "none", "disconnect": True}, LinkDown),
        ({"kind": "cometd:connect", "disconnect": True}, LinkDown),
        ({"kind": "cometd:connect", "error": "401::Authentication invalid", "reconnect": "none"}, LinkDown),
        (
            {
                "kind": "cometd:connect",
                "error": "401::Authentication invalid",
                "failure_reason": "503::Server is too busy.  Please try your request again later.",
                "reconnect": "none",
            },
            OrgUnavailable,
        ),
        ({"kind": "cometd:connect", "error": "403::Organization total events daily limit exceeded"}, EventsSpent),
        ({"kind": "cometd", "status": 502, "html": True}, OrgUnavailable),
        ({"kind": "cometd", "status": 200, "html": True}, LinkDown),
        ({"kind": "cometd", "status": 200, "body": "[]"}, LinkDown),
        ({"kind": "cometd", "status": 200, "body": "not json"}, LinkDown),
        ({"kind": "cometd", "status": 200, "body": '{"channel": "/meta/connect"}'}, LinkDown),
        ({"kind": "cometd", "status": 413, "html": True}, LinkDown),
        ({"kind": "cometd", "close": True}, LinkDown),
        ({"kind": "cometd", "truncate": True}, LinkDown),
        ({"kind": "cometd", "drop_response": True}, LinkDown),
        ({"kind": "cometd", "half_open": True}, LinkDown),
    ],
)
async def test_every_end_of_a_live_session_is_told_and_resumed_from(
    org: DevOrg, session: Session, fault: dict[str, Any], expected: type[ConnectorError]
) -> None:
    """One event is taken before, one is made after: the next session has exactly that one."""
    org.ctx.settings.connect_hold_s = 0.5
    source = _source(session)
    async with _events(source) as events:
        _make(org, "A")
        _, position = await _names(events, 1)
        org.ctx.faults.add(**fault)
        _make(org, "B")
        error, batches = await _until_the_end(events)
        assert type(error) is expected
    org.ctx.faults.clear()
    _make(org, "C")
    async with _events(source, batches[-1][-1].replay_id if batches else position) as events:
        names, _ = await _names(events, 1)
        while names[-1] != "C":
            names += (await _names(events, 1))[0]
    made = [*(event.payload["Name"]["LastName"] for batch in batches for event in batch), *names]
    assert made == ["B", "C"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "cometd:handshake", "failure_reason": "401::Authentication invalid"}, LinkDown),
        ({"kind": "cometd:handshake", "failure_reason": "400::Unsupported API version"}, StreamRefused),
        (
            {"kind": "cometd:handshake", "failure_reason": "403::Organization concurrent user limit exceeded"},
            OrgThrottled,
        ),
        ({"kind": "cometd:handshake", "failure_reason": "503::Server is too busy."}, OrgUnavailable),
        ({"kind": "cometd:subscribe", "error": "403::Cannot create channel"}, StreamRefused),
        ({"kind": "cometd:subscribe", "error": "403:denied_by_security_policy:create_denied"}, StreamRefused),
        ({"kind": "cometd:subscribe", "unknown_client": True}, LinkDown),
        ({"kind": "cometd:subscribe", "invalid_replay_id": True}, ReplayWindowLost),
        ({"kind": "cometd", "status": 503, "html": True}, OrgUnavailable),
        ({"kind": "cometd", "status": 401, "html": True}, LinkDown),
        ({"kind": "cometd", "half_open": True}, LinkDown),
        ({"kind": "cometd", "half_open": True, "skip": 1}, LinkDown),
        ({"kind": "cometd", "half_open": True, "skip": 3}, LinkDown),
        ({"kind": "cometd", "close": True, "skip": 1}, LinkDown),
    ],
)
async def test_every_refusal_of_a_new_session_is_told(
    org: DevOrg, session: Session, fault: dict[str, Any], expected: type[ConnectorError]
) -> None:
    """In bounded time, and the next try is clean."""
    org.ctx.settings.connect_hold_s = 0.3
    # Enough for a machine on which a name takes half a second to be looked up.
    limits = CometdLimits(hold_s=0.3, margin_s=1.5, request_s=1.5, close_s=0.3)
    source = _source(session, limits)
    if fault.get("failure_reason"):
        fault = {**fault, "error": "403::Handshake denied"}
    org.ctx.faults.add(**fault)
    error, _ = await _until_the_end(cast("Events", source.events(None)))
    assert type(error) is expected
    org.ctx.faults.clear()
    async with _events(source) as events:
        _make(org, "A")
        await _names(events, 1)


async def test_a_position_outside_the_retention_window(org: DevOrg, session: Session) -> None:
    """The caller must know that there is a hole."""
    _make(org, "A")
    async with _events(_source(session)) as events:
        _make(org, "B")
        _, position = await _names(events, 1)
    org.ctx.bus.expire_all()
    with pytest.raises(ReplayWindowLost):
        async with _events(_source(session), position):
            pass
    for broken in (b"", b"{", b"null", b"1.5"):
        with pytest.raises(ReplayWindowLost):
            async with _events(_source(session), ReplayId(broken)):
                pass


async def test_a_channel_that_is_not_there(session: Session) -> None:
    """A person must change something; it is no broken link to be tried again and again."""
    with pytest.raises(StreamRefused):
        async with _events(_source(session, channel="/data/Nothing__chn")):
            pass


async def test_a_dead_token_is_renewed_and_the_stream_goes_on(org: DevOrg, session: Session) -> None:
    """401 renews once; REST and streaming share the new one."""
    source = _source(session)
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
        source = _source(session)
        org.ctx.tokens.expire("access")
        with pytest.raises(LoginRefused):
            async with _events(source):
                pass


async def test_sessions_that_keep_breaking_leave_the_wait_to_the_caller(org: DevOrg, session: Session) -> None:
    """The first may be followed at once, the second in a row not."""
    source = _source(session, CometdLimits(request_s=2, close_s=1, healthy_s=60))
    org.ctx.faults.add("cometd:connect", unknown_client=True, count=3)
    waits = []
    for _ in range(3):
        with pytest.raises(LinkDown) as caught:
            async with _events(source):
                pass
        waits.append(caught.value.retry_after_s)
    assert waits == [0, None, None]


async def test_silence_is_noticed(org: DevOrg, session: Session) -> None:
    """A half-open connection: nothing arrives, nothing fails."""
    org.ctx.settings.connect_hold_s = 0.3
    source = _source(session, CometdLimits(hold_s=0.3, margin_s=0.3, request_s=2, close_s=0.5, healthy_s=0))
    async with _events(source) as events:
        org.ctx.faults.add("cometd", half_open=True, count=None)
        with pytest.raises(LinkDown):
            async with asyncio.timeout(5):
                await anext(events)


# Closing


@pytest.mark.parametrize("half_open", [False, True])
async def test_closing_ends_everything_soon(org: DevOrg, session: Session, half_open: bool) -> None:
    """Even where the goodbye is never answered; no task is left behind and nothing is logged as an error."""
    source = _source(session)
    before = asyncio.all_tasks()
    events = cast("Events", source.events(None))
    await anext(events)
    if half_open:
        org.ctx.faults.add("cometd", half_open=True, count=None)
    started_s = time.monotonic()
    await events.aclose()
    assert time.monotonic() - started_s < 2
    assert source.status.state == "down"
    org.drop_connections()
    await until(lambda: {t for t in asyncio.all_tasks() if not t.done()} <= before | _server_tasks(before))


def _server_tasks(before: set["asyncio.Task[Any]"]) -> set["asyncio.Task[Any]"]:
    """Tasks of the local org's HTTP server, which runs in this process."""
    return {task for task in asyncio.all_tasks() - before if "RequestHandler" in repr(task.get_coro())}


async def test_closing_while_waiting_for_events(org: DevOrg, session: Session) -> None:
    """A cancelled consumer closes the session."""
    loop_errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    source = _source(session)

    async def consume() -> None:
        async with _events(source) as events:
            async for _ in events:
                pass

    task = asyncio.create_task(consume())
    await until(lambda: source.status.state == "live")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.status.state == "down"
    assert loop_errors == []
    _make(org, "A")


async def test_a_slow_consumer_slows_the_stream_and_loses_nothing(org: DevOrg, session: Session) -> None:
    """The backlog is bounded: the next poll waits for room."""
    limits = CometdLimits(hold_s=2, margin_s=2, request_s=2, close_s=1, backlog_events=20, backlog_wait_s=10)
    async with _events(_source(session, limits)) as events:
        names = [f"N{i}" for i in range(300)]
        for name in names:
            _make(org, name)
            if name.endswith("0"):
                await asyncio.sleep(0.005)
        assert (await _names(events, 300))[0] == names
