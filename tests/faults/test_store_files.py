"""Database files that are not to be touched, through the command line; and one that somebody else keeps locked."""

import hashlib
import importlib
import os
import pkgutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import connector.cli
from connector.cli.main import main
from connector.store import Session
from tests.e2e.test_refusals import make_database
from tests.store_nouns import WIDGET, record

# Nobody listens there: a file that is refused is refused before the org is asked.
NOWHERE = "http://localhost:1"
COMMANDS = (["sync"], ["daemon"], ["push"], ["create", "Contact", "LastName=X"], ["list", "Contact"])
NOBODY = 65534
# Commands import what they need when they are called, from where nobody may not look.
for _module in pkgutil.iter_modules(connector.cli.__path__):
    importlib.import_module(f"connector.cli.{_module.name}")


@pytest.fixture
def place() -> Iterator[Path]:
    """A working directory that another user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "data").mkdir(mode=0o755)
        text = f'[salesforce]\ninstance_url = "{NOWHERE}"\n[mqtt]\nport = 1\n'
        (path / "settings.toml").write_text(text, encoding="utf-8")
        yield path


def called(place: Path, command: Sequence[str], *, nobody: bool = False) -> tuple[int, str]:
    """Exit code and output of a command, run in a fork of this process: as root or, where that is so, as nobody."""
    output = place.parent / f"{place.name}.out"
    child = os.fork()
    if child == 0:
        code = 99
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            # pytest has put its own in their place.
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.chdir(place)
            if nobody and os.getuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.environ.update(SF_CLIENT_ID="id", SF_CLIENT_SECRET="secret")
            sys.argv = ["salesforce-sync", *command]
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    text = output.read_text(encoding="utf-8")
    output.unlink()
    return os.waitstatus_to_exitcode(status), text


def damage(path: Path) -> None:
    """A replica of which the first page alone is whole."""
    with Session(path) as session:
        session.run(lambda unit: unit.define(WIDGET))
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Contents and mode of every file, and of the folder itself; lock and shared memory are of no account."""
    passing = (".lock", ".db-shm")
    files = [p for p in folder.iterdir() if p.is_file() and p.suffix not in passing and p.stat().st_size]
    found = {p.name: (hashlib.sha256(p.read_bytes()).hexdigest(), stat.S_IMODE(p.stat().st_mode)) for p in files}
    return {**found, ".": ("", stat.S_IMODE(folder.stat().st_mode))}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("kind", "what_to_do"),
    [
        ("text", "set storage.path to another file"),
        ("foreign", "set storage.path to another file"),
        ("newer", "install that version again"),
        ("damaged", "restore a backup, or move the file away"),
    ],
)
def test_a_file_that_is_not_for_us(place: Path, kind: str, what_to_do: str, command: list[str]) -> None:
    """Exit 2 with what to do, from every command; not a byte is touched and nothing is left beside it."""
    path = place / "data" / "salesforce.db"
    if kind == "damaged":
        damage(path)
    else:
        make_database(path, kind)
    before = fingerprint(path.parent)
    code, said = called(place, command)
    assert (code, "Traceback" in said) == (2, False), said
    assert what_to_do in said
    assert fingerprint(path.parent) == before


@pytest.mark.parametrize("command", COMMANDS[:4], ids=lambda command: command[0])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_place(place: Path, what: str, command: list[str]) -> None:
    """A command that would write says so and ends with 2, before the org is asked."""
    path = place / "data" / "salesforce.db"
    with Session(path) as session:
        session.run(lambda unit: unit.define(WIDGET))
        session.run(lambda unit: unit.put(WIDGET, [record(1, Name="kept")]))
    path.parent.chmod(0o555 if what == "folder" else 0o777)
    path.chmod(0o444 if what == "file" else 0o666)
    before = fingerprint(path.parent)
    code, said = called(place, command, nobody=True)
    path.parent.chmod(0o755)
    assert (code, "Traceback" in said) == (2, False), said
    assert "read-only for this user: check its owner, mode and file system" in said
    path.parent.chmod(0o555 if what == "folder" else 0o777)
    assert fingerprint(path.parent) == before
    path.parent.chmod(0o755)


def test_a_second_writer_beside_a_daemon(place: Path) -> None:
    """Exit 2 while another daemon has the database; reading goes on."""
    path = place / "data" / "salesforce.db"
    with Session(path) as daemon:
        daemon.run(lambda unit: unit.define(WIDGET))
        code, said = called(place, ["daemon"])
        assert (code, "Traceback" in said) == (2, False), said
        assert "another" in said
        assert called(place, ["status"])[0] == 0
    code, said = called(place, ["sync"])
    assert code == 3, said  # the file is free: it is the org that is not there
