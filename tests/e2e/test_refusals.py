"""What the daemon refuses to start with: exit codes, words for the operator, and nothing touched."""

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from connector.store.seal import seal
from connector.store.session import PAGE_BYTES
from tests.broker import BrokerOptions, ProcessBroker
from tests.e2e.making import MakeStack
from tests.e2e.processes import DaemonProcess
from tests.e2e.stack import Settings, Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT

OTHER_ORG = "00D5f000000Qr8tEAC"
OURS = 0x53465359  # "SFSY", `PRAGMA application_id` of a replica


@pytest.fixture(scope="module")
def stack(make_stack: MakeStack) -> Stack:
    """Broker and org; no daemon."""
    return make_stack()


def test_every_mistake_in_the_settings_is_told_at_once(tmp_path: Path) -> None:
    """Exit 2 and one line per problem, naming key, value and what was expected; secrets are not repeated."""
    settings = """
        surprise = 1
        [sync]
        batch_size = "many"
        lookback = "5 minutes"
        [objects.Contact]
        colour = "red"
        [mqtt]
        port = 99999
        password = "in-the-wrong-place"
        [salesforce]
        instance_url = "http://example.com"
    """
    daemon = DaemonProcess(tmp_path, settings, {"SALESFORCE_SYNC_NODE__NAME": "no spaces please"})
    code, lines = ended(daemon)
    assert code == 2
    for key in (
        "surprise",
        "sync.batch_size",
        "sync.lookback",
        "objects.Contact.colour",
        "mqtt.port",
        "mqtt.password",
        "salesforce.instance_url",
        "node.name",
    ):
        assert [line for line in lines if f" {key}" in line], f"{key} is not told of: {lines}"
    assert "'5 minutes'" in " ".join(lines)
    assert "99999" in " ".join(lines)
    assert all(line.startswith("salesforce-sync: ") for line in lines)


@pytest.mark.parametrize(
    ("settings", "secrets", "told"),
    [
        ({"salesforce": {"auth": "jwt"}}, {"SF_CLIENT_ID": "x"}, "SF_PRIVATE_KEY_FILE"),
        ({}, {"SF_CLIENT_ID": "x"}, "SF_CLIENT_SECRET"),
        ({"salesforce": {"instance_url": "https://yourinstance.my.salesforce.com"}}, {"SF_CLIENT_ID": "x"}, "example"),
        ({"objects": {"Contact": {"fields": "some"}}}, {"SF_CLIENT_ID": "x"}, "objects.Contact.fields"),
        ({"secrets": {"sf_password": "x"}}, {"SF_CLIENT_ID": "x"}, "environment"),
    ],
)
def test_missing_secrets_and_wrong_values(stack: Stack, settings: Settings, secrets: dict[str, str], told: str) -> None:
    """Exit 2 with what is missing or wrong by name."""
    stack.configure(settings, **secrets)
    code, lines = ended(stack.daemon)
    assert code == 2
    assert told in " ".join(lines)


def test_no_settings_file(tmp_path: Path) -> None:
    """Exit 2 and how to make one."""
    daemon = DaemonProcess(tmp_path, "", {})
    daemon.settings.unlink()
    code, lines = ended(daemon)
    assert (code, "init" in lines[-1]) == (2, True)


def test_refused_credentials(make_stack: MakeStack) -> None:
    """The first start stays up and says so: one login, health failing; mended and restarted, it loads."""
    stack = make_stack()
    stack.configure({}, SF_CLIENT_ID=stack.told["client_id"], SF_CLIENT_SECRET="wrong")
    stack.daemon.launch()
    health = stack.health(lambda h: bool(h["state"] == "failing"))
    assert (health["last_error"]["source"], health["objects"]) == ("org", {})
    time.sleep(1.5)  # longer than the longest back-off: a second login would have been tried
    assert len(stack.daemon.events("login.refused")) == 1
    assert stack.daemon.stop() == 0
    assert "Traceback" not in stack.daemon.text()
    assert "wrong" not in stack.daemon.text()
    stack.configure()
    stack.start()
    stack.health(lambda h: bool(h["state"] == "ok"))


def test_an_org_that_is_not_there(make_stack: MakeStack) -> None:
    """The very first start waits for it, degraded; commands wait at the broker; all goes on by itself."""
    stack = make_stack()
    stack.org_process.stop()
    stack.daemon.launch()
    health = stack.health(lambda h: bool(h["last_error"]))
    assert (health["state"], health["stream"]["state"]) == ("degraded", "connecting")
    payload = {"command_id": "early", "fields": {"LastName": "Early"}}
    stack.watcher.send(f"{ROOT}/command/Contact/create", payload)
    stack.org_process.start()
    stack.until_ready()
    done = stack.watcher.until(f"{ROOT}/result/early", lambda m: bool(m.json["completed_at"])).json
    assert done["status"] == "succeeded"
    stack.settled()
    stack.health(lambda h: bool(h["state"] == "ok"))


def test_a_start_that_waits_can_be_ended(make_stack: MakeStack) -> None:
    """SIGTERM does not wait for the org."""
    stack = make_stack()
    stack.org_process.stop()
    stack.daemon.launch()
    stack.health(lambda h: bool(h["last_error"]))
    began_s = time.monotonic()
    assert stack.daemon.stop() == 0
    assert time.monotonic() - began_s < 8


def test_a_refused_broker_password(stack: Stack, tmp_path: Path) -> None:
    """Exit 4: a person must change something."""
    broker = ProcessBroker(tmp_path, BrokerOptions(users={"daemon": "right"}))
    asyncio.run(broker.start())
    try:
        settings: Settings = {
            "mqtt": {"port": broker.port},
            "storage": {"path": str(tmp_path / "data" / "salesforce.db")},
        }
        stack.configure(settings, **stack.secrets(), MQTT_USERNAME="daemon", MQTT_PASSWORD="mistaken")
        code, lines = ended(stack.daemon)
    finally:
        asyncio.run(broker.kill())
    assert code == 4
    assert "mistaken" not in " ".join(lines)


