"""Traps 13 to 15 and 20: polls, deletions, states that overtake one another, and what is known of the schema."""

from typing import Any

import pytest

from connector.devorg.events.changes import event_header
from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from connector.model.change import Operation, Origin
from connector.model.command import CommandStatus
from connector.model.times import to_ms
from tests.copies import ORIGIN, Copy
from tests.orgcommands import bench_over
from tests.orgs import now_ms
from tests.traps.scene import CONTACTS, FIELDS, Making, stand_still
from tests.waiting import until

HOUR_S = 3600


# 13


async def test_trap_13_a_row_that_was_stamped_early_and_became_visible_late(org: DevOrg, copy: Making) -> None:
    """A long transaction: its row has an older stamp than rows that were polled before it could be seen."""
    async with copy(wanted=CONTACTS, streaming=False, jobs=("load",)) as made:
        slow, quick, _ = await made.ids("Contact")
        with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN, hold=True) as held:
            held.update("Contact", slow, {"Phone": "slow"})
        org.ctx.org.advance(240)
        made.update("Contact", quick, {"Phone": "quick"})
        await made.inbound.sync()
        assert (await made.value("Contact", quick, "Phone"), await made.value("Contact", slow, "Phone")) == (
            "quick",
            "0",
        )
        org.ctx.org.release(held.key)
        await made.inbound.sync()
        assert await made.value("Contact", slow, "Phone") == "slow"
        assert await made.difference() == {}


async def test_trap_13_edits_of_the_second_that_was_polled_last(org: DevOrg, copy: Making) -> None:
    """Stamps have whole seconds: what is written in the mark's own second behind the poll is found by the next one."""
    async with copy(wanted=CONTACTS, streaming=False, jobs=("load",)) as made:
        first, second, third = await made.ids("Contact")
        stand_still(org)
        made.update("Contact", first, {"Phone": "13"})
        await made.inbound.sync()
        with org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN) as t:
            t.update("Contact", second, {"Phone": "13"})
            t.update("Contact", third, {"Phone": "13"})
        stamps = {org.ctx.org.get("Contact", i)["SystemModstamp"] for i in (first, second, third)}  # type: ignore[index]
        assert len(stamps) == 1
        await made.inbound.sync()
        assert await made.difference() == {}
        await made.inbound.sync()
        assert len(await made.changes()) == 3


@pytest.mark.parametrize("hours", [-10, 10])
async def test_trap_13_the_mark_is_of_the_orgs_clock(org: DevOrg, copy: Making, hours: int) -> None:
    """A local clock that is hours off moves no window."""
    async with copy(
        wanted=CONTACTS, streaming=False, jobs=("load",), clock_ms=lambda: now_ms() + hours * HOUR_S * 1000
    ) as made:
        contacts = await made.ids("Contact")
        for number, contact in enumerate(contacts):
            made.update("Contact", contact, {"Phone": f"13{number}"})
            await made.inbound.sync()
            assert await made.difference() == {}
            org.ctx.org.advance(600)
        assert len(await made.changes()) == 3


# 14


async def test_trap_14_deletions_are_found_without_a_stream(copy: Making) -> None:
    """By `queryAll`: deleted records, and the losers of a merge; and what was re-parented with it."""
    async with copy(streaming=False, jobs=("load",)) as made:
        contact, accounts = (await made.ids("Contact"))[0], await made.ids("Account")
        made.write(lambda t: t.delete("Contact", contact))
        made.write(lambda t: t.merge("Account", accounts[1], [accounts[2]]))
        await made.inbound.sync()
        assert await made.difference() == {}
        deleted = {c.id for c in await made.changes() if c.operation is Operation.DELETE}
        assert deleted == {contact, accounts[2]}


