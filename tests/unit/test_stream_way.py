"""The loop around the change source: batches, the position, and every error's reaction."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from connector.errors import LinkDown, LoginRefused, OrgRefused, OrgThrottled, ReplayWindowLost, StoreBusy
from connector.inbound import batch as batch_module
from connector.inbound.apply import DecodedEvent, apply_events
from connector.inbound.batch import Arrived, Buffer, in_order
from connector.inbound.decode import decode
from connector.inbound.merge import merge_event
from connector.model.change import ReplayId
from tests.events import CONTACT_FIELDS, T0, contact_spec, event, record_id
from tests.fakes import FakeOrg, FakeSource, received
from tests.waiting import until
from tests.way import loaded, opened

A, B, C = record_id(1), record_id(2), record_id(3)
NAME = {"FirstName": "Jane", "LastName": "Doe"}
CURSOR = "stream:cometd:/data/ChangeEvents"


@pytest.fixture
def org() -> FakeOrg:
    org = FakeOrg("Contact", "Account")
    org.put("Contact", A, T0, FirstName="Jane", LastName="Doe")
    return org


async def test_an_event_is_applied_and_its_position_kept(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            way.source.send(event("UPDATE", A, at_ms=T0 + 1500, Phone="1"), first=41)
            await way.until_value(A, "Phone", "1")
        position = await way.cursor(CURSOR)
        assert position == {"replay_id": "NDE=", "org": "00D5f000000Qr8sEAC", "event": "2026-11-22T17:26:41.500Z"}
        assert way.inbound.stream_state.events == 1
        assert way.rounds[-1].kind == "stream"
        assert way.rounds[-1].error is None


async def test_the_stream_goes_on_behind_the_stored_position(tmp_path: Path, org: FakeOrg) -> None:
    """A broken link and a restart alike resume at the durable id; no call of the API is spent."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Phone="1"), first=41)
            await way.until_value(A, "Phone", "1")
            way.source.fail(LinkDown("reset"))
            await until(lambda: len(way.source.asked) == 2)
        calls = org.calls.total()
    async with opened(tmp_path / "r.db", org) as way:
        async with way.running("stream"):
            await until(lambda: way.source.asked == [ReplayId(b"41")])
        assert org.calls.total() == calls + 1  # the description
        assert org.calls["query_many"] == 0


async def test_what_was_received_before_the_link_broke_is_applied(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Phone="1"))
        way.source.fail(LinkDown("reset"))
        async with way.running("stream"):
            await way.until_value(A, "Phone", "1")


async def test_a_lost_position_is_announced_and_caught_up(tmp_path: Path, org: FakeOrg) -> None:
    """Trap 5: subscribe at new events first, then ask from the last proved point, deletions included."""
    org.put("Contact", B, T0, LastName="Gone")
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream", "poll"):
            way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Phone="1"), first=41)
            await way.until_value(A, "Phone", "1")
            await way.until_whole()
    org.server_ms = T0 + 60_000
    org.put("Contact", A, T0 + 50_000, Phone="2")
    org.put("Contact", C, T0 + 50_000, LastName="New")
    org.delete("Contact", B)
    source = FakeSource()
    source.refuse(ReplayWindowLost("400::The replayId {41} you provided was invalid"))
    async with opened(tmp_path / "r.db", org, source=source) as way:
        async with way.running("stream", "poll"):
            await until(lambda: way.inbound.stream_state.status == "live")
            await way.until_value(A, "Phone", "2")
            await way.until_whole()
        assert source.asked == [ReplayId(b"41"), None]
        assert await way.value(C, "LastName") == "New"
        assert await way.value(B, "LastName") is None
        announced = [m.payload.decode() for m in await way.messages()]
        assert announced[-2:] == ["open replay_id_lost 0", "closed replay_id_lost 3"]
        hole = await way.run(lambda unit: unit.open_holes())
        assert hole == []


