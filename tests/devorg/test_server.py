"""The org as a whole: start, restart, a process of its own, and what surrounds every request."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import pytest

from connector.devorg.objects.residents import FIRST_EDITOR_ID
from connector.devorg.server import DevOrg

DATA = "/services/data/v58.0"
LEAD = {"LastName": "Teral", "Company": "Teral Works"}


def inside(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


async def test_it_starts_in_no_time() -> None:
    """Hundreds of tests start one each."""
    began = asyncio.get_running_loop().time()
    async with DevOrg():
        assert asyncio.get_running_loop().time() - began < 1


async def test_a_folder_keeps_the_org(tmp_path: Path) -> None:
    """Records, tokens, clock, ids and positions of the stream are there again after a restart."""
    async with DevOrg(tmp_path) as org:
        with org.ctx.org.transaction(FIRST_EDITOR_ID, "") as transaction:
            lead = transaction.create("Lead", LEAD)
        org.ctx.org.advance(3600)
        token = org.ctx.tokens.issue(FIRST_EDITOR_ID)
        org.ctx.tokens.revoke(org.ctx.tokens.default_access_token)
        position, key = org.ctx.bus.latest_id(), org.keys.private_key_file().read_bytes()
    async with DevOrg(tmp_path) as org:
        assert org.ctx.org.get("Lead", lead) is not None
        assert org.ctx.clock.offset_ms == 3_600_000
        assert org.ctx.tokens.check(token) == FIRST_EDITOR_ID
        assert org.ctx.tokens.check(org.ctx.tokens.default_access_token) is None
        assert org.ctx.bus.latest_id() == position
        assert org.keys.private_key_file().read_bytes() == key


async def test_without_a_folder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary directory goes with the org."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with DevOrg() as org:
        folder = org.keys.private_key_file().parent
        assert inside(tmp_path) == [folder.name]
    assert inside(tmp_path) == []


async def test_a_taken_port_is_an_error_that_leaves_nothing_open(tmp_path: Path, org: DevOrg) -> None:
    """And the folder can be used at once."""
    port = int(org.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address"):
        await DevOrg(tmp_path, port).start()
    async with DevOrg(tmp_path):
        pass


async def test_a_folder_belongs_to_one_org_at_a_time(tmp_path: Path) -> None:
    """A second one says so and changes nothing; once the first is gone it may have it."""
    async with DevOrg(tmp_path):
        with pytest.raises(OSError, match="another local org"):
            await DevOrg(tmp_path).start()
    async with DevOrg(tmp_path):
        pass


@pytest.mark.parametrize("command", ["connector.devorg", "connector devorg serve --json"])
async def test_it_runs_as_a_process(tmp_path: Path, command: str) -> None:
    """One line of JSON says that it is ready, and a signal ends it in good order."""
    line = [sys.executable, "-m", *command.split(), "--port", "0", "--directory", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        about = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        headers = {"Authorization": f"Bearer {about['access_token']}"}
        async with (
            aiohttp.ClientSession(about["url"], headers=headers) as api,
            api.get(f"{DATA}/limits") as answer,
        ):
            assert answer.status == 200
        assert Path(about["private_key_file"]).parent == tmp_path
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "INVALID_SESSION_ID"),
        ("Bearer wrong", "INVALID_SESSION_ID"),
        ("Bearer", "INVALID_AUTH_HEADER"),
        ("Magic x", "INVALID_AUTH_HEADER"),
    ],
)
async def test_no_call_without_a_login(web: aiohttp.ClientSession, header: str | None, code: str) -> None:
    """401 with an error array, which names a malformed header as such."""
    headers = {} if header is None else {"Authorization": header}
    async with web.get(f"{DATA}/limits", headers=headers) as answer:
        assert (answer.status, (await answer.json())[0]["errorCode"]) == (401, code)


async def test_the_older_scheme_is_taken(org: DevOrg, web: aiohttp.ClientSession) -> None:
    """`OAuth` in place of `Bearer`."""
    headers = {"Authorization": f"OAuth {org.ctx.tokens.default_access_token}"}
    async with web.get(f"{DATA}/limits", headers=headers) as answer:
        assert answer.status == 200


async def test_what_is_no_json_is_refused(api: aiohttp.ClientSession) -> None:
    """400 JSON_PARSER_ERROR."""
    async with api.post(f"{DATA}/sobjects/Lead", data=b"{]") as answer:
        assert (answer.status, (await answer.json())[0]["errorCode"]) == (400, "JSON_PARSER_ERROR")


async def test_what_is_not_there_is_refused(web: aiohttp.ClientSession) -> None:
    """With an error array as well, login or not."""
    async with web.get("/services/else") as answer:
        assert (answer.status, (await answer.json())[0]["errorCode"]) == (404, "NOT_FOUND")
    async with web.put("/services/data/") as answer:
        assert (answer.status, (await answer.json())[0]["errorCode"]) == (405, "METHOD_NOT_ALLOWED")


async def test_a_failure_of_the_server_is_an_answer_too(
    org: DevOrg, api: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 UNKNOWN_EXCEPTION, and the log says where."""

    def fail() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(org.ctx.usage.delivered, "used", fail)
    async with api.get(f"{DATA}/limits") as answer:
        assert (answer.status, (await answer.json())[0]["errorCode"]) == (500, "UNKNOWN_EXCEPTION")
    assert "server.request_failed" in caplog.text


