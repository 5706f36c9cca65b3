"""Everything that one seed plays with: an org, a broker, the wire, the daemon and a service on the mesh."""

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from connector.devorg.admin.seed import sow
from connector.devorg.commits import Commit
from connector.devorg.events.bus import EventBus
from connector.devorg.records.ledger import Ledger
from connector.devorg.server import DevOrg
from tests.broker import ProcessBroker
from tests.e2e.processes import toml
from tests.e2e.replica import ReplicaFile
from tests.e2e.watcher import Watcher
from tests.faults.soak import child
from tests.faults.soak.commands import Service
from tests.faults.soak.edits import OBJECTS, Editor
from tests.faults.soak.link import Wire
from tests.faults.soak.plan import Variant

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([child.__name__])
_RESTART_S = 0.03
_LAST_LINES = 12


class RecordingLedger(Ledger):
    """The org's ledger, which keeps the commits with their values as well."""

    def __init__(self, org: DevOrg) -> None:
        super().__init__(org.ctx.database)
        self.commits: list[Commit] = []

    def write(self, commit: Commit, purged: Iterable[tuple[str, str]]) -> None:
        """See `Ledger`."""
        super().write(commit, purged)
        self.commits.append(commit)


@dataclass(slots=True)
class Exit:
    """The daemon ended without being told to.

    Attributes:
        at_work: It had got as far as running its jobs.
    """

    code: int
    words: str
    at_work: bool


class Daemon:
    """The daemon's process; one that ends by itself is started again, as a service manager would.

    Attributes:
        exits: Ends that nobody asked for.
        log: What all its runs have logged.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, Any], secrets: Mapping[str, str], page_rows: int
    ) -> None:
        directory.mkdir()
        self._settings = directory / "settings.toml"
        self._settings.write_text(toml(settings), encoding="utf-8")
        self._secrets = dict(secrets)
        self._page_rows = page_rows
        self._clock = directory / "clock"
        self._process: BaseProcess | None = None
        self._wanted = False
        self._log_start = 0
        self.log = directory / "daemon.log"
        self.exits: list[Exit] = []
        child.write_offset(self._clock, 0)

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start it unless it runs."""
        self._wanted = True
        if not self.alive:
            self._log_start = self.log.stat().st_size if self.log.exists() else 0
            arguments = (self._settings, self._secrets, self._clock, self.log, self._page_rows)
            self._process = _FORKS.Process(target=child.main, args=arguments, daemon=True)
            self._process.start()

    def kill(self) -> None:
        """SIGKILL."""
        self._wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.join()

    async def stop(self, timeout_s: float = 8.0) -> int | None:
        """SIGTERM; its exit code, None where it did not end in time and was killed."""
        self._wanted = False
        if self._process is None:
            return 0
        self._process.terminate()
        deadline_s = time.monotonic() + timeout_s
        while self._process.is_alive():
            if time.monotonic() > deadline_s:
                self.kill()
                return None
            await asyncio.sleep(0.01)
        return self._process.exitcode

    def set_clock(self, offset_ms: int) -> None:
        """Set its clock this far off."""
        child.write_offset(self._clock, offset_ms)

    async def keep_up(self) -> None:
        """Start it again whenever it has ended by itself; does not end."""
        while True:
            await asyncio.sleep(_RESTART_S)
            if self._wanted and not self.alive and self._process is not None:
                text = self._text()
                self.exits.append(Exit(self._process.exitcode or 0, self.last_words(), "app.started" in text))
                self.start()

    def unexpected(self) -> list[Exit]:
        """Ends other than those of a start that the org or the database does not allow now."""
        return [e for e in self.exits if e.code != child.WAITED_OUT or e.at_work]

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self._text().splitlines()[-_LAST_LINES:])

    def _text(self) -> str:
        """What it has logged since it was started last."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")


class World:
    """All parts, started and ended together.

    Attributes:
        forgetful: The broker was killed or lost its memory: what it had acknowledged may never have been delivered.
        restarted_broker: It was away, in whatever way.
        positions_refused: Replay ids that the org did not know any more, once everything was loaded.
        needs: What must be asked of the daemon before the replica can be expected to be equal.
    """

    def __init__(self, directory: Path, seed: int, variant: Variant) -> None:
        self._directory = directory
        self._seed = seed
        self._variant = variant
        self._stack = contextlib.AsyncExitStack()
        self._started_s = time.monotonic()
        self.org = DevOrg(directory / "org", settings=variant.org)
        self.broker = ProcessBroker(directory / "broker")
        self.replica = ReplicaFile(directory / "daemon" / "salesforce.db")
        self.needs: set[str] = set()
        self.forgetful = False
        self.restarted_broker = False
        self.positions_refused = 0
        self.trace: list[str] = []
        self.wire: Wire
        self.editor: Editor
        self.daemon: Daemon
        self.watcher: Watcher
        self.service: Service
        self.ledger: RecordingLedger

    def note(self, line: str) -> None:
        """A line of the trace."""
        self.trace.append(f"{time.monotonic() - self._started_s:7.3f}  {line}")

    async def __aenter__(self) -> Self:
        async with self._stack as stack:
            await self.broker.start()
            stack.push_async_callback(self.broker.kill)
            await stack.enter_async_context(self.org)
            await self._set_up_org()
            self.wire = Wire(self.broker.host, self.broker.port)
            await self.wire.start()
            stack.push_async_callback(self.wire.stop)
            self.watcher = stack.enter_context(Watcher(self.broker.host, self.broker.port))
            self.service = Service(self.watcher, self.editor, self._seed)
            self.daemon = Daemon(self._directory / "daemon", self._settings(), self._secrets(), self._variant.page_rows)
            stack.callback(self.daemon.kill)
            keeper = asyncio.create_task(self.daemon.keep_up(), name="soak.keeper")
            stack.callback(keeper.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _set_up_org(self) -> None:
        context = self.org.ctx
        context.schema.select(*OBJECTS)
        for name, value in self._variant.events.items():
            setattr(context.event_options, name, value)
        context.org.options.insert_delete_events = self._variant.insert_delete_events
        self.ledger = RecordingLedger(self.org)
        context.org.ledger = self.ledger
        self._watch_positions(context.bus)
        self.editor = Editor(context, unseen=self._variant.unseen)
        if self._variant.records is not None:
            await sow(context, self._variant.records)

    def _watch_positions(self, bus: EventBus) -> None:
        known = bus.valid

        def valid(replay_id: int) -> bool:
            good = known(replay_id)
            self.positions_refused += not good and self.replica.loaded(OBJECTS)
            return good

        bus.valid = valid  # type: ignore[method-assign]  # looked over the shoulder

    def _settings(self) -> Mapping[str, Any]:
        own: dict[str, dict[str, Any]] = {
            "salesforce": {"instance_url": self.org.url, "timeout": "1s"},
            "storage": {"path": str(self.replica.path)},
            "mqtt": {"host": "127.0.0.1", "port": self.wire.port, "keepalive": "1s"},
        }
        for section, values in self._variant.settings.items():
            own.setdefault(section, {}).update(values)
        return own

    def _secrets(self) -> Mapping[str, str]:
        known = self.org.ctx.credentials
        return {"SF_CLIENT_ID": known.client_id, "SF_CLIENT_SECRET": known.client_secret}
