"""Everything that one seed plays with: an org, a broker, the wire, the daemon and a service on the mesh."""

import asyncio
import contextlib
import json
import random
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from connector.devorg.admin.seed import sow
from connector.devorg.commits import Commit
from connector.devorg.events.bus import EventBus
from connector.devorg.records.ledger import Ledger
from connector.devorg.server import DevOrg
from tests.broker import ProcessBroker
from tests.e2e.replica import ReplicaFile
from tests.e2e.stack import NOWHERE
from tests.e2e.watcher import ROOT, Received, Watcher
from tests.faults.soak.commands import OURS, Service
from tests.faults.soak.daemon import Daemon
from tests.faults.soak.edits import Editor
from tests.faults.soak.fields import FORMULAS, OBJECTS
from tests.faults.soak.link import Wire
from tests.faults.soak.plan import Variant

_MOST_REFUSALS = 10


class RecordingLedger(Ledger):
    """The org's ledger, which keeps the commits with their values as well.

    Attributes:
        purged: Id of a record that is gone for good -> how many commits there were by then.
        at_next_create: To be called once, when a create of the daemon's is carried out and not answered yet.
    """

    def __init__(self, org: DevOrg) -> None:
        super().__init__(org.ctx.database)
        self.commits: list[Commit] = []
        self.purged: dict[str, int] = {}
        self.at_next_create: list[Callable[[], object]] = []

    def write(self, commit: Commit, purged: Iterable[tuple[str, str]]) -> None:
        """See `Ledger`."""
        gone = list(purged)
        super().write(commit, gone)
        self.commits.append(commit)
        self.purged.update((record_id, len(self.commits)) for _, record_id in gone)
        if commit.origin.startswith(OURS) and any(change.kind == "CREATE" for change in commit.changes):
            at_once, self.at_next_create = self.at_next_create, []
            for work in at_once:
                work()


