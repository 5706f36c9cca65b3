"""REST and Bulk against the local org."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connector.devorg.server import DevOrg
from connector.errors import LinkDown, OrgRefused, OrgThrottled, OrgUnavailable, RecordGone, RowLocked, TransientError
from connector.model.ids import RecordId
from connector.model.times import to_ms
from connector.ports import BulkJob, OrgRefusal, Purpose, QueryPage, RecordWrite
from connector.settings import LimitSettings
from tests.orgs import Door, opened, org_session

LOAD, POLL, REPAIR = Purpose.LOAD, Purpose.CATCH_UP, Purpose.REPAIR
NOBODY = RecordId("0035f00002KmQ7aAAF")


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        yield started


@pytest.fixture
async def door(org: DevOrg) -> AsyncIterator[Door]:
    async with opened(org_session(org)) as connected:
        yield connected


def _create(last_name: str, **fields: Any) -> RecordWrite:
    return RecordWrite(object="Contact", operation="create", fields={"LastName": last_name, **fields})


def _update(record_id: RecordId, since_ms: int | None = None, **fields: Any) -> RecordWrite:
    return RecordWrite(
        object="Contact", operation="update", record_id=record_id, fields=fields, if_unmodified_since_ms=since_ms
    )


def _delete(record_id: RecordId, since_ms: int | None = None) -> RecordWrite:
    return RecordWrite(
        object="Contact", operation="delete", record_id=record_id, fields={}, if_unmodified_since_ms=since_ms
    )


async def _made(door: Door, last_name: str = "Berg") -> RecordId:
    outcome = await door.rest.write(_create(last_name))
    assert outcome.id is not None
    return outcome.id


async def _modified_ms(door: Door, record_id: RecordId) -> int:
    [row] = await door.rest.retrieve("Contact", [record_id], ["LastModifiedDate"], REPAIR)
    assert row is not None
    return to_ms(row["LastModifiedDate"])


def _origins(org: DevOrg) -> list[str]:
    rows = org.ctx.database.connection.execute("SELECT origin FROM ledger ORDER BY commit_number")
    return [origin for (origin,) in rows]


async def test_the_orgs_clock_is_asked_for_once(org: DevOrg) -> None:
    """Whatever the org answers tells it; where nothing was answered yet it takes a call."""
    async with opened(org_session(org)) as door:
        assert door.rest.clock_ms() is None
        await door.rest.hear_clock()
        org.ctx.faults.add("rest", close=True)
        await door.rest.hear_clock()
        told_ms = door.rest.clock_ms()
        assert told_ms is not None
        assert abs(told_ms - org.ctx.clock.now_ms()) < 5_000
        with pytest.raises(LinkDown):
            await door.rest.limits(LOAD)


async def test_describe(door: Door) -> None:
    """The object's own; an unknown one is gone for good."""
    described = await door.rest.describe("Contact", LOAD)
    assert described["keyPrefix"] == "003"
    with pytest.raises(RecordGone):
        await door.rest.describe("Nothing__c", LOAD)


async def test_a_query_goes_on_page_by_page(org: DevOrg, door: Door) -> None:
    """Every row once, with the org's clock."""
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        for number in range(2_500):
            work.create("Contact", {"LastName": f"N{number}"})
    page = await door.rest.query("SELECT Id, LastName FROM Contact ORDER BY Id", POLL)
    assert (page.total_count, len(page.records)) == (2_500, 2_000)
    assert page.next_url is not None
    assert abs(page.server_ms - org.ctx.clock.now_ms()) < 5_000
    rest = await door.rest.query_more(page.next_url, POLL)
    assert rest.next_url is None
    names = {row["LastName"] for row in (*page.records, *rest.records)}
    assert len(names) == 2_500


async def test_deleted_records_are_asked_for_by_query_all(door: Door) -> None:
    """`query` never shows them."""
    record_id = await _made(door)
    await door.rest.write(_delete(record_id))
    soql = "SELECT Id, IsDeleted FROM Contact"
    assert (await door.rest.query(soql, POLL)).records == []
    [row] = (await door.rest.query(soql, POLL, deleted=True)).records
    assert row["IsDeleted"] is True


async def test_a_query_too_long_for_an_address_goes_by_composite(door: Door) -> None:
    """The org refuses URI and headers above 16 KiB."""
    record_id = await _made(door)
    condition = " OR ".join([f"Id = '{record_id}'"] * 500)
    page = await door.rest.query(f"SELECT Id FROM Contact WHERE {condition}", REPAIR)  # noqa: S608 - SOQL
    assert [row["Id"] for row in page.records] == [record_id]
    with pytest.raises(OrgRefused):
        await door.rest.query(f"SELECT Nothing FROM Contact WHERE {condition}", REPAIR)  # noqa: S608 - SOQL