async def test_trap_14_a_purge_tells_nobody_and_is_found_by_its_id(org: DevOrg, copy: Making) -> None:
    """No event, no query: a comparison finds it, at one call for the object and one for the missed records."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.write(lambda t: t.purge("Contact", contact), announce=False)
        await made.inbound.sync()
        assert list(await made.difference()) == [f"Contact/{contact}"]
        asked = org.ctx.usage.api.used()
        [verified] = await made.inbound.verify(["Contact"])
        assert (verified.drift, verified.repaired, verified.held) == (1, 1, 0)
        assert org.ctx.usage.api.used() - asked <= 3  # one of them for the description
        assert await made.difference() == {}


async def test_trap_14_the_loser_of_a_merge_by_the_stream(copy: Making) -> None:
    """Deleted, and its children with the winner, before or behind it, but never left pointing at nothing."""
    async with copy(jobs=("stream", "load", "repair")) as made:
        accounts = await made.ids("Account")
        made.write(lambda t: t.merge("Account", accounts[0], [accounts[1], accounts[2]]))
        await made.settled(but={"LastModifiedDate"})
        assert {row["AccountId"] for row in (await made.rows("Contact")).values()} == {accounts[0]}
        assert {row["AccountId"] for row in (await made.rows("Opportunity")).values()} == {accounts[0]}
        assert await made.ids("Account") == [accounts[0]]


# 15


async def test_trap_15_late_events_do_not_turn_a_polled_record_back(org: DevOrg, copy: Making) -> None:
    """The poller was faster than the stream: what comes late is in the row already."""
    async with copy(wanted=CONTACTS, jobs=("stream", "load", "repair")) as made:
        contact, *_ = await made.ids("Contact")
        org.ctx.settings.stream_stalled = True
        for phone in ("15", "16", "17"):
            made.update("Contact", contact, {"Phone": phone})
            org.ctx.org.advance(1)
        await made.inbound.sync()
        assert await made.value("Contact", contact, "Phone") == "17"
        versions = len(await made.changes())
        org.ctx.settings.stream_stalled = False
        org.ctx.bus.wake()
        await until(lambda: made.inbound.stream_state.events == 3)
        assert await made.value("Contact", contact, "Phone") == "17"
        assert len(await made.changes()) == versions == 1


async def test_trap_15_an_edit_in_the_second_in_which_it_was_read(org: DevOrg, copy: Making) -> None:
    """The stamps cannot tell which is the later: the record is read again, and ends right without a further edit."""
    async with copy(wanted=CONTACTS, jobs=("stream", "load", "repair")) as made:
        contact, *_ = await made.ids("Contact")
        org.ctx.settings.stream_stalled = True
        stand_still(org)
        made.update("Contact", contact, {"Phone": "15"})
        await made.inbound.sync()
        made.update("Contact", contact, {"Phone": "16"})
        made.update("Contact", contact, {"Phone": "15"})
        made.update("Contact", contact, {"Phone": "17"})
        org.ctx.settings.stream_stalled = False
        org.ctx.bus.wake()
        await made.until_value("Contact", contact, "Phone", "17")
        await until(lambda: made.inbound.stream_state.events == 4)
        await made.settled()
        assert await made.value("Contact", contact, "Phone") == "17"


async def test_trap_15_a_deletion_wins_and_an_undelete_revives(org: DevOrg, copy: Making) -> None:
    """In one second and in the stream's order, though a deletion has no stamp of its own; then by poll."""
    async with copy(wanted=CONTACTS) as made:
        contact, other, _ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "15"})
        made.write(lambda t: t.delete("Contact", contact))
        made.write(lambda t: t.undelete("Contact", contact))
        made.write(lambda t: t.delete("Contact", contact))
        made.write(lambda t: t.undelete("Contact", contact))
        changes = await made.until_changes(contact, 5)
        assert [c.operation for c in changes] == ["update", "delete", "undelete", "delete", "undelete"]
        made.write(lambda t: t.delete("Contact", other), announce=False)
        await made.inbound.sync()
        made.write(lambda t: t.undelete("Contact", other), announce=False)
        await made.inbound.sync()
        assert [c.operation for c in await made.changes(other)] == ["delete", "undelete"]
        assert {c.origin for c in await made.changes(other)} == {Origin.POLL}
        assert await made.difference() == {}
        assert not org.ctx.faults.in_force()


# 20


def emitted(made: Copy, record_id: str, **body: Any) -> None:
    """An event as this part of the org would not write it."""
    header = event_header(
        entity="Contact", record_ids=[record_id], change_type="UPDATE", transaction_key=f"emitted-{body}",
        commit_ms=made.org.ctx.clock.now_ms(), commit_number=1, user_id=INTEGRATION_USER_ID,
        changed_fields=list(body),
    )  # fmt: skip
    made.org.ctx.bus.emit({"ChangeEventHeader": header, **body})


async def test_trap_20_ids_of_fifteen_characters(org: DevOrg, copy: Making) -> None:
    """In an event and in a command: one record, kept by its long id."""
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, other, _ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "20"}, announce=False)
        emitted(made, contact[:15], Phone="20", LastModifiedDate=bench.row("Contact", contact)["LastModifiedDate"])
        await made.until_value("Contact", contact, "Phone", "20")
        await bench.give("Contact", "update", {"command_id": "short", "id": other[:15], "fields": {"Phone": "21"}})
        await bench.send_all()
        await made.until_value("Contact", other, "Phone", "21")
        assert (await bench.command("short")).record_id == other
        assert await made.difference() == {}


