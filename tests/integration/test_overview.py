"""The overview of a real file that comes, moves, and is replaced."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from connector.errors import StoreUnusable
from connector.model.change import CommitInfo
from connector.model.command import CommandStatus
from connector.overview.board import FIGURES_EVERY_MS, Board, BoardRules
from connector.overview.opened import OpenedReplica
from connector.overview.told import Told
from connector.store import Session
from tests.store_nouns import NOW_MS, WIDGET, change, command, record

RULES = BoardRules(warn_at=0.8, health_interval_s=30, timeout_s=5)


class Clock:
    now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


async def unheard() -> Told:
    return Told(state="unknown", reason="nobody was asked")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "replica.db"


@pytest.fixture
def session(file: Path) -> Iterator[Session]:
    with Session(file) as opened:
        opened.run(lambda unit: unit.define(WIDGET))
        opened.run(lambda unit: unit.put(WIDGET, [record(1, Name="bolt")]))
        yield opened


async def test_the_overview_follows_the_replica(file: Path, session: Session) -> None:
    """Changes, commands and conflicts as they come; records are counted every few seconds."""
    clock = Clock()
    async with OpenedReplica(file, 1) as replica:
        board = Board(replica, unheard, RULES, now_ms=clock)
        first = await board.look()
        assert first["replica"]["objects"] == {"Widget__c": {"records": 1, "deleted": 0}}
        assert (first["problem"], first["changes"], first["rate"]) == (None, [], 0.0)
        committed = CommitInfo(timestamp_ms=NOW_MS - 500)
        session.run(lambda unit: unit.append([change(n, commit=committed, applied_ms=NOW_MS) for n in range(20)]))
        session.run(lambda unit: unit.mark_published(20, NOW_MS))
        session.run(lambda unit: unit.put(WIDGET, [record(2)]))
        session.run(
            lambda unit: unit.add_command(command("torn", status=CommandStatus.CONFLICT, conflict={"Name": {}}))
        )
        session.run(lambda unit: unit.add_command(command("fresh")))
        clock.now_ms += 1000
        then = await board.look()
        assert (then["rate"], then["lag_ms"]) == (2.0, {"p50": 500, "p99": 500})
        assert then["replica"]["version"] == then["changes"][0]["version"] == 20
        assert then["changes"][0]["changed"] == ["Name"]
        assert [one["command_id"] for one in then["commands"]] == ["fresh", "torn"]
        assert [one["command_id"] for one in then["conflicts"]] == ["torn"]
        assert then["replica"]["objects"]["Widget__c"]["records"] == 1
        clock.now_ms += FIGURES_EVERY_MS
        assert (await board.look())["replica"]["objects"]["Widget__c"]["records"] == 2


async def test_a_file_that_comes_late_and_one_that_takes_its_place_are_read(file: Path, tmp_path: Path) -> None:
    """No replica is a problem that is told, and ends; a restored copy begins anew."""
    async with OpenedReplica(file, 2) as replica:
        board = Board(replica, unheard, RULES, now_ms=Clock())
        missing = await board.look()
        assert missing["replica"] is None
        assert "is not there" in missing["problem"]
        with pytest.raises(StoreUnusable):
            await replica.read(lambda r: r.version(), timeout_s=1)
        with Session(file) as opened:
            opened.run(lambda unit: unit.define(WIDGET))
            opened.run(lambda unit: unit.append([change(1), change(2)]))
        assert (await board.look())["replica"]["version"] == 2
        with Session(tmp_path / "other.db") as opened:
            opened.run(lambda unit: unit.define(WIDGET))
            opened.run(lambda unit: unit.append([change(3)]))
        _take_place(tmp_path / "other.db", file)
        again = await board.look()
        assert (again["replica"]["version"], len(again["changes"])) == (1, 1)


def _take_place(other: Path, file: Path) -> None:
    """As a backup is put back."""
    for left in file.parent.glob(f"{file.name}-*"):
        left.unlink()
    other.rename(file)
