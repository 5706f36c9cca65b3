"""`SFSync(remote=…)`: the same API over MQTT, from a place that has neither the replica nor the org."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connector import Contact, SFSync
from connector.client import remote as remote_module
from connector.errors import BrokerDown, CommandRejected, ConfigError, TransientError
from tests.broker import free_port
from tests.e2e.stack import Stack
from tests.e2e.waiting import until


def address(stack: Stack) -> str:
    return f"{stack.broker.host}:{stack.broker.port}"


def indexed(sync: SFSync) -> bool:
    """The text index is made after the load; until then a search is told to come back."""
    with contextlib.suppress(TransientError):
        return sync.contacts.count("x") >= 0
    return False


@pytest.fixture
def sync(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SFSync]:
    monkeypatch.chdir(tmp_path)  # no settings, no replica
    with SFSync(remote=address(stack)) as opened:
        yield opened


def test_reads_are_those_of_the_replica(stack: Stack, sync: SFSync, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, typed, by attribute."""
    monkeypatch.setattr("connector.client.records.PAGE", 5)
    in_org = stack.org.records("Contact")
    everybody = list(sync.contacts.all(order_by="last_name"))
    assert {c.id for c in everybody} == in_org.keys()
    assert [c.last_name for c in everybody] == sorted(r["LastName"] for r in in_org.values())
    someone = everybody[0]
    assert isinstance(someone, Contact)
    assert sync.contacts.get(str(someone.id)) == someone
    assert sync.contacts.get("0035f00002KmQ7aAAF") is None
    assert [c.id for c in sync.contacts.search(email=str(someone.email).upper())] == [someone.id]
    where = {"or": [{"email": someone.email}, {"Id": everybody[1].id}]}
    assert sync.contacts.count(where=where) == 2
    until(lambda: indexed(sync))
    assert sync.contacts.count(str(someone.email)) == 1
    assert sync.object("Account").all(limit=1).first() is not None
    assert sync.opportunities.count(amount=-1.0) == 0


def test_writes_are_commands(stack: Stack, sync: SFSync) -> None:
    """On disk at the daemon when they return, with the same result and the same refusals."""
    jane = Contact(first_name="Jane", last_name="Remote")
    made = sync.contacts.create(jane).wait(timeout=20)
    assert (made.status, jane.id) == ("succeeded", made.id)
    record_id = str(made.id)
    until(lambda: sync.contacts.get(record_id) is not None)
    read = sync.contacts.get(record_id)
    assert read is not None
    read.phone = "555-1234"
    pending = sync.contacts.update(read)
    shown = sync.contacts.get(record_id)
    assert shown is not None
    assert shown.phone == "555-1234"
    assert pending.wait(timeout=20).succeeded
    assert stack.org.records("Contact")[record_id]["Phone"] == "555-1234"
    read.phone = "555-9999"
    assert sync.contacts.update(read).wait(timeout=20).succeeded
    with pytest.raises(CommandRejected) as refused:
        sync.contacts.create(first_name="x" * 41)
    assert {p.partition(":")[0] for p in refused.value.problems} == {"fields.FirstName", "fields.LastName"}
    assert sync.contacts.delete(record_id).wait(timeout=20).succeeded
    assert record_id not in stack.org.records("Contact")
    repeated = sync.contacts.create(last_name="Once", command_id="remote-1").wait(timeout=20)
    assert sync.contacts.create(last_name="Once", command_id="remote-1").wait(timeout=20) == repeated
    assert sync.contacts.pending("remote-1").result == repeated
    stack.settled()


def test_history(stack: Stack, sync: SFSync) -> None:
    """The same as beside the file."""
    someone, before = next(iter(stack.org.records("Lead").items()))
    for number in range(3):
        since = stack.watcher.mark()
        stack.org.update("Lead", someone, Company=f"H{number}")
        stack.until_change(someone, since=since)
    history = sync.leads.history(someone)
    assert [r.after["company"] for r in history] == ["H2", "H1", "H0"]
    assert history[0].user is not None
    then = history.at("2020-01-01T00:00:00Z"), history.at(history[0].at)
    assert [state.company for state in then if state is not None] == [before["Company"], "H2"]
    with SFSync(stack.daemon.settings) as local:
        assert list(local.leads.history(someone)) == list(history)
        assert list(local.leads.history(someone, limit=2)) == list(sync.leads.history(someone, limit=2))


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda sync: sync.contacts.search(nope="x"), ValueError, "Contact has no synced field 'nope'"),
        (lambda sync: sync.contacts.count(where={"email": {"gt": 5}}), ValueError, "Email: expected a text"),
        (lambda sync: sync.object("Task").count(), ValueError, "'Task' is not a synced object; these are: Account"),
        (lambda sync: sync.leads.get("0035f00002KmQ7aAAF"), ValueError, "begins with 003"),
        (lambda sync: sync.leads.pending("nope").result, LookupError, "nope"),
        (lambda sync: sync.sql("SELECT 1"), ValueError, "not available in remote mode"),
    ],
)
def test_mistakes_are_named(sync: SFSync, ask: object, error: type[Exception], says: str) -> None:
    """As beside the file."""
    assert callable(ask)
    with pytest.raises(error, match=says):
        ask(sync)


def test_threads_share_one(sync: SFSync) -> None:
    """Each gets its own answers."""
    ids = [str(c.id) for c in sync.contacts.all()]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda i: getattr(sync.contacts.get(i), "id", None), ids * 4))
    assert found == ids * 4


def test_the_broker_and_the_daemon_come_back(stack: Stack, sync: SFSync, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there is an error that says so; then it goes on by itself."""
    assert sync.contacts.count() > 0
    monkeypatch.setattr(remote_module, "REPLY_TIMEOUT_S", 0.5)
    assert stack.daemon.stop() == 0
    with pytest.raises(BrokerDown, match="does the daemon run"):
        sync.contacts.count()
    with pytest.raises(BrokerDown, match="repeat it with this command_id"):
        sync.contacts.create(last_name="Nobody there", command_id="remote-away")
    stack.start()
    monkeypatch.setattr(remote_module, "REPLY_TIMEOUT_S", 10.0)
    assert sync.contacts.create(last_name="Nobody there", command_id="remote-away").wait(timeout=20).succeeded
    assert sum(r["LastName"] == "Nobody there" for r in stack.org.records("Contact").values()) == 1
    stack.settled()


def test_an_address_that_cannot_work() -> None:
    """Named at once where it is malformed, with the first question where nobody answers."""
    for wrong in (":1883", "host:port"):
        with pytest.raises(ConfigError, match="remote"):
            SFSync(remote=wrong)
    with SFSync(remote=f"127.0.0.1:{free_port()}") as sync, pytest.raises(BrokerDown, match="no MQTT broker answers"):
        sync.contacts.count()
