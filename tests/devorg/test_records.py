"""What transactions do to records and what they tell of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from connector.devorg.database import OrgDatabase
from connector.devorg.errors import OrgError
from connector.devorg.ids import is_id
from connector.devorg.objects.residents import FIRST_EDITOR_ID, QUEUE_ID
from tests.devorg.books import USER, Books


@pytest.fixture
def books() -> Iterator[Books]:
    made = Books()
    yield made
    made.database.close()


def test_several_writes_are_one_change(books: Books) -> None:
    """A record made and changed in one transaction is created once, with its final values."""
    with books.org.transaction(USER, "origin") as transaction:
        record_id = transaction.create("Contact", {"LastName": "A"})
        transaction.update("Contact", record_id, {"LastName": "B"})
    (commit,) = books.sink.commits
    (change,) = commit.changes
    assert (change.kind, change.before, change.after["Name"], commit.origin) == ("CREATE", None, "B", "origin")


def test_made_and_deleted_at_once_is_nothing(books: Books) -> None:
    """Neither a change nor an event comes of it."""
    with books.org.transaction(USER, "") as transaction:
        transaction.delete("Contact", transaction.create("Contact", {"LastName": "A"}))
    assert books.sink.commits == []
    assert books.org.ledger.entries() == []


def test_update_then_delete_is_a_delete(books: Books) -> None:
    """`before` is what the transaction found, `after` what it left."""
    record_id = books.create("Contact", LastName="A")
    with books.org.transaction(USER, "") as transaction:
        transaction.update("Contact", record_id, {"LastName": "B"})
        transaction.delete("Contact", record_id)
    (change,) = books.sink.commits[-1].changes
    assert change.before is not None
    assert (change.kind, change.before["LastName"], change.after["LastName"]) == ("DELETE", "A", "B")


def test_an_error_undoes_the_transaction(books: Books) -> None:
    """Nothing is stored, nothing is told, and the next transaction goes on."""
    record_id = ""

    def fail() -> None:
        nonlocal record_id
        with books.org.transaction(USER, "") as transaction:
            record_id = transaction.create("Contact", {"LastName": "A"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert books.org.get("Contact", record_id) is None
    assert books.sink.commits == []
    assert books.create("Contact", LastName="B") != record_id


def test_a_refused_write_leaves_the_others(books: Books) -> None:
    """Only the refused record is undone, with all that went with it."""
    account = books.create("Account", Name="Acme")
    locked = books.create("Contact", LastName="A", AccountId=account)
    books.org.rules.order("lock", {"id": locked})
    with books.org.transaction(USER, "") as transaction:
        with pytest.raises(OrgError, match="UNABLE_TO_LOCK_ROW"):
            transaction.delete("Account", account)  # fails at its second record
        transaction.create("Lead", {"LastName": "L", "Company": "C"})
    assert books.kinds() == [("Lead", "CREATE")]
    assert books.org.get("Account", account) is not None


def test_stamps_have_seconds_and_follow_the_clock(books: Books) -> None:
    """Created, modified and system stamps are cut to seconds; an update moves the last two and the modifier."""
    record_id = books.create("Contact", LastName="A")
    books.clock.advance(2.6)
    with books.org.transaction(FIRST_EDITOR_ID, "") as transaction:
        transaction.update("Contact", record_id, {"Phone": "1"})
    record = books.org.get("Contact", record_id)
    assert record is not None
    assert record["CreatedDate"] == "2026-01-01T12:00:00.000Z"
    assert record["LastModifiedDate"] == record["SystemModstamp"] == "2026-01-01T12:00:03.000Z"
    assert (record["CreatedById"], record["LastModifiedById"]) == (USER, FIRST_EDITOR_ID)


def test_the_clock_never_runs_backwards(books: Books) -> None:
    """Moved back, it stands still."""
    before = books.clock.now_ms()
    books.clock.advance(-3600)
    assert books.clock.now_ms() == before
    books.clock.advance(3601)
    assert books.clock.now_ms() == before + 1000


def test_held_transactions_are_seen_late(books: Books) -> None:
    """Stamps are those of the write, the commit is later; meanwhile nobody sees it and its records are locked."""
    old = books.create("Contact", LastName="Old")
    gone = books.create("Contact", LastName="Gone")
    with books.org.transaction(USER, "slow", hold=True) as transaction:
        new = transaction.create("Contact", {"LastName": "New"})
        transaction.update("Contact", old, {"LastName": "Changed"})
        transaction.delete("Contact", gone)
    assert books.org.oldest_open_ms() == books.clock.now_ms()
    assert books.org.get("Contact", new) is None
    books.clock.advance(90)
    with books.org.transaction(USER, "") as other:
        with pytest.raises(OrgError, match="UNABLE_TO_LOCK_ROW"):
            other.update("Contact", old, {"Phone": "1"})
        assert other.create("Contact", {"LastName": "Between"}) != new
    assert books.org.held() == [transaction.key]
    books.org.release(transaction.key)
    record = books.org.get("Contact", new)
    assert record is not None
    assert record["SystemModstamp"] == "2026-01-01T12:00:00.000Z"
    assert books.kinds() == [("Contact", "CREATE"), ("Contact", "UPDATE"), ("Contact", "DELETE")]
    commit = books.sink.commits[-1]
    assert (commit.commit_ms, commit.transaction_key, commit.origin) == (
        books.clock.now_ms(),
        transaction.key,
        "slow",
    )
    assert books.org.get("Contact", gone) is None
    assert books.org.oldest_open_ms() is None
    with books.org.transaction(USER, "") as other:
        other.update("Contact", old, {"Phone": "1"})


def test_abandoned_transactions_leave_nothing(books: Books) -> None:
    """Locks go, rows never come."""
    with books.org.transaction(USER, "", hold=True) as transaction:
        new = transaction.create("Contact", {"LastName": "New"})
    books.org.abandon(transaction.key)
    assert books.org.get("Contact", new) is None
    with pytest.raises(KeyError):
        books.org.release(transaction.key)


def test_one_transaction_at_a_time(books: Books) -> None:
    """A second one is a mistake of the program."""
    with books.org.transaction(USER, ""), pytest.raises(RuntimeError), books.org.transaction(USER, ""):
        pass


def test_silent_changes_give_no_event(books: Books) -> None:
    """A change made in the database directly is in the ledger only; a recalculation moves no stamp either."""
    record_id = books.create("Account", Name="Acme")
    books.clock.advance(5)
    with books.org.transaction(USER, "", announce=False) as transaction:
        transaction.update("Account", record_id, {"Phone": "1"})
    with books.org.transaction(USER, "") as transaction:
        transaction.recalculate("Account", record_id, {"AnnualRevenue": 7})
    assert len(books.sink.commits) == 1
    record = books.org.get("Account", record_id)
    assert record is not None
    assert (record["Phone"], record["AnnualRevenue"]) == ("1", 7.0)
    assert record["SystemModstamp"] == "2026-01-01T12:00:05.000Z"
    assert [entry.kind for entry in books.org.ledger.entries()] == ["CREATE", "UPDATE"]


def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Records, ids, commit numbers, clock and added fields survive; ids are not given twice."""
    first = Books(OrgDatabase(tmp_path / "org.db"))
    first.schema.add_field("Contact", {"name": "Key__c", "externalId": True})
    first.schema.add_object({"name": "Thing__c", "keyPrefix": "a01"})
    first.schema.select("Contact", "Thing__c")
    first.org.advance(100_000)
    one = first.create("Contact", LastName="A", Key__c="k")
    number, now_ms = first.sink.commits[-1].commit_number, first.clock.now_ms()
    first.database.close()
    second = Books(OrgDatabase(tmp_path / "org.db"))
    assert second.schema.selected == {"Contact", "Thing__c"}
    assert second.org.find("Contact", "Key__c", "K") == [one]
    assert second.clock.now_ms() >= now_ms
    assert second.create("Thing__c") != second.create("Contact", LastName="B") != one
    assert second.sink.commits[-1].commit_number > number
    second.database.close()


