"""`SFSync` beside a daemon at work, and without one: writes are queued on disk, sent, and answered."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from connector import Contact, Lead, SFSync
from connector.errors import CommandRejected
from tests.e2e.load import keyed
from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT


def settled(stack: Stack, sync: SFSync) -> None:
    """The stack looks with another SQLite library, which in this process would undo the client's file locks."""
    sync.close()
    stack.settled()


@pytest.fixture
def sync(stack: Stack) -> Iterator[SFSync]:
    with SFSync(stack.daemon.settings) as opened:
        yield opened


def test_create_update_delete(stack: Stack, sync: SFSync) -> None:
    """Each is in the org when `wait` returns, and in what is read from then on."""
    jane = Contact(first_name="Jane", last_name="Doe", email="jane@example.com")
    created = sync.contacts.create(jane).wait(timeout=20)
    assert (created.status, created["operation"], created.errors) == ("succeeded", "create", [])
    assert jane.id == created.id
    assert created.id is not None
    assert stack.org.records("Contact")[created.id]["Email"] == "jane@example.com"

    read = sync.contacts.get(created.id)
    assert read is not None
    assert (read.last_name, read.email) == ("Doe", "jane@example.com")
    read.phone = "555-1234"
    pending = sync.contacts.update(read)
    shown = sync.contacts.get(created.id)
    assert shown is not None
    assert shown.phone == "555-1234"
    assert pending.wait(timeout=20).succeeded
    assert stack.org.records("Contact")[created.id]["Phone"] == "555-1234"
    again = sync.contacts.get(created.id)
    assert again is not None
    assert again.phone == "555-1234"

    assert sync.contacts.delete(again).wait(timeout=20).succeeded
    assert created.id not in stack.org.records("Contact")
    assert sync.contacts.get(created.id) is None
    settled(stack, sync)


def test_upsert_makes_the_record_and_then_finds_it(make_stack: MakeStack) -> None:
    """By an external id that need not be synced; the record learns its id, and a wrong field is told at once."""
    stack = keyed(make_stack)
    with SFSync(stack.daemon.settings) as sync:
        first = Contact(last_name="Upsert", phone="1")
        made = sync.contacts.upsert("Key__c", "client-1", first).wait(timeout=20)
        assert (made.status, made["operation"], first.id) == ("succeeded", "upsert", made.id)
        found = sync.contacts.upsert("Key__c", "client-1", last_name="Upsert", phone="2").wait(timeout=20)
        assert (found.status, found.id) == ("succeeded", made.id)
        assert made.id is not None
        assert stack.org.records("Contact")[made.id]["Phone"] == "2"
        with pytest.raises(CommandRejected, match=r"external_id\.field: Contact has no such external id field"):
            sync.contacts.upsert("phone", "client-1", last_name="Upsert")
        settled(stack, sync)


def test_edits_in_a_row_do_not_conflict_with_one_another(stack: Stack, sync: SFSync) -> None:
    """Of one object, and of one read meanwhile; the last one stands."""
    someone = next(iter(sync.leads.all()))
    for number in range(3):
        someone.company = f"Company {number}"
        last = sync.leads.update(someone)
    fresh = sync.leads.get(str(someone.id))
    assert fresh is not None
    assert fresh.company == "Company 2"
    fresh.company = "Company 3"
    results = [last.wait(timeout=20), sync.leads.update(fresh).wait(timeout=20)]
    assert [r.status for r in results] == ["succeeded", "succeeded"]
    assert stack.org.records("Lead")[str(someone.id)]["Company"] == "Company 3"
    settled(stack, sync)


def test_what_somebody_else_changed_is_a_conflict(stack: Stack, sync: SFSync) -> None:
    """Since the record was read; other fields are merged."""
    settled(stack, sync)
    someone = next(iter(sync.contacts.all(order_by="last_name desc")))
    record_id = str(someone.id)
    since = stack.watcher.mark()
    stack.org.update("Contact", record_id, LastName="Theirs", FirstName="Them")
    stack.until_change(record_id, since=since)
    someone.last_name = "Ours"
    refused = sync.contacts.update(someone).wait(timeout=20)
    assert (refused.status, set(refused.conflict or {})) == ("conflict", {"LastName"})
    assert (refused.conflict or {})["LastName"]["remote"] == "Theirs"
    current = sync.contacts.get(record_id)
    assert current is not None
    assert current.last_name == "Theirs"
    current.phone = "1"
    assert sync.contacts.update(current).wait(timeout=20).succeeded
    forced = sync.contacts.update(record_id, last_name="Ours", on_conflict="overwrite").wait(timeout=20)
    assert forced.succeeded
    settled(stack, sync)


