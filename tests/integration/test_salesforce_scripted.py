"""REST against scripted answers: what the local org never says."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from connector.errors import LinkDown, OrgRefused, OrgThrottled, OrgUnavailable
from connector.model.ids import RecordId
from connector.ports import OrgRefusal, Purpose, RecordWrite
from tests.orgs import hangs_up, opened, refusal, says, says_text, scripted, token
from tests.waiting import until

CONTACT = RecordId("0035f00002KmQ7aAAF")
POLL = Purpose.CATCH_UP
EMPTY = {"records": [], "done": True, "totalSize": 0}


def _upsert(value: str = "k") -> RecordWrite:
    return RecordWrite(object="Account", operation="upsert", fields={"Name": "x"}, external_id=("Key__c", value))


def _update(since_ms: int | None = None) -> RecordWrite:
    return RecordWrite(
        object="Lead", operation="update", record_id=CONTACT, fields={"Phone": None}, if_unmodified_since_ms=since_ms
    )


async def test_headers_of_a_write() -> None:
    """Origin, condition at whole seconds, no assignment rules on an update; no pretty printing, null stays null."""
    async with scripted(says(status=204)) as server, opened(server.session()) as door:
        await door.rest.write(_update(1_767_268_805_999))
        [headers] = server.headers
    assert headers["Sforce-Call-Options"] == "client=salesforce-sync"
    assert headers["If-Unmodified-Since"] == "Thu, 01 Jan 2026 12:00:05 GMT"
    assert headers["Sforce-Auto-Assign"] == "FALSE"
    assert headers["Authorization"] == "Bearer 00D5f000000Qr8s!given"
    assert "X-PrettyPrint" not in headers
    assert server.bodies == [b'{"Phone": null}']


async def test_the_repeat_after_a_dead_token_is_the_same_request() -> None:
    """At the instance that the new token names, with every header and the body."""
    dead = refusal("INVALID_SESSION_ID", "Session expired or invalid", 401)
    async with scripted(says(status=204)) as moved:
        second = token("00D5f000000Qr8s!second", moved.url)
        async with scripted(token(), dead, second) as server, opened(server.login_session()) as door:
            outcome = await door.rest.write(_update(1_767_268_805_000))
    assert outcome.errors == ()
    first, repeat = server.headers[1], moved.headers[0]
    assert repeat.pop("Authorization") == "Bearer 00D5f000000Qr8s!second"
    assert first.pop("Authorization") == "Bearer 00D5f000000Qr8s!first"
    assert {**first, "Host": ""} == {**repeat, "Host": ""}
    assert server.asked[1] == moved.asked[0]
    assert server.bodies[1] == moved.bodies[0]


async def test_several_records_for_one_external_id() -> None:
    """HTTP 300 is an outcome; nothing was written."""
    async with scripted(says(["/a", "/b"], 300)) as server, opened(server.session()) as door:
        outcome = await door.rest.write(_upsert("a/b"))
    assert (outcome.status, outcome.errors[0]["code"]) == (300, "DUPLICATE_EXTERNAL_ID")
    assert server.asked == [("PATCH", "/services/data/v58.0/sobjects/Account/Key__c/a%2Fb")]


async def test_an_item_that_failed_in_a_good_answer_is_a_refusal() -> None:
    """HTTP 200 does not mean success."""
    item = {
        "id": CONTACT,
        "success": False,
        "errors": [{"statusCode": "STRING_TOO_LONG", "message": "m", "fields": []}],
    }
    async with scripted(says(item)) as server, opened(server.session()) as door:
        assert [e["code"] for e in (await door.rest.write(_upsert())).errors] == ["STRING_TOO_LONG"]
        server.answers = [says(item | {"errors": []})]
        assert (await door.rest.write(_upsert())).errors


@pytest.mark.parametrize("body", [[], {}, {"success": True}, {"success": True, "id": "x"}, "text", {"id": CONTACT}])
async def test_an_update_or_delete_answered_with_a_body_is_a_lost_answer(body: Any) -> None:
    """The org answers 204 and nothing else: who says something may be a gateway, and the write not carried out."""
    async with scripted(says(body, 200)) as server, opened(server.session()) as door:
        for operation, fields in (("update", {"Phone": "1"}), ("delete", {})):
            write = RecordWrite(operation=operation, object="Contact", record_id=RecordId(CONTACT), fields=fields)
            with pytest.raises(LinkDown):
                await door.rest.write(write)


@pytest.mark.parametrize("body", [[], {}, {"success": True}, {"success": True, "id": "x"}, "text", {"id": CONTACT}])
async def test_a_write_answered_without_its_id_is_a_lost_answer(body: Any) -> None:
    """It may have been taken."""
    async with scripted(says(body, 201)) as server, opened(server.session()) as door:
        with pytest.raises(LinkDown):
            await door.rest.write(_upsert())


async def test_an_upsert_of_old_versions_answers_an_update_without_body() -> None:
    """204: taken, the record was there."""
    async with scripted(says(status=204)) as server, opened(server.session()) as door:
        outcome = await door.rest.write(_upsert())
    assert (outcome.id, outcome.created, outcome.errors) == (None, False, ())


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"records": None, "done": True, "totalSize": 0},
        {"records": [1], "done": True, "totalSize": 1},
        {"records": [], "done": False, "totalSize": 1},
        {"records": [], "done": False, "totalSize": 1, "nextRecordsUrl": "https://evil.example/query"},
        {"records": [], "done": False, "totalSize": 1, "nextRecordsUrl": "//evil.example/query"},
        {"records": [], "done": True, "totalSize": "many"},
    ],
)
async def test_query_answers_of_another_shape(body: Any) -> None:
    """They never crash, and never lead our token to another host."""
    async with scripted(says(body)) as server, opened(server.session()) as door:
        with pytest.raises(LinkDown):
            await door.rest.query("SELECT Id FROM Contact", POLL)


async def test_an_answer_without_a_date_is_a_broken_link() -> None:
    """A poll's window has no other upper bound."""
    async with scripted(says(EMPTY, Date="long ago")) as server, opened(server.session()) as door:
        with pytest.raises(LinkDown):
            await door.rest.query("SELECT Id FROM Contact", POLL)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"compositeResponse": []},
        {"compositeResponse": [{"referenceId": "q0"}]},
        {"compositeResponse": [{"referenceId": "q0", "httpStatusCode": "x", "body": {}}]},
    ],
)
async def test_composite_answers_of_another_shape(body: Any) -> None:
    """A part that is missing is no empty result."""
    async with scripted(says(body)) as server, opened(server.session()) as door:
        with pytest.raises(LinkDown):
            await door.rest.query_many(["SELECT Id FROM Contact", "SELECT Id FROM Lead"], POLL)


