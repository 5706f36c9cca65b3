"""Hard cases of the stream that no single event tells: transactions, order, and what has no event at all."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import apsw
import pytest

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from connector.inbound.decode import NOT_STREAMED
from connector.mesh.envelope import Envelope
from connector.mesh.topics import Topics
from connector.model.change import Change, Operation, Origin
from tests.copies import ORIGIN, TRANSPORTS, Copy, copied
from tests.orgs import ORG_ID
from tests.traps.scene import CONTACTS, LONG, seed
from tests.waiting import until

DAY_S = 24 * 3600
ON_BOTH = pytest.mark.parametrize("transport", TRANSPORTS)
FORMULA = {
    "name": "Score__c", "type": "double", "calculated": True, "calculatedFormula": "Account.Rank__c", "precision": 9,
}  # fmt: skip
PLACE = ("Place__Latitude__s", "Place__Longitude__s")


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg(pubsub_port=0) as started:
        seed(started)
        yield started


@ON_BOTH
async def test_a_transaction_of_the_org_appears_at_once(org: DevOrg, tmp_path: Path, transport: str) -> None:
    """60 records edited one by one: who reads the file meanwhile sees all of them or none, never a part."""
    path = tmp_path / "r.db"
    async with copied(
        org, path, wanted={"Contact": ("LastName", "Phone")}, bulk_threshold=10**6, transport=transport
    ) as made:
        many = made.write(lambda t: [t.create("Contact", {"LastName": f"Many {n}"}) for n in range(60)])

        async def all_here() -> bool:
            return len(await made.ids("Contact")) == 63

        await until(all_here)
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        count = "SELECT count(*) FROM contact WHERE Phone = ?"
        for attempt in range(5):
            seen: set[int] = set()
            with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
                for number, contact in enumerate(many):
                    t.update("Contact", contact, {"Phone": f"at once {attempt}", "LastName": f"{number} {attempt}"})
            async with asyncio.timeout(10):
                while 60 not in seen:
                    seen.add(int(str(reader.execute(count, (f"at once {attempt}",)).get)))
                    await asyncio.sleep(0)
            assert seen <= {0, 60}
        reader.close()
        one = [c for c in await made.changes() if c.commit and c.commit.sequence][-60:]
        assert len({c.commit.transaction for c in one if c.commit}) == 1
        assert [c.commit.sequence for c in one if c.commit] == list(range(1, 61))


@ON_BOTH
async def test_a_transaction_that_comes_in_several_answers_is_one_unit(
    org: DevOrg, tmp_path: Path, transport: str
) -> None:
    """350 records edited one by one, behind other edits, in answers of 100 events: still all of them or none."""
    path = tmp_path / "r.db"
    org.ctx.settings.max_events_per_response = 100
    async with copied(
        org, path, wanted={"Contact": ("LastName", "Phone")}, bulk_threshold=10**6, transport=transport
    ) as made:
        many = made.write(lambda t: [t.create("Contact", {"LastName": f"Many {n}"}) for n in range(350)])

        async def all_here() -> bool:
            return len(await made.ids("Contact")) == 353

        await until(all_here, 10)
        reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        count = "SELECT count(*) FROM contact WHERE Phone = 'at once'"
        for _ in range(60):
            made.update("Contact", many[0], {"LastName": "before it"}, {"LastName": "Many"})
        with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
            for number, contact in enumerate(many):
                t.update("Contact", contact, {"Phone": "at once", "LastName": f"{number}"})
        seen: set[int] = set()
        async with asyncio.timeout(20):
            while 350 not in seen:
                seen.add(int(str(reader.execute(count).get)))
                await asyncio.sleep(0)
        assert seen == {0, 350}
        reader.close()
        assert [c.commit.sequence for c in (await made.changes())[-350:] if c.commit] == list(range(1, 351))


@ON_BOTH
async def test_a_replica_that_is_behind_holds_the_stream_back(org: DevOrg, tmp_path: Path, transport: str) -> None:
    """What the org has delivered and the replica has not applied is bounded, by the window of the Pub/Sub API."""
    async with copied(org, tmp_path / "r.db", wanted={"Contact": ("LastName", "Phone")}, transport=transport) as made:
        contact = (await made.ids("Contact"))[0]
        made.update("Contact", contact, {"Phone": "first"})
        await made.until_value("Contact", contact, "Phone", "first")
        before, busy = org.ctx.usage.delivered.used(), threading.Event()
        writing = asyncio.create_task(made.database.run(lambda _unit: busy.wait(20)))
        try:
            for number in range(400):
                made.update("Contact", contact, {"Phone": str(number)})
            await until(lambda: org.ctx.usage.delivered.used() >= before + 100)
            with suppress(TimeoutError):
                await until(lambda: org.ctx.usage.delivered.used() > before + 100, 0.5)
            delivered = org.ctx.usage.delivered.used() - before
        finally:
            busy.set()
            await writing
        assert delivered == 100 if transport == "pubsub" else delivered <= 400
        await made.until_value("Contact", contact, "Phone", "399")
        assert len([c for c in await made.changes(contact) if c.origin is Origin.STREAM]) == 401


@ON_BOTH
async def test_enriched_fields_are_no_changes(org: DevOrg, tmp_path: Path, transport: str) -> None:
    """A channel of the org's own tells some fields with every event: what was edited is told, and nothing else.

    Some of the enriched ones are empty, parts of a compound, or edited themselves.
    """
    enriched = ["LastName", "Email", "MailingAddress", "Birthdate"]
    org.ctx.bus.define_channel("Sales__chn", ["Contact", "Lead"], {"Contact": enriched})
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, channel="/data/Sales__chn", transport=transport) as made:
        first, second, _ = await made.ids("Contact")
        edits: list[dict[str, str | None]] = [
            {"Phone": "1"},
            {"Phone": None},
            {"Email": "b@example.com"},
            {"Email": None},
            {"MailingCity": None},
        ]
        for number, edit in enumerate(edits, start=1):
            made.update("Contact", first, edit)
            told = (await made.until_changes(first, number))[-1]
            assert set(told.changed) - {"LastModifiedDate"} == set(edit)
            assert {name: (told.after or {})[name] for name in edit} == edit
        made.update("Contact", [first, second], {"Phone": "2"})
        made.write(lambda t: t.delete("Contact", second))
        assert [c.operation for c in await made.until_changes(second, 2)] == [Operation.UPDATE, Operation.DELETE]
        await made.settled(but=NOT_STREAMED)
        assert {c.origin for c in await made.changes()} == {Origin.STREAM}
        assert made.inbound.stream_state.quarantined == 0


@ON_BOTH
async def test_another_channel_is_caught_up(org: DevOrg, tmp_path: Path, transport: str) -> None:
    """It has no position yet: what was done between the two is found by query, with a hole.

    Back on the first one, whose position is there still, what it tells again changes nothing.
    """
    org.ctx.bus.define_channel("Sales__chn", ["Contact"])
    making = partial(copied, org, tmp_path / "r.db", wanted=CONTACTS, transport=transport)
    async with making() as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
    made.update("Contact", contact, {"Phone": "2"})
    async with making(channel="/data/Sales__chn") as made:
        told = await made.until_told("Contact closed")
        assert told == ["Contact open no_replay_id 0", "Contact closed no_replay_id 1"]
        made.update("Contact", contact, {"Phone": "3"})
        await made.until_value("Contact", contact, "Phone", "3")
    made.update("Contact", contact, {"Phone": "4"})
    async with making() as made:
        await made.until_value("Contact", contact, "Phone", "4")
        assert await made.hole_messages() == told
        await made.settled(but=NOT_STREAMED)
    async with making() as made:
        phones = await made.database.run(lambda unit: [(c.after or {})["Phone"] for c in unit.changes(0, 100, None)])
        assert phones == ["1", "2", "3", "4"]


@ON_BOTH
async def test_fields_that_come_and_go(org: DevOrg, tmp_path: Path, transport: str) -> None:
    """Each event is read by the fields of its time, live or from the position where the replica stopped."""
    region = {"name": "Region__c", "type": "string", "length": 40}
    wanted: Mapping[str, Literal["all"]] = {"Contact": "all"}
    async with copied(org, tmp_path / "r.db", wanted=wanted, transport=transport) as made:
        first, *_ = await made.ids("Contact")
        org.ctx.schema.add_field("Contact", region)
        made.update("Contact", first, {"Phone": "1", "Region__c": "North"})
        await made.until_value("Contact", first, "Region__c", "North")
        assert await made.value("Contact", first, "Phone") == "1"
    made.update("Contact", first, {"Phone": "2", "Region__c": "South"})
    org.ctx.schema.add_field("Contact", {**region, "name": "Area__c"})
    made.update("Contact", first, {"Phone": "3", "Area__c": "A"})
    org.ctx.schema.remove_field("Contact", "Region__c")
    made.update("Contact", first, {"Phone": "4", "Area__c": None})
    async with copied(org, tmp_path / "r.db", wanted=wanted, transport=transport) as made:
        await made.until_value("Contact", first, "Phone", "4")
        assert await made.value("Contact", first, "Area__c") is None
        await until(lambda: made.inbound.stream_state.events == 3)
        assert made.inbound.stream_state.quarantined == 0
        await made.settled(but=NOT_STREAMED)


async def _in_order(made: Copy, transaction_of: str) -> list[Change]:
    """The changes of the transaction that touched a record last; they stand together."""
    changes = await made.changes()
    key = next(c.commit.transaction for c in reversed(changes) if c.id == transaction_of and c.commit)
    at = [n for n, c in enumerate(changes) if c.commit is not None and c.commit.transaction == key]
    assert at == list(range(at[0], at[-1] + 1))
    return changes[at[0] : at[-1] + 1]


@ON_BOTH
async def test_a_merge_moves_the_children_before_the_loser_goes(org: DevOrg, tmp_path: Path, transport: str) -> None:
    """A consumer that folds the changes never holds a contact of a deleted account."""
    async with copied(org, tmp_path / "r.db", transport=transport) as made:
        winner, loser, _ = await made.ids("Account")
        made.write(lambda t: t.merge("Account", winner, [loser], {"Phone": "kept"}))
        await made.settled(but=NOT_STREAMED)
        told = [(c.object, c.operation.value) for c in await _in_order(made, loser)]
        assert told[-1] == ("Account", "delete")
        assert {("Contact", "update"), ("Opportunity", "update"), ("Account", "update")} == set(told[:-1])


@ON_BOTH
async def test_a_conversion_makes_the_records_before_the_lead_points_at_them(
    org: DevOrg, tmp_path: Path, transport: str
) -> None:
    """Account, contact, opportunity, then the lead."""
    async with copied(org, tmp_path / "r.db", transport=transport) as made:
        lead, *_ = await made.ids("Lead")
        made.write(lambda t: t.convert_lead(lead))
        await made.settled(but=NOT_STREAMED)
        told = [(c.object, c.operation.value) for c in await _in_order(made, lead)]
        assert told == [("Account", "create"), ("Contact", "create"), ("Opportunity", "create"), ("Lead", "update")]


@ON_BOTH
async def test_a_cascade_and_its_undoing(org: DevOrg, tmp_path: Path, transport: str) -> None:
    """An account goes with its contacts and opportunities, each told once; undeleted, all of them come back."""
    async with copied(org, tmp_path / "r.db", transport=transport) as made:
        account, *_ = await made.ids("Account")
        made.write(lambda t: t.delete("Account", account))
        await made.settled(but=NOT_STREAMED)
        gone = await _in_order(made, account)
        assert sorted(c.object for c in gone) == ["Account", "Contact", "Opportunity"]
        assert {c.operation for c in gone} == {Operation.DELETE}
        made.write(lambda t: t.undelete("Account", account))
        await made.settled(but=NOT_STREAMED)
        back = await _in_order(made, account)
        assert {(c.id, c.operation) for c in back} == {(c.id, Operation.UNDELETE) for c in gone}


@ON_BOTH
async def test_a_change_that_is_too_large_for_an_event(org: DevOrg, tmp_path: Path, transport: str) -> None:
    """The org sends a gap event in its place: the record is read, by one call."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, transport=transport) as made:
        contact, *_ = await made.ids("Contact")
        org.ctx.event_options.max_event_bytes = 1000
        made.update("Contact", contact, {"Description": LONG})
        await made.until_value("Contact", contact, "Description", LONG)
        [change] = await made.changes(contact)
        assert (change.origin, made.calls()["repair"]) == (Origin.REPAIR, 1)


