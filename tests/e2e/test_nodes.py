"""Several nodes: bridged brokers with the configuration of docs/nodes.md, and connectors that divide the objects."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from connector.client import SFSync
from tests.broker import BrokerOptions, ProcessBroker, free_port
from tests.e2e.making import MakeStack
from tests.e2e.mirrors import mirror_at
from tests.e2e.processes import DaemonProcess, toml
from tests.e2e.replica import ReplicaFile, differences, fold
from tests.e2e.stack import Stack, merge
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT, Watcher

GUIDE = Path(__file__).parents[2] / "docs" / "nodes.md"


def bridge_of_the_guide(whose: str, port: int) -> list[str]:
    """The lines that the guide shows for a broker, with the other one's address."""
    (block,) = re.findall(rf"```\n# {whose}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for line in block.splitlines() if line]
    return [f"address 127.0.0.1:{port}" if line.startswith("address ") else line for line in lines]


class Far:
    """The broker of another node, bridged to that of the stack, and a service there."""

    def __init__(self, directory: Path, port: int, stack: Stack) -> None:
        extra = bridge_of_the_guide("aria", stack.broker.port)
        self.broker = ProcessBroker(directory, BrokerOptions(extra=extra))
        self.broker.port = port
        self.watcher: Watcher

    def start(self) -> None:
        asyncio.run(self.broker.start())

    def stop(self) -> None:
        asyncio.run(self.broker.stop())


@pytest.fixture
def far_port() -> int:
    return free_port()


@pytest.fixture
def stack(make_stack: MakeStack, far_port: int) -> Stack:
    made = make_stack(options=BrokerOptions(extra=bridge_of_the_guide("near", far_port)))
    made.start()
    return made


@pytest.fixture
def far(stack: Stack, far_port: int, tmp_path: Path) -> Iterator[Far]:
    with ExitStack() as opened:
        node = Far(tmp_path / "far", far_port, stack)
        node.start()
        opened.callback(lambda: asyncio.run(node.broker.kill()))
        node.watcher = opened.enter_context(Watcher(node.broker.host, node.broker.port))
        node.watcher.until(f"{ROOT}/status", lambda m: bool(m.json["state"] == "online"))
        yield node


def test_everything_crosses(stack: Stack, far: Far, tmp_path: Path) -> None:
    """Changes, commands, results, queries, control; properties of MQTT 5; a mirror and Python on the far side."""
    someone = next(iter(stack.org.records("Contact")))
    since = far.watcher.mark()
    command = {"command_id": "far-1", "id": someone, "fields": {"Phone": "far"}}
    far.watcher.send(f"{ROOT}/command/Contact/update", command, response_topic="aria/inbox", correlation=b"\x00\x01")
    done = far.watcher.until("aria/inbox", lambda m: bool(m.json["status"] == "succeeded"), since=since)
    assert (done.correlation, done.content_type) == (b"\x00\x01", "application/json")
    far.watcher.until(f"{ROOT}/result/far-1", lambda m: bool(m.json["status"] == "succeeded"), since=since)
    change = far.watcher.until(f"{ROOT}/change/Contact/update/{someone}", since=since)
    assert change.content_type == "application/cloudevents+json"
    assert (change.json["data"]["origin"], change.json["data"]["command_id"]) == ("command", "far-1")
    far.watcher.send(f"{ROOT}/query/Contact/get", {"id": someone}, response_topic="aria/q", correlation=b"7")
    got = far.watcher.until("aria/q")
    assert (got.correlation, got.json["records"][0]["Phone"]) == (b"7", "far")
    far.watcher.send(f"{ROOT}/control/status", {})
    assert far.watcher.until(f"{ROOT}/reply/status").json["data"]["node"] == "lucidia"
    with SFSync(remote=f"{far.broker.host}:{far.broker.port}") as sync:
        assert sync.contacts.update(someone, phone="python").wait(timeout=20).succeeded
    with mirror_at(tmp_path / "mirror", far.broker) as mirror:
        stack.settled()
        mirror.until_equal(stack)
        stack.watcher.until(f"{ROOT}/mirror/far", lambda m: bool(m.json["state"] == "live"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("which", ["near", "far"])
def test_a_cut_loses_nothing(stack: Stack, far: Far, tmp_path: Path, which: str) -> None:
    """Either broker goes away and comes back: every command is done once, every change arrives, the mirror is equal."""
    someone = next(iter(stack.org.records("Contact")))
    with mirror_at(tmp_path / "mirror", far.broker) as mirror:
        mirror.until_equal(stack)
        since = far.watcher.mark()
        stack.stop_broker() if which == "near" else far.stop()
        for number in range(20):
            stack.org.update("Contact", someone, Phone=str(number))
        if which == "near":  # the far side works on: what it sends waits for the bridge
            for number in range(20):
                payload = {"command_id": f"cut-{number}", "fields": {"LastName": f"Cut {number}"}}
                far.watcher.send(f"{ROOT}/command/Contact/create", payload)
        stack.until_equal()
        stack.start_broker() if which == "near" else far.start()
        stack.watcher.until_connected()
        far.watcher.until_connected()
        if which == "near":
            for number in range(20):
                done = f"{ROOT}/result/cut-{number}"
                far.watcher.until(done, lambda m: bool(m.json["status"] == "succeeded"), since=since, timeout_s=30)
            names = [row["LastName"] for row in stack.org.records("Contact").values()]
            assert sorted(n for n in names if n.startswith("Cut ")) == sorted(f"Cut {n}" for n in range(20))
        stack.until_equal()
        last = stack.replica.last_version()
        far.watcher.until(f"{ROOT}/change/#", lambda m: bool(m.json["data"]["version"] == last), since=since)
        fold(far.watcher.messages(f"{ROOT}/change/#"))
        mirror.until_equal(stack)


def test_two_connectors_divide_the_objects(make_stack: MakeStack, tmp_path: Path) -> None:
    """Each its own objects under its own root, in one org and on one broker; a shared root is told."""
    ours, theirs = ("Account", "Contact"), ("Lead", "Opportunity")
    stack = make_stack({"sync": {"objects": list(ours)}}, objects=ours)
    other_root = f"{ROOT}-aria"
    file = ReplicaFile(tmp_path / "aria" / "data.db")

    def aria(root: str) -> DaemonProcess:
        settings = merge(
            {
                "node": {"name": "aria"},
                "salesforce": {"instance_url": stack.told["url"]},
                "sync": {"objects": list(theirs)},
                "storage": {"path": str(file.path)},
                "mqtt": {"host": stack.broker.host, "port": stack.broker.port, "root": root},
                "health": {"interval": "1s"},
            }
        )
        return DaemonProcess(tmp_path / "aria", toml(settings), stack.secrets())

    second = aria(other_root)
    try:
        stack.start()
        second.launch()
        second.until_logged("stream.subscribed")
        until(lambda: file.loaded(theirs))
        contact, lead = (next(iter(stack.org.records(name))) for name in ("Contact", "Lead"))
        stack.org.update("Contact", contact, Phone="1")
        stack.org.update("Lead", lead, Company="2")
        for root, name, record_id, values in (
            (ROOT, "Contact", contact, {"Phone": "3"}),
            (other_root, "Lead", lead, {"Company": "4"}),
        ):
            command_id = f"two-{name}"
            payload = {"command_id": command_id, "id": record_id, "fields": values}
            stack.watcher.send(f"{root}/command/{name}/update", payload)
            stack.watcher.until(f"{root}/result/{command_id}", lambda m: bool(m.json["status"] == "succeeded"))
        stack.until_equal()
        until(lambda: not differences(stack.org, file, theirs))
        for root, names, replica in ((ROOT, ours, stack.replica), (other_root, theirs, file)):
            last = replica.last_version()
            stack.watcher.until(f"{root}/change/#", lambda m, at=last: bool(m.json["data"]["version"] == at))  # type: ignore[misc]  # bound at once
            folded = fold(stack.watcher.messages(f"{root}/change/#"))  # versions without holes, each root its own
            assert {name for name, _ in folded.records} <= set(names)
        states = {root: stack.watcher.messages(f"{root}/status")[-1].json["node"] for root in (ROOT, other_root)}
        assert states == {ROOT: "lucidia", other_root: "aria"}
        assert second.stop() == 0
        second = aria(ROOT)
        second.launch()
        second.until_logged("mesh.root_shared")
        stack.daemon.until_logged("mesh.root_shared")
        stack.health(lambda h: bool(h["state"] == "failing") and "aria" in h["last_error"]["error"])
        assert second.stop() == 0
        stack.health(lambda h: bool(h["state"] == "ok"))
    finally:
        second.end()
