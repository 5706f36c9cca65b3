"""Everything by which a stream may fail, and what the connector does about each: over the local org, the real door."""

import itertools
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from connector.devorg.server import DevOrg
from connector.inbound import stream as stream_module
from connector.model.change import Origin
from connector.salesforce.cometd_watch import CometdLimits
from tests.copies import Copy, copied
from tests.traps.scene import CONTACTS, seed
from tests.waiting import until

SHORT = CometdLimits(hold_s=0.4, margin_s=0.3, request_s=0.4, close_s=0.3, healthy_s=0.0)
UNPROVED = replace(SHORT, healthy_s=60.0)  # no session of a test counts as a good one
DENIED, UNAUTHENTICATED = "403::Handshake denied", "401::Authentication invalid"
BUSY = "503::Server is too busy.  Please try your request again later."
DAILY = "403::Organization total events daily limit exceeded"
CLIENTS = "403::Organization concurrent user limit exceeded"
CONNECTIONS = "403::To protect all customers from excessive use we limit the simultaneous connections per server"
NO_COOKIE = "400::Client x has established a session, but no BAYEUX_BROWSER cookie present"
OTHER_USER = "400::Authenticated user id does not match the session's user id"


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        seed(started)
        started.ctx.settings.connect_hold_s = 0.4
        yield started


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
    "fault",
    [
        pytest.param({"kind": "cometd:connect", "unknown_client": True}, id="403 unknown client"),
        pytest.param({"kind": "cometd:connect", "unknown_client": True, "error": "402::Unknown client"}, id="402"),
        pytest.param({"kind": "cometd:connect", "unknown_client": True, "reconnect": "none"}, id="advice none"),
        pytest.param({"kind": "cometd:connect", "disconnect": True}, id="unsolicited disconnect"),
        pytest.param({"kind": "cometd:connect", "error": NO_COOKIE}, id="lost cookie"),
        pytest.param({"kind": "cometd:connect", "error": OTHER_USER}, id="another user"),
        pytest.param({"kind": "cometd:connect", "error": "404::Unknown channel /meta/connect"}, id="404"),
        pytest.param({"kind": "cometd", "status": 404, "html": True}, id="HTTP 404"),
        pytest.param({"kind": "cometd", "status": 413, "html": True}, id="HTTP 413"),
        pytest.param({"kind": "cometd", "status": 200, "html": True}, id="HTML instead of JSON"),
        pytest.param({"kind": "cometd", "status": 200, "body": "[{]"}, id="no JSON"),
        pytest.param({"kind": "cometd", "status": 200, "body": '{"a": 1}'}, id="no Bayeux"),
        pytest.param({"kind": "cometd", "truncate": True}, id="truncated body"),
        pytest.param({"kind": "cometd", "drop_response": True}, id="dropped answer"),
        pytest.param({"kind": "cometd", "close": True}, id="closed connection"),
        pytest.param({"kind": "cometd", "half_open": True}, id="half-open socket"),
    ],
)
async def test_a_new_session_at_once(org: DevOrg, tmp_path: Path, fault: dict[str, Any]) -> None:
    """The session is over, whatever ended it: another one with the same token, behind the stored position."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=SHORT) as made:
        contact, before = await a_position(made), logins(org)
        org.ctx.faults.add(**fault)
        await until(lambda: not org.ctx.faults.in_force())
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)
        assert logins(org) == before


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "cometd:connect", "error": UNAUTHENTICATED}, id="401 on connect"),
        pytest.param(
            {"kind": "cometd:handshake", "error": DENIED, "failure_reason": UNAUTHENTICATED}, id="in the reason"
        ),
        pytest.param({"kind": "cometd", "status": 401, "html": True}, id="HTTP 401"),
    ],
)
async def test_a_new_token_then_a_new_session(org: DevOrg, tmp_path: Path, fault: dict[str, Any]) -> None:
    """One login, and on behind the stored position."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=SHORT) as made:
        contact, before = await a_position(made), logins(org)
        org.ctx.faults.add(**fault)
        org.drop_connections("/cometd/")
        await until(lambda: not org.ctx.faults.in_force())
        await until(lambda: logins(org) == before + 1)
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)
        assert logins(org) == before + 1


