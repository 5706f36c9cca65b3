"""Everything by which a stream may fail, and what the connector does about each: over the local org, the real door."""

import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

import pytest
from structlog.testing import capture_logs

from connector.devorg.server import DevOrg
from connector.inbound import stream as stream_module
from connector.model.change import Origin
from connector.salesforce import pubsub_client
from connector.salesforce.cometd_watch import CometdLimits
from connector.salesforce.pubsub_client import PubSubLimits
from tests.copies import TRANSPORTS, Copy, copied
from tests.traps.scene import CONTACTS, Making, is_connecting, seed
from tests.waiting import until

SHORT: dict[str, CometdLimits | PubSubLimits] = {
    "cometd": CometdLimits(hold_s=0.4, margin_s=0.3, request_s=0.4, close_s=0.3, healthy_s=0.0),
    "pubsub": PubSubLimits(hold_s=0.8, margin_s=0.4, request_s=0.4, reached_every_s=0.0, healthy_s=0.0),
}
# No session of a test counts as a good one.
UNPROVED = {transport: replace(limits, healthy_s=60.0) for transport, limits in SHORT.items()}
FETCH = "subscription.fetch"  # what codes of the Pub/Sub API begin with
DENIED, UNAUTHENTICATED = "403::Handshake denied", "401::Authentication invalid"
BUSY = "503::Server is too busy.  Please try your request again later."
DAILY = "403::Organization total events daily limit exceeded"
CLIENTS = "403::Organization concurrent user limit exceeded"
CONNECTIONS = "403::To protect all customers from excessive use we limit the simultaneous connections per server"
NO_COOKIE = "400::Client x has established a session, but no BAYEUX_BROWSER cookie present"
OTHER_USER = "400::Authenticated user id does not match the session's user id"


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg(pubsub_port=0) as started:
        seed(started)
        started.ctx.settings.connect_hold_s = started.ctx.settings.pubsub_keepalive_s = 0.4
        yield started


@pytest.fixture
def making(org: DevOrg, tmp_path: Path) -> Making:
    """Makes a replica of the contacts."""
    return partial(copied, org, tmp_path / "r.db", wanted=CONTACTS)


def of(transport: str, **fault: Any) -> Any:
    """A case: a fault of a transport."""
    kind = fault.pop("kind", "")
    name = " ".join(f"{key} {value}" for key, value in fault.items())
    kind = f"{transport}:{kind}" if kind else transport
    return pytest.param(transport, {"kind": kind, **fault}, id=f"{kind} {name}")


def waited(shortest_s: float, transport: str, **fault: Any) -> Any:
    """A case with the shortest time that is waited."""
    case = of(transport, **fault)
    return pytest.param(*case.values, shortest_s, id=case.id)


async def order(org: DevOrg, transport: str, fault: dict[str, Any]) -> None:
    """Order a fault, and end the session so that it meets the next one."""
    if transport == "cometd":
        await until(lambda: is_connecting(org))
    org.ctx.faults.add(**fault)
    if transport == "cometd":
        assert org.drop_connections("/cometd/")
    elif fault["kind"] not in ("pubsub:fetch", "pubsub:deliver"):
        org.ctx.faults.add("pubsub:fetch", close=True)


def logins(org: DevOrg) -> int:
    return sum(org.ctx.usage.logins.values())


async def a_position(made: Copy) -> str:
    """A contact whose newest edit the stream has told, so that there is a stored position."""
    contact = (await made.ids("Contact"))[0]
    made.update("Contact", contact, {"Phone": "before"})
    await made.until_value("Contact", contact, "Phone", "before")
    return contact


