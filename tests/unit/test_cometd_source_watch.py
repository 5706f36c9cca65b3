"""The watch over one CometD session."""

import asyncio
from typing import Any

import pytest

from connector.errors import ConnectorError, LinkDown, OrgUnavailable
from connector.model.change import ReplayId
from connector.salesforce.cometd_watch import CometdLimits, SessionOver, SessionWatch
from connector.salesforce.streaming import TokenRefused

CHANNEL = "/data/ChangeEvents"
SHORT = CometdLimits(hold_s=0.1, margin_s=0.1, backlog_events=3, backlog_wait_s=0.1)


def _watch(position: bytes | None = b"7", limits: CometdLimits = SHORT) -> SessionWatch:
    return SessionWatch(
        channel=CHANNEL,
        position=ReplayId(position) if position is not None else None,
        token="secret",
        limits=limits,
        on_frame=lambda: None,
    )


def _event(replay_id: Any, payload: Any = None) -> dict[str, Any]:
    return {"channel": CHANNEL, "data": {"event": {"replayId": replay_id}, "payload": payload}}


def _connected(**members: Any) -> dict[str, Any]:
    return {"channel": "/meta/connect", "id": "2", "successful": True, **members}


async def test_events_of_one_answer_come_together_and_never_reach_the_library() -> None:
    """Before or after the meta message; the id keeps its JSON type."""
    watch = _watch()
    answer = [_event(8, {"a": 1}), _connected(), _event("opaque", {"a": 2})]
    await watch.incoming(answer)
    assert answer == [_connected()]
    batch = await watch.next()
    assert [(event.replay_id, event.payload) for event in batch] == [(b"8", {"a": 1}), (b'"opaque"', {"a": 2})]


@pytest.mark.parametrize(("position", "sent"), [(None, -1), (b"37904280", 37904280), (b"0", 0), (b'"x/y"', "x/y")])
async def test_the_position_goes_back_as_it_came(position: bytes | None, sent: Any) -> None:
    """A stored 0 is a position, too."""
    message: dict[str, Any] = {"channel": "/meta/subscribe", "subscription": CHANNEL}
    headers: dict[str, str] = {}
    await _watch(position).outgoing([message], headers)
    assert message["ext"] == {"replay": {CHANNEL: sent}}
    assert headers == {"Authorization": "Bearer secret"}


async def test_an_event_without_a_position_takes_that_of_the_one_before() -> None:
    """It is delivered, and nothing behind it is skipped."""
    watch = _watch(b"7")
    await watch.incoming([_event(None, 1), _event(1.5, 2), {"channel": CHANNEL}, _event(9, 4)])
    assert [(e.replay_id, e.payload) for e in await watch.next()] == [
        (b"7", 1),
        (b"7", 2),
        (b"7", None),
        (b"9", 4),
    ]


async def test_without_any_position_the_session_ends() -> None:
    """There is nothing to resume from."""
    watch = _watch(None)
    await watch.incoming([_event(None)])
    with pytest.raises(LinkDown):
        await watch.next()


async def test_the_interval_reaches_the_library_in_seconds() -> None:
    """The server means milliseconds; the library sleeps seconds."""
    watch = _watch()
    answer = [_connected(advice={"reconnect": "retry", "interval": 2000, "timeout": 110_000})]
    await watch.incoming(answer)
    assert answer[0]["advice"]["interval"] == 2
    assert watch.hold_s == 110


@pytest.mark.parametrize(
    "advice", [None, 3, [], {"interval": None}, {"interval": "x", "timeout": True}, {"interval": -5}]
)
async def test_an_advice_of_another_shape_does_no_harm(advice: Any) -> None:
    """The library would add and divide it."""
    watch = _watch()
    answer = [_connected(advice=advice)]
    await watch.incoming(answer)
    assert answer[0].get("advice", {"interval": 0})["interval"] == 0
    assert watch.hold_s == SHORT.hold_s


