"""The process is killed, or the power fails, between and in the middle of commits."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import apsw
import pytest

from connector.store import Session
from tests.faults.store_writer import ROWS, write
from tests.store_nouns import NOW_MS, WIDGET, record_id


def assert_whole(path: Path, acknowledged: int) -> int:
    """Everything of each unit up to at least the last acknowledged is there, and nothing of half a unit."""
    with Session(path) as session:
        number = int(session.run(lambda unit: unit.cursor("stream:cometd:/data/ChangeEvents")) or 0)
        assert number >= acknowledged
        assert session.run(lambda unit: unit.last_version()) == number * ROWS
        versions = [c.version for c in session.run(lambda unit: unit.unpublished(10**6))]
        assert versions == list(range(1, number * ROWS + 1))
        rows = session.run(lambda unit: unit.records(WIDGET, [record_id(n) for n in range(ROWS)]))
        assert {r.values["Size__c"] for r in rows.values()} == {number}
        assert [rows[record_id(n)].version for n in range(ROWS)] == versions[-ROWS:]
        session.run(lambda unit: unit.mark_published(number * ROWS, NOW_MS))
        messages = [int(m.message.payload) for m in session.run(lambda unit: unit.due(10**6))]
        assert messages == list(range(1, number + 1))
        commands = [c.command_id for c in session.run(lambda unit: unit.commands(None, 10**6))]
        assert commands == [f"c{n}" for n in range(number, 0, -1)]
    return number


@pytest.mark.parametrize("after", [1, 2, 40, 300])
def test_killed_in_the_middle_of_commits_nothing_acknowledged_is_lost(tmp_path: Path, after: int) -> None:
    """SIGKILL at an instant that the writer does not choose; the lock of the dead does not hold the next one up."""
    path = tmp_path / "replica.db"
    writer = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "tests.faults.store_writer", str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        for line in writer.stdout:
            if line.strip() == str(after):
                writer.send_signal(signal.SIGKILL)
                break
        rest, _ = writer.communicate(timeout=20)
    finally:
        writer.kill()
        writer.wait(timeout=20)
    told = [after, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n") and line.strip())]
    number = assert_whole(path, max(told))
    with Session(path) as session:
        session.run(partial(write, number + 1))


class _Disk(apsw.VFS):
    """Remembers what would be on the disk if the power failed now: what has been synced, and no more."""

    def __init__(self) -> None:
        self.synced: dict[str, bytes] = {}
        super().__init__("disk", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_File":  # noqa: N802 - apsw's name
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - apsw's name
        super().xDelete(filename, syncdir)
        self.synced.pop(filename, None)


class _File(apsw.VFSFile):
    def __init__(self, disk: _Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._path = name if isinstance(name, str) or name is None else name.filename()
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw's name
        super().xSync(flags)
        if self._path is not None:
            self._disk.synced[self._path] = Path(self._path).read_bytes()


@contextmanager
def recorded() -> Iterator[_Disk]:
    made = _Disk()
    try:
        yield made
    finally:
        made.unregister()


def test_after_a_power_cut_every_unit_that_was_acknowledged_is_there(tmp_path: Path) -> None:
    """Cut after each of many commits, checkpoints among them: only what was synced survives, and that is enough."""
    path = tmp_path / "replica.db"
    images: list[dict[str, bytes]] = []
    with recorded() as disk, Session(path) as session:
        session.run(lambda unit: unit.define(WIDGET))
        connection = session._connection
        assert connection is not None
        connection.execute("PRAGMA wal_autocheckpoint = 20").fetchall()
        for number in range(1, 41):
            session.run(partial(write, number))
            images.append(dict(disk.synced))
    for number, image in enumerate(images, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in image.items():
            (folder / Path(name).name).write_bytes(data)
        assert assert_whole(folder / "replica.db", number) == number
