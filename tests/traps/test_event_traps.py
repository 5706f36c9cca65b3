"""Traps 7 to 12: what a change event says, and what it does not."""

import pytest

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.records.rules import Condition, FieldUpdate
from connector.devorg.server import DevOrg
from connector.model.change import Operation, Origin
from connector.ports import Purpose
from tests.copies import TRANSPORTS, Copy
from tests.orgcommands import OrgBench, bench_over
from tests.traps.scene import CONTACTS, FIELDS, LONG, Making
from tests.waiting import until

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)

ACCOUNTS = {"Account": FIELDS["Account"]}
ENRICHED = "/data/Sales__chn"


def emitted(org: DevOrg, name: str, kind: str, *ids: str) -> None:
    org.ctx.bus.emit_without_body(name, kind, ids or ("000000000000000AAA",), user_id=INTEGRATION_USER_ID)


# 7


async def test_trap_07_every_record_of_a_merged_event(copy: Making) -> None:
    """One event, three records: a change for each, in one transaction, with one commit."""
    async with copy(wanted=CONTACTS) as made:
        contacts = await made.ids("Contact")
        made.update("Contact", contacts, {"Phone": "7"})
        for contact in contacts:
            await made.until_value("Contact", contact, "Phone", "7")
        changes = await made.changes()
        assert [c.id for c in changes] == contacts
        assert len({c.commit for c in changes}) == 1
        assert len({c.applied_ms for c in changes}) == 1


async def test_trap_07_enriched_events_share_one_replay_id(org: DevOrg, copy: Making) -> None:
    """A channel with enriched fields takes a merged event apart: three events, one position, none is a duplicate."""
    org.ctx.bus.define_channel("Sales__chn", ["Contact"], {"Contact": ["LastName"]})
    async with copy(wanted=CONTACTS, channel=ENRICHED) as made:
        contacts = await made.ids("Contact")
        made.update("Contact", contacts, {"Phone": "7"})
        for contact in contacts:
            await made.until_value("Contact", contact, "Phone", "7")
        assert [(c.id, c.changed) for c in await made.changes()] == [
            (contact, ("LastModifiedDate", "Phone")) for contact in contacts
        ]
        assert made.inbound.stream_state.duplicates == 0


async def test_trap_07_one_of_them_again_is_a_duplicate(org: DevOrg, copy: Making, transport: str) -> None:
    """The same event for the same record a second time: no change, no version."""
    async with copy(wanted=CONTACTS) as made:
        contacts = await made.ids("Contact")
        org.ctx.faults.add(f"{transport}:deliver", duplicate=True, count=None)
        made.update("Contact", contacts, {"Phone": "7"})
        await until(lambda: made.inbound.stream_state.duplicates == len(contacts))
        assert [c.version for c in await made.changes()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "ids"), [("UPDATE", "001*"), ("GAP_OVERFLOW", "000000000000000AAA")], ids=["wildcard", "overflow"]
)
async def test_trap_07_ids_that_stand_for_every_record(org: DevOrg, copy: Making, kind: str, ids: str) -> None:
    """They have that object compared, and only that one."""
    async with copy() as made:
        account, contact = (await made.ids("Account"))[0], (await made.ids("Contact"))[0]
        made.update("Account", account, {"Phone": "7"}, announce=False)
        made.update("Contact", contact, {"Phone": "7"}, announce=False)
        emitted(org, "Account", kind, ids)
        told = await made.until_told("Account closed")
        assert told == ["Account open whole_object_event 0", "Account closed whole_object_event 1"]
        assert await made.value("Account", account, "Phone") == "7"
        assert await made.value("Contact", contact, "Phone") == "0"
        assert [r.objects for r in made.rounds if r.kind == "reconcile"] == [("Account",)]


# 8


