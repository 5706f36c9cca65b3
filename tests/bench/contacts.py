"""A million contacts: what they are, and how they get into a replica."""

import random
from dataclasses import replace
from pathlib import Path

from connector.inbound.catalog import stored_spec
from connector.model.ids import RecordId, to_record_id
from connector.model.objects import ObjectSpec
from connector.model.record import StoredRecord
from connector.ports import Unit
from connector.store import Session

CONTACTS = 1_000_000
_BATCH = 5000
_NOW_MS = 1_795_368_400_000
_FIRST = ("Anna", "Björn", "Chloé", "Dmitri", "Elif", "Farid", "Grace", "Hiro", "Inès", "João", "Kofi", "Lena")
_SYLLABLES = ("ba", "cor", "den", "fal", "gri", "hol", "ker", "lun", "mar", "nes", "pol", "rin", "sta", "tov", "wen")


def fill(path: Path, count: int = CONTACTS) -> None:
    """Put so many contacts into the replica of a stopped daemon, with its indexes."""
    rng = random.Random(1)
    with Session(path) as session:
        spec = session.run(lambda unit: stored_spec(unit, "Contact"))
        assert spec is not None
        for start in range(0, count, _BATCH):
            rows = [_contact(spec, number, rng) for number in range(start, min(start + _BATCH, count))]
            session.run(lambda unit, rows=rows: unit.put(spec, rows))  # type: ignore[misc]  # bound at once
        while session.run(_indexed):
            pass


def some_id(rng: random.Random) -> RecordId:
    """Of one of them."""
    return _id(rng.randrange(CONTACTS))


def spread_ids(count: int, chosen: int) -> list[RecordId]:
    """So many ids, evenly out of those of the first `count` contacts."""
    return [_id(number * count // chosen) for number in range(chosen)]


def some_addresses(rng: random.Random) -> list[str]:
    """Three that somebody might have; of 3,375 last names one fits each number."""
    return [f"{_last(rng)}.{rng.randrange(CONTACTS)}@example.com".lower() for _ in range(3)]


def some_words(rng: random.Random) -> str:
    """A name, a name with the beginning of another, a beginning that many have: what people type."""
    last = _last(rng)
    return rng.choice((last, f"{rng.choice(_FIRST)[:3]} {last}", last[:5], rng.choice(_FIRST)))


def _indexed(unit: Unit) -> bool:
    return unit.extend_indexes("Contact", _BATCH)


def _contact(spec: ObjectSpec, number: int, rng: random.Random) -> StoredRecord:
    first, last = rng.choice(_FIRST), _last(rng)
    values = {
        "FirstName": first,
        "LastName": last,
        "Name": f"{first} {last}",
        "Email": f"{last}.{number}@example.com".lower(),
        "Phone": f"+1 555 {number:07d}",
    }
    blank = dict.fromkeys(field.name for field in spec.fields)
    row = StoredRecord(id=_id(number), values=blank, version=0, synced_ms=_NOW_MS, deleted_ms=None, modified_ms=_NOW_MS)
    return replace(row, values={name: values.get(name) for name in blank})


def _last(rng: random.Random) -> str:
    return "".join(rng.choices(_SYLLABLES, k=3)).capitalize()


def _id(number: int) -> RecordId:
    return to_record_id(f"003bn{number:010d}")
