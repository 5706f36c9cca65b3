"""Events of real transactions of the org, as a subscriber reads them from the log."""

from typing import Any

import orjson
import pytest

from connector.devorg.events.channels import channel_named
from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.records.transaction import Transaction
from connector.devorg.server import DevOrg
from tests.devorg.streaming import ORIGIN, RawClient

Payload = dict[str, Any]
OTHER_USER = "0055f000007SvcUAAS"


class Watched:
    """An org and the place in its log up to which a test has looked."""

    def __init__(self, org: DevOrg) -> None:
        self.parts = org.ctx
        self._after = org.ctx.bus.latest_id()

    def write(self, user_id: str = INTEGRATION_USER_ID, origin: str = ORIGIN) -> Any:
        """A transaction, to be entered."""
        return self.parts.org.transaction(user_id, origin)

    def events(self) -> list[Payload]:
        """What was logged since the last call."""
        channel = channel_named("/data/ChangeEvents", self.parts.schema, {})
        assert channel is not None
        logged = self.parts.bus.read(channel, self._after, 1000)
        self._after = self.parts.bus.latest_id()
        return [orjson.loads(event.payload) for event in logged]

    def create(self, name: str, **values: Any) -> str:
        """Create one record and look past its events."""
        with self.write() as transaction:
            record_id: str = transaction.create(name, values)
        self.events()
        return record_id


@pytest.fixture
def watched(org: DevOrg) -> Watched:
    return Watched(org)


def headers(payloads: list[Payload]) -> list[tuple[str, str, int]]:
    """Object, kind and number of records of each event."""
    found = [payload["ChangeEventHeader"] for payload in payloads]
    return [(header["entityName"], header["changeType"], len(header["recordIds"])) for header in found]


def test_an_update_by_the_same_and_by_another_user(watched: Watched) -> None:
    """The modifier is told only where it is another one than before."""
    contact = watched.create("Contact", LastName="Berg", Phone="1")
    for user_id, told in ((INTEGRATION_USER_ID, False), (OTHER_USER, True), (OTHER_USER, False)):
        with watched.write(user_id) as transaction:
            transaction.update("Contact", contact, {"Phone": user_id[-4:] + str(told)})
        (payload,) = watched.events()
        assert ("LastModifiedById" in payload) is told
        assert payload["ChangeEventHeader"]["commitUser"] == user_id
        assert "LastModifiedDate" in payload


def test_several_writes_to_one_record_are_one_event(watched: Watched) -> None:
    """Created and updated is created, with the final values; created and deleted is nothing."""
    with watched.write() as transaction:
        contact = transaction.create("Contact", {"LastName": "Berg"})
        transaction.update("Contact", contact, {"Phone": "1"})
        gone = transaction.create("Contact", {"LastName": "Quay"})
        transaction.delete("Contact", gone)
    (payload,) = watched.events()
    assert (payload["ChangeEventHeader"]["changeType"], payload["Phone"]) == ("CREATE", "1")


def test_bulk_delete_and_undelete(watched: Watched) -> None:
    """Deletes merge; what comes back comes whole."""
    ids = [watched.create("Contact", LastName=f"Berg {number}") for number in range(3)]
    with watched.write() as transaction:
        for record_id in ids:
            transaction.delete("Contact", record_id)
    (payload,) = watched.events()
    assert payload["ChangeEventHeader"]["recordIds"] == ids
    with watched.write() as transaction:
        transaction.undelete("Contact", ids[1])
    (payload,) = watched.events()
    assert payload["ChangeEventHeader"]["changeType"] == "UNDELETE"
    assert payload["Name"] == {"LastName": "Berg 1"}
    with watched.write() as transaction:
        transaction.purge("Contact", ids[0])
    assert watched.events() == []


def test_lead_conversion(watched: Watched) -> None:
    """Account, contact, opportunity, lead: one transaction in that order."""
    lead = watched.create("Lead", LastName="Berg", Company="Quay Works", Email="ola@example.com")
    with watched.write() as transaction:
        transaction.convert_lead(lead)
    payloads = watched.events()
    assert headers(payloads) == [
        ("Account", "CREATE", 1),
        ("Contact", "CREATE", 1),
        ("Opportunity", "CREATE", 1),
        ("Lead", "UPDATE", 1),
    ]
    found = [payload["ChangeEventHeader"] for payload in payloads]
    assert [header["sequenceNumber"] for header in found] == [1, 2, 3, 4]
    assert len({header["transactionKey"] for header in found}) == 1
    converted = payloads[3]
    assert converted["IsConverted"] is True
    assert len(converted["ConvertedDate"]) == len("2026-01-01")
    assert converted["ConvertedContactId"] == found[1]["recordIds"][0]
    assert payloads[1]["AccountId"] == converted["ConvertedAccountId"] == found[0]["recordIds"][0]


