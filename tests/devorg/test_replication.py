"""`updated` and `deleted`, with simple-salesforce and with plain HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from connector.devorg.rest import replication
from connector.devorg.server import DevOrg
from tests.devorg.clients import called, salesforce

BASE = "/services/data/v58.0/sobjects"
USER = "0055f000007NnAbAAK"
DAY_S = 24 * 3600


@pytest.fixture
def sf(org: DevOrg) -> Iterator[Any]:
    org.ctx.settings.token_lifetime_s = 1e9
    with salesforce(org, version="58.0") as client:
        yield client


def now(org: DevOrg) -> datetime:
    return datetime.fromtimestamp(org.ctx.clock.now_ms() / 1000, UTC)


def people(org: DevOrg, count: int) -> list[str]:
    with org.ctx.org.transaction(USER, "") as transaction:
        return [transaction.create("Contact", {"LastName": f"Name {number}"}) for number in range(count)]


def next_minute(org: DevOrg) -> datetime:
    """Let the org's clock strike a full minute, and return it."""
    current = now(org)
    minute = current.replace(second=0, microsecond=0) + timedelta(minutes=1)
    org.ctx.clock.advance((minute - current).total_seconds() + 1)
    return minute


def instant(text: str) -> datetime:
    assert text.endswith(".000+0000")
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


async def refusal(api: aiohttp.ClientSession, path: str, **span: datetime | str) -> tuple[int, str]:
    asked = {name: at if isinstance(at, str) else at.isoformat() for name, at in span.items()}
    async with api.get(f"{BASE}/{path}", params=asked) as answer:
        (error,) = await answer.json()
        return answer.status, error["errorCode"]


async def test_updated_lists_what_changed(org: DevOrg, sf: Any) -> None:
    """Created, changed and undeleted records of the span; no deleted ones, and no older or later ones."""
    early, changed, gone, back = people(org, 4)
    start = next_minute(org)
    with org.ctx.org.transaction(USER, "") as transaction:
        (new,) = [transaction.create("Contact", {"LastName": "New"})]
        transaction.update("Contact", changed, {"LastName": "Changed"})
        transaction.delete("Contact", gone)
        transaction.delete("Contact", back)
        transaction.undelete("Contact", back)
    end = next_minute(org)
    people(org, 1)
    answer = await called(sf.Contact.updated, start, end)
    assert sorted(answer["ids"]) == sorted([new, changed, back])
    assert early not in answer["ids"]
    assert instant(answer["latestDateCovered"]) == end


async def test_deleted_lists_what_went(org: DevOrg, sf: Any) -> None:
    """Deleted, merged and hard-deleted records with the time of deletion; not those taken back."""
    start = next_minute(org)
    winner, loser, gone, purged, back = people(org, 5)
    with org.ctx.org.transaction(USER, "") as transaction:
        transaction.merge("Contact", winner, [loser], {})
        for contact in (gone, purged, back):
            transaction.delete("Contact", contact)
    with org.ctx.org.transaction(USER, "") as transaction:
        transaction.purge("Contact", purged)
        transaction.undelete("Contact", back)
    end = next_minute(org)
    answer = await called(sf.Contact.deleted, start, end)
    assert sorted(found["id"] for found in answer["deletedRecords"]) == sorted([loser, gone, purged])
    assert all(start <= instant(found["deletedDate"]) < end for found in answer["deletedRecords"])
    assert instant(answer["latestDateCovered"]) == end
    assert now(org) - instant(answer["earliestDateAvailable"]) <= timedelta(days=15, minutes=1)
    org.ctx.settings.deleted_lists_purged = False
    answer = await called(sf.Contact.deleted, start, end)
    assert sorted(found["id"] for found in answer["deletedRecords"]) == sorted([loser, gone])


async def test_seconds_are_ignored(org: DevOrg, sf: Any) -> None:
    """Start and end are taken down to the minute."""
    start = next_minute(org)
    ids = people(org, 1)
    end = next_minute(org)
    late = timedelta(seconds=59)
    answer = await called(sf.Contact.updated, start + late, end + late)
    assert answer["ids"] == ids
    assert instant(answer["latestDateCovered"]) == end


async def test_an_end_in_the_future_is_covered_until_now(org: DevOrg, sf: Any) -> None:
    """What has not happened yet can not be covered."""
    start = next_minute(org)
    ids = people(org, 1)
    answer = await called(sf.Contact.updated, start, now(org) + timedelta(hours=1))
    assert answer["ids"] == ids
    assert instant(answer["latestDateCovered"]) <= now(org)


async def test_an_open_transaction_bounds_what_is_covered(org: DevOrg, sf: Any) -> None:
    """While a transaction is open, coverage ends where it began; asked again from there, nothing is missed."""
    start = next_minute(org)
    with org.ctx.org.transaction(USER, "", hold=True) as transaction:
        held = transaction.create("Contact", {"LastName": "Held"})
    opened = now(org)
    org.ctx.clock.advance(300)
    (other,) = people(org, 1)
    end = next_minute(org)
    for call in (sf.Contact.updated, sf.Contact.deleted):
        covered = instant((await called(call, start, end))["latestDateCovered"])
        assert opened - timedelta(seconds=2) <= covered <= opened
    answer = await called(sf.Contact.updated, start, end)
    assert answer["ids"] == [other]
    org.ctx.org.release(transaction.key)
    again = await called(sf.Contact.updated, instant(answer["latestDateCovered"]), end)
    assert sorted(again["ids"]) == sorted([held, other])
    assert instant(again["latestDateCovered"]) == end


async def test_bad_dates(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Reach, order and form of the dates are checked."""
    end = now(org)
    refused = (400, "INVALID_REPLICATION_DATE")
    assert await refusal(api, "Contact/updated", start=end - timedelta(days=30, minutes=2), end=end) == refused
    assert await refusal(api, "Contact/deleted", start=end - timedelta(days=15, minutes=2), end=end) == refused
    for path in ("Contact/updated/", "Contact/deleted/"):
        assert await refusal(api, path, start=end, end=end) == refused
        assert await refusal(api, path, start=end, end=end - timedelta(hours=1)) == refused
        assert await refusal(api, path, start="2026-01-01T00:00:00:", end=end) == refused
        assert await refusal(api, path, start="yesterday", end=end) == refused
        assert await refusal(api, path, start=end) == (400, "MISSING_ARGUMENT")
    async with api.get(f"{BASE}/Contact/updated?start={end:%Y-%m-%dT%H:%M:%S}+00:00&end=x") as answer:
        assert answer.status == 400  # an unencoded plus sign is a blank
    span = {"start": end - timedelta(days=29), "end": end}
    assert await refusal(api, "Nothing/updated/", **span) == (404, "NOT_FOUND")


async def test_too_many_ids(org: DevOrg, api: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A span with more ids than the answer may hold is refused."""
    monkeypatch.setattr(replication, "MOST_IDS", 2)
    people(org, 3)
    span = {"start": now(org) - timedelta(hours=1), "end": now(org) + timedelta(hours=1)}
    assert await refusal(api, "Contact/updated", **span) == (400, "EXCEEDED_ID_LIMIT")


async def test_lower_case_object_and_other_offsets(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Names have no case, and an instant may be written with any offset."""
    ids = people(org, 1)
    span = {
        "start": (now(org) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.000+0000"),
        "end": (now(org) + timedelta(hours=3)).strftime("%Y-%m-%dT%H:%M:%S+02:00"),
    }
    async with api.get(f"{BASE}/contact/updated/", params=span) as answer:
        assert (await answer.json())["ids"] == ids