async def test_long_answers_are_compressed_when_asked(org: DevOrg, api: aiohttp.ClientSession) -> None:
    """Short ones and unasked ones are not; a switch turns it off."""
    path = f"{DATA}/sobjects/Lead/describe"
    async with api.get(path) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert (await answer.json())["name"] == "Lead"
    async with api.get(path, headers={"Accept-Encoding": "identity"}) as answer:
        assert "Content-Encoding" not in answer.headers
    org.ctx.settings.gzip = False
    async with api.get(path) as answer:
        assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize(("length", "status"), [(15_000, 404), (17_000, 414)])
async def test_a_url_has_a_longest_length(api: aiohttp.ClientSession, length: int, status: int) -> None:
    """16,384 bytes together with the headers; answered as a gateway does."""
    async with api.get(f"{DATA}/nothing?q={'x' * length}") as answer:
        assert answer.status == status


async def test_headers_have_a_longest_length(api: aiohttp.ClientSession) -> None:
    """The same bound."""
    async with api.get(f"{DATA}/limits", headers={"X-Long": "x" * 17_000}) as answer:
        assert answer.status == 431


@pytest.mark.parametrize(
    ("path", "options", "switch", "origin"),
    [
        ("/sobjects/Lead", "client=sync", False, "com/salesforce/api/rest/58.0;client=sync"),
        ("/sobjects/Lead", "defaultNamespace=x, client=sync", False, "com/salesforce/api/rest/58.0;client=sync"),
        ("/sobjects/Lead", "Client=sync", False, "com/salesforce/api/rest/58.0"),
        ("/sobjects/Lead", "", False, "com/salesforce/api/rest/58.0"),
        ("/composite/sobjects", "client=sync", False, "com/salesforce/api/rest/58.0"),
        ("/composite/sobjects", "client=sync", True, "com/salesforce/api/rest/58.0;client=sync"),
    ],
)
async def test_the_origin_of_a_write_names_the_client(
    org: DevOrg, api: aiohttp.ClientSession, path: str, options: str, *, switch: bool, origin: str
) -> None:
    """Where `Sforce-Call-Options` counts; on composite calls that is an open point, and not by default."""
    org.ctx.settings.composite_client_origin = switch
    record = LEAD if path == "/sobjects/Lead" else {"records": [{"attributes": {"type": "Lead"}, **LEAD}]}
    async with api.post(f"{DATA}{path}", json=record, headers={"Sforce-Call-Options": options}) as answer:
        assert answer.ok
    (row,) = org.ctx.database.connection.execute("SELECT origin FROM ledger").fetchall()
    assert row["origin"] == origin
