"""Traps 1 to 6: the streaming session, its errors, and the position."""

import asyncio
import time
from base64 import b64decode
from pathlib import Path

import apsw
import orjson
import pytest
from structlog.testing import capture_logs

from connector.devorg.server import DevOrg
from connector.model.change import Origin
from connector.ports import Unit
from connector.salesforce.cometd_watch import CometdLimits
from tests.traps.scene import CONTACTS, Making, is_connecting
from tests.waiting import until

POSITION = "stream:cometd:/data/ChangeEvents"
RETENTION_S = 72 * 3600


def logins(org: DevOrg) -> int:
    return sum(org.ctx.usage.logins.values())


async def test_trap_01_a_new_session_subscribes_again_behind_the_stored_position(org: DevOrg, copy: Making) -> None:
    """The server has forgotten every channel: what was edited meanwhile comes by the stream, not by a query."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
        calls = made.calls()
        org.ctx.faults.add("cometd:connect", unknown_client=True)
        made.update("Contact", contact, {"Phone": "2"})
        made.update("Contact", contact, {"Phone": "3"})
        changes = await made.until_changes(contact, 3)
        assert [(c.origin, (c.after or {})["Phone"]) for c in changes] == [(Origin.STREAM, p) for p in "123"]
        assert made.calls() == calls


async def test_trap_01_a_refused_resubscription_is_an_incident(org: DevOrg, copy: Making) -> None:
    """It is told as one for a person, the stream counts as down, and the poller stands in."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        org.ctx.faults.add("cometd:subscribe", error="403::Cannot create channel /data/ChangeEvents", count=None)
        org.ctx.faults.add("cometd:connect", unknown_client=True)
        await until(lambda: any(r.kind == "stream" and r.person for r in made.rounds))
        assert made.inbound.stream_state.status == "down"
        assert "Cannot create channel" in (made.inbound.stream_state.last_error or "")
        made.update("Contact", contact, {"Phone": "1"})
        await made.inbound.sync()
        assert await made.value("Contact", contact, "Phone") == "1"


async def test_trap_02_a_slow_replica_does_not_hold_the_poll_back(org: DevOrg, copy: Making) -> None:
    """The database is busy for longer than the server waits for the next connect: the session outlives it."""
    org.ctx.settings.connect_gap_s = 0.4
    async with copy(wanted=CONTACTS) as made:
        contacts = await made.ids("Contact")
        with capture_logs() as logs:
            busy = asyncio.ensure_future(made.database.run(lambda _unit: time.sleep(1.5)))
            for number in range(30):
                made.update("Contact", contacts[number % 3], {"Phone": f"{number}"})
                await asyncio.sleep(0.03)
            assert not busy.done()
            await busy
            await made.settled()
        assert [entry["event"] for entry in logs if entry["event"] != "stream.batch_applied"] == []
        assert {c.origin for c in await made.changes()} == {Origin.STREAM}


@pytest.mark.parametrize(
    ("fault", "new_tokens", "comes_back"),
    [
        (
            {
                "kind": "cometd:connect",
                "error": "401::Authentication invalid",
                "failure_reason": "503::Server is too busy.  Please try your request again later.",
            },
            0,
            False,
        ),
        ({"kind": "cometd:handshake", "failure_reason": "503::Server is too busy."}, 0, False),
        ({"kind": "cometd:handshake", "failure_reason": "401::Authentication invalid"}, 1, True),
        ({"kind": "cometd:handshake", "failure_reason": "403::Organization concurrent user limit exceeded"}, 0, False),
    ],
    ids=["401 that is a 503", "denied: 503", "denied: 401", "denied: clients"],
)
async def test_trap_03_the_failure_reason_decides(
    org: DevOrg, copy: Making, fault: dict[str, str], new_tokens: int, *, comes_back: bool
) -> None:
    """`error` alone would log in again for a busy server, and wait out a dead token."""
    async with copy(wanted=CONTACTS) as made:
        before = logins(org)
        with capture_logs() as logs:
            await until(lambda: is_connecting(org))
            org.ctx.faults.add(**fault)
            assert org.drop_connections("/cometd/")
            await until(lambda: not org.ctx.faults.in_force())
            if comes_back:
                await until(lambda: logins(org) == before + new_tokens)
                await made.until_live()
            else:
                await until(lambda: any(e["event"] == "stream.down" and e["wait_s"] > 60 for e in logs))
                assert made.inbound.stream_state.status == "down"
        assert logins(org) == before + new_tokens