async def test_composite_parts_go_by_their_names() -> None:
    """Whatever the order; a part that failed for now is a refusal with its status; the quota throttles."""
    late = {"referenceId": "q0", "httpStatusCode": 400, "body": [{"errorCode": "QUERY_TIMEOUT", "message": ""}]}
    good = {"referenceId": "q1", "httpStatusCode": 200, "body": EMPTY}
    spent = [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}]
    async with (
        scripted(
            says({"compositeResponse": [good, late]}), says({"compositeResponse": [good, late | {"body": spent}]})
        ) as server,
        opened(server.session()) as door,
    ):
        soql = ["SELECT Id FROM Contact", "SELECT Id FROM Lead"]
        first, second = await door.rest.query_many(soql, POLL)
        assert isinstance(first, OrgRefusal)
        assert first.errors[0]["code"] == "QUERY_TIMEOUT"
        assert not isinstance(second, OrgRefusal)
        with pytest.raises(OrgThrottled):
            await door.rest.query_many(soql, POLL)


@pytest.mark.parametrize("body", [{}, [], [1], [{}], [{"Id": "x"}], [None, None], "text"])
async def test_records_without_ids_are_a_broken_link(body: Any) -> None:
    """None would read as deleted."""
    async with scripted(says(body)) as server, opened(server.session()) as door:
        with pytest.raises(LinkDown):
            await door.rest.retrieve("Contact", [CONTACT], ["Id"], Purpose.REPAIR)


async def test_ids_of_15_characters_are_recognised() -> None:
    """Some resources answer in the short form."""
    async with scripted(says([{"Id": CONTACT[:15], "Phone": "1"}])) as server, opened(server.session()) as door:
        [row] = await door.rest.retrieve("Contact", [CONTACT], ["Phone"], Purpose.REPAIR)
    assert row is not None
    assert row["Phone"] == "1"


async def test_a_redirect_is_not_followed_with_our_token() -> None:
    """It is reported as a broken link."""
    async with scripted(says(EMPTY)) as elsewhere:
        moved = says_text("moved", 302, Location=elsewhere.url)
        async with scripted(moved) as server, opened(server.session()) as door:
            with pytest.raises(LinkDown):
                await door.rest.query("SELECT Id FROM Contact", POLL)
    assert elsewhere.asked == []


async def test_a_netrc_does_not_replace_our_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Requests would send a password from it in the place of the token."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with scripted(says(EMPTY)) as server, opened(server.session()) as door:
        await door.rest.query("SELECT Id FROM Contact", POLL)
    assert server.headers[0]["Authorization"] == "Bearer 00D5f000000Qr8s!given"


async def test_no_connection_and_no_answer_are_told_apart() -> None:
    """A refused connection has not reached the org."""
    async with scripted(hangs_up()) as server, opened(server.session()) as door:
        with pytest.raises(LinkDown):
            await door.rest.write(_upsert())
        server_url = server.url
    assert server_url
    async with opened(server.session()) as door:
        with pytest.raises(OrgUnavailable):
            await door.rest.write(_upsert())


async def test_an_answer_that_trickles_is_given_up() -> None:
    """Each byte comes in time, the whole never does."""

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    async with scripted(trickle) as server, opened(server.session(), timeout_s=0.1) as door:
        with pytest.raises(LinkDown):
            await door.rest.query("SELECT Id FROM Contact", POLL)


async def test_a_cancelled_caller_leaves_its_thread_to_the_time_out() -> None:
    """The call's slot comes back when the thread is free."""
    release = asyncio.Event()

    async def waits(_: web.Request) -> web.Response:
        await release.wait()
        return web.json_response(EMPTY)

    async with scripted(waits, says(EMPTY)) as server, opened(server.session(), timeout_s=1) as door:
        call = asyncio.create_task(door.rest.query("SELECT Id FROM Contact", POLL))
        await until(lambda: bool(server.asked))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        release.set()
        await asyncio.gather(*(door.rest.query("SELECT Id FROM Contact", POLL) for _ in range(20)))


@pytest.mark.parametrize("status", [413, 414, 431])
async def test_a_request_that_is_too_large_is_refused_for_good(status: int) -> None:
    """The gateway says so without an error array."""
    async with scripted(says_text("<html></html>", status)) as server, opened(server.session()) as door:
        with pytest.raises(OrgRefused):
            await door.rest.query("SELECT Id FROM Contact", POLL)