async def test_a_formula_that_changes_by_itself(org: DevOrg, tmp_path: Path) -> None:
    """No event, no stamp: what it depends on is another record. The daily comparison finds it by itself, with its age.

    Until then health tells when the object was compared last.
    """
    org.ctx.schema.add_field("Contact", FORMULA)
    wanted = {"Contact": (*CONTACTS["Contact"], "Score__c")}
    async with copied(org, tmp_path / "r.db", wanted=wanted) as made:
        contact, other, _ = await made.ids("Contact")
        org.ctx.org.advance(600)
        made.update("Contact", other, {"Phone": "newest"})
        await made.inbound.sync()  # the first one is behind the look-back
        made.write(lambda t: t.recalculate("Contact", contact, {"Score__c": 7}))
        await made.inbound.sync()
        assert await made.value("Contact", contact, "Score__c") is None
        await until(lambda: "Contact" in made.inbound.proofs.verified_ms)
        compared_ms = made.inbound.proofs.verified_ms["Contact"]
        org.ctx.org.advance(DAY_S + 60)
        await made.inbound.sync()  # by the org's clock a day has passed
        made.inbound.repairer.wake()
        await made.until_value("Contact", contact, "Score__c", 7)
        await until(lambda: [r.kind for r in made.rounds if r.kind in ("verify", "reconcile")] == ["reconcile"])
        assert made.inbound.proofs.verified_ms["Contact"] >= compared_ms + DAY_S * 1000


