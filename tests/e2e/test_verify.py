"""Is the replica equal to the org? `verify` on the command line and on the mesh, beside the daemon and without it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT


@pytest.fixture(autouse=True)
def agreed(stack: Stack) -> Iterator[None]:
    """After each test replica, org and published changes agree."""
    yield
    if not stack.daemon.alive:
        stack.start()
    stack.settled()


def behind(stack: Stack, record_id: str, **values: Any) -> None:
    """Edit a contact behind the stream's back."""
    change = {"op": "update", "object": "Contact", "id": record_id, "values": values}
    stack.org.change(change, announce=False)


def vanish(stack: Stack, *record_ids: str) -> None:
    """Purge contacts: no event, and nothing left for a poll to find."""
    for operation in ("delete", "purge"):
        orders = [{"op": operation, "object": "Contact", "id": record_id} for record_id in record_ids]
        stack.org.change(*orders, announce=False)


def verify(stack: Stack, *arguments: str) -> tuple[int, Mapping[str, Mapping[str, int]]]:
    """`salesforce-sync verify --json`: exit code, and the figures by object."""
    done = run(stack, "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["objects"]


def run(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`salesforce-sync verify` with the daemon's settings."""
    command = [sys.executable, "-m", "connector", "--settings", str(stack.daemon.settings), "verify", *arguments]
    return subprocess.run(command, env=stack.daemon.env, capture_output=True, text=True, timeout=40, check=False)  # noqa: S603 - our own program


def test_without_repair_nothing_is_changed(stack: Stack) -> None:
    """Exit 1 with what differs, in the replica as before; with it exit 0, and a third time nothing is found."""
    changed, gone = stack.org.create("Contact", LastName="Changed"), stack.org.create("Contact", LastName="Gone")
    for contact in (changed, gone):
        stack.until_change(contact)
    behind(stack, changed, Phone="behind")
    vanish(stack, gone)
    version = stack.replica.last_version()
    there = len(stack.org.records("Contact"))
    code, found = verify(stack, "--objects", "Contact")
    assert (code, found) == (1, {"Contact": {"compared": there, "drift": 2, "repaired": 0, "held": 0}})
    assert stack.replica.last_version() == version
    assert stack.health(lambda h: bool(h["objects"]["Contact"]["drift"] == 2))["state"] == "degraded"
    code, found = verify(stack, "--repair")
    assert (code, found["Contact"]) == (0, {"compared": there, "drift": 2, "repaired": 2, "held": 0})
    assert {figures["drift"] for name, figures in found.items() if name != "Contact"} == {0}
    assert stack.until_change(gone, "delete").json["data"]["origin"] == "repair"
    before = stack.health(lambda h: bool(h["objects"]["Contact"]["drift"] == 0))["objects"]["Contact"]["verified_at"]
    stack.org.advance(60)
    code, found = verify(stack)
    assert (code, {figures["drift"] for figures in found.values()}) == (0, {0})
    stack.health(lambda h: bool(h["objects"]["Contact"]["verified_at"] > before))


def test_many_missing_records_wait_for_a_persons_word(make_stack: MakeStack) -> None:
    """Held, with the daemon's health failing, until somebody allows it; the daemon goes on meanwhile."""
    stack = make_stack(seed={"accounts": 2, "contacts": 60, "leads": 1, "opportunities": 1})
    stack.start()
    contacts = list(stack.org.records("Contact"))
    vanish(stack, *contacts[:40])
    code, found = verify(stack, "--objects", "Contact")
    assert (code, found["Contact"]["drift"], found["Contact"]["held"]) == (1, 40, 40)
    code, found = verify(stack, "--repair", "--objects", "Contact")
    assert (code, found["Contact"]["repaired"], found["Contact"]["held"]) == (1, 0, 40)
    health = stack.health(lambda h: bool(h["objects"]["Contact"]["held"] == 40))
    assert (health["state"], health["objects"]["Contact"]["records"]) == ("failing", 60)
    told = run(stack, "--objects", "Contact")
    assert "verify --allow-deletions Contact" in told.stdout
    code, found = verify(stack, "--allow-deletions", "Contact")
    assert (code, found) == (0, {"Contact": {"compared": 20, "drift": 40, "repaired": 40, "held": 0}})
    assert stack.health(lambda h: bool(h["objects"]["Contact"]["held"] == 0))["state"] == "ok"
    stack.until_change(contacts[0], "delete")
    stack.settled()


def test_held_deletions_are_allowed_over_the_mesh(make_stack: MakeStack) -> None:
    """Control `verify` holds them too; `allow_deletions` names the objects; nonsense is refused by name."""
    stack = make_stack(seed={"accounts": 2, "contacts": 40, "leads": 1, "opportunities": 1})
    stack.start()
    contacts = list(stack.org.records("Contact"))
    vanish(stack, *contacts[:30])
    held = ask(stack, {"objects": ["Contact"]})["data"]["objects"]["Contact"]
    assert (held["drift"], held["repaired"], held["held"]) == (30, 0, 30)
    for wrong in (
        {"allow_deletions": ["Task"]},
        {"objects": ["Lead"], "allow_deletions": ["Contact"]},
        {"allow_deletions": ["Contact"], "repair": False},
        {"allow_deletions": True},
    ):
        assert ask(stack, wrong)["ok"] is False, wrong
    done = ask(stack, {"allow_deletions": ["Contact"]})["data"]["objects"]
    assert (done["Contact"]["repaired"], done["Contact"]["held"], len(done)) == (30, 0, 4)
    stack.settled()


def test_without_a_daemon(stack: Stack) -> None:
    """The same by the command's own hands; what it repairs is published when the daemon is back."""
    contact = stack.org.create("Contact", LastName="Alone")
    stack.until_change(contact)
    stack.daemon.stop()
    behind(stack, contact, Phone="alone")
    code, found = verify(stack, "--objects", "Contact")
    assert (code, found["Contact"]["drift"], found["Contact"]["repaired"]) == (1, 1, 0)
    done = run(stack, "--repair", "--objects", "Contact")
    assert (done.returncode, "1 differ, 1 repaired" in done.stdout) == (0, True)
    stack.start()
    assert stack.until_change(contact, "update").json["data"]["origin"] == "repair"


def test_a_hole_closed_without_the_daemon_is_announced(stack: Stack) -> None:
    """The retained message of an open hole goes once the daemon is back, with the number of records corrected."""
    contact = stack.org.create("Contact", LastName="Hole")
    stack.until_change(contact)
    stack.org.fault("rest", status=503, code="SERVER_UNAVAILABLE", count=None)
    behind(stack, contact, Phone="read under way")
    behind(stack, contact, Phone="hole")
    since = stack.watcher.mark()
    stack.org.call("POST", "/events", {"object": "Contact", "kind": "GAP_OVERFLOW"})
    opened = stack.watcher.until(f"{ROOT}/hole/Contact", since=since).json
    assert (opened["state"], opened["to"], opened["corrected"]) == ("open", None, 0)
    assert stack.health(lambda h: bool(h["objects"]["Contact"]["holes"] == 1))["state"] == "degraded"
    stack.daemon.stop()
    stack.org.no_faults()
    assert verify(stack, "--repair", "--objects", "Contact")[0] == 0
    stack.start()
    closed = stack.watcher.until(
        f"{ROOT}/hole/Contact", lambda m: bool(m.payload) and bool(m.json["state"] == "closed"), since=since
    ).json
    assert (closed["from"], closed["reason"], closed["corrected"]) == (opened["from"], opened["reason"], 1)
    assert closed["to"] >= closed["from"]
    with stack.newcomer(f"{ROOT}/hole/#", f"{ROOT}/status") as service:
        service.until(f"{ROOT}/status")
        assert not [m for m in service.messages(f"{ROOT}/hole/Contact") if m.retain]


def test_what_cannot_be_compared_is_said(stack: Stack, make_stack: MakeStack) -> None:
    """Unknown objects exit 2, an empty replica exits 1, an org that is away exits 3."""
    assert run(stack, "--objects", "Task").returncode == 2
    assert run(stack, "--allow-deletions", "Task").returncode == 2
    other = make_stack()
    empty = run(other)
    assert (empty.returncode, "not loaded" in empty.stderr) == (1, True)
    other.start()
    other.daemon.stop()
    other.org_process.stop()
    assert run(other).returncode == 3


def test_what_the_stream_did_not_tell_is_shown(stack: Stack) -> None:
    """A poll finds an edit that a live stream should have told: counted, and degraded until a poll finds none."""
    contact = stack.org.create("Contact", LastName="Untold")
    stack.until_change(contact)
    before = stack.health(lambda _: True)["objects"]["Contact"]["untold"]
    behind(stack, contact, Phone="untold")
    stack.org.advance(60)
    ask(stack, {}, verb="sync")
    health = stack.health(lambda h: bool(h["objects"]["Contact"]["untold"] == before + 1))
    assert (health["state"], health["stream"]["state"]) == ("degraded", "live")
    ask(stack, {}, verb="sync")
    stack.health(lambda h: bool(h["state"] == "ok"))


def test_the_age_of_calculated_fields_is_told(make_stack: MakeStack) -> None:
    """No event tells of a formula: since when its values were read is in health, and a comparison renews it."""
    fields = ["LastName", "Score__c"]
    stack = make_stack({"objects": {"Contact": {"fields": fields}}})
    field = {"name": "Score__c", "type": "double", "calculated": True}
    stack.org.call("POST", "/fields", {"object": "Contact", "field": field})
    stack.start()
    first = stack.health(lambda h: bool(h["objects"]["Contact"]["calculated_at"]))["objects"]
    assert first["Lead"]["calculated_at"] is None
    stack.org.advance(3600)
    ask(stack, {"objects": ["Contact"]})
    stack.health(lambda h: bool(h["objects"]["Contact"]["calculated_at"] > first["Contact"]["calculated_at"]))
    again = stack.health(lambda _: True)["objects"]["Contact"]["calculated_at"]
    stack.restart()
    until(lambda: stack.health(lambda _: True)["objects"]["Contact"]["calculated_at"] == again)
    stack.settled()


def ask(stack: Stack, payload: dict[str, Any], verb: str = "verify") -> dict[str, Any]:
    """The last reply to a control message."""
    since = stack.watcher.mark()
    stack.watcher.send(f"{ROOT}/control/{verb}", payload)
    topic = f"{ROOT}/reply/{verb}"
    first = stack.watcher.until(topic, since=since).json
    return first if not first["ok"] else stack.watcher.until(topic, since=since, count=2).json
