"""What the documents show a reader to type, typed as it stands, where the daemon runs."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import mosquitto_clients
from tests.broker import free_port
from tests.documents import GUIDES, ROOT, shell_lines, shown_commands, typed_lines
from tests.e2e.load import People
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

SHOWN_ID = "0035f00002KmQ7aAAF"
# Each runs until it is ended, or makes what others need; each has a test of its own.
ELSEWHERE = {
    "daemon": "the daemon of every test here",
    "demo": "tests/e2e/test_demo.py",
    "devorg": "tests/devorg/test_guide.py",
    "mirror": "tests/e2e/test_mirror.py",
    "restore": "tests/faults/test_store_files.py",
    "top": "tests/e2e/test_page.py",
    "web": "tests/e2e/test_page.py",
}
# Both are done by then: wrong words, not a failure.
CODES = {"commands cancel crm-2": 2, "commands retry crm-1": 2}
COMMANDS = sorted({line for line in shown_commands() if line.split()[1] not in ELSEWHERE and "OBJECT" not in line})
MESH = dict.fromkeys(
    line
    for document in GUIDES
    for line in shell_lines(document)
    if re.match(r"mosquitto_(rr|pub|sub) ", line) and " -h " not in line
)
PYTEST = sorted({line for line in typed_lines() if line.startswith(".venv/bin/pytest")})
BROKER = "mkdir -p data/mosquitto && /usr/sbin/mosquitto -c mosquitto.conf"


@pytest.fixture(scope="module")
def someone(stack: Stack) -> str:
    """A contact with a past, and commands crm-1 and crm-2 that are done."""
    contact = next(iter(stack.org.records("Contact")))
    for command_id, phone in (("crm-1", "555-0001"), ("crm-2", "555-0002")):
        command = {"command_id": command_id, "id": contact, "fields": {"Phone": phone}}
        stack.watcher.send("blackroad/salesforce/command/Contact/update", command)
        stack.watcher.until(f"blackroad/salesforce/result/{command_id}", lambda m: m.json["status"] == "succeeded")
    stack.until_change(contact, count=2)
    until(lambda: stack.replica.searchable("Lead"))
    return contact


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line(stack: Stack, someone: str, line: str) -> None:
    """Of the program, with a contact that is there; it ends as it should, and no traceback is shown."""
    words = shlex.split(line.replace(SHOWN_ID, someone), comments=True)[1:]
    done = subprocess.run(  # noqa: S603 - as documented
        [sys.executable, "-m", "connector", *words],
        cwd=stack.daemon.settings.parent,
        env=stack.daemon.env,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == CODES.get(" ".join(words), 0), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", MESH)
def test_a_line_on_the_mesh(stack: Stack, someone: str, line: str, tmp_path: Path) -> None:
    """Of Mosquitto's clients: what comes is JSON, and no refusal."""
    line = line.replace(SHOWN_ID, someone)
    if line.startswith("mosquitto_sub"):
        more = [] if " -C " in line else ["-C", "1", "-W", "20"]
        with People(stack.told["url"], seed=5):
            printed = mosquitto_clients.run(line, stack.broker, tmp_path, more)
    else:
        printed = mosquitto_clients.run(line, stack.broker, tmp_path)
    if line.startswith("mosquitto_pub"):
        assert printed == ""
        return
    for message in printed.splitlines():
        document = json.loads(message.partition(" ")[2] if " -v " in line else message)
        assert document.get("ok", True) is True, document
        assert document.get("status") != "rejected", document
    assert printed


@pytest.mark.parametrize("line", PYTEST)
def test_a_line_for_pytest(line: str) -> None:
    """It finds tests."""
    words = [sys.executable, "-m", "pytest", *shlex.split(line)[1:], "--collect-only", "-q"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_broker_for_development(tmp_path: Path) -> None:
    """As README.md and mosquitto.conf have it, but for the port: it takes a retained message, and keeps it."""
    port = free_port()
    shipped = (ROOT / "mosquitto.conf").read_text(encoding="utf-8")
    assert BROKER in shipped
    (tmp_path / "mosquitto.conf").write_text(shipped.replace("listener 1883 ", f"listener {port} "), encoding="utf-8")
    client = ["mosquitto_sub", "-p", str(port), "-t", "kept", "-C", "1", "-W", "5"]
    with subprocess.Popen(["bash", "-c", BROKER], cwd=tmp_path, start_new_session=True) as broker:  # noqa: S603, S607 - as documented
        try:
            until(lambda: listens(port))
            told = ["mosquitto_pub", "-p", str(port), "-q", "1", "-r", "-t", "kept", "-m", "word"]
            subprocess.run(told, check=True, timeout=10)  # noqa: S603 - our own arguments
            assert subprocess.run(client, capture_output=True, text=True, check=True).stdout == "word\n"  # noqa: S603
        finally:
            os.killpg(broker.pid, signal.SIGTERM)
    assert (tmp_path / "data" / "mosquitto" / "mosquitto.db").exists()


def listens(port: int) -> bool:
    """True once somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_something_is_typed() -> None:
    """The lines are found where they are."""
    assert len(COMMANDS) > 10
    assert len(MESH) > 10
    assert all((ROOT / place.split()[0]).exists() for place in ELSEWHERE.values() if place.startswith("tests/"))


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="Debian's package sqlite3 is not installed")
def test_the_readmes_sql(stack: Stack) -> None:
    """With Debian's own `sqlite3`."""
    (line,) = [line for line in shell_lines(ROOT / "README.md") if line.startswith("sqlite3 ")]
    directory = stack.daemon.settings.parent
    done = subprocess.run(shlex.split(line), cwd=directory, capture_output=True, text=True, check=True)  # noqa: S603
    assert len(done.stdout.splitlines()) == 5
