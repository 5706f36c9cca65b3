"""The first load, as a subscriber and a reader of the file see it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.making import MakeStack
from tests.e2e.org import OrgAdmin, creation
from tests.e2e.stack import OBJECTS, Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT, SIGNALS

SLOW_S = 0.2


def test_nothing_is_published_but_the_signal_of_each_object(stack: Stack) -> None:
    """A first load ends with `sync_complete`, word for word, and publishes no change: rows are version 0."""
    for name in OBJECTS:
        stack.watcher.until_signal("sync_complete", kind="first_load", objects=[name])
    messages = [m for m in stack.watcher.messages(SIGNALS) if m.json["signal"] == "sync_complete"]
    assert len(messages) == len(OBJECTS)
    signal = messages[0].json
    data = signal["data"]
    assert {**signal, "ts": "", "data": {}} == {
        "ts": "",
        "signal": "sync_complete",
        "from": "FND",
        "to": "OS",
        "msg": "sync_complete",
        "text": "✔️ FND → OS : sync_complete",
        "data": {},
    }
    assert set(data) == {"kind", "objects", "records", "duration_s", "api_calls"}
    assert (data["kind"], data["objects"], data["records"]) == ("first_load", ["Contact"], 12)
    assert data["api_calls"] >= 1
    assert not stack.watcher.messages(f"{ROOT}/change/#")
    assert stack.compare() == []
    assert {row["_version"] for name in OBJECTS for row in stack.replica.records(name).values()} == {0}
    assert stack.replica.last_version() == 0


def test_another_start_loads_nothing_again(stack: Stack) -> None:
    """What is loaded stays loaded: a second start catches up with a query, and says so."""
    since = stack.watcher.mark()
    stack.restart()
    signal = stack.watcher.until_signal("sync_complete", since, kind="catch_up")
    assert sorted(signal["data"]["objects"]) == sorted(OBJECTS)
    assert signal["data"]["records"] == 0
    assert not stack.daemon.events("load.started")
    assert not stack.watcher.messages(f"{ROOT}/change/#")


@pytest.mark.parametrize("way", ["rest", "bulk"])
def test_edits_during_the_load_are_not_lost(make_stack: MakeStack, way: str) -> None:
    """The stream is subscribed before the load begins, so that what happens meanwhile is in neither gap nor twice."""
    settings = {"sync": {"bulk_threshold": 1_000_000 if way == "rest" else 1}}
    stack = make_stack(settings, seed={"contacts": 2100, "leads": 50})
    stack.org.set(bulk_job_s=2 * SLOW_S, delivered_event_limit=10_000_000)
    stack.org.fault("rest", path="/query", delay_s=SLOW_S, count=None)
    with editing(stack.told["url"]) as edits:
        stack.start()
        until(lambda: len(edits) > 0)
    stack.org.no_faults()
    subscribed, loads = stack.daemon.events("stream.subscribed"), stack.daemon.events("load.started")
    assert subscribed[0]["timestamp"] < min(load["timestamp"] for load in loads)
    assert {load["via"] for load in loads if load["records"] > 1} == {way}
    folded = stack.settled()
    assert len(folded.data) > 0, "nobody edited anything during the load"


def test_a_load_goes_on_where_a_kill_stopped_it(make_stack: MakeStack) -> None:
    """SIGKILL in the middle of a load: the next start reads the rest, not everything again."""
    stack = make_stack({"sync": {"objects": ["Contact"]}}, seed={"contacts": 2600}, objects=("Contact",))
    slow = stack.org.fault("rest", path="Id%20%3E|Id%3E|Id\\+%3E", delay_s=3, count=None)
    stack.daemon.launch()
    until(stack.replica.path.exists)
    stack.daemon.until_logged("load.started")
    until(lambda: stack.replica.value("SELECT count(*) FROM contact") > 0)
    stack.daemon.kill()
    held = stack.replica.value("SELECT count(*) FROM contact")
    assert 0 < held < 2600
    stack.org.call("DELETE", f"/faults/{slow}", {})
    stack.org.delete("Contact", min(stack.replica.records("Contact")))  # one of those that were read already
    stack.start()
    assert not stack.daemon.events("load.started"), "the load began anew"
    stack.daemon.until_logged("load.finished")
    assert stack.daemon.events("load.finished")[0]["records"] == 2600
    stack.settled()


def test_a_bulk_load_goes_on_where_a_kill_stopped_it(make_stack: MakeStack) -> None:
    """The same while the org works on the job: the job is taken up again, no second one is made."""
    stack = make_stack(
        {"sync": {"objects": ["Contact"], "bulk_threshold": 1}}, seed={"contacts": 50}, objects=("Contact",)
    )
    stack.org.set(bulk_job_s=1.5)
    stack.daemon.launch()
    until(lambda: stack.replica.path.exists() and '"job":"' in str(load_state(stack)))
    stack.daemon.kill()
    contact = next(iter(stack.org.records("Contact")))
    stack.org.update("Contact", contact, Phone="while it was away")
    stack.start()
    stack.settled()
    made = [n for path, n in stack.org.usage()["calls"].items() if path.endswith("/jobs/query")]
    assert sum(made) == 1, stack.org.usage()["calls"]


def test_backfill_is_published_if_asked_for(make_stack: MakeStack) -> None:
    """With `sync.publish_backfill` every record of the load is a change of its own, `create` from `backfill`."""
    stack = make_stack({"sync": {"publish_backfill": True}})
    stack.start()
    folded = stack.settled()
    assert {(d["operation"], d["origin"], d["commit"]) for d in folded.data.values()} == {("create", "backfill", None)}
    assert len(folded.data) == sum(len(stack.org.records(name)) for name in OBJECTS)


def load_state(stack: Stack) -> str | None:
    """The cursor of the contacts' load."""
    if not stack.replica.rows("SELECT 1 FROM sqlite_schema WHERE name = 'cursor'"):
        return None
    rows = stack.replica.rows("SELECT value FROM cursor WHERE name = 'load:Contact'")
    return rows[0]["value"] if rows else None


@contextmanager
def editing(url: str) -> Iterator[list[str]]:
    """People who edit, create, delete and bring back contacts and leads until told to stop."""
    stop = threading.Event()
    edits: list[str] = []

    def work() -> None:
        with OrgAdmin(url) as org:
            ids = {name: list(org.records(name)) for name in ("Contact", "Lead")}
            number = 0
            while not stop.wait(0.005):
                number += 1
                name = ("Contact", "Lead")[number % 2]
                # Early and late ids in turn: those that a page has passed and those that are still to come.
                record_id = ids[name][(number * 977) % len(ids[name])]
                org.update(name, record_id, FirstName=f"Edit {number}")
                if number % 7 == 0:
                    org.change(creation(name), {"op": "delete", "object": name, "id": record_id})
                if number % 14 == 0:
                    org.undelete(name, record_id)
                elif number % 7 == 0:
                    ids[name].remove(record_id)
                edits.append(record_id)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield edits
    finally:
        stop.set()
        worker.join()
