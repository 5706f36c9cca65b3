"""`salesforce-sync devorg`: the same orders from a command line."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from connector.cli.devorg.main import devorg
from connector.devorg.server import DevOrg

Run = Callable[..., Awaitable[str]]


async def invoke(org: DevOrg, *arguments: str) -> Result:
    line = ["--url", org.url, *arguments]
    return await asyncio.to_thread(CliRunner().invoke, devorg, line)


@pytest.fixture
def run(org: DevOrg) -> Run:
    async def call(*arguments: str) -> str:
        result = await invoke(org, *arguments)
        assert result.exit_code == 0, result.output
        return result.output.strip()

    return call


async def test_a_record_is_made_changed_deleted_and_brought_back(org: DevOrg, run: Run) -> None:
    """Texts with `=`, other values with `:=`, an empty text is null."""
    account = await run("create", "Account", "Name=Bodra Labs", "AnnualRevenue:=1000", "Phone=1")
    await run("update", "Account", account, "Phone=", "Industry=Energy")
    record = org.ctx.org.get("Account", account)
    assert record is not None
    assert (record["AnnualRevenue"], record["Phone"], record["Industry"]) == (1000, None, "Energy")
    assert await run("delete", "Account", account) == account
    assert org.ctx.org.get("Account", account) is None
    await run("undelete", "Account", account)
    assert json.loads(await run("records", "Account"))["Id"] == account
    kinds = [entry["kind"] for entry in json.loads(await run("ledger", "--json"))]
    assert kinds == ["CREATE", "UPDATE", "DELETE", "UNDELETE"]
    assert len((await run("ledger")).splitlines()) == 4


async def test_a_file_of_changes_can_be_held_open(org: DevOrg, run: Run, tmp_path: Path) -> None:
    """And is committed or rolled back by its key."""
    file = tmp_path / "changes.json"
    file.write_text('[{"op": "create", "object": "Account", "values": {"Name": "Bodra Labs"}}]')
    held = json.loads(await run("apply", str(file), "--hold"))
    assert org.ctx.org.get("Account", held["results"][0]["id"]) is None
    await run("commit", held["transaction"])
    assert org.ctx.org.get("Account", held["results"][0]["id"]) is not None
    held = json.loads(await run("apply", str(file), "--hold"))
    await run("rollback", held["transaction"])
    assert org.ctx.org.held() == []


async def test_the_scene_is_set(org: DevOrg, run: Run) -> None:
    """Seed, time, settings, selection, tokens, replay ids."""
    assert "Lead               3" in await run("seed", "--leads", "3", "--live")
    await run("advance", "72h")
    assert org.ctx.clock.offset_ms == 72 * 3_600_000
    assert json.loads(await run("settings", "api_limit=5", "gzip=false", "--json"))["api_limit"] == 5
    assert "gzip" in await run("settings")
    assert await run("select", "Lead") == "Lead"
    position = org.ctx.bus.latest_id()
    await run("expire-replay")
    assert not org.ctx.bus.valid(position)
    assert "refresh            1" in await run("expire-tokens", "--refresh")
    assert json.loads(await run("info", "--json"))["url"] == org.url
    assert json.loads(await run("stats", "--json"))["api"] == 0
    assert "delivered" in await run("stats")
    assert await run("drop-connections") == "0"


async def test_faults_are_ordered_listed_and_cleared(run: Run) -> None:
    """With any effect."""
    number = await run("fault", "rest", "--status", "503", "--code", "X", "--count", "0", "--effect", "html")
    await run("fault", "cometd:connect", "--effect", "unknown_client", "--delay", "100ms")
    assert json.loads(await run("faults", "--json"))[0] == {
        "number": int(number),
        "kind": "rest",
        "count": None,
        "status": 503,
        "code": "X",
        "html": True,
    }
    await run("clear-faults", number)
    assert "unknown_client=True" in await run("faults")
    await run("clear-faults")
    assert await run("faults") == ""


async def test_fields_and_rules_are_set_up(org: DevOrg, run: Run) -> None:
    """A field comes, is retyped and goes; a rule refuses, until it is taken back."""
    await run("field", "add", "Lead", "Region__c", "type=string", "length:=40")
    await run("field", "change", "Lead", "Region__c", "type=double")
    field = org.ctx.schema.require("Lead").field("Region__c")
    assert field is not None
    assert field.type == "double"
    await run("field", "remove", "Lead", "Region__c")
    assert org.ctx.schema.require("Lead").field("Region__c") is None
    account = await run("create", "Account", "Name=Bodra Labs")
    await run("rule", "lock", f"id={account}")
    assert "UNABLE_TO_LOCK_ROW" in (await invoke(org, "update", "Account", account, "Phone=1")).output
    await run("clear-rules")
    await run("update", "Account", account, "Phone=1")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["gap", "Lead", "00Q5f000006PpLmEAK", "--operation", "DELETE"], b'"GAP_DELETE"'),
        (["overflow", "Lead"], b'"GAP_OVERFLOW"'),
        (["wildcard", "Lead", "00Q*"], b'"00Q*"'),
        (["raw", "Lead", '{"x": 1}'], b'{"x":1}'),
    ],
)
async def test_events_are_emitted(org: DevOrg, run: Run, arguments: list[str], kind: bytes) -> None:
    """Of each sort."""
    replay_id = int(await run("emit", *arguments))
    row = org.ctx.database.connection.execute("SELECT * FROM event_log WHERE replay_id = ?", (replay_id,)).fetchone()
    assert kind in row["payload"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["create", "Account", "Phone=1"], 1, "REQUIRED_FIELD_MISSING"),
        (["create", "Account", "Name"], 2, "expected Field=value"),
        (["create", "Account", "Name:=["], 2, "no JSON"),
        (["advance", "soon"], 2, "expected a duration"),
        (["emit", "raw", "Lead", "{"], 2, "no JSON"),
        (["fault", "weather"], 1, "expected one of"),
        (["--url", "http://127.0.0.1:9", "info"], 3, "no local org answers"),
    ],
)
async def test_what_is_wrong_is_said(org: DevOrg, arguments: list[str], code: int, text: str) -> None:
    """1 where the org refuses, 2 where the line is wrong, 3 where there is no org."""
    result = await invoke(org, *arguments)
    assert (result.exit_code, text in result.output) == (code, True), result.output


async def test_another_server_is_no_local_org(org: DevOrg) -> None:
    """A clear word in place of a traceback."""
    line = ["--url", f"{org.url}/services", "info"]
    result = await asyncio.to_thread(CliRunner().invoke, devorg, line)
    assert result.exit_code == 1
    assert "NOT_FOUND" in result.output
