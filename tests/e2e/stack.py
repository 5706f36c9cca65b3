"""The whole product as its operator runs it: a broker, a local org and the daemon, each a process, and a watcher."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from tests.broker import Broker
from tests.e2e.org import OrgAdmin
from tests.e2e.processes import DaemonProcess, OrgProcess, toml
from tests.e2e.replica import Folded, ReplicaFile, differences, fold
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT, Received, Watcher

OBJECTS = ("Account", "Contact", "Lead", "Opportunity")
SEED = {"accounts": 4, "contacts": 12, "leads": 4, "opportunities": 4}
Settings = Mapping[str, Any]  # by section; values or, for objects, tables

NOWHERE = "http://127.0.0.1:1"  # of a Pub/Sub API that is not served

_DEFAULTS: Settings = {
    "salesforce": {"timeout": "5s"},
    "sync": {"backoff_max": "1s"},
    "mqtt": {"keepalive": "2s"},
    "signals": {"batch_interval": "500ms"},
    "health": {"interval": "1s"},
}


class Stack:
    """Everything, each part to be stopped, killed and started again by itself.

    Attributes:
        objects: What is synced.
        told: What the org told of itself: address and credentials.
    """

    def __init__(
        self,
        directory: Path,
        broker: Broker,
        settings: Settings,
        objects: tuple[str, ...],
        watched: tuple[str, ...] = (),
    ) -> None:
        """`watched`: topic filters of what the watcher keeps; everything, if empty."""
        self._directory = directory
        self._settings = settings
        self.objects = objects
        self._watched = watched
        self.broker = broker
        pubsub = settings.get("salesforce", {}).get("stream") == "pubsub"
        self.org_process = OrgProcess(directory / "org", pubsub=pubsub)
        self.replica = ReplicaFile(directory / "daemon" / "data" / "salesforce.db")
        self.told: Mapping[str, Any] = {}
        self.org: OrgAdmin
        self.watcher: Watcher
        self.daemon: DaemonProcess

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            asyncio.run(self.broker.start())
            stack.callback(lambda: asyncio.run(self.broker.kill()))
            stack.callback(self.org_process.end)
            self.told = self.org_process.start()
            self.org = stack.enter_context(OrgAdmin(self.told["url"]))
            self.watcher = stack.enter_context(Watcher(self.broker.host, self.broker.port, *self._watched))
            self.configure()
            stack.callback(self._end_daemon)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _end_daemon(self) -> None:
        self.daemon.end()  # whichever it is by then

    def configure(self, settings: Settings | None = None, **secrets: str) -> None:
        """Settings of the daemon's next start, over those of the stack."""
        merged = merge(_DEFAULTS, self._own(), self._settings, settings or {})
        self.daemon = DaemonProcess(self._directory / "daemon", toml(merged), secrets or self.secrets())

    def secrets(self) -> dict[str, str]:
        """What opens the org."""
        return {"SF_CLIENT_ID": self.told["client_id"], "SF_CLIENT_SECRET": self.told["client_secret"]}

    def _own(self) -> Settings:
        return {
            "salesforce": {"instance_url": self.told["url"], "pubsub_url": self.told["pubsub_url"] or NOWHERE},
            "storage": {"path": str(self.replica.path)},
            "mqtt": {"host": self.broker.host, "port": self.broker.port},
        }

    # The daemon

    def start(self) -> None:
        """Start the daemon and wait until it is at work."""
        self.daemon.launch()
        self.until_ready()

    def until_ready(self) -> None:
        """Return once the daemon is on the mesh, subscribed to the stream, and has loaded every object."""
        self.daemon.until_logged("mesh.connected")
        self.daemon.until_logged("stream.subscribed")
        until(lambda: self.replica.loaded(self.objects), say=lambda: f"not loaded:\n{self.daemon.last_words()}")

    def restart(self) -> None:
        """SIGTERM, and start again."""
        assert self.daemon.stop() == 0, self.daemon.last_words()
        self.start()

    # Other parts

    def restart_org(self) -> None:
        """SIGTERM, and start again; records, tokens and replay ids stay."""
        self.org_process.stop()
        self.org_process.start()

    def restart_broker(self, *, forgetful: bool = False) -> None:
        """SIGKILL, and start again; `forgetful`: without what it had persisted."""
        self.kill_broker(forgetful=forgetful)
        self.start_broker()

    def stop_broker(self) -> None:
        """SIGTERM: it saves what is persistent."""
        asyncio.run(self.broker.stop())

    def kill_broker(self, *, forgetful: bool = False) -> None:
        """SIGKILL."""
        asyncio.run(self.broker.kill())
        if forgetful:
            self.broker.forget()

    def start_broker(self) -> None:
        """Start it; returns once it takes connections."""
        asyncio.run(self.broker.start())

    # What came of it

    def compare(self) -> list[str]:
        """How the replica differs from the org; empty if it does not."""
        return differences(self.org, self.replica, self.objects)

    def until_equal(self, timeout_s: float = 20.0) -> None:
        """Return once the replica is equal to the org, record by record."""
        found: list[str] = []

        def equal() -> bool:
            found[:] = self.compare()
            return not found

        until(equal, timeout_s, say=lambda: f"{len(found)} differ: {found[:5]}\n{self.daemon.last_words()}")

    def changes(self, since: int = 0) -> list[dict[str, Any]]:
        """`data` of the changes that the watcher has received, repeats left out."""
        by_version = {
            d["version"]: d for d in (m.json["data"] for m in self.watcher.messages(f"{ROOT}/change/#", since))
        }
        return list(by_version.values())

    def until_change(self, record_id: str, operation: str = "+", *, since: int = 0, count: int = 1) -> Received:
        """The (`count`-th) change of a record."""
        return self.watcher.until(f"{ROOT}/change/+/{operation}/{record_id}", since=since, count=count)

    def folded(self) -> Folded:
        """What the changes tell, once the watcher has received all that there are; checked against the replica.

        Raises:
            AssertionError: The changes have holes, contradict one another, or end in other records than the replica's.
        """
        last = self.replica.last_version()
        self.watcher.until(f"{ROOT}/change/#", lambda m: m.json["data"]["version"] == last) if last else None
        folded = fold(self.watcher.messages(f"{ROOT}/change/#"))
        for name in self.objects:
            for record_id, row in self.replica.records(name).items():
                self._check(folded, name, record_id, row)
        return folded

    @staticmethod
    def _check(folded: Folded, name: str, record_id: str, row: Mapping[str, Any]) -> None:
        key = name, record_id
        assert row["_version"] == folded.versions.get(key, 0), f"{key}: version {row['_version']}"
        if key not in folded.records:
            assert row["_deleted_at"] is None, f"{key} was deleted and no change tells"
            return
        told = folded.records[key]
        if told is None:
            assert row["_deleted_at"] is not None, f"{key} lives and the last change was its deletion"
        else:
            assert {k: row[k] for k in told} == told, f"{key}: {row} where the changes end in {told}"

    def settled(self) -> Folded:
        """Return once replica, org and published changes agree."""
        self.until_equal()
        return self.folded()

    def health(self, matches: Callable[[dict[str, Any]], bool], timeout_s: float = 15.0) -> dict[str, Any]:
        """The first health document from now on that matches."""
        since = self.watcher.mark()
        return self.watcher.until(
            f"{ROOT}/health", lambda m: bool(m.payload) and matches(m.json), since=since, timeout_s=timeout_s
        ).json

    @contextmanager
    def newcomer(self, *filters: str, mqtt5: bool = True) -> Iterator[Watcher]:
        """A subscriber that comes only now, and sees what is retained first."""
        with Watcher(self.broker.host, self.broker.port, *filters, mqtt5=mqtt5, clean=True) as watcher:
            yield watcher


def merge(*settings: Settings) -> dict[str, dict[str, Any]]:
    """Sections laid over one another, the later ones on top."""
    merged: dict[str, dict[str, Any]] = {}
    for one in settings:
        for section, values in one.items():
            merged.setdefault(section, {}).update(values)
    return merged