async def test_several_queries_cost_a_call_for_five(org: DevOrg, door: Door) -> None:
    """In order; one that is refused does not disturb the others."""
    await _made(door)
    used = org.ctx.usage.api.used()
    soql = ["SELECT Id FROM Contact", "SELECT Nope FROM Lead", *["SELECT Id FROM Account"] * 4]
    pages = await door.rest.query_many(soql, POLL, deleted=True)
    assert org.ctx.usage.api.used() - used == 2
    assert [type(page) for page in pages] == [QueryPage, OrgRefusal, *[QueryPage] * 4]
    refused = pages[1]
    assert isinstance(refused, OrgRefusal)
    assert (refused.status, refused.errors[0]["code"]) == (400, "INVALID_FIELD")
    assert isinstance(pages[0], QueryPage)
    assert pages[0].total_count == 1


async def test_one_of_several_queries_alone_is_a_plain_one(org: DevOrg, door: Door) -> None:
    """Refused or not."""
    [page] = await door.rest.query_many(["SELECT Id FROM Contact"], POLL)
    assert isinstance(page, QueryPage)
    [refused] = await door.rest.query_many(["SELECT Nope FROM Contact"], POLL)
    assert isinstance(refused, OrgRefusal)
    assert not [name for name in org.ctx.usage.calls if "composite" in name]


async def test_an_expired_locator_is_a_refusal(door: Door) -> None:
    """The caller asks again from the start."""
    with pytest.raises(OrgRefused) as caught:
        await door.rest.query_more("/services/data/v58.0/query/01g5f00000KwT4mAAF-2000", POLL)
    assert "INVALID_QUERY_LOCATOR" in caught.value.codes


async def test_records_by_id_come_in_order_with_gaps(door: Door) -> None:
    """None where deleted or unknown; no ids cost no call."""
    kept, gone = await _made(door, "Kept"), await _made(door, "Gone")
    await door.rest.write(_delete(gone))
    rows = await door.rest.retrieve("Contact", [gone, kept, NOBODY, kept], ["LastName"], REPAIR)
    assert [row and row["LastName"] for row in rows] == [None, "Kept", None, "Kept"]
    assert await door.rest.retrieve("Contact", [], ["LastName"], REPAIR) == []
    with pytest.raises(ValueError, match="2000"):
        await door.rest.retrieve("Contact", [kept] * 2001, ["LastName"], REPAIR)


async def test_two_thousand_records_by_id_in_one_call(org: DevOrg, door: Door) -> None:
    """The documented size of one request."""
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        ids = [RecordId(work.create("Contact", {"LastName": "x"})) for _ in range(2_000)]
    used = org.ctx.usage.api.used()
    rows = await door.rest.retrieve("Contact", ids, ["LastName"], REPAIR)
    assert [row and row["Id"] for row in rows] == ids
    assert org.ctx.usage.api.used() - used == 1


async def test_limits(door: Door) -> None:
    """The org's own resource."""
    assert (await door.rest.limits(Purpose.VERIFY))["DailyApiRequests"]["Max"] == 15_000


# Writes


async def test_a_record_is_made_changed_and_deleted(org: DevOrg, door: Door) -> None:
    """Our name is the client of the change's origin."""
    created = await door.rest.write(_create("Berg", Email="ola@example.com"))
    assert (created.status, created.errors) == (201, ())
    assert created.id is not None
    assert (await door.rest.write(_update(created.id, Phone="1"))).status == 204
    assert (await door.rest.write(_delete(created.id))).status == 204
    again = await door.rest.write(_delete(created.id))
    assert (again.status, again.errors[0]["code"]) == (404, "ENTITY_IS_DELETED")
    assert set(_origins(org)) == {"com/salesforce/api/rest/58.0;client=salesforce-sync"}


async def test_a_refused_write_is_an_outcome(door: Door) -> None:
    """With the org's codes and fields."""
    outcome = await door.rest.write(RecordWrite(object="Contact", operation="create", fields={"FirstName": "Ola"}))
    assert outcome.id is None
    assert outcome.status == 400
    assert [(e["code"], e["fields"]) for e in outcome.errors] == [("REQUIRED_FIELD_MISSING", ["LastName"])]


async def test_a_write_on_a_condition(org: DevOrg, door: Door) -> None:
    """412 is an outcome; a condition that holds lets the write pass."""
    record_id = await _made(door)
    seen_ms = await _modified_ms(door, record_id)
    org.ctx.clock.advance(10)
    assert (await door.rest.write(_update(record_id, seen_ms, Phone="1"))).status == 204
    refused = await door.rest.write(_update(record_id, seen_ms, Phone="2"))
    assert (refused.status, bool(refused.errors)) == (412, True)
    with pytest.raises(ValueError, match="no such condition"):
        await door.rest.write(_delete(record_id, seen_ms))


