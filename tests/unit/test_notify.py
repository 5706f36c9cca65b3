"""The service manager is told what is so: ready after a first round, fed only while everything moves."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from connector.app.notify import ServiceManager, Watchdog
from tests.waiting import until


class Manager:
    """As much of systemd as listens: what each datagram said."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)  # noqa: FBT003 - the socket's signature
        self.told: list[list[str]] = []

    def read(self) -> list[list[str]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told.append(self.socket.recv(4096).decode().split("\n"))
        return self.told

    def environ(self, *, watchdog_s: float = 0.04, **more: str) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": str(round(watchdog_s * 1e6)), **more}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path)
    yield listening
    listening.socket.close()


class Parts:
    """What the rounds go through."""

    def __init__(self) -> None:
        self.disk_works = asyncio.Event()
        self.disk_works.set()
        self.hangs = False
        self.turns = 0

    async def turn(self) -> None:
        await self.disk_works.wait()
        self.turns += 1

    def watchdog(self, environ: dict[str, str]) -> Watchdog:
        return Watchdog(
            ServiceManager(environ), turn=self.turn, connection_hangs=lambda: self.hangs, status=lambda: "stream live"
        )


async def test_ready_is_told_once_after_a_first_round_through_the_disk(manager: Manager) -> None:
    """A daemon whose database does not answer is not ready."""
    parts = Parts()
    parts.disk_works.clear()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(parts.watchdog(manager.environ()).run())
        await asyncio.sleep(0)
        assert manager.read() == []
        parts.disk_works.set()
        await until(lambda: len(manager.read()) >= 3)
        running.cancel()
    assert manager.told[0] == ["READY=1", "WATCHDOG=1", "STATUS=stream live"]
    assert manager.told[1] == ["WATCHDOG=1", "STATUS=stream live"]


@pytest.mark.parametrize("hanging", ["disk", "connection"])
async def test_what_hangs_stops_the_feeding(manager: Manager, hanging: str) -> None:
    """The rounds go on or wait, but say nothing any more; when all moves again they do."""
    parts = Parts()
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(parts.watchdog(manager.environ()).run())
            await until(lambda: len(manager.read()) >= 2)
            if hanging == "disk":
                parts.disk_works.clear()
            else:
                parts.hangs = True
            turns = parts.turns
            await until(lambda: bool(logs) if hanging == "connection" else parts.turns <= turns + 1)
            fed = len(manager.read())
            await asyncio.sleep(0.1)  # ten rounds' time in which nothing must be said
            assert len(manager.read()) <= fed + (hanging == "disk")
            parts.hangs = False
            parts.disk_works.set()
            await until(lambda: len(manager.read()) > fed + 1)
            running.cancel()
    assert {entry["event"] for entry in logs} == ({"app.watchdog_withheld"} if hanging == "connection" else set())


async def test_without_a_service_manager_nothing_runs() -> None:
    """On a terminal, in the tests: the job ends at once and telling does nothing."""
    parts = Parts()
    await parts.watchdog({}).run()
    ServiceManager({}).tell("READY=1")
    assert parts.turns == 0


def test_the_watchdog_of_another_process_is_not_ours(manager: Manager) -> None:
    """A child that inherited the environment must not feed for its parent."""
    assert ServiceManager(manager.environ(watchdog_s=30)).watchdog_s == 30
    assert ServiceManager(manager.environ(watchdog_s=30, WATCHDOG_PID=str(os.getpid()))).watchdog_s == 30
    assert ServiceManager(manager.environ(watchdog_s=30, WATCHDOG_PID="1")).watchdog_s is None
    assert ServiceManager({"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "x"}).watchdog_s is None


def test_a_manager_that_went_away_is_logged_and_no_more(tmp_path: Path) -> None:
    """Telling never ends the daemon."""
    with capture_logs() as logs:
        ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("WATCHDOG=1")
    assert [entry["event"] for entry in logs] == ["app.notify_failed"]


def test_an_abstract_socket_is_reached() -> None:
    """Containers' managers listen there."""
    name = f"salesforce-sync-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        ServiceManager({"NOTIFY_SOCKET": "@" + name}).tell("STOPPING=1")
        assert listening.recv(100) == b"STOPPING=1"