def test_residents_are_there(books: Books) -> None:
    """The users and the queue that references need; an inactive user cannot own."""
    user = books.org.get("User", USER)
    assert user is not None
    assert (user["Name"], user["IsActive"]) == ("Integration User", True)
    assert is_id(books.org.organization_id)
    assert books.org.get("Organization", books.org.organization_id) is not None
    lead = books.create("Lead", LastName="L", Company="C", OwnerId=QUEUE_ID)
    with books.org.transaction(USER, "") as transaction:
        transaction.update("User", FIRST_EDITOR_ID, {"IsActive": False})
        with pytest.raises(OrgError, match="INACTIVE_OWNER_OR_USER"):
            transaction.update("Lead", lead, {"OwnerId": FIRST_EDITOR_ID})


@pytest.mark.parametrize(
    ("stage", "probability", "category", "closed", "won"),
    [
        ("Prospecting", 10.0, "Pipeline", False, False),
        ("Closed Won", 100.0, "Closed", True, True),
        ("Closed Lost", 0.0, "Omitted", True, False),
        ("Nonsense", 0.0, "Pipeline", False, False),
    ],
)
def test_stages_bring_their_consequences(
    books: Books, *, stage: str, probability: float, category: str, closed: bool, won: bool
) -> None:
    """Probability, forecast, IsClosed and IsWon follow the stage; an unknown stage is taken all the same."""
    record_id = books.create("Opportunity", Name="O", StageName=stage, CloseDate="2026-05-31", Amount=250)
    record = books.org.get("Opportunity", record_id)
    assert record is not None
    assert (record["Probability"], record["ForecastCategoryName"]) == (probability, category)
    assert (record["IsClosed"], record["IsWon"]) == (closed, won)
    assert record["ExpectedRevenue"] == 250 * probability / 100
    assert (record["Fiscal"], record["FiscalQuarter"]) == ("2026 2", 2)