async def test_a_restart_before_any_event_came_is_announced(org: DevOrg, tmp_path: Path) -> None:
    """A subscription tells no replay id, so there is no position: what happened meanwhile is asked for, as a hole.

    The first start, which loads everything behind the subscription, has none; nor has a start behind a position.
    """
    path = tmp_path / "r.db"
    async with copied(org, path, wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        assert await made.hole_messages() == []
    made.update("Contact", contact, {"Phone": "1"})
    made.update("Contact", contact, {"Phone": "2"})
    async with copied(org, path, wanted=CONTACTS) as made:
        [change] = await made.until_changes(contact, 1)
        assert ((change.after or {})["Phone"], change.origin) == ("2", Origin.POLL)
        assert await made.until_told("Contact closed") == [
            "Contact open no_replay_id 0",
            "Contact closed no_replay_id 1",
        ]
        made.update("Contact", contact, {"Phone": "3"})
        await made.until_value("Contact", contact, "Phone", "3")
    made.update("Contact", contact, {"Phone": "4"})
    async with copied(org, path, wanted=CONTACTS) as made:
        [change] = await made.until_changes(contact, 1)
        assert change.origin is Origin.STREAM
        assert len(await made.hole_messages()) == 2


@ON_BOTH
async def test_a_purged_record_is_not_brought_back_by_its_own_event(
    org: DevOrg, tmp_path: Path, transport: str
) -> None:
    """The stream is hours behind: a record was made, found by nobody, purged. Its CREATE comes at last, alone."""
    async with copied(org, tmp_path / "r.db", wanted=CONTACTS, transport=transport) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "before"})
        await made.until_value("Contact", contact, "Phone", "before")
        org.ctx.settings.stream_stalled = True
        gone = made.write(lambda t: t.create("Contact", {"LastName": "Short-lived"}))
        kept = made.write(lambda t: t.create("Contact", {"LastName": "Long-lived"}))
        made.write(lambda t: t.purge("Contact", gone), announce=False)
        org.ctx.org.advance(600)
        await made.inbound.sync()
        await made.until_value("Contact", kept, "LastName", "Long-lived")
        org.ctx.settings.stream_stalled = False
        made.update("Contact", contact, {"Phone": "after"})
        await made.until_value("Contact", contact, "Phone", "after")
        await until(lambda: made.calls().get("repair", 0) == 1)
        assert await made.row("Contact", gone) is None
        assert await made.changes(gone) == []
        assert await made.difference(but=NOT_STREAMED) == {}