async def test_upsert_tells_id_and_whether_the_record_is_new(door: Door) -> None:
    """Values are percent-encoded into the address."""
    write = RecordWrite(
        object="Invoice__c",
        operation="upsert",
        fields={"Name": "I-1"},
        external_id=("BlackRoad_Key__c", "a/b c?d#e%"),
    )
    first = await door.rest.write(write)
    assert first.errors == ()
    second = await door.rest.write(write)
    assert (first.created, second.created) == (True, False)
    assert first.id == second.id is not None


# Tokens


async def test_a_dead_token_is_renewed_and_the_write_keeps_its_condition(org: DevOrg, door: Door) -> None:
    """Without the header a conditional write would overwrite somebody else's."""
    record_id = await _made(door)
    seen_ms = await _modified_ms(door, record_id)
    org.ctx.clock.advance(10)
    await door.rest.write(_update(record_id, Phone="theirs"))
    org.ctx.tokens.expire("access")
    assert (await door.rest.write(_update(record_id, seen_ms, Phone="ours"))).status == 412
    org.ctx.tokens.expire("access")
    assert (await door.rest.write(_update(record_id, LastName="Tagged"))).status == 204
    assert _origins(org)[-1] == "com/salesforce/api/rest/58.0;client=salesforce-sync"


async def test_many_calls_that_see_the_token_die_renew_it_once(org: DevOrg, door: Door) -> None:
    """And all of them answer."""
    record_id = await _made(door)
    logins = sum(org.ctx.usage.logins.values())
    org.ctx.tokens.expire("access")
    rows = await asyncio.gather(*(door.rest.retrieve("Contact", [record_id], ["Id"], REPAIR) for _ in range(30)))
    assert len(rows) == 30
    assert sum(org.ctx.usage.logins.values()) == logins + 1


async def test_a_token_refused_twice_is_waited_out(org: DevOrg, door: Door) -> None:
    """Not a third time: that is no expiry."""
    await door.session.token()
    org.ctx.faults.add("rest", status=401, code="INVALID_SESSION_ID", message="Session expired or invalid", count=2)
    with pytest.raises(OrgUnavailable) as caught:
        await door.rest.query("SELECT Id FROM Contact", POLL)
    assert (caught.value.retry_after_s or 0) > 0
    await door.rest.query("SELECT Id FROM Contact", POLL)


# Faults


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 503, "code": "SERVER_UNAVAILABLE"}, OrgUnavailable),
        ({"status": 502, "html": True}, OrgUnavailable),
        ({"status": 403, "code": "REQUEST_LIMIT_EXCEEDED", "message": "ConcurrentPerOrgLongTxn"}, OrgThrottled),
        ({"status": 429, "code": "x"}, OrgThrottled),
        ({"status": 403, "html": True}, LinkDown),
        ({"status": 401, "html": True}, LinkDown),
        ({"close": True}, LinkDown),
        ({"drop_response": True}, LinkDown),
        ({"truncate": True}, LinkDown),
        ({"half_open": True}, LinkDown),
        ({"status": 200, "html": True}, LinkDown),
    ],
)
async def test_faults_of_a_read(org: DevOrg, fault: dict[str, Any], expected: type[TransientError]) -> None:
    """Each is waited out, and the next call is answered."""
    async with opened(org_session(org), timeout_s=0.5) as door:
        await door.rest.query("SELECT Id FROM Contact", POLL)
        org.ctx.faults.add("rest", **fault)
        with pytest.raises(expected) as caught:
            await door.rest.query("SELECT Id FROM Contact", POLL)
        assert type(caught.value) is expected
        assert "SELECT" not in str(caught.value)
        await door.rest.query("SELECT Id FROM Contact", POLL)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "rest", "status": 503, "code": "SERVER_UNAVAILABLE"}, OrgUnavailable),
        ({"kind": "rest", "status": 502, "html": True}, LinkDown),
        ({"kind": "rest", "drop_response": True}, LinkDown),
        ({"kind": "rest", "truncate": True}, LinkDown),
        ({"kind": "rest", "half_open": True}, LinkDown),
        ({"kind": "rest", "status": 400, "code": "UNABLE_TO_LOCK_ROW"}, RowLocked),
    ],
)
async def test_faults_of_a_write(org: DevOrg, fault: dict[str, Any], expected: type[TransientError]) -> None:
    """An answer that is lost is told apart from a write that was not taken."""
    async with opened(org_session(org), timeout_s=0.5) as door:
        await door.session.token()
        org.ctx.faults.add(**fault)
        with pytest.raises(expected) as caught:
            await door.rest.write(_create("Berg"))
        assert type(caught.value) is expected