async def test_a_complaint_about_new_events_only_is_no_lost_position(tmp_path: Path, org: FakeOrg) -> None:
    """Nothing was lost where there was no position, and no busy loop comes of it."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        way.source.refuse(ReplayWindowLost("weird"))
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
        assert [h.reason for h in await way.holes()] == ["no_replay_id"]
        assert way.source.asked == [None, None]


async def test_a_refused_channel_leaves_the_poller_alone(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        way.source.refuse(OrgRefused(403, ({"code": "403", "message": "denied", "fields": []},)))
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "down")
            await until(lambda: bool(way.rounds))
        assert way.rounds[-1].error is not None
        assert way.inbound.stream_state.last_error is not None


async def test_a_throttled_stream_waits_as_long_as_it_is_told(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        way.source.refuse(OrgThrottled("403::Organization total events daily limit exceeded", retry_after_s=0.2))
        with capture_logs() as logs:
            async with way.running("stream"):
                await until(lambda: way.inbound.stream_state.status == "live")
        (down,) = [entry for entry in logs if entry["event"] == "stream.down"]
        assert down["wait_s"] >= 0.2


async def test_refused_credentials_want_a_person(tmp_path: Path, org: FakeOrg) -> None:
    """Told as such, and waited out as long as the door says: asking sooner could lock the user out."""
    async with opened(tmp_path / "r.db", org) as way:
        way.source.refuse(LoginRefused("no", retry_after_s=900))
        async with way.running("stream"):
            await until(lambda: [(r.kind, r.person) for r in way.rounds] == [("stream", True)])
            await asyncio.sleep(0.2)  # longer than the back-off
        assert len(way.source.asked) == 1


async def test_a_position_of_another_org_is_not_used(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        stored = '{"replay_id":"NDE=","org":"00D000000000001EAA","event":null}'
        await way.run(lambda unit: unit.set_cursor(CURSOR, stored, 0))
        async with way.running("stream"):
            await until(lambda: way.source.asked == [None])


@pytest.mark.parametrize("stored", ["", "[]", "{}", '{"replay_id":"!","org":"x","event":null}'])
async def test_an_unreadable_position_is_none(tmp_path: Path, org: FakeOrg, stored: str) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await way.run(lambda unit: unit.set_cursor(CURSOR, stored, 0))
        async with way.running("stream"):
            await until(lambda: way.source.asked == [None])


async def test_pause_applies_what_is_here_and_resume_goes_on(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Phone="1"), first=41)
            await way.until_value(A, "Phone", "1")
            way.inbound.pause()
            await until(lambda: way.inbound.stream_state.status == "paused")
            assert way.source.closed == 1
            way.inbound.resume()
            await until(lambda: way.inbound.stream_state.status == "live")
            assert way.source.asked[-1] == ReplayId(b"41")


async def test_an_undecodable_event_is_replaced_by_a_read(tmp_path: Path, org: FakeOrg) -> None:
    """Contract, section 11: the record is fetched, the event kept and settled, the stream goes on."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.put("Contact", A, T0 + 1000, Phone="1")
        broken = event("UPDATE", A, at_ms=T0 + 1000, Phone=["1"])
        async with way.running("stream", "repair"):
            way.source.send(broken, event("CREATE", B, at_ms=T0 + 2000, Name=NAME))
            await way.until_value(A, "Phone", "1")
            await way.until_value(B, "LastName", "Doe")

            async def settled() -> bool:
                return (await way.run(lambda unit: unit.queue_depths()))["quarantine"] == 0

            await until(settled)
        assert way.inbound.stream_state.quarantined == 1


