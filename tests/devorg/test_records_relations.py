"""Deleting, bringing back, removing for good, merging and converting, with what goes along."""

from collections.abc import Iterator

import pytest

from connector.devorg.errors import OrgError
from connector.devorg.records.org import RECYCLE_BIN_MS, Record
from tests.devorg.books import USER, Books


@pytest.fixture
def books() -> Iterator[Books]:
    made = Books()
    yield made
    made.database.close()


def read(books: Books, object_name: str, record_id: str) -> Record:
    found = books.org.get(object_name, record_id, include_deleted=True)
    assert found is not None
    return found


def family(books: Books) -> dict[str, str]:
    """An account with a contact that has an invoice, an opportunity, and a daughter company."""
    account = books.create("Account", Name="Acme")
    contact = books.create("Contact", LastName="A", AccountId=account)
    return {
        "Account": account,
        "Contact": contact,
        "Opportunity": books.create(
            "Opportunity", Name="O", StageName="Prospecting", CloseDate="2026-01-01", AccountId=account
        ),
        "Invoice__c": books.create("Invoice__c", Name="I-1", Contact__c=contact),
        "Daughter": books.create("Account", Name="Daughter", ParentId=account),
    }


def test_delete_takes_children_along_and_clears_look_ups(books: Books) -> None:
    """Contacts and opportunities go with their account; other look-ups become null, by an update."""
    ids = family(books)
    with books.org.transaction(USER, "") as transaction:
        transaction.delete("Account", ids["Account"])
    assert sorted(books.kinds()) == [
        ("Account", "DELETE"),
        ("Account", "UPDATE"),
        ("Contact", "DELETE"),
        ("Invoice__c", "UPDATE"),
        ("Opportunity", "DELETE"),
    ]
    assert books.kinds()[0] == ("Account", "DELETE")
    assert read(books, "Account", ids["Daughter"])["ParentId"] is None
    assert read(books, "Invoice__c", ids["Invoice__c"])["Contact__c"] is None


def test_undelete_brings_back_what_went_along(books: Books) -> None:
    """Children deleted with the record return with it, those deleted before do not."""
    ids = family(books)
    with books.org.transaction(USER, "") as transaction:
        transaction.delete("Opportunity", ids["Opportunity"])
    with books.org.transaction(USER, "") as transaction:
        transaction.delete("Account", ids["Account"])
    books.clock.advance(10)
    with books.org.transaction(USER, "") as transaction:
        transaction.undelete("Account", ids["Account"])
    assert books.kinds() == [("Account", "UNDELETE"), ("Contact", "UNDELETE")]
    assert read(books, "Account", ids["Account"])["SystemModstamp"] == "2026-01-01T12:00:10.000Z"
    assert read(books, "Opportunity", ids["Opportunity"])["IsDeleted"] is True
    with books.org.transaction(USER, "") as transaction, pytest.raises(OrgError, match="UNDELETE_FAILED"):
        transaction.undelete("Account", ids["Account"])


def test_purge_has_no_event(books: Books) -> None:
    """Out of the recycle bin or past it: the rows are gone, the ledger knows, the bus does not."""
    first, second = (books.create("Contact", LastName=name) for name in "AB")
    with books.org.transaction(USER, "") as transaction:
        transaction.delete("Contact", first)
    told = len(books.sink.commits)
    with books.org.transaction(USER, "") as transaction:
        transaction.purge("Contact", first)
        transaction.purge("Contact", second)
        with pytest.raises(OrgError, match="INVALID_CROSS_REFERENCE_KEY"):
            transaction.purge("Contact", second)
    assert len(books.sink.commits) == told
    assert books.org.get("Contact", second, include_deleted=True) is None
    assert [entry.kind for entry in books.org.ledger.entries()[-2:]] == ["PURGE", "PURGE"]


def test_purge_of_a_live_parent_takes_children_along(books: Books) -> None:
    """A hard delete cascades as a delete does, and clears look-ups."""
    ids = family(books)
    with books.org.transaction(USER, "") as transaction:
        transaction.purge("Account", ids["Account"])
    assert books.org.get("Contact", ids["Contact"], include_deleted=True) is None
    assert sorted(books.kinds()) == [("Account", "UPDATE"), ("Invoice__c", "UPDATE")]


