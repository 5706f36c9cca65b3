"""SIGKILL and SIGTERM at any instant: nothing is lost, nothing is doubled."""

import random
import time

import pytest

from tests.e2e.load import People, Service, keyed
from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.watcher import ROOT

ROUNDS = 2
DRAIN_S = 10.0


@pytest.fixture(scope="module")
def stack(make_shared: MakeStack) -> Stack:
    """So that what became of a create can always be told."""
    return keyed(make_shared)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_under_load(stack: Stack, seed: int) -> None:
    """SIGKILL at random instants while people edit and a service commands: all arrives, each command has one effect."""
    rng = random.Random(seed)
    with People(stack.told["url"], seed), Service(stack) as service:
        for _ in range(ROUNDS):
            time.sleep(rng.uniform(0.05, 0.7))
            stack.daemon.kill()
            time.sleep(rng.choice((0.0, 0.2)))
            stack.start()
    service.check()
    stack.settled()


def test_killed_while_starting(stack: Stack) -> None:
    """SIGKILL in the middle of the start itself, again and again."""
    rng = random.Random(4)
    with People(stack.told["url"], 4, pause_s=0.05):
        stack.daemon.kill()
        for _ in range(4):
            stack.daemon.launch()
            time.sleep(rng.uniform(0.3, 0.9))
            stack.daemon.kill()
    stack.start()
    stack.settled()


def test_an_acknowledged_command_is_never_lost(stack: Stack) -> None:
    """Killed right behind a burst of commands: what the connector had acknowledged is on disk, the rest comes again."""
    for number, pause_s in enumerate((0.0, 0.01, 0.03, 0.06)):
        ids = [f"burst-{number}-{n}" for n in range(20)]
        for command_id in ids:
            payload = {"command_id": command_id, "fields": {"LastName": command_id}}
            stack.watcher.send(f"{ROOT}/command/Contact/create", payload, wait=False)
        time.sleep(pause_s)
        stack.daemon.kill()
        stack.start()
        statuses = {}
        for command_id in ids:
            topic = f"{ROOT}/result/{command_id}"
            statuses[command_id] = stack.watcher.until(topic, lambda m: bool(m.json["completed_at"])).json["status"]
        names = [row["LastName"] for row in stack.org.records("Contact").values()]
        for command_id, status in statuses.items():
            assert (status, names.count(command_id)) == ("succeeded", 1)
    stack.settled()


def test_commands_sent_while_it_is_away_wait(stack: Stack) -> None:
    """The broker keeps them for the connector's session; they run at the next start, in order."""
    contact = stack.org.create("Contact", LastName="Waiting")
    stack.until_change(contact)
    assert stack.daemon.stop() == 0
    for number in range(5):
        payload = {"command_id": f"away-{number}", "id": contact, "fields": {"Phone": str(number)}}
        stack.watcher.send(f"{ROOT}/command/Contact/update", payload)
    stack.start()
    for number in range(5):
        done = stack.watcher.until(f"{ROOT}/result/away-{number}", lambda m: bool(m.json["completed_at"])).json
        assert done["status"] == "succeeded"
    assert stack.org.records("Contact")[contact]["Phone"] == "4"
    stack.settled()


def test_a_nameless_command_executes_once(stack: Stack) -> None:
    """Without a command id the redelivered message (DUP) is recognised: one record, though killed before the PUBACK."""
    for number in range(4):
        name = f"Nameless {number}"
        payload = {"fields": {"LastName": name}, "reply_to": f"nameless/{number}"}
        stack.watcher.send(f"{ROOT}/command/Contact/create", payload)
        time.sleep(0.004 * number)
        stack.daemon.kill()
        stack.start()
        done = stack.watcher.until(f"nameless/{number}", lambda m: bool(m.json["completed_at"])).json
        assert done["status"] == "succeeded"
        made = [row["LastName"] for row in stack.org.records("Contact").values()].count(name)
        assert made == 1
    stack.settled()


def test_terminated_under_load(stack: Stack) -> None:
    """SIGTERM under load ends with 0 within the drain time, says `offline`, and the next start goes on."""
    with People(stack.told["url"], 5), Service(stack) as service:
        for _ in range(3):
            time.sleep(0.3)
            since = stack.watcher.mark()
            began = time.monotonic()
            assert stack.daemon.stop() == 0, stack.daemon.last_words()
            assert time.monotonic() - began < DRAIN_S
            stack.watcher.until(f"{ROOT}/status", lambda m: bool(m.json["state"] == "offline"), since=since)
            assert "Traceback" not in stack.daemon.text()
            stack.start()
    service.check()
    stack.settled()


def test_terminated_in_the_middle_of_a_load(stack: Stack) -> None:
    """SIGTERM while nothing answers: it does not wait for the org."""
    stack.org.fault("rest", half_open=True, count=None)
    stack.watcher.send(f"{ROOT}/control/sync", b"{}")
    stack.watcher.until(f"{ROOT}/reply/sync")
    began = time.monotonic()
    assert stack.daemon.stop() == 0
    assert time.monotonic() - began < DRAIN_S
    stack.org.no_faults()
    stack.restart_org()  # with the calls that it still holds
    stack.start()
    stack.settled()
