"""The watchdog over the real writer's thread and the real connection: what hangs is no longer fed for."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from connector.app.notify import ServiceManager, Watchdog
from connector.mesh import connection as connection_module
from connector.mesh.connection import MeshConnection
from connector.mesh.roles import connector_role
from connector.mesh.topics import Topics
from connector.settings import MqttSettings, Secrets
from connector.store import Database
from tests.broker import Broker
from tests.waiting import until

WATCHDOG_S = 0.2
ROUNDS = 5


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """As much of systemd as listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)  # noqa: FBT003 - the socket's signature
        yield listening


def fed(manager: socket.socket) -> int:
    """How often the watchdog was fed since this was asked last."""
    count = 0
    while True:
        try:
            count += b"WATCHDOG=1" in manager.recv(4096)
        except BlockingIOError:
            return count


def watchdog(manager: socket.socket, database: Database, mesh: MeshConnection) -> Watchdog:
    told = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
    return Watchdog(
        ServiceManager(told), turn=database.data_version, connection_hangs=mesh.hangs, status=lambda: "at work"
    )


def mesh_to(broker: Broker) -> MeshConnection:
    settings = MqttSettings(host=broker.host, port=broker.port, keepalive=timedelta(seconds=1))
    return MeshConnection(
        settings,
        Secrets(),
        connector_role(settings, Topics(root="blackroad/salesforce"), node="test", version="0.1.0"),
        now_ms=lambda: time.time_ns() // 1_000_000,
        rng=random.Random(1),
        backoff_max_s=0.1,
    )


async def test_a_writers_thread_that_hangs(manager: socket.socket, broker: Broker, tmp_path: Path) -> None:
    """As on a card that answers no more: the loop turns on, the feeding stops, and goes on with the thread."""
    free = threading.Event()
    async with Database(tmp_path / "replica.db") as database, mesh_to(broker) as mesh, asyncio.TaskGroup() as group:
        feeding = group.create_task(watchdog(manager, database, mesh).run())
        await until(lambda: fed(manager) > 0)
        stuck = group.create_task(database.run(lambda _unit: free.wait(20)))
        await asyncio.sleep(WATCHDOG_S)  # what was told before it hung
        fed(manager)
        await asyncio.sleep(ROUNDS * WATCHDOG_S)  # in which nothing must be said
        assert fed(manager) == 0
        free.set()
        assert await stuck
        await until(lambda: fed(manager) > 0)
        feeding.cancel()


async def test_a_connection_that_neither_lives_nor_is_tried(
    manager: socket.socket, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job has stopped moving: told in the log, fed again once it moves. A broker that is away is no such case."""
    monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(connection_module, "_PATIENCE_S", 0.1)
    longest_s = 0.1 + 2 * 1.0 + 4 * 0.1 + 0.1
    async with Database(tmp_path / "replica.db") as database, mesh_to(broker) as mesh, asyncio.TaskGroup() as group:
        with capture_logs() as logs:
            feeding = group.create_task(watchdog(manager, database, mesh).run())
            await until(lambda: any(entry["event"] == "app.watchdog_withheld" for entry in logs))
            fed(manager)
            await asyncio.sleep(ROUNDS * WATCHDOG_S)
            assert fed(manager) == 0
        keeping = group.create_task(mesh.run())
        await until(lambda: fed(manager) > 0)
        await broker.kill()
        await until(lambda: not mesh.connected)
        fed(manager)
        with capture_logs() as logs:
            await asyncio.sleep(longest_s + WATCHDOG_S)
            assert fed(manager) > 0
        assert "app.watchdog_withheld" not in {entry["event"] for entry in logs}
        keeping.cancel()
        feeding.cancel()