def test_what_the_org_refuses_is_told(stack: Stack, sync: SFSync) -> None:
    """With its own errors; the edit is no longer shown."""
    someone = next(iter(sync.contacts.all()))
    gone = sync.contacts.create(last_name="Short-lived").wait(timeout=20).id
    assert gone is not None
    stack.org.delete("Contact", gone)
    stack.until_change(gone, "delete")
    refused = sync.contacts.update(gone, phone="1").wait(timeout=20)
    assert refused.status == "failed"
    assert refused.errors[0]["code"] == "ENTITY_IS_DELETED"
    assert sync.contacts.get(gone) is None
    assert someone.meta.pending == ()
    settled(stack, sync)


def test_mistakes_are_named_at_once(sync: SFSync, stack: Stack) -> None:
    """Every wrong field, and nothing is queued."""
    before = stack.replica.value("SELECT count(*) FROM command")
    with pytest.raises(CommandRejected) as refused:
        sync.contacts.create(Contact(first_name="x" * 41, email="nonsense"))
    assert {p.partition(":")[0] for p in refused.value.problems} == {
        "fields.FirstName",
        "fields.LastName",
        "fields.Email",
    }
    with pytest.raises(CommandRejected, match="begins with 003"):
        sync.leads.delete(next(str(c.id) for c in sync.contacts.all()))
    with pytest.raises(ValueError, match="no synced field 'nope'"):
        sync.contacts.create(last_name="x", nope=1)
    with pytest.raises(ValueError, match="nothing was changed"):
        sync.contacts.update(next(iter(sync.contacts.all())))
    with pytest.raises(ValueError, match="not in the org yet"):
        sync.contacts.update(Contact(last_name="x"))
    with pytest.raises(CommandRejected, match=r"fields\.Name: the org does not let us set it"):
        sync.contacts.create(last_name="x", name="derived")
    with pytest.raises(TypeError, match="phone"):
        sync.contacts.delete("0035f00002KmQ7aAAF", phone="1")
    sync.close()
    assert stack.replica.value("SELECT count(*) FROM command") == before


def test_a_command_id_is_executed_once(sync: SFSync, stack: Stack) -> None:
    """Whoever repeats it gets the first one's result."""
    first = sync.leads.create(Lead(last_name="Once", company="X"), command_id="py-1").wait(timeout=20)
    second = sync.leads.create(Lead(last_name="Once", company="X"), command_id="py-1").wait(timeout=20)
    assert first == second
    assert sum(r["LastName"] == "Once" for r in stack.org.records("Lead").values()) == 1
    assert sync.leads.pending("py-1").result == first
    with pytest.raises(LookupError, match="py-2"):
        _ = sync.leads.pending("py-2").result
    # Others hear of it as of any command.
    assert stack.watcher.until(f"{ROOT}/result/py-1", lambda m: m.json["status"] == "succeeded").json["id"] == first.id


def test_threads_share_one(sync: SFSync, stack: Stack) -> None:
    """A web service has many."""

    def work(number: int) -> str:
        made = sync.contacts.create(last_name=f"Thread {number}").wait(timeout=30)
        assert sync.contacts.get(str(made.id)) is not None
        return made.status

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(12))) == {"succeeded"}
    assert sync.contacts.count(last_name="Thread") <= 12
    settled(stack, sync)
    assert sync.contacts.count(last_name="Thread") == 12


def test_without_a_daemon_it_waits_for_the_next_start(stack: Stack, sync: SFSync) -> None:
    """Queued on disk, visible to readers, and sent then."""
    settled(stack, sync)
    assert stack.daemon.stop() == 0
    someone = next(iter(sync.contacts.all()))
    someone.phone = "while away"
    pending = sync.contacts.update(someone)
    assert pending.result.status == "accepted"
    with pytest.raises(TimeoutError, match="does the daemon run"):
        pending.wait(timeout=0.1)
    shown = sync.contacts.get(str(someone.id))
    assert shown is not None
    assert (shown.phone, shown.meta.pending) == ("while away", (pending.command_id,))
    sync.close()
    stack.start()
    assert pending.wait(timeout=20).succeeded
    until(lambda: stack.org.records("Contact")[str(someone.id)]["Phone"] == "while away")
    settled(stack, sync)
