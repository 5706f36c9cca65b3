"""The doors that doctor alone uses: channel selection and the way to an org, against scripted answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connector.errors import LinkDown, OrgRefused, OrgThrottled, RecordGone
from connector.ports import Purpose
from connector.salesforce.budget import ApiBudget
from connector.salesforce.reach import reach
from connector.salesforce.selection import Channel, ChannelSelection
from connector.settings import LimitSettings
from tests.orgs import VERSION, Answering, Scripted, hangs_up, now_ms, refusal, says, says_text, scripted

CREATED = {"id": "0v85f000000AbCdAAK", "success": True, "errors": [], "warnings": [], "infos": []}


@asynccontextmanager
async def asking(server: Scripted, channel: str = "/data/ChangeEvents") -> AsyncIterator[ChannelSelection]:
    session = server.session()
    budget = ApiBudget(LimitSettings(), None, now_ms=now_ms)
    async with (
        session,
        ChannelSelection(session, budget, Channel(channel), api_version=VERSION, timeout_s=5) as selection,
    ):
        yield selection


def members(*rows: tuple[str, str, str]) -> Answering:
    """A query's answer: developer name, channel and entity of each member."""
    records = [dict(zip(("DeveloperName", "EventChannel", "SelectedEntity"), row, strict=True)) for row in rows]
    return says({"size": len(records), "totalSize": len(records), "done": True, "records": records})


@pytest.mark.parametrize(
    ("row", "selected"),
    [
        (("ChangeEvents_LeadChangeEvent", "ChangeEvents", "LeadChangeEvent"), {"Lead"}),
        (("chosen_by_hand", "ChangeEvents", "LeadChangeEvent"), {"Lead"}),
        (("ChangeEvents_Invoice_ChangeEvent", "ChangeEvents", "01I5f000000AbCdEAK"), {"Invoice__c"}),
        (("Sales_chn_LeadChangeEvent", "0YL5f000000AbCdEAK", "LeadChangeEvent"), set()),
        (("ChangeEvents_UserChangeEvent", "ChangeEvents", "UserChangeEvent"), set()),
    ],
)
async def test_a_member_is_known_by_names_or_by_developer_name(row: tuple[str, str, str], selected: set[str]) -> None:
    """Custom objects and channels come as opaque ids, developer names may be anybody's."""
    async with scripted(members(row)) as server, asking(server) as selection:
        assert await selection.selected(("Lead", "Invoice__c"), Purpose.VERIFY) == selected


async def test_a_select_is_the_documented_body() -> None:
    """To the Tooling API's resource; the name without double underscores, the rest with them."""
    async with scripted(says(CREATED, 201)) as server, asking(server, "/data/Sales__chn") as selection:
        await selection.select("Invoice__c", Purpose.VERIFY)
        assert server.asked == [("POST", f"/services/data/v{VERSION}/tooling/sobjects/PlatformEventChannelMember")]
        assert server.bodies[0].replace(b" ", b"") == (
            b'{"FullName":"Sales_chn_Invoice_ChangeEvent",'
            b'"Metadata":{"eventChannel":"Sales__chn","selectedEntity":"Invoice__ChangeEvent"}}'
        )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal("INSUFFICIENT_ACCESS", status=403), OrgRefused),
        (refusal("NOT_FOUND", status=404), RecordGone),
        (refusal("LIMIT_EXCEEDED"), OrgThrottled),
        (says({"success": False, "errors": [{"statusCode": "NO", "message": "no"}]}), OrgRefused),
        (says([]), OrgRefused),
        (says(None, 204), OrgRefused),
        (says_text("<html>", 502), LinkDown),
        (hangs_up(), LinkDown),
    ],
)
async def test_only_a_success_is_one(answer: Answering, error: type[Exception]) -> None:
    """Whatever else comes is an error of the tree."""
    async with scripted(answer) as server, asking(server) as selection:
        with pytest.raises(error):
            await selection.select("Lead", Purpose.VERIFY)


@pytest.mark.parametrize("answer", [says([]), says({}), says({"records": [1]}), says({"records": {}}), says(None)])
async def test_a_selection_of_another_shape_is_no_answer(answer: Answering) -> None:
    """Taken for empty, it would have doctor select everything again."""
    async with scripted(answer) as server, asking(server) as selection:
        with pytest.raises(LinkDown):
            await selection.selected(["Lead"], Purpose.VERIFY)


async def test_versions_and_clock_are_asked_without_a_login() -> None:
    """And so at no API call."""
    dated = says([{"version": "57.0"}, {"version": "58.0"}], Date="Thu, 01 Jan 2026 12:00:05 GMT")
    async with scripted(dated) as server:
        reached = await reach(server.url, 5)
        assert reached.versions == ("57.0", "58.0")
        assert reached.server_ms == 1_767_268_805_000
        assert server.asked == [("GET", "/services/data/")]
        assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    "answer",
    [
        says_text("<html>"),
        says({"a": 1}),
        says([{}]),
        says(None),
        says([{"version": "58.0"}], Date="nonsense"),
        says({"moved": True}, 301, Location="https://elsewhere.example/"),
        hangs_up(),
    ],
)
async def test_what_is_no_org_is_linkdown(answer: Answering) -> None:
    """Pages, redirections, another service."""
    async with scripted(answer) as server:
        with pytest.raises(LinkDown):
            await reach(server.url, 5)