@pytest.mark.parametrize("purged", [20, 21])
async def test_many_purged_records_need_a_persons_word(org: DevOrg, tmp_path: Path, purged: int) -> None:
    """Up to 20, or a tenth of the object, are taken as deleted; more are held until somebody says so."""
    async with copied(org, tmp_path / "r.db", wanted={"Lead": ("LastName",)}) as made:
        many = made.write(lambda t: [t.create("Lead", {"LastName": "L", "Company": "C"}) for _ in range(60)])

        async def all_here() -> bool:
            return len(await made.ids("Lead")) == 63

        await until(all_here)
        with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN, announce=False) as t:
            for lead in many[:purged]:
                t.purge("Lead", lead)
        [found] = await made.inbound.verify(["Lead"])
        held = purged if purged > 20 else 0
        assert (found.drift, found.held) == (purged, held)
        assert len(await made.ids("Lead")) == 63 - purged + held
        [word] = await made.inbound.verify(["Lead"], allow_deletions=["Lead"])
        assert (word.held, word.repaired) == (0, held)
        assert await made.difference() == {}


async def test_a_comparison_costs_a_call_for_two_thousand_records(org: DevOrg, tmp_path: Path) -> None:
    """And one for those that are missed, however many objects and fields there are."""
    async with copied(org, tmp_path / "r.db", wanted={"Lead": ("LastName",)}, bulk_threshold=10**6) as made:
        made.write(lambda t: [t.create("Lead", {"LastName": "L", "Company": "C"}) for _ in range(2500)])

        async def all_here() -> bool:
            return len(await made.ids("Lead")) == 2503

        await until(all_here)
        one, *_ = await made.ids("Lead")
        made.write(lambda t: t.purge("Lead", one), announce=False)
        before = made.calls()
        [found] = await made.inbound.verify(["Lead"])
        assert (found.compared, found.drift, found.repaired) == (2502, 1, 1)
        after = made.calls()
        assert after["verify"] - before.get("verify", 0) == 2
        assert after.get("repair", 0) - before.get("repair", 0) == 1