@pytest.mark.parametrize("error", ["403::Unknown client", "402::Unknown client"])
async def test_trap_04_an_unknown_client_is_routine(org: DevOrg, copy: Making, error: str) -> None:
    """A new handshake with the same token, and nobody is alarmed: it happens every few hours."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        before, rounds = logins(org), len(made.rounds)
        org.ctx.faults.add("cometd:connect", error=error, unknown_client=True)
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
        assert not org.ctx.faults.in_force()
        assert logins(org) == before
        assert [r.error for r in made.rounds[rounds:] if r.error is not None] == []


async def test_trap_04_the_routing_cookie_runs_out(org: DevOrg, copy: Making) -> None:
    """The balancer moves the client to a server that does not know it: the same, with nothing of a fault about it."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        before = logins(org)
        org.ctx.org.advance(3 * 3600 + 1)
        for phone in ("1", "2"):
            made.update("Contact", contact, {"Phone": phone})
            await made.until_value("Contact", contact, "Phone", phone)
        assert logins(org) == before
        assert {c.origin for c in await made.changes(contact)} == {Origin.STREAM}


@pytest.mark.parametrize(
    ("error", "new_tokens"),
    [
        ("401::Authentication invalid", 1),
        ("403::Organization total events daily limit exceeded", 0),
        ("403::To protect all customers from excessive use, we limit simultaneous connections per server", 0),
    ],
)
async def test_trap_04_only_a_401_asks_for_a_new_token(org: DevOrg, copy: Making, error: str, new_tokens: int) -> None:
    """Limits are waited out with the token that we have."""
    async with copy(wanted=CONTACTS) as made:
        before = logins(org)
        with capture_logs() as logs:
            org.ctx.faults.add("cometd:connect", error=error)
            if new_tokens:
                await until(lambda: logins(org) == before + new_tokens)
                await made.until_live()
            else:
                await until(lambda: any(e["event"] == "stream.down" and e["wait_s"] >= 60 for e in logs))
        assert logins(org) == before + new_tokens


async def test_trap_05_a_lost_position_is_a_hole_and_not_new_events_alone(org: DevOrg, copy: Making) -> None:
    """Subscribed first, then asked for what the hole may hold, deletions too; announced, closed with a count."""
    async with copy() as made:
        edited, deleted, _ = await made.ids("Contact")
        made.update("Contact", edited, {"Phone": "1"})
        await made.until_value("Contact", edited, "Phone", "1")
    made.update("Contact", edited, {"Phone": "2"})
    made.write(lambda t: t.delete("Contact", deleted))
    org.ctx.bus.expire_all()
    with capture_logs() as logs:
        async with copy() as again:
            told = await again.until_told("Contact closed")
            assert await again.difference() == {}
            assert await again.row("Contact", deleted) is not None
    names = [e["event"] for e in logs]
    assert names.index("stream.subscribed") < names.index("poll.round_finished")
    assert [line for line in told if "Contact" in line] == [
        "Contact open replay_id_lost 0",
        "Contact closed replay_id_lost 2",
    ]


@pytest.mark.parametrize("replay_all", [False, True], ids=["new", "all"])
async def test_trap_05_the_oldest_event_only_by_setting(org: DevOrg, copy: Making, *, replay_all: bool) -> None:
    """`replay_fallback = "all"` has every kept event told, at the price of the day's allocation; by default none is."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
    org.ctx.org.advance(RETENTION_S + 3600)
    for phone in ("2", "3", "4"):
        made.update("Contact", contact, {"Phone": phone})
    delivered = org.ctx.usage.delivered.used()
    async with copy(wanted=CONTACTS, jobs=("stream", "load", "repair"), replay_all=replay_all) as again:
        await again.until_live()
        if replay_all:
            told = [(c.after or {})["Phone"] for c in await again.until_changes(contact, 4)]
            assert told == ["1", "2", "3", "4"]
        assert org.ctx.usage.delivered.used() - delivered == (3 if replay_all else 0)
        [hole] = await again.holes()
        assert (hole.object, hole.reason) == ("Contact", "replay_id_lost")
        await again.inbound.sync()
        assert await again.holes() == []
        assert await again.difference() == {}


async def test_trap_05_the_oldest_event_refused_as_well(org: DevOrg, copy: Making) -> None:
    """Then new events only: never the same refused position again and again."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
    org.ctx.faults.add("cometd:subscribe", invalid_replay_id=True, count=2)
    async with copy(wanted=CONTACTS, replay_all=True) as again:
        await again.until_live()
        again.update("Contact", contact, {"Phone": "2"})
        await again.until_value("Contact", contact, "Phone", "2")
        await again.until_told("Contact closed replay_id_lost")


