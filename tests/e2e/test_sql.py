"""The replica by SQL, as docs/reading.md shows it, with Debian's `sqlite3` while the daemon writes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documents import block
from tests.e2e.load import People
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

SQLITE = shutil.which("sqlite3")
pytestmark = pytest.mark.skipif(SQLITE is None, reason="Debian's package sqlite3 is not installed")
READS = 40


def shell(stack: Stack, command: str) -> list[str]:
    """What a command answers, in the daemon's directory."""
    done = subprocess.run(  # noqa: S602 - as an operator types it
        command, shell=True, cwd=stack.daemon.settings.parent, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def asked(stack: Stack, statement: str) -> list[str]:
    """What `sqlite3` answers to a statement."""
    assert SQLITE is not None
    file = Path("data") / stack.replica.path.name
    done = subprocess.run(  # noqa: S603 - our own statements
        [SQLITE, "-readonly", str(file), statement],
        cwd=stack.daemon.settings.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_documented_commands_answer(stack: Stack) -> None:
    """By view and by word, tombstones left out; the log's JSON is taken apart."""
    made = stack.org.create("Contact", FirstName="Jané", LastName="Doe", Email="j@example.com", Phone="1")
    gone = stack.org.create("Contact", FirstName="Janus", LastName="Doe", Email="gone@example.com")
    stack.org.update("Contact", made, Phone="2")
    stack.org.delete("Contact", gone)
    stack.until_change(gone, "delete")
    until(lambda: stack.replica.searchable("Contact"))
    assert len(shell(stack, block("sh", "sqlite3 -readonly").strip())) == 5
    # A few seconds behind the rows.
    until(lambda: asked(stack, block("sql", "contact_search")) == ["Jané Doe|j@example.com"])
    phones = "SELECT after ->> 'Phone' FROM change WHERE object = 'Contact' AND after ->> 'Phone' IN ('1', '2')"
    assert asked(stack, phones) == ["1", "2"]


def test_each_query_is_of_one_moment_and_nobody_waits(stack: Stack) -> None:
    """While people edit: no error, no torn page, and the daemon goes on; the reader can change nothing."""
    query = (
        "SELECT (SELECT count(*) FROM contact) = (SELECT count(*) FROM contact_live) + "
        "(SELECT count(*) FROM contact WHERE _deleted_at IS NOT NULL), "
        "(SELECT max(version) FROM change) = (SELECT count(*) FROM change), (SELECT max(version) FROM change)"
    )
    before = stack.replica.last_version()
    with People(stack.told["url"], seed=5) as people:
        answers = [asked(stack, query) for _ in range(READS)]
    assert people.edits > 0
    assert {row.rpartition("|")[0] for (row,) in answers} == {"1|1"}
    assert int(answers[-1][0].rpartition("|")[2]) > before, "nothing was written meanwhile"
    stack.settled()
    with pytest.raises(AssertionError, match="readonly"):
        asked(stack, "DELETE FROM contact")
