"""The replica as any program may read it, with plain SQLite; and what the published changes make of the records."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.org import OrgAdmin
from tests.e2e.watcher import Received

OWN_COLUMNS = frozenset({"_version", "_synced_at", "_deleted_at", "_modstamp"})
# Change without a change of a user's, and without an event.
NOT_COMPARED = frozenset({"SystemModstamp", "LastViewedDate", "LastReferencedDate", "LastActivityDate", "PhotoUrl"})


class ReplicaFile:
    """The SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """A connection that only reads."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            yield connection

    def rows(self, sql: str, *bound: object) -> list[dict[str, Any]]:
        """The rows of a query."""
        with self.opened() as connection:
            return [dict(row) for row in connection.execute(sql, bound)]

    def value(self, sql: str, *bound: object) -> Any:
        """The single value of a query."""
        with self.opened() as connection:
            return connection.execute(sql, bound).fetchone()[0]

    def record(self, name: str, record_id: str) -> dict[str, Any] | None:
        """A record's row, deleted or not."""
        rows = self.rows(f'SELECT * FROM "{name.lower()}" WHERE Id = ?', record_id)  # noqa: S608 - a name of the test
        return rows[0] if rows else None

    def records(self, name: str) -> dict[str, dict[str, Any]]:
        """Every row, deleted ones too, by id."""
        return {row["Id"]: row for row in self.rows(f'SELECT * FROM "{name.lower()}"')}  # noqa: S608 - likewise

    def loaded(self, names: Iterable[str]) -> bool:
        """True once every object is."""
        if not self.path.exists():
            return False
        try:
            done = {
                row["name"] for row in self.rows("SELECT name, value FROM cursor") if '"state":"done"' in row["value"]
            }
        except sqlite3.OperationalError:
            return False
        return {f"load:{name}" for name in names} <= done

    def searchable(self, name: str) -> bool:
        """True once an object's text index is whole."""
        return bool(self.value("SELECT search = 'ready' FROM object WHERE name = ?", name))

    def last_version(self) -> int:
        """The newest change."""
        version: int = self.value("SELECT coalesce(max(version), 0) FROM change")
        return version

    def published_version(self) -> int:
        """The newest change that is marked as published."""
        version: int = self.value(
            "SELECT coalesce(max(CAST(value AS INTEGER)), 0) FROM cursor WHERE name = 'published'"
        )
        return version


def differences(org: OrgAdmin, replica: ReplicaFile, names: Iterable[str]) -> list[str]:
    """How the replica differs from the org, record by record, deletions included; empty if it does not."""
    found: list[str] = []
    for name in names:
        theirs, ours = org.records(name, deleted=True), replica.records(name)
        for record_id in theirs.keys() | ours.keys():
            found += record_differences(
                f"{name}/{record_id}", theirs.get(record_id), ours.get(record_id), but=OWN_COLUMNS | NOT_COMPARED
            )
    return found


def record_differences(
    where: str, theirs: Mapping[str, Any] | None, ours: Mapping[str, Any] | None, *, but: AbstractSet[str]
) -> Iterator[str]:
    """How one record of the org and its row differ, in words; `but`: columns that are not compared."""
    lives_there = theirs is not None and not theirs["IsDeleted"]
    lives_here = ours is not None and ours["_deleted_at"] is None
    if lives_there != lives_here:
        yield f"{where}: {'lives' if lives_there else 'is gone'} in the org only"
    elif lives_there and theirs is not None and ours is not None:
        for name in ours.keys() - but:
            if ours[name] != theirs.get(name):  # SQLite's 0 and 1 equal False and True
                yield f"{where}.{name}: {theirs.get(name)!r} in the org, {ours[name]!r} here"


@dataclass(slots=True)
class Folded:
    """What a subscriber knows who has taken every change.

    Attributes:
        records: (object, id) -> the record, None once deleted; only records that a change told of.
        versions: (object, id) -> version of its newest change.
        data: version -> `data` of the change.
    """

    records: dict[tuple[str, str], dict[str, Any] | None] = field(default_factory=dict)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    data: dict[int, dict[str, Any]] = field(default_factory=dict)


def fold(messages: Iterable[Received], first: int = 1) -> Folded:
    """Take the changes in order, checking that each fits what the ones before it told.

    Raises:
        AssertionError: A version is missing or out of order, or two messages of one version or one record contradict.
    """
    folded = Folded()
    for message in messages:
        data = message.json["data"]
        version = data["version"]
        if version in folded.data:
            assert folded.data[version] == data, f"version {version} came again with other contents"
            continue
        assert version == first + len(folded.data), f"version {version} where {first + len(folded.data)} was due"
        folded.data[version] = data
        _take(folded, data)
    return folded


def _take(folded: Folded, data: Mapping[str, Any]) -> None:
    key = data["object"], data["id"]
    known, held = key in folded.records, folded.records.get(key)
    operation, record = data["operation"], data["record"]
    if operation == "delete":
        assert not known or held == data["before"], f"delete of another state: {data}"
    elif operation == "update":
        assert data["changed"], f"an update that changes nothing: {data}"
        assert set(data["changed"]) == set(data["before"]) == set(data["after"]), f"fields differ: {data}"
        assert data["before"] != data["after"], f"an update that changes nothing: {data}"
        assert data["after"].items() <= record.items(), f"after is not in the record: {data}"
        assert not known or held is not None, f"update of a deleted record: {data}"
        if held is not None:
            assert {**record, **data["before"]} == held, f"update of another state than {held}: {data}"
    else:
        assert data["before"] is None
        assert data["after"] == record
        assert held is None, f"{operation} of a record that lives: {data}"
        assert not (known and operation == "create"), f"create of a record that was deleted: {data}"
    folded.records[key] = record
    folded.versions[key] = data["version"]
