"""What a change that comes alone writes to the disk, by the pages in the WAL; `make wear` measures a day."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from connector.inbound.apply import Applying, DecodedEvent, apply_events
from connector.inbound.decode import decode
from connector.inbound.fence import Fences, Memory
from connector.model.change import ReplayId
from connector.model.record import StoredRecord
from connector.ports import Unit
from connector.store import Session
from connector.store.changelog import RECORD_BLOCK
from connector.store.session import PAGE_BYTES
from tests.events import T0, contact_spec, event, record_id
from tests.store_nouns import change

CONTACTS = 4_000
CHANGES = 300
MOST_PAGES = 5.8
MOST_PAGES_WITH_WORDS = 7.7
MOST_PAGES_OF_A_MARK = 2
JOBS, JOB_CHANGES = 20, 200
MOST_INDEX_PAGES_IN_A_JOB = 0.25
SPEC = contact_spec("Birthdate")
STREAM = "stream:cometd:/data/ChangeEvents"
_WORDS = ("Anna", "Björn", "Chloé", "Dmitri", "Elif", "Farid", "Grace", "Hiro", "Inès", "João", "Kofi", "Lena")
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[tuple[Session, Path]]:
    """Contacts that are indexed, and a log that is within its tenth block."""
    path = tmp_path / "replica.db"
    with Session(path) as session:
        session.run(lambda unit: unit.define(SPEC))
        session.run(lambda unit: unit.put(SPEC, [contact(number) for number in range(CONTACTS)]))
        while session.run(lambda unit: unit.extend_indexes("Contact", CONTACTS)):
            pass
        ids = [record_id(number * 7919 % CONTACTS) for number in range(9 * RECORD_BLOCK + RECORD_BLOCK // 4)]
        older = [replace(change(object="Contact"), id=i) for i in ids]
        session.run(lambda unit: unit.append(older))
        yield session, path


def contact(number: int) -> StoredRecord:
    """With words that others have too, and some of its own."""
    blank = dict.fromkeys(SPEC.names)
    name = f"{_WORDS[number % 12]} {_WORDS[number // 12 % 12]}"
    told = {"Name": name, "Email": f"{name}.{number}@example.com".replace(" ", "."), "Phone": f"+1 555 {number:07d}"}
    return StoredRecord(
        id=record_id(number), values={**blank, **told}, version=0, synced_ms=T0, deleted_ms=None, modified_ms=T0 - 1000
    )


def pages_written(path: Path) -> Counter[str]:
    """Pages in the WAL by the table or index that they are of. Source: SQLite, "WAL-mode File Format"."""
    wal = path.with_name(f"{path.name}-wal").read_bytes()
    salt = wal[16:24]
    size = _FRAME_HEADER_BYTES + PAGE_BYTES
    frames = (wal[at : at + _FRAME_HEADER_BYTES] for at in range(_HEADER_BYTES, len(wal) - size + 1, size))
    numbers = [int.from_bytes(frame[:4], "big") for frame in frames if frame[8:16] == salt]
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        names = {int(page): str(name) for name, page in reader.execute("SELECT name, pageno FROM dbstat")}
    finally:
        reader.close()
    return Counter(names.get(number, "free") for number in numbers)


def applied_alone(session: Session, path: Path, field: str, values: Iterable[str]) -> Counter[str]:
    """A new value for a record here and there, each applied in a unit of its own."""
    rng = random.Random(1)
    context = Applying(Fences(), Memory(), lambda: T0)
    connection = session._connection
    assert connection is not None
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for number, value in enumerate(values):
        told = event("UPDATE", record_id(rng.randrange(CONTACTS)), at_ms=T0 + 1000 * number) | {field: value}
        told["ChangeEventHeader"]["changedFields"].append(field)
        decoded = DecodedEvent(replay_id=ReplayId(b"%d" % number), event=decode(told, {"Contact": SPEC}))

        def work(unit: Unit, decoded: DecodedEvent = decoded, number: int = number) -> int:
            unit.set_cursor(STREAM, f'{{"replay_id":"{number}"}}', T0 + number)
            return sum(apply_events(context, unit, {"Contact": SPEC}, [decoded]).changes.values())

        assert session.run(work) == 1
    return pages_written(path)


def test_a_change_alone_writes_few_pages(replica: tuple[Session, Path]) -> None:
    """Of 1 KB each; the index by id adds one, of a few that take turns, however large the log."""
    written = applied_alone(*replica, "Birthdate", [f"{1980 + n // 28}-01-{n % 28 + 1:02d}" for n in range(CHANGES)])
    assert written.total() / CHANGES < MOST_PAGES, written


def test_a_change_of_words_alone_writes_hardly_more(replica: tuple[Session, Path]) -> None:
    """The text index is told of several at once."""
    written = applied_alone(*replica, "Phone", [f"+1 556 {n:07d}" for n in range(CHANGES)])
    assert written.total() / CHANGES < MOST_PAGES_WITH_WORDS, written
    assert {name for name in written if name.startswith("contact_search")} == {
        "contact_search_data",
        "contact_search_idx",
    }


def test_changes_of_a_job_share_the_pages_of_the_index_by_id(replica: tuple[Session, Path]) -> None:
    """However many records the log holds: what is new goes into the newest block."""
    session, path = replica
    connection = session._connection
    assert connection is not None
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    rng = random.Random(1)
    for _ in range(JOBS):
        told = [replace(change(object="Contact"), id=record_id(rng.randrange(CONTACTS))) for _ in range(JOB_CHANGES)]
        session.run(lambda unit, told=told: unit.append(told))  # type: ignore[misc]  # bound at once
    written = pages_written(path)
    assert 0 < written["change_id"] / (JOBS * JOB_CHANGES) < MOST_INDEX_PAGES_IN_A_JOB, written


def test_the_moment_of_its_publishing_does_not_write_a_change_again(replica: tuple[Session, Path]) -> None:
    """It is beside the log: five hundred changes of one moment take as many pages as one."""
    session, path = replica
    connection = session._connection
    assert connection is not None
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    session.run(lambda unit: unit.mark_published(500, T0))
    written = pages_written(path)
    assert written["change_published"] == 1
    assert written.total() <= MOST_PAGES_OF_A_MARK, written
