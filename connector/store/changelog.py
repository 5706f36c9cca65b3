"""The change log, which is also the outbox of changes."""

from collections.abc import Mapping, Sequence
from typing import Any

from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.ids import RecordId
from connector.model.jsontext import JsonText
from connector.model.times import to_ms
from connector.store.columns import from_json, iso, json_or_none, ms, to_json
from connector.store.positions import Positions
from connector.store.queries import load
from connector.store.tables import stored_version

_SQL = load("changelog")
# Versions of one row in `change_block`, as sql/changelog.sql has it.
BLOCK = 64
# Versions of one block of index `change_id`.
RECORD_BLOCK = 1 << 11
# A look-up by value through the class takes four times as long.
_OPERATIONS = {operation.value: operation for operation in Operation}
_ORIGINS = {origin.value: origin for origin in Origin}
_NEVER_MS = to_ms("9999-12-31T23:59:59Z")


class ChangeLog(Positions):
    """Numbered changes; those up to the watermark in cursor `published` are with the broker."""

    def append(self, changes: Sequence[Change]) -> int:
        """Number the changes in order, write them, and return the version of the last one.

        The log itself is the counter, with the watermark where it was trimmed: no version is given out twice.
        """
        first = self.last_version() + 1
        if not changes:
            return first - 1
        self._db.executemany(_SQL["add"], (_row(version, c) for version, c in enumerate(changes, first)))
        blocks = {(change.object, version // BLOCK): None for version, change in enumerate(changes, first)}
        self._db.executemany(_SQL["add_block"], blocks)
        return first + len(changes) - 1

    def restart_log(self, version: int, at_ms: int) -> None:
        """Forget every change; the next one is `version` + 1. For a copy of another replica's log."""
        self._db.execute(_SQL["forget_all"])
        self.set_cursor("published", str(version), at_ms)

    def last_version(self) -> int:
        """The newest version; 0 if there is none."""
        return int(self._db.execute(_SQL["last_version"]).get)

    def published_version(self) -> int:
        """The watermark: everything up to it was acknowledged by the broker; 0 at first."""
        return int(self._db.execute(_SQL["published"]).get or 0)

    def unpublished_count(self) -> int:
        """Changes not yet published; there are no holes, so nothing needs counting."""
        return self.last_version() - self.published_version()

    def unpublished(self, limit: int, beyond: int = 0) -> Sequence[Change]:
        """Oldest changes not yet marked as published, in version order, those up to version `beyond` left out."""
        return self.changes(max(self.published_version(), beyond), limit)

    def mark_published(self, version: int, at_ms: int) -> None:
        """All changes up to `version` were acknowledged by the broker; a lower one than before does nothing.

        Raises:
            ValueError: There is no such version yet.
        """
        published = self.published_version()
        if version > self.last_version():
            raise ValueError(f"version {version} has not been given out")
        if version > published:
            self._db.execute(_SQL["mark_published"], (version, iso(at_ms)))
            self.set_cursor("published", str(version), at_ms)

    def changes(self, since: int, limit: int, object_name: str | None = None) -> Sequence[Change]:
        """Changes behind a version, of one object or of all, in version order."""
        query = _SQL["since"] if object_name is None else _SQL["since_of_object"]
        bindings = {"since": since, "limit": limit, "object": object_name}
        return [_change(*row) for row in self._db.execute(query, bindings)]

    def reaches_back_to(self, version: int) -> bool:
        """True if the log has every change behind `version`; False also for a version that was never given out."""
        return self._oldest() - 1 <= version <= self.last_version()

    def log_begins_ms(self) -> int | None:
        """When the oldest change in the log was applied, if older ones were trimmed; None: the log has them all."""
        oldest = self._oldest()
        if oldest == 1:
            return None
        applied_at = self._db.execute(_SQL["applied_at"], (oldest,)).get
        # An empty log begins with the next change.
        return to_ms(str(applied_at)) if applied_at is not None else _NEVER_MS

    def record_changes(self, object_name: str, record_id: RecordId, since: int, limit: int) -> Sequence[Change]:
        """The changes of one record behind a version, in version order, as far back as the log reaches."""
        bindings = {"object": object_name, "id": record_id, "since": since, "limit": limit}
        return [_change(*row) for row in self._db.execute(_SQL["since_of_record"], bindings)]

    def history(self, object_name: str, record_id: RecordId, limit: int) -> Sequence[Change]:
        """The changes of one record, newest first."""
        bindings = {"object": object_name, "id": record_id, "limit": limit}
        return [_change(*row) for row in self._db.execute(_SQL["history"], bindings)]

    def newest_changes(self, limit: int) -> Sequence[Change]:
        """The newest changes of all objects, newest first."""
        return [_change(*row) for row in self._db.execute(_SQL["newest"], {"limit": limit})]

    def origin_of(self, version: int) -> Origin | None:
        """Where the change of this version came from; None if the log does not hold it (0, or trimmed)."""
        origin = self._db.execute(_SQL["origin_of"], (version,)).get
        return None if origin is None else Origin(origin)

    def corrected(self, object_name: str, since: int) -> int:
        """Records of an object that were changed behind a version by what was read, not by what an event told."""
        return int(self._db.execute(_SQL["corrected"], {"object": object_name, "since": since}).get)

    def version_at(self, object_name: str, record_id: RecordId, committed_ms: int) -> int:
        """Version of the record's newest change that the org committed until then; 0 if the log has none.

        Compared by whole seconds, as `LastModifiedDate` has no more.
        """
        bindings = {"object": object_name, "id": record_id, "until": iso(committed_ms)}
        return int(self._db.execute(_SQL["version_at"], bindings).get)

    def changed_since(self, object_name: str, record_id: RecordId, version: int) -> Mapping[str, Any] | None:
        """Fields that changed after `version`, each with its value before; None if the log does not reach back.

        A record that did not exist at `version` had no values: a later create or undelete names every field it set.
        """
        if version < self._oldest() - 1:
            # The log has been trimmed since, but the row itself tells if nothing happened to this record.
            stored = stored_version(self._db, object_name, record_id)
            return {} if stored is not None and stored <= version else None
        # Behind the newest one nothing has changed, and SQLite's numbers end somewhere.
        bindings = {"object": object_name, "id": record_id, "version": min(version, self.last_version())}
        before: dict[str, Any] = {}
        for changed, old in self._db.execute(_SQL["before_since"], bindings):
            values = from_json(old) if old is not None else dict.fromkeys(from_json(changed))
            before = {**values, **before}
        return before

    def trim_log(self, version: int) -> int:
        """Forget the changes up to a version, which must be published; returns how many there were."""
        self._db.execute(_SQL["forget_blocks"], ((version + 1) // BLOCK,))
        self._db.execute(_SQL["forget_published"], (version,))
        self._db.execute(_SQL["trim"], (version,))
        return self._db.changes()

    def _oldest(self) -> int:
        """The oldest version in the log; the next one to come if it is empty."""
        return int(self._db.execute(_SQL["oldest"]).get or self.last_version() + 1)


def _row(version: int, change: Change) -> tuple[str | int | None, ...]:
    commit = change.commit
    record = json_or_none(change.record)
    return (
        version,
        change.object,
        change.id,
        change.operation,
        to_json(change.changed),
        json_or_none(change.before),
        record if change.after is change.record else json_or_none(change.after),
        record,
        change.origin,
        change.command_id,
        iso(commit.timestamp_ms) if commit else None,
        commit.number if commit else None,
        commit.user if commit else None,
        commit.transaction if commit else None,
        commit.sequence if commit else None,
        iso(change.applied_ms),
    )


def _change(*row: Any) -> Change:
    (version, name, record_id, operation, changed, before, after, record, origin, command_id) = row[:10]
    (committed_at, number, user, transaction, sequence, applied_at) = row[10:]
    commit = None
    if committed_at is not None:
        commit = CommitInfo(ms(committed_at), number, user, transaction, sequence)
    return Change(
        version=version,
        object=name,
        id=record_id,
        operation=_OPERATIONS[operation],
        changed=tuple(from_json(changed)),
        before=None if before is None else JsonText(before),
        after=None if after is None else JsonText(after),
        record=None if record is None else JsonText(record),
        origin=_ORIGINS[origin],
        command_id=command_id,
        commit=commit,
        applied_ms=ms(applied_at),
    )