async def test_an_undecodable_event_without_a_record_is_answered_by_a_poll(tmp_path: Path, org: FakeOrg) -> None:
    """What changed by then is what it was about; where not even the object can be read, of every object."""
    async with opened(tmp_path / "r.db", org, wanted={"Contact": CONTACT_FIELDS, "Account": ["Name"]}) as way:
        await way.inbound.loader.load("Contact")
        org.put("Contact", A, T0 + 1000, Phone="1")
        nameless = event("UPDATE", A, at_ms=T0 + 1000)
        nameless["ChangeEventHeader"]["recordIds"] = []
        async with way.running("stream", "poll"):
            way.source.send(nameless, "no event at all")
            await way.until_value(A, "Phone", "1")

            async def open_ids(name: str | None) -> int:
                return len(await way.run(lambda unit: unit.nameless_quarantine(name)))

            await until(lambda: way.inbound.stream_state.quarantined == 2)

            async def contact_settled() -> bool:
                return await open_ids("Contact") == 0

            await until(contact_settled)
            assert await open_ids(None) == 1  # Account has not been loaded
            await way.inbound.loader.load("Account")

            async def all_settled() -> bool:
                return (await way.run(lambda unit: unit.queue_depths()))["quarantine"] == 0

            await until(all_settled)


async def test_an_event_that_trips_us_is_set_aside(
    tmp_path: Path, org: FakeOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours in one event costs a read of its record, not the stream."""
    real = merge_event

    def tripping(*args: object, **more: object) -> object:
        if args[3] == A:
            raise ZeroDivisionError
        return real(*args, **more)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr("connector.inbound.apply.merge_event", tripping)
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.put("Contact", A, T0 + 1000, Phone="1")
        async with way.running("stream", "repair"):
            way.source.send(
                event("UPDATE", A, at_ms=T0 + 1000, Phone="1"), event("CREATE", B, at_ms=T0 + 2000, Name=NAME)
            )
            await way.until_value(A, "Phone", "1")
            await way.until_value(B, "LastName", "Doe")


async def test_a_batch_that_was_rolled_back_is_applied_when_it_comes_again(
    tmp_path: Path, org: FakeOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed unit had noted must not make its events count as duplicates."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        update = event("UPDATE", A, at_ms=T0 + 1000, Phone="1")
        tries = 0

        def failing(*args: Any) -> Any:
            nonlocal tries
            applied = apply_events(*args)
            tries += 1
            if tries == 1:
                raise StoreBusy("locked")
            return applied

        monkeypatch.setattr("connector.inbound.applier.apply_events", failing)
        async with way.running("stream"):
            way.source.send(update)
            await until(lambda: tries == 1 and way.inbound.stream_state.status == "live")
            way.source.send(update)
            await way.until_value(A, "Phone", "1")
        assert way.inbound.stream_state.duplicates == 0


async def test_an_unknown_field_has_the_object_described_again(tmp_path: Path, org: FakeOrg) -> None:
    """The event is applied, nothing is quarantined, and a field that is not there is asked for once."""
    async with opened(tmp_path / "r.db", org, wanted={"Contact": "all"}) as way:
        await loaded(way)
        nickname = {**org.describes["Contact"]["fields"][3], "name": "Nickname__c", "type": "string"}
        org.describes["Contact"] = {
            **org.describes["Contact"],
            "fields": [*org.describes["Contact"]["fields"], nickname],
        }
        org.put("Contact", A, T0 + 1000, Nickname__c="JD")
        async with way.running("stream", "load"):
            way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Nickname__c="JD", Phantom__c=1))
            await until(lambda: "Nickname__c" in way.inbound.catalog.specs["Contact"].by_name)
            await way.until_value(A, "Nickname__c", "JD")
            describes = org.calls["describe"]
            org.put("Contact", A, T0 + 2000, Phone="2")
            way.source.send(event("UPDATE", A, at_ms=T0 + 2000, Phone="2", Phantom__c=2), first=2)
            await way.until_value(A, "Phone", "2")
            assert org.calls["describe"] == describes
        assert (await way.run(lambda unit: unit.queue_depths()))["quarantine"] == 0


async def test_an_unselected_object_is_counted_and_left(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            way.source.send(event("CREATE", record_id(1, "001"), entity="Account", Name="Acme"), first=9)
            await until(lambda: way.inbound.stream_state.ignored == 1)
        assert (await way.cursor(CURSOR))["replay_id"] == "OQ=="


async def test_overflow_has_that_object_compared(tmp_path: Path, org: FakeOrg) -> None:
    """Trap 11: everything of the object, deletions included, announced as a hole; and only that object."""
    org.put("Contact", B, T0, LastName="Gone")
    org.put("Account", record_id(1, "001"), T0, Name="Acme")
    wanted = {"Contact": ("LastName", "Phone"), "Account": ("Name",)}
    async with opened(tmp_path / "r.db", org, wanted=wanted) as way:
        await loaded(way)
        async with way.running("stream", "poll"):
            way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Phone="0"))
            await way.until_value(A, "Phone", "0")
            await way.until_whole()
        org.server_ms = T0 + 90_000
        org.put("Contact", A, T0, Phone="1")  # without moving its stamp
        org.put("Contact", C, T0 + 60_000, LastName="New")
        org.delete("Contact", B, hard=True)
        org.queries.clear()
        async with way.running("stream", "repair"):
            way.source.send(event("GAP_OVERFLOW", "000000000000000AAA", at_ms=T0 + 60_000))
            await way.until_value(C, "LastName", "New")
            await way.until_whole()
        assert await way.equals_org("Contact")
        assert not [q for q in org.queries if "FROM Account" in q]
        announced = [m.payload.decode() for m in await way.messages()]
        assert announced[-2:] == ["open whole_object_event 0", "closed whole_object_event 3"]


async def test_many_events_go_together(tmp_path: Path, org: FakeOrg) -> None:
    """Under load a unit takes a batch, not an event."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        for n in range(500):
            way.source.send(event("CREATE", record_id(100 + n), at_ms=T0 + n, Name=NAME), first=n)
        way.applied.clear()
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.events == 500)
        assert len(way.applied) <= 10
        assert sum(a.changes["Contact"] for a in way.applied) == 500


