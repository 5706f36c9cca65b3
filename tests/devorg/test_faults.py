"""Faults on order: each effect as a client sees it, and how orders are matched and used up."""

import asyncio
from typing import Any

import aiohttp
import pytest

from connector.devorg.errors import OrgError
from connector.devorg.faults import MOST_FAULTS, Faults
from connector.devorg.server import DevOrg
from tests.devorg.conftest import Admin

LIMITS = "/services/data/v58.0/limits"
LEADS = "/services/data/v58.0/sobjects/Lead"
LEAD = {"LastName": "Teral", "Company": "Teral Works"}


async def get(api: aiohttp.ClientSession, path: str = LIMITS) -> tuple[int, Any]:
    async with api.get(path) as answer:
        return answer.status, await (answer.json() if answer.content_type == "application/json" else answer.text())


async def create(api: aiohttp.ClientSession) -> int:
    async with api.post(LEADS, json=LEAD) as answer:
        return answer.status


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "INVALID_SESSION_ID"), (403, "REQUEST_LIMIT_EXCEEDED"), (429, "X"), (503, "SERVER_UNAVAILABLE")],
)
async def test_an_ordered_status_is_answered_once(
    admin: Admin, api: aiohttp.ClientSession, status: int, code: str
) -> None:
    """With Salesforce's error array, and then all is well again."""
    await admin("POST", "/faults", {"kind": "rest", "status": status, "code": code, "message": "m"})
    assert await get(api) == (status, [{"message": "m", "errorCode": code}])
    assert (await get(api))[0] == 200


async def test_a_gateways_page_is_no_json(admin: Admin, api: aiohttp.ClientSession) -> None:
    """HTML where a client expects JSON; further headers as ordered."""
    order = {"kind": "rest", "status": 502, "html": True, "headers": {"Retry-After": "7"}}
    await admin("POST", "/faults", order)
    async with api.get(LIMITS) as answer:
        assert (answer.status, answer.content_type, answer.headers["Retry-After"]) == (502, "text/html", "7")
        assert "502 Bad Gateway" in await answer.text()


async def test_a_raw_body_is_answered_as_it_stands(admin: Admin, api: aiohttp.ClientSession) -> None:
    """For answers that no JSON parser likes."""
    await admin("POST", "/faults", {"kind": "rest", "status": 200, "body": '{"half":'})
    async with api.get(LIMITS) as answer:
        assert await answer.text() == '{"half":'


async def test_a_dropped_response_has_done_its_work(admin: Admin, api: aiohttp.ClientSession) -> None:
    """The create is committed though its answer never comes."""
    await admin("POST", "/faults", {"kind": "rest", "method": "POST", "drop_response": True})
    with pytest.raises(aiohttp.ClientError):
        await create(api)
    assert len((await admin("GET", "/records/Lead"))["records"]) == 1


async def test_a_closed_connection_has_done_nothing(admin: Admin, api: aiohttp.ClientSession) -> None:
    """The request is not looked at."""
    await admin("POST", "/faults", {"kind": "rest", "close": True})
    with pytest.raises(aiohttp.ClientError):
        await create(api)
    assert (await admin("GET", "/records/Lead"))["records"] == []


async def test_a_truncated_answer_ends_in_its_middle(admin: Admin, api: aiohttp.ClientSession) -> None:
    """The headers promise more than comes."""
    await admin("POST", "/faults", {"kind": "rest", "truncate": True})
    async with api.get(LIMITS) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_half_open_never_answers(org: DevOrg, admin: Admin, api: aiohttp.ClientSession) -> None:
    """Until the connection is dropped."""
    await admin("POST", "/faults", {"kind": "rest", "half_open": True})
    asked = asyncio.create_task(create(api))
    _, waiting = await asyncio.wait([asked], timeout=0.3)
    assert waiting
    assert [request.path for request in org.ctx.requests.values()] == [LEADS]
    assert (await admin("POST", "/connections/drop", {"path": "/services/"}))["dropped"] == 1
    with pytest.raises(aiohttp.ClientError):
        await asked


async def test_a_delay_delays(admin: Admin, api: aiohttp.ClientSession) -> None:
    """And the answer is the usual one."""
    await admin("POST", "/faults", {"kind": "rest", "delay_s": 0.2})
    began = asyncio.get_running_loop().time()
    assert (await get(api))[0] == 200
    assert asyncio.get_running_loop().time() - began >= 0.19


async def test_login_and_bulk_have_kinds_of_their_own(admin: Admin, api: aiohttp.ClientSession) -> None:
    """An OAuth error has OAuth's shape."""
    order = {"kind": "oauth", "status": 400, "code": "inactive_org", "message": "org is locked"}
    await admin("POST", "/faults", order)
    await admin("POST", "/faults", {"kind": "bulk", "status": 503, "code": "SERVER_UNAVAILABLE"})
    assert (await get(api))[0] == 200
    assert (await get(api, "/services/data/v58.0/jobs/query/x"))[0] == 503
    async with api.post("/services/oauth2/token", data={}) as answer:
        assert await answer.json() == {"error": "inactive_org", "error_description": "org is locked"}


async def test_dropping_connections_cuts_them_all_but_the_askers(admin: Admin, api: aiohttp.ClientSession) -> None:
    """Idle ones too: a client meets a closed connection at its next call, or makes a new one."""
    assert (await get(api))[0] == 200
    assert (await admin("POST", "/connections/drop"))["dropped"] == 1
    assert (await get(api))[0] == 200


async def test_an_org_that_is_down_comes_back_on_its_port(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Nothing listens meanwhile, nothing is lost."""
    await org.hang_up()
    with pytest.raises(aiohttp.ClientError):
        await get(api)
    await org.listen()
    assert (await get(api))[0] == 200


def test_faults_strike_in_order_by_method_and_path() -> None:
    """The first that matches strikes; each is used up by its count, after what it lets pass."""
    faults = Faults()
    faults.add("rest", method="POST", path="/Lead$", status=500)
    faults.add("rest", status=503, count=2, skip=1)
    struck = [
        fault.status if (fault := faults.take("rest", method=method, path=path)) else 0
        for method, path in [("GET", "/Lead"), ("POST", "/Lead"), ("POST", "/Lead"), ("GET", "/x"), ("GET", "/x")]
    ]
    assert struck == [0, 500, 503, 503, 0]
    assert faults.in_force() == {}


def test_a_fault_without_count_stays_until_it_is_cleared() -> None:
    """And can be cleared by its number."""
    faults = Faults()
    number = faults.add("oauth", count=None, close=True)
    assert all(faults.take("oauth") for _ in range(5))
    faults.clear(number)
    assert faults.take("oauth") is None


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "weather"},
        {"kind": "rest", "status": "503"},
        {"kind": "rest", "status": 99},
        {"kind": "rest", "count": 0},
        {"kind": "rest", "count": True},
        {"kind": "rest", "delay_s": -1},
        {"kind": "rest", "path": "("},
        {"kind": "rest", "headers": {"A": "b\r\nc"}},
        {"kind": "rest", "close": 1},
        {"kind": "rest", "surprise": 1},
    ],
)
def test_a_wrong_order_is_refused(order: dict[str, Any]) -> None:
    """Before it can do harm."""
    with pytest.raises(OrgError):
        Faults().add(**order)


def test_the_number_of_faults_is_bounded() -> None:
    """A runaway script can not fill the memory."""
    faults = Faults()
    for _ in range(MOST_FAULTS):
        faults.add("rest", status=503)
    with pytest.raises(OrgError, match="at most"):
        faults.add("rest", status=503)