async def test_an_org_that_is_down_has_not_seen_the_write(org: DevOrg, door: Door) -> None:
    """No connection is no lost answer: the write may be repeated."""
    await door.session.token()
    await org.hang_up()
    with pytest.raises(OrgUnavailable):
        await door.rest.write(_create("Berg"))
    await org.listen()
    assert (await door.rest.write(_create("Berg"))).status == 201


# The budget


async def test_the_orgs_quota_throttles_and_is_counted(org: DevOrg, door: Door) -> None:
    """403 with a quota error is no refusal; nothing more is sent until it may be over."""
    await door.rest.query("SELECT Id FROM Contact", POLL)
    assert door.budget.snapshot()["used"] == org.ctx.usage.api.used()
    org.ctx.settings.api_limit = 1
    with pytest.raises(OrgThrottled) as caught:
        await door.rest.query("SELECT Id FROM Contact", POLL)
    assert (caught.value.retry_after_s or 0) >= 60
    calls = sum(org.ctx.usage.calls.values())
    with pytest.raises(OrgThrottled):
        await door.rest.write(_create("Berg"))
    assert sum(org.ctx.usage.calls.values()) == calls


async def test_our_own_ceiling_keeps_calls_for_commands(org: DevOrg) -> None:
    """Load gives way, a command passes, and the stop is ours: the org is not asked."""
    async with opened(org_session(org), limits=LimitSettings(daily_api_calls=10)) as door:
        for _ in range(9):
            await door.rest.query("SELECT Id FROM Contact", POLL)
        with pytest.raises(OrgThrottled):
            await door.rest.query("SELECT Id FROM Contact", LOAD)
        assert (await door.rest.write(_create("Berg"))).status == 201
        assert org.ctx.usage.api.used() == 10


# Bulk


async def _finished(door: Door, job: BulkJob) -> BulkJob:
    async with asyncio.timeout(10):
        while job.state not in ("JobComplete", "Failed", "Aborted"):
            await asyncio.sleep(0.02)
            job = await door.rest.bulk_job(job.id, LOAD)
    return job


async def test_a_bulk_query_from_start_to_end(org: DevOrg, door: Door) -> None:
    """Started, waited for, read page by page, removed."""
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        for number in range(12_000):
            work.create("Contact", {"LastName": f'N"{number},', "Description": "a\r\nb" if number % 2 else None})
    org.ctx.settings.bulk_job_s = 0.1
    job = await _finished(door, await door.rest.start_bulk_query("SELECT Id, LastName, Description FROM Contact", LOAD))
    assert job.state == "JobComplete"
    rows: list[Any] = []
    locator: str | None = None
    while True:
        page = await door.rest.bulk_page(job.id, locator, LOAD)
        assert page.columns == ["Id", "LastName", "Description"]
        rows += page.rows
        locator = page.locator
        if locator is None:
            break
    assert len({row[0] for row in rows}) == 12_000
    assert {row[2] for row in rows} == {"", "a\r\nb"}
    await door.rest.delete_bulk_job(job.id, LOAD)
    await door.rest.delete_bulk_job(job.id, LOAD)
    with pytest.raises(OrgRefused) as caught:
        await door.rest.bulk_job(job.id, LOAD)
    assert caught.value.status == 404


async def test_a_bulk_query_without_rows(door: Door) -> None:
    """No page is no error."""
    job = await _finished(door, await door.rest.start_bulk_query("SELECT Id FROM Lead", LOAD))
    page = await door.rest.bulk_page(job.id, None, LOAD)
    assert (page.rows, page.locator) == ([], None)


async def test_a_cut_bulk_page_is_a_broken_link(org: DevOrg, door: Door) -> None:
    """Half a page must not pass for a whole one."""
    for _ in range(20):
        await _made(door)
    job = await _finished(door, await door.rest.start_bulk_query("SELECT Id, LastName FROM Contact", LOAD))
    org.ctx.faults.add("bulk", truncate=True)
    with pytest.raises(LinkDown):
        await door.rest.bulk_page(job.id, None, LOAD)
    assert len((await door.rest.bulk_page(job.id, None, LOAD)).rows) == 20


async def test_a_refused_bulk_query(door: Door) -> None:
    """At once, with the org's code."""
    with pytest.raises(OrgRefused):
        await door.rest.start_bulk_query("SELECT Nothing FROM Contact", LOAD)