def message_of(change: Change) -> Mapping[str, Any]:
    """A change as it goes to the mesh."""
    envelope = Envelope(Topics(root="r", org_code="FND", target="OS"), node="n")
    envelope.use_org(ORG_ID)
    told: Mapping[str, Any] = json.loads(envelope.change(change).payload)["data"]
    return told


def place_on(org: DevOrg, name: str) -> None:
    """Give an object a geolocation, `Place__c`."""
    org.ctx.schema.add_field(name, {"name": "Place__c", "type": "location"})
    for part in PLACE:
        coordinate = {"name": part, "type": "double", "precision": 18, "scale": 15, "compoundFieldName": "Place__c"}
        org.ctx.schema.add_field(name, coordinate)


@pytest.mark.parametrize(
    ("transport", "variant"),
    [
        ("cometd", {}),
        ("cometd", {"nested_nulls": False}),
        ("cometd", {"changed_fields": False}),
        ("cometd", {"nested_nulls": False, "changed_fields": False}),
        ("pubsub", {}),
        ("pubsub", {"nested_nulls": False, "changed_fields": False}),  # its bitmaps leave nothing of this open
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "as documented",
)
@pytest.mark.parametrize("name", ["Account", "Invoice__c"])
async def test_a_geolocation(
    org: DevOrg, tmp_path: Path, name: str, variant: Mapping[str, bool], transport: str
) -> None:
    """Of a standard object the coordinate that changed comes alone, of a custom one both; a null empties its column.

    Row and message hold the coordinates under REST's names, as numbers, and never the compound.
    """
    place_on(org, name)
    org.ctx.schema.select(name)
    for option, value in variant.items():
        setattr(org.ctx.event_options, option, value)
    async with copied(org, tmp_path / "r.db", wanted={name: ("Name", "Place__c")}, transport=transport) as made:
        start = {"Name": "Placed", PLACE[0]: 60.392050000000001, PLACE[1]: 5.3221}
        record: str = made.write(lambda t: t.create(name, start))
        [created] = await made.until_changes(record, 1)
        assert message_of(created)["after"] == {"Id": record, **start}
        for edit in ({PLACE[0]: -33.9}, {PLACE[1]: None}, {PLACE[1]: 18.4}, dict.fromkeys(PLACE)):
            before = await made.row(name, record)
            assert before is not None
            made.update(name, record, edit)
            await made.settled(but=NOT_STREAMED)
            row = await made.row(name, record)
            assert row is not None
            assert dict(row.values) == {**before.values, **edit}
            told = message_of((await made.changes(record))[-1])
            assert (set(told["changed"]), told["after"]) == (set(edit), edit)
            assert told["before"] == {part: before.values[part] for part in edit}
            assert set(told["record"]) == {"Id", "Name", *PLACE}
        assert made.inbound.stream_state.quarantined == 0
        if transport == "pubsub" or "changed_fields" not in variant:
            assert {c.origin for c in await made.changes(record)} == {Origin.STREAM}