@dataclass(frozen=True, slots=True)
class Missed:
    """A record that the replica has not right, and when it was changed last, in milliseconds by the org's clock."""

    object: str
    id: str
    changed_ms: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A position that the org did not know any more.

    Attributes:
        start: The daemon's, counted.
        version: The replica's by then.
        missed: What was not right by then.
    """

    start: int
    version: int
    missed: Sequence[Missed]


def replay_number(stored: str) -> int:
    """A stored replay id as the org counts: digits over CometD, eight bytes over the Pub/Sub API."""
    replay_id = b64decode(stored)
    return int(replay_id) if replay_id.isdigit() else int.from_bytes(replay_id)


LookForMissed = Callable[["World"], Sequence[Missed]]


class World:
    """All parts, started and ended together.

    Attributes:
        transport: What the stream comes over.
        forgetful: The broker was killed or lost its memory: what it had acknowledged may never have been delivered.
        restarted_broker: It was away, in whatever way.
        refusals: When the org did not know the daemon's position any more, once everything was loaded.
        events_lost: The org gave up events, or may have.
        events_cut: Events came of which nobody can read even the object.
        clock_went_back: The org's, so that its stamps tell no order.
        whole: Objects of which the stream said that any record may differ, and would say so again until it is heard.
        held: Keys of the org's transactions that are open.
        to_quarantine: Replay ids of events that must be kept in quarantine.
        needs: What must be asked of the daemon before the replica can be expected to be equal, and of which objects.
    """

    def __init__(self, directory: Path, seed: int, variant: Variant, missed: LookForMissed) -> None:
        """`missed`: tells what a `Refusal` holds, at that moment."""
        self._missed = missed
        self._directory = directory
        self._seed = seed
        self._variant = variant
        self._stack = contextlib.AsyncExitStack()
        self._started_s = time.monotonic()
        self.transport: str = variant.settings["salesforce"]["stream"]
        self.org = DevOrg(
            directory / "org", settings=variant.org, pubsub_port=0 if self.transport == "pubsub" else None
        )
        self.broker = ProcessBroker(directory / "broker")
        self.replica = ReplicaFile(directory / "daemon" / "salesforce.db")
        self.held: list[str] = []
        self.needs: dict[str, set[str]] = {}
        self.to_quarantine: set[int] = set()
        self.forgetful = False
        self.restarted_broker = False
        self.refusals: list[Refusal] = []
        self.events_lost = False
        self.events_cut = False
        self.clock_went_back = False
        self.whole: set[str] = set()
        self.trace: list[str] = []
        self._heard: list[Received] = []
        self._heard_upto = 0
        self.wire: Wire
        self.editor: Editor
        self.daemon: Daemon
        self.watcher: Watcher
        self.service: Service
        self.ledger: RecordingLedger

    def position(self) -> int | None:
        """The newest event that the daemon has applied; None: it goes by new events alone, or is not at work yet."""
        if not self.replica.loaded(OBJECTS):
            return None
        stored = self.replica.rows("SELECT value FROM cursor WHERE name LIKE 'stream:%' AND value IS NOT NULL")
        return replay_number(json.loads(stored[0]["value"])["replay_id"]) if stored else None

    def drop_stream(self) -> str:
        """End the stream's session without a reason."""
        if self.transport == "pubsub":
            return f"fault {self.org.ctx.faults.add('pubsub:fetch', close=True)}"
        return f"{self.org.drop_connections('/cometd/')} connections"

    def stream_state(self) -> str:
        """By the daemon's last word."""
        told = self.watcher.messages(f"{ROOT}/health")
        return str(told[-1].json["stream"]["state"]) if told else "not told"

    def heard_changes(self) -> Sequence[Received]:
        """The changes that the subscriber has received so far, in order."""
        upto = self.watcher.mark()  # what arrives at this moment comes twice, rather than never
        self._heard += self.watcher.messages(f"{ROOT}/change/#", self._heard_upto)
        self._heard_upto = upto
        return self._heard

    def edit(self, rng: random.Random, **how: Any) -> str:
        """One transaction of edits, as `Editor.edit`; what it needs or holds open is remembered."""
        done = self.editor.edit(rng, **how)
        for verb, names in done.needs.items():
            self.needs.setdefault(verb, set()).update(names)
        if done.held is not None:
            self.held.append(done.held)
        return done.line

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
            self.service = Service(
                self.watcher,
                self.editor,
                self._seed,
                mqtt5=self._variant.settings["mqtt"]["protocol"] == "5",
                heard=lambda: self.wire.subscribed,
            )
            sizes = {"PAGE_ROWS": self._variant.page_rows, "MOST_TAKEN": self._variant.batch_rows}
            self.daemon = Daemon(self._directory / "daemon", self._settings(), self._secrets(), sizes)
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
        for name, field in FORMULAS.items():
            context.schema.add_field(name, field, context.clock.now_ms())
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
            if not good and len(self.refusals) < _MOST_REFUSALS and self.replica.loaded(OBJECTS):
                self.refusals.append(Refusal(self.daemon.starts, self.replica.last_version(), self._missed(self)))
            return good

        bus.valid = valid  # type: ignore[method-assign]  # looked over the shoulder

    def _settings(self) -> Mapping[str, Any]:
        own: dict[str, dict[str, Any]] = {
            "salesforce": {
                "instance_url": self.org.url,
                "timeout": "1s",
                "pubsub_url": self.org.ctx.pubsub_url or NOWHERE,
            },
            "storage": {"path": str(self.replica.path)},
            "mqtt": {"host": "127.0.0.1", "port": self.wire.port, "keepalive": "2s"},
        }
        for section, values in self._variant.settings.items():
            own.setdefault(section, {}).update(values)
        return own

    def _secrets(self) -> Mapping[str, str]:
        known = self.org.ctx.credentials
        return {"SF_CLIENT_ID": known.client_id, "SF_CLIENT_SECRET": known.client_secret}