def test_a_second_daemon(stack: Stack, tmp_path: Path) -> None:
    """Exit 2 while another daemon works on the database, which goes on undisturbed; the lock goes with its owner."""
    stack.configure()
    stack.start()
    second = DaemonProcess(tmp_path, stack.daemon.settings.read_text(), stack.secrets())
    code, lines = ended(second)
    assert code == 2
    assert "another" in lines[-1]
    contact = stack.org.create("Contact", LastName="Undisturbed")
    stack.until_change(contact)
    stack.daemon.kill()
    stack.start()
    assert stack.daemon.stop() == 0


@pytest.mark.parametrize("kind", ["text", "foreign", "newer", "corrupt"])
def test_a_database_that_is_not_for_us(stack: Stack, tmp_path: Path, kind: str) -> None:
    """Exit 2 with what to do; not a byte of the file is touched, and nothing is left beside it."""
    path = tmp_path / "data" / "other.db"
    path.parent.mkdir()
    make_database(path, kind)
    before = path.read_bytes()
    stack.configure({"storage": {"path": str(path)}})
    code, lines = ended(stack.daemon)
    assert code == 2
    assert str(path) in lines[-1]
    assert path.read_bytes() == before
    assert not [p for p in path.parent.iterdir() if p.suffix in (".db-wal", ".db-journal") and p.stat().st_size]


def test_a_replica_that_decayed_on_its_disk(stack: Stack, tmp_path: Path) -> None:
    """Found a few seconds after a start that need not read it: exit 2 with what to do, and no start after that."""
    path = tmp_path / "data" / "salesforce.db"
    stack.configure({"storage": {"path": str(path)}})
    stack.daemon.launch()
    until(lambda: len(stack.daemon.events("load.finished")) == len(stack.objects))
    stack.daemon.until_logged("store.read_whole")
    assert stack.daemon.stop() == 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        (page,) = file.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'contact_search_idx'").fetchone()
    with path.open("r+b") as data:
        data.seek((page - 1) * PAGE_BYTES)
        data.write(b"\xa5" * PAGE_BYTES)
    seal(path)  # a disk that loses what it held moves no times
    for opened in (["later"], []):
        code, lines = ended(stack.daemon)
        assert code == 2
        assert f"{path} is damaged" in lines[-1]
        assert "restore a backup" in lines[-1]
        assert [event["read"] for event in stack.daemon.events("store.opened")] == opened


def test_a_replica_of_another_org(stack: Stack, tmp_path: Path) -> None:
    """Records of two orgs must not mix: exit 2."""
    path = tmp_path / "data" / "salesforce.db"
    stack.configure({"storage": {"path": str(path)}})
    stack.daemon.launch()
    until(lambda: stack.daemon.events("load.finished"))
    assert stack.daemon.stop() == 0
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(
            "UPDATE cursor SET value = replace(value, ?, ?) WHERE name = 'org'", (stack.told["org_id"], OTHER_ORG)
        )
    code, lines = ended(stack.daemon)
    assert code == 2
    assert "org" in lines[-1]


def test_nothing_goes_out_of_a_refused_start(stack: Stack) -> None:
    """None of the refused starts above has said `online`."""
    stack.configure({"salesforce": {"stream": "no such stream"}})
    since = stack.watcher.mark()
    assert ended(stack.daemon)[0] == 2
    assert not [m for m in stack.watcher.messages(f"{ROOT}/status", since) if m.json["state"] == "online"]


def test_the_pubsub_api_without_its_libraries(stack: Stack, tmp_path: Path) -> None:
    """They are an extra: exit 2, with what to install. Without them everything else runs."""
    (tmp_path / "sitecustomize.py").write_text('import sys\nsys.modules["grpc"] = sys.modules["fastavro"] = None\n')
    stack.configure({"salesforce": {"stream": "pubsub"}}, **stack.secrets(), PYTHONPATH=str(tmp_path))
    code, lines = ended(stack.daemon)
    assert code == 2
    assert "pip install 'salesforce-sync[pubsub]'" in " ".join(lines)
    stack.configure({"salesforce": {"stream": "cometd"}}, **stack.secrets(), PYTHONPATH=str(tmp_path))
    stack.start()
    assert stack.daemon.stop() == 0


def ended(daemon: DaemonProcess) -> tuple[int, list[str]]:
    """Exit code and the lines on standard error that are not log events."""
    daemon.launch()
    code = daemon.wait()
    return code, [line for line in daemon.text().splitlines() if line.strip() and not line.startswith("{")]


def make_database(path: Path, kind: str) -> None:
    """A file that the daemon must leave alone."""
    if kind == "text":
        path.write_text("Dear diary, this is no database.\n" * 200, encoding="utf-8")
        return
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE precious (data TEXT)")
        file.executemany("INSERT INTO precious VALUES (?)", [(os.urandom(100).hex(),) for _ in range(200)])
        if kind != "foreign":
            file.execute(f"PRAGMA application_id = {OURS}")
            file.execute(f"PRAGMA user_version = {1_000_000 if kind == 'newer' else 1}")
    if kind == "corrupt":
        content = bytearray(path.read_bytes())
        content[4096:8192] = b"\xa5" * 4096
        path.write_bytes(content)


def count(logins: dict[str, Any]) -> int:
    """How many logins there were, over all kinds."""
    return sum(logins.values())