async def test_trap_08_absent_is_unchanged_and_null_is_empty(copy: Making) -> None:
    """An update tells what changed; a field set to empty comes as null, in the row and in `after`."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": None, "Email": "a@example.com"})
        await made.until_value("Contact", contact, "Email", "a@example.com")
        [change] = await made.changes(contact)
        assert (change.before or {})["Phone"] == "0"
        assert (change.after or {"Phone": "missing"})["Phone"] is None
        row = await made.row("Contact", contact)
        assert row is not None
        assert (row.values["Phone"], row.values["MailingCity"], row.values["FirstName"]) == (None, "Bergen", "Jane")


async def test_trap_08_an_undelete_replaces_the_row(copy: Making) -> None:
    """It lists the fields that are not empty: what the row still has besides is empty in the org."""
    async with copy(wanted=CONTACTS, jobs=("stream", "load")) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": None, "MailingCity": None}, announce=False)
        made.write(lambda t: t.delete("Contact", contact))
        made.write(lambda t: t.undelete("Contact", contact))
        await made.until_changes(contact, 2)
        row = await made.row("Contact", contact)
        assert row is not None
        assert row.deleted_ms is None
        assert (row.values["Phone"], row.values["MailingCity"], row.values["MailingStreet"]) == (
            None,
            None,
            "1 Quay Rd",
        )
        undone = (await made.changes(contact))[-1]
        assert undone.operation is Operation.UNDELETE
        assert undone.after == undone.record
        assert "Phone" not in undone.changed


# 9


async def test_trap_09_a_part_of_a_compound_leaves_the_other_parts(copy: Making) -> None:
    """`Name` and the address come nested and partial; the columns are those of REST, and `Name` is composed anew."""
    async with copy(wanted=CONTACTS, jobs=("stream", "load")) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"FirstName": "Maren"})
        made.update("Contact", contact, {"MailingCity": "Oslo"})
        await made.until_value("Contact", contact, "MailingCity", "Oslo")
        row = await made.row("Contact", contact)
        assert row is not None
        told = {name: row.values[name] for name in ("FirstName", "LastName", "Name", "MailingCity", "MailingStreet")}
        assert told == {
            "FirstName": "Maren", "LastName": "Doe 0", "Name": "Maren Doe 0",
            "MailingCity": "Oslo", "MailingStreet": "1 Quay Rd",
        }  # fmt: skip
        assert await made.difference() == {}


async def test_trap_09_a_name_that_cannot_be_composed_is_read(org: DevOrg, copy: Making) -> None:
    """Where the parts do not compose the stored name, the record is read instead of guessed."""
    async with copy(wanted={"Contact": ("FirstName", "Name", "Phone")}) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"FirstName": "Maren"})
        await made.until_value("Contact", contact, "Name", "Maren Doe 0")
        assert made.calls()["repair"] == 1
        assert not org.ctx.faults.in_force()


# 10


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_trap_10_a_diff_is_applied_to_the_stored_text(org: DevOrg, copy: Making, newline: str) -> None:
    """With the line ends of the original, checked by its hash; the row never holds the diff itself."""
    old, new = LONG.replace("\n", newline), LONG.replace("\n", newline).replace("Row 07", "Row 70")
    async with copy(wanted=CONTACTS, jobs=("stream", "load")) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Description": old})
        made.update("Contact", contact, {"Description": new})
        await made.until_value("Contact", contact, "Description", new)
        assert b'"diff"' in bytes(_newest_event(org))
        assert made.inbound.stream_state.quarantined == 0


async def test_trap_10_a_diff_of_another_base_is_not_applied(org: DevOrg, copy: Making) -> None:
    """The hash does not fit: the record is read, the event is kept in quarantine and settled, the stream goes on."""
    async with copy(wanted=CONTACTS) as made:
        contact, other, _ = await made.ids("Contact")
        made.update("Contact", contact, {"Description": LONG})
        await made.until_value("Contact", contact, "Description", LONG)
        unseen = LONG.replace("Row 20", "Row 02")
        made.update("Contact", contact, {"Description": unseen}, announce=False)
        made.update("Contact", contact, {"Description": unseen.replace("Row 07", "Row 70")})
        assert b'"diff"' in bytes(_newest_event(org))
        made.update("Contact", other, {"Phone": "after it"})
        await made.until_value("Contact", contact, "Description", unseen.replace("Row 07", "Row 70"))
        await made.until_value("Contact", other, "Phone", "after it")
        assert made.inbound.stream_state.quarantined == 1
        assert (await made.database.run(lambda unit: unit.queue_depths()))["quarantine"] == 0


def _newest_event(org: DevOrg) -> bytes:
    row = org.ctx.database.connection.execute("SELECT payload FROM event_log ORDER BY replay_id DESC LIMIT 1")
    payload: bytes = row.fetchone()["payload"]
    return payload


# 11


@pytest.mark.parametrize("kind", ["GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE"])
async def test_trap_11_a_gap_event_has_its_records_read(org: DevOrg, copy: Making, kind: str) -> None:
    """It tells that something happened; what, the record itself tells."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        if kind == "GAP_CREATE":
            contact = made.write(lambda t: t.create("Contact", {"LastName": "Unseen"}), announce=False)
        if kind == "GAP_UPDATE":
            made.update("Contact", contact, {"Phone": "11"}, announce=False)
        if kind in ("GAP_DELETE", "GAP_UNDELETE"):
            made.write(lambda t: t.delete("Contact", contact), announce=kind == "GAP_UNDELETE")
        if kind == "GAP_UNDELETE":
            await made.until_changes(contact, 1)
            made.write(lambda t: t.undelete("Contact", contact), announce=False)
        before = len(await made.changes(contact))
        emitted(org, "Contact", kind, contact)
        change = (await made.until_changes(contact, before + 1))[-1]
        assert (change.operation, change.origin) == (kind.removeprefix("GAP_").lower(), Origin.REPAIR)
        assert await made.difference() == {}


