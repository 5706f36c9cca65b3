"""The command line against a local org and a broker: what it prints, and the exit codes of the interface."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connector.devorg.admin.seed import Seed, sow
from connector.devorg.objects.residents import FIRST_EDITOR_ID
from connector.devorg.server import DevOrg
from tests.broker import Broker
from tests.waiting import until

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("SF_", "MQTT_", "SALESFORCE_SYNC_"))}


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Place:
    """A working directory with settings for a local org."""

    path: Path
    env: Mapping[str, str]

    async def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connector", *arguments,
            cwd=self.path, env={**CLEAN, **self.env, **(env or {})},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return Outcome(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as made:
        await sow(made.ctx, Seed(accounts=3, contacts=12, leads=2))
        yield made


@pytest.fixture
def place(tmp_path: Path, org: DevOrg) -> Place:
    (tmp_path / "settings.toml").write_text(f'[salesforce]\ninstance_url = "{org.url}"\n', "utf-8")
    known = org.ctx.credentials
    return Place(tmp_path, {"SF_CLIENT_ID": known.client_id, "SF_CLIENT_SECRET": known.client_secret})


async def test_init_writes_once_and_never_over(tmp_path: Path) -> None:
    """The settings file holds the org's address; a second run leaves everything and exits 1."""
    place = Place(tmp_path, {})
    first = await place.run("init", "--instance-url", "https://acme.my.salesforce.com")
    assert first.code == 0
    text = (tmp_path / "settings.toml").read_text("utf-8")
    assert 'instance_url = "https://acme.my.salesforce.com"' in text
    assert (tmp_path / ".env.example").exists()
    (tmp_path / "settings.toml").write_text("mine", "utf-8")
    second = await place.run("init")
    assert second.code == 1
    assert (tmp_path / "settings.toml").read_text("utf-8") == "mine"


async def test_sync_loads_and_the_reads_show_it(place: Place, org: DevOrg) -> None:
    """Load, list with paging, get, search by text and by field, then a catch-up of one edit."""
    loaded = await place.run("sync", "--json")
    assert loaded.code == 0, loaded.err
    assert {r["objects"][0]: r["records"] for r in loaded.json["rounds"] if r["kind"] == "load"} == {
        "Contact": 12, "Lead": 2, "Account": 3, "Opportunity": 0,
    }  # fmt: skip
    page = (await place.run("list", "contact", "--limit", "5", "--order-by", "LastName", "--json")).json
    more = (await place.run("list", "Contact", "--order-by", "LastName", "--after", page["next"], "--json")).json
    names = [r["LastName"] for r in page["records"] + more["records"]]
    assert names == sorted(names)
    assert len(names) == 12
    someone = page["records"][0]
    got = (await place.run("get", "Contact", someone["Id"][:15], "--json")).json
    assert got == someone
    by_field = (await place.run("search", "Contact", f"Email={someone['Email'].upper()}", "--json")).json
    assert [r["Id"] for r in by_field["records"]] == [someone["Id"]]
    by_text = (await place.run("search", "Contact", someone["Email"], "--json")).json
    assert [r["Id"] for r in by_text["records"]] == [someone["Id"]]

    with org.ctx.org.transaction(FIRST_EDITOR_ID, "") as transaction:
        transaction.update("Contact", someone["Id"], {"Phone": "555-0001"})
    caught_up = await place.run("sync")
    assert "1 changes" in caught_up.out
    table = await place.run("get", "Contact", someone["Id"])
    assert "555-0001" in table.out

    told = (await place.run("history", "Contact", someone["Id"], "--json")).json
    assert [(c["operation"], c["after"]) for c in told["changes"]] == [("update", {"Phone": "555-0001"})]
    assert "555-0001" in (await place.run("history", "contact", someone["Id"][:15])).out
    before = await place.run("history", "Contact", someone["Id"], "--at", "2020-01-01T00:00:00Z", "--json")
    assert before.json["Phone"] == someone["Phone"]
    nothing = await place.run("history", "Contact", "0035f00002KmQ7aAAF")
    assert (nothing.code, "nothing is known" in nothing.err) == (1, True)
    assert (await place.run("history", "Contact", someone["Id"], "--at", "yesterday")).code == 2


