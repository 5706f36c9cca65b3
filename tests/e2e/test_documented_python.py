"""What README.md and docs/reading.md show of Python, as programs of their own beside the daemon."""

import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.documents import ROOT as PROJECT
from tests.documents import block
from tests.e2e.load import keyed
from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT


@pytest.fixture(scope="module")
def stack(make_stack: MakeStack) -> Stack:
    """With an external id, which the daemon that is shown has as well."""
    return keyed(make_stack)


def told(stack: Stack, words: Sequence[str]) -> list[str]:
    """What a program prints, in the daemon's directory, with nobody's settings but those that are there."""
    done = subprocess.run(  # noqa: S603 - our own programs
        [sys.executable, *words],
        cwd=stack.daemon.settings.parent,
        env=stack.daemon.env | {"HOME": str(stack.daemon.settings.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_reading(stack: Stack) -> None:
    """One line for each contact, and the last; without an object that this org does not have."""
    program = block("python", "for contact in sync.contacts.all")
    program = program.replace('sync.object("Invoice__c").get("a025f0000000001AAA")', "deals.first()")
    assert len(told(stack, ["-c", program])) == len(stack.org.records("Contact")) + 1


def test_the_readmes_program(stack: Stack) -> None:
    """It finds a lead by its company, and makes a contact."""
    stack.until_change(stack.org.create("Lead", FirstName="Wile", LastName="Shown", Company="ACME Ltd."))
    lines = told(
        stack,
        ["-c", block("python", "sync.leads.search", document=PROJECT / "README.md") + "    print(result.status)\n"],
    )
    assert any(line.startswith("Wile Shown") for line in lines)
    assert lines[-1] == "succeeded"


def test_writing(stack: Stack) -> None:
    """Made, changed, deleted, upserted: each is in the org, and the program needs nothing that it does not show."""
    changed = stack.org.create("Contact", LastName="Changed", Phone="1")
    stack.until_change(changed)
    program = block("python", "sync.contacts.upsert")
    program = program.replace("0035f00002KmQ7aAAF", changed).replace("BlackRoad_Key__c", "Key__c")
    (made,) = told(stack, ["-c", program])
    status, made_id = made.split()
    assert (status, stack.org.records("Contact")[made_id]["LastName"]) == ("succeeded", "Doe")

    def all_done() -> bool:
        records = stack.org.records("Contact")
        return changed not in records and any(record.get("Key__c") == "crm-77" for record in records.values())

    until(all_done)
    told_changes = stack.watcher.messages(f"{ROOT}/change/Contact/update/{changed}")
    assert [message.json["data"]["after"] for message in told_changes] == [{"Phone": "555-1234"}]


def test_history(stack: Stack) -> None:
    """Who changed what, and how it stood."""
    one = stack.org.create("Contact", LastName="Historic", Phone="1")
    stack.until_change(one)
    stack.org.update("Contact", one, Phone="2")
    stack.until_change(one, "update")
    program = block("python", "history.at").replace("0035f00002KmQ7aAAF", one)
    program = re.sub(r"history\.at\(.*", "print(history.at(history[0].at).phone)", program)
    lines = told(stack, ["-c", f"from connector import SFSync\nsync = SFSync()\n{program}"])
    assert len(lines) == 3
    assert lines[0].endswith("{'phone': '1'} {'phone': '2'}")
    assert lines[-1] == "2"