async def goes_on(made: Copy, contact: str) -> None:
    """What was edited meanwhile has come by the stream, each edit once, and by nothing else."""
    made.update("Contact", contact, {"Phone": "after"})
    await made.until_value("Contact", contact, "Phone", "after")
    told = [(c.origin, (c.after or {})["Phone"]) for c in await made.changes(contact)]
    assert told == [(Origin.STREAM, phone) for phone in ("before", "meanwhile", "after")]


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        of("cometd", kind="connect", unknown_client=True),
        of("cometd", kind="connect", unknown_client=True, error="402::Unknown client"),
        of("cometd", kind="connect", unknown_client=True, reconnect="none"),
        of("cometd", kind="connect", disconnect=True),
        of("cometd", kind="connect", error=NO_COOKIE),
        of("cometd", kind="connect", error=OTHER_USER),
        of("cometd", kind="connect", error="404::Unknown channel /meta/connect"),
        of("cometd", status=404, html=True),
        of("cometd", status=413, html=True),
        of("cometd", status=200, html=True),
        of("cometd", status=200, body="[{]"),
        of("cometd", status=200, body='{"a": 1}'),
        of("cometd", truncate=True),
        of("cometd", drop_response=True),
        of("cometd", close=True),
        of("cometd", half_open=True),
        of("pubsub", kind="fetch", close=True),
        of("pubsub", kind="fetch", half_open=True),
        of("pubsub", kind="fetch", code="subscription.internal.error"),
        of("pubsub", kind="fetch", code=f"{FETCH}.replay.repeated"),
        of("pubsub", kind="fetch", code=f"{FETCH}.overflow"),
        of("pubsub", kind="subscribe", close=True),
        of("pubsub", kind="topic", half_open=True),
    ],
)
async def test_a_new_session_at_once(org: DevOrg, making: Making, transport: str, fault: dict[str, Any]) -> None:
    """The session is over, whatever ended it: another one with the same token, behind the stored position."""
    async with making(transport=transport, limits=SHORT[transport]) as made:
        contact, before = await a_position(made), logins(org)
        if transport == "pubsub":
            await order(org, transport, fault)
        else:
            org.ctx.faults.add(**fault)
        await until(lambda: not org.ctx.faults.in_force())
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)
        assert logins(org) == before


async def test_a_stream_that_gives_nothing_after_some_events(org: DevOrg, making: Making) -> None:
    """The first batch comes, the next one hangs on its way: the silence ends the session, and it comes again."""
    async with making(transport="pubsub", limits=SHORT["pubsub"]) as made:
        org.ctx.faults.add("pubsub:deliver", skip=1, half_open=True)
        contact = await a_position(made)
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)
        assert not org.ctx.faults.in_force()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_org_that_hangs_up(org: DevOrg, making: Making, transport: str) -> None:
    """Connections broken and refused: tried again, and on behind the stored position when it listens."""
    async with making(transport=transport, limits=SHORT[transport]) as made:
        contact = await a_position(made)
        await org.hang_up()
        await until(lambda: made.inbound.stream_state.status != "live")
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await org.listen()
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        of("cometd", kind="connect", error=UNAUTHENTICATED),
        of("cometd", kind="handshake", error=DENIED, failure_reason=UNAUTHENTICATED),
        of("cometd", status=401, html=True),
        of("pubsub", kind="fetch", code="service.auth.error"),
        of("pubsub", kind="topic", code="service.auth.error"),
        of("pubsub", kind="subscribe", code="service.auth.error"),
    ],
)
async def test_a_new_token_then_a_new_session(
    org: DevOrg, making: Making, transport: str, fault: dict[str, Any]
) -> None:
    """One login, and on behind the stored position."""
    async with making(transport=transport, limits=SHORT[transport]) as made:
        contact, before = await a_position(made), logins(org)
        await order(org, transport, fault)
        await until(lambda: not org.ctx.faults.in_force())
        await until(lambda: logins(org) == before + 1)
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)
        assert logins(org) == before + 1