@pytest.mark.parametrize("form", ["Z", "+0000", "milliseconds"])
async def test_trap_20_every_form_of_an_instant(org: DevOrg, copy: Making, form: str) -> None:
    """Events say `Z`, REST says `+0000` without a colon, and a number of milliseconds is taken as well."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "20"}, announce=False)
        told = org.ctx.org.get("Contact", contact)
        assert told is not None
        spelt: Any = told["LastModifiedDate"]
        if form == "+0000":
            spelt = spelt.replace("Z", "+0000")
        if form == "milliseconds":
            spelt = to_ms(spelt)
        emitted(made, contact, Phone="20", LastModifiedDate=spelt)
        await made.until_value("Contact", contact, "Phone", "20")
        assert await made.difference() == {}
        assert made.inbound.stream_state.quarantined == 0


async def test_trap_20_picklists_take_any_text(org: DevOrg, copy: Making) -> None:
    """Stage, status and industry are not restricted: what the org has is taken over, what a service sends goes out."""
    async with copy() as made, bench_over(org, made) as bench:
        deal, lead, account = [(await made.ids(n))[0] for n in ("Opportunity", "Lead", "Account")]
        made.update("Opportunity", deal, {"StageName": "Quite Another Stage"})
        made.update("Lead", lead, {"Status": "Quite Another Status"})
        await made.until_value("Opportunity", deal, "StageName", "Quite Another Stage")
        await made.until_value("Lead", lead, "Status", "Quite Another Status")
        fields = {"Industry": "Quite Another Industry"}
        await bench.give("Account", "update", {"command_id": "any", "id": account, "fields": fields})
        await bench.send_all()
        assert (await bench.command("any")).status is CommandStatus.SUCCEEDED
        await made.until_value("Account", account, "Industry", "Quite Another Industry")


async def test_trap_20_a_field_that_is_gone_has_the_object_described_again(org: DevOrg, copy: Making) -> None:
    """The poll is refused with INVALID_FIELD: the description is read, the column goes, the poll goes on."""
    org.ctx.schema.add_field("Contact", {"name": "Region__c", "type": "string", "length": 40})
    async with copy(wanted={"Contact": "all"}) as made:
        contact, *_ = await made.ids("Contact")
        assert "Region__c" in made.inbound.catalog.specs["Contact"].by_name
        org.ctx.schema.remove_field("Contact", "Region__c")
        made.update("Contact", contact, {"Phone": "20"}, announce=False)
        made.inbound.poller.poll_soon()
        await made.until_value("Contact", contact, "Phone", "20")
        assert "Region__c" not in made.inbound.catalog.specs["Contact"].by_name


async def test_trap_20_a_field_that_came_is_taken_over_with_its_first_event(org: DevOrg, copy: Making) -> None:
    """The event names a field that the last description does not know: it is read again, the event applied."""
    async with copy(wanted={"Contact": "all"}) as made:
        contact, *_ = await made.ids("Contact")
        org.ctx.schema.add_field("Contact", {"name": "Region__c", "type": "string", "length": 40})
        made.update("Contact", contact, {"Region__c": "Nord"})
        await made.until_value("Contact", contact, "Region__c", "Nord")
        [change] = await made.changes(contact)
        assert (change.origin, (change.after or {})["Region__c"]) == (Origin.STREAM, "Nord")
        assert made.inbound.stream_state.quarantined == 0


async def test_trap_20_positions_in_bitmaps_are_nowhere_relied_on(copy: Making) -> None:
    """Bitmaps are of the Pub/Sub API alone; CometD names its fields, and a list of numbers is not taken for names."""
    async with copy(wanted={"Contact": FIELDS["Contact"]}) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "20"})
        await made.until_value("Contact", contact, "Phone", "20")
        before = made.inbound.stream_state.quarantined
        emitted(made, contact, **{"0x400800": None})
        await until(lambda: made.inbound.stream_state.events == 2)
        await made.settled()
        assert made.inbound.stream_state.quarantined == before


@pytest.mark.parametrize("transport", ["pubsub"])
async def test_trap_20_positions_in_bitmaps_are_those_of_the_event_s_own_schema(org: DevOrg, copy: Making) -> None:
    """A field before the one that changed has gone: what was told before is read by the schema of its time."""
    async with copy(wanted={"Contact": ("Fax", "LastName", "MailingCity", "MobilePhone", "Phone")}) as made:
        contact, other, _ = await made.ids("Contact")
        org.ctx.settings.stream_stalled = True
        made.update("Contact", contact, {"MobilePhone": "old", "MailingCity": None})
        org.ctx.schema.remove_field("Contact", "Fax")
        made.update("Contact", other, {"MobilePhone": "new", "Phone": None})
        org.ctx.settings.stream_stalled = False
        await made.until_value("Contact", other, "MobilePhone", "new")
        [first], [second] = await made.changes(contact), await made.changes(other)
        assert first.after == {"MobilePhone": "old", "MailingCity": None}
        assert second.after == {"MobilePhone": "new", "Phone": None}
        assert made.inbound.stream_state.quarantined == 0


@pytest.mark.parametrize("transport", ["pubsub"])
async def test_trap_20_members_that_some_orgs_have(org: DevOrg, copy: Making) -> None:
    """An internal part of every address shifts the parts behind it."""
    org.ctx.event_options.internal_parts = True
    async with copy(wanted={"Contact": ("LastName", "MailingCity", "MailingGeocodeAccuracy", "Phone")}) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"MailingGeocodeAccuracy": "Street"})
        made.update("Contact", contact, {"MailingGeocodeAccuracy": None, "MailingCity": "Oslo"})
        await made.until_value("Contact", contact, "MailingCity", "Oslo")
        assert [c.changed for c in await made.changes(contact)] == [
            ("MailingGeocodeAccuracy",), ("MailingCity", "MailingGeocodeAccuracy"),
        ]  # fmt: skip
        assert made.inbound.stream_state.quarantined == 0
