"""Reading a replica of a million contacts while events come in: in this process, and over MQTT from the daemon.

The rows are put into the replica's file by the store itself: loading them from a local org would measure that org.
Everything that is asked is answered by the product as it runs, which applies and publishes a hundred events a second
meanwhile.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from connector.client import SFSync
from connector.inbound.catalog import stored_spec
from connector.model.ids import RecordId, to_record_id
from connector.model.objects import ObjectSpec
from connector.model.record import StoredRecord
from connector.ports import Unit
from connector.store import Session
from tests.bench.harness import Figure, percentile
from tests.e2e.org import OrgAdmin
from tests.e2e.stack import Stack

CONTACTS = 1_000_000
EVENTS_PER_S = 100
_TRANSACTIONS_PER_S = 10
_ASKED = {"get": 2000, "where": 500, "text": 500}
_BATCH = 5000
_NOW_MS = 1_795_368_400_000
_FIRST = ("Anna", "Björn", "Chloé", "Dmitri", "Elif", "Farid", "Grace", "Hiro", "Inès", "João", "Kofi", "Lena")
_SYLLABLES = ("ba", "cor", "den", "fal", "gri", "hol", "ker", "lun", "mar", "nes", "pol", "rin", "sta", "tov", "wen")


def reads(stack: Stack) -> list[Figure]:
    """Times of single reads, one after the other."""
    ids = fill(stack.replica.path)
    stack.start()
    with edits(stack) as made, SFSync(stack.daemon.settings) as here:
        far = SFSync(remote=f"{stack.broker.host}:{stack.broker.port}")
        with far:
            before, began_s = stack.replica.last_version(), time.monotonic()
            figures = [
                *_times("in process", here, ids, {"get": 2.0, "where": 50.0, "text": 50.0}),
                *_times("over MQTT", far, ids, {"get": 10.0, "where": 50.0, "text": 50.0}),
            ]
            took_s = time.monotonic() - began_s
            rate = (stack.replica.last_version() - before) / took_s
    assert made, "nothing was edited"
    return [*figures, Figure(name="changes a second meanwhile", value=rate, unit="/s", target=EVENTS_PER_S * 0.9)]


def fill(path: Path) -> list[str]:
    """Put the contacts into the replica of a stopped daemon, with its indexes; their ids."""
    rng = random.Random(1)
    with Session(path) as session:
        spec = session.run(lambda unit: stored_spec(unit, "Contact"))
        assert spec is not None
        ids: list[str] = []
        for start in range(0, CONTACTS, _BATCH):
            rows = [_contact(spec, number, rng) for number in range(start, start + _BATCH)]
            session.run(lambda unit, rows=rows: unit.put(spec, rows))  # type: ignore[misc]  # bound at once
            ids += [row.id for row in rows]
        while session.run(_indexed):
            pass
    return ids


def _indexed(unit: Unit) -> bool:
    return unit.extend_indexes("Contact", _BATCH)


def _contact(spec: ObjectSpec, number: int, rng: random.Random) -> StoredRecord:
    first = rng.choice(_FIRST)
    last = "".join(rng.choices(_SYLLABLES, k=3)).capitalize()
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


def _id(number: int) -> RecordId:
    return to_record_id(f"003bn{number:010d}")


@contextmanager
def edits(stack: Stack) -> Iterator[list[int]]:
    """So many events a second, in transactions of ten records; yields how many there were."""
    stop, made = threading.Event(), [0]
    ids = sorted(stack.org.records("Contact"))
    thread = threading.Thread(target=_edit, args=(stack.told["url"], ids, stop, made))
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()


def _edit(url: str, ids: list[str], stop: threading.Event, made: list[int]) -> None:
    size, due_s = EVENTS_PER_S // _TRANSACTIONS_PER_S, time.monotonic()
    with OrgAdmin(url) as org:
        while not stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += 1 / _TRANSACTIONS_PER_S
            chosen = [ids[(made[0] + at) % len(ids)] for at in range(size)]
            org.change(
                *({"op": "update", "object": "Contact", "id": i, "values": {"Phone": str(made[0])}} for i in chosen)
            )
            made[0] += size


def _times(where: str, sync: SFSync, ids: list[str], targets: dict[str, float]) -> Iterator[Figure]:
    rng = random.Random(2)
    asks: dict[str, Callable[[], bool]] = {
        "get": lambda: sync.contacts.get(rng.choice(ids)) is not None,
        "where": lambda: _by_email(sync, rng),
        "text": lambda: _by_text(sync, rng),
    }
    for name, ask in asks.items():
        ask()  # opens what is opened once
        taken_ms = [_taken_ms(ask) for _ in range(_ASKED[name])]
        for part, target in ((0.5, None), (0.99, targets[name])):
            yield Figure(
                name=f"{name} {where}, p{part * 100:.0f}",
                value=percentile(taken_ms, part),
                unit="ms",
                better="less",
                target=target,
            )


def _taken_ms(ask: Callable[[], bool]) -> float:
    began_s = time.perf_counter()
    found = ask()
    taken_s = time.perf_counter() - began_s
    assert found, "what is there was not found"
    return taken_s * 1000


def _by_email(sync: SFSync, rng: random.Random) -> bool:
    some = [f"{rng.choice(_SYLLABLES)}.{rng.randrange(CONTACTS)}@example.com" for _ in range(3)]
    list(sync.contacts.search(where={"email": {"in": some}}, limit=20))
    return True


def _by_text(sync: SFSync, rng: random.Random) -> bool:
    """A name, a name with the beginning of another, a beginning that many have: what people type."""
    last = "".join(rng.choices(_SYLLABLES, k=3))
    text = rng.choice((last, f"{rng.choice(_FIRST)[:3]} {last}", last[:5], rng.choice(_FIRST)))
    list(sync.contacts.search(text, limit=20))
    return True