def test_merge_tells_of_losers_and_winner(watched: Watched) -> None:
    """The loser is deleted, its children move, the winner changes where it was given values."""
    winner, loser = (watched.create("Account", Name=name) for name in ("Quay", "Quay Ltd"))
    contact = watched.create("Contact", LastName="Berg", AccountId=loser)
    with watched.write() as transaction:
        transaction.merge("Account", winner, [loser], {"Phone": "1"})
    told = {
        (payload["ChangeEventHeader"]["changeType"], record_id): payload
        for payload in watched.events()
        for record_id in payload["ChangeEventHeader"]["recordIds"]
    }
    assert told.keys() == {("DELETE", loser), ("UPDATE", winner), ("UPDATE", contact)}
    assert told["UPDATE", contact]["AccountId"] == winner
    assert "MasterRecordId" not in str(told)


def test_deleted_account_takes_its_contacts_along(watched: Watched) -> None:
    """Each child has its delete, merged per object."""
    account = watched.create("Account", Name="Quay")
    for number in range(3):
        watched.create("Contact", LastName=f"Berg {number}", AccountId=account)
    with watched.write() as transaction:
        transaction.delete("Account", account)
    assert sorted(headers(watched.events())) == [("Account", "DELETE", 1), ("Contact", "DELETE", 3)]


def test_stage_brings_what_follows_from_it(watched: Watched) -> None:
    """Fields that the org derives and stores are part of the update."""
    deal = watched.create("Opportunity", Name="Deal", StageName="Prospecting", CloseDate="2026-12-01", Amount=100)
    with watched.write() as transaction:
        transaction.update("Opportunity", deal, {"StageName": "Closed Won"})
    (payload,) = watched.events()
    assert (payload["IsWon"], payload["IsClosed"], payload["StageName"]) == (True, True, "Closed Won")
    assert payload["ChangeEventHeader"]["changedFields"][-1] != "SystemModstamp"


def test_refused_write_gives_no_event(watched: Watched) -> None:
    """A transaction that fails leaves nothing in the log."""

    def fail(transaction: Transaction) -> None:
        transaction.create("Contact", {"LastName": "Berg"})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), watched.write() as transaction:
        fail(transaction)
    assert watched.events() == []


def test_unreadable_fields_are_left_out(watched: Watched) -> None:
    """Field-level security: neither in the body nor among the changed fields."""
    watched.parts.event_options.unreadable_fields = ("Contact.Phone",)
    contact = watched.create("Contact", LastName="Berg")
    with watched.write() as transaction:
        transaction.update("Contact", contact, {"Phone": "1", "Title": "Dr."})
    (payload,) = watched.events()
    assert "Phone" not in str(payload)
    assert payload["Title"] == "Dr."


async def test_enriched_channel_ungroups_and_adds(org: DevOrg, watched: Watched) -> None:
    """One event per record, all with one replay id; the added values are those of the moment of delivery."""
    ids = [watched.create("Contact", LastName=name, Email=f"{name}@example.com") for name in ("a", "b")]
    org.ctx.bus.define_channel("Sales__chn", ["Contact"], {"Contact": ["Email", "Name", "Fax"]})
    async with RawClient(org) as client:
        await client.start("/data/Sales__chn")
        with watched.write() as transaction:
            for record_id in ids:
                transaction.update("Contact", record_id, {"Phone": "1"})
        events = (await client.connect())[:-1]
    bodies = [event["data"]["payload"] for event in events]
    assert [body["ChangeEventHeader"]["recordIds"] for body in bodies] == [[record_id] for record_id in ids]
    assert len({event["data"]["event"]["replayId"] for event in events}) == 1
    assert [(body["Email"], body["Name"], body["Phone"]) for body in bodies] == [
        ("a@example.com", {"LastName": "a"}, "1"),
        ("b@example.com", {"LastName": "b"}, "1"),
    ]
    assert "Fax" not in str(bodies)
    assert bodies[0]["ChangeEventHeader"]["changedFields"] == ["Phone", "LastModifiedDate"]
    assert headers(watched.events()) == [("Contact", "UPDATE", 2)]
