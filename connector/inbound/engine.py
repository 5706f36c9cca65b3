"""The way from the org to the replica, put together: what `app.py` starts, stops and asks."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from connector.errors import PoisonError
from connector.inbound.applier import StreamListeners, StreamState
from connector.inbound.apply import Applied, Applying
from connector.inbound.backlog import Backlog
from connector.inbound.catalog import Catalog
from connector.inbound.fence import Fences, Memory
from connector.inbound.poll import Poller, PollRules
from connector.inbound.position import StreamRules
from connector.inbound.proofs import Proofs
from connector.inbound.reconcile import Reconciled, Reconciler
from connector.inbound.repair import Repairer, RepairRules
from connector.inbound.rounds import Round, Tools
from connector.inbound.settle import Settler
from connector.inbound.snapshot import Loader, LoadRules, Progress
from connector.inbound.stream import StreamLoop
from connector.model.message import Message
from connector.ports import ChangeSource, Hole, OrgClient, OwnReplica, Purpose

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundRules:
    """What of the settings concerns this way.

    Attributes:
        wanted: Object -> its fields, or `all`.
        stream: None: the stream is off.
    """

    wanted: Mapping[str, Sequence[str] | Literal["all"]]
    backoff_max_s: float
    load: LoadRules
    poll: PollRules
    repair: RepairRules
    stream: StreamRules | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """Whom this way tells; see `rounds.Tools`.

    Attributes:
        progress: Gets object, rows done and rows in total during a load or a comparison.
    """

    on_round: Callable[[Round], Awaitable[None]]
    on_applied: Callable[[Applied], None]
    hole_messages: Callable[[Hole], Sequence[Message]]
    calls: Callable[[Purpose], int]
    progress: Progress = lambda _name, _done, _total: None


class Inbound:
    """All parts of the way, wired to one another; they meet the other ways in the database alone."""

    def __init__(
        self,
        rules: InboundRules,
        outlets: Outlets,
        *,
        org: OrgClient,
        replica: OwnReplica,
        source: ChangeSource | None,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        """`source` None: the stream is off."""
        self.catalog = Catalog(
            org=org, replica=replica, wanted=rules.wanted, now_ms=now_ms, on_reread=self._fields_came
        )
        tools = Tools(
            org=org,
            replica=replica,
            catalog=self.catalog,
            applying=Applying(Fences(), Memory(), now_ms),
            rng=rng,
            backoff_max_s=rules.backoff_max_s,
            on_round=outlets.on_round,
            on_applied=outlets.on_applied,
            on_dirty=self._doubts_came,
            hole_messages=outlets.hole_messages,
            calls=outlets.calls,
        )
        streaming = source is not None and rules.stream is not None
        subscribed = asyncio.Event()
        self.backlog = Backlog(now_ms)
        self.poller = Poller(tools, rules.poll, subscribed=subscribed, backlog=self.backlog)
        self.proofs = Proofs()
        self.settler = Settler(tools, self.proofs)
        reconciler = Reconciler(tools, self.settler, self.proofs, outlets.progress)
        self.repairer = Repairer(tools, rules.repair, self.settler, reconciler, self.proofs)
        self.loader = Loader(
            tools, rules.load, subscribed=subscribed, progress=outlets.progress, on_loaded=self._loaded
        )
        self.stream: StreamLoop | None = None
        self._off = StreamState(status="off", since_ms=now_ms())
        if source is not None and rules.stream is not None:
            listeners = StreamListeners(
                health=lambda healthy, expected: self.poller.stream_is(healthy=healthy, expected=expected),
                poll=self.poller.poll_soon,
                doubt=self.repairer.wake,
            )
            self.stream = StreamLoop(
                tools, source, rules.stream, listeners, subscribed=subscribed, backlog=self.backlog
            )
        if not streaming:
            subscribed.set()
            self.poller.stream_is(healthy=False, expected=False)

    @property
    def stream_state(self) -> StreamState:
        """For health."""
        return self.stream.state if self.stream is not None else self._off

    async def start(self) -> None:
        """Know the objects; to be called before the jobs run.

        Raises:
            TransientError: The org cannot be asked, and an object was never described.
            LoginRefused: The org refused the credentials.
        """
        await self.catalog.start()

    def jobs(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """The jobs to keep running, by name; none ends by itself, each may be begun again."""
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "inbound.load": self.loader.run,
            "inbound.poll": self.poller.run,
            "inbound.repair": self.repairer.run,
            "inbound.catalog": self.catalog.run,
        }
        if self.stream is not None:
            jobs["inbound.stream"] = self.stream.run
        return jobs

    def pause(self) -> None:
        """Stop streaming and polling by ourselves; `sync` goes on working."""
        self.poller.pause()
        if self.stream is not None:
            self.stream.pause()
        log.info("inbound.paused")

    def resume(self) -> None:
        """Go on from the stored position, and catch up by a poll."""
        if self.stream is not None:
            self.stream.resume()
        self.poller.resume()
        log.info("inbound.resumed")

    async def sync(self, objects: Sequence[str] | None = None) -> Round:
        """Catch up by query now; see `Poller.sync_now`."""
        return await self.poller.sync_now(objects)

    async def verify(
        self, objects: Sequence[str] | None = None, *, repair: bool = True, allow_deletions: Collection[str] = ()
    ) -> Sequence[Reconciled]:
        """Compare objects (None: all that are loaded) with the org; see `Reconciler.reconcile`.

        Args:
            objects: Their names.
            repair: Put right what differs.
            allow_deletions: Objects of which the org may have lost however many records.

        Raises:
            PoisonError: One that is named is not loaded, or the org does not answer for it.
            TransientError, LoginRefused, OrgRefused: As the org's client.
        """
        loaded = await self.repairer.loaded()
        absent = [name for name in objects or () if name not in loaded]
        if absent:
            raise PoisonError(f"not loaded, so there is nothing to compare: {', '.join(absent)}")
        return [
            await self.repairer.reconcile(name, kind="verify", repair=repair, allow_deletions=name in allow_deletions)
            for name in loaded
            if objects is None or name in objects
        ]

    def _fields_came(self, name: str) -> None:
        self.loader.wake(name)

    def _doubts_came(self) -> None:
        self.repairer.wake()

    def _loaded(self, name: str) -> None:
        self.poller.loaded(name)
        self.repairer.wake()