async def test_trap_11_a_gap_delete_of_a_record_that_lives(org: DevOrg, copy: Making) -> None:
    """It was restored meanwhile, or never deleted: the record decides."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        emitted(org, "Contact", "GAP_DELETE", contact)
        await until(lambda: made.calls().get("repair", 0) == 1)
        assert await made.difference() == {}
        assert await made.changes() == []


async def test_trap_11_two_thousand_records_of_a_gap_are_one_call(org: DevOrg, copy: Making) -> None:
    """Gap events are answered in batches of up to 2,000 ids, not one by one."""
    async with copy(wanted={"Contact": ("LastName", "Phone")}, bulk_threshold=10**6) as made:
        with org.ctx.org.transaction(INTEGRATION_USER_ID, "", announce=False) as t:
            ids = [t.create("Contact", {"LastName": f"Gap {n}"}) for n in range(2000)]
        for at in range(0, 2000, 500):
            emitted(org, "Contact", "GAP_CREATE", *ids[at : at + 500])

        async def all_here() -> bool:
            return len(await made.ids("Contact")) == 2003

        await until(all_here)
        assert made.calls()["repair"] <= 2  # one, or two where the first went off before the last event had come


async def test_trap_11_an_overflow_finds_deletions_too(org: DevOrg, copy: Making) -> None:
    """Everything that the event may stand for: an edit, a deletion and a new record."""
    async with copy(wanted=CONTACTS) as made:
        edited, deleted, _ = await made.ids("Contact")
        made.update("Contact", edited, {"Phone": "11"}, announce=False)
        made.write(lambda t: t.delete("Contact", deleted), announce=False)
        made.write(lambda t: t.create("Contact", {"LastName": "New"}), announce=False)
        emitted(org, "Contact", "GAP_OVERFLOW")
        assert await made.until_told("Contact closed") == [
            "Contact open whole_object_event 0",
            "Contact closed whole_object_event 3",
        ]
        assert await made.difference() == {}


async def test_trap_11_a_real_overflow(org: DevOrg, copy: Making) -> None:
    """A transaction beyond the limit: its first changes come as events, the rest as one overflow, and all arrive."""
    org.ctx.event_options.overflow_changes = 5
    async with copy(wanted=CONTACTS) as made:
        made.write(lambda t: [t.create("Contact", {"LastName": f"Much {n}"}) for n in range(12)])
        await made.until_told("Contact closed whole_object_event 7")
        assert await made.difference() == {}


# 12


async def _echoed(bench: OrgBench, made: Copy, contact: str) -> list[tuple[str, str | None, tuple[str, ...]]]:
    await bench.give("Contact", "update", {"command_id": "ours", "id": contact, "fields": {"Phone": "12"}})
    await bench.send_all()
    await made.until_value("Contact", contact, "Phone", "12")
    return [(c.origin, c.command_id, c.changed) for c in await made.changes(contact)]


async def test_trap_12_a_triggers_change_under_our_origin_is_published(org: DevOrg, copy: Making) -> None:
    """One event, written under our name: what we sent is the command's echo, what a flow added is a change besides."""
    org.ctx.org.rules.updates.append(
        FieldUpdate(object="Contact", values={"MailingCity": "Flow"}, when=Condition(field="Phone", value="12"))
    )
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        assert await _echoed(bench, made, contact) == [
            (Origin.COMMAND, "ours", ("LastModifiedDate", "Phone")),
            (Origin.STREAM, None, ("MailingCity",)),
        ]


async def test_trap_12_a_value_that_the_org_changed_is_no_echo(org: DevOrg, copy: Making) -> None:
    """A flow wrote another value into the field that we wrote: under our origin, and yet not what we sent."""
    org.ctx.org.rules.updates.append(
        FieldUpdate(object="Contact", values={"Phone": "flow"}, when=Condition(field="Phone", value="12"))
    )
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        await bench.give("Contact", "update", {"command_id": "ours", "id": contact, "fields": {"Phone": "12"}})
        await bench.send_all()
        [change] = await made.until_changes(contact, 1)
        assert (change.origin, change.command_id, (change.after or {})["Phone"]) == (Origin.STREAM, None, "flow")


async def test_trap_12_an_echo_is_known_without_an_origin(org: DevOrg, copy: Making) -> None:
    """A gap event has no origin, and a composite write may have none of ours: the values tell."""
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        org.ctx.event_options.max_event_bytes = 1
        await bench.give("Contact", "update", {"command_id": "ours", "id": contact, "fields": {"Phone": "12"}})
        await bench.send_all()
        [change] = await made.until_changes(contact, 1)
        assert (change.origin, change.command_id) == (Origin.COMMAND, "ours")
        assert made.calls()[Purpose.REPAIR.value] == 1