# --- the buffer ---------------------------------------------------------------------------------------------------


def told(transactions: str, *, held_back: bool = False, first: int = 0) -> list[Arrived]:
    """An event for each letter, which stands for its transaction."""
    events = [
        received(event("UPDATE", A, transaction=t, sequence=transactions[:n].count(t) + 1), first + n)
        for n, t in enumerate(transactions)
    ]
    events[-1] = replace(events[-1], held_back=held_back)
    return [Arrived(one) for one in events]


def numbers(batch: Sequence[Arrived]) -> list[int]:
    return [int(arrived.received.replay_id) for arrived in batch]


async def test_a_batch_never_tears_a_transaction() -> None:
    buffer = Buffer(3, lambda _: None)
    await buffer.put(told("aabbbbbc"))
    assert numbers(await buffer.take(0.0, 0.0)) == [*range(7)]
    assert numbers(await buffer.take(0.0, 0.0)) == [7]


async def test_a_transaction_that_has_begun_is_waited_for() -> None:
    """For as long as more of it comes, with one answer after the other; not for one that has shown a single event."""
    buffer = Buffer(10, lambda _: None)
    await buffer.put(told("tt"))
    task = asyncio.create_task(buffer.take(5.0, 0.0))
    for number in (2, 3, 4):
        await asyncio.sleep(0)
        await buffer.put([Arrived(received(event("UPDATE", A, transaction="t", sequence=number + 1), number))])
    await asyncio.sleep(0)
    await buffer.put(told("uv", first=5))
    assert numbers(await task) == [*range(7)]


async def test_a_large_transaction_is_waited_for_longer() -> None:
    """It comes in several answers of the org, which are a round trip apart."""
    buffer = Buffer(10, lambda _: None)
    await buffer.put(told("t" * 100))
    task = asyncio.create_task(buffer.take(0.0, 5.0))
    await asyncio.sleep(0.02)
    await buffer.put(told("u", first=100))
    assert len(await task) == 100


async def test_a_transaction_larger_than_the_room_is_not_torn() -> None:
    """Whoever waits for its rest takes more than there is room for."""
    buffer = Buffer(10, lambda _: None)
    task = asyncio.create_task(buffer.take(5.0, 5.0))
    for _ in range(3):
        await buffer.put(told("t" * 900))
    await buffer.put(told("u"))
    assert len(await task) == 2700


