"""What the parts report, as signals, troubles and the observations of the health document."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from connector.app.org import Org, Source
from connector.errors import QueryTooSlow, StoreBusy
from connector.inbound.engine import Inbound
from connector.inbound.progress import LoadState
from connector.inbound.rounds import Round
from connector.mesh.signals import Signals
from connector.model.message import Message
from connector.model.objects import ObjectSpec
from connector.ports import Snapshot, Standing
from connector.serve.health import ObjectNow, Observations, StreamNow, Troubles
from connector.serve.query.answer import ALL_OBJECTS, Freshness
from connector.store.database import Database
from connector.store.readers import Readers

# A million records take a hundredth of a second, and a cold card a hundred times that.
COUNTING_TIMEOUT_S = 30.0
# The rounds whose good end is a signal, by the word of the signal's `kind`.
SIGNALLED: Mapping[str, str] = {
    "load": "first_load",
    "reread": "first_load",
    "catch_up": "catch_up",
    "poll": "poll",
    "sync": "requested",
}


def round_messages(done: Round, signals: Signals, troubles: Troubles, now_ms: int) -> Iterator[Message]:
    """The signals of a round; a failure is told once per object and spell."""
    kind = SIGNALLED.get(done.kind, done.kind)
    subjects: Sequence[str | None] = done.objects or (None,)
    for name in subjects:
        source = f"{kind}:{name}" if name else kind
        if done.error is None:
            troubles.clear(source)
            signals.recovered(kind, name)
            continue
        troubles.report(source, done.error, person=done.person)
        message = signals.sync_failed(kind=kind, object_name=name, error=done.error, now_ms=now_ms)
        if message is not None:
            yield message
    if done.error is None and done.kind in SIGNALLED:
        message = signals.sync_complete(
            kind=kind,
            objects=done.objects,
            records=done.records,
            duration_s=done.duration_s,
            api_calls=done.api_calls,
            now_ms=now_ms,
        )
        if message is not None:
            yield message


class Observer:
    """Looks at every part for the health document."""

    def __init__(
        self,
        *,
        transport: str,
        database: Database,
        readers: Readers,
        org: Org,
        inbound: Inbound,
        source: Source | None,
        refused_topics: Callable[[], tuple[str, ...]],
        parked_count: Callable[[], int],
    ) -> None:
        self._transport = transport
        self._database = database
        self._readers = readers
        self._org = org
        self._inbound = inbound
        self._source = source
        self._refused_topics = refused_topics
        self._parked_count = parked_count

    async def observe(self) -> Observations:
        """Everything as it is now.

        Raises:
            StoreBusy: The database cannot be written, or not be read, now.
        """
        # A turn of the writer's shows that it can write. It must not count: meanwhile nothing would be applied.
        version = await self._database.run(lambda unit: unit.last_version())
        standing = await self._standing()
        holes = Counter(hole.object for hole in standing.holes)
        specs = self._inbound.catalog.specs.values()
        api = self._org.budget.snapshot()
        return Observations(
            version=version,
            stream=self._stream(),
            objects={
                spec.name: self._object(spec, standing.records.get(spec.name, 0), holes[spec.name]) for spec in specs
            },
            queues=standing.queues,
            api_used=api["used"],
            api_max=api["max"],
            api_own=api["own"],
            mesh_refused=self._refused_topics(),
            parked_count=self._parked_count(),
        )

    async def _standing(self) -> Standing:
        try:
            return await self._readers.read(lambda replica: replica.standing(), timeout_s=COUNTING_TIMEOUT_S)
        except QueryTooSlow as error:
            raise StoreBusy(f"counting the records takes longer than {COUNTING_TIMEOUT_S:.0f} s") from error

    def _object(self, spec: ObjectSpec, records: int, holes: int) -> ObjectNow:
        poll, proofs = self._inbound.poller.states[spec.name], self._inbound.proofs
        calculated = any(field.calculated for field in spec.fields)
        return ObjectNow(
            records=records,
            streamed=self._source is not None,
            last_polled_ms=poll.polled_ms,
            verified_ms=proofs.verified_ms.get(spec.name),
            drift=proofs.drift(spec.name),
            held=proofs.held.get(spec.name, 0),
            untold=poll.untold,
            stream_deaf=poll.untold_last > 0 and spec.name in self._inbound.stream_state.told,
            holes=holes,
            calculated_ms=proofs.reread_ms.get(spec.name) if calculated else None,
        )

    def _stream(self) -> StreamNow:
        state = self._inbound.stream_state
        return StreamNow(
            state=state.status,
            transport=self._transport,
            since_ms=state.since_ms,
            last_frame_ms=self._source.status.last_frame_ms if self._source else None,
            last_event_ms=state.last_event_ms,
            delivered=self._org.deliveries.snapshot(),
        )


def freshness_of(inbound: Inbound, object_name: str) -> Freshness:
    """How far an object can be trusted now; several objects as far as the one that was verified longest ago."""
    verified = inbound.proofs.verified_ms
    names = [*inbound.catalog.specs] if object_name == ALL_OBJECTS else [object_name]
    known = [verified[name] for name in names if name in verified]
    return Freshness(
        stream=inbound.stream_state.status, verified_ms=min(known) if known and len(known) == len(names) else None
    )


def load_token(snapshot: Snapshot, object_name: str) -> str | None:
    """Which load an object's rows are of; None while it is not loaded, or being read again for new fields."""
    state = LoadState.stored(snapshot, object_name)
    return None if state is None else state.token
