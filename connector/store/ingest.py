"""Commands that go by a Bulk ingest job, and the jobs that are under way."""

from collections.abc import Sequence
from dataclasses import replace

from connector.model.change import Operation
from connector.model.command import Command, IngestJob, IngestKind
from connector.store.columns import iso, iso_or_none, ms_or_none
from connector.store.commands import Commands
from connector.store.queries import load

_SQL = load("ingest")


class Ingest(Commands):
    """Ingest jobs, and the commands by job and by kind."""

    def fullest_kind(self, least: int) -> IngestKind | None:
        """What most of the waiting commands are that an ingest job may carry; None if there are fewer than `least`."""
        found = next(iter(self._db.execute(_SQL["fullest"], {"least": least})), None)
        if found is None:
            return None
        return IngestKind(object=str(found[0]), operation=Operation(str(found[1])), external_id=_text(found[2]))

    def next_of_kind(self, kind: IngestKind, now_ms: int, after_seq: int, limit: int) -> Sequence[Command]:
        """Commands for an ingest job that wait for no other, in order, from behind `after_seq`; at most one per record.

        Only those that were never tried.
        """
        return self._queried(_SQL["next_of"], _kind(kind) | {"now": iso(now_ms), "after": after_seq, "limit": limit})

    def add_ingest_job(self, kind: IngestKind) -> IngestJob:
        """A job that the org has not made yet."""
        bindings = {"object": kind.object, "operation": kind.operation, "external_id": kind.external_id}
        return IngestJob(number=int(self._db.execute(_SQL["add"], bindings).get), kind=kind)

    def ingest_job_made(self, job: IngestJob, job_id: str, opened_ms: int | None) -> IngestJob:
        """The org has made it."""
        bindings = {"number": job.number, "job_id": job_id, "opened_at": iso_or_none(opened_ms)}
        self._db.execute(_SQL["made"], bindings)
        return replace(job, job_id=job_id, opened_ms=opened_ms)

    def ingest_jobs(self) -> Sequence[IngestJob]:
        """Those under way, the oldest first."""
        return [
            IngestJob(
                number=int(number),
                kind=IngestKind(object=str(name), operation=Operation(str(operation)), external_id=_text(field)),
                job_id=_text(job_id),
                opened_ms=ms_or_none(opened_at),
            )
            for number, name, operation, field, job_id, opened_at in self._db.execute(_SQL["all"])
        ]

    def carried(self, job: IngestJob, after_seq: int, limit: int) -> Sequence[Command]:
        """The job's commands that are not settled, in order, from behind `after_seq`."""
        return self._queried(_SQL["carried"], {"number": job.number, "after": after_seq, "limit": limit})

    def remove_ingest_job(self, job: IngestJob) -> None:
        """None of its commands is open any more."""
        self._db.execute(_SQL["remove"], {"number": job.number})

    def interrupted(self, limit: int) -> Sequence[Command]:
        """Commands whose call was begun, in order; after a start, those that the last process did not settle."""
        return self._queried(_SQL["interrupted"], {"limit": limit})


def _kind(kind: IngestKind) -> dict[str, object]:
    return {"object": kind.object, "operation": kind.operation, "field": kind.external_id}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