def test_the_recycle_bin_empties_after_fifteen_days(books: Books) -> None:
    """Time alone removes a deleted record, without an event."""
    record_id = books.create("Contact", LastName="A")
    with books.org.transaction(USER, "") as transaction:
        transaction.delete("Contact", record_id)
    books.org.advance(RECYCLE_BIN_MS / 1000 - 60)
    assert books.org.get("Contact", record_id, include_deleted=True) is not None
    books.org.advance(7200)
    assert books.org.get("Contact", record_id, include_deleted=True) is None


def test_merge(books: Books) -> None:
    """Losers are deleted and name their master, children move, values land on the winner; no way back."""
    winner, loser = (books.create("Account", Name=name) for name in ("Acme", "Acme Ltd"))
    child = books.create("Contact", LastName="A", AccountId=loser)
    with books.org.transaction(USER, "") as transaction:
        transaction.merge("Account", winner, [loser], {"Phone": "1"})
    assert books.kinds() == [("Account", "UPDATE"), ("Contact", "UPDATE"), ("Account", "DELETE")]
    assert read(books, "Contact", child)["AccountId"] == winner
    assert read(books, "Account", winner)["Phone"] == "1"
    assert read(books, "Account", loser)["MasterRecordId"] == winner
    with books.org.transaction(USER, "") as transaction:
        with pytest.raises(OrgError, match="UNDELETE_FAILED"):
            transaction.undelete("Account", loser)
        with pytest.raises(OrgError, match="ENTITY_IS_DELETED"):
            transaction.merge("Account", winner, [loser])
        with pytest.raises(OrgError, match="INVALID_OPERATION"):
            transaction.merge("Account", winner, [winner])
        with pytest.raises(OrgError, match="INVALID_TYPE_FOR_OPERATION"):
            transaction.merge("Opportunity", winner, [loser])


def test_lead_conversion(books: Books) -> None:
    """Account, contact and opportunity are made in this order, then the lead is closed; it stays as it is."""
    lead = books.create("Lead", LastName="L", FirstName="Ada", Company="Acme", Email="a@b.example")
    with books.org.transaction(USER, "") as transaction:
        converted = transaction.convert_lead(lead)
    assert books.kinds() == [
        ("Account", "CREATE"),
        ("Contact", "CREATE"),
        ("Opportunity", "CREATE"),
        ("Lead", "UPDATE"),
    ]
    record = read(books, "Lead", lead)
    assert (record["Status"], record["IsConverted"]) == ("Closed - Converted", True)
    assert (record["ConvertedDate"], record["ConvertedAccountId"]) == ("2026-01-01", converted.account_id)
    contact = read(books, "Contact", converted.contact_id)
    assert (contact["Name"], contact["AccountId"]) == ("Ada L", converted.account_id)
    opportunity = read(books, "Opportunity", str(converted.opportunity_id))
    assert (opportunity["Name"], opportunity["CloseDate"]) == ("Acme-", "2026-03-31")
    with books.org.transaction(USER, "") as transaction:
        for work in (
            lambda: transaction.update("Lead", lead, {"Phone": "1"}),
            lambda: transaction.convert_lead(lead),
        ):
            with pytest.raises(OrgError, match="CANNOT_UPDATE_CONVERTED_LEAD"):
                work()


def test_lead_conversion_into_what_is_there(books: Books) -> None:
    """An account that exists is used, and no opportunity made where none is wanted."""
    account = books.create("Account", Name="Acme")
    lead = books.create("Lead", LastName="L", Company="Acme")
    with books.org.transaction(USER, "") as transaction:
        converted = transaction.convert_lead(lead, account_id=account, create_opportunity=False)
    assert (converted.account_id, converted.opportunity_id) == (account, None)
    assert books.kinds() == [("Contact", "CREATE"), ("Lead", "UPDATE")]