@pytest.mark.parametrize(
    ("fault", "shortest_s"),
    [
        pytest.param(
            {"kind": "cometd:connect", "error": UNAUTHENTICATED, "failure_reason": BUSY}, 180, id="503 in the reason"
        ),
        pytest.param({"kind": "cometd:subscribe", "error": BUSY}, 180, id="503 on subscribe"),
        pytest.param({"kind": "cometd:connect", "error": DAILY}, 900, id="daily limit on connect"),
        pytest.param({"kind": "cometd:subscribe", "error": DAILY}, 900, id="daily limit on subscribe"),
        pytest.param(
            {"kind": "cometd:handshake", "error": DENIED, "failure_reason": CLIENTS}, 120, id="too many clients"
        ),
        pytest.param(
            {"kind": "cometd:handshake", "error": DENIED, "failure_reason": CONNECTIONS}, 60, id="connections"
        ),
        pytest.param({"kind": "cometd:handshake", "error": DENIED}, 60, id="denied without a reason"),
    ],
)
async def test_waited_out_while_the_poller_stands_in(
    org: DevOrg, tmp_path: Path, fault: dict[str, Any], shortest_s: float
) -> None:
    """Minutes, with the token that we have; the poller comes round faster, and the stream counts as down."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=SHORT) as made:
        contact, before = await a_position(made), logins(org)
        with capture_logs() as logs:
            org.ctx.faults.add(**fault)
            org.drop_connections("/cometd/")
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
    "error",
    [
        "403::Cannot create channel /data/ChangeEvents",
        "403:denied_by_security_policy:create_denied",
        "403::User not allowed to subscribe CDC without View All Data permissions",
        "400::The channel you requested to subscribe to doesn't exist {/data/ChangeEvents}",
        "404::Unknown channel",
    ],
)
async def test_a_channel_that_is_refused_is_stopped(
    org: DevOrg, tmp_path: Path, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person is told in the org's words; polling goes on; it is tried again seldom, and comes back by itself."""
    monkeypatch.setattr(stream_module, "REFUSED_RETRY_S", 0.6)
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=SHORT) as made:
        contact = await a_position(made)
        number = org.ctx.faults.add("cometd:subscribe", error=error, count=None)
        org.drop_connections("/cometd/")
        await until(lambda: any(r.kind == "stream" and r.person for r in made.rounds))
        assert made.inbound.stream_state.last_error == error
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.inbound.sync()
        assert await made.value("Contact", contact, "Phone") == "meanwhile"
        org.ctx.faults.clear(number)
        await made.until_live()
        org.ctx.org.advance(1)
        made.update("Contact", contact, {"Phone": "after"})
        await made.until_value("Contact", contact, "Phone", "after")
        assert (await made.changes(contact))[-1].origin is Origin.STREAM


async def test_a_refused_position_of_a_resubscription(org: DevOrg, tmp_path: Path) -> None:
    """No deaf stream: new events, a hole, and a query for what it may hold."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=SHORT) as made:
        contact = await a_position(made)
        org.ctx.faults.add("cometd:subscribe", invalid_replay_id=True)
        org.drop_connections("/cometd/")
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_told("Contact closed replay_id_lost")
        assert await made.difference() == {}


async def test_silence_ends_a_session(org: DevOrg, tmp_path: Path) -> None:
    """No frame within the server's own time-out and a margin: the connection is given up, though nothing failed."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=UNPROVED) as made:
        contact = await a_position(made)
        with capture_logs() as logs:
            number = org.ctx.faults.add("cometd", half_open=True, count=None)
            await until(lambda: any(e["event"] == "stream.down" for e in logs))
            made.update("Contact", contact, {"Phone": "meanwhile"})
            org.ctx.faults.clear(number)
            await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)


async def test_an_idle_stream_is_alive(org: DevOrg, tmp_path: Path) -> None:
    """Empty polls are proof enough: several of the server's time-outs without an event end nothing."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=SHORT) as made:
        await a_position(made)
        before = org.ctx.clock.now_ms()
        with capture_logs() as logs:
            await until(lambda: org.ctx.clock.now_ms() - before > 3000)
        assert [e["event"] for e in logs if e["event"].startswith(("source.", "stream."))] == []


@pytest.mark.parametrize(
    "effect",
    [{"close": True}, {"status": 500, "html": True}, {"status": 502, "html": True}, {"status": 503, "html": True}],
    ids=lambda effect: "-".join(map(str, effect.values())),
)
async def test_a_failure_that_lasts_is_tried_with_back_off(org: DevOrg, tmp_path: Path, effect: dict[str, Any]) -> None:
    """Longer and longer up to the limit, each wait by chance a little shorter; on at once when it is over."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=UNPROVED, backoff_max_s=1.2) as made:
        contact = await a_position(made)
        with capture_logs() as logs:
            number = org.ctx.faults.add("cometd", count=None, **effect)
            org.drop_connections("/cometd/")
            await until(lambda: len([e for e in logs if e["event"] == "stream.down"]) >= 4)
        waits = [e["wait_s"] for e in logs if e["event"] == "stream.down"]
        assert len(set(waits)) > 2
        assert all(0 < wait <= 1.2 for wait in waits)
        assert max(waits) > waits[0]
        org.ctx.faults.clear(number)
        made.update("Contact", contact, {"Phone": "meanwhile"})
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        await goes_on(made, contact)


async def test_names_that_cannot_be_resolved(org: DevOrg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS fails for stream and REST alike: tried with back-off, and on behind the stored position when it is back."""
    resolve = socket.getaddrinfo
    asked = itertools.count()

    def fails(*_: Any, **__: Any) -> NoReturn:
        next(asked)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, limits=UNPROVED) as made:
        contact = await a_position(made)
        with capture_logs() as logs:
            monkeypatch.setattr(socket, "getaddrinfo", fails)
            org.drop_connections()
            made.update("Contact", contact, {"Phone": "meanwhile"})
            made.inbound.poller.poll_soon()
            await until(lambda: len([e for e in logs if e["event"] == "stream.down"]) >= 3)
            await until(lambda: any(e["event"] == "poll.round_failed" for e in logs))
            assert next(asked) > 3
            monkeypatch.setattr(socket, "getaddrinfo", resolve)
        await made.until_value("Contact", contact, "Phone", "meanwhile")
        made.update("Contact", contact, {"Phone": "after"})
        await made.until_value("Contact", contact, "Phone", "after")
        assert await made.difference() == {}
