"""What Salesforce's documents leave open, by its number in the reference's table: every variant is accepted."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from connector.devorg.objects.residents import FIRST_EDITOR_ID, INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from connector.errors import ConnectorError, OrgThrottled, TransientError
from connector.inbound.decode import NOT_STREAMED
from connector.model.change import Operation, Origin
from connector.model.command import CommandStatus
from tests.copies import Copy
from tests.orgcommands import bench_over
from tests.orgs import org_session
from tests.traps.scene import CONTACTS, LONG, Making
from tests.waiting import until

BOTH = pytest.mark.parametrize("variant", [True, False])
OVER_PUBSUB = pytest.mark.parametrize("transport", ["pubsub"])
STREAM_ONLY = ("stream", "load")
SALES = "/data/Sales__chn"


async def edited(made: Copy) -> None:
    """Edits of every kind, then replica and org are equal: by events alone, with nothing set aside."""
    contacts, deals = await made.ids("Contact"), await made.ids("Opportunity")
    first, second, third = contacts
    made.update("Contact", first, {"FirstName": "Maren"})
    made.update("Contact", first, {"FirstName": None, "Salutation": "Dr."})
    made.update("Contact", second, {"MailingCity": None, "Phone": None, "Birthdate": "2000-02-29"})
    made.update("Contact", second, {"MailingStreet": None, "Birthdate": None, "Email": "a@example.com"})
    made.update("Contact", third, {"Description": LONG}, {"MailingCity": "Oslo"})
    made.update("Contact", third, {"Description": LONG.replace("Row 07", "Row 70")})
    made.update("Contact", contacts, {"Phone": "3"})
    made.update("Opportunity", deals[0], {"CloseDate": "2027-01-31", "Amount": None})
    made.write(lambda t: t.create("Contact", {"LastName": "Ny", "MailingCity": "Bø", "Birthdate": "1999-12-31"}))
    made.write(lambda t: t.delete("Contact", first))
    made.write(lambda t: t.undelete("Contact", first))
    await made.settled(but=NOT_STREAMED)
    assert made.inbound.stream_state.quarantined == 0
    assert (await made.database.run(lambda unit: unit.queue_depths()))["dirty"] == 0


@BOTH
async def test_open_point_01_changed_fields(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """The header names the changed fields, or it does not."""
    org.ctx.event_options.changed_fields = variant
    async with copy(jobs=STREAM_ONLY) as made:
        await edited(made)


@BOTH
async def test_open_point_02_event_uuid(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """`EventUuid` and `EventApiName` stand beside the replay id, or not."""
    org.ctx.event_options.event_uuid = variant
    async with copy(jobs=STREAM_ONLY) as made:
        await edited(made)


@BOTH
async def test_open_point_03_a_cleared_part_of_a_compound(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """Null inside the compound, or the compound itself is null: the other parts stay either way."""
    org.ctx.event_options.nested_nulls = variant
    async with copy(jobs=STREAM_ONLY) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"MailingCity": None})
        changes = await made.until_changes(contact, 1)
        assert set(changes[0].changed) - NOT_STREAMED == {"LastModifiedDate", "MailingCity"}
        assert await made.value("Contact", contact, "MailingStreet") == "1 Quay Rd"
        await edited(made)


@BOTH
async def test_open_point_03_and_01_together(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """A compound that is null as a whole, and no list says which part was meant: the record is right in the end."""
    org.ctx.event_options.nested_nulls = False
    org.ctx.event_options.changed_fields = variant
    async with copy(jobs=("stream", "load", "repair")) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"MailingCity": None})
        [change] = await made.until_changes(contact, 1)
        assert "MailingStreet" not in change.changed
        await made.settled(but=NOT_STREAMED)
        assert await made.value("Contact", contact, "MailingStreet") == "1 Quay Rd"


@OVER_PUBSUB
async def test_open_point_03_and_01_are_none_of_the_pubsub_apis(org: DevOrg, copy: Making) -> None:
    """Its bitmaps name the part that was cleared, whatever the Streaming API does: nothing need be read again."""
    org.ctx.event_options.nested_nulls = org.ctx.event_options.changed_fields = False
    async with copy(jobs=STREAM_ONLY) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"MailingCity": None})
        [change] = await made.until_changes(contact, 1)
        assert set(change.changed) - NOT_STREAMED == {"LastModifiedDate", "MailingCity"}
        await edited(made)


@BOTH
async def test_open_point_04_partial_names(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """An update's `Name` holds the changed parts, or all of them."""
    org.ctx.event_options.partial_names = variant
    async with copy(jobs=STREAM_ONLY) as made:
        await edited(made)