async def test_trap_06_data_and_position_are_of_one_transaction(org: DevOrg, copy: Making, tmp_path: Path) -> None:
    """At any moment at which somebody reads the file, the stored replay id is that of the newest applied edit."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        seen: set[tuple[int | None, str]] = set()
        reader = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
        for number in range(1, 41):
            made.update("Contact", contact, {"Phone": f"{number}"})
            for _ in range(3):
                await asyncio.sleep(0)
                seen.add(_position_and_phone(reader, contact))
        await made.until_value("Contact", contact, "Phone", "40")
        seen.add(_position_and_phone(reader, contact))
        reader.close()
        rows = org.ctx.database.connection.execute("SELECT replay_id, payload FROM event_log").fetchall()
        phones = {r["replay_id"]: orjson.loads(r["payload"]).get("Phone") for r in rows}
        told = {position: phone for position, phone in seen if position is not None}
        assert len(told) > 1
        assert told == {position: phones[position] for position in told}


def _position_and_phone(reader: apsw.Connection, contact: str) -> tuple[int | None, str]:
    statement = "SELECT (SELECT value FROM cursor WHERE name = ?), (SELECT Phone FROM contact WHERE Id = ?)"
    ((text, phone),) = reader.execute(statement, (POSITION, contact)).fetchall()
    return (None if text is None else int(b64decode(orjson.loads(str(text))["replay_id"]))), str(phone)


async def test_trap_06_an_event_that_was_received_and_not_applied_comes_again(
    org: DevOrg, copy: Making, tmp_path: Path
) -> None:
    """The process ends between receiving and applying: the stored position stands before the event."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
        org.ctx.org.advance(2)
        stuck = asyncio.ensure_future(made.database.run(_holding))
        delivered = org.ctx.usage.delivered.used()
        made.update("Contact", contact, {"Phone": "2"})
        await until(lambda: org.ctx.usage.delivered.used() > delivered)
    await asyncio.gather(stuck, return_exceptions=True)
    reader = apsw.Connection(str(tmp_path / "replica.db"))
    assert _position_and_phone(reader, contact)[1] == "1"
    reader.close()
    async with copy(wanted=CONTACTS, jobs=("stream", "load", "repair")) as again:
        await again.until_value("Contact", contact, "Phone", "2")
        assert [c.origin for c in await again.changes(contact)] == [Origin.STREAM, Origin.STREAM]


def _holding(_unit: Unit) -> None:
    time.sleep(0.5)


async def test_trap_06_the_position_of_a_quiet_channel_runs_out(org: DevOrg, copy: Making) -> None:
    """Three days without an event: the id cannot advance and is refused; what was edited at last is asked for."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
    org.ctx.org.advance(RETENTION_S + 3600)
    made.update("Contact", contact, {"Phone": "2"})
    async with copy(wanted=CONTACTS) as again:
        told = await again.until_told("Contact closed")
        assert await again.value("Contact", contact, "Phone") == "2"
        assert told == ["Contact open replay_id_lost 0", "Contact closed replay_id_lost 1"]


async def test_trap_06_silence_is_no_proof(org: DevOrg, copy: Making) -> None:
    """A healthy, silent stream with a backlog behind it: the poller finds the edit, and counts that nobody told."""
    async with copy(wanted=CONTACTS, limits=CometdLimits(hold_s=2, margin_s=1, request_s=2, close_s=1)) as made:
        contact, *_ = await made.ids("Contact")
        org.ctx.settings.stream_stalled = True
        made.update("Contact", contact, {"Phone": "1"})
        org.ctx.org.advance(60)
        await made.inbound.sync()
        assert await made.value("Contact", contact, "Phone") == "1"
        assert made.inbound.stream_state.status == "live"
        assert made.inbound.poller.states["Contact"].untold == 1
        org.ctx.settings.stream_stalled = False
        org.ctx.bus.wake()
        made.update("Contact", contact, {"Phone": "2"})
        await made.until_value("Contact", contact, "Phone", "2")
        assert len(await made.changes(contact)) == 2
