"""A long queue as Bulk ingest jobs: one at a time, beside the calls that carry everything else.

A job checks nothing before it writes, so it carries only what is written whatever the record holds: creates, upserts
whose record nobody has seen, and updates, upserts and deletes under `overwrite`; each of them at its first try.

Every step is on disk before the org sees it: the commands are `sending` with the job's number before the job is made,
and the org's id of it is stored before anything is uploaded. So what a crash leaves is a row that says how far it was;
without the org's id nothing was given to it, and with it the org itself knows what became of each record.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from connector.errors import LinkDown, OrgRefused, OrgUnavailable, RecordGone, TransientError
from connector.model.command import Command, IngestJob, IngestKind
from connector.outbound.batch import Batches
from connector.outbound.ending import FIRST_BACKOFF_S
from connector.outbound.planned import Group, Planned
from connector.outbound.rules import OutboundRules
from connector.outbound.steps import Send
from connector.ports import IngestClient, RecordWrite, Replica, Unit, WriteOutcome

log = structlog.get_logger()

# The org itself works in batches of so many.
MOST_RECORDS = 10_000
# Far below the 100 MB that an upload may have; in memory it is a few times as much.
MOST_CHARS = 8_000_000
# After a kind that had less to carry than its number promised, or an org that made no job.
PAUSE_MS = 60_000
SLICE = 400
_POLL_FIRST_S, _POLL_GROWS, _POLL_MOST_S = 0.5, 1.5, 30.0
_ENDED = ("JobComplete", "Failed", "Aborted")


@dataclass(frozen=True, slots=True)
class _Carried:
    """What a job carries."""

    sends: Sequence[tuple[Group, Send]]

    @property
    def writes(self) -> list[RecordWrite]:
        """The writes, one for each."""
        return [send.write for _, send in self.sends]


class BulkLane:
    """Makes ingest jobs, and brings each to its end; one at a time."""

    def __init__(
        self,
        *,
        replica: Replica,
        client: IngestClient,
        batches: Batches,
        rules: OutboundRules,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._replica = replica
        self._client = client
        self._batches = batches
        self._rules = rules
        self._now_ms = now_ms
        self._rng = rng
        self._busy = False
        self._paused_ms = range(0)
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Begin nothing more; what is under way goes on at the next start."""
        self._draining.set()

    async def recover(self) -> Sequence[IngestJob]:
        """The jobs that an earlier process left; commands of a job that the org has not made wait again."""
        jobs = await self._replica.run(lambda unit: unit.ingest_jobs())
        for job in jobs:
            if job.job_id is None:
                await self._put_back(job)
        return [job for job in jobs if job.job_id is not None]

    async def begin(self) -> IngestJob | None:
        """Take commands for a job, if one can carry enough of those that wait; None: it is not for now.

        Not to be called while the batches are being taken: both look at the same queue.
        """
        if not self._rules.bulk_threshold or self._busy or self._now_ms() in self._paused_ms:
            return None
        if not self._batches.may_begin:
            return None
        kind = await self._replica.run(lambda unit: unit.fullest_kind(self._rules.bulk_threshold))
        if kind is None:
            return None
        job = await self._replica.run(lambda unit: unit.add_ingest_job(kind))
        if await self._fill(job) < self._rules.bulk_threshold:
            self._pause()
            await self._put_back(job)
            return None
        self._busy = True
        return job

    async def work(self, job: IngestJob) -> None:
        """Bring a job to its end, or to the point from which the next start goes on."""
        self._busy = True
        try:
            if job.job_id is None:
                made = await self._make(job)
                if made is None:
                    return
                job = made
            await self._follow(job)
        finally:
            self._busy = False

    def _pause(self) -> None:
        now_ms = self._now_ms()
        self._paused_ms = range(now_ms, now_ms + PAUSE_MS)

    # Filling

    async def _fill(self, job: IngestJob) -> int:
        """Take commands slice by slice; how many."""
        taken, after, chars = 0, 0, 0
        while taken < MOST_RECORDS and chars < MOST_CHARS:
            limit = min(SLICE, MOST_RECORDS - taken)
            planned, last = await self._replica.run(partial(self._take, job, after, limit))
            self._batches.tell(planned)
            if last is None:
                break
            taken, after = taken + len(planned.sends), last
            chars += sum(len(str(value)) for _, send in planned.sends for value in send.write.fields.values())
        return taken

    def _take(self, job: IngestJob, after: int, limit: int, unit: Unit) -> tuple[Planned, int | None]:
        """Those of the next commands that the job can carry, and where to go on; None: at the end."""
        heads = unit.next_of_kind(job.kind, self._now_ms(), after, limit)
        planned = self._batches.begin_for(unit, job, heads, partial(self._fits, job.kind))
        return planned, heads[-1].seq if heads else None

    def _fits(self, kind: IngestKind, send: Send) -> bool:
        write = _write(kind, send.commands[-1])
        return write is not None and self._client.takes(write) and send.write.only_if is None

    # The org's part

    async def _make(self, job: IngestJob) -> IngestJob | None:
        """Have the org make the job and take its records; None if it makes none for us."""
        carried = await self._carried(job)
        try:
            told = await self._client.start(job.kind)
        except (TransientError, OrgRefused) as error:
            # Whatever the org may have made holds no record, and goes by itself.
            self._pause()
            log.warning("bulk.job_refused", object=job.kind.object, operation=job.kind.operation, error=str(error))
            await self._put_back(job)
            return None
        job = await self._replica.run(lambda unit: unit.ingest_job_made(job, told.id, told.server_ms))
        log.info(
            "bulk.job_started",
            object=job.kind.object,
            operation=job.kind.operation,
            job=told.id,
            records=len(carried.sends),
        )
        with contextlib.suppress(TransientError, OrgRefused):  # the job's state tells how far it came
            await self._client.upload(told.id, job.kind, carried.writes)
            await self._client.close(told.id)
        return job

    async def _follow(self, job: IngestJob) -> None:
        """Ask how far the org is until every command of the job is settled, or the process is to end."""
        job_id, wait_s, failures = job.job_id or "", _POLL_FIRST_S, 0
        while not self._draining.is_set():
            try:
                if await self._step(job, job_id):
                    return
                failures = 0
                pause_s, wait_s = wait_s, min(wait_s * _POLL_GROWS, _POLL_MOST_S)
            except (TransientError, OrgRefused) as error:
                failures += 1
                longest_s = min(self._rules.backoff_max_s, FIRST_BACKOFF_S * 2 ** min(failures, 20))
                asked_s = error.retry_after_s if isinstance(error, TransientError) else None
                pause_s = asked_s if asked_s is not None else longest_s * self._rng.uniform(0.5, 1.0)
                log.warning("bulk.job_waits", job=job_id, wait_s=round(pause_s, 1), error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._draining.wait()

    async def _step(self, job: IngestJob, job_id: str) -> bool:
        """Look at the job once; True if it is settled."""
        try:
            told = await self._client.job(job_id)
        except RecordGone:
            log.warning("bulk.job_gone", job=job_id)
            await self._give_back(job, LinkDown("the org no longer has the ingest job"))
            return True
        if told.state == "Open":
            # Not closed, so nothing of it was written; and nothing can be, once it is aborted.
            with contextlib.suppress(OrgRefused):
                await self._client.abort(job_id)
                await self._give_back(job, OrgUnavailable("the ingest job did not get its records", retry_after_s=0))
                await self._forget(job_id)
                return True
            return False
        if told.state not in _ENDED:
            return False
        carried = await self._carried(job)
        await self._settle(job, carried, await self._outcomes(job, job_id, told.state, told.processed_count, carried))
        log.info("bulk.job_ended", job=job_id, state=told.state, records=len(carried.sends), error=told.error)
        await self._forget(job_id)
        return True

    async def _forget(self, job_id: str) -> None:
        with contextlib.suppress(TransientError, OrgRefused):  # the org removes it in a week
            await self._client.delete(job_id)

    async def _outcomes(
        self, job: IngestJob, job_id: str, state: str, processed: int | None, carried: _Carried
    ) -> Sequence[WriteOutcome | TransientError]:
        if state != "JobComplete" and processed == 0:
            return [OrgUnavailable(f"the ingest job is {state}", retry_after_s=0)] * len(carried.sends)
        found = await self._client.outcomes(job_id, job.kind, carried.writes)
        # When within the job a record was written nobody tells; this is certainly not after it.
        return [replace(o, server_ms=job.opened_ms) if isinstance(o, WriteOutcome) else o for o in found]

    # What it carries

    async def _carried(self, job: IngestJob) -> _Carried:
        sends: list[tuple[Group, Send]] = []
        commands: list[Command] = []
        while some := await self._replica.run(partial(_some_of, job, commands[-1].seq if commands else 0)):
            commands.extend(some)
        carriers: dict[str, list[Command]] = {c.command_id: [] for c in commands if c.carried_by is None}
        for command in commands:
            carriers[command.carried_by or command.command_id].append(command)
        for parts in carriers.values():
            write = _write(job.kind, parts[-1])
            if write is not None:
                group = Group(parts[0], tuple(parts[1:]))
                sends.append((group, Send(tuple(parts), write, by_header=False)))
        # Those that cannot be told apart come to stand together.
        return _Carried(sorted(sends, key=lambda pair: _content(pair[1].write)))

    async def _settle(
        self, job: IngestJob, carried: _Carried, outcomes: Sequence[WriteOutcome | TransientError]
    ) -> None:
        """Store what became of each.

        Slice by slice, but what cannot be told apart in one: after a crash the rest must not be given the rows of
        those that are settled.
        """
        start = 0
        while start < len(outcomes):
            end = min(start + SLICE, len(outcomes))
            while end < len(outcomes) and _content(carried.sends[end][1].write) == _content(
                carried.sends[end - 1][1].write
            ):
                end += 1
            await self._batches.settle(carried.sends[start:end], outcomes[start:end])
            start = end
        await self._replica.run(lambda unit: unit.remove_ingest_job(job))

    async def _give_back(self, job: IngestJob, error: TransientError) -> None:
        """Its commands go by calls."""
        carried = await self._carried(job)
        await self._settle(job, carried, [error] * len(carried.sends))

    async def _put_back(self, job: IngestJob) -> None:
        """The same where the org has heard of none of them."""
        while some := await self._replica.run(lambda unit: unit.carried(job, 0, SLICE)):
            await self._batches.untried(some)
        await self._replica.run(lambda unit: unit.remove_ingest_job(job))


def _some_of(job: IngestJob, after: int, unit: Unit) -> Sequence[Command]:
    return unit.carried(job, after, SLICE)


def _write(kind: IngestKind, carrier: Command) -> RecordWrite | None:
    """The write of the command that carries the others; None if a job of this kind cannot hold it."""
    if carrier.operation is not kind.operation:
        return None
    field = carrier.external_id[0] if carrier.external_id else None
    if field != kind.external_id:
        return None
    return RecordWrite(
        object=kind.object,
        operation=kind.operation,
        fields=carrier.sent or {},
        record_id=None if field else carrier.record_id,
        external_id=carrier.external_id,
    )


def _content(write: RecordWrite) -> str:
    return repr((write.record_id, write.external_id, sorted(write.fields.items())))