async def test_an_endless_advice_is_cut() -> None:
    """The org forgets a session after 40 seconds."""
    watch = _watch()
    answer = [_connected(advice={"interval": 3_600_000, "timeout": 10**12})]
    await watch.incoming(answer)
    assert answer[0]["advice"]["interval"] <= 30
    assert watch.hold_s <= 600


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ([{"channel": "/meta/disconnect"}], LinkDown),
        ([_connected(successful=False, error="403::Unknown client")], LinkDown),
        (
            [{"channel": "/meta/disconnect"}, _connected(successful=False, error="401::Authentication invalid")],
            TokenRefused,
        ),
        (
            [
                _connected(
                    successful=False,
                    error="401::Authentication invalid",
                    ext={"sfdc": {"failureReason": "503::Server is too busy."}},
                )
            ],
            OrgUnavailable,
        ),
    ],
)
async def test_the_first_anomaly_ends_the_session(payload: Any, expected: type[ConnectorError]) -> None:
    """The reason of a failure says more than a farewell in the same answer; nothing may be sent after it."""
    watch = _watch()
    await watch.incoming(payload)
    with pytest.raises(expected):
        await watch.next()
    with pytest.raises(SessionOver):
        await watch.outgoing([{"channel": "/meta/connect"}], {})
    await watch.outgoing([{"channel": "/meta/disconnect"}], {})


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        "text",
        [1],
        [None],
        [{}],
        [{"channel": 3}],
        [{"channel": "/meta/connect"}],
        [{"channel": "/meta/connect", "successful": "yes"}],
        [{"channel": "/meta/subscribe", "successful": True}],
    ],
)
async def test_an_answer_that_is_not_bayeux_ends_the_session(payload: Any) -> None:
    """The library would fail on it with an error of no meaning."""
    watch = _watch()
    with pytest.raises(SessionOver):
        await watch.incoming(payload)
    assert isinstance(watch.ended, LinkDown)


async def test_what_came_before_the_end_is_still_delivered() -> None:
    """In order, then the reason."""
    watch = _watch()
    await watch.incoming([_event(8)])
    await watch.incoming([_event(9), _connected(successful=False, error="403::Unknown client")])
    assert [e.replay_id for e in await watch.next()] == [b"8"]
    assert [e.replay_id for e in await watch.next()] == [b"9"]
    with pytest.raises(LinkDown):
        await watch.next()


async def test_silence_ends_the_session() -> None:
    """No successful connect within the server's time and a margin; events alone are no proof of life."""
    with pytest.raises(LinkDown, match="silent"):
        await _watch().next()


async def test_a_second_handshake_ends_the_session() -> None:
    """It would come without our subscription: the stream would look healthy and stay empty."""
    watch = _watch()
    await watch.outgoing([{"channel": "/meta/handshake"}], {})
    with pytest.raises(SessionOver):
        await watch.outgoing([{"channel": "/meta/handshake"}], {})
    assert isinstance(watch.ended, LinkDown)


async def test_a_full_backlog_holds_the_next_connect_until_there_is_room() -> None:
    """A slow consumer slows the org down, within its 40 seconds."""
    watch = _watch(limits=CometdLimits(backlog_events=3, backlog_wait_s=10))
    await watch.incoming([_event(i) for i in range(5)])
    held = asyncio.create_task(watch.outgoing([{"channel": "/meta/connect"}], {}))
    await asyncio.sleep(0)
    assert not held.done()
    await watch.next()
    await held
    assert watch.ended is None


async def test_an_event_that_came_alone_goes_before_the_next_connect() -> None:
    """The request would take the loop from it; many events are applied while the next ones come."""
    watch = _watch(limits=CometdLimits(alone_s=600))
    await watch.incoming([_event(8)])
    held = asyncio.create_task(watch.outgoing([{"channel": "/meta/connect"}], {}))
    assert len(await watch.next()) == 1
    for _ in range(5):
        await asyncio.sleep(0)
    assert not held.done()
    held.cancel()
    await watch.incoming([_event(9), _event(10)])
    await asyncio.wait_for(watch.outgoing([{"channel": "/meta/connect"}], {}), 10)
    await watch.incoming([_connected()])
    await asyncio.wait_for(watch.outgoing([{"channel": "/meta/connect"}], {}), 10)


async def test_the_connect_behind_an_event_that_came_alone_is_made() -> None:
    """It is a matter of milliseconds."""
    watch = _watch(limits=CometdLimits(alone_s=0.001))
    await watch.incoming([_event(8)])
    headers: dict[str, str] = {}
    await asyncio.wait_for(watch.outgoing([{"channel": "/meta/connect"}], headers), 10)
    assert headers == {"Authorization": "Bearer secret"}
    assert watch.ended is None


async def test_a_backlog_that_stays_full_ends_the_session() -> None:
    """Memory is bounded; the events come again from the stored position."""
    watch = _watch()
    await watch.incoming([_event(i) for i in range(5)])
    with pytest.raises(SessionOver):
        await watch.outgoing([{"channel": "/meta/connect"}], {})
    assert len(await watch.next()) == 5
    with pytest.raises(LinkDown, match="backlog"):
        await watch.next()


async def test_the_backlog_counts_bytes_too() -> None:
    """An event may be a megabyte."""
    watch = _watch(limits=CometdLimits(backlog_bytes=100, backlog_wait_s=0.05))
    await watch.incoming(watch.load('[{"channel":"/data/ChangeEvents","data":{"event":{"replayId":1}}}]' + " " * 100))
    with pytest.raises(SessionOver):
        await watch.outgoing([{"channel": "/meta/connect"}], {})
