"""The programs of docs/clients against a daemon at work, each where its runtime is installed. `make test-clients`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients import node
from tests.e2e.load import People
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

CLIENTS = Path(__file__).parents[2] / "docs" / "clients"
_INSTALLING_S = 360  # the first time, packages are installed


class Program:
    """A program that goes on, and what it has printed."""

    def __init__(self, words: Sequence[str | Path], directory: Path, env: Mapping[str, str]) -> None:
        self._log = directory / "printed.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - as documented
                [str(word) for word in words], cwd=directory, stdout=log, stderr=log, env={**os.environ, **env}
            )

    def lines(self) -> list[str]:
        """What it has printed, and those before it in this directory."""
        return self._log.read_text(encoding="utf-8").splitlines()

    def until(self, line: str) -> None:
        """Return once it has printed a line with this in it."""
        until(
            lambda: any(line in printed for printed in self.lines()) or self._process.poll() is not None,
            40.0,
            say=lambda: "\n".join(self.lines()[-20:]),
        )
        assert any(line in printed for printed in self.lines()), "\n".join(self.lines()[-20:])

    def end(self) -> None:
        """SIGTERM."""
        self._process.terminate()
        self._process.wait(20)


@contextmanager
def running(words: Sequence[str | Path], directory: Path, **env: str) -> Iterator[Program]:
    program = Program(words, directory, env)
    try:
        yield program
    finally:
        program.end()


def address(stack: Stack) -> tuple[str, str]:
    return stack.broker.host, str(stack.broker.port)


def test_python_follows_without_missing_one(stack: Stack, tmp_path: Path) -> None:
    """Live, and over a time in which it was away: each version once, in order."""
    follow: list[str | Path] = [sys.executable, CLIENTS / "follow.py", *address(stack)]
    someone = next(iter(stack.org.records("Contact")))
    with running(follow, tmp_path) as program:
        stack.org.update("Contact", someone, Phone="555-0001")
        program.until(f"update Contact {someone} Phone")
    with People(stack.told["url"], seed=3):  # edits while it is away
        until(lambda: len(stack.changes()) > 20, 30.0)
    stack.settled()
    with running(follow, tmp_path) as program:
        program.until(f"{stack.replica.last_version()} ")
        since = stack.watcher.mark()
        stack.org.update("Contact", someone, Phone="555-0002")
        last = stack.until_change(someone, "update", since=since).json["data"]["version"]
        program.until(f"{last} update Contact {someone} Phone")
        versions = [int(line.split()[0]) for line in program.lines()]
    assert versions == list(range(1, last + 1))


def test_python_writes_once(stack: Stack, tmp_path: Path) -> None:
    """A result, the same result again for a repeat, and a refusal with the reason."""

    def write(*arguments: str) -> tuple[int, list[str]]:
        words = [sys.executable, str(CLIENTS / "write.py"), *address(stack), *arguments]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=40, check=False)  # noqa: S603
        return done.returncode, done.stdout.split()

    first = write("Contact", "create", "order-7", '{"fields": {"LastName": "Written"}}')
    assert (first[0], first[1][0]) == (0, "succeeded")
    assert write("Contact", "create", "order-7", '{"fields": {"LastName": "Written"}}') == first
    assert [r["LastName"] for r in stack.org.records("Contact").values()].count("Written") == 1
    code, printed = write("Contact", "create", "order-8", '{"fields": {"Colour": "red"}}')
    assert (code, printed[0]) == (1, "rejected")
    assert "Colour" in " ".join(printed)
    stack.settled()


@pytest.mark.timeout(_INSTALLING_S)
def test_javascript(stack: Stack) -> None:
    """A command's result, its change, a query and a count, over MQTT 5 with correlation data."""
    printed = node.run(CLIENTS / "client.mjs", *address(stack)).splitlines()
    (result,) = (line.split() for line in printed if line.startswith("result"))
    assert result[1] == "succeeded"
    assert stack.org.records("Contact")[result[2]]["Email"] == "ada@example.com"
    assert any(line.startswith(f"change true create Contact {result[2]} command web-") for line in printed)
    assert "record Ada Byron ada@example.com live" in printed
    assert "count 1" in printed
    stack.settled()


def test_a_small_device(stack: Stack, tmp_path: Path) -> None:
    """MQTT 3.1.1 in C: the connector's state, and a count that follows the leads."""
    compiler = shutil.which("cc")
    if compiler is None or not all(
        Path("/usr/include", header).exists() for header in ("mosquitto.h", "cjson/cJSON.h")
    ):
        pytest.skip("apt-get install gcc libmosquitto-dev libcjson-dev")
    words: list[str | Path] = [
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
        tmp_path / "device",
        CLIENTS / "device.c",
        "-lmosquitto",
        "-lcjson",
    ]
    subprocess.run([compiler, *words], check=True, timeout=60)  # noqa: S603 - the compiler
    with running([tmp_path / "device", *address(stack)], tmp_path) as device:
        device.until("connector: online")
        device.until("open leads: ")
        before = int(device.lines()[-1].split()[-1])
        made = stack.org.create("Lead", LastName="Lamp", Company="Acme", Status="Open - Not Contacted")
        device.until(f"open leads: {before + 1}")
        stack.org.update("Lead", made, Status="Working - Contacted")
        until(lambda: device.lines()[-1] == f"open leads: {before}", 20.0)
    stack.settled()


@pytest.mark.timeout(_INSTALLING_S)
def test_node_red(stack: Stack, tmp_path: Path) -> None:
    """The flow, in a Node-RED without its editor: a new lead is written to, once."""
    red = node.node_modules(node.SOURCE.parent / "node-red", node.PLACE.parent / "node-red") / "node-red" / "red.js"
    host, port = address(stack)
    settings = tmp_path / "settings.js"
    settings.write_text(
        "module.exports = { disableEditor: true, httpAdminRoot: false, httpNodeRoot: false, uiPort: 0 };"
    )
    words: list[str | Path] = ["node", red, "--settings", settings, "--userDir", tmp_path, CLIENTS / "flow.json"]
    with running(words, tmp_path, MESH_HOST=host, MESH_PORT=port) as flow:
        subscribed = "node-red-leads 1 blackroad/salesforce/change/Lead/create/+"
        broker_log = stack.daemon.settings.parents[1] / "broker" / "mosquitto.log"
        until(lambda: subscribed in broker_log.read_text(encoding="utf-8"), 40.0, say=lambda: "\n".join(flow.lines()))
        made = stack.org.create("Lead", LastName="Red", Company="Acme", Status="Open - Not Contacted")
        version = stack.until_change(made, "create").json["data"]["version"]
        until(lambda: stack.org.records("Lead")[made]["Status"] == "Working - Contacted", 20.0)
        flow.until("succeeded")
    results = stack.watcher.messages(f"blackroad/salesforce/result/greet-{version}")
    assert [json.loads(message.payload)["status"] for message in results] == ["accepted", "succeeded"]
    stack.settled()