@pytest.mark.parametrize(
    ("transport", "fault", "shortest_s"),
    [
        waited(180, "cometd", kind="connect", error=UNAUTHENTICATED, failure_reason=BUSY),
        waited(180, "cometd", kind="subscribe", error=BUSY),
        waited(900, "cometd", kind="connect", error=DAILY),
        waited(900, "cometd", kind="subscribe", error=DAILY),
        waited(120, "cometd", kind="handshake", error=DENIED, failure_reason=CLIENTS),
        waited(60, "cometd", kind="handshake", error=DENIED, failure_reason=CONNECTIONS),
        waited(60, "cometd", kind="handshake", error=DENIED),
        waited(900, "pubsub", kind="fetch", code="subscription.limit.exceeded"),
        waited(900, "pubsub", kind="subscribe", code="subscription.limit.exceeded"),
        waited(120, "pubsub", kind="subscribe", code="concurrent.client.limit.exceeded"),
        waited(60, "pubsub", kind="fetch", code="service.protection.triggered"),
        waited(60, "pubsub", kind="topic", code="service.protection.stream.limit.triggered"),
    ],
)
async def test_waited_out_while_the_poller_stands_in(
    org: DevOrg, making: Making, transport: str, fault: dict[str, Any], shortest_s: float
) -> None:
    """Minutes, with the token that we have; the poller comes round faster, and the stream counts as down."""
    async with making(transport=transport, limits=SHORT[transport]) as made:
        contact, before = await a_position(made), logins(org)
        with capture_logs() as logs:
            await order(org, transport, fault)
            await until(lambda: any(e["event"] == "stream.down" for e in logs))
        [down] = [e for e in logs if e["event"] == "stream.down"]
        assert down["wait_s"] >= shortest_s
        assert made.inbound.stream_state.status == "down"
        assert logins(org) == before
        made.update("Contact", contact, {"Phone": "meanwhile"})
        made.inbound.poller.poll_soon()
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        assert [r.error for r in made.rounds if r.kind == "stream"][-1] is not None


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        of("cometd", kind="subscribe", error="403::Cannot create channel /data/ChangeEvents"),
        of("cometd", kind="subscribe", error="403:denied_by_security_policy:create_denied"),
        of(
            "cometd", kind="subscribe", error="403::User not allowed to subscribe CDC without View All Data permissions"
        ),
        of(
            "cometd",
            kind="subscribe",
            error="400::The channel you requested to subscribe to doesn't exist {/data/ChangeEvents}",
        ),
        of("cometd", kind="subscribe", error="404::Unknown channel"),
        of("pubsub", kind="topic", code="topic.not.found"),
        of("pubsub", kind="topic", code="topic.meta.permission"),
        of("pubsub", kind="subscribe", code="subscription.topic.cannot.subscribe"),
        of("pubsub", kind="subscribe", code="service.tenant.license"),
        of("pubsub", kind="subscribe", code="service.auth.headers.invalid"),
    ],
)
async def test_a_channel_that_is_refused_is_stopped(
    org: DevOrg, making: Making, transport: str, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person is told in the org's words; polling goes on; it is tried again seldom, and comes back by itself."""
    monkeypatch.setattr(stream_module, "REFUSED_RETRY_S", 0.6)
    async with making(transport=transport, limits=SHORT[transport]) as made:
        contact = await a_position(made)
        await order(org, transport, {**fault, "count": None})
        await until(lambda: any(r.kind == "stream" and r.person for r in made.rounds))
        assert (fault.get("error") or fault["code"]) in (made.inbound.stream_state.last_error or "")
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.inbound.sync()
        assert await made.value("Contact", contact, "Phone") == "meanwhile"
        org.ctx.faults.clear()
        await made.until_live()
        org.ctx.org.advance(1)
        made.update("Contact", contact, {"Phone": "after"})
        await made.until_value("Contact", contact, "Phone", "after")
        assert (await made.changes(contact))[-1].origin is Origin.STREAM


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_refused_position_of_a_resubscription(org: DevOrg, making: Making, transport: str) -> None:
    """No deaf stream: new events, a hole, and a query for what it may hold."""
    async with making(transport=transport, limits=SHORT[transport]) as made:
        contact = await a_position(made)
        await order(org, transport, {"kind": f"{transport}:subscribe", "invalid_replay_id": True})
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_told("Contact closed replay_id_lost")
        assert await made.difference() == {}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_silence_ends_a_session(org: DevOrg, making: Making, transport: str) -> None:
    """No frame within the server's own time-out and a margin: the connection is given up, though nothing failed."""
    async with making(transport=transport, limits=UNPROVED[transport]) as made:
        contact = await a_position(made)
        with capture_logs() as logs:
            kind = "pubsub:fetch" if transport == "pubsub" else "cometd"
            number = org.ctx.faults.add(kind, half_open=True, count=None)
            await until(lambda: any(e["event"] == "stream.down" for e in logs), 10)
            made.update("Contact", contact, {"Phone": "meanwhile"})
            org.ctx.faults.clear(number)
            await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_idle_stream_is_alive(org: DevOrg, making: Making, transport: str) -> None:
    """Empty answers are proof enough: several of the server's time-outs without an event end nothing."""
    async with making(transport=transport, limits=SHORT[transport]) as made:
        await a_position(made)
        before = org.ctx.clock.now_ms()
        with capture_logs() as logs:
            await until(lambda: org.ctx.clock.now_ms() - before > 3000)
        told = [e["event"] for e in logs if e["event"].startswith(("source.", "stream."))]
        assert set(told) <= {"stream.position_reached"}


@pytest.mark.parametrize(
    ("transport", "fault"),
    [
        of("cometd", close=True),
        of("cometd", status=500, html=True),
        of("cometd", status=502, html=True),
        of("cometd", status=503, html=True),
        of("pubsub", close=True),
        of("pubsub", code="service.unavailable"),
    ],
)
async def test_a_failure_that_lasts_is_tried_with_back_off(
    org: DevOrg, making: Making, transport: str, fault: dict[str, Any]
) -> None:
    """Longer and longer up to the limit, each wait by chance a little shorter; on at once when it is over."""
    async with making(transport=transport, limits=UNPROVED[transport], backoff_max_s=1.2) as made:
        contact = await a_position(made)
        with capture_logs() as logs:
            await order(org, transport, {**fault, "count": None})
            await until(lambda: len([e for e in logs if e["event"] == "stream.down"]) >= 4, 10)
        waits = [e["wait_s"] for e in logs if e["event"] == "stream.down"]
        assert len(set(waits)) > 2
        assert all(0 < wait <= 1.2 for wait in waits)
        assert max(waits) > waits[0]
        org.ctx.faults.clear()
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_names_that_cannot_be_resolved(
    org: DevOrg, making: Making, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS fails for stream and REST alike: tried with back-off, and on behind the stored position when it is back."""
    async with making(transport=transport, limits=UNPROVED[transport]) as made:
        contact = await a_position(made)
        with monkeypatch.context() as broken, capture_logs() as logs:
            asked = no_names(broken)
            org.drop_connections()
            if transport == "pubsub":
                org.ctx.faults.add("pubsub:fetch", close=True)
            made.update("Contact", contact, {"Phone": "meanwhile"})
            made.inbound.poller.poll_soon()
            await until(lambda: len([e for e in logs if e["event"] == "stream.down"]) >= 3)
            await until(lambda: any(e["event"] == "poll.round_failed" for e in logs))
            assert next(asked) > 3
        assert all(e["kind"] == "LinkDown" for e in logs if e["event"] == "stream.down")
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await until(lambda: made.inbound.stream_state.status == "live")
        org.ctx.org.advance(2)  # an event of the second in which a poll read the record would be settled by a read
        made.update("Contact", contact, {"Phone": "after"})
        await made.until_value("Contact", contact, "Phone", "after")
        assert (await made.changes(contact))[-1].origin is Origin.STREAM
        assert await made.difference() == {}


def no_names(broken: pytest.MonkeyPatch) -> Iterator[int]:
    """No name is resolved any more: not by Python, and not by gRPC, which has a resolver of its own. Counts."""
    asked = itertools.count()

    def fails(*_: Any, **__: Any) -> NoReturn:
        next(asked)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    def nowhere(url: str) -> SplitResult:
        next(asked)
        return urlsplit(url.replace("127.0.0.1", "nowhere.invalid"))

    broken.setattr(socket, "getaddrinfo", fails)
    broken.setattr(pubsub_client, "urlsplit", nowhere)
    return asked