async def test_schemas_are_of_messages_and_of_loaded_objects(place: Place) -> None:
    """All of them, or one by its name."""
    before = await place.run("schema")
    assert before.code == 0
    assert before.json["objects"] == {}
    assert (await place.run("sync")).code == 0
    told = (await place.run("schema")).json
    assert {"change", "command", "query", "result"} <= told["messages"].keys()
    assert sorted(told["objects"]) == ["Account", "Contact", "Lead", "Opportunity"]
    assert (await place.run("schema", "contact")).json == told["objects"]["Contact"]
    assert (await place.run("schema", "command")).json == told["messages"]["command"]
    topics = (await place.run("schema", "asyncapi")).json["channels"]
    assert topics["change"]["parameters"]["Object"]["enum"] == list(told["objects"])
    assert (await place.run("schema", "nope")).code == 2


async def test_get_of_nothing_exits_1_and_wrong_words_exit_2(place: Place) -> None:
    """An unknown id is a failure; an unknown object, field or malformed id is wrong usage."""
    assert (await place.run("sync")).code == 0
    assert (await place.run("get", "Contact", "0035f00002KmQ7aAAF")).code == 1
    for wrong in (
        ("get", "Contact", "nonsense"),
        ("list", "Case"),
        ("list", "Contact", "--order-by", "Nope"),
        ("sync", "--objects", "Case"),
        ("nonsense",),
    ):
        outcome = await place.run(*wrong)
        assert outcome.code == 2, wrong
        assert "Traceback" not in outcome.err


async def test_every_settings_mistake_is_one_line(place: Place) -> None:
    """Exit 2, before anything is touched."""
    env = {"SALESFORCE_SYNC_MQTT__PORT": "x", "SALESFORCE_SYNC_SYNC__NOPE": "1"}
    outcome = await place.run("sync", env=env)
    assert outcome.code == 2
    named = {line.removeprefix("salesforce-sync: ").split()[0].rstrip(":") for line in outcome.err.splitlines()}
    assert named == {"mqtt.port", "sync.nope"}
    assert not (place.path / "data").exists()


async def test_a_refused_login_and_an_org_that_is_away_exit_3(place: Place, org: DevOrg) -> None:
    """The message says which."""
    refused = await place.run("sync", env={"SF_CLIENT_SECRET": "wrong"})
    assert refused.code == 3
    assert "wrong" not in refused.err
    await org.stop()
    away = await place.run("sync", env={"SALESFORCE_SYNC_SALESFORCE__TIMEOUT": "1s"})
    assert away.code == 3
    await org.start()


async def test_status_tells_of_the_replica_and_of_a_broker_that_is_away(place: Place) -> None:
    """Not an error: the replica is what is asked for."""
    before = await place.run("status", "--json", env={"SALESFORCE_SYNC_MQTT__PORT": "9"})
    assert before.code == 0
    assert before.json["replica"] is None
    await place.run("sync")
    after = await place.run("status", "--json", env={"SALESFORCE_SYNC_MQTT__PORT": "9"})
    assert after.json["replica"]["objects"]["Contact"] == {"records": 12, "deleted": 0}
    assert after.json["daemon"]["state"] == "unknown"
    assert "Contact" in (await place.run("status", env={"SALESFORCE_SYNC_MQTT__PORT": "9"})).out


async def test_sync_beside_a_daemon_asks_the_daemon(place: Place, broker: Broker) -> None:
    """Two writers on one database would be refused; the daemon does it instead, and tells its state."""
    env = {"SALESFORCE_SYNC_MQTT__PORT": str(broker.port)}
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connector", "daemon",
        cwd=place.path, env={**CLEAN, **place.env, **env}, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:

        async def online() -> bool:
            told = (await place.run("status", "--json", env=env)).json
            return bool(told["daemon"]["state"] == "online")

        await until(online)
        asked = await place.run("sync", "--json", env=env)
        assert asked.code == 0, asked.err
        assert asked.json["state"] == "done"
        second = await place.run("daemon", env=env)
        assert second.code == 2
        assert "in use by another salesforce-sync" in second.err
    finally:
        daemon.terminate()
        assert await daemon.wait() == 0
    told = (await place.run("status", "--json", env=env)).json["daemon"]
    assert told["state"] == "offline"