def test_a_written_probability_wins_over_the_stage(books: Books) -> None:
    """What the writer sends is not recalculated; the forecast's code follows its name."""
    record_id = books.create("Opportunity", Name="O", StageName="Prospecting", CloseDate="2026-01-01", Amount=10)
    books.clock.advance(60)
    values = {"StageName": "Qualification", "Probability": 33, "ForecastCategoryName": "Best Case"}
    with books.org.transaction(USER, "") as transaction:
        transaction.update("Opportunity", record_id, values)
    record = books.org.get("Opportunity", record_id)
    assert record is not None
    assert (record["Probability"], record["ExpectedRevenue"]) == (33.0, 3.3)
    assert (record["ForecastCategory"], record["ForecastCategoryName"]) == ("BestCase", "Best Case")
    assert record["LastStageChangeDate"] == record["LastModifiedDate"]


def test_automation_writes_along(books: Books) -> None:
    """A field update ordered by the administrator lands in the same change, under the writer's origin."""
    order = {
        "object": "Contact",
        "values": {"Department": "Sales"},
        "when": {"field": "Title", "test": "contains", "value": "Manager"},
    }
    books.org.rules.order("update", order)
    books.create("Contact", LastName="A", Title="Key Account Manager")
    (change,) = books.sink.commits[-1].changes
    assert change.after["Department"] == "Sales"


def test_parents_named_by_external_id(books: Books) -> None:
    """A relationship in place of a look-up's id finds the parent by its key."""
    books.schema.add_field("Account", {"name": "Key__c", "externalId": True})
    account = books.create("Account", Name="Acme", Key__c="k1")
    contact = books.create("Contact", LastName="A", Account={"Key__c": "K1"})
    assert (books.org.get("Contact", contact) or {})["AccountId"] == account
    for wrong in ({"Key__c": "k2"}, {"Phone": "1"}, {}, {"attributes": {"type": "Lead"}, "Key__c": "k1"}):
        with books.org.transaction(USER, "") as transaction, pytest.raises(OrgError, match="INVALID_FIELD"):
            transaction.create("Contact", {"LastName": "A", "Account": wrong})


def test_made_and_deleted_at_once_by_switch(books: Books) -> None:
    """What the documents leave open: such a record may tell of both."""
    books.org.options.insert_delete_events = True
    with books.org.transaction(USER, "") as transaction:
        transaction.delete("Contact", transaction.create("Contact", {"LastName": "A"}))
    assert books.kinds() == [("Contact", "CREATE"), ("Contact", "DELETE")]


def test_a_custom_record_without_a_name_is_named_by_its_id(books: Books) -> None:
    """As the real org does."""
    invoice = books.create("Invoice__c", Amount__c=12.5)
    assert (books.org.get("Invoice__c", invoice) or {})["Name"] == invoice
