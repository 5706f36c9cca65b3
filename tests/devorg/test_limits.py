"""Versions, limits, and the counting of API requests in a rolling day."""

import aiohttp
import pytest

from connector.devorg.clock import OrgClock, http_date_ms
from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.server import DevOrg
from connector.devorg.usage import RollingCount

LIMITS = "/services/data/v58.0/limits"


async def test_the_versions_need_no_login_and_are_not_counted(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """Clients ask them first, before they have a token."""
    async with web.get("/services/data/") as answer:
        versions = await answer.json()
        assert "Sforce-Limit-Info" not in answer.headers
    assert versions[-1] == {"label": "Spring '26", "url": "/services/data/v66.0", "version": "66.0"}
    assert versions[-2]["label"] == "Winter '26"
    assert versions[0]["version"] == "37.0"
    assert org.ctx.usage.api.used() == 0


async def test_the_resources_of_a_version(api: aiohttp.ClientSession) -> None:
    """Their paths by name."""
    async with api.get("/services/data/v58.0") as answer:
        assert (await answer.json())["query"] == "/services/data/v58.0/query"


@pytest.mark.parametrize("path", ["/services/data/v99.0/limits", "/services/data/58.0/limits", "/services/data/x"])
async def test_there_are_no_other_versions(web: aiohttp.ClientSession, path: str) -> None:
    """And no way past the login through one."""
    async with web.get(path) as answer:
        assert answer.status == 404
        assert (await answer.json())[0]["errorCode"] == "NOT_FOUND"


async def test_each_call_is_counted_and_told(api: aiohttp.ClientSession) -> None:
    """In `Sforce-Limit-Info` of the answer, refused ones as well."""
    async with api.get(LIMITS) as answer:
        assert answer.headers["Sforce-Limit-Info"] == "api-usage=1/15000"
        assert (await answer.json())["DailyApiRequests"] == {"Max": 15_000, "Remaining": 14_999}
    async with api.get("/services/data/v58.0/nothing") as answer:
        assert (answer.status, answer.headers["Sforce-Limit-Info"]) == (404, "api-usage=2/15000")


async def test_the_limit_cuts_exactly_and_lets_go_after_a_day(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """403 REQUEST_LIMIT_EXCEEDED is no question of login, and a refused call is not counted."""
    org.ctx.settings.api_limit = 2
    org.ctx.settings.token_lifetime_s = 7 * 24 * 3600
    statuses = []
    for _ in range(4):
        async with api.get(LIMITS) as answer:
            statuses.append(answer.status)
            body = await answer.json()
    assert statuses == [200, 200, 403, 403]
    assert body == [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]
    org.ctx.clock.advance(24 * 3600 + 1)
    async with api.get(LIMITS) as answer:
        assert (answer.status, answer.headers["Sforce-Limit-Info"]) == (200, "api-usage=1/2")


async def test_the_date_is_the_orgs(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """A client that bounds its windows by `Date` follows the org's clock."""
    org.ctx.clock.advance(30 * 24 * 3600)
    async with web.get("/services/data/") as answer:
        told_ms = http_date_ms(answer.headers["Date"])
    assert 0 <= org.ctx.clock.now_ms() - told_ms < 60_000


def test_a_rolling_day_forgets_by_the_second() -> None:
    """What was counted 24 hours ago no longer counts, what came a second later still does."""
    wall_ms = 1_000_000_000_000
    clock = OrgClock(wall=lambda: wall_ms)
    count = RollingCount(clock)
    count.add(5)
    clock.advance(1)
    count.add()
    clock.advance(24 * 3600 - 2)
    assert count.used() == 6
    clock.advance(1)
    assert count.used() == 1
    clock.advance(1)
    assert count.used() == 0


async def test_how_many_records_there_are(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Of the objects asked for, in any case of letters, or of all; deleted records and unknown objects are left out."""
    with org.ctx.org.transaction(INTEGRATION_USER_ID, "") as transaction:
        ids = [transaction.create("Contact", {"LastName": f"Name {number}"}) for number in range(3)]
        transaction.delete("Contact", ids[0])
    async with api.get(f"{LIMITS}/recordCount?sObjects=contact,Account,Nothing__c") as answer:
        assert await answer.json() == {"sObjects": [{"count": 2, "name": "Contact"}, {"count": 0, "name": "Account"}]}
    async with api.get(f"{LIMITS}/recordCount") as answer:
        told = {entry["name"]: entry["count"] for entry in (await answer.json())["sObjects"]}
    assert told.keys() == set(org.ctx.schema.names())
    assert (told["Contact"], told["Organization"]) == (2, 1)