@BOTH
async def test_open_point_05_dates(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """A date is text, or milliseconds since the epoch."""
    org.ctx.event_options.text_dates = variant
    async with copy(jobs=STREAM_ONLY) as made:
        await edited(made)


@BOTH
async def test_open_point_06_formula_fields(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """In events, or only in what is read: the next poll brings it."""
    formula = {"name": "Score__c", "type": "double", "calculated": True, "calculatedFormula": "1", "precision": 9}
    org.ctx.schema.add_field("Contact", formula)
    org.ctx.event_options.formula_fields = variant
    async with copy(wanted={"Contact": (*CONTACTS["Contact"], "Score__c")}) as made:
        contact, *_ = await made.ids("Contact")
        with org.ctx.org.transaction(INTEGRATION_USER_ID, "") as t:
            t.update("Contact", contact, {"Phone": "6"})
            t.recalculate("Contact", contact, {"Score__c": 6})
        await made.until_value("Contact", contact, "Phone", "6")
        assert await made.value("Contact", contact, "Score__c") == (6 if variant else None)
        await made.inbound.sync()
        assert await made.difference() == {}


@BOTH
async def test_open_point_07_the_update_of_a_converted_lead(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """It tells `LastModifiedDate`, or it does not: then the date is read."""
    org.ctx.event_options.conversion_modified_date = variant
    async with copy() as made:
        lead, *_ = await made.ids("Lead")
        made.write(lambda t: t.convert_lead(lead))
        await made.until_value("Lead", lead, "IsConverted", True)  # noqa: FBT003 - the value
        await made.settled(but=NOT_STREAMED)
        assert made.calls().get("repair", 0) == (0 if variant else 1)


@BOTH
async def test_open_point_08_made_and_deleted_in_one_transaction(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """It gives a CREATE and a DELETE, or nothing: it is not there in the end, and nothing stays in doubt."""
    org.ctx.org.options.insert_delete_events = variant
    async with copy() as made:

        def work(t: Any) -> str:
            record: str = t.create("Contact", {"LastName": "Brief"})
            t.delete("Contact", record)
            return record

        brief = made.write(work)
        marker, *_ = await made.ids("Lead")
        made.update("Lead", marker, {"Company": "Marker"})
        await made.until_value("Lead", marker, "Company", "Marker")
        assert [c.operation for c in await made.changes(brief)] == (["create", "delete"] if variant else [])
        await made.inbound.sync()
        assert await made.difference() == {}
        assert (await made.database.run(lambda unit: unit.queue_depths()))["dirty"] == 0


@BOTH
async def test_open_point_09_lookups_that_a_deletion_clears(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """The children have events, or nobody tells: the next poll does."""
    org.ctx.event_options.cleared_lookup_events = variant
    lookup = {"name": "Sponsor__c", "type": "reference", "referenceTo": ["Account"], "relationshipName": "Sponsor__r"}
    org.ctx.schema.add_field("Lead", lookup)
    async with copy(wanted={"Account": ("Name",), "Lead": ("LastName", "Sponsor__c")}) as made:
        account, lead = (await made.ids("Account"))[0], (await made.ids("Lead"))[0]
        made.update("Lead", lead, {"Sponsor__c": account})
        await made.until_value("Lead", lead, "Sponsor__c", account)
        org.ctx.org.advance(1)
        made.write(lambda t: t.delete("Account", account))
        await made.until_changes(account, 1)
        if variant:
            await made.until_value("Lead", lead, "Sponsor__c", None)
        else:
            assert await made.value("Lead", lead, "Sponsor__c") == account
        await made.inbound.sync()
        assert await made.difference() == {}


@BOTH
async def test_open_point_09_children_that_a_merge_moves(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """The same for those that go to the winner."""
    org.ctx.event_options.reparented_events = variant
    async with copy() as made:
        winner, loser, _ = await made.ids("Account")
        made.write(lambda t: t.merge("Account", winner, [loser]))
        await made.until_changes(loser, 1)
        moved = [r["Id"] for r in _children(org, winner)]
        assert len(moved) == 4
        if variant:
            await made.until_value("Contact", moved[1], "AccountId", winner)
        await made.inbound.sync()
        assert await made.difference() == {}
        assert {c.origin for c in await made.changes(moved[1])} == {Origin.STREAM if variant else Origin.POLL}


def _children(org: DevOrg, account: str) -> list[Any]:
    found = [(n, i) for n in ("Contact", "Opportunity") for i in org.ctx.org.find(n, "AccountId", account)]
    return [org.ctx.org.get(name, record) for name, record in found]


@BOTH
async def test_open_point_09_owners_that_follow_an_owner(copy: Making, *, variant: bool) -> None:
    """An account changes hands and its children with it: each with an event of its own, or silently."""
    async with copy() as made:
        account, contact = (await made.ids("Account"))[0], (await made.ids("Contact"))[0]
        made.update("Account", account, {"OwnerId": FIRST_EDITOR_ID})
        made.update("Contact", contact, {"OwnerId": FIRST_EDITOR_ID}, announce=variant)
        await made.until_value("Account", account, "OwnerId", FIRST_EDITOR_ID)
        await made.inbound.sync()
        assert await made.value("Contact", contact, "OwnerId") == FIRST_EDITOR_ID
        assert await made.difference() == {}


@BOTH
async def test_open_point_10_gap_events_on_a_channel_that_filters(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """They are delivered, or not; a record that leaves the filter tells nobody anyway: the poller finds both."""
    org.ctx.settings.gaps_on_filtered_channels = variant
    org.ctx.bus.define_channel("Sales__chn", ["Contact"], filters={"Contact": "MailingCity = 'Bergen'"})
    async with copy(wanted=CONTACTS, channel=SALES) as made:
        inside, gap, leaving = await made.ids("Contact")
        made.update("Contact", leaving, {"MailingCity": "Oslo"})
        made.update("Contact", gap, {"Phone": "10"}, announce=False)
        org.ctx.bus.emit_without_body("Contact", "GAP_UPDATE", [gap])
        made.update("Contact", inside, {"Phone": "10"})
        await made.until_value("Contact", inside, "Phone", "10")
        if variant:
            await made.until_value("Contact", gap, "Phone", "10")
        assert await made.value("Contact", leaving, "MailingCity") == "Bergen"
        assert made.inbound.stream_state.events == 1 + variant
        await made.inbound.sync()
        assert await made.difference() == {}


@BOTH
async def test_open_point_10_overflow_on_a_channel_that_filters(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """The same for an event about the whole object; without it, the daily comparison finds what was purged."""
    org.ctx.settings.gaps_on_filtered_channels = variant
    org.ctx.bus.define_channel("Sales__chn", ["Contact"], filters={"Contact": "MailingCity = 'Bergen'"})
    async with copy(wanted=CONTACTS, channel=SALES) as made:
        contact, other, _ = await made.ids("Contact")
        made.write(lambda t: t.purge("Contact", contact), announce=False)
        org.ctx.bus.emit_without_body("Contact", "GAP_OVERFLOW")
        if variant:
            await made.until_told("Contact closed whole_object_event 1")
        else:
            made.update("Contact", other, {"Phone": "10"})
            await made.until_value("Contact", other, "Phone", "10")
            assert await made.hole_messages() == []
            await made.inbound.verify()
        assert await made.difference() == {}


@BOTH
async def test_open_point_11_the_origin_of_composite_writes(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """`Sforce-Call-Options` counts on `/composite`, or it does not: our own echoes are known by their values."""
    org.ctx.settings.composite_client_origin = variant
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contacts = await made.ids("Contact")
        for contact in contacts:
            order = {"command_id": contact, "id": contact, "fields": {"Phone": "11"}}
            await bench.give("Contact", "update", order)
        await bench.send_all()
        assert {"client=" in commit.origin for commit in bench.commits} == {variant}
        for contact in contacts:
            [change] = await made.until_changes(contact, 1)
            assert (change.origin, change.command_id) == (Origin.COMMAND, contact)


@pytest.mark.parametrize(
    "error",
    [
        "400::The channel you requested to subscribe to does not exist {/data/*}",
        "403::Cannot create channel /data/*",
        "404::Unknown channel /data/*",
        "403:denied_by_security_policy:create_denied",
    ],
)
async def test_open_point_12_the_error_of_a_channel_that_is_not_there(org: DevOrg, copy: Making, error: str) -> None:
    """Whatever its code and text: a person is told, the poller stands in."""
    org.ctx.faults.add("cometd:subscribe", error=error, count=None)
    async with copy(wanted=CONTACTS) as made:
        await until(lambda: any(r.kind == "stream" and r.person for r in made.rounds))
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "12"})
        await made.inbound.sync()
        assert await made.difference() == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"session_cookie": "JSESSIONID"},
        {"routing_cookie": "t"},
        {"routing_cookie": "force-stream", "session_cookie": "sid"},
        {"payload_format": False},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
async def test_open_point_12_cookie_names_and_payload_format(
    org: DevOrg, copy: Making, settings: dict[str, Any]
) -> None:
    """Cookies come back by whatever name they were given; what a handshake advertises is not relied on."""
    for name, value in settings.items():
        setattr(org.ctx.settings, name, value)
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        with capture_logs() as logs:
            for phone in ("12", "13"):
                made.update("Contact", contact, {"Phone": phone})
                await made.until_value("Contact", contact, "Phone", phone)
        assert [e["event"] for e in logs if e["event"] == "source.session_ended"] == []
        assert {c.origin for c in await made.changes(contact)} == {Origin.STREAM}


@BOTH
async def test_open_point_13_a_position_of_another_channel(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """Taken, or refused: it is never sent, each channel has its own; what came between is asked for."""
    org.ctx.settings.foreign_replay_ids = variant
    async with copy() as made:
        contact, lead = (await made.ids("Contact"))[0], (await made.ids("Lead"))[0]
        made.update("Lead", lead, {"Company": "Thirteen"})
        await made.until_value("Lead", lead, "Company", "Thirteen")
    made.update("Contact", contact, {"Phone": "13"})
    with capture_logs() as logs:
        async with copy(channel="/data/ContactChangeEvent") as other:
            await other.until_live()
            await other.until_value("Contact", contact, "Phone", "13")
            assert await other.difference() == {}
    assert next(e["replay"] for e in logs if e["event"] == "stream.subscribing") is False
    async with copy() as again:
        await again.until_live()
        assert await again.holes() == []


@BOTH
async def test_open_point_14_my_domain_as_the_audience_of_a_jwt(org: DevOrg, *, variant: bool) -> None:
    """Accepted, or refused: then the assertion is signed once more with the other audience."""
    org.ctx.settings.my_domain_audience = variant
    async with org_session(org, "jwt") as session:
        token = await session.token()
        assert org.ctx.tokens.check(token.value) == INTEGRATION_USER_ID


@OVER_PUBSUB
@BOTH
async def test_open_point_15_tenant_ids_of_the_pubsub_api(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """Of 15 characters taken or refused: ours has 18."""
    org.ctx.settings.short_tenant_ids = variant
    async with copy(jobs=STREAM_ONLY) as made:
        await edited(made)


@OVER_PUBSUB
@BOTH
async def test_open_point_15_the_idle_close_of_the_pubsub_api(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """After 60 or 70 seconds, told early or late that it stands: a stream that always asks is never idle."""
    org.ctx.settings.pubsub_idle_s = 0.6 if variant else 0.7
    org.ctx.settings.pubsub_early_headers = variant
    async with copy(wanted=CONTACTS, jobs=STREAM_ONLY) as made:
        contact, *_ = await made.ids("Contact")
        for value in ("1", "2", "3"):
            await asyncio.sleep(0.7)
            made.update("Contact", contact, {"Phone": value})
            await made.until_value("Contact", contact, "Phone", value)
        assert [r for r in made.rounds if r.kind == "stream" and r.error is not None] == []


@OVER_PUBSUB
@pytest.mark.parametrize(
    "code",
    [
        "subscription.fetch.replayid.corrupted",
        "subscription.fetch.replayid.validation.failed",
        "subscription.fetch.replayid.expired",
    ],
)
async def test_open_point_16_codes_of_a_lost_position(org: DevOrg, copy: Making, code: str) -> None:
    """Whatever the code is called: the hole is told, caught up and closed."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
    made.update("Contact", contact, {"Phone": "2"})
    org.ctx.faults.add("pubsub:subscribe", code=code, message="The Replay ID validation failed.")
    async with copy(wanted=CONTACTS) as again:
        told = await again.until_told("Contact closed replay_id_lost")
        assert told[-1] == "Contact closed replay_id_lost 1"
        assert await again.value("Contact", contact, "Phone") == "2"


@OVER_PUBSUB
@pytest.mark.parametrize("code", ["service.auth.error", "service.unavailable", "subscription.internal.error"])
async def test_open_point_16_codes_that_pass(org: DevOrg, copy: Making, code: str) -> None:
    """A new token, or a new session: nothing is lost, and no hole is told."""
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "1"})
        await made.until_value("Contact", contact, "Phone", "1")
        org.ctx.faults.add("pubsub:fetch", code=code)
        await until(lambda: not org.ctx.faults.in_force())
        made.update("Contact", contact, {"Phone": "2"})
        await made.until_value("Contact", contact, "Phone", "2")
        assert [change.origin for change in await made.changes(contact)] == [Origin.STREAM, Origin.STREAM]
        assert await made.hole_messages() == []


@BOTH
async def test_open_point_17_the_body_of_a_412(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """An error array, or nothing: the record was changed, and the fields decide."""
    org.ctx.org.options.precondition_bodies = variant
    async with copy(wanted=CONTACTS, streaming=False, jobs=("load",)) as made, bench_over(org, made) as bench:
        contacts = await made.ids("Contact")
        await made.inbound.sync()
        for contact, field in zip(contacts, ("Email", "Phone", "Email"), strict=True):
            bench.people_write("Contact", contact, {field: "theirs@example.com"})
            order = {"command_id": contact, "id": contact, "fields": {"Phone": "ours"}}
            await bench.give("Contact", "update", order)
        await bench.send_all()
        told = [(await bench.command(contact)).status for contact in contacts]
        assert told == [CommandStatus.SUCCEEDED, CommandStatus.CONFLICT, CommandStatus.SUCCEEDED]
        assert [bench.row("Contact", c)["Phone"] for c in contacts] == ["ours", "theirs@example.com", "ours"]


@pytest.mark.parametrize("life_s", [0.0, 48 * 3600.0])
async def test_open_point_17_the_life_of_a_query_locator(org: DevOrg, copy: Making, life_s: float) -> None:
    """Dead between two pages, or alive for days: a poll that breaks off moves no mark and is repeated."""
    async with copy(wanted={"Contact": ("LastName", "Phone")}, streaming=False, jobs=("load",)) as made:
        org.ctx.settings.query_locator_s = life_s
        made.write(lambda t: [t.create("Contact", {"LastName": f"Many {n}"}) for n in range(2001)])
        mark = await made.database.run(lambda unit: unit.cursor("poll:Contact"))
        if not life_s:
            with pytest.raises(ConnectorError):
                await made.inbound.sync()
            assert await made.database.run(lambda unit: unit.cursor("poll:Contact")) == mark
            org.ctx.settings.query_locator_s = 3600
        await made.inbound.sync()
        assert len(await made.ids("Contact")) == 2004


async def test_open_point_17_a_query_that_takes_the_org_too_long(org: DevOrg, copy: Making) -> None:
    """QUERY_TIMEOUT, after whatever time: the poll is tried again later, and nothing is lost."""
    async with copy(wanted=CONTACTS, streaming=False, jobs=("load",)) as made:
        contact, *_ = await made.ids("Contact")
        made.update("Contact", contact, {"Phone": "17"})
        org.ctx.faults.add("rest", path="query", status=400, code="QUERY_TIMEOUT", message="Your query request was ...")
        with pytest.raises(TransientError):
            await made.inbound.sync()
        await made.inbound.sync()
        assert await made.difference() == {}


@pytest.mark.parametrize("rate", [0, 3600])
async def test_open_point_17_the_login_rate(org: DevOrg, rate: int) -> None:
    """However low it is: waited out for minutes, without a further request."""
    org.ctx.settings.login_rate_per_hour = rate
    async with org_session(org) as session:
        if rate:
            assert (await session.token()).value
            return
        for _ in range(3):
            with pytest.raises(OrgThrottled):
                await session.token()
    assert not org.ctx.usage.logins


@BOTH
async def test_open_point_17_token_requests_count_as_calls(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """They do, or not: the org's own count is what the budget goes by where it is the higher."""
    org.ctx.settings.token_calls_counted = variant
    async with copy(wanted=CONTACTS) as made:
        own = sum(made.calls().values())
        assert org.ctx.usage.api.used() == own + variant
        await made.inbound.sync()
        assert made.door.budget.snapshot()["used"] == org.ctx.usage.api.used()


@BOTH
async def test_open_point_18_the_amount_of_an_opportunity_with_products(
    org: DevOrg, copy: Making, *, variant: bool
) -> None:
    """Writing it is an error, or is ignored without a word: the replica shows what the org has, either way."""
    org.ctx.org.options.products_refuse_amount = variant
    async with copy() as made, bench_over(org, made) as bench:
        deal, *_ = await made.ids("Opportunity")
        made.write(lambda t: t.recalculate("Opportunity", deal, {"HasOpportunityLineItem": True}))
        fields = {"Amount": 1818.0, "Name": "With products"}
        await bench.give("Opportunity", "update", {"command_id": "amount", "id": deal, "fields": fields})
        await bench.send_all()
        done = await bench.command("amount")
        assert done.status is (CommandStatus.FAILED if variant else CommandStatus.SUCCEEDED)
        await made.inbound.sync()
        assert await made.value("Opportunity", deal, "Amount") == 0
        assert await made.value("Opportunity", deal, "Name") == ("Deal 0" if variant else "With products")
        assert await made.difference() == {}


@BOTH
async def test_open_point_19_the_length_of_a_long_text(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """The description tells the real one, or 255: a longer text goes out and comes back."""
    org.ctx.org.options.long_text_lengths = variant
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        await bench.give("Contact", "update", {"command_id": "long", "id": contact, "fields": {"Description": LONG}})
        await bench.send_all()
        assert (await bench.command("long")).status is CommandStatus.SUCCEEDED
        await made.until_value("Contact", contact, "Description", LONG)


@BOTH
async def test_open_point_20_hard_deleted_rows_in_get_deleted(org: DevOrg, copy: Making, *, variant: bool) -> None:
    """Listed there, or not: it is not asked; the ids are compared."""
    org.ctx.settings.deleted_lists_purged = variant
    async with copy(wanted=CONTACTS) as made:
        contact, *_ = await made.ids("Contact")
        made.write(lambda t: t.purge("Contact", contact), announce=False)
        await made.inbound.verify()
        [change] = await made.changes(contact)
        assert (change.operation, change.origin) == (Operation.DELETE, Origin.REPAIR)
        assert await made.difference() == {}
        assert not [call for call in org.ctx.usage.calls if "deleted" in call]
