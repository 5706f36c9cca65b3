"""What the tools beside which a first load is measured make of the same records: what docs/benchmarks.md says of them.

The org is the local one itself, with nothing before it.
"""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import pypi
from tests.bench import extract, metered
from tests.bench.gateway import MY_DOMAIN, gateway
from tests.bench.load import loading
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FIELDS = ["LastName", "AccountId", "Birthdate", "MailingCity", "MailingLatitude", "IsDeleted", "IsEmailBounced"]
FULL = {"LastName": "Doe", "Birthdate": "1980-05-17", "MailingCity": "Graz", "MailingLatitude": 47.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An org whose contacts have been loaded by the daemon.

    Attributes:
        through: The environment of a tool.
        jane, empty, deleted: A contact with fields of every kind, one with nulls, one in the recycle bin.
    """

    stack: Stack
    directory: Path
    through: Mapping[str, str]
    jane: str
    empty: str
    deleted: str


@pytest.fixture
def settled(tmp_path: Path) -> Iterator[Settled]:
    with loading(tmp_path) as stack, gateway(stack.told["url"], tmp_path) as through:
        account = stack.org.create("Account")
        jane = stack.org.create("Contact", AccountId=account, **FULL)
        empty, deleted = stack.org.create("Contact"), stack.org.create("Contact")
        stack.org.delete("Contact", deleted)
        stack.configure({"objects": {"Contact": {"fields": FIELDS}}})
        stack.start()
        assert stack.daemon.stop() == 0
        stack.org.set(instance_url=MY_DOMAIN)
        yield Settled(stack=stack, directory=tmp_path, through=through, jane=jane, empty=empty, deleted=deleted)


def rows(database: Path, table: str, key: str) -> dict[str, dict[str, Any]]:
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        return {row[key]: dict(row) for row in connection.execute(f"SELECT * FROM {table}")}  # noqa: S608 - a name below


def test_the_replica(settled: Settled) -> None:
    """The live contacts, each value in its type."""
    found = settled.stack.replica.records("Contact")
    assert {settled.jane, settled.empty} <= found.keys()
    assert settled.deleted not in found
    jane, empty = found[settled.jane], found[settled.empty]
    assert (jane["Birthdate"], jane["MailingLatitude"], jane["IsEmailBounced"]) == ("1980-05-17", 47.25, 0)
    assert (empty["Birthdate"], empty["MailingCity"], empty["MailingLatitude"]) == (None, None, None)


def test_singer(settled: Settled) -> None:
    """Contacts in the recycle bin are rows, a date is a time; another run reads what is new; what is purged stays."""
    programs = extract.singer_programs()
    if programs is None:
        pytest.skip(pypi.MISSING)
    directory, through = settled.directory, settled.through
    extract.singer_prepared(programs, directory, settled.stack.told, through, FIELDS)
    database = extract.singer(programs, directory, through).database
    found = rows(database, "contact", "id")
    assert {settled.jane, settled.empty, settled.deleted} <= found.keys()
    jane, empty = found[settled.jane], found[settled.empty]
    assert (found[settled.deleted]["is_deleted"], jane["is_deleted"]) == (1, 0)
    assert jane["birthdate"] == "1980-05-17T00:00:00.000000Z"
    assert (jane["mailing_city"], jane["mailing_latitude"], jane["is_email_bounced"]) == ("Graz", 47.25, 0)
    assert (empty["birthdate"], empty["mailing_city"], empty["mailing_latitude"]) == (None, None, None)

    settled.stack.org.update("Contact", settled.jane, MailingCity=None)
    settled.stack.org.change({"op": "purge", "object": "Contact", "id": settled.empty})
    again = rows(extract.singer(programs, directory, through).database, "contact", "id")
    assert again[settled.jane]["mailing_city"] is None
    (old,) = found.keys() - {settled.jane, settled.empty, settled.deleted}
    assert again[old]["__loaded_at"] == found[old]["__loaded_at"] < again[settled.jane]["__loaded_at"]
    assert again[settled.empty]["is_deleted"] == 0


def test_cumulusci(settled: Settled) -> None:
    """Every value is a text and null an empty one; ids are numbers of its own; a second run needs an empty file."""
    programs = extract.cumulusci_programs()
    if programs is None:
        pytest.skip(pypi.MISSING)
    directory, through = settled.directory, settled.through
    extract.cumulusci_prepared(directory, settled.stack.told, FIELDS)
    database = extract.cumulusci(programs, directory, through).database
    found = rows(database, "Contact", "LastName")
    assert len(found) == len(settled.stack.org.records("Contact"))
    jane = found["Doe"]
    assert jane["id"].startswith("Contact-")
    assert settled.jane not in jane.values()
    assert {row["IsDeleted"] for row in found.values()} == {"false"}
    assert (jane["Birthdate"], jane["MailingLatitude"], jane["IsEmailBounced"]) == ("1980-05-17", "47.25", "false")
    (empty,) = (
        row for name, row in found.items() if name == settled.stack.org.records("Contact")[settled.empty]["LastName"]
    )
    assert (empty["Birthdate"], empty["MailingCity"], empty["MailingLatitude"]) == ("", "", "")
    with pytest.raises(AssertionError, match="Table already exists"):
        extract.cumulusci(programs, directory, through)


def test_packages_that_cannot_be_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Are none, at the next time as well, and why stands on the terminal."""
    source, place = tmp_path / "wanted.txt", tmp_path / "place"
    source.write_text(f"{tmp_path}/nowhere\n", encoding="utf-8")
    for _ in range(2):
        assert pypi.installed(source, place) is None
        assert "nowhere" in capsys.readouterr().err


def test_what_a_program_took_is_its_own(tmp_path: Path) -> None:
    """Processor, memory and exit code are those of the program, however large the one that asks is."""
    large = bytearray(200 << 20)
    told = tmp_path / "told.json"
    program = "import sys, time; block = bytearray(50 << 20); t = time.process_time() + 0.3\n"
    program += "while time.process_time() < t: pass\nsys.exit(3)"
    command = [sys.executable, "-I", metered.__file__, str(told), sys.executable, "-I", "-c", program]
    assert subprocess.run(command, check=False).returncode == 3  # noqa: S603 - the program above
    found = json.loads(told.read_text("utf-8"))
    assert 0.3 <= found["processor_s"] <= found["seconds"] + 0.1
    assert 50 < found["peak_mb"] < 100 < len(large) >> 20
