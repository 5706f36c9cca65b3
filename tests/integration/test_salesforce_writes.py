"""Many writes with few calls, against the local org."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from connector.devorg.server import DevOrg
from connector.errors import LinkDown, OrgThrottled, OrgUnavailable, TransientError
from connector.model.ids import RecordId
from connector.ports import Purpose, RecordWrite, WriteOutcome
from tests.orgs import Door, opened, org_session, says, scripted

ALWAYS = "LastModifiedDate >= 2000-01-01T00:00:00Z"
LEAD = RecordWrite(object="Lead", operation="create", fields={"LastName": "L", "Company": "x"})


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        yield started


@pytest.fixture
async def door(org: DevOrg) -> AsyncIterator[Door]:
    async with opened(org_session(org)) as connected:
        yield connected


def contact(last_name: str | None) -> RecordWrite:
    return RecordWrite(object="Contact", operation="create", fields={"LastName": last_name})


def update(record_id: RecordId, phone: str, only_if: str | None = None) -> RecordWrite:
    return RecordWrite(
        object="Contact", operation="update", record_id=record_id, fields={"Phone": phone}, only_if=only_if
    )


def delete(record_id: RecordId, only_if: str | None = None) -> RecordWrite:
    return RecordWrite(object="Contact", operation="delete", record_id=record_id, fields={}, only_if=only_if)


def upsert(key: str, name: str) -> RecordWrite:
    return RecordWrite(
        object="Invoice__c", operation="upsert", fields={"Name": name}, external_id=("BlackRoad_Key__c", key)
    )


def good(outcomes: Sequence[WriteOutcome | TransientError]) -> list[RecordId]:
    """The ids of writes that were all taken."""
    ids = []
    for outcome in outcomes:
        assert isinstance(outcome, WriteOutcome)
        assert outcome.errors == ()
        assert outcome.id is not None
        ids.append(outcome.id)
    return ids


def refused(outcome: WriteOutcome | TransientError) -> tuple[int, list[str]]:
    assert isinstance(outcome, WriteOutcome)
    return outcome.status, [error["code"] for error in outcome.errors]


async def made(door: Door, count: int) -> list[RecordId]:
    return good(await door.rest.write_many([contact(f"N{number}") for number in range(count)]))


async def phones(door: Door, ids: Sequence[RecordId]) -> list[Any]:
    rows = await door.rest.retrieve("Contact", ids, ["Phone"], Purpose.REPAIR)
    return [None if row is None else row["Phone"] for row in rows]


async def test_a_mixture_goes_in_one_call_and_each_is_answered(org: DevOrg, door: Door) -> None:
    """Creates of two objects, updates, a guarded delete and an upsert, in the order they were given."""
    ids = await made(door, 3)
    used = org.ctx.usage.api.used()
    outcomes = await door.rest.write_many(
        [update(ids[0], "1"), LEAD, delete(ids[1], ALWAYS), contact("C"), upsert("k", "I"), update(ids[2], "2")]
    )
    assert org.ctx.usage.api.used() - used == 1
    done = good(outcomes)
    assert [i[:3] for i in done] == ["003", "00Q", "003", "003", "a00", "003"]
    assert [outcome.created for outcome in outcomes if isinstance(outcome, WriteOutcome)][4] is True
    assert await phones(door, ids) == ["1", None, "2"]
    assert all(o.server_ms is not None for o in outcomes if isinstance(o, WriteOutcome))


async def test_two_hundred_records_make_a_part_and_five_parts_a_call(org: DevOrg, door: Door) -> None:
    """1,000 creates are one call; 1,000 guarded updates three, as each part has its query."""
    used = org.ctx.usage.api.used()
    ids = await made(door, 1_000)
    assert org.ctx.usage.api.used() - used == 1
    good(await door.rest.write_many([update(i, "7", ALWAYS) for i in ids]))
    assert org.ctx.usage.api.used() - used == 4
    assert set(await phones(door, ids)) == {"7"}


async def test_a_refused_record_leaves_the_others_alone(door: Door) -> None:
    """HTTP 200, and each item has its own outcome."""
    outcomes = await door.rest.write_many([contact("A"), contact(None), contact("B")])
    good([outcomes[0], outcomes[2]])
    assert refused(outcomes[1]) == (400, ["REQUIRED_FIELD_MISSING"])


async def test_one_write_alone_is_a_row_call(org: DevOrg, door: Door) -> None:
    """It makes us known in `changeOrigin`, which composite calls may not."""
    good(await door.rest.write_many([contact("A")]))
    rows = org.ctx.database.connection.execute("SELECT origin FROM ledger ORDER BY commit_number")
    assert [origin for (origin,) in rows][-1].endswith("client=salesforce-sync")


async def test_a_guard_that_does_not_hold_stops_its_batch(door: Door) -> None:
    """The record that changed is named; those beside it were not written and say so; other parts go on."""
    ids = await made(door, 3)
    await door.rest.write(update(ids[1], "theirs"))
    unchanged = "Phone = null"
    outcomes = await door.rest.write_many([*(update(i, "ours", unchanged) for i in ids), contact("beside")])
    assert refused(outcomes[0]) == refused(outcomes[2]) == (424, ["PROCESSING_HALTED"])
    assert refused(outcomes[1]) == (412, ["PRECONDITION_FAILED"])
    good([outcomes[3]])
    assert await phones(door, ids) == [None, "theirs", None]


async def test_a_guarded_delete(door: Door) -> None:
    """DELETE knows no conditional header; the query in front of it does."""
    ids = await made(door, 2)
    outcomes = await door.rest.write_many([delete(i, "Phone = 'x'") for i in ids])
    assert [refused(o) for o in outcomes] == [(412, ["PRECONDITION_FAILED"])] * 2
    good(await door.rest.write_many([delete(i, "Phone = null") for i in ids]))
    assert refused((await door.rest.write_many([delete(ids[0])]))[0]) == (404, ["ENTITY_IS_DELETED"])
    gone, _ = await door.rest.write_many([delete(ids[0]), delete(ids[1])])
    assert refused(gone) == (400, ["ENTITY_IS_DELETED"])


async def test_a_guard_with_a_fault_is_told(door: Door) -> None:
    """A condition on a field that is not there refuses the writes it stood for, one by one."""
    ids = await made(door, 2)
    outcomes = await door.rest.write_many([update(i, "1", "Nothing__c = 1") for i in ids])
    assert [refused(o) for o in outcomes] == [(400, ["INVALID_FIELD"])] * 2
    assert await phones(door, ids) == [None, None]


async def test_a_request_that_is_refused_as_a_whole_is_halved(org: DevOrg, door: Door) -> None:
    """The org's parser names no record; the others must not suffer for it."""
    org.ctx.faults.add("rest", method="POST", status=400, code="JSON_PARSER_ERROR", message="no", count=1)
    assert len(set(await made(door, 4))) == 4


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 503, "code": "SERVER_UNAVAILABLE"}, OrgUnavailable),
        ({"status": 502, "html": True}, LinkDown),
        ({"drop_response": True}, LinkDown),
        ({"truncate": True}, LinkDown),
        ({"status": 403, "code": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}, OrgThrottled),
    ],
)
async def test_a_failed_call_is_the_outcome_of_its_own_writes(
    org: DevOrg, fault: dict[str, Any], expected: type[TransientError]
) -> None:
    """With the same meaning as for one write."""
    async with opened(org_session(org), timeout_s=0.5) as door:
        await door.session.token()
        org.ctx.faults.add("rest", **fault)
        outcomes = await door.rest.write_many([contact("A"), contact("B")])
        assert [type(o) for o in outcomes] == [expected, expected]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"compositeResponse": []},
        {"compositeResponse": [{"referenceId": "g0"}, {"referenceId": "w0", "httpStatusCode": 200, "body": []}]},
        {"compositeResponse": [{"referenceId": "w0", "httpStatusCode": 200, "body": [{"success": True, "id": "x"}]}]},
        {"compositeResponse": [{"referenceId": "w0", "httpStatusCode": 500, "body": None}]},
    ],
)
async def test_an_answer_of_another_shape_is_a_lost_one(answer: Any) -> None:
    """What it hides may have been written."""
    async with scripted(says(answer)) as server, opened(server.session()) as door:
        record_id = RecordId("0035f00002KmQ7aAAF")
        [outcome] = await door.rest.write_many([update(record_id, "1", ALWAYS)])
        assert type(outcome) is LinkDown


async def test_the_user_is_known(org: DevOrg, door: Door) -> None:
    """Records that we made name it."""
    assert await door.rest.user_id() == org.ctx.tokens.default_user_id