async def test_a_transaction_without_end_is_applied_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must fit in memory and in one unit."""
    monkeypatch.setattr(batch_module, "MAX_TRANSACTION_EVENTS", 250)
    buffer = Buffer(10, lambda _: None)
    await buffer.put(told("t" * 300))
    assert len(await buffer.take(0.0, 0.0)) == 250
    assert len(await buffer.take(0.0, 0.0)) == 50


async def test_more_is_asked_for_once_it_is_applied() -> None:
    """That is when the next batch is taken; what waits counts."""
    asked: list[int] = []
    buffer = Buffer(2, asked.append)
    await buffer.put(told("abc"))
    await buffer.take(0.0, 0.0)
    assert asked == []
    await buffer.take(0.0, 0.0)
    assert asked == [2]
    buffer.close()
    assert await buffer.take(0.0, 0.0) == []
    assert asked == [2]  # nothing more is wanted


async def test_what_the_org_holds_back_may_belong_to_the_last_transaction() -> None:
    """The others are applied, then as many are asked for; the last waits for its rest, though it shows one event."""
    asked: list[int] = []
    buffer = Buffer(10, asked.append)
    await buffer.put(told("aabc", held_back=True))
    assert numbers(await buffer.take(0.0, 5.0)) == [0, 1, 2]
    assert asked == []
    task = asyncio.create_task(buffer.take(0.0, 5.0))
    await until(lambda: asked == [3])
    await buffer.put(told("cd", first=4))
    assert numbers(await task) == [3, 4, 5]
    assert asked == [3]


async def test_a_transaction_that_fills_the_window_is_asked_for_before_it_is_applied() -> None:
    """There is no other way to have all of it at once; what was asked for ahead is not asked for again."""
    asked: list[int] = []
    buffer = Buffer(10, asked.append)
    await buffer.put(told("tttt", held_back=True))
    task = asyncio.create_task(buffer.take(0.0, 5.0))
    await until(lambda: asked == [4])
    await buffer.put(told("tttt", first=4, held_back=True))
    await until(lambda: asked == [4, 4])
    await buffer.put(told("tt", first=8))
    await buffer.put(told("uv", first=10))
    assert numbers(await task) == [*range(10)]
    taking = asyncio.create_task(buffer.take(0.0, 0.0))
    assert numbers(await taking) == [10, 11]
    assert sum(asked) == 10


async def test_a_window_that_ends_with_its_transaction_delays_it_and_nothing_more() -> None:
    """Nobody can tell that it ended: its rest is waited for, for a bounded time."""
    asked: list[int] = []
    buffer = Buffer(10, asked.append)
    await buffer.put(told("aabb", held_back=True))
    assert numbers(await buffer.take(0.0, 5.0)) == [0, 1]
    assert numbers(await buffer.take(0.0, 0.05)) == [2, 3]


async def test_a_closed_buffer_is_drained_and_takes_no_more() -> None:
    buffer = Buffer(10, lambda _: None)
    await buffer.put([Arrived(received(event("UPDATE", A)))])
    buffer.close()
    await buffer.put([Arrived(received(event("UPDATE", A)))])
    assert len(await buffer.take(5.0, 5.0)) == 1
    assert await buffer.take(5.0, 5.0) == []


def test_a_transaction_is_applied_in_the_order_of_its_numbers() -> None:
    specs = {"Contact": contact_spec()}

    def item(transaction: str, sequence: int) -> DecodedEvent:
        payload = event("UPDATE", A, transaction=transaction, sequence=sequence)
        return DecodedEvent(replay_id=ReplayId(b""), event=decode(payload, specs))

    got = in_order([item("t", 2), item("t", 1), item("u", 5), item("v", 3), item("v", 1)])
    order = [(i.event.commit.transaction, i.event.commit.sequence) for i in got if i.event is not None]
    assert order == [("t", 1), ("t", 2), ("u", 5), ("v", 1), ("v", 3)]
