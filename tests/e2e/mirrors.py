"""Mirrors for tests: `salesforce-sync mirror` as a process, and how its file differs from the connector's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.broker import Broker
from tests.e2e.processes import DaemonProcess, toml
from tests.e2e.replica import ReplicaFile
from tests.e2e.stack import Stack, merge
from tests.e2e.waiting import until

# When the mirror took it, and, of a change that it asked for, when the org committed it.
_OWN_TIMES = frozenset({"_synced_at", "_modstamp"})
_LIVE = "SELECT * FROM {}_live ORDER BY Id"
_VERSION = (
    "SELECT max(coalesce((SELECT max(version) FROM change), 0), "
    "coalesce((SELECT CAST(value AS INTEGER) FROM cursor WHERE name = 'published'), 0))"
)
_LOG = (
    "SELECT version, object, id, operation, changed, before, after, record, origin, command_id, committed_at, "
    "commit_number, commit_user, commit_transaction, commit_sequence FROM change WHERE version > ? ORDER BY version"
)


class MirrorNode:
    """A mirror with a folder of its own, at a broker.

    Attributes:
        process: The program.
        file: Its copy.
    """

    def __init__(self, directory: Path, broker: Broker, name: str = "far", **sections: Mapping[str, Any]) -> None:
        self.name = name
        self.file = ReplicaFile(directory / "data" / "mirror.db")
        settings = merge(
            {
                "node": {"name": name},
                "mqtt": {"host": broker.host, "port": broker.port, "keepalive": "2s"},
                "storage": {"path": str(self.file.path)},
                "health": {"interval": "1s"},
                "sync": {"backoff_max": "1s"},
            },
            sections,
        )
        self.process = DaemonProcess(directory, toml(settings), {}, command="mirror")

    def start(self) -> None:
        """Start it, and wait until it has a database."""
        self.process.launch()
        self.process.until_logged("mirror.started")

    def stop(self) -> None:
        """SIGTERM."""
        assert self.process.stop() == 0, self.process.last_words()

    def differences(self, stack: Stack) -> list[str]:
        """How the copy differs from the connector's replica: records, deletions, and the log as far as both have it."""
        if not self.file.path.exists():
            return ["there is no file yet"]
        theirs, ours = stack.replica, self.file
        if theirs.value(_VERSION) != self.version():
            return [f"version {self.version()} of {theirs.value(_VERSION)}"]
        found: list[str] = []
        for name in stack.objects:
            one, other = (_by_id(file, name) for file in (theirs, ours))
            found += [
                f"{name}/{i}: {one.get(i)} there, {other.get(i)} here"
                for i in one.keys() | other.keys()
                if one.get(i) != other.get(i)
            ]
        begins = ours.value("SELECT min(version) FROM change") or self.version() + 1
        if theirs.rows(_LOG, begins - 1) != ours.rows(_LOG, begins - 1):
            found.append("the change logs differ")
        return found

    def version(self) -> int:
        """The newest change that it has."""
        version: int = self.file.value(_VERSION)
        return version

    def until_equal(self, stack: Stack, timeout_s: float = 25.0) -> None:
        """Return once the copy equals the connector's replica, record by record."""
        found: list[str] = []

        def equal() -> bool:
            found[:] = self._tried(stack)
            return not found

        until(equal, timeout_s, say=lambda: f"{len(found)} differ: {found[:3]}\n{self.process.last_words()}")

    def _tried(self, stack: Stack) -> list[str]:
        import sqlite3  # noqa: PLC0415 - of the error alone

        try:
            return self.differences(stack)
        except sqlite3.OperationalError as error:  # a table that is not there yet
            return [str(error)]


def _by_id(file: ReplicaFile, name: str) -> dict[str, dict[str, Any]]:
    rows = file.rows(_LIVE.format(name.lower()))
    return {row["Id"]: {k: v for k, v in row.items() if k not in _OWN_TIMES} for row in rows}


@contextmanager
def mirror_at(
    directory: Path, broker: Broker, name: str = "far", **sections: Mapping[str, Any]
) -> Iterator[MirrorNode]:
    """A mirror that runs, and is ended with the context."""
    node = MirrorNode(directory, broker, name, **sections)
    try:
        node.start()
        yield node
    finally:
        node.process.end()
